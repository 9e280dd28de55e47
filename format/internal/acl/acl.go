// Package acl converts POSIX access control lists between text, as archives of
// other systems hold it, and the kernel's binary form, which the stream has
// (spec/stream.md, "Devices, extended attributes, ACLs"). Start at Parse. Any
// package below format may import it; it imports nothing of this module.
package acl

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
	XattrAccess  = "system.posix_acl_access"
	XattrDefault = "system.posix_acl_default"
)

// Tags of the kernel's form, in the order that it wants.
const (
	tagUserOwner  = 0x01
	tagUser       = 0x02
	tagGroupOwner = 0x04
	tagGroup      = 0x08
	tagMask       = 0x10
	tagOther      = 0x20

	version = 2
	noID    = 0xffffffff
)

type entry struct {
	tag, perm uint16
	id        uint32
}

// Parse reads the text of an ACL and returns the kernel's form: entries
// separated by lines or commas, "user:NAME:rwx" or "user:NAME:rwx:ID". A name
// that is a number is an id; others are looked up. It returns "" for one that
// says no more than the permission bits do, where extended asks for more.
func Parse(text string, extended bool, user, group func(string) (uint32, bool)) (string, error) {
	var entries []entry
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == ',' || r == 0 }) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		e, err := parseEntry(strings.TrimPrefix(line, "default:"), user, group)
		if err != nil {
			return "", fmt.Errorf("entry %q: %w", line, err)
		}
		entries = append(entries, e)
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id))
	})
	owners := 0
	for i, e := range entries {
		if i > 0 && e.tag == entries[i-1].tag && e.id == entries[i-1].id {
			return "", errors.New("an entry comes twice")
		}
		if e.tag == tagUserOwner || e.tag == tagGroupOwner || e.tag == tagOther {
			owners++
		}
	}
	if owners != 3 {
		return "", errors.New("the entry of the owner, the group or all others is missing")
	}
	if extended && len(entries) == owners {
		return "", nil
	}
	out := binary.LittleEndian.AppendUint32(nil, version)
	for _, e := range entries {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.perm)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return string(out), nil
}

func parseEntry(line string, user, group func(string) (uint32, bool)) (entry, error) {
	fields := strings.Split(line, ":")
	if len(fields) == 2 && (fields[0] == "mask" || fields[0] == "other" || fields[0] == "m" || fields[0] == "o") {
		fields = []string{fields[0], "", fields[1]}
	}
	if len(fields) != 3 && len(fields) != 4 {
		return entry{}, errors.New("it has not three or four fields")
	}
	e := entry{id: noID}
	lookup, named := user, fields[1] != "" || len(fields) == 4 && fields[3] != ""
	switch fields[0] {
	case "user", "u":
		e.tag = tagUserOwner
		if named {
			e.tag = tagUser
		}
	case "group", "g":
		lookup, e.tag = group, tagGroupOwner
		if named {
			e.tag = tagGroup
		}
	case "mask", "m":
		e.tag, named = tagMask, false
	case "other", "o":
		e.tag, named = tagOther, false
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

// Format returns the text of an ACL in the kernel's form: entries on lines,
// with numbers for names.
func Format(value string) (string, error) {
	b := []byte(value)
	if len(b) < 4 || (len(b)-4)%8 != 0 || binary.LittleEndian.Uint32(b) != version {
		return "", errors.New("it is not an ACL in the form of version 2")
	}
	var out strings.Builder
	for b = b[4:]; len(b) > 0; b = b[8:] {
		tag, perm, id := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
		if perm > 7 {
			return "", fmt.Errorf("its permissions %#o are more than read, write and execute", perm)
		}
		switch tag {
		case tagUserOwner:
			out.WriteString("user::")
		case tagUser:
			fmt.Fprintf(&out, "user:%d:", id)
		case tagGroupOwner:
			out.WriteString("group::")
		case tagGroup:
			fmt.Fprintf(&out, "group:%d:", id)
		case tagMask:
			out.WriteString("mask::")
		case tagOther:
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

// Mode returns the permission bits that an access ACL in the kernel's form
// stands for: those of the group are the mask's where there is one. libarchive
// writes the group's own instead.
func Mode(value string) (bits uint32, ok bool) {
	b := []byte(value)
	if len(b) < 4 || (len(b)-4)%8 != 0 {
		return 0, false
	}
	masked := false
	for b = b[4:]; len(b) > 0; b = b[8:] {
		perm := uint32(binary.LittleEndian.Uint16(b[2:]) & 7)
		switch binary.LittleEndian.Uint16(b) {
		case tagUserOwner:
			bits |= perm << 6
		case tagGroupOwner:
			if !masked {
				bits |= perm << 3
			}
		case tagMask:
			masked = true
			bits = bits&^0o070 | perm<<3
		case tagOther:
			bits |= perm
			ok = true
		}
	}
	return bits, ok
}
