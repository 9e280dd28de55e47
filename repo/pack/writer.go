package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/bk-backup/bk/repo/seal"
)

const (
	// DataSizeAim and MetaSizeAim are the sizes, padding included, that writers
	// of packs aim at: sizes that need no padding. Meta packs are smaller because
	// a session makes little of them.
	DataSizeAim = 16 << 20
	MetaSizeAim = 4 << 20
	// bufferSizeMax is the largest buffer that is kept for another pack.
	bufferSizeMax = 64 << 20
)

// dataBuffers and metaBuffers hold *[]byte of the sizes that are aimed at.
var dataBuffers, metaBuffers sync.Pool

// buffersOf returns the pool for packs of a kind, and the size of its buffers.
func buffersOf(kind seal.Kind) (*sync.Pool, int) {
	if kind == seal.KindMetaPack {
		return &metaBuffers, MetaSizeAim
	}
	return &dataBuffers, DataSizeAim
}

// Writer fills one pack, in memory. It must not be used concurrently: every
// worker has its own.
type Writer struct {
	header  seal.Header
	client  seal.ClientID
	chunks  *seal.AEAD
	keys    *seal.Keys
	buffer  *[]byte // from the pool
	object  []byte  // what of the pack there is; lies in *buffer unless that was too small
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
	pool, size := buffersOf(h.Kind)
	if w.buffer, _ = pool.Get().(*[]byte); w.buffer == nil {
		b := make([]byte, 0, size)
		w.buffer = &b
	}
	w.object = h.Append((*w.buffer)[:0])
	w.sum.Write(w.object)
	return w, nil
}

// Add seals a chunk's payload as the next one of the pack: rawSize plain bytes,
// encoded by codec. payload is only read, and not after the call. A chunk that
// breaks a limit, or that would make the pack longer than SizeMax, is refused;
// the pack stays as it was.
func (w *Writer) Add(label seal.Label, codec Codec, rawSize uint32, payload []byte) error {
	if w.done {
		return errFinished
	}
	e := Entry{Label: label, Codec: codec, RawSize: rawSize, Offset: uint32(len(w.object))}
	size := w.sizeMin(1) + int64(len(payload)) + seal.Overhead
	if seal.PaddedSize(size) > SizeMax {
		return fmt.Errorf("add chunk %s: the pack would have %d bytes: %w", label, size, seal.ErrTooLarge)
	}
	e.StoredSize = uint32(len(payload) + seal.Overhead)
	if err := e.check(); err != nil {
		return fmt.Errorf("add chunk %s: %w", label, err)
	}
	w.ad = appendChunkAD(w.ad[:0], w.object[:seal.HeaderSize], &label, codec, rawSize)
	w.object = w.chunks.Seal(w.object, uint64(len(w.entries)), payload, w.ad)
	w.sum.Write(w.object[e.Offset:])
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
	return int64(len(w.object)) + directorySizeMin + int64(len(w.entries)+more)*entrySize + seal.Overhead + trailerSize
}

// Finish completes the pack with its directory and padding. object is to be
// stored under info.ObjectName(); it is the writer's and stays until Release.
// entries is the caller's. A pack without chunks is refused.
func (w *Writer) Finish() (object []byte, info Info, entries []Entry, err error) {
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
	offset := len(w.object)
	size := int(seal.PaddedSize(w.sizeMin(0)))
	directoryEnd := size - trailerSize

	w.object = append(w.object, w.client[:]...)
	w.object = binary.BigEndian.AppendUint32(w.object, uint32(len(w.entries)))
	for i := range w.entries {
		w.object = w.entries[i].append(w.object)
	}
	w.object = append(w.object, make([]byte, size-len(w.object))...)
	header := w.object[:seal.HeaderSize]
	aead.Seal(w.object[:offset], 0, w.object[offset:directoryEnd-seal.Overhead], header)

	var trailer [trailerSize]byte
	binary.BigEndian.PutUint64(trailer[0:], uint64(offset))
	binary.BigEndian.PutUint32(trailer[8:], uint32(directoryEnd-offset))
	binary.BigEndian.PutUint32(trailer[12:], uint32(len(w.entries)))
	aead.Seal(w.object[:directoryEnd], 1, trailer[:trailerSize-seal.Overhead], header)
	w.sum.Write(w.object[offset:])

	info = Info{
		Kind: w.header.Kind, Suite: w.header.Suite, Epoch: w.header.Epoch, Salt: w.header.Salt,
		Size: int64(size), Writer: w.client, Count: uint32(len(w.entries)),
	}
	w.sum.Sum(info.Name[:0])
	return w.object, info, w.entries, nil
}

// Release gives the memory of the pack back, for other packs: the object that
// Finish returned must not be used any more, nor the writer. A writer that is
// not released costs nothing but that memory, until it is collected.
func (w *Writer) Release() {
	if w.buffer == nil {
		return
	}
	if cap(w.object) <= bufferSizeMax {
		*w.buffer = w.object[:0]
		pool, _ := buffersOf(w.header.Kind)
		pool.Put(w.buffer)
	}
	w.done, w.buffer, w.object = true, nil, nil
}

var errFinished = errors.New("the pack is finished already")
