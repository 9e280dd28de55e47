package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/tree"
)

// ImportOptions say how a stream goes into a repository.
type ImportOptions struct {
	// Backup is set by a source in the same process that makes new snapshots:
	// they then count as this client's own, not as imported.
	Backup bool
	// Compression is what plain payloads are stored with; compressed ones are
	// kept as they came unless Recompress is set.
	Compression format.Level
	Recompress  bool
	// Held accepts refs to chunks that the repository holds already, and not
	// only to those of the stream (the feature held).
	Held bool
	// SkipUnchanged leaves out snapshots that a stage made of one which the
	// repository holds, without changing more than its id.
	SkipUnchanged bool
	// ChunkerFor, if set, has all content cut anew, whatever its cuts are: it
	// returns who cuts the file at a path, whose size as its entry says it is
	// given, and the name of that splitter. Splitters returns splitters. What a
	// difference does not mention stays as the parent has it.
	ChunkerFor func(path string, size uint64) (splitter func() chunker.Splitter, name string)
	// NoteBytes is after how many stored bytes the packs so far are listed in an
	// index, and what came of an unfinished snapshot is noted, so that a run which
	// is killed need not send and store it again. 0: a sixteenth of what the import
	// has stored so far, from 64 MiB to 1 GiB.
	NoteBytes int64
	// Known, if set, are the repository's snapshots as List returned them.
	Known      []*Snapshot
	OnProgress func(format.Progress)
	OnWarning  func(text string)
}

// Imported sums up what an import did.
type Imported struct {
	Snapshots    []*Snapshot // committed now
	HeldAlready  int         // snapshots that the repository had
	Unchanged    int         // snapshots left out by SkipUnchanged
	Entries      uint64      // entry records
	Bytes        uint64      // plain bytes of content they stand for
	DataChunks   uint64      // data records
	DataBytes    uint64      // their plain bytes
	NewChunks    uint64      // chunks of content that were stored
	NewBytes     uint64      // their plain bytes
	PayloadBytes uint64      // their payloads, after compression
	StoredBytes  int64       // packs written, data and meta
	Packs        int
	// Where content was cut anew:
	BytesCut      uint64 // plain bytes that came out of the splitter
	BytesReadBack uint64 // plain bytes of chunks that had to be read here again
	Losses        []format.Loss
}

// Add adds up what two imports did.
func (i *Imported) Add(other Imported) {
	i.Snapshots = append(i.Snapshots, other.Snapshots...)
	i.HeldAlready += other.HeldAlready
	i.Unchanged += other.Unchanged
	i.Entries += other.Entries
	i.Bytes += other.Bytes
	i.DataChunks += other.DataChunks
	i.DataBytes += other.DataBytes
	i.NewChunks += other.NewChunks
	i.NewBytes += other.NewBytes
	i.PayloadBytes += other.PayloadBytes
	i.StoredBytes += other.StoredBytes
	i.Packs += other.Packs
	i.BytesCut += other.BytesCut
	i.BytesReadBack += other.BytesReadBack
	i.Losses = append(i.Losses, other.Losses...)
}

// Sink stores a stream in a repository. Each snapshot is committed as it
// completes; what arrived of an incomplete one stays out of sight.
type Sink struct {
	r    *Repository
	ctx  context.Context
	opts ImportOptions

	session *session
	pool    *pool
	saver   *metaSaver
	content *tree.ContentWriter
	anew    *rechunker            // nil: cuts are kept
	known   map[format.ID]holding // by every id that a parent can be named by
	sent    *idSet                // chunks of this stream
	header  *format.Header

	prevID   format.ID // id, in the stream, of the snapshot before
	prevRoot format.ID

	cur      *importing
	arrivals arrivals
	sum      Imported
	newData  newCounters
	progress format.Progress
	err      error
	ended    bool
	closed   bool
}

// importing is the snapshot that is arriving.
type importing struct {
	meta  format.Snapshot
	base  format.ID // root of the parent's listing
	edits *editQueue
	entry *format.Entry // the file whose content is arriving
	size  uint64        // content of that file so far
}

// ErrImporting says that another import is under way in the same Repository.
// Several processes, or several Repositories opened on one storage, may import
// at once.
var ErrImporting = errors.New("another import is under way here")

// Import returns a sink that stores a stream. A Repository has one at a time.
func (r *Repository) Import(ctx context.Context, opts ImportOptions) (*Sink, error) {
	snaps := opts.Known
	var err error
	if snaps == nil {
		var damage []Damage
		if snaps, damage, err = r.List(ctx); err != nil {
			return nil, err
		}
		if err := unreadable(damage); err != nil {
			return nil, fmt.Errorf("find out what %s holds already: %w", r, err)
		}
	}
	if err := r.keys.CheckWrite(); err != nil {
		return nil, err
	}
	s := &Sink{r: r, ctx: ctx, opts: opts, known: make(map[format.ID]holding), sent: newIDSet()}
	for _, snap := range snaps {
		s.knows(snap)
	}
	if !r.importing.CompareAndSwap(false, true) {
		return nil, ErrImporting
	}
	if s.session, err = r.beginSession(ctx, snaps); err != nil {
		r.importing.Store(false)
		return nil, err
	}
	if err := s.readArrivals(); err != nil {
		r.importing.Store(false)
		return nil, errors.Join(err, s.session.end())
	}
	s.pool = newPool(ctx, r.workers())
	s.saver = &metaSaver{metaReader{r}, s}
	s.content = tree.NewContentWriter(ctx, s.saver)
	if opts.ChunkerFor != nil {
		s.anew = newRechunker(s)
	}
	return s, nil
}

// Summary returns what was done so far, to be called behind Write of the end, or
// Close.
func (s *Sink) Summary() Imported {
	sum := s.sum
	s.newData.addTo(&sum)
	for _, p := range []*packer{s.session.data, s.session.metas} {
		packs, bytes := p.written()
		sum.Packs += packs
		sum.StoredBytes += bytes
	}
	return sum
}

// Write implements format.Sink.
func (s *Sink) Write(rec format.Record) error {
	switch {
	case s.err != nil:
	case s.anew != nil:
		s.err = s.anew.put(rec)
	default:
		s.err = s.write(rec)
	}
	// Whoever gave the workers something met with what went wrong before, and
	// would say that it went wrong there.
	if cause := context.Cause(s.pool.ctx); cause != nil && errors.Is(s.err, cause) {
		s.err = cause
	}
	return s.err
}

// write takes one record whose content is cut as it is to stay.
func (s *Sink) write(rec format.Record) error {
	switch rec := rec.(type) {
	case *format.Header:
		s.header = rec
		return nil
	case *format.Snapshot:
		return s.begin(rec)
	case *format.Extension:
		s.extension()
		return nil
	case *format.End:
		s.ended = true
		// Content that came with a snapshot which is held already may have been
		// lost before, so it is kept.
		if err := s.session.flush(s.ctx); err != nil {
			return errors.Join(err, s.session.end())
		}
		return s.session.end()
	}
	if s.cur == nil {
		return fmt.Errorf("import: a %s record outside of a snapshot", rec.Kind())
	}
	switch rec := rec.(type) {
	case *format.Entry:
		return s.entry(rec)
	case *format.Data:
		return s.data(rec)
	case *format.Refs:
		return s.refs(rec)
	case *format.CopyRange:
		return s.copyRange(rec)
	case *format.Hole:
		return s.hole(rec.Size)
	case *format.EOF:
		_, err := s.eof(rec)
		return err
	case *format.Remove:
		return s.cur.edits.put(edit{path: rec.Path})
	case *format.Commit:
		return s.commit(rec)
	}
	return fmt.Errorf("import: unexpected %s record", rec.Kind())
}

// extension counts a record that a repository has no place for.
func (s *Sink) extension() {
	loss := format.Loss{Kind: format.LossExtension, Count: 1}
	if s.cur != nil && s.cur.entry != nil {
		loss.Paths = []string{s.cur.entry.Path}
	}
	for i := range s.sum.Losses {
		if s.sum.Losses[i].Kind == loss.Kind {
			s.sum.Losses[i].Count++
			return
		}
	}
	s.sum.Losses = append(s.sum.Losses, loss)
}

// begin finds the listing that the snapshot's records apply to.
func (s *Sink) begin(rec *format.Snapshot) error {
	cur := &importing{meta: *format.Clone(rec).(*format.Snapshot)}
	switch {
	case rec.Parent.IsZero():
	case rec.Parent == s.prevID:
		cur.base = s.prevRoot
	default:
		snap, ok := s.known[rec.Parent]
		if !ok {
			return s.streamError(format.ClassParent, "snapshot %s is a difference against %s, which this repository does not hold", rec.ID, rec.Parent)
		}
		cur.base = snap.Root
	}
	cur.edits = newEditQueue()
	if err := s.startEdits(cur); err != nil {
		return err
	}
	s.cur = cur
	s.arrivals.arrive(&cur.meta, s.opts.Backup)
	if e := rec.Estimate; e != nil {
		s.progress.EntriesTotal, s.progress.BytesTotal = s.progress.Entries+e.Entries, s.progress.Bytes+e.Bytes
	}
	return nil
}

// startEdits begins to apply records to the parent's listing, in a goroutine of
// its own for each snapshot.
func (s *Sink) startEdits(cur *importing) error {
	up := tree.NewBuilder(s.ctx, s.saver, tree.SplitKey(s.r.own.Split))
	if !cur.base.IsZero() {
		var err error
		if up, err = tree.NewUpdater(s.ctx, s.saver, tree.SplitKey(s.r.own.Split), cur.base); err != nil {
			return fmt.Errorf("read the parent of snapshot %s: %w", cur.meta.ID, err)
		}
	}
	if !cur.meta.Unsorted {
		go cur.edits.run(up, up.Finish)
		return nil
	}
	sorter := tree.NewSorter(s.ctx, s.saver, tree.SorterOptions{})
	go cur.edits.run(sorter, func() (format.ID, tree.Stats, error) {
		defer sorter.Close()
		if err := sorter.Apply(up); err != nil {
			return format.ID{}, tree.Stats{}, err
		}
		return up.Finish()
	})
	return nil
}

func (s *Sink) entry(rec *format.Entry) error {
	s.sum.Entries++
	s.progress.Entries++
	s.progress.Path = rec.Path
	if s.opts.OnProgress != nil {
		s.opts.OnProgress(s.progress)
	}
	if rec.Type != format.TypeFile {
		return s.cur.edits.put(edit{path: rec.Path, entry: rec.Clone()})
	}
	s.cur.entry = rec.Clone()
	if s.keepsForeignCuts() && !strings.HasPrefix(rec.Chunker, string(chunker.Fixed)) {
		s.cur.entry.Chunker = ""
	}
	s.cur.size = 0
	s.content.Reset()
	return nil
}

// keepsForeignCuts reports whether content is stored as somebody else cut it. The
// name of a splitter in a listing means one with the secret of the group that the
// listing belongs to, so names of splitters that have secrets are then left out
// (spec/repository.md, section 7).
func (s *Sink) keepsForeignCuts() bool {
	return s.opts.ChunkerFor == nil && !s.opts.Backup && !s.opts.Held
}

func (s *Sink) data(rec *format.Data) error {
	if err := s.came(rec); err != nil {
		return err
	}
	s.arrivals.chunk(rec)
	return s.chunk(rec)
}

// came counts a chunk that came in the stream, before it is stored.
func (s *Sink) came(rec *format.Data) error {
	s.sum.DataChunks++
	s.sum.DataBytes += uint64(rec.Size)
	s.progress.Bytes += uint64(rec.Size)
	if !rec.Nameless() {
		s.sent.add(rec.ID, rec.Size)
	}
	if s.noteNow() {
		return s.note(s.ctx)
	}
	return nil
}

// chunk appends a chunk to the content that is arriving, and stores it.
func (s *Sink) chunk(rec *format.Data) error {
	if err := s.store(rec); err != nil {
		return err
	}
	return s.named(rec.ID, uint64(rec.Size))
}

// named appends a chunk that is stored to the content that is arriving.
func (s *Sink) named(id format.ID, size uint64) error {
	s.cur.size += size
	return s.content.Chunk(id, size)
}

// hole appends a hole to the content that is arriving.
func (s *Sink) hole(size uint64) error {
	s.cur.size += size
	return s.content.Hole(size)
}

// refs takes chunks that came before: in the stream, or with a part of this very
// snapshot in one that was cut off; or, when that was allowed, that the repository
// holds.
func (s *Sink) refs(rec *format.Refs) error {
	for _, ref := range rec.Chunks {
		before, err := s.checkRef(ref)
		switch {
		case err != nil:
		case before != nil && before.of != nil:
			err = s.putTogether(ref, *before)
		default:
			err = s.named(ref.ID, uint64(ref.Size))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkRef fails unless a chunk may be referred to. It returns where the chunk
// lies if it came in a stream that was cut off and not in this one yet.
func (s *Sink) checkRef(ref format.ChunkRef) (before *arrivedPlace, err error) {
	size, ok := s.sent.get(ref.ID)
	if !ok {
		at, here, err := s.arrivedBefore(ref)
		if err != nil {
			return nil, err
		}
		if here {
			s.sent.add(ref.ID, ref.Size)
			before, size, ok = &at, ref.Size, true
		}
	}
	if !ok && s.opts.Held {
		size, ok, err = s.r.index.SizeLive(s.r.label.LabelOf(seal.ChunkData, ref.ID))
		if err != nil {
			return nil, err
		}
	}
	if !ok {
		return nil, s.streamError(format.ClassReference, "refs name chunk %s, which did not come before in this stream", ref.ID)
	}
	if size != ref.Size {
		return nil, s.streamError(format.ClassReference, "refs give chunk %s %d bytes, it has %d", ref.ID, ref.Size, size)
	}
	s.progress.Bytes += uint64(size)
	return before, nil
}

func (s *Sink) streamError(class format.Class, text string, args ...any) error {
	e := format.Errorf(class, text, args...)
	if s.cur != nil && s.cur.entry != nil {
		e.Path = s.cur.entry.Path
	}
	return e
}

// eof ends the content that is arriving, and returns it.
func (s *Sink) eof(rec *format.EOF) (tree.Content, error) {
	cur := s.cur
	if cur.size != rec.Size {
		return tree.Content{}, s.streamError(format.ClassCount, "eof says %d bytes, %d came", rec.Size, cur.size)
	}
	content, err := s.content.Finish()
	if err != nil {
		return content, err
	}
	s.sum.Bytes += rec.Size
	cur.entry.Size, cur.entry.Has = rec.Size, cur.entry.Has|format.HasSize
	done := edit{path: cur.entry.Path, entry: cur.entry, content: content}
	if rec.SHA256 != nil || rec.Error != "" || len(rec.Extra) > 0 {
		done.eof = rec.AppendBody(nil)
	}
	cur.entry = nil
	return content, cur.edits.put(done)
}

// commit makes the snapshot visible, unless the repository holds it already.
func (s *Sink) commit(rec *format.Commit) error {
	cur := s.cur
	s.cur = nil
	if err := s.complete(cur, rec); err != nil {
		return err
	}
	s.arrived()
	return nil
}

func (s *Sink) complete(cur *importing, rec *format.Commit) error {
	root, stats, err := cur.edits.finish()
	if err != nil {
		return err
	}
	if err := s.pool.wait(); err != nil {
		return err
	}
	streamID := cur.meta.ID
	s.prevID, s.prevRoot = streamID, root
	s.progress.Snapshots++
	snap := &Snapshot{Root: root, Entries: stats.Entries, Bytes: stats.Bytes, Losses: cloneLosses(rec.Losses), Meta: cur.meta}
	if s.opts.SkipUnchanged && s.unchanged(snap) {
		s.sum.Unchanged++
		return nil
	}
	s.sum.Losses = append(s.sum.Losses, snap.Losses...)
	if !s.opts.Backup {
		snap.Imported = streamID
		if done, err := s.heldAlready(snap, streamID); done || err != nil {
			return err
		}
	}
	if err := s.session.commitOn(s.ctx, snap, cur.base); err != nil {
		return err
	}
	s.knows(snap)
	s.sum.Snapshots = append(s.sum.Snapshots, snap)
	return nil
}

func cloneLosses(in []format.Loss) []format.Loss {
	out := make([]format.Loss, len(in))
	for i, l := range in {
		out[i] = format.Loss{Kind: l.Kind, Count: l.Count, Paths: append([]string(nil), l.Paths...)}
	}
	return out
}

// Close ends the session. Before an end record came it abandons the snapshot
// that is incomplete; those committed stay.
func (s *Sink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if s.anew != nil {
		s.err = errors.Join(s.err, s.anew.close())
	}
	if s.cur != nil {
		s.cur.edits.abandon()
	}
	s.pool.close()
	defer s.r.importing.Store(false)
	defer s.r.index.DropClaims()
	defer s.r.meta.unpinAll()
	defer func() {
		if s.err == nil {
			s.err = errors.New("import: the sink was closed")
		}
	}()
	if s.ended {
		return nil
	}
	return errors.Join(s.leave(), s.session.end())
}

// leave lists what was stored for the incomplete snapshot and notes it, so that a
// second attempt need not send or store it again.
func (s *Sink) leave() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), leaveTimeMax)
	defer cancel()
	if s.err == nil || s.ctx.Err() == nil {
		if err := s.session.flush(ctx); err != nil {
			return err
		}
	}
	return s.note(ctx)
}
