package filter

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/bk-backup/bk/format"
	"pgregory.net/rapid"
)

// generator makes random streams: listings that change from one to the next,
// and records that say so in all the ways that the specification allows.
type generator struct {
	t *rapid.T
	n uint32 // counts what must differ: mtimes, notes
}

func (g *generator) intn(n int) int { return rapid.IntRange(0, n-1).Draw(g.t, "n") }

// chance is true once in n times, and false when rapid simplifies.
func (g *generator) chance(n int) bool { return g.intn(n) == n-1 }

func pick[T any](g *generator, list []T) T { return list[g.intn(len(list))] }

var genNames = []string{"cat", "dog", "cat.jpg", "dog.jpg", "Maildir", "x", "cat~"}

// piece is a part of a file's content: a chunk, or a hole of that size.
type piece struct {
	chunk string
	hole  uint64
}

// file is what a listing of the generator holds at a path.
type file struct {
	entry  *format.Entry
	pieces []piece
}

func (f *file) size() (n uint64) {
	for _, p := range f.pieces {
		n += uint64(len(p.chunk)) + p.hole
	}
	return n
}

var genChunks = []string{"a", "bb", "ccc", "meow", "%PDF-1.7", strings.Repeat("long", 200), "purr", "x\x00y",
	strings.Repeat("hiss ", 100), "shared chunk", "another", "more"}

func (g *generator) file(path string, typ format.Type) *file {
	g.n++
	e := &format.Entry{Path: path, Type: typ, Has: format.HasMtime | format.HasMode | format.HasUID, UID: uint32(g.intn(3)),
		Mtime: format.Time{Sec: int64(g.intn(4)) * 1000, Nsec: g.n}, User: pick(g, []string{"jo", "al", ""})}
	if g.chance(4) {
		e.Xattrs = []format.Xattr{{Name: "security.x", Value: "1"}, {Name: "user.y", Value: "2"}}
	}
	if g.chance(6) {
		e.Extra = []format.Field{{Key: "zz", Raw: []byte{7}}}
	}
	f := &file{entry: e}
	switch typ {
	case format.TypeSymlink:
		e.Target = "t"
	case format.TypeFile:
		for range g.intn(4) {
			if g.chance(6) {
				f.pieces = append(f.pieces, piece{hole: uint64(1 + g.intn(3000))})
			} else {
				f.pieces = append(f.pieces, piece{chunk: pick(g, genChunks)})
			}
		}
		if !g.chance(8) {
			e.Has, e.Size = e.Has|format.HasSize, f.size()
		}
	}
	return f
}

var genTypes = []format.Type{format.TypeFile, format.TypeFile, format.TypeFile, format.TypeDir, format.TypeDir, format.TypeSymlink, format.TypeFifo}

// mutate changes a listing in a few places and returns the new one.
func (g *generator) mutate(old map[string]*file) map[string]*file {
	l := maps.Clone(old)
	if l == nil {
		l = map[string]*file{}
	}
	if g.chance(3) {
		l[""] = g.file("", format.TypeDir)
	}
	for range 1 + g.intn(8) {
		path := pick(g, genNames)
		for g.intn(3) > 0 && strings.Count(path, "/") < 3 {
			path += "/" + pick(g, genNames)
		}
		clearBelow := func(path string) {
			for p := range l {
				if format.IsBelow(p, path) {
					delete(l, p)
				}
			}
		}
		if g.chance(4) {
			delete(l, path)
			clearBelow(path)
			continue
		}
		// What is above becomes a directory, or stays implied.
		for up := format.ParentPath(path); up != ""; up = format.ParentPath(up) {
			if f := l[up]; f != nil && f.entry.Type != format.TypeDir || f == nil && !g.chance(3) {
				l[up] = g.file(up, format.TypeDir)
			}
		}
		f := g.file(path, pick(g, genTypes))
		if f.entry.Type != format.TypeDir {
			clearBelow(path)
		}
		l[path] = f
	}
	return l
}

// stage of a history: a listing and how it is to be sent.
type genSnapshot struct {
	record *format.Snapshot
	files  map[string]*file
}

// history makes snapshots, each against the one before unless it is whole.
func (g *generator) history(flat bool) []*genSnapshot {
	var history []*genSnapshot
	var files map[string]*file
	for i := range 1 + g.intn(5) {
		files = g.mutate(files)
		g.n++
		s := &format.Snapshot{ID: numberedID(uint64(i) + 1), Host: pick(g, []string{"h1", "h2"}), Unsorted: g.chance(5)}
		s.Tags = pick(g, [][]string{{"keep"}, nil, {"a", "keep"}})
		for _, path := range sorted(files) {
			if path != "" && g.chance(3) {
				s.Roots = append(s.Roots, path)
			}
		}
		if i > 0 && !flat && !g.chance(6) {
			s.Parent = history[i-1].record.ID
		}
		history = append(history, &genSnapshot{s, files})
	}
	return history
}

// producer turns a history into records.
type producer struct {
	*generator
	flat bool
	sent map[string]bool
	recs []format.Record
}

// stream makes the records of history[from:], where the one before it, if there
// is one, is what the receiver holds.
func (g *generator) stream(history []*genSnapshot, from int, flat bool) []format.Record {
	p := &producer{generator: g, flat: flat, sent: map[string]bool{}}
	header := &format.Header{Version: format.Version, Producer: "gen"}
	if from > 0 && !history[from].record.Parent.IsZero() {
		header.Features = append(header.Features, format.FeatureBase)
	}
	if flat {
		header.Features = append(header.Features, format.FeatureFlat)
	}
	header.Features = append(header.Features, format.FeatureZstd)
	p.add(header)
	for i := from; i < len(history); i++ {
		var before map[string]*file
		if !history[i].record.Parent.IsZero() {
			before = history[i-1].files
		}
		p.snapshot(history[i], before)
	}
	p.add(&format.End{})
	p.markOnce()
	return p.recs
}

func (p *producer) add(rec format.Record) {
	p.recs = append(p.recs, rec)
	if _, atEnd := rec.(*format.End); !atEnd && p.chance(12) {
		p.n++
		note := fmt.Sprintf("note%d", p.n)
		p.recs = append(p.recs, &format.Extension{Name: "x-note", Body: []format.Field{
			{Key: "n", Raw: append([]byte{0xa0 | byte(len(note))}, note...)}}})
	}
}

func (p *producer) snapshot(s *genSnapshot, before map[string]*file) {
	p.add(s.record)
	ops := map[string]*file{} // nil: remove
	for _, path := range sorted(s.files) {
		if f := s.files[path]; before[path] != f || p.chance(5) {
			ops[path] = f
		}
	}
	for _, path := range sorted(before) {
		if s.files[path] == nil && (!gonePath(before, s.files, format.ParentPath(path)) || p.chance(4)) {
			ops[path] = nil
		}
	}
	for _, path := range p.order(ops, s.record.Unsorted) {
		p.op(path, ops[path], s)
	}
	commit := &format.Commit{}
	if p.chance(3) {
		loss := format.Loss{Kind: "unreadable"}
		for _, path := range sorted(s.files) {
			if loss.Paths = append(loss.Paths, path); len(loss.Paths) == 3 {
				break
			}
		}
		loss.Count = uint64(len(loss.Paths) + p.intn(2))
		if loss.Count > 0 {
			commit.Losses = []format.Loss{loss}
		}
	}
	p.add(commit)
}

func sorted(files map[string]*file) []string {
	return slices.SortedFunc(maps.Keys(files), format.ComparePaths)
}

// gonePath reports whether a directory's record, or that of one above it, takes
// away what was below.
func gonePath(before, after map[string]*file, dir string) bool {
	for ; dir != ""; dir = format.ParentPath(dir) {
		if f := after[dir]; before[dir] != nil && f == nil || f != nil && f.entry.Type != format.TypeDir {
			return true
		}
	}
	return false
}

// order returns the paths sorted, or parents before children in any order.
func (p *producer) order(ops map[string]*file, unsorted bool) []string {
	paths := sorted(ops)
	if !unsorted {
		return paths
	}
	weight := map[string]string{}
	for _, name := range genNames {
		weight[name] = fmt.Sprint(p.intn(100), name)
	}
	key := func(path string) string {
		var parts []string
		for _, name := range strings.Split(path, "/") {
			parts = append(parts, weight[name])
		}
		return strings.Join(parts, "\x00")
	}
	sort.SliceStable(paths, func(i, j int) bool { return key(paths[i]) < key(paths[j]) })
	return paths
}

func (p *producer) op(path string, f *file, s *genSnapshot) {
	if s.record.Unsorted && f != nil && f.entry.Type != format.TypeDir && p.chance(4) {
		p.entry(p.file(path, pick(p.generator, []format.Type{format.TypeFile, format.TypeFifo}))) // comes again below
	}
	if f == nil {
		p.add(&format.Remove{Path: path})
	} else {
		p.entry(f)
	}
}

func (p *producer) entry(f *file) {
	p.add(f.entry)
	if f.entry.Type != format.TypeFile {
		return
	}
	var refs []format.ChunkRef
	flush := func() {
		if len(refs) > 0 {
			p.add(&format.Refs{Chunks: refs})
			refs = nil
		}
	}
	for _, piece := range f.pieces {
		id := format.SumID([]byte(piece.chunk))
		switch {
		case piece.hole > 0:
			flush()
			p.add(&format.Hole{Size: piece.hole})
		case p.sent[piece.chunk] && !p.flat:
			refs = append(refs, format.ChunkRef{ID: id, Size: uint32(len(piece.chunk))})
			if p.chance(4) {
				flush()
			}
		default:
			flush()
			p.sent[piece.chunk] = true
			d := &format.Data{ID: id, Size: uint32(len(piece.chunk))}
			var err error
			if d.Codec, d.Payload, err = format.EncodePayload(nil, []byte(piece.chunk), 1); err != nil {
				p.t.Fatal(err)
			}
			if p.chance(6) {
				d.Extra = []format.Field{{Key: "zz", Raw: []byte{5}}}
			}
			p.add(d)
		}
	}
	flush()
	p.add(&format.EOF{Size: f.size()})
}

// markOnce sets once on chunks that no refs name, mostly.
func (p *producer) markOnce() {
	named := map[format.ID]bool{}
	for _, rec := range p.recs {
		if r, ok := rec.(*format.Refs); ok {
			for _, ref := range r.Chunks {
				named[ref.ID] = true
			}
		}
	}
	for _, rec := range p.recs {
		if d, ok := rec.(*format.Data); ok && !named[d.ID] && !p.chance(4) {
			d.Once = true
		}
	}
}

// rules draws a list of patterns.
func (g *generator) rules() *Patterns {
	var rules []Rule
	for range g.intn(4) {
		pattern := pick(g, []string{"cat", "*.jpg", "dog/", "/cat", "cat*/", "/dog/*", "/dog/cat", "**/x", "Maildir/**",
			"/Maildir/dog", "[cd]*", "*~", "/x/", "/cat/cat/"})
		rules = append(rules, Rule{pattern, g.chance(3)})
	}
	p, err := NewPatterns(rules, false)
	if err != nil {
		g.t.Fatal(err)
	}
	return p
}

// options draws what a filter does.
func (g *generator) options() Options {
	opts := Options{Paths: g.rules()}
	if g.chance(3) {
		opts.Attributes.LargerThan = new(uint64(g.intn(1000)))
	}
	if g.chance(4) {
		opts.Attributes.OlderThan = &format.Time{Sec: 1000}
	}
	if g.chance(5) {
		opts.Attributes.Types = []format.Type{format.TypeFifo, format.TypeSymlink}
	}
	if g.chance(5) {
		opts.Magic = []string{"application/pdf"}
	}
	if g.chance(5) {
		opts.Judge, opts.JudgeName = judgeByWord("meow"), "meow"
	}
	if g.chance(4) {
		opts.Snapshots = []SnapshotRule{{Tag: new("keep")}}
	}
	if g.chance(6) {
		opts.Changes.DropXattrs = []string{"user.*"}
	}
	if g.chance(6) {
		opts.Changes.Owner = &Owner{SetUser: true, User: "new"}
	}
	switch g.intn(8) {
	case 6:
		opts.Changes.StripPrefix = pick(g, []string{"cat", "dog/cat", "Maildir"})
	case 7:
		opts.Changes.Renames = []Rename{{pick(g, []string{"cat", "dog/cat", ""}), pick(g, []string{"new", "moved/here"})}}
	}
	return opts
}
