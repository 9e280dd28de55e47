package formattest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/bk-backup/bk/format"
)

// Received is a snapshot with its listing.
type Received struct {
	Record  *format.Snapshot
	Commit  *format.Commit // nil: it did not come
	Listing Listing
	Changes []string // paths of entries, and those of removals behind a minus
	Data    int      // data records
}

// Receiver is a sink that applies a stream with the checks that a sink makes, and
// keeps everything.
type Receiver struct {
	Snapshots []*Received
	Chunks    map[format.ID][]byte // what came as data

	checker     format.Checker
	base        Listing // what the receiver holds of the first snapshot's parent
	parent      Listing
	file        *Object
	once, again map[format.ID]bool
	flat        bool
}

func newReceiver(base Listing) *Receiver {
	return &Receiver{base: base, Chunks: make(map[format.ID][]byte), once: make(map[format.ID]bool), again: make(map[format.ID]bool)}
}

// Receive reads a stream and applies it, with all the checks that there are; base
// is what the receiver holds. It also checks that every chunk says whether it
// comes again.
func Receive(t testing.TB, b []byte, base Listing) []*Received {
	t.Helper()
	x := newReceiver(base)
	r := format.NewReader(bytes.NewReader(b), format.ReaderOptions{})
	if err := format.Copy(context.Background(), x, r, &format.Verifier{}); err != nil {
		t.Fatal(err)
	}
	for id, once := range x.once {
		if once == x.again[id] && !x.flat {
			t.Errorf("chunk %s: once %v, and it came again %v", id, once, x.again[id])
		}
	}
	return x.Snapshots
}

// Collect applies what a source hands out, which is closed then. What came before
// an error is returned, too.
func Collect(src format.SourceCloser, listingOnly bool) (*Receiver, error) {
	x := newReceiver(nil)
	x.checker.ListingOnly = listingOnly
	err := format.Copy(context.Background(), x, src)
	return x, errors.Join(err, src.Close())
}

// Listing returns that of the last snapshot.
func (x *Receiver) Listing() Listing {
	if len(x.Snapshots) == 0 {
		return nil
	}
	return x.last().Listing
}

func (x *Receiver) last() *Received { return x.Snapshots[len(x.Snapshots)-1] }

// Commits returns how many snapshots are complete.
func (x *Receiver) Commits() (n int) {
	for _, s := range x.Snapshots {
		if s.Commit != nil {
			n++
		}
	}
	return n
}

// Losses returns how often each kind was counted.
func (x *Receiver) Losses() map[string]uint64 {
	out := make(map[string]uint64)
	for _, s := range x.Snapshots {
		if s.Commit == nil {
			continue
		}
		for _, l := range s.Commit.Losses {
			out[l.Kind] += l.Count
		}
	}
	return out
}

// Write implements format.Sink.
func (x *Receiver) Write(rec format.Record) error {
	if err := x.checker.Check(rec, nil); err != nil {
		return err
	}
	switch rec := rec.(type) {
	case *format.Header:
		x.flat = slices.Contains(rec.Features, format.FeatureFlat)
	case *format.Snapshot:
		return x.snapshot(rec)
	case *format.Entry:
		return x.entry(rec)
	case *format.Remove:
		x.last().Listing.remove(rec.Path)
		x.last().Changes = append(x.last().Changes, "-"+rec.Path)
	case *format.Data:
		plain, err := format.DecodePayload(nil, rec)
		if err != nil {
			return err
		}
		if format.SumID(plain) != rec.ID {
			return fmt.Errorf("chunk %s has another id", rec.ID)
		}
		x.Chunks[rec.ID], x.once[rec.ID] = plain, rec.Once
		x.last().Data++
		x.chunk(rec.ID, plain)
	case *format.Refs:
		for _, c := range rec.Chunks {
			x.again[c.ID] = true
			plain := x.Chunks[c.ID]
			if len(plain) == 0 || uint32(len(plain)) != c.Size {
				return fmt.Errorf("refs name chunk %s of %d bytes, which came with %d", c.ID, c.Size, len(plain))
			}
			x.chunk(c.ID, plain)
		}
	case *format.CopyRange:
		from := x.file.Entry.Path
		if rec.HasFrom {
			from = rec.From
		}
		b := x.parent[from].Content()
		x.file.Pieces = append(x.file.Pieces, b[rec.Offset:rec.Offset+rec.Size])
	case *format.Hole:
		x.file.addHole(rec.Size)
	case *format.EOF:
		x.file.Err = rec.Error
	case *format.Commit:
		x.last().Commit = rec.Clone()
	}
	return nil
}

func (x *Receiver) snapshot(rec *format.Snapshot) error {
	now := &Received{Record: rec.Clone(), Listing: Listing{}}
	if !rec.Parent.IsZero() {
		x.parent = x.base
		if len(x.Snapshots) > 0 {
			if before := x.last().Record.ID; rec.Parent != before {
				return fmt.Errorf("the parent of snapshot %s is not %s, the one before", rec.ID, before)
			}
			x.parent = x.last().Listing
		}
		maps.Copy(now.Listing, x.parent)
	}
	x.Snapshots = append(x.Snapshots, now)
	return nil
}

func (x *Receiver) entry(rec *format.Entry) error {
	now := x.last()
	for p := rec.Path; p != ""; {
		p = format.ParentPath(p)
		if o := now.Listing[p]; o != nil && o.Entry.Type != format.TypeDir {
			return fmt.Errorf("entry %q lies below %q, which is a %s", rec.Path, p, o.Entry.Type)
		}
	}
	if rec.Type != format.TypeDir {
		now.Listing.remove(rec.Path)
	}
	x.file = &Object{Entry: rec.Clone()}
	now.Listing[rec.Path] = x.file
	now.Changes = append(now.Changes, rec.Path)
	return nil
}

func (x *Receiver) chunk(id format.ID, plain []byte) {
	x.file.Pieces = append(x.file.Pieces, plain)
	x.file.Chunks = append(x.file.Chunks, id)
}
