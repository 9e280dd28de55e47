package repo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/index"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// fruitlessPause is how long nothing more is looked for after a search that
// found nothing: a lost pack must not cost a listing for each of its chunks.
const fruitlessPause = 10 * time.Second

// recovery looks again for chunks that are not where the index says.
type recovery struct {
	mu        sync.Mutex
	passes    int
	fruitless time.Time // when the last search found nothing

	indexDamaged atomic.Bool // an index object was left out

	goneMu sync.Mutex
	gone   map[[32]byte]bool // packs that were listed and are not there
}

// pass tells searches that are over from those to come.
func (v *recovery) pass() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.passes
}

// vanished notes that a pack is not there.
func (v *recovery) vanished(name [32]byte) {
	v.goneMu.Lock()
	defer v.goneMu.Unlock()
	if v.gone == nil {
		v.gone = make(map[[32]byte]bool)
	}
	v.gone[name] = true
}

func (v *recovery) allVanished() [][32]byte {
	v.goneMu.Lock()
	defer v.goneMu.Unlock()
	names := make([][32]byte, 0, len(v.gone))
	for name := range v.gone {
		names = append(names, name)
	}
	return names
}

// isLost reports whether a chunk was not where it was looked for.
func isLost(err error) bool { return errors.Is(err, ErrMissing) || errors.Is(err, store.ErrNotFound) }

// refreshIndex makes the index what storage has. names are the index objects as
// they were listed, nil to list them. Index objects that are damaged are left
// out: their packs are found by their own directories, if they are needed.
func (r *Repository) refreshIndex(ctx context.Context, names [][32]byte) error {
	_, err := r.refresh(ctx, r.index, names)
	return err
}

// indexTriesMax bounds how often the index is read again because a collection
// has replaced a part of it meanwhile. Each time only what is new is fetched.
const indexTriesMax = 20

// refresh is refreshIndex for a cache of the caller's. It returns the names of
// the index objects that the cache covers.
func (r *Repository) refresh(ctx context.Context, cache *index.Cache, names [][32]byte) ([][32]byte, error) {
	for tries := 0; ; tries++ {
		if names == nil {
			var err error
			if names, err = listIndexes(ctx, r.store); err != nil {
				return nil, err
			}
		}
		err := cache.Refresh(ctx, names, r.fetchIndexIfWhole)
		if !errors.Is(err, store.ErrNotFound) || tries == indexTriesMax {
			return names, err
		}
		names = nil // another index stands in for it by now
	}
}

func (r *Repository) fetchIndexIfWhole(ctx context.Context, sum [32]byte) ([]byte, error) {
	body, err := r.fetchIndex(ctx, sum)
	if errors.Is(err, seal.ErrDamaged) {
		r.opts.Log.Warn("an index is damaged and left out; packs say themselves what they hold", "error", err)
		r.recovery.indexDamaged.Store(true)
		return nil, index.ErrSkip
	}
	return body, err
}

// lookAgain searches for chunks that are not where the index says: in what other
// clients or a collection have written since the index was read, then in packs
// that no index lists. pass is what recovery.pass said before the chunks were
// missed.
func (r *Repository) lookAgain(ctx context.Context, pass int, kind seal.ChunkKind, ids []format.ID) error {
	v := &r.recovery
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.passes != pass || !v.fruitless.IsZero() && r.opts.Now().Sub(v.fruitless) < fruitlessPause {
		return nil // somebody has just looked
	}
	v.passes++
	r.treatAbsent(v.allVanished())
	if err := r.refreshIndex(ctx, nil); err != nil {
		return fmt.Errorf("read the index of %s again: %w", r.store, err)
	}
	if found, err := r.allLive(kind, ids); found || err != nil {
		return err
	}
	adopted, err := r.adoptUnlisted(ctx)
	if err != nil {
		return err
	}
	if adopted == 0 {
		v.fruitless = r.opts.Now()
	}
	return nil
}

func (r *Repository) allLive(kind seal.ChunkKind, ids []format.ID) (bool, error) {
	for _, id := range ids {
		if _, found, err := r.index.FindLive(r.label.LabelOf(kind, id)); !found || err != nil {
			return false, err
		}
	}
	return true, nil
}

// adoptUnlisted reads the directories of the packs that no index lists, and
// counts those whose chunks can be found from then on. What this process writes
// next lists them.
func (r *Repository) adoptUnlisted(ctx context.Context) (adopted int, err error) {
	unlisted, err := r.unlistedPacks(ctx)
	if err != nil {
		return 0, err
	}
	for _, info := range unlisted {
		listed, err := r.readDirectory(ctx, info)
		if ctx.Err() != nil {
			return adopted, context.Cause(ctx)
		}
		if err != nil {
			r.opts.Log.Warn("a pack that no index lists cannot be read", "error", err)
			continue
		}
		r.index.Stored(listed.Info, listed.Entries)
		adopted++
	}
	if adopted > 0 {
		r.opts.Log.Warn("packs that no index lists were found by their own directories", "packs", adopted)
	}
	return adopted, nil
}

// unlistedPacks returns the packs on storage that no index lists and no plan
// condemns.
func (r *Repository) unlistedPacks(ctx context.Context) ([]store.Info, error) {
	known := make(map[[32]byte]bool)
	r.index.EachPending(func(info pack.Info) { known[info.Name] = true })
	err := r.index.EachPack(func(info pack.Info) error {
		known[info.Name] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	var unlisted []store.Info
	err = r.store.List(ctx, seal.KindDataPack.Dir(), func(info store.Info) error {
		if name, ok := seal.ParseName(info.Name); ok && !known[name.Sum] && !r.plans.isAbsent(name.Sum) {
			unlisted = append(unlisted, info)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the packs of %s: %w", r.store, err)
	}
	return unlisted, nil
}

// readDirectory reads what a pack says of itself. Packs of groups other than the
// own one are refused.
func (r *Repository) readDirectory(ctx context.Context, info store.Info) (pack.Listed, error) {
	listed, _, err := pack.ReadDirectory(ctx, r.store, info.Name, info.Size, r.keys.Repository(),
		func(group seal.GroupID, epoch uint32) (*seal.Key, error) {
			if group != r.own.ID {
				return nil, fmt.Errorf("it belongs to group %s: %w", group, errOtherGroup)
			}
			return r.epochKey(ctx, epoch)
		})
	return listed, err
}
