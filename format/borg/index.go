package borg

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/bk-backup/bk/format/internal/spill"
	"github.com/bk-backup/bk/repo/store"
)

// locator says where objects lie. It may be used concurrently.
type locator interface {
	find(ctx context.Context, id objectID) (at place, ok bool, err error)
	close() error
}

// borgIndex is the file index.T that borg keeps, an open hash table, used as it
// is: in memory, or on storage where it is large.
type borgIndex struct {
	buckets uint64
	b       []byte // all buckets; nil: they are read as they are needed
	store   store.Reader
	name    string
}

const (
	indexMagic    = "BORG_IDX"
	indexHeadSize = 8 + 4 + 4 + 1 + 1
	bucketSize    = 32 + 4 + 4

	// indexMemoryMax is the size of an index, in bytes, up to which it is read
	// into memory: of about a million objects.
	indexMemoryMax = 48 << 20
	probeSize      = 64 * bucketSize // bytes read at a time of one that is not
)

// What a bucket that holds nothing has for a segment.
const (
	bucketEmpty   = 0xffffffff
	bucketDeleted = 0xfffffffe
)

// openIndex opens an index of borg's.
func openIndex(ctx context.Context, st store.Reader, name string, memoryMax int64) (*borgIndex, error) {
	info, err := st.Stat(ctx, name)
	if err != nil {
		return nil, err
	}
	var head [indexHeadSize]byte
	if err := st.ReadAt(ctx, name, head[:], 0); err != nil {
		return nil, err
	}
	x := &borgIndex{store: st, name: name, buckets: uint64(binary.LittleEndian.Uint32(head[12:]))}
	switch {
	case string(head[:8]) != indexMagic || head[16] != 32 || head[17] != 8:
		return nil, fmt.Errorf("%s does not begin as an index does: %w", name, ErrDamaged)
	case x.buckets == 0 || info.Size != indexHeadSize+int64(x.buckets)*bucketSize:
		return nil, fmt.Errorf("%s has %d bytes, which does not fit its %d buckets: %w", name, info.Size, x.buckets, ErrDamaged)
	}
	if info.Size <= memoryMax {
		x.b = make([]byte, info.Size-indexHeadSize)
		if err := st.ReadAt(ctx, name, x.b, indexHeadSize); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// find implements locator.
func (x *borgIndex) find(ctx context.Context, id objectID) (at place, ok bool, err error) {
	n := uint64(binary.LittleEndian.Uint32(id[:])) % x.buckets
	rest := []byte(nil) // of the buckets that were read
	for range x.buckets {
		if len(rest) == 0 {
			if rest, err = x.read(ctx, n); err != nil {
				return at, false, err
			}
		}
		bucket := rest[:bucketSize]
		rest = rest[bucketSize:]
		if n++; n == x.buckets {
			n, rest = 0, nil
		}
		switch at.segment = binary.LittleEndian.Uint32(bucket[32:]); {
		case at.segment == bucketEmpty:
			return at, false, nil
		case at.segment == bucketDeleted:
		case bytes.Equal(bucket[:32], id[:]):
			at.offset = binary.LittleEndian.Uint32(bucket[36:])
			return at, true, nil
		}
	}
	return at, false, nil
}

// read returns some buckets from the nth on.
func (x *borgIndex) read(ctx context.Context, n uint64) ([]byte, error) {
	if x.b != nil {
		return x.b[n*bucketSize:], nil
	}
	buf := make([]byte, min(probeSize, (x.buckets-n)*bucketSize))
	err := x.store.ReadAt(ctx, x.name, buf, indexHeadSize+int64(n)*bucketSize)
	return buf, err
}

func (x *borgIndex) close() error { return nil }

// logIndex is made by reading the heads of all entries of the log.
type logIndex struct {
	mu    sync.Mutex
	table *spill.Table
	// damage is the last segment of which a part could not be read, and why.
	damaged  uint32
	damage   error
	manifest place
}

// valueDeleted marks what was put and then deleted.
const valueDeleted = 1<<64 - 1

// replay reads the log up to the last commit. What cannot be read is noted: what
// it may have changed is found out by who misses something.
func (r *Repository) replay(ctx context.Context) (*logIndex, error) {
	x := &logIndex{table: spill.NewTable(r.tempDir)}
	for _, s := range r.segments {
		if err := x.segment(ctx, r, s); err != nil {
			var bad *entryError
			if !errors.As(err, &bad) {
				return nil, errors.Join(fmt.Errorf("read segment %s in %s: %w", r.segmentName(s.number), r, err), x.close())
			}
			x.damage, x.damaged = fmt.Errorf("segment %s: %w", r.segmentName(s.number), err), s.number
			r.log.Warn("the rest of a segment cannot be read", "segment", r.segmentName(s.number), "error", err)
		}
	}
	if x.damage != nil && x.damaged >= x.manifest.segment {
		// What is lost may be a newer manifest.
		return nil, errors.Join(fmt.Errorf("make an index of %s: %w", r, x.damage), x.close())
	}
	return x, nil
}

// scanSize is how many bytes of a segment are read at a time for its heads.
const scanSize = 64 << 10

// segment adds one segment.
func (x *logIndex) segment(ctx context.Context, r *Repository, s segment) error {
	name := r.segmentName(s.number)
	buf := make([]byte, scanSize)
	start, have := int64(0), []byte(nil)
	read := func(offset int64, least int) ([]byte, error) {
		if offset >= start && offset+int64(least) <= start+int64(len(have)) {
			return have[offset-start:], nil
		}
		start, have = offset, buf[:min(int64(len(buf)), s.size-offset)]
		err := r.store.ReadAt(ctx, name, have, offset)
		return have, err
	}
	return parseSegment(s.size, read, func(offset uint32, h *entryHead) error {
		value := place{s.number, offset}.number()
		switch h.tag {
		case tagPut:
			if h.id == manifestID {
				x.manifest = placeOf(value)
			}
		case tagDelete:
			value = valueDeleted
		default:
			return nil
		}
		return x.table.Put(spillKey(&h.id), value)
	})
}

// spillKey is what a table has of an id, whose bytes are those of a hash.
func spillKey(id *objectID) spill.Key { return spill.Key(id[:16]) }

// find implements locator.
func (x *logIndex) find(_ context.Context, id objectID) (at place, ok bool, err error) {
	x.mu.Lock()
	value, ok, err := x.table.Get(spillKey(&id))
	x.mu.Unlock()
	if err != nil || !ok || value == valueDeleted {
		return at, false, err
	}
	return placeOf(value), true, nil
}

func (x *logIndex) close() error { return x.table.Close() }
