package dir

import (
	"container/list"
	"io/fs"
	"os"
	"sync"
)

// files keeps the files open that were read last. Objects never change, so an
// open file is as good as a new one until the object is deleted.
type files struct {
	mu     sync.Mutex
	max    int
	byName map[string]*list.Element // of *file, in recent
	recent *list.List               // the file used last comes first
	// deletions counts calls of forget: a file that was opened before one of
	// them may be that of the deleted object, and is not kept.
	deletions uint64
	closed    bool
}

type file struct {
	*os.File
	name  string
	users int  // calls that are reading it
	kept  bool // is in byName and recent
}

func newFiles(openMax int) *files {
	return &files{max: openMax, byName: map[string]*list.Element{}, recent: list.New()}
}

// use returns the open file of an object, opened by open if need be. The
// caller calls done afterwards.
func (c *files) use(name string, open func() (*os.File, error)) (*file, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, fs.ErrClosed
	}
	if e, ok := c.byName[name]; ok {
		defer c.mu.Unlock()
		return c.take(e), nil
	}
	deletions := c.deletions
	c.mu.Unlock()

	opened, err := open()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byName[name]; ok { // another call was faster
		opened.Close()
		return c.take(e), nil
	}
	f := &file{File: opened, name: name, users: 1}
	if c.closed || c.deletions != deletions {
		return f, nil
	}
	f.kept = true
	c.byName[name] = c.recent.PushFront(f)
	if c.recent.Len() > c.max {
		c.drop(c.recent.Back())
	}
	return f, nil
}

func (c *files) take(e *list.Element) *file {
	f := e.Value.(*file)
	f.users++
	c.recent.MoveToFront(e)
	return f
}

func (c *files) done(f *file) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.users--
	f.closeUnused()
}

// forget drops the file of an object that was deleted or could not be read.
func (c *files) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deletions++
	if e, ok := c.byName[name]; ok {
		c.drop(e)
	}
}

func (c *files) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for c.recent.Len() > 0 {
		c.drop(c.recent.Back())
	}
}

func (c *files) drop(e *list.Element) {
	f := c.recent.Remove(e).(*file)
	delete(c.byName, f.name)
	f.kept = false
	f.closeUnused()
}

// closeUnused closes a file that is neither kept nor read. An error of closing
// a file that was only read says nothing.
func (f *file) closeUnused() {
	if !f.kept && f.users == 0 {
		f.Close()
	}
}
