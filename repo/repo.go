package repo

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/repo/index"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// Options are what a repository needs from its surroundings.
type Options struct {
	// CacheDir is where the index is cached; a directory for each repository is
	// made below it. Empty: nothing is kept for longer than it is open. So it is if
	// the directory cannot be used, then or later: Log is told once.
	CacheDir string
	// Program and Host are written into sessions, for people.
	Program, Host string
	// Workers is how many goroutines decode, compress and seal; 0: GOMAXPROCS.
	Workers int
	Log     *slog.Logger     // nil discards
	Now     func() time.Time // nil: time.Now
	Rand    io.Reader        // nil: crypto/rand
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	return o
}

// Repository is an open bk repository. It is safe for concurrent use.
type Repository struct {
	store store.Store
	// keys and own are as the repository was opened. All that is for ever is
	// taken from them; epochs are asked of latest, which may have more of them.
	keys   *keyring.Keyring
	own    *keyring.Group
	latest latestKeys
	label  *seal.Labeler
	index  *index.Cache
	// indexDir is where the index is cached; empty if it is not kept.
	indexDir string
	told     told
	opts     Options

	openers  openers
	meta     metaCache
	recovery recovery
	plans    plansSeen
	stats    Stats

	importing atomic.Bool // one Sink at a time: its claims are in the index
}

// Init makes a repository in an empty store and opens it.
func Init(ctx context.Context, st store.Store, init keyring.InitOptions, opts Options) (*Repository, error) {
	opts = opts.withDefaults()
	if init.Rand == nil {
		init.Rand = opts.Rand
	}
	if init.Now == nil {
		init.Now = opts.Now
	}
	keys, err := keyring.Init(ctx, st, init)
	if err != nil {
		return nil, fmt.Errorf("make a repository in %s: %w", st, err)
	}
	return open(ctx, st, keys, nil, opts)
}

// Open opens the repository in st with whatever secret the caller has. It fails
// with keyring.ErrNoRepository, keyring.ErrNoKeyFits, or seal.ErrVersion.
// The repository closes the store.
func Open(ctx context.Context, st store.Store, secrets keyring.Secrets, opts Options) (*Repository, error) {
	opts = opts.withDefaults()
	// Deriving the key takes a tenth of a second on purpose; the index objects
	// are listed meanwhile.
	var keys *keyring.Keyring
	var names [][32]byte
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		keys, err = keyring.Open(gctx, st, secrets)
		return err
	})
	g.Go(func() (err error) {
		names, err = listIndexes(gctx, st)
		if errors.Is(err, store.ErrNotFound) {
			err = nil // no repository: keyring says it better
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("open the repository %s: %w", st, err)
	}
	return open(ctx, st, keys, names, opts)
}

func open(ctx context.Context, st store.Store, keys *keyring.Keyring, names [][32]byte, opts Options) (*Repository, error) {
	r := &Repository{store: st, keys: keys, own: keys.Own(), opts: opts}
	r.latest.keys.Store(keys)
	r.label = seal.NewLabeler(&r.own.Label)
	r.openers.init()
	r.meta.init()
	dir := opts.CacheDir
	if dir != "" {
		dir = filepath.Join(dir, keys.Repository().String(), r.own.ID.String())
	}
	r.indexDir = dir
	r.index = index.Open(dir, r.cacheFailed)
	if err := r.refreshIndex(ctx, names); err != nil {
		r.index.Close()
		return nil, fmt.Errorf("read the index of %s: %w", r.store, err)
	}
	return r, nil
}

// listIndexes returns the names of the index objects on storage.
func listIndexes(ctx context.Context, st store.Reader) ([][32]byte, error) {
	var names [][32]byte
	err := st.List(ctx, seal.KindIndex.Dir(), func(info store.Info) error {
		if name, ok := seal.ParseName(info.Name); ok {
			names = append(names, name.Sum)
		}
		return nil
	})
	return names, err
}

// emptyIndex is the body of an index that lists nothing.
var emptyIndex = pack.AppendIndex(nil, nil, nil)

// fetchIndex reads and opens an index object. One of another group, whose chunks
// go by other labels, lists nothing of use.
func (r *Repository) fetchIndex(ctx context.Context, sum [32]byte) ([]byte, error) {
	name := seal.Name{Kind: seal.KindIndex, Sum: sum}.String()
	body, err := r.getObject(ctx, name, seal.KindIndex)
	if errors.Is(err, errOtherGroup) {
		return emptyIndex, nil
	}
	return body, err
}

// errOtherGroup says that an object, whole as far as one can see, is not of the
// client's own group.
var errOtherGroup = errors.New("it is sealed for another group")

// getObject reads and opens an object of the own group that is sealed whole. It
// fails with errOtherGroup for one of another.
func (r *Repository) getObject(ctx context.Context, name string, kind seal.Kind) ([]byte, error) {
	body, _, err := r.openWhole(ctx, name, kind)
	return body, err
}

// openWhole is getObject with the header.
func (r *Repository) openWhole(ctx context.Context, name string, kind seal.Kind) (body []byte, h seal.Header, err error) {
	stored, err := r.store.Get(ctx, name, seal.ObjectSizeMax)
	if err != nil {
		return nil, h, err
	}
	secret, err := r.secretFor(ctx, name, stored)
	if err != nil {
		// The checksum tells first: a damaged header can seem to be another
		// version's, group's or epoch's.
		if damage := seal.Scrub(name, stored); damage != nil {
			return nil, h, damage
		}
		return nil, h, err
	}
	body, h, err = seal.OpenObject(secret, stored, seal.Expect{
		Name: name, Kind: kind, Repository: r.keys.Repository(), Owner: r.own.ID,
	})
	if err == nil && h.Epoch == 0 && !bytes.Equal(body, voidBody) {
		err = fmt.Errorf("open %s: %w: it is sealed as a void and is none", name, seal.ErrDamaged)
	}
	return body, h, err
}

// secretFor finds the epoch key that an object was sealed under, going by its
// header alone.
func (r *Repository) secretFor(ctx context.Context, name string, stored []byte) (*seal.Key, error) {
	h, err := seal.ParseHeader(stored)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if h.Owner != r.own.ID {
		return nil, fmt.Errorf("open %s: %w", name, errOtherGroup)
	}
	if h.Epoch == 0 {
		return &r.own.Label, nil
	}
	secret, err := r.epochKey(ctx, h.Epoch)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return secret, nil
}

// header returns the header of a new object of the own group, and the secret
// that it is sealed under.
func (r *Repository) header(kind seal.Kind) (seal.Header, *seal.Key) {
	epoch, secret := r.latest.group().CurrentEpoch()
	return seal.Header{Kind: kind, Suite: r.keys.Suite(), Epoch: epoch, Repository: r.keys.Repository(), Owner: r.own.ID}, secret
}

// createObject seals a body for the own group and stores it under name.
func (r *Repository) createObject(ctx context.Context, name string, kind seal.Kind, body []byte) error {
	h, secret := r.header(kind)
	stored, err := seal.SealObject(secret, h, body, r.opts.Rand)
	if err != nil {
		return fmt.Errorf("seal %s: %w", name, err)
	}
	return r.store.Create(ctx, name, stored)
}

// Keyring returns the keys of the repository.
func (r *Repository) Keyring() *keyring.Keyring { return r.latest.keys.Load() }

// String names the place of the repository, without secrets.
func (r *Repository) String() string { return r.store.String() }

// ChunksListed returns how many chunks the index lists.
func (r *Repository) ChunksListed() int { return r.index.Len() }

// Close releases the index and the store.
func (r *Repository) Close() error {
	return errors.Join(r.index.Close(), r.store.Close())
}
