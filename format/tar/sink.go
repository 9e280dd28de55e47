package tar

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/loss"
	"github.com/bk-backup/bk/format/internal/spill"
)

// SinkOptions say how archives are written. The zero value is safe.
type SinkOptions struct {
	// Stdout is written to where the place is "-".
	Stdout io.Writer
	// Strict fails at the first thing that an archive cannot hold.
	Strict bool
	// BirthTimes writes the times of birth too, which no system restores. GNU tar
	// warns about each of them as an unknown keyword.
	BirthTimes bool
	// TempDir is where goes what does not fit into memory, in files without a
	// name; "" means where the system puts them.
	TempDir string
	// OnLoss, if set, is called with everything that is lost.
	OnLoss     func(path string, err error)
	OnProgress func(format.Progress)
}

// Written sums up what a sink did.
type Written struct {
	Snapshots uint64
	Held      uint64   // snapshots that a directory had an archive of already
	Archives  []string // paths of the archives
	Entries   uint64
	Bytes     uint64 // of content
	Losses    []format.Loss
}

// Sink writes an archive for each snapshot. Its streams have to be flat: with
// ExportOptions.Flat in a process, or bk-export --flat. Only the content of
// further hard links may come as refs, as disk.Scan has it.
type Sink struct {
	ctx     context.Context
	target  target
	opts    SinkOptions
	checker format.Checker
	compose composer
	err     error // sticky

	snapshot *format.Snapshot
	held     bool // there is an archive of this snapshot: it is passed over
	unsorted bool
	out      *output
	file     *outFile
	fileBuf  []byte // of the last file, to be used again
	path     string // of the last entry
	groups   *spill.Table
	log      *spill.Log
	buf      []byte
	plain    []byte

	sum      Written
	losses   loss.Counts
	progress format.Progress
}

var _ format.SinkCloser = (*Sink)(nil)

// Create prepares writing to place: a file, which must not be there yet, "-" for
// SinkOptions.Stdout, or a directory, named with a slash at its end or there
// already, into which goes an archive for each snapshot. Names that end in .gz,
// .tgz, .zst or .tzst ask for compression. An archive appears under its name
// when it is complete.
func Create(ctx context.Context, place string, opts SinkOptions) (*Sink, error) {
	s := &Sink{ctx: ctx, opts: opts, compose: composer{btime: opts.BirthTimes}}
	if err := s.target.prepare(place, opts.Stdout); err != nil {
		return nil, err
	}
	s.groups, s.log = spill.NewTable(opts.TempDir), spill.NewLog(opts.TempDir)
	return s, nil
}

// Summary returns what was done so far.
func (s *Sink) Summary() Written {
	sum := s.sum
	sum.Losses = s.losses.Clone()
	return sum
}

// Close gives up what is not complete.
func (s *Sink) Close() error {
	err := errors.Join(s.groups.Close(), s.log.Close())
	if s.file != nil && s.file.spool != nil {
		err = errors.Join(err, s.file.spool.Close())
	}
	if s.out != nil {
		err = errors.Join(err, s.out.abandon())
		s.out = nil
	}
	return err
}

// Write implements format.Sink.
func (s *Sink) Write(rec format.Record) error {
	if s.err == nil {
		s.err = s.write(rec)
	}
	return s.err
}

func (s *Sink) write(rec format.Record) error {
	switch rec.(type) {
	case *format.CopyRange, *format.Remove:
		return needsFlat(rec.Kind())
	}
	if err := s.checker.Check(rec, nil); err != nil {
		return err
	}
	switch r := rec.(type) {
	case *format.Snapshot:
		return s.begin(r)
	case *format.Commit:
		return s.commit(r)
	}
	if s.held || s.snapshot == nil {
		return nil
	}
	switch r := rec.(type) {
	case *format.Entry:
		return s.entry(r)
	case *format.Data:
		return s.data(r)
	case *format.Refs:
		for _, c := range r.Chunks {
			if err := s.file.ref(c); err != nil {
				return err
			}
		}
	case *format.Hole:
		s.progress.Bytes += r.Size
		return s.file.hole(r.Size)
	case *format.EOF:
		return s.eof(r)
	case *format.Extension:
		return s.lose(format.LossExtension, s.path, fmt.Errorf("a record of the kind %s", r.Name))
	}
	return nil
}

// flatError is a stream that is not flat.
type flatError struct{ err *format.Error }

func needsFlat(kind format.Kind) error {
	return &flatError{format.Errorf(format.ClassFeature, "a tar archive needs a flat stream, and this one has a record of the kind %s", kind)}
}

func (e *flatError) Error() string   { return e.err.Error() }
func (e *flatError) Unwrap() error   { return e.err }
func (e *flatError) FixText() string { return "make the stream with bk-export --flat" }

// begin begins the archive of a snapshot.
func (s *Sink) begin(r *format.Snapshot) (err error) {
	if !r.Parent.IsZero() {
		e := format.Errorf(format.ClassFeature, "a tar archive needs a flat stream, and this snapshot is a difference to %s", r.Parent)
		return &flatError{e}
	}
	if err := errors.Join(s.groups.Reset(), s.log.Reset()); err != nil {
		return err
	}
	s.snapshot, s.unsorted = r.Clone(), r.Unsorted
	s.snapshot.Estimate = nil
	s.path = ""
	s.progress.Snapshots++
	if s.out, s.held, err = s.target.create(s.snapshot); err != nil || s.held {
		return err
	}
	return s.out.write(appendSnapshot(nil, s.snapshot))
}

// commit closes an archive.
func (s *Sink) commit(r *format.Commit) error {
	s.snapshot = nil
	if s.held {
		s.held = false
		s.sum.Held++
		return nil
	}
	if len(r.Extra) > 0 {
		if err := s.lose(format.LossExtension, "", errors.New("unknown keys of the commit")); err != nil {
			return err
		}
	}
	// What was lost before is the reader's to know, too.
	s.losses.Merge(r.Losses)
	out := s.out
	s.out = nil
	if err := out.finish(); err != nil {
		return errors.Join(err, out.abandon())
	}
	s.sum.Snapshots++
	s.sum.Archives = append(s.sum.Archives, out.name)
	return nil
}

// lose counts something that the archive will not have.
func (s *Sink) lose(kind, path string, err error) error {
	if s.opts.Strict {
		return fmt.Errorf("tar cannot hold %q as it is: %s: %w", "/"+path, kind, err)
	}
	s.losses.Add(kind, path)
	if s.opts.OnLoss != nil {
		s.opts.OnLoss(path, err)
	}
	return nil
}

// header writes what comes before a member's data.
func (s *Sink) header(w *written) error {
	s.buf = s.compose.append(s.buf[:0], w)
	return s.out.write(s.buf)
}

// entry takes an entry, and writes it if no content follows.
func (s *Sink) entry(e *format.Entry) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	s.path = e.Path
	s.sum.Entries++
	s.progress.Entries++
	s.progress.Path = e.Path
	if s.opts.OnProgress != nil {
		s.opts.OnProgress(s.progress)
	}
	if err := s.judge(e); err != nil {
		return err
	}
	switch {
	case e.Type == format.TypeSocket:
		return s.lose(format.LossSocket, e.Path, errors.New("tar has no sockets"))
	case e.Type == format.TypeSymlink && e.Target == "":
		return s.lose(format.LossUnwritable, e.Path, errors.New("tar has no links without a target"))
	}
	group, isNew, err := s.groupOf(e)
	if err != nil {
		return err
	}
	if e.Type == format.TypeFile {
		s.file = &outFile{sink: s, entry: e.Clone(), group: group, isNew: isNew, buf: s.fileBuf[:0]}
		if group != nil {
			s.file.sum, s.file.cuts = sha256.New(), sha256.New()
		}
		return nil
	}
	if s.unsorted {
		if err := s.groups.Put(spill.KeyOf(spacePath, e.Path), uint64(s.log.Size())); err != nil {
			return err
		}
	}
	if group != nil && !isNew {
		return s.header(&written{entry: e, typ: typeLink, link: group.path})
	}
	if group != nil {
		if err := s.remember(group); err != nil {
			return err
		}
	}
	return s.header(&written{entry: e, typ: typesWritten[e.Type]})
}

// judge counts what an archive cannot hold of an entry.
func (s *Sink) judge(e *format.Entry) error {
	var err error
	lose := func(kind, text string) {
		if err == nil {
			err = s.lose(kind, e.Path, errors.New(text))
		}
	}
	if e.Has&format.HasMode == 0 {
		lose(format.LossMode, "its permissions are not known, and tar cannot leave them open")
	}
	if e.Has&format.HasUID == 0 || e.Has&format.HasGID == 0 {
		lose(format.LossOwner, "its owner is not known, and tar cannot leave that open")
	}
	if e.Has&format.HasMtime == 0 {
		lose(format.LossTime, "its time of modification is not known, and tar cannot leave that open")
	}
	if len(e.Extra) > 0 {
		lose(format.LossExtension, "unknown keys")
	}
	return err
}

func (s *Sink) data(r *format.Data) error {
	plain, err := format.DecodePayload(s.plain, r)
	if err != nil {
		return err
	}
	s.plain = plain
	s.progress.Bytes += uint64(len(plain))
	return s.file.data(r.ID, plain)
}

func (s *Sink) eof(r *format.EOF) error {
	f := s.file
	s.file = nil
	s.sum.Bytes += r.Size
	if len(r.Extra) > 0 {
		if err := s.lose(format.LossExtension, s.path, errors.New("unknown keys of its content")); err != nil {
			return err
		}
	}
	if s.unsorted {
		if err := s.groups.Put(spill.KeyOf(spacePath, f.entry.Path), uint64(s.log.Size())); err != nil {
			return err
		}
	}
	if f.group != nil && f.isNew {
		f.group.content, f.group.cuts = f.digest(f.sum), f.digest(f.cuts)
		if err := s.remember(f.group); err != nil {
			return err
		}
	}
	err := f.close()
	f.giveBuffer()
	return err
}

// outGroup is a group of hard links, of which the first member was written.
type outGroup struct {
	name    string
	path    string   // of the first member
	keys    [32]byte // hash of what the entry says
	content [32]byte // hash of the content of a file
	cuts    [32]byte // hash of the chunks that it came in
}

// groupOf returns the group of hard links that an entry belongs to, and whether
// it is the first one of it. It is nil for an entry that is to be written by
// itself.
func (s *Sink) groupOf(e *format.Entry) (group *outGroup, isNew bool, err error) {
	if e.Hardlink == "" {
		return nil, false, nil
	}
	keys := keysOf(e)
	place, ok, err := s.groups.Get(spill.KeyOf(spaceGroup, e.Hardlink))
	if err != nil {
		return nil, false, err
	}
	if !ok {
		return &outGroup{name: e.Hardlink, path: e.Path, keys: keys}, true, nil
	}
	if group, err = s.recall(int64(place)); err != nil {
		return nil, false, err
	}
	if s.unsorted {
		// Another object may have come to that path since, or this one again.
		at, ok, err := s.groups.Get(spill.KeyOf(spacePath, group.path))
		if err != nil {
			return nil, false, err
		}
		if !ok || at != place || group.path == e.Path {
			return &outGroup{name: e.Hardlink, path: e.Path, keys: keys}, true, nil
		}
	}
	if group.keys != keys {
		return nil, false, s.lose(format.LossHardlink, e.Path, errors.New("the members of its group differ"))
	}
	return group, false, nil
}

// keysOf hashes what members of one group must have in common but for their
// content.
func keysOf(e *format.Entry) [32]byte {
	const informative = format.HasAtime | format.HasCtime | format.HasBtime | format.HasInode | format.HasLinks | format.HasSize
	c := *e
	c.Path, c.Chunker, c.Has = "", "", c.Has&^informative
	return sha256.Sum256(c.AppendBody(nil, false))
}

// remember writes a group down.
func (s *Sink) remember(g *outGroup) error {
	place := s.log.Size()
	var b bytes.Buffer
	b.Write(g.keys[:])
	b.Write(g.content[:])
	b.Write(g.cuts[:])
	b.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(g.path))))
	b.WriteString(g.path)
	if _, err := s.log.Write(b.Bytes()); err != nil {
		return err
	}
	return s.groups.Put(spill.KeyOf(spaceGroup, g.name), uint64(place))
}

func (s *Sink) recall(place int64) (*outGroup, error) {
	g := &outGroup{}
	var head [3*32 + 4]byte
	if _, err := s.log.ReadAt(head[:], place); err != nil {
		return nil, err
	}
	copy(g.keys[:], head[:32])
	copy(g.content[:], head[32:64])
	copy(g.cuts[:], head[64:96])
	path := make([]byte, binary.LittleEndian.Uint32(head[96:]))
	if _, err := s.log.ReadAt(path, place+int64(len(head))); err != nil {
		return nil, err
	}
	g.path = string(path)
	return g, nil
}
