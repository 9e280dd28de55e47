package fidelity

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bk-backup/bk/format"
)

// chunkReader is a system that can be asked for chunks by their ids.
type chunkReader interface {
	ReadChunks(ctx context.Context, refs []format.ChunkRef, fn func(number int, plain []byte, err error) error) error
}

// side reads the snapshots of one system, whole, one after another.
type side struct {
	name   string
	src    format.SourceCloser
	chunks chunkReader // nil: content is in the stream
	// digested says that every file has the digest of its content instead.
	digested bool

	ahead format.Record // read and not yet used
	refs  []format.ChunkRef
	eof   *format.EOF // of the file whose content was read last
}

// piece is a chunk or a hole.
type piece struct {
	id    format.ID // zero for a hole
	size  uint64
	plain []byte // of a chunk that came in the stream
}

func (p *piece) isHole() bool { return p.id.IsZero() }

// openSide opens the snapshots of a system. Where chunks can be asked for, the
// stream only names them; otherwise it brings the whole content of every file.
func openSide(ctx context.Context, name string, system format.System, list []*format.Snapshot) (*side, error) {
	snapshots := make([]format.ID, len(list))
	unsorted := false
	for i, snap := range list {
		snapshots[i] = snap.ID
		unsorted = unsorted || snap.Unsorted
	}
	if unsorted {
		return openSorted(ctx, name, system, snapshots)
	}
	s := &side{name: name}
	s.chunks, _ = system.(chunkReader)
	opts := format.ExportOptions{Snapshots: snapshots, Flat: true}
	if s.chunks != nil {
		opts.Flat, opts.Full, opts.Held = false, true, true
	}
	var err error
	s.src, err = system.Export(ctx, opts)
	return s, err
}

// peek returns the next record that is no extension.
func (s *side) peek() (format.Record, error) {
	for s.ahead == nil {
		rec, err := s.src.Next()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		switch rec.(type) {
		case *format.Extension, *format.Header:
		default:
			s.ahead = rec
		}
	}
	return s.ahead, nil
}

// begin moves to the entries of the next snapshot.
func (s *side) begin() error {
	rec, err := s.peek()
	if err != nil {
		return err
	}
	s.ahead = nil
	snap, ok := rec.(*format.Snapshot)
	if !ok {
		return fmt.Errorf("%s: a %s record where a snapshot should begin", s.name, rec.Kind())
	}
	if snap.Unsorted {
		return fmt.Errorf("%s: the entries of snapshot %s come in no order, which its record did not say before", s.name, snap.ID.Short())
	}
	return nil
}

// entry returns the next entry of the snapshot, or nil at its end. The content of
// a file is to be read, or skipped, before the next call.
func (s *side) entry() (*format.Entry, error) {
	rec, err := s.peek()
	if err != nil {
		return nil, err
	}
	s.ahead = nil
	switch rec := rec.(type) {
	case *format.Entry:
		s.eof, s.refs = nil, nil
		return rec.Clone(), nil
	case *format.Commit:
		return nil, nil
	}
	return nil, fmt.Errorf("%s: a %s record where an entry was expected", s.name, rec.Kind())
}

// piece returns the next part of the current file, or nil at its end.
func (s *side) piece() (*piece, error) {
	for s.eof == nil {
		if len(s.refs) > 0 {
			p := &piece{id: s.refs[0].ID, size: uint64(s.refs[0].Size)}
			s.refs = s.refs[1:]
			return p, nil
		}
		rec, err := s.peek()
		if err != nil {
			return nil, err
		}
		s.ahead = nil
		switch rec := rec.(type) {
		case *format.Refs:
			s.refs = append(s.refs[:0], rec.Chunks...)
		case *format.Hole:
			return &piece{size: rec.Size}, nil
		case *format.Data:
			plain, err := format.DecodePayload(nil, rec)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			return &piece{id: rec.ID, size: uint64(rec.Size), plain: plain}, nil
		case *format.EOF:
			s.eof = rec
		default:
			return nil, fmt.Errorf("%s: a %s record in the content of a file", s.name, rec.Kind())
		}
	}
	return nil, nil
}

// skip moves behind the content of the current file.
func (s *side) skip() error {
	for {
		p, err := s.piece()
		if p == nil || err != nil {
			return err
		}
		if p.plain != nil {
			format.FreePayload(p.plain)
		}
	}
}
