package format

// Kinds of loss that programs count in a commit (spec/stream.md, "Losses").
// Others may come; they pass.
const (
	LossUnreadable = "unreadable" // an object, or a part of its content, could not be read
	LossVanished   = "vanished"   // gone, or of another type, between being listed and being read
	LossChanged    = "changed"    // written to while it was read; its content is as read
	LossLimit      = "limit"      // beyond a limit of the stream or of the format

	LossUnwritable = "unwritable" // it could not be created, replaced or completed at the target
	LossDamaged    = "damaged"    // a part of its content was missing or did not match its id

	LossName      = "name" // the name, or the target of a link, was changed to one that can be held
	LossOwner     = "owner"
	LossMode      = "mode"
	LossXattr     = "xattr"
	LossACL       = "acl"
	LossFlags     = "flags"
	LossTime      = "time"       // not kept, or not with all its digits
	LossTimeRange = "time-range" // outside what can be held
	LossHardlink  = "hardlink"   // a link became an object of its own
	LossSparse    = "sparse"     // holes became zeros that take space
	LossDevice    = "device"
	LossFifo      = "fifo"
	LossSocket    = "socket"
	LossSnapshot  = "snapshot"  // something that the snapshot record says
	LossExtension = "extension" // an unknown key or an x- record
)
