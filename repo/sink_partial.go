package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/tree"
)

const (
	noteBytesMin = 64 << 20 // stored bytes between two notes of what came: a sixteenth of
	noteBytesMax = 1 << 30  // what the session has stored so far, within these bounds
	noteCountMax = 1 << 16  // chunks that wait for a note, at most

	leaveTimeMax = 30 * time.Second // for what is done after an import was stopped
)

// arrivals is what came of the snapshot that is arriving, in this run and in
// those that were cut off. Every now and then the sink lists its packs in an index
// and notes in a partial object what came: an import that is killed has then lost
// neither. A commit makes the notes pointless and removes them.
type arrivals struct {
	before  map[format.ID]*arrivedBefore // snapshots of which something came before
	noted   uint64                       // partial objects of this session so far
	stored  int64                        // bytes that the session had stored when they were noted last
	names   []string                     // partial objects of the current snapshot
	meta    *format.Snapshot             // of the current snapshot; nil: none, or of a backup
	waiting []format.ChunkRef            // came and are not noted yet
	files   []arrivedFile                // the same, where content is cut anew
	count   int                          // chunks that wait in both
}

// arrivedBefore is what earlier runs noted of a snapshot.
type arrivedBefore struct {
	names  []string
	chunks *idSet                    // that are stored as they came
	places map[placeKey]arrivedPlace // of those that are not
}

// arrivedPlace is where the bytes of a chunk lie.
type arrivedPlace struct {
	of     *cutContent
	offset uint64
}

// arrivedFile is the chunks that came for one file, by their offsets there.
type arrivedFile struct {
	content tree.Content
	by      string
	open    bool // the file is still arriving
	came    []format.ChunkRef
	at      []uint64
}

// readArrivals finds out what was noted by imports that were cut off.
func (s *Sink) readArrivals() error {
	a := &s.arrivals
	a.before = make(map[format.ID]*arrivedBefore)
	return s.r.eachPartial(s.ctx, func(info store.Info, p *partial) error {
		id := p.ids[0]
		if _, done := s.known[id]; done {
			s.removePartials([]string{info.Name}) // its run was stopped right behind the commit
			return nil
		}
		b := a.before[id]
		if b == nil {
			b = &arrivedBefore{chunks: newIDSet(), places: make(map[placeKey]arrivedPlace)}
			a.before[id] = b
		}
		b.names = append(b.names, info.Name)
		for i := range p.runs {
			b.take(&p.runs[i])
		}
		return nil
	})
}

func (b *arrivedBefore) take(run *arrivedRun) {
	var of *cutContent
	if run.stored != nil {
		of = &cutContent{list: run.stored, by: run.by}
	}
	for n, ref := range run.came {
		if of == nil {
			b.chunks.add(ref.ID, ref.Size)
		} else {
			b.places[keyOf(ref.ID)] = arrivedPlace{of, run.at[n]}
		}
	}
}

// arrivedBefore returns what is known of a chunk that came with the current
// snapshot in a run that was cut off, if its bytes are still there.
func (s *Sink) arrivedBefore(ref format.ChunkRef) (at arrivedPlace, ok bool, err error) {
	if s.arrivals.meta == nil {
		return at, false, nil
	}
	b := s.arrivals.before[s.arrivals.meta.ID]
	if b == nil {
		return at, false, nil
	}
	if size, here := b.chunks.get(ref.ID); here && size == ref.Size {
		hit, found, err := s.r.index.FindLive(s.r.label.LabelOf(seal.ChunkData, ref.ID))
		if err != nil || found && hit.RawSize == ref.Size {
			return at, found, err
		}
	}
	at, ok = b.places[keyOf(ref.ID)]
	if !ok || uint64(ref.Size) > at.of.size()-at.offset {
		return at, false, nil
	}
	run := arrivedRun{came: []format.ChunkRef{ref}, at: []uint64{at.offset}, stored: at.of.list}
	ok, err = run.live(s.r, 0)
	return at, ok, err
}

// putTogether stores a chunk as it came once, of bytes that were cut in another
// way then.
func (s *Sink) putTogether(ref format.ChunkRef, at arrivedPlace) error {
	plain := format.AllocPayload(int(ref.Size))[:0]
	list := at.of.list
	for i := list.find(at.offset); len(plain) < int(ref.Size); i++ {
		p, begin := list.pieces[i], list.begins[i]
		offset := at.offset + uint64(len(plain))
		lo, hi := offset-begin, min(p.Size, at.offset+uint64(ref.Size)-begin)
		if p.IsHole() {
			plain = append(plain, make([]byte, hi-lo)...)
			continue
		}
		if err := s.readBack(p, func(b []byte) { plain = append(plain, b[lo:hi]...) }); err != nil {
			return err
		}
	}
	if err := checkPlain(ref.ID, plain); err != nil {
		return fmt.Errorf("chunk %s, which came before and was cut anew: %w", ref.ID, err)
	}
	return s.chunk(&format.Data{ID: ref.ID, Size: ref.Size, Codec: format.CodecNone, Payload: plain, Checked: true})
}

// arrive notes that a snapshot begins to arrive.
func (a *arrivals) arrive(meta *format.Snapshot, backup bool) {
	a.meta, a.names, a.waiting, a.files, a.count = nil, nil, a.waiting[:0], a.files[:0], 0
	if !backup && !meta.Unstable {
		a.meta = meta
	}
}

// chunk notes a chunk that is stored as it came.
func (a *arrivals) chunk(rec *format.Data) {
	if a.meta != nil {
		a.waiting = append(a.waiting, format.ChunkRef{ID: rec.ID, Size: rec.Size})
		a.count++
	}
}

// chunkOf notes a chunk that came at an offset of the file that is arriving, and
// is cut anew by the splitter of that name. One without a name cannot be asked for
// when the import goes on, and is not noted.
func (a *arrivals) chunkOf(rec *format.Data, by string, offset uint64) {
	if a.meta == nil || rec.Nameless() {
		return
	}
	last := len(a.files) - 1
	if last < 0 || !a.files[last].open {
		a.files = append(a.files, arrivedFile{by: by, open: true})
		last++
	}
	f := &a.files[last]
	f.came, f.at = append(f.came, format.ChunkRef{ID: rec.ID, Size: rec.Size}), append(f.at, offset)
	a.count++
}

// endFile says what became of the file that was arriving.
func (a *arrivals) endFile(content tree.Content) {
	if last := len(a.files) - 1; last >= 0 && a.files[last].open {
		a.files[last].open, a.files[last].content = false, content.Clone()
	}
}

// noteNow reports whether it is time to note what came.
func (s *Sink) noteNow() bool {
	a := &s.arrivals
	if a.count >= noteCountMax {
		return true
	}
	step := s.opts.NoteBytes
	if step == 0 {
		step = min(max(a.stored/16, noteBytesMin), noteBytesMax)
	}
	_, stored := s.session.data.written()
	return stored-a.stored >= step
}

// note lists in an index the packs that are stored so far, and says in a partial
// object which chunks came and are in one of them.
func (s *Sink) note(ctx context.Context) error {
	a := &s.arrivals
	_, a.stored = s.session.data.written()
	if err := s.session.writeIndex(ctx); err != nil {
		return err
	}
	if a.meta == nil {
		return nil
	}
	runs, err := s.runsArrived()
	if err != nil || len(runs) == 0 {
		return err
	}
	body := partialBody{Runs: runs, Snapshot: a.meta.ID[:]}
	for i := range a.meta.Via {
		body.Via = append(body.Via, a.meta.Via[i].From[:])
	}
	name := seal.Name{Kind: seal.KindPartial, Client: s.r.keys.Client(), Session: s.session.id, Number: a.noted}.String()
	if err := s.r.createObject(ctx, name, seal.KindPartial, mp.Encode(&body)); err != nil {
		return fmt.Errorf("note what has arrived: %w", err)
	}
	a.noted++
	a.names = append(a.names, name)
	return nil
}

// runsArrived takes what can be noted from what waits: chunks whose bytes are on
// storage.
func (s *Sink) runsArrived() (runs []partialRun, err error) {
	a := &s.arrivals
	kept := a.waiting[:0]
	plain := arrivedRun{}
	for _, ref := range a.waiting {
		one := arrivedRun{came: []format.ChunkRef{ref}}
		live, err := one.live(s.r, 0)
		if err != nil {
			return nil, err
		}
		if live {
			plain.came = append(plain.came, ref)
		} else {
			kept = append(kept, ref)
		}
	}
	a.waiting = kept
	if len(plain.came) > 0 {
		runs = append(runs, plain.encode())
	}
	rest := a.files[:0]
	for i := range a.files {
		run, left, err := s.runOf(&a.files[i])
		if err != nil {
			return nil, err
		}
		if len(run.came) > 0 {
			runs = append(runs, run.encode())
		}
		if len(left.came) > 0 || left.open {
			rest = append(rest, left)
		}
	}
	a.files = rest
	a.count = 0 // what could not be noted is little: it waits for a pack to be full
	return runs, nil
}

// runOf makes a run of a file that was cut anew, and returns what could not be
// noted yet.
func (s *Sink) runOf(f *arrivedFile) (run arrivedRun, left arrivedFile, err error) {
	left = arrivedFile{content: f.content, by: f.by, open: f.open}
	if len(f.came) == 0 {
		return run, left, nil
	}
	pieces, size := tree.NewContentReader(s.ctx, s.saver, f.content), f.content.Size()
	if f.open {
		pieces, size = s.content.Reader(), s.content.Size()
	}
	last := f.at[len(f.at)-1] + uint64(f.came[len(f.came)-1].Size)
	base := uint64(0)
	all := arrivedRun{by: f.by, stored: new(pieceList)}
	for f.at[0] < size {
		if base == 0 && all.stored.size == 0 {
			if err := pieces.Seek(f.at[0]); err != nil {
				return run, left, err
			}
		}
		p, offset, err := pieces.Next()
		if errors.Is(err, io.EOF) || err == nil && offset >= last {
			break
		}
		if err != nil {
			return run, left, err
		}
		if len(all.stored.pieces) == 0 {
			base = offset
		}
		all.stored.add(p)
	}
	run = arrivedRun{by: f.by, stored: all.stored}
	for n, ref := range f.came {
		all.came, all.at = append(all.came, ref), append(all.at, f.at[n]-base)
		live := f.at[n]+uint64(ref.Size) <= base+all.stored.size
		if live {
			if live, err = all.live(s.r, n); err != nil {
				return run, left, err
			}
		}
		if live {
			run.came, run.at = append(run.came, ref), append(run.at, f.at[n]-base)
		} else {
			left.came, left.at = append(left.came, ref), append(left.at, f.at[n])
		}
	}
	return run, left, nil
}

// arrived removes the notes about a snapshot that is committed.
func (s *Sink) arrived() {
	a := &s.arrivals
	names := a.names
	if a.meta != nil {
		if b := a.before[a.meta.ID]; b != nil {
			names = append(names, b.names...)
			delete(a.before, a.meta.ID)
		}
	}
	s.removePartials(names)
	a.meta, a.names, a.waiting, a.files, a.count = nil, nil, a.waiting[:0], a.files[:0], 0
}

// removePartials deletes partial objects. Those that stay do no harm, and garbage
// collection removes them.
func (s *Sink) removePartials(names []string) {
	for _, name := range names {
		if err := s.r.store.Delete(s.ctx, name); err != nil && !errors.Is(err, store.ErrNotFound) {
			s.r.opts.Log.Info("a note about an unfinished import stays behind", "object", name, "error", err)
			return
		}
	}
}
