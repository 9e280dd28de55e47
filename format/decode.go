package format

// The parse methods read a body, the map of a record, into a record that may
// have been used before: its slices are used again, and a string that did not
// change since then is kept, so that owners, groups and the names of attributes
// cost nothing for entry after entry.
//
// Any valid msgpack form of a value is accepted, in any order of keys. A key
// that comes twice is an error; an unknown one is kept in Extra. The parse
// methods check types; what values may be is checked afterwards by checkRecord.

// ParseBody reads a body that AppendBody wrote, and returns the bytes behind
// it. Its strings are copies, but slices of e are used again and so overwritten.
// The entry is checked as one in a stream is; errors are *Error.
func (e *Entry) ParseBody(b []byte, withPath bool) (rest []byte, err error) {
	c := cursor{b: b}
	e.parse(&c, withPath)
	if c.err == nil {
		check := checkEntry
		if !withPath {
			check = checkEntryBody
		}
		if err := check(e); err != nil {
			return b, err
		}
	}
	return c.restOf()
}

// ParseBody reads a body that AppendBody wrote, and returns the bytes behind
// it, as the method of Entry does.
func (s *Snapshot) ParseBody(b []byte) (rest []byte, err error) {
	c := cursor{b: b}
	s.parse(&c)
	if c.err == nil {
		if err := checkSnapshot(s); err != nil {
			return b, err
		}
	}
	return c.restOf()
}

// ParseBody reads a body that AppendBody wrote, and returns the bytes behind
// it, as the method of Entry does.
func (e *EOF) ParseBody(b []byte) (rest []byte, err error) {
	c := cursor{b: b}
	e.parse(&c)
	return c.restOf()
}

// restOf returns the bytes behind a body that stood alone in a buffer.
func (c *cursor) restOf() ([]byte, error) {
	switch {
	case c.err == errShort:
		return c.b, Errorf(ClassCut, "the bytes end inside a record's body")
	case c.err != nil:
		return c.b, c.err
	case c.i > BodySizeMax:
		return c.b, Errorf(ClassLimit, "a record's body has more than %d bytes", BodySizeMax)
	}
	return c.b[c.i:], nil
}

// sortedExtra puts unknown keys into order and refuses one that comes twice.
func (c *cursor) sortedExtra(extra []Field) {
	if len(extra) < 2 || c.err != nil {
		return
	}
	sortExtra(extra)
	for i := 1; i < len(extra); i++ {
		if extra[i].Key == extra[i-1].Key {
			c.key = nil
			c.fail(ClassField, "the key %q comes twice", extra[i].Key)
			return
		}
	}
}

// texts reads an array of bin into list, whose strings may be used again.
func (c *cursor) texts(list []string, limit int) []string {
	old := list[:cap(list)]
	list = list[:0]
	for n := c.array(limit); n > 0 && c.err == nil; n-- {
		list = append(list, c.text(oldString(old, len(list))))
	}
	return list
}

// words reads an array of str, like texts.
func (c *cursor) words(list []string, limit int) []string {
	old := list[:cap(list)]
	list = list[:0]
	for n := c.array(limit); n > 0 && c.err == nil; n-- {
		list = append(list, c.word(oldString(old, len(list))))
	}
	return list
}

func oldString(old []string, i int) string {
	if i < len(old) {
		return old[i]
	}
	return ""
}

const (
	seenVersion keySet = 1 << iota
	seenProducer
	seenCreated
	seenFeatures
)

func (h *Header) parse(c *cursor) {
	*h = Header{}
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "version":
			c.once(&seen, seenVersion)
			h.Version = c.uint(1<<64 - 1)
		case "producer":
			c.once(&seen, seenProducer)
			h.Producer = c.text("")
		case "created":
			c.once(&seen, seenCreated)
			h.Created = new(c.time())
		case "features":
			c.once(&seen, seenFeatures)
			for _, w := range c.words(nil, FeaturesMax) {
				h.Features = append(h.Features, Feature(w))
			}
		default:
			c.extra(&h.Extra)
		}
	}
	c.require(seen, seenVersion, "version")
	c.sortedExtra(h.Extra)
}

const (
	seenID keySet = 1 << iota
	seenParent
	seenTime
	seenHost
	seenUser
	seenRoots
	seenTags
	seenComment
	seenOrigin
	seenVia
	seenSorted
	seenUnstable
	seenEstimate
)

func (s *Snapshot) parse(c *cursor) {
	*s = Snapshot{Host: s.Host, User: s.User, Roots: s.Roots[:0], Tags: s.Tags[:0], Comment: s.Comment, Via: s.Via[:0], Extra: s.Extra[:0]}
	host, user, comment := s.Host, s.User, s.Comment
	s.Host, s.User, s.Comment = "", "", ""
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "id":
			c.once(&seen, seenID)
			c.id(&s.ID)
		case "parent":
			c.once(&seen, seenParent)
			c.id(&s.Parent)
		case "time":
			c.once(&seen, seenTime)
			s.Time = new(c.time())
		case "host":
			c.once(&seen, seenHost)
			s.Host = c.text(host)
		case "user":
			c.once(&seen, seenUser)
			s.User = c.text(user)
		case "roots":
			c.once(&seen, seenRoots)
			s.Roots = c.texts(s.Roots, RootsMax)
		case "tags":
			c.once(&seen, seenTags)
			s.Tags = c.texts(s.Tags, TagsMax)
		case "comment":
			c.once(&seen, seenComment)
			s.Comment = c.text(comment)
		case "origin":
			c.once(&seen, seenOrigin)
			s.Origin = new(Origin)
			s.Origin.parse(c)
		case "via":
			c.once(&seen, seenVia)
			for n := c.array(ViaMax); n > 0 && c.err == nil; n-- {
				s.Via = append(s.Via, Via{})
				s.Via[len(s.Via)-1].parse(c)
			}
		case "sorted":
			c.once(&seen, seenSorted)
			s.Unsorted = !c.bool()
		case "unstable":
			c.once(&seen, seenUnstable)
			s.Unstable = c.bool()
		case "estimate":
			c.once(&seen, seenEstimate)
			s.Estimate = new(Estimate)
			s.Estimate.parse(c)
		default:
			c.extra(&s.Extra)
		}
	}
	c.require(seen, seenID, "id")
	c.sortedExtra(s.Extra)
}

const (
	seenSystem keySet = 1 << iota
	seenRepository
	seenOriginID
)

func (o *Origin) parse(c *cursor) {
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "system":
			c.once(&seen, seenSystem)
			o.System = c.word("")
		case "repository":
			c.once(&seen, seenRepository)
			o.Repository = c.text("")
		case "id":
			c.once(&seen, seenOriginID)
			o.ID = c.text("")
		default:
			c.extra(&o.Extra)
		}
	}
	c.require(seen, seenSystem, "system")
	c.sortedExtra(o.Extra)
}

const (
	seenStage keySet = 1 << iota
	seenFrom
)

func (v *Via) parse(c *cursor) {
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "stage":
			c.once(&seen, seenStage)
			v.Stage = c.text("")
		case "from":
			c.once(&seen, seenFrom)
			c.id(&v.From)
		default:
			c.extra(&v.Extra)
		}
	}
	c.require(seen, seenStage, "stage")
	c.require(seen, seenFrom, "from")
	c.sortedExtra(v.Extra)
}

const (
	seenEntries keySet = 1 << iota
	seenBytes
	seenRemoves
	seenData
	seenLosses
	seenDigest
	seenSnapshots
)

func (e *Estimate) parse(c *cursor) {
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "entries":
			c.once(&seen, seenEntries)
			e.Entries = c.uint(1<<64 - 1)
		case "bytes":
			c.once(&seen, seenBytes)
			e.Bytes = c.uint(1<<64 - 1)
		default:
			c.extra(&e.Extra)
		}
	}
	c.sortedExtra(e.Extra)
}

func (r *Remove) parse(c *cursor) {
	*r = Remove{Extra: r.Extra[:0]}
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "path":
			c.once(&seen, 1)
			r.Path = c.text("")
		default:
			c.extra(&r.Extra)
		}
	}
	c.require(seen, 1, "path")
	c.sortedExtra(r.Extra)
}

func (m *Commit) parse(c *cursor) {
	*m = Commit{}
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "entries":
			c.once(&seen, seenEntries)
			m.Entries = c.uint(1<<64 - 1)
		case "removes":
			c.once(&seen, seenRemoves)
			m.Removes = c.uint(1<<64 - 1)
		case "data":
			c.once(&seen, seenData)
			m.Data = c.uint(1<<64 - 1)
		case "bytes":
			c.once(&seen, seenBytes)
			m.Bytes = c.uint(1<<64 - 1)
		case "losses":
			c.once(&seen, seenLosses)
			for n := c.array(LossesMax); n > 0 && c.err == nil; n-- {
				m.Losses = append(m.Losses, Loss{})
				m.Losses[len(m.Losses)-1].parse(c)
			}
		case "digest":
			c.once(&seen, seenDigest)
			c.id(&m.Digest)
		default:
			c.extra(&m.Extra)
		}
	}
	c.require(seen, seenEntries, "entries")
	c.require(seen, seenRemoves, "removes")
	c.require(seen, seenData, "data")
	c.require(seen, seenBytes, "bytes")
	c.require(seen, seenDigest, "digest")
	c.sortedExtra(m.Extra)
}

const (
	seenLossKind keySet = 1 << iota
	seenLossCount
	seenLossPaths
)

func (l *Loss) parse(c *cursor) {
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "kind":
			c.once(&seen, seenLossKind)
			l.Kind = c.word("")
		case "count":
			c.once(&seen, seenLossCount)
			l.Count = c.uint(1<<64 - 1)
		case "paths":
			c.once(&seen, seenLossPaths)
			l.Paths = c.texts(nil, LossPathsMax)
		default:
			c.extra(&l.Extra)
		}
	}
	c.require(seen, seenLossKind, "kind")
	c.require(seen, seenLossCount, "count")
	c.sortedExtra(l.Extra)
}

func (e *End) parse(c *cursor) {
	*e = End{}
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "snapshots":
			c.once(&seen, seenSnapshots)
			e.Snapshots = c.uint(1<<64 - 1)
		case "digest":
			c.once(&seen, seenDigest)
			c.id(&e.Digest)
		default:
			c.extra(&e.Extra)
		}
	}
	c.require(seen, seenSnapshots, "snapshots")
	c.require(seen, seenDigest, "digest")
	c.sortedExtra(e.Extra)
}

// parse keeps every key of an extension's body as it came.
func (x *Extension) parse(c *cursor) {
	x.Body = x.Body[:0]
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		c.nextKey()
		c.extra(&x.Body)
	}
	c.sortedExtra(x.Body)
}
