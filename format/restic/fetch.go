package restic

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/prefetch"
)

// want is a blob to be fetched, and what it is to its receiver.
type want struct {
	place
	number int
}

// fetch reads blobs and calls fn with the decrypted content of each, which may
// still be compressed, in no order and from this goroutine alone. Blobs that lie
// close together in a pack are read at once. fn owns the bytes, which are of
// format.AllocPayload.
func (r *Repository) fetch(ctx context.Context, k kind, list []want, fn func(w *want, opened []byte) error) error {
	slices.SortFunc(list, func(a, b want) int {
		return cmp.Or(bytes.Compare(a.name[:], b.name[:]), cmp.Compare(a.offset, b.offset))
	})
	for run := range prefetch.Runs(list, (*want).span) {
		if err := r.fetchRun(ctx, k, run, fn); err != nil {
			return err
		}
	}
	return nil
}

// span is where a blob lies.
func (w *want) span() (pack format.ID, start, end int64) {
	return w.name, int64(w.offset), int64(w.offset) + int64(w.stored)
}

// fetchRun reads blobs that lie close together in one pack.
func (r *Repository) fetchRun(ctx context.Context, k kind, run []want, fn func(*want, []byte) error) error {
	start, end := int64(run[0].offset), int64(0)
	for i := range run {
		end = max(end, int64(run[i].offset)+int64(run[i].stored))
		if err := checkStored(k, &run[i]); err != nil {
			return err
		}
	}
	buf := format.AllocPayload(int(end - start))
	defer format.FreePayload(buf)
	readErr := r.store.ReadAt(ctx, packName(run[0].name), buf, start)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for i := range run {
		w := &run[i]
		var opened []byte
		err := readErr
		if err == nil {
			opened, err = r.openBlob(buf[int64(w.offset)-start:][:w.stored])
		}
		if err != nil {
			if opened, err = r.fetchOther(ctx, k, w, err); err != nil {
				return err
			}
		}
		if err := fn(w, opened); err != nil {
			return err
		}
	}
	return nil
}

// checkStored refuses a blob that is larger than can be used, before memory is
// allocated for it.
func checkStored(k kind, w *want) error {
	limit := treeSizeMax
	if k == dataBlob {
		limit = format.PayloadSizeMax(format.ChunkSizeMax)
	}
	if int64(w.stored) > int64(limit)+sealOverhead {
		return fmt.Errorf("%s blob %s in pack %s has %d bytes, more than can be read", k, w.id, w.name, w.stored)
	}
	return nil
}

// openBlob decrypts a blob.
func (r *Repository) openBlob(sealed []byte) ([]byte, error) {
	out := format.AllocPayload(len(sealed) - sealOverhead)
	if err := r.keys.open(out, sealed); err != nil {
		format.FreePayload(out)
		return nil, fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	return out, nil
}

// fetchOther reads a blob by itself after that failed together with others, from
// wherever there is a copy.
func (r *Repository) fetchOther(ctx context.Context, k kind, w *want, first error) ([]byte, error) {
	why, others := first, error(nil)
	lost := isDamage(first)
	for _, p := range r.index.Load().copies(k, w.id) {
		other := *w
		other.place = p
		if err := checkStored(k, &other); err != nil {
			continue
		}
		buf := format.AllocPayload(int(p.stored))
		err := r.store.ReadAt(ctx, packName(p.name), buf, int64(p.offset))
		var opened []byte
		if err == nil {
			opened, err = r.openBlob(buf)
		}
		format.FreePayload(buf)
		if err == nil {
			w.place = p
			return opened, nil
		}
		lost = lost && isDamage(err)
		switch {
		case p.name == w.name && p.offset == w.offset:
			why = err
		case others == nil:
			others = fmt.Errorf("its copy in pack %s: %w", p.name, err)
		}
	}
	if others != nil {
		why = fmt.Errorf("%w; %w", why, others)
	}
	why = fmt.Errorf("read %s blob %s from pack %s in %s: %w", k, w.id, w.name, r, why)
	if lost {
		why = &lostError{why}
	}
	return nil, why
}

// packName returns the name of a pack on storage.
func packName(id format.ID) string {
	digits := id.String()
	return "data/" + digits[:2] + "/" + digits
}

// loadTree returns the JSON of a tree that fetch has opened, and checks that it
// is the right one.
func (r *Repository) loadTree(w *want, opened []byte) ([]byte, error) {
	plain := opened
	if w.plain != 0 {
		if w.plain > treeSizeMax {
			return nil, fmt.Errorf("tree %s in pack %s has %d bytes, more than %d", w.id, w.name, w.plain, treeSizeMax)
		}
		var err error
		if plain, err = decodeZstd(opened, make([]byte, 0, min(w.plain, 1<<20)), int(w.plain)); err != nil {
			return nil, fmt.Errorf("tree %s in pack %s: %w", w.id, w.name, err)
		}
		format.FreePayload(opened)
	}
	if sum := format.SumID(plain); sum != w.id {
		return nil, fmt.Errorf("tree %s in pack %s: its content has the id %s: %w", w.id, w.name, sum, ErrDamaged)
	}
	return plain, nil
}

// loadChunk puts a chunk that fetch has opened into a record, as the stream
// allows it and with its codec; plain asks for its plain bytes.
func loadChunk(w *want, opened []byte, d *format.Data, plain bool) error {
	d.Codec, d.Payload = format.CodecNone, opened
	if w.plain == 0 {
		return nil
	}
	d.Codec = format.CodecZstd
	fits := format.CheckPayload(d) == nil
	if fits && !plain {
		return nil
	}
	if !fits {
		// Other programs than restic write such repositories too. What the stream
		// refuses may be right nevertheless, several frames for example.
		out, err := decodeZstd(opened, format.AllocPayload(int(d.Size)), int(d.Size))
		if err == nil && len(out) != int(d.Size) {
			err = fmt.Errorf("zstd: it decodes to %d bytes, not %d: %w", len(out), d.Size, ErrDamaged)
		}
		if err != nil {
			return fmt.Errorf("data blob %s in pack %s: %w", w.id, w.name, err)
		}
		format.FreePayload(opened)
		d.Codec, d.Payload = format.CodecNone, out
		return checkPlain(w, out)
	}
	out, err := format.DecodePayload(nil, d)
	if err != nil {
		return fmt.Errorf("data blob %s in pack %s: %w: %v", w.id, w.name, ErrDamaged, err)
	}
	format.FreePayload(opened)
	d.Codec, d.Payload = format.CodecNone, out
	return nil
}

// checkPlain compares plain bytes with the id that they go by.
func checkPlain(w *want, plain []byte) error {
	if sum := format.SumID(plain); sum != w.id {
		return fmt.Errorf("data blob %s in pack %s: its content has the id %s: %w", w.id, w.name, sum, ErrDamaged)
	}
	return nil
}
