package format

import (
	"crypto/sha256"
	"hash"
)

// digestBatch is how many bytes of records are hashed at a time: enough to be
// worth waking another processor.
const digestBatch = 128 << 10

// digest is the SHA-256 of records as they come. A record is shorter than what it
// costs to hash it alone, and hashing can go on while the next ones are decoded
// or encoded: so they are gathered, and each batch is hashed by a goroutine that
// ends with it. The zero value is ready.
type digest struct {
	sum   hash.Hash
	batch []byte        // not yet hashed
	spare []byte        // the other buffer, when nobody hashes it
	done  chan struct{} // gets a value when the batch that is being hashed is done
	under []byte        // that batch, or nil
}

func (d *digest) write(p []byte) {
	if len(d.batch)+len(p) > digestBatch && len(d.batch) > 0 {
		d.hash()
	}
	d.batch = append(d.batch, p...)
}

// hash has the batch hashed in the background.
func (d *digest) hash() {
	d.wait()
	if d.sum == nil {
		d.sum, d.done = sha256.New(), make(chan struct{}, 1)
	}
	d.under, d.batch, d.spare = d.batch, d.spare[:0], nil
	go func(sum hash.Hash, p []byte, done chan<- struct{}) {
		sum.Write(p)
		done <- struct{}{}
	}(d.sum, d.under, d.done)
}

// wait waits until nothing is being hashed.
func (d *digest) wait() {
	if d.under != nil {
		<-d.done
		d.spare, d.under = d.under, nil
	}
}

// id returns the digest of what was written so far.
func (d *digest) id() ID {
	d.wait()
	if d.sum == nil {
		return sha256.Sum256(d.batch)
	}
	d.sum.Write(d.batch)
	d.batch = d.batch[:0]
	return ID(d.sum.Sum(nil))
}

// reset begins anew.
func (d *digest) reset() {
	d.wait()
	if d.sum != nil {
		d.sum.Reset()
	}
	d.batch = d.batch[:0]
}
