package pack

import (
	"fmt"

	"github.com/bk-backup/bk/repo/seal"
)

// Opener opens the chunks of one pack. Making one costs some microseconds, so
// callers keep those of the packs that they read. It may be used concurrently.
type Opener struct {
	header [seal.HeaderSize]byte
	chunks *seal.AEAD
}

// NewOpener returns the opener of a pack of which an index told info. h gives
// the repository and the group; the rest of it is taken from info. secret is the
// group's key of info.Epoch. Whether it is the right one is seen only when a
// chunk is opened, since the pack's header is not read.
func NewOpener(secret *seal.Key, h seal.Header, info *Info) (*Opener, error) {
	if !info.Kind.IsPack() {
		return nil, fmt.Errorf("%w: a %s is not a pack", seal.ErrDamaged, info.Kind)
	}
	h.Kind, h.Suite, h.Epoch, h.Salt = info.Kind, info.Suite, info.Epoch, info.Salt
	keys, err := seal.NewKeys(secret, &h)
	if err != nil {
		return nil, err
	}
	if err := keys.Commit(&h); err != nil {
		return nil, err
	}
	o := new(Opener)
	h.Append(o.header[:0])
	if o.chunks, err = keys.AEAD(seal.PurposeChunk); err != nil {
		return nil, err
	}
	return o, nil
}

// OpenChunk appends the payload of chunk number i of the pack, whose sealed
// bytes are stored, to dst; dst may be stored[:0]. It fails with ErrDamaged
// unless exactly these bytes were sealed as that chunk, with the entry's label,
// codec and size. The caller decodes the payload and checks the chunk's id.
func (o *Opener) OpenChunk(dst []byte, i uint32, e *Entry, stored []byte) ([]byte, error) {
	if int64(len(stored)) != int64(e.StoredSize) {
		return nil, fmt.Errorf("%w: chunk %s has %d sealed bytes, not %d", seal.ErrDamaged, e.Label, len(stored), e.StoredSize)
	}
	var buf [seal.HeaderSize + seal.LabelSize + 1 + 4]byte
	ad := appendChunkAD(buf[:0], o.header[:], &e.Label, e.Codec, e.RawSize)
	out, err := o.chunks.Open(dst, uint64(i), stored, ad)
	if err != nil {
		return nil, fmt.Errorf("chunk %d, %s: %w", i, e.Label, err)
	}
	return out, nil
}
