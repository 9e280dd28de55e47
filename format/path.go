package format

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"strings"
	"unsafe"
)

// CheckPath reports what is wrong with a path of an entry (spec/stream.md,
// "Paths"): paths are relative to the root, "" is the root itself, components
// are separated by one '/', none is empty, "." or "..", and no byte is zero.
// Sizes are limited by PathSizeMax and NameSizeMax. The error is an *Error of
// the class ClassPath or ClassLimit.
func CheckPath(p string) error {
	if e := checkPath(p); e != nil {
		return e
	}
	return nil
}

// CheckPathAfter is CheckPath for a path that comes after one that is known to be
// good: the directories that both have in common are not looked at again.
func CheckPathAfter(p, good string) error {
	if err := checkPathAfter(p, good); err != nil {
		return err
	}
	return nil
}

func checkPath(p string) *Error { return checkPathAfter(p, "") }

// checkPathAfter checks a path that comes after one that is known to be good:
// the directories that both have in common are not looked at again.
func checkPathAfter(p, good string) *Error {
	if p == "" {
		return nil
	}
	if len(p) > PathSizeMax {
		return Errorf(ClassLimit, "a path has %d bytes, more than %d", len(p), PathSizeMax)
	}
	rest := p[strings.LastIndexByte(p[:commonPrefix(p, good)], '/')+1:]
	if strings.IndexByte(rest, 0) >= 0 {
		return pathError(p, "a path has a zero byte")
	}
	for {
		name := rest
		i := strings.IndexByte(rest, '/')
		if i >= 0 {
			name, rest = rest[:i], rest[i+1:]
		}
		switch {
		case name == "":
			return pathError(p, "a path has an empty component: it begins or ends with '/', or has '//'")
		case name == "." || name == "..":
			return pathError(p, "a path has the component "+name)
		case len(name) > NameSizeMax:
			return Errorf(ClassLimit, "a component of a path has %d bytes, more than %d", len(name), NameSizeMax)
		}
		if i < 0 {
			return nil
		}
	}
}

func pathError(p, detail string) *Error {
	e := Errorf(ClassPath, "%s", detail)
	e.Path = p
	return e
}

// ComparePaths orders paths as a sorted snapshot has them: component by
// component, each bytewise, which is bytewise with '/' below every other byte.
// So a directory comes right before all that is below it.
func ComparePaths(a, b string) int {
	i := commonPrefix(a, b)
	if i == len(a) || i == len(b) {
		return cmp.Compare(len(a), len(b))
	}
	switch x, y := a[i], b[i]; {
	case x == '/':
		return -1
	case y == '/':
		return 1
	default:
		return cmp.Compare(x, y)
	}
}

// commonPrefix returns how many bytes two strings have in common at their
// beginning. Paths that follow each other share most, so it goes by eight bytes.
func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	x, y := unsafe.Slice(unsafe.StringData(a), n), unsafe.Slice(unsafe.StringData(b), n)
	i := 0
	for ; i+8 <= n; i += 8 {
		if d := binary.LittleEndian.Uint64(x[i:]) ^ binary.LittleEndian.Uint64(y[i:]); d != 0 {
			return i + bits.TrailingZeros64(d)/8
		}
	}
	for i < n && x[i] == y[i] {
		i++
	}
	return i
}

// ParentPath returns the path of the directory that p is in. It is "", the
// root, for a path of one component and for the root itself.
func ParentPath(p string) string {
	return p[:max(strings.LastIndexByte(p, '/'), 0)]
}

// IsBelow reports whether p lies below dir, at any depth. A path is not below
// itself; every path but the root is below the root.
func IsBelow(p, dir string) bool {
	if dir == "" {
		return p != ""
	}
	return len(p) > len(dir) && p[len(dir)] == '/' && p[:len(dir)] == dir
}
