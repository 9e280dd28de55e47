package filter

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/bk-backup/bk/format"
)

// Attributes drops entries by what their record says of them; an entry goes if
// any of the fields applies. Directories are never dropped by attributes. What
// the record does not say does not apply: a file of unknown size is neither
// larger nor smaller than anything.
type Attributes struct {
	LargerThan  *uint64       // files of more bytes than this
	SmallerThan *uint64       // files of fewer bytes than this
	NewerThan   *format.Time  // changed (mtime) after this moment
	OlderThan   *format.Time  // changed before this moment
	Types       []format.Type // not dir
	Owners      []string      // owner's name, or uid in digits
}

// empty reports whether nothing can be dropped.
func (a *Attributes) empty() bool {
	return a.LargerThan == nil && a.SmallerThan == nil && a.NewerThan == nil && a.OlderThan == nil &&
		len(a.Types) == 0 && len(a.Owners) == 0
}

var dropTypes = []format.Type{
	format.TypeFile, format.TypeSymlink, format.TypeChar, format.TypeBlock, format.TypeFifo, format.TypeSocket,
}

func (a *Attributes) check() error {
	for _, t := range a.Types {
		if t == format.TypeDir {
			return fmt.Errorf("directories cannot be dropped by their type: use a pattern, such as --drop 'NAME/'")
		}
		if !slices.Contains(dropTypes, t) {
			return fmt.Errorf("there is no type %q to drop: the types are %v", t, dropTypes)
		}
	}
	for _, owner := range a.Owners {
		if owner == "" {
			return fmt.Errorf("an owner to drop is a name or a number, not empty")
		}
	}
	return nil
}

// match reports whether the entry is dropped.
func (a *Attributes) match(e *format.Entry) bool {
	if e.Type == format.TypeDir {
		return false
	}
	if e.Type == format.TypeFile && e.Has&format.HasSize != 0 {
		if a.LargerThan != nil && e.Size > *a.LargerThan || a.SmallerThan != nil && e.Size < *a.SmallerThan {
			return true
		}
	}
	if e.Has&format.HasMtime != 0 {
		if a.NewerThan != nil && e.Mtime.Compare(*a.NewerThan) > 0 || a.OlderThan != nil && e.Mtime.Compare(*a.OlderThan) < 0 {
			return true
		}
	}
	return slices.Contains(a.Types, e.Type) || slices.ContainsFunc(a.Owners, func(owner string) bool {
		return e.User == owner || e.Has&format.HasUID != 0 && strconv.FormatUint(uint64(e.UID), 10) == owner
	})
}
