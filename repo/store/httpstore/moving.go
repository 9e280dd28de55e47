package httpstore

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// errStalled is why a call was ended during which nothing moved.
var errStalled = errors.New("nothing moved")

// moving ends a call when no byte of it moves any more: how long a call may take
// depends on what it carries, and how long nothing may happen does not.
type moving struct {
	ctx    context.Context
	caller context.Context
	max    time.Duration
	timer  *time.Timer
}

func watch(caller context.Context, stallMax time.Duration) (m *moving, stop func()) {
	ctx, cancel := context.WithCancelCause(caller)
	m = &moving{ctx: ctx, caller: caller, max: stallMax}
	m.timer = time.AfterFunc(stallMax, func() { cancel(errStalled) })
	return m, func() {
		m.timer.Stop()
		cancel(nil)
	}
}

func (m *moving) moved() { m.timer.Reset(m.max) }

// movingBody is the body of an answer. The time that its reader takes for itself
// is not the server's.
type movingBody struct {
	io.ReadCloser
	m *moving
}

func (b *movingBody) Read(p []byte) (int, error) {
	b.m.moved()
	n, err := b.ReadCloser.Read(p)
	b.m.timer.Stop()
	return n, err
}

// upload reads the parts of an object once, until they are taken away: a
// transport may go on reading after it has returned.
type upload struct {
	size  int64
	moved func()

	mu    sync.Mutex
	parts [][]byte
}

func newUpload(parts [][]byte) *upload {
	u := &upload{}
	for _, part := range parts {
		u.size += int64(len(part))
		if len(part) > 0 {
			u.parts = append(u.parts, part)
		}
	}
	return u
}

func (u *upload) Read(p []byte) (n int, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.parts) == 0 {
		return 0, io.EOF
	}
	u.moved()
	n = copy(p, u.parts[0])
	if u.parts[0] = u.parts[0][n:]; len(u.parts[0]) == 0 {
		u.parts = u.parts[1:]
	}
	return n, nil
}

// take has the parts not be read any more.
func (u *upload) take() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.parts = nil
}
