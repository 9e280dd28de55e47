package index

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"
	"slices"

	"github.com/bk-backup/bk/repo/pack"
)

// runWriter writes a run record by record. The number of records may turn out
// smaller than announced, never larger. Its errors are ErrNoCache.
type runWriter struct {
	f       *os.File
	final   string // its name when it is whole; empty: it has none
	w       *bufio.Writer
	fanBits uint
	places  places
	fan     []uint32
	count   uint64
	packs   []byte
	names   [][32]byte
	sums    []byte
	block   []byte
	last    record
}

// createRun begins a run in a file that the caller has made, and throws away if
// it comes to nothing.
func createRun(f *os.File, final string, countMax uint64, packs []byte, names [][32]byte) (*runWriter, error) {
	w := &runWriter{f: f, final: final, fanBits: fanBitsFor(countMax), packs: packs, names: names}
	w.places = layout(0, uint64(len(packs)/packSize), uint64(len(names)), w.fanBits)
	w.fan = make([]uint32, 1<<w.fanBits+1)
	w.block = make([]byte, 0, blockSize+recordSize)
	if _, err := f.Seek(int64(w.places.records), 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCache, err)
	}
	w.w = bufio.NewWriterSize(f, 1<<18)
	return w, nil
}

// add appends a record; labels ascend. A record equal to the one before is left out.
func (w *runWriter) add(rec *record) error {
	if w.count > 0 && *rec == w.last {
		return nil
	}
	w.last = *rec
	w.count++
	i := uint32(0)
	if w.fanBits > 0 {
		i = binary.BigEndian.Uint32(rec[:4]) >> (32 - w.fanBits)
	}
	w.fan[i+1]++
	w.block = append(w.block, rec[:]...)
	if len(w.block) >= blockSize {
		w.sums = binary.LittleEndian.AppendUint32(w.sums, crc32.Checksum(w.block[:blockSize], castagnoli))
		w.block = append(w.block[:0], w.block[blockSize:]...)
	}
	if _, err := w.w.Write(rec[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrNoCache, err)
	}
	return nil
}

// finish completes the file and gives it its name in the cache.
func (w *runWriter) finish() (*Run, error) {
	run, err := w.complete()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCache, err)
	}
	return run, nil
}

func (w *runWriter) complete() (*Run, error) {
	if len(w.block) > 0 {
		w.sums = binary.LittleEndian.AppendUint32(w.sums, crc32.Checksum(w.block, castagnoli))
	}
	if _, err := w.w.Write(w.sums); err != nil {
		return nil, err
	}
	if err := w.w.Flush(); err != nil {
		return nil, err
	}
	tables := slices.Clone(w.packs)
	for _, name := range w.names {
		tables = append(tables, name[:]...)
	}
	sum := uint32(0)
	for _, n := range w.fan {
		sum += n
		tables = binary.LittleEndian.AppendUint32(tables, sum)
	}
	head := make([]byte, 0, headerSize)
	head = append(head, runMagic...)
	head = binary.LittleEndian.AppendUint64(head, w.count)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(w.packs)/packSize))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(w.names)))
	head = binary.LittleEndian.AppendUint32(head, uint32(w.fanBits))
	head = binary.LittleEndian.AppendUint32(head, 0)
	head = binary.LittleEndian.AppendUint64(head, w.places.records+w.count*recordSize+uint64(len(w.sums)))
	head = binary.LittleEndian.AppendUint32(head, crc32.Checksum(tables, castagnoli))
	head = append(head, make([]byte, 60-len(head))...)
	head = binary.LittleEndian.AppendUint32(head, crc32.Checksum(head, castagnoli))
	if _, err := w.f.WriteAt(append(head, tables...), 0); err != nil {
		return nil, err
	}
	// It is mapped before others can see it: another process may remove it at
	// once, having one that covers the same.
	run, err := mapRun(w.f, cmp.Or(w.final, w.f.Name()))
	if err != nil {
		return nil, err
	}
	if err = w.f.Close(); err == nil && w.final != "" {
		err = os.Rename(w.f.Name(), w.final)
	}
	if err != nil {
		run.Close()
		return nil, err
	}
	return run, nil
}

// packTable numbers packs by name.
type packTable struct {
	number map[[32]byte]uint32
	bytes  []byte
}

func (t *packTable) add(info pack.Info) uint32 {
	if n, ok := t.number[info.Name]; ok {
		return n
	}
	if t.number == nil {
		t.number = make(map[[32]byte]uint32)
	}
	n := uint32(len(t.number))
	t.number[info.Name] = n
	t.bytes = appendPack(t.bytes, info)
	return n
}

// batch gathers records in memory until they are written as a run.
type batch struct {
	packs   packTable
	names   [][32]byte
	records []record
}

func (b *batch) addPack(info pack.Info, entries []pack.Entry) {
	number := b.packs.add(info)
	for i, e := range entries {
		b.records = append(b.records, makeRecord(e.Label, Location{
			Pack: number, Number: uint32(i), Offset: e.Offset,
			StoredSize: e.StoredSize, RawSize: e.RawSize, Codec: e.Codec,
		}))
	}
}

// size is how many bytes a run of the batch takes.
func (b *batch) size() uint64 {
	count := uint64(len(b.records))
	return layout(count, uint64(len(b.packs.bytes)/packSize), uint64(len(b.names)), fanBitsFor(count)).size
}

func (b *batch) write(f *os.File, final string) (*Run, error) {
	slices.SortFunc(b.records, func(x, y record) int { return bytes.Compare(x[:], y[:]) })
	w, err := createRun(f, final, uint64(len(b.records)), b.packs.bytes, b.names)
	if err != nil {
		return nil, err
	}
	for i := range b.records {
		if err := w.add(&b.records[i]); err != nil {
			return nil, err
		}
	}
	return w.finish()
}

// merge writes one run with the records of several, in bounded memory.
func merge(f *os.File, final string, runs []*Run) (*Run, error) {
	var table packTable
	var names [][32]byte
	seen := make(map[[32]byte]bool)
	total := uint64(0)
	h := make(cursors, 0, len(runs))
	for _, r := range runs {
		c := &cursor{run: r, packs: make([]uint32, r.Packs())}
		for i := range c.packs {
			c.packs[i] = table.add(r.Pack(uint32(i)))
		}
		r.Covers(func(name [32]byte) {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		})
		total += r.count
		if ok, err := c.next(); err != nil {
			return nil, &badRun{r, err}
		} else if ok {
			h = append(h, c)
		}
	}
	w, err := createRun(f, final, total, table.bytes, names)
	if err != nil {
		return nil, err
	}
	heap.Init(&h)
	for len(h) > 0 {
		c := h[0]
		if err := w.add(&c.rec); err != nil {
			return nil, err
		}
		ok, err := c.next()
		if err != nil {
			return nil, &badRun{c.run, err}
		}
		if ok {
			heap.Fix(&h, 0)
		} else {
			heap.Pop(&h)
		}
	}
	return w.finish()
}

// cursor walks a run during a merge, with packs renumbered.
type cursor struct {
	run   *Run
	packs []uint32
	at    uint64
	rec   record
}

func (c *cursor) next() (_ bool, err error) {
	if c.at == c.run.count {
		return false, nil
	}
	defer c.run.guard(debug.SetPanicOnFault(true), &err)
	if err := c.run.verify(c.at, c.at+1); err != nil {
		return false, err
	}
	copy(c.rec[:], c.run.records[c.at*recordSize:])
	if c.at++; c.at%scanResident == 0 {
		c.run.giveBack()
	}
	number := binary.LittleEndian.Uint32(c.rec[20:])
	if int(number) >= len(c.packs) {
		return false, fmt.Errorf("%s: record of a pack it does not list: %w", c.run.path, ErrDamaged)
	}
	binary.LittleEndian.PutUint32(c.rec[20:], c.packs[number])
	return true, nil
}

type cursors []*cursor

func (h cursors) Len() int           { return len(h) }
func (h cursors) Less(i, j int) bool { return bytes.Compare(h[i].rec[:], h[j].rec[:]) < 0 }
func (h cursors) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *cursors) Push(x any)        { *h = append(*h, x.(*cursor)) }
func (h *cursors) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
