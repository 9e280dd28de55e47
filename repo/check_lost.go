package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/index"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/tree"
)

// weigh finds out which of the chunks that snapshots need are nowhere.
func (k *checker) weigh() error {
	for id, err := range k.lostMeta {
		label := k.r.label.LabelOf(seal.ChunkMeta, id)
		places, placesErr := k.cache.Places(label)
		if placesErr != nil {
			return placesErr
		}
		object := ""
		if len(places) > 0 {
			object = packObject(places[0].Pack.Name)
		}
		k.lose(label, object, err)
	}
	for label := range k.lostData {
		k.lose(label, "", nil)
	}
	return k.marks.Each(func(_ int, label seal.Label, hit index.Hit, marked bool) error {
		if !marked || k.good(&hit) {
			return nil
		}
		places, err := k.cache.Places(label)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(places, func(h index.Hit) bool { return k.good(&h) }) {
			k.lose(label, packObject(hit.Pack.Name), nil)
		}
		return nil
	})
}

// good reports whether a chunk can be read at a place, as far as that was seen.
func (k *checker) good(hit *index.Hit) bool {
	if st := k.packs[hit.Pack.Name]; st == nil || !st.stored {
		return false
	}
	bad := k.bad[hit.Pack.Name]
	if bad == nil {
		return true
	}
	_, ok := bad.chunks[chunkPlace{hit.Number, hit.Offset}]
	return !ok
}

// lose notes a chunk that is nowhere.
func (k *checker) lose(label seal.Label, object string, err error) {
	if _, ok := k.lost[label]; ok {
		return
	}
	if k.known[label] {
		k.lost[label] = aboutKnown
		k.findAbout(aboutKnown, "", Known, errors.New("bk-repair found chunks to be beyond help")).Lost++
		return
	}
	k.lost[label] = object
	what := Damaged
	if object == "" {
		what, err = Missing, errors.New("snapshots need chunks that no index and no pack lists")
	}
	if err == nil {
		err = fmt.Errorf("a chunk in it cannot be read: %w", seal.ErrDamaged)
	}
	k.find(object, what, err).Lost++
}

// touching gathers what one finding touches.
type touching map[tree.LostPart][]format.ID

// touch finds what snapshots lose with the chunks that are nowhere.
func (k *checker) touch() error {
	if len(k.lost) == 0 {
		return nil
	}
	left := k.opts.TouchedMax
	if left == 0 {
		left = TouchedMaxDefault
	}
	touched := make(map[string]touching)
	err := k.lostParts(func(s *Snapshot, part tree.LostPart) error {
		about := k.findingOf(part)
		t := touched[about]
		if t == nil {
			t = make(touching)
			touched[about] = t
		}
		key := tree.LostPart{Path: part.Path, Before: part.Before}
		if part.IsRange() {
			key.What = part.What
		}
		if ids := t[key]; len(ids) > 0 && ids[len(ids)-1] == s.ID {
			return nil // another chunk of the same file
		}
		if left--; left < 0 {
			k.findings[about].More++
			return nil
		}
		t[key] = append(t[key], s.ID)
		return nil
	})
	for about, t := range touched {
		f := k.findings[about]
		for part, ids := range t {
			f.Touched = append(f.Touched, Touched{Path: part.Path, Before: part.Before, Range: part.IsRange(), Snapshots: ids})
		}
		slices.SortFunc(f.Touched, func(a, b Touched) int { return format.ComparePaths(a.Path, b.Path) })
	}
	return err
}

// findingOf returns what the finding is about that a lost part belongs to.
func (k *checker) findingOf(part tree.LostPart) string {
	label := k.r.label.LabelOf(kindOf(part), part.ID)
	about, ok := k.lost[label]
	if !ok { // it could be read before
		k.lose(label, "", nil)
		about = k.lost[label]
	}
	return about
}

// aboutKnown is what the finding is about that has all that is known to be lost.
const aboutKnown = "what is known to be lost"

// kindOf returns the kind of the chunk of a lost part.
func kindOf(part tree.LostPart) seal.ChunkKind {
	if part.What == "chunk" {
		return seal.ChunkData
	}
	return seal.ChunkMeta
}

// lostParts calls fn with everything that each snapshot loses, snapshot by
// snapshot. What several snapshots share, and is whole, is read once: marks say
// so, a bit for each record of the index.
func (k *checker) lostParts(fn func(*Snapshot, tree.LostPart) error) error {
	whole := k.cache.NewMarks(k.rankListed)
	label := func(id format.ID) seal.Label { return k.r.label.LabelOf(seal.ChunkMeta, id) }
	var cur *Snapshot
	finder := tree.LostFinder{
		Lost: func(meta bool, id format.ID) bool {
			kind := seal.ChunkData
			if meta {
				kind = seal.ChunkMeta
			}
			_, lost := k.lost[k.r.label.LabelOf(kind, id)]
			return lost
		},
		IsWhole: func(id format.ID) (bool, error) { return whole.Marked(label(id)) },
		SetWhole: func(id format.ID) error {
			_, _, err := whole.Mark(label(id))
			return err
		},
		Found: func(part tree.LostPart) error { return fn(cur, part) },
	}
	for i, s := range k.snaps {
		k.progress("find what the damage touches", i, len(k.snaps))
		cur = s
		if err := finder.Find(k.ctx, tree.Listing{Chunks: metaReader{k.r}, Root: s.Root}); err != nil {
			if k.ctx.Err() != nil {
				return context.Cause(k.ctx)
			}
			return fmt.Errorf("find what is lost of snapshot %s: %w", s.ID, err)
		}
	}
	return nil
}
