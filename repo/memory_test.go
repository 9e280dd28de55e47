package repo

import (
	"strings"
	"testing"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
)

// TestLongEditsAreFew holds that few edits wait for the listing if they are long.
func TestLongEditsAreFew(t *testing.T) {
	q := newEditQueue()
	taken := make(chan int)
	go func() {
		n := 0
		for q.put(edit{path: "p", entry: &format.Entry{Xattrs: []format.Xattr{{Name: "user.a", Value: strings.Repeat("x", 1<<20)}}}}) == nil {
			n++
		}
		taken <- n
	}()
	for len(q.batches) < queueDepth {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond) // until put waits
	q.err = errAbandoned
	close(q.done)
	if n := <-taken; n > queueDepth+1 {
		t.Errorf("%d edits of 1 MiB wait", n)
	}
}

// TestMetaPacksAreSentEarly holds that chunks which compress to next to nothing
// are not gathered, since their plain bytes are kept until they are stored.
func TestMetaPacksAreSentEarly(t *testing.T) {
	r := newRepo(t, 1)
	stored := 0
	p := newPacker(t.Context(), r, seal.ChunkMeta, func(ids []format.ID) { stored += len(ids) })
	const size, count = 1 << 20, 100
	for i := range count {
		id := format.ID{byte(i)}
		if err := p.add(id, r.label.LabelOf(seal.ChunkMeta, id), pack.CodecZstd, size, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	p.wg.Wait()
	if waiting := (count - stored) * size; waiting > p.rawMax {
		t.Errorf("%d bytes wait to be stored", waiting)
	}
	if err := p.flush(); err != nil || stored != count {
		t.Errorf("%d chunks are stored, %v", stored, err)
	}
}
