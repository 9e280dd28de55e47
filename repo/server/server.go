package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/httpstore"
)

// Options say how a repository is served. The zero value serves everybody.
type Options struct {
	// Base is the path in URLs that the repository has, "" or "/NAME".
	Base string
	// Authorize says what somebody may do, and false for one who is not known.
	// nil: everybody has full access.
	Authorize func(user, token string) (httpstore.Access, bool)
	// Check refuses an object that was damaged on the way: [CheckObject]. nil: no
	// object is refused.
	Check func(name string, data []byte) error
	// MemoryMax bounds the bytes of objects that are being received, if no object
	// alone has more; 0 means 128 MiB.
	MemoryMax int64
	// StallMax ends a request during which the client sends or takes nothing for
	// so long; 0 means two minutes.
	StallMax time.Duration
	// Log gets a line for each request that failed, and at level debug for all;
	// nil discards them.
	Log *slog.Logger
}

// CheckObject verifies an object by its name or its last bytes, without any key
// (spec/repository.md, 2), and refuses what no repository has.
func CheckObject(name string, data []byte) error {
	if err := seal.Scrub(name, data); err != nil && !errors.Is(err, seal.ErrVersion) {
		return err
	}
	return nil
}

// Server serves one repository. It is an http.Handler.
type Server struct {
	opts   Options
	stores map[httpstore.Access]store.Store
	room   *semaphore.Weighted
}

// New returns a server of what st holds. Whoever makes st closes it, after the
// last request.
func New(st store.Store, opts Options) *Server {
	if opts.MemoryMax <= 0 {
		opts.MemoryMax = 128 << 20
	}
	if opts.StallMax <= 0 {
		opts.StallMax = 2 * time.Minute
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{opts: opts, room: semaphore.NewWeighted(opts.MemoryMax), stores: map[httpstore.Access]store.Store{
		httpstore.Full: st, httpstore.Append: AppendOnly(st), httpstore.Read: store.ReadOnly(st),
	}}
}

// request is one that is being answered.
type request struct {
	s      *Server
	w      http.ResponseWriter
	r      *http.Request
	ctl    *http.ResponseController
	user   string
	access httpstore.Access
	st     store.Store // with the rights of who asks
	begun  bool        // some of the answer may be on its way
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := &request{s: s, w: w, r: r, ctl: http.NewResponseController(w)}
	w.Header().Set(httpstore.ServerHeader, strconv.Itoa(httpstore.Version))
	w.Header().Set("Cache-Control", "no-store")
	q.moved()
	access := httpstore.Full
	if s.opts.Authorize != nil {
		user, token, _ := r.BasicAuth()
		known := false
		if access, known = s.opts.Authorize(user, token); !known {
			s.opts.Log.Warn("refused a user who is not known, or has another token", "user", user, "from", r.RemoteAddr)
			w.Header().Set("WWW-Authenticate", `Basic realm="bk"`)
			_ = q.answer(http.StatusUnauthorized, &httpstore.Failure{Error: "user and token are not known"})
			return
		}
		q.user = user
	}
	q.st, q.access = s.stores[access], access
	err := q.route()
	log := s.opts.Log.With("method", r.Method, "path", r.URL.Path, "user", q.user, "from", r.RemoteAddr)
	if err == nil {
		log.Debug("answered")
		return
	}
	if q.begun {
		log.Warn("broken off", "error", err)
		panic(http.ErrAbortHandler) // the client must not take what it has for the whole
	}
	status, f := httpstore.NewFailure(err)
	if status >= 500 {
		log.Warn("failed", "error", err)
	} else {
		log.Debug("refused", "error", err)
	}
	_ = q.answer(status, f) // the client is gone if this fails
}

// route finds what is asked for.
func (q *request) route() error {
	path, ok := strings.CutPrefix(q.r.URL.EscapedPath(), q.s.opts.Base)
	if object, isObject := strings.CutPrefix(path, httpstore.ObjectsPath); ok && isObject {
		name, err := httpstore.UnescapeName(object)
		if err == nil {
			err = store.CheckReadName(name)
		}
		if err != nil {
			return failure(store.ErrName, err)
		}
		switch q.r.Method {
		case http.MethodGet, http.MethodHead:
			return q.read(name)
		case http.MethodPut:
			return q.create(name)
		case http.MethodDelete:
			if err := q.st.Delete(q.r.Context(), name); err != nil {
				return err
			}
			q.w.WriteHeader(http.StatusNoContent)
			return nil
		}
		return q.unknown(http.StatusMethodNotAllowed)
	}
	prefix, isList := strings.CutPrefix(path, httpstore.ListPath)
	switch method := q.r.Method; {
	case !ok:
	case (path == "" || path == "/") && method == http.MethodGet:
		return q.answer(http.StatusOK, &httpstore.Hello{Protocol: httpstore.Version, Access: q.access})
	case path == httpstore.NowPath && method == http.MethodPost:
		now, err := q.st.Now(q.r.Context())
		if err != nil {
			return err
		}
		return q.answer(http.StatusOK, &httpstore.Clock{Now: now.UTC().Format(httpstore.TimeFormat)})
	case isList && method == http.MethodGet:
		prefix, err := httpstore.UnescapeName(prefix)
		if err != nil {
			return failure(store.ErrName, err)
		}
		return q.list(prefix)
	}
	return q.unknown(http.StatusNotFound)
}

// failure is an error of a kind that the client learns, and its cause.
func failure(kind, cause error) error { return &store.Error{Kind: kind, Err: cause} }

// unknown answers what this protocol does not have. There is no kind of failure
// for it, so that nobody takes it for an object that is not there.
func (q *request) unknown(status int) error {
	return q.answer(status, &httpstore.Failure{Kind: "request", Error: "the protocol has no such request"})
}

// answer sends a short JSON text.
func (q *request) answer(status int, what any) error {
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	q.w.Header().Set("Content-Type", "application/json")
	q.w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	q.w.WriteHeader(status)
	q.begun = true
	_, err = q.w.Write(text)
	return err
}

// moved gives the client its time anew.
func (q *request) moved() {
	deadline := time.Now().Add(q.s.opts.StallMax)
	// A writer without deadlines, in a test, is as good.
	_ = q.ctl.SetReadDeadline(deadline)
	_ = q.ctl.SetWriteDeadline(deadline)
}

// windowSize is how much of an object is in memory when it is sent, in bytes.
const windowSize = 256 << 10

// read sends an object, or a range of it.
func (q *request) read(name string) error {
	ctx := q.r.Context()
	info, err := q.st.Stat(ctx, name)
	if err != nil {
		return err
	}
	from, to, status := int64(0), info.Size, http.StatusOK
	if text := q.r.Header.Get("Range"); text != "" && q.r.Method == http.MethodGet {
		var end int64
		if from, end, err = parseRange(text); err != nil {
			return failure(store.ErrName, err)
		}
		if end >= info.Size {
			return io.ErrUnexpectedEOF
		}
		to, status = end+1, http.StatusPartialContent
		q.w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, end, info.Size))
	}
	q.w.Header().Set("Content-Type", "application/octet-stream")
	q.w.Header().Set(httpstore.CreatedHeader, info.Created.UTC().Format(httpstore.TimeFormat))
	q.w.Header().Set("Content-Length", strconv.FormatInt(to-from, 10))
	if q.r.Method == http.MethodHead {
		q.w.WriteHeader(status)
		return nil
	}
	window := make([]byte, min(windowSize, to-from))
	for first := true; from < to || first; first = false {
		part := window[:min(int64(len(window)), to-from)]
		if err := q.st.ReadAt(ctx, name, part, from); err != nil {
			q.clear()
			return err
		}
		if first {
			q.w.WriteHeader(status)
			q.begun = true
		}
		q.moved()
		if _, err := q.w.Write(part); err != nil {
			return err
		}
		from += int64(len(part))
	}
	return nil
}

// clear takes back what an answer was to say of an object.
func (q *request) clear() {
	for _, key := range []string{"Content-Range", httpstore.CreatedHeader} {
		q.w.Header().Del(key)
	}
}

// parseRange takes the one form of a range that the protocol has.
func parseRange(text string) (from, to int64, err error) {
	a, b, ok := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
	from, err1 := strconv.ParseInt(a, 10, 64)
	to, err2 := strconv.ParseInt(b, 10, 64)
	if !ok || err1 != nil || err2 != nil || from < 0 || to < from || !strings.HasPrefix(text, "bytes=") {
		return 0, 0, fmt.Errorf("the range %q is not of the form bytes=FIRST-LAST", text)
	}
	return from, to, nil
}

// create stores an object that came whole.
func (q *request) create(name string) error {
	ctx := q.r.Context()
	if err := store.CheckName(name); err != nil {
		return failure(store.ErrName, err)
	}
	size := q.r.ContentLength
	if size < 0 {
		return failure(store.ErrTooLarge, errors.New("the length of an object must be said before it"))
	}
	if size > seal.ObjectSizeMax {
		return failure(store.ErrTooLarge, fmt.Errorf("an object has at most %d bytes", int64(seal.ObjectSizeMax)))
	}
	// Refused before it is sent, if the client waits for that.
	if q.access == httpstore.Read {
		return q.st.Create(ctx, name)
	}
	if may, ok := q.st.(interface{ MayCreate(name string) error }); ok {
		if err := may.MayCreate(name); err != nil {
			return err
		}
	}
	if _, err := q.st.Stat(ctx, name); err == nil {
		return &store.Error{Op: "create", Name: name, Store: q.st.String(), Kind: store.ErrExists}
	}
	weight := min(size, q.s.opts.MemoryMax)
	if err := q.s.room.Acquire(ctx, weight); err != nil {
		return failure(store.ErrTemporary, err)
	}
	defer q.s.room.Release(weight)
	data := make([]byte, size)
	for have := int64(0); have < size; {
		q.moved()
		n, err := q.r.Body.Read(data[have:])
		if have += int64(n); have < size && err != nil {
			return failure(store.ErrTemporary, fmt.Errorf("the object broke off after %d of %d bytes: %w", have, size, err))
		}
	}
	if q.s.opts.Check != nil {
		if err := q.s.opts.Check(name, data); err != nil {
			return failure(store.ErrTemporary, err)
		}
	}
	if err := q.st.Create(ctx, name, data); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusCreated)
	return nil
}

// list sends a line for each object.
func (q *request) list(prefix string) error {
	q.w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(q.w)
	count := 0
	err := q.st.List(q.r.Context(), prefix, func(info store.Info) error {
		if count++; count%1000 == 1 {
			q.moved()
		}
		q.begun = true
		return lines.Encode(&httpstore.Line{Name: httpstore.EscapeName(info.Name), Size: info.Size, Created: info.Created.UTC().Format(httpstore.TimeFormat)})
	})
	if err != nil && !q.begun {
		return err
	}
	last := &httpstore.Line{End: true}
	if err != nil {
		_, f := httpstore.NewFailure(err)
		last = &httpstore.Line{Error: f}
		q.s.opts.Log.Warn("failed", "path", q.r.URL.Path, "user", q.user, "error", err)
	}
	q.begun = true
	return lines.Encode(last)
}
