package borg

import (
	"bytes"
	"errors"
	"testing"
)

// TestOpenedByID holds that what an object's id answers for needs no MAC beside
// it, and that the MAC says why an object is wrong.
func TestOpenedByID(t *testing.T) {
	plain := bytes.Repeat([]byte("content "), 100)
	for _, m := range []mode{modeRepokey, modeKeyfileBlake2, modeAuthenticated, modeNone} {
		k := testKeys(t, m)
		id := k.id(plain)
		object := k.appendObject(nil, append([]byte{byte(codecNone), 0}, plain...), 7)
		open := func(change func([]byte)) error {
			b := bytes.Clone(object)
			change(b)
			before := bytes.Clone(b)
			got, _, err := k.openChunk(id, uint32(len(plain)), b)
			if err == nil && !bytes.Equal(got, plain) {
				t.Errorf("%s: other content", m)
			}
			if err != nil && !bytes.Equal(b, before) {
				t.Errorf("%s: an object that could not be opened was changed", m)
			}
			return err
		}
		if err := open(func([]byte) {}); err != nil {
			t.Errorf("%s: %v", m, err)
		}
		for name, at := range map[string]int{"the codec": len(object) - len(plain) - 2, "the content": len(object) - 1} {
			err := open(func(b []byte) { b[at] ^= 4 })
			if !m.encrypts() && err != nil {
				continue
			}
			if !errors.Is(err, errMAC) || !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: a flipped bit of %s: %v", m, name, err)
			}
		}
		if !m.encrypts() {
			continue
		}
		if err := open(func(b []byte) { b[1] ^= 1 }); err != nil {
			t.Errorf("%s: a flipped bit of the MAC alone: %v", m, err)
		}
		other := k.appendObject(nil, append([]byte{byte(codecNone), 0}, bytes.ToUpper(plain)...), 9)
		if _, _, err := k.openChunk(id, uint32(len(plain)), other); errors.Is(err, errMAC) || !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: another object under this id: %v", m, err)
		}
	}
}
