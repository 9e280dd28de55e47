package tar

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/acl"
)

// xattrSELinux is where the label of SELinux is, which GNU tar writes apart.
const xattrSELinux = "security.selinux"

// xattrsOf collects the extended attributes of a member, ACLs and labels among
// them. What cannot be kept goes to lose.
func (d *decoder) xattrsOf(m *member, lose func(kind string, err error)) []format.Xattr {
	values := make(map[string]string)
	byLibarchive := false
	for key := range m.pax {
		byLibarchive = byLibarchive || strings.HasPrefix(key, keyXattrPrefixEncoded)
	}
	for key, value := range m.pax {
		if name, ok := strings.CutPrefix(key, keyXattrPrefix); ok {
			values[unescapeXattr(name, byLibarchive)] = value
		}
	}
	// libarchive writes each attribute in both ways; this one is exact.
	for key, value := range m.pax {
		name, ok := strings.CutPrefix(key, keyXattrPrefixEncoded)
		if !ok {
			continue
		}
		name = unescapeXattr(name, true)
		plain, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
		if err != nil {
			if _, has := values[name]; !has {
				lose(format.LossXattr, fmt.Errorf("the attribute %q is not base64", name))
			}
			continue
		}
		values[name] = string(plain)
	}
	if label := m.pax["RHT.security.selinux"]; label != "" {
		if _, has := values[xattrSELinux]; !has {
			values[xattrSELinux] = strings.TrimSuffix(label, "\x00") + "\x00"
		}
	}
	d.acl(m, values, acl.XattrAccess, keyACLAccess, lose)
	if m.typ == typeDir || m.typ == typeDumpDir {
		d.acl(m, values, acl.XattrDefault, keyACLDefault, lose)
	}
	if m.pax["SCHILY.acl.ace"] != "" {
		lose(format.LossACL, fmt.Errorf("an access control list of NFSv4"))
	}
	return limitXattrs(values, lose)
}

// acl makes an attribute of the text of an ACL where the attribute itself is
// not in the archive.
func (d *decoder) acl(m *member, values map[string]string, name, key string, lose func(string, error)) {
	text := m.pax[key]
	if _, has := values[name]; has || text == "" {
		return
	}
	value, err := acl.Parse(text, name == acl.XattrAccess, d.lookupUser, d.lookupGroup)
	if err != nil {
		lose(format.LossACL, fmt.Errorf("%s: %w", key, err))
		return
	}
	if value != "" {
		values[name] = value
	}
}

// xattrsSizeMax bounds names and values of one entry together, in bytes, well
// below what the body of a record may have.
const xattrsSizeMax = 4 << 20

// limitXattrs sorts attributes and leaves out what the stream cannot hold.
func limitXattrs(values map[string]string, lose func(string, error)) []format.Xattr {
	if len(values) == 0 {
		return nil
	}
	all := make([]format.Xattr, 0, len(values))
	for name, value := range values {
		all = append(all, format.Xattr{Name: name, Value: value})
	}
	slices.SortFunc(all, func(a, b format.Xattr) int { return strings.Compare(a.Name, b.Name) })
	kept, total := all[:0], 0
	for _, x := range all {
		size := len(x.Name) + len(x.Value)
		switch {
		case x.Name == "" || strings.IndexByte(x.Name, 0) >= 0:
			lose(format.LossXattr, fmt.Errorf("an attribute is named %q", x.Name))
		case len(x.Name) > format.XattrNameSizeMax, len(x.Value) > format.XattrValueSizeMax,
			len(kept) == format.XattrsMax, total+size > xattrsSizeMax:
			lose(format.LossXattr, fmt.Errorf("the attribute %.80q is one too many or too long", x.Name))
		default:
			kept = append(kept, x)
			total += size
		}
	}
	return kept
}
