package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// AddEpoch gives a group a new epoch, under which everything is sealed from then
// on, and returns its number. Its label and split keys stay: chunks are found
// and files are cut as before (spec/repository.md, 11). Every credential opens
// as before; [Editor.Revoke] is for keys that somebody else may have.
func (e *Editor) AddEpoch(ctx context.Context, group seal.GroupID) (uint32, error) {
	number := uint32(0)
	err := e.Update(ctx, func(groups []*Group) ([]*Group, error) {
		for _, g := range groups {
			if g.ID == group {
				epoch, err := e.nextEpoch(g)
				if err != nil {
					return nil, err
				}
				g.Epochs = append(g.Epochs, epoch)
				number = epoch.Number
				return groups, nil
			}
		}
		return nil, fmt.Errorf("this client is not in group %s", group)
	})
	return number, err
}

// nextEpoch draws the key of the epoch behind a group's last.
func (e *Editor) nextEpoch(g *Group) (epoch Epoch, err error) {
	n, _ := g.CurrentEpoch()
	if n == math.MaxUint32 {
		return epoch, fmt.Errorf("group %s has had all the epochs that there can be", g.ID)
	}
	epoch.Number = n + 1
	if _, err := io.ReadFull(e.rand(), epoch.Key[:]); err != nil {
		return epoch, fmt.Errorf("draw the key of an epoch: %w", err)
	}
	return epoch, nil
}

// Revoke gives the client a new client key, which kind alone opens, and a new
// epoch to each of its groups. The other credentials of the client open nothing
// that is written from then on, and are deleted; so does whoever has the old
// client key. What was sealed before stays readable to them until it is sealed
// again (repo.CollectOptions.Reseal), and what they copied stays so for ever.
// The signing key stays: the client's snapshots are verified by it.
//
// The new credential is durable before the client chunk that it opens, and that
// before the first of the others is deleted: whatever interrupts it, the old
// credentials open or the new one does. It fails with ErrConflict as Update does.
func (e *Editor) Revoke(ctx context.Context, name string, kind Kind) (CredentialID, error) {
	old := e.Keyring
	clientKey := new(seal.Key)
	if _, err := io.ReadFull(e.rand(), clientKey[:]); err != nil {
		return CredentialID{}, fmt.Errorf("draw a client key: %w", err)
	}
	next := *old
	next.clientKey = clientKey
	id, err := (&Editor{Keyring: &next, Store: e.Store, Rand: e.Rand, Now: e.Now}).AddCredential(ctx, name, kind)
	if err != nil {
		return id, err
	}
	err = e.update(ctx, clientKey, func(groups []*Group) ([]*Group, error) {
		for _, g := range groups {
			epoch, err := e.nextEpoch(g)
			if err != nil {
				return nil, err
			}
			g.Epochs = append(g.Epochs, epoch)
		}
		return groups, nil
	})
	if errors.Is(err, ErrConflict) { // otherwise the client chunk may be there
		err = errors.Join(err, e.Store.Delete(ctx, id.objectName()))
	}
	if err != nil {
		return id, err
	}
	k := *e.Keyring
	k.used, k.usedKind = id, kind.Name()
	e.Keyring = &k
	if err := e.removeOthers(ctx, id); err != nil {
		return id, fmt.Errorf("the keys are replaced; removing the credentials that open nothing any more failed: %w", err)
	}
	return id, nil
}

// removeOthers deletes the client's credentials but one.
func (e *Editor) removeOthers(ctx context.Context, keep CredentialID) error {
	list, err := readCredentials(ctx, e.Store, e.Keyring.Repository())
	if err != nil {
		return err
	}
	for _, c := range list {
		if c.Client != e.Keyring.Client() || c.ID == keep {
			continue
		}
		if err := e.Store.Delete(ctx, c.ID.objectName()); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}
