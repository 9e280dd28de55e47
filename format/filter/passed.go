package filter

import (
	"crypto/sha256"
	"encoding/binary"
	"io"

	"github.com/bk-backup/bk/format"
)

// passedPaths remembers where something passed at a path that has two fates:
// one as a directory, another as anything else. A pattern that ends in a slash
// makes such paths, and so does a directory that passes only because something
// below it may. If the type changes there, what passed must be removed; if
// nothing passed, a remove would only betray the name of what is dropped.
//
// In a stream whose first snapshot is a difference against one that the receiver
// holds, nobody knows what passed before: there, anything may have.
//
// Paths are kept as hashes in a table, which does not grow in memory.
type passedPaths struct {
	table *table

	base    bool   // the header announced a base
	onBase  bool   // the open snapshot's chain of parents begins at the base
	begun   bool   // a snapshot came
	chain   uint64 // counts chains of parents
	all     bool   // every path is noted, whatever its fate
	dirLast string // the directory whose way up was noted last
	hasLast bool
}

func newPassedPaths(dir string, random io.Reader) *passedPaths {
	return &passedPaths{table: newTable(dir, random)}
}

// begin is told of every snapshot. With all, every path that passes is noted:
// in a snapshot that is not sorted, the same path may come again.
func (p *passedPaths) begin(s *format.Snapshot, all bool) {
	if s.Parent.IsZero() {
		p.chain++
		p.onBase = false
	} else if !p.begun {
		p.onBase = p.base
	}
	p.begun = true
	p.all = all
	p.dirLast, p.hasLast = "", false
}

// may reports whether something at or below the path may have passed in the
// open snapshot's chain of parents, or earlier in itself.
func (p *passedPaths) may(path string) bool {
	if p.onBase {
		return true
	}
	_, found, err := p.table.get(p.key(path))
	return found || err != nil
}

func (p *passedPaths) key(path string) format.ID {
	b := make([]byte, 8, 8+len(path))
	binary.BigEndian.PutUint64(b, p.chain)
	return sha256.Sum256(append(b, path...))
}

// note remembers what passes, and the directories above it, which the stream
// need not name.
func (p *passedPaths) note(path string, f fate, matchers []*matcher) error {
	if !p.all && !haveTwoFates(matchers) {
		return nil
	}
	if p.all || f.dependsOnType() {
		if err := p.table.put(p.key(path), 0); err != nil {
			return err
		}
	}
	dir := format.ParentPath(path)
	for up := dir; up != "" && !(p.hasLast && atOrBelow(p.dirLast, up)); up = format.ParentPath(up) {
		if !p.all && !fateBy(up, matchers).dependsOnType() {
			continue
		}
		if err := p.table.put(p.key(up), 0); err != nil {
			return err
		}
	}
	p.dirLast, p.hasLast = dir, true
	return nil
}

// haveTwoFates reports whether the lists have paths with two fates at all.
func haveTwoFates(matchers []*matcher) bool {
	for _, m := range matchers {
		if !m.patterns.Empty() && m.patterns.twoFates {
			return true
		}
	}
	return false
}

func fateBy(path string, matchers []*matcher) fate {
	var all fate
	for _, m := range matchers {
		all = all.or(m.patterns.fate(path))
	}
	return all
}

func (p *passedPaths) Close() error { return p.table.Close() }
