package filter

import (
	"bytes"
	"cmp"
	"crypto/cipher"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/bits"
	"os"
	"slices"

	"github.com/bk-backup/bk/format"
)

// table maps ids to numbers in bounded memory: what is new is in a map, the
// rest in an encrypted, unlinked file of pages that is hashed into. A filter of
// bits in memory answers most questions about ids that are not in it. Ids come
// from streams that nobody has checked, so the hash is keyed.
type table struct {
	dir    string
	random io.Reader
	seed   maphash.Seed
	hot    map[format.ID]uint64 // newer than what the file says
	bitmap []uint64             // bits of every id in the file, by three hashes

	file   *os.File // nil as long as everything is hot
	block  cipher.Block
	pages  uint64 // a power of two
	stored uint64 // ids in the file
	page   tablePage
	batch  *pageBatch // of the file, while many pages are changed; nil: none
}

const (
	hotMax        = 1 << 16 // ids in memory, about 6 MiB
	tableBits     = 1 << 25 // 4 MiB: one in 30 wrong at 3 million ids
	pageSize      = 4096    // bytes
	pageIVSize    = 16      // bytes
	slotSize      = 40      // bytes: an id and a number
	slotsPerPage  = (pageSize - pageIVSize) / slotSize
	pagesMin      = 1 << 10
	slotsUsedMax  = slotsPerPage * 6 / 10 // on average; a page that is full spills into the next one
	tableBitsMask = tableBits - 1
)

func newTable(dir string, random io.Reader) *table {
	return &table{dir: dir, random: random, seed: maphash.MakeSeed(), hot: map[format.ID]uint64{}}
}

// get returns the number of id, and whether there is one.
func (t *table) get(id format.ID) (uint64, bool, error) {
	if v, ok := t.hot[id]; ok {
		return v, true, nil
	}
	if t.file == nil {
		return 0, false, nil
	}
	hash := maphash.Bytes(t.seed, id[:])
	if !t.mayHold(hash) {
		return 0, false, nil
	}
	slot, found, err := t.find(hash, &id)
	if err != nil || !found {
		return 0, false, err
	}
	return slotValue(slot), true, nil
}

// put sets the number of id.
func (t *table) put(id format.ID, value uint64) error {
	t.hot[id] = value
	if len(t.hot) < hotMax {
		return nil
	}
	return t.flush()
}

// count returns how many ids there are at most.
func (t *table) count() uint64 { return uint64(len(t.hot)) + t.stored }

type tableEntry struct {
	hash  uint64
	id    format.ID
	value uint64
	older bool // than what is stored of the id, if anything is
}

func sortEntries(entries []tableEntry) {
	slices.SortFunc(entries, func(a, b tableEntry) int { return cmp.Compare(a.hash, b.hash) })
}

// flush moves everything from memory into the file, which is gone through once.
func (t *table) flush() error {
	old, err := t.reserve(t.stored + uint64(len(t.hot)))
	if err != nil {
		return err
	}
	entries := make([]tableEntry, 0, len(t.hot))
	for id, value := range t.hot {
		entries = append(entries, tableEntry{hash: maphash.Bytes(t.seed, id[:]), id: id, value: value})
	}
	sortEntries(entries)
	t.batch = new(pageBatch)
	if old != nil {
		err = errors.Join(t.merge(old, entries), old.file.Close())
	} else {
		err = t.storeAll(entries)
	}
	if err != nil {
		return err
	}
	clear(t.hot)
	if err := t.save(); err != nil {
		return err
	}
	err = t.batch.write(t.file)
	t.batch = nil
	return err
}

func (t *table) storeAll(entries []tableEntry) error {
	for i := range entries {
		if err := t.store(&entries[i]); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) store(e *tableEntry) error {
	slot, found, err := t.find(e.hash, &e.id)
	if err != nil || found && e.older {
		return err
	}
	if !found {
		copy(slot, e.id[:])
		t.stored++
		t.note(e.hash)
	}
	setSlotValue(slot, e.value)
	t.page.dirty = true
	return nil
}

// find returns the slot of id, or the empty one where it belongs, in t.page.
func (t *table) find(hash uint64, id *format.ID) (slot []byte, found bool, err error) {
	number := t.pageOf(hash)
	for range t.pages {
		if err := t.load(number); err != nil {
			return nil, false, err
		}
		for at := 0; at < len(t.page.slots); at += slotSize {
			slot := t.page.slots[at : at+slotSize]
			if bytes.Equal(slot[:len(id)], id[:]) {
				return slot, true, nil
			}
			if isEmptySlot(slot) {
				return slot, false, nil
			}
		}
		number = (number + 1) & (t.pages - 1)
	}
	return nil, false, fmt.Errorf("the spool's index is full")
}

// pageOf keeps the order of hashes, so that a sorted run of them, and a table
// that grows, go through the file from beginning to end.
func (t *table) pageOf(hash uint64) uint64 { return hash >> (64 - bits.TrailingZeros64(t.pages)) }

func isEmptySlot(slot []byte) bool {
	var none format.ID
	return bytes.Equal(slot[:len(none)], none[:])
}

func slotValue(slot []byte) uint64 {
	var v uint64
	for _, b := range slot[slotSize-8 : slotSize] {
		v = v<<8 | uint64(b)
	}
	return v
}

func setSlotValue(slot []byte, v uint64) {
	for i := slotSize - 1; i >= slotSize-8; i-- {
		slot[i] = byte(v)
		v >>= 8
	}
}

// reserve makes the file, or a larger one, if it would be too full with n ids.
// Then it returns the table in the smaller file, if there is one: what is in it
// must be stored again, and the file closed.
func (t *table) reserve(n uint64) (old *table, err error) {
	pages := max(t.pages, pagesMin)
	for n > pages*slotsUsedMax {
		pages *= 2
	}
	if pages == t.pages {
		return nil, nil
	}
	file, err := unlinkedFile(t.dir)
	if err != nil {
		return nil, err
	}
	block, err := newBlock(t.random)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if t.bitmap == nil {
		t.bitmap = make([]uint64, tableBits/64)
	}
	if t.file != nil {
		smaller := *t
		old = &smaller
	}
	t.file, t.block, t.pages, t.stored, t.page = file, block, pages, 0, tablePage{}
	return old, nil
}

// merge stores what is in a smaller table and the entries, which are sorted and
// newer. Both go in the order of pages, so that a page is written about once.
func (t *table) merge(old *table, entries []tableEntry) error {
	old.batch = new(pageBatch)
	var both []tableEntry
	for number := range old.pages {
		if err := old.load(number); err != nil {
			return err
		}
		both = both[:0]
		for at := 0; at < len(old.page.slots); at += slotSize {
			slot := old.page.slots[at : at+slotSize]
			if isEmptySlot(slot) {
				break
			}
			id := format.ID(slot[:len(format.ID{})])
			both = append(both, tableEntry{maphash.Bytes(t.seed, id[:]), id, slotValue(slot), true})
		}
		n := 0
		for n < len(entries) && old.pageOf(entries[n].hash) == number {
			n++
		}
		both = append(both, entries[:n]...)
		entries = entries[n:]
		sortEntries(both)
		if err := t.storeAll(both); err != nil {
			return err
		}
	}
	return nil
}

// note and mayHold are the filter of bits: three positions for each hash.
func (t *table) note(hash uint64) {
	step := hash>>32 | 1
	for i := range uint64(3) {
		bit := (hash + i*step) & tableBitsMask
		t.bitmap[bit>>6] |= 1 << (bit & 63)
	}
}

func (t *table) mayHold(hash uint64) bool {
	step := hash>>32 | 1
	for i := range uint64(3) {
		bit := (hash + i*step) & tableBitsMask
		if t.bitmap[bit>>6]>>(bit&63)&1 == 0 {
			return false
		}
	}
	return true
}

func (t *table) Close() error {
	if t == nil || t.file == nil {
		return nil
	}
	return t.file.Close()
}
