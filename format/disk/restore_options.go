//go:build linux

package disk

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/bk-backup/bk/format"
)

// Overwrite says what a restore does where the target already has something at
// an entry's path.
type Overwrite int

const (
	// OverwriteIfChanged leaves a file whose size and time of modification are
	// the entry's and replaces every other. This is what makes a second run
	// over a partly restored target cheap.
	OverwriteIfChanged Overwrite = iota
	// OverwriteAlways replaces everything.
	OverwriteAlways
	// OverwriteIfNewer replaces only what is older than the entry.
	OverwriteIfNewer
	// OverwriteNever leaves everything that is there, metadata included.
	OverwriteNever
)

// ParseOverwrite reads the words always, if-changed, if-newer and never.
func ParseOverwrite(s string) (Overwrite, error) {
	for o := OverwriteIfChanged; o <= OverwriteNever; o++ {
		if o.String() == s {
			return o, nil
		}
	}
	return 0, fmt.Errorf("overwrite mode %q is none of always, if-changed, if-newer, never", s)
}

// String returns the word that ParseOverwrite reads.
func (o Overwrite) String() string {
	switch o {
	case OverwriteAlways:
		return "always"
	case OverwriteIfNewer:
		return "if-newer"
	case OverwriteNever:
		return "never"
	}
	return "if-changed"
}

// ContentSource reads chunks for a restore in the same process as a repository,
// so that their order can follow the storage instead of the listing.
type ContentSource interface {
	// ReadChunks hands every chunk of refs to fn, in any order and each once,
	// possibly from several goroutines at a time, and returns when all calls
	// have returned. refs has no id twice. plain is the whole content of refs[i],
	// already checked against its id, and valid only until fn returns. Where one
	// chunk cannot be read, fn gets its error instead of plain and the others
	// still come. An error of fn stops everything and is returned. Several calls
	// of ReadChunks may run at a time.
	ReadChunks(ctx context.Context, refs []format.ChunkRef, fn func(i int, plain []byte, err error) error) error
}

// RestoreOptions chooses how a restore treats its target. The zero value
// restores everything over what is there, if it changed.
type RestoreOptions struct {
	Overwrite Overwrite
	// Delete removes, when a snapshot is complete, what the target holds below
	// the snapshot's roots and the listing does not. Where a snapshot names no
	// roots, the directories that have an entry count as such. It also allows a
	// directory that is not empty to be replaced by something else.
	Delete bool
	// Protect, if set, names paths of the listing that Delete leaves alone with
	// all below them: those that a pattern kept out of the stream.
	Protect func(path string, isDir bool) bool
	// NumericOwner sets owners by number. Otherwise a name that exists here
	// decides, and the number where it does not.
	NumericOwner bool
	// LookupUser and LookupGroup resolve names; nil asks the system.
	LookupUser, LookupGroup func(name string) (id uint32, ok bool)
	// DryRun changes nothing and reports what would be done.
	DryRun bool
	// Verify compares content instead of trusting size and time: files that
	// look right are read and repaired where they differ, and everything
	// written is read back.
	Verify bool
	// Sync flushes the target's file system before a snapshot counts as done.
	Sync bool
	// Prefix restores only what lies at and below this path of the listing, and
	// places it as if the prefix were the target: SNAPSHOT:PATH. Where it names
	// something other than a directory, that is placed into the target under
	// its own name.
	Prefix string
	// Base says which snapshot the target holds already, as an earlier restore
	// left it. A stream whose first snapshot is a difference is refused unless
	// its parent is this one.
	Base format.ID
	// Content serves refs to chunks that the stream did not send.
	Content ContentSource
	// Lost, if set, says before each hole and eof why a part of the current file's
	// content was lost at the source; it says so once. Holes stand for what is lost
	// from there on. Such a file counts as LossDamaged, is not made to look complete,
	// and does not replace what was there.
	Lost func() error
	// Workers write files in parallel; 0 means one for each processor, at
	// least 2 and at most 8.
	Workers int
	// MemoryChunks is how many chunks, paths and hard-link groups the tables
	// hold in memory each, before they go to an unlinked file in the target.
	// 0 means 262,144, which is about 15 MiB for each table.
	MemoryChunks int
	Log          *slog.Logger // nil discards
	// OnItem, OnProblem and OnProgress, if set, are called from one goroutine
	// at a time, and must not call the Restore. OnItem is called for each object that was, or with DryRun would
	// be, acted upon; OnProblem for everything that counts as a loss.
	OnItem     func(Item)
	OnProblem  func(Problem)
	OnProgress func(format.Progress)
}

// Action is what a restore did at one path.
type Action string

const (
	ActionCreated   Action = "created"   // there was nothing before
	ActionReplaced  Action = "replaced"  // something else was there before
	ActionUnchanged Action = "unchanged" // the content was right; metadata was set where it differed
	ActionSkipped   Action = "skipped"   // left alone because of the overwrite mode
	ActionLinked    Action = "linked"    // made a hard link of an earlier member of its group
	ActionRemoved   Action = "removed"   // removed: by a remove record, by Delete, or as part of an earlier snapshot
)

// Item is one object that a restore acted upon. Path is relative to the target.
type Item struct {
	Path   string
	Type   format.Type // "" where it is not known, for removals
	Action Action
	Size   uint64 // bytes of content, for files
}

// Kinds of loss that a restore reports (Problem.Kind, format.Loss.Kind).
const (
	LossUnwritable = "unwritable" // the object could not be created, replaced or completed
	LossDamaged    = "damaged"    // a part of the content could not be had or was not stored faithfully
	LossOwner      = "owner"
	LossMode       = "mode"
	LossACL        = "acl"
	LossFlags      = "flags"
	LossTime       = "time"
	LossTimeRange  = "time-range" // the file system cannot go there
	LossExtension  = "extension"  // an unknown key or an x- record
	LossDevice     = "device"     // a device node that may not be made here
	LossHardlink   = "hardlink"   // a member that had to become a file of its own
)

// Problem is one thing that the target does not hold as the snapshot has it.
type Problem struct {
	Kind string
	Path string // relative to the target
	Err  error
}

// Summary is what a restore did. Losses with any element means exit code 3.
type Summary struct {
	Snapshots uint64
	Files     uint64 // regular files, and members of hard-link groups
	Dirs      uint64
	Others    uint64 // symbolic links, devices, fifos, sockets

	Created, Replaced, Unchanged, Skipped, Linked, Removed uint64

	Bytes        uint64 // content of the files that were created, replaced or found right
	BytesWritten uint64 // of these, bytes really written

	Losses []format.Loss // what the target could not hold, sorted by kind
	Source []format.Loss // what the commits say was lost before, merged and sorted by kind
}
