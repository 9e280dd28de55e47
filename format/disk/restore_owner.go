//go:build linux

package disk

import (
	"os/user"
	"slices"
	"strconv"

	"github.com/bk-backup/bk/format"
)

// ownerIDs finds the numbers of owners on this system. It is for one goroutine.
type ownerIDs struct {
	numeric       bool
	users, groups nameIDs
}

// nameIDs remembers what names mean here.
type nameIDs struct {
	lookup func(name string) (uint32, bool)
	known  map[string]int // -1: no such name
	name   string         // the last one asked for
	id     int
}

func newOwnerIDs(opts *RestoreOptions) ownerIDs {
	o := ownerIDs{numeric: opts.NumericOwner}
	o.users = nameIDs{lookup: opts.LookupUser, known: make(map[string]int)}
	o.groups = nameIDs{lookup: opts.LookupGroup, known: make(map[string]int)}
	if o.users.lookup == nil {
		o.users.lookup = func(name string) (uint32, bool) {
			u, err := user.Lookup(name)
			if err != nil {
				return 0, false
			}
			return parseID(u.Uid)
		}
	}
	if o.groups.lookup == nil {
		o.groups.lookup = func(name string) (uint32, bool) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return 0, false
			}
			return parseID(g.Gid)
		}
	}
	return o
}

func parseID(s string) (uint32, bool) {
	id, err := strconv.ParseUint(s, 10, 32)
	return uint32(id), err == nil
}

// resolve returns the number to set: that of the name, if it exists here, else
// the one that was recorded, else -1.
func (n *nameIDs) resolve(name string, id uint32, has bool) int {
	if name != "" {
		if n.name != name {
			n.name, n.id = name, n.find(name)
		}
		if n.id >= 0 {
			return n.id
		}
	}
	if has {
		return int(id)
	}
	return -1
}

func (n *nameIDs) find(name string) int {
	if id, ok := n.known[name]; ok {
		return id
	}
	id := -1
	if v, ok := n.lookup(name); ok {
		id = int(v)
	}
	// A stream of ever new names does not fill the memory.
	if len(n.known) < 10000 {
		n.known[name] = id
	}
	return id
}

// metadataOf takes from an entry what a restore sets.
func (r *Restore) metadataOf(e *format.Entry) *metadata {
	user, group := e.User, e.Group
	if r.owners.numeric {
		user, group = "", ""
	}
	return &metadata{
		has:    e.Has,
		mode:   e.Mode & 07777,
		uid:    r.owners.users.resolve(user, e.UID, e.Has&format.HasUID != 0),
		gid:    r.owners.groups.resolve(group, e.GID, e.Has&format.HasGID != 0),
		mtime:  e.Mtime,
		atime:  e.Atime,
		xattrs: slices.Clone(e.Xattrs),
		flags:  slices.Clone(e.Flags),
	}
}
