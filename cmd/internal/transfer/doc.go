// Package transfer is what bk-export, bk-import and bk-sync do: moving snapshots
// between a repository and a stream, or between two repositories in one process.
// Start at Export and Import; Sync joins the two for what a target lacks (plan.go
// says what that is). Only those programs import it.
package transfer
