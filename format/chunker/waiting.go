package chunker

// Waiting cuts a stream that comes piece by piece: it keeps what waits for the
// rest of its chunk, and nothing else is copied. The zero value is ready. It is
// for one goroutine.
type Waiting struct {
	buf []byte
}

// Len returns how many bytes wait.
func (w *Waiting) Len() int { return len(w.buf) }

// Bytes returns the bytes that wait, which are valid until the next call.
func (w *Waiting) Bytes() []byte { return w.buf }

// Drop forgets the bytes that wait. If they are not the end of a stream the
// splitter must be reset as well.
func (w *Waiting) Drop() { w.buf = w.buf[:0] }

// Cut takes the next bytes of the stream and calls emit with every chunk that is
// complete with them, whose bytes are valid during the call alone. An error of
// emit ends the cutting; the stream cannot be gone on with then.
func (w *Waiting) Cut(s Splitter, b []byte, emit func(chunk []byte) error) error {
	// Bytes of b go behind those that wait until these are in chunks; the rest is
	// cut where it lies.
	waited, taken, cut := len(w.buf), 0, 0
	for cut < waited {
		if taken == len(b) {
			w.buf = w.buf[:copy(w.buf, w.buf[cut:])]
			return nil
		}
		n := min(len(b)-taken, max(s.Max()-(len(w.buf)-cut), 1))
		w.buf = append(w.buf, b[taken:taken+n]...)
		taken += n
		for cut < waited {
			n := s.Cut(w.buf[cut:], false)
			if n == 0 {
				break
			}
			if err := emit(w.buf[cut : cut+n]); err != nil {
				return err
			}
			cut += n
		}
	}
	b = b[cut-waited:]
	for len(b) > 0 {
		n := s.Cut(b, false)
		if n == 0 {
			break
		}
		if err := emit(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	w.buf = append(w.buf[:0], b...)
	return nil
}

// End cuts what waits: the stream ends here.
func (w *Waiting) End(s Splitter, emit func(chunk []byte) error) error {
	for b := w.buf; len(b) > 0; {
		n := s.Cut(b, true)
		if err := emit(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	w.buf = w.buf[:0]
	return nil
}
