package tar

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/bk-backup/bk/format"
)

// piecesMax is how many pieces a map of a sparse file may have: 64 MiB in memory.
const piecesMax = 4 << 20

// sparseMap is where the data in an archive belongs in its file: runs in
// ascending order that do not overlap. What lies between is holes.
type sparseMap struct {
	pieces []format.Extent
	size   uint64 // of the file
}

var (
	errSparseOrder  = errors.New("the map of a sparse file is not in order")
	errSparseEnd    = errors.New("the map of a sparse file reaches beyond its end")
	errSparseNumber = errors.New("the map of a sparse file has something that is no number")
	errSparseMany   = errors.New("the map of a sparse file has too many pieces")
)

// add appends a piece. Empty ones, which say where a file ends, only have to be
// in order.
func (m *sparseMap) add(offset, size int64) error {
	if offset < 0 || size < 0 || size > math.MaxInt64-offset {
		return errSparseNumber
	}
	end := uint64(0)
	last := len(m.pieces) - 1
	if last >= 0 {
		end = m.pieces[last].Offset + m.pieces[last].Size
	}
	switch {
	case uint64(offset) < end:
		return errSparseOrder
	case size == 0:
		return nil
	case last >= 0 && uint64(offset) == end:
		m.pieces[last].Size += uint64(size)
		return nil
	case len(m.pieces) == piecesMax:
		return errSparseMany
	}
	m.pieces = append(m.pieces, format.Extent{Offset: uint64(offset), Size: uint64(size)})
	return nil
}

// stored returns how many bytes the archive has for the pieces.
func (m *sparseMap) stored() int64 {
	n := uint64(0)
	for _, p := range m.pieces {
		n += p.Size
	}
	return int64(n) // the pieces lie in a file of at most 2^63-1 bytes
}

// check is called when the map is complete.
func (m *sparseMap) check() error {
	if n := len(m.pieces); n > 0 {
		if p := m.pieces[n-1]; p.Offset+p.Size > m.size {
			return errSparseEnd
		}
	}
	return nil
}

// readSparseText reads the map that lies before the data in GNU's format 1.0:
// decimal numbers, each on a line, filled up to whole blocks. It returns how
// many bytes the map took.
func readSparseText(r *blocks, m *sparseMap, sizeMax int64) (int64, error) {
	var b block
	taken, at := int64(0), blockSize
	number := func() (int64, error) {
		n, digits := int64(0), 0
		for {
			if at == blockSize {
				if taken+blockSize > padded(sizeMax) {
					return 0, r.errorf("the map of a sparse file is cut off")
				}
				if err := r.read(b[:]); err != nil {
					return 0, err
				}
				taken += blockSize
				at = 0
			}
			c := b[at]
			at++
			switch {
			case c == '\n' && digits > 0:
				return n, nil
			case c < '0' || c > '9' || digits == 18+1 || n > (math.MaxInt64-9)/10:
				return 0, r.errorf("%w", errSparseNumber)
			}
			n = n*10 + int64(c-'0')
			digits++
		}
	}
	count, err := number()
	if err != nil {
		return taken, err
	}
	for ; count > 0; count-- {
		offset, err := number()
		if err != nil {
			return taken, err
		}
		size, err := number()
		if err != nil {
			return taken, err
		}
		if err := m.add(offset, size); err != nil {
			return taken, r.errorf("%w", err)
		}
	}
	return taken, nil
}

// readSparseOld reads the map of the type S, which begins in the header and
// goes on in blocks behind it.
func readSparseOld(r *blocks, h *block, m *sparseMap) error {
	size, err := parseNumber(h[483:495])
	if err != nil || size < 0 {
		return r.errorf("%w", errSparseNumber)
	}
	m.size = uint64(size)
	done := false
	pairs := func(b []byte) error {
		for ; len(b) >= 24 && !done; b = b[24:] {
			if b[0] == 0 {
				done = true
				return nil
			}
			offset, err1 := parseNumber(b[0:12])
			size, err2 := parseNumber(b[12:24])
			if err := errors.Join(err1, err2); err != nil {
				return r.errorf("%w", errSparseNumber)
			}
			if err := m.add(offset, size); err != nil {
				return r.errorf("%w", err)
			}
		}
		return nil
	}
	if err := pairs(h[386:482]); err != nil {
		return err
	}
	for more := h[482] != 0; more; {
		var b block
		if err := r.read(b[:]); err != nil {
			return err
		}
		if err := pairs(b[:504]); err != nil {
			return err
		}
		more = b[504] != 0
	}
	return nil
}

// sparseFromPax collects the map of GNU's formats 0.0 and 0.1, which lies in the
// extended header.
func sparseFromPax(records []paxRecord, m *sparseMap) error {
	offset := int64(-1)
	for _, p := range records {
		switch p.key {
		case keySparseOffset, keySparseNumBytes:
			n, err := strconv.ParseInt(p.value, 10, 64)
			switch {
			case err != nil || (p.key == keySparseOffset) != (offset < 0):
				return errSparseNumber
			case p.key == keySparseOffset:
				if offset = n; n < 0 {
					return errSparseNumber
				}
				continue
			}
			if err := m.add(offset, n); err != nil {
				return err
			}
			offset = -1
		case keySparseMap:
			m.pieces = nil
			for rest := p.value; rest != ""; {
				var a, b string
				a, rest, _ = strings.Cut(rest, ",")
				b, rest, _ = strings.Cut(rest, ",")
				offset, err1 := strconv.ParseInt(a, 10, 64)
				size, err2 := strconv.ParseInt(b, 10, 64)
				if err1 != nil || err2 != nil {
					return errSparseNumber
				}
				if err := m.add(offset, size); err != nil {
					return err
				}
			}
		}
	}
	if offset >= 0 {
		return errSparseNumber
	}
	return nil
}
