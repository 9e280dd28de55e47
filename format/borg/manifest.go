package borg

import (
	"bytes"
	"crypto/hmac"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/bk-backup/bk/format"
)

// manifest names the archives of a repository.
type manifest struct {
	version     uint64 // 1, or 2 for one that has needs
	timestamp   string // when it was written, as borg writes times
	archives    []archiveRef
	tamRequired bool // config.tam_required
	tam         *tam
}

// archiveRef is an archive as the manifest has it.
type archiveRef struct {
	name string
	id   objectID
	time string
}

// tam is how a manifest or an archive authenticates itself, which ids do not do
// for the one, and do for the other only for who has the keys.
type tam struct {
	kind       string
	code, salt []byte
	at         int // where code lies in what was packed
}

// itemKeys are all keys that items may have, as every manifest lists them.
var itemKeys = []string{
	"acl_access", "acl_default", "acl_extended", "acl_nfs4", "atime", "birthtime", "bsdflags", "chunks", "chunks_healthy",
	"ctime", "gid", "group", "hardlink_master", "mode", "mtime", "part", "path", "rdev", "size", "source", "uid", "user", "xattrs",
}

// archivesMax bounds the archives of a repository.
const archivesMax = 1 << 20

// parseManifest reads a manifest's plain content.
func parseManifest(b []byte) (*manifest, error) {
	u := &unpacker{b: b}
	m := &manifest{}
	for range u.mapHead() {
		switch key := u.text(); key {
		case "version":
			m.version = u.uint(math.MaxUint64)
		case "timestamp":
			m.timestamp = u.text()
		case "archives":
			m.archives = u.archives()
		case "config":
			if err := m.parseConfig(u); err != nil {
				return nil, err
			}
		case "tam":
			m.tam = u.tam()
		default:
			u.skip()
		}
	}
	switch {
	case u.err != nil:
		return nil, u.err
	case u.i != len(b):
		return nil, fmt.Errorf("%d bytes follow it: %w", len(b)-u.i, ErrDamaged)
	case m.version != 1 && m.version != 2:
		return nil, fmt.Errorf("it has version %d: %w", m.version, ErrVersion)
	}
	return m, nil
}

// parseConfig reads what the manifest says of the repository.
func (m *manifest) parseConfig(u *unpacker) error {
	for range u.mapHead() {
		switch key := u.text(); key {
		case "tam_required":
			m.tamRequired = u.bool()
		case "feature_flags":
			for range u.mapHead() {
				operation := u.text()
				if need := u.mandatory(); need != "" && (operation == "read" || operation == "check") {
					return fmt.Errorf("it needs the feature %q to be read: %w", need, ErrVersion)
				}
			}
		default:
			u.skip()
		}
	}
	return nil
}

// mandatory reads what an operation needs and returns one need, or "".
func (u *unpacker) mandatory() (need string) {
	for range u.mapHead() {
		if u.text() != "mandatory" {
			u.skip()
			continue
		}
		for range u.arrayHead() {
			need = u.text()
		}
	}
	return need
}

func (u *unpacker) archives() (list []archiveRef) {
	n := u.mapHead()
	if n > archivesMax {
		u.fail("%d archives are more than %d", n, archivesMax)
		return nil
	}
	for range n {
		a := archiveRef{name: u.text()}
		for range u.mapHead() {
			switch key := u.text(); key {
			case "id":
				a.id = u.id()
			case "time":
				a.time = u.text()
			default:
				u.skip()
			}
		}
		if u.err != nil {
			return nil
		}
		list = append(list, a)
	}
	return list
}

func (u *unpacker) tam() *tam {
	if u.null() {
		return nil
	}
	t := new(tam)
	for range u.mapHead() {
		switch key := u.text(); key {
		case "type":
			t.kind = u.text()
		case "hmac":
			t.code = bytes.Clone(u.bytes())
			t.at = u.i - len(t.code)
		case "salt":
			t.salt = bytes.Clone(u.bytes())
		default:
			u.skip()
		}
	}
	return t
}

// errTAM says that something does not authenticate itself.
var errTAM = errors.New("what it authenticates itself with does not fit")

// checkTAM checks what a packed manifest or archive authenticates itself with.
func (k *keys) checkTAM(packed []byte, t *tam, what string) error {
	switch {
	case t == nil:
		return fmt.Errorf("it does not authenticate itself: %w", ErrDamaged)
	case t.kind != tamType:
		return fmt.Errorf("it authenticates itself by %q: %w", t.kind, ErrVersion)
	case len(t.code) != tamSize || len(t.salt) != tamSize:
		return fmt.Errorf("%w: %w", errTAM, ErrDamaged)
	}
	zeroed := bytes.Clone(packed)
	clear(zeroed[t.at:][:len(t.code)])
	sum, err := k.tamSum(zeroed, t.salt, what)
	if err != nil {
		return err
	}
	if !hmac.Equal(sum, t.code) {
		return fmt.Errorf("%w: %w", errTAM, ErrDamaged)
	}
	return nil
}

// appendTAM appends the key "tam" and its value with a code of zeros, and
// returns where the code is to go.
func appendTAM(dst, salt []byte) (b []byte, at int) {
	dst = appendMapHead(appendBytes(dst, "tam"), 3)
	dst = appendBytes(appendBytes(dst, "hmac"), make([]byte, tamSize))
	at = len(dst) - tamSize
	dst = appendBytes(appendBytes(dst, "salt"), salt)
	return appendBytes(appendBytes(dst, "type"), tamType), at
}

// sealTAM puts the code over all of b into b at a place.
func (k *keys) sealTAM(b []byte, at int, salt []byte, what string) error {
	sum, err := k.tamSum(b, salt, what)
	copy(b[at:], sum)
	return err
}

// pack returns a manifest's plain content. salt has 64 random bytes.
func (m *manifest) pack(k *keys, salt []byte) ([]byte, error) {
	b := appendMapHead(nil, 6)
	b = appendMapHead(appendBytes(b, "archives"), len(m.archives))
	list := slices.Clone(m.archives)
	slices.SortFunc(list, func(a, b archiveRef) int { return strings.Compare(a.name, b.name) })
	for _, a := range list {
		b = appendMapHead(appendBytes(b, a.name), 2)
		b = appendBytes(appendBytes(b, "id"), a.id[:])
		b = appendBytes(appendBytes(b, "time"), a.time)
	}
	b = appendBytes(b, "config")
	if m.tamRequired {
		b = appendBool(appendBytes(appendMapHead(b, 1), "tam_required"), true)
	} else {
		b = appendMapHead(b, 0)
	}
	b = appendArrayHead(appendBytes(b, "item_keys"), len(itemKeys))
	for _, key := range itemKeys {
		b = appendBytes(b, key)
	}
	b, at := appendTAM(b, salt)
	b = appendBytes(appendBytes(b, "timestamp"), m.timestamp)
	b = appendUint(appendBytes(b, "version"), m.version)
	return b, k.sealTAM(b, at, salt, tamManifest)
}

// timeLayout is how borg writes times, which are in UTC.
const timeLayout = "2006-01-02T15:04:05.000000"

// parseTime reads a time as borg writes it; the fraction may be missing, and
// borg 1.4 can add a zone.
func parseTime(text string) (format.Time, bool) {
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", time.RFC3339Nano} {
		if t, err := time.Parse(layout, text); err == nil {
			return format.TimeOf(t), true
		}
	}
	return format.Time{}, false
}
