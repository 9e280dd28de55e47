package restic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/store"
)

// What callers tell apart, with errors.Is.
var (
	// ErrNoRepository: what is there is not a restic repository.
	ErrNoRepository = errors.New("there is no restic repository")
	// ErrWrongPassphrase: it opens none of the key files.
	ErrWrongPassphrase = errors.New("the passphrase fits no key")
	// ErrVersion: a version, or an encoding, that this package does not know.
	ErrVersion = errors.New("it was made by a version of restic that is not known")
	// ErrDamaged: something is not what it was when it was written.
	ErrDamaged = errors.New("it is damaged")
	// ErrMissing: a blob is in no pack.
	ErrMissing = errors.New("it is missing")
)

// Options are what Open needs besides the storage. Passphrase is required.
type Options struct {
	// Passphrase is called once, when it is known that there is a repository.
	// The empty passphrase is one, too.
	Passphrase func(ctx context.Context) (string, error)
	// Log gets a line for what is damaged but not needed so far; nil discards.
	Log *slog.Logger
	// Workers is how many reads of the storage go on at a time: 0 means one and
	// a half for each processor, at least 4.
	Workers int
}

// Repository is a restic repository that was opened for reading. It implements
// format.System. Its methods may be called concurrently.
type Repository struct {
	store   store.Reader
	log     *slog.Logger
	workers int
	keys    *keys
	config  config

	mu        sync.Mutex
	snapshots map[format.ID]*snapshot // those that were read, by id
	index     atomic.Pointer[index]   // nil until it is needed
}

// config is the file of that name.
type config struct {
	Version    int    `json:"version"`
	ID         string `json:"id"`
	Polynomial string `json:"chunker_polynomial"`
}

const configSizeMax = 64 << 10

// Open opens the repository in st, which it closes with its own Close, or if it
// fails leaves open. The errors are ErrNoRepository, ErrWrongPassphrase,
// ErrVersion, ErrDamaged, or what the storage says.
func Open(ctx context.Context, st store.Reader, opts Options) (*Repository, error) {
	r := newRepository(st, opts)
	sealed, err := st.Get(ctx, "config", configSizeMax)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("open %s: it has no file config: %w", st, ErrNoRepository)
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration of a restic repository: %w", err)
	}
	passphrase, err := opts.Passphrase(ctx)
	if err != nil {
		return nil, err
	}
	if r.keys, err = findKeys(ctx, st, passphrase, r.log); err != nil {
		return nil, err
	}
	if err := r.openConfig(sealed); err != nil {
		return nil, fmt.Errorf("read config in %s: %w", st, err)
	}
	return r, nil
}

func newRepository(st store.Reader, opts Options) *Repository {
	r := &Repository{store: st, log: opts.Log, workers: opts.Workers, snapshots: make(map[format.ID]*snapshot)}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.workers <= 0 {
		r.workers = max(4, runtime.GOMAXPROCS(0)*3/2)
	}
	return r
}

func (r *Repository) openConfig(sealed []byte) error {
	plain, err := r.keys.openInPlace(sealed)
	if err != nil {
		return fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	if err := json.Unmarshal(plain, &r.config); err != nil {
		return fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	if r.config.Version != 1 && r.config.Version != 2 {
		return fmt.Errorf("the repository has format %d, and 1 and 2 are known: %w", r.config.Version, ErrVersion)
	}
	return nil
}

// Version returns the repository's format, 1 or 2.
func (r *Repository) Version() int { return r.config.Version }

// Polynomial returns what the repository cuts files with, as chunker.Keyed takes
// it, so that a bk repository can cut alike.
func (r *Repository) Polynomial() (uint64, error) {
	p, err := strconv.ParseUint(r.config.Polynomial, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("config in %s: the polynomial %q is no hexadecimal number: %w", r.store, r.config.Polynomial, ErrDamaged)
	}
	return p, nil
}

// String says in messages which repository this is.
func (r *Repository) String() string { return "restic:" + r.store.String() }

// Close closes the storage.
func (r *Repository) Close() error { return r.store.Close() }
