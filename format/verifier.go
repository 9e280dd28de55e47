package format

import (
	"crypto/sha256"
	"hash"
	"hash/maphash"
)

// Verifier is a Stage that checks what a Reader alone does not: that every
// payload decodes to the chunk it claims to be, that refs name chunks of this
// stream by their right sizes, and the SHA-256 in eof of files whose content
// came whole in data records. It passes on what is right and changes nothing.
//
// It does not keep listings, so ranges of copy are not checked; nor refs on a
// stream with the feature held, which may name what only the receiver has.
//
// It remembers every chunk by 12 bytes and the cost of a map, about 32 bytes a
// chunk. The zero value is ready for the header of a stream.
type Verifier struct {
	seed  maphash.Seed
	sizes map[uint64]uint32 // by a keyed hash of the id, which nobody can aim at
	held  bool
	plain []byte

	content hash.Hash // of the open file, while all of it came as data
	whole   bool
	unique  uint64
}

// UniqueBytes returns the plain bytes of the distinct chunks that came so far.
func (v *Verifier) UniqueBytes() uint64 { return v.unique }

// Process implements Stage.
func (v *Verifier) Process(rec Record, emit func(Record) error) error {
	var err error
	switch r := rec.(type) {
	case *Header:
		v.header(r)
	case *Entry:
		v.content.Reset()
		v.whole = true
	case *Data:
		err = v.data(r)
	case *Refs:
		v.whole = false
		err = v.refs(r)
	case *CopyRange, *Hole:
		v.whole = false
	case *EOF:
		if r.SHA256 != nil && v.whole {
			if sum := ID(v.content.Sum(nil)); sum != *r.SHA256 {
				err = Errorf(ClassDigest, "the eof says the SHA-256 %s, but the content has %s", r.SHA256, sum)
			}
		}
	}
	if err != nil {
		return err
	}
	return emit(rec)
}

func (v *Verifier) header(h *Header) {
	v.seed = maphash.MakeSeed()
	v.sizes = make(map[uint64]uint32)
	v.content = sha256.New()
	for _, f := range h.Features {
		v.held = v.held || f == FeatureHeld
	}
}

func (v *Verifier) data(d *Data) error {
	plain, err := DecodePayload(v.plain, d)
	if err != nil {
		return err
	}
	v.plain = plain
	v.content.Write(plain)
	key := maphash.Comparable(v.seed, d.ID)
	if _, ok := v.sizes[key]; !ok {
		v.sizes[key] = d.Size
		v.unique += uint64(d.Size)
	}
	return nil
}

func (v *Verifier) refs(r *Refs) error {
	for i := range r.Chunks {
		ref := &r.Chunks[i]
		size, ok := v.sizes[maphash.Comparable(v.seed, ref.ID)]
		switch {
		case !ok && !v.held:
			return Errorf(ClassReference, "the chunk %s was not sent before", ref.ID)
		case ok && size != ref.Size:
			return Errorf(ClassReference, "the chunk %s has %d bytes, not %d", ref.ID, size, ref.Size)
		}
	}
	return nil
}
