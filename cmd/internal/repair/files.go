package repair

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/store"
)

// openFrom opens a place where lost chunks may be had again.
func openFrom(ctx context.Context, app *cli.App, place string) (repo.ChunkSource, func() error, error) {
	scheme, path := store.SplitLocation(place)
	if scheme == "" || scheme == "file" {
		if _, err := os.Stat(filepath.Join(path, "config")); errors.Is(err, fs.ErrNotExist) {
			return openFiles(path)
		}
	}
	// Without a cache: a copy of the repository has the same id, and another index.
	system, err := app.OpenSystemAs(ctx, &cli.SourceFlags{RepoFlags: cli.RepoFlags{Repo: place, CacheDir: "none"}}, cli.RoleFrom)
	if err != nil {
		return nil, nil, err
	}
	if r, ok := system.(*repo.Repository); ok {
		return r, r.Close, nil
	}
	if reader, ok := system.(chunkReader); ok {
		return foreign{reader}, system.Close, nil
	}
	system.Close()
	return nil, nil, cli.Usagef("--from: chunks cannot be looked up in %s", place)
}

// chunkReader is a system of another program whose chunks have the ids of ours.
type chunkReader interface {
	ReadChunks(ctx context.Context, refs []format.ChunkRef, fn func(number int, plain []byte, err error) error) error
}

type foreign struct{ chunkReader }

// foreignBatch is how many chunks are asked for at a time.
const foreignBatch = 64

// Chunks implements repo.ChunkSource.
func (f foreign) Chunks(ctx context.Context, lost []repo.LostChunk, fn func(i int, plain []byte) error) error {
	var refs []format.ChunkRef
	var at []int
	ask := func() error {
		type had struct {
			at    int
			plain []byte
		}
		got := make(chan had, len(refs))
		err := f.ReadChunks(ctx, refs, func(n int, plain []byte, err error) error {
			if err == nil {
				got <- had{at[n], append([]byte(nil), plain...)}
			}
			return nil
		})
		close(got)
		for h := range got {
			if err == nil {
				err = fn(h.at, h.plain)
			}
		}
		refs, at = refs[:0], at[:0]
		return err
	}
	for i, l := range lost {
		if l.Meta {
			continue
		}
		refs, at = append(refs, format.ChunkRef{ID: l.ID, Size: uint32(l.Size)}), append(at, i)
		if len(refs) == foreignBatch {
			if err := ask(); err != nil {
				return err
			}
		}
	}
	if len(refs) == 0 {
		return nil
	}
	return ask()
}

// files are a directory tree in which content may still be as it was backed up.
type files struct{ root *os.Root }

func openFiles(dir string) (repo.ChunkSource, func() error, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, cli.Usagef("--from: there is neither a repository nor a directory at %s", dir)
	}
	if err != nil {
		return nil, nil, &cli.Error{Op: "open --from " + dir, Err: err}
	}
	return files{root}, root.Close, nil
}

// Chunks implements repo.ChunkSource: a chunk is where it was in the file, or it
// is not found. Nothing but regular files is opened, and nothing outside the
// directory.
func (f files) Chunks(ctx context.Context, lost []repo.LostChunk, fn func(i int, plain []byte) error) error {
	for i, l := range lost {
		if l.Meta || l.Size == 0 || l.Size > format.ChunkSizeMax {
			continue
		}
		for _, place := range l.Places {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			plain, err := f.read(place, int(l.Size))
			if err != nil || format.SumID(plain) != l.ID {
				continue
			}
			if err := fn(i, plain); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

func (f files) read(place repo.LostPlace, size int) ([]byte, error) {
	name := strings.Trim(place.Path, "/")
	info, err := f.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fs.ErrInvalid
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	plain := make([]byte, size)
	_, err = io.ReadFull(io.NewSectionReader(file, int64(place.Offset), int64(size)), plain)
	return plain, err
}
