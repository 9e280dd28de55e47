package fidelity

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bk-backup/bk/format"
)

// Difference is something in which two snapshots that belong together are not
// equal.
type Difference struct {
	Pair
	Path string // of an entry, if Entry
	What string // in words: only in A, metadata, content ...
	// Entry says that the difference is one of an entry, not of the snapshots'
	// own records.
	Entry bool
}

// Options say where to report to.
type Options struct {
	NameA, NameB string // for errors
	// OnDifference, if set, is called for each difference.
	OnDifference func(Difference)
	OnProgress   func(format.Progress)
}

// Report is what was found.
type Report struct {
	Pairs        int // snapshots compared
	Equal        int // of them, without any difference
	Differences  int
	Entries      uint64 // compared
	Bytes        uint64 // plain bytes of content that they stand for
	Hashed       uint64 // plain bytes that were read and hashed, of both sides
	OnlyA, OnlyB []*format.Snapshot
}

// Same reports whether every snapshot has an equal one on the other side.
func (r *Report) Same() bool {
	return r.Differences == 0 && len(r.OnlyA) == 0 && len(r.OnlyB) == 0
}

// Compare compares the given snapshots of two systems.
func Compare(ctx context.Context, a, b format.System, snapsA, snapsB []*format.Snapshot, opts Options) (*Report, error) {
	pairs, onlyA, onlyB := Match(snapsA, snapsB)
	c := &comparison{opts: opts, report: &Report{OnlyA: onlyA, OnlyB: onlyB}}
	if len(pairs) == 0 {
		return c.report, nil
	}
	var ofA, ofB []*format.Snapshot
	for _, p := range pairs {
		ofA, ofB = append(ofA, p.A), append(ofB, p.B)
	}
	sideA, err := openSide(ctx, opts.NameA, a, ofA)
	if err != nil {
		return nil, err
	}
	defer sideA.src.Close()
	sideB, err := openSide(ctx, opts.NameB, b, ofB)
	if err != nil {
		return nil, err
	}
	defer sideB.src.Close()
	c.contents = contents{a: sideA, b: sideB, equal: make(map[[32]byte]bool)}
	for _, p := range pairs {
		if err := c.pair(ctx, p); err != nil {
			return nil, fmt.Errorf("compare snapshot %s with %s: %w", p.A.ID.Short(), p.B.ID.Short(), err)
		}
	}
	c.report.Hashed = c.contents.hashed
	return c.report, nil
}

type comparison struct {
	opts     Options
	report   *Report
	contents contents
	pairNow  Pair
	links    [2]links
	progress format.Progress
}

func (c *comparison) differ(path, what string, entry bool) {
	c.report.Differences++
	if c.opts.OnDifference != nil {
		c.opts.OnDifference(Difference{Pair: c.pairNow, Path: path, What: what, Entry: entry})
	}
}

// pair compares two snapshots.
func (c *comparison) pair(ctx context.Context, p Pair) error {
	before := c.report.Differences
	c.pairNow, c.links = p, [2]links{make(links), make(links)}
	if what := recordDifferences(p.A, p.B); len(what) > 0 {
		c.differ("", strings.Join(what, ", "), false)
	}
	a, b := c.contents.a, c.contents.b
	if err := errors.Join(a.begin(), b.begin()); err != nil {
		return err
	}
	ea, errA := a.entry()
	eb, errB := b.entry()
	for {
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		if ea == nil && eb == nil {
			break
		}
		var err error
		switch order(ea, eb) {
		case -1:
			c.differ(ea.Path, "only in A", true)
			c.links[0].first(ea)
			if err = skipContent(a, ea); err == nil {
				ea, errA = a.entry()
			}
		case 1:
			c.differ(eb.Path, "only in B", true)
			c.links[1].first(eb)
			if err = skipContent(b, eb); err == nil {
				eb, errB = b.entry()
			}
		default:
			if err = c.entries(ctx, ea, eb); err == nil {
				ea, errA = a.entry()
				eb, errB = b.entry()
			}
		}
		if err != nil {
			return err
		}
	}
	c.report.Pairs++
	c.progress.Snapshots++
	if c.report.Differences == before {
		c.report.Equal++
	}
	return nil
}

// order compares the paths of two entries, of which one may be missing.
func order(a, b *format.Entry) int {
	switch {
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return format.ComparePaths(a.Path, b.Path)
}

func skipContent(s *side, e *format.Entry) error {
	if e.Type != format.TypeFile {
		return nil
	}
	return s.skip()
}

// entries compares two entries of one path, with their contents.
func (c *comparison) entries(ctx context.Context, ea, eb *format.Entry) error {
	a, b := c.contents.a, c.contents.b
	c.report.Entries++
	c.progress.Entries++
	c.progress.Path = ea.Path
	if c.opts.OnProgress != nil {
		c.opts.OnProgress(c.progress)
	}
	if ea.Type != eb.Type {
		c.differ(ea.Path, fmt.Sprintf("a %s in A, a %s in B", ea.Type, eb.Type), true)
		return errors.Join(skipContent(a, ea), skipContent(b, eb))
	}
	var what []string
	// The size before reading may be missing; the contents are compared anyway.
	ea.Size, eb.Size = 0, 0
	ea.Has &^= format.HasSize
	eb.Has &^= format.HasSize
	linkedA, linkedB := c.links[0].first(ea), c.links[1].first(eb)
	ea.Hardlink, eb.Hardlink = "", ""
	if !ea.Equal(eb) {
		what = append(what, "metadata")
	}
	if linkedA != linkedB {
		what = append(what, "hard links")
	}
	if ea.Type == format.TypeFile {
		same, err := c.contents.compare(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			what = append(what, "content cannot be read: "+err.Error())
			if err := errors.Join(a.skip(), b.skip()); err != nil {
				return err
			}
		case !same:
			what = append(what, "content")
		case a.eof.Error != b.eof.Error:
			what = append(what, "where its content was cut short")
		}
		c.report.Bytes += a.eof.Size
		c.progress.Bytes += a.eof.Size
	}
	if len(what) > 0 {
		c.differ(ea.Path, strings.Join(what, ", "), true)
	}
	return nil
}
