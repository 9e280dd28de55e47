package cli

import (
	"context"
	"fmt"
	"net/url"

	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/dir"
	"github.com/bk-backup/bk/repo/store/httpstore"
)

// storageSchemes are the kinds of storage that a repository of bk can lie on.
func (app *App) storageSchemes(role Role) store.Schemes {
	open := func(scheme string) func(context.Context, string) (store.Store, error) {
		return func(ctx context.Context, rest string) (store.Store, error) {
			return app.openServer(ctx, scheme+":"+rest, role)
		}
	}
	schemes := localSchemes()
	for _, scheme := range []string{"http", "https"} {
		// A server makes no storage: repo.Init finds out whether it is empty.
		schemes[scheme] = store.Scheme{Open: open(scheme), Create: open(scheme)}
	}
	return schemes
}

// localSchemes are the kinds of storage that a repository of another system can
// lie on.
func localSchemes() store.Schemes { return store.Schemes{"file": dir.Scheme(dir.Options{})} }

// openLocal opens the storage of a repository of another system.
func openLocal(ctx context.Context, place string) (store.Store, error) {
	return store.Open(ctx, place, localSchemes())
}

// openServer opens the storage behind a server. The first answer is waited for
// once; what fails later is tried again for some time.
func (app *App) openServer(ctx context.Context, place string, role Role) (store.Store, error) {
	token, _, err := fromEnvironment(ctx, "token", role.tokens)
	if err != nil {
		return nil, err
	}
	st, err := httpstore.Open(ctx, place, httpstore.Options{Token: token})
	if err != nil {
		return nil, err
	}
	return store.Retry(st, store.Policy{Log: app.Logger()}), nil
}

// shown is a place as people may see it: without a token.
func shown(place string) string {
	if u, err := url.Parse(place); err == nil && u.User != nil {
		return u.Redacted()
	}
	return place
}

// repositoryPlace refuses what is the place of something else than a repository
// of bk.
func repositoryPlace(op, place string) error {
	switch system, rest := store.SplitLocation(place); system {
	case "", "file", "http", "https":
		return nil
	default:
		e := &Error{Code: ExitUsage, Op: op + " " + place, Err: fmt.Errorf("this needs a repository of bk, and %q is not a place where one can lie", system+":"+rest)}
		if _, known := foreign[system]; known {
			e.Err = fmt.Errorf("this needs a repository of bk, not of %s", system)
			e.Fix = "read other systems with bk-export, bk-sync, bk-restore, bk-ls, bk-find, bk-diff, bk-cat or bk-snapshots, and write them with bk-import or bk-sync"
		}
		return e
	}
}
