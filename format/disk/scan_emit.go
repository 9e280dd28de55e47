package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
)

// emitter is the part of a Scanner that turns items into records. It belongs to
// the goroutine that calls Next.
type emitter struct {
	step   func() (format.Record, error) // makes the next record; nil, nil: call the next step
	failed error                         // sticky
	reader *reader                       // for what no reader has done, made when first needed

	group *group
	index int // of the item in group
	item  *item

	segment *segment // of the item's stream
	pieces  []piece  // not handed out yet
	size    uint64   // of the content so far

	data format.Data // handed out last, if it has a payload
	refs format.Refs
	hole format.Hole
	eof  format.EOF

	commit   format.Commit
	losses   map[string]*format.Loss
	stats    ScanStats
	progress format.Progress
}

// begin prepares the first call of Next.
func (s *Scanner) begin() {
	s.losses = make(map[string]*format.Loss)
	s.progress.Snapshots = 1
	if e := s.options.Snapshot.Estimate; e != nil {
		s.progress.EntriesTotal, s.progress.BytesTotal = e.Entries, e.Bytes
	}
	s.step = s.stepHeader
}

// Next returns the next record (format.Source). The counts in the commit and end
// records are set, the digests are not.
func (s *Scanner) Next() (format.Record, error) {
	if s.failed != nil {
		return nil, s.failed
	}
	if s.data.Payload != nil {
		if !s.data.Taken() {
			format.FreePayload(s.data.Payload)
		}
		s.data = format.Data{}
	}
	for {
		rec, err := s.step()
		if err != nil {
			s.failed = err
			return nil, err
		}
		if rec != nil {
			return rec, nil
		}
	}
}

func (s *Scanner) stepHeader() (format.Record, error) {
	s.step = s.stepSnapshot
	h := &format.Header{Version: format.Version, Producer: s.options.Producer, Created: s.options.Created}
	if s.options.Flat {
		h.Features = append(h.Features, format.FeatureFlat)
	}
	if s.options.Previous != nil {
		h.Features = append(h.Features, format.FeatureBase)
	}
	if s.options.canAdopt() {
		h.Features = append(h.Features, format.FeatureCopy)
	}
	if s.options.Compress {
		h.Features = append(h.Features, format.FeatureZstd)
	}
	return h, nil
}

func (s *Scanner) stepSnapshot() (format.Record, error) {
	s.step = s.stepItem
	snapshot := s.options.Snapshot
	return &snapshot, nil
}

// stepItem finds the next item and begins it.
func (s *Scanner) stepItem() (format.Record, error) {
	for s.group == nil || s.index == len(s.group.items) {
		if s.group != nil {
			s.groups.Put(s.group)
			s.group = nil
		}
		select {
		case g, ok := <-s.out:
			if !ok {
				if s.ctx.Err() != nil {
					return nil, s.stopped()
				}
				s.step = s.stepCommit
				return nil, s.mergeErr
			}
			if err := s.wait(g.done); err != nil {
				return nil, err
			}
			s.group, s.index = g, 0
			s.countUnchanged(&g.unchanged)
		case <-s.ctx.Done():
			return nil, s.stopped()
		}
	}
	it := &s.group.items[s.index]
	s.index++
	s.item = it
	return s.beginItem(it)
}

// wait waits for those who work, or the end of the scan.
func (s *Scanner) wait(done chan struct{}) error {
	select {
	case <-done:
	case <-s.ctx.Done():
		return s.stopped()
	}
	return nil
}

func (s *Scanner) stopped() error { return fmt.Errorf("scan: %w", context.Cause(s.ctx)) }

func (s *Scanner) beginItem(it *item) (format.Record, error) {
	if it.task == taskLink {
		s.repeat(it)
	} else if it.content != nil && !it.gone && !it.content.recorded {
		it.content.recorded = true
		it.content.entry = it.entry
	}
	s.step = s.stepEndItem
	switch {
	case it.task == taskRemove || it.gone && it.had:
		s.commit.Removes++
		s.stats.Removed++
		return &format.Remove{Path: it.path}, nil
	case it.task == taskNone || it.gone:
		return nil, nil
	}
	s.countEntry(it)
	if it.same {
		return nil, nil
	}
	s.commit.Entries++
	if !s.options.Atime {
		it.entry.Has &^= format.HasAtime
		it.entry.Atime = format.Time{}
	}
	switch {
	case it.entry.Type != format.TypeFile:
	case it.task == taskAdopt:
		s.step = s.stepAdopted
	default:
		s.step = s.stepContent
		s.pieces, s.size = it.pieces, 0
		if s.keeps(it) {
			s.options.Inodes.begin()
		}
	}
	return &it.entry, nil
}

// repeat gives a file's further name the content that came with an earlier one.
func (s *Scanner) repeat(it *item) {
	if it.content.recorded {
		it.entry = it.content.entry
		it.entry.Path = it.path
		it.pieces, it.cut = it.content.pieces, it.content.cut
		if it.cut != "" {
			it.note(LossUnreadable, "read", errors.New(it.cut))
		}
		return
	}
	// The earlier name could not be opened; this one may lead there still.
	if s.reader == nil {
		s.reader = newReader(s)
	}
	it.task = taskFile
	s.reader.complete(it)
	if !it.gone {
		it.content.recorded = true
		it.content.entry = it.entry
	}
}

// stepContent hands out the next content record: refs are gathered, and handed
// out before anything else.
func (s *Scanner) stepContent() (format.Record, error) {
	s.refs.Chunks = s.refs.Chunks[:0]
	for {
		if len(s.pieces) == 0 {
			more, err := s.nextSegment()
			if err != nil {
				return nil, err
			}
			if more {
				continue
			}
			s.step = s.stepEOF
			return s.flushRefs(), nil
		}
		p := &s.pieces[0]
		isRef := p.hole == 0 && (p.known || s.sent != nil && s.sent.has(p.id))
		if len(s.refs.Chunks) > 0 && (!isRef || len(s.refs.Chunks) == format.RefsMax) {
			return s.flushRefs(), nil
		}
		s.pieces = s.pieces[1:]
		s.countPiece(p)
		switch {
		case p.hole > 0:
			s.hole = format.Hole{Size: p.hole}
			return &s.hole, nil
		case isRef:
			if p.payload != nil {
				format.FreePayload(p.payload)
			}
			s.refs.Chunks = append(s.refs.Chunks, format.ChunkRef{ID: p.id, Size: p.size})
		default:
			return s.dataRecord(p), nil
		}
	}
}

// keeps reports whether other trees may have the same file as a new one.
func (s *Scanner) keeps(it *item) bool {
	return s.options.Inodes != nil && it.task == taskFile && it.known == nil && it.status.nlink > 1 &&
		!s.options.Flat && !s.options.ListingOnly
}

// flushRefs returns the refs gathered, or nil.
func (s *Scanner) flushRefs() format.Record {
	if len(s.refs.Chunks) == 0 {
		return nil
	}
	return &s.refs
}

func (s *Scanner) dataRecord(p *piece) format.Record {
	if s.sent != nil {
		s.sent.add(p.id)
	}
	s.commit.Data++
	s.data = format.Data{ID: p.id, Size: p.size, Codec: p.codec, Payload: p.payload, Checked: !s.options.Compress}
	p.payload = nil
	return &s.data
}

// countPiece adds a piece to the file's size, and records it for further names.
func (s *Scanner) countPiece(p *piece) {
	size := uint64(p.size)
	if p.hole > 0 {
		size = p.hole
	}
	s.size += size
	s.progress.Bytes += size
	if s.item.task == taskLink {
		return
	}
	if s.item.known == nil {
		s.stats.BytesRead += size
	}
	if s.keeps(s.item) {
		s.options.Inodes.add(p)
	}
	if c := s.item.content; c != nil {
		c.pieces = append(c.pieces, piece{hole: p.hole, id: p.id, size: p.size, known: true})
	}
}

// nextSegment gets more pieces from the item's stream, and reports whether there
// were any to come.
func (s *Scanner) nextSegment() (bool, error) {
	if s.segment != nil {
		s.item.stream.window.Release(s.segment.weight)
		s.segment = nil
	}
	if s.item.known != nil {
		var err error
		s.pieces, err = s.options.Inodes.read(s.item.known)
		return len(s.pieces) > 0, err
	}
	stream := s.item.stream
	if stream == nil {
		return false, nil
	}
	select {
	case seg, ok := <-stream.out:
		if ok {
			s.segment = seg
			if err := s.wait(seg.done); err != nil {
				return false, err
			}
			s.pieces = seg.pieces
			s.report()
			return true, nil
		}
	case <-s.ctx.Done():
		return false, s.stopped()
	}
	if s.ctx.Err() != nil {
		// The stream may have ended early for this reason.
		return false, s.stopped()
	}
	if stream.fatal != nil {
		return false, stream.fatal
	}
	s.item.cut = stream.cut
	if stream.loss != "" {
		s.item.note(stream.loss, "read", stream.err)
	}
	s.item.stream = nil
	return false, nil
}

func (s *Scanner) stepEOF() (format.Record, error) {
	it := s.item
	if c := it.content; c != nil && it.task != taskLink {
		c.cut = it.cut
	}
	if s.keeps(it) && it.cut == "" && !it.lost(LossChanged) {
		if err := s.options.Inodes.keep(&it.status); err != nil {
			return nil, err
		}
	}
	if s.options.ListingOnly {
		s.size = it.entry.Size
	}
	s.commit.Bytes += s.size
	s.eof = format.EOF{Size: s.size, Error: it.cut}
	s.step = s.stepEndItem
	return &s.eof, nil
}

// stepEndItem reports what went wrong with the item and lets go of it.
func (s *Scanner) stepEndItem() (format.Record, error) {
	it := s.item
	for _, t := range it.troubles {
		loss := s.losses[t.loss]
		if loss == nil {
			loss = &format.Loss{Kind: t.loss}
			s.losses[t.loss] = loss
		}
		loss.Count++
		if len(loss.Paths) < format.LossPathsMax {
			loss.Paths = append(loss.Paths, it.path)
		}
		if s.options.OnError != nil {
			s.options.OnError(it.path, t.err)
		}
	}
	if it.reserved > 0 {
		s.budget.Release(it.reserved)
	}
	s.progress.Path = it.path
	*it = item{}
	s.item = nil
	s.step = s.stepItem
	if s.index == len(s.group.items) {
		s.report()
	}
	return nil, nil
}

func (s *Scanner) stepCommit() (format.Record, error) {
	s.step = s.stepEnd
	for _, loss := range s.losses {
		s.commit.Losses = append(s.commit.Losses, *loss)
	}
	slices.SortFunc(s.commit.Losses, func(a, b format.Loss) int { return strings.Compare(a.Kind, b.Kind) })
	s.report()
	return &s.commit, nil
}

func (s *Scanner) stepEnd() (format.Record, error) {
	s.step = func() (format.Record, error) { return nil, io.EOF }
	return &format.End{Snapshots: 1}, nil
}

// countEntry counts an entry of the resulting listing that had an item.
func (s *Scanner) countEntry(it *item) {
	s.stats.Entries++
	s.progress.Entries++
	kind := it.entry.Type
	if it.same {
		kind, _ = it.status.kind()
	}
	switch kind {
	case format.TypeFile:
		s.stats.Files++
	case format.TypeDir:
		s.stats.Dirs++
	}
	switch {
	case it.same || it.task == taskAdopt:
		s.stats.Unchanged++
		if kind == format.TypeFile {
			s.stats.BytesUnchanged += it.status.size
			s.progress.Bytes += it.status.size
		}
	case it.had:
		s.stats.Changed++
	default:
		s.stats.New++
	}
}

func (s *Scanner) countUnchanged(u *ScanStats) {
	s.stats.Entries += u.Entries
	s.stats.Files += u.Files
	s.stats.Dirs += u.Dirs
	s.stats.Unchanged += u.Unchanged
	s.stats.BytesUnchanged += u.BytesUnchanged
	s.progress.Entries += u.Entries
	s.progress.Bytes += u.BytesUnchanged
	s.report()
}

func (s *Scanner) report() {
	if s.options.OnProgress != nil {
		s.options.OnProgress(s.progress)
	}
}
