package borg

import (
	"fmt"
	"math"
)

// archiveMeta is what an archive's own object says.
type archiveMeta struct {
	version         uint64
	name            string
	items           []objectID // what together is the stream of items
	cmdline         []string
	cwd             string // borg 1.4
	hostname        string
	username        string
	time, timeEnd   string
	comment         string
	chunkerParams   []any // strings and numbers: "buzhash", 19, 23, 21, 4095
	recreateCmdline []string
	size, csize     uint64
	nfiles          uint64
	sizeParts       uint64
	csizeParts      uint64
	nfilesParts     uint64
	hasStats        bool
	tam             *tam
}

// itemObjectsMax bounds the objects of an archive's stream of items: of 512 KiB
// each they are half a TiB.
const itemObjectsMax = 1 << 20

// parseArchive reads an archive's plain content.
func parseArchive(b []byte) (*archiveMeta, error) {
	u := &unpacker{b: b}
	a := &archiveMeta{}
	for range u.mapHead() {
		key := u.text()
		if u.null() {
			continue
		}
		switch key {
		case "version":
			a.version = u.uint(math.MaxUint64)
		case "name":
			a.name = u.text()
		case "items":
			a.items = u.ids()
		case "cmdline":
			a.cmdline = u.texts()
		case "cwd":
			a.cwd = u.text()
		case "hostname":
			a.hostname = u.text()
		case "username":
			a.username = u.text()
		case "time":
			a.time = u.text()
		case "time_end":
			a.timeEnd = u.text()
		case "comment":
			a.comment = u.text()
		case "chunker_params":
			a.chunkerParams = u.params()
		case "recreate_cmdline":
			a.recreateCmdline = u.texts()
		case "size":
			a.size, a.hasStats = u.uint(math.MaxUint64), true
		case "csize":
			a.csize = u.uint(math.MaxUint64)
		case "nfiles":
			a.nfiles = u.uint(math.MaxUint64)
		case "size_parts":
			a.sizeParts = u.uint(math.MaxUint64)
		case "csize_parts":
			a.csizeParts = u.uint(math.MaxUint64)
		case "nfiles_parts":
			a.nfilesParts = u.uint(math.MaxUint64)
		case "tam":
			a.tam = u.tam()
		default:
			u.skip()
		}
	}
	switch {
	case u.err != nil:
		return nil, u.err
	case u.i != len(b):
		return nil, fmt.Errorf("%d bytes follow it: %w", len(b)-u.i, ErrDamaged)
	case a.version != 1:
		return nil, fmt.Errorf("it has version %d: %w", a.version, ErrVersion)
	case len(a.items) > itemObjectsMax:
		return nil, fmt.Errorf("%d objects of items are more than %d: %w", len(a.items), itemObjectsMax, ErrDamaged)
	}
	return a, nil
}

func (u *unpacker) ids() (list []objectID) {
	n := u.arrayHead()
	if n > (len(u.b)-u.i)/len(objectID{}) {
		u.cut()
		return nil
	}
	list = make([]objectID, 0, n)
	for range n {
		list = append(list, u.id())
	}
	return list
}

func (u *unpacker) texts() (list []string) {
	for range u.arrayHead() {
		list = append(list, u.text())
	}
	return list
}

func (u *unpacker) params() (list []any) {
	for range u.arrayHead() {
		if c := u.peek(); c < 0x80 || c >= 0xcc && c <= 0xcf {
			list = append(list, u.uint(math.MaxUint64))
		} else {
			list = append(list, u.text())
		}
	}
	return list
}

// pack returns an archive's plain content, its keys in order. salt has 64 random
// bytes.
func (a *archiveMeta) pack(k *keys, salt []byte) ([]byte, error) {
	n := 17
	if a.cwd != "" {
		n++
	}
	b := appendMapHead(nil, n)
	b = appendArrayHead(appendBytes(b, "chunker_params"), len(a.chunkerParams))
	for _, p := range a.chunkerParams {
		switch p := p.(type) {
		case string:
			b = appendBytes(b, p)
		case uint64:
			b = appendUint(b, p)
		}
	}
	b = appendTexts(appendBytes(b, "cmdline"), a.cmdline)
	b = appendBytes(appendBytes(b, "comment"), a.comment)
	b = appendUint(appendBytes(b, "csize"), a.csize)
	b = appendUint(appendBytes(b, "csize_parts"), a.csizeParts)
	if a.cwd != "" {
		b = appendBytes(appendBytes(b, "cwd"), a.cwd)
	}
	b = appendBytes(appendBytes(b, "hostname"), a.hostname)
	b = appendArrayHead(appendBytes(b, "items"), len(a.items))
	for i := range a.items {
		b = appendBytes(b, a.items[i][:])
	}
	b = appendBytes(appendBytes(b, "name"), a.name)
	b = appendUint(appendBytes(b, "nfiles"), a.nfiles)
	b = appendUint(appendBytes(b, "nfiles_parts"), a.nfilesParts)
	b = appendUint(appendBytes(b, "size"), a.size)
	b = appendUint(appendBytes(b, "size_parts"), a.sizeParts)
	b, at := appendTAM(b, salt)
	b = appendBytes(appendBytes(b, "time"), a.time)
	b = appendBytes(appendBytes(b, "time_end"), a.timeEnd)
	b = appendBytes(appendBytes(b, "username"), a.username)
	b = appendUint(appendBytes(b, "version"), a.version)
	return b, k.sealTAM(b, at, salt, tamArchive)
}

func appendTexts(dst []byte, list []string) []byte {
	dst = appendArrayHead(dst, len(list))
	for _, s := range list {
		dst = appendBytes(dst, s)
	}
	return dst
}
