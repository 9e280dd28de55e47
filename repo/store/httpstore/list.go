package httpstore

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/bk-backup/bk/repo/store"
)

// List calls fn for every object whose name begins with prefix, in order.
func (s *Store) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	if err := store.CheckPrefix(prefix); err != nil {
		return s.fail("list", prefix, nil, err, "")
	}
	c := call{op: "list", name: prefix, method: http.MethodGet, path: ListPath + EscapeName(prefix)}
	return s.do(ctx, c, func(resp *http.Response) error {
		lines := bufio.NewReaderSize(resp.Body, LineSizeMax)
		last := ""
		for {
			if err := ctx.Err(); err != nil {
				return err // lines may be here already that nobody waits for
			}
			text, err := lines.ReadSlice('\n')
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return &cutOff{fmt.Errorf("the listing broke off behind %q: %w", last, err)}
			}
			var line Line
			if err := json.Unmarshal(text, &line); err != nil {
				return fmt.Errorf("a line of the listing is not what it should be: %w", err)
			}
			switch {
			case line.End:
				return nil
			case line.Error != nil:
				return &userError{s.failure(c, line.Error)}
			}
			info, err := line.info()
			if err != nil {
				return err
			}
			if info.Name <= last || !strings.HasPrefix(info.Name, prefix) {
				return fmt.Errorf("the listing has %q behind %q", info.Name, last)
			}
			last = info.Name
			if err := fn(info); err != nil {
				return &userError{err}
			}
		}
	})
}

func (l *Line) info() (store.Info, error) {
	name, err := UnescapeName(l.Name)
	if err == nil {
		err = store.CheckReadName(name)
	}
	if err != nil {
		return store.Info{}, fmt.Errorf("the listing has the name %q: %w", l.Name, err)
	}
	created, err := time.Parse(TimeFormat, l.Created)
	if err != nil || l.Size < 0 {
		return store.Info{}, fmt.Errorf("the listing says nothing valid of %q", name)
	}
	return store.Info{Name: name, Size: l.Size, Created: created.UTC()}, nil
}

// userError is an error that is returned as it is.
type userError struct{ err error }

func (e *userError) Error() string { return e.err.Error() }
