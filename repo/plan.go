package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// plan is a plan of garbage collection, or what is left of those that were
// carried out (spec/repository.md, section 9).
type plan struct {
	number    uint64
	created   time.Time // by storage's clock
	packs     [][32]byte
	snapshots map[format.ID]bool
	gone      []goneGroup
}

// goneGroup are packs that were deleted at a time.
type goneGroup struct {
	second int64 // since 1970, by storage's clock
	packs  [][32]byte
}

// planBody is the content of a plan object. Names and ids stand one after
// another in one bin each.
type planBody struct {
	Client    []byte     `msgpack:"client"`
	Created   []int64    `msgpack:"created"`
	Gone      []goneBody `msgpack:"gone,omitempty"`
	Number    uint64     `msgpack:"number"`
	Packs     []byte     `msgpack:"packs,omitempty"`
	Snapshots []byte     `msgpack:"snapshots,omitempty"`
}

type goneBody struct {
	//lint:ignore U1000 msgpack reads it by reflection
	_msgpack struct{} `msgpack:",as_array"`
	Second   int64
	Packs    []byte
}

func planName(number uint64) string { return seal.Name{Kind: seal.KindPlan, Number: number}.String() }

// active reports whether the plan still waits to be carried out.
func (p *plan) active() bool { return len(p.packs) > 0 }

// joined returns 32-byte values one after another.
func joined[T ~[32]byte](list []T) []byte {
	b := make([]byte, 0, 32*len(list))
	for _, v := range list {
		b = append(b, v[:]...)
	}
	return b
}

// split is the reverse of joined.
func split[T ~[32]byte](b []byte) ([]T, error) {
	if len(b)%32 != 0 {
		return nil, fmt.Errorf("%w: %d bytes are no list of names", seal.ErrDamaged, len(b))
	}
	list := make([]T, len(b)/32)
	for i := range list {
		list[i] = T(b[32*i:])
	}
	return list, nil
}

// createPlan stores a plan under its number; it fails with store.ErrExists if
// another has that number.
func (r *Repository) createPlan(ctx context.Context, p *plan) error {
	client, now := r.keys.Client(), r.opts.Now()
	body := planBody{Client: client[:], Created: []int64{now.Unix(), int64(now.Nanosecond())}, Number: p.number, Packs: joined(p.packs)}
	ids := make([]format.ID, 0, len(p.snapshots))
	for id := range p.snapshots {
		ids = append(ids, id)
	}
	sortIDs(ids)
	body.Snapshots = joined(ids)
	for _, g := range p.gone {
		body.Gone = append(body.Gone, goneBody{Second: g.second, Packs: joined(g.packs)})
	}
	return r.createObject(ctx, planName(p.number), seal.KindPlan, mp.Encode(&body))
}

func (r *Repository) loadPlan(ctx context.Context, number uint64, created time.Time) (*plan, error) {
	name := planName(number)
	plain, err := r.getObject(ctx, name, seal.KindPlan)
	if err != nil {
		return nil, err
	}
	var b planBody
	if err := mp.Decode(plain, &b); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p := &plan{number: number, created: created, snapshots: make(map[format.ID]bool)}
	if b.Number != number {
		return nil, fmt.Errorf("%s: it says that it is plan %d: %w", name, b.Number, seal.ErrDamaged)
	}
	if p.packs, err = split[[32]byte](b.Packs); err != nil {
		return nil, fmt.Errorf("%s: packs: %w", name, err)
	}
	ids, err := split[format.ID](b.Snapshots)
	if err != nil {
		return nil, fmt.Errorf("%s: snapshots: %w", name, err)
	}
	for _, id := range ids {
		p.snapshots[id] = true
	}
	for _, g := range b.Gone {
		packs, err := split[[32]byte](g.Packs)
		if err != nil {
			return nil, fmt.Errorf("%s: gone: %w", name, err)
		}
		p.gone = append(p.gone, goneGroup{g.Second, packs})
	}
	return p, nil
}

// plansSeen is what this process knows of garbage collection: the packs that
// count as absent for whoever stores chunks.
type plansSeen struct {
	mu      sync.Mutex
	absent  map[[32]byte]bool // replaced, never changed
	version int               // counts the plans that made more packs absent
	loaded  map[uint64]*plan  // as they are on storage, ascending numbers
}

func (p *plansSeen) isAbsent(name [32]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.absent[name]
}

// treatAbsent adds packs whose chunks count as missing from now on.
func (r *Repository) treatAbsent(packs [][32]byte) (added bool) {
	p := &r.plans
	p.mu.Lock()
	defer p.mu.Unlock()
	added = slices.ContainsFunc(packs, func(name [32]byte) bool { return !p.absent[name] })
	if !added {
		return false
	}
	all := make(map[[32]byte]bool, len(p.absent)+len(packs))
	for name := range p.absent {
		all[name] = true
	}
	for _, name := range packs {
		all[name] = true
	}
	p.absent = all
	r.index.SetAbsent(all)
	return true
}

// readPlans reads the plans on storage, oldest first, and makes the packs absent
// that they name. version changes whenever that made more packs absent.
func (r *Repository) readPlans(ctx context.Context) (plans []*plan, version int, err error) {
	for tries := 0; ; tries++ {
		plans, err = r.listPlans(ctx)
		if !errors.Is(err, store.ErrNotFound) || tries == 8 {
			break // otherwise one was replaced by a later one meanwhile
		}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read the plans of garbage collection: %w", err)
	}
	var absent [][32]byte
	for _, p := range plans {
		absent = append(absent, p.packs...)
		for _, g := range p.gone {
			absent = append(absent, g.packs...)
		}
	}
	added := r.treatAbsent(absent)
	r.plans.mu.Lock()
	defer r.plans.mu.Unlock()
	if added {
		r.plans.version++
	}
	r.plans.loaded = make(map[uint64]*plan, len(plans))
	for _, p := range plans {
		r.plans.loaded[p.number] = p
	}
	return plans, r.plans.version, nil
}

func (r *Repository) listPlans(ctx context.Context) ([]*plan, error) {
	r.plans.mu.Lock()
	loaded := r.plans.loaded
	r.plans.mu.Unlock()
	var plans []*plan
	err := r.store.List(ctx, seal.KindPlan.Dir(), func(info store.Info) error {
		name, ok := seal.ParseName(info.Name)
		if !ok {
			return nil
		}
		p := loaded[name.Number]
		if p == nil || !p.created.Equal(info.Created) {
			var err error
			if p, err = r.loadPlan(ctx, name.Number, info.Created); errors.Is(err, errOtherGroup) {
				p = &plan{number: name.Number, created: info.Created}
			} else if err != nil {
				return err
			}
		}
		plans = append(plans, p)
		return nil
	})
	slices.SortFunc(plans, func(a, b *plan) int { return int(int64(a.number) - int64(b.number)) })
	return plans, err
}
