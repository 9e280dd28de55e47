package serve

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSameMachine has a server without users be asked for by other names than
// those of the machine itself, as a page in a browser can have it.
func TestSameMachine(t *testing.T) {
	handler := sameMachine(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for host, want := range map[string]int{
		"localhost": 200, "localhost:8430": 200, "127.0.0.1:8430": 200, "127.1.2.3": 200, "[::1]:8430": 200, "[::1]": 200,
		"evil.example": 403, "evil.example:8430": 403, "localhost.evil.example": 403, "10.0.0.1:8430": 403, "": 403,
	} {
		r := httptest.NewRequest(http.MethodDelete, "http://x/objects/config/0", nil)
		r.Host = host
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d, want %d", host, w.Code, want)
		}
	}
}

// TestPlaces reads what repositories are served.
func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		want []place // nil: an error
	}{
		{[]string{dir}, []place{{"", dir}}},
		{[]string{"a=" + dir, "b=" + dir + "/b"}, []place{{"a", dir}, {"b", dir + "/b"}}},
		{[]string{dir + "/x=y"}, []place{{"", dir + "/x=y"}}},
		{nil, nil}, {[]string{dir, dir}, nil}, {[]string{"a=" + dir, "a=" + dir}, nil}, {[]string{"A=" + dir}, nil}, {[]string{"a="}, nil}, {[]string{"a=serve.go"}, nil},
	} {
		got, err := places(c.args)
		if (err != nil) != (c.want == nil) {
			t.Errorf("%q: %v", c.args, err)
			continue
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(place{})); diff != "" {
			t.Errorf("%q: %s", c.args, diff)
		}
	}
}
