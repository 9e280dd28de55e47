package cli

import (
	"context"
	"errors"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/restic"
)

// openRestic opens a restic repository with the passphrase that restic's users
// have in their environment, or else ours.
func openRestic(ctx context.Context, app *App, place string, opts SourceOptions) (format.System, error) {
	if err := settings("restic", opts.Settings, nil); err != nil {
		return nil, err
	}
	st, err := openStore(ctx, place)
	if err != nil {
		return nil, err
	}
	r, err := restic.Open(ctx, st, restic.Options{
		Passphrase: func(ctx context.Context) (string, error) {
			return app.Passphrase(ctx, SecretSource{Variables: []string{"RESTIC_PASSWORD", "BK_PASSPHRASE"}, Prompt: "passphrase for restic:" + place})
		},
		Log: app.Logger(),
	})
	if err == nil {
		return r, nil
	}
	st.Close()
	switch {
	case errors.Is(err, restic.ErrNoRepository):
		return nil, &Error{Code: ExitNoRepository, Err: err, Fix: "check the place: it is the directory that has config, data, index, keys and snapshots"}
	case errors.Is(err, restic.ErrWrongPassphrase):
		return nil, &Error{Code: ExitNoKey, Err: err, Fix: "check the passphrase: RESTIC_PASSWORD, RESTIC_PASSWORD_FILE, RESTIC_PASSWORD_COMMAND, the same of BK_PASSPHRASE, or what was typed"}
	case errors.Is(err, restic.ErrVersion):
		return nil, &Error{Err: err, Fix: "use a newer bk for this repository"}
	}
	return nil, err
}
