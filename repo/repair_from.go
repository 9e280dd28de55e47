package repo

import (
	"context"
	"fmt"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
)

// ChunkSource is where lost chunks may be had again: another repository that
// holds them, or the files that were backed up.
type ChunkSource interface {
	// Chunks calls fn with the plain bytes of those chunks that it has, from one
	// goroutine at a time; i is the place in lost. What it hands out is compared
	// with the id. An error of fn ends it and is returned.
	Chunks(ctx context.Context, lost []LostChunk, fn func(i int, plain []byte) error) error
}

// LostChunk is a chunk that snapshots need and that is nowhere.
type LostChunk struct {
	ID     format.ID
	Meta   bool        // it is a part of listings
	Size   uint64      // plain bytes; 0 if that is not known
	Places []LostPlace // of content, some of the places where it belongs
}

func (c *LostChunk) kind() seal.ChunkKind {
	if c.Meta {
		return seal.ChunkMeta
	}
	return seal.ChunkData
}

// LostPlace is where in a snapshot a chunk belongs.
type LostPlace struct {
	Path   string
	Offset uint64
}

// lostPlacesMax is how many places are named of one chunk.
const lostPlacesMax = 16

// restore asks the sources for what is lost, and returns how many parts of
// listings came back.
func (p *repairer) restore() (metas int, err error) {
	left := p.lostList
	for _, from := range p.ropts.From {
		if len(left) == 0 {
			break
		}
		p.progress("look for what is lost", len(p.lostList)-len(left), len(p.lostList))
		had := make([]bool, len(left))
		err := from.Chunks(p.ctx, left, func(i int, plain []byte) error {
			if had[i] || format.SumID(plain) != left[i].ID {
				return nil
			}
			had[i] = true
			if left[i].Meta {
				metas++
			}
			p.sum.Restored++
			if p.ropts.DryRun {
				return nil
			}
			return p.store(&left[i], plain)
		})
		if err != nil {
			return metas, fmt.Errorf("look for what is lost: %w", err)
		}
		var rest []LostChunk
		for i := range left {
			if !had[i] {
				rest = append(rest, left[i])
			}
		}
		left = rest
	}
	p.lostList = left
	return metas, nil
}

// store stores a chunk that came back.
func (p *repairer) store(c *LostChunk, plain []byte) error {
	packer := p.session.data
	if c.Meta {
		packer = p.session.metas
	}
	buf := format.AllocPayload(format.PayloadSizeMax(len(plain)))
	defer format.FreePayload(buf)
	codec, payload := pack.CodecNone, plain
	encodedAs, encoded, err := format.EncodePayload(buf[:0], plain, format.LevelDefault)
	if err != nil {
		return err
	}
	if encodedAs == format.CodecZstd {
		codec, payload = pack.CodecZstd, encoded
	}
	return packer.add(c.ID, p.r.label.LabelOf(c.kind(), c.ID), codec, uint32(len(plain)), payload)
}

// Chunks implements ChunkSource: what another repository has lost may be here.
func (r *Repository) Chunks(ctx context.Context, lost []LostChunk, fn func(i int, plain []byte) error) error {
	for _, kind := range []seal.ChunkKind{seal.ChunkMeta, seal.ChunkData} {
		var ids []format.ID
		var at []int
		for i, l := range lost {
			if l.Meta == (kind == seal.ChunkMeta) {
				ids, at = append(ids, l.ID), append(at, i)
			}
		}
		for len(ids) > 0 {
			n := min(len(ids), rescueBatch)
			if err := r.handOut(ctx, kind, ids[:n], at[:n], fn); err != nil {
				return err
			}
			ids, at = ids[n:], at[n:]
		}
	}
	return nil
}

func (r *Repository) handOut(ctx context.Context, kind seal.ChunkKind, ids []format.ID, at []int, fn func(i int, plain []byte) error) error {
	type had struct {
		at    int
		plain []byte
	}
	got := make(chan had, len(ids))
	err := r.readPayloads(ctx, kind, ids, func(n int, p payload, err error) error {
		if err != nil {
			return nil // it is not here
		}
		plain, err := decode(ids[n], p)
		if err == nil {
			got <- had{at[n], plain}
		}
		return nil
	})
	close(got)
	for h := range got {
		if err == nil {
			err = fn(h.at, h.plain)
		}
		format.FreePayload(h.plain)
	}
	return err
}
