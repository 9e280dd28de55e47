package format

import "slices"

// Clone returns a copy of rec that shares no slice, map or pointer with it and
// may be kept. A payload is copied too, into a buffer of AllocPayload.
func Clone(rec Record) Record {
	switch r := rec.(type) {
	case *Header:
		return r.Clone()
	case *Snapshot:
		return r.Clone()
	case *Entry:
		return r.Clone()
	case *Data:
		c := *r
		c.taken = false
		c.Extra = cloneExtra(r.Extra)
		if r.Payload != nil {
			c.Payload = AllocPayload(len(r.Payload))
			copy(c.Payload, r.Payload)
		}
		return &c
	case *Refs:
		return &Refs{Chunks: slices.Clone(r.Chunks), Extra: cloneExtra(r.Extra)}
	case *CopyRange:
		c := *r
		c.Extra = cloneExtra(r.Extra)
		return &c
	case *Hole:
		return &Hole{Size: r.Size, Extra: cloneExtra(r.Extra)}
	case *EOF:
		return &EOF{Size: r.Size, SHA256: clonePointer(r.SHA256), Error: r.Error, Extra: cloneExtra(r.Extra)}
	case *Remove:
		return &Remove{Path: r.Path, Extra: cloneExtra(r.Extra)}
	case *Commit:
		return r.Clone()
	case *End:
		c := *r
		c.Extra = cloneExtra(r.Extra)
		return &c
	case *Extension:
		return &Extension{Name: r.Name, Body: cloneExtra(r.Body)}
	}
	return rec
}

// Clone returns a copy that may be kept.
func (h *Header) Clone() *Header {
	c := *h
	c.Created = clonePointer(h.Created)
	c.Features = slices.Clone(h.Features)
	c.Extra = cloneExtra(h.Extra)
	return &c
}

// Clone returns a copy that may be kept.
func (s *Snapshot) Clone() *Snapshot {
	c := *s
	c.Time = clonePointer(s.Time)
	c.Roots = slices.Clone(s.Roots)
	c.Tags = slices.Clone(s.Tags)
	c.Via = slices.Clone(s.Via)
	for i := range c.Via {
		c.Via[i].Extra = cloneExtra(c.Via[i].Extra)
	}
	if c.Origin = clonePointer(s.Origin); c.Origin != nil {
		c.Origin.Extra = cloneExtra(c.Origin.Extra)
	}
	if c.Estimate = clonePointer(s.Estimate); c.Estimate != nil {
		c.Estimate.Extra = cloneExtra(c.Estimate.Extra)
	}
	c.Extra = cloneExtra(s.Extra)
	return &c
}

// Clone returns a copy that may be kept.
func (e *Entry) Clone() *Entry {
	c := *e
	c.Xattrs = slices.Clone(e.Xattrs)
	c.Flags = slices.Clone(e.Flags)
	c.Extents = slices.Clone(e.Extents)
	c.Extra = cloneExtra(e.Extra)
	return &c
}

// Clone returns a copy that may be kept.
func (m *Commit) Clone() *Commit {
	c := *m
	c.Losses = slices.Clone(m.Losses)
	for i := range c.Losses {
		c.Losses[i].Paths = slices.Clone(c.Losses[i].Paths)
		c.Losses[i].Extra = cloneExtra(c.Losses[i].Extra)
	}
	c.Extra = cloneExtra(m.Extra)
	return &c
}

func cloneExtra(extra []Field) []Field {
	c := slices.Clone(extra)
	for i := range c {
		c[i].Raw = slices.Clone(c[i].Raw)
	}
	return c
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

// hasInformative are the numbers that are no part of equality.
const hasInformative = HasAtime | HasCtime | HasBtime | HasInode | HasLinks

// Equal reports whether two entries say the same of an object, whatever its
// path: the informative keys (atime, ctime, btime, inode, links, chunker) are
// not compared, unknown keys are.
func (e *Entry) Equal(other *Entry) bool {
	if e.Has&^hasInformative != other.Has&^hasInformative {
		return false
	}
	has := func(bit Has) bool { return e.Has&bit != 0 }
	return e.Type == other.Type &&
		(!has(HasMode) || e.Mode == other.Mode) &&
		(!has(HasUID) || e.UID == other.UID) &&
		(!has(HasGID) || e.GID == other.GID) &&
		(!has(HasMtime) || e.Mtime == other.Mtime) &&
		(!has(HasSize) || e.Size == other.Size) &&
		e.User == other.User && e.Group == other.Group &&
		e.Target == other.Target && e.Rdev == other.Rdev && e.Hardlink == other.Hardlink &&
		slices.Equal(e.Xattrs, other.Xattrs) && slices.Equal(e.Flags, other.Flags) &&
		slices.Equal(e.Extents, other.Extents) &&
		slices.EqualFunc(e.Extra, other.Extra, func(a, b Field) bool {
			return a.Key == b.Key && string(a.Raw) == string(b.Raw)
		})
}
