package restic

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

// Names of spaces in tables of blobs.
const (
	spaceGroup byte = iota + 1
	spacePath
)

// blobKey is a blob's key in a table: ids are hashes already.
func blobKey(id *format.ID) spill.Key { return spill.Key(id[:16]) }

// placeSize is what the log has of a blob's place: pack, offset, stored and
// plain bytes.
const placeSize = 16

// notePlace writes down where a blob of this run lies; w.mu is locked.
func (w *writer) notePlace(b *blob) error {
	var row [placeSize]byte
	for i, v := range [...]uint32{b.pack, b.offset, b.stored, b.plain} {
		binary.LittleEndian.PutUint32(row[4*i:], v)
	}
	at := w.log.Size()
	if _, err := w.log.Write(row[:]); err != nil {
		return err
	}
	return w.places.Put(blobKey(&b.id), uint64(at))
}

// place finds a chunk of content that the repository held before, or that this
// run has stored.
func (w *writer) place(id *format.ID) (place, bool, error) {
	x := w.r.index.Load()
	if n, at := x.listed.find(dataBlob, *id); at != nil {
		return x.place(dataBlob, n, at), true, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok, err := w.places.Get(blobKey(id))
	if !ok || err != nil {
		return place{}, false, err
	}
	var row [placeSize]byte
	if _, err := w.log.ReadAt(row[:], int64(at)); err != nil {
		return place{}, false, err
	}
	number := func(i int) uint32 { return binary.LittleEndian.Uint32(row[4*i:]) }
	b := blob{id: *id, pack: number(0), offset: number(1), stored: number(2), plain: number(3)}
	return place{b, w.names[b.pack]}, true, nil
}

// readPending returns the plain bytes of a chunk in a pack that is being filled,
// which the caller gives back with format.FreePayload; nil if it is not there.
func (w *writer) readPending(id *format.ID) ([]byte, error) {
	p := &w.packs[dataBlob]
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.blobs {
		b := &p.blobs[i]
		if b.id != *id {
			continue
		}
		sealed := format.AllocPayload(int(b.stored))
		p.readAt(sealed, int(b.offset))
		opened, err := w.r.openBlob(sealed)
		format.FreePayload(sealed)
		if err != nil {
			return nil, err
		}
		return plainOf(&want{place: place{blob: *b}}, opened)
	}
	return nil, nil
}

// plainOf returns the plain bytes of a chunk that was opened.
func plainOf(w *want, opened []byte) ([]byte, error) {
	d := &format.Data{ID: w.id, Size: w.size()}
	if err := loadChunk(w, opened, d, true); err != nil {
		return nil, err
	}
	return d.Payload, checkPlain(w, d.Payload)
}

// readChunk returns the plain bytes of a chunk of content in a pack that is
// stored or on its way, which the caller gives back with format.FreePayload.
func (w *writer) readChunk(ctx context.Context, id *format.ID) (plain []byte, err error) {
	p, ok, err := w.place(id)
	if err != nil {
		return nil, err
	}
	if !ok {
		w.running.Wait()
		if err := w.failed(); err != nil {
			return nil, err
		}
		if p, ok, err = w.place(id); err != nil {
			return nil, err
		}
	}
	if !ok {
		return nil, fmt.Errorf("data blob %s: %w", id, ErrMissing)
	}
	err = w.r.fetch(ctx, dataBlob, []want{{place: p}}, func(got *want, opened []byte) (err error) {
		plain, err = plainOf(got, opened)
		return err
	})
	return plain, err
}

// logTree keeps a tree of this run as it is stored, for the snapshots that are
// differences to this one.
func (w *writer) logTree(id format.ID, sealed []byte, plainSize uint32) error {
	var head [8]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(sealed)))
	binary.LittleEndian.PutUint32(head[4:], plainSize)
	w.mu.Lock()
	defer w.mu.Unlock()
	at := w.treeLog.Size()
	if _, err := w.treeLog.Write(head[:]); err != nil {
		return err
	}
	if _, err := w.treeLog.Write(sealed); err != nil {
		return err
	}
	return w.trees.Put(blobKey(&id), uint64(at))
}

// readTree returns a tree that this run has stored, or that the repository held.
func (w *writer) readTree(ctx context.Context, id format.ID) (*tree, error) {
	got, sealed, err := w.loggedTree(id)
	if err != nil {
		return nil, err
	}
	if sealed == nil {
		l := newTreeLoader(ctx, w.r)
		defer l.close()
		return l.load(id)
	}
	opened, err := w.r.openBlob(sealed)
	if err != nil {
		return nil, err
	}
	b, err := w.r.loadTree(got, opened)
	if err != nil {
		return nil, err
	}
	return parseTree(b)
}

func (w *writer) loggedTree(id format.ID) (*want, []byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok, err := w.trees.Get(blobKey(&id))
	if !ok || err != nil {
		return nil, nil, err
	}
	var head [8]byte
	if _, err := w.treeLog.ReadAt(head[:], int64(at)); err != nil {
		return nil, nil, err
	}
	sealed := make([]byte, binary.LittleEndian.Uint32(head[:]))
	if _, err := w.treeLog.ReadAt(sealed, int64(at)+int64(len(head))); err != nil {
		return nil, nil, err
	}
	b := blob{id: id, stored: uint32(len(sealed)), plain: binary.LittleEndian.Uint32(head[4:])}
	return &want{place: place{blob: b}}, sealed, nil
}
