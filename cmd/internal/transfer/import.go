package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bk-backup/bk/cmd/internal/chunkers"
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// Import is the program bk-import.
type Import struct {
	cli.RepoFlags `embed:""`
	chunkers.Flag `embed:""`
	cli.SinkFlags `embed:""`

	cli.ReceiptFlag `embed:""`

	Compression  string `placeholder:"LEVEL" help:"Compress again: none, fastest, default, better, best or zstd:LEVEL. Default, keep: what comes compressed stays as it is, and the repository's setting applies to the rest."`
	Held         bool   `help:"Accept content that is only named, if this repository holds it (bk-export --held)."`
	Strict       bool   `help:"Refuse what another system cannot hold, before it is written, instead of leaving it out and saying so."`
	ListImported bool   `help:"List the ids of the snapshots held here, with all the ids they had on the way here, and stop: for bk-export --have."`
}

// Help is the longer text.
func (*Import) Help() string {
	return `The stream comes from standard input: from bk-export, bk-filter, bk-backup --stdout, or a file. The repository is -r, else BK_IMPORT_REPO, else BK_REPO; its passphrase BK_IMPORT_PASSPHRASE, else BK_PASSPHRASE (or _FILE, _COMMAND), or it is asked for once the stream begins to arrive.

Every payload is decoded and checked before it is stored. Each snapshot is committed as it completes; if the stream ends early, complete snapshots stay, the incomplete one never appears, and running the same again completes it without storing anything twice. Snapshots that are held already are recognised and left alone.

With -r restic:DIR the stream goes into a restic repository, which is made if it is not there (-o version=1 for the older format). Its chunks are those of the stream, or with --chunker rabin those that restic itself would cut, so that restic finds them again in files that change later; -o chunker-from=restic:PATH makes a new one cut like another. Its passphrase is BK_IMPORT_PASSPHRASE, else RESTIC_PASSWORD, else BK_PASSPHRASE.

With -r borg:DIR the stream goes into a repository of Borg 1, which is locked meanwhile, and made if it is not there: -o encryption=MODE (none, authenticated, repokey, keyfile, or these with -blake2; default repokey-blake2). Content is cut as borg create cuts it there, or with --chunker keep left as it comes; -o compression=keep (the default), none, lz4 or zstd,LEVEL. Its passphrase is BK_IMPORT_PASSPHRASE, else for a new one BORG_NEW_PASSPHRASE, else BORG_PASSPHRASE, else BK_PASSPHRASE; -o key-file=FILE says where keys are that do not lie in it.

With -r tar:FILE the stream becomes an archive, with tar:DIR/ one for each snapshot, with tar:- one on standard output. It has to be made with bk-export --flat. What the archive cannot hold is named, and the exit code is 3.`
}

// WritesForeign implements cli.ForeignWriter.
func (*Import) WritesForeign() {}

// Run stores the stream.
func (c *Import) Run(ctx context.Context, app *cli.App) error {
	opts := repo.ImportOptions{Held: c.Held, OnWarning: func(text string) { app.Warnf("%s", text) }}
	if c.ListImported {
		return c.list(ctx, app)
	}
	in, err := app.StreamIn()
	if err != nil {
		return err
	}
	buffered := bufio.NewReaderSize(in, 1<<16)
	begun := func() { _, _ = buffered.Peek(1) }
	foreign, err := app.ForeignTarget(&c.RepoFlags)
	if err != nil {
		return err
	}
	// The passphrase is asked for when the stream has begun to arrive: another
	// program of the pipe may be asking before that. If it need not be asked for,
	// the repository is opened while that program opens its own.
	if foreign != nil || !app.HasPassphrase(cli.RoleTarget) {
		begun()
	}
	if foreign != nil {
		return c.runForeign(ctx, app, foreign, buffered)
	}
	if len(c.Option) > 0 {
		return cli.Usagef("-o %s: this is for other systems than bk", c.Option[0])
	}
	receipt, err := app.OpenReceipt(&c.ReceiptFlag)
	if err != nil {
		return err
	}
	r, err := app.OpenRepo(ctx, &c.RepoFlags, cli.RoleTarget)
	if err != nil {
		return err
	}
	defer r.Close()
	if opts.Compression, opts.Recompress, err = app.Compression(r, c.Compression); err != nil {
		return err
	}
	if opts.ChunkerFor, err = c.For(r); err != nil {
		return err
	}
	opts.OnProgress = app.Progress()
	begun() // nobody is said to write before there is something
	sink, err := r.Import(ctx, opts)
	if err != nil {
		return err
	}
	copyErr := format.Copy(ctx, sink, format.NewReader(buffered, format.ReaderOptions{}))
	closeErr := sink.Close()
	report(app, sink.Summary())
	receiptErr := receipt.Write(r, sink.Summary().Snapshots)
	if copyErr != nil {
		return c.named(copyErr)
	}
	return errors.Join(closeErr, receiptErr)
}

// named says what to do where a stream names content that is not there.
func (c *Import) named(err error) error {
	switch {
	case format.ClassOf(err) != format.ClassReference:
		return err
	case c.Held:
		return &cli.Error{Err: err, Fix: "make the stream without --held: this repository does not hold what it names"}
	}
	return &cli.Error{Err: err, Fix: "if it was made by bk-export --held, give --held here, too; otherwise make the stream again"}
}

// runForeign stores the stream in another system.
func (c *Import) runForeign(ctx context.Context, app *cli.App, target *cli.ForeignTarget, in io.Reader) error {
	if c.Compression != "" || c.Receipt != "" {
		return cli.Usagef("--compression and --receipt are for repositories of bk; others have -o")
	}
	sink, err := target.Open(ctx, cli.SinkOptions{
		Strict: c.Strict, Held: c.Held, Chunker: c.Chunker, Settings: c.Option, OnProgress: app.Progress(),
	})
	if err != nil {
		return err
	}
	copyErr := format.Copy(ctx, sink, format.NewReader(in, format.ReaderOptions{}))
	closeErr := sink.Close()
	reportForeign(app, sink.Sums())
	if copyErr != nil {
		return c.named(copyErr)
	}
	return closeErr
}

// reportForeign says what was done in another system.
func reportForeign(app *cli.App, sum cli.ForeignSums) {
	app.ReportLosses(sum.Losses)
	if app.JSON {
		app.JSONEvent("summary", map[string]any{
			"snapshots_written": sum.Snapshots, "snapshots_held": sum.Held, "entries": sum.Entries, "bytes": sum.Bytes,
			"bytes_new": sum.New, "bytes_stored": sum.Stored, "losses": lossesJSON(sum.Losses),
		})
		return
	}
	held := ""
	if sum.Held > 0 {
		held = fmt.Sprintf(", %d held already", sum.Held)
	}
	app.Sayf("wrote %d snapshots%s: %s entries, %s of content", sum.Snapshots, held, cli.Count(sum.Entries), cli.Bytes(sum.Bytes))
	if sum.Stored > 0 {
		app.Sayf("new: %s of content; %s stored", cli.Bytes(sum.New), cli.Bytes(uint64(sum.Stored)))
	}
}

// noParent stands before an id in the list of what is held if the snapshot has
// been rewritten since: there is no listing any more that a difference to it could
// be applied to.
const noParent = "-"

// A line about what came of a snapshot that was cut off has partialOf before each
// id of the snapshot, and partialChunk before each id of a chunk.
const (
	partialOf      = "~"
	partialChunk   = "+"
	partialLineMax = 256 // chunks in such a line
)

// list prints what the repository holds.
func (c *Import) list(ctx context.Context, app *cli.App) error {
	out := bufio.NewWriter(app.Stdout)
	foreign, err := app.ForeignTarget(&c.RepoFlags)
	if err != nil {
		return err
	}
	if foreign != nil {
		lines, err := foreign.Imported(ctx)
		if err != nil {
			return fmt.Errorf("--list-imported: %w", err)
		}
		for _, ids := range lines {
			for i, id := range ids {
				if i > 0 {
					fmt.Fprint(out, " ")
				}
				if id.Changed {
					fmt.Fprint(out, noParent)
				}
				fmt.Fprint(out, id.ID)
			}
			fmt.Fprintln(out)
		}
		return out.Flush()
	}
	r, err := app.OpenRepo(ctx, &c.RepoFlags, cli.RoleTarget)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := writeImported(ctx, out, r); err != nil {
		return err
	}
	return out.Flush()
}

// writeImported writes the list of what a repository holds.
func writeImported(ctx context.Context, out *bufio.Writer, r *repo.Repository) error {
	list, _, err := r.List(ctx)
	if err != nil {
		return err
	}
	h := heldBy(r, list)
	for _, s := range list {
		for i, id := range s.IDs() {
			if i > 0 {
				fmt.Fprint(out, " ")
			}
			if h.gone[id] {
				fmt.Fprint(out, noParent)
			}
			fmt.Fprint(out, id)
		}
		fmt.Fprintln(out)
	}
	return r.Partials(ctx, func(p repo.Partial) error {
		if h.as[p.IDs[0]] || h.was[p.IDs[0]] {
			return nil
		}
		return writePartial(out, p)
	})
}

// writePartial says what came of an unfinished snapshot, some chunks to a line.
func writePartial(out *bufio.Writer, p repo.Partial) error {
	for chunks := range slices.Chunk(p.Chunks, partialLineMax) {
		for i, id := range p.IDs {
			if i > 0 {
				out.WriteByte(' ')
			}
			fmt.Fprint(out, partialOf, id)
		}
		for _, ref := range chunks {
			fmt.Fprint(out, " ", partialChunk, ref.ID)
		}
		if err := out.WriteByte('\n'); err != nil {
			return err
		}
	}
	return nil
}

// report says what was done.
func report(app *cli.App, sum repo.Imported) {
	app.ReportLosses(sum.Losses)
	if app.JSON {
		ids := make([]string, len(sum.Snapshots))
		for i, s := range sum.Snapshots {
			ids[i] = s.ID.String()
		}
		app.JSONEvent("summary", map[string]any{
			"snapshots": ids, "snapshots_held": sum.HeldAlready, "entries": sum.Entries, "bytes": sum.Bytes,
			"chunks": sum.DataChunks, "bytes_of_chunks": sum.DataBytes, "chunks_new": sum.NewChunks, "bytes_new": sum.NewBytes,
			"bytes_new_compressed": sum.PayloadBytes, "bytes_stored": sum.StoredBytes, "packs": sum.Packs,
			"bytes_cut": sum.BytesCut, "bytes_read_back": sum.BytesReadBack, "losses": lossesJSON(sum.Losses),
		})
		return
	}
	held := ""
	if sum.HeldAlready > 0 {
		held = fmt.Sprintf(", %d held already", sum.HeldAlready)
	}
	app.Sayf("imported %d snapshots%s: %s entries, %s of content", len(sum.Snapshots), held, cli.Count(sum.Entries), cli.Bytes(sum.Bytes))
	app.Sayf("new: %s chunks, %s, %s compressed; %s stored", cli.Count(sum.NewChunks), cli.Bytes(sum.NewBytes), cli.Bytes(sum.PayloadBytes), cli.Bytes(sum.StoredBytes))
	if sum.BytesCut > 0 {
		app.Sayf("cut anew: %s; read again from the repository for that: %s", cli.Bytes(sum.BytesCut), cli.Bytes(sum.BytesReadBack))
	}
}

// lossesJSON is what was lost, for programs.
func lossesJSON(losses []format.Loss) []map[string]any {
	list := make([]map[string]any, 0, len(losses))
	for _, l := range losses {
		paths := make([]map[string]any, len(l.Paths))
		for i, path := range l.Paths {
			paths[i] = map[string]any{}
			cli.JSONName(paths[i], "path", "/"+path)
		}
		list = append(list, map[string]any{"kind": l.Kind, "count": l.Count, "paths": paths})
	}
	return list
}
