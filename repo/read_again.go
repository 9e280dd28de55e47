package repo

import (
	"context"
	"sync"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/index"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
)

// readAgain reads what could not be read where the index said first: garbage
// collection may have moved it, or it may lie in a second place that is whole.
type readAgain struct {
	r    *Repository
	kind seal.ChunkKind
	ids  []format.ID
	pass int // of recovery, before anything was missed

	mu     sync.Mutex
	failed []failedRead
}

type failedRead struct {
	number int // in ids
	err    error
}

// unless returns fn for what can be read; the rest is gathered.
func (a *readAgain) unless(fn func(int, payload, error) error) func(int, payload, error) error {
	return func(number int, p payload, err error) error {
		if err == nil {
			return fn(number, p, nil)
		}
		a.mu.Lock()
		a.failed = append(a.failed, failedRead{number, err})
		a.mu.Unlock()
		return nil
	}
}

// read calls fn with each chunk that could not be read at first.
func (a *readAgain) read(ctx context.Context, fn func(number int, p payload, err error) error) error {
	failed := a.failed
	var lost []int
	var lostIDs []format.ID
	a.failed = nil
	for _, f := range failed {
		if isLost(f.err) {
			lost, lostIDs = append(lost, f.number), append(lostIDs, a.ids[f.number])
		} else {
			a.failed = append(a.failed, f)
		}
	}
	if len(lost) > 0 {
		if err := a.r.lookAgain(ctx, a.pass, a.kind, lostIDs); err != nil {
			return err
		}
		keep := a.unless(fn)
		err := a.r.readListed(ctx, a.kind, lostIDs, func(i int, p payload, err error) error { return keep(lost[i], p, err) })
		if err != nil {
			return err
		}
	}
	for _, f := range a.failed {
		if err := a.elsewhere(ctx, f, fn); err != nil {
			return err
		}
	}
	return nil
}

// elsewhere tries every place that a chunk has, if there are several. What fn
// hears is the error of the first one.
func (a *readAgain) elsewhere(ctx context.Context, f failedRead, fn func(number int, p payload, err error) error) error {
	label := a.r.label.LabelOf(a.kind, a.ids[f.number])
	places, err := a.r.index.Places(label)
	if err != nil {
		return err
	}
	if len(places) < 2 {
		return fn(f.number, payload{}, f.err)
	}
	for _, hit := range places {
		p, err := a.r.readPlace(ctx, a.kind, a.ids[f.number], label, hit)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			a.r.opts.Log.Warn("one copy of a chunk cannot be read; another one was used", "error", f.err)
			return fn(f.number, p, nil)
		}
	}
	return fn(f.number, payload{}, f.err)
}

// readPlace reads a chunk from one place. Its content is compared with its id,
// so that a place which opens and holds something else does not count.
func (r *Repository) readPlace(ctx context.Context, kind seal.ChunkKind, id format.ID, label seal.Label, hit index.Hit) (p payload, err error) {
	readErr := r.readRun(ctx, kind, []wanted{{id: id, label: label, hit: hit}}, func(_ int, got payload, err error) error {
		p = got
		return err
	})
	if readErr != nil {
		return payload{}, readErr
	}
	plain, err := plainBytes(p.codec, p.size, p.bytes)
	if err == nil {
		err = checkPlain(id, plain)
	}
	if p.codec != pack.CodecNone {
		format.FreePayload(plain)
	}
	if err != nil {
		format.FreePayload(p.bytes)
		return payload{}, err
	}
	return p, nil
}

// plainBytes decodes a payload whose id is not known. Without compression the
// result is the payload itself.
func plainBytes(codec pack.Codec, size uint32, bytes []byte) ([]byte, error) {
	if codec == pack.CodecNone {
		return bytes, nil
	}
	return format.DecodePayload(nil, &format.Data{ID: format.ID{1}, Size: size, Codec: formatCodec(codec), Payload: bytes, Checked: true})
}
