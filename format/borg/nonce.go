package borg

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// nonces hands out counters of blocks of 16 bytes, none of which may be used
// twice with the same keys. Before any is used, the repository's file nonce says
// that it is gone.
type nonces struct {
	file string
	next uint64
	end  uint64 // up to here they are reserved
}

const (
	nonceName   = "nonce"
	nonceBlock  = 16
	nonceStep   = 1 << 28 // blocks reserved at a time, 4 GiB of content
	nonceMargin = 1 << 32 // blocks left unused at the end of all
)

// openNonces begins behind all counters that are known to be used: least, and
// what the file says.
func openNonces(dir string, least uint64) (*nonces, error) {
	n := &nonces{file: filepath.Join(dir, nonceName)}
	used, err := readNonce(n.file)
	if err != nil {
		return nil, err
	}
	n.next = max(used, least)
	n.end = n.next
	return n, nil
}

// readNonce reads a file with a reservation; none is zero.
func readNonce(name string) (uint64, error) {
	if name == "" {
		return 0, nil
	}
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read which counters of the encryption are used: %w", err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(raw) != ivSize {
		return 0, fmt.Errorf("read which counters of the encryption are used: %s holds no 16 hexadecimal digits: %w", name, ErrDamaged)
	}
	return binary.BigEndian.Uint64(raw), nil
}

// blocks returns how many counters some bytes take.
func blocks(size int) uint64 { return (uint64(size) + nonceBlock - 1) / nonceBlock }

// take returns the first of the counters for some bytes.
func (n *nonces) take(size int) (uint64, error) {
	need := blocks(size)
	if n.next > math.MaxUint64-nonceMargin {
		return 0, errors.New("the counters of this repository's encryption are used up: it needs a new repository")
	}
	if n.next+need > n.end {
		end := n.next + need + nonceStep
		if err := writeFile(n.file, []byte(fmt.Sprintf("%016x", end))); err != nil {
			return 0, fmt.Errorf("reserve counters of the encryption: %w", err)
		}
		n.end = end
	}
	iv := n.next
	n.next += need
	return iv, nil
}
