package httpstore

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bk-backup/bk/repo/store"
)

// What both sides say of the protocol (spec/server.md).
const (
	// Version is the protocol's.
	Version = 1
	// ServerHeader is in every answer of a server and has its version. What
	// comes without it comes from somebody on the way, a proxy say, and says
	// nothing about objects.
	ServerHeader = "Bk-Server"
	// CreatedHeader has the time at which an object was created.
	CreatedHeader = "Bk-Created"
	// TimeFormat is that of all times.
	TimeFormat = time.RFC3339Nano
	// MessageSizeMax bounds what is no object and no listing, in bytes.
	MessageSizeMax = 64 << 10
	// LineSizeMax bounds a line of a listing, in bytes: three for each of a name,
	// and the rest.
	LineSizeMax = 3*store.ReadNameBytesMax + 1024
)

// The paths behind that of the repository.
const (
	ObjectsPath = "/objects/"
	ListPath    = "/list/"
	NowPath     = "/now"
)

// Hello is what a server says of a repository.
type Hello struct {
	Protocol int    `json:"protocol"`
	Access   Access `json:"access"`
}

// Access says what somebody may do.
type Access string

// The kinds of access.
const (
	Read   Access = "read"   // nothing is created or deleted
	Append Access = "append" // what a backup does: nothing that is committed goes
	Full   Access = "full"
)

// Line is one of a listing: an object, or the end, or an error that stands for
// the end. A listing without a last line of the latter kinds was cut off.
type Line struct {
	Name    string `json:"name,omitempty"` // as EscapeName has it
	Size    int64  `json:"size,omitempty"`
	Created string `json:"created,omitempty"`

	End   bool     `json:"end,omitempty"`
	Error *Failure `json:"failure,omitempty"`
}

// Failure is what a server says when a call fails.
type Failure struct {
	Kind  string `json:"kind,omitempty"`
	Error string `json:"error,omitempty"`
}

// Clock is what a server answers to the question for the time.
type Clock struct {
	Now string `json:"now"`
}

// failures are the kinds of failure that both sides tell apart, and the statuses
// that go with them.
var failures = []struct {
	kind   string
	status int
	err    error
}{
	{"temporary", http.StatusServiceUnavailable, store.ErrTemporary},
	{"not-found", http.StatusNotFound, store.ErrNotFound},
	{"exists", http.StatusPreconditionFailed, store.ErrExists},
	{"read-only", http.StatusForbidden, store.ErrReadOnly},
	{"full", http.StatusInsufficientStorage, store.ErrFull},
	{"name", http.StatusBadRequest, store.ErrName},
	{"too-large", http.StatusRequestEntityTooLarge, store.ErrTooLarge},
	{"short", http.StatusRequestedRangeNotSatisfiable, io.ErrUnexpectedEOF},
}

// NewFailure says what a server answers to a call that failed with err. Its text
// is the cause alone: the client names operation, object and server.
func NewFailure(err error) (status int, f *Failure) {
	status, f = http.StatusInternalServerError, &Failure{Error: err.Error()}
	for _, known := range failures {
		if errors.Is(err, known.err) {
			status, f.Kind = known.status, known.kind
			break
		}
	}
	var e *store.Error
	switch {
	case !errors.As(err, &e):
	case e.Err != nil:
		f.Error = e.Err.Error()
	case f.Kind != "":
		f.Error = "" // the kind says all
	}
	return status, f
}

// kindError returns the error that a kind of failure stands for, nil if none.
func kindError(kind string) error {
	for _, known := range failures {
		if known.kind == kind {
			return known.err
		}
	}
	return nil
}

// statusKind returns the kind of failure that a status goes with, "" if none.
func statusKind(status int) string {
	for _, known := range failures {
		if known.status == status {
			return known.kind
		}
	}
	return ""
}

// EscapeName returns a name as it stands in a URL: its components are escaped
// and slashes stay.
func EscapeName(name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		// Not to be taken for what a path has these for, on the way either. The
		// server refuses them.
		if part == "." || part == ".." {
			parts[i] = strings.ReplaceAll(part, ".", "%2E")
			continue
		}
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/")
}

// UnescapeName takes a name from a URL or a listing.
func UnescapeName(escaped string) (string, error) { return url.PathUnescape(escaped) }
