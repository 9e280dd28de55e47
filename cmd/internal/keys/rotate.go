package keys

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/repo/keyring"
)

type rotate struct {
	flags *cli.RepoFlags

	Revoke bool   `help:"Shut out whoever has the keys of now: only a new passphrase opens the repository afterwards, and every other credential is removed."`
	Name   string `placeholder:"TEXT" help:"With --revoke, what the new credential is called."`
}

// Run begins a new epoch.
func (c *rotate) Run(ctx context.Context, app *cli.App) error {
	if c.Name != "" && !c.Revoke {
		return cli.Usagef("--name names the credential that --revoke makes")
	}
	editor, err := app.OpenKeys(ctx, c.flags)
	if err != nil {
		return err
	}
	defer editor.Store.Close()
	object := map[string]any{}
	if c.Revoke {
		kind, err := newPassphrase(ctx, app)
		if err != nil {
			return err
		}
		id, err := editor.Revoke(ctx, c.Name, kind)
		if err != nil {
			return conflict(err)
		}
		object["credential"] = id.String()
	} else if _, err := editor.AddEpoch(ctx, editor.Keyring.Own().ID); err != nil {
		return conflict(err)
	}
	epoch, _ := editor.Keyring.Own().CurrentEpoch()
	if object["epoch"] = epoch; app.JSON {
		return json.NewEncoder(app.Stdout).Encode(object)
	}
	if c.Revoke {
		app.Sayf("only the new passphrase opens the repository now")
	}
	app.Sayf("what is written from now on is sealed under new keys, number %d; bk-gc --reseal moves what is there already", epoch)
	return nil
}

// conflict says what to do if somebody else changed the keys meanwhile.
func conflict(err error) error {
	if errors.Is(err, keyring.ErrConflict) {
		return &cli.Error{Err: err, Fix: "look at bk-key list, and run the same again if it is still needed"}
	}
	return err
}
