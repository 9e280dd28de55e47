package restic

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bk-backup/bk/repo/store"
)

// restic's own figures.
const (
	lockWait    = 200 * time.Millisecond // until others would have seen a new lock
	lockRefresh = 5 * time.Minute        // after half an hour others take a lock for abandoned
)

// lockFile is a file of locks/.
type lockFile struct {
	Time      time.Time `json:"time"`
	Exclusive bool      `json:"exclusive"`
	Hostname  string    `json:"hostname"`
	Username  string    `json:"username"`
	PID       int       `json:"pid"`
	UID       uint32    `json:"uid,omitempty"`
	GID       uint32    `json:"gid,omitempty"`
}

// ErrLocked: somebody has the repository for himself.
var ErrLocked = errors.New("it is locked exclusively")

// lock is a lock of ours that does not exclude others who only add.
type lock struct {
	w     *writer
	mu    sync.Mutex
	name  string
	stop  chan struct{}
	ended sync.WaitGroup
}

// takeLock checks that nobody has locked the repository exclusively, writes a
// lock, and checks again.
func takeLock(ctx context.Context, w *writer) (*lock, error) {
	if err := w.checkLocks(ctx); err != nil {
		return nil, err
	}
	l := &lock{w: w, stop: make(chan struct{})}
	if err := l.write(ctx); err != nil {
		return nil, err
	}
	wait := time.NewTimer(cmp.Or(w.opts.lockWait, lockWait))
	defer wait.Stop()
	var err error
	select {
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-wait.C:
		err = w.checkLocks(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, l.remove())
	}
	l.ended.Go(l.refresh)
	return l, nil
}

// checkLocks fails if there is an exclusive lock. One that cannot be read is
// logged: restic does not stop at it either.
func (w *writer) checkLocks(ctx context.Context) error {
	var names []string
	err := w.store.List(ctx, "locks/", func(info store.Info) error {
		if _, ok := objectID(info.Name); ok {
			names = append(names, info.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the locks of %s: %w", w.r, err)
	}
	for _, name := range names {
		var f lockFile
		b, err := w.r.loadFile(ctx, name)
		if err == nil {
			err = json.Unmarshal(b, &f)
		}
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			w.r.log.Warn("a lock cannot be read", "object", name, "error", err)
			continue
		}
		if f.Exclusive {
			return &lockError{w.r.String(), f}
		}
	}
	return nil
}

// lockError says who locked a repository.
type lockError struct {
	repository string
	lock       lockFile
}

func (e *lockError) Error() string {
	return fmt.Sprintf("write to %s: %v, by process %d of %q on %q since %s", e.repository, ErrLocked,
		e.lock.PID, e.lock.Username, e.lock.Hostname, e.lock.Time.Format(time.RFC3339))
}

func (e *lockError) Unwrap() error { return ErrLocked }

// FixText says what to do.
func (e *lockError) FixText() string {
	return "wait until restic's prune or check has ended; if there is none any more, run: restic unlock"
}

// write writes a new lock and removes the one before.
func (l *lock) write(ctx context.Context) error {
	name, err := l.w.saveJSON(ctx, "locks/", lockFile{
		Time: l.w.opts.Now(), Hostname: l.w.opts.Host, Username: l.w.opts.User, PID: l.w.opts.PID,
		UID: l.w.opts.UID, GID: l.w.opts.GID,
	})
	if err != nil {
		return fmt.Errorf("lock %s: %w", l.w.r, err)
	}
	l.mu.Lock()
	old := l.name
	l.name = "locks/" + name.String()
	l.mu.Unlock()
	if old == "" {
		return nil
	}
	return l.delete(ctx, old)
}

func (l *lock) delete(ctx context.Context, name string) error {
	if err := l.w.store.Delete(ctx, name); err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("remove a lock of %s: %w", l.w.r, err)
	}
	return nil
}

// refresh keeps the lock young until it is released.
func (l *lock) refresh() {
	tick := time.NewTicker(lockRefresh)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
			if err := l.write(context.Background()); err != nil {
				l.w.r.log.Warn("the lock could not be renewed", "error", err)
			}
		}
	}
}

// release removes the lock.
func (l *lock) release() error {
	close(l.stop)
	l.ended.Wait()
	return l.remove()
}

func (l *lock) remove() error { return l.delete(context.Background(), l.name) }
