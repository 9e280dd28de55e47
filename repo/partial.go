package repo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/tree"
)

// A partial object says which chunks of a stream came with a snapshot that was
// not committed yet (spec/repository.md, section 9.4). It is a hint: what it names
// may be gone by now, and who uses it looks whether it is there.

// partialBody is the body of a partial object.
type partialBody struct {
	Runs     []partialRun `msgpack:"runs"`
	Snapshot []byte       `msgpack:"snapshot"`
	Via      [][]byte     `msgpack:"via,omitempty"`
}

// partialRun is chunks that came, and where their bytes lie if that is not in
// chunks of the same ids.
type partialRun struct {
	At     []byte `msgpack:"at,omitempty"` // u64 for each chunk: where it begins in Stored
	By     string `msgpack:"by,omitempty"`
	Came   []byte `msgpack:"came"`             // id and u32 size of each chunk
	Stored []byte `msgpack:"stored,omitempty"` // id and u64 size of each piece; a hole's id is zero
}

const (
	cameSize  = 32 + 4
	pieceSize = 32 + 8
)

// Partial is one of the parts in which an unfinished snapshot came.
type Partial struct {
	// IDs are the id that the snapshot came under, and those that it had before
	// each stage that it went through.
	IDs []format.ID
	// Chunks are the chunks of the stream that came, as far as their bytes are
	// still held.
	Chunks []format.ChunkRef
}

// Partials calls fn with what came of snapshots whose import was cut off, in as
// many parts as it was noted in. Parts of snapshots that are held by now may be
// among them. What cannot be read is logged and passed over: it will come again.
func (r *Repository) Partials(ctx context.Context, fn func(Partial) error) error {
	return r.eachPartial(ctx, func(_ store.Info, p *partial) error {
		out := Partial{IDs: p.ids}
		for i := range p.runs {
			run := &p.runs[i]
			for n, ref := range run.came {
				live, err := run.live(r, n)
				if err != nil {
					return err
				}
				if live {
					out.Chunks = append(out.Chunks, ref)
				}
			}
		}
		return fn(out)
	})
}

// partial is a decoded partial object.
type partial struct {
	ids  []format.ID
	runs []arrivedRun
}

// arrivedRun is a decoded run.
type arrivedRun struct {
	came   []format.ChunkRef
	at     []uint64
	stored *pieceList // nil: each chunk is stored as it came
	by     string
}

// live reports whether the bytes of a chunk are held, in packs that stay.
func (a *arrivedRun) live(r *Repository, n int) (bool, error) {
	ref := a.came[n]
	if a.stored == nil {
		hit, found, err := r.index.FindLive(r.label.LabelOf(seal.ChunkData, ref.ID))
		return found && hit.RawSize == ref.Size, err
	}
	for i := a.stored.find(a.at[n]); i < len(a.stored.pieces) && a.stored.begins[i] < a.at[n]+uint64(ref.Size); i++ {
		p := a.stored.pieces[i]
		if p.IsHole() {
			continue
		}
		_, found, err := r.index.FindLive(r.label.LabelOf(seal.ChunkData, p.ID))
		if !found || err != nil {
			return false, err
		}
	}
	return true, nil
}

// ids returns the ids of the chunks that are stored for a run.
func (a *arrivedRun) ids() (ids []format.ID) {
	if a.stored == nil {
		for _, ref := range a.came {
			ids = append(ids, ref.ID)
		}
		return ids
	}
	for _, p := range a.stored.pieces {
		if !p.IsHole() {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// eachPartial reads the client's partial objects.
func (r *Repository) eachPartial(ctx context.Context, fn func(store.Info, *partial) error) error {
	var infos []store.Info
	err := r.store.List(ctx, fmt.Sprintf("%s%x/", seal.KindPartial.Dir(), r.clientBytes()), func(info store.Info) error {
		if _, ok := seal.ParseName(info.Name); ok {
			infos = append(infos, info)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list what came of unfinished imports: %w", err)
	}
	for _, info := range infos {
		p, err := r.readPartial(ctx, info.Name)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			if !errors.Is(err, store.ErrNotFound) {
				r.opts.Log.Warn("what came of an unfinished import cannot be read", "object", info.Name, "error", err)
			}
			continue
		}
		if err := fn(info, p); err != nil {
			return err
		}
	}
	return nil
}

func (r *Repository) clientBytes() []byte {
	client := r.keys.Client()
	return client[:]
}

func (r *Repository) readPartial(ctx context.Context, name string) (*partial, error) {
	plain, err := r.getObject(ctx, name, seal.KindPartial)
	if err != nil {
		return nil, err
	}
	p, err := decodePartial(plain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// decodePartial checks everything that others rely on.
func decodePartial(plain []byte) (*partial, error) {
	var body partialBody
	if err := mp.Decode(plain, &body); err != nil {
		return nil, err
	}
	p := new(partial)
	for _, id := range append([][]byte{body.Snapshot}, body.Via...) {
		if len(id) != 32 {
			return nil, fmt.Errorf("an id of %d bytes: %w", len(id), seal.ErrDamaged)
		}
		p.ids = append(p.ids, format.ID(id))
	}
	for i := range body.Runs {
		run, err := decodeRun(&body.Runs[i])
		if err != nil {
			return nil, err
		}
		p.runs = append(p.runs, run)
	}
	return p, nil
}

func decodeRun(in *partialRun) (run arrivedRun, err error) {
	count := len(in.Came) / cameSize
	if len(in.Came)%cameSize != 0 || len(in.Stored)%pieceSize != 0 || len(in.Stored) > 0 && len(in.At) != 8*count {
		return run, fmt.Errorf("a run of chunks that does not come out even: %w", seal.ErrDamaged)
	}
	run.by = in.By
	if len(in.Stored) > 0 {
		run.stored = new(pieceList)
		for b := in.Stored; len(b) > 0; b = b[pieceSize:] {
			piece := tree.Piece{ID: format.ID(b[:32]), Size: binary.BigEndian.Uint64(b[32:])}
			if piece.Size == 0 || piece.Size > format.FileSizeMax-run.stored.size || !piece.IsHole() && piece.Size > format.ChunkSizeMax {
				return run, fmt.Errorf("a piece of %d bytes: %w", piece.Size, seal.ErrDamaged)
			}
			run.stored.add(piece)
		}
	}
	run.came = make([]format.ChunkRef, 0, count)
	for b := in.Came; len(b) > 0; b = b[cameSize:] {
		ref := format.ChunkRef{ID: format.ID(b[:32]), Size: binary.BigEndian.Uint32(b[32:])}
		if ref.Size == 0 || ref.Size > format.ChunkSizeMax || ref.ID.IsZero() {
			return run, fmt.Errorf("a chunk of %d bytes: %w", ref.Size, seal.ErrDamaged)
		}
		if run.stored != nil {
			at := binary.BigEndian.Uint64(in.At[8*len(run.came):])
			if at > run.stored.size || uint64(ref.Size) > run.stored.size-at {
				return run, fmt.Errorf("a chunk beyond what is stored: %w", seal.ErrDamaged)
			}
			run.at = append(run.at, at)
		}
		run.came = append(run.came, ref)
	}
	return run, nil
}

// encode is the reverse of decodeRun.
func (a *arrivedRun) encode() partialRun {
	out := partialRun{By: a.by}
	for _, ref := range a.came {
		out.Came = binary.BigEndian.AppendUint32(append(out.Came, ref.ID[:]...), ref.Size)
	}
	if a.stored != nil {
		for _, p := range a.stored.pieces {
			out.Stored = binary.BigEndian.AppendUint64(append(out.Stored, p.ID[:]...), p.Size)
		}
		for _, at := range a.at {
			out.At = binary.BigEndian.AppendUint64(out.At, at)
		}
	}
	return out
}

// pieceList is the pieces of a content, or of a part of one, in memory.
type pieceList struct {
	pieces []tree.Piece
	begins []uint64
	size   uint64
}

func (l *pieceList) add(p tree.Piece) {
	l.pieces, l.begins = append(l.pieces, p), append(l.begins, l.size)
	l.size += p.Size
}

// find returns the number of the piece that has the byte at offset; behind the
// end that of the piece that would follow.
func (l *pieceList) find(offset uint64) int {
	if offset >= l.size {
		return len(l.pieces)
	}
	n, exact := slices.BinarySearch(l.begins, offset)
	if !exact {
		n--
	}
	return n
}
