package store_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

func TestReadOnly(t *testing.T) {
	ctx := t.Context()
	inner := mem.New()
	if err := inner.Create(ctx, "a", []byte("content")); err != nil {
		t.Fatal(err)
	}
	s := store.ReadOnly(inner)
	_, nowErr := s.Now(ctx)
	for call, err := range map[string]error{
		"create b in memory":         s.Create(ctx, "b", nil),
		"delete a in memory":         s.Delete(ctx, "a"),
		"read clock of memory":       nowErr,
		"create elsewhere in memory": s.Create(ctx, "elsewhere", nil),
	} {
		if !errors.Is(err, store.ErrReadOnly) || err.Error() != call+": storage cannot be written" {
			t.Errorf("%s: %v", call, err)
		}
	}
	if data, err := s.Get(ctx, "a", 10); err != nil || string(data) != "content" {
		t.Errorf("Get: %q, %v", data, err)
	}
	if err := s.List(ctx, "", func(info store.Info) error {
		if info.Name != "a" {
			t.Errorf("%s was created", info.Name)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestErrorText(t *testing.T) {
	cause := errors.New("no space left on device")
	for _, test := range []struct {
		err  error
		want string
	}{
		{&store.Error{Op: "create", Name: "a/b", Store: "/srv/bk", Kind: store.ErrFull, Err: cause, Fix: "free some"},
			"create a/b in /srv/bk: storage is full: no space left on device"},
		{&store.Error{Op: "read", Name: "a", Store: "/srv/bk", Kind: store.ErrNotFound}, "read a in /srv/bk: not found"},
		{&store.Error{Op: "open storage", Store: "/srv/bk", Err: cause}, "open storage /srv/bk: no space left on device"},
		{&store.Error{Op: "open storage", Err: cause}, "open storage: no space left on device"},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
	err := error(&store.Error{Op: "create", Kind: store.ErrFull, Err: fs.ErrPermission})
	if !errors.Is(err, store.ErrFull) || !errors.Is(err, fs.ErrPermission) || errors.Is(err, store.ErrExists) {
		t.Error("errors.Is does not see kind and cause")
	}
}

func TestSplitLocation(t *testing.T) {
	for location, want := range map[string][2]string{
		"/srv/bk":                  {"", "/srv/bk"},
		"srv":                      {"", "srv"},
		"./a:b":                    {"", "./a:b"},
		"/a:b":                     {"", "/a:b"},
		"1a:b":                     {"", "1a:b"},
		"a b:c":                    {"", "a b:c"},
		":a":                       {"", ":a"},
		"":                         {"", ""},
		"file:///srv/bk":           {"file", "///srv/bk"},
		"s3:https://host/bucket":   {"s3", "https://host/bucket"},
		"HTTP://host/repo":         {"http", "//host/repo"},
		"restic:s3:https://host/b": {"restic", "s3:https://host/b"},
		"tar:-":                    {"tar", "-"},
		"x-y.z+1:":                 {"x-y.z+1", ""},
	} {
		scheme, rest := store.SplitLocation(location)
		if diff := cmp.Diff(want, [2]string{scheme, rest}); diff != "" {
			t.Errorf("%q (-want +got):\n%s", location, diff)
		}
	}
}

func TestOpen(t *testing.T) {
	var opened string
	opener := func(kind string) func(context.Context, string) (store.Store, error) {
		return func(_ context.Context, rest string) (store.Store, error) {
			opened = kind + " " + rest
			return mem.New(), nil
		}
	}
	schemes := store.Schemes{
		"file": {Open: opener("open file"), Create: opener("create file")},
		"s3":   {Open: opener("open s3")},
	}
	for _, test := range []struct{ location, want string }{
		{"/srv/bk", "file /srv/bk"},
		{"relative/bk", "file relative/bk"},
		{"./a:b", "file ./a:b"},
		{"/50%25", "file /50%25"},
		{"file:///srv/bk", "file /srv/bk"},
		{"file://localhost/srv/bk", "file /srv/bk"},
		{"file:/srv/bk", "file /srv/bk"},
		{"file:///a%20b", "file /a b"},
		{"s3:https://host/bucket/x%20y", "s3 https://host/bucket/x%20y"},
	} {
		if _, err := store.Open(t.Context(), test.location, schemes); err != nil || opened != "open "+test.want {
			t.Errorf("Open(%s): %s, %v", test.location, opened, err)
		}
		if !strings.HasPrefix(test.want, "file") {
			continue
		}
		if _, err := store.Create(t.Context(), test.location, schemes); err != nil || opened != "create "+test.want {
			t.Errorf("Create(%s): %s, %v", test.location, opened, err)
		}
	}
	opened = ""
	for location, want := range map[string]string{
		"":                        "no location given",
		"ftp://user:secret@host/": `no kind of storage is called "ftp"; there are: file, s3`,
		"file://host/srv":         `cannot name the host "host"`,
		"file://":                 "the path is missing",
		"file:///%zz":             "invalid URL escape",
	} {
		_, err := store.Open(t.Context(), location, schemes)
		var typed *store.Error
		if err == nil || !strings.Contains(err.Error(), want) || !errors.As(err, &typed) || typed.Fix == "" {
			t.Errorf("Open(%q): %v, want %s", location, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error gives a secret away: %v", err)
		}
	}
	if _, err := store.Create(t.Context(), "s3:https://host/b", schemes); err == nil || opened != "" {
		t.Errorf("storage was created that cannot be: %q, %v", opened, err)
	}
}

// cleaner counts the calls of Clean.
type cleaner struct {
	*mem.Store
	age time.Duration
}

func (c *cleaner) Clean(_ context.Context, ageMin time.Duration) (int, error) {
	c.age = ageMin
	return 3, nil
}

func TestClean(t *testing.T) {
	c := &cleaner{Store: mem.New()}
	wrapped := store.Retry(storetest.NewFaulty(c), quick)
	if n, err := store.Clean(t.Context(), wrapped, time.Hour); n != 3 || err != nil || c.age != time.Hour {
		t.Errorf("Clean: %d, %v, age %v", n, err, c.age)
	}
	if n, err := store.Clean(t.Context(), store.Retry(mem.New(), quick), time.Hour); n != 0 || err != nil {
		t.Errorf("Clean of what leaves nothing behind: %d, %v", n, err)
	}
	if n, err := store.Clean(t.Context(), store.ReadOnly(c), time.Minute); n != 0 || err != nil || c.age != time.Hour {
		t.Errorf("Clean of what is only read: %d, %v, age %v", n, err, c.age)
	}
}
