package filter

import (
	"crypto/cipher"
	"fmt"
	"io"
	"os"
)

// tablePage is the page that is being worked on, in plain.
type tablePage struct {
	number uint64
	loaded bool
	dirty  bool
	slots  [slotsPerPage * slotSize]byte
}

// load makes a page the one that is worked on.
func (t *table) load(number uint64) error {
	if t.page.loaded && t.page.number == number {
		return nil
	}
	if err := t.save(); err != nil {
		return err
	}
	var own [pageSize]byte
	raw := own[:]
	if t.batch != nil {
		var err error
		if raw, err = t.batch.page(t.file, number); err != nil {
			return err
		}
	} else if err := readPages(t.file, raw, number); err != nil {
		return err
	}
	t.page.number, t.page.loaded = number, true
	if [pageIVSize]byte(raw) == [pageIVSize]byte{} { // never written
		clear(t.page.slots[:])
		return nil
	}
	cipher.NewCTR(t.block, raw[:pageIVSize]).XORKeyStream(t.page.slots[:], raw[pageIVSize:pageIVSize+len(t.page.slots)])
	return nil
}

// save puts the page that is worked on back if it changed, under a new random
// initialization vector: pages are written more than once. Only a batch takes it.
func (t *table) save() error {
	if !t.page.dirty {
		return nil
	}
	raw, err := t.batch.page(t.file, t.page.number)
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(t.random, raw[:pageIVSize]); err != nil {
		return fmt.Errorf("draw a nonce for the spool's index: %w", err)
	}
	cipher.NewCTR(t.block, raw[:pageIVSize]).XORKeyStream(raw[pageIVSize:pageIVSize+len(t.page.slots)], t.page.slots[:])
	t.page.dirty, t.batch.dirty = false, true
	return nil
}

// pageBatch is a run of pages as they are in the file, encrypted. Whoever goes
// through all pages reads and writes them by batches: the calls would cost more
// than what they carry.
type pageBatch struct {
	first  uint64 // number of the first page, a multiple of batchPages
	loaded bool
	dirty  bool
	raw    [batchPages * pageSize]byte
}

const batchPages = 16 // a divisor of pagesMin

// page returns a page, to be read or overwritten until the next call. It goes to
// the batch that has the page, for which it writes the last one.
func (b *pageBatch) page(file *os.File, number uint64) ([]byte, error) {
	if first := number &^ (batchPages - 1); !b.loaded || b.first != first {
		if err := b.write(file); err != nil {
			return nil, err
		}
		if err := readPages(file, b.raw[:], first); err != nil {
			return nil, err
		}
		b.first, b.loaded = first, true
	}
	return b.raw[(number-b.first)*pageSize:][:pageSize], nil
}

// write writes the batch if a page in it changed.
func (b *pageBatch) write(file *os.File) error {
	if !b.dirty {
		return nil
	}
	if _, err := file.WriteAt(b.raw[:], int64(b.first)*pageSize); err != nil {
		return fmt.Errorf("write to the spool's index: %w", err)
	}
	b.dirty = false
	return nil
}

// readPages fills raw from a page on. What was never written is zeros.
func readPages(file *os.File, raw []byte, first uint64) error {
	n, err := file.ReadAt(raw, int64(first)*pageSize)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read from the spool's index: %w", err)
	}
	clear(raw[n:])
	return nil
}
