package restic

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

// contentWriter makes the chunks of files out of pieces of content. Its methods
// are called in the order of the content; finish ends a file.
type contentWriter interface {
	// data takes a chunk of the stream.
	data(d *format.Data) error
	// ref takes a chunk that the stream carried, or that the repository holds.
	ref(c format.ChunkRef) error
	// stored takes a whole chunk of another file here. cut says that it ended
	// where its content said so, and not with its file.
	stored(c format.ChunkRef, cut bool) error
	// part takes bytes, which are not kept.
	part(plain []byte) error
	// zeros takes a hole.
	zeros(size uint64) error
	// finish returns the chunks of the file, until the next call of any method.
	finish() ([]format.ID, error)
}

// sinkFile is the file whose content is arriving.
type sinkFile struct {
	entry *format.Entry
	holes int
}

// entry takes an entry, and places it if no content follows.
func (s *Sink) entry(e *format.Entry) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	s.path = e.Path
	s.sum.Entries++
	s.progress.Entries++
	s.progress.Path = e.Path
	if s.opts.OnProgress != nil {
		s.opts.OnProgress(s.progress)
	}
	switch {
	case e.Type == format.TypeFile:
		s.file = &sinkFile{entry: e.Clone()}
		return nil
	case e.Path == "":
		if e.Type != format.TypeDir {
			s.lost(format.LossLimit, errors.New("the root is not a directory"))
		}
		return s.err
	}
	link, err := s.linkOf(e, nil)
	if err != nil {
		return err
	}
	node := s.text.appendMeta(nil, e, link, 0)
	if s.err != nil {
		return s.err
	}
	if e.Type == format.TypeDir {
		return s.place(edit{path: e.Path, what: editDir, node: node})
	}
	node = append(node, `,"content":null}`...)
	return s.place(edit{path: e.Path, what: editPut, node: node})
}

// data takes a chunk of the file that is arriving.
func (s *Sink) data(r *format.Data) error {
	s.progress.Bytes += uint64(r.Size)
	if !r.Nameless() {
		if err := s.sent.Put(blobKey(&r.ID), uint64(r.Size)); err != nil {
			return err
		}
	}
	return s.cuts.data(r)
}

// refs takes chunks that came before.
func (s *Sink) refs(r *format.Refs) error {
	for _, c := range r.Chunks {
		size, ok, err := s.sent.Get(blobKey(&c.ID))
		if err != nil {
			return err
		}
		if !ok && s.opts.Held {
			if _, at := s.r.index.Load().listed.find(dataBlob, c.ID); at != nil {
				size, ok = uint64(at.size()), true
			}
		}
		if !ok {
			return s.reference("refs name chunk %s, which did not come before in this stream", c.ID)
		}
		if size != uint64(c.Size) {
			return s.reference("refs give chunk %s %d bytes, it has %d", c.ID, c.Size, size)
		}
		s.progress.Bytes += size
		if err := s.cuts.ref(c); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sink) reference(text string, args ...any) error {
	e := format.Errorf(format.ClassReference, text, args...)
	e.Path = s.path
	return e
}

// copyRange takes a run of the parent's version of a file.
func (s *Sink) copyRange(r *format.CopyRange) error {
	from := s.path
	if r.HasFrom {
		from = r.From
	}
	content, err := s.parentContent(from)
	if err != nil {
		return fmt.Errorf("copy from the parent's version of %q: %w", "/"+from, err)
	}
	if content == nil {
		return s.reference("copy from %q, which is no file in the parent", "/"+from)
	}
	s.progress.Bytes += r.Size
	at, end := uint64(0), r.Offset+r.Size
	for i := range content {
		if at >= end {
			break
		}
		size, err := s.sizeOf(&content[i])
		if err != nil {
			return err
		}
		lo, hi := max(at, r.Offset), min(at+uint64(size), end)
		switch {
		case lo >= hi:
		case hi-lo == uint64(size):
			err = s.cuts.stored(format.ChunkRef{ID: content[i], Size: size}, i < len(content)-1)
		default:
			err = s.copyPart(&content[i], lo-at, hi-at)
		}
		if err != nil {
			return err
		}
		at += uint64(size)
	}
	if at < end {
		return s.reference("copy of %d bytes from byte %d of %q, which has %d in the parent", r.Size, r.Offset, "/"+from, at)
	}
	return nil
}

// sizeOf returns the size of a chunk that the repository held before, or that
// this run stores.
func (s *Sink) sizeOf(id *format.ID) (uint32, error) {
	if _, at := s.r.index.Load().listed.find(dataBlob, *id); at != nil {
		return at.size(), nil
	}
	size, ok, err := s.fresh.Get(blobKey(id))
	if err == nil && !ok {
		var at *blob
		_, at, err = s.r.find(s.ctx, dataBlob, *id)
		if err == nil {
			size = uint64(at.size())
		}
	}
	return uint32(size), err
}

func (s *Sink) copyPart(id *format.ID, lo, hi uint64) error {
	plain, err := s.readChunk(id)
	if err != nil {
		return err
	}
	defer format.FreePayload(plain)
	return s.cuts.part(plain[lo:hi])
}

// readChunk returns the plain bytes of a chunk, which the caller gives back.
func (s *Sink) readChunk(id *format.ID) ([]byte, error) {
	plain, err := s.w.readPending(id)
	if plain != nil || err != nil {
		return plain, err
	}
	if err := s.jobs.wait(); err != nil {
		return nil, err
	}
	if plain, err = s.w.readPending(id); plain != nil || err != nil {
		return plain, err
	}
	return s.w.readChunk(s.ctx, id)
}

// parentContent returns the chunks of a file in the parent's listing; nil if it
// is none.
func (s *Sink) parentContent(path string) ([]format.ID, error) {
	id := s.base
	for id != (format.ID{}) {
		name, rest, below := bytes.Cut([]byte(path), []byte("/"))
		t, err := s.w.readTree(s.ctx, id)
		if err != nil {
			return nil, err
		}
		ref := t.find(string(name))
		if ref == nil {
			return nil, nil
		}
		if below {
			id, _ = t.subtree(ref)
			path = string(rest)
			continue
		}
		var n node
		if err := n.parse(t.raw(ref)); err != nil || n.kind != "file" {
			return nil, err
		}
		return append([]format.ID{}, n.content...), nil
	}
	return nil, nil
}

// eof places the file that has arrived.
func (s *Sink) eof(r *format.EOF) error {
	f := s.file
	s.file = nil
	s.sum.Bytes += r.Size
	content, err := s.cuts.finish()
	if err != nil {
		return err
	}
	if f.holes > 0 {
		s.lost(format.LossSparse, errors.New("which of its zeros are holes"))
	}
	if len(r.Extra) > 0 {
		s.lost(format.LossExtension, errors.New("unknown keys of its content"))
	}
	if f.entry.Path == "" {
		s.lost(format.LossLimit, errors.New("the root is not a directory"))
		return s.err
	}
	link, err := s.linkOf(f.entry, content)
	if err != nil {
		return err
	}
	node := s.text.appendMeta(nil, f.entry, link, r.Size)
	if s.err != nil {
		return s.err
	}
	node = appendContent(node, content, r.Error)
	return s.place(edit{path: f.entry.Path, what: editPut, node: node})
}

// linkOf returns which object an entry is a name of; nil for one by itself.
func (s *Sink) linkOf(e *format.Entry, content []format.ID) (*linked, error) {
	if e.Hardlink == "" {
		return nil, nil
	}
	const informative = format.HasAtime | format.HasCtime | format.HasBtime | format.HasInode | format.HasLinks | format.HasSize
	said := *e
	said.Path, said.Chunker, said.Extents, said.Has = "", "", nil, e.Has&^informative
	h := sha256.New()
	h.Write([]byte("bk hard link in restic\x00"))
	h.Write(said.AppendBody(nil, false))
	for i := range content {
		h.Write(content[i][:])
	}
	var sum [32]byte
	h.Sum(sum[:0])
	inode, err := s.groupInode(e, sum)
	if err != nil {
		return nil, err
	}
	return groupObject(inode, e.Links, sum), nil
}

// groupInode returns the inode number of a group's first member in this snapshot,
// since those of the others may be from elsewhere, and counts members that differ
// from it in more.
func (s *Sink) groupInode(e *format.Entry, sum [32]byte) (uint64, error) {
	key := spill.KeyOf(spaceGroup, e.Hardlink)
	var row [40]byte
	at, ok, err := s.groups.Get(key)
	if err != nil {
		return 0, err
	}
	if !ok {
		binary.LittleEndian.PutUint64(row[:], e.Inode)
		copy(row[8:], sum[:])
		at := s.log.Size()
		if _, err := s.log.Write(row[:]); err != nil {
			return 0, err
		}
		return e.Inode, s.groups.Put(key, uint64(at))
	}
	if _, err := s.log.ReadAt(row[:], int64(at)); err != nil {
		return 0, err
	}
	if !bytes.Equal(row[8:], sum[:]) {
		s.lost(format.LossHardlink, errors.New("the members of its group differ"))
		return e.Inode, nil
	}
	return binary.LittleEndian.Uint64(row[:]), nil
}
