package borg

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/internal/snapshots"
	"github.com/bk-backup/bk/format/internal/spill"
)

// itemCuts is how borg cuts an archive's stream of items.
var itemCuts = chunker.Spec{Method: chunker.Buzhash, Min: 32 << 10, Avg: 128 << 10, Max: 512 << 10, Window: 4095}

// How archives say that their files were cut: as borg does by default, or in a way
// that borg has no name for, which makes borg recreate cut them anew if asked to.
var (
	borgParams    = []any{"buzhash", uint64(19), uint64(23), uint64(21), uint64(4095)}
	foreignParams = []any{"buzhash", uint64(0), uint64(0), uint64(0), uint64(0)}
)

// splitters returns a splitter for a repository's own cuts.
func (k *keys) splitters(spec chunker.Spec) (*chunker.Factory, error) {
	return chunker.New(spec, chunker.Keyed{Seed: uint32(k.chunkSeed), HasSeed: true})
}

// writeArchive makes an archive of the listing and commits it.
func (s *Sink) writeArchive(record *format.Snapshot) error {
	w, err := s.newItemWriter()
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.rows(); err != nil {
		return err
	}
	if err := w.flush(true); err != nil {
		return err
	}
	name := s.archiveName(record)
	id, started, err := s.putArchive(record, name, w)
	if err != nil {
		return err
	}
	ref := archiveRef{name: name, id: id, time: started}
	s.manifest.archives = append(s.manifest.archives, ref)
	if err := s.putManifest(); err != nil {
		return err
	}
	if err := s.log.commit(); err != nil {
		return err
	}
	s.garbage.committed()
	s.sum.Snapshots++
	s.sum.Archives = append(s.sum.Archives, name)
	s.known[record.ID] = knownArchive{archiveRef: ref}
	return nil
}

// Imported returns, for each snapshot, the ids that it goes by, its own first, and
// the oldest snapshot first: for bk-import --list-imported.
func (r *Repository) Imported(ctx context.Context) ([][]format.HeldID, error) {
	return snapshots.Held(ctx, r, r.list, (*archive).heldAs)
}

// heldAs returns the ids that an archive's snapshot goes by.
func (a *archive) heldAs() []format.HeldID {
	ids := format.HeldAs(a.record)
	if a.changed {
		ids = append(ids, format.HeldID{ID: a.imported, Changed: true})
	}
	return ids
}

// putArchive stores the object of an archive.
func (s *Sink) putArchive(record *format.Snapshot, name string, w *itemWriter) (id objectID, started string, err error) {
	now := format.TimeOf(s.opts.Now())
	when := now
	if record.Time != nil {
		when = *record.Time
	}
	started = borgTime(when)
	a := &archiveMeta{
		version: 1, name: name, items: w.items, cmdline: append(recordCommand(record), groupsCommand(w.groups)...), comment: record.Comment,
		hostname: record.Host, username: record.User, time: started, timeEnd: started,
		chunkerParams: foreignParams,
		size:          w.size, csize: w.csize, nfiles: w.files,
	}
	if s.ownCuts {
		a.chunkerParams = borgParams
	}
	salt, err := s.salt()
	if err != nil {
		return id, "", err
	}
	plain, err := a.pack(s.r.keys, salt)
	if err != nil {
		return id, "", err
	}
	if len(plain) > partSizeMax {
		return id, "", fmt.Errorf("archive %q would need an object of %d bytes, which borg does not read", name, len(plain))
	}
	id, err = s.putPlain(plain)
	return id, started, err
}

func (s *Sink) salt() ([]byte, error) {
	salt := make([]byte, tamSize)
	if _, err := io.ReadFull(s.opts.Rand, salt); err != nil {
		return nil, fmt.Errorf("draw a salt: %w", err)
	}
	return salt, nil
}

// putManifest stores the manifest, whose time always moves on: borg takes one
// that is older than what it has seen for an attack.
func (s *Sink) putManifest() error {
	now := format.TimeOf(s.opts.Now())
	if last, ok := parseTime(s.manifest.timestamp); ok && borgTime(now) <= borgTime(last) {
		now = last
		if now.Nsec += 1000; now.Nsec >= 1e9 {
			now.Sec, now.Nsec = now.Sec+1, now.Nsec-1e9
		}
	}
	s.manifest.timestamp = borgTime(now)
	s.manifest.tamRequired = s.manifest.tamRequired || s.r.keys.tamRequired
	salt, err := s.salt()
	if err != nil {
		return err
	}
	plain, err := s.manifest.pack(s.r.keys, salt)
	if err != nil {
		return err
	}
	if len(plain) > partSizeMax {
		return fmt.Errorf("a manifest of %d bytes is more than borg reads: there are too many archives", len(plain))
	}
	return putManifest(s.log, s.r.keys, s.nonces, plain)
}

// borgTime writes a time as borg does: microseconds in UTC, of the years 1 to
// 9999.
func borgTime(t format.Time) string {
	const first, last = -62135596800, 253402300799
	t.Sec = min(max(t.Sec, first), last)
	return t.Time().Format(timeLayout)
}

// archiveName makes a name that no archive has.
func (s *Sink) archiveName(record *format.Snapshot) string {
	const nameMax = 200
	name := ""
	switch {
	case record.Origin != nil && record.Origin.System == "borg" && len(record.Tags) > 0:
		name = record.Tags[0] // its name where it came from
	case record.Time != nil:
		name = strings.TrimLeft(record.Host+"-", "-") + record.Time.Time().Format("2006-01-02T15:04:05")
	default:
		name = strings.TrimLeft(record.Host+"-", "-") + record.ID.Short()
	}
	name = cleanName(name)
	if len(name) > nameMax {
		name = name[:nameMax]
		for !utf8.ValidString(name) {
			name = name[:len(name)-1]
		}
	}
	if name == "" || checkpointName.MatchString(name) {
		name += "-" + record.ID.Short()
	}
	taken := func(name string) bool {
		return slices.ContainsFunc(s.manifest.archives, func(a archiveRef) bool { return a.name == name })
	}
	unique := name
	for n := 2; taken(unique); n++ {
		unique = fmt.Sprintf("%s-%d", name, n)
	}
	return unique
}

// cleanName replaces what borg's command line gives another meaning.
func cleanName(name string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f || r == utf8.RuneError || strings.ContainsRune(`/\{}`, r) {
			return '_'
		}
		return r
	}, strings.ReplaceAll(name, "::", "--"))
}

// recordFlag is how the record of a snapshot stands in the command line of its
// archive: the only field that takes any text, is shown by borg info, and that no
// command of borg changes.
const recordFlag = "--snapshot-record="

// recordCommand returns the command line of an archive, with the snapshot's
// record.
func recordCommand(record *format.Snapshot) []string {
	r := record.Clone()
	r.Parent, r.Estimate, r.Unsorted = format.ID{}, nil, false
	return []string{"bk-import", recordFlag + base64.RawURLEncoding.EncodeToString(r.AppendBody(nil))}
}

// recordOf returns the record that the command line of an archive has, nil if
// there is none.
func recordOf(cmdline []string) *format.Snapshot {
	for _, arg := range cmdline {
		text, ok := strings.CutPrefix(arg, recordFlag)
		if !ok {
			continue
		}
		body, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			return nil
		}
		r := new(format.Snapshot)
		if rest, err := r.ParseBody(body); err != nil || len(rest) > 0 || r.ID.IsZero() {
			return nil
		}
		return r
	}
	return nil
}

// viaBorg is the stage that a snapshot has gone through which a repository took
// from a stream (spec/stream.md, section 9).
func viaBorg(repository [32]byte) string { return fmt.Sprintf("borg-repository %x", repository) }

// itemWriter makes the objects of an archive's stream of items.
type itemWriter struct {
	s        *Sink
	splitter chunker.Splitter
	buf      []byte
	items    []objectID
	masters  *spill.Table // groups of hard links, to places in log
	log      *spill.Log
	groups   []spill.Key // of the first members, in the order of their paths
	size     uint64      // plain bytes of the files' chunks
	csize    uint64
	files    uint64
}

func (s *Sink) newItemWriter() (*itemWriter, error) {
	factory, err := s.r.keys.splitters(itemCuts)
	if err != nil {
		return nil, err
	}
	return &itemWriter{s: s, splitter: factory.Splitter(), masters: spill.NewTable(s.tempDir), log: spill.NewLog(s.tempDir)}, nil
}

func (w *itemWriter) close() error { return errors.Join(w.masters.Close(), w.log.Close()) }

// rows takes all rows of the listing.
func (w *itemWriter) rows() error {
	c := w.s.listing.cursor()
	for {
		at := c.at
		path, row, ok, err := c.next()
		if err != nil || !ok {
			return err
		}
		if err := w.row(path, row, at); err != nil {
			return err
		}
		if w.s.ctx.Err() != nil {
			return context.Cause(w.s.ctx)
		}
	}
}

// row takes the next row of the listing, which lies at a place there.
func (w *itemWriter) row(path string, row []byte, at int64) error {
	group, content := splitRow(row)
	if len(group) == 0 && isDir(row) {
		w.buf = append(w.buf, content...)
		return w.flush(false)
	}
	var it item
	if err := it.parse(content); err != nil {
		return err
	}
	if linkable(it.mode) {
		if err := w.link(path, string(group), &it, at); err != nil {
			return err
		}
		w.buf = it.appendPacked(w.buf)
	} else {
		if len(group) > 0 {
			if err := w.secondLink(path, string(group)); err != nil {
				return err
			}
		}
		w.buf = append(w.buf, content...)
	}
	if it.hasChunks {
		w.files++
		for i := range it.chunks {
			w.size += uint64(it.chunks[i].size)
			w.csize += uint64(it.chunks[i].csize)
		}
		if row[0]&rowNew != 0 || len(group) > 0 {
			// A hard link may become the first of its group later on.
			if err := w.s.garbage.use(it.chunks); err != nil {
				return err
			}
		}
	}
	return w.flush(false)
}

// firstLink is what is noted of the first item of a group of hard links.
type firstLink struct {
	meta, cuts format.ID // hashes of what the item says, and of its list of chunks
	at         uint64    // of its row
	path       string
}

// link makes an item the first of a group of hard links, or one that names the
// first, if both are equal.
func (w *itemWriter) link(path, group string, it *item, at int64) error {
	it.master = masterNo
	if group == "" {
		return nil
	}
	own := firstLink{at: uint64(at), path: it.path}
	own.cuts = format.SumID(appendChunks(nil, it.chunks))
	bare := *it
	bare.path, bare.chunks = "", nil
	own.meta = format.SumID(bare.appendPacked(nil))
	key := spill.KeyOf(0, group)
	place, ok, err := w.masters.Get(key)
	if err != nil {
		return err
	}
	if !ok {
		it.master = masterYes
		if len(w.groups) <= groupsMax && len(group) == len(spill.Key{}) {
			w.groups = append(w.groups, spill.Key([]byte(group)))
		}
		place := w.log.Size()
		if _, err := w.log.Write(own.append(nil)); err != nil {
			return err
		}
		return w.masters.Put(key, uint64(place))
	}
	first, err := w.first(int64(place))
	if err != nil {
		return err
	}
	same := first.meta == own.meta
	if same && first.cuts != own.cuts {
		if same, err = w.sameContent(first, it.chunks); err != nil {
			return err
		}
	}
	if !same {
		return w.s.lose(format.LossHardlink, path, errors.New("the members of its group differ"))
	}
	it.master, it.source, it.hasSource = masterUnsaid, first.path, true
	it.chunks, it.hasChunks, it.has = nil, false, it.has&^format.HasSize
	return nil
}

func (f *firstLink) append(dst []byte) []byte {
	dst = append(append(dst, f.meta[:]...), f.cuts[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, f.at)
	return append(binary.LittleEndian.AppendUint32(dst, uint32(len(f.path))), f.path...)
}

// first reads what was noted of the first item of a group.
func (w *itemWriter) first(place int64) (f firstLink, err error) {
	var head [32 + 32 + 8 + 4]byte
	if _, err := w.log.ReadAt(head[:], place); err != nil {
		return f, err
	}
	f.meta, f.cuts = format.ID(head[:32]), format.ID(head[32:64])
	f.at = binary.LittleEndian.Uint64(head[64:])
	b := make([]byte, binary.LittleEndian.Uint32(head[72:]))
	_, err = w.log.ReadAt(b, place+int64(len(head)))
	f.path = string(b)
	return f, err
}

// sameContent compares the content of the first of a group with chunks that were
// cut in another way.
func (w *itemWriter) sameContent(first firstLink, chunks []chunkRef) (bool, error) {
	c := w.s.listing.cursor()
	c.at = int64(first.at)
	_, row, _, err := c.next()
	if err != nil {
		return false, err
	}
	var it item
	_, content := splitRow(row)
	if err := it.parse(content); err != nil {
		return false, err
	}
	if newStored(it.chunks, false).size() != newStored(chunks, false).size() {
		return false, nil
	}
	a, err := w.s.contentSum(it.chunks)
	if err != nil {
		return false, err
	}
	b, err := w.s.contentSum(chunks)
	return a == b, err
}

// contentSum hashes the content that some chunks are.
func (s *Sink) contentSum(chunks []chunkRef) (sum format.ID, err error) {
	h := sha256.New()
	for _, ref := range chunks {
		plain, err := s.plain(ref)
		if err != nil {
			return sum, err
		}
		h.Write(plain)
		format.FreePayload(plain)
	}
	h.Sum(sum[:0])
	return sum, nil
}

// secondLink counts the links of what borg has no hard links of.
func (w *itemWriter) secondLink(path, group string) error {
	key := spill.KeyOf(1, group)
	_, ok, err := w.masters.Get(key)
	if err != nil || !ok {
		return errors.Join(err, w.masters.Put(key, 0))
	}
	return w.s.lose(format.LossHardlink, path, errors.New("borg has no hard links of symbolic links"))
}

// flush stores what can be cut of the stream of items; all of it at the end.
func (w *itemWriter) flush(final bool) error {
	if !final && len(w.buf) < w.splitter.Max() {
		return nil
	}
	at := 0
	for at < len(w.buf) {
		n := w.splitter.Cut(w.buf[at:], final)
		if n == 0 {
			break
		}
		id, err := w.s.putPlain(w.buf[at : at+n])
		if err != nil {
			return err
		}
		w.items = append(w.items, id)
		at += n
	}
	w.buf = append(w.buf[:0], w.buf[at:]...)
	if len(w.items) > itemObjectsMax {
		return errors.New("the listing is too large for an archive of borg")
	}
	return nil
}
