package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/index"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// ErrMissing says that no index lists a chunk.
var ErrMissing = errors.New("no index lists it")

// Stats counts what a Repository read from storage, for tests and reports.
type Stats struct {
	DataChunksRead, MetaChunksRead, BytesRead atomic.Int64
}

// Stats returns the counters of what was read so far.
func (r *Repository) Stats() *Stats { return &r.stats }

const (
	readSizeMax = 1 << 20  // bytes fetched from a pack at a time, where chunks lie close together
	readGapMax  = 16 << 10 // bytes that may lie unused between two chunks of one fetch
)

// openers keeps the derived keys of the packs read last.
type openers struct {
	mu    sync.Mutex
	packs map[[32]byte]*pack.Opener
}

const openersMax = 4096

func (o *openers) init() { o.packs = make(map[[32]byte]*pack.Opener) }

// opener returns what opens the chunks of a pack.
func (r *Repository) opener(ctx context.Context, info *pack.Info) (*pack.Opener, error) {
	o := &r.openers
	o.mu.Lock()
	op, ok := o.packs[info.Name]
	o.mu.Unlock()
	if ok {
		return op, nil
	}
	secret, err := r.epochKey(ctx, info.Epoch)
	if err != nil {
		return nil, fmt.Errorf("pack %x: %w", info.Name[:8], err)
	}
	h, _ := r.header(info.Kind)
	if op, err = pack.NewOpener(secret, h, info); err != nil {
		return nil, fmt.Errorf("pack %x: %w", info.Name[:8], err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.packs) >= openersMax {
		clear(o.packs)
	}
	o.packs[info.Name] = op
	return op, nil
}

// payload is a chunk as it was stored: opened, perhaps compressed.
type payload struct {
	codec pack.Codec
	size  uint32 // plain bytes
	bytes []byte // from format.AllocPayload; the receiver frees it
}

// wanted is one chunk of a batch and where it lies.
type wanted struct {
	number int // in the batch
	id     format.ID
	label  seal.Label
	hit    index.Hit
}

// readPayloads fetches a batch of chunks and calls fn with each, from several
// goroutines and in no order; number is the place in ids. Chunks that lie close
// together in a pack are fetched at once. fn owns the payload. It is called with
// an error for a chunk that cannot be had; the others still come. An error of fn
// stops everything and is returned.
//
// What cannot be read where the index says is looked for once more, and in the
// other places that it may have, before fn hears of it (read_again.go).
func (r *Repository) readPayloads(ctx context.Context, kind seal.ChunkKind, ids []format.ID, fn func(number int, p payload, err error) error) error {
	again := readAgain{r: r, kind: kind, ids: ids, pass: r.recovery.pass()}
	err := r.readListed(ctx, kind, ids, again.unless(fn))
	if err != nil || len(again.failed) == 0 {
		return err
	}
	return again.read(ctx, fn)
}

// readListed is readPayloads by the index as it is.
func (r *Repository) readListed(ctx context.Context, kind seal.ChunkKind, ids []format.ID, fn func(number int, p payload, err error) error) error {
	list, err := r.locate(kind, ids, fn)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.workers())
	for lo := 0; lo < len(list); {
		hi := runEnd(list, lo)
		part := list[lo:hi]
		lo = hi
		if len(list) == len(part) { // one fetch: no goroutine needed
			return r.readRun(ctx, kind, part, fn)
		}
		g.Go(func() error { return r.readRun(ctx, kind, part, fn) })
	}
	return g.Wait()
}

// locate finds the chunks and sorts them by place. Those that no index lists go
// to fn with their error.
func (r *Repository) locate(kind seal.ChunkKind, ids []format.ID, fn func(int, payload, error) error) ([]wanted, error) {
	list := make([]wanted, 0, len(ids))
	for i, id := range ids {
		label := r.label.LabelOf(kind, id)
		hit, found, err := r.index.Find(label)
		if err != nil {
			return nil, err
		}
		if !found {
			if err := fn(i, payload{}, fmt.Errorf("chunk %s: %w", id, ErrMissing)); err != nil {
				return nil, err
			}
			continue
		}
		list = append(list, wanted{i, id, label, hit})
	}
	if len(list) > 1 {
		slices.SortFunc(list, func(a, b wanted) int {
			if c := bytes.Compare(a.hit.Pack.Name[:], b.hit.Pack.Name[:]); c != 0 {
				return c
			}
			return int(int64(a.hit.Offset) - int64(b.hit.Offset))
		})
	}
	return list, nil
}

// runEnd returns the end of the chunks from lo on that one fetch serves.
func runEnd(list []wanted, lo int) int {
	first := &list[lo].hit
	end := int64(first.Offset) + int64(first.StoredSize)
	hi := lo + 1
	for ; hi < len(list); hi++ {
		h := &list[hi].hit
		if h.Pack.Name != first.Pack.Name || int64(h.Offset) > end+readGapMax ||
			int64(h.Offset)+int64(h.StoredSize)-int64(first.Offset) > readSizeMax {
			break
		}
		end = max(end, int64(h.Offset)+int64(h.StoredSize))
	}
	return hi
}

// readRun fetches chunks that lie close together in one pack and opens them.
func (r *Repository) readRun(ctx context.Context, kind seal.ChunkKind, part []wanted, fn func(int, payload, error) error) error {
	first := &part[0].hit
	name := first.Pack.ObjectName()
	end := int64(0) // that of the last one, unless two indexes disagree about the pack
	for i := range part {
		end = max(end, int64(part[i].hit.Offset)+int64(part[i].hit.StoredSize))
	}
	size := int(end - int64(first.Offset))
	buf := format.AllocPayload(size)
	defer format.FreePayload(buf)
	op, err := r.opener(ctx, &first.Pack)
	if err == nil {
		err = r.store.ReadAt(ctx, name, buf, int64(first.Offset))
	}
	if err != nil {
		if errors.Is(err, store.ErrNotFound) {
			r.recovery.vanished(first.Pack.Name)
		}
		return r.runFailed(ctx, kind, name, part, err, fn)
	}
	r.stats.BytesRead.Add(int64(size))
	if kind == seal.ChunkData {
		r.stats.DataChunksRead.Add(int64(len(part)))
	} else {
		r.stats.MetaChunksRead.Add(int64(len(part)))
	}
	for i := range part {
		w := &part[i]
		if err := ctx.Err(); err != nil {
			return err
		}
		sealed := buf[w.hit.Offset-first.Offset:][:w.hit.StoredSize]
		entry := pack.Entry{Label: w.label, Codec: w.hit.Codec, RawSize: w.hit.RawSize, StoredSize: w.hit.StoredSize, Offset: w.hit.Offset}
		out := format.AllocPayload(len(sealed))
		opened, err := op.OpenChunk(out[:0], w.hit.Number, &entry, sealed)
		if err != nil {
			format.FreePayload(out)
			err = fmt.Errorf("read chunk %s from pack %s: %w", w.id, name, err)
		}
		if err := fn(w.number, payload{w.hit.Codec, w.hit.RawSize, opened}, err); err != nil {
			return err
		}
	}
	return nil
}

// runFailed reports an error that concerns all chunks of a fetch. Several are
// tried one by one: the damage may be where another of them lies.
func (r *Repository) runFailed(ctx context.Context, kind seal.ChunkKind, name string, part []wanted, err error, fn func(int, payload, error) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for i := range part {
		if len(part) > 1 {
			if err := r.readRun(ctx, kind, part[i:i+1], fn); err != nil {
				return err
			}
			continue
		}
		if err := fn(part[i].number, payload{}, fmt.Errorf("read chunk %s from pack %s: %w", part[i].id, name, err)); err != nil {
			return err
		}
	}
	return nil
}

// decode returns the plain bytes of a payload and checks that they are the chunk.
// It consumes the payload; the result is from format.AllocPayload.
func decode(id format.ID, p payload) ([]byte, error) {
	if p.codec == pack.CodecNone {
		return p.bytes, checkPlain(id, p.bytes)
	}
	d := format.Data{ID: id, Size: p.size, Codec: formatCodec(p.codec), Payload: p.bytes}
	plain, err := format.DecodePayload(nil, &d)
	format.FreePayload(p.bytes)
	return plain, err
}

// checkPlain compares plain bytes with the id they go by.
func checkPlain(id format.ID, plain []byte) error {
	if sum := format.SumID(plain); sum != id {
		return fmt.Errorf("its content has the id %s: %w", sum, seal.ErrDamaged)
	}
	return nil
}

func formatCodec(c pack.Codec) format.Codec {
	if c == pack.CodecZstd {
		return format.CodecZstd
	}
	return format.CodecNone
}

// ReadChunks fetches chunks of content and calls fn with the plain bytes of
// each, or with the error that kept it from being read, from several goroutines
// and in no order; number is the place in refs. plain is valid until fn returns.
// It is what a restore in the same process reads from (disk.ContentSource).
func (r *Repository) ReadChunks(ctx context.Context, refs []format.ChunkRef, fn func(number int, plain []byte, err error) error) error {
	ids := make([]format.ID, len(refs))
	for i := range refs {
		ids[i] = refs[i].ID
	}
	return r.readPayloads(ctx, seal.ChunkData, ids, func(number int, p payload, err error) error {
		var plain []byte
		if err == nil {
			if plain, err = decode(ids[number], p); err != nil {
				err = fmt.Errorf("chunk %s: %w", ids[number], err)
			} else if len(plain) != int(refs[number].Size) {
				err = fmt.Errorf("chunk %s has %d bytes, not the %d its file says: %w", ids[number], len(plain), refs[number].Size, seal.ErrDamaged)
			}
		}
		if err != nil {
			return fn(number, nil, err)
		}
		err = fn(number, plain, nil)
		format.FreePayload(plain)
		return err
	})
}
