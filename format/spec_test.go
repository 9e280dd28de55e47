package format_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

// The tests in this file hold spec/stream.md to the code: its examples are read,
// its tables compared.

// example is one block of bytes in the specification.
type example struct {
	name   string       // the heading above it and its number below that
	class  format.Class // "" for a valid stream
	record int64
	stream []byte
}

// fence matches a block of code and the words behind its opening.
var fence = regexp.MustCompile("(?ms)^```([^\n]+)\n(.*?)^```$")

func readSpec(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../spec/stream.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// specExamples returns the blocks of bytes in the specification.
func specExamples(t *testing.T) []example {
	t.Helper()
	spec := readSpec(t)
	var list []example
	for _, m := range fence.FindAllStringSubmatchIndex(spec, -1) {
		words := strings.Fields(spec[m[2]:m[3]])
		if words[0] != "hex" {
			continue
		}
		heading := spec[strings.LastIndex(spec[:m[0]], "\n### ")+5:]
		heading, _, _ = strings.Cut(heading, "\n")
		x := example{name: fmt.Sprintf("%s/%d", heading, len(list)), stream: parseHex(t, spec[m[4]:m[5]])}
		if words[1] != "ok" {
			x.class = format.Class(words[1])
			number, err := strconv.ParseInt(words[2], 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", x.name, err)
			}
			x.record = number
		}
		list = append(list, x)
	}
	return list
}

func parseHex(t *testing.T, text string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, ";")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// readAll reads a stream to its end, decodes every payload and writes the
// records again.
func readAll(stream []byte) (again, plain []byte, err error) {
	r := format.NewReader(bytes.NewReader(stream), format.ReaderOptions{BufferSize: 4096})
	var out bytes.Buffer
	w := format.NewWriter(&out, format.WriterOptions{BufferSize: 4096})
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out.Bytes(), plain, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if d, ok := rec.(*format.Data); ok {
			chunk, err := format.DecodePayload(nil, d)
			if err != nil {
				return nil, nil, err
			}
			plain = append(plain, chunk...)
		}
		if err := w.Write(rec); err != nil {
			return nil, nil, err
		}
	}
}

func TestSpecExamples(t *testing.T) {
	valid, refused := 0, 0
	for _, x := range specExamples(t) {
		t.Run(x.name, func(t *testing.T) {
			again, _, err := readAll(x.stream)
			if x.class == "" {
				valid++
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(again, x.stream) {
					t.Errorf("written again, the stream differs:\n%x\n%x", x.stream, again)
				}
				return
			}
			refused++
			var e *format.Error
			if !errors.As(err, &e) || e.Class != x.class || e.Record != x.record {
				t.Errorf("want class %s at record %d, got %v", x.class, x.record, err)
			}
		})
	}
	if valid < 3 || refused < 4 {
		t.Errorf("found %d valid and %d refused examples", valid, refused)
	}
}

func TestSpecExamplesCut(t *testing.T) {
	for _, x := range specExamples(t) {
		if x.class != "" {
			continue
		}
		for n := range x.stream {
			if _, _, err := readAll(x.stream[:n]); format.ClassOf(err) != format.ClassCut {
				t.Errorf("%s, cut to %d bytes: %v", x.name, n, err)
			}
		}
	}
}

// A flipped bit is noticed wherever it lies: digests and ids leave nothing out.
func TestSpecExamplesFlipped(t *testing.T) {
	for _, x := range specExamples(t) {
		if x.class != "" {
			continue
		}
		_, plain, err := readAll(x.stream)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 8 * len(x.stream) {
			flipped := bytes.Clone(x.stream)
			flipped[i/8] ^= 1 << (i % 8)
			again, got, err := readAll(flipped)
			// Of a compressed payload only what it decodes to is covered.
			if err == nil && (!bytes.Equal(got, plain) || len(again) != len(x.stream)) {
				t.Errorf("%s: bit %d of byte %d flipped, and nobody noticed", x.name, i%8, i/8)
			}
		}
	}
}

func TestSpecIdentity(t *testing.T) {
	found := 0
	for _, m := range fence.FindAllStringSubmatch(readSpec(t), -1) {
		if m[1] != "identity" {
			continue
		}
		var old format.ID
		var stage string
		for line := range strings.Lines(m[2]) {
			word, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			value = strings.TrimLeft(value, " ")
			switch word {
			case "stage":
				stage = value
				continue
			case "old", "new":
			default:
				t.Fatalf("line %q", line)
			}
			id, err := format.ParseID(value)
			if err != nil {
				t.Fatal(err)
			}
			if word == "old" {
				old = id
				continue
			}
			found++
			if want := format.ID(sha256.Sum256(append(old[:], stage...))); id != want {
				t.Errorf("the id of %s behind %q is %s, not %s", old, stage, want, id)
			}
		}
	}
	if found == 0 {
		t.Error("found no example")
	}
}

// tableRow matches a row of a table and its cells.
var tableRow = regexp.MustCompile(`(?m)^\| (.*) \|$`)

// section returns the text of a section by its number.
func section(t *testing.T, number string) string {
	t.Helper()
	spec := readSpec(t)
	_, rest, ok := strings.Cut(spec, "\n## "+number+". ")
	if !ok {
		if _, rest, ok = strings.Cut(spec, "\n### "+number+" "); !ok {
			t.Fatalf("there is no section %s", number)
		}
	}
	end := regexp.MustCompile(`(?m)^###? `).FindStringIndex(rest)
	if end != nil {
		rest = rest[:end[0]]
	}
	return rest
}

// firstCells returns the words in backquotes of the first column of a section's
// tables.
func firstCells(t *testing.T, number string) []string {
	t.Helper()
	var words []string
	for _, m := range tableRow.FindAllStringSubmatch(section(t, number), -1) {
		cell, _, _ := strings.Cut(m[1], " | ")
		for _, w := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
			words = append(words, w[1])
		}
	}
	return words
}

func diffWords(t *testing.T, what string, inSpec, inCode []string) {
	t.Helper()
	slices.Sort(inSpec)
	slices.Sort(inCode)
	if d := cmp.Diff(inSpec, slices.Compact(inCode)); d != "" {
		t.Errorf("%s: specification (-) and code (+) differ:\n%s", what, d)
	}
}

func TestSpecLimits(t *testing.T) {
	limits := map[string]uint64{
		"ChunkSizeMax": format.ChunkSizeMax, "ZstdWindowMax": format.ZstdWindowMax, "BodySizeMax": format.BodySizeMax,
		"PathSizeMax": format.PathSizeMax, "NameSizeMax": format.NameSizeMax, "TargetSizeMax": format.TargetSizeMax,
		"TextSizeMax": format.TextSizeMax, "CommentSizeMax": format.CommentSizeMax, "HardlinkMax": format.HardlinkMax,
		"XattrsMax": format.XattrsMax, "XattrNameSizeMax": format.XattrNameSizeMax, "XattrValueSizeMax": format.XattrValueSizeMax,
		"RefsMax": format.RefsMax, "ExtentsMax": format.ExtentsMax, "RootsMax": format.RootsMax, "TagsMax": format.TagsMax,
		"ViaMax": format.ViaMax, "FeaturesMax": format.FeaturesMax, "FlagsMax": format.FlagsMax, "LossesMax": format.LossesMax,
		"LossPathsMax": format.LossPathsMax, "FieldsMax": format.FieldsMax, "DepthMax": format.DepthMax,
	}
	found := 0
	number := regexp.MustCompile(`^(?:1 to )?([0-9,]+)`)
	for _, m := range tableRow.FindAllStringSubmatch(section(t, "12"), -1) {
		cells := strings.Split(m[1], " | ")
		want, ok := limits[cells[len(cells)-1]]
		if !ok {
			continue
		}
		found++
		if got := number.FindStringSubmatch(cells[1]); got == nil || strings.ReplaceAll(got[1], ",", "") != fmt.Sprint(want) {
			t.Errorf("%s is %d, the specification says %s", cells[len(cells)-1], want, cells[1])
		}
	}
	if found != len(limits) {
		t.Errorf("the specification has %d of %d limits", found, len(limits))
	}
}

func TestSpecWords(t *testing.T) {
	diffWords(t, "classes of errors", firstCells(t, "15"), []string{
		string(format.ClassCut), string(format.ClassSyntax), string(format.ClassVersion), string(format.ClassFeature),
		string(format.ClassKind), string(format.ClassGrammar), string(format.ClassField), string(format.ClassPath),
		string(format.ClassOrder), string(format.ClassParent), string(format.ClassLimit), string(format.ClassCount),
		string(format.ClassDigest), string(format.ClassChunk), string(format.ClassReference), string(format.ClassTree),
		string(format.ClassTrailing),
	})
	diffWords(t, "features", firstCells(t, "8"), []string{
		string(format.FeatureZstd), string(format.FeatureBase), string(format.FeatureCopy), string(format.FeatureHeld), string(format.FeatureFlat),
	})
	diffWords(t, "kinds of loss", firstCells(t, "10"), []string{
		format.LossUnreadable, format.LossVanished, format.LossChanged, format.LossLimit, format.LossUnwritable, format.LossDamaged,
		format.LossName, format.LossOwner, format.LossMode, format.LossXattr, format.LossACL, format.LossFlags, format.LossTime,
		format.LossTimeRange, format.LossHardlink, format.LossSparse, format.LossDevice, format.LossFifo, format.LossSocket,
		format.LossSnapshot, format.LossExtension,
	})
}

// TestSpecKeys compares the tables of section 4 with the keys that full records
// are encoded with.
func TestSpecKeys(t *testing.T) {
	id, now := format.ID{1}, &format.Time{Sec: 1}
	every := format.HasMode | format.HasUID | format.HasGID | format.HasMtime | format.HasAtime | format.HasCtime |
		format.HasBtime | format.HasInode | format.HasLinks
	for section, records := range map[string][]format.Record{
		"4.1": {&format.Header{Version: 1, Producer: "p", Created: now, Features: []format.Feature{format.FeatureFlat}}},
		"4.2": {&format.Snapshot{ID: id, Parent: format.ID{2}, Time: now, Host: "h", User: "u", Roots: []string{"r"}, Tags: []string{"t"},
			Comment: "c", Origin: &format.Origin{System: "s"}, Via: []format.Via{{Stage: "s", From: id}}, Unsorted: true, Unstable: true,
			Estimate: &format.Estimate{}}},
		"4.3": {
			&format.Entry{Path: "p", Type: format.TypeFile, Has: every | format.HasSize, User: "u", Group: "g", Hardlink: "h",
				Xattrs: []format.Xattr{{Name: "n"}}, Flags: []string{"append"}, Extents: []format.Extent{{Size: 1}}, Chunker: "c"},
			&format.Entry{Path: "p", Type: format.TypeSymlink},
			&format.Entry{Path: "p", Type: format.TypeChar},
		},
		"4.4":  {&format.Data{ID: id, Size: 1, Codec: format.CodecZstd, Once: true}},
		"4.5":  {&format.Refs{Chunks: []format.ChunkRef{{ID: id, Size: 1}}}},
		"4.6":  {&format.CopyRange{Size: 1, HasFrom: true}},
		"4.7":  {&format.Hole{Size: 1}},
		"4.8":  {&format.EOF{SHA256: &id, Error: "e"}},
		"4.9":  {&format.Remove{Path: "p"}},
		"4.10": {&format.Commit{Losses: []format.Loss{{Kind: "k", Count: 1}}}},
		"4.11": {&format.End{}},
	} {
		var keys []string
		for _, rec := range records {
			keys = append(keys, bodyKeys(t, rec)...)
		}
		diffWords(t, "section "+section, firstCells(t, section), keys)
	}
}

// bodyKeys returns the keys of a record's body, by reading it as an extension's.
func bodyKeys(t *testing.T, rec format.Record) []string {
	t.Helper()
	wire, err := format.AppendRecord(nil, rec)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := format.AppendRecord(nil, &format.Header{Version: 1})
	if err != nil {
		t.Fatal(err)
	}
	stream = append(stream, "\x92\xa3x-k"...)
	stream = append(stream, wire[2+len(rec.Kind()):]...)
	r := format.NewReader(bytes.NewReader(stream), format.ReaderOptions{})
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	next, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, f := range next.(*format.Extension).Body {
		keys = append(keys, f.Key)
	}
	return keys
}
