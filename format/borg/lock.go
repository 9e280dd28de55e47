package borg

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ErrLocked says that somebody else is using a repository.
var ErrLocked = errors.New("it is locked")

// Holder is who holds a lock, as borg names it: a machine, by its name and a
// number that other machines of that name do not have, and a process.
type Holder struct {
	Host string
	PID  int
}

// lockName is the directory that is the exclusive lock, rosterName the file that
// lists who reads or writes.
const (
	lockName   = "lock.exclusive"
	rosterName = "lock.roster"
)

// lock is borg's exclusive lock on a repository in a directory.
type lock struct {
	dir    string
	holder Holder
}

// roster is who has which lock: host, process and thread of each.
type roster map[string][][]any

// fileName is how borg names the file in the lock's directory; threads are not
// told apart, and have the number 0.
func (h Holder) fileName() string { return fmt.Sprintf("%s.%d-0", h.Host, h.PID) }

// lockRepository takes the lock, or fails with ErrLocked. A lock whose holder was
// on this machine and is gone is taken over, as borg does.
func lockRepository(dir string, holder Holder) (*lock, error) {
	l := &lock{dir: dir, holder: holder}
	name := filepath.Join(dir, lockName)
	tmp, err := os.MkdirTemp(dir, lockName+".*.tmp")
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := os.WriteFile(filepath.Join(tmp, holder.fileName()), nil, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), os.RemoveAll(tmp))
	}
	// A directory takes the place of an empty one only, so that one of several
	// wins.
	err = replaceEmpty(tmp, name)
	if err != nil && l.dropStale(name) {
		err = replaceEmpty(tmp, name)
	}
	if err != nil {
		os.RemoveAll(tmp)
		return nil, fmt.Errorf("lock %s: %w by %s", dir, ErrLocked, l.holders(name))
	}
	if err := l.enter(); err != nil {
		return nil, errors.Join(err, l.removeLock())
	}
	return l, nil
}

// holders returns who holds the lock, for messages.
func (l *lock) holders(name string) string {
	list, _ := os.ReadDir(name)
	var names []string
	for _, f := range list {
		names = append(names, f.Name())
	}
	if len(names) == 0 {
		return "somebody else"
	}
	return strings.Join(names, ", ")
}

// dropStale removes what processes of this machine have left behind that are
// gone, and reports whether that was all.
func (l *lock) dropStale(name string) bool {
	list, err := os.ReadDir(name)
	if err != nil {
		return false
	}
	for _, f := range list {
		host, process, ok := cutLast(f.Name(), ".")
		pid, _, _ := strings.Cut(process, "-")
		n, err := strconv.Atoi(pid)
		if !ok || err != nil || !l.gone(host, n) {
			return false
		}
		if err := os.Remove(filepath.Join(name, f.Name())); err != nil {
			return false
		}
	}
	return true
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// gone reports whether a process of this machine does not run any more.
func (l *lock) gone(host string, pid int) bool {
	return host == l.holder.Host && pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// enter checks that nobody reads, and notes who writes.
func (l *lock) enter() error {
	r := l.load()
	for _, kind := range []string{"shared", "exclusive"} {
		var left [][]any
		for _, who := range r[kind] {
			if host, pid, ok := rosterEntry(who); ok && l.gone(host, pid) {
				continue
			}
			left = append(left, who)
		}
		r[kind] = left
	}
	if n := len(r["shared"]); n > 0 {
		return fmt.Errorf("lock %s: %w by %d who read it, as %s says", l.dir, ErrLocked, n, rosterName)
	}
	r["exclusive"] = [][]any{{l.holder.Host, l.holder.PID, 0}}
	return l.save(r)
}

func rosterEntry(who []any) (host string, pid int, ok bool) {
	if len(who) != 3 {
		return "", 0, false
	}
	host, ok = who[0].(string)
	n, isNumber := who[1].(float64)
	return host, int(n), ok && isNumber
}

// load reads the roster; one that is missing or cannot be read is empty, as it is
// for borg.
func (l *lock) load() roster {
	r := make(roster)
	b, err := os.ReadFile(filepath.Join(l.dir, rosterName))
	if err != nil || json.Unmarshal(b, &r) != nil || r == nil {
		return make(roster)
	}
	return r
}

func (l *lock) save(r roster) error {
	for kind, list := range r {
		if len(list) == 0 {
			delete(r, kind)
		}
	}
	name := filepath.Join(l.dir, rosterName)
	if len(r) == 0 {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("note who has locked %s: %w", l.dir, err)
		}
		return nil
	}
	b, err := json.Marshal(r)
	if err == nil {
		err = os.WriteFile(name, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note who has locked %s: %w", l.dir, err)
	}
	return nil
}

func (l *lock) removeLock() error {
	name := filepath.Join(l.dir, lockName)
	err := os.Remove(filepath.Join(name, l.holder.fileName()))
	if err == nil {
		err = os.Remove(name)
	}
	if err != nil {
		return fmt.Errorf("unlock %s: %w", l.dir, err)
	}
	return nil
}

// release gives the lock back.
func (l *lock) release() error {
	r := l.load()
	delete(r, "exclusive")
	return errors.Join(l.save(r), l.removeLock())
}
