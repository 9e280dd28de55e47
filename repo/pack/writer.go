package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
)

const (
	// DataSizeAim and MetaSizeAim are the sizes, padding included, that writers
	// of packs aim at: sizes that need no padding. Meta packs are smaller because
	// a session makes little of them.
	DataSizeAim = 16 << 20
	MetaSizeAim = 4 << 20
	// partSize is what a pack grows by in memory: what is not filled yet need not
	// be there, nor in one piece.
	partSize = 1 << 20
)

// Writer fills one pack, in memory. It must not be used concurrently: every
// worker has its own.
type Writer struct {
	header  seal.Header
	client  seal.ClientID
	chunks  *seal.AEAD
	keys    *seal.Keys
	parts   [][]byte // of the object so far, in buffers of format.AllocPayload; only the last one grows
	size    int      // bytes of the parts
	sum     hash.Hash
	entries []Entry
	ad      []byte
	done    bool
}

// NewWriter begins a pack. h says its kind (a pack's), suite, repository, group
// and epoch; its salt is drawn from rand, which must be unpredictable and never
// repeat. secret is the group's key of that epoch, client is who writes.
func NewWriter(secret *seal.Key, h seal.Header, client seal.ClientID, rand io.Reader) (*Writer, error) {
	if !h.Kind.IsPack() || h.Epoch == 0 {
		return nil, fmt.Errorf("begin a pack: a %s of epoch %d is none", h.Kind, h.Epoch)
	}
	keys, err := seal.NewObjectKeys(secret, &h, rand)
	if err != nil {
		return nil, err
	}
	chunks, err := keys.AEAD(seal.PurposeChunk)
	if err != nil {
		return nil, err
	}
	w := &Writer{header: h, client: client, chunks: chunks, keys: keys, sum: sha256.New()}
	w.grow(h.Append(w.room(seal.HeaderSize)))
	return w, nil
}

// room returns the last part, with room for n bytes more.
func (w *Writer) room(n int) []byte {
	if last := len(w.parts) - 1; last >= 0 && cap(w.parts[last])-len(w.parts[last]) >= n {
		return w.parts[last]
	}
	w.parts = append(w.parts, format.AllocPayload(max(partSize, n))[:0])
	return w.parts[len(w.parts)-1]
}

// grow takes the last part as it is now, with more bytes at its end.
func (w *Writer) grow(last []byte) {
	part := &w.parts[len(w.parts)-1]
	added := last[len(*part):]
	w.size += len(added)
	w.sum.Write(added)
	*part = last
}

// headerBytes is the encoded header, with which the first part begins.
func (w *Writer) headerBytes() []byte { return w.parts[0][:seal.HeaderSize] }

// Add seals a chunk's payload as the next one of the pack: rawSize plain bytes,
// encoded by codec. payload is only read, and not after the call. A chunk that
// breaks a limit, or that would make the pack longer than SizeMax, is refused;
// the pack stays as it was.
func (w *Writer) Add(label seal.Label, codec Codec, rawSize uint32, payload []byte) error {
	if w.done {
		return errFinished
	}
	e := Entry{Label: label, Codec: codec, RawSize: rawSize, Offset: uint32(w.size)}
	size := w.sizeMin(1) + int64(len(payload)) + seal.Overhead
	if seal.PaddedSize(size) > SizeMax {
		return fmt.Errorf("add chunk %s: the pack would have %d bytes: %w", label, size, seal.ErrTooLarge)
	}
	e.StoredSize = uint32(len(payload) + seal.Overhead)
	if err := e.check(); err != nil {
		return fmt.Errorf("add chunk %s: %w", label, err)
	}
	w.ad = appendChunkAD(w.ad[:0], w.headerBytes(), &label, codec, rawSize)
	w.grow(w.chunks.Seal(w.room(len(payload)+seal.Overhead), uint64(len(w.entries)), payload, w.ad))
	w.entries = append(w.entries, e)
	return nil
}

// Len returns how many bytes the pack would have if it were finished now,
// without padding. seal.PaddedSize of it is what storage would see.
func (w *Writer) Len() int { return int(w.sizeMin(0)) }

// Count returns the number of chunks.
func (w *Writer) Count() int { return len(w.entries) }

// sizeMin is Len if there were so many entries more.
func (w *Writer) sizeMin(more int) int64 {
	return int64(w.size) + directorySizeMin + int64(len(w.entries)+more)*entrySize + seal.Overhead + trailerSize
}

// Finish completes the pack with its directory and padding. object, in parts, is
// to be stored under info.ObjectName(); it is the writer's and stays until
// Release. entries is the caller's. A pack without chunks is refused.
func (w *Writer) Finish() (object [][]byte, info Info, entries []Entry, err error) {
	if w.done {
		return nil, info, nil, errFinished
	}
	if len(w.entries) == 0 {
		return nil, info, nil, errors.New("finish a pack: it has no chunks")
	}
	w.done = true
	aead, err := w.keys.AEAD(seal.PurposeDirectory)
	if err != nil {
		return nil, info, nil, err
	}
	offset := w.size
	size := int(seal.PaddedSize(w.sizeMin(0)))
	directorySize := size - trailerSize - offset

	last := w.room(size - offset)
	directory := append(last[len(last):], w.client[:]...)
	directory = binary.BigEndian.AppendUint32(directory, uint32(len(w.entries)))
	for i := range w.entries {
		directory = w.entries[i].append(directory)
	}
	written := len(directory)
	directory = directory[:directorySize-seal.Overhead]
	clear(directory[written:])
	last = aead.Seal(last, 0, directory, w.headerBytes())

	var trailer [trailerSize]byte
	binary.BigEndian.PutUint64(trailer[0:], uint64(offset))
	binary.BigEndian.PutUint32(trailer[8:], uint32(directorySize))
	binary.BigEndian.PutUint32(trailer[12:], uint32(len(w.entries)))
	w.grow(aead.Seal(last, 1, trailer[:trailerSize-seal.Overhead], w.headerBytes()))

	info = Info{
		Kind: w.header.Kind, Suite: w.header.Suite, Epoch: w.header.Epoch, Salt: w.header.Salt,
		Size: int64(size), Writer: w.client, Count: uint32(len(w.entries)),
	}
	w.sum.Sum(info.Name[:0])
	return w.parts, info, w.entries, nil
}

// Release gives the memory of the pack back, for other packs: the object that
// Finish returned must not be used any more, nor the writer. A writer that is
// not released costs nothing but that memory, until it is collected.
func (w *Writer) Release() {
	for _, part := range w.parts {
		format.FreePayload(part)
	}
	w.done, w.parts = true, nil
}

var errFinished = errors.New("the pack is finished already")
