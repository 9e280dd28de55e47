//go:build linux

package disk

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

func TestRestoreRefusesPaths(t *testing.T) {
	for _, p := range []string{"..", "../x", "a/../../x", "/etc/x", "a//b", "a/", ".", "a/./b", "a\x00b", strings.Repeat("a", format.NameSizeMax+1)} {
		for name, s := range map[string]*script{
			"file":    newScript().snapshot("a", "").file(p, text("x")),
			"dir":     newScript().snapshot("a", "").dir(p, 0o755),
			"symlink": newScript().snapshot("a", "").symlink(p, "x"),
			"remove":  newScript().snapshot("a", "").remove(p),
		} {
			dir := filepath.Join(tempDir(t), "target")
			_, err := restore(t, dir, RestoreOptions{}, s)
			if class := format.ClassOf(err); class != format.ClassPath && class != format.ClassLimit {
				t.Errorf("%s at %q: %v", name, p, err)
			}
			if got := tree(t, filepath.Dir(dir)); len(got) != 1 {
				t.Errorf("%s at %q made %v", name, p, got)
			}
		}
	}
}

func TestRestoreRefusesRecords(t *testing.T) {
	outside := tempDir(t)
	begin := func() *script { return newScript().snapshot("a", "") }
	data := func() format.Record { return chunk("x").rec() }
	for name, c := range map[string]struct {
		s     *script
		class format.Class
	}{
		"below a symlink":         {begin().symlink("a", outside).file("a/x", text("x")), format.ClassTree},
		"below a file":            {begin().file("a", text("a")).dir("a/x", 0o755), format.ClassTree},
		"below a symlink, later":  {newScript().snapshot("a", "", unsorted).symlink("a", outside).dir("b", 0o755).file("a/x", text("x")), format.ClassTree},
		"below a parent's link":   {begin().symlink("a", outside).commit().snapshot("b", "a").file("a/x", text("x")), format.ClassTree},
		"deep below a link":       {begin().symlink("a", outside).commit().snapshot("b", "a").file("a/b/c/x", text("x")), format.ClassTree},
		"out of order":            {begin().file("b", nil).file("a", nil), format.ClassOrder},
		"twice":                   {begin().file("b", nil).file("b", nil), format.ClassOrder},
		"the root is a file":      {begin().file("", nil), format.ClassTree},
		"content without a file":  {begin().add(data()), format.ClassGrammar},
		"an entry within a file":  {begin().object("a", format.TypeFile, 0o644).dir("b", 0o755), format.ClassGrammar},
		"content of a directory":  {begin().dir("a", 0o755).add(data()), format.ClassGrammar},
		"no header":               {&script{recs: []format.Record{&format.Snapshot{}}}, format.ClassGrammar},
		"eof with another size":   {begin().object("a", format.TypeFile, 0o644).add(data(), &format.EOF{Size: 2}), format.ClassCount},
		"a chunk of no bytes":     {begin().object("a", format.TypeFile, 0o644).add(&format.Data{}), format.ClassLimit},
		"a chunk that is too big": {begin().object("a", format.TypeFile, 0o644).add(&format.Data{Size: format.ChunkSizeMax + 1}), format.ClassLimit},
		"a reference to nothing":  {begin().object("a", format.TypeFile, 0o644).add(&format.Refs{Chunks: []format.ChunkRef{{}}}), format.ClassLimit},
		"longer than files are": {begin().object("a", format.TypeFile, 0o644).add(
			&format.Hole{Size: format.FileSizeMax}, &format.Hole{Size: 1}), format.ClassLimit},
	} {
		_, err := restore(t, tempDir(t), RestoreOptions{}, c.s.commit().end())
		if format.ClassOf(err) != c.class {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := tree(t, outside); len(got) > 0 {
		t.Errorf("outside of the target: %v", got)
	}
}

func TestRestoreHugeHole(t *testing.T) {
	s := newScript().snapshot("a", "").file("a", []run{chunk("x"), hole(format.FileSizeMax - 1)}).file("b", text("b")).commit().end()
	for _, opts := range []RestoreOptions{{}, {Verify: true}} {
		dir := tempDir(t)
		for range 2 {
			begun := time.Now()
			if _, err := restore(t, dir, opts, s); err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			if read(t, filepath.Join(dir, "b")) != "b" {
				t.Error("the rest was not restored")
			}
		}
	}
}

// TestRestoreReplacesLinksInTheWay has symbolic links in the target where the
// listing has directories and files.
func TestRestoreReplacesLinksInTheWay(t *testing.T) {
	s := newScript().snapshot("a", "", roots("")).
		dir("dir", 0o750).file("dir/f", text("new")).file("file", text("new")).file("implied/f", text("new")).
		object("pipe", format.TypeFifo, 0o600).
		commit().end()
	for _, overwrite := range []Overwrite{OverwriteIfChanged, OverwriteAlways, OverwriteIfNewer, OverwriteNever} {
		for _, dry := range []bool{true, false} {
			outside, dir := tempDir(t), tempDir(t)
			write(t, filepath.Join(outside, "f"), "precious")
			for name, to := range map[string]string{"dir": outside, "file": outside + "/f", "implied": outside, "pipe": outside + "/f"} {
				if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			before := tree(t, outside)
			sum := mustRestore(t, dir, RestoreOptions{Overwrite: overwrite, Delete: true, DryRun: dry}, s)
			if after := tree(t, outside); len(after) != 1 || after["f"] != before["f"] {
				t.Errorf("%s: outside the target: %v", overwrite, after)
			}
			replaced := overwrite == OverwriteIfChanged || overwrite == OverwriteAlways
			if got := describe(t, filepath.Join(dir, "dir")) == "dir 0750"; got != (replaced && !dry) {
				t.Errorf("%s: %s", overwrite, describe(t, filepath.Join(dir, "dir")))
			}
			if !replaced && sum.Skipped != 5 {
				t.Errorf("%s: %+v", overwrite, sum)
			}
		}
	}
}

// TestRestoreSwapRace has somebody else exchange a directory of the target for a
// link out of it, again and again, while a restore works below it.
func TestRestoreSwapRace(t *testing.T) {
	outside, dir := tempDir(t), tempDir(t)
	if err := os.MkdirAll(filepath.Join(outside, "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(outside, "sub/victim"), "precious")
	victim := describe(t, filepath.Join(outside, "sub/victim"))
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "evil")
	if err := os.Symlink(outside, b); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			}
		}
	})
	for range 30 {
		s := newScript(format.FeatureCopy).snapshot("1", "", roots("a"))
		s.dir("a", 0o700).dir("a/sub", 0o711)
		for i := range 10 {
			s.file(fmt.Sprintf("a/sub/%d", i), text(fmt.Sprint(i)), hardlink(fmt.Sprint(i/2)))
		}
		s.file("a/sub/victim", []run{ref("3")}).symlink("a/sub/z", "z").commit().
			snapshot("2", "1").file("a/sub/5", []run{copied(0, 1, "a/sub/4"), ref("1")}).remove("a/sub/victim").commit().end()
		_, _ = restore(t, dir, RestoreOptions{Delete: true, Overwrite: OverwriteAlways}, s)
	}
	close(stop)
	wg.Wait()
	if got := tree(t, outside); len(got) != 2 || got["sub/victim"] != victim {
		t.Errorf("outside the target: %v", got)
	}
}

// TestRestoreDeepPaths has paths far beyond what one system call takes, with
// files and times at every level.
func TestRestoreDeepPaths(t *testing.T) {
	dir := tempDir(t)
	t.Cleanup(func() { removeDeep(t, dir, "deep") })
	s := newScript().snapshot("1", "", roots("deep"))
	p := "deep"
	const levels = 2200
	for i := range levels {
		s.dir(p, 0o700, mtime(int64(i), 5))
		if i%100 == 99 {
			s.file(p+"/a", text(fmt.Sprint(i)))
		}
		p += "/d"
	}
	s.file(p, []run{ref("199")}, hardlink("g")).commit().
		snapshot("2", "1").remove(p).file(strings.TrimSuffix(p, "/d")+"/e", text("new"), hardlink("g")).commit().end()
	for range 2 {
		mustRestore(t, dir, RestoreOptions{Delete: true}, s)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	p = "deep"
	for i := range levels {
		if i%500 == 499 {
			at, err := openByComponent(fd, p, unix.O_RDONLY)
			if err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			if err := unix.Fstat(at, &st); err != nil || st.Mtim.Sec != int64(i) || st.Mtim.Nsec != 5 {
				t.Errorf("level %d has the time %v, %v", i, st.Mtim, err)
			}
			unix.Close(at)
		}
		p += "/d"
	}
	end, err := openFileBelow(fd, strings.TrimSuffix(p, "/d")+"/e")
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(end)
}

// removeDeep removes what is too deep for others.
func removeDeep(t *testing.T, dir, name string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	c := clearer{visit: func(int, string, string, *unix.Stat_t) (bool, bool, error) { return false, false, nil }}
	if left, err := c.remove(fd, name, name); left || err != nil {
		t.Errorf("something is left: %v", err)
	}
}

// FuzzRestore feeds any bytes that the Reader takes. Whatever comes, nothing
// happens outside the target, and nothing panics.
func FuzzRestore(f *testing.F) {
	for _, s := range []*script{
		newScript().snapshot("a", "").dir("d", 0o755).file("d/f", []run{chunk("x"), hole(3), ref("x")}).symlink("d/s", "/").commit().end(),
		newScript(format.FeatureCopy).snapshot("a", "").file("f", text("x"), hardlink("g")).file("g", text("x"), hardlink("g")).commit().
			snapshot("b", "a").file("f", []run{copied(0, 1, "g")}).remove("g").commit().end(),
	} {
		var out bytes.Buffer
		w := format.NewWriter(&out, format.WriterOptions{})
		for _, rec := range s.recs {
			if err := w.Write(rec); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(out.Bytes())
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		outer := tempDir(t)
		sink, err := NewRestore(context.Background(), filepath.Join(outer, "target"), RestoreOptions{Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		_ = format.Copy(context.Background(), sink, format.NewReader(bytes.NewReader(stream), format.ReaderOptions{}))
		if err := sink.Close(); err != nil {
			t.Logf("close: %v", err)
		}
		names, err := os.ReadDir(outer)
		if err != nil || len(names) != 1 {
			t.Errorf("beside the target: %v, %v", names, err)
		}
	})
}
