package cli

import (
	"context"
	"errors"
	"os"
	"os/user"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/restic"
	"github.com/bk-backup/bk/repo/store"
)

// openRestic opens a restic repository with the passphrase that restic's users
// have in their environment, or else ours.
func openRestic(ctx context.Context, app *App, place string, opts SourceOptions) (format.System, error) {
	if err := settings("restic", opts.Settings, nil); err != nil {
		return nil, err
	}
	st, err := openLocal(ctx, place)
	if err != nil {
		return nil, err
	}
	r, err := restic.Open(ctx, st, restic.Options{
		Passphrase: func(ctx context.Context) (string, error) {
			return app.Passphrase(ctx, SecretSource{Variables: opts.Role.secretsWith("RESTIC_PASSWORD"), Prompt: "passphrase for restic:" + place})
		},
		Log: app.Logger(),
	})
	if err == nil {
		return r, nil
	}
	st.Close()
	return nil, resticError(err)
}

// resticError says what to do about an error of a restic repository.
func resticError(err error) error {
	switch {
	case errors.Is(err, restic.ErrNoRepository):
		return &Error{Code: ExitNoRepository, Err: err, Fix: "check the place: it is the directory that has config, data, index, keys and snapshots"}
	case errors.Is(err, restic.ErrWrongPassphrase):
		return &Error{Code: ExitNoKey, Err: err, Fix: "check the passphrase: RESTIC_PASSWORD, RESTIC_PASSWORD_FILE, RESTIC_PASSWORD_COMMAND, the same of BK_PASSPHRASE, or what was typed"}
	case errors.Is(err, restic.ErrVersion):
		return &Error{Err: err, Fix: "use a newer bk for this repository"}
	}
	return err
}

// createRestic opens a restic repository for writing, or makes one.
func createRestic(ctx context.Context, app *App, place string, opts SinkOptions) (ForeignSink, error) {
	o, err := app.resticTarget(ctx, place, opts)
	if err != nil {
		return nil, err
	}
	st, err := openLocal(ctx, place)
	if isNoStorage(err) {
		st, err = store.Create(ctx, place, localSchemes())
	}
	if err != nil {
		return nil, err
	}
	s, err := restic.OpenSink(ctx, st, o)
	if err != nil {
		st.Close()
		return nil, resticError(err)
	}
	return resticSink{s}, nil
}

// resticSinkOptions are the keys of -o for a sink for restic.
var resticSinkOptions = []string{"chunker-from", "compression", "version"}

// resticTarget reads the options that a sink for restic has.
func (app *App) resticTarget(ctx context.Context, place string, opts SinkOptions) (restic.SinkOptions, error) {
	o := restic.SinkOptions{
		Strict: opts.Strict, Held: opts.Held, Log: app.Logger(), OnProgress: opts.OnProgress,
		Program: app.Name + " " + Version, PID: os.Getpid(), UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
		OnWarning: func(text string) { app.Warnf("%s", text) },
		OnLoss:    func(path string, err error) { app.Warnf("%s: %v", Printable("/"+path), err) },
	}
	o.Host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		o.User = u.Username
	}
	passphrase := ""
	asked := false
	o.Passphrase = func(ctx context.Context) (_ string, err error) {
		if !asked {
			passphrase, err = app.Passphrase(ctx, SecretSource{
				Variables: RoleTarget.secretsWith("RESTIC_PASSWORD"),
				Prompt:    "passphrase for restic:" + place,
			})
			asked = err == nil
		}
		return passphrase, err
	}
	var version, compression, from string
	if err := settings("restic", opts.Settings, keysOf(resticSinkOptions, &from, &compression, &version)); err != nil {
		return o, err
	}
	if from != "" {
		var err error
		if o.Polynomial, err = app.resticPolynomial(ctx, from); err != nil {
			return o, err
		}
	}
	switch version {
	case "":
	case "1", "2":
		o.Version = int(version[0] - '0')
	default:
		return o, Usagef("-o version=%s: restic has the formats 1 and 2", version)
	}
	if compression != "" {
		var err error
		if o.Compression, err = format.ParseLevel(LevelText(compression)); err != nil {
			return o, Usagef("-o compression: %w", err)
		}
	}
	var err error
	o.Recut, err = resticRecuts(opts.Chunker)
	return o, err
}

// resticRecuts reports whether a --chunker has content cut anew.
func resticRecuts(chunker []string) (bool, error) {
	switch {
	case len(chunker) == 0 || slices.Equal(chunker, []string{"keep"}):
		return false, nil
	case slices.Equal(chunker, []string{"rabin"}) || slices.Equal(chunker, []string{"target"}):
		return true, nil
	}
	return false, Usagef("--chunker: a restic repository takes keep, which is the default, or rabin, with its own polynomial")
}

// resticPolynomial returns the polynomial of another restic repository.
func (app *App) resticPolynomial(ctx context.Context, url string) (uint64, error) {
	scheme, place := store.SplitLocation(url)
	if scheme != "restic" {
		return 0, Usagef("-o chunker-from: a polynomial is taken over from a restic repository, restic:PATH, not from %q", url)
	}
	system, err := openRestic(ctx, app, place, SourceOptions{Role: RoleSource})
	if err != nil {
		return 0, err
	}
	defer system.Close()
	cuts, err := resticCuts(ctx, system)
	return cuts.Keys.Polynomial, err
}

// resticCuts says how restic cuts files in a repository.
func resticCuts(_ context.Context, system format.System) (cuts Cuts, err error) {
	cuts.Spec = chunker.ResticRabin
	cuts.Keys.Polynomial, err = system.(*restic.Repository).Polynomial()
	return cuts, err
}

type resticSink struct{ *restic.Sink }

func (s resticSink) Sums() ForeignSums {
	w := s.Summary()
	return ForeignSums{Snapshots: w.Snapshots, Held: w.Held, Entries: w.Entries, Bytes: w.Bytes, New: w.New, Stored: w.Stored, Losses: w.Losses}
}
