package disk

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
)

// tickMax is the longest time between two times that a file system's clock may
// tell. A file that was written to within it could be written to again, after
// it was read, without that showing in its times.
const tickMax = 12 * time.Millisecond

// reader completes items: it is what one of the goroutines that read files owns.
type reader struct {
	*Scanner
	*prober
	memo      ownerMemo
	splitters map[string]chunker.Splitter
}

func newReader(s *Scanner) *reader {
	return &reader{
		Scanner:   s,
		prober:    newProber(),
		memo:      ownerMemo{cache: &s.owners},
		splitters: make(map[string]chunker.Splitter),
	}
}

// do completes the items of a group.
func (r *reader) do(g *group) {
	for i := range g.items {
		if r.ctx.Err() != nil {
			break
		}
		it := &g.items[i]
		if it.task != taskMeta && it.task != taskFile {
			continue
		}
		if r.options.afterWalk != nil {
			r.options.afterWalk(it.path)
		}
		r.complete(it)
	}
	close(g.done)
}

// complete does what the item's task says.
func (r *reader) complete(it *item) {
	dirfd, err := r.walk.dirs.acquire(it.dir)
	if err != nil {
		it.fail("open the directory of", err)
		return
	}
	defer r.walk.dirs.release(it.dir)
	if it.task == taskMeta {
		r.completeMeta(it, dirfd)
		return
	}
	fd, err := openQuietAt(dirfd, it.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err == unix.EAGAIN {
		// Somebody holds a lease on the file: to open it patiently ends that.
		fd, err = openQuietAt(dirfd, it.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NOCTTY)
	}
	if err != nil {
		it.fail("open", err)
		return
	}
	if !r.completeFile(it, fd) {
		unix.Close(fd)
	}
}

// completeMeta is for what has no content.
func (r *reader) completeMeta(it *item, dirfd int) {
	var err error
	if it.status.isSymlink() {
		if it.entry.Target, err = r.readlinkAt(dirfd, it.name); err != nil {
			it.fail("read the link", err)
			return
		}
	}
	xattrs, err := r.xattrsAt(dirfd, it.name)
	if err != nil {
		if isVanished(err) {
			it.fail("read attributes of", err)
			return
		}
		it.note(LossXattr, "read attributes of", err)
	}
	if p := it.prev; p != nil && err == nil && p.Target == it.entry.Target && slices.Equal(p.Xattrs, xattrs) && len(p.Flags) == 0 {
		r.keepPrevious(it)
		return
	}
	it.fill(&r.memo)
	it.entry.Xattrs = xattrs
	it.translate(&r.options, nil)
}

// completeFile is for files. It reports whether a stream took the descriptor.
func (r *reader) completeFile(it *item, fd int) (taken bool) {
	if r.settle(it.status.ctime) {
		before := it.status
		if err := r.statFD(fd, &it.status); err != nil {
			it.fail("stat", err)
			return false
		}
		if it.status != before {
			it.prev = nil
		}
	}
	// Usually nothing changed since the walk; otherwise the second attempt takes
	// the file as it is now.
	for attempt := range 2 {
		if !it.status.isFile() {
			it.fail("open", errReplaced)
			return false
		}
		if taken, done := r.readFile(it, fd, attempt > 0); done {
			return taken
		}
		it.pieces = freePieces(it.pieces)
		it.prev, it.known = nil, nil
	}
	return false
}

// settle waits until the file system's clock has moved on since ctime, if that
// was but now, and reports whether it did.
func (r *reader) settle(ctime format.Time) bool {
	now := r.options.Now()
	wait := ctime.Time().Add(tickMax).Sub(now)
	if wait <= 0 || wait > tickMax {
		return false
	}
	select {
	case <-time.After(wait):
	case <-r.ctx.Done():
	}
	return true
}

// readFile completes the entry and reads the content once. It is not done if
// the file turns out to be another than status says; status is then what it is
// now. On the last attempt that is reported as a trouble, no more.
func (r *reader) readFile(it *item, fd int, last bool) (taken, done bool) {
	st := &it.status
	troubles := len(it.troubles)
	xattrs, err := r.xattrsFD(fd)
	if err != nil {
		it.note(LossXattr, "read attributes of", err)
	}
	flags := flagsFD(fd, st)
	if p := it.prev; p != nil && err == nil && slices.Equal(p.Xattrs, xattrs) && slices.Equal(p.Flags, flags) {
		r.keepPrevious(it)
		return false, true
	}
	it.fill(&r.memo)
	it.entry.Xattrs, it.entry.Flags = xattrs, flags
	newSplitter, name := r.options.ChunkerFor(it.path, st.size)
	it.entry.Chunker = name
	extents, sparse := extentsOf(fd, st)
	if sparse && len(extents) <= format.ExtentsMax {
		it.entry.Extents = extents
	}
	it.translate(&r.options, func() ([]byte, error) { return readSmall(fd) })
	wanted := it.entry.Type == format.TypeFile && it.known == nil && !r.options.ListingOnly
	size, read := int(min(st.size, fileSizeInline)), 0
	if wanted && st.size <= fileSizeInline && !sparse {
		read, err = r.readInline(it, fd, size, newSplitter, name)
	}
	var now status
	if errStat := r.statFD(fd, &now); errStat != nil {
		it.fail("stat", errStat)
		return false, true
	}
	if !now.sameContent(st) || now.ctime != st.ctime {
		if !last {
			it.troubles = it.troubles[:troubles]
			*st = now
			return false, false
		}
		if !now.sameContent(st) {
			it.note(LossChanged, "read", errChanged)
		}
	}
	switch {
	case !wanted:
	case st.size > fileSizeInline || sparse || st.size == 0 && read > 0:
		// Files in /proc and the like have content without a size.
		it.pieces = freePieces(it.pieces)
		stream := newStream(r.Scanner, newSplitter())
		it.stream = stream
		if !sparse {
			extents = []format.Extent{{Size: st.size}}
			if st.size == 0 {
				extents[0].Size = math.MaxInt64
			}
		}
		opened := *st
		r.wg.Go(func() { stream.readFile(fd, opened, extents) })
		return true, true
	case err != nil:
		it.cut = cutText(uint64(read), err)
		it.note(LossUnreadable, "read", err)
	}
	return false, true
}

// smallSizeMax is the most that a translation may read.
const smallSizeMax = 64 << 10

// readSmall reads a file as a whole.
func readSmall(fd int) ([]byte, error) {
	buf := make([]byte, smallSizeMax+1)
	n, err := readFull(fd, buf, 0)
	if err == nil && n > smallSizeMax {
		err = errors.New("its content is longer than what stands for attributes")
	}
	return buf[:n], err
}

// readInline reads size bytes and cuts them; of an empty file it only finds out
// whether that is all.
func (r *reader) readInline(it *item, fd, size int, newSplitter func() chunker.Splitter, name string) (int, error) {
	splitter := r.splitters[name]
	if splitter == nil {
		splitter = newSplitter()
		r.splitters[name] = splitter
	}
	buf := format.AllocPayload(max(size, 1))
	n, err := readFull(fd, buf, 0)
	if size == 0 || n == 0 {
		format.FreePayload(buf)
		return n, err
	}
	for start := 0; start < n; {
		end := start + splitter.Cut(buf[start:n], true)
		if start == 0 && end == n {
			// Most files are one chunk, which then need not be copied.
			it.pieces = append(it.pieces, r.piece(buf[:n], true))
			return n, err
		}
		it.pieces = append(it.pieces, r.piece(buf[start:end], false))
		start = end
	}
	format.FreePayload(buf)
	return n, err
}

// piece makes a piece of a chunk's plain bytes, which it may keep only if owned.
func (s *Scanner) piece(plain []byte, owned bool) piece {
	p := piece{id: format.SumID(plain), size: uint32(len(plain)), codec: format.CodecNone}
	if s.sent != nil && s.sent.has(p.id) {
		p.known = true
	} else if s.options.Compress {
		p.codec, p.payload = s.compress(plain)
	}
	switch {
	case p.payload != nil || p.known:
		if owned {
			format.FreePayload(plain)
		}
	case owned:
		p.payload = plain
	default:
		p.payload = format.AllocPayload(len(plain))
		copy(p.payload, plain)
	}
	return p
}

// compress returns a payload no longer than it needs to be, since many wait at
// a time, or nil if the plain bytes are to be the payload.
func (s *Scanner) compress(plain []byte) (format.Codec, []byte) {
	work := format.AllocPayload(format.PayloadSizeMax(len(plain)))
	defer format.FreePayload(work)
	codec, encoded, err := format.EncodePayload(work, plain, s.options.Level)
	if err != nil {
		s.cancel(err)
	}
	if err != nil || codec == format.CodecNone {
		return format.CodecNone, nil
	}
	payload := format.AllocPayload(len(encoded))
	copy(payload, encoded)
	return codec, payload
}

// freePieces gives payloads back that will not go out.
func freePieces(pieces []piece) []piece {
	for i := range pieces {
		if pieces[i].payload != nil {
			format.FreePayload(pieces[i].payload)
		}
		pieces[i] = piece{}
	}
	return pieces[:0]
}

// readFull reads from an offset until buf is full or the file ends.
func readFull(fd int, buf []byte, offset int64) (int, error) {
	n := 0
	for n < len(buf) {
		got, err := unix.Pread(fd, buf[n:], offset+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		if got == 0 {
			break
		}
		n += got
	}
	return n, nil
}

// cutText is what an eof record says about a file that could not be read on.
func cutText(offset uint64, err error) string {
	return fmt.Sprintf("read at byte %d: %v", offset, err)
}

// extentsOf finds where a file has data, if blocks are missing, and reports
// whether it has holes. One more extent than the stream can hold is found at
// most, and that one reaches to the end of the file.
func extentsOf(fd int, st *status) ([]format.Extent, bool) {
	if st.size == 0 || st.blocks*512 >= st.size {
		return nil, false
	}
	var extents []format.Extent
	for at := int64(0); at < int64(st.size); {
		data, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return extents, true
		}
		if err != nil {
			return nil, false
		}
		if len(extents) == format.ExtentsMax {
			return append(extents, format.Extent{Offset: uint64(data), Size: st.size - uint64(data)}), true
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			return nil, false
		}
		hole = min(hole, int64(st.size))
		if data >= hole {
			break
		}
		extents = append(extents, format.Extent{Offset: uint64(data), Size: uint64(hole - data)})
		at = hole
	}
	whole := len(extents) == 1 && extents[0] == format.Extent{Offset: 0, Size: st.size}
	if whole {
		return nil, false
	}
	return extents, true
}
