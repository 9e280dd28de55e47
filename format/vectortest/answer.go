package vectortest

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bk-backup/bk/format"
)

// Answer reads a stream and writes to out what Vector.Answer demands. It returns
// nil or the stream's *format.Error; other errors are those of out and ctx. This
// is the whole of a program that the runner can test.
func Answer(ctx context.Context, out io.Writer, in io.Reader) error {
	var line []byte
	sink := sinkFunc(func(rec format.Record) error {
		line = append(format.AppendText(line[:0], rec), '\n')
		_, err := out.Write(line)
		return err
	})
	err := format.Copy(ctx, sink, format.NewReader(in, format.ReaderOptions{}), new(format.Verifier))
	var bad *format.Error
	last := "ok\n"
	if errors.As(err, &bad) {
		last = fmt.Sprintf("error %s %d\n", bad.Class, bad.Record)
	} else if err != nil {
		return fmt.Errorf("answer about a stream: %w", err)
	}
	if _, outErr := io.WriteString(out, last); outErr != nil {
		return fmt.Errorf("answer about a stream: %w", outErr)
	}
	return err
}

type sinkFunc func(format.Record) error

func (f sinkFunc) Write(rec format.Record) error { return f(rec) }
