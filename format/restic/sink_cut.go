package restic

import (
	"errors"
	"fmt"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/internal/spill"
)

// cutter cuts files as restic would. A chunk that begins where it would begin
// one, and that it would end in the same place, stays as it is. The others it
// joins and cuts anew, and remembers where their bytes have gone: the stream
// names chunks that it carried by refs, and their bytes are then read here again.
type cutter struct {
	storer
	splitter chunker.Splitter
	waiting  chunker.Waiting // bytes since the last cut
	whole    *piece          // what began at the last cut and may stay; nothing waits
	list     []format.ID
	done     bool
	moved    moved
	at       uint64 // in the file: the last cut
	last     [2]cachedChunk
}

// piece is a chunk that may stay as it is.
type piece struct {
	format.ChunkRef
	data *format.Data // of the stream; nil: it is stored
	cut  bool         // it is known to end where its content says so
}

// cachedChunk is one that was read last.
type cachedChunk struct {
	id    format.ID
	plain []byte
}

func newCutter(w storer, splitter chunker.Splitter) *cutter {
	dir := w.s.opts.TempDir
	return &cutter{storer: w, splitter: splitter, moved: moved{table: spill.NewTable(dir), log: spill.NewLog(dir)}}
}

// close gives temporary files back.
func (c *cutter) close() error { return errors.Join(c.moved.table.Close(), c.moved.log.Close()) }

// begin forgets the file before.
func (c *cutter) begin() {
	if c.done {
		c.list, c.done, c.at = c.list[:0], false, 0
	}
}

func (c *cutter) data(r *format.Data) error {
	if err := c.settle(false); err != nil {
		return err
	}
	d := r.Detach()
	if c.waiting.Len() == 0 {
		c.whole = &piece{ChunkRef: format.ChunkRef{ID: d.ID, Size: d.Size}, data: d}
		return nil
	}
	plain, err := format.DecodeTaken(d)
	if err != nil {
		return err
	}
	defer format.FreePayload(plain)
	return c.feedChunk(d.ID, plain)
}

func (c *cutter) stored(ref format.ChunkRef, cut bool) error {
	if err := c.settle(false); err != nil {
		return err
	}
	if c.waiting.Len() == 0 {
		c.whole = &piece{ChunkRef: ref, cut: cut}
		return nil
	}
	return c.feedStored(&ref.ID, 0, uint64(ref.Size))
}

// ref finds out where the bytes of a chunk of the stream have gone.
func (c *cutter) ref(ref format.ChunkRef) error {
	if err := c.settle(false); err != nil {
		return err
	}
	if plain, err := c.open(ref); plain != nil || err != nil {
		if err != nil {
			return err
		}
		return c.part(plain)
	}
	places, offset, ok, err := c.moved.get(&ref.ID)
	if err != nil {
		return err
	}
	if !ok {
		return c.stored(ref, false)
	}
	rest := uint64(ref.Size)
	for i := range places {
		p := &places[i]
		n := min(uint64(p.Size)-offset, rest)
		if n == uint64(p.Size) {
			err = c.stored(p.ChunkRef, p.cut)
		} else if err = c.settle(false); err == nil {
			err = c.feedStored(&p.ID, offset, offset+n)
		}
		if err != nil {
			return err
		}
		rest, offset = rest-n, 0
	}
	if rest > 0 {
		return fmt.Errorf("chunk %s of the stream was not kept whole", ref.ID)
	}
	return nil
}

// open returns the bytes of a chunk of the file that is being cut, of which not
// all are stored; nil for others.
func (c *cutter) open(ref format.ChunkRef) ([]byte, error) {
	for i := range c.moved.spans {
		s := &c.moved.spans[i]
		if s.id != ref.ID {
			continue
		}
		plain := make([]byte, 0, ref.Size)
		for j := range c.moved.recent {
			b := &c.moved.recent[j]
			end := b.begin + uint64(b.Size)
			if end <= s.begin {
				continue
			}
			got, err := c.read(&b.ID)
			if err != nil {
				return nil, err
			}
			plain = append(plain, got[max(s.begin, b.begin)-b.begin:]...)
		}
		from := max(s.begin, c.at) - c.at
		return append(plain, c.waiting.Bytes()[from:s.end-c.at]...), nil
	}
	return nil, nil
}

// feedStored feeds a part of a stored chunk.
func (c *cutter) feedStored(id *format.ID, lo, hi uint64) error {
	plain, err := c.read(id)
	if err != nil {
		return err
	}
	return c.feed(plain[lo:hi])
}

// read returns a stored chunk, until two others were read.
func (c *cutter) read(id *format.ID) ([]byte, error) {
	if c.last[1].plain != nil && c.last[1].id == *id {
		c.last[0], c.last[1] = c.last[1], c.last[0]
	}
	if c.last[0].plain != nil && c.last[0].id == *id {
		return c.last[0].plain, nil
	}
	plain, err := c.s.readChunk(id)
	if err != nil {
		return nil, err
	}
	format.FreePayload(c.last[1].plain)
	c.last[0], c.last[1] = cachedChunk{*id, plain}, c.last[0]
	return plain, nil
}

func (c *cutter) part(plain []byte) error {
	if err := c.settle(false); err != nil {
		return err
	}
	return c.feed(plain)
}

// noughts are fed for holes.
var noughts [zerosSize]byte

func (c *cutter) zeros(size uint64) error {
	if err := c.settle(false); err != nil {
		return err
	}
	for size > 0 {
		n := min(size, zerosSize)
		if c.waiting.Len() > 0 || n < zerosSize {
			if err := c.feed(noughts[:n]); err != nil {
				return err
			}
			size -= n
			continue
		}
		// Zeros are cut as soon as they may be.
		if size >= zerosManyMin {
			n = zerosSizeMax
		}
		id, err := c.zeroChunk(int(n))
		if err != nil {
			return err
		}
		c.took(format.ChunkRef{ID: id, Size: uint32(n)})
		size -= n
	}
	return nil
}

// settle decides whether the chunk that began at the last cut stays, now that it
// is known whether more follows.
func (c *cutter) settle(final bool) error {
	c.begin()
	p := c.whole
	if p == nil {
		return nil
	}
	c.whole = nil
	if p.data == nil {
		if final || p.cut {
			c.took(p.ChunkRef)
			return nil
		}
		return c.feedStored(&p.ID, 0, uint64(p.Size))
	}
	least := uint32(c.splitter.Min())
	if final && p.Size <= least {
		p.name(p.data.Payload)
		if err := c.moved.stays(p.ChunkRef, false); err != nil {
			return err
		}
		c.took(p.ChunkRef)
		return c.store(p.data)
	}
	plain, err := decodeArrived(p.data)
	if err != nil {
		return err
	}
	if p.Size >= least && c.splitter.Cut(plain, final) == len(plain) {
		p.name(plain)
		if err := c.moved.stays(p.ChunkRef, !final); err != nil {
			return err
		}
		c.took(p.ChunkRef)
		return c.storeChecked(p.data, plain)
	}
	c.splitter.Reset()
	defer format.FreePayload(plain)
	format.FreePayload(p.data.Payload)
	return c.feedChunk(p.ID, plain)
}

// name gives a chunk that came without an id the one that its plain bytes have.
func (p *piece) name(plain []byte) {
	if p.data.Nameless() {
		p.ID = format.SumID(plain)
		p.data.ID = p.ID
	}
}

// decodeArrived returns the plain bytes of a chunk of the stream, whose payload
// stays beside them if it is another one.
func decodeArrived(d *format.Data) ([]byte, error) {
	if d.Codec != format.CodecNone {
		return format.DecodePayload(nil, d)
	}
	plain, err := format.DecodeTaken(d)
	d.Payload = nil
	return plain, err
}

// storeChecked has a chunk stored whose plain bytes are those of its id.
func (c *cutter) storeChecked(d *format.Data, plain []byte) error {
	free := func() {
		format.FreePayload(plain)
		format.FreePayload(d.Payload)
	}
	known, err := c.claim(d.ID, d.Size)
	if known || err != nil {
		free()
		return err
	}
	return c.s.jobs.do(len(plain), func() error {
		defer free()
		if c.s.r.config.Version >= 2 && d.Codec == format.CodecZstd {
			return c.s.w.add(c.s.ctx, dataBlob, d.ID, d.Payload, d.Size)
		}
		return c.encode(d.ID, plain)
	})
}

// took appends a chunk that is stored, at a cut.
func (c *cutter) took(ref format.ChunkRef) {
	c.list = append(c.list, ref.ID)
	c.at += uint64(ref.Size)
}

// feedChunk feeds a chunk of the stream and notes where its bytes go; of one
// without an id nobody asks.
func (c *cutter) feedChunk(id format.ID, plain []byte) error {
	if id.IsZero() {
		return c.feed(plain)
	}
	begin := c.at + uint64(c.waiting.Len())
	c.moved.spans = append(c.moved.spans, span{id, begin, begin + uint64(len(plain))})
	return c.feed(plain)
}

// feed cuts what came since the last cut and plain.
func (c *cutter) feed(plain []byte) error {
	return c.waiting.Cut(c.splitter, plain, func(chunk []byte) error { return c.emit(chunk, true) })
}

// emit has a chunk stored that the splitter found. cut says that it ends where
// its content says so, and not with the file.
func (c *cutter) emit(chunk []byte, cut bool) error {
	ref := format.ChunkRef{ID: format.SumID(chunk), Size: uint32(len(chunk))}
	known, err := c.claim(ref.ID, ref.Size)
	if err != nil {
		return err
	}
	if !known {
		own := format.AllocPayload(len(chunk))
		copy(own, chunk)
		err := c.s.jobs.do(len(own), func() error {
			defer format.FreePayload(own)
			return c.encode(ref.ID, own)
		})
		if err != nil {
			return err
		}
	}
	begin := c.at
	c.took(ref)
	return c.moved.add(stay{piece{ChunkRef: ref, cut: cut}, begin})
}

func (c *cutter) finish() ([]format.ID, error) {
	if err := c.settle(true); err != nil {
		return nil, err
	}
	rest := c.waiting.Len()
	err := c.waiting.End(c.splitter, func(chunk []byte) error {
		rest -= len(chunk)
		return c.emit(chunk, rest > 0)
	})
	if err != nil {
		return nil, err
	}
	c.splitter.Reset()
	c.done = true
	return c.list, nil
}
