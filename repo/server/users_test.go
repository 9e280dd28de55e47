package server

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bk-backup/bk/repo/store/httpstore"
)

// TestUsers adds users to a file and has each be let in with its own token, to its
// own repositories.
func TestUsers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	tokens := make(map[string]string)
	for _, c := range []struct {
		name   string
		access httpstore.Access
		only   []string
	}{{"admin", httpstore.Full, nil}, {"laptop", httpstore.Append, []string{"home", "work"}}, {"reader", httpstore.Read, []string{"home"}}} {
		token, err := AddUser(path, c.name, c.access, c.only, nil)
		if err != nil || len(token) != 43 {
			t.Fatalf("%q, %v", token, err)
		}
		tokens[c.name] = token
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	if text, _ := os.ReadFile(path); bytes.Contains(text, []byte(tokens["laptop"])) {
		t.Error("a token is stored")
	}
	if _, err := AddUser(path, "laptop", httpstore.Full, nil, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second line for a user: %v", err)
	}
	for _, name := range []string{"", "a b", "a:b", "#a", "a\nb"} {
		if _, err := AddUser(path, name, httpstore.Full, nil, nil); err == nil {
			t.Errorf("a user may be called %q", name)
		}
	}
	users, err := OpenUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		repository, name, token string
		want                    httpstore.Access
	}{
		{"home", "admin", tokens["admin"], httpstore.Full}, {"", "admin", tokens["admin"], httpstore.Full},
		{"home", "laptop", tokens["laptop"], httpstore.Append}, {"work", "laptop", tokens["laptop"], httpstore.Append},
		{"other", "laptop", tokens["laptop"], ""}, {"", "laptop", tokens["laptop"], ""}, {"work", "reader", tokens["reader"], ""},
		{"home", "reader", tokens["reader"], httpstore.Read},
		{"home", "admin", tokens["laptop"], ""}, {"home", "admin", "", ""}, {"home", "", "", ""}, {"home", "nobody", tokens["admin"], ""},
		{"home", "nobody", "", ""},
	} {
		got, ok := users.Authorize(c.repository)(c.name, c.token)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%+v: %q, %v", c, got, ok)
		}
	}
}

// TestUsersChange has a line be taken away, and a mistake change nothing.
func TestUsersChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	a, err := AddUser(path, "a", httpstore.Append, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	users, err := OpenUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	var said []error
	users.OnError = func(err error) { said = append(said, err) }
	authorize := users.Authorize("")
	step := 0
	write := func(text string) {
		t.Helper()
		step++
		at := time.Now().Add(time.Duration(step) * time.Second)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	write("# nobody\n\n")
	if _, ok := authorize("a", a); ok {
		t.Error("a user whose line is gone is let in")
	}
	write(string(before))
	if _, ok := authorize("a", a); !ok {
		t.Error("a user whose line is back is not let in")
	}
	for _, wrong := range []string{
		"a full *", "a all * sha256:" + strings.Repeat("0", 64), "a full * sha256:12", "a full * md5:" + strings.Repeat("0", 64),
		"a full * sha256:" + strings.Repeat("0", 66), "a full * sha256:" + strings.Repeat("x", 64), string(before) + string(before), "a full * * *",
	} {
		write(wrong)
		said = nil
		if access, ok := authorize("a", a); !ok || access != httpstore.Append {
			t.Errorf("%q changes rights: %q, %v", wrong, access, ok)
		}
		authorize("a", a)
		if len(said) != 1 || !strings.Contains(said[0].Error(), "line ") {
			t.Errorf("%q: said %v", wrong, said)
		}
		if _, err := OpenUsers(path); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
	os.Remove(path)
	if _, ok := authorize("a", a); !ok {
		t.Error("a file that is gone for a moment shuts everybody out")
	}
	// A file without a last newline, as editors leave it.
	write(strings.TrimSpace(string(before)))
	if _, err := AddUser(path, "b", httpstore.Read, nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenUsers(path); err != nil {
		t.Error(err)
	}
}
