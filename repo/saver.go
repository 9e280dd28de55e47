package repo

import (
	"context"
	"sync/atomic"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
)

// metaLevel is the level of nodes, lists and bodies: they are small, read often,
// and half of what they hold are hashes.
const metaLevel = format.LevelDefault

// metaSaver saves the parts of listings; with its reader it is what tree.Update
// works on.
type metaSaver struct {
	metaReader
	s *Sink
}

// Save stores a meta chunk if the repository does not hold it. It returns at
// once; workers compress and seal.
func (m *metaSaver) Save(ctx context.Context, plain []byte) (format.ID, error) {
	id := format.SumID(plain)
	label := m.r.label.LabelOf(seal.ChunkMeta, id)
	fresh, err := m.r.index.Claim(label)
	if err != nil || !fresh {
		return id, err
	}
	kept := append(make([]byte, 0, len(plain)), plain...)
	m.r.meta.put(id, kept, true)
	return id, m.s.pool.do(len(kept), func() error {
		codec, payload := pack.CodecNone, kept
		buf := format.AllocPayload(format.PayloadSizeMax(len(kept)))
		defer format.FreePayload(buf)
		c, encoded, err := format.EncodePayload(buf[:0], kept, metaLevel)
		if err != nil {
			return err
		}
		if c == format.CodecZstd {
			codec, payload = pack.CodecZstd, encoded
		}
		if err := m.s.session.metas.add(id, label, codec, uint32(len(kept)), payload); err != nil {
			m.r.index.Unclaim(label)
			return err
		}
		return nil
	})
}

// newCounters count what was new, from several goroutines.
type newCounters struct{ chunks, plain, payload atomic.Uint64 }

func (c *newCounters) count(plain uint32, payload int) {
	c.chunks.Add(1)
	c.plain.Add(uint64(plain))
	c.payload.Add(uint64(payload))
}

func (c *newCounters) addTo(sum *Imported) {
	sum.NewChunks += c.chunks.Load()
	sum.NewBytes += c.plain.Load()
	sum.PayloadBytes += c.payload.Load()
}
