package borg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/loss"
	"github.com/bk-backup/bk/format/internal/spill"
)

// archive is what is known of an archive.
type archive struct {
	record     *format.Snapshot
	items      []objectID
	name       string
	checkpoint bool
	losses     loss.Counts // what of its record the stream cannot hold
	groups     []spill.Key // names of its hard links, if bk-import wrote it
	params     []any       // how its files were cut
	ownCuts    bool        // they were cut as borg does by default
	imported   format.ID   // under which it came, if bk-import wrote it
	changed    bool        // borg recreate has made something else of that since
}

// checkpointName is what borg calls archives of backups that did not finish.
var checkpointName = regexp.MustCompile(`\.checkpoint(\.[0-9]+)?$`)

// Snapshots implements format.System. An archive that cannot be read is given to
// Options.OnError and left out.
func (r *Repository) Snapshots(ctx context.Context) ([]*format.Snapshot, error) {
	list, damage, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range damage {
		if r.onError != nil {
			r.onError(d.name, d.err)
		} else {
			r.log.Warn("an archive cannot be read", "error", d)
		}
	}
	out := make([]*format.Snapshot, len(list))
	for i, a := range list {
		out[i] = a.record.Clone()
	}
	return out, nil
}

// wanted reports whether an archive counts.
func (r *Repository) wanted(name string) bool {
	if r.chosen != nil {
		return r.chosen(name)
	}
	return !checkpointName.MatchString(name)
}

// list returns all archives that count, oldest first, and why those that are
// missing are.
func (r *Repository) list(ctx context.Context) (list []*archive, damage []*archiveError, err error) {
	refs := slices.DeleteFunc(slices.Clone(r.archives), func(ref archiveRef) bool { return !r.wanted(ref.name) })
	list = make([]*archive, len(refs))
	failed := make([]*archiveError, len(refs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.workers)
	for i := range refs {
		g.Go(func() error {
			a, err := r.archive(gctx, &refs[i])
			if list[i] = a; err != nil {
				failed[i] = &archiveError{refs[i].name, err}
			}
			return gctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	list = slices.DeleteFunc(list, func(a *archive) bool { return a == nil })
	failed = slices.DeleteFunc(failed, func(err *archiveError) bool { return err == nil })
	slices.SortFunc(list, func(a, b *archive) int {
		return cmp.Or(a.record.Time.Compare(*b.record.Time), cmp.Compare(a.name, b.name))
	})
	return list, failed, nil
}

// archiveError says why an archive cannot be read.
type archiveError struct {
	name string
	err  error
}

func (e *archiveError) Error() string { return fmt.Sprintf("archive %q: %v", e.name, e.err) }

// Unwrap returns the cause.
func (e *archiveError) Unwrap() error { return e.err }

// snapshot finds an archive by its id.
func (r *Repository) snapshot(ctx context.Context, id format.ID) (*archive, error) {
	for i := range r.archives {
		if ref := &r.archives[i]; format.ID(ref.id) == id && r.wanted(ref.name) {
			a, err := r.archive(ctx, ref)
			if err != nil {
				return nil, &archiveError{ref.name, err}
			}
			return a, nil
		}
	}
	return nil, fmt.Errorf("%s has no archive %s: %w", r, id, ErrMissing)
}

// archive reads the object of an archive, or returns what was read.
func (r *Repository) archive(ctx context.Context, ref *archiveRef) (*archive, error) {
	r.mu.Lock()
	a := r.metas[ref.id]
	r.mu.Unlock()
	if a != nil {
		return a, nil
	}
	plain, err := r.plain(ctx, ref.id)
	if err == nil {
		a, err = r.parseArchive(ref, plain)
	}
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.metas[ref.id] = a
	r.mu.Unlock()
	return a, nil
}

func (r *Repository) parseArchive(ref *archiveRef, plain []byte) (*archive, error) {
	m, err := parseArchive(plain)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", ref.id, err)
	}
	if m.tam != nil {
		// The archive's id is that of its content and stands in the manifest, which
		// authenticates it: borg itself has written codes here that do not fit.
		if err := r.keys.checkTAM(plain, m.tam, tamArchive); errors.Is(err, errTAM) {
			r.log.Info("an archive does not authenticate itself, as borg recreate makes them; the manifest does", "archive", ref.name)
		}
	}
	when, ok := parseTime(m.time)
	if !ok {
		return nil, fmt.Errorf("object %s: its time is %q: %w", ref.id, m.time, ErrDamaged)
	}
	a := &archive{items: m.items, name: ref.name, checkpoint: checkpointName.MatchString(ref.name)}
	a.record = &format.Snapshot{
		ID: format.ID(ref.id), Time: &when,
		Origin: &format.Origin{System: "borg", Repository: string(r.config.id[:]), ID: string(ref.id[:])},
	}
	text := func(field string, sizeMax int) string {
		if len(field) > sizeMax {
			a.losses.Add(format.LossSnapshot, "")
			return field[:sizeMax]
		}
		return field
	}
	a.record.Host, a.record.User = text(m.hostname, format.TextSizeMax), text(m.username, format.TextSizeMax)
	a.record.Comment = text(m.comment, format.CommentSizeMax)
	if name := text(ref.name, format.TextSizeMax); name != "" {
		a.record.Tags = []string{name}
	}
	a.record.Roots = roots(m.cmdline, m.cwd)
	a.params, a.ownCuts = m.chunkerParams, slices.Equal(m.chunkerParams, borgParams)
	if own := recordOf(m.cmdline); own != nil {
		a.imported, a.changed = own.ID, len(m.recreateCmdline) > 0
		if !a.changed {
			r.restore(a.record, own, m)
			a.groups = groupsOf(m.cmdline)
		}
	}
	return a, nil
}

// restore gives a snapshot that bk-import wrote the record that it came with.
// What borg can have changed since is as borg has it.
func (r *Repository) restore(record, own *format.Snapshot, m *archiveMeta) {
	record.Roots, record.Tags, record.Extra = own.Roots, own.Tags, own.Extra
	if own.Time == nil || borgTime(*own.Time) == m.time {
		record.Time = cmp.Or(own.Time, record.Time)
	}
	if own.Origin != nil {
		record.Origin = own.Origin
	}
	if record.Via = own.Via; len(own.Via) < format.ViaMax {
		record.Via = append(own.Via, format.Via{Stage: viaBorg(r.config.id), From: own.ID})
	}
}

// optionsWithValue are those of borg create that take the next argument with
// them.
var optionsWithValue = map[string]bool{
	"-C": true, "--compression": true, "-e": true, "--exclude": true, "--exclude-from": true, "--pattern": true, "--patterns-from": true,
	"--exclude-if-present": true, "--comment": true, "--timestamp": true, "-c": true, "--checkpoint-interval": true, "--checkpoint-volume": true,
	"--chunker-params": true, "--files-cache": true, "--filter": true, "--stdin-name": true, "--stdin-user": true, "--stdin-group": true,
	"--stdin-mode": true, "--paths-delimiter": true, "--lock-wait": true, "--umask": true, "--remote-path": true, "--remote-ratelimit": true,
	"--upload-ratelimit": true, "--upload-buffer": true, "--rsh": true, "--debug-topic": true, "--debug-profile": true, "--remote-buffer": true,
}

// roots finds what was asked to be backed up in the command line of borg create:
// the arguments behind the archive's place. Archives have no other record of it.
// cwd is the directory that relative ones begin at, "" if it is not known.
func roots(cmdline []string, cwd string) (list []string) {
	at := slices.Index(cmdline, "create")
	if at < 0 {
		return nil
	}
	place := false // the archive's place has come
	options := true
	for i := at + 1; i < len(cmdline); i++ {
		arg := cmdline[i]
		switch {
		case options && arg == "--":
			options = false
		case options && len(arg) > 1 && arg[0] == '-':
			if optionsWithValue[arg] {
				i++
			}
		case !place:
			place = true
		default:
			if root, ok := rootPath(arg, cwd); ok && len(list) < format.RootsMax {
				list = append(list, root)
			}
		}
	}
	return list
}

// rootPath turns an argument into a path: where it lies, if that is known, and
// otherwise that of the listing, as borg does it.
func rootPath(arg, cwd string) (string, bool) {
	if arg == "-" {
		return "stdin", true
	}
	if path.IsAbs(cwd) && !path.IsAbs(arg) {
		arg = path.Join(cwd, arg)
	}
	p := strings.TrimLeft(path.Clean(arg), "/")
	for strings.HasPrefix(p, "../") {
		p = p[3:]
	}
	if p == "." || p == ".." {
		p = ""
	}
	return p, format.CheckPath(p) == nil
}
