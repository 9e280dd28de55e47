package chunker

import "math"

// gearTables is what all gear splitters of a factory share. It implements
// spec/chunker.md, section "Gear".
type gearTables struct {
	spec  Spec
	table *[256]uint64
	// A cut is made where the hash is below hard, from turn bytes on below easy.
	hard, easy uint64
	turn       int
}

// newGearTables sets the thresholds so that the mean comes out as Avg. With
// span = Avg-Min, the chance of a cut is 1/(2 span) for each byte before the
// turn and 2/span after it. The mean beyond Min is then
// span (2(1-s) + s/2), where s is the share that reaches the turn; it equals
// span at s = 2/3, which puts the turn 2 ln(3/2) = 830/1024 spans beyond Min.
//
// A factor of 4 in place of 2 makes lengths more even (they deviate by 0.28 of
// the mean, not 0.47), but then cuts fall in step again later after an
// insertion: for one of a quarter of the average, 2.8 averages' worth of new
// chunks against 1.9, and for one of the average 3.1 against 2.6.
func newGearTables(spec Spec, table *[256]uint64) *gearTables {
	span := uint64(spec.Avg - spec.Min)
	return &gearTables{
		spec:  spec,
		table: table,
		hard:  math.MaxUint64 / (2 * span),
		easy:  math.MaxUint64 / span * 2,
		turn:  spec.Min + int(span*830/1024),
	}
}

// gearSplitter cuts where a hash of the last 64 bytes is small. Each byte shifts
// the hash left by one and adds its value from the table, so that a byte is
// gone after 64 more.
type gearSplitter struct {
	tables  *gearTables
	scanned int    // bytes since the last cut that hold no cut
	hash    uint64 // of the scanned bytes that lie in the window
}

func (s *gearSplitter) Min() int { return s.tables.spec.Min }
func (s *gearSplitter) Max() int { return s.tables.spec.Max }
func (s *gearSplitter) Reset()   { s.scanned, s.hash = 0, 0 }

func (s *gearSplitter) Cut(buf []byte, final bool) int {
	t := s.tables
	end := min(len(buf), t.spec.Max)
	if s.scanned > end {
		// These are not the bytes of the last call and more behind them.
		s.Reset()
	}
	// A chunk of Min bytes is decided by its last 64; none before them counts.
	if warm := t.spec.Min - windowSize; s.scanned < warm {
		s.scanned = min(warm, end)
	}
	for _, phase := range [...]struct {
		stop      int
		threshold uint64
	}{
		{t.spec.Min - 1, 0},
		{t.turn - 1, t.hard},
		{t.spec.Max, t.easy},
	} {
		stop := min(phase.stop, end)
		if s.scanned >= stop {
			continue
		}
		length, hash := t.scan(buf[:stop], s.scanned, s.hash, phase.threshold)
		if length > 0 {
			s.Reset()
			return length
		}
		s.scanned, s.hash = stop, hash
	}
	if end == t.spec.Max || final {
		s.Reset()
		return end
	}
	return 0
}

// gearLane is how many bytes one of the two lanes scans at a time. Longer ones
// waste more behind a cut, shorter ones warm up more often.
const gearLane = 512

// scan hashes on from buf[at] and returns the length of the chunk whose last
// byte brings the hash below the threshold, or zero and the hash at the end.
// Two places at a time, since neither waits for the other's hash.
func (t *gearTables) scan(buf []byte, at int, hash, threshold uint64) (int, uint64) {
	table := t.table
	for len(buf)-at >= 2*gearLane {
		second := at + gearLane
		var ahead uint64
		for _, b := range buf[second-windowSize : second] {
			ahead = ahead<<1 + table[b]
		}
		i, h, a := gearLanes(table, buf[at:second], buf[second:second+gearLane], hash, ahead, threshold)
		if i == gearLane {
			at, hash = second+gearLane, a
			continue
		}
		if h < threshold {
			return at + i + 1, 0
		}
		// The second lane has found one; the first may yet find an earlier one.
		for j, b := range buf[at+i+1 : second] {
			h = h<<1 + table[b]
			if h < threshold {
				return at + i + 1 + j + 1, 0
			}
		}
		return second + i + 1, 0
	}
	for i, b := range buf[at:] {
		hash = hash<<1 + table[b]
		if hash < threshold {
			return at + i + 1, 0
		}
	}
	return 0, hash
}

// gearLanes hashes two pieces of equal length side by side and stops behind the
// byte that brings either hash below the threshold, whose index it returns.
func gearLanes(table *[256]uint64, first, second []byte, h, a, threshold uint64) (int, uint64, uint64) {
	second = second[:len(first)]
	for i := range first {
		h = h<<1 + table[first[i]]
		a = a<<1 + table[second[i]]
		if h < threshold || a < threshold {
			return i, h, a
		}
	}
	return len(first), h, a
}
