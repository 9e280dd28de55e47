package filter

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
)

// Description is the canonical text of what the options change in a snapshot;
// it is "" if they change nothing. Choosing snapshots (Options.Snapshots) is not
// part of it, since what a chosen snapshot holds stays the same.
//
// Times are absolute and in UTC. Patterns, names and commands stand as the first
// 16 bytes of their SHA-256: what is dropped is not to be in the output, not even
// as the pattern that dropped it, and the text stays short. Somebody who guesses
// a pattern can confirm the guess.
func (o *Options) Description() string {
	var b strings.Builder
	number := func(name string, v *uint64) {
		if v != nil {
			fmt.Fprintf(&b, " %s=%d", name, *v)
		}
	}
	moment := func(name string, t *format.Time) {
		if t != nil {
			fmt.Fprintf(&b, " %s=%d.%09d", name, t.Sec, t.Nsec)
		}
	}
	hashed := func(name string, texts ...string) {
		if len(texts) > 0 {
			fmt.Fprintf(&b, " %s=%s", name, hashTexts(texts))
		}
	}
	if !o.Paths.Empty() {
		hashed("paths", o.Paths.texts()...)
	}
	number("larger-than", o.Attributes.LargerThan)
	number("smaller-than", o.Attributes.SmallerThan)
	moment("newer-than", o.Attributes.NewerThan)
	moment("older-than", o.Attributes.OlderThan)
	hashed("type", sortedTexts(o.Attributes.Types)...)
	hashed("owner", sortedTexts(o.Attributes.Owners)...)
	hashed("magic", sortedTexts(o.Magic)...)
	if o.Judge != nil {
		hashed("drop-if", o.JudgeName)
	}
	hashed("drop-xattr", sortedTexts(o.Changes.DropXattrs)...)
	if o.Changes.SetHost != "" {
		hashed("set-host", o.Changes.SetHost)
	}
	hashed("add-tag", o.Changes.AddTags...)
	if owner := o.Changes.Owner; owner != nil {
		hashed("chown", owner.texts()...)
	}
	if o.Changes.StripPrefix != "" {
		hashed("strip-prefix", o.Changes.StripPrefix)
	}
	var moves []string
	for _, r := range o.Changes.Renames {
		moves = append(moves, string(appendText(appendText(nil, r.From), r.To)))
	}
	hashed("rename", sortedTexts(moves)...)
	if b.Len() == 0 {
		return ""
	}
	return "bk-filter" + b.String()
}

// texts describe the list of rules exactly.
func (p *Patterns) texts() []string {
	texts := []string{"case"}
	if p.ignoreCase {
		texts[0] = "ignore-case"
	}
	for _, r := range p.Rules() {
		verb := "drop"
		if r.Keep {
			verb = "keep"
		}
		texts = append(texts, verb, r.Pattern)
	}
	return texts
}

// sortedTexts is for options whose order and repetition mean nothing.
func sortedTexts[T ~string](list []T) []string {
	var texts []string
	for _, v := range list {
		texts = append(texts, string(v))
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}

func hashTexts(texts []string) string {
	var b []byte
	for _, text := range texts {
		b = appendText(b, text)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

func appendText(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint64(b, uint64(len(text))), text...)
}

// MapID returns the id that a snapshot has after a stage of that description:
// SHA-256 of the id before and the description (spec/stream.md, "Identity").
func MapID(id format.ID, description string) format.ID {
	return sha256.Sum256(append(id[:len(id):len(id)], description...))
}

// identityStage gives every snapshot the id that follows from its old one and
// the description. Parents are mapped in the same way, with no state: so a
// difference that went through the same filter as the snapshot it is based on
// finds it, and one that went through another filter does not.
type identityStage struct {
	description string
	snapshot    format.Snapshot
}

// Process takes one record.
func (s *identityStage) Process(rec format.Record, emit func(format.Record) error) error {
	r, ok := rec.(*format.Snapshot)
	if !ok {
		return emit(rec)
	}
	s.snapshot = *r
	s.snapshot.Via = append(slices.Clone(r.Via), format.Via{Stage: s.description, From: r.ID})
	s.snapshot.ID = MapID(r.ID, s.description)
	if !r.Parent.IsZero() {
		s.snapshot.Parent = MapID(r.Parent, s.description)
	}
	return emit(&s.snapshot)
}

// countStage fills in the counts of commits and of the end, for sinks in the
// same process; Writer counts by itself.
type countStage struct {
	commit format.Commit
	end    format.End
	sum    *Summary
}

// Process takes one record.
func (s *countStage) Process(rec format.Record, emit func(format.Record) error) error {
	switch r := rec.(type) {
	case *format.Snapshot:
		s.commit = format.Commit{}
	case *format.Entry:
		s.commit.Entries++
		s.sum.Entries++
	case *format.Remove:
		s.commit.Removes++
	case *format.Data:
		s.commit.Data++
	case *format.EOF:
		s.commit.Bytes += r.Size
		s.sum.Bytes += r.Size
	case *format.Commit:
		s.sum.Snapshots++
		s.commit.Losses, s.commit.Extra = r.Losses, r.Extra
		return emit(&s.commit)
	case *format.End:
		s.end = format.End{Snapshots: s.sum.Snapshots, Extra: r.Extra}
		return emit(&s.end)
	}
	return emit(rec)
}
