package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/index"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/tree"
)

// RepairOptions say how a repository is repaired.
type RepairOptions struct {
	// Check says what is read in order to find the damage, and how progress is
	// shown. What is not found is not repaired.
	Check CheckOptions
	// From are asked, one after another, for chunks that are lost; those that are
	// copies of the repository also for small objects that are damaged or hidden.
	From []ChunkSource
	// UnreadableIsLost takes for lost what storage fails to hand out, as failing
	// disks do. Otherwise nothing is repaired then: it may be a passing trouble.
	UnreadableIsLost bool
	// RemoveUnreadable removes packs of which nothing can be read, since neither
	// an index nor their own directory says what lies where. Otherwise they stay:
	// a copy of an index may turn up.
	RemoveUnreadable bool
	// GiveUp are objects of snapshots that are given up, since they are damaged and
	// none of From has them: their names, or what follows the last slash. What can
	// be read is refused.
	GiveUp []string
	// DryRun changes nothing.
	DryRun bool
}

// repairRoundsMax bounds how often a repair looks again: what is below a part of
// a listing is known only when that part is there again.
const repairRoundsMax = 40

// Repaired is what a repair found and did; with DryRun, what it would do.
type Repaired struct {
	Found    *Checked // what was wrong before
	Listed   int      // packs that an index lists again
	Indexes  int      // damaged indexes that were removed
	Plans    int      // damaged plans of garbage collection that were removed
	Moved    PackSum  // damaged packs that were replaced by what could be read of them
	Kept     uint64   // chunks that were moved out of them
	Removed  int      // packs that were removed since nothing can be read of them
	Restored uint64   // lost chunks that were had again from elsewhere
	Marked   uint64   // lost chunks that were written down as beyond help
	// Objects are snapshots, credentials and the like that were taken again from a
	// copy: their names, or what their findings are about.
	Objects []string
	GivenUp []GivenUp // of GiveUp, what From did not bring back
}

// Repair makes the best of a damaged repository (spec/repository.md, section 12):
// packs that no index lists are listed again, what can be read of damaged packs
// is moved to new ones, lost chunks and small objects are taken from elsewhere, and
// what is beyond help is written down, so that the rest can be restored. No snapshot is removed
// but those that are to be given up, and no pack before all that can be read of it is durable elsewhere. It may be
// stopped at any point and run again; others may go on working meanwhile.
func (r *Repository) Repair(ctx context.Context, opts RepairOptions) (*Repaired, error) {
	out, err := r.repair(ctx, opts)
	if err != nil {
		return out, fmt.Errorf("repair %s: %w", r, err)
	}
	return out, nil
}

func (r *Repository) repair(ctx context.Context, opts RepairOptions) (out *Repaired, err error) {
	out = new(Repaired)
	if err := r.checkGiveUps(ctx, &opts); err != nil {
		return out, err
	}
	var session *session
	if !opts.DryRun {
		if err := r.keys.CheckWrite(); err != nil {
			return out, err
		}
		// A plan that cannot be read keeps everybody from writing.
		if out.Plans, err = r.removeDamagedPlans(ctx); err != nil {
			return out, err
		}
		if session, err = r.beginSession(ctx, nil); err != nil {
			return out, err
		}
		defer func() { err = errors.Join(err, session.end()) }()
	}
	for round := 0; ; round++ {
		checking := opts.Check
		if round > 0 {
			checking.ReadData = Subset{} // what was damaged is not listed any more
		}
		more, err := r.repairRound(ctx, session, checking, opts, out)
		if err != nil {
			return out, err
		}
		if !more || opts.DryRun || round == repairRoundsMax {
			return out, r.giveUp(ctx, &opts, out)
		}
	}
}

// repairer is one round of a repair.
type repairer struct {
	*checker
	ropts   RepairOptions
	session *session
	sum     *Repaired

	lostList []LostChunk
	doomed   map[[32]byte]bool // packs that are replaced
	unlist   map[[32]byte]bool // packs that indexes should not list as they do
}

// repairRound checks and repairs. more says that parts of listings came back,
// below which other chunks may be lost, or that packs were listed as they are, in
// which what seemed to be lost may be found.
func (r *Repository) repairRound(ctx context.Context, session *session, checking CheckOptions, opts RepairOptions, out *Repaired) (more bool, err error) {
	k, err := r.settledCheck(ctx, checking)
	if err != nil {
		return false, err
	}
	defer k.cache.Close()
	if out.Found == nil {
		out.Found = k.out
	}
	if k.failed != nil && !opts.UnreadableIsLost {
		return false, fmt.Errorf("nothing was repaired, since storage fails, which may pass: %w", k.failed)
	}
	p := &repairer{checker: k, ropts: opts, session: session, sum: out, doomed: make(map[[32]byte]bool), unlist: make(map[[32]byte]bool)}
	if err := p.gather(); err != nil {
		return false, err
	}
	p.judgePacks()
	snapshots, err := p.restoreObjects()
	if err != nil {
		return false, err
	}
	if opts.DryRun {
		return false, p.pretend()
	}
	for _, step := range []func() error{p.listAgain, p.moveReadable} {
		if err := step(); err != nil {
			return false, err
		}
	}
	metas, err := p.restore()
	if err != nil {
		return false, err
	}
	// All that was moved and restored is durable and listed before anything goes.
	if err := session.flush(ctx); err != nil {
		return false, err
	}
	if err := p.replace(); err != nil {
		return false, err
	}
	if metas > 0 || snapshots || len(p.mislisted()) > 0 {
		return true, nil
	}
	return false, p.mark()
}

// gather finds out which chunks are lost, and where they belong.
func (p *repairer) gather() error {
	if len(p.lost) == 0 {
		return nil
	}
	at := make(map[lostChunk]int)
	return p.lostParts(func(_ *Snapshot, part tree.LostPart) error {
		c := lostChunk{kindOf(part), part.ID}
		i, ok := at[c]
		if !ok {
			i = len(p.lostList)
			at[c] = i
			p.lostList = append(p.lostList, LostChunk{ID: part.ID, Meta: c.kind == seal.ChunkMeta, Size: part.Size})
		}
		l := &p.lostList[i]
		place := LostPlace{part.Path, part.Offset}
		if !l.Meta && len(l.Places) < lostPlacesMax && !slices.Contains(l.Places, place) {
			l.Places = append(l.Places, place)
		}
		return nil
	})
}

// judgePacks decides which packs are replaced. Only damage counts: what is of a
// newer format, or under a key that this client does not have, is left alone.
func (p *repairer) judgePacks() {
	for name, st := range p.packs {
		f := p.findings[packObject(name)]
		switch {
		case f == nil:
		case f.What == Missing && !st.stored:
			p.unlist[name] = true
		case f.What == Mislisted:
			p.unlist[name] = true
		case f.What == Damaged && p.bad[name] != nil && p.ropts.isDamage(f.Err):
			p.unlist[name], p.doomed[name] = true, true
		}
	}
}

// isDamage reports whether an error says that an object is not what was stored.
func (o *RepairOptions) isDamage(err error) bool {
	return errors.Is(err, seal.ErrDamaged) || errors.Is(err, io.ErrUnexpectedEOF) || format.ClassOf(err) != "" ||
		o.UnreadableIsLost && isFailure(err)
}

// isFailure reports whether an error is one of storage that says nothing about
// the object.
func isFailure(err error) bool {
	var se *store.Error
	return errors.As(err, &se) && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, io.ErrUnexpectedEOF)
}

// listAgain lists packs that no index lists by their own directories.
func (p *repairer) listAgain() error { return p.listPacksOf(p.unlisted()) }

func (p *repairer) listPacksOf(infos []store.Info) error {
	pending := make(map[[32]byte]bool)
	p.r.index.EachPending(func(info pack.Info) { pending[info.Name] = true })
	for i, info := range infos {
		p.progress("list packs again", i, len(infos))
		listed, err := p.r.readDirectory(p.ctx, info)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		p.sum.Listed++
		if !pending[listed.Info.Name] {
			p.r.index.Stored(listed.Info, listed.Entries)
		}
	}
	return nil
}

// unlisted returns the packs that no index lists.
func (p *repairer) unlisted() (infos []store.Info) {
	for _, info := range p.adopted {
		if name, _ := seal.ParseName(info.Name); !p.doomed[name.Sum] {
			infos = append(infos, info)
		}
	}
	return infos
}

// mislisted returns the packs that an index lists wrongly.
func (p *repairer) mislisted() (infos []store.Info) {
	for name := range p.unlist {
		if st := p.packs[name]; st.stored && !p.doomed[name] {
			infos = append(infos, store.Info{Name: packObject(name), Size: st.size})
		}
	}
	return infos
}

// moveReadable copies out of damaged packs all that can be read and is in no
// other place, needed or not: somebody may be about to need it.
func (p *repairer) moveReadable() error {
	if len(p.doomed) == 0 {
		return nil
	}
	lists, infos, err := p.entriesOf(p.doomed)
	if err != nil {
		return err
	}
	done := 0
	for name, list := range lists {
		p.progress("move what can be read of damaged packs", done, len(lists))
		done++
		if err := p.moveOut(infos[name], list); err != nil {
			return err
		}
	}
	for name := range p.doomed {
		p.sum.Moved.add(p.packs[name].size)
	}
	return nil
}

func (p *repairer) moveOut(info pack.Info, list []numbered) error {
	kind, packer := seal.ChunkData, p.session.data
	if info.Kind == seal.KindMetaPack {
		kind, packer = seal.ChunkMeta, p.session.metas
	}
	for _, e := range list {
		hit := index.Hit{Pack: info, Location: index.Location{Number: e.number, Offset: e.Offset, StoredSize: e.StoredSize, RawSize: e.RawSize, Codec: e.Codec}}
		if !p.good(&hit) {
			continue
		}
		if elsewhere, err := p.elsewhere(e.Label); elsewhere || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		err := p.r.readRun(p.ctx, kind, []wanted{{label: e.Label, hit: hit}}, func(_ int, got payload, err error) error {
			if err != nil {
				return err
			}
			defer format.FreePayload(got.bytes)
			return packer.add(format.ID{}, e.Label, got.codec, got.size, got.bytes)
		})
		if err != nil {
			return fmt.Errorf("move what can be read of a damaged pack: %w", err)
		}
		p.sum.Kept++
	}
	return nil
}

// elsewhere reports whether a chunk has a good place in a pack that stays.
func (p *repairer) elsewhere(label seal.Label) (bool, error) {
	places, err := p.cache.Places(label)
	return slices.ContainsFunc(places, func(h index.Hit) bool {
		return !p.unlist[h.Pack.Name] && p.good(&h)
	}), err
}

// replace deletes the packs of which all that can be read is elsewhere by now,
// and then has no index list what is not there. An index that lists a pack which
// is gone does no harm to readers, who look in other places, so this order leaves
// nothing behind wherever it is stopped.
func (p *repairer) replace() (err error) {
	c := &collector{survey: p.survey, session: p.session}
	c.sum = new(Collected)
	if c.now, err = p.r.store.Now(p.ctx); err != nil {
		return err
	}
	doomed := slices.Collect(maps.Keys(p.doomed))
	if err := c.deletePacks(doomed); err != nil {
		return err
	}
	if len(p.unlist) > 0 {
		// The index that was just written may list such a pack, too: a session
		// begins by listing what no index lists.
		if c.indexes, err = listIndexes(p.ctx, p.r.store); err != nil {
			return err
		}
		if err := c.rewriteIndexes(p.unlist); err != nil {
			return err
		}
		if err := p.listPacksOf(p.mislisted()); err != nil {
			return err
		}
		if err := p.session.flush(p.ctx); err != nil {
			return err
		}
	}
	if err := p.removeDamagedIndexes(); err != nil {
		return err
	}
	if err := p.removeUnreadable(); err != nil {
		return err
	}
	if len(doomed) > 0 {
		// Who counts on a chunk in one of these packs finds out before it commits.
		return c.endPlans(nil, doomed)
	}
	return nil
}

// removeDamagedIndexes removes indexes that cannot be read: what they listed is
// listed by now.
func (p *repairer) removeDamagedIndexes() error {
	for _, f := range p.findings {
		name, ok := seal.ParseName(f.Object)
		if !ok || name.Kind != seal.KindIndex || !p.ropts.isDamage(f.Err) {
			continue
		}
		if err := p.r.store.Delete(p.ctx, f.Object); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		p.sum.Indexes++
	}
	return nil
}

// unreadable returns the packs of which nothing can be read.
func (p *repairer) unreadable() (names []string) {
	for _, d := range p.alien {
		if p.ropts.isDamage(d.Err) {
			names = append(names, d.Name)
		}
	}
	return names
}

func (p *repairer) removeUnreadable() error {
	if !p.ropts.RemoveUnreadable {
		return nil
	}
	for _, name := range p.unreadable() {
		if err := p.r.store.Delete(p.ctx, name); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		p.sum.Removed++
	}
	return nil
}

// mark writes down which chunks are beyond help, but for those of which that is
// known.
func (p *repairer) mark() error {
	known, err := p.r.marked(p.ctx)
	if err != nil {
		return err
	}
	var fresh []lostChunk
	for _, l := range p.lostList {
		c := lostChunk{l.kind(), l.ID}
		if !known[c] {
			fresh = append(fresh, c)
		}
	}
	p.sum.Marked += uint64(len(fresh))
	return p.r.markLost(p.ctx, fresh)
}

// pretend sums up what a repair would do.
func (p *repairer) pretend() error {
	if _, err := p.restore(); err != nil {
		return err
	}
	p.sum.Listed = len(p.unlisted()) + len(p.mislisted())
	for name := range p.doomed {
		p.sum.Moved.add(p.packs[name].size)
	}
	if p.ropts.RemoveUnreadable {
		p.sum.Removed = len(p.unreadable())
	}
	for _, f := range p.findings {
		name, ok := seal.ParseName(f.Object)
		switch {
		case !ok || !p.ropts.isDamage(f.Err):
		case name.Kind == seal.KindIndex:
			p.sum.Indexes++
		case name.Kind == seal.KindPlan:
			p.sum.Plans++
		}
	}
	for _, l := range p.lostList {
		label := p.r.label.LabelOf(l.kind(), l.ID)
		if f := p.findings[p.lost[label]]; f != nil && f.What != Mislisted && f.What != Known {
			p.sum.Marked++
		}
	}
	return nil
}

// removeDamagedPlans removes plans of garbage collection that are not what was
// stored: what they condemned is then condemned no more.
func (r *Repository) removeDamagedPlans(ctx context.Context) (removed int, err error) {
	var damaged []string
	err = r.store.List(ctx, seal.KindPlan.Dir(), func(info store.Info) error {
		if _, ok := seal.ParseName(info.Name); !ok {
			return nil
		}
		stored, err := r.store.Get(ctx, info.Name, seal.ObjectSizeMax)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if errors.Is(seal.Scrub(info.Name, stored), seal.ErrDamaged) {
			damaged = append(damaged, info.Name)
		}
		return nil
	})
	for _, name := range damaged {
		if err == nil {
			err = r.store.Delete(ctx, name)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("remove damaged plans: %w", err)
	}
	return len(damaged), nil
}
