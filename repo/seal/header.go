package seal

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Sizes in bytes.
const (
	HeaderSize = 128 // the header that every object begins with
	SumSize    = 32  // the SHA-256 at the end of most objects

	boundSize = 64 // the part of the header that every key is bound to
)

const (
	magic   = "bkobject"
	version = 1
)

// Kind is what an object is (spec/repository.md, 2).
type Kind uint8

const (
	KindConfig     Kind = 1
	KindCredential Kind = 2
	KindClient     Kind = 3
	KindDataPack   Kind = 4
	KindMetaPack   Kind = 5
	KindIndex      Kind = 6
	KindSnapshot   Kind = 7
	KindSession    Kind = 8
	KindPlan       Kind = 9
	KindForget     Kind = 10
	KindPartial    Kind = 11
	KindDamage     Kind = 12
)

var kindNames = [...]string{
	KindConfig: "config", KindCredential: "credential", KindClient: "client chunk", KindDataPack: "data pack",
	KindMetaPack: "meta pack", KindIndex: "index", KindSnapshot: "snapshot", KindSession: "session",
	KindPlan: "plan", KindForget: "forget object", KindPartial: "partial import", KindDamage: "list of damage",
}

// String returns what messages call an object of this kind.
func (k Kind) String() string {
	if k.known() {
		return kindNames[k]
	}
	return fmt.Sprintf("object of kind %d", uint8(k))
}

func (k Kind) known() bool { return k >= KindConfig && k <= KindDamage }

// IsPack reports whether objects of this kind hold chunks.
func (k Kind) IsPack() bool { return k == KindDataPack || k == KindMetaPack }

// HasSum reports whether objects of this kind end with the SHA-256 of the bytes
// before. The others are named by the SHA-256 of all of theirs.
func (k Kind) HasSum() bool { return !k.IsPack() && k != KindIndex }

// inGroup reports whether objects of this kind are sealed under an epoch key of
// a group.
func (k Kind) inGroup() bool { return k >= KindDataPack }

// The identifiers that a header binds an object to.
type (
	RepositoryID [32]byte
	GroupID      [16]byte
	ClientID     [16]byte
	SessionID    [16]byte
)

// String returns hexadecimal digits.
func (id RepositoryID) String() string { return fmt.Sprintf("%x", id[:]) }

// String returns hexadecimal digits.
func (id GroupID) String() string { return fmt.Sprintf("%x", id[:]) }

// String returns hexadecimal digits.
func (id ClientID) String() string { return fmt.Sprintf("%x", id[:]) }

// String returns hexadecimal digits.
func (id SessionID) String() string { return fmt.Sprintf("%x", id[:]) }

// Salt is drawn at random for every object and never used for another.
type Salt [32]byte

// Header is what every object begins with (spec/repository.md, 2.1). Its fields
// are not secret, and all of them are authenticated by what is sealed behind.
type Header struct {
	Kind       Kind
	Suite      Suite
	Epoch      uint32 // of the group's key, from 1; 0 for kinds 1, 2 and 3, and for voids
	Repository RepositoryID
	// Owner is the group, the client for [KindCredential] and [KindClient],
	// and zero for [KindConfig].
	Owner      [16]byte
	Salt       Salt
	Commitment [KeySize]byte // see Keys.Commit; zero for KindConfig
}

// Append appends the header's 128 bytes to dst.
func (h *Header) Append(dst []byte) []byte {
	dst = append(dst, magic...)
	dst = append(dst, version, byte(h.Kind), byte(h.Suite), 0)
	dst = binary.BigEndian.AppendUint32(dst, h.Epoch)
	dst = append(dst, h.Repository[:]...)
	dst = append(dst, h.Owner[:]...)
	dst = append(dst, h.Salt[:]...)
	return append(dst, h.Commitment[:]...)
}

// ParseHeader reads the header at the beginning of an object, which may be cut
// off behind it. It fails with ErrVersion for what a newer version of the format
// can have made, and with ErrDamaged for what nothing can have made; but damaged
// bytes can look like a newer version, so callers who can verify a checksum do
// that first.
func ParseHeader(object []byte) (Header, error) {
	var h Header
	if len(object) < HeaderSize {
		return h, fmt.Errorf("%w: %d bytes are too few for an object", ErrDamaged, len(object))
	}
	b := object[:HeaderSize]
	if !bytes.HasPrefix(b, []byte(magic)) {
		return h, fmt.Errorf("%w: it does not begin as an object of a repository does", ErrDamaged)
	}
	if b[8] == 0 {
		return h, fmt.Errorf("%w: there is no format version 0", ErrDamaged)
	}
	if b[8] != version {
		return h, fmt.Errorf("%w: version %d of the format, and this program knows %d", ErrVersion, b[8], version)
	}
	h.Kind, h.Suite = Kind(b[9]), Suite(b[10])
	h.Epoch = binary.BigEndian.Uint32(b[12:])
	h.Repository = RepositoryID(b[16:48])
	h.Owner = [16]byte(b[48:64])
	h.Salt = Salt(b[64:96])
	h.Commitment = [KeySize]byte(b[96:128])
	if err := h.check(); err != nil {
		return h, err
	}
	if b[11] != 0 {
		return h, fmt.Errorf("%w: byte 11 of the header is %d, not 0", ErrDamaged, b[11])
	}
	return h, nil
}

// check says what in the header cannot be, within version 1.
func (h *Header) check() error {
	if !h.Kind.known() {
		return fmt.Errorf("%w: %s is not known", ErrVersion, h.Kind)
	}
	if _, ok := suiteNames[h.Suite]; !ok {
		return fmt.Errorf("%w: %s is not known", ErrVersion, h.Suite)
	}
	void := h.Kind == KindSnapshot && h.Epoch == 0 // it is sealed under the group's label key
	if h.Kind.inGroup() != (h.Epoch != 0) && !void {
		return fmt.Errorf("%w: a %s of epoch %d", ErrDamaged, h.Kind, h.Epoch)
	}
	if h.Kind == KindConfig && (h.Owner != [16]byte{} || h.Commitment != [KeySize]byte{}) {
		return fmt.Errorf("%w: the header of a config has an owner or a commitment", ErrDamaged)
	}
	return nil
}
