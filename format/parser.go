package format

// parser turns encoded records into structs, one of each kind, which it uses
// again for every record.
type parser struct {
	header    Header
	snapshot  Snapshot
	entry     Entry
	data      Data
	refs      Refs
	copyRange CopyRange
	hole      Hole
	eof       EOF
	remove    Remove
	commit    Commit
	end       End
	extension Extension
}

// recordHead is what stands before a record's body.
type recordHead struct {
	kind Kind
	size int // bytes up to the body
}

// kinds lets the head of a known kind cost no string.
var kinds = []Kind{
	KindEntry, KindEOF, KindData, KindRefs, KindHole, KindCopy, KindRemove,
	KindHeader, KindSnapshot, KindCommit, KindEnd,
}

// parseHead reads the array's head and the kind. It returns errShort where more
// bytes are needed. An array, a kind or a body of another type than it must
// have is not the shape of a record, so the class is ClassSyntax.
func parseHead(b []byte) (recordHead, error) {
	c := cursor{b: b}
	n := c.array(1<<32 - 1)
	if c.err != nil {
		return recordHead{}, notRecord(c.err)
	}
	if n != 2 && n != 3 {
		return recordHead{}, Errorf(ClassSyntax, "a record is an array of 2 or 3 elements, this has %d", n)
	}
	// The length alone may be over the limit, however many bytes follow.
	if c.i < len(b) && b[c.i] >= mpStr8 && b[c.i] <= mpStr8+2 {
		d := c
		if size, ok := d.number(1 << (b[c.i] - mpStr8)); ok && size > TextSizeMax {
			return recordHead{}, checkSize("kind", int(size), TextSizeMax)
		}
	}
	name := c.str()
	if c.err != nil {
		return recordHead{}, notRecord(c.err)
	}
	h := recordHead{size: c.i}
	for _, k := range kinds {
		if string(name) == string(k) {
			h.kind = k
			break
		}
	}
	if h.kind == "" {
		if e := checkKind(string(name)); e != nil {
			return recordHead{}, e
		}
		h.kind = Kind(name)
	}
	if isData := h.kind == KindData; isData != (n == 3) {
		return recordHead{}, Errorf(ClassSyntax, "a record of the kind %s is an array of %d elements", h.kind, n)
	}
	return h, nil
}

func notRecord(err error) error {
	if e, ok := err.(*Error); ok {
		e.Class = ClassSyntax
		e.Detail = "not a record: " + e.Detail
	}
	return err
}

// parseBody reads the body that follows the head and checks the record; a
// payload is not read. It returns the body's size. The path is one that is known
// to be good, the last before; see checkRecordAfter.
func (p *parser) parseBody(h recordHead, b []byte, goodPath string) (Record, int, error) {
	c := cursor{b: b}
	rec := p.parse(h.kind, &c)
	if c.err != nil {
		if v, ok := peekVersion(h.kind, b); ok {
			return rec, 0, checkVersion(v)
		}
		return rec, 0, c.err
	}
	if c.i > BodySizeMax {
		return rec, 0, Errorf(ClassLimit, "a record's body has more than %d bytes", BodySizeMax)
	}
	if e := checkRecordAfter(rec, goodPath); e != nil {
		return rec, 0, e
	}
	return rec, c.i, nil
}

// peekVersion looks for another version than ours in the body of a header that
// cannot be read: what else a later version changed may be the reason.
func peekVersion(kind Kind, b []byte) (version uint64, other bool) {
	if kind != KindHeader {
		return 0, false
	}
	c := cursor{b: b}
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		if string(c.nextKey()) == "version" {
			version = c.uint(1<<64 - 1)
			return version, c.err == nil && version != Version
		}
		c.skip(DepthMax)
	}
	return 0, false
}

func isMapHead(b byte) bool { return b >= 0x80 && b < 0x90 || b == mpMap16 || b == mpMap32 }

func (p *parser) parse(kind Kind, c *cursor) Record {
	switch kind {
	case KindEntry:
		p.entry.parse(c, true)
		return &p.entry
	case KindEOF:
		p.eof.parse(c)
		return &p.eof
	case KindData:
		p.data.parse(c)
		return &p.data
	case KindRefs:
		p.refs.parse(c)
		return &p.refs
	case KindHole:
		p.hole.parse(c)
		return &p.hole
	case KindCopy:
		p.copyRange.parse(c)
		return &p.copyRange
	case KindRemove:
		p.remove.parse(c)
		return &p.remove
	case KindHeader:
		p.header.parse(c)
		return &p.header
	case KindSnapshot:
		p.snapshot.parse(c)
		return &p.snapshot
	case KindCommit:
		p.commit.parse(c)
		return &p.commit
	case KindEnd:
		p.end.parse(c)
		return &p.end
	}
	p.extension.Name = kind
	p.extension.parse(c)
	return &p.extension
}
