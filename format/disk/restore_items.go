//go:build linux

package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// What a worker does with each run of a file's content.

// isOpen reports whether content of the file is of use.
func (f *outFile) isOpen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err == nil && (f.state == fileWrite || f.state == fileRepair)
}

// data writes a chunk that came with the stream, and notes where it is if it
// may be referred to later.
func (w *worker) data(f *outFile, it *loadItem) {
	open := f.isOpen()
	if !open && it.once {
		return
	}
	plain, err := w.decode(it)
	if err != nil {
		w.r.cancel(fmt.Errorf("restore %s: %w", w.r.show(f.path), err))
		return
	}
	defer w.forget(plain)
	if open {
		w.r.store(f, plain, it.offset)
	}
	if it.once {
		return
	}
	switch {
	case f.isOpen() && !f.spill, f.state == fileKept && w.holds(f, plain, it.offset):
		err = w.r.chunks.add(it.id, f.number, it.offset)
	default:
		err = w.r.chunks.keep(it.id, plain)
	}
	if err != nil {
		w.r.cancel(fmt.Errorf("restore %s: %w", w.r.show(f.path), err))
	}
}

// holds reports whether the file that is left as it was has these bytes, so
// that they can be read from there.
func (w *worker) holds(f *outFile, plain []byte, offset uint64) bool {
	fd, err := unix.Openat(f.dir.fd, f.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return sameRange(fd, plain, offset)
}

// ref writes a chunk that came before, or leaves it to the content source.
func (w *worker) ref(f *outFile, it *loadItem) {
	if !f.isOpen() {
		return
	}
	ref := format.ChunkRef{ID: it.id, Size: uint32(it.size)}
	v, found, err := w.findChunk(ref, f)
	switch {
	case err != nil:
		w.r.cancel(err)
	case found && w.readBack(f, ref, v, it.offset) == nil:
	case found && w.load.number > 0:
		// The file that holds it may not have its name yet.
		w.r.loads.waitBefore(w.load.number)
		if err := w.readBack(f, ref, v, it.offset); err == nil {
			return
		} else if w.r.opts.Content == nil {
			f.damage(fmt.Errorf("read chunk %s back from the target: %w", ref.ID, err))
			return
		}
		w.want(f, ref, it.offset)
	case w.r.opts.Content != nil:
		w.want(f, ref, it.offset)
	default:
		e := format.Errorf(format.ClassReference, "chunk %s was never sent", ref.ID)
		e.Path = f.path
		w.r.cancel(e)
	}
}

// findChunk says where a chunk lies. What earlier loads have of it is there
// when they are done.
func (w *worker) findChunk(ref format.ChunkRef, f *outFile) (v tableValue, ok bool, err error) {
	c := &w.r.chunks
	if !c.seen.Load() {
		return v, false, nil
	}
	if v, ok, err = c.find(ref.ID); ok || err != nil {
		return v, ok, err
	}
	w.r.loads.waitBefore(w.load.number)
	return c.find(ref.ID)
}

func (w *worker) readBack(f *outFile, ref format.ChunkRef, v tableValue, offset uint64) error {
	plain, err := w.reader.read(ref, v, f)
	if err != nil {
		return err
	}
	w.r.store(f, plain, offset)
	return nil
}

const copyBufferSize = 256 << 10

// copy writes bytes of an earlier version.
func (w *worker) copy(f *outFile, it *loadItem) {
	if !f.isOpen() {
		return
	}
	if w.copier == nil {
		w.copier = make([]byte, copyBufferSize)
	}
	fd, err := w.r.history.open(w.r, it.from.number)
	if err != nil {
		f.damage(fmt.Errorf("copy from an earlier version: %w", err))
		return
	}
	defer unix.Close(fd)
	for done := uint64(0); done < it.size && w.r.ctx.Err() == nil; {
		n := min(it.size-done, uint64(len(w.copier)))
		buf := w.copier[:n]
		if err := preadFull(fd, buf, it.from.offset+done); err != nil {
			f.damage(fmt.Errorf("copy %d bytes at %d of an earlier version: %w", it.size, it.from.offset, err))
			return
		}
		// Where the earlier version has a hole, so will this one.
		if !isZero(buf) || f.state == fileRepair {
			w.r.store(f, buf, it.offset+done)
		}
		done += n
	}
}

// isZero reports whether all bytes are zero.
func isZero(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// hole needs nothing in a new file, which is cut to its length at the end. In
// one that is compared, there may be something else in its place.
func (w *worker) hole(f *outFile, it *loadItem) {
	f.mu.Lock()
	repair := f.state == fileRepair && f.err == nil
	f.mu.Unlock()
	if !repair {
		return
	}
	fd, err := w.r.open(f)
	if err != nil {
		return
	}
	if w.copier == nil {
		w.copier = make([]byte, copyBufferSize)
	}
	end := it.offset + it.size
	for at := it.offset; at < end && w.r.ctx.Err() == nil; {
		next, err := unix.Seek(fd, int64(at), unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && uint64(next) >= end {
			return
		}
		if err == nil {
			at = uint64(next)
		}
		buf := w.copier[:min(end-at, uint64(len(w.copier)))]
		if err := preadFull(fd, buf, at); err != nil {
			return // beyond the end, where the length makes the hole
		}
		if !isZero(buf) {
			clear(buf)
			w.r.store(f, buf, at)
		}
		at += uint64(len(buf))
	}
}

// decode returns the plain bytes of a chunk, checked against its id, until the
// next call. One that is not compressed is not copied.
func (w *worker) decode(it *loadItem) ([]byte, error) {
	if it.codec == "" || it.codec == format.CodecNone {
		if uint64(len(it.payload)) != it.size {
			return nil, it.place.At(format.Errorf(format.ClassChunk, "chunk %s has %d bytes, not %d", it.id, len(it.payload), it.size))
		}
		if !it.checked && format.SumID(it.payload) != it.id {
			return nil, it.place.At(format.Errorf(format.ClassChunk, "the payload is not chunk %s", it.id))
		}
		return it.payload, nil
	}
	w.chunk = format.Data{ID: it.id, Size: uint32(it.size), Codec: it.codec, Payload: it.payload, Checked: it.checked}
	plain, err := format.DecodePayload(w.plain[:0], &w.chunk)
	w.chunk.Payload = nil
	return plain, it.place.At(err)
}

// plainKeptMax is up to what size a worker keeps the buffer that it decodes to.
const plainKeptMax = 4 << 20

// forget takes the buffer back that decode may have allocated.
func (w *worker) forget(plain []byte) {
	switch {
	case w.chunk.Codec != format.CodecZstd || cap(plain) == cap(w.plain):
	case cap(plain) > plainKeptMax:
		format.FreePayload(plain)
	default:
		format.FreePayload(w.plain)
		w.plain = plain
	}
	w.chunk.Codec = ""
}
