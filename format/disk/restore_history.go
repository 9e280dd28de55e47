//go:build linux

package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"path"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// history is what a restore remembers about the paths that it has placed, so
// that a later record for the same path, in an unsorted snapshot or in the next
// one, changes what the stream put there and nothing else.
//
// Every path gets a number when it is placed. Versions of files that a later
// record replaces, but whose bytes may still be referred to, go into a
// directory of their own in the target, under that number, until the end.
type history struct {
	seeds       [2]maphash.Seed
	any         bool // a snapshot was begun
	targetEmpty bool // there was nothing in the target at the start
	base        bool // this snapshot is a difference to what the target held before
	revisits    bool // paths of this snapshot may have been placed before
	copies      bool // the stream takes bytes from earlier versions
	first       uint64
	placed      *table // path -> place
	old         *table // path -> number of the parent's version, of this snapshot
	groups      *table // hard-link groups of this snapshot
	sizes       *table // number of a file -> its size, where the stream takes bytes from earlier versions
	aside       int    // directory for earlier versions; -1 while there is none
	asideName   string

	mu       sync.Mutex // guards what workers use, too
	log      pathLog
	unplaced *table // numbers of what did not get to its place
	leaders  map[uint64]struct{}
}

// place is what was put at a path.
type place struct {
	number  uint64 // when
	content uint64 // the number by which its bytes are known; older if they were left
	flags   uint64
}

const (
	placeDir      = 1 << iota // a directory
	placeExplicit             // that has an entry
	placeChunks               // a file with chunks that may be referred to
	placeFlagBits = 8
)

func (p place) value() tableValue { return tableValue{p.number, p.content<<placeFlagBits | p.flags} }

func placeOf(v tableValue) place {
	return place{v.a, v.b >> placeFlagBits, v.b & (1<<placeFlagBits - 1)}
}

func (p place) isDir() bool { return p.flags&placeDir != 0 }

func (h *history) init(r *Restore) {
	t := func() *table { return newTable(r.opts.MemoryChunks, r.scratch) }
	h.seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	h.placed, h.old, h.groups, h.sizes, h.unplaced = t(), t(), t(), t(), t()
	h.log.create = r.scratch
	h.aside = -1
	h.leaders = make(map[uint64]struct{})
}

func (h *history) key(s string) tableKey {
	var k tableKey
	binary.LittleEndian.PutUint64(k[:8], maphash.String(h.seeds[0], s))
	binary.LittleEndian.PutUint64(k[8:], maphash.String(h.seeds[1], s))
	return k
}

// begin prepares for a snapshot.
func (h *history) begin(r *Restore) error {
	s := &r.snapshot
	h.base = !h.any && !s.parent.IsZero()
	h.revisits = h.any || h.base || s.unsorted
	h.copies = r.features[format.FeatureCopy]
	h.any = true
	h.first = h.log.size()
	if err := h.old.reset(); err != nil {
		return err
	}
	return h.groups.reset()
}

// number gives a path its number.
func (h *history) number(p string) (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.append(p)
}

// at returns what this restore put at a path, if it is there.
func (h *history) at(p string) (place, bool, error) {
	v, ok, err := h.placed.get(h.key(p))
	return placeOf(v), ok, err
}

// ours reports whether what at returned is really in its place. Nothing is
// being written when it is asked.
func (h *history) ours(pl place) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, gone, err := h.unplaced.get(numberKey(pl.content))
	return !gone, err
}

func numberKey(n uint64) tableKey {
	var k tableKey
	binary.BigEndian.PutUint64(k[:], n)
	return k
}

// unplace notes that the object with this number did not get to its place: what
// is there belongs to somebody else.
func (h *history) unplace(r *Restore, n uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.unplaced.put(numberKey(n), tableValue{}); err != nil {
		r.cancel(err)
	}
}

// explicit notes that a directory has an entry.
func (h *history) explicit(p string) error {
	pl, ok, err := h.at(p)
	if err != nil {
		return err
	}
	if !ok {
		if pl.number, err = h.number(p); err != nil {
			return err
		}
		pl.content = pl.number
	}
	pl.flags |= placeDir | placeExplicit
	return h.placed.put(h.key(p), pl.value())
}

// admitDir notes that a directory is part of the listing, and refuses one that
// is only implied where the listing has something else.
func (r *Restore) admitDir(p string, explicit bool, d *outDir) error {
	h := &r.history
	flags := uint64(placeDir)
	if explicit {
		flags |= placeExplicit
	}
	if h.revisits {
		pl, ok, err := h.at(p)
		if err != nil {
			return err
		}
		mine := false
		if ok {
			// A file of the same path may still be on its way, and so may the
			// metadata of the directory, which was left before.
			if pl.number >= h.first && (!pl.isDir() || r.lingering.Load() > 0) {
				if err := r.drain(); err != nil {
					return err
				}
			}
			if mine, err = h.ours(pl); err != nil {
				return err
			}
		}
		switch {
		case mine && pl.isDir():
			d.placed = true
			if h.listed(r, pl) {
				flags |= pl.flags
			}
		case ok && !pl.isDir() && !explicit && h.listed(r, pl):
			return treeError(r.snapshot.last, p)
		case mine:
			if err := r.retire(d.parent, d.name, p, pl); err != nil {
				return err
			}
		case !ok && h.base:
			// Whether it had an entry is not known, so it is not taken for implied.
			d.placed = true
			flags |= placeExplicit
		}
	}
	d.explicit = flags&placeExplicit != 0
	n, err := h.number(p)
	if err != nil {
		return err
	}
	d.number = n
	return h.placed.put(h.key(p), place{n, n, flags}.value())
}

// listed reports whether what was put at a path is of the listing that the records
// apply to: a snapshot without a parent begins with an empty one.
func (h *history) listed(r *Restore, pl place) bool {
	return pl.number >= h.first || !r.snapshot.parent.IsZero()
}

// admit notes that a file or another object that is not a directory is part of
// the listing, makes way for it where this restore put something there before,
// and returns its number. f is nil for what has no content.
func (h *history) admit(r *Restore, d *outDir, p string, f *outFile) (uint64, error) {
	var was place
	kept := false
	if h.revisits {
		pl, ok, err := h.at(p)
		if err != nil {
			return 0, err
		}
		if ok && pl.number >= h.first {
			if err := r.drain(); err != nil {
				return 0, err
			}
		}
		mine := ok
		if ok {
			if mine, err = h.ours(pl); err != nil {
				return 0, err
			}
		}
		if !ok && h.base {
			if pl, err = h.baseVersion(p); err != nil {
				return 0, err
			}
			mine = true
		}
		if mine {
			// A whole listing after another one repeats what did not change.
			kept = f != nil && !pl.isDir() && r.snapshot.parent.IsZero() && pl.number < h.first && r.looksRight(f)
			if !kept {
				if err := r.retire(d, path.Base(p), p, pl); err != nil {
					return 0, err
				}
			}
			was = pl
		}
	}
	n, err := h.number(p)
	if err != nil {
		return 0, err
	}
	pl := place{n, n, 0}
	if kept {
		pl.content, pl.flags = was.content, was.flags
	}
	return pl.content, h.placed.put(h.key(p), pl.value())
}

// looksRight reports whether a file may be left according to what its entry says.
func (r *Restore) looksRight(f *outFile) bool {
	if r.opts.Overwrite != OverwriteIfChanged || r.opts.DryRun || f.dir.fd < 0 || !f.hasSize || f.meta.has&format.HasMtime == 0 {
		return false
	}
	var st unix.Stat_t
	err := unix.Fstatat(f.dir.fd, f.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && uint64(st.Size) == f.size && timeOf(st.Mtim) == f.meta.mtime
}

// baseVersion gives a number to what the target held at a path before the
// restore, in a stream that is a difference to it.
func (h *history) baseVersion(p string) (place, error) {
	v, ok, err := h.old.get(h.key(p))
	if err != nil || ok {
		return place{v.a, v.a, 0}, err
	}
	n, err := h.number(p)
	return place{n, n, 0}, err
}

// closeFile notes what became known about a file with its content.
func (h *history) closeFile(r *Restore, f *outFile) error {
	if r.content.chunks {
		pl, ok, err := h.at(f.path)
		if err != nil {
			return err
		}
		if ok {
			pl.flags |= placeChunks
			if err := h.placed.put(h.key(f.path), pl.value()); err != nil {
				return err
			}
		}
	}
	if h.copies {
		if err := h.sizes.put(numberKey(f.number), tableValue{f.size, 0}); err != nil {
			return err
		}
	}
	if f.inGroup {
		return h.chooseLeader(r, f)
	}
	return nil
}

// version returns the number of the parent's version of a file.
func (h *history) version(p string) (number uint64, known bool, err error) {
	key := h.key(p)
	if v, ok, err := h.old.get(key); ok || err != nil {
		return v.a, ok, err
	}
	pl, ok, err := h.at(p)
	if err != nil {
		return 0, false, err
	}
	if !ok && h.base {
		if pl, err = h.baseVersion(p); err != nil {
			return 0, false, err
		}
		return pl.number, true, h.old.put(key, tableValue{pl.number, 0})
	}
	if !ok || pl.isDir() || pl.number >= h.first {
		return 0, false, noFileError(p)
	}
	mine, err := h.ours(pl)
	return pl.content, mine, err
}

func noFileError(p string) error {
	return format.Errorf(format.ClassReference, "a copy from %q, which is not a file of the parent", p)
}

// holds refuses a range that does not lie in the parent's version of a file, going
// by what the stream said of it: what the target has of it may be less, which is
// no fault of the stream's. Of what the target held before, no size is known.
func (h *history) holds(p string, number, offset, size uint64) error {
	v, ok, err := h.sizes.get(numberKey(number))
	switch {
	case err != nil || !ok && h.base:
		return err
	case !ok:
		return noFileError(p)
	case offset > v.a || size > v.a-offset:
		return format.Errorf(format.ClassReference, "a copy of %d bytes at %d from %q, which has %d in the parent", size, offset, p, v.a)
	}
	return nil
}

// open opens the file with the given number for reading: where it was placed, or
// where it was moved when something else took its place.
func (h *history) open(r *Restore, number uint64) (int, error) {
	name := strconv.FormatUint(number, 10)
	if aside := h.asideFD(); aside >= 0 {
		if fd, err := openFileBelow(aside, name); err == nil {
			return fd, nil
		}
	}
	h.mu.Lock()
	p, err := h.log.path(number)
	h.mu.Unlock()
	if err != nil {
		return -1, err
	}
	fd, err := openFileBelow(r.stack0(), p)
	// It may have been moved aside between the two; then what has its place
	// now is something else.
	if aside := h.asideFD(); aside >= 0 {
		if moved, err := openFileBelow(aside, name); err == nil {
			if fd >= 0 {
				unix.Close(fd)
			}
			return moved, nil
		}
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", r.show(p), err)
	}
	return fd, nil
}

func (h *history) asideFD() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.aside
}

// close removes the earlier versions.
func (h *history) close(r *Restore) error {
	var errs []error
	if h.aside >= 0 {
		unix.Close(h.aside)
		c := clearer{soft: true, visit: func(int, string, string, *unix.Stat_t) (bool, bool, error) { return false, false, nil }}
		if _, err := c.remove(r.stack0(), h.asideName, h.asideName); err != nil {
			errs = append(errs, fmt.Errorf("restore: remove earlier versions: %w", err))
		}
		h.aside = -1
	}
	for _, t := range []*table{h.placed, h.old, h.groups, h.sizes, h.unplaced} {
		errs = append(errs, t.close())
	}
	return errors.Join(append(errs, h.log.close())...)
}

// stack0 is the descriptor of the target, which stays open to the end.
func (r *Restore) stack0() int { return r.root.fd }
