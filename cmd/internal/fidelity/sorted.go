package fidelity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"os"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store/dir"
)

// digestSize is what stands for a file's content in an order of our own: its
// SHA-256 and its size.
const digestSize = sha256.Size + 8

// openSorted opens a side whose entries come in no order, such as an archive's.
// They are read once, each content is hashed, and listings with these digests
// instead of contents go into a repository in a temporary directory, under keys
// that nobody keeps, which hands them out in order.
func openSorted(ctx context.Context, name string, system format.System, snapshots []format.ID) (s *side, err error) {
	place, err := os.MkdirTemp("", "bk-diff-*")
	if err != nil {
		return nil, fmt.Errorf("make room for what %s does not hand out in order: %w", name, err)
	}
	remove := func() error { return os.RemoveAll(place) }
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("put the entries of %s in order: %w", name, err), remove())
		}
	}()
	st, err := dir.Open(place, dir.Options{})
	if err != nil {
		return nil, err
	}
	r, err := repo.Init(ctx, st, keyring.InitOptions{
		Suite: seal.SuiteAES256GCM, Passphrase: rand.Text(), Argon2: keyring.Argon2{MemoryKiB: 64, Passes: 1, Threads: 1},
		Chunker: "fixed:64KiB", Compression: "fastest",
	}, repo.Options{})
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	src, err := sortInto(ctx, r, system, snapshots)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &side{name: name, src: &temporary{src, func() error { return errors.Join(r.Close(), remove()) }}, digested: true}, nil
}

// sortInto brings digests of snapshots into a repository and opens them there, in
// the same order.
func sortInto(ctx context.Context, r *repo.Repository, system format.System, snapshots []format.ID) (format.SourceCloser, error) {
	src, err := system.Export(ctx, format.ExportOptions{Snapshots: snapshots, Flat: true})
	if err != nil {
		return nil, err
	}
	defer src.Close()
	sink, err := r.Import(ctx, repo.ImportOptions{})
	if err != nil {
		return nil, err
	}
	err = format.Copy(ctx, sink, src, &digester{sum: sha256.New()})
	if err = errors.Join(err, sink.Close()); err != nil {
		return nil, err
	}
	opts := format.ExportOptions{Flat: true}
	came := make(map[format.ID]format.ID)
	for _, s := range sink.Summary().Snapshots {
		came[s.Imported] = s.ID
	}
	for _, id := range snapshots {
		opts.Snapshots = append(opts.Snapshots, came[id])
	}
	return r.Export(ctx, opts)
}

// temporary is a source that is closed with something else.
type temporary struct {
	format.SourceCloser
	also func() error
}

// Close implements format.SourceCloser.
func (t *temporary) Close() error { return errors.Join(t.SourceCloser.Close(), t.also()) }

// digester replaces the content of every file by its digest.
type digester struct {
	sum   hash.Hash
	size  uint64
	zeros [64 << 10]byte
}

// Process implements format.Stage.
func (d *digester) Process(rec format.Record, emit func(format.Record) error) error {
	switch rec := rec.(type) {
	case *format.Entry:
		d.sum.Reset()
		d.size = 0
	case *format.Data:
		plain, err := format.DecodePayload(nil, rec)
		if err != nil {
			return err
		}
		d.size += uint64(len(plain))
		d.sum.Write(plain)
		format.FreePayload(plain)
		return nil
	case *format.Hole:
		d.size += rec.Size
		for left := rec.Size; left > 0; left -= min(left, uint64(len(d.zeros))) {
			d.sum.Write(d.zeros[:min(left, uint64(len(d.zeros)))])
		}
		return nil
	case *format.EOF:
		payload := d.sum.Sum(format.AllocPayload(digestSize)[:0])
		payload = binary.BigEndian.AppendUint64(payload, d.size)
		if err := emit(&format.Data{ID: format.SumID(payload), Size: digestSize, Codec: format.CodecNone, Payload: payload}); err != nil {
			return err
		}
		eof := *rec
		eof.Size, eof.SHA256 = digestSize, nil
		return emit(&eof)
	}
	return emit(rec)
}

// digest reads the content of the current file and returns its digest.
func (s *side) digest(ctx context.Context, c *contents) (sum [digestSize]byte, err error) {
	if s.digested {
		p, err := s.piece()
		if err != nil {
			return sum, err
		}
		if p == nil || len(p.plain) != digestSize {
			return sum, fmt.Errorf("%s: a digest is missing", s.name)
		}
		copy(sum[:], p.plain)
		format.FreePayload(p.plain)
		if err := s.skip(); err != nil {
			return sum, err
		}
		s.eof.Size = binary.BigEndian.Uint64(sum[sha256.Size:])
		return sum, nil
	}
	whole := &segment{side: s, sum: sha256.New()}
	for {
		p, err := s.piece()
		if err != nil {
			return sum, err
		}
		if p == nil {
			break
		}
		whole.add(*p)
		if len(whole.pieces) >= segmentPiecesMax || whole.plain >= segmentPlainMax {
			if err := c.hash(ctx, whole); err != nil {
				return sum, err
			}
		}
	}
	if err := c.hash(ctx, whole); err != nil {
		return sum, err
	}
	whole.sum.Sum(sum[:0])
	binary.BigEndian.PutUint64(sum[sha256.Size:], whole.size)
	return sum, nil
}
