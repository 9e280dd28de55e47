package formattest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
)

// Export applies what a system exports, as Collect does.
func Export(sys format.System, opts format.ExportOptions) (*Receiver, error) {
	src, err := sys.Export(context.Background(), opts)
	if err != nil {
		return nil, err
	}
	return Collect(src, opts.ListingOnly)
}

// Stream returns what an export writes.
func Stream(sys format.System, opts format.ExportOptions) ([]byte, error) {
	var out bytes.Buffer
	src, err := sys.Export(context.Background(), opts)
	if err != nil {
		return nil, err
	}
	err = format.Copy(context.Background(), format.NewWriter(&out, format.WriterOptions{}), src)
	return out.Bytes(), errors.Join(err, src.Close())
}

// MustStream is Stream for what has to work.
func MustStream(t testing.TB, sys format.System, opts format.ExportOptions) []byte {
	t.Helper()
	b, err := Stream(sys, opts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Records returns copies of those of an export in the same process.
func Records(t testing.TB, sys format.System, opts format.ExportOptions) (list []format.Record) {
	t.Helper()
	src, err := sys.Export(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	check := format.Checker{ListingOnly: opts.ListingOnly}
	for {
		rec, err := src.Next()
		if err == io.EOF {
			return list
		}
		if err == nil {
			err = check.Check(rec, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, format.Clone(rec))
	}
}

// EveryWay exports a system in every way that there is, and compares with what
// it holds, all of it and whole, of two snapshots at least.
func EveryWay(t testing.TB, sys format.System, whole []*Received) {
	t.Helper()
	var ids []format.ID
	for _, s := range whole {
		ids = append(ids, s.Record.ID)
	}
	backwards := slices.Clone(ids)
	slices.Reverse(backwards)
	for mode, opts := range map[string]format.ExportOptions{
		"flat":                     {Flat: true},
		"plain":                    {Plain: true},
		"copy":                     {Copy: true},
		"based on the first":       {Base: ids[0], Snapshots: ids[1:2]},
		"backwards":                {Snapshots: backwards},
		"the last, a whole":        {Snapshots: ids[len(ids)-1:]},
		"nothing wanted of links/": {Drop: func(path string, _ bool) (bool, bool) { return strings.HasSuffix(path, "/links"), true }},
	} {
		list := Receive(t, MustStream(t, sys, opts), whole[0].Listing)
		if opts.Drop == nil {
			EqualSnapshots(t, mode, whole, list)
			continue
		}
		for _, s := range list {
			for p := range s.Listing {
				if strings.Contains(p, "/links/") {
					t.Errorf("%s: %q", mode, p)
				}
			}
		}
	}
}

// WantError fails unless err is one of kind and names all of words.
func WantError(t testing.TB, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("error %v, want one that is %v", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not name %q", err, w)
		}
	}
}
