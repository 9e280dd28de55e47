// Package check is what bk-check does: looking for everything that could keep a
// snapshot from being restored. Start at Check. Only that program, and bk-repair
// for the report, import it.
package check

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/seal"
)

// Check is the program bk-check.
type Check struct {
	cli.RepoFlags   `embed:""`
	cli.ReceiptFlag `embed:""`

	ReadData       bool     `help:"Read and verify all content, too."`
	ReadDataSubset subset   `placeholder:"SUBSET" help:"Read and verify a part of the content: N% or SIZE of it, drawn at random, or n/m, the n-th of m parts."`
	Scrub          bool     `help:"Without a passphrase: read every object and compare it with the SHA-256 that it is named by."`
	Expect         []string `sep:"none" placeholder:"RECEIPT" help:"The snapshot of this receipt has to be there, or to be forgotten; RECEIPT may be a file of receipts (repeatable)."`
	AllPaths       bool     `help:"Name all paths that damage touches, and not only the first ones of each object."`
	AcceptRollback bool     `help:"Take what the storage shows now for right, though this machine saw more of it before: for an older copy that was put in place on purpose."`
}

// Help is the longer text.
func (*Check) Help() string {
	return `Reads every listing, compares the index with what the packs say of themselves and with what is on storage, and verifies every object but content; with --read-data also that. Nothing is written, and others may go on making backups. What is wrong is written to standard output, each object with the paths of the snapshots that cannot be restored because of it; then the exit code is 3, and bk-repair is what helps.

  bk-check
  bk-check --read-data-subset 3/30     # on the third of the month: all of it once in a month
  bk-check --scrub -r /mnt/offsite     # where there is no passphrase
  bk-check --expect ~/receipts`
}

// subset is a repo.Subset on the command line, as restic's users know it.
type subset struct{ repo.Subset }

// UnmarshalText makes subset a flag.
func (s *subset) UnmarshalText(b []byte) error {
	text := string(b)
	bad := fmt.Errorf("%q is neither a share such as 2.5%%, nor a size such as 500M, nor a part such as 1/10", text)
	if part, parts, ok := strings.Cut(text, "/"); ok {
		n, err := strconv.ParseUint(part, 10, 31)
		m, mErr := strconv.ParseUint(parts, 10, 31)
		if errors.Join(err, mErr) != nil || n < 1 || n > m {
			return bad
		}
		s.Part, s.Parts = uint32(n), uint32(m)
		return nil
	}
	if share, ok := strings.CutSuffix(text, "%"); ok {
		v, err := strconv.ParseFloat(share, 64)
		if err != nil || !(v > 0 && v <= 100) {
			return bad
		}
		s.Share = v / 100
		return nil
	}
	size, err := cli.ParseSize(text)
	if err != nil || size <= 0 {
		return bad
	}
	s.Bytes = int64(size)
	return nil
}

func (c *Check) options(app *cli.App) (repo.CheckOptions, error) {
	opts := repo.CheckOptions{ReadData: c.ReadDataSubset.Subset, OnProgress: app.StepProgress()}
	if c.ReadData {
		if !opts.ReadData.IsZero() {
			return opts, cli.Usagef("--read-data and --read-data-subset exclude each other")
		}
		opts.ReadData.All = true
	}
	for _, arg := range c.Expect {
		list, err := cli.ParseReceipts(arg)
		if err != nil {
			return opts, err
		}
		opts.Expect = append(opts.Expect, list...)
	}
	return opts, nil
}

// Run checks.
func (c *Check) Run(ctx context.Context, app *cli.App) error {
	opts, err := c.options(app)
	if err != nil {
		return err
	}
	if c.Scrub {
		if !opts.ReadData.IsZero() || len(opts.Expect) > 0 || c.AcceptRollback || c.Receipt != "" {
			return cli.Usagef("--scrub has no keys, so --read-data, --expect, --receipt and --accept-rollback do not go with it")
		}
		return c.scrub(ctx, app)
	}
	receipt, err := app.OpenReceipt(&c.ReceiptFlag)
	if err != nil {
		return err
	}
	r, err := app.OpenRepo(ctx, &c.RepoFlags, cli.RoleSource)
	if err != nil {
		return err
	}
	defer r.Close()
	if c.AcceptRollback {
		if err := r.AcceptRollback(); err != nil {
			return err
		}
	}
	out, err := r.Check(ctx, opts)
	if err != nil {
		return err
	}
	if err := Show(app, out.Findings, c.AllPaths); err != nil {
		return err
	}
	c.report(app, out)
	if err := failure(r.String(), out.Findings); err != nil {
		return err
	}
	list, _, err := r.List(ctx)
	if err != nil {
		return err
	}
	return receipt.Write(r, list)
}

func (c *Check) report(app *cli.App, out *repo.Checked) {
	if app.JSON {
		app.JSONEvent("summary", map[string]any{
			"findings": len(out.Findings), "snapshots": out.Snapshots, "entries": out.Entries,
			"packs": out.Packs.Packs, "bytes": out.Packs.Bytes, "chunks": out.Chunks, "chunks_needed": out.Needed,
			"bytes_needed": out.NeededBytes, "packs_unreferenced": out.Unreferenced.Packs, "bytes_unreferenced": out.Unreferenced.Bytes,
			"packs_read": out.PacksRead.Packs, "bytes_read": out.PacksRead.Bytes,
		})
		return
	}
	app.Sayf("checked: %d snapshots, %s entries; %s packs, %s, of which %s are read whole", out.Snapshots, cli.Count(out.Entries), cli.Count(out.Packs.Packs), cli.Bytes(out.Packs.Bytes), cli.Bytes(out.PacksRead.Bytes))
	app.Sayf("chunks: %s, of which snapshots need %s, %s", cli.Count(out.Chunks), cli.Count(out.Needed), cli.Bytes(out.NeededBytes))
	if out.Unreferenced.Packs > 0 {
		app.Sayf("packs that no snapshot needs: %s, %s (bk-gc frees them)", cli.Count(out.Unreferenced.Packs), cli.Bytes(out.Unreferenced.Bytes))
	}
	if len(out.Findings) == 0 {
		app.Sayf("no damage was found")
	}
}

// scrub checks without keys.
func (c *Check) scrub(ctx context.Context, app *cli.App) error {
	st, err := app.OpenStorage(ctx, &c.RepoFlags, cli.RoleSource)
	if err != nil {
		return err
	}
	defer st.Close()
	out, err := repo.Scrub(ctx, st, repo.ScrubOptions{OnProgress: app.StepProgress()})
	if err != nil {
		return err
	}
	if err := Show(app, out.Findings, c.AllPaths); err != nil {
		return err
	}
	if app.JSON {
		app.JSONEvent("summary", map[string]any{
			"findings": len(out.Findings), "objects": out.Objects.Packs, "bytes": out.Objects.Bytes, "objects_strange": out.Strange, "objects_newer": out.Newer,
		})
	} else {
		app.Sayf("read: %s objects, %s", cli.Count(out.Objects.Packs), cli.Bytes(out.Objects.Bytes))
		if out.Strange > 0 {
			app.Sayf("not of a repository, and left alone: %s objects", cli.Count(out.Strange))
		}
		if out.Newer > 0 {
			app.Sayf("whole, and of a newer format: %s objects", cli.Count(out.Newer))
		}
	}
	if err := failure(st.String(), out.Findings); err != nil {
		return err
	}
	app.Sayf("every object is what was stored; what is missing, only bk-check with the passphrase can see")
	return nil
}

// failure is what a check ends with that found something besides what is known.
func failure(place string, findings []*repo.Finding) error {
	counts := make(map[repo.What]int)
	snapshots := false // some are damaged
	var order []repo.What
	for _, f := range findings {
		if f.What == repo.Known {
			continue
		}
		if counts[f.What] == 0 {
			order = append(order, f.What)
		}
		counts[f.What]++
		name, ok := seal.ParseName(f.Object)
		snapshots = snapshots || ok && name.Kind == seal.KindSnapshot && f.What == repo.Damaged
	}
	if len(order) == 0 {
		return nil
	}
	parts := make([]string, len(order))
	for i, what := range order {
		parts[i] = fmt.Sprintf("%d %s", counts[what], what)
	}
	fix := "run bk-repair, or put the objects in place from another copy of the repository"
	if snapshots {
		fix += "; for snapshots, run " + cli.UnreadableFix
	}
	if counts[repo.Hidden] > 0 {
		fix = "look at the storage, and for another copy of the repository; if you put an older copy in place on purpose, run bk-check --accept-rollback"
	} else if len(order) == 1 && counts[repo.Returned] > 0 {
		fix = "run bk-forget again with these snapshots"
	}
	return &cli.Error{Code: cli.ExitLossy, Op: "check " + place, Err: errors.New(strings.Join(parts, ", ")), Fix: fix}
}
