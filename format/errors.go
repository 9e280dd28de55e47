package format

import (
	"errors"
	"fmt"
)

// Class says what rule of the stream was broken (spec/stream.md, "Errors").
// Implementations in any language report the same class for the same stream.
type Class string

const (
	ClassCut       Class = "cut"       // the stream ends before its end record
	ClassSyntax    Class = "syntax"    // not msgpack, or not the shape of a record
	ClassVersion   Class = "version"   // a version this reader does not know
	ClassFeature   Class = "feature"   // an unknown feature, or one used but not announced
	ClassKind      Class = "kind"      // an unknown kind of record
	ClassGrammar   Class = "grammar"   // a record where the grammar has no place for it
	ClassField     Class = "field"     // a key is missing, has the wrong type or a value that means nothing
	ClassPath      Class = "path"      // a path that is not allowed
	ClassOrder     Class = "order"     // paths out of order, or twice
	ClassParent    Class = "parent"    // a parent that is not the snapshot before, nor a base
	ClassLimit     Class = "limit"     // over a limit
	ClassCount     Class = "count"     // counts or sizes disagree with what came
	ClassDigest    Class = "digest"    // a digest disagrees with the bytes that came
	ClassChunk     Class = "chunk"     // a payload does not decode to the chunk it claims to be
	ClassReference Class = "reference" // refs or copy name what was never sent
	ClassTree      Class = "tree"      // an entry below something that is not a directory
	ClassTrailing  Class = "trailing"  // bytes after the end record
)

// Error is a stream that breaks the specification, or that could not be read.
type Error struct {
	Class  Class
	Record int64  // number of the record, from 0 for the header; -1 where the place is not known
	Offset int64  // byte offset in the stream where that record begins
	Kind   string // kind of the record, if known
	Path   string // path of the entry concerned, if any
	Detail string // what is wrong, in words
	Err    error  // cause, if any
}

// Errorf returns an error that does not yet know its place in a stream: Record
// is -1. Sinks and stages return such errors for what they find wrong with a
// record; Copy fills the place in.
func Errorf(class Class, format string, args ...any) *Error {
	for i, arg := range args {
		if text, ok := arg.(string); ok {
			args[i] = abbreviate(text)
		}
	}
	return &Error{Class: class, Record: -1, Detail: fmt.Sprintf(format, args...)}
}

// At returns an error with the place of the data record that is wrong, if err is
// an *Error that does not know it: for sinks that find out when the source has
// gone on, and Copy could only name a later record.
func (p Place) At(err error) error {
	var e *Error
	if p != (Place{}) && errors.As(err, &e) && e.Record < 0 {
		e.Record, e.Offset, e.Kind = p.Record, p.Offset, string(KindData)
	}
	return err
}

// abbreviate keeps a text from a hostile stream, where a path may have 32 KiB,
// from filling the screen: both ends of it tell which one it is.
func abbreviate(text string) string {
	const end = 120
	if len(text) <= 2*end+20 {
		return text
	}
	return fmt.Sprintf("%s[%d bytes]%s", text[:end], len(text)-2*end, text[len(text)-end:])
}

// Error returns one line.
func (e *Error) Error() string {
	s := "stream record"
	if e.Record >= 0 {
		s += fmt.Sprintf(" %d at byte %d", e.Record, e.Offset)
	}
	if e.Kind != "" {
		s += fmt.Sprintf(" (%s)", e.Kind)
	}
	if e.Path != "" {
		s += fmt.Sprintf(", path %q", abbreviate(e.Path))
	}
	s += fmt.Sprintf(": %s: %s", e.Class, e.Detail)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns the class of the stream error in err's chain, or "".
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ""
}
