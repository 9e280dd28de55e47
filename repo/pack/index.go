package pack

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/repo/seal"
)

// infoSize is how many bytes an index has for a pack before the entries.
const infoSize = 32 + 1 + 1 + 4 + 32 + 8 + 16 + 4

// AppendIndex appends the body of an index object to dst: the packs of one
// group, and the names of the indexes that it stands in for. Info.Count is not
// looked at.
func AppendIndex(dst []byte, superseded [][32]byte, packs []Listed) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(superseded)))
	for i := range superseded {
		dst = append(dst, superseded[i][:]...)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(packs)))
	for i := range packs {
		dst = packs[i].append(dst)
	}
	return dst
}

// IndexSize returns the length of what AppendIndex would append.
func IndexSize(superseded [][32]byte, packs []Listed) int64 {
	size := 8 + int64(len(superseded))*32
	for i := range packs {
		size += infoSize + int64(len(packs[i].Entries))*entrySize
	}
	return size
}

func (l *Listed) append(dst []byte) []byte {
	p := &l.Info
	dst = append(dst, p.Name[:]...)
	dst = append(dst, byte(p.Kind), byte(p.Suite))
	dst = binary.BigEndian.AppendUint32(dst, p.Epoch)
	dst = append(dst, p.Salt[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.Size))
	dst = append(dst, p.Writer[:]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(l.Entries)))
	for i := range l.Entries {
		dst = l.Entries[i].append(dst)
	}
	return dst
}

// IndexBuilder makes bodies of index objects pack by pack, in one buffer that is
// used again for the next body.
type IndexBuilder struct {
	buf     []byte // room for what comes before the packs, then the packs
	room    int
	packs   uint32
	entries int
}

// Reset begins a body that stands in for at most so many indexes.
func (b *IndexBuilder) Reset(supersededMax int) {
	b.room = 8 + 32*supersededMax
	b.buf = slices.Grow(b.buf[:0], b.room)[:b.room]
	b.packs, b.entries = 0, 0
}

// Add appends a pack. Info.Count is not looked at.
func (b *IndexBuilder) Add(info Info, entries []Entry) {
	l := Listed{Info: info, Entries: entries}
	b.buf = l.append(b.buf)
	b.packs++
	b.entries += len(entries)
}

// Packs returns how many packs were added.
func (b *IndexBuilder) Packs() int { return int(b.packs) }

// Entries returns how many entries they have.
func (b *IndexBuilder) Entries() int { return b.entries }

// Body returns the body, as AppendIndex makes it. It is valid until Reset.
func (b *IndexBuilder) Body(superseded [][32]byte) []byte {
	begin := b.room - 8 - 32*len(superseded)
	head := binary.BigEndian.AppendUint32(b.buf[begin:begin], uint32(len(superseded)))
	for i := range superseded {
		head = append(head, superseded[i][:]...)
	}
	binary.BigEndian.AppendUint32(head, b.packs)
	return b.buf[begin:]
}

// ParseIndex calls fn for each pack that the body of an index lists, in its
// order. entries is used again for the next pack: fn copies what it keeps. An
// error of fn is returned as it is; what is not an index fails with ErrDamaged
// or ErrVersion, possibly after fn was called for some packs.
func ParseIndex(body []byte, fn func(info Info, entries []Entry) error) error {
	_, rest, err := parseSuperseded(body)
	if err != nil {
		return err
	}
	if len(rest) < 4 {
		return fmt.Errorf("%w: the index ends before its packs", seal.ErrDamaged)
	}
	count := binary.BigEndian.Uint32(rest)
	rest = rest[4:]
	var entries []Entry
	for i := range count {
		var l Listed
		if l, rest, err = parseListed(entries[:0], rest); err != nil {
			return fmt.Errorf("pack %d of %d in the index: %w", i, count, err)
		}
		if err := fn(l.Info, l.Entries); err != nil {
			return err
		}
		entries = l.Entries
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: the index goes on for %d bytes behind its last pack", seal.ErrDamaged, len(rest))
	}
	return nil
}

// Superseded returns the names of the indexes that the index with this body
// stands in for.
func Superseded(body []byte) ([][32]byte, error) {
	b, _, err := parseSuperseded(body)
	if err != nil {
		return nil, err
	}
	names := make([][32]byte, len(b)/32)
	for i := range names {
		names[i] = [32]byte(b[32*i:])
	}
	return names, nil
}

// parseSuperseded returns the names, one after another, and what follows them.
func parseSuperseded(body []byte) (names, rest []byte, err error) {
	if len(body) < 4 {
		return nil, nil, fmt.Errorf("%w: an index of %d bytes", seal.ErrDamaged, len(body))
	}
	n, rest := binary.BigEndian.Uint32(body), body[4:]
	if uint64(n) > uint64(len(rest)/32) {
		return nil, nil, fmt.Errorf("%w: %d names cannot stand in the index", seal.ErrDamaged, n)
	}
	size := 32 * int(n)
	return rest[:size], rest[size:], nil
}

// parseListed reads one pack and its entries, which it puts into buf.
func parseListed(buf []Entry, b []byte) (l Listed, rest []byte, err error) {
	if len(b) < infoSize {
		return l, nil, fmt.Errorf("%w: it is cut off", seal.ErrDamaged)
	}
	size := binary.BigEndian.Uint64(b[70:])
	l.Info = Info{
		Name: [32]byte(b[:32]), Kind: seal.Kind(b[32]), Suite: seal.Suite(b[33]),
		Epoch: binary.BigEndian.Uint32(b[34:]), Salt: seal.Salt(b[38:70]), Size: int64(size),
		Writer: seal.ClientID(b[78:94]), Count: binary.BigEndian.Uint32(b[94:]),
	}
	rest = b[infoSize:]
	if !l.Info.Kind.IsPack() || l.Info.Epoch == 0 || size > SizeMax {
		return l, nil, fmt.Errorf("%w: a %s of epoch %d with %d bytes is not a pack", seal.ErrDamaged, l.Info.Kind, l.Info.Epoch, size)
	}
	if uint64(l.Info.Count) > uint64(len(rest)/entrySize) {
		return l, nil, fmt.Errorf("%w: %d entries cannot stand in %d bytes", seal.ErrDamaged, l.Info.Count, len(rest))
	}
	count := int(l.Info.Count)
	var end int64
	if l.Entries, end, err = parseEntries(buf, rest, count); err != nil {
		return l, nil, err
	}
	if end+trailerSize > l.Info.Size {
		return l, nil, fmt.Errorf("%w: its chunks end at %d of %d bytes", seal.ErrDamaged, end, size)
	}
	return l, rest[count*entrySize:], nil
}
