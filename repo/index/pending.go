package index

import (
	"context"
	"sync"

	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
)

const shards = 64

// pending holds what this session stores and no index lists yet: claims, for
// chunks that are on their way into a pack, then places.
type pending struct {
	shard [shards]struct {
		mu     sync.Mutex
		labels map[seal.Label]place
	}

	// moving is held while labels get places in packs, or lose them to the runs.
	moving sync.Mutex

	mu    sync.Mutex
	packs []packed
	count int
}

// place is where a pending chunk lies; pack -1 while it is only claimed.
type place struct {
	pack, number int32
}

type packed struct {
	info    pack.Info
	entries []pack.Entry
}

func (p *pending) init() {
	for i := range p.shard {
		p.shard[i].labels = make(map[seal.Label]place)
	}
}

func (p *pending) find(label seal.Label) (Hit, bool) {
	s := &p.shard[label[0]%shards]
	s.mu.Lock()
	pl, ok := s.labels[label]
	s.mu.Unlock()
	if !ok || pl.pack < 0 {
		return Hit{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(pl.pack) >= len(p.packs) {
		return Hit{}, false // flushed meanwhile: the runs have it
	}
	pk := &p.packs[pl.pack]
	if int(pl.number) >= len(pk.entries) || pk.entries[pl.number].Label != label {
		return Hit{}, false
	}
	e := pk.entries[pl.number]
	return Hit{pk.info, Location{Number: uint32(pl.number), Offset: e.Offset, StoredSize: e.StoredSize, RawSize: e.RawSize, Codec: e.Codec}}, true
}

func (p *pending) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// Claim reports whether the caller is to store the chunk: true for exactly one
// of several callers, and false if it is stored already. A caller that fails to
// store it gives the claim back with Unclaim.
func (c *Cache) Claim(label seal.Label) (bool, error) {
	s := &c.pending.shard[label[0]%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if pl, ok := s.labels[label]; ok && !c.pending.anyOf(pl, c.isAbsent) {
		return false, nil
	}
	_, found, err := c.findStored(label, 0)
	if err != nil || found {
		return false, err
	}
	s.labels[label] = place{pack: -1}
	return true, nil
}

// anyOf reports whether the pack of a place is one that is asked for.
func (p *pending) anyOf(pl place, is func(name [32]byte) bool) bool {
	if pl.pack < 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(pl.pack) < len(p.packs) && is(p.packs[pl.pack].info.Name)
}

// Unclaim gives a claim back.
func (c *Cache) Unclaim(label seal.Label) {
	s := &c.pending.shard[label[0]%shards]
	s.mu.Lock()
	if pl, ok := s.labels[label]; ok && pl.pack < 0 {
		delete(s.labels, label)
	}
	s.mu.Unlock()
}

// DropClaims gives back every claim that did not become a stored chunk: what
// failed may be stored again. No other session may be writing.
func (c *Cache) DropClaims() {
	for i := range c.pending.shard {
		s := &c.pending.shard[i]
		s.mu.Lock()
		for label, pl := range s.labels {
			if pl.pack < 0 {
				delete(s.labels, label)
			}
		}
		s.mu.Unlock()
	}
}

// lookFlags say what findStored looks for besides.
type lookFlags int

const (
	lookAbsent lookFlags = 1 << iota // also places in packs that are absent
	lookPack                         // the pack of the place; without it a Hit may have none
)

// findStored looks only at what index objects list.
func (c *Cache) findStored(label seal.Label, look lookFlags) (hit Hit, found bool, err error) {
	err = c.healed(func() error {
		hit, found, err = c.findInRuns(label, look)
		return err
	})
	return hit, found, err
}

func (c *Cache) findInRuns(label seal.Label, look lookFlags) (hit Hit, found bool, err error) {
	anyAbsent := look&lookAbsent == 0 && c.anyAbsent()
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, r := range c.runs {
		if look&lookPack == 0 && !anyAbsent {
			err = r.Find(label, func(loc Location) bool {
				hit.Location, found = loc, true
				return false
			})
		} else {
			err = r.findHits(label, func(h Hit) bool {
				if anyAbsent && c.isAbsent(h.Pack.Name) {
					return true
				}
				hit, found = h, true
				return false
			})
		}
		if err != nil {
			return hit, false, &badRun{r, err}
		}
		if found {
			return hit, true, nil
		}
	}
	return hit, false, nil
}

// Places returns every place where the chunk lies, each once, those in packs
// that SetAbsent named last. Find says where to read it first.
func (c *Cache) Places(label seal.Label) (places []Hit, err error) {
	err = c.healed(func() error {
		places, err = c.placesInRuns(label)
		return err
	})
	return places, err
}

func (c *Cache) placesInRuns(label seal.Label) ([]Hit, error) {
	type place struct {
		pack   [32]byte
		offset uint32
	}
	var live, absent []Hit
	seen := make(map[place]bool)
	add := func(hit Hit) {
		at := place{hit.Pack.Name, hit.Offset}
		switch {
		case seen[at]:
			return
		case c.isAbsent(hit.Pack.Name):
			absent = append(absent, hit)
		default:
			live = append(live, hit)
		}
		seen[at] = true
	}
	if hit, ok := c.pending.find(label); ok {
		add(hit)
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, r := range c.runs {
		err := r.findHits(label, func(hit Hit) bool {
			add(hit)
			return true
		})
		if err != nil {
			return nil, &badRun{r, err}
		}
	}
	return append(live, absent...), nil
}

// Stored records that a pack is durable on storage. Its chunks can be found
// from now on.
func (c *Cache) Stored(info pack.Info, entries []pack.Entry) {
	p := &c.pending
	p.moving.Lock()
	defer p.moving.Unlock()
	p.mu.Lock()
	number := int32(len(p.packs))
	p.packs = append(p.packs, packed{info, entries})
	p.count += len(entries)
	p.mu.Unlock()
	for i, e := range entries {
		s := &p.shard[e.Label[0]%shards]
		s.mu.Lock()
		s.labels[e.Label] = place{number, int32(i)}
		s.mu.Unlock()
	}
}

// Pending returns the number of chunks that Stored named and no index lists.
func (c *Cache) Pending() int { return c.pending.len() }

// Flush hands the packs that no index lists to write, which encodes and stores
// an index object and returns its name, and turns them into a run. Chunks may be
// claimed, stored and looked for meanwhile; there is one Flush at a time.
func (c *Cache) Flush(write func(packs []pack.Listed) (name [32]byte, err error)) error {
	p := &c.pending
	p.mu.Lock()
	packs := p.packs
	p.mu.Unlock()
	if len(packs) == 0 {
		return nil
	}
	listed := make([]pack.Listed, len(packs))
	var b batch
	for i, pk := range packs {
		listed[i] = pack.Listed{Info: pk.info, Entries: pk.entries}
		b.addPack(pk.info, pk.entries)
	}
	name, err := write(listed)
	if err != nil {
		return err
	}
	b.names = [][32]byte{name}
	c.mu.Lock()
	err = c.addRun(&b)
	if err == nil {
		err = c.mergeSome(context.Background())
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.forget(packs)
	return nil
}

// forget takes flushed packs, which the runs now list, out of the pending
// table. Packs stored since then keep their places, renumbered.
func (c *Cache) forget(packs []packed) {
	p := &c.pending
	p.moving.Lock()
	defer p.moving.Unlock()
	for i := range p.shard {
		p.shard[i].mu.Lock()
	}
	p.mu.Lock()
	for _, pk := range packs {
		for _, e := range pk.entries {
			delete(p.shard[e.Label[0]%shards].labels, e.Label)
		}
		p.count -= len(pk.entries)
	}
	p.packs = append([]packed(nil), p.packs[len(packs):]...)
	for n, pk := range p.packs {
		for i, e := range pk.entries {
			p.shard[e.Label[0]%shards].labels[e.Label] = place{int32(n), int32(i)}
		}
	}
	p.mu.Unlock()
	for i := range p.shard {
		p.shard[i].mu.Unlock()
	}
}
