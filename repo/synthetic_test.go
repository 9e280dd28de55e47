package repo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store/dir"
)

// A synthetic repository has an index, listings and snapshots as any, but no
// data: its data packs are files of the right name and size that hold nothing.

const (
	syntheticInPack    = 64      // chunks
	syntheticInFile    = 4096    // chunks
	syntheticChunkSize = 1 << 20 // plain bytes
	syntheticStored    = 250_000 // sealed bytes
	syntheticIndexAt   = 1 << 18 // chunks in an index object
	syntheticSnapshots = 10      // each shares three quarters with the one before
	syntheticUnneeded  = 20      // one pack of so many is in no snapshot
)

// TestSynthetic makes a synthetic repository and collects in it. With
// BK_SYNTHETIC_DIR it makes one of BK_SYNTHETIC_CHUNKS chunks there, passphrase
// bench, and leaves it for whole programs to be measured with.
func TestSynthetic(t *testing.T) {
	path, chunks := os.Getenv("BK_SYNTHETIC_DIR"), 20_000
	if n, err := strconv.Atoi(os.Getenv("BK_SYNTHETIC_CHUNKS")); err == nil {
		chunks = n
	}
	keep := path != ""
	if !keep {
		path = filepath.Join(t.TempDir(), "repo")
	}
	r := makeSynthetic(t, path, chunks)
	if keep {
		return
	}
	st := r.store
	before, err := st.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for now := before; now.Sub(before) < 10*time.Millisecond; time.Sleep(time.Millisecond) { // storage's clock may be coarse
		if now, err = st.Now(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := r.Collect(t.Context(), CollectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := chunks / syntheticInPack / syntheticUnneeded
	if sum.Missing > 0 || sum.Condemned.Packs < want || sum.Deleted != sum.Condemned || sum.Snapshots != syntheticSnapshots {
		t.Errorf("%d packs are in no snapshot: %+v", want, sum)
	}
}

func syntheticID(chunk int) (id format.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(chunk))
	return format.SumID(id[:])
}

func makeSynthetic(t *testing.T, path string, chunks int) *Repository {
	t.Helper()
	ctx := context.Background()
	st, err := dir.Create(path, dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Init(ctx, st, keyring.InitOptions{Passphrase: "bench", Argon2: cheap, Chunker: "gear:1MiB", Compression: "default"}, Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	session, err := r.beginSession(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	var needed []int
	for first := 0; first < chunks; first += syntheticInPack {
		if err := r.addSynthetic(path, first); err != nil {
			t.Fatal(err)
		}
		if first/syntheticInPack%syntheticUnneeded > 0 {
			for n := range syntheticInPack {
				needed = append(needed, first+n)
			}
		}
		if r.index.Pending() >= syntheticIndexAt {
			err = session.writeIndex(ctx)
		}
	}
	if err := errors.Join(err, session.flush(ctx), session.end()); err != nil {
		t.Fatal(err)
	}
	sink, err := r.Import(ctx, ImportOptions{Held: true, Backup: true})
	if err != nil {
		t.Fatal(err)
	}
	w := syntheticWriter{sink: sink}
	w.write(&format.Header{Version: format.Version, Features: []format.Feature{format.FeatureHeld}})
	window := len(needed) * 4 / (syntheticSnapshots + 3)
	for s := range syntheticSnapshots {
		w.snapshot(s, needed[s*window/4:min(s*window/4+window, len(needed))])
	}
	w.write(&format.End{})
	if err := errors.Join(w.err, sink.Close()); err != nil {
		t.Fatal(err)
	}
	return r
}

// addSynthetic makes a pack of the chunks from first on.
func (r *Repository) addSynthetic(path string, first int) error {
	h, _ := r.header(seal.KindDataPack)
	info := pack.Info{Name: [32]byte(syntheticID(-1 - first)), Kind: seal.KindDataPack, Suite: h.Suite, Epoch: h.Epoch, Writer: r.keys.Client(), Count: syntheticInPack}
	info.Salt = seal.Salt(info.Name)
	info.Size = seal.PaddedSize(seal.HeaderSize + syntheticInPack*(syntheticStored+29) + 100)
	entries := make([]pack.Entry, syntheticInPack)
	for i := range entries {
		entries[i] = pack.Entry{
			Label: r.label.LabelOf(seal.ChunkData, syntheticID(first+i)), Codec: pack.CodecZstd, RawSize: syntheticChunkSize,
			StoredSize: syntheticStored, Offset: uint32(seal.HeaderSize + i*syntheticStored),
		}
	}
	r.index.Stored(info, entries)
	file := filepath.Join(path, info.ObjectName())
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(info.Size), f.Close())
}

// syntheticWriter writes snapshots whose files are made of given chunks.
type syntheticWriter struct {
	sink *Sink
	err  error
}

func (w *syntheticWriter) write(rec format.Record) {
	if w.err == nil {
		w.err = w.sink.Write(rec)
	}
}

func (w *syntheticWriter) snapshot(number int, chunks []int) {
	w.write(&format.Snapshot{ID: format.ID{byte(number + 1)}, Time: &format.Time{Sec: int64(number)}, Host: "h"})
	for len(chunks) > 0 {
		// A file is called by its first chunk, and ends at the same chunks in every
		// snapshot, so that snapshots share what they have in common.
		n := min(len(chunks), syntheticInFile-chunks[0]%syntheticInFile)
		w.write(&format.Entry{Path: fmt.Sprintf("file%09d", chunks[0]), Type: format.TypeFile, Size: uint64(n) * syntheticChunkSize})
		for i := 0; i < n; i += 1024 {
			refs := new(format.Refs)
			for _, c := range chunks[i:min(i+1024, n)] {
				refs.Chunks = append(refs.Chunks, format.ChunkRef{ID: syntheticID(c), Size: syntheticChunkSize})
			}
			w.write(refs)
		}
		w.write(&format.EOF{Size: uint64(n) * syntheticChunkSize})
		chunks = chunks[n:]
	}
	w.write(&format.Commit{})
}
