package disk

import (
	"errors"
	"fmt"
	"io"
	"math"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
)

const (
	// segmentSize is the most of a stream that a hasher is given at a time, unless
	// one chunk is more.
	segmentSize = 1 << 20
	// readSize is how much is read before the splitter looks at it, so that it
	// finds it in the processor's cache.
	readSize = 256 << 10
	// streamWindow bounds the content of one stream that is held in memory.
	streamWindow = 8 << 20
)

var errChanged = errors.New("the file changed while it was read")

// stream is content too large to be read as a whole. One goroutine reads and
// cuts it, hashers make pieces of the segments, Next takes these in order.
type stream struct {
	*Scanner
	splitter chunker.Splitter
	window   *semaphore.Weighted
	out      chan *segment

	// Once out is closed:
	cut   string // what cut the content short
	loss  string // kind of loss, if any
	err   error  // what the loss was
	fatal error  // ends the scan: standard input failed
}

// segment is a run of whole chunks, or a hole.
type segment struct {
	hole   uint64
	weight int64 // bytes of the window
	plain  []byte
	cuts   []int // where chunks end in plain
	pieces []piece
	done   chan struct{} // closed when pieces are made
}

func newStream(s *Scanner, splitter chunker.Splitter) *stream {
	return &stream{
		Scanner:  s,
		splitter: splitter,
		window:   semaphore.NewWeighted(streamWindow),
		out:      make(chan *segment, 64),
	}
}

// source fills a buffer; fewer bytes than that mean that there are no more.
type source func(buf []byte) (int, error)

// readFile reads the extents of a file that had the given status, closes it, and
// says in the end whether it is still the same. What grew beyond is left.
func (s *stream) readFile(fd int, st status, extents []format.Extent) {
	defer close(s.out)
	defer unix.Close(fd)
	// The kernel may refuse the advice; nothing depends on it.
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL)
	at, complete := uint64(0), true
	for _, x := range extents {
		if !s.sendHole(x.Offset - at) {
			return
		}
		at = x.Offset
		n, err := s.readExtent(x.Size, func(buf []byte) (int, error) {
			n, err := readFull(fd, buf, int64(at))
			at += uint64(n)
			return n, err
		})
		if err != nil {
			s.cut, s.loss, s.err = cutText(at, err), LossUnreadable, err
		}
		if n < x.Size {
			complete = false
			break
		}
	}
	if complete && !s.sendHole(st.size-min(at, st.size)) {
		return
	}
	var now status
	if s.err == nil && new(prober).statFD(fd, &now) == nil && !now.sameContent(&st) {
		s.loss, s.err = LossChanged, errChanged
	}
}

// readAll reads standard input.
func (s *stream) readAll(r io.Reader) {
	defer close(s.out)
	_, err := s.readExtent(math.MaxInt64, func(buf []byte) (int, error) {
		n, err := io.ReadFull(r, buf)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = nil
		}
		return n, err
	})
	if err != nil {
		s.fatal = fmt.Errorf("scan: read the standard input: %w", err)
	}
}

// readExtent reads and cuts up to size bytes, and returns how many there were.
func (s *stream) readExtent(size uint64, read source) (total uint64, err error) {
	buf := format.AllocPayload(segmentSize)
	filled, start := 0, 0
	var cuts []int
	for {
		want := int(min(readSize, size-total))
		if filled+want > len(buf) {
			more := format.AllocPayload(2 * len(buf))
			copy(more, buf[:filled])
			format.FreePayload(buf)
			buf = more
		}
		got, err := read(buf[filled : filled+want])
		filled += got
		total += uint64(got)
		final := err != nil || got < want || total == size
		for start < filled {
			n := s.splitter.Cut(buf[start:filled], final)
			if n == 0 {
				break
			}
			start += n
			cuts = append(cuts, start)
		}
		if !final && (start == 0 || filled+readSize <= len(buf)) {
			continue
		}
		rest := buf[start:filled]
		seg := &segment{plain: buf[:start], cuts: cuts}
		buf, cuts = nil, nil
		if !final {
			buf = format.AllocPayload(max(segmentSize, len(rest)+readSize))
			filled, start = copy(buf, rest), 0
		}
		if !s.send(seg) || final {
			return total, err
		}
	}
}

// sendHole hands on a hole, unless it is empty. It reports whether the stream
// goes on.
func (s *stream) sendHole(size uint64) bool {
	if size == 0 {
		return true
	}
	return s.send(&segment{hole: size})
}

// send hands a segment to Next, for its place in the order, and to a hasher. It
// reports whether the stream goes on.
func (s *stream) send(seg *segment) bool {
	seg.done = make(chan struct{})
	seg.weight = min(int64(len(seg.plain)), streamWindow)
	if err := s.window.Acquire(s.ctx, seg.weight); err != nil {
		return false
	}
	select {
	case s.out <- seg:
	case <-s.ctx.Done():
		return false
	}
	if len(seg.plain) == 0 {
		if seg.hole > 0 {
			seg.pieces = []piece{{hole: seg.hole}}
		}
		close(seg.done)
		return true
	}
	select {
	case s.segments <- seg:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// hash makes the pieces of a segment.
func (s *Scanner) hash(seg *segment) {
	seg.pieces = make([]piece, 0, len(seg.cuts))
	start := 0
	for _, end := range seg.cuts {
		seg.pieces = append(seg.pieces, s.piece(seg.plain[start:end], false))
		start = end
	}
	format.FreePayload(seg.plain)
	seg.plain = nil
	close(seg.done)
}
