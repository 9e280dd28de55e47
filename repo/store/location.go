package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Scheme opens the stores of one kind. rest is the location without the
// scheme and its colon; for the scheme "file" it is a path.
type Scheme struct {
	// Open opens storage that exists already and creates nothing.
	Open func(ctx context.Context, rest string) (Store, error)
	// Create makes new, empty storage. It is nil if this kind cannot.
	Create func(ctx context.Context, rest string) (Store, error)
}

// Schemes has the kinds of storage that a program knows, by scheme. The
// program lists them itself: nothing registers itself by being imported.
type Schemes map[string]Scheme

// Open opens the storage at a location: "/path", "path" or "file:///path" for
// the scheme "file", otherwise "SCHEME:REST". It creates nothing.
func Open(ctx context.Context, location string, schemes Schemes) (Store, error) {
	scheme, rest, err := resolve("open", location, schemes)
	if err != nil {
		return nil, err
	}
	return scheme.Open(ctx, rest)
}

// Create makes new, empty storage at a location and opens it.
func Create(ctx context.Context, location string, schemes Schemes) (Store, error) {
	scheme, rest, err := resolve("create", location, schemes)
	if err != nil {
		return nil, err
	}
	if scheme.Create == nil {
		name, _ := SplitLocation(location)
		return nil, &Error{Op: "create storage", Store: name + ":...", Err: errors.New("storage of this kind cannot be created from here"),
			Fix: "create it by the means of its provider, then open it"}
	}
	return scheme.Create(ctx, rest)
}

// SplitLocation divides a location into its scheme and the rest after the
// colon. A location that does not begin with a letter, then letters, digits,
// '+', '.' or '-', and then a colon is a path, and the scheme is empty. A path
// such as "a:b" can be written "./a:b".
func SplitLocation(location string) (scheme, rest string) {
	before, after, ok := strings.Cut(location, ":")
	if !ok || before == "" {
		return "", location
	}
	for i, c := range []byte(before) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || !('0' <= c && c <= '9' || c == '+' || c == '.' || c == '-')) {
			return "", location
		}
	}
	return strings.ToLower(before), after
}

// resolve finds the scheme of a location. Its messages never have more of a
// location than the scheme and a path, since the rest can contain secrets.
func resolve(op, location string, schemes Schemes) (Scheme, string, error) {
	name, rest := SplitLocation(location)
	if location == "" {
		return Scheme{}, "", &Error{Op: op + " storage", Err: errors.New("no location given"), Fix: "give a path or a URL"}
	}
	if name == "file" {
		path, err := filePath(rest)
		if err != nil {
			return Scheme{}, "", &Error{Op: op + " storage", Store: location, Err: err, Fix: "write file:///absolute/path, or only the path"}
		}
		rest = path
	}
	if name == "" {
		name = "file"
	}
	scheme, ok := schemes[name]
	if !ok {
		known := slices.Sorted(maps.Keys(schemes))
		return Scheme{}, "", &Error{Op: op + " storage", Store: name + ":...",
			Err: fmt.Errorf("no kind of storage is called %q; there are: %s", name, strings.Join(known, ", ")),
			Fix: fmt.Sprintf("use one of these, or write ./%s:... for a path of that name", name)}
	}
	return scheme, rest, nil
}

// filePath decodes what follows "file:" in a URL.
func filePath(rest string) (string, error) {
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		host, _, _ := strings.Cut(after, "/")
		if host != "" && host != "localhost" {
			return "", fmt.Errorf("a file URL cannot name the host %q", host)
		}
		rest = after[len(host):]
	}
	path, err := url.PathUnescape(rest)
	if err != nil {
		return "", err
	}
	if path == "" {
		return "", errors.New("the path is missing")
	}
	return path, nil
}
