// Package transfer is what bk-export and bk-import do: moving snapshots between
// a repository and a stream. Start at Export and Import. Only those two
// programs import it.
package transfer
