package borg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
)

var allModes = []mode{modeKeyfile, modePassphrase, modeNone, modeRepokey, modeKeyfileBlake2, modeRepokeyBlake2, modeAuthenticatedBlake2, modeAuthenticated}

// list exports in two ways, whole and as differences, which have to agree.
func list(t testing.TB, r *Repository) []*formattest.Received {
	t.Helper()
	whole := formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{Full: true}), nil)
	differences := formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{}), nil)
	for i := range whole {
		formattest.EqualListing(t, whole[i].Record.Tags[0], whole[i].Listing, differences[i].Listing)
	}
	return differences
}

func contentOf(l formattest.Listing, path string) string {
	o := l[path]
	if o == nil {
		return "(nothing)"
	}
	return string(bytes.Join(o.Pieces, nil))
}

// TestModesAndCodecs reads what every mode and codec makes.
func TestModesAndCodecs(t *testing.T) {
	long := strings.Repeat("compressible ", 500)
	for _, m := range allModes {
		for _, c := range []codec{codecNone, codecLZ4, codecLZMA, codecZstd, codecZlib} {
			if c == codecLZMA && m != modeRepokey && m != modeNone {
				continue // its encoder takes its time
			}
			b := newBuilder(t, m)
			b.codec = c
			b.archive("a", dirItem("d"), b.file("d/f", long, "x"), b.file("e"))
			got := list(t, b.open())
			if len(got) != 1 || contentOf(got[0].Listing, "d/f") != long+"x" || contentOf(got[0].Listing, "e") != "" || len(got[0].Listing) != 3 {
				t.Errorf("%s, %s: %v", m, c, got)
			}
		}
	}
}

// TestPassThrough looks at payloads: zstd frames pass, the rest comes plain.
func TestPassThrough(t *testing.T) {
	b := newBuilder(t, modeRepokey)
	long := strings.Repeat("compressible ", 500)
	b.codec = codecZstd
	b.archive("a", b.file("z", long))
	b.codec = codecLZ4
	b.archive("b", b.file("l", long+"more"))
	r := b.open()
	frame := b.files[segmentName(0, b.perDir)]
	src, err := r.Export(context.Background(), format.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var codecs []format.Codec
	for {
		rec, err := src.Next()
		if err != nil {
			break
		}
		if d, ok := rec.(*format.Data); ok {
			codecs = append(codecs, d.Codec)
			if d.Codec == format.CodecNone && len(d.Payload) != int(d.Size) || len(frame) == 0 {
				t.Errorf("a payload of %d bytes", len(d.Payload))
			}
		}
	}
	if !slices.Equal(codecs, []format.Codec{format.CodecZstd, format.CodecNone}) {
		t.Errorf("codecs %q", codecs)
	}
}

// TestHardLinks resolves links as each version of borg writes them.
func TestHardLinks(t *testing.T) {
	b := newBuilder(t, modeRepokey)
	master := func(path string, kind masterKind, pieces ...string) item {
		it := b.file(path, pieces...)
		it.master = kind
		return it
	}
	hlid := func(path string, pieces ...string) item {
		it := b.file(path, pieces...)
		it.hlid = strings.Repeat("h", 32)
		return it
	}
	fifo := slave("f2", "f1")
	fifo.mode = typeFifo | 0o600
	first := item{path: "f1", mode: typeFifo | 0o600, master: masterYes}
	b.archive("1.2", master("z/m", masterYes, "one"), slave("a/s", "z/m"), slave("lost", "gone"), first, fifo)
	// The master has other content, the link's own item is what it was.
	b.archive("changed", master("z/m", masterYes, "two"), slave("a/s", "z/m"), first, fifo)
	b.archive("old, no links", master("m", masterUnsaid, "three"), master("n", masterUnsaid, "four"))
	b.archive("old", master("m", masterUnsaid, "three"), master("n", masterUnsaid, "four"), slave("k", "m"))
	b.archive("1.4", hlid("x", "five"), hlid("y", "five"), b.file("w", "five"))
	got := list(t, b.open())
	group := func(i int, path string) string { return got[i].Listing[path].Entry.Hardlink }
	for i, content := range []string{"one", "two"} {
		if contentOf(got[i].Listing, "a/s") != content || group(i, "a/s") == "" || group(i, "a/s") != group(i, "z/m") || group(i, "f1") != group(i, "f2") || group(i, "f1") == group(i, "z/m") {
			t.Errorf("%d: %q, %x, %x", i, contentOf(got[i].Listing, "a/s"), group(i, "a/s"), group(i, "z/m"))
		}
	}
	if o := got[0].Listing["lost"]; o == nil || o.Err == "" || len(o.Pieces) > 0 || len(got[0].Commit.Losses) != 1 || got[0].Commit.Losses[0].Kind != format.LossUnreadable {
		t.Errorf("a link to nothing: %v, losses %v", o, got[0].Commit.Losses)
	}
	if group(2, "m") != "" || group(3, "m") == "" || group(3, "m") != group(3, "k") || group(3, "n") != "" || contentOf(got[3].Listing, "k") != "three" {
		t.Errorf("old: %x %x %x", group(2, "m"), group(3, "m"), group(3, "k"))
	}
	if group(4, "x") == "" || group(4, "x") != group(4, "y") || group(4, "w") != "" {
		t.Errorf("1.4: %x %x %x", group(4, "x"), group(4, "y"), group(4, "w"))
	}
}

// TestShapes goes through what differences make of trees.
func TestShapes(t *testing.T) {
	b := newBuilder(t, modeNone)
	f := func(path string) item { return b.file(path, "content of "+path) }
	b.archive("0", dirItem("d"), f("d/a"), f("d/b"), dirItem("d/sub"), f("d/sub/c"), f("e"))
	b.archive("1", f("e"), f("d/sub/c")) // d and d/sub have become implied
	b.archive("2", dirItem("e"), f("e/x"), dirItem("d"), f("d/sub"), dirItem("."))
	b.archive("3", dirItem("./d/"), f("/d/y"), f("e"), dirItem("d"))
	b.archive("4", f("d"), f("d/below"), f("e"))                   // what lies below a file is lost
	b.archive("5", f("twice"), dirItem("d"), b.file("twice", "2")) // the later one counts
	b.archive("6", b.file("twice", "2"), dirItem("d"), f("../up"), f("e"))
	got := list(t, b.open())
	for i, want := range []string{
		"d d/a d/b d/sub d/sub/c e",
		"d/sub/c e",
		" d d/sub e e/x",
		"d d/y e",
		"d e",
		"d twice",
		"d e twice",
	} {
		if paths := slices.Sorted(maps.Keys(got[i].Listing)); strings.Join(paths, " ") != want {
			t.Errorf("%d: %q, want %q", i, paths, want)
		}
	}
	if contentOf(got[5].Listing, "twice") != "2" {
		t.Errorf("of what comes twice %q counts", contentOf(got[5].Listing, "twice"))
	}
	kinds := func(i int) (s string) {
		for _, l := range got[i].Commit.Losses {
			s += fmt.Sprintf("%s %d %q ", l.Kind, l.Count, l.Paths)
		}
		return s
	}
	if kinds(4) != `damaged 1 ["d/below"] ` || kinds(6) != `name 1 ["../up"] ` || kinds(3) != "" {
		t.Errorf("losses %q, %q, %q", kinds(4), kinds(6), kinds(3))
	}
}

// TestParts leaves parts of files out, but where there is nothing else.
func TestParts(t *testing.T) {
	b := newBuilder(t, modeNone)
	part := b.file("f.borg_part_1", "beginning")
	part.part = 1
	b.archive("x.checkpoint", part)
	b.archive("x", part, b.file("f", "beginning", "end"))
	st := b.commit()
	r, err := b.on(st, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := list(t, r); len(got) != 1 || len(got[0].Listing) != 1 || contentOf(got[0].Listing, "f") != "beginningend" {
		t.Error(got)
	}
	if r, err = b.on(st, Options{Archives: func(name string) bool { return true }}); err != nil {
		t.Fatal(err)
	}
	got := list(t, r)
	if len(got) != 2 || contentOf(got[0].Listing, "f.borg_part_1") != "beginning" || len(got[1].Listing) != 1 {
		t.Error(got)
	}
}

// TestHealthy takes the chunks that a repair missed, where they have come back.
func TestHealthy(t *testing.T) {
	b := newBuilder(t, modeNone)
	broken := func(path, was string, there bool) item {
		it := b.file(path, "kept", strings.Repeat("\x00", len(was)))
		it.has, it.ctime = it.has|format.HasCtime, format.Time{Sec: 1}
		it.healthy, it.hasHealthy = slices.Clone(it.chunks), true
		if it.healthy[1].id = b.keys.id([]byte(was)); there {
			b.put([]byte(was))
		}
		return it
	}
	b.archive("a", broken("back", "was here", true), broken("gone", "elsewhere", false))
	got := list(t, b.open())[0]
	if contentOf(got.Listing, "back") != "keptwas here" || contentOf(got.Listing, "gone") != "kept"+strings.Repeat("\x00", 9) {
		t.Errorf("%q, %q", contentOf(got.Listing, "back"), contentOf(got.Listing, "gone"))
	}
	if l := got.Commit.Losses; len(l) != 1 || l[0].Kind != format.LossDamaged || !slices.Equal(l[0].Paths, []string{"gone"}) {
		t.Errorf("losses %v", l)
	}
	// What follows would take the zeros for content of an unchanged file.
	for _, path := range []string{"back", "gone"} {
		if got.Listing[path].Entry.Has&format.HasCtime != 0 {
			t.Errorf("%s has a ctime", path)
		}
	}
}

// history makes archives of random items, most of which stay from one to the
// next, with hard links, and cut anywhere.
func history(t testing.TB, rng *rand.Rand, archives int) *builder {
	b := newBuilder(t, allModes[rng.IntN(len(allModes))])
	b.cut = randomCut(rng, 1+rng.IntN(2000))
	var names []string
	for _, x := range []string{"a", "b", "a!", "\xff", "long-name-that-takes-some-space"} {
		names = append(names, x)
		for _, y := range []string{"a", "b", "c"} {
			names = append(names, x+"/"+y, x+"/"+y+"/z")
		}
	}
	var items []item
	for n := range archives {
		items = slices.DeleteFunc(slices.Clone(items), func(item) bool { return rng.IntN(8) == 0 })
		for range rng.IntN(12) {
			path := names[rng.IntN(len(names))]
			it := dirItem(path)
			switch rng.IntN(4) {
			case 0, 1:
				var pieces []string
				for range rng.IntN(4) {
					pieces = append(pieces, fmt.Sprint("piece ", rng.IntN(9)))
				}
				it = b.file(path, pieces...)
				it.master = masterKind(rng.IntN(3))
			case 2:
				it = slave(path, names[rng.IntN(len(names))])
			}
			if at := slices.IndexFunc(items, func(x item) bool { return x.path == path }); at >= 0 && rng.IntN(10) > 0 {
				items[at] = it
			} else {
				items = slices.Insert(items, rng.IntN(len(items)+1), it)
			}
		}
		b.archive(fmt.Sprint("archive ", n), items...)
	}
	return b
}

// TestHistories compares differences with whole listings, and drops what a
// caller does not want, in random histories.
func TestHistories(t *testing.T) {
	seeds := uint64(40)
	if raceEnabled {
		seeds = 10
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 1))
		b := history(t, rng, 6)
		r := b.open()
		got := list(t, r)
		ids := []format.ID{got[2].Record.ID, got[4].Record.ID}
		based := formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{Base: got[0].Record.ID, Snapshots: ids}), got[0].Listing)
		formattest.EqualListing(t, "based", got[2].Listing, based[0].Listing)
		formattest.EqualListing(t, "based", got[4].Listing, based[1].Listing)
		flat := formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{Flat: true}), nil)
		for i := range got {
			formattest.EqualListing(t, "flat", got[i].Listing, flat[i].Listing)
		}
		drop := func(path string, isDir bool) (bool, bool) {
			switch {
			case path == "a" || strings.HasPrefix(path, "a/"):
				return true, true
			case path == "b":
				return isDir, false
			}
			return strings.HasSuffix(path, "/z"), false
		}
		dropped := formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{Drop: drop}), nil)
		for i, s := range dropped {
			want := maps.Clone(got[i].Listing)
			maps.DeleteFunc(want, func(path string, o *formattest.Object) bool {
				gone, _ := drop(path, o.Entry.Type == format.TypeDir)
				return gone
			})
			formattest.EqualListing(t, fmt.Sprint("dropped, seed ", seed), want, s.Listing)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		r.Close()
	}
}

// TestRunsAreShared reads no object of items again that the archive before has,
// and keeps a log in order that is rewritten.
func TestRunsAreShared(t *testing.T) {
	b := newBuilder(t, modeNone)
	b.cut = func(rest int) int { return min(rest, 1000) }
	var items []item
	for i := range 200 {
		it := b.file(fmt.Sprintf("f%03d", 199-i), "x")
		if i%5 == 0 {
			it.master = masterYes
			items = append(items, slave(fmt.Sprintf("link%03d", i), it.path))
		}
		items = append(items, it)
	}
	b.archive("0", items...)
	for n := range 4 {
		items = slices.Clone(items)
		at := 100 + slices.IndexFunc(items[100:], func(it item) bool { return it.mtime == format.Time{Sec: 1} })
		items[at].mtime.Nsec = 1e9 - 1
		b.archive(fmt.Sprint(n+1), items...)
	}
	r := b.open()
	want := list(t, r)
	log := newRunLog(r)
	log.garbageMax = -1 << 40
	e := &exporter{r: r, out: newWindows(t.Context(), r, format.ExportOptions{})}
	p := newPlan(e)
	c := &comparison{e: e, log: log}
	moved, before := 0, map[*run]bool{}
	for i, s := range want {
		a, err := r.snapshot(context.Background(), s.Record.ID)
		if err != nil {
			t.Fatal(err)
		}
		was := log.log
		if err := c.plan(p, a); err != nil {
			t.Fatal(err)
		}
		if log.log != was {
			moved++
		}
		fresh := 0
		for _, one := range c.runs {
			if !before[one] {
				fresh++
			}
		}
		if i > 0 && (fresh < 1 || fresh > 3) {
			t.Errorf("archive %d: %d of %d runs are new", i, fresh, len(c.runs))
		}
		before = map[*run]bool{}
		for _, one := range c.runs {
			before[one] = true
		}
		if n := p.snapshots[i].entries; i == 0 && n != uint64(len(items)) || i > 0 && n > 12 || i > 0 && n < 1 {
			t.Errorf("archive %d: %d entries", i, n)
		}
		rec, err := c.links.master("f199")
		if err != nil || rec == nil || pathOf(rec.key) != "f199" {
			t.Fatalf("archive %d: the master of links is %v, %v", i, rec, err)
		}
	}
	if err := errors.Join(c.close(), p.close(), log.close()); err != nil || moved == 0 {
		t.Error(moved, err)
	}
}
