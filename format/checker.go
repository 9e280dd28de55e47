package format

import "math"

// Checker holds a stream to every rule that lies between its records and needs
// no table: the grammar, the features announced, parents, the order of paths,
// sizes, counts and digests (spec/stream.md, "Grammar", "Order", "Digests"). Its
// memory is constant. Reader and Writer each contain one; a program that takes
// records from elsewhere may use one by itself.
//
// It does not know which chunks came before, nor what the parent holds: refs,
// copy and hard links are for the sink to check, payloads for who decodes them.
//
// The zero value is ready for the header of a stream. An error is not sticky:
// after one, the checker must not be used again.
type Checker struct {
	// ListingOnly accepts a stream without content (ExportOptions.ListingOnly):
	// the size in eof is not compared with what came before it.
	ListingOnly bool

	at       place
	features features
	endSum   digest // header and commit records
	snapSum  digest // records of the open snapshot

	snapshots uint64
	last      ID // id of the snapshot before

	// Of the open snapshot:
	unsorted  bool
	hasParent bool
	entries   uint64
	removes   uint64
	data      uint64
	bytes     uint64
	pathLast  string // last path of an entry or a remove
	hasPath   bool
	removed   bool   // pathLast is that of a remove
	leaf      string // last entry that is not a directory
	hasLeaf   bool

	// Of the open file:
	content uint64
}

// place is where in the grammar the stream is.
type place uint8

const (
	atStart    place = iota // before the header
	atTop                   // between snapshots
	atSnapshot              // in a snapshot, where an entry, a remove or a commit may come
	atFile                  // after an entry of a file or its content
	atEnd                   // after the end record
)

// Check takes the next record and what it looked like on the wire: its exact
// bytes, without the payload (for data, up to and not including the third
// element). Digests are made of those bytes. Records that were never on a wire
// come with nil: then counts and digests are not compared, since only a Writer
// fills them in. Errors are *Error.
func (c *Checker) Check(rec Record, wire []byte) error {
	d, isData := rec.(*Data)
	if isData && wire == nil && d.Nameless() {
		if e := checkNameless(d); e != nil {
			return e
		}
	} else if e := checkRecordAfter(rec, c.pathLast); e != nil {
		return e
	}
	if e := c.step(rec, wire); e != nil {
		return e
	}
	return nil
}

// Path returns the path of the last entry or remove, for messages.
func (c *Checker) Path() string { return c.pathLast }

// step checks what lies between records, of a record that is right by itself.
func (c *Checker) step(rec Record, wire []byte) *Error {
	kind := rec.Kind()
	if e := c.checkPlace(rec); e != nil {
		return e
	}
	var e *Error
	switch r := rec.(type) {
	case *Header:
		c.header(r)
	case *Snapshot:
		e = c.snapshot(r)
	case *Entry:
		e = c.entry(r)
	case *Remove:
		e = c.remove(r)
	case *Data:
		c.data++
		if r.Codec == CodecZstd {
			e = c.need(hasZstd, "payloads of the codec zstd")
		}
		e = first(e, c.run(uint64(r.Size)))
	case *Refs:
		if c.features&hasFlat != 0 {
			e = flatError(kind)
		}
		for i := range r.Chunks {
			e = first(e, c.run(uint64(r.Chunks[i].Size)))
		}
	case *CopyRange:
		e = first(c.copyRange(r), c.run(r.Size))
	case *Hole:
		e = c.run(r.Size)
	case *EOF:
		e = c.eof(r)
	case *Commit:
		e = c.commit(r, wire)
	case *End:
		e = c.end(r, wire)
	}
	if e != nil {
		return e
	}
	c.digest(kind, wire)
	if kind == KindCommit {
		c.at = atTop
	}
	return nil
}

// digest adds a record to the digest that covers it. An x- record belongs to
// the one before it: after the header or a commit, end's digest covers it.
func (c *Checker) digest(kind Kind, wire []byte) {
	if wire == nil || kind == KindEnd {
		return
	}
	if kind == KindCommit || c.at == atTop {
		c.endSum.write(wire)
	} else {
		c.snapSum.write(wire)
	}
}

// checkPlace checks the grammar.
func (c *Checker) checkPlace(rec Record) *Error {
	kind := rec.Kind()
	ok := false
	switch rec.(type) {
	case *Header:
		ok = c.at == atStart
	case *Snapshot, *End:
		ok = c.at == atTop
	case *Entry, *Remove, *Commit:
		ok = c.at == atSnapshot
	case *Data, *Refs, *CopyRange, *Hole, *EOF:
		ok = c.at == atFile
	case *Extension:
		ok = c.at != atStart && c.at != atEnd
	}
	if ok {
		return nil
	}
	expected := ""
	switch c.at {
	case atStart:
		expected = "a stream begins with a bk record"
	case atTop:
		expected = "a snapshot or the end must come here"
	case atSnapshot:
		expected = "an entry, a remove or a commit must come here"
	case atFile:
		expected = "the content of the file before is not closed by an eof"
	case atEnd:
		expected = "nothing follows the end"
	}
	return Errorf(ClassGrammar, "a record of the kind %s has no place here: %s", kind, expected)
}

// need checks that a feature was announced by the header.
func (c *Checker) need(feature features, what string) *Error {
	if c.features&feature == 0 {
		return Errorf(ClassFeature, "%s are used, but the header does not announce them", what)
	}
	return nil
}

func flatError(kind Kind) *Error {
	return Errorf(ClassFeature, "%s in a stream that is announced as flat", kind)
}

func (c *Checker) header(h *Header) {
	c.endSum.reset()
	for _, f := range h.Features {
		c.features |= featureBit(f)
	}
	c.at = atTop
}

func (c *Checker) snapshot(s *Snapshot) *Error {
	c.hasParent = !s.Parent.IsZero()
	if c.hasParent {
		switch {
		case c.features&hasFlat != 0:
			return flatError("parent")
		case s.Parent == s.ID:
			return Errorf(ClassParent, "the snapshot %s is its own parent", s.ID)
		case c.snapshots > 0 && s.Parent != c.last:
			return Errorf(ClassParent, "the parent %s is not the snapshot before, %s", s.Parent, c.last)
		case c.snapshots == 0 && c.features&hasBase == 0:
			return Errorf(ClassParent, "the first snapshot has a parent, but the header does not announce a base")
		}
	}
	c.last = s.ID
	c.unsorted = s.Unsorted
	c.entries, c.removes, c.data, c.bytes = 0, 0, 0, 0
	c.pathLast, c.hasPath, c.leaf, c.hasLeaf = "", false, "", false
	c.removed = false
	c.snapSum.reset()
	c.at = atSnapshot
	return nil
}

func (c *Checker) entry(e *Entry) *Error {
	emptied := c.removed && e.Type == TypeDir && c.pathLast == e.Path
	if !emptied {
		if e2 := c.nextPath(e.Path); e2 != nil {
			return e2
		}
	}
	c.removed = false
	if !c.unsorted && c.hasLeaf && IsBelow(e.Path, c.leaf) {
		return Errorf(ClassTree, "the entry lies below %q, which is not a directory", c.leaf)
	}
	if e.Type != TypeDir {
		c.leaf, c.hasLeaf = e.Path, true
	}
	if e.Type == TypeFile {
		c.content = 0
		c.at = atFile
	}
	c.entries++
	return nil
}

func (c *Checker) remove(r *Remove) *Error {
	if c.features&hasFlat != 0 {
		return flatError(KindRemove)
	}
	c.removes++
	if e := c.nextPath(r.Path); e != nil {
		return e
	}
	c.removed = true
	return nil
}

// nextPath checks the order of entries and removes. One path may come twice: a
// remove and then an entry of a directory say that it begins empty, which no
// single record can.
func (c *Checker) nextPath(path string) *Error {
	if !c.unsorted && c.hasPath {
		if order := ComparePaths(c.pathLast, path); order == 0 {
			return Errorf(ClassOrder, "the path comes twice")
		} else if order > 0 {
			return Errorf(ClassOrder, "the path comes after %q", c.pathLast)
		}
	}
	c.pathLast, c.hasPath = path, true
	return nil
}

// run adds a run of content.
func (c *Checker) run(size uint64) *Error {
	if size > FileSizeMax-c.content {
		return Errorf(ClassLimit, "the content of the file is more than 2^63-1 bytes")
	}
	c.content += size
	return nil
}

func (c *Checker) copyRange(r *CopyRange) *Error {
	if c.features&hasFlat != 0 {
		return flatError(KindCopy)
	}
	if e := c.need(hasCopy, "copy records"); e != nil {
		return e
	}
	if !c.hasParent {
		return Errorf(ClassReference, "a copy in a snapshot that has no parent")
	}
	return nil
}

func (c *Checker) eof(e *EOF) *Error {
	if e.Size != c.content && !c.ListingOnly {
		return Errorf(ClassCount, "the eof says %d bytes, but the content has %d", e.Size, c.content)
	}
	if e.Size > math.MaxUint64-c.bytes {
		return Errorf(ClassLimit, "the files of the snapshot are more than 2^64-1 bytes")
	}
	c.bytes += e.Size
	c.at = atSnapshot
	return nil
}

// fillCommit puts what was counted into m.
func (c *Checker) fillCommit(m *Commit) {
	m.Entries, m.Removes, m.Data, m.Bytes = c.entries, c.removes, c.data, c.bytes
	m.Digest = c.snapSum.id()
}

// fillEnd puts what was counted into e.
func (c *Checker) fillEnd(e *End) {
	e.Snapshots = c.snapshots
	e.Digest = c.endSum.id()
}

func (c *Checker) commit(m *Commit, wire []byte) *Error {
	c.snapshots++
	if wire == nil {
		return nil
	}
	for _, n := range [...]struct {
		name       string
		said, came uint64
	}{
		{"entries", m.Entries, c.entries}, {"removes", m.Removes, c.removes},
		{"data", m.Data, c.data}, {"bytes", m.Bytes, c.bytes},
	} {
		if n.said != n.came {
			return Errorf(ClassCount, "the commit says %s: %d, but %d came", n.name, n.said, n.came)
		}
	}
	if digest := c.snapSum.id(); m.Digest != digest {
		return Errorf(ClassDigest, "the commit says the digest %s, but the records have %s", m.Digest, digest)
	}
	return nil
}

func (c *Checker) end(e *End, wire []byte) *Error {
	c.at = atEnd
	if wire == nil {
		return nil
	}
	if e.Snapshots != c.snapshots {
		return Errorf(ClassCount, "the end says snapshots: %d, but %d came", e.Snapshots, c.snapshots)
	}
	if digest := c.endSum.id(); e.Digest != digest {
		return Errorf(ClassDigest, "the end says the digest %s, but the records have %s", e.Digest, digest)
	}
	return nil
}
