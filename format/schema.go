package format

// shape is how a known key's value is shown to people and programs; the codec
// itself does not use it.
type shape uint8

const (
	shapePlain shape = iota // int, bool, str, and arrays of them
	shapeText               // bin that is a name, a path or other text
	shapeID                 // bin that is an id or a digest
	shapeTime               // array of seconds and nanoseconds
	shapeTexts              // array of text
	shapePairs              // array of arrays of text: extended attributes
	shapeRefs               // array of arrays of an id and a size
	shapeMap                // a map of the specification
	shapeMaps               // an array of such maps
)

// schema lists the keys that a map of the specification knows.
type schema map[string]schemaKey

type schemaKey struct {
	shape shape
	in    schema // of the map, or of the maps in the array
}

var (
	originSchema = schema{
		"id": {shape: shapeText}, "repository": {shape: shapeText}, "system": {},
	}
	viaSchema = schema{
		"from": {shape: shapeID}, "stage": {shape: shapeText},
	}
	estimateSchema = schema{"bytes": {}, "entries": {}}
	lossSchema     = schema{"count": {}, "kind": {}, "paths": {shape: shapeTexts}}
	entrySchema    = schema{
		"atime": {shape: shapeTime}, "btime": {shape: shapeTime}, "chunker": {}, "ctime": {shape: shapeTime},
		"extents": {}, "flags": {}, "gid": {}, "group": {shape: shapeText}, "hardlink": {shape: shapeText},
		"inode": {}, "links": {}, "mode": {}, "mtime": {shape: shapeTime}, "path": {shape: shapeText},
		"rdev": {}, "size": {}, "target": {shape: shapeText}, "type": {}, "uid": {}, "user": {shape: shapeText},
		"xattrs": {shape: shapePairs},
	}
	snapshotSchema = schema{
		"comment": {shape: shapeText}, "estimate": {shape: shapeMap, in: estimateSchema}, "host": {shape: shapeText},
		"id": {shape: shapeID}, "origin": {shape: shapeMap, in: originSchema}, "parent": {shape: shapeID},
		"roots": {shape: shapeTexts}, "sorted": {}, "tags": {shape: shapeTexts}, "time": {shape: shapeTime},
		"unstable": {}, "user": {shape: shapeText}, "via": {shape: shapeMaps, in: viaSchema},
	}
	recordSchemas = map[Kind]schema{
		KindHeader:   {"created": {shape: shapeTime}, "features": {}, "producer": {shape: shapeText}, "version": {}},
		KindSnapshot: snapshotSchema,
		KindEntry:    entrySchema,
		KindData:     {"codec": {}, "id": {shape: shapeID}, "once": {}, "size": {}},
		KindRefs:     {"chunks": {shape: shapeRefs}},
		KindCopy:     {"from": {shape: shapeText}, "offset": {}, "size": {}},
		KindHole:     {"size": {}},
		KindEOF:      {"error": {shape: shapeText}, "sha256": {shape: shapeID}, "size": {}},
		KindRemove:   {"path": {shape: shapeText}},
		KindCommit: {
			"bytes": {}, "data": {}, "digest": {shape: shapeID}, "entries": {},
			"losses": {shape: shapeMaps, in: lossSchema}, "removes": {},
		},
		KindEnd: {"digest": {shape: shapeID}, "snapshots": {}},
	}
)
