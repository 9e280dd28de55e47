package fidelity

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/bk-backup/bk/format"
)

const (
	segmentPiecesMax = 1 << 16 // pieces of a segment on one side before it is hashed in parts
	segmentPlainMax  = 8 << 20 // plain bytes that came in the stream, likewise
	batchBytesMax    = 4 << 20 // plain bytes asked for at a time
)

// contents compares what files of two sides consist of.
type contents struct {
	a, b   *side
	equal  map[[32]byte]bool // segments that were hashed and found equal
	hashed uint64            // plain bytes of both sides
	zeros  [64 << 10]byte
}

// segment is a run of one side's pieces between two places where both sides
// have a cut.
type segment struct {
	side   *side
	pieces []piece
	plain  int    // bytes in pieces that came in the stream
	size   uint64 // of the segment so far, hashed parts too
	sum    hash.Hash
	parts  bool // something was hashed already
}

// compare reads the current file of both sides to its end and reports whether
// their contents are equal. Chunks with equal ids in equal places are equal;
// elsewhere the bytes between two places where both sides have a cut are hashed.
func (c *contents) compare(ctx context.Context) (bool, error) {
	if c.a.digested || c.b.digested {
		a, err := c.a.digest(ctx, c)
		if err != nil {
			return false, err
		}
		b, err := c.b.digest(ctx, c)
		return a == b, err
	}
	var pa, pb *piece
	for {
		var err error
		if pa, err = refill(c.a, pa); err != nil {
			return false, err
		}
		if pb, err = refill(c.b, pb); err != nil {
			return false, err
		}
		switch {
		case pa == nil && pb == nil:
			return true, nil
		case pa == nil || pb == nil:
			return false, c.skip()
		case pa.isHole() && pb.isHole():
			size := min(pa.size, pb.size)
			pa.size -= size
			pb.size -= size
			continue
		case pa.id == pb.id && pa.size == pb.size:
			pa.size, pb.size = 0, 0
			continue
		}
		same, err := c.segment(ctx, *pa, *pb)
		if err != nil {
			return false, err
		}
		if !same {
			return false, c.skip()
		}
		pa, pb = nil, nil
	}
}

// refill returns the next piece if p is used up.
func refill(s *side, p *piece) (*piece, error) {
	if p != nil && p.size > 0 {
		return p, nil
	}
	if p != nil && p.plain != nil {
		format.FreePayload(p.plain)
	}
	return s.piece()
}

func (c *contents) skip() error {
	if err := c.a.skip(); err != nil {
		return err
	}
	return c.b.skip()
}

// segment compares from two pieces that differ to the next place where both
// sides have a cut.
func (c *contents) segment(ctx context.Context, pa, pb piece) (bool, error) {
	a := &segment{side: c.a, sum: sha256.New()}
	b := &segment{side: c.b, sum: sha256.New()}
	a.add(pa)
	b.add(pb)
	for a.size != b.size {
		short := a
		if b.size < a.size {
			short = b
		}
		p, err := short.side.piece()
		if err != nil {
			return false, err
		}
		if p == nil {
			return false, nil // one file is longer
		}
		short.add(*p)
		if len(short.pieces) >= segmentPiecesMax || short.plain >= segmentPlainMax {
			if err := c.hash(ctx, short); err != nil {
				return false, err
			}
			short.parts = true
		}
	}
	key, whole := segmentKey(a, b)
	if whole && c.equal[key] {
		a.free()
		b.free()
		return true, nil
	}
	if err := c.hash(ctx, a); err != nil {
		return false, err
	}
	if err := c.hash(ctx, b); err != nil {
		return false, err
	}
	same := [32]byte(a.sum.Sum(nil)) == [32]byte(b.sum.Sum(nil))
	if same && whole {
		c.equal[key] = true
	}
	return same, nil
}

func (s *segment) add(p piece) {
	s.pieces = append(s.pieces, p)
	s.plain += len(p.plain)
	s.size += p.size
}

func (s *segment) free() {
	for i := range s.pieces {
		if s.pieces[i].plain != nil {
			format.FreePayload(s.pieces[i].plain)
		}
	}
	s.pieces, s.plain = s.pieces[:0], 0
}

// segmentKey names two lists of pieces, if both are still known whole.
func segmentKey(a, b *segment) (key [32]byte, whole bool) {
	if a.parts || b.parts {
		return key, false
	}
	sum := sha256.New()
	for _, s := range []*segment{a, b} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s.pieces)))
		sum.Write(n[:])
		for i := range s.pieces {
			binary.BigEndian.PutUint64(n[:], s.pieces[i].size)
			sum.Write(s.pieces[i].id[:])
			sum.Write(n[:])
		}
	}
	return [32]byte(sum.Sum(nil)), true
}

// hash adds the segment's pieces to its sum, and forgets them.
func (c *contents) hash(ctx context.Context, s *segment) error {
	defer s.free()
	for lo := 0; lo < len(s.pieces); {
		hi, bytes := lo, uint64(0)
		for hi < len(s.pieces) && (hi == lo || bytes < batchBytesMax) {
			if !s.pieces[hi].isHole() {
				bytes += s.pieces[hi].size
			}
			hi++
		}
		if err := c.hashBatch(ctx, s, s.pieces[lo:hi]); err != nil {
			return err
		}
		lo = hi
	}
	return nil
}

func (c *contents) hashBatch(ctx context.Context, s *segment, pieces []piece) error {
	var refs []format.ChunkRef
	var places []int
	for i, p := range pieces {
		if !p.isHole() && p.plain == nil {
			refs = append(refs, format.ChunkRef{ID: p.id, Size: uint32(p.size)})
			places = append(places, i)
		}
	}
	if len(refs) > 0 {
		err := s.side.chunks.ReadChunks(ctx, refs, func(n int, plain []byte, err error) error {
			if err == nil {
				pieces[places[n]].plain = append(format.AllocPayload(len(plain))[:0], plain...)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, p := range pieces {
		c.hashed += p.size
		if !p.isHole() {
			s.sum.Write(p.plain)
			continue
		}
		for left := p.size; left > 0; {
			n := min(left, uint64(len(c.zeros)))
			s.sum.Write(c.zeros[:n])
			left -= n
		}
	}
	return nil
}
