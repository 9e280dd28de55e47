package chunker

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	kiB = 1 << 10
	miB = 1 << 20

	// SizeMax is the greatest length of a chunk in bytes, as in the stream.
	SizeMax = 32 * miB

	// windowSize is the number of bytes that decide whether gear and rabin cut.
	// No chunk of theirs but the last is shorter, so the window never reaches
	// back over a cut.
	windowSize = 64

	// gearSpanMin is the least distance between a gear's minimum and average.
	// It keeps the chance of a cut after a byte at most 1/32.
	gearSpanMin = 64

	// windowMax is more than the greatest window of buzhash.
	windowMax = 64 * kiB

	// rabinAverageMax is the greatest average of rabin and buzhash. A power of two, so one
	// step below SizeMax.
	rabinAverageMax = 16 * miB
)

// Method is a way of finding cuts.
type Method string

// The methods, named as at the beginning of a Spec's text.
const (
	Fixed   Method = "fixed"
	Gear    Method = "gear"
	Rabin   Method = "rabin"
	Buzhash Method = "buzhash"
)

// methodNames is for errors.
const methodNames = "fixed, gear, rabin or buzhash"

// Spec names a splitter without its secret, and so may be recorded and shown.
// Sizes are in bytes. Specs are comparable; equal ones print equal texts.
// It implements spec/chunker.md, section "Names".
type Spec struct {
	Method Method

	// Min and Max bound every chunk, but the last of a file may be shorter
	// than Min. For Fixed both equal Avg.
	Min int
	// Avg is the mean length of gear's chunks on random content. For rabin it
	// and buzhash it is what restic calls average: the mean distance from Min to
	// the cut.
	Avg int
	Max int

	// Window is how many bytes decide whether buzhash cuts before them; zero for
	// the others.
	Window int
}

// ParseSpec reads the text of a spec:
//
//	fixed:64KiB                  every chunk that long
//	gear:64KiB                   the average; minimum a quarter, maximum four times that
//	gear:16KiB,64KiB,256KiB      minimum, average, maximum
//	rabin                        restic's rabin:512KiB,1MiB,8MiB
//	rabin:512KiB,1MiB,8MiB       minimum, average (a power of two), maximum
//	buzhash                      borg's buzhash:512KiB,2MiB,8MiB,4095
//	buzhash:32KiB,128KiB,512KiB  likewise, with borg's window of 4095 bytes or
//	                             another one as a fourth size
//
// A size is a number of bytes, or one with the unit KiB or MiB.
func ParseSpec(text string) (Spec, error) {
	spec, err := parseSpec(text)
	if err == nil {
		err = spec.Validate()
	}
	if err != nil {
		return Spec{}, fmt.Errorf("splitter %q: %w", shorten(text), err)
	}
	return spec, nil
}

func parseSpec(text string) (Spec, error) {
	name, list, hasSizes := strings.Cut(text, ":")
	spec := Spec{Method: Method(name)}
	switch spec.Method {
	case Fixed, Gear, Rabin, Buzhash:
	default:
		return Spec{}, fmt.Errorf("no method %q: it is %s", shorten(name), methodNames)
	}
	var sizes []int
	if hasSizes {
		// One field more than any method has is enough to know that there are too many.
		for _, field := range strings.SplitN(list, ",", 5) {
			size, err := parseSize(field)
			if err != nil {
				return Spec{}, err
			}
			sizes = append(sizes, size)
		}
	}
	switch {
	case spec.Method == Fixed && len(sizes) == 1:
		spec.Min, spec.Avg, spec.Max = sizes[0], sizes[0], sizes[0]
	case spec.Method == Gear && len(sizes) == 1:
		spec.Min, spec.Avg, spec.Max = gearDefaults(sizes[0])
		if spec.Max > SizeMax {
			return Spec{}, fmt.Errorf("four times the average is more than %s: name minimum, average and maximum, as in gear:4MiB,16MiB,32MiB", formatSize(SizeMax))
		}
	case spec.Method == Rabin && len(sizes) == 0:
		spec = ResticRabin
	case spec.Method == Buzhash && len(sizes) == 0:
		spec = BorgBuzhash
	case spec.Method == Buzhash && len(sizes) == 4:
		spec.Min, spec.Avg, spec.Max, spec.Window = sizes[0], sizes[1], sizes[2], sizes[3]
	case spec.Method != Fixed && len(sizes) == 3:
		spec.Min, spec.Avg, spec.Max = sizes[0], sizes[1], sizes[2]
		if spec.Method == Buzhash {
			spec.Window = BorgBuzhash.Window
		}
	default:
		return Spec{}, fmt.Errorf("wrong number of sizes: %s", map[Method]string{
			Fixed:   "fixed takes one, as in fixed:64KiB",
			Gear:    "gear takes the average, as in gear:64KiB, or minimum, average and maximum, as in gear:16KiB,64KiB,256KiB",
			Rabin:   "rabin takes none, or minimum, average and maximum, as in rabin:512KiB,1MiB,8MiB",
			Buzhash: "buzhash takes none, or minimum, average, maximum and perhaps the window, as in buzhash:512KiB,2MiB,8MiB",
		}[spec.Method])
	}
	return spec, nil
}

// ResticRabin is how restic cuts, given its polynomial.
var ResticRabin = Spec{Method: Rabin, Min: 512 * kiB, Avg: miB, Max: 8 * miB}

// BorgBuzhash is how borg cuts files, given the chunk_seed of its repository, if
// nothing else is asked for.
var BorgBuzhash = Spec{Method: Buzhash, Min: 512 * kiB, Avg: 2 * miB, Max: 8 * miB, Window: 4095}

func gearDefaults(avg int) (least, average, most int) { return avg / 4, avg, avg * 4 }

// Validate says what is wrong with a spec that was not made by ParseSpec.
func (s Spec) Validate() error {
	if s.Method != Buzhash && s.Window != 0 {
		return fmt.Errorf("%s: it has no window to choose", s.Method)
	}
	switch s.Method {
	case Fixed:
		if s.Min != s.Avg || s.Max != s.Avg {
			return fmt.Errorf("fixed: minimum, average and maximum differ")
		}
		if s.Avg < 1 || s.Avg > SizeMax {
			return fmt.Errorf("size %s: it must be from 1 byte to %s", formatSize(s.Avg), formatSize(SizeMax))
		}
		return nil
	case Gear, Rabin, Buzhash:
	default:
		return fmt.Errorf("no method %q: it is %s", shorten(string(s.Method)), methodNames)
	}
	if s.Min < windowSize {
		return fmt.Errorf("minimum %s: it must be at least %d bytes", formatSize(s.Min), windowSize)
	}
	if s.Max > SizeMax {
		return fmt.Errorf("maximum %s: it must be at most %s", formatSize(s.Max), formatSize(SizeMax))
	}
	if s.Method == Gear {
		if s.Avg-s.Min < gearSpanMin {
			return fmt.Errorf("average %s: it must be at least %d bytes more than the minimum %s", formatSize(s.Avg), gearSpanMin, formatSize(s.Min))
		}
		if s.Max <= s.Avg {
			return fmt.Errorf("maximum %s: it must be more than the average %s", formatSize(s.Max), formatSize(s.Avg))
		}
		return nil
	}
	if s.Method == Buzhash {
		if s.Window < 1 || s.Window >= windowMax {
			return fmt.Errorf("window %s: it must be from 1 byte to less than %s", formatSize(s.Window), formatSize(windowMax))
		}
		if s.Max <= s.Min+s.Window {
			return fmt.Errorf("maximum %s: it must be more than the minimum %s and the window of %d bytes", formatSize(s.Max), formatSize(s.Min), s.Window)
		}
	}
	if s.Avg < windowSize || s.Avg > rabinAverageMax || s.Avg&(s.Avg-1) != 0 {
		return fmt.Errorf("average %s: it must be a power of two from %d bytes to %s", formatSize(s.Avg), windowSize, formatSize(rabinAverageMax))
	}
	if s.Max <= s.Min {
		return fmt.Errorf("maximum %s: it must be more than the minimum %s", formatSize(s.Max), formatSize(s.Min))
	}
	return nil
}

// String returns the canonical text, the shortest that ParseSpec reads back as
// the same spec.
func (s Spec) String() string {
	least, average, most := gearDefaults(s.Avg)
	switch {
	case s.Method == Fixed:
		return "fixed:" + formatSize(s.Avg)
	case s == ResticRabin:
		return "rabin"
	case s == BorgBuzhash:
		return "buzhash"
	case s.Method == Buzhash && s.Window != BorgBuzhash.Window:
		return fmt.Sprintf("%s:%s,%s,%s,%s", s.Method, formatSize(s.Min), formatSize(s.Avg), formatSize(s.Max), formatSize(s.Window))
	case s == Spec{Method: Gear, Min: least, Avg: average, Max: most}:
		return "gear:" + formatSize(s.Avg)
	}
	return fmt.Sprintf("%s:%s,%s,%s", s.Method, formatSize(s.Min), formatSize(s.Avg), formatSize(s.Max))
}

// MarshalText returns the canonical text of a valid spec.
func (s Spec) MarshalText() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return []byte(s.String()), nil
}

// UnmarshalText is ParseSpec for flags and configuration files.
func (s *Spec) UnmarshalText(text []byte) error {
	spec, err := ParseSpec(string(text))
	if err == nil {
		*s = spec
	}
	return err
}

func parseSize(text string) (int, error) {
	wrong := func() (int, error) {
		return 0, fmt.Errorf("size %q: it must be a number of bytes, or one with KiB or MiB, from 1 to %s", shorten(text), formatSize(SizeMax))
	}
	digits, unit := text, 1
	if number, ok := strings.CutSuffix(text, "KiB"); ok {
		digits, unit = number, kiB
	} else if number, ok := strings.CutSuffix(text, "MiB"); ok {
		digits, unit = number, miB
	}
	// ParseUint takes no sign, and a leading zero would give a size two texts.
	number, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || digits[0] == '0' || number > uint64(SizeMax/unit) {
		return wrong()
	}
	return int(number) * unit, nil
}

// formatSize writes a size with the greatest unit that divides it.
func formatSize(size int) string {
	switch {
	case size >= miB && size%miB == 0:
		return strconv.Itoa(size/miB) + "MiB"
	case size >= kiB && size%kiB == 0:
		return strconv.Itoa(size/kiB) + "KiB"
	}
	return strconv.Itoa(size)
}

// shorten keeps foreign text in an error to the length of a line.
func shorten(text string) string {
	const lengthMax = 80
	if len(text) > lengthMax {
		return text[:lengthMax] + "..."
	}
	return text
}
