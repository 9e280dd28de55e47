package repo

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// ScrubOptions say how storage is scrubbed. The zero value is fine.
type ScrubOptions struct {
	Workers int // objects read at once; 0: GOMAXPROCS
	// OnProgress is told what is being done, and how much of it is done.
	OnProgress func(what string, done, total int)
}

// Scrubbed is the result of a scrub.
type Scrubbed struct {
	Findings []*Finding // sorted by object
	Objects  PackSum    // that were read, of every kind
	Strange  int        // objects whose names no object of a repository has
	Newer    int        // whole, and of a format that this program does not know
}

// Scrub reads every object on storage and compares it with the SHA-256 that it
// is named by or ends with (spec/repository.md, section 2). It needs no key. What
// it cannot see is what is missing, and what was put there by somebody who can
// compute a SHA-256: that is what Repository.Check is for.
func Scrub(ctx context.Context, st store.Reader, opts ScrubOptions) (*Scrubbed, error) {
	out := new(Scrubbed)
	var infos []store.Info
	config := false
	err := st.List(ctx, "", func(info store.Info) error {
		name, ok := seal.ParseName(info.Name)
		if !ok {
			out.Strange++
			return nil
		}
		config = config || name.Kind == seal.KindConfig
		infos = append(infos, info)
		return nil
	})
	if err == nil && !config {
		err = keyring.ErrNoRepository
	}
	if err != nil {
		return nil, fmt.Errorf("scrub %s: %w", st, err)
	}
	var mu sync.Mutex
	done := 0
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(opts.Workers, runtime.GOMAXPROCS(0)))
	for _, info := range infos {
		g.Go(func() error {
			err := scrubOne(ctx, st, info)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			mu.Lock()
			defer mu.Unlock()
			if done++; opts.OnProgress != nil {
				opts.OnProgress("read objects", done, len(infos))
			}
			switch {
			case errors.Is(err, store.ErrNotFound):
				return nil // deleted meanwhile
			case errors.Is(err, seal.ErrVersion):
				out.Newer++
			case err != nil:
				out.Findings = append(out.Findings, &Finding{What: Damaged, Object: info.Name, Err: err})
			}
			out.Objects.add(info.Size)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("scrub %s: %w", st, err)
	}
	slices.SortFunc(out.Findings, func(a, b *Finding) int { return cmp.Compare(a.Object, b.Object) })
	return out, nil
}

// scrubOne reads one object, packs a part at a time.
func scrubOne(ctx context.Context, st store.Reader, info store.Info) error {
	name, _ := seal.ParseName(info.Name)
	if name.Kind != seal.KindDataPack {
		stored, err := st.Get(ctx, info.Name, seal.ObjectSizeMax)
		if err != nil {
			return err
		}
		return seal.Scrub(info.Name, stored)
	}
	sum := sha256.New()
	buf := format.AllocPayload(int(min(packWindow, max(info.Size, seal.HeaderSize))))
	defer format.FreePayload(buf)
	var header []byte
	for offset := int64(0); offset < info.Size; {
		part := buf[:min(int64(len(buf)), info.Size-offset)]
		if err := st.ReadAt(ctx, info.Name, part, offset); err != nil {
			return err
		}
		if offset == 0 {
			header = slices.Clone(part[:min(len(part), seal.HeaderSize)])
		}
		sum.Write(part)
		offset += int64(len(part))
	}
	if name.Sum != [32]byte(sum.Sum(nil)) {
		return fmt.Errorf("check %s: %w: its content does not have the SHA-256 that it is named by", info.Name, seal.ErrDamaged)
	}
	h, err := seal.ParseHeader(header)
	if err == nil && !h.Kind.IsPack() {
		err = fmt.Errorf("%w: a %s lies where a pack belongs", seal.ErrDamaged, h.Kind)
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", info.Name, err)
	}
	return nil
}
