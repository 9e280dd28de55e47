package repo

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/tree"
)

// ErrNoEntry says that a snapshot has nothing at a path.
var ErrNoEntry = errors.New("the snapshot has no such entry")

// ErrNotFile says that what lies at a path has no content to read.
var ErrNotFile = errors.New("it is not a file")

// File is one file of a snapshot.
type File struct {
	Entry format.Entry
	EOF   format.EOF // what is known of its content: the error that cut it short, for one

	r       *Repository
	content tree.Content
}

// File finds a file of a snapshot. It reads only the nodes that lead to it. It
// fails with ErrNoEntry, or with ErrNotFile for a directory, a link or a device.
func (r *Repository) File(ctx context.Context, s *Snapshot, path string) (*File, error) {
	fail := func(err error) (*File, error) {
		return nil, fmt.Errorf("find %q in snapshot %s: %w", "/"+path, s.ID.Short(), err)
	}
	it, err := tree.Get(ctx, tree.Listing{Chunks: metaReader{r}, Root: s.Root}, path)
	if err != nil {
		return fail(err)
	}
	if it == nil {
		return fail(ErrNoEntry)
	}
	f := &File{r: r, content: it.Content().Clone()}
	if err := it.Decode(ctx, &f.Entry); err != nil {
		return fail(err)
	}
	if f.Entry.Type != format.TypeFile {
		return fail(fmt.Errorf("%w, but of the type %s", ErrNotFile, f.Entry.Type))
	}
	f.EOF.Size = it.Size()
	body, err := it.EOF(ctx)
	if err != nil {
		return fail(err)
	}
	if body != nil {
		if _, err := f.EOF.ParseBody(body); err != nil {
			return fail(err)
		}
	}
	return f, nil
}

const (
	fileWindowMax  = 4 << 20 // plain bytes of a file that are fetched together, if no chunk alone has more
	filePiecesMax  = 4 << 10 // pieces of a file that are fetched together
	fileWindowsMax = 4       // windows that are fetched, or wait to be written, at a time
)

// fileWindow is a run of a file's pieces and, once ready is closed, their bytes.
type fileWindow struct {
	pieces []tree.Piece
	plain  [][]byte // by piece; nil for a hole
	bytes  uint64   // of the chunks
	ready  chan struct{}
	err    error
}

// Copy writes the content to w in order, holes as zeros. Chunks are read ahead
// from several goroutines, 16 MiB of them or 4, whichever is more.
func (f *File) Copy(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	windows := make(chan *fileWindow, fileWindowsMax-2) // one more is in either goroutine's hands
	go f.readAhead(ctx, windows)
	var err error
	for win := range windows {
		<-win.ready
		if err == nil {
			if err = win.err; err == nil {
				err = win.writeTo(w)
			}
			if err != nil {
				cancel()
			}
		}
		for _, plain := range win.plain {
			format.FreePayload(plain)
		}
	}
	cancel()
	if err != nil {
		return fmt.Errorf("read the content of %q: %w", "/"+f.Entry.Path, err)
	}
	return nil
}

// readAhead makes windows and has them filled until ctx ends.
func (f *File) readAhead(ctx context.Context, windows chan<- *fileWindow) {
	defer close(windows)
	pieces := tree.NewContentReader(ctx, metaReader{f.r}, f.content)
	win := &fileWindow{ready: make(chan struct{})}
	send := func() {
		full := win
		go func() {
			defer close(full.ready)
			if full.err == nil {
				full.err = f.fill(ctx, full)
			}
		}()
		windows <- full
		win = &fileWindow{ready: make(chan struct{})}
	}
	for ctx.Err() == nil {
		p, _, err := pieces.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			win.err = err
			break
		}
		size := p.Size
		if p.IsHole() {
			size = 0
		}
		if win.bytes > 0 && win.bytes+size > fileWindowMax || len(win.pieces) == filePiecesMax {
			send()
		}
		win.bytes += size
		win.pieces = append(win.pieces, p)
	}
	if win.err == nil {
		win.err = context.Cause(ctx)
	}
	send()
}

// fill fetches the chunks of a window.
func (f *File) fill(ctx context.Context, win *fileWindow) error {
	var ids []format.ID
	var at []int
	for i, p := range win.pieces {
		if !p.IsHole() {
			ids, at = append(ids, p.ID), append(at, i)
		}
	}
	win.plain = make([][]byte, len(win.pieces))
	return f.r.readPayloads(ctx, seal.ChunkData, ids, func(n int, p payload, err error) error {
		if err != nil {
			return err
		}
		plain, err := decode(ids[n], p)
		if err != nil {
			return fmt.Errorf("chunk %s: %w", ids[n], err)
		}
		win.plain[at[n]] = plain
		if want := win.pieces[at[n]].Size; uint64(len(plain)) != want {
			return fmt.Errorf("chunk %s has %d bytes, not the %d its file says: %w", ids[n], len(plain), want, seal.ErrDamaged)
		}
		return nil
	})
}

var zeros [64 << 10]byte

func (win *fileWindow) writeTo(w io.Writer) error {
	for i, p := range win.pieces {
		if !p.IsHole() {
			if _, err := w.Write(win.plain[i]); err != nil {
				return err
			}
			continue
		}
		for left := p.Size; left > 0; {
			n, err := w.Write(zeros[:min(left, uint64(len(zeros)))])
			if err != nil {
				return err
			}
			left -= uint64(n)
		}
	}
	return nil
}
