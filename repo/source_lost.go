package repo

import (
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/tree"
)

// What is known to be lost does not end an export: the rest is sent, and the
// commit says what is missing (spec/repository.md, 12.3).

// prepareLost finds out what is known to be lost of the snapshots.
func (e *exporter) prepareLost() (err error) {
	if e.lost, err = e.r.knownLost(e.ctx); err != nil || len(e.lost) == 0 {
		return err
	}
	e.broken = make(map[format.ID]bool)
	snaps := e.list
	if e.base != nil {
		snaps = append(slices.Clone(snaps), e.base)
	}
	for _, s := range snaps {
		if e.broken[s.ID], err = e.r.hasLost(e.ctx, e.lost, s, false); err != nil {
			return fmt.Errorf("read the listing of snapshot %s: %w", s.ID, err)
		}
	}
	if e.base != nil && e.broken[e.base.ID] {
		e.base, e.opts.Base = nil, format.ID{}
	}
	return nil
}

// parentOf returns the snapshot that s is sent as a difference to, of which prev
// is the one before it; nil if it is sent whole. Listings of which parts are
// lost cannot be compared.
func (e *exporter) parentOf(prev, s *Snapshot) *Snapshot {
	if prev == nil || e.broken[prev.ID] || e.broken[s.ID] {
		return nil
	}
	return prev
}

// lose counts an entry of which something is lost. It is called again for one
// that is walked through again.
func (e *exporter) lose(path string) {
	e.damaged.Count++
	if len(e.damaged.Paths) < format.LossPathsMax {
		e.damaged.Paths = append(e.damaged.Paths, path)
	}
}

// readerOptions pass over nodes that are lost.
func (e *exporter) readerOptions(below string) tree.ReaderOptions {
	opts := tree.ReaderOptions{Below: below, ReadAhead: 2 * e.r.workers()}
	if len(e.lost) > 0 {
		opts.Lost = e.lost.meta
		opts.OnGap = func(gap tree.Gap) error {
			if gap.Err == nil {
				e.lose(gap.Path)
			}
			return gap.Err
		}
	}
	return opts
}

// isLost reports whether a piece of content is lost.
func (e *exporter) isLost(p tree.Piece) bool {
	return p.Depth > 0 || len(e.lost) > 0 && e.lost.data(p.ID)
}

// passEntry passes over an entry whose metadata is lost.
func (e *exporter) passEntry(path string, err error) error {
	if !e.lost.isPartOf(err) {
		return err
	}
	e.lose(path)
	return nil
}

// endDamaged makes the eof of a file of whose content bytes are lost.
func (e *exporter) endDamaged(eof *format.EOF, path string, lost uint64) {
	e.lose(path)
	eof.SHA256 = nil
	said := fmt.Sprintf("%d bytes of the content were lost in the repository; zeros stand for them", lost)
	if eof.Error != "" {
		said = eof.Error + "; " + said
	}
	eof.Error = said
}

// endUnknown is endDamaged for a file of which it is not known any more what its
// eof said.
func (e *exporter) endUnknown(eof *format.EOF, path string, err error) error {
	if !e.lost.isPartOf(err) {
		return err
	}
	e.lose(path)
	eof.Error = "what was known of the content besides its size was lost in the repository"
	return nil
}

// losses are what the commit of a snapshot says: what its own said, and what was
// lost since.
func (e *exporter) losses(s *Snapshot) []format.Loss {
	losses := cloneLosses(s.Losses)
	lost := e.damaged
	e.damaged = format.Loss{}
	if lost.Count == 0 {
		return losses
	}
	lost.Kind = format.LossDamaged
	i, found := slices.BinarySearchFunc(losses, lost.Kind, func(l format.Loss, kind string) int {
		return slices.Compare([]byte(l.Kind), []byte(kind))
	})
	if !found {
		return slices.Insert(losses, i, lost)
	}
	losses[i].Count += lost.Count
	losses[i].Paths = append(losses[i].Paths, lost.Paths...)
	losses[i].Paths = losses[i].Paths[:min(len(losses[i].Paths), format.LossPathsMax)]
	return losses
}
