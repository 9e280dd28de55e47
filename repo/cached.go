package repo

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/bk-backup/bk/repo/index"
)

// ErrNoCache says that the local cache cannot be written. As long as the index
// can be kept elsewhere, temporarily, it is only logged.
var ErrNoCache = index.ErrNoCache

// told is what was said once about the local cache.
type told struct {
	index, unread, unkept sync.Once
	noIndex               atomic.Bool
}

// cacheFailed says that nothing more is kept in the cache of the index.
func (r *Repository) cacheFailed(err error) {
	r.told.index.Do(func() {
		r.told.noIndex.Store(true)
		r.opts.Log.Warn("what is new in the index is not cached, and the next program takes longer", "error", err)
	})
}

// seenUnread says that what was seen before is no use.
func (r *Repository) seenUnread(path string, err error) {
	r.told.unread.Do(func() {
		r.opts.Log.Warn("what was seen of the repository before cannot be read", "file", path, "error", err)
	})
}

// seenUnkept says that what is seen now cannot be kept. If nothing ever was, in a
// cache that is no use, that was said already.
func (r *Repository) seenUnkept(was *seen, err error) {
	if r.told.noIndex.Load() && was.String() == (&seen{}).String() {
		return
	}
	r.told.unkept.Do(func() {
		r.opts.Log.Warn("what is seen of the repository now is not remembered, and would not be missed if storage went back", "error", fmt.Errorf("%w: %w", ErrNoCache, err))
	})
}

// isNowhere reports whether there is no file, nor a place for it.
func isNowhere(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
