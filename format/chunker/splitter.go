package chunker

import "fmt"

// Splitter finds the ends of chunks in a stream of bytes. Where it cuts depends
// on the bytes since the last cut alone (with buzhash also on those that follow
// the cut), never on how much of them it is shown at a time. It is for one goroutine; a Factory makes as many as are needed.
type Splitter interface {
	// Cut returns the length n of the next chunk, which begins at the head of
	// buf: 0 < n <= len(buf). Zero says that more bytes are needed; that
	// happens only if buf is empty, or shorter than Max and not final. The
	// caller then comes back with the same bytes and more behind them, and
	// those already scanned are not scanned again.
	//
	// final says that no bytes follow buf, so that what remains without a cut
	// becomes the last chunk. A final, empty buf has no chunk.
	Cut(buf []byte, final bool) int
	// Min is the least length of a chunk that is not the last.
	Min() int
	// Max is the greatest length of a chunk. A buffer that long always yields.
	Max() int
	// Reset forgets what was scanned since the last cut, so that the next
	// buffer may begin elsewhere.
	Reset()
}

// Factory makes splitters of one spec and secret, which share its tables. It
// does not change, and any number of goroutines may use it.
type Factory struct {
	spec    Spec
	gear    *gearTables
	rabin   *rabinTables
	buzhash *buzhashTables
}

// New checks the spec, derives the tables that it needs from the secret, and
// returns a factory. It takes up to some milliseconds (for a polynomial derived
// from the secret), so that a factory is best kept.
func New(spec Spec, keyed Keyed) (*Factory, error) {
	if err := spec.Validate(); err != nil {
		return nil, fmt.Errorf("make splitter %s: %w", spec, err)
	}
	f := &Factory{spec: spec}
	switch spec.Method {
	case Gear:
		table, err := keyed.gearTable()
		if err != nil {
			return nil, fmt.Errorf("make splitter %s: %w", spec, err)
		}
		f.gear = newGearTables(spec, table)
	case Rabin:
		polynomial, err := keyed.polynomial()
		if err != nil {
			return nil, fmt.Errorf("make splitter %s: %w", spec, err)
		}
		f.rabin = newRabinTables(spec, polynomial)
	case Buzhash:
		if !keyed.HasSeed {
			return nil, fmt.Errorf("make splitter %s: it needs a seed, which only repositories of borg have", spec)
		}
		f.buzhash = newBuzhashTables(spec, keyed.Seed)
	}
	return f, nil
}

// Spec returns the spec, which is what is recorded with a file. It says nothing
// about the secret.
func (f *Factory) Spec() Spec { return f.spec }

// Splitter returns a new splitter that stands at the beginning of a stream.
func (f *Factory) Splitter() Splitter {
	switch f.spec.Method {
	case Gear:
		return &gearSplitter{tables: f.gear}
	case Rabin:
		return &rabinSplitter{tables: f.rabin}
	case Buzhash:
		return &buzhashSplitter{tables: f.buzhash}
	default:
		return fixedSplitter(f.spec.Avg)
	}
}

// fixedSplitter is the length of its chunks; it has no state.
type fixedSplitter int

func (s fixedSplitter) Cut(buf []byte, final bool) int {
	if len(buf) >= int(s) {
		return int(s)
	}
	if final {
		return len(buf)
	}
	return 0
}

func (s fixedSplitter) Min() int { return int(s) }
func (s fixedSplitter) Max() int { return int(s) }
func (s fixedSplitter) Reset()   {}
