package seal

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
)

const lengthSize = 4 // bytes of the length that a sealed body begins with

// Expect is what an object must be in order to be the one that was asked for.
type Expect struct {
	// Name is the object's name in the repository. Where it names the object by
	// its SHA-256, the bytes are checked against it; in any case errors say it.
	// It may be empty.
	Name       string
	Kind       Kind
	Repository RepositoryID
	Owner      [16]byte // the group, or the client for KindClient and KindCredential
}

// SealObject makes an object that is sealed whole: kinds 3 and 6 to 11
// (spec/repository.md, 2.3). secret is the key of h.Owner: the group's key of
// h.Epoch, or the client key. h's Salt is drawn from rand, which must be
// unpredictable and never repeat, as crypto/rand.Reader. It fails with
// ErrTooLarge if the object would exceed ObjectSizeMax.
func SealObject(secret *Key, h Header, body []byte, rand io.Reader) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	if !sealedWhole(h.Kind) {
		return nil, fmt.Errorf("seal a %s: objects of this kind are not sealed whole", h.Kind)
	}
	size := objectSize(h.Kind, frameSize(h.Kind)+int64(len(body)))
	if size > ObjectSizeMax {
		return nil, fmt.Errorf("seal a %s of %d bytes: %w", h.Kind, len(body), ErrTooLarge)
	}
	keys, err := NewObjectKeys(secret, &h, rand)
	if err != nil {
		return nil, err
	}
	aead, err := keys.AEAD(PurposeBody)
	if err != nil {
		return nil, err
	}
	object := make([]byte, 0, size)
	object = h.Append(object)
	object = binary.BigEndian.AppendUint32(object, uint32(len(body)))
	object = append(object, body...)
	end := int(size) - Overhead
	if h.Kind.HasSum() {
		end -= SumSize
	}
	plain := object[HeaderSize:end] // the rest of it is zero since make
	object = aead.Seal(object[:HeaderSize], 0, plain, object[:HeaderSize])
	if h.Kind.HasSum() {
		object = AppendSum(object)
	}
	return object, nil
}

// OpenObject returns the body of an object that SealObject made. It decrypts in
// place: stored is overwritten, also when it fails, and body points into it.
// Checksums are verified before the key, so that a damaged object is never taken
// for a wrong key: it fails with ErrDamaged, ErrVersion or ErrWrongKey.
func OpenObject(secret *Key, stored []byte, want Expect) (body []byte, h Header, err error) {
	defer func() {
		if err != nil && want.Name != "" {
			err = fmt.Errorf("open %s: %w", want.Name, err)
		}
	}()
	sealed, h, err := checkObject(stored, want)
	if err != nil {
		return nil, h, err
	}
	if !sealedWhole(h.Kind) {
		return nil, h, fmt.Errorf("objects of kind %s are not sealed whole", h.Kind)
	}
	if int64(len(stored)) != objectSize(h.Kind, int64(len(stored))) || int64(len(stored)) < frameSize(h.Kind) {
		return nil, h, fmt.Errorf("%w: %d bytes is not the size of a %s", ErrDamaged, len(stored), h.Kind)
	}
	keys, err := NewKeys(secret, &h)
	if err != nil {
		return nil, h, err
	}
	if err := keys.Check(&h); err != nil {
		return nil, h, err
	}
	aead, err := keys.AEAD(PurposeBody)
	if err != nil {
		return nil, h, err
	}
	plain, err := aead.Open(sealed[:0], 0, sealed, stored[:HeaderSize])
	if err != nil {
		return nil, h, err
	}
	body, err = unpad(plain)
	return body, h, err
}

// NewObjectKeys draws the salt of a new object from rand, writes it and the
// commitment into h, and returns the object's keys.
func NewObjectKeys(secret *Key, h *Header, rand io.Reader) (*Keys, error) {
	if _, err := io.ReadFull(rand, h.Salt[:]); err != nil {
		return nil, fmt.Errorf("draw the salt of a %s: %w", h.Kind, err)
	}
	keys, err := NewKeys(secret, h)
	if err != nil {
		return nil, err
	}
	return keys, keys.Commit(h)
}

// ParseObject checks everything about an object for which no key is needed: its
// checksum, its header, and that it is the one that was asked for. It returns
// what stands between the header and the checksum, which points into stored. It
// is what opens the kinds that are not sealed whole (config, credential).
func ParseObject(stored []byte, want Expect) (content []byte, h Header, err error) {
	content, h, err = checkObject(stored, want)
	if err != nil && want.Name != "" {
		err = fmt.Errorf("open %s: %w", want.Name, err)
	}
	return content, h, err
}

func checkObject(stored []byte, want Expect) (content []byte, h Header, err error) {
	if err := checkSum(stored, want); err != nil {
		return nil, h, err
	}
	if h, err = ParseHeader(stored); err != nil {
		return nil, h, err
	}
	if err := h.expect(want); err != nil {
		return nil, h, err
	}
	end := len(stored)
	if h.Kind.HasSum() {
		end -= SumSize // checkSum made sure that there is one behind the header
	}
	return stored[HeaderSize:end], h, nil
}

// expect says why an object with header h is not the one that was asked for.
func (h *Header) expect(want Expect) error {
	switch {
	case h.Kind != want.Kind:
		return fmt.Errorf("%w: a %s lies where a %s belongs", ErrDamaged, h.Kind, want.Kind)
	case h.Repository != want.Repository:
		return fmt.Errorf("%w: it belongs to another repository, %s", ErrDamaged, h.Repository)
	case h.Owner != want.Owner:
		return fmt.Errorf("%w: it belongs to another group or client, %x", ErrDamaged, h.Owner)
	}
	return nil
}

// checkSum verifies the checksum of an object that should be of kind want.Kind.
// It goes by the kind that is wanted and not by the one in the header, since
// nothing in the header can be relied upon before.
func checkSum(stored []byte, want Expect) error {
	if want.Kind.HasSum() {
		if len(stored) < HeaderSize+SumSize {
			return fmt.Errorf("%w: %d bytes are too few for a %s", ErrDamaged, len(stored), want.Kind)
		}
		body, sum := stored[:len(stored)-SumSize], stored[len(stored)-SumSize:]
		if sha256.Sum256(body) != [SumSize]byte(sum) {
			return fmt.Errorf("%w: its checksum does not match its content", ErrDamaged)
		}
		return nil
	}
	if len(stored) < HeaderSize {
		return fmt.Errorf("%w: %d bytes are too few for a %s", ErrDamaged, len(stored), want.Kind)
	}
	if name, ok := ParseName(want.Name); ok && name.Sum != sha256.Sum256(stored) {
		return fmt.Errorf("%w: its content does not have the SHA-256 that it is named by", ErrDamaged)
	}
	return nil
}

// AppendSum appends the SHA-256 of object to it, as most objects end.
func AppendSum(object []byte) []byte {
	sum := sha256.Sum256(object)
	return append(object, sum[:]...)
}

// Scrub verifies without any key that stored is what was once stored under
// name, as far as that can be seen: the checksum holds, and the object is of a
// kind that may lie there. It fails with ErrDamaged, and with ErrVersion for an
// object that is whole but of a newer format. A name that no object of a
// repository has is an error, too; such objects should be passed over.
func Scrub(name string, stored []byte) error {
	n, ok := ParseName(name)
	if !ok {
		return fmt.Errorf("check %s: no object of a repository has such a name", name)
	}
	if err := checkSum(stored, Expect{Name: name, Kind: n.Kind}); err != nil {
		return fmt.Errorf("check %s: %w", name, err)
	}
	h, err := ParseHeader(stored)
	if err == nil && h.Kind != n.Kind && !(h.Kind.IsPack() && n.Kind.IsPack()) {
		err = fmt.Errorf("%w: a %s lies where a %s belongs", ErrDamaged, h.Kind, n.Kind)
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", name, err)
	}
	return nil
}

func sealedWhole(k Kind) bool { return k == KindClient || k >= KindIndex && k.known() }

// frameSize is the size of an object with an empty body and no padding.
func frameSize(k Kind) int64 {
	size := int64(HeaderSize + lengthSize + Overhead)
	if k.HasSum() {
		size += SumSize
	}
	return size
}

// unpad returns the body that a plaintext holds.
func unpad(plain []byte) ([]byte, error) {
	size := int64(binary.BigEndian.Uint32(plain))
	rest := plain[lengthSize:]
	if size > int64(len(rest)) {
		return nil, fmt.Errorf("%w: %d bytes of content cannot stand in %d", ErrDamaged, size, len(rest))
	}
	if !IsZero(rest[size:]) {
		return nil, fmt.Errorf("%w: its padding is not zero", ErrDamaged)
	}
	return rest[:size:size], nil
}

// IsZero reports whether all bytes are zero, as padding is.
func IsZero(b []byte) bool {
	var zero [4096]byte
	for len(b) > 0 {
		n := min(len(b), len(zero))
		if string(b[:n]) != string(zero[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}
