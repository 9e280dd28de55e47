package vectortest

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/bk-backup/bk/format"
)

const vectorDir = "../../spec/vectors/stream"

// TestVectors has our own reader answer about every vector, also when its bytes
// come one by one or in halves.
func TestVectors(t *testing.T) {
	vectors, err := Load(vectorDir)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, v := range vectors {
		seen[v.Expect] = true
		stream := v.Stream()
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader, "bytes": iotest.OneByteReader,
		} {
			if name == "bytes" && len(stream) > 1<<20 {
				continue
			}
			var out bytes.Buffer
			err := Answer(t.Context(), &out, wrap(bytes.NewReader(stream)))
			if out.String() != v.Answer() {
				t.Errorf("%s, %s: the answer is\n%swant\n%s", v.Name, name, out.String(), v.Answer())
			}
			if (err == nil) != (v.ExitCode() == 0) || format.ClassOf(err) == "" != (v.Expect == "ok") {
				t.Errorf("%s, %s: %v", v.Name, name, err)
			}
		}
		back, err := Parse(v.Format())
		if err != nil || !bytes.Equal(back.Stream(), stream) || back.Answer() != v.Answer() {
			t.Errorf("%s: written and read again it differs: %v", v.Name, err)
		}
	}
	for _, class := range []format.Class{
		"ok", format.ClassCut, format.ClassSyntax, format.ClassVersion, format.ClassFeature, format.ClassKind, format.ClassGrammar,
		format.ClassField, format.ClassPath, format.ClassOrder, format.ClassParent, format.ClassLimit, format.ClassCount,
		format.ClassDigest, format.ClassChunk, format.ClassReference, format.ClassTree, format.ClassTrailing,
	} {
		if !seen[string(class)] {
			t.Errorf("there is no vector of the class %s", class)
		}
	}
}

// TestIdentity writes the canonical vectors again.
func TestIdentity(t *testing.T) {
	vectors, err := Load(vectorDir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, v := range vectors {
		if !v.Canonical {
			continue
		}
		n++
		var out bytes.Buffer
		r := format.NewReader(bytes.NewReader(v.Stream()), format.ReaderOptions{})
		if err := format.Copy(t.Context(), format.NewWriter(&out, format.WriterOptions{}), r); err != nil || !bytes.Equal(out.Bytes(), v.Stream()) {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
	if n < 30 {
		t.Errorf("only %d vectors are canonical", n)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"", "name: a\n", "name: a\nexpect: ok\nstream:\n", "name: a\nexpect: cut\nstream:\ntext:\n", "name: a\nexpect: ok\nrecord: 1\nstream:\ntext:\n",
		"name: a\nexpect: ok\nstream:\n1\ntext:\n", "name: a\nexpect: ok\nstream:\n11 *x\ntext:\n", "what: a\nstream:\ntext:\n", "name\nstream:\ntext:\n",
		"name: a\nexpect: cut\nrecord: x\nstream:\ntext:\n",
	} {
		if v, err := Parse([]byte(in)); err == nil {
			t.Errorf("%q: %+v", in, v)
		}
	}
}

func TestAnswerPassesErrorsOfOut(t *testing.T) {
	vectors, err := Load(vectorDir)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken pipe")
	err = Answer(t.Context(), brokenWriter{broken}, bytes.NewReader(vectors[0].Stream()))
	if !errors.Is(err, broken) {
		t.Error(err)
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }
