package tar

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The attributes that hold POSIX ACLs, in the kernel's form.
const (
	xattrACLAccess  = "system.posix_acl_access"
	xattrACLDefault = "system.posix_acl_default"
)

// Tags of the kernel's form, in the order that it wants.
const (
	aclUserOwner  = 0x01
	aclUser       = 0x02
	aclGroupOwner = 0x04
	aclGroup      = 0x08
	aclMask       = 0x10
	aclOther      = 0x20

	aclVersion = 2
	aclNoID    = 0xffffffff
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// parseACL reads the text of an ACL and returns the kernel's form: entries
// separated by lines or commas, "user:NAME:rwx" or "user:NAME:rwx:ID". A name
// that is a number is an id; others are looked up. It returns "" for one that
// says no more than the permission bits do, where extended asks for more.
func parseACL(text string, extended bool, user, group func(string) (uint32, bool)) (string, error) {
	var entries []aclEntry
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == ',' || r == 0 }) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		e, err := parseACLEntry(strings.TrimPrefix(line, "default:"), user, group)
		if err != nil {
			return "", fmt.Errorf("entry %q: %w", line, err)
		}
		entries = append(entries, e)
	}
	slices.SortStableFunc(entries, func(a, b aclEntry) int {
		return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id))
	})
	owners := 0
	for i, e := range entries {
		if i > 0 && e.tag == entries[i-1].tag && e.id == entries[i-1].id {
			return "", errors.New("an entry comes twice")
		}
		if e.tag == aclUserOwner || e.tag == aclGroupOwner || e.tag == aclOther {
			owners++
		}
	}
	if owners != 3 {
		return "", errors.New("the entry of the owner, the group or all others is missing")
	}
	if extended && len(entries) == owners {
		return "", nil
	}
	out := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range entries {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.perm)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return string(out), nil
}

func parseACLEntry(line string, user, group func(string) (uint32, bool)) (aclEntry, error) {
	fields := strings.Split(line, ":")
	if len(fields) == 2 && (fields[0] == "mask" || fields[0] == "other" || fields[0] == "m" || fields[0] == "o") {
		fields = []string{fields[0], "", fields[1]}
	}
	if len(fields) != 3 && len(fields) != 4 {
		return aclEntry{}, errors.New("it has not three or four fields")
	}
	e := aclEntry{id: aclNoID}
	lookup, named := user, fields[1] != "" || len(fields) == 4 && fields[3] != ""
	switch fields[0] {
	case "user", "u":
		e.tag = aclUserOwner
		if named {
			e.tag = aclUser
		}
	case "group", "g":
		lookup, e.tag = group, aclGroupOwner
		if named {
			e.tag = aclGroup
		}
	case "mask", "m":
		e.tag, named = aclMask, false
	case "other", "o":
		e.tag, named = aclOther, false
	default:
		return e, errors.New("it is for neither user, group, mask nor other")
	}
	for _, c := range fields[2] {
		bit := strings.IndexRune("xwr", c)
		if bit < 0 && c != '-' {
			return e, errors.New("its permissions are not among r, w and x")
		}
		if bit >= 0 {
			e.perm |= 1 << bit
		}
	}
	if !named {
		return e, nil
	}
	number := fields[1]
	if len(fields) == 4 && fields[3] != "" {
		number = fields[3]
	}
	if n, err := strconv.ParseUint(number, 10, 32); err == nil {
		e.id = uint32(n)
		return e, nil
	}
	if lookup != nil {
		if id, ok := lookup(fields[1]); ok {
			e.id = id
			return e, nil
		}
	}
	return e, errors.New("nobody of that name is known here, and the archive does not give the number")
}

// formatACL returns the text of an ACL in the kernel's form: entries on lines,
// with numbers for names.
func formatACL(value string) (string, error) {
	b := []byte(value)
	if len(b) < 4 || (len(b)-4)%8 != 0 || binary.LittleEndian.Uint32(b) != aclVersion {
		return "", errors.New("it is not an ACL in the form of version 2")
	}
	var out strings.Builder
	for b = b[4:]; len(b) > 0; b = b[8:] {
		tag, perm, id := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
		if perm > 7 {
			return "", fmt.Errorf("its permissions %#o are more than read, write and execute", perm)
		}
		switch tag {
		case aclUserOwner:
			out.WriteString("user::")
		case aclUser:
			fmt.Fprintf(&out, "user:%d:", id)
		case aclGroupOwner:
			out.WriteString("group::")
		case aclGroup:
			fmt.Fprintf(&out, "group:%d:", id)
		case aclMask:
			out.WriteString("mask::")
		case aclOther:
			out.WriteString("other::")
		default:
			return "", fmt.Errorf("it has an entry of the unknown tag %#x", tag)
		}
		for i, c := range "rwx" {
			if perm&(4>>i) == 0 {
				c = '-'
			}
			out.WriteRune(c)
		}
		out.WriteByte('\n')
	}
	return out.String(), nil
}

// aclMode returns the permission bits that an access ACL in the kernel's form
// stands for: those of the group are the mask's where there is one. libarchive
// writes the group's own instead.
func aclMode(value string) (bits uint32, ok bool) {
	b := []byte(value)
	if len(b) < 4 || (len(b)-4)%8 != 0 {
		return 0, false
	}
	masked := false
	for b = b[4:]; len(b) > 0; b = b[8:] {
		perm := uint32(binary.LittleEndian.Uint16(b[2:]) & 7)
		switch binary.LittleEndian.Uint16(b) {
		case aclUserOwner:
			bits |= perm << 6
		case aclGroupOwner:
			if !masked {
				bits |= perm << 3
			}
		case aclMask:
			masked = true
			bits = bits&^0o070 | perm<<3
		case aclOther:
			bits |= perm
			ok = true
		}
	}
	return bits, ok
}
