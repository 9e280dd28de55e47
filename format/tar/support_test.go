package tar

import (
	stdtar "archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/bk-backup/bk/format"
)

// object is what a listing has at a path.
type object struct {
	format.Entry
	sum     [32]byte
	size    uint64
	content []byte          // if it is small
	data    []format.Extent // what was no hole
	records int             // how often the path came
}

// listing applies a stream to an empty listing, and checks what a sink checks.
type listing struct {
	t       testing.TB
	objects map[string]*object
	chunks  map[format.ID]uint32
	plain   map[format.ID][]byte
	checker format.Checker
	cur     *object
	sum     hash.Hash
	commits []*format.Commit
	snaps   []*format.Snapshot
	header  *format.Header
}

func newListing(t testing.TB) *listing {
	return &listing{t: t, objects: map[string]*object{}, chunks: map[format.ID]uint32{}, plain: map[format.ID][]byte{}}
}

// Write implements format.Sink.
func (l *listing) Write(rec format.Record) error {
	if err := l.checker.Check(rec, nil); err != nil {
		return err
	}
	switch r := rec.(type) {
	case *format.Header:
		l.header = r.Clone()
	case *format.Snapshot:
		l.snaps = append(l.snaps, r.Clone())
		l.objects = map[string]*object{}
	case *format.Entry:
		for p := r.Path; p != ""; {
			p = format.ParentPath(p)
			if o := l.objects[p]; o != nil && o.Type != format.TypeDir {
				return fmt.Errorf("entry %q lies below %q, which is a %s", r.Path, p, o.Type)
			}
		}
		o := &object{Entry: *r.Clone(), records: 1}
		if old := l.objects[r.Path]; old != nil {
			o.records += old.records
		}
		if r.Type != format.TypeDir {
			for p := range l.objects {
				if format.IsBelow(p, r.Path) {
					delete(l.objects, p)
				}
			}
		}
		l.objects[r.Path] = o
		l.cur, l.sum = o, sha256.New()
	case *format.Data:
		plain, err := format.DecodePayload(nil, r)
		if err != nil {
			return err
		}
		if format.SumID(plain) != r.ID {
			return errors.New("a chunk has another id")
		}
		l.plain[r.ID] = plain
		l.run(plain)
	case *format.Refs:
		for _, c := range r.Chunks {
			plain, ok := l.plain[c.ID]
			if !ok || len(plain) != int(c.Size) {
				return fmt.Errorf("refs to %s, which did not come", c.ID)
			}
			l.run(plain)
		}
	case *format.Hole:
		zeros := make([]byte, 1<<16)
		for n := r.Size; n > 0; n -= min(n, 1<<16) {
			l.sum.Write(zeros[:min(n, 1<<16)])
		}
		l.cur.size += r.Size
	case *format.EOF:
		l.sum.Sum(l.cur.sum[:0])
	case *format.Commit:
		l.commits = append(l.commits, r.Clone())
	}
	return nil
}

func (l *listing) run(plain []byte) {
	l.sum.Write(plain)
	if l.cur.size+uint64(len(plain)) <= 1<<16 {
		l.cur.content = append(l.cur.content, plain...)
	}
	x := format.Extent{Offset: l.cur.size, Size: uint64(len(plain))}
	if n := len(l.cur.data); n > 0 && l.cur.data[n-1].Offset+l.cur.data[n-1].Size == x.Offset {
		l.cur.data[n-1].Size += x.Size
	} else {
		l.cur.data = append(l.cur.data, x)
	}
	l.cur.size += uint64(len(plain))
}

func (l *listing) losses() map[string]uint64 {
	out := map[string]uint64{}
	for _, c := range l.commits {
		for _, loss := range c.Losses {
			out[loss.Kind] += loss.Count
		}
	}
	return out
}

// readAll reads an archive from a stream.
func readAll(t testing.TB, archive io.Reader, opts Options, export format.ExportOptions) (*listing, error) {
	t.Helper()
	opts.Stdin = archive
	return readPlace(t, "-", opts, export)
}

func readPlace(t testing.TB, place string, opts Options, export format.ExportOptions) (*listing, error) {
	t.Helper()
	opts.TempDir = t.TempDir()
	system, err := Open(context.Background(), place, opts)
	if err != nil {
		return nil, err
	}
	defer system.Close()
	src, err := system.Export(context.Background(), export)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	l := newListing(t)
	l.checker.ListingOnly = export.ListingOnly
	err = format.Copy(context.Background(), l, src)
	return l, err
}

func mustRead(t testing.TB, archive []byte) *listing {
	t.Helper()
	l, err := readAll(t, bytes.NewReader(archive), Options{}, format.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// lines prints the listing below a prefix as a manifest's lines, without what
// keep does not want.
func (l *listing) lines(prefix string) map[string]map[string]string {
	out := map[string]map[string]string{}
	groups := map[string][]string{}
	for path, o := range l.objects {
		if o.Hardlink != "" {
			groups[o.Hardlink] = append(groups[o.Hardlink], path)
		}
	}
	for path, o := range l.objects {
		if path != prefix && !format.IsBelow(path, prefix) {
			continue
		}
		name := strings.TrimPrefix(strings.TrimPrefix(path, prefix), "/")
		if name == "" {
			name = "."
		}
		f := map[string]string{"type": string(o.Type), "mode": fmt.Sprintf("%04o", o.Mode),
			"uid": strconv.FormatUint(uint64(o.UID), 10), "gid": strconv.FormatUint(uint64(o.GID), 10)}
		if ns, ok := o.Mtime.UnixNano(); ok {
			f["mtime"] = strconv.FormatInt(ns, 10)
		} else {
			f["mtime"] = fmt.Sprintf("%d%09d", o.Mtime.Sec, o.Mtime.Nsec)
		}
		switch o.Type {
		case format.TypeFile:
			f["size"] = strconv.FormatUint(o.size, 10)
			f["sha256"] = hex.EncodeToString(o.sum[:])
			if whole := []format.Extent{{Size: o.size}}; o.size > 0 && !slices.Equal(o.data, whole) {
				var runs []string
				for _, x := range o.data {
					runs = append(runs, fmt.Sprintf("%d+%d", x.Offset, x.Size))
				}
				f["data"] = strings.Join(runs, ",")
				if len(runs) == 0 {
					f["data"] = "none"
				}
			}
		case format.TypeSymlink:
			f["link"] = escape(o.Target)
		case format.TypeChar, format.TypeBlock:
			f["rdev"] = fmt.Sprintf("%d:%d", o.Rdev.Major, o.Rdev.Minor)
		}
		if g := groups[o.Hardlink]; len(g) > 1 {
			sort.Strings(g)
			f["hl"] = escape(strings.TrimPrefix(strings.TrimPrefix(g[0], prefix), "/"))
		}
		if len(o.Flags) > 0 {
			f["flags"] = strings.Join(o.Flags, ",")
		}
		for _, x := range o.Xattrs {
			f["x:"+escape(x.Name)] = hex.EncodeToString([]byte(x.Value))
		}
		out[escape(name)] = f
	}
	return out
}

func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 0x21 && c <= 0x7e && c != '\\' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// manifest reads what a tree was when the fixtures were made of it.
func manifest(t testing.TB, name string) map[string]map[string]string {
	t.Helper()
	compressed, err := os.ReadFile("testdata/" + name + ".manifest.zst")
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	text, err := z.DecodeAll(compressed, nil)
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]string{"i": "immutable", "d": "nodump", "a": "append"}
	out := map[string]map[string]string{}
	for line := range strings.Lines(string(text)) {
		words := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		f := map[string]string{}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			if key == "flags" {
				value = flags[value]
			}
			f[key] = value
		}
		out[words[0]] = f
	}
	return out
}

// differences lists what differs between two sets of lines, but for some fields.
func differences(want, got map[string]map[string]string, ignore ...string) []string {
	var out []string
	for path, w := range want {
		g, ok := got[path]
		if !ok {
			out = append(out, "missing "+path+" "+w["type"])
			continue
		}
		keys := map[string]bool{}
		for k := range w {
			keys[k] = true
		}
		for k := range g {
			keys[k] = true
		}
		for k := range keys {
			space, _, _ := strings.Cut(k, ":")
			if w[k] != g[k] && !slices.Contains(ignore, space) {
				out = append(out, fmt.Sprintf("%s %s: %s -> %s", path, k, w[k], g[k]))
			}
		}
	}
	for path, g := range got {
		if _, ok := want[path]; !ok {
			out = append(out, "extra "+path+" "+g["type"])
		}
	}
	sort.Strings(out)
	return out
}

// fixture calls fn with one of the archives in tar-files.tar.zst.
func fixture(t testing.TB, name string, fn func(r io.Reader)) {
	t.Helper()
	found := false
	fixtures(t, func(other string, r io.Reader) bool {
		if found = other == name; found {
			fn(r)
		}
		return !found
	})
	if !found {
		t.Fatalf("there is no fixture %s", name)
	}
}

// fixtures calls fn with each of the archives, which takes a while, until it
// returns false.
func fixtures(t testing.TB, fn func(name string, r io.Reader) bool) {
	t.Helper()
	file, err := os.Open("testdata/tar-files.tar.zst")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := zstd.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for r := stdtar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if !fn(strings.TrimPrefix(h.Name, "./"), r) {
			return
		}
	}
}
