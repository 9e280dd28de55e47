package hardlinks

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// tree is the directory of one snapshot.
type tree struct {
	name  string // in the set's directory
	path  string // of what becomes the listing
	stamp stamp
	time  time.Time
	key   string // what stays the same of it when a rotation renames it
	inode [2]uint64
}

// Skipped is a name in the directory that is no snapshot, and why.
type Skipped struct {
	Name, Reason string
}

// incomplete are names, and ends and beginnings of names, that tools give to
// what they are still making or already removing.
var incomplete = regexp.MustCompile(`(?i)^(?:_delete\..*|\.sync|new_snapshot` +
	`|(?:incomplete|partial|in[-_]?progress|unfinished|tmp)[-_.].*` +
	`|.*[-_.](?:incomplete|partial|part|in[-_]?progress|unfinished|interrupted|tmp|temp|delete|deleting|del|new))$`)

// progressMarker is a file of rsync-time-backup, there while a run goes on and
// after one that did not finish: its snapshot is the newest.
const progressMarker = "backup.inprogress"

// found is what a directory holds.
type found struct {
	trees   []*tree
	skipped []Skipped
}

// detect finds the snapshots in a directory, oldest first.
func detect(dir string, custom *pattern, zone *time.Location) (*found, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the trees of hard links: %w", err)
	}
	f := new(found)
	var dated, numbered []*tree
	running := false
	for _, n := range names {
		name := n.Name()
		if name == progressMarker {
			running = true
		}
		switch {
		case !n.IsDir():
		case incomplete.MatchString(name):
			f.skip(name, "it is not complete, or being removed")
		case custom != nil:
			if s, ok := custom.parse(name, zone); ok {
				dated = append(dated, &tree{name: name, stamp: s})
			} else {
				f.skip(name, "its name does not fit the pattern")
			}
		case strings.HasPrefix(name, "."):
		default:
			if s, ok := datePattern.parse(name, zone); ok {
				dated = append(dated, &tree{name: name, stamp: s})
			} else if s, ok := numberPattern.parse(name, zone); ok {
				numbered = append(numbered, &tree{name: name, stamp: s})
			} else {
				f.skip(name, "its name has neither a date nor a number")
			}
		}
	}
	f.trees = dated
	if custom == nil {
		f.onePrefix()
	}
	if len(numbered) > len(f.trees) {
		f.trees, numbered = numbered, f.trees
	}
	for _, t := range numbered {
		f.skip(t.name, "it is named in another way than most")
	}
	if err := f.order(dir); err != nil {
		return nil, err
	}
	if last := len(f.trees) - 1; running && last >= 0 {
		f.skip(f.trees[last].name, progressMarker+" says that it is not complete")
		f.trees = f.trees[:last]
	}
	return f, nil
}

func (f *found) skip(name, reason string) { f.skipped = append(f.skipped, Skipped{name, reason}) }

// onePrefix keeps of trees with a date those that have one beginning of the name
// in common: others are of other things.
func (f *found) onePrefix() {
	count := make(map[string]int)
	most := ""
	for _, t := range f.trees {
		p := t.stamp.prefix
		if count[p]++; count[p] > count[most] {
			most = p
		}
	}
	f.trees = slices.DeleteFunc(f.trees, func(t *tree) bool {
		other := t.stamp.prefix != most
		if other {
			f.skip(t.name, "its name begins otherwise than most")
		}
		return other
	})
}

// order gives every tree its time and key, and sorts them.
func (f *found) order(dir string) error {
	times := make(map[string]int)
	for _, t := range f.trees {
		t.path = filepath.Join(dir, t.name)
		info, err := os.Lstat(t.path)
		if err != nil {
			return fmt.Errorf("look at a tree of hard links: %w", err)
		}
		t.inode = inodeOf(info)
		t.time, t.key = t.stamp.time, "name "+t.name
		if !t.stamp.hasTime {
			// A rotation renames it, and leaves the time that the tool set when it
			// was complete.
			t.time = info.ModTime()
			t.key = "time " + t.time.UTC().Format(time.RFC3339Nano)
		}
		times[t.key]++
	}
	for _, t := range f.trees {
		if times[t.key] > 1 {
			t.key = fmt.Sprintf("%s inode %d", t.key, t.inode[1])
		}
	}
	slices.SortFunc(f.trees, func(a, b *tree) int {
		return cmp.Or(a.time.Compare(b.time), cmp.Compare(b.stamp.number, a.stamp.number), cmp.Compare(a.name, b.name))
	})
	return nil
}

// inodeOf returns the device and the number of a file.
func inodeOf(info fs.FileInfo) [2]uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return [2]uint64{}
	}
	return [2]uint64{uint64(st.Dev), st.Ino}
}

// layouts are where tools that are known keep the listing within a snapshot, and
// what lies beside it there.
var layouts = []struct{ inside, beside string }{
	{"localhost", "info.json"}, // Timeshift
	{"backup", "info"},         // Back In Time
	{"localhost", ""},          // rsnapshot, with one backup point
}

// inside finds out which directory of every snapshot is its listing: "" if that
// is the snapshot's directory itself.
func (f *found) inside() string {
	for _, l := range layouts {
		fits := func(t *tree) bool { return !hasLayout(t, l.inside, l.beside) }
		if len(f.trees) > 0 && !slices.ContainsFunc(f.trees, fits) {
			return l.inside
		}
	}
	return ""
}

func hasLayout(t *tree, inside, beside string) bool {
	info, err := os.Lstat(filepath.Join(t.path, inside))
	if err != nil || !info.IsDir() {
		return false
	}
	if beside != "" {
		_, err := os.Lstat(filepath.Join(t.path, beside))
		return err == nil
	}
	names, err := os.ReadDir(t.path)
	return err == nil && len(names) == 1 && !t.stamp.hasTime
}
