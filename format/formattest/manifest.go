package formattest

import (
	"encoding/hex"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
)

// Fields are what a manifest, or a listing in a manifest's terms, says of a path.
type Fields map[string]string

// ParseManifest reads a manifest: a line a path, PATH key=value ...; bytes outside
// 0x21 to 0x7e, the backslash and = are \xHH; times are nanoseconds since 1970; hl
// names the first path of the group of hard links.
func ParseManifest(b []byte) map[string]Fields {
	out := make(map[string]Fields)
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		f := Fields{}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			f[key] = value
		}
		out[words[0]] = f
	}
	return out
}

// Describe says what a listing holds at and below top in a manifest's terms.
func Describe(l Listing, top string) map[string]Fields {
	out := make(map[string]Fields)
	first := make(map[string]string) // path of a group of hard links
	members := make(map[string]int)
	paths := slices.SortedFunc(maps.Keys(l), func(a, b string) int { return strings.Compare(below(a, top), below(b, top)) })
	for _, p := range paths {
		if g := l[p].Entry.Hardlink; g != "" {
			if members[g]++; members[g] == 1 {
				first[g] = escape(below(p, top))
			}
		}
	}
	for _, p := range paths {
		if p != top && !format.IsBelow(p, top) {
			continue
		}
		e := l[p].Entry
		f := Fields{
			"type": string(e.Type), "mode": fmt.Sprintf("%04o", e.Mode),
			"uid": fmt.Sprint(e.UID), "gid": fmt.Sprint(e.GID), "mtime": nanoseconds(e.Mtime),
		}
		if e.Type == format.TypeFile {
			sum := l[p].Sum()
			f["size"], f["sha256"] = fmt.Sprint(l[p].Size()), hex.EncodeToString(sum[:])
			if len(l[p].Holes) > 0 {
				f["data"] = runs(l[p].Data())
			}
		}
		if e.Type == format.TypeSymlink {
			f["link"] = escape(e.Target)
		}
		if e.Type == format.TypeChar || e.Type == format.TypeBlock {
			f["rdev"] = fmt.Sprintf("%d:%d", e.Rdev.Major, e.Rdev.Minor)
		}
		if members[e.Hardlink] > 1 {
			f["hl"] = first[e.Hardlink]
		}
		for _, x := range e.Xattrs {
			f["x:"+escape(x.Name)] = hex.EncodeToString([]byte(x.Value))
		}
		for _, known := range []struct{ name, letter string }{{"immutable", "i"}, {"append", "a"}, {"nodump", "d"}} {
			if slices.Contains(e.Flags, known.name) {
				f["flags"] += known.letter
			}
		}
		out[escape(below(p, top))] = f
	}
	return out
}

// runs says where a file has data.
func runs(list []format.Extent) string {
	if len(list) == 0 {
		return "none"
	}
	var words []string
	for _, x := range list {
		words = append(words, fmt.Sprintf("%d+%d", x.Offset, x.Size))
	}
	return strings.Join(words, ",")
}

// below is the path below top, "." for top itself.
func below(p, top string) string {
	if p == top {
		return "."
	}
	return strings.TrimPrefix(p, top+"/")
}

func nanoseconds(t format.Time) string {
	n := new(big.Int).Mul(big.NewInt(t.Sec), big.NewInt(1e9))
	return n.Add(n, big.NewInt(int64(t.Nsec))).String()
}

func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 0x21 && c <= 0x7e && c != '\\' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// Differences compares a listing with a manifest, but for some fields: "data" is
// where a file has holes, "x" are all attributes.
func Differences(want, got map[string]Fields, ignored ...string) []string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(merge(want, got))) {
		w, g := want[p], got[p]
		switch {
		case g == nil:
			out = append(out, "missing "+p)
		case w == nil:
			out = append(out, "extra "+p)
		default:
			for _, k := range slices.Sorted(maps.Keys(merge(w, g))) {
				space, _, _ := strings.Cut(k, ":")
				if slices.Contains(ignored, space) {
					continue
				}
				_, inW := w[k]
				_, inG := g[k]
				switch {
				case w[k] != g[k]:
					out = append(out, fmt.Sprintf("%s %s: %q, not %q", p, k, g[k], w[k]))
				case inW != inG: // it is empty
					out = append(out, fmt.Sprintf("%s %s: there %v, not %v", p, k, inG, inW))
				}
			}
		}
	}
	return out
}

func merge[V any, M ~map[string]V](a, b M) M {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}
