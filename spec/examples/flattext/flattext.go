// Package flattext is the smallest system that can be read and written: a
// directory with a text file for each snapshot, in it a line for each directory
// and file, with its path and content in quotes. It shows what a system is made
// of (spec/adding-a-system.md); no program uses it.
//
// System (here) is a source, Sink (sink.go) takes what a source hands out.
package flattext

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
)

// System is a directory of snapshots. It implements format.System.
type System struct{ Dir string }

// Snapshots implements format.System. An id is that of the text, so it is the
// same on every machine and after every copy.
func (s *System) Snapshots(context.Context) ([]*format.Snapshot, error) {
	names, err := filepath.Glob(filepath.Join(s.Dir, "*.txt"))
	var list []*format.Snapshot
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("list the snapshots: %w", err)
		}
		origin := &format.Origin{System: "flattext", ID: filepath.Base(name)}
		list = append(list, &format.Snapshot{ID: format.SumID(text), Origin: origin, Unsorted: true})
	}
	return list, err
}

// Export implements format.System. It knows no parents: every snapshot goes out
// whole, which is allowed whatever else is asked for.
func (s *System) Export(ctx context.Context, opts format.ExportOptions) (format.SourceCloser, error) {
	if opts.Held {
		return nil, errors.New("flat text has content, not the names of what a receiver holds")
	}
	list, err := s.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	src := &source{system: s, opts: opts, list: list}
	src.next, src.stop = iter.Pull(func(yield func(format.Record) bool) { src.err = src.stream(yield) })
	return src, nil
}

// Close implements format.System.
func (s *System) Close() error { return nil }

// source is a loop over everything that runs as a coroutine of Next.
type source struct {
	system *System
	opts   format.ExportOptions
	list   []*format.Snapshot
	next   func() (format.Record, bool)
	stop   func()
	err    error
}

// Next implements format.Source.
func (s *source) Next() (format.Record, error) {
	if rec, ok := s.next(); ok {
		return rec, nil
	}
	if s.err == nil {
		s.err = io.EOF
	}
	return nil, s.err
}

// Close implements io.Closer.
func (s *source) Close() error {
	s.stop()
	return nil
}

func (s *source) stream(yield func(format.Record) bool) error {
	h := &format.Header{Version: format.Version, Producer: s.opts.Producer}
	if s.opts.Flat {
		h.Features = []format.Feature{format.FeatureFlat}
	}
	ok := yield(h)
	for _, snap := range s.list {
		if !ok || len(s.opts.Snapshots) > 0 && !slices.Contains(s.opts.Snapshots, snap.ID) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(s.system.Dir, snap.Origin.ID))
		if err != nil || format.SumID(text) != snap.ID {
			return fmt.Errorf("read %s: it is not what it was when it was listed: %w", snap.Origin.ID, err)
		}
		ok = yield(snap)
		for line := range strings.Lines(string(text)) {
			recs, err := s.object(line)
			if err != nil {
				return fmt.Errorf("read %s: %w", snap.Origin.ID, err)
			}
			for _, rec := range recs {
				ok = ok && yield(rec)
			}
		}
		ok = ok && yield(&format.Commit{})
	}
	if ok {
		yield(&format.End{})
	}
	return nil
}

// object makes the records of a line. Everything that is read is checked: it may
// have been made to do harm.
func (s *source) object(line string) ([]format.Record, error) {
	e := &format.Entry{}
	var content string
	_, err := fmt.Sscanf(line, "%s %q %q\n", &e.Type, &e.Path, &content)
	isFile := e.Type == format.TypeFile && e.Path != "" // the root is a directory
	if err = errors.Join(err, format.CheckPath(e.Path)); err != nil || !isFile && e.Type != format.TypeDir || len(content) > format.ChunkSizeMax {
		return nil, fmt.Errorf("the line %.80q is no object: %w", line, err)
	}
	if s.opts.Drop != nil {
		if drop, _ := s.opts.Drop(e.Path, e.Type == format.TypeDir); drop {
			return nil, nil
		}
	}
	recs := []format.Record{e}
	if e.Type == format.TypeDir {
		return recs, nil
	}
	if content != "" && !s.opts.ListingOnly {
		recs = append(recs, &format.Data{ID: format.SumID([]byte(content)), Size: uint32(len(content)), Codec: format.CodecNone, Payload: []byte(content)})
	}
	return append(recs, &format.EOF{Size: uint64(len(content))}), nil
}
