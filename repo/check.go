package repo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/index"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/tree"
)

// CheckOptions say what a check reads. The zero value reads every object but
// packs, of packs the directories, and of the chunks in them all that listings
// are made of.
type CheckOptions struct {
	// ReadData names packs of which every byte is read: each chunk is opened,
	// decoded and compared with its id, and the pack with its name.
	ReadData Subset
	// TouchedMax is how many paths, each counted once for every snapshot, the
	// findings name together; the rest is counted. 0: TouchedMaxDefault.
	TouchedMax int
	// Expect are receipts: the snapshots that they name have to be there, or to
	// be forgotten.
	Expect []Receipt
	// OnProgress is told what is being done, and how much of it is done.
	OnProgress func(what string, done, total int)
}

// TouchedMaxDefault bounds the memory for the paths that damage touches to about
// 100 MB.
const TouchedMaxDefault = 1 << 20

// checkTriesMax is how often a check begins anew because a collection deleted
// what it was looking at.
const checkTriesMax = 6

// What says in one word what is wrong with an object.
type What string

// What can be wrong.
const (
	Damaged   What = "damaged"   // it is not what was stored, or cannot be read
	Missing   What = "missing"   // it is not there
	Unlisted  What = "unlisted"  // a pack that snapshots need and no index lists
	Mislisted What = "mislisted" // a pack of which an index says something else than the pack itself
	Hidden    What = "hidden"    // a snapshot that was there and is neither there nor forgotten
	Returned  What = "returned"  // a snapshot that was forgotten and is there
	Known     What = "known"     // chunks that a repair wrote down as beyond help
)

// Finding is one thing that is wrong.
type Finding struct {
	What   What
	Object string // its name on storage; empty for chunks of which nothing says where they were
	Err    error
	// Snapshot is the id of a snapshot that is hidden, where only that is known.
	Snapshot format.ID
	Lost     uint64 // chunks that snapshots need and that are nowhere else
	// Readable says of a damaged pack that it is known what lies where in it.
	Readable bool
	// Touched is what cannot be restored because of it, by path. More counts
	// what is not named, since there is too much of it.
	Touched []Touched
	More    uint64
}

// Touched is an entry that cannot be restored as it was, or (Range) all entries
// from Path on up to, not including, Before; up to the end if Before is empty.
type Touched struct {
	Path, Before string
	Range        bool
	Snapshots    []format.ID // in which it lies so
}

// Checked is the result of a check.
type Checked struct {
	Findings     []*Finding // sorted by object
	Snapshots    int
	Entries      uint64  // of all snapshots
	Packs        PackSum // on storage
	Chunks       uint64  // that an index lists, those in two places twice
	Needed       uint64  // of these, places of chunks that snapshots need
	NeededBytes  int64   // stored bytes of them
	Unreferenced PackSum // packs in which nothing is needed
	PacksRead    PackSum // packs that were read whole
}

// Check looks for everything that could keep a snapshot from being restored, and
// names what it finds. Storage is only read. It fails if it cannot do its work:
// what is damaged is a finding and no error. Others may go on writing meanwhile.
func (r *Repository) Check(ctx context.Context, opts CheckOptions) (*Checked, error) {
	k, err := r.settledCheck(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", r, err)
	}
	k.cache.Close()
	return k.out, nil
}

// ErrOutrun says that what was looked at was deleted again and again meanwhile.
var ErrOutrun = errors.New("snapshots were forgotten and garbage was collected again and again meanwhile")

// settledCheck checks, and begins anew if it found something and others have
// deleted meanwhile what it was looking at. The caller closes the cache.
func (r *Repository) settledCheck(ctx context.Context, opts CheckOptions) (*checker, error) {
	var last error
	for range checkTriesMax {
		k, err := r.check(ctx, opts)
		if last = err; errors.Is(err, store.ErrNotFound) && ctx.Err() == nil {
			continue // it was listed, and deleted before it was read
		}
		if err != nil {
			return nil, err
		}
		outrun := false
		if len(k.out.Findings) > 0 {
			outrun, err = k.outrun()
		}
		if err == nil && !outrun {
			return k, nil
		}
		k.cache.Close()
		if err != nil {
			return nil, err
		}
	}
	if last != nil {
		return nil, fmt.Errorf("%w: %w", ErrOutrun, last)
	}
	return nil, ErrOutrun
}

// checker is one check.
type checker struct {
	survey
	opts CheckOptions
	out  *Checked

	expected map[[32]byte][]expectation // what indexes say of each pack
	suspects map[[32]byte]bool          // packs of which each chunk is tried by itself

	mu       sync.Mutex
	findings map[string]*Finding // by object, or what else they are about
	bad      map[[32]byte]*badPack
	lostMeta map[format.ID]error     // parts of listings that cannot be read
	lost     map[seal.Label]string   // chunks that are nowhere, and the finding that they belong to
	lostData map[seal.Label]struct{} // chunks of content that no index lists
	known    map[seal.Label]bool     // chunks that were marked as beyond help
	failed   error                   // of storage, which says nothing about an object
}

// badPack says which chunks of a pack cannot be read.
type badPack struct {
	chunks map[chunkPlace]struct{}
}

// chunkPlace is where a chunk lies in its pack.
type chunkPlace struct{ number, offset uint32 }

// check does the work. The caller closes the cache.
func (r *Repository) check(ctx context.Context, opts CheckOptions) (*checker, error) {
	k := &checker{
		survey: survey{r: r, ctx: ctx, onProgress: opts.OnProgress, sum: new(Collected)},
		opts:   opts, out: new(Checked),
		suspects: make(map[[32]byte]bool), findings: make(map[string]*Finding), bad: make(map[[32]byte]*badPack),
		lostMeta: make(map[format.ID]error), lost: make(map[seal.Label]string), lostData: make(map[seal.Label]struct{}),
	}
	// The index is read from storage and not from the local cache: what is
	// checked is what another machine would find.
	k.cache = index.Open("", nil)
	for _, step := range []func() error{
		k.objects, k.list, k.readIndex, k.readPlans, k.listPacks, k.walk, k.measure, k.comparePacks, k.weigh, k.touch, k.chain,
	} {
		if err := step(); err != nil {
			k.cache.Close()
			return nil, err
		}
	}
	k.finish()
	return k, nil
}

// find returns the finding about an object, which is made if it is new.
func (k *checker) find(object string, what What, err error) *Finding {
	return k.findAbout(object, object, what, err)
}

// findAbout is find for what has no object on storage.
func (k *checker) findAbout(about, object string, what What, err error) *Finding {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failed == nil && isFailure(err) {
		k.failed = err
	}
	f := k.findings[about]
	if f == nil {
		f = &Finding{What: what, Object: object, Err: err}
		k.findings[about] = f
	} else if f.What == Unlisted && what == Damaged {
		f.What, f.Err = what, err // the worse of the two
	}
	return f
}

// finish sorts the findings and sums up.
func (k *checker) finish() {
	for _, about := range slices.Sorted(maps.Keys(k.findings)) {
		f := k.findings[about]
		if name, ok := seal.ParseName(f.Object); ok && name.Kind == seal.KindDataPack {
			f.Readable = k.bad[name.Sum] != nil
		}
		k.out.Findings = append(k.out.Findings, f)
	}
	k.out.Snapshots = len(k.snaps)
	for _, s := range k.snaps {
		k.out.Entries += s.Entries
	}
	k.out.Packs, k.out.NeededBytes = k.sum.All, k.sum.Needed
	for _, st := range k.packs {
		if st.stored && !st.foreign && st.liveCount == 0 {
			k.out.Unreferenced.add(st.size)
		}
	}
}

// outrun reports whether others have deleted what was read here: a collection
// indexes, and before packs, or bk-forget a snapshot, and before its content.
func (k *checker) outrun() (bool, error) {
	there := make(map[string]bool)
	err := k.r.store.List(k.ctx, seal.KindSnapshot.Dir(), func(info store.Info) error {
		there[info.Name] = true
		return nil
	})
	if err != nil {
		return false, err
	}
	for _, s := range k.snaps {
		if !there[s.objectName()] {
			return true, nil
		}
	}
	names, err := listIndexes(k.ctx, k.r.store)
	if err != nil {
		return false, err
	}
	for _, name := range k.indexes {
		if !slices.Contains(names, name) {
			return true, nil
		}
	}
	return k.listedSince(names)
}

// listedSince reports whether an index that was not read lists a pack of which it
// was found that none does. One that stands in for another may come and the other
// go while storage is listed, so that neither is seen.
func (k *checker) listedSince(names [][32]byte) (bool, error) {
	unlisted := make(map[[32]byte]bool)
	for _, f := range k.out.Findings {
		if name, ok := seal.ParseName(f.Object); ok && f.What == Unlisted {
			unlisted[name.Sum] = true
		}
	}
	listed := false
	for _, name := range names {
		if len(unlisted) == 0 || listed || slices.Contains(k.indexes, name) {
			continue
		}
		body, err := k.r.fetchIndex(k.ctx, name)
		if errors.Is(err, store.ErrNotFound) {
			return true, nil
		}
		if err == nil {
			err = pack.ParseIndex(body, func(info pack.Info, _ []pack.Entry) error {
				listed = listed || unlisted[info.Name]
				return nil
			})
		}
		if err != nil && k.ctx.Err() != nil {
			return false, err
		} // one that is damaged lists nothing
	}
	return listed, nil
}

func packObject(name [32]byte) string {
	return seal.Name{Kind: seal.KindDataPack, Sum: name}.String()
}

// list lists the snapshots.
func (k *checker) list() error {
	snaps, damage, err := k.r.List(k.ctx)
	if err != nil {
		return err
	}
	for _, d := range damage {
		what := Damaged
		if errors.Is(d.Err, ErrRolledBack) {
			what = Hidden
		}
		k.find(d.Name, what, d.Err)
	}
	k.snaps = snaps
	return nil
}

// readIndex reads every index object. Of those that are damaged, the packs are
// found by their own directories.
func (k *checker) readIndex() error {
	for tries := 0; ; tries++ {
		names, err := listIndexes(k.ctx, k.r.store)
		if err != nil {
			return err
		}
		done := 0
		err = k.cache.Refresh(k.ctx, names, func(ctx context.Context, sum [32]byte) ([]byte, error) {
			k.progress("read the index", done, len(names))
			done++
			return k.fetchIndex(ctx, sum)
		})
		if errors.Is(err, store.ErrNotFound) && tries < indexTriesMax {
			continue // another index stands in for it by now
		}
		k.indexes = names
		return err
	}
}

func (k *checker) fetchIndex(ctx context.Context, sum [32]byte) ([]byte, error) {
	body, err := k.r.fetchIndex(ctx, sum)
	if err == nil {
		err = pack.ParseIndex(body, func(pack.Info, []pack.Entry) error { return nil })
	}
	if err == nil || ctx.Err() != nil || errors.Is(err, store.ErrNotFound) {
		return body, err
	}
	k.find(seal.Name{Kind: seal.KindIndex, Sum: sum}.String(), Damaged, err)
	return nil, index.ErrSkip
}

// rankAdopted is where the ranks of packs that no index lists begin: after all
// others that are there.
const rankAdopted = rankGone + 1

// rankListed ranks the places of a chunk as readers find them: a pack that no
// index lists is needed only for what is nowhere else. A writer that has not come
// to its index, or was killed before, may have stored once more what a plan
// condemns or an earlier epoch holds. Of several that no index lists, those are
// the best that a collection is not about to delete, as everywhere.
func (k *checker) rankListed(info pack.Info) int32 {
	if st := k.packs[info.Name]; st != nil && st.stored && st.adopted {
		return rankAdopted + min(k.rank(info), rankLost-rankAdopted-1)
	}
	return k.rank(info)
}

// walk marks what the snapshots need. What several share is read once.
func (k *checker) walk() error {
	lost, err := k.r.marked(k.ctx)
	if err != nil {
		return err
	}
	k.known = make(map[seal.Label]bool, len(lost))
	for c := range lost {
		k.known[k.r.label.LabelOf(c.kind, c.id)] = true
	}
	k.marks = k.cache.NewMarks(k.rankListed)
	walker, batch := k.marker(func(label seal.Label) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.lostData[label] = struct{}{}
	})
	walker.Failed = func(err error) error {
		var ne *tree.NodeError
		if !errors.As(err, &ne) {
			return err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.failed == nil && isFailure(err) {
			k.failed = err
		}
		k.lostMeta[ne.ID] = err
		return nil
	}
	for i := range k.snaps {
		k.progress("walk through listings", i, len(k.snaps))
		s := k.snaps[len(k.snaps)-1-i]
		if err := walker.Walk(k.ctx, tree.Listing{Chunks: metaReader{k.r}, Root: s.Root}); err != nil {
			return fmt.Errorf("walk through snapshot %s: %w", s.ID, err)
		}
	}
	return batch.Flush()
}
