package keyring

import (
	"fmt"
	"slices"

	"github.com/bk-backup/bk/repo/seal"
)

// Group is a set of keys, and the settings of who writes under them
// (spec/repository.md, 1 and 4). Callers do not change what a Keyring returns.
type Group struct {
	ID   seal.GroupID
	Name string
	// Own says that the client's listings and snapshots lie in this group.
	Own   bool
	Label seal.Key // for seal.NewLabeler
	Split seal.Key // decides where listings and, with some chunkers, files are cut
	// ChunkerKeys are secrets of chunkers that were taken over from elsewhere, in
	// place of what would derive from Split. Like Split they are for ever.
	ChunkerKeys ChunkerKeys
	// Chunker and Compression are for new content, in the words of whoever cuts
	// and compresses; Rules, tried in order, say otherwise for some paths.
	Chunker     string
	Compression string
	Rules       []Rule
	// Epochs ascend by number; new objects are sealed under the last.
	Epochs []Epoch
}

// ChunkerKeys are secrets of chunkers; what is zero was not taken over.
type ChunkerKeys struct {
	Polynomial uint64 // of rabin, as restic has it
	Seed       uint32 // of buzhash, as borg has it
	HasSeed    bool   // Seed was taken over, which may be 0
}

// Rule is a chunker for the paths that a pattern matches.
type Rule struct {
	Pattern string
	Chunker string
}

// Epoch is one epoch of a group: its number, from 1, and its key.
type Epoch struct {
	Number uint32
	Key    seal.Key
}

// EpochKey returns the key of an epoch, or nil if the client does not have it.
func (g *Group) EpochKey(number uint32) *seal.Key {
	for i := range g.Epochs {
		if g.Epochs[i].Number == number {
			return &g.Epochs[i].Key
		}
	}
	return nil
}

// CurrentEpoch returns number and key of the epoch that new objects are sealed
// under.
func (g *Group) CurrentEpoch() (uint32, *seal.Key) {
	e := &g.Epochs[len(g.Epochs)-1]
	return e.Number, &e.Key
}

func (g *Group) clone() *Group {
	c := *g
	c.Rules = slices.Clone(g.Rules)
	c.Epochs = slices.Clone(g.Epochs)
	return &c
}

// check says what about a group cannot be.
func (g *Group) check() error {
	if len(g.Epochs) == 0 {
		return fmt.Errorf("group %s has no epoch", g.ID)
	}
	last := uint32(0)
	for _, e := range g.Epochs {
		if e.Number <= last {
			return fmt.Errorf("group %s: epoch %d follows epoch %d", g.ID, e.Number, last)
		}
		last = e.Number
	}
	texts := []string{g.Name, g.Chunker, g.Compression}
	for _, r := range g.Rules {
		texts = append(texts, r.Pattern, r.Chunker)
	}
	for _, s := range texts {
		if err := checkText(s, "group"); err != nil {
			return err
		}
	}
	return nil
}

// checkGroups says what about the groups of a client cannot be.
func checkGroups(groups []*Group) error {
	own := 0
	seen := make(map[seal.GroupID]bool)
	for _, g := range groups {
		if err := g.check(); err != nil {
			return err
		}
		if seen[g.ID] {
			return fmt.Errorf("group %s stands there twice", g.ID)
		}
		seen[g.ID] = true
		if g.Own {
			own++
		}
	}
	if own != 1 {
		return fmt.Errorf("%d groups are the client's own, not one", own)
	}
	return nil
}
