package httpstore

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/bk-backup/bk/repo/store"
)

// Options say how a server is spoken to. The zero value is fine.
type Options struct {
	// Token goes with the user's name that the URL has. An empty one is not
	// sent.
	Token string
	// StallMax ends a call during which nothing moves for so long, as a
	// temporary failure; 0 means a minute.
	StallMax time.Duration
	// ConnectionsMax is how many connections are kept open; 0 means 16.
	ConnectionsMax int
}

// Store is a repository's storage behind a server. It is a store.Store.
type Store struct {
	base     string // of the repository, without a slash at its end
	shown    string // the same for people
	user     string
	token    string
	stallMax time.Duration
	client   *http.Client
	access   Access
}

var _ store.Store = (*Store)(nil)

// Open asks the server at a URL, "http://HOST/PATH" or "https://HOST/PATH", for
// a repository. The URL can have a user's name and a token. There need not be any
// object yet.
func Open(ctx context.Context, rawURL string, opts Options) (*Store, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, &store.Error{Op: "open storage", Store: "http:...", Err: errors.New("this is not a URL"), Fix: "write https://HOST[:PORT]/REPOSITORY"}
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, &store.Error{Op: "open storage", Store: u.Redacted(), Err: errors.New("a server's URL has a scheme, http or https, a host, and a path"), Fix: "write https://HOST[:PORT]/REPOSITORY"}
	}
	s := &Store{user: u.User.Username(), token: opts.Token, stallMax: opts.StallMax}
	if token, ok := u.User.Password(); ok {
		s.token = token
	}
	u.User = nil
	s.base = strings.TrimRight(u.String(), "/")
	s.shown = s.base
	if s.stallMax <= 0 {
		s.stallMax = time.Minute
	}
	if opts.ConnectionsMax <= 0 {
		opts.ConnectionsMax = 16
	}
	s.client = &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 20 * time.Second}).DialContext,
			TLSHandshakeTimeout:   20 * time.Second,
			ExpectContinueTimeout: 5 * time.Second,
			MaxIdleConnsPerHost:   opts.ConnectionsMax,
			IdleConnTimeout:       time.Minute,
			DisableCompression:    true,
			// One connection of HTTP/2 would carry all that is read and written
			// at once; several are faster, and one that breaks takes less along.
			TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
		},
		// A redirect could take the token elsewhere, and a PUT become a GET.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if err := s.hello(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// hello makes sure that a server of this protocol answers.
func (s *Store) hello(ctx context.Context) error {
	var hello Hello
	if err := s.message(ctx, call{op: "open", method: http.MethodGet, path: "/"}, &hello); err != nil {
		return err
	}
	if hello.Protocol != Version {
		return s.fail("open", "", nil, fmt.Errorf("the server speaks version %d of the protocol, this program version %d", hello.Protocol, Version), "use versions of bk on both sides that fit")
	}
	s.access = hello.Access
	return nil
}

// Access returns what the server said that may be done.
func (s *Store) Access() Access { return s.access }

// String returns the URL, without user and token.
func (s *Store) String() string { return s.shown }

// Close ends the connections. The server notices nothing else.
func (s *Store) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

func (s *Store) fail(op, name string, kind, err error, fix string) error {
	return &store.Error{Op: op, Name: name, Store: s.shown, Kind: kind, Err: err, Fix: fix}
}

// ReadAt fills p from offset off of an object.
func (s *Store) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if err := store.CheckReadName(name); err != nil {
		return s.fail("read", name, nil, err, "")
	}
	if off < 0 {
		return s.fail("read", name, nil, fmt.Errorf("the offset %d is negative", off), "")
	}
	if len(p) == 0 || off+int64(len(p)) < 0 {
		info, err := s.stat(ctx, "read", name)
		if err == nil && (len(p) > 0 || info.Size < off) {
			err = s.fail("read", name, nil, io.ErrUnexpectedEOF, "")
		}
		return err
	}
	c := call{op: "read", name: name, method: http.MethodGet, path: ObjectsPath + EscapeName(name), want: http.StatusPartialContent,
		header: http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1)}}}
	return s.do(ctx, c, func(resp *http.Response) error {
		if resp.ContentLength >= 0 && resp.ContentLength < int64(len(p)) {
			return io.ErrUnexpectedEOF
		}
		return readFull(resp.Body, p)
	})
}

// readFull tells a connection that broke from an object that is short.
func readFull(r io.Reader, p []byte) error {
	if n, err := io.ReadFull(r, p); err != nil {
		return &cutOff{fmt.Errorf("the answer broke off after %d of %d bytes: %w", n, len(p), err)}
	}
	return nil
}

// cutOff is an answer that did not come whole. It is not io.ErrUnexpectedEOF,
// which says something about an object.
type cutOff struct{ err error }

func (e *cutOff) Error() string { return e.err.Error() }

// Get returns a whole object.
func (s *Store) Get(ctx context.Context, name string, sizeMax int64) (data []byte, err error) {
	if err := store.CheckReadName(name); err != nil {
		return nil, s.fail("read", name, nil, err, "")
	}
	c := call{op: "read", name: name, method: http.MethodGet, path: ObjectsPath + EscapeName(name)}
	err = s.do(ctx, c, func(resp *http.Response) error {
		size := resp.ContentLength
		switch {
		case size < 0:
			return errors.New("the answer does not say how long the object is")
		case size > sizeMax:
			return fmt.Errorf("%w: it has %d bytes, and at most %d are expected", store.ErrTooLarge, size, sizeMax)
		}
		data = make([]byte, size)
		return readFull(resp.Body, data)
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Stat describes an object without reading it.
func (s *Store) Stat(ctx context.Context, name string) (store.Info, error) {
	if err := store.CheckReadName(name); err != nil {
		return store.Info{}, s.fail("stat", name, nil, err, "")
	}
	return s.stat(ctx, "stat", name)
}

func (s *Store) stat(ctx context.Context, op, name string) (info store.Info, err error) {
	c := call{op: op, name: name, method: http.MethodHead, path: ObjectsPath + EscapeName(name)}
	err = s.do(ctx, c, func(resp *http.Response) error {
		created, err := time.Parse(TimeFormat, resp.Header.Get(CreatedHeader))
		if err != nil || resp.ContentLength < 0 {
			return errors.New("the answer does not describe the object")
		}
		info = store.Info{Name: name, Size: resp.ContentLength, Created: created.UTC()}
		return nil
	})
	return info, err
}

// Create stores an object under a name that does not exist yet.
func (s *Store) Create(ctx context.Context, name string, data ...[]byte) error {
	if err := store.CheckName(name); err != nil {
		return s.fail("create", name, nil, err, "")
	}
	body := newUpload(data)
	defer body.take() // what was given is not looked at after the call
	c := call{op: "create", name: name, method: http.MethodPut, path: ObjectsPath + EscapeName(name), want: http.StatusCreated, body: body}
	return s.do(ctx, c, nil)
}

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := store.CheckReadName(name); err != nil {
		return s.fail("delete", name, nil, err, "")
	}
	return s.do(ctx, call{op: "delete", name: name, method: http.MethodDelete, path: ObjectsPath + EscapeName(name), want: http.StatusNoContent}, nil)
}

// Now returns the time by the storage's clock.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	var clock Clock
	if err := s.message(ctx, call{op: "read clock of", method: http.MethodPost, path: NowPath}, &clock); err != nil {
		return time.Time{}, err
	}
	now, err := time.Parse(TimeFormat, clock.Now)
	if err != nil {
		return time.Time{}, s.fail("read clock of", "", nil, fmt.Errorf("the answer %q is no time", clock.Now), "")
	}
	return now.UTC(), nil
}

// call is a request.
type call struct {
	op, name     string // for errors
	method, path string
	header       http.Header
	body         *upload
	want         int // the status that means success; 0 means 200
}

// expectFrom is the size in bytes from which an upload asks first: what is
// refused need not be sent.
const expectFrom = 64 << 10

// do sends a request and has the answer read, if it is the one that is wanted.
func (s *Store) do(ctx context.Context, c call, read func(*http.Response) error) error {
	moving, stop := watch(ctx, s.stallMax)
	defer stop()
	// A nil *upload must not become a reader.
	var body io.Reader
	if c.body != nil {
		c.body.moved = moving.moved
		body = c.body
	}
	req, err := http.NewRequestWithContext(moving.ctx, c.method, s.base+c.path, body)
	if err != nil {
		return s.fail(c.op, c.name, nil, err, "")
	}
	for key, values := range c.header {
		req.Header[key] = values
	}
	if c.body != nil {
		if req.ContentLength = c.body.size; c.body.size == 0 {
			req.Body = http.NoBody
		}
		if c.body.size >= expectFrom {
			req.Header.Set("Expect", "100-continue")
		}
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	if s.user != "" || s.token != "" {
		req.SetBasicAuth(s.user, s.token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return s.failed(moving, c, err)
	}
	defer resp.Body.Close()
	resp.Body = &movingBody{resp.Body, moving}
	want := c.want
	if want == 0 {
		want = http.StatusOK
	}
	if resp.StatusCode != want || resp.Header.Get(ServerHeader) == "" {
		return s.refused(c, resp)
	}
	if read != nil {
		if err := read(resp); err != nil {
			return s.failed(moving, c, err)
		}
	}
	// What is left is read, so that the connection can be used again.
	_, _ = io.CopyN(io.Discard, resp.Body, MessageSizeMax)
	return nil
}

// failed is the error of a call of which no answer came, or not all of it.
func (s *Store) failed(m *moving, c call, err error) error {
	var fromUser *userError
	if errors.As(err, &fromUser) {
		return fromUser.err
	}
	var cut *cutOff
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err // the rest of it is in our words already
	}
	switch {
	case m.caller.Err() != nil:
		return s.fail(c.op, c.name, nil, context.Cause(m.caller), "")
	case errors.Is(context.Cause(m.ctx), errStalled):
		return s.fail(c.op, c.name, store.ErrTemporary, fmt.Errorf("nothing moved for %v", s.stallMax), "look whether the server and the network are well")
	case urlErr != nil && !certain(err), errors.As(err, &cut):
		return s.fail(c.op, c.name, store.ErrTemporary, err, "look whether the server runs and can be reached")
	}
	return s.fail(c.op, c.name, nil, err, "")
}

// certain reports whether trying again gives the same error.
func certain(err error) bool {
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	return errors.As(err, &verify) || errors.As(err, &record)
}

// refused is the error of a call that was answered otherwise than it was meant.
func (s *Store) refused(c call, resp *http.Response) error {
	if resp.Header.Get(ServerHeader) == "" {
		kind := error(nil)
		if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusRequestTimeout {
			kind = store.ErrTemporary
		}
		return s.fail(c.op, c.name, kind, fmt.Errorf("the answer %q does not come from a server of bk", resp.Status), "check the URL, and what stands between here and bk-serve")
	}
	var f Failure
	if text, err := io.ReadAll(io.LimitReader(resp.Body, MessageSizeMax)); err == nil {
		_ = json.Unmarshal(text, &f) // without it there is the status
	}
	if c.method == http.MethodHead { // an answer without a body
		f.Kind = statusKind(resp.StatusCode)
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return s.fail(c.op, c.name, nil, errors.New("the server does not know this user and token"), "put the user's name into the URL, https://NAME@HOST/..., and the token into BK_SERVER_TOKEN or BK_SERVER_TOKEN_FILE")
	case http.StatusContinue, http.StatusOK:
		f.Error = "the answer " + strconv.Quote(resp.Status) + " does not fit the question"
	}
	kind := kindError(f.Kind)
	if kind == nil && f.Error == "" {
		f.Error = "the server answers " + strconv.Quote(resp.Status)
	}
	return s.failure(c, &f)
}

// failure turns what a server said into an error.
func (s *Store) failure(c call, f *Failure) error {
	var cause error
	if f.Error != "" {
		cause = errors.New(f.Error)
	}
	kind, fix := kindError(f.Kind), ""
	if errors.Is(kind, io.ErrUnexpectedEOF) {
		kind, cause = nil, io.ErrUnexpectedEOF
	}
	if errors.Is(kind, store.ErrReadOnly) {
		fix = "whoever runs the server can give a token with more rights, or do it there"
	}
	return s.fail(c.op, c.name, kind, cause, fix)
}

// message sends a request that is answered by a short JSON text.
func (s *Store) message(ctx context.Context, c call, into any) error {
	return s.do(ctx, c, func(resp *http.Response) error {
		text, err := io.ReadAll(io.LimitReader(resp.Body, MessageSizeMax))
		if err != nil {
			return &cutOff{err}
		}
		if err := json.Unmarshal(bytes.TrimSpace(text), into); err != nil {
			return fmt.Errorf("the answer is not what it should be: %w", err)
		}
		return nil
	})
}
