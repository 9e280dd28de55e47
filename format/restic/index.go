package restic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/store"
)

// index knows where every blob lies: what the files in index/ say and, once
// something is missing there, the headers of the packs that they do not name.
type index struct {
	listed    *table
	names     []string // of the files of index/
	trouble   []error  // those of them that could not be read
	recovery  sync.Mutex
	recovered atomic.Pointer[table] // nil unless something was missing
}

// find returns the place of a blob and its number, which no other blob of its
// kind has and which stays; ErrMissing if there is none.
func (r *Repository) find(ctx context.Context, k kind, id format.ID) (n int, at *blob, err error) {
	x, err := r.loadedIndex(ctx)
	if err != nil {
		return 0, nil, err
	}
	if n, at := x.listed.find(k, id); at != nil {
		return n, at, nil
	}
	recovered, err := r.recoveredIndex(ctx, x)
	if err != nil {
		return 0, nil, fmt.Errorf("%s blob %s is in no index, and %w", k, id, err)
	}
	if n, at := recovered.find(k, id); at != nil {
		return n + x.listed.count[k], at, nil
	}
	err = ErrMissing
	if len(x.trouble) > 0 {
		err = fmt.Errorf("%w; a part of the index could not be read: %w", err, errors.Join(x.trouble...))
	}
	err = fmt.Errorf("%s blob %s is in no index and no pack: %w", k, id, err)
	// Where storage failed, the blob may be in what could not be read.
	if !slices.ContainsFunc(slices.Concat(x.trouble, recovered.trouble), func(err error) bool { return !isDamage(err) }) {
		err = &lostError{err}
	}
	return 0, nil, err
}

// copies returns all places where a blob lies.
func (x *index) copies(k kind, id format.ID) []place {
	var out []place
	for _, t := range []*table{x.listed, x.recovered.Load()} {
		if t != nil {
			out = t.appendCopies(out, k, id)
		}
	}
	return out
}

// place is a blob's place with the name of its pack.
type place struct {
	blob
	name format.ID
}

// place adds the name of the pack to what find returned.
func (x *index) place(k kind, n int, b *blob) place {
	if n < x.listed.count[k] {
		return place{*b, x.listed.packs[b.pack]}
	}
	return place{*b, x.recovered.Load().packs[b.pack]}
}

// loadedIndex reads the index when it is first needed.
func (r *Repository) loadedIndex(ctx context.Context) (*index, error) {
	if x := r.index.Load(); x != nil {
		return x, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if x := r.index.Load(); x != nil {
		return x, nil
	}
	x, err := r.loadIndex(ctx)
	if err == nil {
		r.index.Store(x)
	}
	return x, err
}

// recoveredIndex reads the headers of packs when that is first needed.
func (r *Repository) recoveredIndex(ctx context.Context, x *index) (*table, error) {
	x.recovery.Lock()
	defer x.recovery.Unlock()
	if t := x.recovered.Load(); t != nil {
		return t, nil
	}
	t, err := r.recoverIndex(ctx, x.listed)
	if err == nil {
		x.recovered.Store(t)
	}
	return t, err
}

// loadIndex reads all of index/. A file that is damaged is logged: what only it
// lists is found in the packs.
func (r *Repository) loadIndex(ctx context.Context) (*index, error) {
	names, err := r.indexNames(ctx)
	if err != nil {
		return nil, err
	}
	x := &index{listed: newTable(), names: names}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(min(r.workers, 4)) // each holds a whole file as JSON
	for _, name := range names {
		g.Go(func() error {
			f, err := r.loadIndexFile(gctx, name)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				return x.listed.add(f)
			case gctx.Err() != nil:
				return gctx.Err()
			case errors.Is(err, store.ErrTemporary):
				return fmt.Errorf("read %s in %s: %w", name, r, err)
			}
			r.log.Warn("an index cannot be read; what it lists is looked for in the packs", "object", name, "error", err)
			x.trouble = append(x.trouble, fmt.Errorf("%s: %w", name, err))
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	x.listed.sort()
	return x, nil
}

// indexNames lists the files of index/.
func (r *Repository) indexNames(ctx context.Context) (names []string, err error) {
	err = r.store.List(ctx, "index/", func(info store.Info) error {
		if _, ok := objectID(info.Name); ok {
			names = append(names, info.Name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the index of %s: %w", r, err)
	}
	return names, nil
}

func (r *Repository) loadIndexFile(ctx context.Context, name string) (*indexFile, error) {
	b, err := r.loadFile(ctx, name)
	if err != nil {
		return nil, err
	}
	return parseIndex(b)
}

// recoverIndex reads the headers of all packs that the index does not name.
func (r *Repository) recoverIndex(ctx context.Context, listed *table) (*table, error) {
	known := make(map[format.ID]struct{}, len(listed.packs))
	for _, id := range listed.packs {
		known[id] = struct{}{}
	}
	r.log.Info("the index is not complete: reading the headers of the packs that it does not name")
	t := newTable()
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.workers)
	err := r.store.List(gctx, "data/", func(info store.Info) error {
		id, ok := objectID(info.Name)
		if _, have := known[id]; !ok || have {
			return nil
		}
		g.Go(func() error {
			f := &indexFile{packs: []format.ID{id}}
			err := r.readPackHeader(gctx, info.Name, info.Size, func(k kind, b blob) { f.blobs[k] = append(f.blobs[k], b) })
			if gctx.Err() != nil {
				return gctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				r.log.Warn("a pack that is in no index cannot be read", "object", info.Name, "error", err)
				t.trouble = append(t.trouble, err)
				return nil
			}
			return t.add(f)
		})
		return nil
	})
	if waitErr := g.Wait(); err == nil {
		err = waitErr
	}
	if err != nil {
		return nil, fmt.Errorf("read the headers of the packs of %s: %w", r, err)
	}
	t.sort()
	return t, nil
}

// indexFile is what one file of index/ says. The packs of its blobs are numbers
// in packs.
type indexFile struct {
	packs []format.ID
	blobs [kinds][]blob
}

// parseIndex decodes the JSON of an index.
func parseIndex(b []byte) (*indexFile, error) {
	f := new(indexFile)
	s := &scanner{b: b}
	s.object(func(key []byte) {
		if string(key) != "packs" {
			s.skip()
			return
		}
		*f = indexFile{}
		s.array(func() { f.addPack(s) })
	})
	s.end()
	if s.err != nil {
		return nil, s.err
	}
	return f, nil
}

func (f *indexFile) addPack(s *scanner) {
	var id format.ID
	hasID := false
	number := uint32(len(f.packs))
	start := [kinds]int{len(f.blobs[dataBlob]), len(f.blobs[treeBlob])}
	s.object(func(key []byte) {
		switch string(key) {
		case "id":
			s.id(&id)
			hasID = true
		case "blobs":
			for k := range f.blobs {
				f.blobs[k] = f.blobs[k][:start[k]]
			}
			s.array(func() {
				k, b := parseIndexBlob(s)
				b.pack = number
				f.blobs[k] = append(f.blobs[k], b)
			})
		default:
			s.skip()
		}
	})
	if s.err == nil && !hasID {
		s.fail("a pack has no id")
	}
	f.packs = append(f.packs, id)
}

func parseIndexBlob(s *scanner) (k kind, b blob) {
	hasID, hasKind := false, false
	s.object(func(key []byte) {
		switch string(key) {
		case "id":
			s.id(&b.id)
			hasID = true
		case "type":
			switch name := s.text(); string(name) {
			case "data":
				k, hasKind = dataBlob, true
			case "tree":
				k, hasKind = treeBlob, true
			default:
				s.fail("a blob has the type %q", name)
			}
		case "offset":
			b.offset = uint32(s.uint(math.MaxUint32))
		case "length":
			b.stored = uint32(s.uint(math.MaxUint32))
		case "uncompressed_length":
			b.plain = uint32(s.uint(math.MaxUint32))
		default:
			s.skip()
		}
	})
	if s.err == nil && (!hasID || !hasKind || b.stored < sealOverhead || uint64(b.offset)+uint64(b.stored) > math.MaxUint32) {
		s.fail("a blob says too little, or cannot lie where it says")
	}
	return k, b
}

// table has blobs sorted by id, in one list for each first byte, so that growing
// a list never takes twice the memory of all of them.
type table struct {
	packs   []format.ID
	trouble []error // packs whose headers could not be read
	lists   [kinds][256][]blob
	first   [kinds][256]int // number of a list's first blob
	count   [kinds]int
}

func newTable() *table { return new(table) }

// add takes over what a file says.
func (t *table) add(f *indexFile) error {
	base := len(t.packs)
	if base+len(f.packs) > math.MaxUint32 {
		return fmt.Errorf("the index names more than %d packs", uint32(math.MaxUint32))
	}
	t.packs = append(t.packs, f.packs...)
	for k := range f.blobs {
		for _, b := range f.blobs[k] {
			b.pack += uint32(base)
			list := &t.lists[k][b.id[0]]
			*list = append(*list, b)
		}
	}
	return nil
}

// sort must be called when all is there and before anything is looked for.
func (t *table) sort() {
	for k := range t.lists {
		for i, list := range t.lists[k] {
			slices.SortFunc(list, func(a, b blob) int {
				if c := bytes.Compare(a.id[:], b.id[:]); c != 0 {
					return c
				}
				if c := bytes.Compare(t.packs[a.pack][:], t.packs[b.pack][:]); c != 0 {
					return c
				}
				return int(int64(a.offset) - int64(b.offset))
			})
			t.first[k][i] = t.count[k]
			t.count[k] += len(list)
		}
	}
}

// find returns the first place of a blob and its number, or nil.
func (t *table) find(k kind, id format.ID) (int, *blob) {
	list := t.lists[k][id[0]]
	i := sort.Search(len(list), func(i int) bool { return bytes.Compare(list[i].id[:], id[:]) >= 0 })
	if i == len(list) || list[i].id != id {
		return 0, nil
	}
	return t.first[k][id[0]] + i, &list[i]
}

// appendCopies appends all places of a blob.
func (t *table) appendCopies(out []place, k kind, id format.ID) []place {
	n, b := t.find(k, id)
	if b == nil {
		return out
	}
	list := t.lists[k][id[0]]
	for i := n - t.first[k][id[0]]; i < len(list) && list[i].id == id; i++ {
		out = append(out, place{list[i], t.packs[list[i].pack]})
	}
	return out
}
