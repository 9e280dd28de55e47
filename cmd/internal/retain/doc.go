// Package retain is what bk-forget does: removing snapshots by name or by a
// policy. Start at Forget; package repo/retention has the rules themselves. Only
// that program imports it.
package retain
