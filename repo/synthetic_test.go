package repo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	syntheticInFile    = 4096    // chunks; a snapshot may have a part of its first and last file
	syntheticChunkSize = 1 << 20 // plain bytes
	syntheticStored    = 250_000 // sealed bytes
	syntheticIndexAt   = 1 << 18 // chunks in an index object
	syntheticSnapshots = 10      // each shares three quarters with the one before
)

// synthetic says how large a synthetic repository is.
type synthetic struct {
	chunks, inPack int
	unneeded       func(pack int) bool // it is in no snapshot
	noFiles        bool                // there are no files of packs
}

// syntheticUsual has packs of 64 chunks, one of 20 of them in no snapshot.
func syntheticUsual(chunks int) synthetic {
	return synthetic{chunks: chunks, inPack: 64, unneeded: func(pack int) bool { return pack%20 == 0 }}
}

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
	r := makeSynthetic(t, path, syntheticUsual(chunks))
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
	want := chunks / 64 / 20
	if sum.Missing > 0 || sum.Condemned.Packs < want || sum.Deleted != sum.Condemned || sum.Snapshots != syntheticSnapshots {
		t.Errorf("%d packs are in no snapshot: %+v", want, sum)
	}
}

func syntheticID(chunk int) (id format.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(chunk))
	return format.SumID(id[:])
}

func makeSynthetic(t *testing.T, path string, size synthetic) *Repository {
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
	for first := 0; first < size.chunks; first += size.inPack {
		info := r.addSynthetic(first, size.inPack)
		if !size.noFiles {
			err = makeSparse(filepath.Join(path, info.ObjectName()), info.Size)
		}
		if !size.unneeded(first / size.inPack) {
			for n := range size.inPack {
				needed = append(needed, first+n)
			}
		}
		if err == nil && r.index.Pending() >= syntheticIndexAt {
			err = session.writeIndex(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(err, session.flush(ctx), session.end()); err != nil {
		t.Fatal(err)
	}
	sink, err := r.Import(ctx, ImportOptions{Held: true, Backup: true})
	if err != nil {
		t.Fatal(err)
	}
	w := syntheticWriter{sink: sink, chunks: needed}
	w.write(&format.Header{Version: format.Version, Features: []format.Feature{format.FeatureHeld}})
	window := len(needed) * 4 / (syntheticSnapshots + 3)
	for s := range syntheticSnapshots {
		w.snapshot(s, s*window/4, min(s*window/4+window, len(needed)))
	}
	w.write(&format.End{})
	if err := errors.Join(w.err, sink.Close()); err != nil {
		t.Fatal(err)
	}
	return r
}

// addSynthetic makes a pack of count chunks from first on.
func (r *Repository) addSynthetic(first, count int) pack.Info {
	h, _ := r.header(seal.KindDataPack)
	info := pack.Info{Name: [32]byte(syntheticID(-1 - first)), Kind: seal.KindDataPack, Suite: h.Suite, Epoch: h.Epoch, Writer: r.keys.Client(), Count: uint32(count)}
	info.Salt = seal.Salt(info.Name)
	info.Size = seal.PaddedSize(int64(seal.HeaderSize + count*(syntheticStored+29) + 100))
	entries := make([]pack.Entry, count)
	for i := range entries {
		entries[i] = pack.Entry{
			Label: r.label.LabelOf(seal.ChunkData, syntheticID(first+i)), Codec: pack.CodecZstd, RawSize: syntheticChunkSize,
			StoredSize: syntheticStored, Offset: uint32(seal.HeaderSize + i*syntheticStored),
		}
	}
	r.index.Stored(info, entries)
	return info
}

func makeSparse(file string, size int64) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// syntheticWriter writes snapshots whose files are made of given chunks, each as
// the difference to the one before: whoever checks a reference looks it up, and
// three quarters of them are as they were.
type syntheticWriter struct {
	sink   *Sink
	chunks []int
	before []syntheticFile
	err    error
}

// syntheticFile is a file of chunks lo to hi of all that are needed.
type syntheticFile struct{ lo, hi int }

func (f syntheticFile) path() string { return fmt.Sprintf("file%09d", f.lo/syntheticInFile) }

func (w *syntheticWriter) write(rec format.Record) {
	if w.err == nil {
		w.err = w.sink.Write(rec)
	}
}

func (w *syntheticWriter) snapshot(number, lo, hi int) {
	snap := &format.Snapshot{ID: format.ID{byte(number + 1)}, Time: &format.Time{Sec: int64(number)}, Host: "h"}
	if number > 0 {
		snap.Parent = format.ID{byte(number)}
	}
	w.write(snap)
	var files []syntheticFile
	for lo < hi {
		end := min(hi, (lo/syntheticInFile+1)*syntheticInFile)
		files = append(files, syntheticFile{lo, end})
		lo = end
	}
	for _, f := range w.before {
		if f.hi <= files[0].lo {
			w.write(&format.Remove{Path: f.path()})
		}
	}
	for _, f := range files {
		if !slices.Contains(w.before, f) {
			w.file(f)
		}
	}
	w.before = files
	w.write(&format.Commit{})
}

func (w *syntheticWriter) file(f syntheticFile) {
	size := uint64(f.hi-f.lo) * syntheticChunkSize
	w.write(&format.Entry{Path: f.path(), Type: format.TypeFile, Size: size})
	for i := f.lo; i < f.hi; i += 1024 {
		refs := new(format.Refs)
		for _, c := range w.chunks[i:min(i+1024, f.hi)] {
			refs.Chunks = append(refs.Chunks, format.ChunkRef{ID: syntheticID(c), Size: syntheticChunkSize})
		}
		w.write(refs)
	}
	w.write(&format.EOF{Size: size})
}
