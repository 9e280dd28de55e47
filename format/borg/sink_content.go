package borg

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

const (
	// partSizeMax is the greatest chunk that is stored in one object. The stream
	// has greater ones, of which borg would not take an object.
	partSizeMax = 16 << 20
	// holeSize is how much of a hole is one chunk of zeros.
	holeSize = 8 << 20
	// holesSizeMax bounds the holes of a file: each 8 MiB take a place in its list
	// of chunks.
	holesSizeMax = 1 << 46
	// chunksMax bounds the chunks of a file, whose list is part of one item.
	chunksMax = 1 << 20
)

// packed is a chunk ready to be stored.
type packed struct {
	id      objectID
	size    uint32
	content []byte // compressed, with the codec in front; nil if the repository has it
	known   chunkRef
}

// decode begins to take a chunk: others decode and compress it meanwhile.
func (s *Sink) decode(r *format.Data) error {
	d := r.Detach()
	weight := int(d.Size) + len(d.Payload)
	if s.cut != nil {
		return s.decodeToCut(d)
	}
	var parts []packed
	return s.arrive.do(2*weight, func() (err error) {
		parts, err = s.packData(d)
		format.FreePayload(d.Payload)
		return err
	}, func() error {
		s.progress.Bytes += uint64(d.Size)
		refs := make([]chunkRef, len(parts))
		for i := range parts {
			ref, err := s.store(&parts[i])
			if err != nil {
				return err
			}
			refs[i] = ref
			if err := s.cur.file.add(ref); err != nil {
				return err
			}
		}
		return s.sent.put(d.ID, d.Size, refs)
	})
}

// decodeToCut begins to take a chunk that is to be cut anew. What is too small to
// be cut can be stored as it came, if nothing else is in its file.
func (s *Sink) decodeToCut(d *format.Data) error {
	keep := d.Codec == format.CodecZstd && !s.opts.Compression.again && int(d.Size) <= s.cut.splitter.Min()
	var plain, frame []byte
	return s.arrive.do(int(d.Size)+len(d.Payload), func() (err error) {
		if keep && saysSize(d.Payload) {
			frame = append([]byte(nil), d.Payload...)
		}
		plain, err = format.DecodeTaken(d)
		return err
	}, func() error {
		s.progress.Bytes += uint64(d.Size)
		return s.cut.data(d, plain, frame)
	})
}

// packData decodes a chunk, and compresses it unless the repository has it.
func (s *Sink) packData(d *format.Data) ([]packed, error) {
	plain, err := format.DecodePayload(nil, d)
	if err != nil {
		return nil, err
	}
	defer format.FreePayload(plain)
	if len(plain) <= partSizeMax {
		var frame []byte
		if d.Codec == format.CodecZstd && !s.opts.Compression.again && saysSize(d.Payload) {
			frame = d.Payload
		}
		p, err := s.packPart(plain, frame)
		return []packed{p}, err
	}
	var parts []packed
	for rest := plain; len(rest) > 0; {
		part := rest[:min(partSizeMax, len(rest))]
		p, err := s.packPart(part, nil)
		if err != nil {
			return nil, err
		}
		parts, rest = append(parts, p), rest[len(part):]
	}
	return parts, nil
}

// packPart compresses a chunk unless the repository has it; frame is what it came
// as, if that is kept.
func (s *Sink) packPart(plain, frame []byte) (p packed, err error) {
	p = packed{id: s.r.keys.id(plain), size: uint32(len(plain))}
	at, ok, err := s.r.locate(s.ctx, p.id)
	if err != nil {
		return p, err
	}
	if ok {
		if csize, ok := s.objectSize(p.id, at); ok {
			p.known = chunkRef{id: p.id, size: p.size, csize: csize}
			return p, nil
		}
	}
	if frame != nil {
		p.content = keepFrame(frame)
		return p, nil
	}
	p.content, err = s.opts.Compression.packContent(plain)
	return p, err
}

// objectSize returns the size of an object that the repository held before. What
// cannot be read counts as missing, and is stored again.
func (s *Sink) objectSize(id objectID, at place) (uint32, bool) {
	var b [putHeadSize]byte
	if s.r.segmentSize(at.segment)-int64(at.offset) < int64(len(b)) {
		return 0, false
	}
	if err := s.r.store.ReadAt(s.ctx, s.r.segmentName(at.segment), b[:], int64(at.offset)); err != nil {
		return 0, false
	}
	h, err := parseEntryHead(b[:])
	if err != nil || h.tag != tagPut || h.id != id {
		return 0, false
	}
	return h.size - uint32(putHeadSize), true
}

// store appends a chunk to the log, unless it is there.
func (s *Sink) store(p *packed) (chunkRef, error) {
	if p.content == nil {
		return p.known, nil
	}
	defer format.FreePayload(p.content)
	ref := chunkRef{id: p.id, size: p.size}
	at, ok, err := s.addedPlace(p.id)
	if err != nil {
		return ref, err
	}
	if ok {
		h, _, err := s.log.read(at)
		if err != nil {
			return ref, err
		}
		if h.id == p.id {
			ref.csize = h.size - uint32(putHeadSize)
			return ref, nil
		}
	}
	if ref.csize, err = s.put(&p.id, p.content); err != nil {
		return ref, err
	}
	s.sum.NewChunks++
	s.sum.NewBytes += uint64(p.size)
	return ref, s.garbage.store(&p.id)
}

// addedPlace says where an object lies that was written now.
func (s *Sink) addedPlace(id objectID) (place, bool, error) {
	number, ok, err := s.added.Get(spillKey(&id))
	return placeOf(number), ok, err
}

// put encrypts and appends an object, and returns its size.
func (s *Sink) put(id *objectID, content []byte) (uint32, error) {
	iv := uint64(0)
	if s.nonces != nil {
		var err error
		if iv, err = s.nonces.take(len(content)); err != nil {
			return 0, err
		}
	}
	object := s.r.keys.appendObject(format.AllocPayload(len(content) + envelopeSize)[:0], content, iv)
	defer format.FreePayload(object)
	at, err := s.log.append(tagPut, id, object)
	if err != nil {
		return 0, err
	}
	s.sum.Stored += int64(len(object))
	return uint32(len(object)), s.added.Put(spillKey(id), at.number())
}

// putPlain stores an object of metadata, unless it is there.
func (s *Sink) putPlain(plain []byte) (objectID, error) {
	p, err := s.packPart(plain, nil)
	if err != nil || p.content == nil {
		return p.id, err
	}
	defer format.FreePayload(p.content)
	if _, ok, err := s.addedPlace(p.id); err != nil || ok {
		return p.id, err
	}
	_, err = s.put(&p.id, p.content)
	return p.id, err
}

// plain returns the content of a chunk that the repository holds or that was
// stored now, in a buffer of format.AllocPayload.
func (s *Sink) plain(ref chunkRef) ([]byte, error) {
	at, ok, err := s.addedPlace(ref.id)
	if err != nil {
		return nil, err
	}
	var object []byte
	if ok {
		_, object, err = s.log.read(at)
	} else {
		object, _, err = s.r.object(s.ctx, ref.id, ref.csize)
	}
	if err != nil {
		return nil, err
	}
	plain, _, err := s.r.keys.openChunk(ref.id, ref.size, object)
	if err != nil {
		return nil, fmt.Errorf("read back chunk %s: %w", ref.id, err)
	}
	return plain, nil
}

// add appends a chunk that is stored to the content of a file.
func (f *filling) add(ref chunkRef) error {
	if len(f.chunks) >= chunksMax {
		return fmt.Errorf("%q has more than %d chunks, which borg would have to hold as one item: have it cut into greater ones with --chunker buzhash", "/"+f.entry.Path, chunksMax)
	}
	f.chunks = append(f.chunks, ref)
	f.size += uint64(ref.size)
	return nil
}

// refs takes chunks that came before in the stream.
func (s *Sink) refs(r *format.Refs) error {
	for _, ref := range r.Chunks {
		var err error
		if s.cut != nil {
			err = s.cut.ref(ref)
		} else {
			err = s.ref(ref)
		}
		if err != nil {
			return err
		}
		s.progress.Bytes += uint64(ref.Size)
	}
	return nil
}

func (s *Sink) ref(ref format.ChunkRef) error {
	chunks, size, ok, err := s.sent.get(ref.ID)
	switch {
	case err != nil:
		return err
	case !ok:
		return s.unknownRef(ref)
	case size != ref.Size:
		return s.wrongRef(ref, size)
	}
	for _, c := range chunks {
		if err := s.cur.file.add(c); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sink) unknownRef(ref format.ChunkRef) error {
	return s.streamError(format.ClassReference, "refs name chunk %s, which did not come before in this stream", ref.ID)
}

func (s *Sink) wrongRef(ref format.ChunkRef, size uint32) error {
	return s.streamError(format.ClassReference, "refs give chunk %s %d bytes, it has %d", ref.ID, ref.Size, size)
}

// hole takes a run of zeros, which become chunks: borg has no holes.
func (s *Sink) hole(size uint64) error {
	f := s.cur.file
	f.holes = true
	s.progress.Bytes += size
	if size > holesSizeMax-min(f.size, holesSizeMax) {
		return fmt.Errorf("%q has a hole of %d bytes, of which borg would make zeros: files of more than %d bytes are not written", "/"+f.entry.Path, size, uint64(holesSizeMax))
	}
	for size > 0 {
		n := uint32(min(size, holeSize))
		size -= uint64(n)
		if s.cut != nil {
			if err := s.cut.zeros(n); err != nil {
				return err
			}
			continue
		}
		ref, err := s.zeroChunk(n)
		if err != nil {
			return err
		}
		if err := s.cur.file.add(ref); err != nil {
			return err
		}
	}
	return nil
}

// zeroChunksMax bounds how many sizes of chunks of zeros are remembered.
const zeroChunksMax = 1024

// zeroChunk returns a chunk of zeros.
func (s *Sink) zeroChunk(n uint32) (chunkRef, error) {
	if ref, ok := s.zeros[n]; ok {
		return ref, nil
	}
	plain := format.AllocPayload(int(n))
	clear(plain)
	p, err := s.packPart(plain, nil)
	format.FreePayload(plain)
	if err != nil {
		return chunkRef{}, err
	}
	ref, err := s.store(&p)
	if err == nil && len(s.zeros) < zeroChunksMax {
		s.zeros[n] = ref
	}
	return ref, err
}

// copyRange takes a run of the parent's version of a file.
func (s *Sink) copyRange(r *format.CopyRange) error {
	from := s.cur.file.entry.Path
	if r.HasFrom {
		from = r.From
	}
	old, err := s.oldContent(from)
	if err != nil {
		return err
	}
	if size := old.size(); r.Offset > size || r.Size > size-r.Offset {
		return s.streamError(format.ClassReference, "copy of %d bytes from byte %d of %q, which has %d in the parent", r.Size, r.Offset, from, size)
	}
	s.progress.Bytes += r.Size
	if s.cut != nil {
		return s.cut.known(old, r.Offset, r.Size)
	}
	for lo, hi := r.Offset, r.Offset+r.Size; lo < hi; {
		i := old.at(lo)
		start, stop := old.start(i), min(old.ends[i], hi)
		if err := s.copyPart(old.refs[i], uint32(lo-start), uint32(stop-start)); err != nil {
			return err
		}
		lo = stop
	}
	return nil
}

// copyPart takes a part of a chunk of the parent's version.
func (s *Sink) copyPart(ref chunkRef, lo, hi uint32) error {
	if lo == 0 && hi == ref.size {
		return s.cur.file.add(ref)
	}
	plain, err := s.plain(ref)
	if err != nil {
		return err
	}
	defer format.FreePayload(plain)
	p, err := s.packPart(plain[lo:hi], nil)
	if err != nil {
		return err
	}
	part, err := s.store(&p)
	if err != nil {
		return err
	}
	return s.cur.file.add(part)
}

// oldContent returns the content of a file in the parent's listing.
func (s *Sink) oldContent(path string) (*stored, error) {
	cur := s.cur
	if cur.record.Parent.IsZero() {
		return nil, s.streamError(format.ClassReference, "copy in a snapshot that has no parent")
	}
	if cur.oldFile != nil && cur.oldPath == path {
		return cur.oldFile, nil
	}
	row, ok := []byte(nil), false
	if cur.edits == nil && s.cut == nil && path == cur.file.entry.Path {
		// In a sorted snapshot the parent's version of the path is what the merge
		// will come to next, if no edits wait for chunks to be compressed.
		var err error
		if row, ok, err = cur.merge.peek(path); err != nil {
			return nil, err
		}
	}
	if !ok {
		var err error
		if row, ok, err = s.lookUp(path); err != nil {
			return nil, err
		}
	}
	var it item
	if ok {
		_, content := splitRow(row)
		if err := it.parse(content); err != nil {
			return nil, err
		}
	}
	if !ok || it.mode&typeMask != typeFile {
		return nil, s.streamError(format.ClassReference, "copy from %q, which is no file in the parent", path)
	}
	cur.oldPath, cur.oldFile = path, newStored(it.chunks, s.ownCuts)
	return cur.oldFile, nil
}

// lookUp finds a path anywhere in the parent's listing, whose places are noted
// when this is needed for the first time.
func (s *Sink) lookUp(path string) (row []byte, ok bool, err error) {
	cur := s.cur
	if cur.places == nil {
		cur.places = spill.NewTable(s.tempDir)
		c := cur.old.cursor()
		for {
			at := c.at
			path, _, ok, err := c.next()
			if err != nil {
				return nil, false, err
			}
			if !ok {
				break
			}
			if err := cur.places.Put(spill.KeyOf(0, path), uint64(at)); err != nil {
				return nil, false, err
			}
		}
	}
	at, ok, err := cur.places.Get(spill.KeyOf(0, path))
	if err != nil || !ok {
		return nil, false, err
	}
	c := cur.old.cursor()
	c.at = int64(at)
	found, row, ok, err := c.next()
	return row, ok && found == path, err
}

// sentChunks knows the chunks of the stream by their ids there.
type sentChunks struct {
	table *spill.Table
	log   *spill.Log
	buf   []byte
}

func newSentChunks(tempDir string) *sentChunks {
	return &sentChunks{table: spill.NewTable(tempDir), log: spill.NewLog(tempDir)}
}

func (c *sentChunks) close() error { return errors.Join(c.table.Close(), c.log.Close()) }

// sentHeadSize is what the log has of a chunk before what it has become: id,
// size, and number of chunks of borg.
const (
	sentHeadSize = len(format.ID{}) + 4 + 4
	refSize      = len(objectID{}) + 4 + 4
)

func appendRef(dst []byte, ref chunkRef) []byte {
	dst = append(dst, ref.id[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, ref.size)
	return binary.LittleEndian.AppendUint32(dst, ref.csize)
}

func parseRef(b []byte) chunkRef {
	return chunkRef{id: objectID(b[:32]), size: binary.LittleEndian.Uint32(b[32:]), csize: binary.LittleEndian.Uint32(b[36:])}
}

// put notes what a chunk of the stream has become.
func (c *sentChunks) put(id format.ID, size uint32, refs []chunkRef) error {
	c.buf = append(c.buf[:0], id[:]...)
	c.buf = binary.LittleEndian.AppendUint32(c.buf, size)
	c.buf = binary.LittleEndian.AppendUint32(c.buf, uint32(len(refs)))
	for _, ref := range refs {
		c.buf = appendRef(c.buf, ref)
	}
	at := c.log.Size()
	if _, err := c.log.Write(c.buf); err != nil {
		return err
	}
	return c.table.Put(spill.Key(id[:16]), uint64(at))
}

// get returns what a chunk of the stream has become.
func (c *sentChunks) get(id format.ID) (refs []chunkRef, size uint32, ok bool, err error) {
	at, ok, err := c.table.Get(spill.Key(id[:16]))
	if err != nil || !ok {
		return nil, 0, false, err
	}
	var head [sentHeadSize]byte
	if _, err := c.log.ReadAt(head[:], int64(at)); err != nil {
		return nil, 0, false, err
	}
	if format.ID(head[:32]) != id {
		return nil, 0, false, nil
	}
	size = binary.LittleEndian.Uint32(head[32:])
	b := make([]byte, int(binary.LittleEndian.Uint32(head[36:]))*refSize)
	if _, err := c.log.ReadAt(b, int64(at)+int64(sentHeadSize)); err != nil {
		return nil, 0, false, err
	}
	for ; len(b) > 0; b = b[refSize:] {
		refs = append(refs, parseRef(b))
	}
	return refs, size, true, nil
}
