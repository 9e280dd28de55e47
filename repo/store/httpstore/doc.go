// Package httpstore is a store.Store that lies behind a server: the client of the
// protocol in spec/server.md. The other side is repo/server.
//
// Start reading at Open. What both sides need is in protocol.go. A Store does not
// repeat calls: store.Retry does. Like package store it imports nothing else of
// this module, and everything that may import that may import it.
package httpstore
