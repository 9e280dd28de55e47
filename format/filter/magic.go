package filter

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
)

// magicSize is how many bytes from a file's beginning tell its content type.
const magicSize = 512

// magicTable adds to what net/http knows (the web's types) what lies about in
// backups. The offset is where the bytes must stand.
var magicTable = []struct {
	offset int
	bytes  string
	name   string
}{
	{0, "\x7fELF", "application/x-executable"},
	{0, "MZ", "application/vnd.microsoft.portable-executable"},
	{0, "\xfe\xed\xfa\xce", "application/x-mach-binary"},
	{0, "\xfe\xed\xfa\xcf", "application/x-mach-binary"},
	{0, "\xcf\xfa\xed\xfe", "application/x-mach-binary"},
	{0, "\x28\xb5\x2f\xfd", "application/zstd"},
	{0, "\xfd7zXZ\x00", "application/x-xz"},
	{0, "BZh", "application/x-bzip2"},
	{0, "\x04\x22\x4d\x18", "application/x-lz4"},
	{0, "7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"},
	{257, "ustar", "application/x-tar"},
	{0, "!<arch>\n", "application/x-archive"},
	{0, "SQLite format 3\x00", "application/vnd.sqlite3"},
	{0, "age-encryption.org/v1\n", "application/x-age"},
	{0, "-----BEGIN PGP ", "application/pgp"},
	{0, "fLaC", "audio/flac"},
	{4, "ftypheic", "image/heic"},
	{4, "ftypheix", "image/heic"},
	{4, "ftypmif1", "image/heif"},
	{4, "ftypavif", "image/avif"},
	{4, "ftypqt", "video/quicktime"},
	{0, "II*\x00", "image/tiff"},
	{0, "MM\x00*", "image/tiff"},
	{0, "QFI\xfb", "application/x-qemu-disk"},
	{0, "KDMV", "application/x-vmdk"},
}

// contentType names the type of a file that begins with head, by its bytes
// alone, without parameters.
func contentType(head []byte) string {
	for _, m := range magicTable {
		if len(head) > m.offset && bytes.HasPrefix(head[m.offset:], []byte(m.bytes)) {
			return m.name
		}
	}
	name, _, _ := strings.Cut(http.DetectContentType(head), ";")
	return name
}

// matchMagic reports whether one of the types, such as image/jpeg or image/*,
// is that of a file that begins with head. An empty file has no type.
func matchMagic(types []string, head []byte) bool {
	if len(head) == 0 {
		return false
	}
	is := contentType(head)
	for _, t := range types {
		if group, any := strings.CutSuffix(t, "/*"); t == is || any && strings.HasPrefix(is, group+"/") {
			return true
		}
	}
	return false
}

func checkMagic(types []string) error {
	for _, t := range types {
		group, name, ok := strings.Cut(t, "/")
		if !ok || group == "" || name == "" || strings.ContainsAny(group, "*? ") || name != "*" && strings.ContainsAny(name, "*?/ ;") {
			return fmt.Errorf("%q is no content type: write one such as image/jpeg, or a whole group such as image/*", t)
		}
	}
	return nil
}
