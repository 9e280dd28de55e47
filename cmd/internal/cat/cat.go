// Package cat is what bk-cat does: files of snapshots to standard output. Start
// at Cat. Only that program imports it.
package cat

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// Cat is the program bk-cat.
type Cat struct {
	cli.SourceFlags `embed:""`
	cli.SelectFlags `embed:""`

	Files []string `arg:"" sep:"none" name:"SNAPSHOT:PATH" help:"Files, each in a snapshot: latest, latest~2, or the beginning of an id."`
}

// Help is the longer text.
func (*Cat) Help() string {
	return `What a file holds goes to standard output, one file after another. Links are not followed. Of several files, those that are damaged are named, end where the damage begins, and make the exit code 3; it is 1 if no other could be read.

  bk-cat latest:/home/me/.bashrc
  bk-cat latest~7:/var/backups/db.sql | psql mydb`
}

// Run writes the files.
func (c *Cat) Run(ctx context.Context, app *cli.App) error {
	for _, arg := range c.Files {
		if _, path := cli.SplitTarget(arg); path == "" {
			return cli.Usagef("%q names no file: write SNAPSHOT:PATH, as in latest:/home/me/.bashrc", arg)
		}
	}
	snaps, err := app.OpenSnapshots(ctx, &c.SourceFlags, &c.SelectFlags)
	if err != nil {
		return err
	}
	defer snaps.System.Close()
	var damage []error // of files that cannot be read, or not to their end
	for _, arg := range c.Files {
		err := c.write(ctx, app, snaps, arg)
		switch {
		case err == nil:
		case repo.IsDamage(err):
			damage = append(damage, err)
		default:
			return err
		}
	}
	if len(damage) == len(c.Files) {
		return damage[0]
	}
	for _, err := range damage {
		app.Lossy()
		app.Warnf("%v", err)
		app.Warnf("to fix: %s", cli.Fix(err))
	}
	return nil
}

// write writes one file.
func (c *Cat) write(ctx context.Context, app *cli.App, snaps *cli.Snapshots, arg string) error {
	name, path := cli.SplitTarget(arg)
	snap, err := snaps.Resolve(name)
	if err != nil {
		return err
	}
	var short string // the error that cut the content short at its source
	if own := snaps.Own(snap); own != nil {
		short, err = fromRepo(ctx, app.Stdout, snaps.Repo, own, path)
	} else {
		short, err = fromSystem(ctx, app.Stdout, snaps.System, snap, path)
	}
	if err != nil {
		return advise(err, name, path)
	}
	if short != "" {
		app.Warnf("%s ends early: it could not be read to its end when it was backed up: %s", cli.Printable("/"+path), short)
		app.Lossy()
	}
	return nil
}

// advise says what to name instead.
func advise(err error, name, path string) error {
	switch {
	case errors.Is(err, repo.ErrNoEntry):
		return &cli.Error{Err: err, Fix: "paths are whole, from the root: bk-find finds them"}
	case errors.Is(err, repo.ErrNotFile):
		return &cli.Error{Err: err, Fix: fmt.Sprintf("see it with bk-ls -l %s:%s", name, cli.Printable("/"+path))}
	}
	return err
}

func fromRepo(ctx context.Context, w io.Writer, r *repo.Repository, snap *repo.Snapshot, path string) (short string, err error) {
	file, err := r.File(ctx, snap, path)
	if err != nil {
		return "", err
	}
	return file.EOF.Error, file.Copy(ctx, w)
}

// fromSystem has the system send the one file, whole and uncompressed.
func fromSystem(ctx context.Context, w io.Writer, system format.System, snap *format.Snapshot, path string) (short string, err error) {
	src, err := system.Export(ctx, format.ExportOptions{
		Snapshots: []format.ID{snap.ID}, Flat: true, Plain: true,
		Drop: func(p string, _ bool) (drop, skipBelow bool) {
			return p != path, p != "" && !format.IsBelow(path, p)
		},
	})
	if err != nil {
		return "", err
	}
	defer src.Close()
	sink := &fileSink{w: w, path: path}
	if err := format.Copy(ctx, sink, src); err != nil {
		return "", fmt.Errorf("read the content of %q: %w", "/"+path, err)
	}
	if !sink.found {
		return "", fmt.Errorf("find %q in snapshot %s: %w", "/"+path, snap.ID.Short(), repo.ErrNoEntry)
	}
	return sink.short, nil
}

// fileSink writes the content of the file at a path.
type fileSink struct {
	w     io.Writer
	path  string
	open  bool
	found bool
	short string
}

// Write implements format.Sink.
func (s *fileSink) Write(rec format.Record) error {
	if e, ok := rec.(*format.Entry); ok {
		if s.open = e.Path == s.path; s.open {
			s.found = true
			if e.Type != format.TypeFile {
				return fmt.Errorf("%w, but of the type %s", repo.ErrNotFile, e.Type)
			}
		}
		return nil
	}
	if !s.open {
		return nil
	}
	switch rec := rec.(type) {
	case *format.Data:
		plain, err := format.DecodePayload(nil, rec)
		if err != nil {
			return err
		}
		defer format.FreePayload(plain)
		_, err = s.w.Write(plain)
		return err
	case *format.Hole:
		return writeZeros(s.w, rec.Size)
	case *format.EOF:
		s.open, s.short = false, rec.Error
	}
	return nil
}

func writeZeros(w io.Writer, size uint64) error {
	zeros := make([]byte, min(size, 64<<10))
	for size > 0 {
		n, err := w.Write(zeros[:min(size, uint64(len(zeros)))])
		if err != nil {
			return err
		}
		size -= uint64(n)
	}
	return nil
}
