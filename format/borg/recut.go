package borg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/internal/spill"
)

// recutter makes the chunks of one file after another as borg create would cut
// them in this repository (spec/chunker.md, "Buzhash"): of new bytes, and of known
// ones, which lie in a content that is stored.
//
// Of the known ones a chunk is taken over without being read where the new file
// would be cut in the same way: it begins at a cut, comes whole, and is followed
// by as many of the same bytes as its end depends on, or ends both files.
type recutter struct {
	s        *Sink
	splitter chunker.Splitter
	ahead    uint64 // bytes behind a cut that it depends on

	waiting chunker.Waiting
	run     knownRun
	file    *filling
	offset  uint64 // in the file, of what comes next

	single []byte // the frame in which the only chunk of the file so far came
	solo   int    // its size
	recent recentPlain
	pieces pieceCache

	sent    *spill.Table // chunks of the stream, to places in log
	log     *spill.Log   // id, size, number of the file, offset there
	serial  uint64       // number of the file that arrives
	starts  *spill.Log   // where the content of each file begins in content
	content *spill.Log   // numbers of chunks, and the chunks
	last    *stored      // of the file lastNo
	lastNo  uint64
}

// stored is the content of a file that is stored.
type stored struct {
	refs []chunkRef
	ends []uint64 // of the chunks
	own  bool     // it was cut as the repository's own borg does
}

func newStored(refs []chunkRef, own bool) *stored {
	c := &stored{refs: refs, ends: make([]uint64, len(refs)), own: own}
	end := uint64(0)
	for i := range refs {
		end += uint64(refs[i].size)
		c.ends[i] = end
	}
	return c
}

func (c *stored) size() uint64 {
	if len(c.ends) == 0 {
		return 0
	}
	return c.ends[len(c.ends)-1]
}

// at returns the number of the chunk that has the byte at an offset.
func (c *stored) at(offset uint64) int {
	return sort.Search(len(c.ends), func(i int) bool { return c.ends[i] > offset })
}

func (c *stored) start(i int) uint64 { return c.ends[i] - uint64(c.refs[i].size) }

// knownRun is a run of bytes of a stored content, from lo to hi. fed is how many
// bytes before lo went into the buffer, without others behind them.
type knownRun struct {
	of          *stored
	lo, hi, fed uint64
}

func newRecutter(s *Sink, spec chunker.Spec) (*recutter, error) {
	factory, err := s.r.keys.splitters(spec)
	if err != nil {
		return nil, err
	}
	c := &recutter{
		s: s, splitter: factory.Splitter(), ahead: uint64(spec.Window) + 1,
		sent: spill.NewTable(s.tempDir), log: spill.NewLog(s.tempDir),
		starts: spill.NewLog(s.tempDir), content: spill.NewLog(s.tempDir),
	}
	c.recent.byID = make(map[format.ID][]byte)
	return c, nil
}

func (c *recutter) close() error {
	return errors.Join(c.sent.Close(), c.log.Close(), c.starts.Close(), c.content.Close())
}

// begin begins a file.
func (c *recutter) begin(f *filling) {
	c.file, c.offset, c.run, c.single, c.solo = f, 0, knownRun{}, nil, 0
	c.splitter.Reset()
	c.waiting.Drop()
}

// data takes new bytes, which it gives back to the pool. frame is what they came
// as, if it can be stored as it is.
func (c *recutter) data(d *format.Data, plain, frame []byte) error {
	defer format.FreePayload(plain)
	if err := c.advance(true, false); err != nil {
		return err
	}
	c.single, c.solo = nil, 0
	if c.offset == 0 {
		c.single, c.solo = frame, len(plain)
	}
	if !d.Once {
		if err := c.came(d.ID, d.Size); err != nil {
			return err
		}
		c.recent.put(d.ID, plain)
	}
	c.offset += uint64(len(plain))
	return c.add(plain)
}

// add cuts what waits and plain behind it.
func (c *recutter) add(plain []byte) error {
	return c.waiting.Cut(c.splitter, plain, c.emitPlain)
}

func (c *recutter) emitPlain(plain []byte) error { return c.emit(plain, nil) }

// emit stores a chunk. Its turn in the file is kept while it is compressed.
func (c *recutter) emit(plain, frame []byte) error {
	f := c.file
	if plain[0] == 0 && isZero(plain) {
		n := uint32(len(plain))
		return c.s.pack.do(0, nil, func() error {
			ref, err := c.s.zeroChunk(n)
			if err != nil {
				return err
			}
			return f.add(ref)
		})
	}
	own := format.AllocPayload(len(plain))
	copy(own, plain)
	var p packed
	return c.s.pack.do(2*len(plain), func() (err error) {
		p, err = c.s.packPart(own, frame)
		format.FreePayload(own)
		return err
	}, func() error {
		ref, err := c.s.store(&p)
		if err != nil {
			return err
		}
		return f.add(ref)
	})
}

func isZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// keep takes over a chunk that is stored.
func (c *recutter) keep(ref chunkRef) error {
	f := c.file
	return c.s.pack.do(0, nil, func() error { return f.add(ref) })
}

// zeroBytes are what holes are cut from.
var zeroBytes [256 << 10]byte

// zeros takes a hole.
func (c *recutter) zeros(n uint32) error {
	if err := c.advance(true, false); err != nil {
		return err
	}
	c.single = nil
	c.offset += uint64(n)
	for n > 0 {
		part := zeroBytes[:min(int(n), len(zeroBytes))]
		if err := c.add(part); err != nil {
			return err
		}
		n -= uint32(len(part))
	}
	return nil
}

// known takes bytes that lie in a stored content.
func (c *recutter) known(of *stored, offset, size uint64) error {
	c.single = nil
	if c.run.of != of || c.run.hi != offset {
		if err := c.advance(true, false); err != nil {
			return err
		}
		c.run = knownRun{of: of, lo: offset, hi: offset}
	}
	c.run.hi += size
	c.offset += size
	return c.advance(false, false)
}

// advance takes what is known of the run: chunks as they are, others by reading
// them. If more of the run may come, final is false and what may become a whole
// chunk waits for it. end says that the file ends with the run.
func (c *recutter) advance(final, end bool) error {
	r := &c.run
	for r.of != nil && r.lo < r.hi {
		i := r.of.at(r.lo)
		start, stop := r.of.start(i), r.of.ends[i]
		if c.waiting.Len() == 0 && r.lo == start && r.of.own {
			atEnd := end && stop == r.hi && i == len(r.of.refs)-1
			if atEnd || c.settled(i) {
				if err := c.keep(r.of.refs[i]); err != nil {
					return err
				}
				r.lo, r.fed = stop, 0
				continue
			}
			if !final && r.hi < stop+c.ahead {
				return nil
			}
		}
		stop = min(stop, r.hi)
		if r.lo == start && r.fed > 0 {
			// A cut at the end of the chunk before shows in its first bytes.
			stop = min(stop, r.lo+c.ahead)
		}
		if err := c.feed(i, stop); err != nil {
			return err
		}
		c.rewind()
	}
	return nil
}

// settled reports whether a whole chunk of the run, at whose beginning there is
// a cut, ends at a cut, too.
func (c *recutter) settled(i int) bool {
	return i+1 < len(c.run.of.refs) && c.run.hi >= c.run.of.ends[i]+c.ahead
}

// feed reads bytes of the run, up to stop, which lie in one chunk.
func (c *recutter) feed(i int, stop uint64) error {
	r := &c.run
	plain, err := c.pieces.plain(c.s, r.of.refs[i])
	if err != nil {
		return fmt.Errorf("cut %q anew: %w", "/"+c.file.entry.Path, err)
	}
	start := r.of.start(i)
	part := plain[r.lo-start : stop-start]
	r.lo, r.fed = stop, r.fed+uint64(len(part))
	return c.add(part)
}

// rewind takes back what waits to be cut, if it is the beginning of a chunk of
// the run that can be taken over as it is.
func (c *recutter) rewind() {
	r := &c.run
	waits := uint64(c.waiting.Len())
	if waits == 0 || waits > r.fed || !r.of.own {
		return
	}
	start := r.lo - waits
	if i := r.of.at(start); i < len(r.of.refs) && r.of.start(i) == start && c.settled(i) {
		r.lo, r.fed = start, 0
		c.waiting.Drop()
		c.splitter.Reset()
	}
}

// end ends a file, and hands it on when its chunks are stored.
func (c *recutter) end(f *filling, r *format.EOF) error {
	if err := c.advance(true, true); err != nil {
		return err
	}
	if waits := c.waiting.Bytes(); len(waits) > 0 && c.single != nil && len(waits) == c.solo {
		if err := c.emit(waits, c.single); err != nil {
			return err
		}
		c.waiting.Drop()
	}
	if err := c.waiting.End(c.splitter, c.emitPlain); err != nil {
		return err
	}
	c.serial++
	return c.s.pack.do(0, nil, func() error {
		if err := c.note(f.chunks); err != nil {
			return err
		}
		return c.s.filled(f, r)
	})
}

// note keeps the content of a finished file, for refs that name what it had.
func (c *recutter) note(refs []chunkRef) error {
	at := uint64(c.content.Size())
	if _, err := c.starts.Write(binary.LittleEndian.AppendUint64(nil, at)); err != nil {
		return err
	}
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(refs)))
	for _, ref := range refs {
		b = appendRef(b, ref)
	}
	_, err := c.content.Write(b)
	return err
}

// placeSize is what the log has of a chunk of the stream: id, size, number of the
// file that it came in, offset there.
const placeSize = len(format.ID{}) + 4 + 8 + 8

// came notes where a chunk of the stream lies.
func (c *recutter) came(id format.ID, size uint32) error {
	b := append(make([]byte, 0, placeSize), id[:]...)
	b = binary.LittleEndian.AppendUint32(b, size)
	b = binary.LittleEndian.AppendUint64(b, c.serial)
	b = binary.LittleEndian.AppendUint64(b, c.offset)
	at := c.log.Size()
	if _, err := c.log.Write(b); err != nil {
		return err
	}
	return c.sent.Put(spill.Key(id[:16]), uint64(at))
}

// ref takes a chunk that came before in the stream.
func (c *recutter) ref(ref format.ChunkRef) error {
	at, ok, err := c.sent.Get(spill.Key(ref.ID[:16]))
	if err != nil {
		return err
	}
	var b [placeSize]byte
	if ok {
		if _, err := c.log.ReadAt(b[:], int64(at)); err != nil {
			return err
		}
	}
	if !ok || format.ID(b[:32]) != ref.ID {
		return c.s.unknownRef(ref)
	}
	if size := binary.LittleEndian.Uint32(b[32:]); size != ref.Size {
		return c.s.wrongRef(ref, size)
	}
	serial, offset := binary.LittleEndian.Uint64(b[36:]), binary.LittleEndian.Uint64(b[44:])
	if serial == c.serial {
		return c.again(ref, offset)
	}
	content, err := c.contentOf(serial)
	if err != nil {
		return err
	}
	return c.known(content, offset, uint64(ref.Size))
}

// contentOf returns the content of a file that has ended.
func (c *recutter) contentOf(serial uint64) (*stored, error) {
	if c.last != nil && c.lastNo == serial {
		return c.last, nil
	}
	if uint64(c.starts.Size()) <= 8*serial {
		if err := c.s.pack.drain(); err != nil {
			return nil, err
		}
	}
	var b [8]byte
	if _, err := c.starts.ReadAt(b[:], int64(8*serial)); err != nil {
		return nil, err
	}
	at := int64(binary.LittleEndian.Uint64(b[:]))
	if _, err := c.content.ReadAt(b[:4], at); err != nil {
		return nil, err
	}
	list := make([]byte, int(binary.LittleEndian.Uint32(b[:4]))*refSize)
	if _, err := c.content.ReadAt(list, at+4); err != nil {
		return nil, err
	}
	var refs []chunkRef
	for ; len(list) > 0; list = list[refSize:] {
		refs = append(refs, parseRef(list))
	}
	c.last, c.lastNo = newStored(refs, true), serial
	return c.last, nil
}

// again takes a chunk that came earlier in the same file.
func (c *recutter) again(ref format.ChunkRef, offset uint64) error {
	if err := c.advance(true, false); err != nil {
		return err
	}
	c.single = nil
	plain := c.recent.byID[ref.ID]
	if plain == nil {
		var err error
		if plain, err = c.earlier(offset, uint64(ref.Size)); err != nil {
			return err
		}
		c.recent.put(ref.ID, plain)
	}
	c.offset += uint64(len(plain))
	return c.add(plain)
}

// earlier reads bytes of the file that is arriving: from the chunks that were
// made of it, and behind them from what waits to be cut.
func (c *recutter) earlier(offset, size uint64) ([]byte, error) {
	if err := c.s.pack.drain(); err != nil {
		return nil, err
	}
	plain := make([]byte, 0, size)
	of := newStored(c.file.chunks, true)
	for cut := of.size(); uint64(len(plain)) < size; {
		at := offset + uint64(len(plain))
		if at >= cut {
			return append(plain, c.waiting.Bytes()[at-cut:][:int(size)-len(plain)]...), nil
		}
		i := of.at(at)
		piece, err := c.pieces.plain(c.s, of.refs[i])
		if err != nil {
			return nil, err
		}
		part := piece[at-of.start(i):]
		plain = append(plain, part[:min(uint64(len(part)), size-uint64(len(plain)))]...)
	}
	return plain, nil
}

// recentPlainMax bounds the plain bytes of chunks of the stream that are kept at
// hand, since files often have one many times.
const recentPlainMax = 8 << 20

type recentPlain struct {
	byID  map[format.ID][]byte
	order []format.ID
	bytes int
}

func (r *recentPlain) put(id format.ID, plain []byte) {
	if r.byID[id] != nil || len(plain) > recentPlainMax/2 {
		return
	}
	r.byID[id] = append([]byte(nil), plain...)
	r.order = append(r.order, id)
	r.bytes += len(plain)
	for r.bytes > recentPlainMax {
		r.bytes -= len(r.byID[r.order[0]])
		delete(r.byID, r.order[0])
		r.order = r.order[1:]
	}
}

// pieceCache keeps the chunks that were read back last.
type pieceCache struct {
	list [3]struct {
		id    objectID
		plain []byte
	}
}

func (p *pieceCache) plain(s *Sink, ref chunkRef) ([]byte, error) {
	for i := range p.list {
		if p.list[i].plain != nil && p.list[i].id == ref.id {
			return p.list[i].plain, nil
		}
	}
	plain, err := s.plain(ref)
	if err != nil {
		return nil, err
	}
	last := len(p.list) - 1
	format.FreePayload(p.list[last].plain)
	copy(p.list[1:], p.list[:last])
	p.list[0].id, p.list[0].plain = ref.id, plain
	return plain, nil
}
