package restic

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
	"github.com/bk-backup/bk/repo/store"
)

const (
	packSizeAim   = 16 << 20 // restic's own
	packBlobsMax  = 50_000   // keeps a pack's header, and the index file that must have all of it, small
	indexBlobsMax = 50_000   // blobs from which an index file is written
	indexPacksMax = 16       // packs after which one is written: what a killed import need not store again
	uploadsMax    = 2        // packs on their way to storage at a time
	packPartSize  = 1 << 20  // what a pack grows by in memory
)

// writer adds packs, indexes and other files to a repository. Its methods may be
// called concurrently unless they say otherwise.
type writer struct {
	r     *Repository
	store store.Store
	opts  *SinkOptions

	packs   [kinds]packer
	uploads chan struct{} // has a place for each upload
	running sync.WaitGroup

	mu      sync.Mutex
	err     error // of an upload
	listed  []packListed
	blobs   int          // in listed
	places  *spill.Table // of chunks of this run: where log says where they lie
	log     *spill.Log
	trees   *spill.Table // of trees of this run: where they lie in treeLog
	treeLog *spill.Log
	names   []format.ID // of packs of this run
	written int64       // bytes of packs
}

// packer gathers blobs of one kind.
type packer struct {
	mu sync.Mutex
	packContent
}

// packContent is a pack as far as it is there.
type packContent struct {
	parts [][]byte // in buffers of format.AllocPayload, all full but the last one
	size  int      // bytes of the parts
	blobs []blob
}

func (p *packContent) append(b []byte) {
	p.size += len(b)
	for len(b) > 0 {
		last := len(p.parts) - 1
		if last < 0 || len(p.parts[last]) == cap(p.parts[last]) {
			p.parts = append(p.parts, format.AllocPayload(packPartSize)[:0])
			last++
		}
		part := p.parts[last]
		n := min(len(b), cap(part)-len(part))
		p.parts[last] = append(part, b[:n]...)
		b = b[n:]
	}
}

// readAt fills b with what was appended at that offset.
func (p *packContent) readAt(b []byte, offset int) {
	for _, part := range p.parts {
		skip := min(offset, len(part))
		b = b[copy(b, part[skip:]):]
		offset -= skip
	}
}

// id returns the name of the pack, which is complete.
func (p *packContent) id() (id format.ID) {
	h := sha256.New()
	for _, part := range p.parts {
		h.Write(part)
	}
	h.Sum(id[:0])
	return id
}

func (p *packContent) free() {
	for _, part := range p.parts {
		format.FreePayload(part)
	}
}

// packListed is a pack that no index lists yet.
type packListed struct {
	id    format.ID
	kind  kind
	blobs []blob
}

func newWriter(r *Repository, st store.Store, opts *SinkOptions) *writer {
	return &writer{
		r: r, store: st, opts: opts,
		uploads: make(chan struct{}, uploadsMax),
		places:  spill.NewTable(opts.TempDir), log: spill.NewLog(opts.TempDir),
		trees: spill.NewTable(opts.TempDir), treeLog: spill.NewLog(opts.TempDir),
	}
}

// saveJSON stores an unpacked file and returns its id.
func (w *writer) saveJSON(ctx context.Context, dir string, v any) (format.ID, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return format.ID{}, err
	}
	return w.saveFile(ctx, dir, plain)
}

func (w *writer) saveFile(ctx context.Context, dir string, plain []byte) (format.ID, error) {
	if w.r.config.Version >= 2 {
		codec, zipped, err := format.EncodePayload(nil, plain, format.LevelDefault)
		if err != nil {
			return format.ID{}, err
		}
		if codec == format.CodecZstd {
			plain = append([]byte{2}, zipped...)
			format.FreePayload(zipped)
		}
	}
	sealed, err := w.r.keys.seal(make([]byte, 0, len(plain)+sealOverhead), plain, w.opts.Rand)
	if err != nil {
		return format.ID{}, err
	}
	id := format.SumID(sealed)
	return id, w.store.Create(ctx, dir+id.String(), sealed)
}

// add puts a blob into a pack. plainSize is 0 if content is not compressed.
func (w *writer) add(ctx context.Context, k kind, id format.ID, content []byte, plainSize uint32) error {
	sealed, err := w.r.keys.seal(format.AllocPayload(len(content) + sealOverhead)[:0], content, w.opts.Rand)
	if err != nil {
		return err
	}
	defer format.FreePayload(sealed)
	if k == treeBlob {
		if err := w.logTree(id, sealed, plainSize); err != nil {
			return err
		}
	}
	p := &w.packs[k]
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.blobs) > 0 && (p.size+len(sealed) > packSizeAim || len(p.blobs) == packBlobsMax) {
		if err := w.finish(ctx, k, p); err != nil {
			return err
		}
	}
	p.blobs = append(p.blobs, blob{id: id, offset: uint32(p.size), stored: uint32(len(sealed)), plain: plainSize})
	p.append(sealed)
	return nil
}

// finish has a pack stored by another goroutine; p is locked.
func (w *writer) finish(ctx context.Context, k kind, p *packer) error {
	done := p.packContent
	p.packContent = packContent{}
	w.uploads <- struct{}{}
	w.running.Go(func() {
		err := w.upload(ctx, k, &done)
		if err != nil {
			w.mu.Lock()
			w.err = errors.Join(w.err, err)
			w.mu.Unlock()
		}
		<-w.uploads
	})
	return w.failed()
}

func (w *writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// upload completes and stores a pack.
func (w *writer) upload(ctx context.Context, k kind, p *packContent) error {
	defer p.free()
	header := make([]byte, 0, len(p.blobs)*packEntrySizeZip)
	for i := range p.blobs {
		b := &p.blobs[i]
		what := byte(k)
		if b.plain != 0 {
			what |= 2
		}
		header = binary.LittleEndian.AppendUint32(append(header, what), b.stored)
		if b.plain != 0 {
			header = binary.LittleEndian.AppendUint32(header, b.plain)
		}
		header = append(header, b.id[:]...)
	}
	sealed, err := w.r.keys.seal(make([]byte, 0, len(header)+sealOverhead+4), header, w.opts.Rand)
	if err != nil {
		return err
	}
	p.append(binary.LittleEndian.AppendUint32(sealed, uint32(len(sealed))))
	id := p.id()
	if err := w.store.Create(ctx, packName(id), p.parts...); err != nil {
		return fmt.Errorf("store a pack in %s: %w", w.r, err)
	}
	return w.stored(ctx, packListed{id, k, p.blobs}, int64(p.size))
}

// stored notes where the blobs of a pack lie.
func (w *writer) stored(ctx context.Context, p packListed, size int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written += size
	if p.kind == dataBlob {
		number := uint32(len(w.names))
		w.names = append(w.names, p.id)
		for i := range p.blobs {
			p.blobs[i].pack = number
			if err := w.notePlace(&p.blobs[i]); err != nil {
				return err
			}
		}
	}
	w.listed = append(w.listed, p)
	w.blobs += len(p.blobs)
	if w.blobs < indexBlobsMax && len(w.listed) < indexPacksMax {
		return nil
	}
	return w.writeIndex(ctx)
}

// flush stores what is not stored yet, and lists it: only then may anything refer
// to it. Nothing may be added meanwhile.
func (w *writer) flush(ctx context.Context) error {
	if err := w.flushPacks(ctx); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writeIndex(ctx)
}

func (w *writer) flushPacks(ctx context.Context) error {
	for k := range kinds {
		p := &w.packs[k]
		p.mu.Lock()
		var err error
		if len(p.blobs) > 0 {
			err = w.finish(ctx, k, p)
		}
		p.mu.Unlock()
		if err != nil {
			return err
		}
	}
	w.running.Wait()
	return w.failed()
}

// indexPack and indexBlob are an index as restic has it in JSON.
type indexPack struct {
	ID    string      `json:"id"`
	Blobs []indexBlob `json:"blobs"`
}

type indexBlob struct {
	ID     string `json:"id"`
	Type   string `json:"type"`
	Offset uint32 `json:"offset"`
	Length uint32 `json:"length"`
	Plain  uint32 `json:"uncompressed_length,omitempty"`
}

// writeIndex lists the packs that are not listed; w.mu is locked.
func (w *writer) writeIndex(ctx context.Context) error {
	if len(w.listed) == 0 {
		return nil
	}
	var file struct {
		Packs []indexPack `json:"packs"`
	}
	for _, p := range w.listed {
		list := make([]indexBlob, len(p.blobs))
		for i, b := range p.blobs {
			list[i] = indexBlob{b.id.String(), p.kind.String(), b.offset, b.stored, b.plain}
		}
		file.Packs = append(file.Packs, indexPack{p.id.String(), list})
	}
	if _, err := w.saveJSON(ctx, "index/", file); err != nil {
		return fmt.Errorf("store an index in %s: %w", w.r, err)
	}
	w.listed, w.blobs = nil, 0
	return nil
}

// close waits for what is on its way and gives temporary files back.
func (w *writer) close() error {
	w.running.Wait()
	return errors.Join(w.places.Close(), w.log.Close(), w.trees.Close(), w.treeLog.Close())
}
