package borg

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

// readManifest reads the manifest again, as it has to be known to write one, and
// returns it with its object.
func (r *Repository) readManifest(ctx context.Context) (*manifest, []byte, error) {
	object, _, err := r.object(ctx, manifestID, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("read the manifest: %w", err)
	}
	head := append([]byte(nil), object...) // opening decrypts in place
	plain, err := r.keys.openManifest(object)
	if err != nil {
		return nil, nil, fmt.Errorf("read the manifest: %w", err)
	}
	m, err := parseManifest(plain)
	if err != nil {
		return nil, nil, fmt.Errorf("read the manifest: %w", err)
	}
	// What it asks of who writes is not known here.
	if err := checkPlainManifest(plain); err != nil {
		return nil, nil, err
	}
	return m, head, nil
}

// checkPlainManifest refuses a manifest that says more than this package would
// write again.
func checkPlainManifest(plain []byte) error {
	known := map[string]bool{"version": true, "timestamp": true, "archives": true, "config": true, "item_keys": true, "tam": true}
	items := make(map[string]bool, len(itemKeys))
	for _, key := range itemKeys {
		items[key] = true
	}
	u := &unpacker{b: plain}
	for range u.mapHead() {
		key := u.text()
		switch {
		case key == "version":
			if v := u.uint(1 << 32); v != 1 {
				return fmt.Errorf("the manifest has version %d, and only version 1 is written: %w", v, ErrVersion)
			}
		case key == "config":
			for range u.mapHead() {
				if name := u.text(); name != "tam_required" {
					return fmt.Errorf("the manifest's configuration has %q, which only newer versions of borg may write: %w", name, ErrVersion)
				}
				u.skip()
			}
		case key == "item_keys":
			for range u.arrayHead() {
				if name := u.text(); !items[name] && u.err == nil {
					return fmt.Errorf("items may have %q, which only newer versions of borg may write: %w", name, ErrVersion)
				}
			}
		case !known[key]:
			return fmt.Errorf("the manifest has %q, which only newer versions of borg may write: %w", key, ErrVersion)
		default:
			u.skip()
		}
	}
	return u.err
}

// ivOf returns the counter of an object, 0 for what is not encrypted.
func ivOf(object []byte) uint64 {
	if len(object) < envelopeSize {
		return 0
	}
	var n uint64
	for _, c := range object[1+macSize : envelopeSize] {
		n = n<<8 | uint64(c)
	}
	return n
}

// locate says where an object lies that the repository held before.
func (r *Repository) locate(ctx context.Context, id objectID) (place, bool, error) {
	r.mu.Lock()
	index := r.index
	r.mu.Unlock()
	at, ok, err := index.find(ctx, id)
	return at, ok && r.segmentSize(at.segment) > int64(at.offset), err
}

// load makes the listing of an archive that the repository held before.
func (s *Sink) load(ref *archiveRef) (err error) {
	a, err := s.r.archive(s.ctx, ref)
	if err != nil {
		return err
	}
	if err := s.listing.reset(); err != nil {
		return err
	}
	s.ownCuts = a.ownCuts && s.cut != nil // all of what is added is cut so, too
	log := newRunLog(s.r)
	defer func() { err = errors.Join(err, log.close()) }()
	list, err := log.runs(s.ctx, a)
	if err != nil {
		return err
	}
	k, err := newLinks(log, list)
	defer func() { err = errors.Join(err, k.close()) }()
	if err != nil {
		return err
	}
	m, err := newMerge(log, nil, list)
	if err != nil {
		return err
	}
	l := &loader{s: s, links: k, groups: a.groups, names: spill.NewTable(s.tempDir)}
	defer func() { err = errors.Join(err, l.names.Close()) }()
	for {
		_, rec, err := m.next()
		if err != nil || rec == nil {
			return err
		}
		if rec.flags&recordPart != 0 {
			continue
		}
		if err := l.record(rec); err != nil {
			return err
		}
	}
}

// loader turns the records of an archive into rows.
type loader struct {
	s      *Sink
	links  *links
	groups []spill.Key  // of the first members of groups, in the order of their paths
	names  *spill.Table // groups by what the reader calls them, to 1 + the number
	count  int
	buf    []byte
}

func (l *loader) record(rec *record) error {
	var f file
	if err := l.links.resolve(&f, rec); err != nil {
		return err
	}
	if l.s.r.keys == nil || f.path != "" && format.CheckPath(f.path) != nil {
		return fmt.Errorf("%q: %w", f.path, ErrDamaged)
	}
	if f.isFile() {
		chunks, _, err := f.content(func(c chunkRef) (bool, error) {
			_, ok, err := l.s.r.locate(l.s.ctx, c.id)
			return ok, err
		})
		if err != nil {
			return err
		}
		size, err := contentSize(chunks)
		if err != nil {
			return fmt.Errorf("%q: %w", "/"+f.path, err)
		}
		f.chunks, f.hasChunks = chunks, true
		f.size, f.has = size, f.has|format.HasSize
	}
	e := format.Entry{Path: f.path, Type: types[f.mode&typeMask]}
	if f.group != "" {
		group, err := l.group(f.group)
		if err != nil {
			return err
		}
		e.Hardlink = group
	}
	if linkable(f.mode) {
		f.source, f.hasSource = "", false
	}
	f.item.path, f.hlid, f.healthy, f.hasHealthy, f.master = itemPath(f.path), "", nil, false, masterUnsaid
	row, err := appendRow(l.buf[:0], &e, &f.item)
	if err != nil {
		return err
	}
	l.buf = row
	return l.s.listing.add(f.path, row)
}

// group returns the group of hard links as it was named in the stream that the
// archive was made of, if the archive says so. Its members come in the order of
// their paths, and so did the names.
func (l *loader) group(name string) (string, error) {
	key := spill.KeyOf(0, name)
	n, ok, err := l.names.Get(key)
	if err != nil {
		return "", err
	}
	if !ok {
		n = uint64(l.count)
		l.count++
		if err := l.names.Put(key, n); err != nil {
			return "", err
		}
	}
	if n < uint64(len(l.groups)) {
		return string(l.groups[n][:]), nil
	}
	return groupKey(name), nil
}

// groupsFlag is how the names of an archive's groups of hard links stand in its
// command line: a hash of each, in the order of their first members. They let a
// later difference name the same groups.
const groupsFlag = "--hardlink-groups="

// groupsMax bounds how many groups are named there.
const groupsMax = 1 << 14

func groupsCommand(groups []spill.Key) []string {
	if len(groups) == 0 || len(groups) > groupsMax {
		return nil
	}
	var b []byte
	for _, g := range groups {
		b = append(b, g[:]...)
	}
	return []string{groupsFlag + base64.RawURLEncoding.EncodeToString(b)}
}

// groupsOf returns the names of groups that the command line of an archive has.
func groupsOf(cmdline []string) (groups []spill.Key) {
	for _, arg := range cmdline {
		text, ok := strings.CutPrefix(arg, groupsFlag)
		if !ok {
			continue
		}
		b, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || len(b)%len(spill.Key{}) != 0 || len(b) > groupsMax*len(spill.Key{}) {
			return nil
		}
		for ; len(b) > 0; b = b[len(spill.Key{}):] {
			groups = append(groups, spill.Key(b))
		}
	}
	return groups
}
