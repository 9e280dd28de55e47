package format

// The bodies of the records that a file's content is made of.

const (
	seenSize keySet = 1 << iota
	seenCodec
	seenOnce
	seenContentID
	seenOffset
	seenCopyFrom
	seenSHA256
	seenError
	seenChunks
)

// parse reads the body; the payload is not part of it.
func (d *Data) parse(c *cursor) {
	*d = Data{Codec: CodecNone, Extra: d.Extra[:0]}
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "id":
			c.once(&seen, seenContentID)
			c.id(&d.ID)
		case "size":
			c.once(&seen, seenSize)
			d.Size = uint32(c.uint(1<<32 - 1))
		case "codec":
			c.once(&seen, seenCodec)
			d.Codec = Codec(c.word(string(CodecZstd)))
		case "once":
			c.once(&seen, seenOnce)
			d.Once = c.bool()
		default:
			c.extra(&d.Extra)
		}
	}
	c.require(seen, seenContentID, "id")
	c.require(seen, seenSize, "size")
	c.sortedExtra(d.Extra)
}

func (r *Refs) parse(c *cursor) {
	*r = Refs{Chunks: r.Chunks[:0], Extra: r.Extra[:0]}
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "chunks":
			c.once(&seen, seenChunks)
			for n := c.array(RefsMax); n > 0 && c.err == nil; n-- {
				r.Chunks = append(r.Chunks, ChunkRef{})
				ref := &r.Chunks[len(r.Chunks)-1]
				c.arrayOf(2)
				c.id(&ref.ID)
				ref.Size = uint32(c.uint(1<<32 - 1))
			}
		default:
			c.extra(&r.Extra)
		}
	}
	c.require(seen, seenChunks, "chunks")
	c.sortedExtra(r.Extra)
}

func (r *CopyRange) parse(c *cursor) {
	*r = CopyRange{Extra: r.Extra[:0]}
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "offset":
			c.once(&seen, seenOffset)
			r.Offset = c.uint(1<<64 - 1)
		case "size":
			c.once(&seen, seenSize)
			r.Size = c.uint(1<<64 - 1)
		case "from":
			c.once(&seen, seenCopyFrom)
			r.From, r.HasFrom = c.text(""), true
		default:
			c.extra(&r.Extra)
		}
	}
	c.require(seen, seenOffset, "offset")
	c.require(seen, seenSize, "size")
	c.sortedExtra(r.Extra)
}

func (h *Hole) parse(c *cursor) {
	*h = Hole{Extra: h.Extra[:0]}
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "size":
			c.once(&seen, seenSize)
			h.Size = c.uint(1<<64 - 1)
		default:
			c.extra(&h.Extra)
		}
	}
	c.require(seen, seenSize, "size")
	c.sortedExtra(h.Extra)
}

func (e *EOF) parse(c *cursor) {
	*e = EOF{Extra: e.Extra[:0]}
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "size":
			c.once(&seen, seenSize)
			e.Size = c.uint(1<<64 - 1)
		case "sha256":
			c.once(&seen, seenSHA256)
			e.SHA256 = new(ID)
			c.id(e.SHA256)
		case "error":
			c.once(&seen, seenError)
			e.Error = c.text("")
		default:
			c.extra(&e.Extra)
		}
	}
	c.require(seen, seenSize, "size")
	c.sortedExtra(e.Extra)
}
