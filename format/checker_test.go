package format

import (
	"math"
	"testing"
)

// TestChecker feeds short streams; the error must come with the last record.
func TestChecker(t *testing.T) {
	head := func(f ...Feature) *Header { return &Header{Version: 1, Features: f} }
	snap := &Snapshot{ID: ID{1}}
	second := func(parent byte) *Snapshot { return &Snapshot{ID: ID{2}, Parent: ID{parent}} }
	file := func(p string) *Entry { return &Entry{Path: p, Type: TypeFile} }
	dir := func(p string) *Entry { return &Entry{Path: p, Type: TypeDir} }
	data := plainData([]byte("abc"))
	zstd := &Data{ID: ID{1}, Size: 9, Codec: CodecZstd}
	refs := &Refs{Chunks: []ChunkRef{{ID{1}, 5}}}
	cp := &CopyRange{Size: 4}
	ext := &Extension{Name: "x-y"}
	for _, c := range []struct {
		name string
		recs []Record
		want Class
	}{
		{"snapshot first", []Record{snap}, ClassGrammar},
		{"extension first", []Record{ext}, ClassGrammar},
		{"two headers", []Record{head(), head()}, ClassGrammar},
		{"entry outside", []Record{head(), file("a")}, ClassGrammar},
		{"end inside", []Record{head(), snap, &End{}}, ClassGrammar},
		{"commit outside", []Record{head(), &Commit{}}, ClassGrammar},
		{"data after dir", []Record{head(), snap, dir("a"), data}, ClassGrammar},
		{"data after eof", []Record{head(), snap, file("a"), &EOF{}, data}, ClassGrammar},
		{"entry before eof", []Record{head(), snap, file("a"), file("b")}, ClassGrammar},
		{"commit before eof", []Record{head(), snap, file("a"), &Commit{}}, ClassGrammar},
		{"after end", []Record{head(), &End{}, ext}, ClassGrammar},
		{"extensions", []Record{head(), ext, snap, ext, file("a"), ext, data, ext, &EOF{Size: 3}, ext, &Commit{}, ext, &End{}}, ""},
		{"zstd", []Record{head(), snap, file("a"), zstd}, ClassFeature},
		{"zstd announced", []Record{head(FeatureZstd), snap, file("a"), zstd}, ""},
		{"copy", []Record{head(), snap, &Commit{}, second(1), file("a"), cp}, ClassFeature},
		{"copy announced", []Record{head(FeatureCopy), snap, &Commit{}, second(1), file("a"), cp, &EOF{Size: 4}}, ""},
		{"copy without parent", []Record{head(FeatureCopy), snap, file("a"), cp}, ClassReference},
		{"unknown feature", []Record{head("quantum")}, ClassFeature},
		{"feature order", []Record{head("zstd", "base")}, ClassField},
		{"version", []Record{&Header{Version: 3}}, ClassVersion},
		{"flat parent", []Record{head(FeatureFlat), snap, &Commit{}, second(1)}, ClassFeature},
		{"flat refs", []Record{head(FeatureFlat), snap, file("a"), refs}, ClassFeature},
		{"flat copy", []Record{head(FeatureCopy, FeatureFlat), snap, file("a"), cp}, ClassFeature},
		{"flat remove", []Record{head(FeatureFlat), snap, &Remove{Path: "a"}}, ClassFeature},
		{"parent", []Record{head(), snap, &Commit{}, second(1)}, ""},
		{"other parent", []Record{head(FeatureBase), snap, &Commit{}, second(9)}, ClassParent},
		{"own parent", []Record{head(), snap, &Commit{}, second(2)}, ClassParent},
		{"base", []Record{head(FeatureBase), second(9)}, ""},
		{"base not announced", []Record{head(), second(9)}, ClassParent},
		{"order", []Record{head(), snap, dir("b"), dir("a")}, ClassOrder},
		{"order with remove", []Record{head(), snap, &Remove{Path: "b"}, dir("a")}, ClassOrder},
		{"twice", []Record{head(), snap, dir("a"), &Remove{Path: "a"}}, ClassOrder},
		{"emptied", []Record{head(), snap, &Remove{Path: "a"}, ext, dir("a"), dir("a/b")}, ""},
		{"emptied, then a file", []Record{head(), snap, &Remove{Path: "a"}, file("a")}, ClassOrder},
		{"emptied, then twice", []Record{head(), snap, &Remove{Path: "a"}, dir("a"), dir("a")}, ClassOrder},
		{"removed twice", []Record{head(), snap, &Remove{Path: "a"}, &Remove{Path: "a"}}, ClassOrder},
		{"slash first", []Record{head(), snap, dir("a-b"), dir("a/b")}, ClassOrder},
		{"unsorted", []Record{head(), &Snapshot{ID: ID{1}, Unsorted: true}, dir("b"), file("a"), &EOF{}, dir("a/x"), dir("b")}, ""},
		{"order begins again", []Record{head(), snap, dir("z"), &Commit{}, second(1), dir("a")}, ""},
		{"root twice", []Record{head(), snap, dir(""), dir("")}, ClassOrder},
		{"below a file", []Record{head(), snap, file("a"), &EOF{}, dir("a/b")}, ClassTree},
		{"deep below a file", []Record{head(), snap, file("a"), &EOF{}, &Remove{Path: "a/a"}, dir("a/b/c")}, ClassTree},
		{"beside a file", []Record{head(), snap, file("a"), &EOF{}, dir("a-b"), dir("ab/c")}, ""},
		{"size", []Record{head(), snap, file("a"), data, &Hole{Size: 7}, refs, &EOF{Size: 15}}, ""},
		{"wrong size", []Record{head(), snap, file("a"), data, &EOF{Size: 4}}, ClassCount},
		{"size overflows", []Record{head(), snap, file("a"), &Hole{Size: math.MaxInt64}, &Hole{Size: 1}}, ClassLimit},
		{"sum overflows", []Record{
			head(), snap, file("a"), &Hole{Size: math.MaxInt64}, &EOF{Size: math.MaxInt64},
			file("b"), &Hole{Size: math.MaxInt64}, &EOF{Size: math.MaxInt64}, file("c"), &Hole{Size: 2}, &EOF{Size: 2},
		}, ClassLimit},
		{"root is a file", []Record{head(), snap, file("")}, ClassField},
		{"hardlink on dir", []Record{head(), snap, &Entry{Path: "a", Type: TypeDir, Hardlink: "x"}}, ClassField},
		{"size on dir", []Record{head(), snap, &Entry{Path: "a", Type: TypeDir, Has: HasSize}}, ClassField},
		{"bad path", []Record{head(), snap, dir("a/../b")}, ClassPath},
		{"bad root", []Record{head(), &Snapshot{ID: ID{1}, Roots: []string{"/home"}}}, ClassPath},
		{"no id", []Record{head(), &Snapshot{}}, ClassField},
		{"xattr order", []Record{head(), snap, &Entry{Path: "a", Type: TypeDir, Xattrs: []Xattr{{"b", ""}, {"a", ""}}}}, ClassField},
		{"extents touch", []Record{head(), snap, &Entry{Path: "a", Type: TypeFile, Extents: []Extent{{0, 5}, {5, 5}}}}, ClassField},
		{"extra is known", []Record{head(), snap, &Entry{Path: "a", Type: TypeDir, Extra: []Field{{"mode", []byte{1}}}}}, ClassField},
		{"extra is broken", []Record{head(), snap, &Entry{Path: "a", Type: TypeDir, Extra: []Field{{"k", []byte{0x92, 1}}}}}, ClassSyntax},
		{"extra is two", []Record{head(), snap, &Entry{Path: "a", Type: TypeDir, Extra: []Field{{"k", []byte{1, 1}}}}}, ClassSyntax},
	} {
		var check Checker
		for i, rec := range c.recs {
			err := check.Check(rec, nil)
			want := Class("")
			if i == len(c.recs)-1 {
				want = c.want
			}
			if ClassOf(err) != want {
				t.Errorf("%s: record %d: %v, want %q", c.name, i, err, want)
				break
			}
		}
	}
}

func TestListingOnly(t *testing.T) {
	check := Checker{ListingOnly: true}
	for _, rec := range []Record{
		&Header{Version: 1}, &Snapshot{ID: ID{1}}, &Entry{Path: "a", Type: TypeFile}, &EOF{Size: 100}, &Commit{}, &End{},
	} {
		if err := check.Check(rec, nil); err != nil {
			t.Fatal(err)
		}
	}
}
