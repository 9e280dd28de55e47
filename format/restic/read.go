package restic

import (
	"context"
	"fmt"

	"github.com/bk-backup/bk/format"
)

// ReadChunks fetches chunks of content and calls fn with the plain bytes of
// each, or with the error that kept it from being read, in no order and from
// this goroutine; number is the place in refs. plain is valid until fn returns.
// Chunks that lie close together are fetched at once.
func (r *Repository) ReadChunks(ctx context.Context, refs []format.ChunkRef, fn func(number int, plain []byte, err error) error) error {
	list := make([]want, 0, len(refs))
	for i, ref := range refs {
		n, at, err := r.find(ctx, dataBlob, ref.ID)
		if err == nil && at.size() != ref.Size {
			err = fmt.Errorf("chunk %s has %d bytes, not the %d that are asked for: %w", ref.ID, at.size(), ref.Size, ErrDamaged)
		}
		if err != nil {
			if err := fn(i, nil, err); err != nil {
				return err
			}
			continue
		}
		list = append(list, want{r.index.Load().place(dataBlob, n, at), i})
	}
	done := make([]bool, len(refs))
	var stop error // of fn
	take := func(w *want, opened []byte) error {
		done[w.number] = true
		d := &format.Data{ID: w.id, Size: refs[w.number].Size}
		err := loadChunk(w, opened, d, true)
		if err == nil {
			err = checkPlain(w, d.Payload)
		}
		if err != nil {
			stop = fn(w.number, nil, err)
			return stop
		}
		stop = fn(w.number, d.Payload, nil)
		format.FreePayload(d.Payload)
		return stop
	}
	err := r.fetch(ctx, dataBlob, list, take)
	for i := 0; err != nil && i < len(list); i++ {
		// Something cannot be read: the others one by one.
		if stop != nil {
			return stop
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if w := list[i]; !done[w.number] {
			if failed := r.fetch(ctx, dataBlob, []want{w}, take); failed != nil && stop == nil {
				stop = fn(w.number, nil, failed)
			}
		}
	}
	return stop
}
