package format

import (
	"fmt"
	"math"
	"sort"
	"strings"

	"pgregory.net/rapid"
)

// Generators of valid records, for property tests.

func genText(max int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(rapid.Byte(), 0, max).Draw(t, "text"))
	})
}

func genWord() *rapid.Generator[string] {
	return rapid.StringMatching(`[a-z][a-zé0-9:.-]{0,40}`)
}

func genID() *rapid.Generator[ID] {
	return rapid.Custom(func(t *rapid.T) ID {
		id := ID(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "id"))
		id[0] |= 1
		return id
	})
}

func genTime() *rapid.Generator[Time] {
	return rapid.Custom(func(t *rapid.T) Time {
		return Time{rapid.Int64().Draw(t, "sec"), rapid.Uint32Range(0, 999_999_999).Draw(t, "nsec")}
	})
}

func genPath() *rapid.Generator[string] {
	name := rapid.Custom(func(t *rapid.T) string {
		s := strings.Map(func(r rune) rune {
			if r == 0 || r == '/' {
				return 'x'
			}
			return r
		}, genText(20).Draw(t, "name"))
		if s == "" || s == "." || s == ".." {
			return "n"
		}
		return s
	})
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(name, 1, 6).Draw(t, "names"), "/")
	})
}

func genRaw(depth int) *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		kind := rapid.IntRange(0, 11).Draw(t, "form")
		if depth == 0 {
			kind = min(kind, 8)
		}
		switch kind {
		case 0:
			return []byte{mpNil}
		case 1:
			return []byte{mpTrue}
		case 2:
			return appendInt(nil, rapid.Int64().Draw(t, "int"))
		case 3:
			return appendUint(nil, rapid.Uint64().Draw(t, "uint"))
		case 4:
			return appendStr(nil, genText(300).Draw(t, "str"))
		case 5:
			return appendBin(nil, genText(300).Draw(t, "bin"))
		case 6:
			return []byte{mpFloat64, 1, 2, 3, 4, 5, 6, 7, 8}
		case 7:
			return []byte{mpFixExt1 + 1, 1, 2, 3}
		case 8:
			return []byte{mpUint8 + 2, 0, 0, 0, 1} // not the shortest form
		}
		n := rapid.IntRange(0, 20).Draw(t, "n")
		var b []byte
		if kind == 11 {
			b = append(b, mpMap16, 0, byte(n))
			n *= 2
		} else {
			b = appendArrayHead(b, n)
		}
		for range n {
			b = append(b, genRaw(depth-1).Draw(t, "element")...)
		}
		return b
	})
}

func genExtra(known schema) *rapid.Generator[[]Field] {
	return rapid.Custom(func(t *rapid.T) []Field {
		if rapid.IntRange(0, 2).Draw(t, "has extra") != 0 {
			return nil
		}
		byKey := map[string][]byte{}
		for range rapid.IntRange(1, 20).Draw(t, "extras") {
			key := rapid.StringMatching(`[a-zA-Z~]{0,3}|[a-z]{40}`).Draw(t, "key")
			if _, ok := known[key]; !ok {
				byKey[key] = genRaw(3).Draw(t, "raw")
			}
		}
		var extra []Field
		for k, v := range byKey {
			extra = append(extra, Field{k, v})
		}
		sortExtra(extra)
		return extra
	})
}

func genSortedWords(max int) *rapid.Generator[[]string] {
	return rapid.Custom(func(t *rapid.T) []string {
		w := rapid.SliceOfNDistinct(genWord(), 0, max, rapid.ID[string]).Draw(t, "words")
		sort.Strings(w)
		return w
	})
}

func genSnapshot() *rapid.Generator[*Snapshot] {
	return rapid.Custom(func(t *rapid.T) *Snapshot {
		s := &Snapshot{
			ID:       genID().Draw(t, "id"),
			Host:     genText(30).Draw(t, "host"),
			User:     genText(30).Draw(t, "user"),
			Roots:    rapid.SliceOfN(genPath(), 0, 20).Draw(t, "roots"),
			Tags:     rapid.SliceOfN(genText(10), 0, 20).Draw(t, "tags"),
			Comment:  genText(70000).Draw(t, "comment"),
			Unsorted: rapid.Bool().Draw(t, "unsorted"),
			Unstable: rapid.Bool().Draw(t, "unstable"),
			Extra:    genExtra(snapshotSchema).Draw(t, "extra"),
		}
		s.Comment = s.Comment[:min(len(s.Comment), CommentSizeMax)]
		if rapid.Bool().Draw(t, "more") {
			s.Parent = genID().Draw(t, "parent")
			s.Time = new(genTime().Draw(t, "time"))
			s.Origin = &Origin{genWord().Draw(t, "system"), genText(9).Draw(t, "repo"), genText(9).Draw(t, "oid"), genExtra(originSchema).Draw(t, "oe")}
			s.Estimate = &Estimate{rapid.Uint64().Draw(t, "n"), rapid.Uint64().Draw(t, "b"), genExtra(estimateSchema).Draw(t, "ee")}
			for range rapid.IntRange(0, 17).Draw(t, "vias") {
				s.Via = append(s.Via, Via{"s" + genText(9).Draw(t, "stage"), genID().Draw(t, "from"), genExtra(viaSchema).Draw(t, "ve")})
			}
		}
		return s
	})
}

func genEntry() *rapid.Generator[*Entry] {
	types := []Type{TypeFile, TypeDir, TypeSymlink, TypeChar, TypeBlock, TypeFifo, TypeSocket}
	return rapid.Custom(func(t *rapid.T) *Entry {
		e := &Entry{
			Path:  genPath().Draw(t, "path"),
			Type:  rapid.SampledFrom(types).Draw(t, "type"),
			Has:   Has(rapid.Uint16Range(0, 1<<10-1).Draw(t, "has")),
			User:  genText(20).Draw(t, "user"),
			Group: genText(20).Draw(t, "group"),
			Flags: genSortedWords(5).Draw(t, "flags"),
			Extra: genExtra(entrySchema).Draw(t, "extra"),
		}
		if e.Type != TypeFile {
			e.Has &^= HasSize
		} else {
			e.Chunker = rapid.OneOf(rapid.Just(""), genWord()).Draw(t, "chunker")
			at := uint64(0)
			for range rapid.IntRange(0, 20).Draw(t, "extents") {
				at += rapid.Uint64Range(1, 1<<40).Draw(t, "gap")
				size := rapid.Uint64Range(1, 1<<40).Draw(t, "run")
				e.Extents = append(e.Extents, Extent{at, size})
				at += size
			}
		}
		if e.Type != TypeDir {
			e.Hardlink = genText(HardlinkMax).Draw(t, "hardlink")
		}
		switch e.Type {
		case TypeSymlink:
			e.Target = strings.ReplaceAll(genText(300).Draw(t, "target"), "\x00", "z")
		case TypeChar, TypeBlock:
			e.Rdev = Rdev{rapid.Uint32().Draw(t, "major"), rapid.Uint32().Draw(t, "minor")}
		}
		names := rapid.SliceOfNDistinct(genWord(), 0, 20, rapid.ID[string]).Draw(t, "names")
		sort.Strings(names)
		for _, n := range names {
			e.Xattrs = append(e.Xattrs, Xattr{n, genText(300).Draw(t, "value")})
		}
		set := func(bit Has, f func()) {
			if e.Has&bit != 0 {
				f()
			}
		}
		set(HasMode, func() { e.Mode = rapid.Uint32Range(0, 0o7777).Draw(t, "mode") })
		set(HasUID, func() { e.UID = rapid.Uint32().Draw(t, "uid") })
		set(HasGID, func() { e.GID = rapid.Uint32().Draw(t, "gid") })
		set(HasMtime, func() { e.Mtime = genTime().Draw(t, "mtime") })
		set(HasSize, func() { e.Size = rapid.Uint64Range(0, math.MaxInt64).Draw(t, "size") })
		set(HasAtime, func() { e.Atime = genTime().Draw(t, "atime") })
		set(HasCtime, func() { e.Ctime = genTime().Draw(t, "ctime") })
		set(HasBtime, func() { e.Btime = genTime().Draw(t, "btime") })
		set(HasInode, func() { e.Inode = rapid.Uint64().Draw(t, "inode") })
		set(HasLinks, func() { e.Links = rapid.Uint64().Draw(t, "links") })
		return e
	})
}

func genRecord() *rapid.Generator[Record] {
	allFeatures := []Feature{FeatureBase, FeatureCopy, FeatureFlat, FeatureHeld, FeatureZstd}
	return rapid.Custom(func(t *rapid.T) Record {
		extra := func(k Kind) []Field { return genExtra(recordSchemas[k]).Draw(t, "extra") }
		run := rapid.Uint64Range(1, math.MaxInt64)
		chunk := func() ChunkRef {
			return ChunkRef{genID().Draw(t, "id"), rapid.Uint32Range(1, ChunkSizeMax).Draw(t, "size")}
		}
		switch n := rapid.IntRange(0, 11).Draw(t, "kind"); n {
		case 0:
			h := &Header{Version: 1, Producer: genText(30).Draw(t, "producer"), Extra: extra(KindHeader)}
			if rapid.Bool().Draw(t, "created") {
				h.Created = new(genTime().Draw(t, "time"))
			}
			h.Features = append(h.Features, allFeatures[:rapid.IntRange(0, 5).Draw(t, "features")]...)
			return h
		case 1:
			return genSnapshot().Draw(t, "snapshot")
		case 2:
			return genEntry().Draw(t, "entry")
		case 3:
			payload := rapid.SliceOfN(rapid.Byte(), 1, 5000).Draw(t, "payload")
			return &Data{
				ID: SumID(payload), Size: uint32(len(payload)), Codec: CodecNone, Payload: payload,
				Once: rapid.Bool().Draw(t, "once"), Extra: extra(KindData),
			}
		case 4:
			r := &Refs{Extra: extra(KindRefs)}
			for range rapid.IntRange(1, 20).Draw(t, "n") {
				r.Chunks = append(r.Chunks, chunk())
			}
			return r
		case 5:
			c := &CopyRange{Offset: rapid.Uint64Range(0, 1<<62).Draw(t, "offset"), Size: rapid.Uint64Range(1, 1<<61).Draw(t, "size"), Extra: extra(KindCopy)}
			if c.HasFrom = rapid.Bool().Draw(t, "from"); c.HasFrom {
				c.From = genPath().Draw(t, "path")
			}
			return c
		case 6:
			return &Hole{Size: run.Draw(t, "size"), Extra: extra(KindHole)}
		case 7:
			e := &EOF{Size: rapid.Uint64Range(0, math.MaxInt64).Draw(t, "size"), Error: genText(30).Draw(t, "error"), Extra: extra(KindEOF)}
			if rapid.Bool().Draw(t, "sum") {
				e.SHA256 = new(genID().Draw(t, "sha256"))
			}
			return e
		case 8:
			return &Remove{Path: genPath().Draw(t, "path"), Extra: extra(KindRemove)}
		case 9:
			m := &Commit{
				Entries: rapid.Uint64().Draw(t, "a"), Removes: rapid.Uint64().Draw(t, "b"), Data: rapid.Uint64().Draw(t, "c"),
				Bytes: rapid.Uint64().Draw(t, "d"), Digest: genID().Draw(t, "digest"), Extra: extra(KindCommit),
			}
			for _, k := range genSortedWords(20).Draw(t, "losses") {
				m.Losses = append(m.Losses, Loss{k, rapid.Uint64Range(1, 9).Draw(t, "n"), rapid.SliceOfN(genText(40), 0, 16).Draw(t, "paths"), genExtra(lossSchema).Draw(t, "le")})
			}
			return m
		case 10:
			return &End{Snapshots: rapid.Uint64().Draw(t, "n"), Digest: genID().Draw(t, "digest"), Extra: extra(KindEnd)}
		default:
			return &Extension{Name: Kind(fmt.Sprintf("x-%s", genWord().Draw(t, "name"))), Body: genExtra(nil).Draw(t, "body")}
		}
	})
}
