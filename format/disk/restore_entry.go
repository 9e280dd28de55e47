//go:build linux

package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"path"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// fileEntry begins a file.
func (r *Restore) fileEntry(p string, e *format.Entry, m *metadata) error {
	d, err := r.enter(format.ParentPath(p))
	if err != nil {
		return err
	}
	f := &outFile{dir: d, name: path.Base(p), path: p, meta: m, fd: -1, size: e.Size, hasSize: e.Has&format.HasSize != 0}
	f.spill = !r.apply.root && (d.hidden || e.Has&format.HasMode != 0 && e.Mode&0o400 == 0)
	if f.number, err = r.history.admit(r, d, p, f); err != nil {
		return err
	}
	r.content = content{}
	if e.Hardlink != "" {
		if err := r.history.joinGroup(r, f, e); err != nil {
			return err
		}
	}
	d.use()
	r.startFile(f)
	return nil
}

// outsideEntry begins a file that is not restored, but whose chunks may be
// referred to by one that is.
func (r *Restore) outsideEntry(e *format.Entry) {
	r.content = content{}
	r.startFile(&outFile{path: e.Path, outside: true, fd: -1})
}

func (r *Restore) startFile(f *outFile) {
	f.pending.Store(1)
	r.current = f
	if !r.opts.DryRun {
		r.openPiece()
	}
}

// openPiece begins a piece of the current file in the current load.
func (r *Restore) openPiece() {
	l := r.load
	l.pieces = append(l.pieces, loadPiece{file: r.current, from: len(l.items), to: -1, whole: r.content.pieces == 0})
}

// content is what the caller's goroutine knows about the current file.
type content struct {
	offset uint64
	pieces int  // that were queued
	chunks bool // some may be referred to later
	copied bool // some of it comes from an earlier version
	lost   bool // some of it was lost at the source
	hashed bool
	hash   maphash.Hash // of metadata and content, for members of hard-link groups
}

// add appends a run to the current file's content.
func (r *Restore) add(it loadItem) error {
	c := &r.content
	it.offset = c.offset
	if it.size > format.FileSizeMax-c.offset {
		return format.Errorf(format.ClassLimit, "the file is longer than %d bytes", uint64(format.FileSizeMax))
	}
	c.offset += it.size
	if r.opts.DryRun {
		return nil
	}
	l := r.load
	l.items = append(l.items, it)
	l.payload += len(it.payload)
	if l.weight += len(it.payload); it.codec == format.CodecZstd {
		l.weight += int(it.size)
	}
	if it.kind == itemRef {
		l.wanted += it.size
	}
	if !r.loadFull() {
		return nil
	}
	r.splitPiece()
	r.send()
	r.openPiece()
	return nil
}

// loadFull reports whether the load has to go before the current file is
// complete. The references of a file that may become a hard link are gathered
// for longer, since then nothing of it has to be read.
func (r *Restore) loadFull() bool {
	l := r.load
	if r.current.member {
		return l.payload >= loadPayloadMax || len(l.items) >= linkItemsMax
	}
	return l.payload >= loadPayloadMax || l.wanted >= loadWantedMax || len(l.items) >= loadItemsMax
}

// splitPiece closes the piece of the current file, more of which is to come.
func (r *Restore) splitPiece() {
	p := r.lastPiece()
	p.to = len(r.load.items)
	p.whole = false
	r.content.pieces++
	r.current.pending.Add(1)
}

func (r *Restore) lastPiece() *loadPiece { return &r.load.pieces[len(r.load.pieces)-1] }

// finishPiece closes the last piece of the current file.
func (r *Restore) finishPiece() {
	l := r.load
	p := r.lastPiece()
	p.to = len(l.items)
	if p.to-p.from > 1 {
		l.multiple++
	}
	if len(l.pieces) >= loadPiecesMax || l.multiple >= loadMultipleMax && l.wanted > 0 ||
		l.payload >= loadPayloadMax || l.wanted >= loadWantedMax {
		r.send()
	}
}

func (r *Restore) data(d *format.Data) error {
	if d.Size == 0 || d.Size > format.ChunkSizeMax {
		return format.Errorf(format.ClassLimit, "a chunk of %d bytes", d.Size)
	}
	f := r.current
	it := loadItem{kind: itemData, codec: d.Codec, once: d.Once || r.chunks.never, checked: d.Checked, size: uint64(d.Size), id: d.ID, place: d.Place()}
	if !it.once {
		r.chunks.seen.Store(true)
		r.content.chunks = true
	}
	r.mix(it)
	if !r.opts.DryRun && (!f.outside || !it.once) {
		it.payload = d.Take()
	}
	return r.add(it)
}

func (r *Restore) refs(rec *format.Refs) error {
	for _, c := range rec.Chunks {
		if c.Size == 0 || c.Size > format.ChunkSizeMax {
			return format.Errorf(format.ClassLimit, "a chunk of %d bytes", c.Size)
		}
		it := loadItem{kind: itemRef, size: uint64(c.Size), id: c.ID}
		r.mix(it)
		if err := r.add(it); err != nil {
			return err
		}
	}
	return nil
}

func (r *Restore) hole(rec *format.Hole) error {
	it := loadItem{kind: itemHole, size: rec.Size}
	if r.lost() {
		it.kind = itemLost
	}
	r.mix(it)
	return r.add(it)
}

// lost reports whether a part of the current file was lost at the source.
func (r *Restore) lost() bool {
	if r.opts.Lost != nil {
		if err := r.opts.Lost(); err != nil {
			r.content.lost = true
			r.current.damage(err)
		}
	}
	return r.content.lost
}

func (r *Restore) copyRange(rec *format.CopyRange) error {
	it := loadItem{kind: itemCopy, size: rec.Size}
	it.from.offset = rec.Offset
	if !r.current.outside {
		from := r.current.path
		if rec.HasFrom {
			p, inside := r.inTarget(rec.From, false)
			if !inside {
				r.current.fail(fmt.Errorf("a part of it is a copy from %q, which is not restored", rec.From))
				return r.add(loadItem{kind: itemHole, size: rec.Size})
			}
			from = p
		}
		number, known, err := r.history.version(from)
		if err != nil {
			return err
		}
		if err := r.history.holds(from, number, rec.Offset, rec.Size); err != nil {
			return err
		}
		if !known {
			r.current.fail(fmt.Errorf("a part of it is a copy from %q, whose earlier version was not restored", from))
			return r.add(loadItem{kind: itemHole, size: rec.Size})
		}
		it.from.number = number
		r.content.copied = true
	}
	r.mix(it)
	return r.add(it)
}

// mix adds a run to the hash by which members of a hard-link group are compared.
func (r *Restore) mix(it loadItem) {
	if !r.content.hashed {
		return
	}
	h := &r.content.hash
	var b [17]byte
	binary.LittleEndian.PutUint64(b[1:], it.size)
	switch it.kind {
	case itemData, itemRef:
		_, _ = h.Write(it.id[:])
	case itemHole, itemLost:
		b[0] = 1
	case itemCopy:
		b[0] = 2
		binary.LittleEndian.PutUint64(b[9:], it.from.offset)
		dev, ino := r.identity(it.from.number)
		var id [16]byte
		binary.LittleEndian.PutUint64(id[:], dev)
		binary.LittleEndian.PutUint64(id[8:], ino)
		_, _ = h.Write(id[:])
	}
	_, _ = h.Write(b[:])
}

// identity names the file behind a number, whatever it is called.
func (r *Restore) identity(number uint64) (dev, ino uint64) {
	fd, err := r.history.open(r, number)
	if err != nil {
		return 0, number
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, number
	}
	return uint64(st.Dev), st.Ino
}

// eof completes the current file.
func (r *Restore) eof(e *format.EOF) error {
	f, c := r.current, &r.content
	if e.Size != c.offset {
		return format.Errorf(format.ClassCount, "the file has %d bytes of content, and its eof says %d", c.offset, e.Size)
	}
	if f.member && c.pieces > 0 {
		// It was too large to wait for its end before it was written. Now the
		// first member has to be there, to see whether a link can replace it.
		if err := r.drain(); err != nil {
			return err
		}
	}
	r.lost()
	f.mu.Lock()
	f.size, f.sized = e.Size, true
	if e.SHA256 != nil && (r.opts.Verify || c.copied) {
		sum := *e.SHA256
		f.sum = &sum
	}
	f.mu.Unlock()
	if !f.outside {
		if err := r.history.closeFile(r, f); err != nil {
			return err
		}
	}
	if r.opts.DryRun {
		r.dryFile(f)
	} else {
		r.finishPiece()
	}
	r.current = nil
	r.stage = inSnapshot
	return nil
}

// nodeEntry makes an object without content: a symbolic link, a device, a fifo
// or a socket.
func (r *Restore) nodeEntry(p string, e *format.Entry, m *metadata) error {
	d, err := r.enter(format.ParentPath(p))
	if err != nil {
		return err
	}
	number, err := r.history.admit(r, d, p, nil)
	if err != nil {
		return err
	}
	n := newNode{dir: d, name: path.Base(p), path: p, entry: e, meta: m}
	if e.Hardlink != "" {
		if n.linkTo, n.linked, err = r.history.joinNode(r, e, p, number); err != nil {
			return err
		}
	}
	action, err := r.makeNode(&n)
	if err != nil {
		r.history.unplace(r, number)
		if stops(err) {
			return fmt.Errorf("restore %s: %w", r.show(p), err)
		}
		kind := LossUnwritable
		if errors.Is(err, unix.EPERM) && (e.Type == format.TypeChar || e.Type == format.TypeBlock) {
			kind = LossDevice
		}
		r.report.problem(kind, p, err)
		return nil
	}
	if action == ActionSkipped {
		r.history.unplace(r, number)
	}
	r.report.item(Item{Path: p, Type: e.Type, Action: action})
	return nil
}
