package repo

import (
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
)

// store gives a chunk to the workers, who check it and keep it if it is new.
func (s *Sink) store(rec *format.Data) error {
	d := rec.Detach()
	payload := d.Payload
	// What a worker holds is bounded by the plain size: a payload may be a
	// thousandth of what it decodes to.
	weight := max(len(payload), int(rec.Size))
	return s.pool.do(weight, func() error {
		err := s.keep(d)
		format.FreePayload(payload)
		return err
	})
}

// keep checks a chunk and stores it if the repository does not hold it.
// A payload is always decoded and hashed first, also that of a chunk which is
// held: otherwise knowing an id would be enough to get at its content.
func (s *Sink) keep(d *format.Data) error {
	codec, payload := pack.CodecNone, d.Payload
	var plain []byte
	switch {
	case d.Codec == format.CodecZstd:
		decoded, err := format.DecodePayload(nil, d)
		if err != nil {
			return err
		}
		defer format.FreePayload(decoded)
		plain, codec = decoded, pack.CodecZstd
	case !d.Checked:
		if id := format.SumID(d.Payload); id != d.ID {
			return d.Place().At(format.Errorf(format.ClassChunk, "the payload is not chunk %s: it has the id %s", d.ID, id))
		}
	}
	label := s.r.label.LabelOf(seal.ChunkData, d.ID)
	fresh, err := s.r.index.Claim(label)
	if err != nil || !fresh {
		return err
	}
	if s.opts.Recompress && plain != nil {
		codec, payload = pack.CodecNone, plain
	}
	return s.keepNew(d.ID, label, d.Size, codec, payload)
}

// cut stores a chunk that was made here, and appends it to the content that is
// arriving. plain is copied only if the repository does not hold it.
func (s *Sink) cut(id format.ID, plain []byte) error {
	size := uint32(len(plain))
	label := s.r.label.LabelOf(seal.ChunkData, id)
	fresh, err := s.r.index.Claim(label)
	if err == nil && fresh {
		own := format.AllocPayload(len(plain))
		copy(own, plain)
		err = s.pool.do(len(own), func() error {
			defer format.FreePayload(own)
			return s.keepNew(id, label, size, pack.CodecNone, own)
		})
	}
	if err != nil {
		return err
	}
	return s.named(id, uint64(size))
}

// keepNew stores a chunk that was claimed.
func (s *Sink) keepNew(id format.ID, label seal.Label, size uint32, codec pack.Codec, payload []byte) error {
	if codec == pack.CodecNone {
		buf := format.AllocPayload(format.PayloadSizeMax(int(size)))
		defer format.FreePayload(buf)
		c, encoded, err := format.EncodePayload(buf[:0], payload, s.opts.Compression)
		if err != nil {
			return err
		}
		if c == format.CodecZstd {
			codec, payload = pack.CodecZstd, encoded
		}
	}
	if err := s.session.data.add(id, label, codec, size, payload); err != nil {
		s.r.index.Unclaim(label)
		return err
	}
	s.newData.count(size, len(payload))
	return nil
}
