package tar

import (
	"slices"
	"strings"
)

// flagNames are the stream's names of flags that libarchive calls otherwise; it
// accepts more than one name for some, the first of which is written.
var flagNames = []struct{ ours, theirs string }{
	{"append", "sappnd"},
	{"append", "sappend"},
	{"archived", "arch"},
	{"immutable", "schg"},
	{"immutable", "schange"},
	{"immutable", "simmutable"},
	{"journal-data", "journal"},
	{"nounlink", "sunlnk"},
	{"nounlink", "sunlink"},
	{"project-inherit", "projinherit"},
	{"readonly", "rdonly"},
	{"secure-delete", "secdel"},
	{"secure-delete", "securedeletion"},
	{"top-dir", "topdir"},
	{"undelete", "undel"},
	{"user-append", "uappnd"},
	{"user-append", "uappend"},
	{"user-immutable", "uchg"},
	{"user-immutable", "uchange"},
	{"user-immutable", "uimmutable"},
}

// plainFlags have one name in both.
var plainFlags = []string{
	"append", "archived", "casefold", "compress", "dax", "dirsync", "hidden", "immutable", "journal-data", "noatime",
	"nocompress", "nocow", "nodump", "notail", "nounlink", "opaque", "project-inherit", "readonly", "secure-delete",
	"sync", "system", "top-dir", "undelete", "user-append", "user-immutable",
}

// parseFlags reads a comma-separated list of flags. Those that nobody knows are
// returned apart.
func parseFlags(text string) (flags, unknown []string) {
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		for _, f := range flagNames {
			if f.theirs == name {
				name = f.ours
			}
		}
		switch {
		case slices.Contains(plainFlags, name), strings.HasPrefix(name, "x-"):
			flags = append(flags, name)
		default:
			unknown = append(unknown, name)
		}
	}
	slices.Sort(flags)
	return slices.Compact(flags), unknown
}

// formatFlags is the reverse of parseFlags.
func formatFlags(flags []string) string {
	names := slices.Clone(flags)
	for i, name := range names {
		for _, f := range flagNames {
			if f.ours == name {
				names[i] = f.theirs
				break
			}
		}
	}
	return strings.Join(names, ",")
}
