package borg

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// config is the file of that name: what has to be known to read a repository.
type config struct {
	version        uint64
	segmentsPerDir uint64
	maxSegmentSize uint64
	appendOnly     bool
	quota          int64 // bytes that all that was put may take, 0 for any number
	id             [32]byte
	key            string // base64, of the modes that keep keys in the repository
}

const configSizeMax = 256 << 10

// parseConfig reads an INI file as Python's configparser writes it: one section,
// values that go on in lines which begin with white space.
func parseConfig(b []byte) (*config, error) {
	values := make(map[string]string)
	section, last := "", ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		text := strings.TrimSpace(line)
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				values[last] += "\n" + text
			}
		case text[0] == '[':
			section, last = strings.Trim(text, "[]"), ""
		case section == "repository":
			i := strings.IndexAny(text, "=:")
			if i < 0 {
				return nil, fmt.Errorf("its line %q has no value: %w", text, ErrDamaged)
			}
			last = strings.ToLower(strings.TrimSpace(text[:i]))
			values[last] = strings.TrimSpace(text[i+1:])
		}
	}
	if _, ok := values["version"]; !ok {
		return nil, fmt.Errorf("its config has no version in a section [repository]: %w", ErrNoRepository)
	}
	c := &config{key: values["key"], appendOnly: values["append_only"] == "1"}
	for name, to := range map[string]*uint64{"version": &c.version, "segments_per_dir": &c.segmentsPerDir, "max_segment_size": &c.maxSegmentSize} {
		var err error
		if *to, err = strconv.ParseUint(values[name], 10, 32); err != nil {
			return nil, fmt.Errorf("its %s is %q: %w", name, values[name], ErrDamaged)
		}
	}
	var ok bool
	if c.quota, ok = parseFileSize(values["storage_quota"]); !ok {
		return nil, fmt.Errorf("its storage_quota is %q: %w", values["storage_quota"], ErrDamaged)
	}
	raw, err := hex.DecodeString(values["id"])
	switch {
	case c.version != 1:
		return nil, fmt.Errorf("the repository has version %d, and 1 is known: %w", c.version, ErrVersion)
	case c.segmentsPerDir == 0:
		return nil, fmt.Errorf("its segments_per_dir is 0: %w", ErrDamaged)
	case err != nil || len(raw) != len(c.id):
		return nil, fmt.Errorf("its id is %q: %w", values["id"], ErrDamaged)
	}
	c.id = [32]byte(raw)
	return c, nil
}

// parseFileSize reads a size as borg does: a number, with K, M, G, T or P behind
// it for powers of 1000; nothing is 0.
func parseFileSize(text string) (size int64, ok bool) {
	factor := 1.0
	if n := len(text); n > 0 {
		if power := strings.IndexByte("KMGTP", text[n-1]); power >= 0 {
			text, factor = text[:n-1], math.Pow(1000, float64(power+1))
		}
	} else {
		return 0, true
	}
	number, err := strconv.ParseFloat(text, 64)
	if number *= factor; err != nil || !(number >= 0 && number < math.MaxInt64) {
		return 0, false
	}
	return int64(number), true
}
