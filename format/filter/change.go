package filter

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bk-backup/bk/format"
)

// Changes are what a filter alters in records that pass. Payloads are not
// touched.
//
// A path is moved by the longest prefix that is renamed. Nothing may be where
// another path moves to, but the directories on the way to it, which give way;
// such a path is an error, since a listing cannot hold both. Renaming any prefix
// but the root leaves snapshots unsorted, for the receiver to sort.
type Changes struct {
	DropXattrs  []string // patterns for names of extended attributes: * ? [a-z], * takes any byte
	SetHost     string
	AddTags     []string
	Owner       *Owner
	StripPrefix string   // this path becomes the root; what lies elsewhere is dropped
	Renames     []Rename // after StripPrefix
}

// Owner is who entries shall belong to. A side that is set by name has no
// number then, and the other way round: the receiver cannot take the wrong one.
type Owner struct {
	SetUser, SetGroup     bool
	User, Group           string // names; "" where numbers are given
	UID, GID              uint32
	HasUserID, HasGroupID bool
}

// ParseOwner reads USER, USER:GROUP or :GROUP, each a name or a number.
func ParseOwner(text string) (*Owner, error) {
	user, group, _ := strings.Cut(text, ":")
	o := &Owner{SetUser: user != "", SetGroup: group != ""}
	if !o.SetUser && !o.SetGroup || strings.Contains(group, ":") {
		return nil, fmt.Errorf("%q is no owner: write USER, USER:GROUP or :GROUP, by name or number", text)
	}
	if n, err := strconv.ParseUint(user, 10, 32); err == nil {
		o.UID, o.HasUserID = uint32(n), true
	} else {
		o.User = user
	}
	if n, err := strconv.ParseUint(group, 10, 32); err == nil {
		o.GID, o.HasGroupID = uint32(n), true
	} else {
		o.Group = group
	}
	if len(o.User) > format.TextSizeMax || len(o.Group) > format.TextSizeMax {
		return nil, fmt.Errorf("a name of an owner has more than %d bytes", format.TextSizeMax)
	}
	return o, nil
}

// texts describe the owner exactly.
func (o *Owner) texts() []string {
	side := func(set, byID bool, id uint32, name string) []string {
		switch {
		case !set:
			return []string{"", ""}
		case byID:
			return []string{"number", strconv.FormatUint(uint64(id), 10)}
		}
		return []string{"name", name}
	}
	return append(side(o.SetUser, o.HasUserID, o.UID, o.User), side(o.SetGroup, o.HasGroupID, o.GID, o.Group)...)
}

func (o *Owner) apply(e *format.Entry) {
	set := func(bit format.Has, has bool) {
		if e.Has &^= bit; has {
			e.Has |= bit
		}
	}
	if o.SetUser {
		e.User, e.UID = o.User, o.UID
		set(format.HasUID, o.HasUserID)
	}
	if o.SetGroup {
		e.Group, e.GID = o.Group, o.GID
		set(format.HasGID, o.HasGroupID)
	}
}

// changeStage alters snapshots and entries, but not their paths.
type changeStage struct {
	changes  *Changes
	xattrs   []glob
	snapshot format.Snapshot
	entry    format.Entry
}

func newChangeStage(c *Changes) (*changeStage, error) {
	s := &changeStage{changes: c}
	for _, pattern := range c.DropXattrs {
		tokens, err := parseTokens(pattern, false)
		if err != nil {
			return nil, fmt.Errorf("pattern %q for extended attributes %w", pattern, err)
		}
		s.xattrs = append(s.xattrs, shapeOf(tokens))
	}
	if len(c.SetHost) > format.TextSizeMax {
		return nil, fmt.Errorf("the host to set has more than %d bytes", format.TextSizeMax)
	}
	for _, tag := range c.AddTags {
		if tag == "" || len(tag) > format.TextSizeMax {
			return nil, fmt.Errorf("a tag to add has 1 to %d bytes, not %d", format.TextSizeMax, len(tag))
		}
	}
	return s, nil
}

// Process takes one record.
func (s *changeStage) Process(rec format.Record, emit func(format.Record) error) error {
	switch r := rec.(type) {
	case *format.Snapshot:
		return emit(s.changeSnapshot(r))
	case *format.Entry:
		return emit(s.changeEntry(r))
	}
	return emit(rec)
}

func (s *changeStage) changeSnapshot(r *format.Snapshot) *format.Snapshot {
	if s.changes.SetHost == "" && len(s.changes.AddTags) == 0 {
		return r
	}
	s.snapshot = *r
	if s.changes.SetHost != "" {
		s.snapshot.Host = s.changes.SetHost
	}
	s.snapshot.Tags = slices.Clone(r.Tags)
	for _, tag := range s.changes.AddTags {
		if !slices.Contains(s.snapshot.Tags, tag) {
			s.snapshot.Tags = append(s.snapshot.Tags, tag)
		}
	}
	return &s.snapshot
}

func (s *changeStage) changeEntry(r *format.Entry) *format.Entry {
	gone := func(x format.Xattr) bool {
		return slices.ContainsFunc(s.xattrs, func(g glob) bool { return g.match(x.Name) })
	}
	dropXattr := slices.ContainsFunc(r.Xattrs, gone)
	if !dropXattr && s.changes.Owner == nil {
		return r
	}
	s.entry = *r
	if dropXattr {
		s.entry.Xattrs = slices.DeleteFunc(slices.Clone(r.Xattrs), gone)
	}
	if s.changes.Owner != nil {
		s.changes.Owner.apply(&s.entry)
	}
	return &s.entry
}
