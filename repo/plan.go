package repo

import "sync"

// plansSeen is what this process knows of garbage collection: the packs that
// count as absent for whoever stores chunks.
type plansSeen struct {
	mu     sync.Mutex
	absent map[[32]byte]bool // replaced, never changed
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
	all := make(map[[32]byte]bool, len(p.absent)+len(packs))
	for name := range p.absent {
		all[name] = true
	}
	for _, name := range packs {
		added = added || !all[name]
		all[name] = true
	}
	if added {
		p.absent = all
		r.index.SetAbsent(all)
	}
	return added
}
