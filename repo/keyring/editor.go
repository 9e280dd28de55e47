package keyring

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// Editor changes the credentials and keys of a client. It must not be used
// concurrently; several processes may have one each.
type Editor struct {
	Keyring *Keyring // as it is after the last change
	Store   store.Store
	Rand    io.Reader        // must be unpredictable; nil: crypto/rand
	Now     func() time.Time // nil: time.Now
}

func (e *Editor) rand() io.Reader {
	if e.Rand == nil {
		return rand.Reader
	}
	return e.Rand
}

func (e *Editor) now() time.Time {
	if e.Now == nil {
		return time.Now()
	}
	return e.Now()
}

// AddCredential makes one more way to open the client's keys. It is durable
// when the call returns.
func (e *Editor) AddCredential(ctx context.Context, name string, kind Kind) (CredentialID, error) {
	k := e.Keyring
	if err := k.CheckWrite(); err != nil {
		return CredentialID{}, err
	}
	c := Credential{Client: k.Client(), Name: name, Created: e.now()}
	if _, err := io.ReadFull(e.rand(), c.ID[:]); err != nil {
		return CredentialID{}, fmt.Errorf("draw the name of a credential: %w", err)
	}
	object, err := sealCredential(ctx, &c, kind, k.config, k.clientKey, e.rand())
	if err != nil {
		return CredentialID{}, fmt.Errorf("make a credential: %w", err)
	}
	return c.ID, e.Store.Create(ctx, c.ID.objectName(), object)
}

// RemoveCredential deletes one of the client's credentials. It fails with
// ErrLastCredential if no other intact one would be left, and with ErrInUse for
// the one that the keyring was opened with: of that alone it is certain that it
// opens. But two processes that remove each other's at the same moment are not
// kept from it. What somebody copied from storage before still opens.
func (e *Editor) RemoveCredential(ctx context.Context, id CredentialID) error {
	k := e.Keyring
	if err := k.CheckWrite(); err != nil {
		return err
	}
	list, err := readCredentials(ctx, e.Store, k.Repository())
	if err != nil {
		return err
	}
	found, others := false, 0
	for _, c := range list {
		switch {
		case c.Client != k.Client():
		case c.ID == id:
			found = true
		case c.Err == nil:
			others++
		}
	}
	if !found {
		return fmt.Errorf("remove %s: %w among this client's credentials", id.objectName(), store.ErrNotFound)
	}
	if others == 0 {
		return fmt.Errorf("remove %s: %w", id.objectName(), ErrLastCredential)
	}
	if id == k.used {
		return fmt.Errorf("remove %s: %w", id.objectName(), ErrInUse)
	}
	return e.Store.Delete(ctx, id.objectName())
}

// ChangePassphrase replaces the credential that the keyring was opened with,
// which must be a passphrase, by one for kind, of the same name. The new one is
// durable before the old one is deleted; if deleting fails, both open.
func (e *Editor) ChangePassphrase(ctx context.Context, kind Kind) (CredentialID, error) {
	old, err := e.used(ctx)
	if err != nil {
		return CredentialID{}, err
	}
	if e.Keyring.usedKind != kindPassphrase {
		return CredentialID{}, fmt.Errorf("the repository was opened with a credential of kind %s, and only a passphrase can be changed", e.Keyring.usedKind)
	}
	id, err := e.AddCredential(ctx, old.Name, kind)
	if err != nil {
		return id, err
	}
	k := *e.Keyring
	k.used, k.usedKind = id, kind.Name()
	e.Keyring = &k
	err = e.Store.Delete(ctx, old.ID.objectName())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return id, fmt.Errorf("the new passphrase is set, and the old one still opens, too: %w", err)
	}
	return id, nil
}

// used returns the credential that the keyring was opened with. It may be gone.
func (e *Editor) used(ctx context.Context) (*Credential, error) {
	list, err := e.Keyring.ListCredentials(ctx, e.Store)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Used {
			return &list[i], nil
		}
	}
	return &Credential{ID: e.Keyring.used}, nil
}

// Update changes settings and adds keys: change is given a copy of the client's
// groups and returns what they become. Keys that are there already stay, or what
// was sealed under them could not be opened again: groups and epochs may be
// added, not taken away or changed, and label, split and chunker keys are for ever. The
// next generation of the client chunk is durable when the call returns; it fails
// with ErrConflict if another process made it, and then the keyring has to be
// opened again.
func (e *Editor) Update(ctx context.Context, change func(groups []*Group) ([]*Group, error)) error {
	return e.update(ctx, e.Keyring.clientKey, change)
}

// update is Update, with a client key that may be another one.
func (e *Editor) update(ctx context.Context, clientKey *seal.Key, change func(groups []*Group) ([]*Group, error)) error {
	old := e.Keyring
	if err := old.CheckWrite(); err != nil {
		return err
	}
	copies := make([]*Group, len(old.chunk.groups))
	for i, g := range old.chunk.groups {
		copies[i] = g.clone()
	}
	groups, err := change(copies)
	if err != nil {
		return err
	}
	if err := checkGroups(groups); err != nil {
		return err
	}
	k, chunk := *old, *old.chunk
	chunk.groups = groups
	chunk.generation++
	k.chunk, k.clientKey = &chunk, clientKey
	for _, g := range old.chunk.groups {
		if err := keeps(k.Group(g.ID), g); err != nil {
			return err
		}
	}
	name, err := k.createClient(ctx, e.Store, e.rand())
	if errors.Is(err, store.ErrExists) {
		return fmt.Errorf("%w: %s", ErrConflict, name)
	}
	if err != nil {
		return err
	}
	e.Keyring = &k
	return nil
}

// keeps says which key of old is not in g, which may be nil.
func keeps(g, old *Group) error {
	if g == nil || g.Label != old.Label || g.Split != old.Split || g.ChunkerKeys != old.ChunkerKeys {
		return fmt.Errorf("group %s would lose its keys", old.ID)
	}
	for i := range old.Epochs {
		e := &old.Epochs[i]
		if key := g.EpochKey(e.Number); key == nil || *key != e.Key {
			return fmt.Errorf("group %s would lose the key of epoch %d", old.ID, e.Number)
		}
	}
	return nil
}

// ListCredentials returns the credentials of all clients, by name of the object.
func (k *Keyring) ListCredentials(ctx context.Context, st store.Reader) ([]Credential, error) {
	list, err := readCredentials(ctx, st, k.Repository())
	if err != nil {
		return nil, err
	}
	var all []Credential
	for _, c := range list {
		c.Used = c.ID == k.used
		all = append(all, c.Credential)
	}
	return all, nil
}

// ClientInfo is what anybody can see of a client.
type ClientInfo struct {
	ID         seal.ClientID
	Generation uint64 // the one that counts
	Own        bool   // it is the client whose keyring this is
}

// Clients returns the clients that have keys in the repository, by id.
func (k *Keyring) Clients(ctx context.Context, st store.Reader) ([]ClientInfo, error) {
	var all []ClientInfo
	err := st.List(ctx, seal.KindClient.Dir(), func(info store.Info) error {
		n, ok := seal.ParseName(info.Name)
		if !ok {
			return nil
		}
		if len(all) == 0 || all[len(all)-1].ID != n.Client { // names ascend
			all = append(all, ClientInfo{ID: n.Client, Own: n.Client == k.Client()})
		}
		last := &all[len(all)-1]
		last.Generation = max(last.Generation, n.Number)
		return nil
	})
	return all, err
}
