// Package listing shows entries to people and programs: it is what bk-ls does,
// and how bk-find, bk-diff and bk-show print an entry.
//
// Start at List, the program; Open walks the listing of a snapshot of any
// system. Programs and packages below cmd may import it.
package listing
