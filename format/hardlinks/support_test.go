package hardlinks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"maps"
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
	sum  [32]byte
	size uint64
}

// history applies a stream and keeps the listing of every snapshot, and checks
// what a sink checks.
type history struct {
	checker  format.Checker
	snaps    []*format.Snapshot
	listings []map[string]*object
	commits  []*format.Commit
	changes  [][]string // paths of entries, and of removes behind a minus
	data     []int      // data records of each snapshot
	plain    map[format.ID][]byte
	now      map[string]*object
	cur      *object
	sum      hash.Hash
}

func newHistory() *history {
	return &history{plain: map[format.ID][]byte{}, now: map[string]*object{}}
}

// Write implements format.Sink.
func (h *history) Write(rec format.Record) error {
	if err := h.checker.Check(rec, nil); err != nil {
		return err
	}
	last := len(h.snaps) - 1
	switch r := rec.(type) {
	case *format.Snapshot:
		if !r.Parent.IsZero() && last >= 0 && r.Parent != h.snaps[last].ID {
			return errors.New("the parent is not the snapshot before")
		}
		if r.Parent.IsZero() {
			h.now = map[string]*object{}
		}
		h.snaps = append(h.snaps, r.Clone())
		h.changes, h.data = append(h.changes, nil), append(h.data, 0)
	case *format.Entry:
		if r.Type != format.TypeDir {
			h.removeBelow(r.Path)
		}
		h.cur, h.sum = &object{Entry: *r.Clone()}, sha256.New()
		h.now[r.Path] = h.cur
		h.changes[last] = append(h.changes[last], r.Path)
	case *format.Remove:
		delete(h.now, r.Path)
		h.removeBelow(r.Path)
		h.changes[last] = append(h.changes[last], "-"+r.Path)
	case *format.Data:
		plain, err := format.DecodePayload(nil, r)
		if err != nil {
			return err
		}
		if format.SumID(plain) != r.ID {
			return errors.New("a chunk has another id")
		}
		h.plain[r.ID] = plain
		h.data[last]++
		h.run(plain)
	case *format.Refs:
		for _, c := range r.Chunks {
			plain, ok := h.plain[c.ID]
			if !ok || len(plain) != int(c.Size) {
				return fmt.Errorf("refs to %s, which did not come", c.ID)
			}
			h.run(plain)
		}
	case *format.Hole:
		h.run(make([]byte, r.Size))
	case *format.EOF:
		h.sum.Sum(h.cur.sum[:0])
	case *format.Commit:
		h.commits = append(h.commits, r.Clone())
		h.listings = append(h.listings, maps.Clone(h.now))
	}
	return nil
}

func (h *history) removeBelow(path string) {
	for p := range h.now {
		if format.IsBelow(p, path) {
			delete(h.now, p)
		}
	}
}

func (h *history) run(plain []byte) {
	h.sum.Write(plain)
	h.cur.size += uint64(len(plain))
}

// read exports from the set at place.
func read(t testing.TB, place string, opts Options, export format.ExportOptions) *history {
	t.Helper()
	system := open(t, place, opts)
	h, err := export2(t, system, export)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func open(t testing.TB, place string, opts Options) *System {
	t.Helper()
	opts.TempDir = t.TempDir()
	system, err := Open(place, opts)
	if err != nil {
		t.Fatal(err)
	}
	return system
}

func export2(t testing.TB, system *System, export format.ExportOptions) (*history, error) {
	t.Helper()
	src, err := system.Export(context.Background(), export)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}()
	h := newHistory()
	h.checker.ListingOnly = export.ListingOnly
	return h, format.Copy(context.Background(), h, src)
}

// lines prints a listing below a prefix as a manifest's lines.
func lines(listing map[string]*object, prefix string) map[string]map[string]string {
	out := map[string]map[string]string{}
	groups := map[string][]string{}
	for path, o := range listing {
		if o.Hardlink != "" {
			groups[o.Hardlink] = append(groups[o.Hardlink], path)
		}
	}
	below := func(path string) string {
		return strings.TrimPrefix(strings.TrimPrefix(path, prefix), "/")
	}
	for path, o := range listing {
		if path != prefix && !format.IsBelow(path, prefix) {
			continue
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
		case format.TypeSymlink:
			f["link"] = escape(o.Target)
		case format.TypeChar, format.TypeBlock:
			f["rdev"] = fmt.Sprintf("%d:%d", o.Rdev.Major, o.Rdev.Minor)
		}
		if g := groups[o.Hardlink]; o.Hardlink != "" {
			sort.Strings(g)
			f["hl"] = escape(below(g[0]))
			if len(g) == 1 {
				f["hl"] += " alone"
			}
		}
		if len(o.Flags) > 0 {
			f["flags"] = strings.Join(o.Flags, ",")
		}
		for _, x := range o.Xattrs {
			f["x:"+escape(x.Name)] = hex.EncodeToString([]byte(x.Value))
		}
		name := below(path)
		if name == "" {
			name = "."
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
			if key != "data" {
				f[key] = value
			}
		}
		out[words[0]] = f
	}
	return out
}

// differences lists what differs between two sets of lines.
func differences(want, got map[string]map[string]string) []string {
	var out []string
	for path, w := range want {
		g, ok := got[path]
		if !ok {
			out = append(out, "missing "+path+" "+w["type"])
			continue
		}
		keys := slices.Collect(maps.Keys(w))
		for k := range g {
			if _, ok := w[k]; !ok {
				keys = append(keys, k)
			}
		}
		for _, k := range keys {
			_, inW := w[k]
			_, inG := g[k]
			if w[k] != g[k] || inW != inG {
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
