package repo

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/index"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// packWindow is how many bytes of a pack are read at a time, one behind the
// other, by each worker.
const packWindow = 4 << 20

// expectation is what one index says of a pack. A sum over its entries stands in
// for them, so that an index of any size can be compared with directories.
type expectation struct {
	info pack.Info
	sum  entrySum
}

// entrySum adds up keyed hashes of the entries of a directory, in any order.
type entrySum [2]uint64

// entryHasher hashes entries, with keys drawn anew for each check.
type entryHasher [2]maphash.Seed

func newEntryHasher() entryHasher { return entryHasher{maphash.MakeSeed(), maphash.MakeSeed()} }

func (h entryHasher) add(s *entrySum, e *pack.Entry, number uint32) {
	var b [seal.LabelSize + 4*4 + 1]byte
	copy(b[:], e.Label[:])
	rest := b[seal.LabelSize:]
	binary.BigEndian.PutUint32(rest, number)
	binary.BigEndian.PutUint32(rest[4:], e.Offset)
	binary.BigEndian.PutUint32(rest[8:], e.StoredSize)
	binary.BigEndian.PutUint32(rest[12:], e.RawSize)
	rest[16] = byte(e.Codec)
	for i := range s {
		s[i] += maphash.Bytes(h[i], b[:])
	}
}

func entryOf(label seal.Label, hit *index.Hit) pack.Entry {
	return pack.Entry{Label: label, Codec: hit.Codec, RawSize: hit.RawSize, StoredSize: hit.StoredSize, Offset: hit.Offset}
}

// expect gathers what the indexes say of each pack.
func (k *checker) expect(h entryHasher) error {
	type place struct {
		run    int
		number uint32
	}
	sums := make(map[place]*expectation)
	err := k.marks.Each(func(run int, label seal.Label, hit index.Hit, marked bool) error {
		k.out.Chunks++
		if marked {
			k.out.Needed++
		}
		at := place{run, hit.Location.Pack}
		x := sums[at]
		if x == nil {
			x = &expectation{info: hit.Pack}
			sums[at] = x
		}
		e := entryOf(label, &hit)
		h.add(&x.sum, &e, hit.Number)
		return nil
	})
	k.expected = make(map[[32]byte][]expectation, len(k.packs))
	for _, x := range sums {
		k.expected[x.info.Name] = append(k.expected[x.info.Name], *x)
	}
	return err
}

// comparePacks compares what the indexes say with what packs say of themselves,
// and reads those that are to be read.
func (k *checker) comparePacks() error {
	h := newEntryHasher()
	if err := k.expect(h); err != nil {
		return err
	}
	var there []store.Info
	for name, st := range k.packs {
		switch {
		case st.stored && !st.foreign:
			there = append(there, store.Info{Name: packObject(name), Size: st.size})
		case !st.stored && (!st.gone || st.liveCount > 0):
			k.find(packObject(name), Missing, errors.New("an index lists it, and it is not there"))
		}
	}
	for _, d := range k.alien {
		if !errors.Is(d.Err, errOtherGroup) && !errors.Is(d.Err, store.ErrNotFound) {
			k.find(d.Name, Damaged, d.Err)
		}
	}
	for _, info := range k.adopted {
		if name, _ := seal.ParseName(info.Name); k.packs[name.Sum].liveCount > 0 {
			k.find(info.Name, Unlisted, errors.New("snapshots need it, and no index lists it"))
		}
	}
	slices.SortFunc(there, func(a, b store.Info) int { return cmp.Compare(a.Name, b.Name) })
	chosen, err := k.opts.ReadData.choose(there, k.r.opts.Rand)
	if err != nil {
		return err
	}
	if err := k.eachPack(there, chosen, h); err != nil {
		return err
	}
	return k.trySuspects()
}

// eachPack compares the packs that are there, several at once.
func (k *checker) eachPack(there []store.Info, chosen map[string]bool, h entryHasher) error {
	what := "compare packs with the index"
	if len(chosen) > 0 {
		what = "read packs"
	}
	var done atomic.Int64
	g, ctx := errgroup.WithContext(k.ctx)
	g.SetLimit(k.r.workers())
	for _, info := range there {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			err := k.onePack(ctx, info, chosen[info.Name], h)
			k.mu.Lock()
			defer k.mu.Unlock()
			k.progress(what, int(done.Add(1)), len(there))
			return err
		})
	}
	return g.Wait()
}

// onePack compares one pack with what indexes say of it, and reads it whole if
// that is asked for.
func (k *checker) onePack(ctx context.Context, info store.Info, whole bool, h entryHasher) error {
	name, _ := seal.ParseName(info.Name)
	listed, err := k.r.readDirectory(ctx, info)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if k.collected(name.Sum, err) {
		return nil
	}
	what := Damaged
	if err == nil {
		var own entrySum
		for i := range listed.Entries {
			h.add(&own, &listed.Entries[i], uint32(i))
		}
		for _, x := range k.expected[name.Sum] {
			if x.info != listed.Info || x.sum != own {
				what, err = Mislisted, errors.New("an index says something else of it than its own directory")
			}
		}
	}
	if err != nil {
		k.suspect(info.Name, name.Sum, what, err)
		return nil
	}
	if !whole {
		return nil
	}
	p, err := k.newPackReader(ctx, &listed.Info)
	if err != nil {
		return err
	}
	defer p.close()
	list := make([]numbered, len(listed.Entries))
	for i, e := range listed.Entries {
		list[i] = numbered{e, uint32(i)}
	}
	if err := p.all(list); err != nil {
		return err
	}
	if k.collected(name.Sum, p.first) {
		return nil
	}
	k.mu.Lock()
	k.out.PacksRead.add(info.Size)
	k.mu.Unlock()
	if p.first == nil {
		p.first = p.compareSum()
	}
	if p.first != nil {
		k.find(info.Name, Damaged, p.first)
		k.setBad(name.Sum, p.bad)
	}
	return nil
}

// collected reports whether a pack that is not there any more was garbage: no
// index lists it, and nothing that it holds is needed. Of others it is outrun that
// tells, since a collection deletes what lists a pack before the pack.
func (k *checker) collected(pack [32]byte, err error) bool {
	return errors.Is(err, store.ErrNotFound) && len(k.expected[pack]) == 0 && k.packs[pack].liveCount == 0
}

// suspect notes a pack that is not what it should be: each of its chunks is
// tried by what the index says, as readers do.
func (k *checker) suspect(object string, name [32]byte, what What, err error) {
	if errors.Is(err, store.ErrNotFound) {
		what = Missing
	}
	k.find(object, what, err)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.suspects[name] = true
}

func (k *checker) setBad(name [32]byte, chunks map[chunkPlace]struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bad[name] = &badPack{chunks}
}

// trySuspects reads each chunk that indexes list in suspect packs.
func (k *checker) trySuspects() error {
	if len(k.suspects) == 0 {
		return nil
	}
	lists, infos, err := k.entriesOf(k.suspects)
	if err != nil {
		return err
	}
	done := 0
	for name, list := range lists {
		k.progress("try what damaged packs hold", done, len(lists))
		done++
		info := infos[name]
		bad := make(map[chunkPlace]struct{})
		p, err := k.newPackReader(k.ctx, &info)
		if err == nil {
			err = p.some(list)
			p.close()
			if err != nil {
				return err
			}
			bad = p.bad
		} else {
			for _, e := range list { // its key is not there
				bad[chunkPlace{e.number, e.Offset}] = struct{}{}
			}
		}
		k.setBad(name, bad)
	}
	return nil
}

// entriesOf returns what indexes say of some packs, in the order in which the
// chunks lie.
func (k *survey) entriesOf(packs map[[32]byte]bool) (map[[32]byte][]numbered, map[[32]byte]pack.Info, error) {
	lists, infos := make(map[[32]byte][]numbered), make(map[[32]byte]pack.Info)
	err := k.marks.Each(func(_ int, label seal.Label, hit index.Hit, _ bool) error {
		if packs[hit.Pack.Name] {
			lists[hit.Pack.Name] = append(lists[hit.Pack.Name], numbered{entryOf(label, &hit), hit.Number})
			infos[hit.Pack.Name] = hit.Pack
		}
		return nil
	})
	for name, list := range lists {
		slices.SortFunc(list, func(a, b numbered) int {
			return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.number, b.number), bytes.Compare(a.Label[:], b.Label[:]))
		})
		lists[name] = slices.Compact(list)
	}
	return lists, infos, err
}

// numbered is an entry and its number in the pack.
type numbered struct {
	pack.Entry
	number uint32
}

// packReader reads one pack from its beginning to its end and tries its chunks.
type packReader struct {
	k    *checker
	ctx  context.Context
	info *pack.Info
	name string
	kind seal.ChunkKind
	op   *pack.Opener

	sum        hash.Hash
	unread     bool  // a part could not be read, so the sum says nothing
	pos        int64 // up to which the sum goes
	buf, plain []byte

	bad   map[chunkPlace]struct{}
	first error // what is wrong with the first bad chunk
}

func (k *checker) newPackReader(ctx context.Context, info *pack.Info) (*packReader, error) {
	op, err := k.r.opener(ctx, info)
	if err != nil {
		return nil, err
	}
	kind := seal.ChunkData
	if info.Kind == seal.KindMetaPack {
		kind = seal.ChunkMeta
	}
	return &packReader{k: k, ctx: ctx, info: info, name: info.ObjectName(), kind: kind, op: op, bad: make(map[chunkPlace]struct{})}, nil
}

func (p *packReader) close() {
	format.FreePayload(p.buf)
	format.FreePayload(p.plain)
}

// all reads every byte, hashes it, and tries all chunks.
func (p *packReader) all(list []numbered) error {
	p.sum = sha256.New()
	if err := p.some(list); err != nil {
		return err
	}
	for p.pos < p.info.Size {
		n := min(packWindow, p.info.Size-p.pos)
		if !p.fetch(p.pos, int(n)) {
			p.unread = true
			break
		}
	}
	return context.Cause(p.ctx)
}

// compareSum compares the pack with its name.
func (p *packReader) compareSum() error {
	if p.unread {
		return fmt.Errorf("read %s: a part of it cannot be read", p.name)
	}
	if [32]byte(p.sum.Sum(nil)) != p.info.Name {
		return fmt.Errorf("read %s: %w: its content does not have the SHA-256 that it is named by", p.name, seal.ErrDamaged)
	}
	return nil
}

// some tries chunks, in the order in which they lie.
func (p *packReader) some(list []numbered) error {
	for lo := 0; lo < len(list); {
		start := int64(list[lo].Offset)
		end := start + int64(list[lo].StoredSize)
		hi := lo + 1
		for ; hi < len(list) && int64(list[hi].Offset) == end && end+int64(list[hi].StoredSize)-start <= packWindow; hi++ {
			end += int64(list[hi].StoredSize)
		}
		if p.sum != nil {
			start = p.pos // the header, too
		}
		if err := p.ctx.Err(); err != nil {
			return context.Cause(p.ctx)
		}
		if p.fetch(start, int(end-start)) {
			for _, e := range list[lo:hi] {
				p.try(e, p.buf[int64(e.Offset)-start:][:e.StoredSize])
			}
		} else {
			p.unread = true
			p.pos = end
			p.oneByOne(list[lo:hi])
		}
		lo = hi
	}
	return context.Cause(p.ctx)
}

// oneByOne tries chunks that could not be read together.
func (p *packReader) oneByOne(list []numbered) {
	sum := p.sum
	p.sum = nil
	for _, e := range list {
		if p.fetch(int64(e.Offset), int(e.StoredSize)) {
			p.try(e, p.buf[:e.StoredSize])
		} else {
			p.bad[chunkPlace{e.number, e.Offset}] = struct{}{}
		}
	}
	p.sum = sum
}

// fetch reads into buf, and reports whether it could.
func (p *packReader) fetch(offset int64, n int) bool {
	if cap(p.buf) < n {
		format.FreePayload(p.buf)
		p.buf = format.AllocPayload(max(n, min(packWindow, int(p.info.Size))))
	}
	p.buf = p.buf[:n]
	if err := p.k.r.store.ReadAt(p.ctx, p.name, p.buf, offset); err != nil {
		if p.first == nil {
			p.first = err
		}
		if isFailure(err) {
			p.k.find(p.name, Damaged, err)
		}
		return false
	}
	if p.sum != nil {
		p.sum.Write(p.buf)
		p.pos += int64(n)
	}
	return true
}

// try opens a chunk in place and compares its content with its label.
func (p *packReader) try(e numbered, sealed []byte) {
	err := p.open(e, sealed)
	if err == nil {
		return
	}
	p.bad[chunkPlace{e.number, e.Offset}] = struct{}{}
	if p.first == nil {
		p.first = fmt.Errorf("read %s: %w", p.name, err)
	}
}

func (p *packReader) open(e numbered, sealed []byte) error {
	payload, err := p.op.OpenChunk(sealed[:0], e.number, &e.Entry, sealed)
	if err != nil {
		return err
	}
	plain := payload
	if e.Codec != pack.CodecNone {
		if cap(p.plain) < int(e.RawSize) {
			format.FreePayload(p.plain)
			p.plain = format.AllocPayload(int(e.RawSize))
		}
		d := format.Data{ID: format.ID{1}, Size: e.RawSize, Codec: formatCodec(e.Codec), Payload: payload, Checked: true}
		if plain, err = format.DecodePayload(p.plain[:0], &d); err != nil {
			return fmt.Errorf("chunk %d, %s: %w", e.number, e.Label, err)
		}
	}
	if p.k.r.label.LabelOf(p.kind, format.SumID(plain)) != e.Label {
		return fmt.Errorf("chunk %d, %s: %w: its content has another id", e.number, e.Label, seal.ErrDamaged)
	}
	return nil
}
