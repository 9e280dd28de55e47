package listing

import (
	"encoding/hex"
	"fmt"
	"unicode/utf8"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
)

// Entry is an entry as --json prints it. A name that is not UTF-8 stands in
// hexadecimal under the key that ends with _hex instead.
type Entry struct {
	Path      string   `json:"path,omitempty"`
	PathHex   string   `json:"path_hex,omitempty"`
	Type      string   `json:"type"`
	Mode      string   `json:"mode,omitempty"` // octal digits
	UID       *uint32  `json:"uid,omitempty"`
	GID       *uint32  `json:"gid,omitempty"`
	User      string   `json:"user,omitempty"`
	UserHex   string   `json:"user_hex,omitempty"`
	Group     string   `json:"group,omitempty"`
	GroupHex  string   `json:"group_hex,omitempty"`
	Size      *uint64  `json:"size,omitempty"`
	Mtime     string   `json:"mtime,omitempty"`
	Target    string   `json:"target,omitempty"`
	TargetHex string   `json:"target_hex,omitempty"`
	Device    string   `json:"device,omitempty"` // major:minor
	Hardlink  string   `json:"hardlink,omitempty"`
	Xattrs    []string `json:"xattrs,omitempty"` // names
	Flags     []string `json:"flags,omitempty"`
}

// JSON returns what --json prints of an entry; it does not point into it.
func JSON(e *format.Entry) *Entry {
	out := &Entry{Type: string(e.Type), Hardlink: hex.EncodeToString([]byte(e.Hardlink)), Flags: append([]string(nil), e.Flags...)}
	out.Path, out.PathHex = textOrHex("/" + e.Path)
	out.User, out.UserHex = textOrHex(e.User)
	out.Group, out.GroupHex = textOrHex(e.Group)
	out.Target, out.TargetHex = textOrHex(e.Target)
	if e.Has&format.HasMode != 0 {
		out.Mode = fmt.Sprintf("%04o", e.Mode)
	}
	if e.Has&format.HasUID != 0 {
		uid := e.UID
		out.UID = &uid
	}
	if e.Has&format.HasGID != 0 {
		gid := e.GID
		out.GID = &gid
	}
	if e.Type == format.TypeFile && e.Has&format.HasSize != 0 {
		size := e.Size
		out.Size = &size
	}
	if e.Has&format.HasMtime != 0 {
		out.Mtime = cli.TimeJSON(e.Mtime)
	}
	if e.Type == format.TypeChar || e.Type == format.TypeBlock {
		out.Device = fmt.Sprintf("%d:%d", e.Rdev.Major, e.Rdev.Minor)
	}
	for _, x := range e.Xattrs {
		out.Xattrs = append(out.Xattrs, cli.Printable(x.Name))
	}
	return out
}

func textOrHex(name string) (text, digits string) {
	if utf8.ValidString(name) {
		return name, ""
	}
	return "", hex.EncodeToString([]byte(name))
}
