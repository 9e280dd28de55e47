package restic

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

// fields are what a manifest, or a listing in a manifest's terms, says of a path.
type fields map[string]string

// parseManifest reads a manifest; see testdata/README.md.
func parseManifest(b []byte) map[string]fields {
	out := make(map[string]fields)
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		f := fields{}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			f[key] = value
		}
		out[words[0]] = f
	}
	return out
}

// describe says what a listing holds at and below top in a manifest's terms.
func describe(l listing, top string) map[string]fields {
	out := make(map[string]fields)
	first := make(map[string]string) // path of a group of hard links
	members := make(map[string]int)
	paths := slices.SortedFunc(maps.Keys(l), func(a, b string) int { return strings.Compare(below(a, top), below(b, top)) })
	for _, p := range paths {
		if g := l[p].entry.Hardlink; g != "" {
			if members[g]++; members[g] == 1 {
				first[g] = escape(below(p, top))
			}
		}
	}
	for _, p := range paths {
		if p != top && !format.IsBelow(p, top) {
			continue
		}
		e := l[p].entry
		f := fields{
			"type": string(e.Type), "mode": fmt.Sprintf("%04o", e.Mode),
			"uid": fmt.Sprint(e.UID), "gid": fmt.Sprint(e.GID), "mtime": nanoseconds(e.Mtime),
		}
		if e.Type == format.TypeFile {
			h := sha256.New()
			size := 0
			for _, piece := range l[p].pieces {
				h.Write(piece)
				size += len(piece)
			}
			f["size"], f["sha256"] = fmt.Sprint(size), hex.EncodeToString(h.Sum(nil))
		}
		if e.Type == format.TypeSymlink {
			f["link"] = escape(e.Target)
		}
		if e.Type == format.TypeChar || e.Type == format.TypeBlock {
			f["rdev"] = fmt.Sprintf("%d:%d", e.Rdev.Major, e.Rdev.Minor)
		}
		if members[e.Hardlink] > 1 {
			f["hl"] = first[e.Hardlink]
		}
		for _, x := range e.Xattrs {
			f["x:"+escape(x.Name)] = hex.EncodeToString([]byte(x.Value))
		}
		out[escape(below(p, top))] = f
	}
	return out
}

// below is the path below top, "." for top itself.
func below(p, top string) string {
	if p == top {
		return "."
	}
	return strings.TrimPrefix(p, top+"/")
}

func nanoseconds(t format.Time) string {
	n := new(big.Int).Mul(big.NewInt(t.Sec), big.NewInt(1e9))
	return n.Add(n, big.NewInt(int64(t.Nsec))).String()
}

func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 0x21 && c <= 0x7e && c != '\\' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// differences compares a listing with a manifest, but for what no restic
// repository has: flags, and where a file has holes.
func differences(want, got map[string]fields) []string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(merge(want, got))) {
		w, g := want[p], got[p]
		switch {
		case g == nil:
			out = append(out, "missing "+p)
		case w == nil:
			out = append(out, "extra "+p)
		default:
			for _, k := range slices.Sorted(maps.Keys(merge(w, g))) {
				if w[k] != g[k] && k != "flags" && k != "data" {
					out = append(out, fmt.Sprintf("%s %s: %q, not %q", p, k, g[k], w[k]))
				}
			}
		}
	}
	return out
}

func merge[V any, M ~map[string]V](a, b M) M {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

// known are the differences between the trees and what restic recorded of them.
func known(fixture string) (list []string, excluded []string) {
	list = []string{
		`hl/fifo1 hl: "", not "hl/fifo1"`, // restic records no links of fifos
		`hl/fifo2 hl: "", not "hl/fifo1"`,
		`missing dev/socket`, // and no sockets
	}
	if fixture == "v2-new" {
		list = append(list, `time/y1901 mtime: "-2147483700000000000", not "-2147483648000000000"`)
	} else {
		list = append(list,
			`links/raw-target link: "bytes-\\xef\\xbf\\xbd\\xef\\xbf\\xbd\\xef\\xbf\\xbd-target", not "bytes-\\xff\\xfe\\x80-target"`,
			`x/link x:trusted.on-link: "", not "6c"`)
	}
	if strings.HasPrefix(fixture, "v1") {
		excluded = []string{"size/cdc.txt", "many"}
	}
	return list, excluded
}

// checkFixture compares what was received with the manifests.
func checkFixture(t *testing.T, fixture string, list []*received) {
	t.Helper()
	manifests := unpack(t, "manifests.tar.zst")
	expected, excluded := known(fixture)
	for _, s := range list {
		top := "tricky"
		if fixture == "v1" { // was given an absolute path
			top = "tmp/fx-work-set-a/src/tricky"
		}
		if want := []string{"tmp/fx-work-set-a/src/tricky"}; !slices.Equal(s.record.Roots, want) {
			t.Errorf("roots %q, want %q", s.record.Roots, want)
		}
		want := parseManifest(manifests[s.record.Tags[0]+".txt"])
		if len(want) < 100 {
			t.Fatalf("no manifest of %q", s.record.Tags)
		}
		for p := range want {
			for _, x := range excluded {
				if p == x || format.IsBelow(p, x) {
					delete(want, p)
				}
			}
		}
		got := differences(want, describe(s.listing, top))
		if d := cmp.Diff(slices.Sorted(slices.Values(expected)), slices.Sorted(slices.Values(got))); d != "" {
			t.Errorf("%s, %s: differences (-expected +found):\n%s", fixture, s.record.Tags[0], d)
		}
		if len(s.commit.Losses) > 0 {
			t.Errorf("%s, %s: losses %v", fixture, s.record.Tags[0], s.commit.Losses)
		}
	}
}

// TestFixtures holds every snapshot of every fixture, exported in every way,
// against the manifest of the tree that it was made of.
func TestFixtures(t *testing.T) {
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := fixtureStore(t, name)
			r := openFixture(t, name, st)
			snaps, err := r.Snapshots(context.Background())
			if err != nil || len(snaps) != len(slices.Compact(slices.Clone(snaps))) || len(snaps) < 2 {
				t.Fatal(len(snaps), err)
			}
			whole := receive(t, mustStream(t, r, format.ExportOptions{Full: true}), nil)
			checkFixture(t, name, whole)
			equalListings(t, "differences", whole, receive(t, mustStream(t, r, format.ExportOptions{}), nil))
			if name != "v2-pruned" { // the smallest one has to do for the rest
				return
			}
			for mode, opts := range map[string]format.ExportOptions{
				"flat":                     {Flat: true},
				"plain":                    {Plain: true},
				"copy":                     {Copy: true},
				"based on the first":       {Base: snaps[0].ID, Snapshots: []format.ID{snaps[1].ID}},
				"backwards":                {Snapshots: []format.ID{snaps[1].ID, snaps[0].ID}},
				"the last, a whole":        {Snapshots: []format.ID{snaps[len(snaps)-1].ID}},
				"nothing wanted of links/": {Drop: func(path string, _ bool) (bool, bool) { return strings.HasSuffix(path, "/links"), true }},
			} {
				list := receive(t, mustStream(t, r, opts), whole[0].listing)
				if opts.Drop == nil {
					equalListings(t, mode, whole, list)
					continue
				}
				for _, s := range list {
					for p := range s.listing {
						if strings.Contains(p, "/links/") {
							t.Errorf("%s: %q", mode, p)
						}
					}
				}
			}
		})
	}
}

// equalListings compares snapshots by their ids.
func equalListings(t *testing.T, mode string, whole, list []*received) {
	t.Helper()
	for _, s := range list {
		i := slices.IndexFunc(whole, func(w *received) bool { return w.record.ID == s.record.ID })
		equalListing(t, mode, whole[i].listing, s.listing)
	}
}

func equalListing(t testing.TB, mode string, want, got listing) {
	t.Helper()
	for _, p := range slices.Sorted(maps.Keys(merge(want, got))) {
		w, g := want[p], got[p]
		if w == nil || g == nil {
			t.Errorf("%s: %q is there %v, should be %v", mode, p, g != nil, w != nil)
			continue
		}
		if wantText, gotText := format.AppendText(nil, w.entry), format.AppendText(nil, g.entry); !bytes.Equal(wantText, gotText) {
			t.Errorf("%s:\n%s\nshould be\n%s", mode, gotText, wantText)
		}
		if !sameContent(w.pieces, g.pieces) || w.err != g.err {
			t.Errorf("%s: %q has other content", mode, p)
		}
	}
}

func sameContent(a, b [][]byte) bool {
	return slices.EqualFunc(a, b, bytes.Equal) || bytes.Equal(slices.Concat(a...), slices.Concat(b...))
}

// TestFixtureSnapshots checks what is said of snapshots themselves.
func TestFixtureSnapshots(t *testing.T) {
	r := openFixture(t, "v2-pruned", fixtureStore(t, "v2-pruned"))
	list, err := r.Snapshots(context.Background())
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	id, err := format.ParseID("087c1c2bee53deaa5ba501f27941292da496b8a5ce6fcabf6bcb7bf71bc3d7f0")
	if err != nil {
		t.Fatal(err)
	}
	repository, err := hex.DecodeString(r.config.ID)
	if err != nil || len(repository) != 32 {
		t.Fatal(r.config.ID, err)
	}
	want := &format.Snapshot{
		ID: id, Time: &format.Time{Sec: 1705372200}, Host: "fixture-host", User: "root",
		Roots:  []string{"tmp/fx-work-set-a/src/tricky"},
		Tags:   []string{"snap2", "set-a", "retagged", "with space"},
		Origin: &format.Origin{System: "restic", Repository: string(repository), ID: string(id[:])},
	}
	if d := cmp.Diff(want, list[0]); d != "" {
		t.Error(d)
	}
	if p, err := r.Polynomial(); err != nil || p>>53 != 1 {
		t.Errorf("polynomial %x, %v", p, err)
	}
	if r.Version() != 2 {
		t.Errorf("format %d", r.Version())
	}
	newer := openFixture(t, "v2-new", fixtureStore(t, "v2-new"))
	if list, err = newer.Snapshots(context.Background()); err != nil || list[0].Estimate == nil || list[0].Estimate.Entries < 900 {
		t.Errorf("estimate %v, %v", list[0].Estimate, err)
	}
}

// TestListingOnly sees the same entries as an export with content.
func TestListingOnly(t *testing.T) {
	r := openFixture(t, "v2", fixtureStore(t, "v2"))
	src, err := r.Export(context.Background(), format.ExportOptions{ListingOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	check := format.Checker{ListingOnly: true}
	entries := 0
	for {
		rec, err := src.Next()
		if err != nil {
			t.Fatal(err)
		}
		if err := check.Check(rec, nil); err != nil {
			t.Fatal(err)
		}
		switch rec.(type) {
		case *format.Data, *format.Refs, *format.CopyRange:
			t.Fatalf("a %s record", rec.Kind())
		case *format.Entry:
			entries++
		case *format.End:
			want := 0
			for _, s := range receive(t, mustStream(t, r, format.ExportOptions{}), nil) {
				want += int(s.commit.Entries)
			}
			if entries != want {
				t.Errorf("%d entries, want %d", entries, want)
			}
			return
		}
	}
}

// TestHeld sends names of content alone.
func TestHeld(t *testing.T) {
	r := openFixture(t, "v2", fixtureStore(t, "v2"))
	src, err := r.Export(context.Background(), format.ExportOptions{Held: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	refs := 0
	for {
		rec, err := src.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch rec := rec.(type) {
		case *format.Header:
			if !slices.Contains(rec.Features, format.FeatureHeld) {
				t.Errorf("features %v", rec.Features)
			}
		case *format.Data:
			t.Fatal("content was sent")
		case *format.Refs:
			refs += len(rec.Chunks)
		case *format.End:
			if refs < 1000 {
				t.Errorf("%d refs", refs)
			}
			return
		}
	}
}
