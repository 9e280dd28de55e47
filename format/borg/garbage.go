package borg

import (
	"errors"

	"github.com/bk-backup/bk/format/internal/spill"
)

// garbage knows which chunks that were stored now are part of an archive. Others
// come of files that the same snapshot has replaced, and of hard links that were
// cut in another way. Later refs may still name them, so that they are deleted at
// the end only: borg check would complain of them.
type garbage struct {
	stored *spill.Log   // ids of all chunks that were stored now
	used   *spill.Table // those that archives name
	end    int64        // of what was committed, in stored
}

func newGarbage(tempDir string) *garbage {
	return &garbage{stored: spill.NewLog(tempDir), used: spill.NewTable(tempDir)}
}

func (g *garbage) close() error { return errors.Join(g.stored.Close(), g.used.Close()) }

// store notes a chunk that was stored.
func (g *garbage) store(id *objectID) error {
	_, err := g.stored.Write(id[:])
	return err
}

// use notes chunks that an archive names.
func (g *garbage) use(chunks []chunkRef) error {
	for i := range chunks {
		if err := g.used.Put(spillKey(&chunks[i].id), 1); err != nil {
			return err
		}
	}
	return nil
}

// committed says that all that was stored is in the repository to stay.
func (g *garbage) committed() { g.end = g.stored.Size() }

// each calls fn with the chunks that were committed and that no archive names.
func (g *garbage) each(fn func(id *objectID) error) error {
	var ids [256 * len(objectID{})]byte
	for at := int64(0); at < g.end; {
		b := ids[:min(int64(len(ids)), g.end-at)]
		if _, err := g.stored.ReadAt(b, at); err != nil {
			return err
		}
		at += int64(len(b))
		for ; len(b) > 0; b = b[len(objectID{}):] {
			id := objectID(b)
			_, ok, err := g.used.Get(spillKey(&id))
			if err != nil {
				return err
			}
			if ok {
				continue
			}
			if err := fn(&id); err != nil {
				return err
			}
		}
	}
	return nil
}

// collect deletes the chunks that nothing names.
func (s *Sink) collect() error {
	count := 0
	err := s.garbage.each(func(id *objectID) error {
		count++
		_, err := s.log.append(tagDelete, id, nil)
		return err
	})
	if err != nil || count == 0 {
		return err
	}
	return s.log.commit()
}
