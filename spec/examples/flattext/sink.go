package flattext

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bk-backup/bk/format"
)

// Sink writes the snapshots of flat streams into a directory. It implements
// format.SinkCloser.
type Sink struct {
	Dir    string
	Strict bool           // the first loss is an error
	Losses map[string]int // how many objects lost what, by kind

	checker format.Checker // the grammar, the order, the sizes
	text    strings.Builder
	entry   *format.Entry
	content []byte
}

// Write implements format.Sink.
func (s *Sink) Write(rec format.Record) error {
	if err := s.checker.Check(rec, nil); err != nil {
		return err
	}
	switch r := rec.(type) {
	case *format.Snapshot:
		s.text.Reset()
	case *format.Entry:
		return s.begin(r.Clone()) // what comes is ours only until Write returns
	case *format.Data:
		plain, err := format.DecodePayload(nil, r)
		if err != nil || format.SumID(plain) != r.ID {
			return format.Errorf(format.ClassChunk, "a chunk is not what its id says")
		}
		return s.add(plain)
	case *format.Hole:
		return errors.Join(s.lose(format.LossSparse), s.add(make([]byte, min(r.Size, format.ChunkSizeMax+1))))
	case *format.EOF:
		fmt.Fprintf(&s.text, "file %q %q\n", s.entry.Path, s.content)
	case *format.Extension:
		return s.lose(format.LossExtension)
	case *format.Refs, *format.CopyRange, *format.Remove:
		return format.Errorf(format.ClassFeature, "%s in a stream for flat text: make it with bk-export --flat", rec.Kind())
	case *format.Commit:
		return s.commit()
	}
	return nil
}

// begin takes an entry, and counts what a line cannot hold.
func (s *Sink) begin(e *format.Entry) error {
	s.entry, s.content = e, s.content[:0]
	var failed error
	for kind, is := range map[string]bool{
		format.LossMode: e.Has&format.HasMode != 0, format.LossOwner: e.Has&(format.HasUID|format.HasGID) != 0,
		format.LossTime: e.Has&format.HasMtime != 0, format.LossXattr: len(e.Xattrs) > 0, format.LossFlags: len(e.Flags) > 0,
		format.LossHardlink: e.Hardlink != "", format.LossExtension: len(e.Extra) > 0,
		"type": e.Type != format.TypeFile && e.Type != format.TypeDir,
	} {
		if is {
			failed = errors.Join(failed, s.lose(kind))
		}
	}
	if e.Type == format.TypeDir {
		fmt.Fprintf(&s.text, "dir %q \"\"\n", e.Path)
	}
	return failed
}

func (s *Sink) add(plain []byte) error {
	if len(s.content)+len(plain) > format.ChunkSizeMax {
		return s.lose(format.LossLimit)
	}
	s.content = append(s.content, plain...)
	return nil
}

func (s *Sink) lose(kind string) error {
	if s.Strict {
		return fmt.Errorf("flat text cannot hold all of %q: %s", "/"+s.checker.Path(), kind)
	}
	if s.Losses == nil {
		s.Losses = make(map[string]int)
	}
	s.Losses[kind]++
	return nil
}

// commit makes the snapshot appear: whole and durable, or not at all.
func (s *Sink) commit() error {
	text := []byte(s.text.String())
	f, err := os.CreateTemp(s.Dir, "incomplete-*")
	if err != nil {
		return fmt.Errorf("write a snapshot: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.Dir, format.SumID(text).String()+".txt"))
	}
	return err
}

// Close implements io.Closer. What has no commit is given up.
func (s *Sink) Close() error { return nil }
