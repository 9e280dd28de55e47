package repo

import (
	"context"
	"fmt"
	"sync"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
)

const (
	chunkOverhead = 64 // at least what a chunk takes in a pack beside its payload
	openPacksMax  = 2  // packs of one kind that are filled at once, at most
	uploadsMax    = 2  // full packs of one kind on their way to storage at once
)

// packer fills packs of one kind and sends them to storage. It is safe for
// concurrent use: each of several open packs is filled by one goroutine at a
// time, the first ones first, so that little data makes few packs.
type packer struct {
	r       *Repository
	kind    seal.ChunkKind
	stored  func(ids []format.ID) // called when chunks are durable; may be nil
	ctx     context.Context
	slots   []openPack
	sizeAim int // bytes that a pack has at most, but for one with a single larger chunk
	rawMax  int // plain bytes after which a pack is sent, however small; 0: any number
	uploads chan struct{}
	wg      sync.WaitGroup

	mu    sync.Mutex
	err   error
	bytes int64 // of packs stored
	packs int
}

type openPack struct {
	mu  sync.Mutex
	w   *pack.Writer
	ids []format.ID
	raw int // plain bytes
}

func newPacker(ctx context.Context, r *Repository, kind seal.ChunkKind, stored func([]format.ID)) *packer {
	p := &packer{r: r, kind: kind, ctx: ctx, stored: stored, uploads: make(chan struct{}, uploadsMax)}
	if kind == seal.ChunkMeta { // little data: one pack is enough
		p.slots, p.uploads, p.sizeAim = make([]openPack, 1), make(chan struct{}, 1), pack.MetaSizeAim
		p.rawMax = 8 * pack.MetaSizeAim // they are kept in memory until they are stored
	} else {
		p.slots, p.sizeAim = make([]openPack, min(r.workers(), openPacksMax)), pack.DataSizeAim
	}
	return p
}

// add seals a payload into a pack. The payload is not kept.
func (p *packer) add(id format.ID, label seal.Label, codec pack.Codec, rawSize uint32, payload []byte) error {
	if err := p.failed(); err != nil {
		return err
	}
	slot := p.lockSlot()
	defer slot.mu.Unlock()
	if slot.w != nil && slot.w.Len()+len(payload)+chunkOverhead > p.sizeAim {
		if err := p.send(slot); err != nil {
			return err
		}
	}
	if slot.w == nil {
		h, secret := p.r.header(p.kind.PackKind())
		w, err := pack.NewWriter(secret, h, p.r.keys.Client(), p.r.opts.Rand)
		if err != nil {
			return fmt.Errorf("begin a pack: %w", err)
		}
		slot.w, slot.ids, slot.raw = w, nil, 0
	}
	if err := slot.w.Add(label, codec, rawSize, payload); err != nil {
		return fmt.Errorf("add chunk %s to a pack: %w", id, err)
	}
	if p.stored != nil {
		slot.ids = append(slot.ids, id)
	}
	if slot.raw += int(rawSize); p.rawMax > 0 && slot.raw > p.rawMax {
		return p.send(slot)
	}
	return nil
}

// lockSlot returns the first open pack that nobody is filling.
func (p *packer) lockSlot() *openPack {
	for i := range p.slots {
		if p.slots[i].mu.TryLock() {
			return &p.slots[i]
		}
	}
	p.slots[0].mu.Lock()
	return &p.slots[0]
}

// send finishes a pack and stores it in the background. The slot is locked.
func (p *packer) send(slot *openPack) error {
	object, info, entries, err := slot.w.Finish()
	if err != nil {
		return fmt.Errorf("finish a pack: %w", err)
	}
	ids, w := slot.ids, slot.w
	slot.w, slot.ids = nil, nil
	select {
	case p.uploads <- struct{}{}:
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		defer func() { <-p.uploads }()
		if err := p.r.store.Create(p.ctx, info.ObjectName(), object...); err != nil {
			p.fail(fmt.Errorf("store a pack: %w", err))
			return
		}
		w.Release()
		p.r.index.Stored(info, entries)
		if p.stored != nil {
			p.stored(ids)
		}
		p.mu.Lock()
		p.bytes += info.Size
		p.packs++
		p.mu.Unlock()
	}()
	return nil
}

// flush stores what is open and waits until all is durable.
func (p *packer) flush() error {
	for i := range p.slots {
		slot := &p.slots[i]
		slot.mu.Lock()
		var err error
		if slot.w != nil {
			err = p.send(slot)
		}
		slot.mu.Unlock()
		if err != nil {
			p.fail(err)
		}
	}
	p.wg.Wait()
	return p.failed()
}

func (p *packer) fail(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
	}
	p.mu.Unlock()
}

func (p *packer) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// written returns how many packs were stored and their bytes.
func (p *packer) written() (packs int, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.packs, p.bytes
}
