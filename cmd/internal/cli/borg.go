package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/borg"
)

// openBorg opens a borg repository with what borg's users have in their
// environment. The option archives, or PATH::NAME as borg has it, chooses archives
// by their names, with * and ?; otherwise all count but for checkpoints.
func openBorg(ctx context.Context, app *App, place string, source SourceOptions) (format.System, error) {
	place, pattern, chosen := strings.Cut(place, "::")
	if !chosen {
		pattern = unset
	}
	if err := settings("borg", source.Settings, map[string]*string{"archives": &pattern}); err != nil {
		return nil, err
	}
	opts := borgOptions(app, place, source.Role)
	opts.OnError = func(archive string, err error) {
		app.Lossy()
		app.Warnf("archive %s cannot be read: %v", Printable(archive), err)
	}
	if pattern != unset {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, Usagef("the names of archives %q: %w", pattern, err)
		}
		opts.Archives = func(name string) bool {
			ok, _ := path.Match(pattern, name)
			return ok || name == pattern
		}
	}
	st, err := openLocal(ctx, place)
	if err != nil {
		return nil, err
	}
	r, err := borg.Open(ctx, st, opts)
	if err == nil {
		return r, nil
	}
	st.Close()
	return nil, borgError(err)
}

// borgOptions are what opens a borg repository.
func borgOptions(app *App, place string, role Role) borg.Options {
	return borg.Options{
		Passphrase: func(ctx context.Context) (string, error) { return borgPassphrase(ctx, app, place, role) },
		KeyFile:    func(_ context.Context, id string) ([]byte, error) { return borgKeyFile(id) },
		Log:        app.Logger(),
	}
}

// borgCuts says how borg cuts files in a repository.
func borgCuts(ctx context.Context, system format.System) (cuts Cuts, err error) {
	cuts.Keys.HasSeed = true
	cuts.Spec, cuts.Keys.Seed, err = system.(*borg.Repository).Cuts(ctx)
	return cuts, borgError(err)
}

// borgError says what to do about an error of a borg repository.
func borgError(err error) error {
	switch {
	case errors.Is(err, borg.ErrNoRepository):
		return &Error{Code: ExitNoRepository, Err: err, Fix: "check the place: it is the directory that has config and data; one behind ssh has to be mounted, with sshfs for example"}
	case errors.Is(err, borg.ErrWrongPassphrase):
		return &Error{Code: ExitNoKey, Err: err, Fix: "check the passphrase: BORG_PASSPHRASE, BORG_PASSCOMMAND, BORG_PASSPHRASE_FD, those of BK_PASSPHRASE, or what was typed"}
	case errors.Is(err, borg.ErrNoKeyFile):
		return &Error{Code: ExitNoKey, Err: err, Fix: "set BORG_KEY_FILE, or BORG_KEYS_DIR, to where borg keeps the key of this repository; borg key export writes one"}
	case errors.Is(err, borg.ErrQuota):
		return &Error{Err: err, Fix: "make room with borg prune and borg compact, or let it take more: borg config REPOSITORY storage_quota 100G; then run the same again"}
	case errors.Is(err, borg.ErrLocked):
		return &Error{Err: err, Fix: "wait until the other one is done; if it is not running any more, remove its lock with borg break-lock"}
	case errors.Is(err, borg.ErrCuts):
		return &Error{Err: err, Fix: "leave --chunker-from out, and name a splitter with --chunker; or let borg make one more archive with its usual parameters"}
	case errors.Is(err, borg.ErrVersion):
		return &Error{Err: err, Fix: "use a newer bk for this repository, or for one of Borg 2 borg itself"}
	}
	return err
}

// borgPassphrase finds a passphrase where borg looks for it, and then where we
// do.
func borgPassphrase(ctx context.Context, app *App, place string, role Role) (string, error) {
	src := SecretSource{Variables: role.secretsWith("BORG_PASSPHRASE"), Prompt: "passphrase for borg:" + place}
	for _, name := range src.Variables[:len(src.Variables)-1] {
		for _, suffix := range []string{"", "_FILE", "_COMMAND"} {
			if _, ok := os.LookupEnv(name + suffix); ok {
				return app.Passphrase(ctx, src)
			}
		}
	}
	if command, ok := os.LookupEnv("BORG_PASSCOMMAND"); ok {
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return "", &Error{Op: "run the command in BORG_PASSCOMMAND", Err: err}
		}
		return strings.TrimRight(string(out), "\n"), nil
	}
	if text, ok := os.LookupEnv("BORG_PASSPHRASE_FD"); ok {
		fd, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return "", &Error{Op: "read a passphrase from BORG_PASSPHRASE_FD", Err: err}
		}
		f := os.NewFile(uintptr(fd), "BORG_PASSPHRASE_FD")
		if f == nil {
			return "", &Error{Op: "read a passphrase from BORG_PASSPHRASE_FD", Err: fmt.Errorf("there is no file %d", fd)}
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, 1<<20))
		if err != nil {
			return "", &Error{Op: "read a passphrase from BORG_PASSPHRASE_FD", Err: err}
		}
		return strings.TrimRight(string(b), "\n"), nil
	}
	return app.Passphrase(ctx, src)
}

// borgKeyFile finds the key file of a repository: what BORG_KEY_FILE names, or
// the one among borg's keys that begins with the repository's id.
func borgKeyFile(id string) ([]byte, error) {
	if name := os.Getenv("BORG_KEY_FILE"); name != "" {
		return os.ReadFile(name)
	}
	dir, err := borgKeysDir()
	if err != nil {
		return nil, err
	}
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("look for key files: %w", err)
	}
	for _, entry := range list {
		name := filepath.Join(dir, entry.Name())
		if ok, err := beginsWith(name, borg.KeyFileHead(id)); err != nil || !ok {
			continue
		}
		return os.ReadFile(name)
	}
	return nil, fmt.Errorf("no file in %s is that of %s: %w", dir, id, borg.ErrNoKeyFile)
}

// beginsWith reports whether a file's first line is line.
func beginsWith(name, line string) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	first, err := bufio.NewReader(io.LimitReader(f, 1<<10)).ReadString('\n')
	if err != nil && err != io.EOF {
		return false, err
	}
	return strings.TrimSpace(first) == line, nil
}

// borgKeysDir returns where borg keeps key files.
func borgKeysDir() (string, error) {
	if dir := os.Getenv("BORG_KEYS_DIR"); dir != "" {
		return dir, nil
	}
	dir, err := borgConfigDir()
	if err != nil {
		return "", fmt.Errorf("look for borg's keys: %w", err)
	}
	return filepath.Join(dir, "keys"), nil
}

// borgConfigDir returns where borg keeps what it must not lose.
func borgConfigDir() (string, error) {
	if dir := os.Getenv("BORG_CONFIG_DIR"); dir != "" {
		return dir, nil
	}
	if dir := os.Getenv("BORG_BASE_DIR"); dir != "" {
		return filepath.Join(dir, ".config", "borg"), nil
	}
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "borg"), err
}
