package repo

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/tree"
)

// copyRange takes a run of the parent's version of a file into the content that
// is arriving. Chunks that lie in the run whole are named again; of those at its
// ends the part that is asked for is read and becomes a chunk of its own.
func (s *Sink) copyRange(rec *format.CopyRange) error {
	item, err := s.copySource(rec)
	if err != nil {
		return err
	}
	return s.copyPieces(item, rec.Offset, rec.Offset+rec.Size)
}

// copySource finds the file that a run is taken from, and checks that it has it.
func (s *Sink) copySource(rec *format.CopyRange) (*tree.Item, error) {
	from := s.cur.entry.Path
	if rec.HasFrom {
		from = rec.From
	}
	if s.cur.base.IsZero() {
		return nil, s.streamError(format.ClassReference, "copy in a snapshot that has no parent")
	}
	item, err := tree.Get(s.ctx, tree.Listing{Chunks: s.saver, Root: s.cur.base}, from)
	if err != nil {
		return nil, fmt.Errorf("copy from the parent's version of %q: %w", from, err)
	}
	if item == nil {
		return nil, s.streamError(format.ClassReference, "copy from %q, which the parent does not have", from)
	}
	if rec.Offset > item.Size() || rec.Size > item.Size()-rec.Offset {
		return nil, s.streamError(format.ClassReference, "copy of %d bytes from byte %d of %q, which has %d in the parent", rec.Size, rec.Offset, from, item.Size())
	}
	s.progress.Bytes += rec.Size
	return item, nil
}

func (s *Sink) copyPieces(item *tree.Item, lo, hi uint64) error {
	pieces := tree.NewContentReader(s.ctx, s.saver, item.Content())
	if err := pieces.Seek(lo); err != nil {
		return err
	}
	for at := lo; at < hi; {
		p, offset, err := pieces.Next()
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		begin, end := max(lo, offset), min(hi, offset+p.Size)
		switch {
		case p.IsHole():
			err = s.hole(end - begin)
		case begin == offset && end == offset+p.Size:
			err = s.named(p.ID, p.Size)
		default:
			err = s.copyPart(p, begin-offset, end-offset)
		}
		if err != nil {
			return err
		}
		at = end
	}
	return nil
}

// copyPart makes a chunk of a part of another.
func (s *Sink) copyPart(p tree.Piece, lo, hi uint64) error {
	var part []byte
	err := s.readBack(p, func(plain []byte) {
		part = format.AllocPayload(int(hi - lo))
		copy(part, plain[lo:hi])
	})
	if err != nil {
		return err
	}
	d := format.Data{ID: format.SumID(part), Size: uint32(len(part)), Codec: format.CodecNone, Payload: part, Checked: true}
	return s.chunk(&d)
}

// readBack reads a chunk that the repository holds, or that this session has
// stored and not flushed.
func (s *Sink) readBack(p tree.Piece, use func(plain []byte)) error {
	return s.readBackAll([]format.ChunkRef{{ID: p.ID, Size: uint32(p.Size)}}, func(_ int, plain []byte) { use(plain) })
}

// readBackAll is readBack of several chunks, which come in any order and from
// several goroutines; number is the place in refs.
func (s *Sink) readBackAll(refs []format.ChunkRef, use func(number int, plain []byte)) error {
	for _, ref := range refs {
		_, found, err := s.r.index.Find(s.r.label.LabelOf(seal.ChunkData, ref.ID))
		if err != nil {
			return err
		}
		if found {
			continue
		}
		if err := s.pool.wait(); err != nil {
			return err
		}
		if err := s.session.data.flush(); err != nil {
			return err
		}
		break
	}
	return s.r.ReadChunks(context.WithoutCancel(s.ctx), refs, func(n int, plain []byte, err error) error {
		if err == nil {
			use(n, plain)
		}
		return err
	})
}
