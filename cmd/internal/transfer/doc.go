// Package transfer is what bk-export, bk-import, bk-sync and bk-rewrite do: moving
// snapshots between a repository and a stream, between two repositories in one
// process, or through a filter within one. Start at Export and Import; Sync joins
// the two for what a target lacks (plan.go says what that is), Rewrite for one
// repository. Only those programs import it.
package transfer
