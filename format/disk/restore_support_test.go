//go:build linux

package disk

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// script builds the records of a stream by hand.
type script struct {
	recs  []format.Record
	owner [2]uint32
}

var (
	testTime = format.Time{Sec: 1_600_000_000, Nsec: 123_456_789}
	baseHas  = format.HasMode | format.HasUID | format.HasGID | format.HasMtime
)

func newScript(features ...format.Feature) *script {
	return &script{
		recs:  []format.Record{&format.Header{Version: 1, Features: features}},
		owner: [2]uint32{uint32(os.Geteuid()), uint32(os.Getegid())},
	}
}

func testID(s string) format.ID { return format.SumID([]byte(s)) }

func (s *script) add(recs ...format.Record) *script {
	s.recs = append(s.recs, recs...)
	return s
}

// snapshot begins a snapshot; options change it.
func (s *script) snapshot(name, parent string, options ...func(*format.Snapshot)) *script {
	rec := &format.Snapshot{ID: testID(name)}
	if parent != "" {
		rec.Parent = testID(parent)
	}
	for _, o := range options {
		o(rec)
	}
	return s.add(rec)
}

func roots(paths ...string) func(*format.Snapshot) {
	return func(s *format.Snapshot) { s.Roots = paths }
}

func unsorted(s *format.Snapshot) { s.Unsorted = true }

func (s *script) object(path string, typ format.Type, mode uint32, options ...func(*format.Entry)) *script {
	e := &format.Entry{Path: path, Type: typ, Has: baseHas, Mode: mode, UID: s.owner[0], GID: s.owner[1], Mtime: testTime}
	for _, o := range options {
		o(e)
	}
	return s.add(e)
}

func (s *script) dir(path string, mode uint32, options ...func(*format.Entry)) *script {
	return s.object(path, format.TypeDir, mode, options...)
}

func (s *script) symlink(path, target string, options ...func(*format.Entry)) *script {
	return s.object(path, format.TypeSymlink, 0o777, append(options, func(e *format.Entry) { e.Target = target })...)
}

// run is a run of a file's content.
type run struct {
	rec  func() format.Record
	size int
}

// chunk is content that comes with the stream, and may be referred to later.
func chunk(text string) run {
	return run{func() format.Record {
		return &format.Data{ID: format.SumID([]byte(text)), Size: uint32(len(text)), Payload: []byte(text)}
	}, len(text)}
}

func once(text string) run {
	return run{func() format.Record {
		return &format.Data{ID: format.SumID([]byte(text)), Size: uint32(len(text)), Payload: []byte(text), Once: true}
	}, len(text)}
}

func ref(text string) run {
	return run{func() format.Record {
		return &format.Refs{Chunks: []format.ChunkRef{{ID: format.SumID([]byte(text)), Size: uint32(len(text))}}}
	}, len(text)}
}

func hole(size int) run {
	return run{func() format.Record { return &format.Hole{Size: uint64(size)} }, size}
}

func copied(offset, size int, from string) run {
	return run{func() format.Record {
		return &format.CopyRange{Offset: uint64(offset), Size: uint64(size), From: from, HasFrom: from != ""}
	}, size}
}

// file adds an entry with its content.
func (s *script) file(path string, content []run, options ...func(*format.Entry)) *script {
	size := 0
	for _, c := range content {
		size += c.size
	}
	s.object(path, format.TypeFile, 0o644, append([]func(*format.Entry){func(e *format.Entry) {
		e.Size, e.Has = uint64(size), e.Has|format.HasSize
	}}, options...)...)
	for _, c := range content {
		s.add(c.rec())
	}
	return s.add(&format.EOF{Size: uint64(size)})
}

func text(s string) []run { return []run{chunk(s)} }

func (s *script) remove(path string) *script { return s.add(&format.Remove{Path: path}) }
func (s *script) commit() *script            { return s.add(&format.Commit{}) }
func (s *script) end() *script               { return s.add(&format.End{}) }

func mode(m uint32) func(*format.Entry) { return func(e *format.Entry) { e.Mode = m } }

func mtime(sec int64, nsec uint32) func(*format.Entry) {
	return func(e *format.Entry) { e.Mtime = format.Time{Sec: sec, Nsec: nsec} }
}

func hardlink(name string) func(*format.Entry) { return func(e *format.Entry) { e.Hardlink = name } }

func xattr(name, value string) func(*format.Entry) {
	return func(e *format.Entry) { e.Xattrs = append(e.Xattrs, format.Xattr{Name: name, Value: value}) }
}

func owned(uid, gid uint32) func(*format.Entry) {
	return func(e *format.Entry) { e.UID, e.GID = uid, gid }
}

// restore writes the records into target. Payloads are handed over as copies,
// since sinks may take them.
func restore(t testing.TB, target string, opts RestoreOptions, s *script) (Summary, error) {
	t.Helper()
	r, err := NewRestore(context.Background(), target, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range s.recs {
		if d, ok := rec.(*format.Data); ok {
			c := *d
			c.Payload = bytes.Clone(d.Payload)
			rec = &c
		}
		if err = r.Write(rec); err != nil {
			break
		}
	}
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return r.Summary(), err
}

// mustRestore is restore where nothing may go wrong.
func mustRestore(t testing.TB, target string, opts RestoreOptions, s *script) Summary {
	t.Helper()
	opts.OnProblem = func(p Problem) { t.Errorf("loss %s at %q: %v", p.Kind, p.Path, p.Err) }
	sum, err := restore(t, target, opts, s)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// tree describes everything below dir, a line for each object by its path.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if rel != "." {
			out[rel] = describe(t, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func describe(t testing.TB, p string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	perm := st.Mode & 07777
	kind := map[uint32]string{unix.S_IFREG: "file", unix.S_IFDIR: "dir", unix.S_IFLNK: "link", unix.S_IFIFO: "fifo",
		unix.S_IFSOCK: "socket", unix.S_IFCHR: "char", unix.S_IFBLK: "block"}[st.Mode&unix.S_IFMT]
	fmt.Fprintf(&b, "%s %04o", kind, perm)
	switch kind {
	case "file":
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 64 {
			fmt.Fprintf(&b, " %d bytes %s", len(text), format.SumID(text).Short())
		} else {
			fmt.Fprintf(&b, " %q", text)
		}
	case "link":
		target, _ := os.Readlink(p)
		fmt.Fprintf(&b, " -> %s", target)
	case "char", "block":
		fmt.Fprintf(&b, " %d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	}
	if got := (format.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}); got != testTime {
		fmt.Fprintf(&b, " at %d.%09d", got.Sec, got.Nsec)
	}
	if int(st.Uid) != os.Geteuid() || int(st.Gid) != os.Getegid() {
		fmt.Fprintf(&b, " of %d:%d", st.Uid, st.Gid)
	}
	if kind != "dir" && st.Nlink > 1 {
		fmt.Fprintf(&b, " links %d", st.Nlink)
	}
	for _, name := range xattrNames(p) {
		buf := make([]byte, 1024)
		n, err := unix.Lgetxattr(p, name, buf)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, " %s=%x", name, buf[:n])
	}
	return b.String()
}

func xattrNames(p string) []string {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(p, buf)
	if err != nil || n == 0 {
		return nil
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	names = slices.DeleteFunc(names, func(s string) bool { return s == "security.selinux" })
	slices.Sort(names)
	return names
}

// lossKinds are the kinds and counts in a summary, as text.
func lossKinds(s Summary) string {
	var parts []string
	for _, l := range s.Losses {
		parts = append(parts, fmt.Sprintf("%s:%d", l.Kind, l.Count))
	}
	return strings.Join(parts, " ")
}

func needRoot(t testing.TB) {
	if os.Geteuid() != 0 {
		t.Skip("only root may do what this needs; CI runs as root")
	}
}

// write makes a file with a time that no entry has, unless told otherwise.
func write(t testing.TB, p, text string, when ...time.Time) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if len(when) > 0 {
		if err := os.Chtimes(p, when[0], when[0]); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t testing.TB, p string) string {
	t.Helper()
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func inode(t testing.TB, p string) uint64 {
	t.Helper()
	info, err := os.Lstat(p)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// tempDir is TempDir for trees in which not everything is accessible.
func tempDir(t *testing.T) string {
	dir := t.TempDir()
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(p, 0o700)
			}
			return nil
		})
	})
	return dir
}
