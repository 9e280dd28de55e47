// Package hardlinks reads trees of hard links: directories of directories that
// are a snapshot each and share the files that did not change, as rsnapshot,
// rsync --link-dest, rsync-time-backup and rotations with cp -al make them.
//
// Start at Open (system.go): it finds the snapshots in a directory by their names
// (detect.go, pattern.go). Export (source.go) goes through them in the order of
// their times and has format/disk scan each of them beside the one before:
//
//	survey of a tree -> scan beside the survey before -> translate -> Next
//
// A file that is the same inode as in the snapshot before is unchanged and not
// looked at any further; one that came with any snapshot before is not read
// again. Two names of one file are a group of hard links only within a snapshot.
// fakesuper.go understands what rsync --fake-super leaves in attributes.
// spec/hardlinks.md says it all for users.
//
// Nothing is written into the trees. This package imports format, format/disk and
// format/chunker. Only programs import it.
package hardlinks
