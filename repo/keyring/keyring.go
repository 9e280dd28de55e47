package keyring

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// Keyring is an open repository's keys, as one client has them. It does not
// change and may be used concurrently: what changes the keys returns another.
type Keyring struct {
	config    *config
	chunk     *clientChunk
	clientKey *seal.Key
	used      CredentialID // that it was opened with
	usedKind  string
}

// InitOptions is what a new repository is like.
type InitOptions struct {
	Suite      seal.Suite // 0: AES-256-GCM
	Passphrase string     // of the first credential
	Argon2     Argon2     // what it costs; zero: the usual
	// Kind, if set, is the first credential in place of Passphrase.
	Kind           Kind
	CredentialName string
	ClientName     string
	GroupName      string
	// Chunker, Compression and Rules are settings of the client's own group.
	Chunker     string
	ChunkerKeys ChunkerKeys
	Compression string
	Rules       []Rule
	Rand        io.Reader        // must be unpredictable; nil: crypto/rand
	Now         func() time.Time // nil: time.Now
}

// Init makes a repository with one client, one group and one credential. It
// fails with ErrExists if st holds a repository. The config, which makes a
// repository of what lies there, is written last: an Init that is interrupted
// leaves nothing that a later one minds.
func Init(ctx context.Context, st store.Store, o InitOptions) (*Keyring, error) {
	if o.Suite == 0 {
		o.Suite = seal.SuiteAES256GCM
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Kind == nil {
		o.Kind = Passphrase(o.Passphrase, o.Argon2)
	}
	_, found, err := lastNumber(ctx, st, seal.KindConfig.Dir())
	if err != nil {
		return nil, err
	}
	if found {
		return nil, ErrExists
	}
	k, err := newKeyring(&o)
	if err != nil {
		return nil, err
	}
	if err := k.createAll(ctx, st, &o); err != nil {
		return nil, err
	}
	return k, nil
}

// newKeyring draws all keys.
func newKeyring(o *InitOptions) (*Keyring, error) {
	g := &Group{Name: o.GroupName, Own: true, Chunker: o.Chunker, ChunkerKeys: o.ChunkerKeys, Compression: o.Compression, Rules: o.Rules, Epochs: []Epoch{{Number: 1}}}
	k := &Keyring{
		config:    &config{suite: o.Suite, created: o.Now()},
		chunk:     &clientChunk{name: o.ClientName, groups: []*Group{g.clone()}},
		clientKey: new(seal.Key),
	}
	own := k.chunk.groups[0]
	for _, b := range [][]byte{
		k.config.repository[:], k.chunk.client[:], k.clientKey[:], k.chunk.sign[:], k.chunk.receive[:],
		own.ID[:], own.Label[:], own.Split[:], own.Epochs[0].Key[:], k.used[:],
	} {
		if _, err := io.ReadFull(o.Rand, b); err != nil {
			return nil, fmt.Errorf("draw the keys of a repository: %w", err)
		}
	}
	if err := checkText(o.ClientName, "name of the client"); err != nil {
		return nil, err
	}
	return k, checkGroups(k.chunk.groups)
}

func (k *Keyring) createAll(ctx context.Context, st store.Store, o *InitOptions) error {
	c := Credential{ID: k.used, Client: k.chunk.client, Name: o.CredentialName, Created: k.config.created}
	credential, err := sealCredential(ctx, &c, o.Kind, k.config, k.clientKey, o.Rand)
	if err != nil {
		return fmt.Errorf("make a credential: %w", err)
	}
	k.usedKind = o.Kind.Name()
	config, err := k.config.seal(o.Rand)
	if err != nil {
		return err
	}
	client, err := k.createClient(ctx, st, o.Rand)
	if err != nil {
		return err
	}
	if err := st.Create(ctx, c.ID.objectName(), credential); err != nil {
		return err
	}
	err = st.Create(ctx, seal.Name{Kind: seal.KindConfig}.String(), config)
	if errors.Is(err, store.ErrExists) {
		// Another Init was faster. What this one made is of no use to anybody,
		// and of no harm if it stays.
		return errors.Join(ErrExists, st.Delete(ctx, c.ID.objectName()), st.Delete(ctx, client))
	}
	return err
}

// createClient seals the client chunk and stores it under its generation.
func (k *Keyring) createClient(ctx context.Context, st store.Store, rand io.Reader) (name string, err error) {
	h := seal.Header{Kind: seal.KindClient, Suite: k.config.suite, Repository: k.config.repository, Owner: k.chunk.client}
	object, err := seal.SealObject(k.clientKey, h, k.chunk.encode(), rand)
	if err != nil {
		return "", err
	}
	if len(object) > clientSizeMax {
		return "", fmt.Errorf("a client chunk of %d bytes: %w", len(object), seal.ErrTooLarge)
	}
	name = seal.Name{Kind: seal.KindClient, Client: k.chunk.client, Number: k.chunk.generation}.String()
	return name, st.Create(ctx, name, object)
}

// Open opens the keys of the repository in st. It tries each credential that
// one of the secrets is for, and derives one key for each, one after another;
// everything else that it does costs a few requests to the storage.
//
// It fails with ErrNoRepository, with ErrNoKeyFits, with seal.ErrVersion if a
// newer program is needed, with seal.ErrDamaged if an object that is needed is
// damaged (it is named), and with errors of the storage and of the secrets.
func Open(ctx context.Context, st store.Reader, secrets Secrets) (*Keyring, error) {
	cfg, err := readConfig(ctx, st)
	if err != nil {
		return nil, err
	}
	list, err := readCredentials(ctx, st, cfg.repository)
	if err != nil {
		return nil, err
	}
	o := &opening{st: st, config: cfg, list: list}
	for _, kind := range secrets.unwrappers() {
		for _, c := range list {
			if c.Err != nil || c.Kind != kind.Name() {
				continue
			}
			k, err := o.try(ctx, kind, c)
			if k != nil || err != nil {
				return k, err
			}
		}
	}
	return nil, o.failure()
}

// opening is one call of Open.
type opening struct {
	st      store.Reader
	config  *config
	list    []*credential
	tried   int     // credentials, including those that turned out damaged
	stale   int     // of these, those whose client key is not the client's any more
	damaged []error // of those
}

// try opens the client chunk with one credential. It returns nothing if the
// credential does not open. The client chunk is fetched while the key is
// derived, which on distant storage takes as long.
func (o *opening) try(ctx context.Context, kind Unwrapper, c *credential) (*Keyring, error) {
	o.tried++
	var key *seal.Key
	var stored []byte
	var generation uint64
	var storeErr error
	g := new(errgroup.Group)
	g.Go(func() error {
		stored, generation, storeErr = readClient(ctx, o.st, c.Client)
		return nil // matters only if the key fits
	})
	g.Go(func() error {
		secret, err := kind.Unwrap(ctx, c.params)
		if err == nil {
			key, err = c.open(secret)
		}
		return err
	})
	err := g.Wait()
	switch {
	case errors.Is(err, seal.ErrWrongKey), errors.Is(err, ErrNoKeyFits):
		return nil, nil
	case errors.Is(err, seal.ErrDamaged), errors.Is(err, seal.ErrVersion):
		o.damaged = append(o.damaged, err)
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", c.ID.objectName(), err)
	case storeErr != nil:
		return nil, storeErr
	}
	k := &Keyring{config: o.config, clientKey: key, used: c.ID, usedKind: c.Kind}
	err = k.openClient(stored, c.Client, generation)
	if errors.Is(err, seal.ErrWrongKey) {
		// Revoke was interrupted: it made this credential and not the client
		// chunk that goes with it, or has not deleted this one yet.
		o.stale++
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// Reload returns the client's keys as they are on storage by now: k itself if
// nothing changed. It fails with ErrRevoked if there is another client key.
func (k *Keyring) Reload(ctx context.Context, st store.Reader) (*Keyring, error) {
	n, found, err := lastNumber(ctx, st, clientPrefix(k.Client()))
	if err != nil {
		return nil, err
	}
	if !found || n <= k.Generation() {
		return k, nil
	}
	stored, n, err := readClient(ctx, st, k.Client())
	if err != nil {
		return nil, err
	}
	latest := *k
	err = latest.openClient(stored, k.Client(), n)
	if errors.Is(err, seal.ErrWrongKey) {
		return nil, fmt.Errorf("%w: %w", ErrRevoked, err)
	}
	if err != nil {
		return nil, err
	}
	return &latest, nil
}

func clientPrefix(client seal.ClientID) string {
	return fmt.Sprintf("%s%s/", seal.KindClient.Dir(), client)
}

// readClient fetches the client chunk that counts.
func readClient(ctx context.Context, st store.Reader, client seal.ClientID) (stored []byte, generation uint64, err error) {
	prefix := clientPrefix(client)
	n, found, err := lastNumber(ctx, st, prefix)
	if err != nil {
		return nil, 0, err
	}
	if !found {
		return nil, 0, fmt.Errorf("%w: there is no client chunk below %s", seal.ErrDamaged, prefix)
	}
	stored, err = st.Get(ctx, seal.Name{Kind: seal.KindClient, Client: client, Number: n}.String(), clientSizeMax)
	return stored, n, err
}

func (k *Keyring) openClient(stored []byte, client seal.ClientID, generation uint64) error {
	name := seal.Name{Kind: seal.KindClient, Client: client, Number: generation}.String()
	want := seal.Expect{Name: name, Kind: seal.KindClient, Repository: k.config.repository, Owner: client}
	content, _, err := seal.OpenObject(k.clientKey, stored, want)
	if err != nil {
		return err
	}
	if k.chunk, err = parseClient(content); err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	if k.chunk.client != client || k.chunk.generation != generation {
		return fmt.Errorf("open %s: %w: it is generation %d of client %s", name, seal.ErrDamaged, k.chunk.generation, k.chunk.client)
	}
	return nil
}

// failure says why no credential opened.
func (o *opening) failure() error {
	fitting, damaged := o.tried-len(o.damaged), o.damaged
	for _, c := range o.list {
		if c.Err != nil {
			damaged = append(damaged, c.Err)
		}
	}
	if len(damaged) > 0 && len(damaged) == len(o.list) {
		return errors.Join(damaged...) // there is nothing that a key could have fitted
	}
	if len(o.list) == 0 {
		return fmt.Errorf("%w: %w", ErrNoKeyFits, ErrNoCredentials)
	}
	err := fmt.Errorf("%w: %d of %d credentials could be tried", ErrNoKeyFits, fitting, len(o.list))
	if o.stale > 0 {
		err = fmt.Errorf("%w, and one that opened was revoked", err)
	}
	if len(damaged) > 0 {
		err = fmt.Errorf("%w; %w", err, errors.Join(damaged...))
	}
	return err
}

// Repository returns the repository's id.
func (k *Keyring) Repository() seal.RepositoryID { return k.config.repository }

// Created returns when the repository was made, by the clock of who made it.
func (k *Keyring) Created() time.Time { return k.config.created }

// Suite returns the suite that new objects are sealed with.
func (k *Keyring) Suite() seal.Suite { return k.config.suite }

// CheckWrite fails with seal.ErrVersion if this program may read the repository
// but is too old to write into it. Whoever is about to write asks first.
func (k *Keyring) CheckWrite() error { return unknown(k.config.forWrite, "write into") }

// Client returns the id of the client whose keys these are.
func (k *Keyring) Client() seal.ClientID { return k.chunk.client }

// ClientName returns what its owner calls the client.
func (k *Keyring) ClientName() string { return k.chunk.name }

// Generation returns how often the client's keys were changed.
func (k *Keyring) Generation() uint64 { return k.chunk.generation }

// Own returns the group that the client's listings and snapshots lie in.
func (k *Keyring) Own() *Group {
	for _, g := range k.chunk.groups {
		if g.Own {
			return g
		}
	}
	panic("keyring: a client chunk without its own group was accepted")
}

// Group returns a group of the client, or nil if it is not in that one.
func (k *Keyring) Group(id seal.GroupID) *Group {
	for _, g := range k.chunk.groups {
		if g.ID == id {
			return g
		}
	}
	return nil
}

// Groups returns all groups of the client.
func (k *Keyring) Groups() []*Group { return k.chunk.groups }
