package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
)

var cheap = keyring.Argon2{MemoryKiB: 64, Passes: 1, Threads: 1}

func newRepo(t testing.TB, suite seal.Suite) *Repository {
	t.Helper()
	r, err := Init(context.Background(), mem.New(), keyring.InitOptions{
		Suite: suite, Passphrase: "p", Argon2: cheap, Chunker: "gear:64KiB", Compression: "default",
		ChunkerKeys: keyring.ChunkerKeys{Seed: 0x9e3779b9, HasSeed: true},
	}, Options{Workers: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// file is a file of a model listing: pieces of content, "" for a hole of 4096.
type file struct {
	entry  format.Entry
	chunks []string
}

// model is a history of listings, from which streams are made.
type model []map[string]file

func modelEntry(path string, typ format.Type) format.Entry {
	e := format.Entry{Path: path, Type: typ, Has: format.HasMode | format.HasMtime | format.HasUID | format.HasGID, Mode: 0o644, Mtime: format.Time{Sec: -5, Nsec: 500}, User: "u"}
	if typ == format.TypeSymlink {
		e.Target = "elsewhere\xff"
	}
	return e
}

// randomHistory makes n listings, each a small edit of the one before.
func randomHistory(rng *rand.Rand, n, files int) model {
	var m model
	cur := map[string]file{}
	put := func(path string) {
		for dir := format.ParentPath(path); dir != ""; dir = format.ParentPath(dir) {
			cur[dir] = file{entry: modelEntry(dir, format.TypeDir)}
		}
		if rng.IntN(10) == 0 {
			cur[path] = file{entry: modelEntry(path, format.TypeSymlink)}
			return
		}
		f := file{entry: modelEntry(path, format.TypeFile)}
		f.entry.Mtime.Sec = rng.Int64N(1 << 32)
		for range rng.IntN(5) {
			switch rng.IntN(6) {
			case 0:
				f.chunks = append(f.chunks, "")
			case 1:
				f.chunks = append(f.chunks, strings.Repeat("common ", 200+rng.IntN(3)))
			default:
				f.chunks = append(f.chunks, fmt.Sprint(rng.Uint64(), strings.Repeat("x", rng.IntN(3000))))
			}
		}
		cur[path] = f
	}
	for range n {
		for range files {
			put(fmt.Sprintf("d%d/e%d/f%d", rng.IntN(4), rng.IntN(6), rng.IntN(40)))
		}
		if rng.IntN(2) == 0 {
			gone := fmt.Sprintf("d%d/e%d", rng.IntN(4), rng.IntN(6))
			for p := range cur {
				if p == gone || format.IsBelow(p, gone) {
					delete(cur, p)
				}
			}
		}
		listing := map[string]file{}
		for p, f := range cur {
			listing[p] = f
		}
		m = append(m, listing)
	}
	return m
}

// write sends the history as whole listings.
func (m model) write(t testing.TB, sink format.Sink) error {
	t.Helper()
	recs := []format.Record{&format.Header{Version: 1, Producer: "model", Features: []format.Feature{format.FeatureZstd}}}
	sent := map[format.ID]bool{}
	for i, listing := range m {
		recs = append(recs, &format.Snapshot{ID: format.ID{byte(i + 1), 7}, Host: "h", Time: &format.Time{Sec: int64(i)}, Tags: []string{fmt.Sprint("t", i)}})
		paths := make([]string, 0, len(listing))
		for p := range listing {
			paths = append(paths, p)
		}
		slices.SortFunc(paths, format.ComparePaths)
		for _, p := range paths {
			f := listing[p]
			recs = append(recs, f.entry.Clone())
			if f.entry.Type != format.TypeFile {
				continue
			}
			size := uint64(0)
			for n, c := range f.chunks {
				if c == "" {
					size += 4096
					recs = append(recs, &format.Hole{Size: 4096})
					continue
				}
				size += uint64(len(c))
				id := format.SumID([]byte(c))
				if sent[id] {
					recs = append(recs, &format.Refs{Chunks: []format.ChunkRef{{ID: id, Size: uint32(len(c))}}})
					continue
				}
				sent[id] = true
				d := &format.Data{ID: id, Size: uint32(len(c)), Codec: format.CodecNone, Payload: append(format.AllocPayload(len(c))[:0], c...)}
				if n%2 == 0 {
					codec, payload, err := format.EncodePayload(nil, []byte(c), format.LevelDefault)
					if err != nil {
						t.Fatal(err)
					}
					d.Codec, d.Payload = codec, append(format.AllocPayload(len(payload))[:0], payload...)
				}
				recs = append(recs, d)
			}
			recs = append(recs, &format.EOF{Size: size})
		}
		recs = append(recs, &format.Commit{})
	}
	recs = append(recs, &format.End{})
	for _, r := range recs {
		if err := sink.Write(r); err != nil {
			return err
		}
	}
	return nil
}

// expand reads every snapshot of a repository back: paths to what is there.
func expand(t testing.TB, r *Repository, opts format.ExportOptions) []map[string]string {
	t.Helper()
	return expandOn(t, r, opts, nil)
}

// expandOn is expand of differences to a base.
func expandOn(t testing.TB, r *Repository, opts format.ExportOptions, base map[string]string) []map[string]string {
	t.Helper()
	src, err := r.Export(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var stream bytes.Buffer
	if err := format.Copy(context.Background(), format.NewWriter(&stream, format.WriterOptions{}), src); err != nil {
		t.Fatal(err)
	}
	return expandStream(t, &stream, base)
}

// expandStream applies a stream to listings in memory; base is what a first
// parent names.
func expandStream(t testing.TB, stream io.Reader, base map[string]string) (out []map[string]string) {
	t.Helper()
	rd := format.NewReader(stream, format.ReaderOptions{})
	cur, prev := map[string]string{}, base
	chunks := map[format.ID]string{}
	var entry *format.Entry
	var content strings.Builder
	for {
		rec, err := rd.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		switch rec := rec.(type) {
		case *format.Snapshot:
			cur = map[string]string{}
			if !rec.Parent.IsZero() {
				for p, v := range prev {
					cur[p] = v
				}
			}
		case *format.Entry:
			if rec.Type != format.TypeDir {
				for p := range cur {
					if format.IsBelow(p, rec.Path) {
						delete(cur, p)
					}
				}
			}
			entry = rec.Clone()
			content.Reset()
			if rec.Type != format.TypeFile {
				cur[rec.Path] = describe(entry)
			}
		case *format.Data:
			plain, err := format.DecodePayload(nil, rec)
			if err != nil {
				t.Fatal(err)
			}
			chunks[rec.ID] = string(plain)
			content.Write(plain)
		case *format.Refs:
			for _, ref := range rec.Chunks {
				plain, ok := chunks[ref.ID]
				if !ok {
					t.Fatalf("refs name %s, which was not sent", ref.ID)
				}
				content.WriteString(plain)
			}
		case *format.CopyRange:
			old := prev[entry.Path]
			_, bytes, _ := strings.Cut(old, "\x00")
			content.WriteString(bytes[rec.Offset : rec.Offset+rec.Size])
		case *format.Hole:
			content.WriteString(strings.Repeat("\x00", int(rec.Size)))
		case *format.EOF:
			cur[entry.Path] = describe(entry) + "\x00" + content.String()
		case *format.Remove:
			for p := range cur {
				if p == rec.Path || format.IsBelow(p, rec.Path) {
					delete(cur, p)
				}
			}
		case *format.Commit:
			out = append(out, cur)
			prev = cur
		}
	}
}

func describe(e *format.Entry) string {
	c := e.Clone()
	c.Path, c.Size, c.Has, c.Chunker = "", 0, c.Has&^format.HasSize, ""
	return fmt.Sprintf("%x", c.AppendBody(nil, false))
}

// listings is what a model's snapshots hold, in expand's form.
func (m model) listings() (out []map[string]string) {
	for _, listing := range m {
		l := map[string]string{}
		for p, f := range listing {
			l[p] = describe(&f.entry)
			if f.entry.Type == format.TypeFile {
				l[p] += "\x00"
				for _, c := range f.chunks {
					if c == "" {
						c = strings.Repeat("\x00", 4096)
					}
					l[p] += c
				}
			}
		}
		out = append(out, l)
	}
	return out
}

func importModel(t testing.TB, r *Repository, m model) Imported {
	t.Helper()
	sink, err := r.Import(context.Background(), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.write(t, sink); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	return sink.Summary()
}

// transfer pipes an export of one repository into another, through bytes.
func transfer(t testing.TB, from, to *Repository, opts format.ExportOptions, in ImportOptions) (Imported, []byte) {
	t.Helper()
	ctx := context.Background()
	src, err := from.Export(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var stream bytes.Buffer
	if err := format.Copy(ctx, format.NewWriter(&stream, format.WriterOptions{}), src); err != nil {
		t.Fatal(err)
	}
	bytes := slices.Clone(stream.Bytes())
	sink, err := to.Import(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	if err := format.Copy(ctx, sink, format.NewReader(&stream, format.ReaderOptions{})); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	return sink.Summary(), bytes
}

func TestImportExportConvert(t *testing.T) {
	t.Parallel()
	for seed := range underRace(uint64(6), 2) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := randomHistory(rng, 5, 60)
		want := m.listings()
		a := newRepo(t, seal.SuiteAES256GCM)
		if sum := importModel(t, a, m); len(sum.Snapshots) != 5 || sum.NewChunks == 0 {
			t.Fatalf("summary: %+v", sum)
		}
		for name, opts := range map[string]format.ExportOptions{
			"differences": {}, "full": {Full: true}, "flat": {Flat: true}, "plain": {Plain: true}, "copy": {Copy: true},
		} {
			if diff := cmp.Diff(want, expand(t, a, opts)); diff != "" {
				t.Fatalf("seed %d, %s: %s", seed, name, diff[:min(len(diff), 2000)])
			}
		}
		b := newRepo(t, seal.SuiteXChaCha20Poly1305)
		first, _ := transfer(t, a, b, format.ExportOptions{}, ImportOptions{})
		if len(first.Snapshots) != 5 {
			t.Fatalf("converted %d snapshots", len(first.Snapshots))
		}
		if diff := cmp.Diff(want, expand(t, b, format.ExportOptions{})); diff != "" {
			t.Fatalf("seed %d, converted: %s", seed, diff[:min(len(diff), 2000)])
		}
		again, _ := transfer(t, a, b, format.ExportOptions{}, ImportOptions{})
		if len(again.Snapshots) != 0 || again.HeldAlready != 5 || again.NewChunks != 0 || again.Packs != 0 {
			t.Fatalf("a second import of the same stream: %+v", again)
		}
		old, _, _ := a.List(context.Background())
		converted, _, _ := b.List(context.Background())
		for i, s := range converted {
			if s.Imported != old[i].ID || s.Meta.Host != "h" || s.Meta.Tags[0] != fmt.Sprint("t", i) || s.Meta.Time.Sec != int64(i) {
				t.Fatalf("snapshot %d: imported %s (from %s), %+v", i, s.Imported, old[i].ID, s.Meta)
			}
		}
	}
}

func TestIncrementalWithBase(t *testing.T) {
	t.Parallel()
	for seed := range underRace(uint64(6), 2) {
		rng := rand.New(rand.NewPCG(seed, 2))
		m := randomHistory(rng, 6, 40)
		a, b := newRepo(t, 1), newRepo(t, 2)
		importModel(t, a, m)
		list, _, _ := a.List(context.Background())
		ids := make([]format.ID, len(list))
		for i, s := range list {
			ids[i] = s.ID
		}
		transfer(t, a, b, format.ExportOptions{Snapshots: ids[:3]}, ImportOptions{})
		sum, stream := transfer(t, a, b, format.ExportOptions{Snapshots: ids[3:], Base: ids[2]}, ImportOptions{})
		if len(sum.Snapshots) != 3 {
			t.Fatalf("%d new snapshots", len(sum.Snapshots))
		}
		if diff := cmp.Diff(m.listings(), expand(t, b, format.ExportOptions{})); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff[:min(len(diff), 2000)])
		}
		if diff := cmp.Diff(m.listings()[3:], expandStream(t, bytes.NewReader(stream), m.listings()[2])); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff[:min(len(diff), 2000)])
		}
	}
}

func TestHeldMovesNoContent(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	m := randomHistory(rng, 4, 60)
	a := newRepo(t, 1)
	importModel(t, a, m)
	before := a.Stats().DataChunksRead.Load()
	drop := func(path string, isDir bool) (bool, bool) { return strings.HasPrefix(path, "d1"), true }
	sum, _ := transfer(t, a, a, format.ExportOptions{Held: true, Drop: drop}, ImportOptions{Held: true})
	if n := a.Stats().DataChunksRead.Load() - before; n != 0 {
		t.Errorf("%d chunks of content were read", n)
	}
	if sum.NewChunks != 0 {
		t.Errorf("%d chunks of content were stored", sum.NewChunks)
	}
	// The id of each snapshot is claimed by another listing now, so they come in
	// under derived ids; what a filter stage does is in format/filter.
	list, _, _ := a.List(context.Background())
	if len(list) != 8 {
		t.Fatalf("%d snapshots", len(list))
	}
}

func TestRefsOfOthersAreRefused(t *testing.T) {
	a := newRepo(t, 1)
	m := model{{"secret": file{entry: modelEntry("secret", format.TypeFile), chunks: []string{"the content of somebody else"}}}}
	importModel(t, a, m)
	sink, err := a.Import(context.Background(), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	id := format.SumID([]byte("the content of somebody else"))
	e := modelEntry("mine", format.TypeFile)
	for _, rec := range []format.Record{
		&format.Header{Version: 1}, &format.Snapshot{ID: format.ID{9}}, &e,
	} {
		if err := sink.Write(rec); err != nil {
			t.Fatal(err)
		}
	}
	err = sink.Write(&format.Refs{Chunks: []format.ChunkRef{{ID: id, Size: 28}}})
	if format.ClassOf(err) != format.ClassReference {
		t.Fatalf("refs to a chunk that was never sent: %v", err)
	}
}

func TestFalsePayloadOfHeldChunkIsRefused(t *testing.T) {
	a := newRepo(t, 1)
	m := model{{"secret": file{entry: modelEntry("secret", format.TypeFile), chunks: []string{"the content of somebody else"}}}}
	importModel(t, a, m)
	sink, err := a.Import(context.Background(), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e := modelEntry("mine", format.TypeFile)
	recs := []format.Record{
		&format.Header{Version: 1}, &format.Snapshot{ID: format.ID{9}}, &e,
		&format.Data{ID: format.SumID([]byte("the content of somebody else")), Size: 28, Payload: make([]byte, 28)},
		&format.EOF{Size: 28}, &format.Commit{}, &format.End{},
	}
	for _, rec := range recs {
		if err = sink.Write(rec); err != nil {
			break
		}
	}
	sink.Close()
	if format.ClassOf(err) != format.ClassChunk {
		t.Fatalf("a payload that is not the chunk it claims to be: %v", err)
	}
	if list, _, _ := a.List(context.Background()); len(list) != 1 {
		t.Fatalf("%d snapshots, the bad one must not be there", len(list))
	}
}

// TestCutStreamKeepsWholeSnapshots cuts a stream at many places.
func TestCutStreamKeepsWholeSnapshots(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(4, 4))
	m := randomHistory(rng, 3, 20)
	a := newRepo(t, 1)
	importModel(t, a, m)
	_, stream := transfer(t, a, newRepo(t, 2), format.ExportOptions{}, ImportOptions{})
	want := m.listings()
	for cut := 0; cut < len(stream); cut += 1 + len(stream)/40 {
		b := newRepo(t, 2)
		sink, err := b.Import(context.Background(), ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		err = format.Copy(context.Background(), sink, format.NewReader(bytes.NewReader(stream[:cut]), format.ReaderOptions{}))
		if err == nil {
			t.Fatalf("cut at %d of %d: no error", cut, len(stream))
		}
		sink.Close()
		got := expand(t, b, format.ExportOptions{})
		if diff := cmp.Diff(want[:len(got)], got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("cut at %d: %s", cut, diff)
		}
		sum, _ := transfer(t, a, b, format.ExportOptions{}, ImportOptions{})
		if sum.HeldAlready != len(got) || len(sum.Snapshots) != 3-len(got) {
			t.Fatalf("cut at %d, then again: %d held, %d new", cut, sum.HeldAlready, len(sum.Snapshots))
		}
	}
}

// TestFailedImportLeavesNoClaims imports into storage that fails, then again
// with the same Repository once it works.
func TestFailedImportLeavesNoClaims(t *testing.T) {
	ctx := context.Background()
	m := randomHistory(rand.New(rand.NewPCG(5, 5)), 2, 40)
	broken := &brokenStore{Store: mem.New()}
	r, err := Init(ctx, broken, keyring.InitOptions{Passphrase: "p", Argon2: cheap, Chunker: "gear:64KiB", Compression: "default"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	broken.broken = true
	sink, err := r.Import(ctx, ImportOptions{})
	if err == nil {
		if err = m.write(t, sink); err == nil {
			t.Fatal("no error from storage that takes no packs")
		}
		if _, err := r.Import(ctx, ImportOptions{}); !errors.Is(err, ErrImporting) {
			t.Fatalf("a second import beside the first: %v", err)
		}
		sink.Close()
	}
	broken.broken = false
	importModel(t, r, m)
	if diff := cmp.Diff(m.listings(), expand(t, r, format.ExportOptions{}), cmpopts.EquateEmpty()); diff != "" {
		t.Fatal(diff[:min(len(diff), 1000)])
	}
}

// brokenStore takes no packs while it is broken.
type brokenStore struct {
	store.Store
	broken bool
}

func (b *brokenStore) Create(ctx context.Context, name string, data ...[]byte) error {
	if b.broken && strings.HasPrefix(name, "packs/") {
		return errors.New("out of order")
	}
	return b.Store.Create(ctx, name, data...)
}
