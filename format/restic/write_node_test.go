package restic

import (
	"bytes"
	"regexp"
	"testing"
)

// deviceID is in the nodes of restic for every object; ours have it for hard
// links alone, since the stream knows of no devices.
var deviceID = regexp.MustCompile(`,"device_id":[0-9]+`)

// TestNodesAsResticWrites compares the nodes of the fixtures, byte by byte, with
// what becomes of them by way of the stream's entries.
func TestNodesAsResticWrites(t *testing.T) {
	same, skipped := 0, 0
	for _, name := range []string{"v1"} {
		r := openFixture(t, name, fixtureStore(t, name))
		list, _, err := r.list(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l := newTreeLoader(t.Context(), r)
		for _, s := range list {
			s, k := compareNodes(t, l, s.tree, "")
			same, skipped = same+s, skipped+k
		}
		l.close()
	}
	if t.Logf("%d nodes are the same, %d cannot be", same, skipped); same < 300 {
		t.Error("too few of the nodes can be compared")
	}
}

// zone is a time that is not in UTC, which ours are.
var zone = regexp.MustCompile(`time":"[^"]*[+-][0-9][0-9]:[0-9][0-9]"`)

func compareNodes(t *testing.T, l *treeLoader, id [32]byte, dir string) (same, skipped int) {
	tr, err := l.load(id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range tr.nodes {
		raw, path := tr.raw(&tr.nodes[i]), join(dir, tr.nodes[i].name)
		sub, isDir := tr.subtree(&tr.nodes[i])
		if isDir {
			s, k := compareNodes(t, l, sub, path)
			same, skipped = same+s, skipped+k
		}
		var n node
		if err := n.parse(raw); err != nil {
			t.Fatal(err)
		}
		e, ok := n.entry(path, func(string) {})
		// Attributes come in no order from a file system. What 0.14 lost of a
		// target it has as an escape.
		unordered := len(n.xattrs) > 1 || bytes.Contains(raw, []byte(`\ufffd`))
		if !ok || e.Hardlink != "" || zone.Match(raw) || unordered {
			skipped++
			continue
		}
		var lost []string
		text := nodeText{lost: func(kind string, _ error) { lost = append(lost, kind) }}
		b := text.appendMeta(nil, e, nil, n.size)
		switch n.kind {
		case "dir":
			b = appendSubtree(b, sub)
		case "file":
			b = appendContent(b, n.content, n.err)
		default:
			b = append(b, `,"content":null}`...)
		}
		if want := deviceID.ReplaceAllString(string(raw), ""); want != string(b) {
			t.Errorf("%s:\nrestic: %s\nours:   %s", path, want, b)
		}
		if len(lost) > 0 {
			t.Errorf("%s: lost %v", path, lost)
		}
		same++
	}
	return same, skipped
}
