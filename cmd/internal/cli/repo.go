package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// RepoFlags name the repository that a program works on.
type RepoFlags struct {
	Repo     string `short:"r" placeholder:"URL" help:"Repository: ${places}. Default: $$BK_REPO."`
	CacheDir string `placeholder:"DIR" env:"BK_CACHE_DIR" help:"Where to cache the index. Default: the user's cache directory; 'none' for no cache."`
}

// location returns the URL, looking at the given variables where the flag is
// not set.
func (f *RepoFlags) location(variables ...string) (string, error) {
	if f.Repo != "" {
		return f.Repo, nil
	}
	for _, v := range variables {
		if url := os.Getenv(v); url != "" {
			return url, nil
		}
	}
	return "", &Error{Code: ExitUsage, Err: errors.New("no repository is named"),
		Fix: "give -r, or set " + strings.Join(variables, " or ")}
}

// Role is what a program wants a repository for: the variables where its place,
// its passphrase and a server's token may stand, the more special ones first.
type Role struct {
	places  []string
	secrets []string
	tokens  []string
}

// The roles.
var (
	RoleSource = Role{[]string{"BK_REPO"}, []string{"BK_PASSPHRASE"}, []string{"BK_SERVER_TOKEN"}}
	RoleTarget = Role{[]string{"BK_IMPORT_REPO", "BK_REPO"}, []string{"BK_IMPORT_PASSPHRASE", "BK_PASSPHRASE"}, []string{"BK_IMPORT_SERVER_TOKEN", "BK_SERVER_TOKEN"}}
	RoleFrom   = Role{nil, []string{"BK_FROM_PASSPHRASE", "BK_PASSPHRASE"}, []string{"BK_FROM_SERVER_TOKEN", "BK_SERVER_TOKEN"}}
)

// secretsWith are the variables for a passphrase of a system that has one of its
// own for that, which comes before ours for everything.
func (r Role) secretsWith(own string) []string {
	return slices.Insert(slices.Clone(r.secrets), len(r.secrets)-1, own)
}

// OpenRepo opens a bk repository.
func (app *App) OpenRepo(ctx context.Context, f *RepoFlags, role Role) (*repo.Repository, error) {
	st, secrets, err := app.openStorage(ctx, f, role)
	if err != nil {
		return nil, err
	}
	r, err := repo.Open(ctx, st, secrets, app.repoOptions(f))
	if err != nil {
		st.Close()
		return nil, err
	}
	// The 64 MiB that deriving the key took are garbage by now. Collected at once
	// they serve what follows; otherwise the heap grows beside them.
	runtime.GC()
	return r, nil
}

// OpenKeys opens the keys of a bk repository and nothing else of it. The caller
// closes the editor's store.
func (app *App) OpenKeys(ctx context.Context, f *RepoFlags) (*keyring.Editor, error) {
	st, secrets, err := app.openStorage(ctx, f, RoleSource)
	if err != nil {
		return nil, err
	}
	keys, err := keyring.Open(ctx, st, secrets)
	if err != nil {
		st.Close()
		return nil, fmt.Errorf("open the keys of %s: %w", st, err)
	}
	return &keyring.Editor{Keyring: keys, Store: st}, nil
}

// OpenStorage opens the storage of a bk repository without its keys.
func (app *App) OpenStorage(ctx context.Context, f *RepoFlags, role Role) (store.Store, error) {
	st, _, err := app.openStorage(ctx, f, role)
	return st, err
}

// openStorage opens the storage of a bk repository, and says where a passphrase
// for it comes from.
func (app *App) openStorage(ctx context.Context, f *RepoFlags, role Role) (store.Store, keyring.Secrets, error) {
	url, err := f.location(role.places...)
	if err != nil {
		return nil, keyring.Secrets{}, err
	}
	if err := repositoryPlace("open", url); err != nil {
		return nil, keyring.Secrets{}, err
	}
	st, err := store.Open(ctx, url, app.storageSchemes(role))
	if err != nil {
		return nil, keyring.Secrets{}, err
	}
	return st, keyring.Secrets{Passphrase: func(ctx context.Context) (string, error) {
		return app.Passphrase(ctx, SecretSource{Variables: role.secrets, Prompt: "passphrase for " + shown(url)})
	}}, nil
}

func (app *App) repoOptions(f *RepoFlags) repo.Options {
	host, _ := os.Hostname()
	opts := repo.Options{Program: app.Name + " " + Version, Host: host, Log: app.Logger()}
	switch f.CacheDir {
	case "none":
	case "":
		if base, err := os.UserCacheDir(); err == nil {
			opts.CacheDir = filepath.Join(base, "bk")
		} else if !app.toldNoCache {
			app.toldNoCache = true
			app.Warnf("there is no place for a cache, and the whole index is read: %v", err)
			app.Warnf("to fix: name one with --cache-dir; --cache-dir none is for no cache")
		}
	default:
		opts.CacheDir = f.CacheDir
	}
	return opts
}

// OpenSystem opens whatever the flags name for reading: a bk repository or
// another system's.
func (app *App) OpenSystem(ctx context.Context, f *SourceFlags) (format.System, error) {
	return app.OpenSystemAs(ctx, f, RoleSource)
}

// OpenSystemAs is OpenSystem for another role than the source.
func (app *App) OpenSystemAs(ctx context.Context, f *SourceFlags, role Role) (format.System, error) {
	url, err := f.location(role.places...)
	if err != nil {
		return nil, err
	}
	scheme, rest := store.SplitLocation(url)
	pairs := f.settings()
	switch system, ok := foreign[scheme]; {
	case ok && system.open == nil:
		return nil, &Error{Code: ExitUsage, Op: "read " + url, Err: fmt.Errorf("%s can be written, not read", scheme)}
	case ok:
		limitMemory(memoryForeignMax)
		return system.open(ctx, app, rest, SourceOptions{Settings: pairs, Role: role})
	case len(pairs) > 0:
		return nil, Usagef("-o %s: this is for other systems than bk", pairs[0])
	}
	return app.OpenRepo(ctx, &f.RepoFlags, role)
}

// repositoryExitCode knows the errors of the repository packages.
func repositoryExitCode(err error) int {
	switch {
	case errors.Is(err, keyring.ErrNoRepository), isNoStorage(err):
		return ExitNoRepository
	case errors.Is(err, keyring.ErrNoKeyFits):
		return ExitNoKey
	}
	return ExitFailed
}

// isNoStorage reports whether there is nothing at the place of a repository.
func isNoStorage(err error) bool {
	var se *store.Error
	return errors.As(err, &se) && se.Name == "" && errors.Is(err, store.ErrNotFound)
}

// repositoryFix knows what to do about them.
func repositoryFix(err error) string {
	var se *store.Error
	switch {
	case errors.Is(err, repo.ErrNoCache):
		return "make room there, or name other directories: with --cache-dir, and for temporary files with TMPDIR"
	case errors.Is(err, keyring.ErrConfigGone), errors.Is(err, keyring.ErrNoCredentials):
		return "put config/ and credentials/ back from another copy of this repository, as they are there; without them nothing can be read"
	case errors.Is(err, keyring.ErrNoRepository):
		return "check the place, or make a repository there with bk-init"
	case errors.Is(err, keyring.ErrNoKeyFits):
		return "check the passphrase: BK_PASSPHRASE, BK_PASSPHRASE_FILE, BK_PASSPHRASE_COMMAND or what was typed"
	case errors.Is(err, seal.ErrVersion):
		return "use a newer bk for this repository"
	case errors.As(err, &se) && se.Fix != "":
		return se.Fix
	case errors.Is(err, repo.ErrCollected), errors.Is(err, repo.ErrFenced), errors.Is(err, repo.ErrOutrun):
		return "run the same again: what was stored and is still there is not sent twice"
	case errors.Is(err, repo.ErrRolledBack):
		return rollbackFix
	case errors.Is(err, store.ErrFull):
		return "make room on the storage and run the same again: what is there already is not sent twice"
	case errors.Is(err, repo.ErrReadable):
		return "to remove it all the same, run bk-forget with its id"
	case errors.Is(err, repo.ErrUnreadable) && errors.Is(err, seal.ErrDamaged):
		return "run " + UnreadableFix
	case errors.Is(err, seal.ErrDamaged), errors.Is(err, repo.ErrMissing):
		return "restore that object from another copy of the repository, or run bk-repair; everything that does not need it still restores"
	}
	return ""
}

// cacheFix is what to do about a cache that cannot be written.
const cacheFix = "make room there, or name another directory with --cache-dir; --cache-dir none is for no cache"

// UnreadableFix is what to do about a damaged snapshot, as the end of a sentence.
const UnreadableFix = "bk-repair --from with a copy of this repository, which brings a damaged snapshot back; or, if there is no copy, bk-repair --give-up with the name of its object, which gives it up, so that bk-gc works again"

// rollbackFix is what to do about storage that went back.
const rollbackFix = "look at the storage, and for another copy of the repository; if you put an older copy in place on purpose, run bk-check --accept-rollback"

// WarnDamage names a snapshot that cannot be read, or that storage hides. The
// latter is not over when a backup succeeds: the exit code says so to whoever
// reads no messages.
func (app *App) WarnDamage(d repo.Damage) {
	app.Warnf("%s cannot be read: %v", d.Name, d.Err)
	if errors.Is(d.Err, repo.ErrRolledBack) {
		app.Warnf("to fix: %s", rollbackFix)
		app.Lossy()
	}
}

// ParseTime reads a moment as people write it: RFC 3339, or a date with or
// without a time of day in local time.
func ParseTime(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("time %q is neither a date like 2026-11-30, with or without a time like 17:05:00, nor RFC 3339", text)
}

// InitRepo makes a repository and opens it.
func (app *App) InitRepo(ctx context.Context, f *RepoFlags, init keyring.InitOptions) (*repo.Repository, error) {
	url, err := f.location(RoleSource.places...)
	if err != nil {
		return nil, err
	}
	if err := repositoryPlace("make a repository in", url); err != nil {
		return nil, err
	}
	init.Passphrase, err = app.Passphrase(ctx, SecretSource{Variables: RoleSource.secrets, Prompt: "new passphrase for " + shown(url), Twice: true})
	if err != nil {
		return nil, err
	}
	st, err := store.Create(ctx, url, app.storageSchemes(RoleSource))
	if err != nil {
		return nil, err
	}
	r, err := repo.Init(ctx, st, init, app.repoOptions(f))
	if err != nil {
		st.Close()
		return nil, err
	}
	return r, nil
}

// LevelText takes the "zstd:" off a compression as flags have it.
func LevelText(s string) string { return strings.TrimPrefix(s, "zstd:") }

// Compression returns the level for plain content, and whether content that is
// compressed already is to be compressed anew: what the flag says, or the
// repository's setting.
func (app *App) Compression(r *repo.Repository, flag string) (level format.Level, again bool, err error) {
	text := flag
	if text == "" || text == "keep" {
		text = r.Keyring().Own().Compression
	}
	level, err = format.ParseLevel(LevelText(text))
	if err != nil {
		return 0, false, Usagef("--compression: %w", err)
	}
	return level, flag != "" && flag != "keep", nil
}
