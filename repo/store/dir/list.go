package dir

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bk-backup/bk/repo/store"
)

// depthMax is how many directories may lie inside each other: as many as a name
// that can be created may have. It ends listings that symbolic links would make
// endless.
const depthMax = store.NameBytesMax / 2

// List calls fn for the objects below prefix, in order. It holds what lies
// in one directory on each level in memory, and nothing open while fn runs.
func (s *Store) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	if err := cmp.Or(ctx.Err(), store.CheckPrefix(prefix)); err != nil {
		return s.fail("list", prefix, err)
	}
	if hidden(first(prefix)) {
		return nil
	}
	l := lister{store: s, ctx: ctx, fn: fn}
	if err := l.directory(prefix, 0); err != nil && l.stopped == nil {
		return s.fail("list", l.at, err)
	}
	return l.stopped
}

type lister struct {
	store   *Store
	ctx     context.Context
	fn      func(store.Info) error
	at      string // the prefix or name that is being looked at
	stopped error  // what fn returned
}

// entry is an object or a directory.
type entry struct {
	// key sorts the entry where its name, or the names below it, belong: "a.b"
	// comes before "a/b", although "a" comes before "a.b". So it is the name,
	// with a "/" at the end if it is a directory.
	key     string
	size    int64
	created time.Time
}

// directory lists what lies below a prefix.
func (l *lister) directory(prefix string, depth int) error {
	l.at = prefix
	if depth > depthMax {
		return errors.New("directories lie too deep inside each other; a symbolic link may lead to a directory above it")
	}
	entries, err := l.entries(prefix)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		name := prefix + e.key
		if strings.HasSuffix(name, "/") {
			err = l.directory(name, depth+1)
		} else {
			l.stopped = l.fn(store.Info{Name: name, Size: e.size, Created: e.created})
			err = l.stopped
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entries returns the objects and directories in a directory, in order; none
// if there is no such directory.
func (l *lister) entries(prefix string) ([]entry, error) {
	root, names, err := l.names(cmp.Or(strings.TrimSuffix(prefix, "/"), "."))
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	entries := make([]entry, 0, len(names))
	for _, name := range names {
		if prefix == "" && hidden(name) {
			continue
		}
		l.at = prefix + name
		info, err := root.Lstat(name)
		if err == nil && info.Mode()&fs.ModeSymlink != 0 {
			info, err = l.store.root.Stat(l.at)
		}
		if missing(err) {
			continue // deleted meanwhile, or a link that leads nowhere
		}
		if err != nil {
			return nil, err
		}
		e := entry{name, info.Size(), info.ModTime().UTC()}
		if info.IsDir() {
			e.key += "/"
		} else if !info.Mode().IsRegular() {
			continue
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	return entries, nil
}

// names opens a directory and returns the names in it.
func (l *lister) names(directory string) (*os.Root, []string, error) {
	info, err := l.store.root.Stat(directory)
	if err == nil && !info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, nil, err
	}
	root, err := l.store.root.OpenRoot(directory)
	if err != nil {
		return nil, nil, err
	}
	f, err := root.Open(".")
	if err == nil {
		defer f.Close()
		var names []string
		if names, err = f.Readdirnames(-1); err == nil {
			return root, names, nil
		}
	}
	root.Close()
	return nil, nil, err
}

// first returns the first component of a name.
func first(name string) string {
	before, _, _ := strings.Cut(name, "/")
	return before
}
