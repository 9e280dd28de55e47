package filter

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/bk-backup/bk/format"
)

// run is a part of a stream in an encrypted temporary file: written once, then
// read from its beginning. It is a stream of its own with one snapshot, so that
// Writer and Reader do the work.
type run struct {
	file     *cryptFile
	unsorted bool           // so was the snapshot that the records come from
	w        *format.Writer // nil when the run is finished
}

// runID stands where a snapshot must have ids; nobody sees it.
var runID, runParentID = format.ID{1}, format.ID{2}

// newRun begins a run in an empty file, which it does not close. To Writer and
// Reader every run is unsorted: the order is checked where records come in.
func newRun(file *cryptFile, unsorted bool) (*run, error) {
	r := &run{file, unsorted, format.NewWriter(file, format.WriterOptions{})}
	head := []format.Record{
		&format.Header{Version: format.Version, Features: []format.Feature{
			format.FeatureBase, format.FeatureCopy, format.FeatureHeld, format.FeatureZstd}},
		&format.Snapshot{ID: runID, Parent: runParentID, Unsorted: true},
	}
	for _, rec := range head {
		if err := r.w.Write(rec); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// finish ends the writing.
func (r *run) finish() error {
	for _, rec := range []format.Record{&format.Commit{}, &format.End{}} {
		if err := r.w.Write(rec); err != nil {
			return err
		}
	}
	r.w = nil
	return nil
}

// runReader hands out what was written into a run.
type runReader struct{ r *format.Reader }

// runBufferSize is how much of a run is read at a time, in bytes.
const runBufferSize = 256 << 10

// open begins to read a finished run.
func (r *run) open() (*runReader, error) {
	bytes := bufio.NewReaderSize(io.NewSectionReader(r.file, 0, r.file.end()), runBufferSize)
	reader := &runReader{format.NewReader(bytes, format.ReaderOptions{})}
	for range 2 { // header, snapshot
		if _, err := reader.r.Next(); err != nil {
			return nil, runError(err)
		}
	}
	return reader, nil
}

// next returns the next record, nil after the last.
func (r *runReader) next() (format.Record, error) {
	rec, err := r.r.Next()
	if err != nil {
		return nil, runError(err)
	}
	if _, atEnd := rec.(*format.Commit); atEnd {
		return nil, nil
	}
	return rec, nil
}

// runError keeps an error in the spool from passing for one in the stream.
func runError(err error) error {
	var e *format.Error
	if errors.As(err, &e) {
		return fmt.Errorf("read from the spool: it does not hold what was written: %s", e.Detail)
	}
	return spoolError(err)
}
