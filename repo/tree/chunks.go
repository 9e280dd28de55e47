package tree

import (
	"context"
	"fmt"

	"github.com/bk-backup/bk/format"
)

// Loader reads meta chunks.
type Loader interface {
	// Load returns the plain bytes of the chunk with the given id, checked
	// against it. They are read-only and may be shared. It may be called from
	// several goroutines at once.
	Load(ctx context.Context, id format.ID) ([]byte, error)
}

// Chunks reads and stores meta chunks.
type Chunks interface {
	Loader
	// Save stores a chunk if it is not there yet and returns its id, under
	// which Load finds it from then on. It does not keep plain after it
	// returns. It is called from one goroutine at a time.
	Save(ctx context.Context, plain []byte) (format.ID, error)
}

// NodeError is a chunk of a listing that could not be read or is not what
// section 7 of spec/repository.md says.
type NodeError struct {
	ID   format.ID
	What string // "node", "list" or "body"
	Err  error
}

// Error returns one line.
func (e *NodeError) Error() string {
	return fmt.Sprintf("%s %s of a listing: %v", e.What, e.ID, e.Err)
}

// Unwrap returns the cause.
func (e *NodeError) Unwrap() error { return e.Err }
