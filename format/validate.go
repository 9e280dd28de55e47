package format

import (
	"strings"
	"unicode/utf8"
)

// checkRecord checks every rule that a record can break alone: required keys,
// ranges, limits, paths, and what may stand beside what. The rules between
// records are Checker's.
func checkRecord(rec Record) *Error { return checkRecordAfter(rec, "") }

// checkRecordAfter does the same, given a path that is known to be good and
// likely to have directories in common with the record's.
func checkRecordAfter(rec Record, goodPath string) *Error {
	switch r := rec.(type) {
	case *Header:
		return checkHeader(r)
	case *Snapshot:
		return checkSnapshot(r)
	case *Entry:
		return checkEntryAfter(r, goodPath)
	case *Data:
		return checkData(r)
	case *Refs:
		return checkRefs(r)
	case *CopyRange:
		return checkCopy(r)
	case *Hole:
		return first(checkRun("size", r.Size), checkExtra(r.Extra, recordSchemas[KindHole]))
	case *EOF:
		return first(
			checkFileSize("size", r.Size),
			checkSize("error", len(r.Error), CommentSizeMax),
			checkExtra(r.Extra, recordSchemas[KindEOF]))
	case *Remove:
		return first(checkPath(r.Path), checkExtra(r.Extra, recordSchemas[KindRemove]))
	case *Commit:
		return checkCommit(r)
	case *End:
		return checkExtra(r.Extra, recordSchemas[KindEnd])
	case *Extension:
		return checkExtension(r)
	case nil:
		return Errorf(ClassGrammar, "there is no record")
	}
	return Errorf(ClassKind, "a record of the Go type %T is not one of the stream", rec)
}

// first returns the first error that is not nil.
func first(errs ...*Error) *Error {
	for _, e := range errs {
		if e != nil {
			return e
		}
	}
	return nil
}

func checkSize(key string, size, limit int) *Error {
	if size > limit {
		return Errorf(ClassLimit, "key %q: %d bytes are more than %d", key, size, limit)
	}
	return nil
}

func checkNumber(key string, n, limit int) *Error {
	if n > limit {
		return Errorf(ClassLimit, "key %q: %d elements are more than %d", key, n, limit)
	}
	return nil
}

func checkFileSize(key string, size uint64) *Error {
	if size > FileSizeMax {
		return Errorf(ClassLimit, "key %q: %d is more than 2^63-1", key, size)
	}
	return nil
}

// checkRun checks the size of a run of bytes that may not be empty.
func checkRun(key string, size uint64) *Error {
	if size == 0 {
		return Errorf(ClassField, "key %q: 0 is less than 1", key)
	}
	return checkFileSize(key, size)
}

// checkWord checks a str that is required or not empty.
func checkWord(key, s string) *Error {
	if s == "" {
		return Errorf(ClassField, "key %q is empty", key)
	}
	if !utf8.ValidString(s) {
		return Errorf(ClassField, "key %q: %q is not UTF-8", key, s)
	}
	return checkSize(key, len(s), TextSizeMax)
}

func checkTexts(key string, list []string, limit, sizeMax int) *Error {
	if e := checkNumber(key, len(list), limit); e != nil {
		return e
	}
	for _, s := range list {
		if e := checkSize(key, len(s), sizeMax); e != nil {
			return e
		}
	}
	return nil
}

func checkTime(key string, t Time) *Error {
	if t.Nsec > 999_999_999 {
		return Errorf(ClassField, "key %q: %d nanoseconds are more than 999999999", key, t.Nsec)
	}
	return nil
}

func checkID(key string, id *ID) *Error {
	if id.IsZero() {
		return Errorf(ClassField, "key %q: an id is all zero", key)
	}
	return nil
}

// checkExtra checks the unknown keys of a map that has the known ones besides.
func checkExtra(extra []Field, known schema) *Error {
	if len(extra) == 0 {
		return nil
	}
	// Known keys count whether they are there or not, so that a stage may add
	// one to whatever came.
	if len(extra)+len(known) > FieldsMax {
		return Errorf(ClassLimit, "a map has more than %d keys", FieldsMax)
	}
	seen := make(map[string]bool, len(extra))
	for i := range extra {
		f := &extra[i]
		if _, ok := known[f.Key]; ok || seen[f.Key] {
			return Errorf(ClassField, "the key %q comes twice", f.Key)
		}
		seen[f.Key] = true
		if !utf8.ValidString(f.Key) {
			return Errorf(ClassField, "key %q: a str is not UTF-8", f.Key)
		}
		if e := checkSize(f.Key, len(f.Key), TextSizeMax); e != nil {
			return e
		}
		if e := checkRaw(f.Raw); e != nil {
			return e
		}
	}
	return nil
}

func checkHeader(h *Header) *Error {
	if e := checkVersion(h.Version); e != nil {
		return e
	}
	if h.Created != nil {
		if e := checkTime("created", *h.Created); e != nil {
			return e
		}
	}
	if e := checkNumber("features", len(h.Features), FeaturesMax); e != nil {
		return e
	}
	for i, f := range h.Features {
		if e := checkWord("features", string(f)); e != nil {
			return e
		}
		if i > 0 && f <= h.Features[i-1] {
			return Errorf(ClassField, "key \"features\": %q does not come after %q", f, h.Features[i-1])
		}
	}
	for _, f := range h.Features {
		if featureBit(f) == 0 {
			return Errorf(ClassFeature, "the stream needs the feature %q, which this program does not know", f)
		}
	}
	return first(checkSize("producer", len(h.Producer), TextSizeMax), checkExtra(h.Extra, recordSchemas[KindHeader]))
}

func checkVersion(v uint64) *Error {
	if v == Version {
		return nil
	}
	return Errorf(ClassVersion, "the stream has version %d, this program knows version %d", v, Version)
}

func checkSnapshot(s *Snapshot) *Error {
	if e := first(
		checkID("id", &s.ID),
		checkSize("host", len(s.Host), TextSizeMax),
		checkSize("user", len(s.User), TextSizeMax),
		checkSize("comment", len(s.Comment), CommentSizeMax),
		checkTexts("roots", s.Roots, RootsMax, PathSizeMax),
		checkTexts("tags", s.Tags, TagsMax, TextSizeMax),
		checkNumber("via", len(s.Via), ViaMax),
		checkExtra(s.Extra, snapshotSchema),
	); e != nil {
		return e
	}
	if s.Time != nil {
		if e := checkTime("time", *s.Time); e != nil {
			return e
		}
	}
	for _, r := range s.Roots {
		if e := checkPath(r); e != nil {
			return e
		}
	}
	if o := s.Origin; o != nil {
		if e := first(
			checkWord("system", o.System),
			checkSize("repository", len(o.Repository), TextSizeMax),
			checkSize("id", len(o.ID), TextSizeMax),
			checkExtra(o.Extra, originSchema),
		); e != nil {
			return e
		}
	}
	for i := range s.Via {
		v := &s.Via[i]
		if v.Stage == "" {
			return Errorf(ClassField, "key \"stage\" is empty")
		}
		if e := first(
			checkSize("stage", len(v.Stage), TextSizeMax),
			checkID("from", &v.From),
			checkExtra(v.Extra, viaSchema),
		); e != nil {
			return e
		}
	}
	if s.Estimate != nil {
		return checkExtra(s.Estimate.Extra, estimateSchema)
	}
	return nil
}

func checkEntry(e *Entry) *Error { return checkEntryAfter(e, "") }

func checkEntryAfter(e *Entry, goodPath string) *Error {
	if err := checkPathAfter(e.Path, goodPath); err != nil {
		return err
	}
	if err := checkEntryBody(e); err != nil {
		return err
	}
	if e.Path == "" && e.Type != TypeDir {
		return Errorf(ClassField, "the root is of the type %s, not dir", e.Type)
	}
	return nil
}

// checkEntryBody checks all but the path.
func checkEntryBody(e *Entry) *Error {
	switch e.Type {
	case TypeFile:
	case TypeDir, TypeSymlink, TypeChar, TypeBlock, TypeFifo, TypeSocket:
		if err := e.checkNotFile(); err != nil {
			return err
		}
	default:
		return Errorf(ClassField, "there is no type %q", e.Type)
	}
	if e.Mode > 0o7777 {
		return Errorf(ClassField, "key \"mode\": %#o is more than 07777", e.Mode)
	}
	if len(e.User) > TextSizeMax || len(e.Group) > TextSizeMax || len(e.Hardlink) > HardlinkMax || len(e.Target) > TargetSizeMax || e.Size > FileSizeMax {
		return first(
			checkSize("user", len(e.User), TextSizeMax),
			checkSize("group", len(e.Group), TextSizeMax),
			checkSize("hardlink", len(e.Hardlink), HardlinkMax),
			checkSize("target", len(e.Target), TargetSizeMax),
			checkFileSize("size", e.Size))
	}
	if e.Has&(HasMtime|HasAtime|HasCtime|HasBtime) != 0 {
		for _, t := range [...]*Time{&e.Mtime, &e.Atime, &e.Ctime, &e.Btime} {
			if err := checkTime("mtime, atime, ctime or btime", *t); err != nil {
				return err
			}
		}
	}
	if e.Chunker != "" {
		if err := checkWord("chunker", e.Chunker); err != nil {
			return err
		}
	}
	if len(e.Xattrs) > 0 || len(e.Flags) > 0 || len(e.Extents) > 0 {
		if err := first(checkXattrs(e.Xattrs), checkFlags(e.Flags), checkExtents(e.Extents)); err != nil {
			return err
		}
	}
	return checkExtra(e.Extra, entrySchema)
}

// checkNotFile checks what only some types may have.
func (e *Entry) checkNotFile() *Error {
	misplaced := ""
	switch {
	case e.Has&HasSize != 0:
		misplaced = "size"
	case len(e.Extents) > 0:
		misplaced = "extents"
	case e.Chunker != "":
		misplaced = "chunker"
	case e.Hardlink != "" && e.Type == TypeDir:
		misplaced = "hardlink"
	}
	if misplaced != "" {
		return Errorf(ClassField, "the key %q has no place in an entry of the type %s", misplaced, e.Type)
	}
	if e.Type == TypeSymlink && strings.IndexByte(e.Target, 0) >= 0 {
		return Errorf(ClassField, "key \"target\" has a zero byte")
	}
	return nil
}

func checkXattrs(xattrs []Xattr) *Error {
	if e := checkNumber("xattrs", len(xattrs), XattrsMax); e != nil {
		return e
	}
	for i := range xattrs {
		x := &xattrs[i]
		if x.Name == "" || strings.IndexByte(x.Name, 0) >= 0 {
			return Errorf(ClassField, "key \"xattrs\": the name %q is empty or has a zero byte", x.Name)
		}
		if i > 0 && x.Name <= xattrs[i-1].Name {
			return Errorf(ClassField, "key \"xattrs\": %q does not come after %q", x.Name, xattrs[i-1].Name)
		}
		if e := first(checkSize("xattrs", len(x.Name), XattrNameSizeMax), checkSize("xattrs", len(x.Value), XattrValueSizeMax)); e != nil {
			return e
		}
	}
	return nil
}

func checkFlags(flags []string) *Error {
	if e := checkNumber("flags", len(flags), FlagsMax); e != nil {
		return e
	}
	for i, f := range flags {
		if e := checkWord("flags", f); e != nil {
			return e
		}
		if i > 0 && f <= flags[i-1] {
			return Errorf(ClassField, "key \"flags\": %q does not come after %q", f, flags[i-1])
		}
	}
	return nil
}

func checkExtents(extents []Extent) *Error {
	if e := checkNumber("extents", len(extents), ExtentsMax); e != nil {
		return e
	}
	for i, x := range extents {
		if e := checkRange("extents", x.Offset, x.Size); e != nil {
			return e
		}
		if i > 0 && x.Offset <= extents[i-1].Offset+extents[i-1].Size {
			return Errorf(ClassField, "key \"extents\": the extent at %d does not begin after a gap behind the one before", x.Offset)
		}
	}
	return nil
}

// checkRange checks a run of bytes of a file, which may not be empty.
func checkRange(key string, offset, size uint64) *Error {
	if e := first(checkRun(key, size), checkFileSize(key, offset)); e != nil {
		return e
	}
	return checkFileSize(key, offset+size)
}

func checkChunk(id *ID, size uint32) *Error {
	return first(checkChunkSize(size), checkID("id", id))
}

func checkChunkSize(size uint32) *Error {
	if size == 0 {
		return Errorf(ClassField, "a chunk of 0 bytes is less than 1")
	}
	if size > ChunkSizeMax {
		return Errorf(ClassLimit, "a chunk of %d bytes is more than %d", size, ChunkSizeMax)
	}
	return nil
}

func checkData(d *Data) *Error {
	if d.Codec != CodecNone && d.Codec != CodecZstd && d.Codec != "" {
		return Errorf(ClassField, "there is no codec %q", d.Codec)
	}
	return first(checkChunk(&d.ID, d.Size), checkExtra(d.Extra, recordSchemas[KindData]))
}

// checkNameless checks a chunk that was never on a wire and has no id.
func checkNameless(d *Data) *Error {
	named := *d
	named.ID = ID{1}
	return checkData(&named)
}

// checkPayload checks what can be said of a payload without decoding it.
func checkPayload(d *Data) *Error {
	return checkPayloadSize(d, uint64(len(d.Payload)))
}

func checkPayloadSize(d *Data, size uint64) *Error {
	if limit := PayloadSizeMax(int(d.Size)); size > uint64(limit) {
		return Errorf(ClassLimit, "a payload of %d bytes for a chunk of %d is more than %d", size, d.Size, limit)
	}
	if d.Codec != CodecZstd && size != uint64(d.Size) {
		return Errorf(ClassChunk, "a payload without a codec has %d bytes, the chunk %d", size, d.Size)
	}
	return nil
}

func checkRefs(r *Refs) *Error {
	if len(r.Chunks) == 0 {
		return Errorf(ClassField, "key \"chunks\" has no elements")
	}
	if e := checkNumber("chunks", len(r.Chunks), RefsMax); e != nil {
		return e
	}
	for i := range r.Chunks {
		if e := checkChunk(&r.Chunks[i].ID, r.Chunks[i].Size); e != nil {
			return e
		}
	}
	return checkExtra(r.Extra, recordSchemas[KindRefs])
}

func checkCopy(r *CopyRange) *Error {
	if e := checkRange("offset, size", r.Offset, r.Size); e != nil {
		return e
	}
	return first(checkPath(r.From), checkExtra(r.Extra, recordSchemas[KindCopy]))
}

func checkCommit(m *Commit) *Error {
	if e := checkNumber("losses", len(m.Losses), LossesMax); e != nil {
		return e
	}
	for i := range m.Losses {
		l := &m.Losses[i]
		if e := checkWord("kind", l.Kind); e != nil {
			return e
		}
		if i > 0 && l.Kind <= m.Losses[i-1].Kind {
			return Errorf(ClassField, "key \"losses\": %q does not come after %q", l.Kind, m.Losses[i-1].Kind)
		}
		if l.Count == 0 {
			return Errorf(ClassField, "key \"count\": 0 is less than 1")
		}
		if e := first(checkTexts("paths", l.Paths, LossPathsMax, PathSizeMax), checkExtra(l.Extra, lossSchema)); e != nil {
			return e
		}
	}
	return checkExtra(m.Extra, recordSchemas[KindCommit])
}

func checkExtension(x *Extension) *Error {
	if e := checkKind(string(x.Name)); e != nil {
		return e
	}
	if !isExtension(x.Name) {
		return Errorf(ClassKind, "the kind %q of an extension does not begin with x-", x.Name)
	}
	return checkExtra(x.Body, nil)
}

// checkKind checks the first element of a record.
func checkKind(kind string) *Error {
	if e := checkSize("kind", len(kind), TextSizeMax); e != nil {
		return e
	}
	if _, ok := recordSchemas[Kind(kind)]; ok {
		return nil
	}
	if !isExtension(Kind(kind)) || !utf8.ValidString(kind) {
		return Errorf(ClassKind, "there is no kind of record %q", kind)
	}
	return nil
}

func isExtension(kind Kind) bool { return len(kind) > 2 && kind[:2] == "x-" }
