package filter

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/bk-backup/bk/format"
	"pgregory.net/rapid"
)

// checkModel filters a random stream and compares it with the model.
func checkModel(t *rapid.T) {
	g := &generator{t: t}
	flat := g.chance(5)
	history := g.history(flat)
	stream, err := encode(g.stream(history, 0, flat))
	if err != nil {
		t.Fatalf("the generator made a bad stream: %v", err)
	}
	opts := g.options()
	if err := checkStream(stream, opts, flat); err != nil {
		t.Fatalf("%s: %v", describe(&opts), err)
	}
}

func describe(o *Options) string {
	return fmt.Sprintf("snapshots %d, rules %v, attributes %+v, magic %v, judge %q, changes %+v",
		len(o.Snapshots), o.Paths.Rules(), o.Attributes, o.Magic, o.JudgeName, o.Changes)
}

func checkStream(stream []byte, opts Options, flat bool) error {
	in := newExpander(nil, format.ID{})
	if err := expand(stream, in); err != nil {
		return fmt.Errorf("the generator made a bad stream: %w", err)
	}
	want, err := filterAll(in.done, &opts)
	if err != nil {
		return nil // two paths would become one: the filter is not asked
	}
	filtered, _, err := runFilter(stream, opts)
	if err != nil {
		if expectRefusal(in.done, &opts, flat) {
			return nil
		}
		return fmt.Errorf("filter: %w", err)
	}
	out := newExpander(nil, format.ID{})
	if err := expand(filtered, out); err != nil {
		return fmt.Errorf("the filter made a bad stream: %w", err)
	}
	if err := compare(want, out.done, opts.Description()); err != nil {
		return err
	}
	if err := checkNamed(in, out, &opts); err != nil {
		return err
	}
	for id, n := range out.dataN {
		if n > 1 && in.dataN[id] == 1 {
			return fmt.Errorf("chunk %s (%.20q) is sent %d times", id.Short(), out.chunks[id], n)
		}
	}
	return nil
}

func filterAll(in []*expanded, opts *Options) ([]*expanded, error) {
	var out []*expanded
	for _, s := range in {
		if len(opts.Snapshots) > 0 && !opts.Snapshots[0].Match(s.record) {
			continue
		}
		l, err := naive(s.listing, opts)
		if err != nil {
			return nil, err
		}
		out = append(out, &expanded{record: s.record, listing: l, notes: s.notes})
	}
	return out, nil
}

// expectRefusal reports whether the filter may refuse the stream: where a file
// would become the root, or a flat stream that is not sorted has a path twice.
func expectRefusal(in []*expanded, opts *Options, flat bool) bool {
	for _, s := range in {
		if flat && s.record.Unsorted {
			return true
		}
		for path, n := range s.listing {
			if path == opts.Changes.StripPrefix && n.entry.Type != format.TypeDir {
				return true
			}
		}
	}
	return false
}

// checkNamed checks that no path is named whose object, in every snapshot, is
// dropped by its path; and that what is emitted is part of the result.
func checkNamed(in, out *expander, opts *Options) error {
	passes := map[string]bool{}
	for _, s := range in.done {
		for path, n := range s.listing {
			if drop, _ := opts.Paths.Match(path, n.entry.Type == format.TypeDir); !drop {
				for ; !passes[path]; path = format.ParentPath(path) {
					passes[path] = true
				}
			}
		}
		for _, path := range s.named { // by records that a later one outdid
			if _, gone := opts.Paths.Match(path, false); !gone && s.record.Unsorted {
				passes[path] = true
			}
		}
	}
	if opts.Changes.StripPrefix != "" || len(opts.Changes.Renames) > 0 {
		return nil
	}
	for _, s := range out.done {
		named := slices.Concat(s.named, s.record.Roots)
		for _, loss := range s.losses {
			named = append(named, loss.Paths...)
		}
		for _, path := range named {
			_, gone := opts.Paths.Match(path, false)
			if gone || !passes[path] && slices.Contains(s.named, path) && !outdated(in, path) {
				return fmt.Errorf("snapshot %s names %q, which is dropped by its path everywhere", s.record.ID.Short(), path)
			}
		}
	}
	return nil
}

// outdated reports whether some record names a path that is in no listing.
func outdated(in *expander, path string) bool {
	for _, s := range in.done {
		if s.listing[path] != nil {
			return false
		}
	}
	return true
}

func TestFilterAgainstModel(t *testing.T) { rapid.Check(t, checkModel) }

func FuzzFilterAgainstModel(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkModel)) }

// TestIdentity: a filter without options does not change a byte.
func TestIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := &generator{t: t}
		flat := g.chance(5)
		stream, err := encode(g.stream(g.history(flat), 0, flat))
		if err != nil {
			t.Fatal(err)
		}
		out, _, err := runFilter(stream, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(stream, out) {
			t.Fatal("the stream changed")
		}
	})
}

// TestIncremental: a filter over a stream, and over what came later as a
// difference against what the receiver holds, gives what it gives over one.
func TestIncremental(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := &generator{t: t}
		history := g.history(false)
		for len(history) < 2 {
			history = g.history(false)
		}
		cut := 1 + g.intn(len(history)-1)
		opts := g.options()
		opts.Snapshots = nil // what a dropped base changed cannot be in a later stream
		var streams [3][]byte
		for i, recs := range [][]format.Record{
			g.stream(history, 0, false), g.stream(history[:cut], 0, false), g.stream(history, cut, false),
		} {
			var err error
			if streams[i], err = encode(recs); err != nil {
				t.Fatal(err)
			}
		}
		var outs [3]*expander
		for i, stream := range streams {
			filtered, _, err := runFilter(stream, opts)
			if err != nil {
				t.Skip(err)
			}
			outs[i] = newExpander(nil, format.ID{})
			if i == 2 {
				last := outs[1].done[len(outs[1].done)-1]
				outs[i] = newExpander(last.listing, last.record.ID)
			}
			if err := expand(filtered, outs[i]); err != nil {
				t.Fatalf("%s: stream %d: %v", describe(&opts), i, err)
			}
		}
		parts := append(outs[1].done, outs[2].done...)
		for _, s := range append(slices.Clone(parts), outs[0].done...) {
			s.notes = nil // those of producers differ from run to run
			for _, n := range s.listing {
				n.notes = nil
			}
		}
		if err := compare(outs[0].done, parts, ""); err != nil {
			t.Fatalf("%s: %v", describe(&opts), err)
		}
	})
}
