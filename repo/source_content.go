package repo

import (
	"io"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/tree"
)

// content calls piece with the chunks and holes that a changed file consists of,
// and same with the runs that the parent's version has at the given offset,
// where copy is used at all.
func (e *exporter) content(c change, same func(from, size uint64) error, piece func(tree.Piece) error) error {
	if c.old == nil || !e.opts.Copies() {
		pieces := tree.NewContentReader(e.ctx, metaReader{e.r}, c.item.Content())
		if len(e.lost) > 0 {
			pieces.PassLost(e.lost.meta)
		}
		for {
			p, _, err := pieces.Next()
			if err == io.EOF {
				return nil
			}
			if err == nil {
				err = piece(p)
			}
			if err != nil {
				return err
			}
		}
	}
	diff, err := tree.NewContentDiff(e.ctx, metaReader{e.r}, c.old.Content(), c.item.Content())
	if err != nil {
		return err
	}
	for {
		s, err := diff.Next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case s.Same:
			err = same(s.From, s.Size)
		default:
			err = piece(s.Piece)
		}
		if err != nil {
			return err
		}
	}
}

// contentOut emits the content of one file: data at the first use of a chunk,
// refs for those that came before, copy for what the parent's version has.
type contentOut struct {
	e    *exporter
	refs []format.ChunkRef
	copy *format.CopyRange // run that is being gathered
	lost uint64            // bytes for which zeros stand, since they are lost
}

func (w *contentOut) send(c change) error {
	if err := w.e.content(c, w.copyRun, w.piece); err != nil {
		return err
	}
	return w.flush()
}

func (w *contentOut) piece(p tree.Piece) error {
	e := w.e
	switch {
	case p.IsHole() || e.isLost(p):
		if !p.IsHole() {
			w.lost += p.Size
		}
		if err := w.flush(); err != nil {
			return err
		}
		return e.emit(&format.Hole{Size: p.Size})
	case e.opts.Held:
		return w.ref(p)
	}
	if !e.opts.Flat {
		fresh := e.sent.add(p.ID, uint32(p.Size))
		if !fresh || e.opts.HasChunk != nil && e.opts.HasChunk(p.ID, uint32(p.Size)) || e.opts.Arrived != nil && e.opts.Arrived(e.current, p.ID) {
			return w.ref(p)
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	d := &format.Data{ID: p.ID, Size: uint32(p.Size)}
	if e.multi != nil {
		_, repeated := e.multi.get(p.ID)
		d.Once = !repeated
	}
	return e.emitData(d)
}

// ref adds a chunk to the run of refs.
func (w *contentOut) ref(p tree.Piece) error {
	if w.copy != nil || len(w.refs) == format.RefsMax {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.refs = append(w.refs, format.ChunkRef{ID: p.ID, Size: uint32(p.Size)})
	return nil
}

// copyRun adds a run of the parent's version, joined to the one before if they
// touch.
func (w *contentOut) copyRun(offset, size uint64) error {
	if w.copy != nil && w.copy.Offset+w.copy.Size == offset {
		w.copy.Size += size
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.copy = &format.CopyRange{Offset: offset, Size: size}
	return nil
}

// flush emits the run that is being gathered.
func (w *contentOut) flush() error {
	if w.copy != nil {
		rec := w.copy
		w.copy = nil
		return w.e.emit(rec)
	}
	if len(w.refs) > 0 {
		rec := &format.Refs{Chunks: w.refs}
		w.refs = nil
		return w.e.emit(rec)
	}
	return nil
}
