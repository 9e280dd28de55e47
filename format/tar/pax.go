package tar

import (
	"errors"
	"strconv"
	"strings"
)

// paxRecord is one "key=value" of an extended header. The value is bytes.
type paxRecord struct{ key, value string }

// The keys of extended headers that are read or written in more than one place.
const (
	keyPath     = "path"
	keyLinkPath = "linkpath"
	keySize     = "size"
	keyUID      = "uid"
	keyGID      = "gid"
	keyUname    = "uname"
	keyGname    = "gname"
	keyMtime    = "mtime"
	keyAtime    = "atime"
	keyCtime    = "ctime"
	keyCharset  = "hdrcharset"

	keyXattrPrefix        = "SCHILY.xattr."
	keyXattrPrefixEncoded = "LIBARCHIVE.xattr."
	keyACLAccess          = "SCHILY.acl.access"
	keyACLDefault         = "SCHILY.acl.default"
	keyFlags              = "SCHILY.fflags"
	keyDevmajor           = "SCHILY.devmajor"
	keyDevminor           = "SCHILY.devminor"
	keyBtime              = "LIBARCHIVE.creationtime"

	keySparseMajor    = "GNU.sparse.major"
	keySparseMinor    = "GNU.sparse.minor"
	keySparseName     = "GNU.sparse.name"
	keySparseRealSize = "GNU.sparse.realsize"
	keySparseSize     = "GNU.sparse.size"
	keySparseMap      = "GNU.sparse.map"
	keySparseOffset   = "GNU.sparse.offset"
	keySparseNumBytes = "GNU.sparse.numbytes"

	// keySnapshot is our own: the snapshot record that an archive was made of,
	// in base64, in a global header before everything else.
	keySnapshot = "BK.snapshot"
)

// parsePax reads the data of an extended header, in order, repetitions too.
func parsePax(data string) ([]paxRecord, error) {
	var records []paxRecord
	for len(data) > 0 {
		if strings.Trim(data[:min(len(data), 512)], "\x00") == "" && strings.Trim(data, "\x00") == "" {
			return records, nil // padding that somebody counted
		}
		digits, _, found := strings.Cut(data[:min(len(data), 20)], " ")
		n, err := strconv.ParseUint(digits, 10, 31)
		if !found || err != nil || int(n) > len(data) || int(n) < len(digits)+3 {
			return nil, errors.New("an extended header has a record without a right length")
		}
		record := data[len(digits)+1 : n]
		data = data[n:]
		key, value, found := strings.Cut(record[:len(record)-1], "=")
		if !found || key == "" || record[len(record)-1] != '\n' {
			return nil, errors.New("an extended header has a record that is not key=value")
		}
		records = append(records, paxRecord{key, value})
	}
	return records, nil
}

// appendPax appends a record as an extended header has it.
func appendPax(dst []byte, key, value string) []byte {
	rest := len(key) + len(value) + 3 // the space, the equals sign, the newline
	n := rest + len(strconv.Itoa(rest))
	if n2 := rest + len(strconv.Itoa(n)); n2 != n {
		n = rest + len(strconv.Itoa(n2))
	}
	dst = strconv.AppendInt(dst, int64(n), 10)
	dst = append(dst, ' ')
	dst = append(dst, key...)
	dst = append(dst, '=')
	dst = append(dst, value...)
	return append(dst, '\n')
}

// escapeXattr makes the name of an attribute part of a key, as GNU tar does.
func escapeXattr(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "%", "%25"), "=", "%3D")
}

// unescapeXattr is the reverse of escapeXattr. libarchive escapes more; all is
// true where an archive is its work.
func unescapeXattr(name string, all bool) string {
	if !strings.Contains(name, "%") {
		return name
	}
	if !all {
		// Only what GNU tar escapes: another % may be part of the name.
		return strings.NewReplacer("%25", "%", "%3D", "=", "%3d", "=").Replace(name)
	}
	out := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		if name[i] == '%' && i+2 < len(name) {
			if c, err := strconv.ParseUint(name[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(c))
				i += 2
				continue
			}
		}
		out = append(out, name[i])
	}
	return string(out)
}
