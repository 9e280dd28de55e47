// Package show writes a stream for people and for programs that do not read
// msgpack: as text, as JSON lines, as a listing or as a summary. It is all of
// bk-show but its flags; start reading at Run. Programs below cmd may import it.
package show

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/vectortest"
)

// Mode is what a stream is shown as.
type Mode int

const (
	Text    Mode = iota // the diagnostic text, a line a record
	JSON                // an object a record, a line each
	List                // a line an entry, like tar tv
	Summary             // counts and sizes, a line a snapshot and some for all
	Vector              // the answer that spec/vectors/README.md describes
)

// Options are the choices of Run. The zero value is good.
type Options struct {
	Mode Mode
	// Verify also decodes every payload and checks it and every reference to a
	// chunk; see format.Verifier for what that finds and costs. Vector always does.
	Verify bool
	// Location is where times are shown in List and Summary: UTC if nil.
	Location *time.Location
}

// Run reads a stream to its end and writes it to out. What had passed before an
// error is written. Errors of the stream are *format.Error.
func Run(ctx context.Context, out io.Writer, in io.Reader, opts Options) error {
	if opts.Mode == Vector {
		return vectortest.Answer(ctx, out, in)
	}
	if opts.Location == nil {
		opts.Location = time.UTC
	}
	w := bufio.NewWriterSize(out, 64<<10)
	var sink format.Sink
	switch opts.Mode {
	case JSON:
		sink = &lineSink{out: w, line: format.AppendJSON}
	case List:
		sink = &listSink{out: w, loc: opts.Location}
	case Summary:
		sink = newSummarySink(w, &opts)
	default:
		sink = &lineSink{out: w, line: format.AppendText}
	}
	var stages []format.Stage
	if opts.Verify {
		stages = append(stages, new(format.Verifier))
	}
	err := format.Copy(ctx, sink, format.NewReader(in, format.ReaderOptions{}), stages...)
	if flushErr := w.Flush(); flushErr != nil {
		return fmt.Errorf("write what is shown: %w", flushErr)
	}
	return err
}

// lineSink writes a line a record. Every snapshot is sent when it is complete, so
// that one can watch a slow stream.
type lineSink struct {
	out  *bufio.Writer
	line func(dst []byte, rec format.Record) []byte
	buf  []byte
}

func (s *lineSink) Write(rec format.Record) error {
	s.buf = append(s.line(s.buf[:0], rec), '\n')
	_, err := s.out.Write(s.buf)
	if k := rec.Kind(); err == nil && (k == format.KindHeader || k == format.KindCommit) {
		err = s.out.Flush()
	}
	return err
}
