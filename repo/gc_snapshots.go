package repo

import (
	"errors"
	"fmt"

	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// ErrUnreadable keeps garbage from being collected. Where it comes with
// seal.ErrDamaged, a repair brings the snapshots back, or is told to give them up.
var ErrUnreadable = errors.New("snapshots cannot be read, so what they need is not known")

// list lists the snapshots. One that cannot be read stops the collection.
func (c *collector) list() error {
	if err := c.checkOthers(); err != nil {
		return err
	}
	snaps, damage, err := c.r.List(c.ctx)
	if err != nil {
		return err
	}
	if len(damage) > 0 {
		return fmt.Errorf("%d %w; the first is %s: %w", len(damage), ErrUnreadable, damage[0].Name, damage[0].Err)
	}
	c.snaps, c.sum.Snapshots = snaps, len(snaps)
	return nil
}

// checkOthers refuses to collect in a group that other clients have snapshots
// in, which this client cannot read.
func (c *collector) checkOthers() error {
	return c.r.store.List(c.ctx, seal.KindSnapshot.Dir(), func(info store.Info) error {
		name, ok := seal.ParseName(info.Name)
		if !ok || name.Client == c.r.keys.Client() {
			return nil
		}
		plain, err := c.r.getObject(c.ctx, info.Name, seal.KindSnapshot)
		switch {
		case errors.Is(err, errOtherGroup), errors.Is(err, store.ErrNotFound), err == nil && string(plain) == string(voidBody):
			return nil
		case err != nil:
			return fmt.Errorf("what another client's snapshot needs is not known: %w", err)
		}
		return fmt.Errorf("%s: another client has snapshots in this group, which only both together could collect", info.Name)
	})
}
