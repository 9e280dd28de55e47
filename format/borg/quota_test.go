package borg

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
)

func TestParseFileSize(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "0": 0, "1234": 1234, "55G": 55e9, "1.7T": 17e11, "10M": 1e7, "2P": 2e15, "3K": 3000} {
		if got, ok := parseFileSize(text); !ok || got != want {
			t.Errorf("%q is %d, %t", text, got, ok)
		}
	}
	for _, text := range []string{"G", "-1", "1e30", "NaN", "10m", "x", "9999999P"} {
		if got, ok := parseFileSize(text); ok {
			t.Errorf("%q is %d", text, got)
		}
	}
}

// TestQuota writes into repositories that may not become larger than so much:
// what was complete stays, the rest is taken away, and nothing more is begun.
func TestQuota(t *testing.T) {
	place := newPlace(t, "none")
	limit := func(size string) {
		t.Helper()
		name := filepath.Join(place, "config")
		b, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(b), "\nstorage_quota = ") {
			t.Fatalf("%v: %q", err, b)
		}
		lines := strings.Split(string(b), "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "storage_quota") {
				lines[i] = "storage_quota = " + size
			}
		}
		if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := newModel(t, 1)
	m.sent = map[format.ID][]byte{}
	m.put("a", object{format.Entry{Type: format.TypeFile}, m.pool[:3000]})
	list := append([]format.Record{header()}, m.snapshot(nil, format.ID{}, false)...)
	before, first := maps.Clone(m.tree), m.last
	m.put("b", object{format.Entry{Type: format.TypeFile}, m.pool[16_000:40_000]})
	list = append(list, m.snapshot(before, first, false)...)
	limit("20K")
	s := openSink(t, place, SinkOptions{})
	var err error
	for _, rec := range append(list, &format.End{}) {
		if err = s.Write(format.Clone(rec)); err != nil {
			break
		}
	}
	formattest.WantError(t, err, ErrQuota, "20000")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := openRepository(t, place).Snapshots(context.Background()); err != nil || len(got) != 1 {
		t.Fatalf("%d snapshots, %v", len(got), err)
	}
	limit("1K")
	kept := files(t, place)
	st := openPlace(t, place)
	defer st.Close()
	_, err = OpenSink(context.Background(), place, st, Options{Passphrase: testPassphrase}, SinkOptions{Holder: Holder{"test", 1}})
	formattest.WantError(t, err, ErrQuota)
	if len(files(t, place)) != len(kept) {
		t.Error("something was written, or left behind")
	}
	limit("1M")
	m.write(openSink(t, place, SinkOptions{}), append(list, &format.End{}))
	if got, err := openRepository(t, place).Snapshots(context.Background()); err != nil || len(got) != 2 {
		t.Errorf("%d snapshots, %v", len(got), err)
	}
}
