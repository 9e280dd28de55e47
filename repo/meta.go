package repo

import (
	"container/list"
	"context"
	"fmt"
	"sync"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
)

// metaCacheMax bounds the plain bytes of nodes, lists and bodies that are kept.
const metaCacheMax = 16 << 20

// metaCache keeps the meta chunks used last, and those this session has saved
// and not yet put on storage.
type metaCache struct {
	mu    sync.Mutex
	byID  map[format.ID]*list.Element
	order *list.List // front: used last
	bytes int
}

type metaItem struct {
	id     format.ID
	plain  []byte
	pinned bool // not on storage yet
}

func (c *metaCache) init() {
	c.byID = make(map[format.ID]*list.Element)
	c.order = list.New()
}

func (c *metaCache) get(id format.ID) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byID[id]
	if !ok {
		return nil
	}
	c.order.MoveToFront(el)
	return el.Value.(*metaItem).plain
}

// put keeps plain, which nobody changes afterwards.
func (c *metaCache) put(id format.ID, plain []byte, pinned bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.byID[id]; ok {
		el.Value.(*metaItem).pinned = el.Value.(*metaItem).pinned || pinned
		return
	}
	c.byID[id] = c.order.PushFront(&metaItem{id, plain, pinned})
	c.bytes += len(plain)
	for el := c.order.Back(); el != nil && c.bytes > metaCacheMax; {
		prev := el.Prev()
		if item := el.Value.(*metaItem); !item.pinned {
			c.order.Remove(el)
			delete(c.byID, item.id)
			c.bytes -= len(item.plain)
		}
		el = prev
	}
}

// unpin says that chunks are on storage and may be dropped.
func (c *metaCache) unpin(ids []format.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if el, ok := c.byID[id]; ok {
			el.Value.(*metaItem).pinned = false
		}
	}
}

// unpinAll says that nothing is on its way to storage any more.
func (c *metaCache) unpinAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for el := c.order.Front(); el != nil; el = el.Next() {
		el.Value.(*metaItem).pinned = false
	}
}

// metaReader reads meta chunks; it is the repository as tree.Loader.
type metaReader struct{ r *Repository }

// Load returns the plain bytes of a meta chunk, which the caller only reads.
func (m metaReader) Load(ctx context.Context, id format.ID) ([]byte, error) {
	if plain := m.r.meta.get(id); plain != nil {
		return plain, nil
	}
	var plain []byte
	err := m.r.readPayloads(ctx, seal.ChunkMeta, []format.ID{id}, func(_ int, p payload, err error) error {
		if err != nil {
			return err
		}
		opened, err := decode(id, p)
		if err != nil {
			return fmt.Errorf("meta chunk %s: %w", id, err)
		}
		plain = append(make([]byte, 0, len(opened)), opened...)
		format.FreePayload(opened)
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.r.meta.put(id, plain, false)
	return plain, nil
}

// LoadBatch implements tree.BatchLoader. What it reads is not kept.
func (m metaReader) LoadBatch(ctx context.Context, ids []format.ID, fn func(number int, plain []byte, err error)) error {
	var missing []format.ID
	var at []int
	for i, id := range ids {
		if plain := m.r.meta.get(id); plain != nil {
			fn(i, append(format.AllocPayload(len(plain))[:0], plain...), nil)
			continue
		}
		missing, at = append(missing, id), append(at, i)
	}
	return m.r.readPayloads(ctx, seal.ChunkMeta, missing, func(n int, p payload, err error) error {
		var plain []byte
		if err == nil {
			if plain, err = decode(missing[n], p); err != nil {
				err = fmt.Errorf("meta chunk %s: %w", missing[n], err)
			}
		}
		fn(at[n], plain, err)
		return nil
	})
}
