package chunker

import rabin "github.com/restic/chunker"

// rabinTables is what all rabin splitters of a factory share. It implements
// spec/chunker.md, section "Rabin", whose cuts are restic's.
type rabinTables struct {
	spec Spec
	mask uint64 // a cut is made where these bits of the fingerprint are zero
	// mod takes the 8 bits above the degree off a fingerprint and adds their
	// remainder; out takes away the byte that was 64 bytes before.
	mod, out [256]uint64
}

func newRabinTables(spec Spec, polynomial rabin.Pol) *rabinTables {
	t := &rabinTables{spec: spec, mask: uint64(spec.Avg - 1)}
	for i := range t.mod {
		top := rabin.Pol(i) << polynomialDegree
		t.mod[i] = uint64(top | top.Mod(polynomial))
		// The byte leaves when 64 more have been appended, each of which
		// multiplied it by x^8.
		left := rabin.Pol(i)
		for range windowSize {
			left = (left << 8).Mod(polynomial)
		}
		t.out[i] = uint64(left)
	}
	return t
}

// rabinSplitter cuts where the low bits of the remainder of the last 64 bytes,
// taken as a polynomial, are zero.
type rabinSplitter struct {
	tables      *rabinTables
	scanned     int    // bytes since the last cut that hold no cut
	fingerprint uint64 // of the scanned bytes that lie in the window
}

func (s *rabinSplitter) Min() int { return s.tables.spec.Min }
func (s *rabinSplitter) Max() int { return s.tables.spec.Max }
func (s *rabinSplitter) Reset()   { s.scanned, s.fingerprint = 0, 0 }

func (s *rabinSplitter) Cut(buf []byte, final bool) int {
	t := s.tables
	end := min(len(buf), t.spec.Max)
	if s.scanned > end {
		// These are not the bytes of the last call and more behind them.
		s.Reset()
	}
	if end >= t.spec.Min {
		length := 0
		if s.scanned < t.spec.Min {
			s.fingerprint = t.hash(buf[t.spec.Min-windowSize : t.spec.Min])
			s.scanned = t.spec.Min
			if s.fingerprint&t.mask == 0 {
				length = t.spec.Min
			}
		}
		if length == 0 {
			length, s.fingerprint = t.scan(buf[:end], s.scanned, s.fingerprint)
			s.scanned = end
		}
		if length > 0 {
			s.Reset()
			return length
		}
	}
	if end == t.spec.Max || final {
		s.Reset()
		return end
	}
	return 0
}

// hash returns the fingerprint of a window alone.
func (t *rabinTables) hash(window []byte) uint64 {
	var f uint64
	for _, b := range window {
		f = f<<8 ^ uint64(b) ^ t.mod[byte(f>>(polynomialDegree-8))]
	}
	return f
}

// rabinLane is how many bytes one of the two lanes scans at a time.
const rabinLane = 4096

// scan moves the window on from buf[at], which is at least one window deep in
// buf, and returns the length of the chunk whose last byte clears the masked
// bits, or zero and the fingerprint at the end. Two places at a time: each step
// waits for a look-up that depends on the step before.
func (t *rabinTables) scan(buf []byte, at int, f uint64) (int, uint64) {
	for len(buf)-at >= 2*rabinLane {
		second := at + rabinLane
		ahead := t.hash(buf[second-windowSize : second])
		i, g, a := t.lanes(buf[at-windowSize:second], buf[second-windowSize:second+rabinLane], f, ahead)
		if i == rabinLane {
			at, f = second+rabinLane, a
			continue
		}
		if g&t.mask == 0 {
			return at + i + 1, 0
		}
		// The second lane has found one; the first may yet find an earlier one.
		if length, _ := t.scanOne(buf[:second], at+i+1, g); length > 0 {
			return length, 0
		}
		return second + i + 1, 0
	}
	return t.scanOne(buf, at, f)
}

func (t *rabinTables) scanOne(buf []byte, at int, f uint64) (int, uint64) {
	mask, old := t.mask, buf[at-windowSize:]
	for i := 0; i < len(old)-windowSize; i++ {
		f = (f<<8 | uint64(old[i+windowSize])) ^ t.mod[byte(f>>(polynomialDegree-8))] ^ t.out[old[i]]
		if f&mask == 0 {
			return at + i + 1, 0
		}
	}
	return 0, f
}

// lanes moves two windows on side by side, each over a piece that begins with
// the window before it, and stops behind the byte that clears the masked bits
// of either, whose index behind the window it returns.
func (t *rabinTables) lanes(first, second []byte, f, a uint64) (int, uint64, uint64) {
	second = second[:len(first)]
	mask := t.mask
	for i := 0; i < len(first)-windowSize; i++ {
		f = (f<<8 | uint64(first[i+windowSize])) ^ t.mod[byte(f>>(polynomialDegree-8))] ^ t.out[first[i]]
		a = (a<<8 | uint64(second[i+windowSize])) ^ t.mod[byte(a>>(polynomialDegree-8))] ^ t.out[second[i]]
		if f&mask == 0 || a&mask == 0 {
			return i, f, a
		}
	}
	return len(first) - windowSize, f, a
}
