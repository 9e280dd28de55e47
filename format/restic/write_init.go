package restic

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/repo/store"
)

// openOrCreate opens the repository in st for writing, or makes one where there
// is nothing.
func openOrCreate(ctx context.Context, st store.Store, opts *SinkOptions) (*Repository, error) {
	open := Options{Passphrase: opts.Passphrase, Log: opts.Log, Workers: opts.Workers}
	r, err := Open(ctx, st, open)
	if err == nil && opts.Version != 0 && opts.Version != r.Version() {
		return nil, fmt.Errorf("%s has format %d already, and is not changed to %d; restic's own migrate can do that", r, r.Version(), opts.Version)
	}
	if !errors.Is(err, ErrNoRepository) {
		return r, err
	}
	switch _, configErr := st.Stat(ctx, "config"); {
	case configErr == nil:
		return nil, err // it has no keys
	case !errors.Is(configErr, store.ErrNotFound):
		return nil, configErr
	}
	if err := create(ctx, st, opts); err != nil {
		return nil, fmt.Errorf("make a restic repository in %s: %w", st, err)
	}
	return Open(ctx, st, open)
}

// create writes a key and then the configuration, as restic does. If that was
// interrupted between the two the key is taken that is there: a second one would
// open other master keys by the same passphrase.
func create(ctx context.Context, st store.Store, opts *SinkOptions) error {
	hasKey := false
	err := st.List(ctx, "", func(info store.Info) error {
		_, isID := objectID(info.Name)
		if !isID || !strings.HasPrefix(info.Name, "keys/") {
			return fmt.Errorf("there is something else already, %q", info.Name)
		}
		hasKey = true
		return nil
	})
	if err != nil {
		return err
	}
	passphrase, err := opts.Passphrase(ctx)
	if err != nil {
		return err
	}
	var ks *keys
	if hasKey {
		if ks, err = findKeys(ctx, st, passphrase, opts.Log); err != nil {
			return fmt.Errorf("it was begun before, with another passphrase: %w", err)
		}
	} else if ks, err = createKey(ctx, st, passphrase, opts); err != nil {
		return err
	}
	config, err := newConfig(opts)
	if err != nil {
		return err
	}
	plain, err := json.Marshal(config)
	if err != nil {
		return err
	}
	sealed, err := ks.seal(nil, plain, opts.Rand)
	if err != nil {
		return err
	}
	return st.Create(ctx, "config", sealed)
}

func createKey(ctx context.Context, st store.Store, passphrase string, opts *SinkOptions) (*keys, error) {
	work := opts.keyWork
	if work == 0 {
		work = newKeyN
	}
	ks, file, err := newKeyFile(passphrase, opts.User, opts.Host, opts.Now(), opts.Rand, work)
	if err != nil {
		return nil, err
	}
	return ks, st.Create(ctx, "keys/"+format.SumID(file).String(), file)
}

func newConfig(opts *SinkOptions) (config, error) {
	version := opts.Version
	if version == 0 {
		version = 2
	}
	if version != 1 && version != 2 {
		return config{}, fmt.Errorf("there is no format %d: 1 and 2 are known", version)
	}
	var id format.ID
	if _, err := io.ReadFull(opts.Rand, id[:]); err != nil {
		return config{}, fmt.Errorf("draw the repository's id: %w", err)
	}
	polynomial := opts.Polynomial
	if polynomial == 0 {
		var err error
		if polynomial, err = chunker.NewPolynomial(opts.Rand); err != nil {
			return config{}, err
		}
	}
	return config{Version: version, ID: hex.EncodeToString(id[:]), Polynomial: strconv.FormatUint(polynomial, 16)}, nil
}
