package format

// Kind is the first element of a record.
type Kind string

const (
	KindHeader   Kind = "bk"
	KindSnapshot Kind = "snapshot"
	KindEntry    Kind = "entry"
	KindData     Kind = "data"
	KindRefs     Kind = "refs"
	KindCopy     Kind = "copy"
	KindHole     Kind = "hole"
	KindEOF      Kind = "eof"
	KindRemove   Kind = "remove"
	KindCommit   Kind = "commit"
	KindEnd      Kind = "end"
)

// Record is one record of the stream: *Header, *Snapshot, *Entry, *Data, *Refs,
// *CopyRange, *Hole, *EOF, *Remove, *Commit, *End or *Extension.
//
// On the wire it is the array [kind, body], or [kind, body, payload] for data;
// the body is a map whose keys are named in the comments below ("key"). A key
// that is absent has the zero value unless the comment says otherwise; a writer
// leaves out keys at their default. Text is bin, never decoded, and is a Go
// string here only because strings are immutable.
//
// Ownership: a record belongs to the source that handed it out and is valid
// until that source's next call of Next. Strings may be kept; slices, maps and
// the record itself may not, unless cloned. Data.Take hands a payload over.
type Record interface {
	Kind() Kind
}

// Field is a key that this version does not know, kept as it came so that it
// survives every stage. Raw is one msgpack value.
type Field struct {
	Key string
	Raw []byte
}

// Feature is something that a reader must know to understand a stream.
type Feature string

const (
	FeatureZstd Feature = "zstd" // payloads may be zstd frames
	FeatureBase Feature = "base" // the first snapshot's parent is held by the receiver
	FeatureCopy Feature = "copy" // copy records
	FeatureHeld Feature = "held" // refs may name chunks that the receiver holds
	FeatureFlat Feature = "flat" // every snapshot whole: no parent, remove, refs, copy
)

// Header begins every stream. Kind "bk", so that a stream begins with the four
// bytes 92 A2 62 6B.
type Header struct {
	Version  uint64    // "version", required
	Producer string    // "producer": name and version of the program
	Created  *Time     // "created": when the stream was begun
	Features []Feature // "features": array of str, sorted, each once
	Extra    []Field
}

// Snapshot begins a snapshot. Kind "snapshot".
type Snapshot struct {
	ID       ID        // "id", required: bin, 32 bytes
	Parent   ID        // "parent": bin, 32 bytes; zero when absent: the records describe the whole listing
	Time     *Time     // "time": when the backup was begun; absent when unknown
	Host     string    // "host": bin
	User     string    // "user": bin
	Roots    []string  // "roots": array of bin, paths as in entries: what was asked to be backed up
	Tags     []string  // "tags": array of bin, in the source's order
	Comment  string    // "comment": bin
	Origin   *Origin   // "origin": where it first came from; kept through every conversion
	Via      []Via     // "via": what stages made of it, oldest first
	Unsorted bool      // "sorted": bool, default true; here negated so that the zero value is the default
	Unstable bool      // "unstable": the source cannot give the same id again
	Estimate *Estimate // "estimate": for progress only
	Extra    []Field
}

// Origin says where a snapshot was made. A map with the keys below.
type Origin struct {
	System     string // "system", required: str: bk, restic, borg, tar, hardlinks ...
	Repository string // "repository": bin: what that system calls the repository (an id, not a place)
	ID         string // "id": bin: what that system calls the snapshot, as raw bytes
	Extra      []Field
}

// Via is one stage that a snapshot went through. A map with the keys below.
type Via struct {
	Stage string // "stage", required: bin: the stage's canonical description
	From  ID     // "from", required: the snapshot's id before
	Extra []Field
}

// Estimate is what a producer expects a snapshot's records to amount to.
type Estimate struct {
	Entries uint64 // "entries"
	Bytes   uint64 // "bytes": plain bytes of content
	Extra   []Field
}

// Type is the type of a file system object.
type Type string

const (
	TypeFile    Type = "file"
	TypeDir     Type = "dir"
	TypeSymlink Type = "symlink"
	TypeChar    Type = "char"
	TypeBlock   Type = "block"
	TypeFifo    Type = "fifo"
	TypeSocket  Type = "socket"
)

// Has tells which of an entry's optional numbers are known.
type Has uint16

const (
	HasMode Has = 1 << iota
	HasUID
	HasGID
	HasMtime
	HasSize
	HasAtime
	HasCtime
	HasBtime
	HasInode
	HasLinks
)

// Entry is one object of the listing. Kind "entry".
//
// Entries of the type file are followed by their content (data, refs, copy,
// hole) and closed by eof; others have none.
type Entry struct {
	Path     string   // "path", required: bin; "" is the root
	Type     Type     // "type", required: str
	Has      Has      // which of the numbers below were given
	Mode     uint32   // "mode": permission bits with setuid, setgid, sticky: at most 07777
	UID      uint32   // "uid"
	GID      uint32   // "gid"
	User     string   // "user": bin: name of the owner; "" when unknown
	Group    string   // "group": bin
	Mtime    Time     // "mtime": array [seconds, nanoseconds]
	Size     uint64   // "size": of a file, as it was known before its content was read; eof has the true size
	Target   string   // "target", required for and only with symlink: bin
	Rdev     Rdev     // "rdev", required for and only with char and block: array [major, minor]
	Hardlink string   // "hardlink": bin, 1 to 64 bytes: an opaque name; members of one group share it; not on dir
	Xattrs   []Xattr  // "xattrs": array of [name, value], both bin, sorted by name, each once. ACLs are system.posix_acl_access and _default in the kernel's binary form
	Flags    []string // "flags": array of str, sorted, each once: append, immutable, nodump ...; see spec
	Extents  []Extent // "extents": array of [offset, size]: where a sparse file has data; ascending, not touching

	// Informative only: never part of equality, absent where unknown.
	Atime   Time   // "atime"
	Ctime   Time   // "ctime"
	Btime   Time   // "btime"
	Inode   uint64 // "inode"
	Links   uint64 // "links": st_nlink at the source
	Chunker string // "chunker": str: the splitter that cut the content, format/chunker's canonical text

	Extra []Field
}

// Rdev is the number of a device, as major and minor.
type Rdev struct{ Major, Minor uint32 }

// Xattr is one extended attribute. The value may be empty.
type Xattr struct {
	Name  string
	Value string
}

// Extent is a run of bytes of a file.
type Extent struct{ Offset, Size uint64 }

// Codec says how a payload is encoded.
type Codec string

const (
	CodecNone Codec = "none" // the default: key absent
	CodecZstd Codec = "zstd" // exactly one frame, no dictionary, RFC 8878; needs FeatureZstd
)

// Data is one chunk of the current file's content. Kind "data".
type Data struct {
	ID    ID     // "id", required: SHA-256 of the plain bytes
	Size  uint32 // "size", required: plain bytes, 1 to ChunkSizeMax
	Codec Codec  // "codec": str, default none
	Once  bool   // "once": no refs names this chunk later in the stream
	Extra []Field

	// Payload is the third element of the record, a bin. It is valid until the
	// source's next call of Next, unless Take was called.
	Payload []byte
	// Checked is never on the wire and never set by Reader: a source in the same
	// process sets it to say that it computed ID from Payload's plain bytes
	// itself, so that a sink need not hash them again.
	Checked bool

	own   []byte // the Reader's buffer that Payload is in, until it is taken
	taken bool
	place Place
}

// Nameless reports that a source in the same process left the id out, as
// ExportOptions.Nameless allows. No stream that was read has such chunks.
func (d *Data) Nameless() bool { return d.Checked && d.ID.IsZero() }

// Place says where in a stream a record begins. The zero value is no place: a
// header comes first.
type Place struct {
	Record int64 // its number, from 0 for the header
	Offset int64 // bytes before it
}

// ChunkRef names a chunk that was sent before. On the wire an array [id, size].
type ChunkRef struct {
	ID   ID
	Size uint32
}

// Refs is a run of chunks of the current file's content that came before in
// this stream (or, with FeatureHeld, that the receiver holds). Kind "refs".
type Refs struct {
	Chunks []ChunkRef // "chunks", required, 1 to RefsMax
	Extra  []Field
}

// CopyRange is a run of the current file's content that is taken from the
// parent's version of the path, or of From. Kind "copy"; needs FeatureCopy.
type CopyRange struct {
	Offset  uint64 // "offset", required: in the parent's version
	Size    uint64 // "size", required, at least 1
	From    string // "from": bin: another path of the parent's listing
	HasFrom bool   // whether "from" is present
	Extra   []Field
}

// Hole is a run of zeros in the current file that is not stored. Kind "hole".
type Hole struct {
	Size  uint64 // "size", required, at least 1
	Extra []Field
}

// EOF closes a file. Kind "eof".
type EOF struct {
	Size   uint64 // "size", required: the sum of the content records' sizes
	SHA256 *ID    // "sha256": bin, 32 bytes: of the whole content, holes as zeros
	Error  string // "error": bin: what cut the content short at the source
	Extra  []Field
}

// Remove takes a path, and all below it, out of the listing. Kind "remove".
type Remove struct {
	Path  string // "path", required
	Extra []Field
}

// Loss is something that the source could not read, or that a stage or a format
// on the way could not keep. A map with the keys below.
type Loss struct {
	Kind  string   // "kind", required: str: unreadable, xattr, time-range ...; see spec
	Count uint64   // "count", required, at least 1
	Paths []string // "paths": array of bin: the first few paths concerned
	Extra []Field
}

// Commit closes a snapshot; only now may a receiver make it visible. Kind
// "commit". Writer fills the counts and the digest in itself.
type Commit struct {
	Entries uint64 // "entries", required: entry records of this snapshot
	Removes uint64 // "removes", required: remove records
	Data    uint64 // "data", required: data records
	Bytes   uint64 // "bytes", required: sum of the sizes in its eof records
	Losses  []Loss // "losses": sorted by kind, each kind once
	Digest  ID     // "digest", required: SHA-256 of the records from snapshot on, without payloads
	Extra   []Field
}

// End closes the stream. Kind "end". Writer fills it in itself.
type End struct {
	Snapshots uint64 // "snapshots", required: commit records
	Digest    ID     // "digest", required: SHA-256 of the header and the commit records
	Extra     []Field
}

// Extension is a record of a kind that begins with "x-". It belongs to the
// record before it and passes or goes with it; it may follow any record but
// end. Its body is a map.
type Extension struct {
	Name Kind
	Body []Field
}

// The kinds, as the first element of the record has them.
func (*Header) Kind() Kind      { return KindHeader }
func (*Snapshot) Kind() Kind    { return KindSnapshot }
func (*Entry) Kind() Kind       { return KindEntry }
func (*Data) Kind() Kind        { return KindData }
func (*Refs) Kind() Kind        { return KindRefs }
func (*CopyRange) Kind() Kind   { return KindCopy }
func (*Hole) Kind() Kind        { return KindHole }
func (*EOF) Kind() Kind         { return KindEOF }
func (*Remove) Kind() Kind      { return KindRemove }
func (*Commit) Kind() Kind      { return KindCommit }
func (*End) Kind() Kind         { return KindEnd }
func (x *Extension) Kind() Kind { return x.Name }

// Take hands the payload over to the caller, who may keep and change it; the
// source will use another buffer. When done with it, FreePayload gives it back.
func (d *Data) Take() []byte {
	d.taken, d.own = true, nil
	return d.Payload
}

// Detach takes the payload, in a record that is the caller's own: for sinks that
// decode it later, beside what comes next. It has no extra keys.
func (d *Data) Detach() *Data {
	return &Data{ID: d.ID, Size: d.Size, Codec: d.Codec, Once: d.Once, Payload: d.Take(), Checked: d.Checked, place: d.place}
}

// Place returns where a Reader found the record; zero if it comes from elsewhere.
func (d *Data) Place() Place { return d.place }

// Taken reports whether Take was called: sources ask before reusing a buffer.
func (d *Data) Taken() bool { return d.taken }
