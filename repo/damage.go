package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/tree"
)

// lostChunk names a chunk that is beyond help.
type lostChunk struct {
	kind seal.ChunkKind
	id   format.ID
}

const lostChunkSize = 1 + 32

// damageChunksMax is how many chunks one list of damage names.
const damageChunksMax = 1 << 20

// damageBody is the signed body of a list of damage (spec/repository.md, 12.2).
type damageBody struct {
	Chunks     []byte  `msgpack:"chunks"` // lostChunkSize bytes each
	Client     []byte  `msgpack:"client"`
	Repository []byte  `msgpack:"repository"`
	Time       []int64 `msgpack:"time"`
}

// lostSet are the chunks that are known to be lost. Readers pass over what they
// belong to, and say so.
type lostSet map[lostChunk]bool

func (s lostSet) meta(id format.ID) bool { return s[lostChunk{seal.ChunkMeta, id}] }
func (s lostSet) data(id format.ID) bool { return s[lostChunk{seal.ChunkData, id}] }

// metaFunc is meta, or nil if nothing is lost.
func (s lostSet) metaFunc() func(format.ID) bool {
	if len(s) == 0 {
		return nil
	}
	return s.meta
}

// isPartOf reports whether err says that a part of a listing cannot be read which
// is known to be lost.
func (s lostSet) isPartOf(err error) bool {
	var ne *tree.NodeError
	return errors.As(err, &ne) && s.meta(ne.ID)
}

func (c lostChunk) compare(other lostChunk) int {
	return cmp.Or(cmp.Compare(c.kind, other.kind), c.id.Compare(other.id))
}

// markLost writes down that chunks are beyond help.
func (r *Repository) markLost(ctx context.Context, chunks []lostChunk) error {
	slices.SortFunc(chunks, lostChunk.compare)
	client, repository, now := r.keys.Client(), r.keys.Repository(), r.opts.Now()
	session, err := r.newSessionID(now)
	if err != nil {
		return err
	}
	for number := uint64(0); len(chunks) > 0; number++ {
		body := damageBody{Client: client[:], Repository: repository[:], Time: []int64{now.Unix(), int64(now.Nanosecond())}}
		n := min(len(chunks), damageChunksMax)
		for _, c := range chunks[:n] {
			body.Chunks = append(append(body.Chunks, byte(c.kind)), c.id[:]...)
		}
		chunks = chunks[n:]
		name := seal.Name{Kind: seal.KindDamage, Client: client, Session: session, Number: number}
		if err := r.createObject(ctx, name.String(), seal.KindDamage, r.keys.SignDamage(mp.Encode(&body))); err != nil {
			return fmt.Errorf("write down what is beyond help: %w", err)
		}
	}
	return nil
}

// marked returns all chunks that were ever marked as lost. A list that cannot be
// read is passed over: what it names then fails to be read.
func (r *Repository) marked(ctx context.Context) (lostSet, error) {
	set := make(lostSet)
	client := r.keys.Client()
	var names []string
	err := r.store.List(ctx, fmt.Sprintf("%s%x/", seal.KindDamage.Dir(), client[:]), func(info store.Info) error {
		if _, ok := seal.ParseName(info.Name); ok {
			names = append(names, info.Name)
		}
		return nil
	})
	for _, name := range names {
		if err == nil {
			err = r.readDamage(ctx, name, set)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read what is known to be lost: %w", err)
	}
	return set, nil
}

func (r *Repository) readDamage(ctx context.Context, name string, set lostSet) error {
	plain, err := r.getObject(ctx, name, seal.KindDamage)
	if errors.Is(err, store.ErrNotFound) {
		return nil // it was sealed again; the twin is listed, or by the next reader
	}
	var body damageBody
	if err == nil {
		if plain, err = r.keys.VerifyDamage(plain); err == nil {
			err = mp.Decode(plain, &body)
		}
	}
	if err != nil {
		var se *store.Error
		if errors.As(err, &se) {
			return err
		}
		r.opts.Log.Warn("a list of damage cannot be read", "error", err)
		return nil
	}
	for b := body.Chunks; len(b) >= lostChunkSize; b = b[lostChunkSize:] {
		set[lostChunk{seal.ChunkKind(b[0]), format.ID(b[1:lostChunkSize])}] = true
	}
	return nil
}

// knownLost returns the chunks that were marked as lost and that no index lists:
// one that was stored again is lost no more.
func (r *Repository) knownLost(ctx context.Context) (lostSet, error) {
	set, err := r.marked(ctx)
	for c := range set {
		_, found, findErr := r.index.Find(r.label.LabelOf(c.kind, c.id))
		if findErr != nil {
			return nil, findErr
		}
		if found {
			delete(set, c)
		}
	}
	return set, err
}

// HasLost reports whether a part of a snapshot is known to be lost: listing, or
// content. Nothing should be made on the base of such a snapshot.
func (r *Repository) HasLost(ctx context.Context, s *Snapshot) (bool, error) {
	lost, err := r.knownLost(ctx)
	if err != nil || len(lost) == 0 {
		return false, err
	}
	return r.hasLost(ctx, lost, s, true)
}

var errLostPart = errors.New("a part is lost")

// hasLost looks for lost parts of a listing, or of content as well.
func (r *Repository) hasLost(ctx context.Context, lost lostSet, s *Snapshot, content bool) (bool, error) {
	finder := tree.LostFinder{
		Lost: func(meta bool, id format.ID) bool {
			return meta && lost.meta(id) || !meta && content && lost.data(id)
		},
		IsWhole:  func(format.ID) (bool, error) { return false, nil },
		SetWhole: func(format.ID) error { return nil },
		Found: func(part tree.LostPart) error {
			if kindOf(part) == seal.ChunkMeta && !lost.meta(part.ID) {
				return nil // damage that nobody has marked: whoever reads it says so
			}
			return errLostPart
		},
	}
	err := finder.Find(ctx, tree.Listing{Chunks: metaReader{r}, Root: s.Root})
	if errors.Is(err, errLostPart) {
		return true, nil
	}
	return false, err
}
