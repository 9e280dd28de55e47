package repo

import (
	"fmt"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
)

// HasChunk reports whether the repository holds a chunk of content of that size.
// It is format.ExportOptions.HasChunk for a source in the same process. An index
// that cannot be read makes it false: the chunk is then sent, and what is wrong
// with the index shows where the chunk is to be stored.
func (r *Repository) HasChunk(id format.ID, size uint32) bool {
	held, found, err := r.index.SizeLive(r.label.LabelOf(seal.ChunkData, id))
	return err == nil && found && held == size
}

// IDs returns every id that the snapshot has had: its own, the one under which
// it came, and those before each stage that it went through (spec/stream.md,
// section 14).
func (s *Snapshot) IDs() []format.ID {
	ids := []format.ID{s.ID}
	if !s.Imported.IsZero() {
		ids = append(ids, s.Imported)
	}
	for _, v := range s.Meta.Via {
		ids = append(ids, v.From)
	}
	return ids
}

// viaRepository begins the stage that a repository appends when it hands out a
// snapshot which came in under another id.
const viaRepository = "bk-repository "

// ViaStage is what the snapshots that this repository imported have in their via
// when they are exported, with the id under which they came (spec/stream.md,
// section 9).
func (r *Repository) ViaStage() string {
	id := r.keys.Repository()
	return fmt.Sprintf("%s%x", viaRepository, id[:])
}

// SameIDs returns those of IDs under which the snapshot had the very content
// that it has now: its own, the one under which it came, and those that it had in
// other repositories, up to the last stage that may have changed it.
func (s *Snapshot) SameIDs() []format.ID {
	ids := []format.ID{s.ID}
	if !s.Imported.IsZero() {
		ids = append(ids, s.Imported)
	}
	for i := len(s.Meta.Via) - 1; i >= 0 && strings.HasPrefix(s.Meta.Via[i].Stage, viaRepository); i-- {
		ids = append(ids, s.Meta.Via[i].From)
	}
	return ids
}
