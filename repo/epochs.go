package repo

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// latestKeys are the client's keys as they were read last: another process may
// begin an epoch at any time (spec/repository.md, 11.1).
type latestKeys struct {
	keys atomic.Pointer[keyring.Keyring]
	mu   sync.Mutex // held by whoever reads them
}

// group returns the own group with all epochs that are known.
func (l *latestKeys) group() *keyring.Group { return l.keys.Load().Own() }

// reloadKeys reads the client's keys if there are newer ones. It fails with
// keyring.ErrRevoked if there is another client key.
func (r *Repository) reloadKeys(ctx context.Context) error {
	l := &r.latest
	l.mu.Lock()
	defer l.mu.Unlock()
	k, err := l.keys.Load().Reload(ctx, r.store)
	if err != nil {
		return fmt.Errorf("read the keys again: %w", err)
	}
	l.keys.Store(k)
	return nil
}

// epochKey returns the key of an epoch of the own group. One that is not known
// may have begun since the keys were read.
func (r *Repository) epochKey(ctx context.Context, number uint32) (*seal.Key, error) {
	if secret := r.latest.group().EpochKey(number); secret != nil {
		return secret, nil
	}
	if err := r.reloadKeys(ctx); err != nil {
		return nil, fmt.Errorf("sealed under epoch %d, which is new: %w", number, err)
	}
	if secret := r.latest.group().EpochKey(number); secret != nil {
		return secret, nil
	}
	return nil, fmt.Errorf("sealed under epoch %d of group %s, whose key this client does not have", number, r.own.ID)
}

// createVoid takes a snapshot slot so that nobody else can. A void is sealed
// under the group's label key, which has no epochs: it must keep its name, so it
// could not be sealed again.
func (r *Repository) createVoid(ctx context.Context, slot string) error {
	h, _ := r.header(seal.KindSnapshot)
	h.Epoch = 0
	stored, err := seal.SealObject(&r.own.Label, h, voidBody, r.opts.Rand)
	if err != nil {
		return fmt.Errorf("seal %s: %w", slot, err)
	}
	return r.store.Create(ctx, slot, stored)
}

// objectNames lists the client's snapshots or forget objects so that none is
// missed which is sealed again meanwhile: that makes another name for it and
// then removes the first, and a listing that has begun need not show either.
type objectNames struct {
	r      *Repository
	prefix string
	seen   map[string]bool
	passes int
	again  bool
}

// passesMax bounds the listings, should names come and go for ever.
const passesMax = 8

// more reports whether it takes another listing to be sure of all names.
func (n *objectNames) more() bool { return n.passes == 0 || n.again && n.passes < passesMax }

// vanished says that an object was not there any more.
func (n *objectNames) vanished() { n.again = true }

// next returns the names that came since the listing before.
func (n *objectNames) next(ctx context.Context) ([]store.Info, error) {
	if n.seen == nil {
		n.seen = make(map[string]bool)
	}
	epoch, _ := n.r.latest.group().CurrentEpoch()
	n.again = n.passes == 0 && epoch > 1
	n.passes++
	var fresh []store.Info
	err := n.r.store.List(ctx, n.prefix, func(info store.Info) error {
		name, ok := seal.ParseName(info.Name)
		if ok && name.Client == n.r.keys.Client() && !n.seen[info.Name] {
			n.seen[info.Name] = true
			fresh = append(fresh, info)
		}
		return nil
	})
	return fresh, err
}
