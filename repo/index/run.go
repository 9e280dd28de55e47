package index

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
)

// A run is a file of
//
//	header   64 bytes: magic, count of records, packs, names, fan-out bits,
//	         length of the file, CRC-32C of packs, names and fan-out, of the header
//	packs    packSize bytes each: the packs that the records lie in
//	names    32 bytes each: the index objects that the run covers
//	fan-out  u32 for each value of the first fanBits bits of a label, and one
//	         more: the number of records before it
//	records  recordSize bytes each, sorted by label, from a multiple of 4096 on
//	sums     u32 for each block of 4096 bytes of records: its CRC-32C
//
// All integers are little endian: a run is read on the machine that wrote it.
const (
	runMagic    = "bkrun 1\n"
	headerSize  = 64
	recordSize  = 40
	packSize    = 104
	nameSize    = 32
	blockSize   = 4096
	fanBitsMax  = 18
	bucketCount = 48 // records per fan-out bucket aimed at
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged says that a run in the local cache is not what was written. The
// cache is then built again; nothing on storage is concerned.
var ErrDamaged = errors.New("the local index cache is damaged")

// Location says where a chunk lies.
type Location struct {
	Pack       uint32 // number of the pack within the run
	Number     uint32 // number of the chunk within the pack
	Offset     uint32 // first byte of the sealed chunk in the pack
	StoredSize uint32 // sealed bytes
	RawSize    uint32 // plain bytes
	Codec      pack.Codec
}

// Run is an open, mapped run. It is safe for concurrent use until Close.
type Run struct {
	path    string
	shelf   shelf
	file    []byte   // the mapping
	fd      *os.File // of a large run, which lookups read; nil for a small one
	count   uint64
	packs   []byte
	names   []byte
	fan     []byte
	fanBits uint
	records []byte
	sums    []byte
	checked []atomic.Uint32 // a bit for each block whose sum was compared
}

// largeMin is the size in bytes of a run from which on the process's memory must
// not grow with what is looked at: lookups read the file, which takes no more
// time than to fault its pages in, and scans give pages back. They stay in the
// system's cache. It is a variable for tests.
var largeMin = 8 << 20

// scanResident is after how many records a scan of a large run gives its pages
// back.
const scanResident = (4 << 20) / recordSize

// giveBack takes the pages of a large run out of the process's memory.
func (r *Run) giveBack() {
	if r.fd != nil {
		// A failure costs memory and nothing else.
		_ = unix.Madvise(r.file, unix.MADV_DONTNEED)
	}
}

// OpenRun maps the run at path and checks all of it but the records, whose
// blocks are checked when they are first read.
func OpenRun(path string) (*Run, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return mapRun(f, path)
}

// mapRun is OpenRun for a file that is open, and has or will have that path.
func mapRun(f *os.File, path string) (*Run, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	damaged := func(what string) error { return fmt.Errorf("%s: %s: %w", path, what, ErrDamaged) }
	if fi.Size() < headerSize {
		return nil, damaged("too short")
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	r := &Run{path: path, file: m}
	if err := r.guardedParse(); err != nil {
		r.Close()
		return nil, damaged(err.Error())
	}
	if len(m) >= largeMin {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			r.Close()
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		r.fd = os.NewFile(uintptr(fd), path)
		r.giveBack()
	}
	return r, nil
}

func (r *Run) guardedParse() (err error) {
	defer r.guard(debug.SetPanicOnFault(true), &err)
	return r.parse()
}

// guard, deferred, ends what SetPanicOnFault began: a page of the mapping that the
// disk does not give, or that somebody cut off, is an error as that of a read is.
func (r *Run) guard(before bool, err *error) {
	debug.SetPanicOnFault(before)
	p := recover()
	if p == nil {
		return
	}
	if fault, ok := p.(interface{ Addr() uintptr }); ok && len(r.file) > 0 {
		if first := uintptr(unsafe.Pointer(&r.file[0])); fault.Addr() >= first && fault.Addr()-first < uintptr(len(r.file)) {
			*err = fmt.Errorf("%s: a part of it cannot be read any more: %w", r.path, ErrDamaged)
			return
		}
	}
	panic(p)
}

func (r *Run) parse() error {
	h := r.file[:headerSize]
	if string(h[:8]) != runMagic {
		return errors.New("not a run")
	}
	if crc32.Checksum(h[:60], castagnoli) != binary.LittleEndian.Uint32(h[60:]) {
		return errors.New("header checksum")
	}
	r.count = binary.LittleEndian.Uint64(h[8:])
	packs, names := uint64(binary.LittleEndian.Uint32(h[16:])), uint64(binary.LittleEndian.Uint32(h[20:]))
	r.fanBits = uint(binary.LittleEndian.Uint32(h[24:]))
	if r.fanBits > fanBitsMax || r.count > 1<<40 {
		return errors.New("header values")
	}
	l := layout(r.count, packs, names, r.fanBits)
	if l.size != uint64(len(r.file)) || l.size != binary.LittleEndian.Uint64(h[32:]) {
		return fmt.Errorf("%d bytes long instead of %d", len(r.file), l.size)
	}
	r.packs = r.file[headerSize:l.names]
	r.names = slices.Clone(r.file[l.names:l.fan]) // needed when the file is no use any more
	r.fan = r.file[l.fan:l.fanEnd]
	r.records = r.file[l.records : l.records+r.count*recordSize]
	r.sums = r.file[l.sums:l.size]
	if crc32.Checksum(r.file[headerSize:l.fanEnd], castagnoli) != binary.LittleEndian.Uint32(h[40:]) {
		return errors.New("table checksum")
	}
	r.checked = make([]atomic.Uint32, (len(r.sums)/4+31)/32)
	return nil
}

// places of the parts of a run.
type places struct{ names, fan, fanEnd, records, sums, size uint64 }

func layout(count, packs, names uint64, fanBits uint) places {
	var l places
	l.names = headerSize + packs*packSize
	l.fan = l.names + names*nameSize
	l.fanEnd = l.fan + 4*(1<<fanBits+1)
	l.records = (l.fanEnd + blockSize - 1) / blockSize * blockSize
	l.sums = l.records + count*recordSize
	blocks := (count*recordSize + blockSize - 1) / blockSize
	l.size = l.sums + 4*blocks
	return l
}

// fanBitsFor chooses the fan-out for a number of records.
func fanBitsFor(count uint64) uint {
	return min(uint(bits.Len64(count/bucketCount)), fanBitsMax)
}

// Close unmaps the run. Nothing that it returned refers to it.
func (r *Run) Close() error {
	if r.file == nil {
		return nil
	}
	err := unix.Munmap(r.file)
	r.file = nil
	if r.fd != nil {
		err = errors.Join(err, r.fd.Close())
	}
	return err
}

// Len returns the number of records.
func (r *Run) Len() int { return int(r.count) }

// Packs returns the number of packs.
func (r *Run) Packs() int { return len(r.packs) / packSize }

// Covers calls fn with the name of each index object that the run covers.
func (r *Run) Covers(fn func(name [32]byte)) {
	for i := 0; i+nameSize <= len(r.names); i += nameSize {
		fn([32]byte(r.names[i : i+nameSize]))
	}
}

// eachPack calls fn with every pack of the run.
func (r *Run) eachPack(fn func(pack.Info) error) (err error) {
	defer r.guard(debug.SetPanicOnFault(true), &err)
	for i := range r.Packs() {
		if err := fn(r.Pack(uint32(i))); err != nil {
			return err
		}
	}
	r.giveBack()
	return nil
}

// Pack returns what is known of pack number i of the run.
func (r *Run) Pack(i uint32) pack.Info { return parsePack(r.packs[int(i)*packSize:][:packSize]) }

func parsePack(b []byte) pack.Info {
	info := pack.Info{
		Kind:  seal.Kind(b[96]),
		Suite: seal.Suite(b[97]),
		Epoch: binary.LittleEndian.Uint32(b[88:]),
		Size:  int64(binary.LittleEndian.Uint64(b[80:])),
		Count: binary.LittleEndian.Uint32(b[92:]),
	}
	copy(info.Name[:], b[0:32])
	copy(info.Salt[:], b[32:64])
	copy(info.Writer[:], b[64:80])
	return info
}

func appendPack(dst []byte, info pack.Info) []byte {
	dst = append(dst, info.Name[:]...)
	dst = append(dst, info.Salt[:]...)
	dst = append(dst, info.Writer[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(info.Size))
	dst = binary.LittleEndian.AppendUint32(dst, info.Epoch)
	dst = binary.LittleEndian.AppendUint32(dst, info.Count)
	return append(dst, byte(info.Kind), byte(info.Suite), 0, 0, 0, 0, 0, 0)
}

// record is one record in memory, as it lies in the file.
type record [recordSize]byte

func makeRecord(label seal.Label, loc Location) record {
	var rec record
	copy(rec[:20], label[:])
	binary.LittleEndian.PutUint32(rec[20:], loc.Pack)
	binary.LittleEndian.PutUint32(rec[24:], loc.Number)
	binary.LittleEndian.PutUint32(rec[28:], loc.Offset)
	binary.LittleEndian.PutUint32(rec[32:], loc.StoredSize)
	binary.LittleEndian.PutUint32(rec[36:], loc.RawSize|uint32(loc.Codec)<<26)
	return rec
}

func locationOf(rec []byte) Location {
	sizeCodec := binary.LittleEndian.Uint32(rec[36:])
	return Location{
		Pack:       binary.LittleEndian.Uint32(rec[20:]),
		Number:     binary.LittleEndian.Uint32(rec[24:]),
		Offset:     binary.LittleEndian.Uint32(rec[28:]),
		StoredSize: binary.LittleEndian.Uint32(rec[32:]),
		RawSize:    sizeCodec & (1<<26 - 1),
		Codec:      pack.Codec(sizeCodec >> 26),
	}
}

// bucket returns the range of records whose labels share the fan-out bits.
func (r *Run) bucket(label seal.Label) (lo, hi uint64) {
	i := uint64(0)
	if r.fanBits > 0 {
		i = uint64(binary.BigEndian.Uint32(label[:4]) >> (32 - r.fanBits))
	}
	lo = uint64(binary.LittleEndian.Uint32(r.fan[4*i:]))
	hi = uint64(binary.LittleEndian.Uint32(r.fan[4*i+4:]))
	return min(lo, r.count), min(hi, r.count)
}

// Find calls fn with each place where the chunk lies, until it returns false.
func (r *Run) Find(label seal.Label, fn func(Location) bool) error {
	return r.find(label, func(_ uint64, loc Location) bool { return fn(loc) })
}

// findHits is Find with the packs, which it reads as look reads records: a table
// that was looked up in would be in memory whole soon.
func (r *Run) findHits(label seal.Label, fn func(Hit) bool) error {
	var packErr error
	err := r.Find(label, func(loc Location) bool {
		if r.fd == nil {
			return fn(Hit{r.Pack(loc.Pack), loc})
		}
		var b [packSize]byte
		if _, packErr = r.fd.ReadAt(b[:], headerSize+int64(loc.Pack)*packSize); packErr != nil {
			packErr = fmt.Errorf("read the index cache: %w", packErr)
			return false
		}
		return fn(Hit{parsePack(b[:]), loc})
	})
	return cmp.Or(err, packErr)
}

// find is Find with the number of each record.
func (r *Run) find(label seal.Label, fn func(number uint64, loc Location) bool) (err error) {
	defer r.guard(debug.SetPanicOnFault(true), &err)
	lo, hi := r.bucket(label)
	if lo >= hi {
		return nil
	}
	records, buf, err := r.look(lo, hi)
	if err != nil {
		return err
	}
	if buf != nil {
		defer lookBuffers.Put(buf)
	}
	first, end := lo, hi
	for lo < hi {
		mid := lo + (hi-lo)/2
		if bytes.Compare(records[(mid-first)*recordSize:][:20], label[:]) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for ; lo < end; lo++ {
		rec := records[(lo-first)*recordSize:][:recordSize]
		if !bytes.Equal(rec[:20], label[:]) {
			return nil
		}
		loc := locationOf(rec)
		if int(loc.Pack) >= r.Packs() {
			return fmt.Errorf("%s: record of a pack it does not list: %w", r.path, ErrDamaged)
		}
		if !fn(lo, loc) {
			return nil
		}
	}
	return nil
}

// lookBuffers holds what look reads into, as *[]byte.
var lookBuffers = sync.Pool{New: func() any { return new([]byte) }}

// look returns records lo to hi, checked. Those of a large run are read into buf,
// which belongs to lookBuffers.
func (r *Run) look(lo, hi uint64) (records []byte, buf *[]byte, err error) {
	if r.fd == nil {
		return r.records[lo*recordSize : hi*recordSize], nil, r.verify(lo, hi)
	}
	// Whole blocks, since sums are of blocks.
	begin := lo * recordSize / blockSize * blockSize
	end := min((hi*recordSize+blockSize-1)/blockSize*blockSize, uint64(len(r.records)))
	buf = lookBuffers.Get().(*[]byte)
	*buf = slices.Grow((*buf)[:0], int(end-begin))[:end-begin]
	at := int64(len(r.file)-len(r.sums)-len(r.records)) + int64(begin)
	if _, err = r.fd.ReadAt(*buf, at); err != nil {
		err = fmt.Errorf("read the index cache: %w", err)
	}
	for b := begin; err == nil && b < end; b += blockSize {
		err = r.verifyBlock(b/blockSize, (*buf)[b-begin:min(b-begin+blockSize, end-begin)])
	}
	if err != nil {
		lookBuffers.Put(buf)
		return nil, nil, err
	}
	return (*buf)[lo*recordSize-begin : hi*recordSize-begin], buf, nil
}

// verify compares the checksums of the blocks that hold records lo to hi.
func (r *Run) verify(lo, hi uint64) error {
	for b := lo * recordSize / blockSize; b <= (hi*recordSize-1)/blockSize; b++ {
		if err := r.verifyBlock(b, r.records[b*blockSize:min((b+1)*blockSize, uint64(len(r.records)))]); err != nil {
			return err
		}
	}
	return nil
}

// verifyBlock compares the checksum of a block, if that was not done yet.
func (r *Run) verifyBlock(b uint64, block []byte) error {
	word, bit := &r.checked[b/32], uint32(1)<<(b%32)
	if word.Load()&bit == 0 {
		if crc32.Checksum(block, castagnoli) != binary.LittleEndian.Uint32(r.sums[4*b:]) {
			return fmt.Errorf("%s: block %d: %w", r.path, b, ErrDamaged)
		}
		word.Or(bit)
	}
	return nil
}

// verifyAll compares the checksums of all blocks.
func (r *Run) verifyAll() (err error) {
	defer r.guard(debug.SetPanicOnFault(true), &err)
	for lo := uint64(0); err == nil && lo < r.count; lo += scanResident {
		err = r.verify(lo, min(lo+scanResident, r.count))
		r.giveBack()
	}
	return err
}

// All calls fn with every record in label order.
func (r *Run) All(fn func(label seal.Label, loc Location) error) (err error) {
	defer r.guard(debug.SetPanicOnFault(true), &err)
	const step = 4096
	for lo := uint64(0); lo < r.count; lo += step {
		hi := min(lo+step, r.count)
		if err := r.verify(lo, hi); err != nil {
			return err
		}
		for i := lo; i < hi; i++ {
			rec := r.records[i*recordSize:][:recordSize]
			if err := fn(seal.Label(rec[:20]), locationOf(rec)); err != nil {
				return err
			}
		}
		if lo%(scanResident/step*step) == 0 {
			r.giveBack()
		}
	}
	r.giveBack()
	return nil
}
