package borg

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/loss"
	"github.com/bk-backup/bk/format/internal/spill"
)

// run is the items that begin in one object of an archive's stream of items,
// sorted, as records in a log. Archives that have the object in common, with the
// same around it, have the run in common.
type run struct {
	at, size int64 // of the records in the log
	links    int64 // bytes of the names of hard links, which follow the records
	slaves   bool  // there are items that are hard links to others
	next     int   // where the first item in the next object begins
	whole    int   // objects after this one that lie inside its last item
	losses   loss.Counts
	pos      [2]int // 1 + its number in the older and newer archive of a merge; 0: not in it
}

// runKey is what a run depends on.
type runKey struct {
	object, after objectID
	first         int
}

// A record in the log is the size of its key, the key, recordFlags, the size of
// the item, and the item as borg packed it. The key is the path with zero bytes
// for slashes, so that keys are in bytewise order where paths are in the
// stream's.
type recordFlags byte

const (
	recordDir    recordFlags = 1 << iota
	recordPart               // of a file that was written across a checkpoint
	recordSlave              // its content is that of another item
	recordMaybe              // it may be such another, which its archive does not say
	recordMaster             // it is one
)

// A name of a hard link in the log is a key for a table and, for a master, its
// record's place + 1, or 0 for the master that a slave asks for.
const linkSize = 16 + 8

// runLog makes runs of archives and keeps those of the last one.
type runLog struct {
	r     *Repository
	log   *spill.Log
	cache map[runKey]*run
	live  int64 // bytes of the runs in cache

	garbageMax int64
}

func newRunLog(r *Repository) *runLog {
	return &runLog{r: r, log: spill.NewLog(r.tempDir), garbageMax: logGarbageMax}
}

func (l *runLog) close() error { return l.log.Close() }

// logGarbageMax is how many bytes of runs that nobody needs any more are kept,
// beside as many as are needed.
const logGarbageMax = 64 << 20

// runs returns the runs of an archive; what it has in common with the last one
// is not read again.
func (l *runLog) runs(ctx context.Context, a *archive) ([]*run, error) {
	s := &itemStream{ctx: ctx, r: l.r, ids: a.items, cached: make(map[objectID]bool, len(l.cache))}
	defer s.close()
	for key := range l.cache {
		s.cached[key.object] = true
	}
	cache := make(map[runKey]*run, len(a.items))
	live := int64(0)
	var list []*run
	first := 0
	for i := 0; i < len(a.items); i++ {
		key := runKey{object: a.items[i], first: first}
		if i+1 < len(a.items) {
			key.after = a.items[i+1]
		}
		one := cache[key]
		if one == nil {
			one = l.cache[key]
		}
		if one == nil {
			var err error
			if one, err = l.build(s, i, first); err != nil {
				return nil, err
			}
		}
		list = append(list, one)
		if one.whole == 0 && cache[key] == nil {
			cache[key] = one
			live += one.size + one.links
		}
		i += one.whole
		first = one.next
	}
	if first != 0 {
		return nil, fmt.Errorf("its items end inside one: %w", ErrDamaged)
	}
	l.cache, l.live = cache, live
	return list, nil
}

// compact rewrites the log without what none of list, the runs of the last
// archive, needs, if that is much. It reports whether it did: then links have to
// be read again.
func (l *runLog) compact(list []*run) (moved bool, err error) {
	if l.log.Size() < 2*l.live+l.garbageMax {
		return false, nil
	}
	log := spill.NewLog(l.r.tempDir)
	seen := make(map[*run]bool, len(list))
	for _, one := range list {
		if seen[one] {
			continue
		}
		seen[one] = true
		b := make([]byte, one.size+one.links)
		if _, err := l.log.ReadAt(b, one.at); err != nil {
			return false, errors.Join(err, log.Close())
		}
		by := log.Size() - one.at
		one.at += by
		for at := one.size; at < int64(len(b)); at += linkSize {
			place := b[at+16:][:8]
			if n := binary.LittleEndian.Uint64(place); n > 0 {
				binary.LittleEndian.PutUint64(place, uint64(int64(n)+by))
			}
		}
		if _, err := log.Write(b); err != nil {
			return false, errors.Join(err, log.Close())
		}
	}
	old := l.log
	l.log = log
	return true, old.Close()
}

// rawItem is one item of a run that is being made.
type rawItem struct {
	key    string
	flags  recordFlags
	raw    []byte
	source string // of a slave: the path of its master
	number int
	at     int64
}

// build makes a run of the items that begin in an object.
func (l *runLog) build(s *itemStream, i, first int) (*run, error) {
	b, err := s.load(i)
	if err != nil {
		return nil, err
	}
	if first > len(b) {
		return nil, fmt.Errorf("object %s of items has %d bytes: %w", s.ids[i], len(b), ErrDamaged)
	}
	one := &run{}
	var items []rawItem
	own := len(b)  // bytes of the object itself
	var ends []int // of those that were added to end its last item
	at := first
	for at < own {
		u := &unpacker{b: b, i: at}
		h := u.parseHead()
		if u.short {
			if b, ends, err = s.extend(i, b, at, ends); err != nil {
				return nil, err
			}
			continue
		}
		if u.err != nil {
			return nil, fmt.Errorf("object %s of items: %w", s.ids[i], u.err)
		}
		if item, ok := newRawItem(&h, b[at:u.i], one); ok {
			item.number = len(items)
			items = append(items, item)
		}
		at = u.i
	}
	for at > own {
		// The last item ends in this one of those that were added.
		if end := ends[one.whole]; end >= at {
			if one.whole > 0 {
				own = ends[one.whole-1]
			}
			one.next = at - own
			break
		}
		one.whole++
	}
	return one, l.write(one, items)
}

// newRawItem looks at an item as far as it is sorted by. What the stream cannot
// have is counted as lost.
func newRawItem(h *itemHead, raw []byte, one *run) (rawItem, bool) {
	path, ok := cleanPath(string(h.path))
	if !ok {
		one.losses.Add(format.LossName, strings.ToValidUTF8(path, "?"))
		return rawItem{}, false
	}
	it := rawItem{key: keyOf(path), raw: raw}
	if h.mode&typeMask == typeDir {
		it.flags |= recordDir
	}
	if h.part {
		it.flags |= recordPart
	}
	switch {
	case !linkable(h.mode):
	case h.hasSource:
		it.flags |= recordSlave
		it.source, _ = cleanPath(string(h.source))
		one.slaves = true
	case h.hasHlid || h.part || h.master == masterNo:
	case h.master == masterYes:
		it.flags |= recordMaster
	default:
		it.flags |= recordMaybe
	}
	return it, true
}

// write sorts items and appends them to the log.
func (l *runLog) write(one *run, items []rawItem) error {
	sorted := slices.Clone(items)
	slices.SortFunc(sorted, func(a, b rawItem) int {
		return cmp.Or(strings.Compare(a.key, b.key), cmp.Compare(a.number, b.number))
	})
	one.at = l.log.Size()
	size := 0
	for i := range sorted {
		size += len(sorted[i].key) + len(sorted[i].raw) + 8
	}
	buf := make([]byte, 0, size)
	for i := range sorted {
		it := &sorted[i]
		if i+1 < len(sorted) && sorted[i+1].key == it.key {
			continue // a later item of the same path replaces it
		}
		items[it.number].at = one.at + int64(len(buf)) + 1
		buf = appendRecord(buf, it)
	}
	one.size = int64(len(buf))
	for i := range items {
		it := &items[i]
		var key spill.Key
		switch {
		case it.flags&(recordMaster|recordMaybe) != 0 && it.at > 0:
			key = spill.KeyOf(spaceMaster, it.key)
		case it.flags&recordSlave != 0:
			key, it.at = spill.KeyOf(spaceNamed, keyOf(it.source)), 0
		default:
			continue
		}
		buf = binary.LittleEndian.AppendUint64(append(buf, key[:]...), uint64(it.at))
	}
	one.links = int64(len(buf)) - one.size
	_, err := l.log.Write(buf)
	return err
}

func appendRecord(dst []byte, it *rawItem) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(len(it.key))), it.key...)
	dst = append(dst, byte(it.flags))
	return append(binary.AppendUvarint(dst, uint64(len(it.raw))), it.raw...)
}

// record is an item in the log.
type record struct {
	at    int64 // in the log
	key   []byte
	flags recordFlags
	raw   []byte
}

// runCursor goes through the records of a run.
type runCursor struct {
	record
	run  *run
	log  *spill.Log
	buf  []byte
	have []byte // of buf: what was read and not yet used
	rest int64  // bytes of the run that were not read
	pos  int64  // in the log, of have
}

func newRunCursor(log *spill.Log, one *run, bufSize int) *runCursor {
	return &runCursor{run: one, log: log, buf: make([]byte, min(int64(bufSize), one.size)), rest: one.size, pos: one.at}
}

// next goes to the next record and reports whether there is one. It takes the
// memory of the one before.
func (c *runCursor) next() (bool, error) {
	for least := int64(1); ; {
		if len(c.have) > 0 {
			n, need := c.record.parse(c.have)
			if need == 0 {
				c.record.at = c.pos
				c.have, c.pos = c.have[n:], c.pos+int64(n)
				return true, nil
			}
			least = int64(need)
		}
		if c.rest == 0 {
			if len(c.have) > 0 {
				return false, errors.New("a record in a temporary file is cut off")
			}
			return false, nil
		}
		if int64(len(c.buf)) < least {
			c.buf = append(make([]byte, 0, 2*least), c.have...)[:2*least]
			c.have = c.buf[:len(c.have)]
		}
		kept := copy(c.buf, c.have)
		n := min(int64(len(c.buf)-kept), c.rest)
		if _, err := c.log.ReadAt(c.buf[kept:kept+int(n)], c.run.at+c.run.size-c.rest); err != nil {
			return false, err
		}
		c.rest -= n
		c.have = c.buf[:kept+int(n)]
	}
}

// parse reads a record at the beginning of b and returns how long it is; or if b
// does not have all of it, how many bytes are needed at least.
func (rec *record) parse(b []byte) (n, need int) {
	size, k := binary.Uvarint(b)
	if k <= 0 || len(b) < k+int(size)+1 {
		return 0, max(len(b)+1, k+int(size)+16)
	}
	rec.key = b[k : k+int(size)]
	rec.flags = recordFlags(b[k+int(size)])
	at := k + int(size) + 1
	size, k = binary.Uvarint(b[at:])
	if k <= 0 || len(b) < at+k+int(size) {
		return 0, max(len(b)+1, at+max(k, 0)+int(size))
	}
	rec.raw = b[at+k : at+k+int(size)]
	return at + k + int(size), 0
}

// recordAt reads the record at a place in the log.
func (l *runLog) recordAt(at int64) (*record, error) {
	b := make([]byte, 4<<10)
	for {
		b = b[:min(int64(len(b)), l.log.Size()-at)]
		if _, err := l.log.ReadAt(b, at); err != nil {
			return nil, err
		}
		rec := &record{at: at}
		if _, need := rec.parse(b); need == 0 {
			return rec, nil
		} else if int64(need) > l.log.Size()-at {
			return nil, errors.New("a record in a temporary file is cut off")
		} else {
			b = make([]byte, need)
		}
	}
}

// keyOf turns a path into a key.
func keyOf(path string) string { return strings.ReplaceAll(path, "/", "\x00") }

// pathOf turns a key into a path.
func pathOf(key []byte) string { return string(bytes.ReplaceAll(key, []byte{0}, []byte{'/'})) }
