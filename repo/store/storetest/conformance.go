// Package storetest proves stores and what is built upon them. [Conformance] is
// the suite that every implementation of store.Store passes; [Faulty] makes
// calls fail; [Crash] stops the storage in the middle of a change, and shows
// what is left. Start reading at Conformance. The package imports store and
// store/mem; only tests may import it.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/repo/store"
)

// Conformance checks that the stores which open returns, each of them empty,
// do what store.Store promises. open closes them by t.Cleanup if need be.
func Conformance(t *testing.T, open func(t *testing.T) store.Store) {
	tests := []struct {
		name string
		run  func(*testing.T, store.Store)
	}{
		{"Content", testContent},
		{"Create", testCreate},
		{"Names", testNames},
		{"ReadAt", testReadAt},
		{"Get", testGet},
		{"Absent", testAbsent},
		{"List", testList},
		{"ListStops", testListStops},
		{"ListUsesStore", testListUsesStore},
		{"ListIsLong", testListIsLong},
		{"Delete", testDelete},
		{"Directories", testDirectories},
		{"Clock", testClock},
		{"Context", testContext},
		{"CreateRace", testCreateRace},
		{"NoPartialObject", testNoPartialObject},
		{"Concurrent", testConcurrent},
		{"Model", testModel},
		{"String", testString},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

func testContent(t *testing.T, s store.Store) {
	ctx := t.Context()
	for _, size := range []int{0, 1, 4095, 64 << 10, 3<<20 + 1} {
		name := fmt.Sprintf("packs/%02x/%d", size%251, size)
		data := random(size)
		given := bytes.Clone(data)
		must(t, s.Create(ctx, name, given))
		clear(given)
		got, err := s.Get(ctx, name, int64(size))
		must(t, err)
		if got == nil || !bytes.Equal(got, data) {
			t.Errorf("%s: the content differs after Create", name)
		}
		clear(got)
		got, err = s.Get(ctx, name, int64(size))
		must(t, err)
		if !bytes.Equal(got, data) {
			t.Errorf("%s: whoever gets an object can change what is stored", name)
		}
		info, err := s.Stat(ctx, name)
		must(t, err)
		if info.Name != name || info.Size != int64(size) {
			t.Errorf("Stat(%s) = %+v, want size %d", name, info, size)
		}
	}
}

func testCreate(t *testing.T, s store.Store) {
	ctx := t.Context()
	must(t, s.Create(ctx, "config/0", []byte("first")))
	for _, data := range []string{"second", "first", ""} {
		err := s.Create(ctx, "config/0", []byte(data))
		want(t, "Create of what exists", err, store.ErrExists)
		var typed *store.Error
		if !errors.As(err, &typed) || typed.Op != "create" || typed.Name != "config/0" {
			t.Errorf("Create fails with %#v, want a *store.Error that names operation and object", err)
		}
	}
	content(t, s, "config/0", "first")
	must(t, s.Create(ctx, "config/1", nil))
	content(t, s, "config/1", "")
	must(t, s.Create(ctx, "config/2", []byte("in "), nil, []byte("par"), []byte("ts")))
	content(t, s, "config/2", "in parts")
	want(t, "Create of what exists, in parts", s.Create(ctx, "config/2", []byte("in parts"), []byte("!")), store.ErrExists)
}

func testNames(t *testing.T, s store.Store) {
	ctx := t.Context()
	valid := []string{
		"a", "0", "-", "_", "...", ".a", "a.b", "e/b/c/d/e/f/g/h", "a-b", "lock.tmp", "packs/tmp/x", "tmpx",
		strings.Repeat("n", 255), "long/" + strings.Repeat("m/", 124) + "mm",
	}
	for _, name := range valid {
		must(t, s.Create(ctx, name, []byte(name)))
	}
	for _, name := range valid {
		content(t, s, name, name)
	}
	invalid := []string{
		"", "/", "/b", "b/", "b//c", ".", "..", "./b", "../b", "b/../c", "b/.", "b/..", "A", "b c", "b\\c", "b\x00",
		"\xff", "ü", "b\n", "b:c", "tmp", "tmp/b", strings.Repeat("n", 256),
	}
	for _, name := range invalid {
		want(t, fmt.Sprintf("Create(%q)", name), s.Create(ctx, name, nil), store.ErrName)
	}
	for _, name := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../a", "./a", "a\x00"} {
		_, err := s.Stat(ctx, name)
		want(t, fmt.Sprintf("Stat(%q)", name), err, store.ErrName)
		_, err = s.Get(ctx, name, 10)
		want(t, fmt.Sprintf("Get(%q)", name), err, store.ErrName)
		want(t, fmt.Sprintf("ReadAt(%q)", name), s.ReadAt(ctx, name, nil, 0), store.ErrName)
		want(t, fmt.Sprintf("Delete(%q)", name), s.Delete(ctx, name), store.ErrName)
	}
	slices.Sort(valid)
	if diff := cmp.Diff(valid, list(t, s, "")); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func testReadAt(t *testing.T, s store.Store) {
	ctx := t.Context()
	must(t, s.Create(ctx, "o", []byte("0123456789")))
	for _, test := range []struct {
		off  int64
		size int
		want string // or an error
		err  error
	}{
		{0, 10, "0123456789", nil},
		{0, 1, "0", nil},
		{3, 4, "3456", nil},
		{9, 1, "9", nil},
		{0, 0, "", nil},
		{10, 0, "", nil},
		{11, 0, "", io.ErrUnexpectedEOF},
		{0, 11, "", io.ErrUnexpectedEOF},
		{9, 2, "", io.ErrUnexpectedEOF},
		{10, 1, "", io.ErrUnexpectedEOF},
		{1 << 40, 1, "", io.ErrUnexpectedEOF},
		{1<<63 - 1, 5, "", io.ErrUnexpectedEOF},
	} {
		p := make([]byte, test.size)
		err := s.ReadAt(ctx, "o", p, test.off)
		if !errors.Is(err, test.err) || err == nil && string(p) != test.want {
			t.Errorf("ReadAt(%d bytes from %d) = %q, %v; want %q, %v", test.size, test.off, p, err, test.want, test.err)
		}
	}
	if err := s.ReadAt(ctx, "o", make([]byte, 1), -1); err == nil {
		t.Error("ReadAt accepts a negative offset")
	}
}

func testGet(t *testing.T, s store.Store) {
	must(t, s.Create(t.Context(), "o", []byte("0123456789")))
	for _, sizeMax := range []int64{10, 11, 1 << 62} {
		if _, err := s.Get(t.Context(), "o", sizeMax); err != nil {
			t.Errorf("Get with at most %d bytes: %v", sizeMax, err)
		}
	}
	for _, sizeMax := range []int64{9, 0, -1} {
		_, err := s.Get(t.Context(), "o", sizeMax)
		want(t, fmt.Sprintf("Get with at most %d bytes", sizeMax), err, store.ErrTooLarge)
	}
}

func testAbsent(t *testing.T, s store.Store) {
	ctx := t.Context()
	must(t, s.Create(ctx, "a/b", nil))
	// Names that can be read but not created are merely absent.
	for _, name := range []string{"absent", "absent/b", "a", "a/c", "a/b/c", "README", "a/B c", "tmp/x", strings.Repeat("n", 4095)} {
		_, err := s.Stat(ctx, name)
		want(t, "Stat of what is absent", err, store.ErrNotFound)
		_, err = s.Get(ctx, name, 10)
		want(t, "Get of what is absent", err, store.ErrNotFound)
		want(t, "ReadAt of what is absent", s.ReadAt(ctx, name, make([]byte, 1), 0), store.ErrNotFound)
		want(t, "ReadAt of nothing of what is absent", s.ReadAt(ctx, name, nil, 0), store.ErrNotFound)
		want(t, "Delete of what is absent", s.Delete(ctx, name), store.ErrNotFound)
	}
	for _, prefix := range []string{"absent/", "absent/b/", "a/b/", "a/b/c/", "tmp/"} {
		if names := list(t, s, prefix); names != nil {
			t.Errorf("List(%s) = %q, want nothing", prefix, names)
		}
	}
}

func testList(t *testing.T, s store.Store) {
	ctx := t.Context()
	// A file system gives directories back in another order than their names.
	all := []string{"a-b", "a.b", "a/b", "a/b.c", "a/c/d", "a/c.d", "a/c-d/e", "a0", "ab/c", "b", "b.c/d", "packs/00/x", "packs/ff/y"}
	for _, name := range all {
		must(t, s.Create(ctx, name, []byte(name)))
	}
	slices.Sort(all)
	for _, prefix := range []string{"", "a/", "a/c/", "ab/", "b.c/", "packs/", "packs/ff/", "a/b/", "b/", "c/"} {
		var want []string
		for _, name := range all {
			if strings.HasPrefix(name, prefix) {
				want = append(want, name)
			}
		}
		if diff := cmp.Diff(want, list(t, s, prefix)); diff != "" {
			t.Errorf("List(%q) (-want +got):\n%s", prefix, diff)
		}
	}
	must(t, s.List(ctx, "", func(info store.Info) error {
		stat, err := s.Stat(ctx, info.Name)
		must(t, err)
		if info.Size != int64(len(info.Name)) || !info.Created.Equal(stat.Created) || info.Size != stat.Size {
			t.Errorf("List says %+v and Stat %+v", info, stat)
		}
		return nil
	}))
	for _, prefix := range []string{"a", "a/c", "/", "//", "./", "../", "a/../", "a//", "/a/"} {
		err := s.List(ctx, prefix, func(store.Info) error { return nil })
		want(t, fmt.Sprintf("List(%q)", prefix), err, store.ErrName)
	}
}

func testListStops(t *testing.T, s store.Store) {
	for _, name := range []string{"a", "b/c", "b/d", "e"} {
		must(t, s.Create(t.Context(), name, nil))
	}
	stop := errors.New("stop")
	for stopAfter := 1; stopAfter <= 4; stopAfter++ {
		seen := 0
		err := s.List(t.Context(), "", func(store.Info) error {
			if seen++; seen == stopAfter {
				return stop
			}
			return nil
		})
		if err != stop || seen != stopAfter {
			t.Errorf("fn failed at object %d: List returned %v after %d objects", stopAfter, err, seen)
		}
	}
}

func testListUsesStore(t *testing.T, s store.Store) {
	ctx := t.Context()
	for i := range 20 {
		must(t, s.Create(ctx, fmt.Sprintf("old/%02d", i), nil))
	}
	seen := map[string]bool{}
	must(t, s.List(ctx, "", func(info store.Info) error {
		if seen[info.Name] {
			t.Errorf("%s is listed twice", info.Name)
		}
		seen[info.Name] = true
		if strings.HasPrefix(info.Name, "new") {
			return nil
		}
		if err := s.Create(ctx, "new"+strings.TrimPrefix(info.Name, "old"), nil); err != nil {
			return err
		}
		return s.Delete(ctx, info.Name)
	}))
	if n := len(list(t, s, "old/")); n != 0 {
		t.Errorf("%d objects were not listed that were there all the time", n)
	}
	if n := len(list(t, s, "new/")); n != 20 {
		t.Errorf("%d objects were created, want 20", n)
	}
}

// testListIsLong has more objects than an implementation may take at a time.
func testListIsLong(t *testing.T, s store.Store) {
	var names []string
	for i := range 600 {
		names = append(names, fmt.Sprintf("index/%04d", i))
	}
	parallel(8, func(worker int) {
		for i := worker; i < len(names); i += 8 {
			if err := s.Create(t.Context(), names[i], nil); err != nil {
				t.Error(err)
			}
		}
	})
	if diff := cmp.Diff(names, list(t, s, "index/")); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func testDelete(t *testing.T, s store.Store) {
	ctx := t.Context()
	must(t, s.Create(ctx, "d/o", []byte("content")))
	must(t, s.Create(ctx, "d/p", []byte("other")))
	must(t, s.ReadAt(ctx, "d/o", make([]byte, 3), 0))
	must(t, s.Delete(ctx, "d/o"))
	want(t, "ReadAt after Delete", s.ReadAt(ctx, "d/o", make([]byte, 3), 0), store.ErrNotFound)
	want(t, "Delete again", s.Delete(ctx, "d/o"), store.ErrNotFound)
	if diff := cmp.Diff([]string{"d/p"}, list(t, s, "")); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	must(t, s.Create(ctx, "d/o", []byte("another")))
	content(t, s, "d/o", "another")
	must(t, s.Delete(ctx, "d/o"))
	must(t, s.Delete(ctx, "d/p"))
	want(t, "Delete of a directory", s.Delete(ctx, "d"), store.ErrNotFound)
	must(t, s.Create(ctx, "d/q", nil))
}

// testDirectories checks that a name which makes another one a directory does
// no harm, whether the store accepts or refuses it.
func testDirectories(t *testing.T, s store.Store) {
	ctx := t.Context()
	must(t, s.Create(ctx, "a", []byte("a")))
	must(t, s.Create(ctx, "b/c/d", []byte("d")))
	for _, name := range []string{"a/b", "a/b/c", "b", "b/c"} {
		err := s.Create(ctx, name, []byte("new"))
		if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrTemporary) {
			t.Errorf("Create(%s) misleads: %v", name, err)
		}
		if err == nil {
			content(t, s, name, "new")
		}
	}
	content(t, s, "a", "a")
	content(t, s, "b/c/d", "d")
}

func testClock(t *testing.T, s store.Store) {
	ctx := t.Context()
	before, err := s.Now(ctx)
	must(t, err)
	must(t, s.Create(ctx, "o", nil))
	info, err := s.Stat(ctx, "o")
	must(t, err)
	after, err := s.Now(ctx)
	must(t, err)
	// A second is the coarsest resolution that is allowed.
	if info.Created.Before(before.Add(-time.Second)) || info.Created.After(after.Add(time.Second)) {
		t.Errorf("created at %v, though it was between %v and %v", info.Created, before, after)
	}
	for _, moment := range []time.Time{before, info.Created} {
		if moment.Location() != time.UTC {
			t.Errorf("%v is not in UTC", moment)
		}
	}
	if names := list(t, s, ""); len(names) != 1 {
		t.Errorf("reading the clock left objects: %q", names)
	}
}

func testContext(t *testing.T, s store.Store) {
	must(t, s.Create(t.Context(), "o", []byte("content")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, getErr := s.Get(ctx, "o", 10)
	_, statErr := s.Stat(ctx, "o")
	_, nowErr := s.Now(ctx)
	for call, err := range map[string]error{
		"Create": s.Create(ctx, "p", nil),
		"ReadAt": s.ReadAt(ctx, "o", make([]byte, 1), 0),
		"Get":    getErr,
		"Stat":   statErr,
		"List":   s.List(ctx, "", func(store.Info) error { return nil }),
		"Delete": s.Delete(ctx, "o"),
		"Now":    nowErr,
	} {
		want(t, call+" after the context ended", err, context.Canceled)
	}
	if diff := cmp.Diff([]string{"o"}, list(t, s, "")); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	must(t, s.Create(t.Context(), "q", nil))
	ctx, cancel = context.WithCancel(t.Context())
	err := s.List(ctx, "", func(store.Info) error { cancel(); return nil })
	want(t, "List whose context ends midway", err, context.Canceled)
}

func testCreateRace(t *testing.T, s store.Store) {
	for try := range 10 {
		name := fmt.Sprintf("slot/%d", try)
		errs := make([]error, 8)
		start := make(chan struct{})
		go close(start)
		parallel(len(errs), func(i int) {
			<-start
			errs[i] = s.Create(t.Context(), name, bytes.Repeat([]byte{byte(i)}, 1000))
		})
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Fatalf("%s: creators %d and %d both succeeded", name, winner, i)
			default:
				want(t, "Create by one who came second", err, store.ErrExists)
			}
		}
		if winner < 0 {
			t.Fatalf("%s: nobody succeeded: %v", name, errs)
		}
		content(t, s, name, strings.Repeat(string([]byte{byte(winner)}), 1000))
	}
}

func testNoPartialObject(t *testing.T, s store.Store) {
	data := random(1 << 20)
	for try := range 5 {
		name := fmt.Sprintf("packs/%d", try)
		done := make(chan error)
		go func() { done <- s.Create(t.Context(), name, data) }()
		for created := false; !created; {
			select {
			case err := <-done:
				must(t, err)
				created = true
			default:
			}
			err := s.List(t.Context(), "packs/", func(info store.Info) error {
				if info.Size != int64(len(data)) {
					t.Errorf("List shows %d bytes of %s", info.Size, info.Name)
				}
				return nil
			})
			must(t, err)
			got, err := s.Get(t.Context(), name, 1<<20)
			if err == nil && !bytes.Equal(got, data) || err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Fatalf("Get during Create returns %d bytes, %v", len(got), err)
			}
		}
	}
}

// testConcurrent has many readers of more objects than a store may keep open,
// while others create and delete.
func testConcurrent(t *testing.T, s store.Store) {
	ctx := t.Context()
	const objects = 100
	name := func(i int) string { return fmt.Sprintf("packs/%02x/%d", i%7, i) }
	parallel(8, func(worker int) {
		for i := worker; i < objects; i += 8 {
			if err := s.Create(ctx, name(i), bytes.Repeat([]byte{byte(i)}, 100+i)); err != nil {
				t.Error(err)
			}
		}
	})
	parallel(8, func(worker int) {
		source := rand.New(rand.NewPCG(1, uint64(worker)))
		for range 300 {
			i := source.IntN(objects)
			p := make([]byte, 1+source.IntN(100))
			if err := s.ReadAt(ctx, name(i), p, int64(source.IntN(i+1))); err != nil {
				t.Error(err)
			} else if n := bytes.Count(p, []byte{byte(i)}); n != len(p) {
				t.Errorf("%s: %d of %d bytes are wrong", name(i), len(p)-n, len(p))
			}
		}
		own := fmt.Sprintf("own/%d", worker)
		for k := range 5 {
			data := []byte{byte(worker), byte(k)}
			if err := s.Create(ctx, own, data); err != nil {
				t.Error(err)
			}
			p := make([]byte, 2)
			if err := s.ReadAt(ctx, own, p, 0); err != nil || !bytes.Equal(p, data) {
				t.Errorf("%s holds %x, %v; want %x", own, p, err, data)
			}
			if err := s.Delete(ctx, own); err != nil {
				t.Error(err)
			}
		}
	})
}

func testString(t *testing.T, s store.Store) {
	if text := s.String(); text == "" || strings.ContainsAny(text, "\n\x00") {
		t.Errorf("String() = %q, which is no use in a message", text)
	}
	must(t, s.Close())
	if err := s.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

// testModel makes random calls, the same in every run, and compares the results
// with those of a map.
func testModel(t *testing.T, s store.Store) {
	ctx := t.Context()
	model := map[string]string{}
	names := []string{"a", "b/a", "b/b", "b/c.d", "b/c/d", "c-d", "c/d"}
	source := rand.New(rand.NewPCG(1, 2))
	kinds := []error{nil, store.ErrExists, store.ErrNotFound, store.ErrTooLarge, io.ErrUnexpectedEOF}
	for step := range 800 {
		name := names[source.IntN(len(names))]
		held, there := model[name]
		wanted, err, call := error(nil), error(nil), ""
		if !there {
			wanted = store.ErrNotFound
		}
		switch source.IntN(6) {
		case 0:
			data := strings.Repeat(string(rune('a'+step%26)), source.IntN(50))
			call, err = "Create", s.Create(ctx, name, []byte(data))
			if wanted = store.ErrExists; !there {
				model[name], wanted = data, nil
			}
		case 1:
			call, err = "Delete", s.Delete(ctx, name)
			delete(model, name)
		case 2:
			off, p := source.IntN(60), make([]byte, source.IntN(20))
			call, err = "ReadAt", s.ReadAt(ctx, name, p, int64(off))
			if there && off+len(p) > len(held) {
				wanted = io.ErrUnexpectedEOF
			} else if there && string(p) != held[off:off+len(p)] {
				t.Fatalf("step %d: ReadAt(%s) reads %q", step, name, p)
			}
		case 3:
			sizeMax := source.IntN(60)
			var data []byte
			data, err = s.Get(ctx, name, int64(sizeMax))
			call = "Get"
			if sizeMax < len(held) {
				wanted = store.ErrTooLarge
			} else if string(data) != held {
				t.Fatalf("step %d: Get(%s) returns %q, want %q", step, name, data, held)
			}
		case 4:
			var info store.Info
			info, err = s.Stat(ctx, name)
			call = "Stat"
			if info.Size != int64(len(held)) {
				t.Fatalf("step %d: Stat(%s) says %d bytes, want %d", step, name, info.Size, len(held))
			}
		case 5:
			listed := map[string]int64{}
			err = s.List(ctx, "", func(info store.Info) error { listed[info.Name] = info.Size; return nil })
			call, wanted = "List", nil
			sizes := map[string]int64{}
			for name, data := range model {
				sizes[name] = int64(len(data))
			}
			if diff := cmp.Diff(sizes, listed); diff != "" {
				t.Fatalf("step %d: List (-want +got):\n%s", step, diff)
			}
		}
		got := slices.IndexFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
		if got < 0 || kinds[got] != wanted {
			t.Fatalf("step %d: %s(%s): %v, want %v", step, call, name, err, wanted)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, call string, err, wanted error) {
	t.Helper()
	if !errors.Is(err, wanted) {
		t.Errorf("%s: %v, want %v", call, err, wanted)
	}
}

func content(t *testing.T, s store.Store, name, wanted string) {
	t.Helper()
	got, err := s.Get(t.Context(), name, 1<<20)
	if err != nil || string(got) != wanted {
		t.Errorf("%s holds %.50q, %v; want %.50q", name, got, err, wanted)
	}
}

func list(t *testing.T, s store.Store, prefix string) []string {
	t.Helper()
	var names []string
	must(t, s.List(t.Context(), prefix, func(info store.Info) error {
		names = append(names, info.Name)
		return nil
	}))
	return names
}

// parallel runs n calls at once and returns after the last.
func parallel(n int, call func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { call(i) })
	}
	wg.Wait()
}

// random returns bytes that are the same in every run.
func random(size int) []byte {
	var seed [32]byte
	data := make([]byte, size)
	rand.NewChaCha8(seed).Read(data)
	return data
}
