package restic

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

// randomState changes a listing.
func randomState(t *rapid.T, old state) state {
	now := maps.Clone(old)
	if now == nil {
		now = state{}
	}
	names := rapid.SampledFrom([]string{"a", "a!", "a\xff", "b<", "b\"\\"})
	for range rapid.IntRange(1, 5).Draw(t, "edits") {
		path := names.Draw(t, "name")
		for range rapid.IntRange(0, 2).Draw(t, "depth") {
			if now[path] == nil || now[path].entry.Type != format.TypeDir {
				break
			}
			path += "/" + names.Draw(t, "name")
		}
		remove := rapid.IntRange(0, 5).Draw(t, "kind")
		wasDir := now[path] != nil && now[path].entry.Type == format.TypeDir
		if remove == 0 || wasDir && remove != 1 {
			for p := range now {
				if p == path || format.IsBelow(p, path) {
					delete(now, p)
				}
			}
		}
		switch remove {
		case 0:
		case 1, 2:
			o := plainObject(format.TypeDir)
			o.entry.Mode = uint32(rapid.IntRange(0o700, 0o702).Draw(t, "mode"))
			now[path] = o
		case 3:
			kind := rapid.SampledFrom([]format.Type{format.TypeFifo, format.TypeSymlink, format.TypeSocket}).Draw(t, "type")
			now[path] = plainObject(kind)
		default:
			o := file()
			for range rapid.IntRange(0, 3).Draw(t, "chunks") {
				o.content = append(o.content, rapid.IntRange(-2, len(testChunks())-1).Draw(t, "chunk"))
				if o.content[len(o.content)-1] < 0 {
					o.content[len(o.content)-1] *= 400 // KiB
				}
			}
			now[path] = o
		}
	}
	return now
}

// TestSinkHistories writes histories in every way, and reads them back.
func TestSinkHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		st := mem.New()
		opts := func(o *SinkOptions) {
			o.Version = rapid.IntRange(1, 2).Draw(rt, "version")
			o.Recut = rapid.Bool().Draw(rt, "recut")
			o.sortMax = rapid.SampledFrom([]int{1, 1000, 0}).Draw(rt, "sorted in memory")
		}
		sink := openSink(t, st, opts)
		s := &teller{t: t, to: sink, copies: rapid.Bool().Draw(rt, "copies"), zip: rapid.Bool().Draw(rt, "zip")}
		s.nameless = sink.opts.Recut && rapid.Bool().Draw(rt, "nameless")
		if err := s.header(); err != nil {
			rt.Fatal(err)
		}
		var states []state
		var last state
		for range rapid.IntRange(1, 4).Draw(rt, "snapshots") {
			s.unsorted = rapid.IntRange(0, 3).Draw(rt, "unsorted") == 0
			last = randomState(rt, last)
			states = append(states, last)
			if err := s.snapshot(last); err != nil {
				rt.Fatal(err)
			}
		}
		if err := sink.Write(&format.End{}); err != nil {
			rt.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			rt.Fatal(err)
		}
		got := readBack(t, st)
		if len(got) != len(states) {
			rt.Fatalf("%d snapshots instead of %d", len(got), len(states))
		}
		for i := range states {
			checkState(t, states[i], got[i].Listing)
		}
		if t.Failed() {
			rt.FailNow()
		}
	})
}

// write stores states, and fails the test if that fails.
func write(t testing.TB, st store.Store, change func(*SinkOptions), states ...state) Written {
	t.Helper()
	sink := openSink(t, st, change)
	if err := writeTo(sink, states...); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	return sink.Summary()
}

func writeTo(sink *Sink, states ...state) error {
	s := &teller{to: sink}
	if err := s.header(); err != nil {
		return err
	}
	for _, one := range states {
		if err := s.snapshot(one); err != nil {
			return err
		}
	}
	return sink.Write(&format.End{})
}

func dir() *thing { return plainObject(format.TypeDir) }

func TestSinkKeepsRecord(t *testing.T) {
	st := mem.New()
	write(t, st, nil, state{"a": file(1)})
	rec := readBack(t, st)[0].Record
	if rec.Comment != "a comment" || len(rec.Tags) != 2 || rec.Host != "host" || len(rec.Roots) != 1 {
		t.Errorf("the record is %+v", rec)
	}
	if len(rec.Via) != 1 || rec.Via[0].From != testSnapshotID(1) || !strings.HasPrefix(rec.Via[0].Stage, "restic-repository ") {
		t.Errorf("via is %+v", rec.Via)
	}
}

// TestSinkGoesOn writes a history in two runs, with what both have in common.
func TestSinkGoesOn(t *testing.T) {
	st := mem.New()
	first, second := state{"a": dir(), "a/x": file(1, 4)}, state{"a": dir(), "a/x": file(1, 5), "a/y": file(3)}
	write(t, st, nil, first)
	if sum := write(t, st, nil, first, second); sum.Snapshots != 1 || sum.Held != 1 {
		t.Errorf("the second run: %+v", sum)
	}
	r, err := Open(t.Context(), st, Options{Passphrase: testSinkOptions().Passphrase})
	if err != nil {
		t.Fatal(err)
	}
	held, err := r.Imported(t.Context())
	if err != nil || len(held) != 2 || held[1][1] != (format.HeldID{ID: testSnapshotID(2)}) {
		t.Errorf("held are %v, %v", held, err)
	}

	// On a base that only the repository has.
	sink := openSink(t, st, nil)
	s := &teller{to: sink, last: second, lastID: testSnapshotID(2), count: 2, copies: true}
	third := state{"a": dir(), "a/x": file(1, 2), "a/y": file(3)}
	for _, err := range []error{s.header(), s.snapshot(third), sink.Write(&format.End{}), sink.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got := readBack(t, st)
	checkState(t, third, got[2].Listing)

	sink = openSink(t, st, nil)
	defer sink.Close()
	s = &teller{to: sink, lastID: testSnapshotID(9), count: 9}
	if err := s.header(); err != nil {
		t.Fatal(err)
	}
	if err := s.snapshot(third); format.ClassOf(err) != format.ClassParent {
		t.Errorf("a difference to what is not there: %v", err)
	}
}

// TestSinkCutsAsRestic compares cuts with those of the splitter over all of a
// file, whatever pieces it came in.
func TestSinkCutsAsRestic(t *testing.T) {
	st := mem.New()
	states := []state{
		{"a": file(1, 4, 5, 3), "b": file(2), "c": file(5)},
		{"a": file(1, 0, 4, 5, 3), "b": file(2, 2), "c": file(5, 6, 5), "d": file(-3000, 4, -1000, 7, 1)},
	}
	write(t, st, func(o *SinkOptions) { o.Recut = true }, states...)
	r, err := Open(t.Context(), st, Options{Passphrase: testSinkOptions().Passphrase})
	if err != nil {
		t.Fatal(err)
	}
	polynomial, err := r.Polynomial()
	if err != nil {
		t.Fatal(err)
	}
	factory, err := chunker.New(chunker.ResticRabin, chunker.Keyed{Polynomial: polynomial})
	if err != nil {
		t.Fatal(err)
	}
	got := readBack(t, st)
	for i := range states {
		for path, o := range states[i] {
			var want []format.ID
			splitter := factory.Splitter()
			for rest := o.bytes(); len(rest) > 0; {
				n := splitter.Cut(rest, true)
				want, rest = append(want, format.SumID(rest[:n])), rest[n:]
			}
			if d := cmp.Diff(want, got[i].Listing[path].Chunks); d != "" {
				t.Errorf("snapshot %d, %q: other cuts:\n%s", i, path, d)
			}
		}
	}
	// Other cuts make no other listing, and what is cut already passes.
	if sum := write(t, st, nil, states...); sum.Held != 2 {
		t.Errorf("again, with other cuts: %+v", sum)
	}
	if sum := write(t, st, func(o *SinkOptions) { o.Recut = true }, states...); sum.New != 0 || sum.Held != 2 {
		t.Errorf("again: %+v", sum)
	}
}

func TestSinkHardLinks(t *testing.T) {
	linkedFile := func(inode uint64, content ...int) *thing {
		o := file(content...)
		o.entry.Hardlink, o.entry.Inode, o.entry.Has = "group", inode, o.entry.Has|format.HasInode
		return o
	}
	st := mem.New()
	sum := write(t, st, nil,
		state{"a": linkedFile(7, 1), "b": linkedFile(8, 1), "c": linkedFile(7, 2)},
		state{"a": linkedFile(7, 2), "b": linkedFile(8, 1), "c": linkedFile(7, 2)})
	if len(sum.Losses) != 2 || sum.Losses[1].Kind != format.LossHardlink || sum.Losses[1].Count != 1 {
		t.Errorf("losses are %v", sum.Losses)
	}
	got := readBack(t, st)
	group := func(i int, path string) string { return got[i].Listing[path].Entry.Hardlink }
	if group(0, "a") != group(0, "b") || group(0, "a") == group(0, "c") {
		t.Error("in the first snapshot a and b belong together, c is another one")
	}
	if group(1, "a") != group(1, "c") || group(1, "a") == group(1, "b") {
		t.Error("in the second snapshot a and c belong together, b is another one")
	}
}

func TestSinkLosses(t *testing.T) {
	odd := file(1)
	odd.entry.Has, odd.entry.Mode, odd.entry.UID, odd.entry.GID, odd.entry.Mtime = 0, 0, 0, 0, format.Time{}
	odd.entry.User, odd.entry.Xattrs = "\xff", []format.Xattr{{Name: "user.\xff", Value: "x"}}
	odd.entry.Flags = []string{"immutable"}
	far := file()
	far.entry.Mtime.Sec = 1 << 50
	st := mem.New()
	sum := write(t, st, nil, state{"a": odd, "b": far, "c": file(-100)})
	var kinds []string
	for _, l := range sum.Losses {
		kinds = append(kinds, l.Kind)
	}
	if d := cmp.Diff([]string{"changed", "flags", "mode", "owner", "sparse", "time", "time-range", "xattr"}, kinds); d != "" {
		t.Errorf("losses:\n%s", d)
	}
	r, err := Open(t.Context(), st, Options{Passphrase: testSinkOptions().Passphrase})
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := r.list(t.Context())
	if err != nil || len(list[0].losses) != len(kinds) {
		t.Errorf("kept with the snapshot are %v, %v", list[0].losses, err)
	}
	sink := openSink(t, mem.New(), func(o *SinkOptions) { o.Strict = true })
	defer sink.Close()
	if err := writeTo(sink, state{"a": odd}); err == nil || !strings.Contains(err.Error(), `"/a"`) {
		t.Errorf("strict: %v", err)
	}
}

func TestSinkRefuses(t *testing.T) {
	st := mem.New()
	write(t, st, nil, state{"a": file(1)})
	open := func(st store.Store, change func(*SinkOptions)) error {
		opts := testSinkOptions()
		change(&opts)
		s, err := OpenSink(t.Context(), st, opts)
		if err == nil {
			s.Close()
		}
		return err
	}
	if err := open(st, func(o *SinkOptions) { o.Version = 1 }); err == nil || !strings.Contains(err.Error(), "format 2 already") {
		t.Errorf("another version: %v", err)
	}
	other := mem.New()
	if err := other.Create(t.Context(), "photo", nil); err != nil {
		t.Fatal(err)
	}
	if err := open(other, func(*SinkOptions) {}); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("where something else is: %v", err)
	}
	sink := openSink(t, st, nil)
	if _, err := sink.w.saveJSON(t.Context(), "locks/", lockFile{Time: time.Now(), Exclusive: true, Hostname: "there"}); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	if err := open(st, func(*SinkOptions) {}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "there") {
		t.Errorf("a locked repository: %v", err)
	}
	locks := 0
	if err := st.List(t.Context(), "locks/", func(store.Info) error { locks++; return nil }); err != nil || locks != 1 {
		t.Errorf("%d locks are left, %v", locks, err)
	}
}

// TestSinkCrashes stops the machine at every change that an import makes: what
// was committed is there whole, and running the same again completes it.
func TestSinkCrashes(t *testing.T) {
	states := []state{
		{"a": dir(), "a/x": file(1, 2), "b": file(1)},
		{"a": dir(), "a/x": file(1), "c": plainObject(format.TypeFifo)},
	}
	storetest.EachCrash(t,
		func(*testing.T) store.Store { return mem.New() },
		func(t *testing.T, s *storetest.Crash) {
			sink, err := OpenSink(t.Context(), s, testSinkOptions())
			if err == nil {
				err = writeTo(sink, states...)
				if closeErr := sink.Close(); err == nil {
					err = closeErr
				}
			}
			if s.Crashed() == (err == nil) {
				t.Errorf("crashed: %t, error: %v", s.Crashed(), err)
			}
		},
		func(t *testing.T, s store.Store, _ int) {
			st := s.(*mem.Store)
			if _, err := st.Stat(t.Context(), "config"); err == nil {
				got := readBack(t, st)
				for i := range got {
					checkState(t, states[i], got[i].Listing)
				}
			}
			write(t, st, nil, states...)
			got := readBack(t, st)
			if len(got) != len(states) {
				t.Fatalf("%d snapshots instead of %d", len(got), len(states))
			}
			for i := range got {
				checkState(t, states[i], got[i].Listing)
			}
		})
}
