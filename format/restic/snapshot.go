package restic

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/loss"
	"github.com/bk-backup/bk/repo/store"
)

// snapshot is what is known of a snapshot.
type snapshot struct {
	record *format.Snapshot
	tree   format.ID
	losses loss.Counts // what of its record the stream cannot hold, and what was lost on the way here

	original format.ID // id of the snapshot that it was made of; zero if there is none
	imported format.ID // id that it came under from a stream; zero if it did not, or was changed since
	recut    bool      // its content was cut anew for this repository
}

// snapshotFile is a file of snapshots/. Of the rest of what restic keeps there
// (parent, excludes, program_version, uid and gid of who ran it) the stream has
// nothing, and nothing depends on it.
type snapshotFile struct {
	Time     time.Time       `json:"time"`
	Tree     string          `json:"tree"`
	Paths    []string        `json:"paths"`
	Hostname string          `json:"hostname"`
	Username string          `json:"username"`
	Tags     []string        `json:"tags"`
	Summary  *summaryOfFiles `json:"summary"`
	Original string          `json:"original"`
	BK       *bkFields       `json:"bk"`
}

// summaryOfFiles is what restic 0.17 and later count.
type summaryOfFiles struct {
	FilesProcessed uint64 `json:"total_files_processed"`
	BytesProcessed uint64 `json:"total_bytes_processed"`
	DirsNew        uint64 `json:"dirs_new"`
	DirsChanged    uint64 `json:"dirs_changed"`
	DirsUnmodified uint64 `json:"dirs_unmodified"`
}

// Snapshots implements format.System. A snapshot that cannot be read is logged
// and left out.
func (r *Repository) Snapshots(ctx context.Context) ([]*format.Snapshot, error) {
	list, damage, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range damage {
		r.log.Warn("a snapshot cannot be read", "error", d)
	}
	out := make([]*format.Snapshot, len(list))
	for i, s := range list {
		out[i] = s.record.Clone()
	}
	return out, nil
}

// list returns all snapshots, oldest first, and why those that are missing are.
func (r *Repository) list(ctx context.Context) (list []*snapshot, damage []error, err error) {
	var ids []format.ID
	err = r.store.List(ctx, "snapshots/", func(info store.Info) error {
		if id, ok := objectID(info.Name); ok {
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list the snapshots of %s: %w", r, err)
	}
	list = make([]*snapshot, len(ids))
	failed := make([]error, len(ids))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.workers)
	for i, id := range ids {
		g.Go(func() error {
			list[i], failed[i] = r.snapshot(gctx, id)
			return gctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	list = slices.DeleteFunc(list, func(s *snapshot) bool { return s == nil })
	failed = slices.DeleteFunc(failed, func(err error) bool {
		return err == nil || errors.Is(err, store.ErrNotFound) // forgotten meanwhile
	})
	slices.SortFunc(list, func(a, b *snapshot) int {
		return cmp.Or(a.record.Time.Compare(*b.record.Time), a.record.ID.Compare(b.record.ID))
	})
	return list, failed, nil
}

// snapshot reads one snapshot, which never changes, or returns what was read.
func (r *Repository) snapshot(ctx context.Context, id format.ID) (*snapshot, error) {
	r.mu.Lock()
	s := r.snapshots[id]
	r.mu.Unlock()
	if s != nil {
		return s, nil
	}
	name := "snapshots/" + id.String()
	b, err := r.loadFile(ctx, name)
	if err == nil {
		s, err = r.parseSnapshot(id, b)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s in %s: %w", name, r, err)
	}
	r.mu.Lock()
	r.snapshots[id] = s
	r.mu.Unlock()
	return s, nil
}

func (r *Repository) parseSnapshot(id format.ID, b []byte) (*snapshot, error) {
	var f snapshotFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	tree, err := format.ParseID(f.Tree)
	if err != nil {
		return nil, fmt.Errorf("its tree: %w: %w", err, ErrDamaged)
	}
	when := format.TimeOf(f.Time)
	s := &snapshot{tree: tree, record: &format.Snapshot{
		ID: id, Time: &when,
		Origin: &format.Origin{System: "restic", Repository: r.rawID(), ID: string(id[:])},
	}}
	text := func(s *snapshot, field string) string {
		if len(field) > format.TextSizeMax {
			s.losses.Add(format.LossSnapshot, "")
			return field[:format.TextSizeMax]
		}
		return field
	}
	s.record.Host, s.record.User = text(s, f.Hostname), text(s, f.Username)
	for _, tag := range f.Tags {
		if len(tag) > format.TextSizeMax || len(s.record.Tags) == format.TagsMax {
			s.losses.Add(format.LossSnapshot, "")
			continue
		}
		s.record.Tags = append(s.record.Tags, tag)
	}
	for _, p := range f.Paths {
		root, ok := rootPath(p)
		if !ok || len(s.record.Roots) == format.RootsMax {
			s.losses.Add(format.LossSnapshot, "")
			continue
		}
		s.record.Roots = append(s.record.Roots, root)
	}
	if id, err := format.ParseID(f.Original); err == nil {
		s.original = id
	}
	if f.BK != nil {
		if err := r.restore(s, f.BK); err != nil {
			return nil, fmt.Errorf("what bk keeps in it: %w: %w", err, ErrDamaged)
		}
	}
	if n := f.Summary; n != nil {
		s.record.Estimate = &format.Estimate{Entries: n.FilesProcessed + n.DirsNew + n.DirsChanged + n.DirsUnmodified, Bytes: n.BytesProcessed}
	}
	return s, nil
}

// restore puts back what a snapshot was in the stream that it came in. It came
// here under another id than it has, as through a stage that changes nothing.
func (r *Repository) restore(s *snapshot, f *bkFields) error {
	id, err := format.ParseID(f.ID)
	if err != nil {
		return err
	}
	rec := new(format.Snapshot)
	if rest, err := rec.ParseBody(f.Record); err != nil || len(rest) > 0 {
		return cmp.Or(err, errors.New("more follows the record"))
	}
	own, when := s.record.ID, s.record.Time
	*s.record = *rec.Clone()
	s.record.ID, s.record.Parent, s.record.Estimate = own, format.ID{}, nil
	s.record.Time = cmp.Or(s.record.Time, when)
	if s.record.Unstable = false; len(s.record.Via) < format.ViaMax {
		s.record.Via = append(s.record.Via, format.Via{From: id, Stage: "restic-repository " + hex.EncodeToString([]byte(r.rawID()))})
	}
	if _, err := format.AppendRecord(nil, s.record); err != nil {
		return err
	}
	s.imported, s.recut = id, f.Recut
	s.losses = nil
	for _, l := range f.Losses {
		if l.Kind == "" || len(l.Kind) > format.TextSizeMax || l.Count == 0 || len(s.losses) == format.LossesMax {
			return errors.New("it counts a loss that cannot be")
		}
		one := format.Loss{Kind: l.Kind, Count: l.Count}
		for _, path := range l.Paths {
			one.Paths = append(one.Paths, string(path[:min(len(path), format.PathSizeMax)]))
		}
		s.losses.Merge(loss.Counts{one})
	}
	return nil
}

// rawID returns the repository's id as bytes, or as it is where it is none of
// the usual form, of which restic itself makes no condition.
func (r *Repository) rawID() string {
	if raw, err := hex.DecodeString(r.config.ID); err == nil && len(raw) > 0 {
		return string(raw)
	}
	return r.config.ID[:min(len(r.config.ID), format.TextSizeMax)]
}

// rootPath turns a path on the source's host into one of the stream's. What was
// made on Windows has C:\Users, which restic's trees have as C/Users.
func rootPath(p string) (string, bool) {
	if len(p) >= 2 && p[1] == ':' && (len(p) == 2 || p[2] == '\\' || p[2] == '/') {
		p = p[:1] + strings.ReplaceAll(p[2:], `\`, "/")
	}
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	return p, format.CheckPath(p) == nil
}
