//go:build interop

package interop

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/disk"
	"github.com/bk-backup/bk/format/vectortest"
)

// read reads a stream as a program of ours would, payloads included, and returns
// it as our Writer writes it.
func read(stream []byte) ([]byte, error) {
	var out bytes.Buffer
	err := format.Copy(context.Background(), format.NewWriter(&out, format.WriterOptions{}),
		format.NewReader(bytes.NewReader(stream), format.ReaderOptions{}), &format.Verifier{})
	return out.Bytes(), err
}

// mustRead also holds that the stream was canonical.
func mustRead(t *testing.T, stream []byte) {
	t.Helper()
	again, err := read(stream)
	if err != nil {
		t.Fatal(err)
	}
	equalStreams(t, "read and written again", stream, again)
}

// scan makes a stream of a directory in this process.
func scan(t *testing.T, top string, compress bool) []byte {
	t.Helper()
	spec, err := chunker.ParseSpec("gear:64KiB")
	if err != nil {
		t.Fatal(err)
	}
	cuts, err := chunker.New(spec, chunker.Public())
	if err != nil {
		t.Fatal(err)
	}
	options := disk.ScanOptions{
		Roots:    []string{top},
		Snapshot: format.Snapshot{ID: format.ID{1}, Unstable: true},
		Dedup:    true,
		Compress: compress,
		ChunkerFor: func(string, uint64) (func() chunker.Splitter, string) {
			return cuts.Splitter, spec.String()
		},
	}
	source, err := disk.Scan(context.Background(), options)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	var out bytes.Buffer
	if err := format.Copy(context.Background(), format.NewWriter(&out, format.WriterOptions{}), source); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// restore writes a stream into a new directory in this process.
func restore(t *testing.T, stream []byte) string {
	t.Helper()
	target := filepath.Join(t.TempDir(), "restored")
	sink, err := disk.NewRestore(context.Background(), target, disk.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := format.Copy(context.Background(), sink, format.NewReader(bytes.NewReader(stream), format.ReaderOptions{})); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	if losses := sink.Summary().Losses; len(losses) > 0 {
		t.Errorf("lost: %+v", losses)
	}
	return target
}

func target(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "out")
}

// twoTrees returns a directory and what it becomes.
func twoTrees(t *testing.T) (first, second *tree) {
	t.Helper()
	first = newTree(t, "first")
	first.fill()
	second = newTree(t, "second")
	second.check(exec.Command("cp", "-a", "--sparse=always", first.top+"/.", second.top).Run())
	second.change()
	return first, second
}

func TestExamplesAmongThemselves(t *testing.T) {
	first, second := twoTrees(t)
	for _, compress := range [][]string{nil, {"--zstd"}} {
		out := target(t)
		mustPipe(t, nil, example("producer.py", append(compress, first.top)...), example("consumer.py", out))
		compare(t, first.top, out, nil)

		out = target(t)
		mustPipe(t, nil, example("producer.py", append(compress, first.top, second.top)...), example("consumer.py", out))
		compare(t, second.top, out, nil)

		out = target(t)
		mustPipe(t, nil, example("producer.py", append(compress, first.top, second.top)...),
			example("filter.py", "*cat.jpg"), example("consumer.py", out))
		compare(t, second.top, out, cats)
	}
}

func TestProducer(t *testing.T) {
	first, second := twoTrees(t)
	for _, compress := range [][]string{nil, {"--zstd"}} {
		stream := mustPipe(t, nil, example("producer.py", append(compress, first.top, second.top)...))
		mustRead(t, stream)
		compare(t, second.top, restore(t, stream), nil)
	}
}

func TestFilter(t *testing.T) {
	first, second := twoTrees(t)
	stream := mustPipe(t, nil, example("producer.py", first.top, second.top), example("filter.py", "*cat.jpg"))
	mustRead(t, stream)
	if bytes.Contains(stream, []byte("cat.jpg")) {
		t.Error("the name of what was dropped is in the output")
	}
	compare(t, second.top, restore(t, stream), cats)

	// What two stages in turn make of a stream does not depend on who reads it.
	again := mustPipe(t, bytes.NewReader(stream), example("filter.py", "/docs"), example("filter.py", "one"))
	mustRead(t, again)
}

// TestFilterIsStateless filters two snapshots at once and one by one.
func TestFilterIsStateless(t *testing.T) {
	first, second := twoTrees(t)
	ids := func(stream []byte) (ids, parents []format.ID) {
		r := format.NewReader(bytes.NewReader(stream), format.ReaderOptions{})
		for {
			rec, err := r.Next()
			if err != nil {
				return ids, parents
			}
			if s, ok := rec.(*format.Snapshot); ok {
				ids, parents = append(ids, s.ID), append(parents, s.Parent)
				if last := s.Via[len(s.Via)-1]; s.ID != mapped(last.From, last.Stage) {
					t.Errorf("the id %s is not what the specification says", s.ID)
				}
			}
		}
	}
	stream := mustPipe(t, nil, example("producer.py", first.top, second.top))
	a, parents := ids(mustPipe(t, bytes.NewReader(stream), example("filter.py", "b", "a")))
	b, _ := ids(mustPipe(t, bytes.NewReader(stream), example("filter.py", "a", "b")))
	c, _ := ids(mustPipe(t, bytes.NewReader(stream), example("filter.py", "a")))
	if len(a) != 2 || !slices.Equal(a, b) || a[0] == c[0] || parents[1] != a[0] {
		t.Errorf("ids %v, %v, %v; parents %v", a, b, c, parents)
	}
}

func mapped(id format.ID, stage string) format.ID {
	return format.SumID(append(id[:], stage...))
}

func TestConsumer(t *testing.T) {
	tr := newTree(t, "tree")
	tr.fill()
	for _, compress := range []bool{false, true} {
		stream := scan(t, tr.top, compress)
		out := target(t)
		mustPipe(t, bytes.NewReader(stream), example("consumer.py", out))
		compare(t, tr.top, filepath.Join(out, tr.top), nil)

		out = target(t)
		mustPipe(t, bytes.NewReader(stream), example("filter.py", "*cat.jpg"), example("consumer.py", out))
		compare(t, tr.top, filepath.Join(out, tr.top), cats)
	}
}

// TestCutStreams cuts a stream everywhere: nothing may pass for complete.
func TestCutStreams(t *testing.T) {
	tr := newTree(t, "tree")
	tr.file("a", "some content")
	tr.file("b", "some content")
	stream := mustPipe(t, nil, example("producer.py", tr.top))
	for n := 0; n < len(stream); n += 1 + len(stream)/40 {
		for _, cmd := range []*exec.Cmd{example("consumer.py", target(t)), example("filter.py", "x")} {
			res := pipe(t, bytes.NewReader(stream[:n]), cmd)
			if res.codes[0] != 4 || res.stderr[0] == "" {
				t.Errorf("%s, given %d of %d bytes, ended with %d: %q", cmd, n, len(stream), res.codes[0], res.stderr[0])
			}
			if _, err := read(res.stdout); err == nil {
				t.Errorf("%s wrote a complete stream of a cut one", cmd)
			}
		}
	}
}

// TestVectors shows the vectors to the examples. The filter leaves some faults for
// the next reader to find; it must not mend them.
func TestVectors(t *testing.T) {
	vectors, err := vectortest.Load("../../../spec/vectors/stream")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			stream := v.Stream()
			res := pipe(t, bytes.NewReader(stream), example("consumer.py", target(t)))
			switch code := res.codes[0]; {
			case v.ExitCode() == 4 && code != 4, v.ExitCode() == 0 && code == 1:
				t.Errorf("consumer.py ended with %d: %s", code, res.stderr[0])
			case v.ExitCode() == 0 && code == 4 && !refusedByConsumer(stream):
				t.Errorf("consumer.py refuses it: %s", res.stderr[0])
			}
			res = pipe(t, bytes.NewReader(stream), example("filter.py", "nothing"))
			again, err := read(res.stdout)
			switch code := res.codes[0]; {
			case v.ExitCode() == 4:
				if code == 1 || code == 0 && err == nil {
					t.Errorf("filter.py took it for valid, or failed: %d, %s", code, res.stderr[0])
				}
			case v.Canonical && v.Name != "ok-unknown-values": // which has a 32-bit float
				if code != 0 || err != nil {
					t.Errorf("filter.py ended with %d: %s; what it wrote: %v", code, res.stderr[0], err)
				}
				equalStreams(t, "what filter.py wrote, read and written again", res.stdout, again)
			case code == 1:
				t.Errorf("filter.py failed: %s", res.stderr[0])
			}
		})
	}
}

// refusedByConsumer reports whether the stream needs what consumer.py says it does
// not serve, or describes no tree, which a reader alone does not see.
func refusedByConsumer(stream []byte) bool {
	r := format.NewReader(bytes.NewReader(stream), format.ReaderOptions{})
	unsorted := false
	for {
		rec, err := r.Next()
		if err != nil {
			return unsorted
		}
		switch rec := rec.(type) {
		case *format.Header:
			for _, f := range rec.Features {
				if f == format.FeatureBase || f == format.FeatureCopy || f == format.FeatureHeld {
					return true
				}
			}
		case *format.Snapshot:
			unsorted = unsorted || rec.Unsorted
		}
	}
}

// snapshots returns the ids in a stream, in hexadecimal.
func snapshots(stream []byte) (ids []string) {
	r := format.NewReader(bytes.NewReader(stream), format.ReaderOptions{})
	for {
		rec, err := r.Next()
		if err != nil {
			return ids
		}
		if s, ok := rec.(*format.Snapshot); ok {
			ids = append(ids, s.ID.String())
		}
	}
}
