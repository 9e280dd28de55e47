package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
)

// listed is a file of a listing with its content.
type listed struct {
	format.Entry
	Content string
	Holes   []format.Extent
	Chunks  []format.ID // zero for holes
	EOF     format.EOF
}

// listing is what a snapshot's records amount to: the naive model of a receiver.
type model map[string]*listed

func (m model) clone() model {
	c := make(model, len(m))
	for p, f := range m {
		c[p] = f
	}
	return c
}

func (m model) paths() []string {
	paths := make([]string, 0, len(m))
	for p := range m {
		paths = append(paths, p)
	}
	slices.SortFunc(paths, format.ComparePaths)
	return paths
}

func (m model) removeBelow(p string) {
	for q := range m {
		if format.IsBelow(q, p) {
			delete(m, q)
		}
	}
}

// previous hands a model out as a previous listing.
type previous struct {
	m     model
	paths []string
	last  format.Entry
}

func (m model) previous() *previous { return &previous{m: m, paths: m.paths()} }

func (p *previous) Next() (*format.Entry, error) {
	// What was handed out is no longer valid.
	clear(p.last.Xattrs)
	clear(p.last.Flags)
	p.last = format.Entry{}
	if len(p.paths) == 0 {
		return nil, io.EOF
	}
	p.last = p.m[p.paths[0]].Entry
	p.last.Xattrs = slices.Clone(p.last.Xattrs)
	p.last.Flags = slices.Clone(p.last.Flags)
	p.paths = p.paths[1:]
	return &p.last, nil
}

// scanned is what a scan handed out.
type scanned struct {
	model   model // after its records were applied
	records []string
	data    int // data records
	copies  int // copy records
	header  format.Header
	commit  format.Commit
	stats   ScanStats
	errors  []string
	entries []string // paths of entry records
	removes []string
}

var testFactory = func() *chunker.Factory {
	spec, err := chunker.ParseSpec("gear:4KiB,16KiB,64KiB")
	if err != nil {
		panic(err)
	}
	f, err := chunker.New(spec, chunker.Public())
	if err != nil {
		panic(err)
	}
	return f
}()

func testChunkerFor(string, uint64) (func() chunker.Splitter, string) {
	return testFactory.Splitter, testFactory.Spec().String()
}

// scan runs a scan to its end and applies its records to base, checking every
// rule of the stream on the way.
func scan(t testing.TB, base model, o ScanOptions) *scanned {
	t.Helper()
	got, err := tryScan(t, base, o)
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	return got
}

func tryScan(t testing.TB, base model, o ScanOptions) (*scanned, error) {
	t.Helper()
	got := &scanned{model: base.clone()}
	o.ChunkerFor = testChunkerFor
	if o.Snapshot.ID.IsZero() {
		o.Snapshot.ID = format.ID{1}
	}
	if base != nil {
		o.Previous = base.previous()
		o.Snapshot.Parent = format.ID{2}
	}
	o.OnError = func(path string, err error) { got.errors = append(got.errors, path+": "+err.Error()) }
	s, err := Scan(context.Background(), o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	r := newReceiver(t, got)
	for {
		rec, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return got, err
		}
		r.take(rec)
	}
	if !r.ended {
		t.Errorf("the source ended without an end record")
	}
	got.stats = s.Stats()
	return got, nil
}

// receiver applies records to a model.
type receiver struct {
	*scanned
	t     testing.TB
	base  model // what copy records take from
	sent  map[format.ID]string
	state string
	last  *string // path of the entry or remove before
	file  *listed
	plain []byte // of file
	ended bool
	bytes uint64
	// writer knows the rules of the stream.
	writer *format.Writer
}

func newReceiver(t testing.TB, got *scanned) *receiver {
	w := format.NewWriter(io.Discard, format.WriterOptions{})
	return &receiver{scanned: got, t: t, base: got.model.clone(), sent: make(map[format.ID]string), writer: w}
}

func (r *receiver) take(rec format.Record) {
	t := r.t
	t.Helper()
	if err := r.writer.Write(rec); err != nil {
		t.Fatal(err)
	}
	place := map[format.Kind]string{
		format.KindHeader: "", format.KindSnapshot: "header", format.KindEntry: "listing", format.KindRemove: "listing",
		format.KindData: "file", format.KindRefs: "file", format.KindHole: "file", format.KindCopy: "file", format.KindEOF: "file",
		format.KindCommit: "listing", format.KindEnd: "committed",
	}
	if want := place[rec.Kind()]; want != r.state {
		t.Fatalf("record %s in the state %q", rec.Kind(), r.state)
	}
	switch x := rec.(type) {
	case *format.Header:
		r.state, r.header = "header", *x
	case *format.Snapshot:
		r.state = "listing"
	case *format.Entry:
		r.order(x.Path)
		r.entry(x)
	case *format.Remove:
		r.order(x.Path)
		r.removes = append(r.removes, x.Path)
		if r.model[x.Path] == nil && len(r.model.below("/"+x.Path)) == 0 {
			t.Errorf("nothing is at %q that could be removed", x.Path)
		}
		delete(r.model, x.Path)
		r.model.removeBelow(x.Path)
	case *format.Data:
		r.chunk(x)
	case *format.Refs:
		r.records = append(r.records, fmt.Sprintf("refs %x", x.Chunks))
		if len(x.Chunks) == 0 || len(x.Chunks) > format.RefsMax {
			t.Fatalf("refs of %d chunks", len(x.Chunks))
		}
		for _, c := range x.Chunks {
			plain, ok := r.sent[c.ID]
			if !ok || len(plain) != int(c.Size) {
				t.Fatalf("%s refers to %s of %d bytes, which was not sent so", r.file.Path, c.ID, c.Size)
			}
			r.plain = append(r.plain, plain...)
			r.file.Chunks = append(r.file.Chunks, c.ID)
		}
	case *format.Hole:
		r.file.Holes = append(r.file.Holes, format.Extent{Offset: uint64(len(r.plain)), Size: x.Size})
		r.plain = append(r.plain, make([]byte, x.Size)...)
		r.file.Chunks = append(r.file.Chunks, format.ID{})
	case *format.CopyRange:
		// Only whole files are taken over from the parent.
		from := r.base[r.file.Path]
		if from == nil || x.HasFrom || x.Offset != 0 || x.Size != uint64(len(from.Content)) {
			t.Fatalf("%s is to be a copy of %+v", r.file.Path, x)
		}
		r.plain = append(r.plain, from.Content...)
		r.file.Holes, r.file.Chunks = from.Holes, from.Chunks
		r.copies++
	case *format.EOF:
		r.state = "listing"
		r.file.Content = string(r.plain)
		if x.Size != uint64(len(r.file.Content)) {
			t.Errorf("%s: eof says %d bytes, %d came", r.file.Path, x.Size, len(r.file.Content))
		}
		r.bytes += x.Size
		r.file.EOF = *x
	case *format.Commit:
		r.state, r.commit = "committed", *x
		if int(x.Entries) != len(r.entries) || int(x.Removes) != len(r.removes) || int(x.Data) != r.data || x.Bytes != r.bytes {
			t.Errorf("commit counts %+v, but %d entries, %d removes, %d data, %d bytes came", *x, len(r.entries), len(r.removes), r.data, r.bytes)
		}
	case *format.End:
		r.state, r.ended = "end", x.Snapshots == 1
	default:
		t.Fatalf("unexpected record %T", rec)
	}
}

func (r *receiver) order(path string) {
	r.t.Helper()
	if r.last != nil && format.ComparePaths(*r.last, path) >= 0 {
		r.t.Fatalf("%q comes after %q", path, *r.last)
	}
	r.last = &path
	if err := format.CheckPath(path); err != nil {
		r.t.Fatal(err)
	}
}

func (r *receiver) entry(x *format.Entry) {
	f := &listed{Entry: *x}
	f.Xattrs, f.Flags, f.Extents = slices.Clone(x.Xattrs), slices.Clone(x.Flags), slices.Clone(x.Extents)
	r.entries = append(r.entries, x.Path)
	shown := f.Entry
	shown.Atime = format.Time{}
	r.records = append(r.records, fmt.Sprintf("%+v", shown))
	for p := x.Path; p != ""; {
		p = p[:max(strings.LastIndexByte(p, '/'), 0)]
		if above := r.model[p]; above != nil && above.Type != format.TypeDir {
			r.t.Fatalf("%q lies below a %s", x.Path, above.Type)
		}
	}
	r.model[x.Path] = f
	if x.Type != format.TypeDir {
		r.model.removeBelow(x.Path)
	}
	if x.Type == format.TypeFile {
		r.file, r.state, r.plain = f, "file", r.plain[:0]
	}
}

func (r *receiver) chunk(x *format.Data) {
	r.data++
	r.records = append(r.records, fmt.Sprintf("data %s %d", x.ID, x.Size))
	plain, err := format.DecodePayload(nil, x)
	if err != nil {
		r.t.Fatal(err)
	}
	if format.SumID(plain) != x.ID || len(plain) != int(x.Size) {
		r.t.Fatalf("%s: a chunk is not what its id says", r.file.Path)
	}
	r.sent[x.ID] = string(plain)
	r.plain = append(r.plain, plain...)
	r.file.Chunks = append(r.file.Chunks, x.ID)
	if r.data%2 == 0 {
		// Others do what they like with a payload that they took.
		taken := x.Take()
		clear(taken)
		format.FreePayload(taken)
	}
}

// compareOptions leave out what is informative.
var compareOptions = cmp.Options{
	cmpopts.IgnoreFields(format.Entry{}, "Atime", "Ctime", "Btime", "Inode", "Links", "Chunker", "Has"),
	cmpopts.IgnoreFields(listed{}, "EOF", "Chunks"),
	cmpopts.EquateEmpty(),
}

func diffModels(t testing.TB, want, got model) {
	t.Helper()
	if d := cmp.Diff(want, got, compareOptions); d != "" {
		t.Errorf("listings differ (-want +got):\n%s", d)
	}
}

// checkAgainstDisk compares a listing with what plain calls say of the files.
func checkAgainstDisk(t testing.TB, m model, root string) {
	t.Helper()
	seen := 0
	var visit func(path string)
	visit = func(path string) {
		f := m[strings.TrimPrefix(path, "/")]
		if f == nil {
			t.Errorf("%q is not in the listing", path)
			return
		}
		seen++
		checkFile(t, f, path)
		if f.Type != format.TypeDir {
			return
		}
		names, err := os.ReadDir(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			visit(path + "/" + n.Name())
		}
	}
	visit(root)
	for p := range m {
		if !strings.HasPrefix("/"+p, root+"/") && "/"+p != root && !strings.HasPrefix(root, "/"+p+"/") {
			t.Errorf("%q is in the listing but not below the root", p)
		}
		if format.IsBelow("/"+p, root) {
			seen--
		}
	}
	if seen != 1 {
		t.Errorf("%d files more on disk than in the listing", seen-1)
	}
}

func checkFile(t testing.TB, f *listed, path string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	types := map[format.Type]uint32{
		format.TypeFile: unix.S_IFREG, format.TypeDir: unix.S_IFDIR, format.TypeSymlink: unix.S_IFLNK, format.TypeChar: unix.S_IFCHR,
		format.TypeBlock: unix.S_IFBLK, format.TypeFifo: unix.S_IFIFO, format.TypeSocket: unix.S_IFSOCK,
	}
	want := format.Entry{
		Path: strings.TrimPrefix(path, "/"), Type: f.Type, Has: f.Has, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		User: f.User, Group: f.Group, Mtime: format.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)},
		Ctime: format.Time{Sec: st.Ctim.Sec, Nsec: uint32(st.Ctim.Nsec)}, Atime: f.Atime, Btime: f.Btime,
		Inode: st.Ino, Links: st.Nlink, Hardlink: f.Hardlink, Flags: f.Flags, Extents: f.Extents, Chunker: f.Chunker,
	}
	if st.Mode&unix.S_IFMT != types[f.Type] {
		t.Errorf("%q is a %s in the listing, its mode is %o", path, f.Type, st.Mode)
	}
	switch f.Type {
	case format.TypeFile:
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content, []byte(f.Content)) {
			t.Errorf("%q has other content in the listing", path)
		}
		want.Size = uint64(len(content))
	case format.TypeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		want.Target = target
	case format.TypeChar, format.TypeBlock:
		want.Rdev = format.Rdev{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
	}
	if (st.Nlink > 1 && f.Type != format.TypeDir) != (f.Hardlink != "") {
		t.Errorf("%q has %d links and is in the group %x", path, st.Nlink, f.Hardlink)
	}
	want.Xattrs = xattrsByPath(t, path)
	if d := cmp.Diff(want, f.Entry, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%q (-disk +listing):\n%s", path, d)
	}
}

func xattrsByPath(t testing.TB, path string) []format.Xattr {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	var xattrs []format.Xattr
	for _, name := range strings.Split(string(buf[:n]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		xattrs = append(xattrs, format.Xattr{Name: name, Value: string(value[:n])})
	}
	slices.SortFunc(xattrs, func(a, b format.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return xattrs
}
