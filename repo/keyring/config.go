package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// featuresKnown are the features of a repository that this program implements;
// the first version of the format has none.
var featuresKnown []string

// config is a config object (spec/repository.md, 3).
type config struct {
	repository seal.RepositoryID
	suite      seal.Suite // of new objects
	created    time.Time
	forRead    []string // features that a reader must know
	forWrite   []string // features that a writer must know
}

type configBody struct {
	Created       stamp    `msgpack:"created"`
	FeaturesRead  []string `msgpack:"features_read,omitempty"`
	FeaturesWrite []string `msgpack:"features_write,omitempty"`
}

func (c *config) seal(rand io.Reader) ([]byte, error) {
	h := seal.Header{Kind: seal.KindConfig, Suite: c.suite, Repository: c.repository}
	if _, err := io.ReadFull(rand, h.Salt[:]); err != nil {
		return nil, fmt.Errorf("draw the salt of a config: %w", err)
	}
	object := h.Append(nil)
	object = append(object, mp.Encode(&configBody{stampOf(c.created), c.forRead, c.forWrite})...)
	return seal.AppendSum(object), nil
}

func parseConfig(name string, stored []byte) (*config, error) {
	want := seal.Expect{Name: name, Kind: seal.KindConfig}
	if h, err := seal.ParseHeader(stored); err == nil {
		want.Repository = h.Repository // nothing else says which repository this is
	}
	content, h, err := seal.ParseObject(stored, want)
	if err != nil {
		return nil, err
	}
	var body configBody
	if err := mp.Decode(content, &body); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	c := &config{repository: h.Repository, suite: h.Suite, forRead: body.FeaturesRead, forWrite: body.FeaturesWrite}
	if c.created, err = body.Created.time(); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return c, nil
}

// unknown says which of the features this program does not know.
func unknown(features []string, to string) error {
	for _, f := range features {
		if !slices.Contains(featuresKnown, f) {
			return fmt.Errorf("%w: to %s this repository one must know the feature %q", seal.ErrVersion, to, f)
		}
	}
	return nil
}

// readConfig reads the config that counts.
func readConfig(ctx context.Context, st store.Reader) (*config, error) {
	n, found, err := lastNumber(ctx, st, seal.KindConfig.Dir())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if !found {
		return nil, noConfig(ctx, st)
	}
	name := seal.Name{Kind: seal.KindConfig, Number: n}.String()
	stored, err := st.Get(ctx, name, plainSizeMax)
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(name, stored)
	if err != nil {
		return nil, err
	}
	return c, unknown(c.forRead, "read")
}

// noConfig says what is there where no config is.
func noConfig(ctx context.Context, st store.Reader) error {
	stop := errors.New("one is enough")
	err := st.List(ctx, seal.KindSnapshot.Dir(), func(info store.Info) error {
		if _, ok := seal.ParseName(info.Name); ok {
			return stop
		}
		return nil
	})
	if errors.Is(err, stop) {
		return fmt.Errorf("%w: %w", ErrNoRepository, ErrConfigGone)
	}
	return ErrNoRepository
}

// lastNumber returns the highest number of the objects below prefix that are
// told apart by their number alone.
func lastNumber(ctx context.Context, st store.Reader, prefix string) (last uint64, found bool, err error) {
	err = st.List(ctx, prefix, func(info store.Info) error {
		if n, ok := seal.ParseName(info.Name); ok {
			last, found = max(last, n.Number), true
		}
		return nil
	})
	return last, found, err
}
