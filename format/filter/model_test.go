package filter

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
)

// The model keeps everything in memory: a stream is expanded to whole listings
// with contents, which are then filtered one by one. What a filter makes of a
// stream must expand to the same.

// node is one object of a listing.
type node struct {
	entry   *format.Entry // without content; its path is that of the listing
	content []byte        // holes as zeros
	notes   []string      // of the x- records behind the entry and its content
}

func (n *node) String() string {
	e := n.entry
	content := fmt.Sprintf("%.60q", n.content)
	if len(n.content) > 60 {
		content = format.SumID(n.content).Short()
	}
	return fmt.Sprintf("%q %s %x %q/%d %v %v %v %s %v", e.Path, e.Type, e.Has, e.User, e.UID, e.Mtime, e.Xattrs, e.Extra, content, n.notes)
}

// listing maps paths to what is there. Implied directories have no node.
type listing map[string]*node

func (l listing) removeBelow(path string) {
	for p := range l {
		if format.IsBelow(p, path) {
			delete(l, p)
		}
	}
}

func (l listing) String() string {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(l)) {
		fmt.Fprintf(&b, "  %s\n", l[path])
	}
	return b.String()
}

// expanded is one snapshot of a stream as its receiver sees it.
type expanded struct {
	record  *format.Snapshot
	listing listing
	losses  []format.Loss
	notes   []string // of x- records behind the snapshot and the commit
	named   []string // paths that its records name
}

// expander applies records to listings. It checks what a receiver must: that
// references are served and that nothing lies below what is no directory.
type expander struct {
	base   listing              // of the receiver, for the first snapshot
	baseID format.ID            //
	chunks map[format.ID][]byte // plain
	once   map[format.ID]bool   // not to be referred to
	dataN  map[format.ID]int    // times sent
	done   []*expanded

	open    *expanded
	file    *node
	lastGot format.Record // that is not an extension
	last    *node         // what x- records belong to, if an object
}

func newExpander(base listing, baseID format.ID) *expander {
	return &expander{base: base, baseID: baseID, chunks: map[format.ID][]byte{}, once: map[format.ID]bool{}, dataN: map[format.ID]int{}}
}

// Write takes one record.
func (x *expander) Write(rec format.Record) error {
	if ext, ok := rec.(*format.Extension); ok {
		return x.extension(ext)
	}
	x.lastGot, x.last = rec, x.file
	switch r := rec.(type) {
	case *format.Snapshot:
		return x.begin(r.Clone())
	case *format.Entry:
		return x.entry(r.Clone())
	case *format.Remove:
		x.open.named = append(x.open.named, r.Path)
		delete(x.open.listing, r.Path)
		x.open.listing.removeBelow(r.Path)
	case *format.Data:
		plain, err := format.DecodePayload(nil, r)
		if err != nil {
			return err
		}
		x.chunks[r.ID] = plain
		x.once[r.ID] = r.Once
		x.dataN[r.ID]++
		x.file.content = append(x.file.content, plain...)
	case *format.Refs:
		for _, ref := range r.Chunks {
			plain, ok := x.chunks[ref.ID]
			if !ok || x.once[ref.ID] || len(plain) != int(ref.Size) {
				return fmt.Errorf("%s: refs to chunk %s: came %v, once %v", x.file.entry.Path, ref.ID, ok, x.once[ref.ID])
			}
			x.file.content = append(x.file.content, plain...)
		}
	case *format.Hole:
		x.file.content = append(x.file.content, make([]byte, r.Size)...)
	case *format.EOF:
		if r.Size != uint64(len(x.file.content)) {
			return fmt.Errorf("%s: eof says %d bytes, %d came", x.file.entry.Path, r.Size, len(x.file.content))
		}
		x.file = nil
	case *format.Commit:
		x.open.losses = r.Clone().Losses
		x.done = append(x.done, x.open)
	}
	return nil
}

func (x *expander) begin(r *format.Snapshot) error {
	x.open = &expanded{record: r, listing: listing{}}
	if r.Parent.IsZero() {
		return nil
	}
	parent, parentID := x.base, x.baseID
	if n := len(x.done); n > 0 {
		parent, parentID = x.done[n-1].listing, x.done[n-1].record.ID
	}
	if parentID != r.Parent {
		return fmt.Errorf("snapshot %s has the parent %s, the receiver has %s", r.ID.Short(), r.Parent.Short(), parentID.Short())
	}
	x.open.listing = maps.Clone(parent)
	return nil
}

func (x *expander) entry(e *format.Entry) error {
	l := x.open.listing
	x.open.named = append(x.open.named, e.Path)
	for up := e.Path; up != ""; {
		up = format.ParentPath(up)
		if n := l[up]; n != nil && n.entry.Type != format.TypeDir {
			return fmt.Errorf("entry %q lies below %q, which is of the type %s", e.Path, up, n.entry.Type)
		}
	}
	if e.Type != format.TypeDir {
		l.removeBelow(e.Path)
	}
	x.last = &node{entry: e}
	l[e.Path] = x.last
	if e.Type == format.TypeFile {
		x.file = x.last
	}
	return nil
}

func (x *expander) extension(ext *format.Extension) error {
	note := string(ext.Body[0].Raw[1:])
	switch x.lastGot.(type) {
	case *format.Snapshot, *format.Commit:
		x.open.notes = append(x.open.notes, note)
	case *format.Entry, *format.Data, *format.Refs, *format.Hole, *format.EOF:
		x.last.notes = append(x.last.notes, note)
	}
	return nil
}

// encode writes records as a stream of bytes.
func encode(records []format.Record) ([]byte, error) {
	var out bytes.Buffer
	w := format.NewWriter(&out, format.WriterOptions{})
	for _, rec := range records {
		if err := w.Write(rec); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Flush()
}

// expand reads a stream of bytes to its end.
func expand(stream []byte, x *expander) error {
	return format.Copy(context.Background(), x, format.NewReader(bytes.NewReader(stream), format.ReaderOptions{}))
}

// run filters a stream of bytes.
func runFilter(stream []byte, opts Options) ([]byte, Summary, error) {
	f, err := New(opts)
	if err != nil {
		return nil, Summary{}, err
	}
	defer f.Close()
	var out bytes.Buffer
	w := format.NewWriter(&out, format.WriterOptions{})
	err = format.Copy(context.Background(), w, format.NewReader(bytes.NewReader(stream), format.ReaderOptions{}), f)
	return out.Bytes(), f.Summary(), err
}

// naive filters a whole listing.
func naive(l listing, opts *Options) (listing, error) {
	out := listing{}
	for path, n := range l {
		if dropped(path, n, opts) {
			continue
		}
		path, keep := movePath(path, &opts.Changes)
		if !keep {
			continue
		}
		if out[path] != nil {
			return nil, fmt.Errorf("two objects move to %q", path)
		}
		e := n.entry.Clone()
		e.Path = path
		e.Xattrs = slices.DeleteFunc(e.Xattrs, func(x format.Xattr) bool {
			return slices.ContainsFunc(opts.Changes.DropXattrs, func(p string) bool {
				return strings.HasPrefix(x.Name, strings.TrimSuffix(p, "*"))
			})
		})
		if len(e.Xattrs) == 0 {
			e.Xattrs = nil
		}
		if o := opts.Changes.Owner; o != nil && o.SetUser {
			e.User, e.UID, e.Has = o.User, 0, e.Has&^format.HasUID
		}
		out[path] = &node{e, n.content, n.notes}
	}
	return out, nil
}

func dropped(path string, n *node, opts *Options) bool {
	isDir := n.entry.Type == format.TypeDir
	if drop, _ := opts.Paths.Match(path, isDir); drop {
		return true
	}
	if isDir {
		return false
	}
	a, e := &opts.Attributes, n.entry
	if a.LargerThan != nil && e.Has&format.HasSize != 0 && e.Size > *a.LargerThan ||
		a.OlderThan != nil && e.Mtime.Sec < a.OlderThan.Sec || slices.Contains(a.Types, e.Type) {
		return true
	}
	if e.Type != format.TypeFile {
		return false
	}
	if len(opts.Magic) > 0 && bytes.HasPrefix(n.content, []byte("%PDF-")) {
		return true
	}
	if opts.Judge != nil {
		drop, _ := opts.Judge(e, bytes.NewReader(n.content))
		return drop
	}
	return false
}

func movePath(path string, c *Changes) (string, bool) {
	if c.StripPrefix != "" {
		if !atOrBelow(path, c.StripPrefix) {
			return "", false
		}
		path = strings.TrimPrefix(path[len(c.StripPrefix):], "/")
	}
	best := -1
	for i, r := range c.Renames {
		if atOrBelow(path, r.From) && (best < 0 || len(r.From) > len(c.Renames[best].From)) {
			best = i
		}
	}
	if best < 0 {
		return path, true
	}
	r := c.Renames[best]
	return strings.Trim(r.To+"/"+strings.TrimPrefix(path[len(r.From):], "/"), "/"), true
}

// judgeByWord is a Judge for tests: it drops files that hold the word.
func judgeByWord(word string) Judge {
	return func(_ *format.Entry, content io.Reader) (bool, error) {
		b, err := io.ReadAll(content)
		return bytes.Contains(b, []byte(word)), err
	}
}

// compare reports the first difference between what came and what must come.
func compare(want, got []*expanded, description string) error {
	if len(want) != len(got) {
		return fmt.Errorf("%d snapshots came, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		id := w.record.ID
		if description != "" {
			id = MapID(id, description)
		}
		if g.record.ID != id {
			return fmt.Errorf("snapshot %d has the id %s, want %s", i, g.record.ID.Short(), id.Short())
		}
		if a, b := w.listing.String(), g.listing.String(); a != b {
			return fmt.Errorf("snapshot %d has the listing\n%s, want\n%s", i, b, a)
		}
		if !slices.Equal(w.notes, g.notes) {
			return fmt.Errorf("snapshot %d has the x- records %v, want %v", i, g.notes, w.notes)
		}
	}
	return nil
}
