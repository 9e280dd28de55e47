package filterflags

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
	"github.com/google/go-cmp/cmp"
)

func parse(t *testing.T, args ...string) (filter.Options, error) {
	t.Helper()
	var flags struct{ Flags }
	parser, err := kong.New(&flags)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return flags.Options(context.Background(), Surroundings{Now: time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)})
}

func TestOrderOfPatterns(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(file, []byte("# c\nd\n!e\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	opts, err := parse(t, "--keep", "a", "--drop=b,c", "--drop-from", file, "--exclude", "f", "--keep=g")
	if err != nil {
		t.Fatal(err)
	}
	want := []filter.Rule{{Pattern: "a", Keep: true}, {Pattern: "b,c"}, {Pattern: "d"}, {Pattern: "e", Keep: true}, {Pattern: "f"}, {Pattern: "g", Keep: true}}
	if diff := cmp.Diff(want, opts.Paths.Rules()); diff != "" {
		t.Error(diff)
	}
}

func TestOptions(t *testing.T) {
	opts, err := parse(t, "--larger-than=1k", "--smaller-than=2", "--newer-than=30d", "--older-than=2026-01-02", "--type=fifo,socket",
		"--owner=a,b", "--owner=7", "--magic=image/*", "--drop-if=true", "--snapshot=host=a,tag=b", "--snapshot", "tag=c",
		"--drop-xattr=user.*", "--rename=/a/=/b", "--rename", "c=/", "--strip-prefix=/p/", "--set-host=h", "--add-tag=x,y", "--chown=jo:7")
	if err != nil {
		t.Fatal(err)
	}
	if opts.Judge == nil || opts.JudgeName != "true" || len(opts.Snapshots) != 2 || *opts.Snapshots[0].Tag != "b" {
		t.Errorf("%+v", opts)
	}
	wantAttributes := filter.Attributes{LargerThan: new(uint64(1024)), SmallerThan: new(uint64(2)),
		NewerThan: &format.Time{Sec: 1767225600}, OlderThan: &format.Time{Sec: 1767312000},
		Types: []format.Type{"fifo", "socket"}, Owners: []string{"a,b", "7"}}
	if diff := cmp.Diff(wantAttributes, opts.Attributes); diff != "" {
		t.Error(diff)
	}
	wantChanges := filter.Changes{DropXattrs: []string{"user.*"}, SetHost: "h", AddTags: []string{"x,y"}, StripPrefix: "p",
		Renames: []filter.Rename{{From: "a", To: "b"}, {From: "c", To: ""}},
		Owner:   &filter.Owner{SetUser: true, SetGroup: true, User: "jo", GID: 7, HasGroupID: true}}
	if diff := cmp.Diff(wantChanges, opts.Changes); diff != "" {
		t.Error(diff)
	}
	if opts, err = parse(t); err != nil || opts.Description() != "" {
		t.Errorf("no flags: %q, %v", opts.Description(), err)
	}
}

func TestErrorsNameTheFlag(t *testing.T) {
	for arg, want := range map[string]string{
		"--drop=a[":         `pattern "a["`,
		"--drop-from=/none": "--drop-from: read patterns",
		"--larger-than=x":   "--larger-than",
		"--older-than=x":    "--older-than",
		"--snapshot=x":      "--snapshot",
		"--rename=a":        "--rename",
		"--strip-prefix=/":  "--strip-prefix",
		"--chown=:":         "--chown",
	} {
		if _, err := parse(t, arg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", arg, err, want)
		}
	}
}
