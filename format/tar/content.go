package tar

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

// contentMemory is how much of a file waits in memory until its size and holes
// are known, in bytes. What is longer is trusted to be as long as its entry
// says, or goes through a temporary file where that says nothing.
const contentMemory = 8 << 20

// contentMode is what becomes of the content that comes.
type contentMode int

const (
	contentGathered contentMode = iota // kept, all of it is in buf
	contentSpooled                     // kept, in spool
	contentStreamed                    // written as it comes: the header is out
	contentCompared                    // only compared with that of the first link
)

// outFile is the file whose content is coming.
type outFile struct {
	sink  *Sink
	entry *format.Entry
	mode  contentMode
	group *outGroup // of hard links; nil: none
	isNew bool      // it is the first of its group

	buf   []byte
	spool *spill.Log
	runs  []format.Extent // of data, joined where they touch
	holes bool            // a hole has come
	size  uint64          // of the content so far
	sum   hash.Hash       // of the data, for groups
	cuts  hash.Hash       // of the chunks, for groups
	named bool            // some chunks came as refs, without their bytes

	plan  sparseMap // what the header says, once it is out
	piece int       // of plan, that is being written
	put   uint64    // bytes of it that are written
	asked bool      // the header says that there are holes
	short bool      // content is lost at the end
	zeros bool      // holes were written as zeros
}

// data takes a chunk of the content.
func (f *outFile) data(id format.ID, plain []byte) error {
	at := f.size
	f.run(id, uint64(len(plain)))
	if f.sum != nil {
		f.sum.Write(plain)
	}
	if f.mode == contentGathered && len(f.buf)+len(plain) > contentMemory {
		if err := f.leaveMemory(); err != nil {
			return err
		}
	}
	switch f.mode {
	case contentGathered:
		f.buf = append(f.buf, plain...)
	case contentSpooled:
		_, err := f.spool.Write(plain)
		return err
	case contentStreamed:
		return f.stream(at, plain)
	}
	return nil
}

// run counts a chunk.
func (f *outFile) run(id format.ID, size uint64) {
	at := f.size
	f.size += size
	if f.cuts != nil {
		f.cuts.Write(id[:])
	}
	if n := len(f.runs); n > 0 && f.runs[n-1].Offset+f.runs[n-1].Size == at {
		f.runs[n-1].Size += size
	} else {
		f.runs = append(f.runs, format.Extent{Offset: at, Size: size})
	}
}

// ref takes a chunk whose bytes do not come again. That is enough for a further
// member of a group of hard links, which is only compared.
func (f *outFile) ref(c format.ChunkRef) error {
	if f.group == nil || f.isNew {
		return needsFlat(format.KindRefs)
	}
	f.named = true
	f.mode = contentCompared
	f.run(c.ID, uint64(c.Size))
	return nil
}

// hole takes a hole.
func (f *outFile) hole(size uint64) error {
	at := f.size
	f.size += size
	f.holes = true
	if f.mode == contentStreamed {
		return f.streamHole(at, size)
	}
	return nil
}

// giveBuffer leaves the buffer to the next file.
func (f *outFile) giveBuffer() {
	if f.buf != nil {
		f.sink.fileBuf, f.buf = f.buf, nil
	}
}

// leaveMemory decides what to do with a file that is too long to wait.
func (f *outFile) leaveMemory() error {
	switch {
	case f.group != nil && !f.isNew:
		f.mode = contentCompared
		f.giveBuffer()
		return nil
	case f.entry.Has&format.HasSize == 0 || f.entry.Size < f.size:
		f.mode, f.spool = contentSpooled, spill.NewLog(f.sink.opts.TempDir)
		_, err := f.spool.Write(f.buf)
		f.giveBuffer()
		return err
	}
	plan := sparseMap{size: f.entry.Size, pieces: f.entry.Extents}
	if n := len(plan.pieces); n > 0 && plan.pieces[n-1].Offset+plan.pieces[n-1].Size > plan.size {
		plan.pieces = nil // they contradict the size
	}
	if len(plan.pieces) == 0 {
		plan.pieces = []format.Extent{{Size: plan.size}}
	}
	if err := f.begin(plan); err != nil {
		return err
	}
	f.mode = contentStreamed
	buf := f.buf
	f.giveBuffer()
	return f.replay(func(n int) ([]byte, error) {
		part := buf[:n]
		buf = buf[n:]
		return part, nil
	}, len(buf))
}

// begin writes the header, and the map of holes, of a file with that plan. The
// pieces begin and end with whole blocks, as GNU tar wants them.
func (f *outFile) begin(plan sparseMap) error {
	f.plan = sparseMap{size: plan.size}
	for _, x := range plan.pieces {
		begin := x.Offset &^ (blockSize - 1)
		end := min(plan.size, (x.Offset+x.Size+blockSize-1)&^(blockSize-1))
		if n := len(f.plan.pieces); n > 0 {
			last := &f.plan.pieces[n-1]
			if lastEnd := last.Offset + last.Size; begin <= lastEnd {
				last.Size = max(end, lastEnd) - last.Offset
				continue
			}
		}
		f.plan.pieces = append(f.plan.pieces, format.Extent{Offset: begin, Size: end - begin})
	}
	stored := f.plan.stored()
	f.asked = uint64(stored) < f.plan.size
	w := written{entry: f.entry, typ: typeFile, size: stored}
	var before []byte
	if f.asked {
		before = appendSparseText(nil, &f.plan)
		w.holes = &f.plan
		w.size += int64(len(before))
	}
	if err := f.sink.header(&w); err != nil {
		return err
	}
	return f.sink.out.write(before)
}

// replay hands runs of data that were kept to stream: read returns the next n
// bytes, of total in all.
func (f *outFile) replay(read func(n int) ([]byte, error), total int) error {
	for _, x := range f.runs {
		for at, left := x.Offset, x.Size; left > 0 && total > 0; {
			n := int(min(left, 1<<20, uint64(total)))
			part, err := read(n)
			if err != nil {
				return err
			}
			if err := f.stream(at, part); err != nil {
				return err
			}
			at, left, total = at+uint64(n), left-uint64(n), total-n
		}
	}
	return nil
}

var zeroes [64 << 10]byte

// stream writes data that lies at an offset of the file, as far as the plan has
// a place for it. What lies before it and was not written is zeros.
func (f *outFile) stream(at uint64, plain []byte) error {
	for len(plain) > 0 {
		if at >= f.plan.size {
			f.short = true
			return nil
		}
		if err := f.fill(at); err != nil {
			return err
		}
		if f.piece == len(f.plan.pieces) || at < f.plan.pieces[f.piece].Offset {
			// Where the header says that there is a hole.
			end := f.plan.size
			if f.piece < len(f.plan.pieces) {
				end = f.plan.pieces[f.piece].Offset
			}
			n := int(min(uint64(len(plain)), end-at))
			if len(bytes.TrimLeft(plain[:n], "\x00")) > 0 {
				return fmt.Errorf("write %q: there is data at byte %d, where its entry says that there is a hole", f.entry.Path, at)
			}
			plain, at = plain[n:], at+uint64(n)
			continue
		}
		x := f.plan.pieces[f.piece]
		n := int(min(uint64(len(plain)), x.Offset+x.Size-at))
		if err := f.sink.out.write(plain[:n]); err != nil {
			return err
		}
		f.put += uint64(n)
		plain, at = plain[n:], at+uint64(n)
		if f.put == x.Size {
			f.piece, f.put = f.piece+1, 0
		}
	}
	return nil
}

// streamHole takes a hole of a file whose header is out.
func (f *outFile) streamHole(at, size uint64) error {
	if err := f.fill(min(at+size, f.plan.size)); err != nil {
		return err
	}
	f.short = f.short || at+size > f.plan.size
	return nil
}

// fill writes zeros for a hole that ends at an offset, as far as the header has
// data there.
func (f *outFile) fill(at uint64) error {
	written, err := f.zerosUpTo(at)
	// Less than that only completes blocks.
	f.zeros = f.zeros || written > 2*blockSize
	return err
}

// zerosUpTo writes zeros for what the plan has before an offset and was not
// written yet.
func (f *outFile) zerosUpTo(at uint64) (written uint64, err error) {
	for f.piece < len(f.plan.pieces) {
		x := f.plan.pieces[f.piece]
		if x.Offset+f.put >= at {
			return written, nil
		}
		end := min(at, x.Offset+x.Size)
		written += end - x.Offset - f.put
		for n := end - x.Offset - f.put; n > 0; {
			k := min(n, uint64(len(zeroes)))
			if err := f.sink.out.write(zeroes[:k]); err != nil {
				return written, err
			}
			n -= k
		}
		f.put = end - x.Offset
		if f.put == x.Size {
			f.piece, f.put = f.piece+1, 0
		}
	}
	return written, nil
}

// close writes what is left to be written, at the eof.
func (f *outFile) close() error {
	if f.spool != nil {
		defer f.spool.Close()
	}
	if f.group != nil && !f.isNew {
		same := f.group.cuts == f.digest(f.cuts) || !f.named && f.group.content == f.digest(f.sum)
		switch {
		case same:
			return f.sink.header(&written{entry: f.entry, typ: typeLink, link: f.group.path})
		case f.named:
			return needsFlat(format.KindRefs)
		case f.mode == contentCompared:
			return fmt.Errorf("write %q: it is a hard link to %q but has other content, and was too long to keep: restore this snapshot to a disk instead", f.entry.Path, f.group.path)
		}
		if err := f.sink.lose(format.LossHardlink, f.entry.Path, errors.New("the members of its group have different content")); err != nil {
			return err
		}
	}
	if err := f.flush(); err != nil {
		return err
	}
	if _, err := f.zerosUpTo(f.plan.size); err != nil {
		return err
	}
	if f.short || f.size < f.plan.size {
		err := fmt.Errorf("it has %d bytes and not the %d that its entry says: it was cut or filled up", f.size, f.plan.size)
		if err := f.sink.lose(format.LossDamaged, f.entry.Path, err); err != nil {
			return err
		}
	}
	if f.zeros {
		if err := f.sink.lose(format.LossSparse, f.entry.Path, errors.New("holes came where its entry says that there is data")); err != nil {
			return err
		}
	}
	return f.sink.out.pad()
}

// flush writes a file that was kept, of which all is known now.
func (f *outFile) flush() error {
	switch f.mode {
	case contentGathered:
		if err := f.begin(f.exactPlan()); err != nil {
			return err
		}
		buf := f.buf
		return f.replay(func(n int) ([]byte, error) {
			part := buf[:n]
			buf = buf[n:]
			return part, nil
		}, len(buf))
	case contentSpooled:
		if err := f.begin(sparseMap{size: f.size, pieces: f.runs}); err != nil {
			return err
		}
		in := io.NewSectionReader(f.spool, 0, f.spool.Size())
		part := make([]byte, 1<<20)
		return f.replay(func(n int) ([]byte, error) {
			_, err := io.ReadFull(in, part[:n])
			return part[:n], err
		}, math.MaxInt)
	}
	return nil
}

// exactPlan returns the map of a file that is all in memory. Where no hole came
// but the entry knows of some, what lies there must be zeros.
func (f *outFile) exactPlan() sparseMap {
	plan := sparseMap{size: f.size, pieces: f.runs}
	if f.holes || len(f.entry.Extents) == 0 {
		return plan
	}
	at := uint64(0)
	for _, x := range f.entry.Extents {
		if x.Offset+x.Size > f.size || len(bytes.TrimLeft(f.buf[at:x.Offset], "\x00")) > 0 {
			return plan
		}
		at = x.Offset + x.Size
	}
	if len(bytes.TrimLeft(f.buf[at:], "\x00")) > 0 {
		return plan
	}
	plan.pieces = f.entry.Extents
	return plan
}

// digest returns a hash of the content: of what was summed up of it, and of
// where its data lies.
func (f *outFile) digest(sum hash.Hash) [32]byte {
	h := sha256.New()
	h.Write(sum.Sum(nil))
	var b [16]byte
	for _, x := range append(f.runs, format.Extent{Offset: f.size}) {
		binary.LittleEndian.PutUint64(b[:], x.Offset)
		binary.LittleEndian.PutUint64(b[8:], x.Size)
		h.Write(b[:])
	}
	return [32]byte(h.Sum(nil))
}
