package borg

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/bk-backup/bk/repo/store"
)

// Options are what Open needs besides the storage. The zero value opens what
// has no keys.
type Options struct {
	// Passphrase is called once, when it is known that there is a repository with
	// keys that the empty passphrase does not open.
	Passphrase func(ctx context.Context) (string, error)
	// KeyFile returns the content of the key file of a repository, which modes
	// need that do not keep their keys in it.
	KeyFile func(ctx context.Context, repository string) ([]byte, error)
	// Archives, if set, chooses archives by their names. Otherwise all count but
	// for checkpoints, which interrupted backups leave behind.
	Archives func(name string) bool
	// OnError, if set, is called for every archive that Snapshots cannot read and
	// leaves out; nil logs them.
	OnError func(archive string, err error)
	// Log gets a line for what is damaged but not needed so far; nil discards.
	Log *slog.Logger
	// Workers is how many reads of the storage go on at a time: 0 means one and
	// a half for each processor, at least 4.
	Workers int
	// TempDir is where temporary files are made; "" means where the system does.
	// They have no names, and hold metadata that is not encrypted.
	TempDir string

	keys *keys // of tests, which open one repository again and again
}

// Repository is a borg repository that was opened for reading. It implements
// format.System. Its methods may be called concurrently.
type Repository struct {
	store    store.Reader
	log      *slog.Logger
	workers  int
	tempDir  string
	chosen   func(name string) bool
	onError  func(archive string, err error)
	config   *config
	segments []segment // up to the last commit, ascending
	keys     *keys
	archives []archiveRef // all of them, by the manifest

	mu    sync.Mutex
	index locator
	built bool // the index was made of the log
	// metas are the archives that were read, by id.
	metas map[objectID]*archive
}

// segment is a file of the log.
type segment struct {
	number uint32
	size   int64
}

// Open opens the repository in st, which it closes with its own Close, or if it
// fails leaves open. The errors are ErrNoRepository, ErrWrongPassphrase,
// ErrNoKeyFile, ErrVersion, ErrDamaged, or what the storage says.
func Open(ctx context.Context, st store.Reader, opts Options) (*Repository, error) {
	r := newRepository(st, opts)
	err := r.open(ctx, opts)
	if err != nil {
		r.closeIndex()
		return nil, err
	}
	return r, nil
}

func newRepository(st store.Reader, opts Options) *Repository {
	r := &Repository{
		store: st, log: opts.Log, workers: opts.Workers, tempDir: opts.TempDir, chosen: opts.Archives, onError: opts.OnError,
		metas: make(map[objectID]*archive),
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.workers <= 0 {
		r.workers = max(4, runtime.GOMAXPROCS(0)*3/2)
	}
	return r
}

func (r *Repository) open(ctx context.Context, opts Options) error {
	b, err := r.store.Get(ctx, "config", configSizeMax)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("open %s: it has no file config: %w", r.store, ErrNoRepository)
	}
	if err != nil {
		return fmt.Errorf("read the configuration of a borg repository: %w", err)
	}
	if r.config, err = parseConfig(b); err != nil {
		return fmt.Errorf("read config in %s: %w", r.store, err)
	}
	if err := r.listSegments(ctx); err != nil {
		return err
	}
	if err := r.openLocator(ctx); err != nil {
		return err
	}
	object, err := r.load(ctx, manifestID, 0)
	if err != nil {
		return fmt.Errorf("read the manifest of %s: %w", r, err)
	}
	defer object.free()
	if len(object.bytes) == 0 {
		return fmt.Errorf("the manifest in %s of %s is empty: %w", r.where(object.at), r, ErrDamaged)
	}
	if r.keys = opts.keys; r.keys == nil {
		r.keys, err = r.findKeys(ctx, mode(object.bytes[0]), opts)
	}
	if err != nil {
		return err
	}
	if err := r.openManifest(object.bytes); err != nil {
		return fmt.Errorf("read the manifest in %s of %s: %w", r.where(object.at), r, err)
	}
	return nil
}

// listSegments finds the files of the log up to the last one that commits.
func (r *Repository) listSegments(ctx context.Context) error {
	err := r.store.List(ctx, "data/", func(info store.Info) error {
		dir, name, ok := strings.Cut(strings.TrimPrefix(info.Name, "data/"), "/")
		n, err := strconv.ParseUint(name, 10, 32)
		if !ok || err != nil || name != strconv.FormatUint(n, 10) || dir != strconv.FormatUint(n/r.config.segmentsPerDir, 10) {
			return nil
		}
		r.segments = append(r.segments, segment{uint32(n), info.Size})
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the segments of %s: %w", r, err)
	}
	slices.SortFunc(r.segments, func(a, b segment) int { return cmp.Compare(a.number, b.number) })
	for ; len(r.segments) > 0; r.segments = r.segments[:len(r.segments)-1] {
		last := r.segments[len(r.segments)-1]
		if last.size < int64(segmentMagicSize+len(commitEntry)) {
			if err := r.neverCommitted(ctx, last.number); err != nil {
				return err
			}
			continue
		}
		tail := make([]byte, len(commitEntry))
		if err := r.store.ReadAt(ctx, r.segmentName(last.number), tail, last.size-int64(len(tail))); err != nil {
			return fmt.Errorf("read the end of a segment of %s: %w", r, err)
		}
		if string(tail) == string(commitEntry) {
			return nil
		}
		if err := r.neverCommitted(ctx, last.number); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s has no segment in data/ that ends with a commit: %w", r.store, ErrDamaged)
}

// neverCommitted fails if there is an index for a segment that does not end with
// a commit: then it had one. The repository is not to be taken for an older one.
func (r *Repository) neverCommitted(ctx context.Context, number uint32) error {
	name := fmt.Sprintf("index.%d", number)
	_, err := r.store.Stat(ctx, name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("look for %s in %s: %w", name, r, err)
	}
	return fmt.Errorf("%s of %s does not end with the commit for which there is %s: %w", r.segmentName(number), r, name, ErrDamaged)
}

// openLocator opens the index that borg keeps of the last commit, or makes one.
func (r *Repository) openLocator(ctx context.Context) error {
	name := fmt.Sprintf("index.%d", r.segments[len(r.segments)-1].number)
	x, err := openIndex(ctx, r.store, name, indexMemoryMax)
	if err == nil {
		r.index = x
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.log.Info("borg's index is not there or not valid: reading the log", "index", name, "error", err)
	return r.rebuild(ctx)
}

// rebuild makes an index of the log instead of the one that there is.
func (r *Repository) rebuild(ctx context.Context) error {
	x, err := r.replay(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.built {
		return x.close()
	}
	// The old one, borg's, holds nothing open, and somebody may be using it.
	r.index, r.built = x, true
	return nil
}

// findKeys opens the keys that a repository's objects are made with.
func (r *Repository) findKeys(ctx context.Context, m mode, opts Options) (*keys, error) {
	switch {
	case !m.known():
		return nil, fmt.Errorf("the objects of %s are of %s: %w", r, m, ErrVersion)
	case !m.keyed():
		return &keys{mode: m}, nil
	}
	where := "config in " + r.store.String()
	blob, err := (*keyBlob)(nil), error(nil)
	switch {
	case r.config.key != "" && !m.inFile():
		blob, err = parseKeyBlob(r.config.key)
	case opts.KeyFile == nil:
		err = ErrNoKeyFile
	default:
		where = "the key file of " + r.String()
		blob, err = r.keyFile(ctx, opts)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key in %s: %w", where, err)
	}
	ks, err := openKey(ctx, blob, m, opts)
	switch {
	case errors.Is(err, errPassphrase):
		return nil, fmt.Errorf("open the key in %s: %w", where, ErrWrongPassphrase)
	case err != nil:
		return nil, fmt.Errorf("open the key in %s: %w", where, err)
	case ks.repository != r.config.id:
		return nil, fmt.Errorf("open the key in %s: it is that of the repository %x: %w", where, ks.repository, ErrDamaged)
	}
	return ks, nil
}

// openKey opens a key, as borg does first without a passphrase.
func openKey(ctx context.Context, blob *keyBlob, m mode, opts Options) (*keys, error) {
	ks, err := blob.open("", m)
	if !errors.Is(err, errPassphrase) || opts.Passphrase == nil {
		return ks, err
	}
	passphrase, err := opts.Passphrase(ctx)
	if err != nil {
		return nil, err
	}
	return blob.open(passphrase, m)
}

func (r *Repository) keyFile(ctx context.Context, opts Options) (*keyBlob, error) {
	b, err := opts.KeyFile(ctx, r.ID())
	if err != nil {
		return nil, err
	}
	id, blob, err := parseKeyFile(b)
	if err == nil && id != r.config.id {
		err = fmt.Errorf("it is that of the repository %x: %w", id, ErrNoKeyFile)
	}
	return blob, err
}

// openManifest reads the manifest, which has to authenticate itself where the
// keys or it say so. Who can write it without the keys could otherwise hide
// archives, or put one under another's name.
func (r *Repository) openManifest(object []byte) error {
	plain, err := r.keys.openManifest(object)
	if err != nil {
		return err
	}
	m, err := parseManifest(plain)
	if err != nil {
		return err
	}
	if m.tam != nil || r.keys.tamRequired || m.tamRequired {
		if err := r.keys.checkTAM(plain, m.tam, tamManifest); err != nil {
			return err
		}
	}
	r.archives = m.archives
	return nil
}

// ID returns the repository's id in hexadecimal.
func (r *Repository) ID() string { return hex.EncodeToString(r.config.id[:]) }

// String says in messages which repository this is.
func (r *Repository) String() string { return "borg:" + r.store.String() }

func (r *Repository) segmentName(number uint32) string {
	return segmentName(number, r.config.segmentsPerDir)
}

// where names a place in messages.
func (r *Repository) where(p place) string {
	return fmt.Sprintf("%s at offset %d", r.segmentName(p.segment), p.offset)
}

// segmentSize returns the size of a segment, 0 if there is none that counts.
func (r *Repository) segmentSize(number uint32) int64 {
	i, ok := slices.BinarySearchFunc(r.segments, number, func(s segment, n uint32) int { return cmp.Compare(s.number, n) })
	if !ok {
		return 0
	}
	return r.segments[i].size
}

func (r *Repository) closeIndex() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.index == nil {
		return nil
	}
	return r.index.close()
}

// Close closes the storage.
func (r *Repository) Close() error { return errors.Join(r.closeIndex(), r.store.Close()) }
