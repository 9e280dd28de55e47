package pack

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

const (
	tailSize = 64 << 10 // bytes from the end of a pack that are read at first
	scanSize = 1 << 20  // bytes read at a time where a whole pack is hashed
)

// Secrets returns the key of a group's epoch, or an error that says why there is
// none.
type Secrets func(group seal.GroupID, epoch uint32) (*seal.Key, error)

// ReadDirectory reads what the pack of that name and size (as storage lists it)
// says of itself, with ranged reads of its header and its end: this is how an
// index is made anew. It returns the group besides.
//
// If something is wrong it hashes the whole pack, so that a damaged one is told
// from one of a newer version or under another key: it fails with ErrDamaged,
// ErrVersion or ErrWrongKey, or with the error of secrets or of the storage.
func ReadDirectory(ctx context.Context, st store.Reader, name string, size int64, repository seal.RepositoryID, secrets Secrets) (Listed, seal.GroupID, error) {
	r := directoryReader{st: st, name: name, size: size}
	listed, group, err := r.read(ctx, repository, secrets)
	if err != nil {
		if errors.Is(err, seal.ErrVersion) || errors.Is(err, seal.ErrWrongKey) || errors.Is(err, seal.ErrDamaged) {
			err = r.diagnose(ctx, err)
		}
		return Listed{}, group, fmt.Errorf("read the directory of %s: %w", name, err)
	}
	return listed, group, nil
}

type directoryReader struct {
	st   store.Reader
	name string
	size int64
	tail []byte // the last bytes of the pack
}

func (r *directoryReader) read(ctx context.Context, repository seal.RepositoryID, secrets Secrets) (l Listed, group seal.GroupID, err error) {
	n, ok := seal.ParseName(r.name)
	if !ok || !n.Kind.IsPack() {
		return l, group, errors.New("this is not the name of a pack")
	}
	if r.size < packSizeMin || r.size > SizeMax || seal.PaddedSize(r.size) != r.size {
		return l, group, fmt.Errorf("%w: %d bytes is not the size of a pack", seal.ErrDamaged, r.size)
	}
	var header [seal.HeaderSize]byte
	if err := r.st.ReadAt(ctx, r.name, header[:], 0); err != nil {
		return l, group, err
	}
	h, err := seal.ParseHeader(header[:])
	if err != nil {
		return l, group, err
	}
	if !h.Kind.IsPack() {
		return l, group, fmt.Errorf("%w: it is a %s", seal.ErrDamaged, h.Kind)
	}
	if h.Repository != repository {
		return l, group, fmt.Errorf("%w: it belongs to another repository, %s", seal.ErrDamaged, h.Repository)
	}
	group = h.Owner
	secret, err := secrets(group, h.Epoch)
	if err != nil {
		return l, group, err
	}
	keys, err := seal.NewKeys(secret, &h)
	if err != nil {
		return l, group, err
	}
	if err := keys.Check(&h); err != nil {
		return l, group, err
	}
	aead, err := keys.AEAD(seal.PurposeDirectory)
	if err != nil {
		return l, group, err
	}
	l.Info = Info{Name: n.Sum, Kind: h.Kind, Suite: h.Suite, Epoch: h.Epoch, Salt: h.Salt, Size: r.size}
	return l, group, r.readSealed(ctx, aead, header[:], &l)
}

// readSealed reads the trailer and the directory into l.
func (r *directoryReader) readSealed(ctx context.Context, aead *seal.AEAD, header []byte, l *Listed) error {
	if err := r.readTail(ctx, min(tailSize, r.size-seal.HeaderSize)); err != nil {
		return err
	}
	sealed := r.tail[len(r.tail)-trailerSize:]
	trailer, err := aead.Open(nil, 1, sealed, header)
	if err != nil {
		return fmt.Errorf("trailer: %w", err)
	}
	offset := binary.BigEndian.Uint64(trailer)
	length := int64(binary.BigEndian.Uint32(trailer[8:]))
	count := binary.BigEndian.Uint32(trailer[12:])
	room := r.size - seal.HeaderSize - trailerSize
	if length < directorySizeMin+seal.Overhead || length > room || offset != uint64(r.size-trailerSize-length) {
		return fmt.Errorf("%w: the trailer puts a directory of %d bytes at %d", seal.ErrDamaged, length, offset)
	}
	if length+trailerSize > int64(len(r.tail)) {
		if err := r.readTail(ctx, length+trailerSize); err != nil {
			return err
		}
	}
	start := int64(len(r.tail)) - trailerSize - length
	sealed = r.tail[start:][:length]
	plain, err := aead.Open(sealed[:0], 0, sealed, header)
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	end, err := parseDirectory(plain, l)
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	if l.Info.Count != count || uint64(end) != offset {
		return fmt.Errorf("%w: directory and trailer disagree", seal.ErrDamaged)
	}
	return nil
}

// readTail reads the last n bytes of the pack.
func (r *directoryReader) readTail(ctx context.Context, n int64) error {
	r.tail = make([]byte, n)
	return r.st.ReadAt(ctx, r.name, r.tail, r.size-n)
}

// diagnose returns cause, or ErrDamaged if the pack is not what its name says.
func (r *directoryReader) diagnose(ctx context.Context, cause error) error {
	sum := sha256.New()
	buf := make([]byte, min(scanSize, max(r.size, 0)))
	for off := int64(0); off < r.size; {
		buf = buf[:min(int64(len(buf)), r.size-off)]
		if err := r.st.ReadAt(ctx, r.name, buf, off); err != nil {
			return err
		}
		sum.Write(buf)
		off += int64(len(buf))
	}
	if n, _ := seal.ParseName(r.name); n.Sum != [32]byte(sum.Sum(nil)) {
		return fmt.Errorf("%w: its content does not have the SHA-256 that it is named by (%v)", seal.ErrDamaged, cause)
	}
	return cause
}

// parseDirectory reads the plaintext of a directory into l. end is where the
// chunks end in the pack.
func parseDirectory(plain []byte, l *Listed) (end int64, err error) {
	if len(plain) < directorySizeMin {
		return 0, fmt.Errorf("%w: it has %d bytes", seal.ErrDamaged, len(plain))
	}
	l.Info.Writer = seal.ClientID(plain[:writerSize])
	l.Info.Count = binary.BigEndian.Uint32(plain[writerSize:])
	rest := plain[directorySizeMin:]
	if uint64(l.Info.Count) > uint64(len(rest)/entrySize) {
		return 0, fmt.Errorf("%w: %d entries cannot stand in %d bytes", seal.ErrDamaged, l.Info.Count, len(rest))
	}
	count := int(l.Info.Count)
	if !seal.IsZero(rest[count*entrySize:]) {
		return 0, fmt.Errorf("%w: its padding is not zero", seal.ErrDamaged)
	}
	l.Entries, end, err = parseEntries(make([]Entry, 0, count), rest, count)
	return end, err
}
