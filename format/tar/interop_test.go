//go:build interop && linux

package tar

import (
	"context"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/disk"
	"github.com/bk-backup/bk/format/formattest"
)

// These tests need root, GNU tar, bsdtar, and a file system below the temporary
// directory that has attributes, ACLs, flags and holes.

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func gnuExtract(t *testing.T, archive string, more ...string) string {
	t.Helper()
	dir := t.TempDir()
	clearFlags(t, dir)
	out := run(t, dir, "tar", append([]string{"--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xpf", archive}, more...)...)
	for line := range strings.Lines(out) {
		if !strings.Contains(line, "time stamp") && !strings.Contains(line, "SCHILY.fflags") && !strings.Contains(line, "hdrcharset") {
			t.Errorf("GNU tar says: %s", line)
		}
	}
	return dir
}

func bsdExtract(t *testing.T, archive string) string {
	t.Helper()
	dir := t.TempDir()
	clearFlags(t, dir)
	if out := run(t, dir, "bsdtar", "--acls", "--xattrs", "--fflags", "--numeric-owner", "-xpf", archive); out != "" {
		t.Errorf("bsdtar says: %s", out)
	}
	return dir
}

// clearFlags lets the temporary directory be removed.
func clearFlags(t *testing.T, dir string) {
	t.Cleanup(func() { _ = exec.Command("chattr", "-R", "-i", "-a", dir).Run() })
}

func scanOptions(dir string) disk.ScanOptions {
	factory, err := chunker.New(defaultChunker, chunker.Public())
	if err != nil {
		panic(err)
	}
	return disk.ScanOptions{Roots: []string{dir}, Snapshot: format.Snapshot{ID: format.ID{1}},
		ChunkerFor: func(string, uint64) (func() chunker.Splitter, string) {
			return factory.Splitter, defaultChunker.String()
		}}
}

// scan lists a directory as a manifest does.
func scan(t *testing.T, dir string) map[string]formattest.Fields {
	t.Helper()
	src, err := disk.Scan(context.Background(), scanOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	l, err := formattest.Collect(src, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Losses()) > 0 {
		t.Errorf("scan %s: %v", dir, l.Losses())
	}
	return formattest.Describe(l.Listing(), strings.TrimPrefix(dir, "/"))
}

// makeTree makes the tricky tree on disk.
func makeTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	clearFlags(t, dir)
	restore, err := disk.NewRestore(context.Background(), dir, disk.RestoreOptions{NumericOwner: true, Prefix: "tricky"})
	if err != nil {
		t.Fatal(err)
	}
	defer restore.Close()
	fixture(t, "snap1-bsdtar-pax.tar", func(r io.Reader) {
		system, err := Open(context.Background(), "-", Options{Stdin: r})
		if err != nil {
			t.Fatal(err)
		}
		defer system.Close()
		src, err := system.Export(context.Background(), format.ExportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		if err := format.Copy(context.Background(), restore, src); err != nil {
			t.Fatal(err)
		}
	})
	return dir
}

func TestExtract(t *testing.T) {
	tree := makeTree(t)
	want := scan(t, tree)
	if len(want) < 1000 {
		t.Fatalf("the tree has %d objects", len(want))
	}
	archive := filepath.Join(t.TempDir(), "tree.tar")
	sink, err := Create(context.Background(), archive, SinkOptions{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	src, err := disk.Scan(context.Background(), scanOptions(tree))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := format.Copy(context.Background(), sink, src); err != nil {
		t.Fatal(err)
	}
	inside := strings.TrimPrefix(tree, "/")
	check := func(who, dir string, expected []string) {
		t.Helper()
		if d := cmp.Diff(expected, formattest.Differences(want, scan(t, filepath.Join(dir, inside)))); d != "" {
			t.Errorf("%s restores otherwise (-expected +found):\n%s", who, d)
		}
	}
	flags := []string{`x/immutable flags: "", not "i"`, `x/nodump flags: "", not "d"`}
	check("GNU tar", gnuExtract(t, archive), flags)
	// libarchive 3.6.2 reads fractions of seconds before 1970 wrongly (which here
	// undoes what it did when it wrote them), and escapes in names of attributes
	// not at all.
	check("bsdtar", bsdExtract(t, archive), []string{
		`time/dir-1960 mtime: "-315619199999999999", not "-315619200000000001"`,
		`time/link-1965 mtime: "-157766399999999997", not "-157766400000000003"`,
		`time/minus-half mtime: "-500000000", not "-1500000000"`,
		`time/y1969 mtime: "-999999876543211", not "-1000000123456789"`,
		`x/name-bytes x:user.eq%3Dual: "3d", not ""`,
		`x/name-bytes x:user.eq\x3dual: "", not "3d"`,
	})
	l, err := readPlace(t, archive, Options{}, format.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d := formattest.Differences(want, formattest.Describe(l.Listing(), inside)); len(d) > 0 {
		t.Errorf("our reader finds otherwise: %q", d)
	}
}

func lookupUser(name string) (uint32, bool) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, false
	}
	id, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(id), err == nil
}

// TestReadOthers reads what the tools make of a tree in every format that can
// hold it.
func TestReadOthers(t *testing.T) {
	tree := makeTree(t)
	want := scan(t, tree)
	lossy := []string{"hl/fifo", "x/immutable flags", "x/nodump flags"}
	times := []string{"time/dir-1960", "time/link-1965", "time/minus-half", "time/y1969"}
	for _, test := range []struct {
		name   string
		args   []string
		ignore []string // fields
		lossy  []string // what the tool does not write
	}{
		{"pax", []string{"tar", "--format=pax", "--sparse", "--xattrs", "--xattrs-include=*", "--acls", "-cf"}, nil, lossy},
		{"pax of standard", []string{"tar", "--format=posix", "--sparse", "--sparse-version=0.1", "--xattrs", "--xattrs-include=*", "-cf"}, nil, lossy},
		{"pax sparse 0.0", []string{"tar", "--format=posix", "--sparse", "--sparse-version=0.0", "--xattrs", "--xattrs-include=*", "-cf"}, nil, lossy},
		{"pax with text ACLs only", []string{"tar", "--format=pax", "--sparse", "--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.*", "--xattrs-include=trusted.*", "--acls", "-cf"}, nil, lossy},
		{"gnu", []string{"tar", "--format=gnu", "--sparse", "-cf"}, []string{"mtime", "x"}, lossy},
		{"bsdtar", []string{"bsdtar", "--format=pax", "--acls", "--xattrs", "--fflags", "-cf"}, nil, times},
		{"bsdtar sparse", []string{"bsdtar", "--format=pax", "--read-sparse", "-cf"}, nil, times},
		{"zstd", []string{"tar", "--zstd", "--format=pax", "--sparse", "--xattrs", "--xattrs-include=*", "-cf"}, nil, lossy},
		{"gzip", []string{"tar", "-z", "--format=pax", "--sparse", "--xattrs", "--xattrs-include=*", "-cf"}, nil, lossy},
		{"bzip2", []string{"tar", "-j", "--format=pax", "--sparse", "--xattrs", "--xattrs-include=*", "-cf"}, nil, lossy},
	} {
		t.Run(test.name, func(t *testing.T) {
			archive := filepath.Join(t.TempDir(), "a.tar")
			run(t, tree, test.args[0], append(test.args[1:], archive, ".")...)
			l, err := readPlace(t, archive, Options{LookupUser: lookupUser}, format.ExportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			d := slices.DeleteFunc(formattest.Differences(want, formattest.Describe(l.Listing(), ""), test.ignore...), func(line string) bool {
				return slices.ContainsFunc(test.lossy, func(x string) bool { return strings.HasPrefix(line, x) })
			})
			if len(d) > 0 || len(l.Losses()) > 0 {
				t.Errorf("differs: %q, losses: %v", d, l.Losses())
			}
		})
	}
}
