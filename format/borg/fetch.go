package borg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/prefetch"
)

// objectGuess is how much is read of an object whose size is not known.
const objectGuess = 160 << 10

// find says where an object lies. What borg's index does not have may be in the
// log nevertheless.
func (r *Repository) find(ctx context.Context, id objectID) (place, error) {
	for {
		r.mu.Lock()
		index, built := r.index, r.built
		r.mu.Unlock()
		at, ok, err := index.find(ctx, id)
		switch {
		case err != nil:
			return at, fmt.Errorf("look for object %s: %w", id, err)
		case ok && r.segmentSize(at.segment) > int64(at.offset):
			return at, nil
		case built:
			if x, ok := index.(*logIndex); ok && x.damage != nil {
				return at, fmt.Errorf("object %s is not in %s: %w; it may have been in %w", id, r, ErrMissing, x.damage)
			}
			return at, fmt.Errorf("object %s is not in %s: %w", id, r, ErrMissing)
		}
		r.log.Warn("borg's index lacks an object: reading the log", "object", id)
		if err := r.rebuild(ctx); err != nil {
			return at, err
		}
	}
}

// loaded is an object that was read, and where it lies.
type loaded struct {
	bytes []byte
	at    place
	buf   []byte // what bytes are a part of
}

// free gives back the memory of the object.
func (s *loaded) free() { format.FreePayload(s.buf) }

// object reads what is stored under an id, as load does, in memory that is not
// given back.
func (r *Repository) object(ctx context.Context, id objectID, guess uint32) ([]byte, place, error) {
	o, err := r.load(ctx, id, guess)
	return o.bytes, o.at, err
}

// load reads what is stored under an id, of which about guess bytes are
// expected; 0 if nothing is known.
func (r *Repository) load(ctx context.Context, id objectID, guess uint32) (loaded, error) {
	at, err := r.find(ctx, id)
	if err != nil {
		return loaded{}, err
	}
	o, err := r.entry(ctx, id, at, guess)
	if err == nil || ctx.Err() != nil {
		return o, err
	}
	moved, findErr := r.findAgain(ctx, id, at)
	if findErr != nil || moved == at {
		return loaded{}, err
	}
	return r.entry(ctx, id, moved, guess)
}

// findAgain looks for an object in the log itself, after what borg's index said
// was not true.
func (r *Repository) findAgain(ctx context.Context, id objectID, at place) (place, error) {
	r.mu.Lock()
	built := r.built
	r.mu.Unlock()
	if !built {
		if err := r.rebuild(ctx); err != nil {
			return at, err
		}
	}
	return r.find(ctx, id)
}

// entry reads an entry that puts an object and returns the object.
func (r *Repository) entry(ctx context.Context, id objectID, at place, guess uint32) (loaded, error) {
	if guess == 0 || guess > entrySizeMax {
		guess = objectGuess
	}
	fail := func(err error) error {
		return fmt.Errorf("object %s, %s of %s: %w", id, r.where(at), r, err)
	}
	rest := r.segmentSize(at.segment) - int64(at.offset)
	if rest < int64(putHeadSize) {
		return loaded{}, fail(fmt.Errorf("the segment ends before: %w", ErrDamaged))
	}
	size := min(int64(putHeadSize)+int64(guess), rest)
	for {
		b := format.AllocPayload(int(size))
		if err := r.store.ReadAt(ctx, r.segmentName(at.segment), b, int64(at.offset)); err != nil {
			format.FreePayload(b)
			return loaded{}, fail(err)
		}
		object, whole, err := checkPut(b, &id, rest)
		if err == nil && object != nil {
			return loaded{bytes: object, at: at, buf: b}, nil
		}
		format.FreePayload(b)
		if err != nil {
			return loaded{}, fail(err)
		}
		size = whole
	}
}

// checkPut checks that an entry puts an object of this id, and returns the
// object; or, if b does not reach its end, the entry's size. rest is how much
// the segment has from there.
func checkPut(b []byte, id *objectID, rest int64) (object []byte, size int64, err error) {
	h, err := parseEntryHead(b)
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("%w: %w", err, ErrDamaged)
	case h.tag != tagPut || h.id != *id:
		return nil, 0, fmt.Errorf("it is not there: %w", ErrDamaged)
	case int64(h.size) > rest:
		return nil, 0, fmt.Errorf("it is cut off: %w", ErrDamaged)
	case int64(h.size) > int64(len(b)):
		return nil, int64(h.size), nil
	}
	if err := checkEntry(b[:h.size], &h); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	return b[putHeadSize:h.size], int64(h.size), nil
}

// plain reads an object whose size is not known and returns its plain content.
func (r *Repository) plain(ctx context.Context, id objectID) ([]byte, error) {
	o, err := r.load(ctx, id, 0)
	if err != nil {
		return nil, err
	}
	defer o.free()
	plain, err := r.keys.openPlain(id, o.bytes)
	if err != nil {
		return nil, fmt.Errorf("object %s, %s of %s: %w", id, r.where(o.at), r, err)
	}
	return plain, nil
}

// want is a chunk to be fetched, and what it is to its receiver.
type want struct {
	chunkRef
	number int
	at     place
	path   string // of the file, for messages
}

// fetch reads chunks and calls fn with the object of each, in no order and from
// this goroutine alone. Chunks that lie close together in a segment are read at
// once. The object is valid until fn returns, and fn may change it.
func (r *Repository) fetch(ctx context.Context, list []want, fn func(w *want, object []byte) error) error {
	for i := range list {
		var err error
		if list[i].at, err = r.find(ctx, list[i].id); err != nil {
			return describe(&list[i], err)
		}
	}
	slices.SortFunc(list, func(a, b want) int { return cmp.Compare(a.at.number(), b.at.number()) })
	for run := range prefetch.Runs(list, (*want).span) {
		if err := r.fetchRun(ctx, run, fn); err != nil {
			return err
		}
	}
	return nil
}

// span is where an entry lies and most likely ends.
func (w *want) span() (segment uint32, start, end int64) {
	return w.at.segment, int64(w.at.offset), w.end()
}

// end is where an entry most likely ends.
func (w *want) end() int64 { return int64(w.at.offset) + int64(putHeadSize) + int64(w.csize) }

// fetchRun reads chunks that lie close together.
func (r *Repository) fetchRun(ctx context.Context, run []want, fn func(*want, []byte) error) error {
	size, start, end := r.segmentSize(run[0].at.segment), int64(run[0].at.offset), int64(0)
	for i := range run {
		end = max(end, run[i].end())
	}
	end = min(end, size, start+entrySizeMax)
	var buf []byte
	if len(run) > 1 {
		buf = format.AllocPayload(int(end - start))
		defer format.FreePayload(buf)
		if err := r.store.ReadAt(ctx, r.segmentName(run[0].at.segment), buf, start); err != nil {
			buf = nil // each by itself, to know which one fails
		}
	}
	for i := range run {
		w := &run[i]
		if at := int64(w.at.offset) - start; at < int64(len(buf)) {
			object, _, err := checkPut(buf[at:min(max(w.end()-start, at), int64(len(buf)))], &w.id, size-int64(w.at.offset))
			if err == nil && object != nil {
				if err := fn(w, object); err != nil {
					return describe(w, err)
				}
				continue
			}
		}
		if err := r.fetchOne(ctx, w, fn); err != nil {
			return describe(w, err)
		}
	}
	return nil
}

// fetchOne reads a chunk by itself.
func (r *Repository) fetchOne(ctx context.Context, w *want, fn func(*want, []byte) error) error {
	o, err := r.load(ctx, w.id, w.csize)
	if err != nil {
		return err
	}
	defer o.free()
	w.at = o.at
	return fn(w, o.bytes)
}

// describe says which file an error concerns.
func describe(w *want, err error) error {
	if errors.Is(err, context.Canceled) || w.path == "" {
		return err
	}
	return fmt.Errorf("content of %q: %w", "/"+w.path, err)
}

// openWant returns the plain content of a chunk, in a buffer of
// format.AllocPayload, and its zstd frame if it has one, in the object's
// storage.
func (r *Repository) openWant(w *want, object []byte) (plain, frame []byte, err error) {
	if w.size > format.ChunkSizeMax {
		return nil, nil, fmt.Errorf("chunk %s has %d bytes, and the stream holds up to %d", w.id, w.size, format.ChunkSizeMax)
	}
	plain, frame, err = r.keys.openChunk(w.id, w.size, object)
	if err != nil {
		return nil, nil, fmt.Errorf("chunk %s, %s of %s: %w", w.id, r.where(w.at), r, err)
	}
	return plain, frame, nil
}
