package format

import (
	"context"
	"errors"
	"io"
)

// Source hands out records in the order of the stream's grammar: a header,
// snapshots, an end.
type Source interface {
	// Next returns the next record, valid until the next call. After the end
	// record it returns io.EOF. An error is sticky: every later call returns it.
	Next() (Record, error)
}

// Sink takes records in the order of the stream's grammar.
type Sink interface {
	// Write takes one record. It does not keep the record or what it points to
	// after it returns, except a payload for which it called Data.Take. After
	// it returned nil for an End, everything is complete and durable; a sink
	// that never saw the End keeps the snapshots whose Commit it took and drops
	// the rest. An error is sticky.
	Write(rec Record) error
}

// Stage changes records between a source and a sink. It may emit none, one or
// several records for each that it is given, in the grammar's order.
type Stage interface {
	// Process is given every record in turn. Records that it emits need to be
	// valid only until emit returns.
	Process(rec Record, emit func(Record) error) error
}

// Copy moves every record from src through the stages into dst, and returns nil
// only after the end record went through. It stops at the first error or when
// ctx is done, and closes nothing. An *Error of a stage or the sink that does
// not know its place (see Errorf) is given that of the record from src, if src
// knows it as a Reader does.
func Copy(ctx context.Context, dst Sink, src Source, stages ...Stage) error {
	emit := dst.Write
	for i := len(stages) - 1; i >= 0; i-- {
		stage, next := stages[i], emit
		emit = func(rec Record) error { return stage.Process(rec, next) }
	}
	done := ctx.Done()
	for {
		select {
		case <-done:
			return context.Cause(ctx)
		default:
		}
		rec, err := src.Next()
		if errors.Is(err, io.EOF) && rec == nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := emit(rec); err != nil {
			return locate(err, rec, src)
		}
	}
}

// locate puts the place of rec, the last record from src, into err.
func locate(err error, rec Record, src Source) error {
	var e *Error
	at, ok := src.(interface{ Position() (record, offset int64) })
	if !ok || !errors.As(err, &e) || e.Record >= 0 {
		return err
	}
	e.Record, e.Offset = at.Position()
	if e.Kind == "" {
		e.Kind = string(rec.Kind())
	}
	return err
}

// SourceCloser is a source that holds something open.
type SourceCloser interface {
	Source
	io.Closer
}

// SinkCloser is a sink that holds something open. Close before an End record
// was written abandons what is not committed.
type SinkCloser interface {
	Sink
	io.Closer
}

// System is a place where snapshots lie that can be read: a bk repository, a
// foreign one, an archive. It is opened read-only.
type System interface {
	// Snapshots returns what the system holds, oldest first. IDs are stable
	// unless the snapshot says Unstable. Parent is zero.
	Snapshots(ctx context.Context) ([]*Snapshot, error)
	// Export returns a source of the chosen snapshots.
	Export(ctx context.Context, opts ExportOptions) (SourceCloser, error)
	io.Closer
}

// ExportOptions chooses what a System's source hands out.
type ExportOptions struct {
	// Snapshots to send, in this order (oldest first, so that differences are
	// small). Empty means all.
	Snapshots []ID
	// Base is a snapshot of this system that the receiver holds: the first
	// snapshot sent is a difference against it (FeatureBase). Zero: none.
	Base ID
	// Flat, Copy and Held ask for the features of those names. With Copy, what a
	// changed file has in common with the parent's version comes as copy even
	// where refs could serve; with NoCopy never: it is sent as data again where
	// refs cannot serve.
	Flat, Copy, NoCopy, Held bool
	// HasChunk, if set, reports whether the receiver holds a chunk. Such chunks
	// are named by refs and not sent (FeatureHeld), nor read where the system
	// knows their ids without that.
	HasChunk func(id ID, size uint32) bool
	// Arrived, if set, reports whether a chunk came to the receiver with a part of
	// that very snapshot, in a stream that was cut off. Such chunks are named by
	// refs too (FeatureHeld); the receiver, who said so, knows them.
	Arrived func(snapshot, chunk ID) bool
	// Full sends every snapshot's whole listing, without parents, with refs.
	Full bool
	// Plain sends payloads uncompressed.
	Plain bool
	// ListingOnly leaves all content records but eof out: for programs in the
	// same process that only look at metadata. Such a stream is not written out.
	ListingOnly bool
	// Nameless lets data that comes once go with an id of zeros (Data.Nameless),
	// where a hash is saved by it: for a receiver in the same process that cuts
	// all content anew. Such a stream is not written out.
	Nameless bool
	// Drop, if set, reports whether an entry is not wanted by its path. What is
	// dropped is not read. SkipBelow reports that nothing below a dropped
	// directory can be wanted. isDir is false where that is not known.
	Drop func(path string, isDir bool) (drop, skipBelow bool)
	// Producer is written into the header.
	Producer string
	// OnProgress, if set, is called now and then, from one goroutine at a time.
	OnProgress func(Progress)
	// OnDamage, if set, lets the export go on where the content of a file is
	// damaged or missing in the system: the file comes with holes in place of what
	// is lost or, where that has no known size, ends before it; its eof has an
	// Error, and the commit the loss LossDamaged, also of later snapshots that have
	// the file from their parent. It is called from Next, once for each file in each
	// snapshot that sends it, when the first such hole or, without one, the eof is
	// handed out. Otherwise, and in systems that do not know this option, an export
	// ends there. It ends in any case where storage
	// fails, which says nothing about what is stored.
	OnDamage func(snapshot ID, path string, err error)
}

// Whole reports whether snapshots are sent without parents.
func (o *ExportOptions) Whole() bool { return o.Flat || o.Full }

// Copies reports whether content that the parent's version of a file has is
// named by copy: where a base makes it necessary, or where it was asked for.
func (o *ExportOptions) Copies() bool {
	return (!o.Base.IsZero() || o.Copy) && !o.NoCopy && !o.Whole() && !o.Held
}

// Features are what a reader must know of the stream of a source that heeds all
// options and has payloads compressed by zstd, in a header's order.
func (o *ExportOptions) Features() []Feature {
	var f []Feature
	for _, x := range []struct {
		used bool
		name Feature
	}{
		{!o.Base.IsZero() && !o.Whole(), FeatureBase},
		{o.Copies(), FeatureCopy},
		{o.Flat, FeatureFlat},
		{o.Held || (o.HasChunk != nil || o.Arrived != nil) && !o.Flat, FeatureHeld},
		{!o.Plain, FeatureZstd},
	} {
		if x.used {
			f = append(f, x.name)
		}
	}
	return f
}

// Progress counts what has gone through so far.
type Progress struct {
	Snapshots, Entries uint64
	Bytes              uint64 // plain bytes of content
	BytesTotal         uint64 // 0 where not known
	EntriesTotal       uint64
	Path               string // what is being worked on
}
