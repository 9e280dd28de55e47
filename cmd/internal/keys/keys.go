// Package keys is what bk-key does: the credentials that open a repository, and
// new keys for what is written from then on.
// Start at Keys. Only that program imports it.
package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/keyring"
)

// Keys is the program bk-key.
type Keys struct {
	cli.RepoFlags `embed:""`

	List       list       `cmd:"" help:"List the credentials, each of which opens the repository."`
	Add        add        `cmd:"" help:"Add a passphrase; the others still open."`
	Remove     remove     `cmd:"" help:"Remove a credential. The last one stays."`
	Passphrase passphrase `cmd:"" help:"Change the passphrase that the repository is opened with."`
	Rotate     rotate     `cmd:"" help:"Begin to use new keys for all that is written; bk-gc --reseal moves the rest."`
}

// New returns the program.
func New() *Keys {
	k := new(Keys)
	k.List.flags, k.Add.flags, k.Remove.flags, k.Passphrase.flags = &k.RepoFlags, &k.RepoFlags, &k.RepoFlags, &k.RepoFlags
	k.Rotate.flags = &k.RepoFlags
	return k
}

// Help is the longer text.
func (*Keys) Help() string {
	return `The repository is opened with BK_PASSPHRASE, BK_PASSPHRASE_FILE or BK_PASSPHRASE_COMMAND, or one asks on the terminal. A new passphrase comes from BK_NEW_PASSPHRASE, BK_NEW_PASSPHRASE_FILE or BK_NEW_PASSPHRASE_COMMAND, or is asked for twice.

Removing or changing a passphrase shuts out who has only that, and nobody who copied the repository before, or its keys: against them, rotate --revoke replaces the keys. What is there already is moved under the new keys by bk-gc --reseal. What somebody copied before that stays readable to them.

  bk-key add --name "in the safe"
  bk-key remove 5f0c
  bk-key rotate --revoke`
}

// newPassphrase finds the passphrase of a new credential.
func newPassphrase(ctx context.Context, app *cli.App) (keyring.Kind, error) {
	text, err := app.Passphrase(ctx, cli.SecretSource{Variables: []string{"BK_NEW_PASSPHRASE"}, Prompt: "new passphrase", Twice: true})
	if err != nil {
		return nil, err
	}
	return keyring.Passphrase(text, keyring.Argon2{}), nil
}

type list struct{ flags *cli.RepoFlags }

// Run lists the credentials.
func (c *list) Run(ctx context.Context, app *cli.App) error {
	editor, err := app.OpenKeys(ctx, c.flags)
	if err != nil {
		return err
	}
	defer editor.Store.Close()
	all, err := editor.Keyring.ListCredentials(ctx, editor.Store)
	if err != nil {
		return err
	}
	var rows [][]string
	for i := range all {
		cred := &all[i]
		if cred.Err != nil {
			app.Warnf("credential %s cannot be read: %v", cred.ID, cred.Err)
			app.Lossy()
			continue
		}
		if app.JSON {
			if err := json.NewEncoder(app.Stdout).Encode(credentialJSON(cred)); err != nil {
				return err
			}
			continue
		}
		used := ""
		if cred.Used {
			used = "*"
		}
		made := format.TimeOf(cred.Created)
		rows = append(rows, []string{used, cred.ID.String()[:8], cred.Kind, cli.TimeText(&made), cli.Printable(cred.Name)})
	}
	if app.JSON {
		return nil
	}
	return cli.Table(app.Stdout, []string{"", "ID", "KIND", "MADE", "NAME"}, rows, nil)
}

func credentialJSON(c *keyring.Credential) map[string]any {
	object := map[string]any{
		"id": c.ID.String(), "client": c.Client.String(), "kind": c.Kind, "used": c.Used,
		"created": cli.TimeJSON(format.TimeOf(c.Created)),
	}
	if c.Name != "" {
		cli.JSONName(object, "name", c.Name)
	}
	return object
}

type add struct {
	flags *cli.RepoFlags

	Name string `placeholder:"TEXT" help:"What the credential is called, for people."`
}

// Run adds a passphrase.
func (c *add) Run(ctx context.Context, app *cli.App) error {
	editor, err := app.OpenKeys(ctx, c.flags)
	if err != nil {
		return err
	}
	defer editor.Store.Close()
	kind, err := newPassphrase(ctx, app)
	if err != nil {
		return err
	}
	id, err := editor.AddCredential(ctx, c.Name, kind)
	if err != nil {
		return err
	}
	return say(app, id, "added credential %s")
}

// say prints the id on standard output for programs, a sentence for people.
func say(app *cli.App, id keyring.CredentialID, text string) error {
	if app.JSON {
		return json.NewEncoder(app.Stdout).Encode(map[string]string{"id": id.String()})
	}
	app.Sayf(text, id.String()[:8])
	return nil
}

type remove struct {
	flags *cli.RepoFlags

	ID string `arg:"" name:"ID" help:"The beginning of the credential's id, as bk-key list shows it."`
}

// Run removes a credential.
func (c *remove) Run(ctx context.Context, app *cli.App) error {
	editor, err := app.OpenKeys(ctx, c.flags)
	if err != nil {
		return err
	}
	defer editor.Store.Close()
	all, err := editor.Keyring.ListCredentials(ctx, editor.Store)
	if err != nil {
		return err
	}
	id, err := find(all, c.ID)
	if err != nil {
		return &cli.Error{Err: err, Fix: "run bk-key list"}
	}
	if err := editor.RemoveCredential(ctx, id); err != nil {
		if errors.Is(err, keyring.ErrLastCredential) {
			return &cli.Error{Err: err, Fix: "add another one first with bk-key add"}
		}
		if errors.Is(err, keyring.ErrInUse) {
			return &cli.Error{Err: err, Fix: "open the repository with the one that is to stay, and remove this one then"}
		}
		return err
	}
	return say(app, id, "removed credential %s")
}

// find returns the credential whose id begins so.
func find(all []keyring.Credential, prefix string) (id keyring.CredentialID, err error) {
	found := 0
	for i := range all {
		if strings.HasPrefix(all[i].ID.String(), strings.ToLower(prefix)) {
			id = all[i].ID
			found++
		}
	}
	switch {
	case found == 0 || prefix == "":
		return id, fmt.Errorf("no credential's id begins with %q", prefix)
	case found > 1:
		return id, fmt.Errorf("the ids of %d credentials begin with %q", found, prefix)
	}
	return id, nil
}

type passphrase struct{ flags *cli.RepoFlags }

// Run changes the passphrase.
func (c *passphrase) Run(ctx context.Context, app *cli.App) error {
	editor, err := app.OpenKeys(ctx, c.flags)
	if err != nil {
		return err
	}
	defer editor.Store.Close()
	kind, err := newPassphrase(ctx, app)
	if err != nil {
		return err
	}
	id, err := editor.ChangePassphrase(ctx, kind)
	if err != nil {
		return err
	}
	return say(app, id, "changed the passphrase; its credential is now %s")
}
