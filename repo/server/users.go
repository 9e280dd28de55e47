package server

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bk-backup/bk/repo/store/httpstore"
)

// Users is the file that says who may what (spec/server.md, 5). It is read again
// when it changes; a line that is wrong makes all of the change void, so that
// nobody gains or loses rights by a mistake.
type Users struct {
	path string
	// OnError is told why a changed file is not used, once for each change.
	OnError func(error)

	mu    sync.Mutex
	stamp stamp
	byKey map[string]user
}

type user struct {
	access httpstore.Access
	repos  []string // nil: all
	sum    [sha256.Size]byte
}

// stamp tells whether a file changed.
type stamp struct {
	size  int64
	mtime time.Time
}

// OpenUsers reads the file.
func OpenUsers(path string) (*Users, error) {
	u := &Users{path: path}
	now, err := u.stampOf()
	if err == nil {
		err = u.read()
	}
	if err != nil {
		return nil, fmt.Errorf("read the users: %w", err)
	}
	u.stamp = now
	return u, nil
}

func (u *Users) stampOf() (stamp, error) {
	info, err := os.Stat(u.path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{info.Size(), info.ModTime()}, nil
}

func (u *Users) read() error {
	file, err := os.Open(u.path)
	if err != nil {
		return err
	}
	defer file.Close()
	byKey, err := parseUsers(file)
	if err != nil {
		return fmt.Errorf("%s: %w", u.path, err)
	}
	u.byKey = byKey
	return nil
}

func parseUsers(r io.Reader) (map[string]user, error) {
	users := make(map[string]user)
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		one, err := parseUser(fields)
		if err == nil {
			if _, twice := users[fields[0]]; twice {
				err = fmt.Errorf("%s has a line already", fields[0])
			}
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		users[fields[0]] = one
	}
	return users, lines.Err()
}

func parseUser(fields []string) (one user, err error) {
	if len(fields) != 4 {
		return user{}, fmt.Errorf("there are %d fields where name, access, repositories and sha256:... are expected", len(fields))
	}
	if one.access, err = ParseAccess(fields[1]); err != nil {
		return user{}, err
	}
	if fields[2] != "*" {
		one.repos = strings.Split(fields[2], ",")
	}
	sum, ok := strings.CutPrefix(fields[3], sumPrefix)
	n, err := hex.Decode(one.sum[:], []byte(sum[:min(len(sum), 2*sha256.Size)]))
	if !ok || err != nil || n != sha256.Size || len(sum) != 2*sha256.Size {
		return user{}, fmt.Errorf("%q is not sha256: and 64 hexadecimal digits", fields[3])
	}
	return one, nil
}

const sumPrefix = "sha256:"

// ParseAccess reads a kind of access.
func ParseAccess(text string) (httpstore.Access, error) {
	switch a := httpstore.Access(text); a {
	case httpstore.Read, httpstore.Append, httpstore.Full:
		return a, nil
	}
	return "", fmt.Errorf("access %q is none of read, append and full", text)
}

// Authorize returns what somebody may do with a repository, for Options.
func (u *Users) Authorize(repository string) func(name, token string) (httpstore.Access, bool) {
	return func(name, token string) (httpstore.Access, bool) {
		one, known := u.find(name)
		// The tokens are random, so that a plain sum of one tells nothing.
		sum := sha256.Sum256([]byte(token))
		same := subtle.ConstantTimeCompare(sum[:], one.sum[:]) == 1
		may := one.repos == nil || slices.Contains(one.repos, repository)
		if !known || !same || !may {
			return "", false
		}
		return one.access, true
	}
}

func (u *Users) find(name string) (user, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	// A file that is gone for a moment, since an editor replaces it, changes
	// nothing.
	if now, err := u.stampOf(); err == nil && now != u.stamp {
		u.stamp = now
		if err := u.read(); err != nil && u.OnError != nil {
			u.OnError(err)
		}
	}
	one, ok := u.byKey[name]
	return one, ok
}

// AddUser draws a token for somebody, appends a line to the file, which is made
// if need be, and returns the token. It is not stored anywhere.
func AddUser(path, name string, access httpstore.Access, repos []string, random io.Reader) (token string, err error) {
	if random == nil {
		random = rand.Reader
	}
	if name == "" || strings.ContainsAny(name, " \t\r\n:#") {
		return "", fmt.Errorf("%q cannot be a user's name: it is empty, or has a space, ':' or '#'", name)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	present, err := parseUsers(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if _, ok := present[name]; ok {
		return "", fmt.Errorf("%s: %s has a line already; remove it first: %w", path, name, fs.ErrExist)
	}
	var raw [32]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", fmt.Errorf("draw a token: %w", err)
	}
	token = base64.RawURLEncoding.EncodeToString(raw[:])
	where := "*"
	if len(repos) > 0 {
		where = strings.Join(repos, ",")
	}
	line := fmt.Sprintf("%s %s %s %s%x\n", name, access, where, sumPrefix, sha256.Sum256([]byte(token)))
	if info, err := file.Stat(); err != nil {
		return "", err
	} else if size := info.Size(); size > 0 {
		var last [1]byte
		if _, err := file.ReadAt(last[:], size-1); err != nil {
			return "", err
		}
		if last[0] != '\n' {
			line = "\n" + line
		}
	}
	if _, err := file.WriteString(line); err != nil {
		return "", err
	}
	return token, file.Sync()
}
