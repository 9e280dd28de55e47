package server_test

import (
	"net"
	"sync/atomic"
)

// breaker is a listener whose next connection breaks after some bytes.
type breaker struct {
	net.Listener
	up    bool // what the client sends, not what it gets
	limit atomic.Int64
}

// arm has the next connection that is made break after limit bytes; 0: none.
func (b *breaker) arm(limit int64) { b.limit.Store(limit) }

func (b *breaker) Accept() (net.Conn, error) {
	conn, err := b.Listener.Accept()
	if limit := b.limit.Swap(0); err == nil && limit > 0 {
		conn = &breaking{Conn: conn, up: b.up, left: limit}
	}
	return conn, err
}

type breaking struct {
	net.Conn
	up   bool
	left int64 // of the one goroutine that goes in that direction
}

func (c *breaking) Read(p []byte) (int, error) {
	if !c.up {
		return c.Conn.Read(p)
	}
	if c.left <= 0 {
		c.Close()
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

func (c *breaking) Write(p []byte) (int, error) {
	if c.up {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p[:min(int64(len(p)), max(c.left, 0))])
	if c.left -= int64(n); n < len(p) {
		c.Close()
		return n, net.ErrClosed
	}
	return n, err
}
