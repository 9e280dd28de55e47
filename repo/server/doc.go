// Package server answers the protocol of spec/server.md: a repository's storage
// for clients that cannot reach it otherwise, with rights that the server keeps.
// Its other side is repo/store/httpstore.
//
// Start reading at New. AppendOnly (append.go) is the store that those see who
// may only add, Users (users.go) the file that says who may what. The package
// knows names and checksums of objects and no keys. Programs import it.
package server
