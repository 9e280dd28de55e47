package store

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// NameBytesMax is the greatest length of a name that can be created.
	NameBytesMax = 255
	// ReadNameBytesMax is the greatest length of a name that can be read.
	ReadNameBytesMax = 4095
	// TemporaryDir is a first component that no object can have: storage that
	// needs a place for objects which are still being written has it there.
	TemporaryDir = "tmp"
)

// CheckName says why an object cannot be created under a name, with an error
// that is ErrName; nil if it can. A name has at most 255 bytes and consists of
// one or more components of the bytes a-z, 0-9, '.', '_' and '-', separated by
// '/'; none is empty, "." or ".."; the first one is not "tmp".
func CheckName(name string) error {
	if len(name) > NameBytesMax {
		return nameError(fmt.Errorf("it has %d bytes, and at most %d are allowed", len(name), NameBytesMax))
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == '-', c == '/':
		default:
			return nameError(fmt.Errorf("it contains %q, and only a-z, 0-9, '.', '_', '-' and '/' are allowed", c))
		}
	}
	if strings.HasPrefix(name, TemporaryDir+"/") || name == TemporaryDir {
		return nameError(errors.New(TemporaryDir + "/ is kept for objects that are still being written"))
	}
	return CheckReadName(name)
}

// CheckReadName says why there cannot be an object of a name, with an error
// that is ErrName; nil if there can. It accepts what a foreign repository may
// have on storage: at most 4095 bytes, no NUL, and no component that is empty,
// "." or "..".
func CheckReadName(name string) error {
	if len(name) > ReadNameBytesMax {
		return nameError(fmt.Errorf("it has %d bytes, and at most %d are allowed", len(name), ReadNameBytesMax))
	}
	if strings.IndexByte(name, 0) >= 0 {
		return nameError(errors.New("it contains a NUL byte"))
	}
	for c := range strings.SplitSeq(name, "/") {
		if c == "" || c == "." || c == ".." {
			return nameError(fmt.Errorf("it has the component %q", c))
		}
	}
	return nil
}

// CheckPrefix says why a prefix cannot be listed, with an error that is
// ErrName; nil if it can. A prefix is empty, or a name followed by "/".
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	name, ok := strings.CutSuffix(prefix, "/")
	if !ok {
		return nameError(errors.New(`a prefix is empty or ends in "/"`))
	}
	return CheckReadName(name)
}

func nameError(err error) error { return fmt.Errorf("%w: %w", ErrName, err) }
