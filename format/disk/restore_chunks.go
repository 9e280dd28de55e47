//go:build linux

package disk

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// chunks knows where each chunk that may be referred to again was written: in
// which file of the target and at what offset, or, where no file took it, in
// an unlinked file of its own. It is shared by all workers.
type chunks struct {
	never bool // the stream has no refs
	// seen: the stream carries chunks that may be referred to.
	seen atomic.Bool

	mu     sync.Mutex
	table  *table // id -> number of the file, offset
	create func() (*os.File, error)
	spare  *os.File // chunks that no file holds
	end    uint64
}

// inSpare stands in for a file's number.
const inSpare = tableGone - 1

func (c *chunks) init(r *Restore) {
	c.table, c.create = newTable(r.opts.MemoryChunks, r.scratch), r.scratch
}

func chunkKey(id format.ID) tableKey { return tableKey(id[:16]) }

// add says that the file with the given number has the chunk at offset.
func (c *chunks) add(id format.ID, number, offset uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.table.put(chunkKey(id), tableValue{number, offset})
}

// find returns where a chunk lies.
func (c *chunks) find(id format.ID) (v tableValue, ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.table.get(chunkKey(id))
}

// keep stores a chunk that no file of the target holds.
func (c *chunks) keep(id format.ID, plain []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spare == nil {
		f, err := c.create()
		if err != nil {
			return err
		}
		c.spare = f
	}
	if _, err := c.spare.WriteAt(plain, int64(c.end)); err != nil {
		return fmt.Errorf("keep a chunk of a file that is not restored: %w", err)
	}
	v := tableValue{inSpare, c.end}
	c.end += uint64(len(plain))
	return c.table.put(chunkKey(id), v)
}

func (c *chunks) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	if c.spare != nil {
		errs = append(errs, c.spare.Close())
	}
	return errors.Join(append(errs, c.table.close())...)
}

// chunkReader reads chunks back from the target. It keeps the file that it read
// last open, since runs of refs mostly lie in one. It is for one goroutine.
type chunkReader struct {
	r      *Restore
	number uint64
	fd     int
	buf    []byte
}

// read returns the plain bytes of a chunk that lies at v, checked, until the
// next call. self is the file being written, which may hold it too.
func (c *chunkReader) read(ref format.ChunkRef, v tableValue, self *outFile) ([]byte, error) {
	if cap(c.buf) < int(ref.Size) {
		c.buf = make([]byte, ref.Size)
	}
	buf := c.buf[:ref.Size]
	var err error
	switch {
	case v.a == inSpare:
		_, err = c.r.chunks.spare.ReadAt(buf, int64(v.b))
	case v.a == self.number && self.hasFD():
		err = preadFull(self.fd, buf, v.b)
	default:
		if err = c.open(v.a); err == nil {
			err = preadFull(c.fd, buf, v.b)
		}
	}
	if err != nil {
		return nil, err
	}
	if format.SumID(buf) != ref.ID {
		c.close()
		return nil, errors.New("its content was changed meanwhile")
	}
	return buf, nil
}

// open opens the file with the given number.
func (c *chunkReader) open(number uint64) error {
	if c.fd >= 0 && c.number == number {
		return nil
	}
	c.close()
	fd, err := c.r.history.open(c.r, number)
	if err != nil {
		return err
	}
	c.fd, c.number = fd, number
	return nil
}

func (c *chunkReader) close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
}

// preadFull fills p from the offset on.
func preadFull(fd int, p []byte, offset uint64) error {
	for len(p) > 0 {
		n, err := unix.Pread(fd, p, int64(offset))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return errors.New("the file is shorter than it should be")
		}
		p, offset = p[n:], offset+uint64(n)
	}
	return nil
}

// pwriteFull writes all of p at the offset.
func pwriteFull(fd int, p []byte, offset uint64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, int64(offset))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return errors.New("nothing was written")
		}
		p, offset = p[n:], offset+uint64(n)
	}
	return nil
}
