package fidelity_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/cmd/internal/historytest"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/borg"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/disk"
	"github.com/bk-backup/bk/format/hardlinks"
	"github.com/bk-backup/bk/format/restic"
	"github.com/bk-backup/bk/format/tar"
	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/store/dir"
	"github.com/bk-backup/bk/repo/store/mem"
)

// column is one direction of a system in the table: what becomes of probes that
// go through it.
type column struct {
	name string
	// through writes a stream into the system, or with strict refuses it, and
	// returns what was lost on the way and a source of what is there now. With
	// strict it need return no more than the error.
	through func(t *testing.T, src format.Source, strict bool) (losses []format.Loss, back format.SourceCloser, err error)
	// strict says that it can be asked to refuse.
	strict bool
	// slow says that it takes seconds to prepare.
	slow bool
	// files says that it is a file system, which may keep less than the best.
	files bool
}

// columns are all that are written and read again here.
var columns = []column{
	{name: "disk", through: throughDisk, files: true},
	{name: "bk", through: throughRepository},
	{name: "tar", through: throughTar, strict: true},
	{name: "restic", through: throughRestic, strict: true, slow: true},
	{name: "borg", through: throughBorg, strict: true},
	{name: "hardlinks", through: throughHardlinks, files: true},
}

// restoreInto writes a stream into a directory of the file system.
func restoreInto(t *testing.T, src format.Source, dir string) ([]format.Loss, error) {
	t.Helper()
	t.Cleanup(func() { clearFlags(dir) })
	sink, err := disk.NewRestore(t.Context(), dir, disk.RestoreOptions{NumericOwner: true})
	if err != nil {
		return nil, err
	}
	err = errors.Join(format.Copy(t.Context(), sink, src), sink.Close())
	return sink.Summary().Losses, err
}

// clearFlags makes files removable again.
func clearFlags(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)
		return nil
	})
}

func throughDisk(t *testing.T, src format.Source, _ bool) ([]format.Loss, format.SourceCloser, error) {
	dir := filepath.Join(t.TempDir(), "restored")
	losses, err := restoreInto(t, src, dir)
	if err != nil {
		return losses, nil, err
	}
	cuts, err := chunker.New(chunker.Spec{Method: chunker.Gear, Min: 16 << 10, Avg: 64 << 10, Max: 256 << 10}, chunker.Public())
	if err != nil {
		return nil, nil, err
	}
	scan, err := disk.Scan(t.Context(), disk.ScanOptions{Dir: dir, Atime: true, ChunkerFor: func(string, uint64) (func() chunker.Splitter, string) {
		return cuts.Splitter, ""
	}})
	return losses, scan, err
}

func throughHardlinks(t *testing.T, src format.Source, _ bool) ([]format.Loss, format.SourceCloser, error) {
	set := t.TempDir()
	losses, err := restoreInto(t, src, filepath.Join(set, "2024-01-01"))
	if err != nil {
		return losses, nil, err
	}
	system, err := hardlinks.Open(set, hardlinks.Options{})
	if err != nil {
		return nil, nil, err
	}
	back, err := system.Export(t.Context(), format.ExportOptions{})
	return losses, back, err
}

func throughRepository(t *testing.T, src format.Source, _ bool) ([]format.Loss, format.SourceCloser, error) {
	r := historytest.Repository(t, "gear:64KiB")
	sink, err := r.Import(t.Context(), repo.ImportOptions{})
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(format.Copy(t.Context(), sink, src), sink.Close()); err != nil {
		return nil, nil, err
	}
	back, err := r.Export(t.Context(), format.ExportOptions{})
	return sink.Summary().Losses, back, err
}

func throughTar(t *testing.T, src format.Source, strict bool) ([]format.Loss, format.SourceCloser, error) {
	place := filepath.Join(t.TempDir(), "archive.tar")
	sink, err := tar.Create(t.Context(), place, tar.SinkOptions{Strict: strict})
	if err != nil {
		return nil, nil, err
	}
	err = errors.Join(format.Copy(t.Context(), sink, src), sink.Close())
	if err != nil {
		if _, statErr := os.Stat(place); statErr == nil {
			t.Error("there is an archive of what was refused")
		}
		return nil, nil, err
	}
	system, err := tar.Open(t.Context(), place, tar.Options{})
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() { system.Close() })
	back, err := system.Export(t.Context(), format.ExportOptions{})
	return sink.Summary().Losses, back, err
}

func throughRestic(t *testing.T, src format.Source, strict bool) ([]format.Loss, format.SourceCloser, error) {
	st := mem.New()
	passphrase := func(context.Context) (string, error) { return "p", nil }
	sink, err := restic.OpenSink(t.Context(), st, restic.SinkOptions{Passphrase: passphrase, Strict: strict})
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(format.Copy(t.Context(), sink, src), sink.Close()); err != nil || strict {
		return nil, nil, err
	}
	system, err := restic.Open(t.Context(), st, restic.Options{Passphrase: passphrase})
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() { system.Close() })
	back, err := system.Export(t.Context(), format.ExportOptions{})
	return sink.Summary().Losses, back, err
}

func throughBorg(t *testing.T, src format.Source, strict bool) ([]format.Loss, format.SourceCloser, error) {
	place := filepath.Join(t.TempDir(), "repo")
	err := borg.Init(t.Context(), place, borg.InitOptions{Encryption: "none", Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return nil, nil, err
	}
	st, err := dir.Open(place, dir.Options{})
	if err != nil {
		return nil, nil, err
	}
	sink, err := borg.OpenSink(t.Context(), place, st, borg.Options{}, borg.SinkOptions{
		Holder: borg.Holder{Host: "h", PID: os.Getpid()}, Now: time.Now, Rand: rand.Reader, Strict: strict,
	})
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(format.Copy(t.Context(), sink, src), sink.Close()); err != nil {
		return nil, nil, err
	}
	if st, err = dir.Open(place, dir.Options{}); err != nil {
		return nil, nil, err
	}
	system, err := borg.Open(t.Context(), st, borg.Options{})
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() { system.Close() })
	back, err := system.Export(t.Context(), format.ExportOptions{})
	return sink.Summary().Losses, back, err
}

// dirOf is where a probe lies.
func dirOf(i int) string { return fmt.Sprintf("p/%02d", i) }

// stream hands out some of the probes as a flat snapshot.
func stream(all []probe, which func(int) bool) format.Source {
	s := probeSnapshot()
	recs := []format.Record{&format.Header{Version: format.Version, Features: []format.Feature{format.FeatureFlat}}, &s,
		dirEntry(""), dirEntry("p")}
	for i, p := range all {
		if which(i) {
			recs = append(recs, p.records(dirOf(i))...)
		}
	}
	return &records{append(recs, &format.Commit{}, &format.End{})}
}

func dirEntry(path string) *format.Entry {
	e := base(format.TypeDir)
	e.Path = path
	return &e
}

// records returns what makes the probe, below a directory.
func (p *probe) records(dir string) []format.Record {
	if p.snapshot != nil {
		return nil
	}
	recs := []format.Record{dirEntry(dir)}
	for _, e := range p.entries {
		e := e.Clone()
		e.Path = dir + "/" + e.Path
		if e.Type == format.TypeFile {
			e.Has, e.Size = e.Has|format.HasSize, uint64(len(plain(p.content)))
		}
		recs = append(recs, e)
		if p.unknown {
			recs = append(recs, &format.Extension{Name: "x-probe", Body: []format.Field{{Key: "k", Raw: []byte{1}}}})
		}
		if e.Type != format.TypeFile {
			continue
		}
		at := uint64(0)
		for _, run := range p.content {
			if run.hole > 0 {
				recs = append(recs, &format.Hole{Size: run.hole})
				at += run.hole
				continue
			}
			recs = append(recs, &format.Data{ID: format.SumID([]byte(run.data)), Size: uint32(len(run.data)), Codec: format.CodecNone, Payload: []byte(run.data)})
			e.Extents = append(e.Extents, format.Extent{Offset: at, Size: uint64(len(run.data))})
			at += uint64(len(run.data))
		}
		if !slices.ContainsFunc(p.content, func(run piece) bool { return run.hole > 0 }) {
			e.Extents = nil
		}
		recs = append(recs, &format.EOF{Size: at})
	}
	return recs
}

type records struct{ list []format.Record }

// Next implements format.Source.
func (s *records) Next() (format.Record, error) {
	if len(s.list) == 0 {
		return nil, io.EOF
	}
	rec := s.list[0]
	s.list = s.list[1:]
	return rec, nil
}

// found is what a source handed out.
type found struct {
	snapshot *format.Snapshot
	objects  map[string]*object
	losses   []format.Loss
	chunks   map[format.ID]string
	cur      *object
}

// collect reads a source to its end.
func collect(t testing.TB, src format.Source) *found {
	t.Helper()
	f := &found{objects: map[string]*object{}, chunks: map[format.ID]string{}}
	if err := format.Copy(context.Background(), f, src); err != nil {
		t.Fatal(err)
	}
	return f
}

// Write implements format.Sink.
func (f *found) Write(rec format.Record) error {
	switch r := rec.(type) {
	case *format.Snapshot:
		f.snapshot = r.Clone()
	case *format.Entry:
		f.cur = &object{entry: *r.Clone()}
		f.objects[r.Path] = f.cur
	case *format.Extension:
		if f.cur != nil {
			f.cur.records = append(f.cur.records, string(r.Name))
		}
	case *format.Data:
		text, err := format.DecodePayload(nil, r)
		if err != nil {
			return err
		}
		f.chunks[r.ID] = string(text)
		f.cur.add(piece{data: string(text)})
	case *format.Refs:
		for _, c := range r.Chunks {
			f.cur.add(piece{data: f.chunks[c.ID]})
		}
	case *format.Hole:
		f.cur.add(piece{hole: r.Size})
	case *format.Commit:
		f.losses = append(f.losses, r.Clone().Losses...)
		f.cur = nil
	}
	return nil
}

// add appends a run to the content, joined with one of its kind.
func (o *object) add(p piece) {
	if n := len(o.content); n > 0 && (o.content[n-1].hole > 0) == (p.hole > 0) {
		o.content[n-1].hole += p.hole
		o.content[n-1].data += p.data
		return
	}
	o.content = append(o.content, p)
}

// lostAt returns the kinds of loss that name something at or below a path.
func lostAt(losses []format.Loss, path string) []string {
	var kinds []string
	for _, l := range losses {
		if slices.ContainsFunc(l.Paths, func(p string) bool {
			p = strings.Trim(p, "/")
			return p == path || format.IsBelow(p, path)
		}) {
			kinds = append(kinds, l.Kind)
		}
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}
