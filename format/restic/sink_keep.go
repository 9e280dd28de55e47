package restic

import (
	"sync"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
)

// Zeros are stored in chunks as restic cuts them; where there are very many, in
// the longest that there are, so that a file with great holes has no endless list.
const (
	zerosSize    = 512 << 10
	zerosSizeMax = format.ChunkSizeMax
	zerosManyMin = 4 << 30
)

// zeroChunks has the ids of chunks of zeros.
var zeroChunks = sync.OnceValue(func() map[int]format.ID {
	plain := make([]byte, zerosSizeMax)
	return map[int]format.ID{
		zerosSize:    format.SumID(plain[:zerosSize]),
		zerosSizeMax: format.SumID(plain),
	}
})

// storer stores chunks of content.
type storer struct{ s *Sink }

// store has a chunk stored, unless it is there. Its payload is always checked:
// otherwise knowing an id would be enough to get at its content.
func (w storer) store(r *format.Data) error {
	known, err := w.claim(r.ID, r.Size)
	if err != nil {
		return err
	}
	d := r.Detach()
	return w.s.jobs.do(max(len(d.Payload), int(d.Size)), func() error {
		err := w.keep(d, known)
		format.FreePayload(d.Payload)
		return err
	})
}

// claim is Sink.claim for a chunk of content, and keeps its size.
func (w storer) claim(id format.ID, size uint32) (known bool, err error) {
	s := w.s
	if known, err = s.claim(dataBlob, id); known || err != nil {
		return known, err
	}
	s.sum.New += uint64(size)
	return false, s.fresh.Put(blobKey(&id), uint64(size))
}

// keep checks a chunk and stores it in the form that the repository has, unless
// it is known.
func (w storer) keep(d *format.Data, known bool) error {
	s := w.s
	var plain []byte
	if d.Codec == format.CodecZstd || !d.Checked {
		var err error
		if plain, err = format.DecodePayload(nil, d); err != nil {
			return err
		}
		defer format.FreePayload(plain)
	}
	if known {
		return nil
	}
	switch {
	case s.r.config.Version >= 2 && d.Codec == format.CodecZstd:
		return s.w.add(s.ctx, dataBlob, d.ID, d.Payload, d.Size)
	case d.Codec != format.CodecZstd:
		plain = d.Payload
	}
	return w.encode(d.ID, plain)
}

// encode stores plain bytes.
func (w storer) encode(id format.ID, plain []byte) error {
	s := w.s
	if s.r.config.Version < 2 {
		return s.w.add(s.ctx, dataBlob, id, plain, 0)
	}
	codec, payload, err := format.EncodePayload(nil, plain, s.opts.Compression)
	if err != nil {
		return err
	}
	if codec == format.CodecNone {
		return s.w.add(s.ctx, dataBlob, id, plain, 0)
	}
	defer format.FreePayload(payload)
	return s.w.add(s.ctx, dataBlob, id, payload, uint32(len(plain)))
}

// zeroChunk stores a chunk of zeros, and returns its id.
func (w storer) zeroChunk(size int) (format.ID, error) {
	id, ok := zeroChunks()[size]
	if !ok {
		id = format.SumID(make([]byte, size))
	}
	known, err := w.claim(id, uint32(size))
	if known || err != nil {
		return id, err
	}
	return id, w.s.jobs.do(size, func() error { return w.encode(id, make([]byte, size)) })
}

// keeper leaves chunks as they come.
type keeper struct {
	storer
	list []format.ID
	done bool
}

func (k *keeper) append(id format.ID) {
	if k.done {
		k.list, k.done = k.list[:0], false
	}
	k.list = append(k.list, id)
}

func (k *keeper) data(d *format.Data) error {
	k.append(d.ID)
	return k.store(d)
}

func (k *keeper) ref(c format.ChunkRef) error {
	k.append(c.ID)
	return nil
}

func (k *keeper) stored(c format.ChunkRef, _ bool) error {
	k.append(c.ID)
	return nil
}

func (k *keeper) part(plain []byte) error {
	id := format.SumID(plain)
	k.append(id)
	known, err := k.claim(id, uint32(len(plain)))
	if known || err != nil {
		return err
	}
	own := format.AllocPayload(len(plain))
	copy(own, plain)
	return k.s.jobs.do(len(own), func() error {
		defer format.FreePayload(own)
		return k.encode(id, own)
	})
}

func (k *keeper) zeros(size uint64) error {
	for size > 0 {
		n := min(size, zerosSize)
		if size >= zerosManyMin {
			n = zerosSizeMax
		}
		id, err := k.zeroChunk(int(n))
		if err != nil {
			return err
		}
		k.append(id)
		size -= n
	}
	return nil
}

func (k *keeper) finish() ([]format.ID, error) {
	if k.done {
		k.list = k.list[:0] // of an empty file
	}
	k.done = true
	return k.list, nil
}

// newContentWriter returns who cuts content as the options say.
func (s *Sink) newContentWriter() (contentWriter, error) {
	if !s.opts.Recut {
		return &keeper{storer: storer{s}}, nil
	}
	polynomial, err := s.r.Polynomial()
	if err != nil {
		return nil, err
	}
	factory, err := chunker.New(chunker.ResticRabin, chunker.Keyed{Polynomial: polynomial})
	if err != nil {
		return nil, err
	}
	return newCutter(storer{s}, factory.Splitter()), nil
}
