package format

// Version is the version of the stream that this package writes and reads.
const Version = 1

// Limits of the stream (spec/stream.md, "Limits"). Sizes are in bytes. Each has
// vectors at it and just over it in spec/vectors.
const (
	ChunkSizeMax   = 32 << 20 // plain bytes of one chunk; at least 1
	BodySizeMax    = 8 << 20  // encoded body of one record
	PathSizeMax    = 32 << 10 // a whole path
	NameSizeMax    = 4 << 10  // one component of a path
	TargetSizeMax  = 64 << 10 // target of a symbolic link
	TextSizeMax    = 4 << 10  // a host, user, group, tag, producer, kind of loss, stage ...
	CommentSizeMax = 64 << 10 // comment of a snapshot, error text of an eof
	HardlinkMax    = 64       // name of a hard-link group; at least 1

	XattrsMax         = 4096      // attributes of one entry
	XattrNameSizeMax  = 1 << 10   // name of one attribute
	XattrValueSizeMax = 1 << 20   // value of one attribute
	RefsMax           = 8192      // chunks named by one refs record; at least 1
	ExtentsMax        = 65536     // extents of one entry
	RootsMax          = 4096      // roots of one snapshot
	TagsMax           = 4096      // tags of one snapshot
	ViaMax            = 4096      // stages a snapshot went through
	FeaturesMax       = 64        // features in the header
	FlagsMax          = 64        // flags of one entry
	LossesMax         = 1024      // kinds of loss in one commit
	LossPathsMax      = 16        // first paths named for one kind of loss
	FieldsMax         = 256       // keys of one map
	DepthMax          = 16        // nesting inside an unknown key or an x- record
	FileSizeMax       = 1<<63 - 1 // bytes of one file, of one hole, of one copy
	ZstdWindowMax     = 32 << 20  // window that a zstd frame may ask for
)

// PayloadSizeMax is the most bytes that the payload of a chunk of size plain
// bytes may have, whatever its codec (spec/stream.md, "data").
func PayloadSizeMax(size int) int { return size + size/128 + 64<<10 }

// featureBit returns a bit for each feature that this package knows, or 0.
func featureBit(f Feature) features {
	switch f {
	case FeatureZstd:
		return hasZstd
	case FeatureBase:
		return hasBase
	case FeatureCopy:
		return hasCopy
	case FeatureHeld:
		return hasHeld
	case FeatureFlat:
		return hasFlat
	}
	return 0
}

// features is a set of features.
type features uint8

const (
	hasZstd features = 1 << iota
	hasBase
	hasCopy
	hasHeld
	hasFlat
)
