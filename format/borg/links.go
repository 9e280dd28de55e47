package borg

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

// The spaces of names in a table of links.
const (
	spaceMaster = 'm' // paths of items that others may be hard links to: 1 + the place of the record
	spaceNamed  = 'n' // paths that hard links name
)

// links know the hard links of one archive: an item that is one names another by
// its path, has no content, and takes that one's.
type links struct {
	log   *runLog
	table *spill.Table // nil: there are none
}

// newLinks reads the links of an archive's runs.
func newLinks(log *runLog, list []*run) (*links, error) {
	k := &links{log: log}
	if !slices.ContainsFunc(list, func(one *run) bool { return one.slaves }) {
		return k, nil
	}
	k.table = spill.NewTable(log.r.tempDir)
	for _, one := range list {
		if one.links == 0 {
			continue
		}
		b := make([]byte, one.links)
		if _, err := log.log.ReadAt(b, one.at+one.size); err != nil {
			return k, err
		}
		for ; len(b) > 0; b = b[linkSize:] {
			value := binary.LittleEndian.Uint64(b[16:])
			if err := k.table.Put(spill.Key(b[:16]), value); err != nil {
				return k, err
			}
		}
	}
	return k, nil
}

func (k *links) close() error {
	if k == nil || k.table == nil {
		return nil
	}
	return k.table.Close()
}

// named reports whether hard links name an item.
func (k *links) named(rec *record) (bool, error) {
	if k == nil || k.table == nil {
		return false, nil
	}
	_, ok, err := k.table.Get(spill.KeyOf(spaceNamed, string(rec.key)))
	return ok, err
}

// master returns the record of the item that a hard link names by a path, nil
// if the archive does not have it.
func (k *links) master(path string) (*record, error) {
	if k == nil || k.table == nil {
		return nil, nil
	}
	at, ok, err := k.table.Get(spill.KeyOf(spaceMaster, keyOf(path)))
	if err != nil || !ok || at == 0 {
		return nil, err
	}
	return k.log.recordAt(int64(at - 1))
}

// file is an item with what it takes from others.
type file struct {
	item
	path   string
	group  string // of hard links, or ""
	orphan bool   // it is a hard link to something that is not there
}

// resolve decodes a record and finds out what its hard links make of it.
func (k *links) resolve(f *file, rec *record) error {
	f.path, f.group, f.orphan = pathOf(rec.key), "", false
	if err := f.parse(rec.raw); err != nil {
		return fmt.Errorf("%q: %w", "/"+f.path, err)
	}
	switch {
	case f.hlid != "" && f.mode&typeMask != typeDir:
		f.group = groupName("borg hlid " + f.hlid)
	case rec.flags&recordMaster != 0:
		f.group = groupName("borg hardlink " + f.path)
	case rec.flags&recordMaybe != 0:
		named, err := k.named(rec)
		if err != nil {
			return err
		}
		if named {
			f.group = groupName("borg hardlink " + f.path)
		}
	case rec.flags&recordSlave != 0:
		return k.slave(f)
	}
	return nil
}

// slave gives a hard link the content of what it names.
func (k *links) slave(f *file) error {
	source, _ := cleanPath(f.source)
	f.group = groupName("borg hardlink " + source)
	rec, err := k.master(source)
	if err != nil {
		return err
	}
	if rec == nil {
		f.orphan = f.mode&typeMask == typeFile && !f.hasChunks
		return nil
	}
	var m item
	if err := m.parse(rec.raw); err != nil {
		return fmt.Errorf("%q: %w", "/"+source, err)
	}
	if !f.hasChunks {
		f.chunks, f.healthy, f.hasHealthy = m.chunks, m.healthy, m.hasHealthy
	}
	return nil
}

// sameLinks reports whether equal records mean equal things in two archives.
func sameLinks(older, newer *links, a, b *record) (bool, error) {
	if b.flags&recordMaybe != 0 {
		was, err := older.named(a)
		if err != nil {
			return false, err
		}
		is, err := newer.named(b)
		return was == is, err
	}
	if b.flags&recordSlave == 0 {
		return true, nil
	}
	var f file
	if err := f.parse(b.raw); err != nil {
		return false, fmt.Errorf("%q: %w", "/"+pathOf(b.key), err)
	}
	source, _ := cleanPath(f.source)
	was, err := older.master(source)
	if err != nil {
		return false, err
	}
	is, err := newer.master(source)
	if err != nil || was == nil || is == nil {
		return was == nil && is == nil, err
	}
	return was.at == is.at || string(was.raw) == string(is.raw), nil
}

// content returns the chunks of a file. Of those that a repair replaced by
// zeros, because they were missing, the real ones are taken if they are there
// again; whole is false if some are not.
func (f *file) content(has func(chunkRef) (bool, error)) (list []chunkRef, whole bool, err error) {
	if !f.hasHealthy || len(f.healthy) != len(f.chunks) {
		return f.chunks, !f.hasHealthy, nil
	}
	list, whole = slices.Clone(f.chunks), true
	for i, c := range f.healthy {
		if c.id == list[i].id {
			continue
		}
		ok, err := has(c)
		if err != nil {
			return nil, false, err
		}
		if ok {
			list[i] = c
		} else {
			whole = false
		}
	}
	return list, whole, nil
}

// isFile reports whether an item has content.
func (f *file) isFile() bool { return types[f.mode&typeMask] == format.TypeFile }
