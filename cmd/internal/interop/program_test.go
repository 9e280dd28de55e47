//go:build interop

package interop

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

func TestShow(t *testing.T) {
	first, second := twoTrees(t)
	out := mustPipe(t, nil, example("producer.py", "--zstd", first.top, second.top), program(t, "bk-show", "--verify", "--text"))
	for _, want := range []string{`entry `, ` path="docs/deep"`, `remove path="docs!"`, "\nend "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("bk-show does not say %q", want)
		}
	}
	mustPipe(t, nil, example("producer.py", first.top), example("filter.py", "*cat.jpg"), program(t, "bk-show", "--verify"))
}

func TestBkFilter(t *testing.T) {
	first, second := twoTrees(t)
	stream := mustPipe(t, nil, example("producer.py", first.top, second.top))

	same := mustPipe(t, bytes.NewReader(stream), program(t, "bk-filter"))
	equalStreams(t, "bk-filter without options", stream, same)

	filtered := mustPipe(t, bytes.NewReader(stream), program(t, "bk-filter", "--drop", "*cat.jpg"))
	mustRead(t, filtered)
	out := target(t)
	mustPipe(t, bytes.NewReader(filtered), example("consumer.py", out))
	compare(t, second.top, out, cats)

	// Our filter and the example drop the same: only ids and the stage differ.
	list := func(stream []byte) string {
		var lines []string
		for line := range strings.Lines(string(mustPipe(t, bytes.NewReader(stream), program(t, "bk-show", "--text")))) {
			kind, _, _ := strings.Cut(line, " ")
			if kind != "snapshot" && kind != "commit" && kind != "end\n" && kind != "end" {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "")
	}
	theirs := mustPipe(t, bytes.NewReader(stream), example("filter.py", "*cat.jpg"))
	if a, b := list(filtered), list(theirs); a != b {
		t.Errorf("bk-filter and filter.py differ:\n%s\n%s", a, b)
	}
}

func TestBkFilterFolds(t *testing.T) {
	first, second := twoTrees(t)
	stream := mustPipe(t, nil, example("producer.py", first.top, second.top, first.top))
	ids := snapshots(stream)
	for _, keep := range []int{0, 1, 2} {
		out := target(t)
		mustPipe(t, bytes.NewReader(stream), program(t, "bk-filter", "--snapshot", "id="+ids[keep]), example("consumer.py", out))
		compare(t, []string{first.top, second.top, first.top}[keep], out, nil)
	}
}

func TestBackup(t *testing.T) {
	tr := newTree(t, "tree")
	tr.fill()
	stream := mustPipe(t, nil, program(t, "bk-backup", "--stdout", "--quiet", tr.top))
	mustRead(t, stream)
	out := target(t)
	mustPipe(t, bytes.NewReader(stream), example("consumer.py", out))
	compare(t, tr.top, filepath.Join(out, tr.top), nil)

	out = target(t)
	mustPipe(t, nil, program(t, "bk-backup", "--stdout", "--quiet", tr.top), example("filter.py", "*cat.jpg"), example("consumer.py", out))
	compare(t, tr.top, filepath.Join(out, tr.top), cats)
}

func TestRestore(t *testing.T) {
	first, second := twoTrees(t)
	out := target(t)
	mustPipe(t, nil, example("producer.py", "--zstd", first.top, second.top), program(t, "bk-restore", "--stdin", "--target", out))
	compare(t, second.top, out, nil)

	out = target(t)
	mustPipe(t, nil, program(t, "bk-backup", "--stdout", "--quiet", first.top), example("filter.py", "*cat.jpg"),
		program(t, "bk-restore", "--stdin", "--target", out))
	compare(t, first.top, filepath.Join(out, first.top), cats)
}

func TestRepository(t *testing.T) {
	first, second := twoTrees(t)
	repo := filepath.Join(t.TempDir(), "repo")
	t.Setenv("BK_PASSPHRASE", "interop")
	t.Setenv("BK_IMPORT_PASSPHRASE", "interop")
	mustPipe(t, nil, program(t, "bk-init", "-r", repo))
	mustPipe(t, nil, example("producer.py", "--zstd", first.top, second.top), program(t, "bk-import", "-r", repo, "--quiet"))
	stream := mustPipe(t, nil, program(t, "bk-export", "-r", repo, "--all", "--quiet"))
	mustRead(t, stream)
	out := target(t)
	mustPipe(t, bytes.NewReader(stream), example("consumer.py", out))
	compare(t, second.top, out, nil)

	filtered := mustPipe(t, bytes.NewReader(stream), example("filter.py", "*cat.jpg"))
	other := filepath.Join(t.TempDir(), "other")
	mustPipe(t, nil, program(t, "bk-init", "-r", other))
	mustPipe(t, bytes.NewReader(filtered), program(t, "bk-import", "-r", other, "--quiet"))
	out = target(t)
	mustPipe(t, nil, program(t, "bk-export", "-r", other, "--all", "--quiet"), example("consumer.py", out))
	compare(t, second.top, out, cats)

	// A stream that ends early commits nothing and says so.
	third := filepath.Join(t.TempDir(), "third")
	mustPipe(t, nil, program(t, "bk-init", "-r", third))
	res := pipe(t, bytes.NewReader(filtered[:len(filtered)/2]), program(t, "bk-import", "-r", third, "--quiet"))
	if res.codes[0] != 4 {
		t.Errorf("bk-import of half a stream ended with %d: %s", res.codes[0], res.stderr[0])
	}
}
