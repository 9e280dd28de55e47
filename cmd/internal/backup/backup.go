package backup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bk-backup/bk/cmd/internal/chunkers"
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/filterflags"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/disk"
	"github.com/bk-backup/bk/repo"
)

// Backup is the program bk-backup.
type Backup struct {
	cli.RepoFlags `embed:""`

	Paths      []string `arg:"" optional:"" sep:"none" name:"PATH" help:"Files and directories to back up."`
	FilesFrom  []string `sep:"none" placeholder:"FILE" help:"Read more paths from FILE, one a line (repeatable; - for standard input)."`
	FilesFrom0 []string `name:"files-from0" aliases:"files-from-raw" sep:"none" placeholder:"FILE" help:"The same, but each path ends with a zero byte and is taken as it is: for find -print0."`

	filterflags.PathFlags `embed:""`
	ExcludeCaches         bool     `group:"What is left out" help:"Leave out what lies beside a CACHEDIR.TAG."`
	ExcludeIfPresent      []string `group:"What is left out" sep:"none" placeholder:"NAME[:HEADER]" help:"Leave out directories that hold a file of this name (that begins with HEADER)."`
	OneFileSystem         bool     `group:"What is left out" short:"x" help:"Do not cross into other file systems."`

	Tag     []string `group:"The snapshot" sep:"," placeholder:"TAG" help:"Tag the snapshot (repeatable)."`
	Host    string   `group:"The snapshot" placeholder:"NAME" help:"The host it is said to be of. Default: this one."`
	Time    string   `group:"The snapshot" placeholder:"TIME" help:"The time it is said to be made at. Default: now."`
	Comment string   `group:"The snapshot" placeholder:"TEXT" help:"A comment."`

	Chunker     []string `group:"How" sep:"none" placeholder:"[PATTERN=]SPEC" help:"Cut files (that match PATTERN) by SPEC: gear:64KiB, rabin, fixed:64KiB ... (repeatable, the last that matches wins). Default: the repository's setting."`
	Compression string   `group:"How" placeholder:"LEVEL" help:"none, fastest, default, better, best or zstd:LEVEL. Default: the repository's setting."`
	Parent      string   `group:"How" placeholder:"SNAPSHOT" help:"Compare with this snapshot. Default: the newest of the same host and paths."`
	ReadAll     bool     `group:"How" name:"read-all" help:"Read every file, also those that seem unchanged."`
	IgnoreInode bool     `group:"How" help:"Files with other inode numbers may still be unchanged."`
	IgnoreCtime bool     `group:"How" help:"Files with other change times may still be unchanged."`
	WithAtime   bool     `group:"How" help:"Record when files were last read."`
	DryRun      bool     `group:"How" short:"n" help:"Write nothing; say what would be backed up."`

	cli.ReceiptFlag `embed:"" group:"The snapshot"`

	Stdin            bool   `group:"Other sources and targets" help:"Back up standard input as one file."`
	StdinName        string `group:"Other sources and targets" default:"stdin" placeholder:"PATH" help:"Name of that file."`
	StdinFromCommand bool   `group:"Other sources and targets" help:"Back up the output of the command that follows --; the snapshot is made only if it exits with 0."`
	Stdout           bool   `group:"Other sources and targets" help:"Write a stream to standard output; no repository is needed."`
}

// Help is the longer text.
func (*Backup) Help() string {
	return `Files that did not change since the last backup of the same host and paths (size, times, inode) are not read. Content that the repository holds already is not stored again. What cannot be read is named, the rest is backed up, and the exit code is 3.

  bk-backup ~ --exclude '*.tmp' --exclude-caches
  find . -name '*.odt' -print0 | bk-backup --files-from0 -
  bk-backup --stdin-from-command -- pg_dump mydb
  bk-backup --stdout ~ | ssh host bk-import -r /srv/backups`
}

// Run makes the snapshot.
func (c *Backup) Run(ctx context.Context, app *cli.App) error {
	if err := c.checkUsage(); err != nil {
		return err
	}
	opts, err := c.scanOptions(app)
	if err != nil {
		return err
	}
	if c.Stdout {
		return c.toStream(ctx, app, opts)
	}
	return c.toRepository(ctx, app, opts)
}

func (c *Backup) checkUsage() error {
	sources := 0
	for _, given := range []bool{len(c.Paths)+len(c.FilesFrom)+len(c.FilesFrom0) > 0 && !c.StdinFromCommand, c.Stdin, c.StdinFromCommand} {
		if given {
			sources++
		}
	}
	switch {
	case sources == 0:
		return cli.Usagef("name the files to back up")
	case sources > 1:
		return cli.Usagef("paths, --stdin and --stdin-from-command exclude each other")
	case c.StdinFromCommand && len(c.Paths) == 0:
		return cli.Usagef("--stdin-from-command needs a command after --")
	case c.Stdout && c.DryRun:
		return cli.Usagef("--stdout and --dry-run exclude each other")
	case c.Receipt != "" && (c.Stdout || c.DryRun):
		return cli.Usagef("--receipt is of a snapshot in a repository, which --stdout and --dry-run do not make")
	}
	return nil
}

// scanOptions turns the flags into a scan without a parent.
func (c *Backup) scanOptions(app *cli.App) (disk.ScanOptions, error) {
	now := time.Now()
	opts := disk.ScanOptions{
		ExcludeCaches: c.ExcludeCaches, ExcludeIfPresent: c.ExcludeIfPresent, OneFileSystem: c.OneFileSystem,
		IgnoreInode: c.IgnoreInode, IgnoreCtime: c.IgnoreCtime, Atime: c.WithAtime,
		Producer: app.Name + " " + cli.Version,
		OnError: func(path string, err error) {
			app.Warnf("%s: %v", cli.Printable("/"+path), err)
		},
	}
	var err error
	if opts.Roots, err = c.roots(app); err != nil {
		return opts, err
	}
	patterns, err := c.Compile()
	if err != nil {
		return opts, cli.Usagef("%w", err)
	}
	if patterns != nil {
		opts.Drop = patterns.Match
	}
	made := now
	if c.Time != "" {
		if made, err = cli.ParseTime(c.Time); err != nil {
			return opts, cli.Usagef("--time: %w", err)
		}
	}
	stamp := format.TimeOf(made)
	opts.Snapshot = format.Snapshot{Time: &stamp, Host: c.Host, Tags: c.Tag, Comment: c.Comment, User: userName()}
	if opts.Snapshot.Host == "" {
		opts.Snapshot.Host, _ = os.Hostname()
	}
	switch {
	case c.Stdin:
		opts.Stdin, opts.StdinName = app.Stdin, c.StdinName
	case c.StdinFromCommand:
		opts.StdinName = c.StdinName
	}
	return opts, nil
}

func userName() string {
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	return os.Getenv("LOGNAME")
}

// toStream writes the scan as a stream.
func (c *Backup) toStream(ctx context.Context, app *cli.App, opts disk.ScanOptions) error {
	out, err := app.StreamOut()
	if err != nil {
		return err
	}
	if opts.ChunkerFor, err = chunkers.New(publicSplitters, streamChunker, nil, c.Chunker); err != nil {
		return err
	}
	text := c.Compression
	if text == "" {
		text = "default"
	}
	if opts.Level, err = format.ParseLevel(cli.LevelText(text)); err != nil {
		return cli.Usagef("--compression: %w", err)
	}
	opts.Compress = opts.Level != format.LevelNone
	opts.Dedup = true
	// Files on a disk have no identity that could be given again.
	opts.Snapshot.Unstable = true
	if _, err := rand.Read(opts.Snapshot.ID[:]); err != nil {
		return fmt.Errorf("draw an id for the snapshot: %w", err)
	}
	opts.OnProgress = app.Progress()
	losses := &lossKeeper{}
	err = c.scan(ctx, opts, func(src format.Source) error {
		return format.Copy(ctx, format.NewWriter(out, format.WriterOptions{}), src, losses)
	})
	if err != nil {
		return err
	}
	app.ReportLosses(losses.losses)
	return nil
}

// lossKeeper remembers what commits say was lost.
type lossKeeper struct{ losses []format.Loss }

// Process implements format.Stage.
func (k *lossKeeper) Process(rec format.Record, emit func(format.Record) error) error {
	if c, ok := rec.(*format.Commit); ok {
		k.losses = append(k.losses, c.Clone().Losses...)
	}
	return emit(rec)
}

// scan runs a scan into use; where the source is a command, its exit code counts
// before the end.
func (c *Backup) scan(ctx context.Context, opts disk.ScanOptions, use func(format.Source) error) error {
	if c.StdinFromCommand {
		return c.scanCommand(ctx, opts, use)
	}
	scanner, err := disk.Scan(ctx, opts)
	if err != nil {
		return err
	}
	defer scanner.Close()
	return use(scanner)
}

// rootNames are the roots as entries name them: without links in their parents.
func rootNames(roots []string) ([]string, error) {
	names := make([]string, len(roots))
	for i, root := range roots {
		abs, err := filepath.Abs(root)
		if err != nil {
			return nil, &cli.Error{Op: "find " + root, Err: err}
		}
		parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
		if errors.Is(err, os.ErrNotExist) {
			return nil, &cli.Error{Op: "back up " + root, Err: errors.New("there is no such file or directory"), Fix: "check the path; nothing was backed up"}
		}
		if err != nil {
			return nil, &cli.Error{Op: "find " + root, Err: err}
		}
		names[i] = strings.Trim(filepath.Join(parent, filepath.Base(abs)), "/")
		if abs == "/" {
			names[i] = ""
		}
	}
	return names, nil
}

// predecessor finds the snapshot to compare with; nil: none.
func (c *Backup) predecessor(list []*repo.Snapshot, opts *disk.ScanOptions) (*repo.Snapshot, error) {
	if c.Parent != "" {
		metas := make([]*format.Snapshot, len(list))
		byID := make(map[format.ID]*repo.Snapshot)
		for i, s := range list {
			meta := s.Meta
			meta.ID = s.ID
			metas[i], byID[s.ID] = &meta, s
		}
		chosen, err := cli.Resolve(metas, c.Parent)
		if err != nil {
			return nil, fmt.Errorf("--parent: %w", err)
		}
		return byID[chosen.ID], nil
	}
	if opts.StdinName != "" {
		return nil, nil
	}
	names, err := rootNames(opts.Roots)
	if err != nil {
		return nil, err
	}
	return repo.Predecessor(list, opts.Snapshot.Host, names), nil
}
