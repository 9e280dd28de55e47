package killtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

var programs = []string{"bk-init", "bk-backup", "bk-restore", "bk-snapshots", "bk-export", "bk-import", "bk-filter", "bk-sync", "bk-diff", "bk-forget", "bk-tag", "bk-gc", "bk-key", "bk-check", "bk-repair", "bk-serve"}

// bin is where TestMain built the programs.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "bk-killtest-*")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		bin = dir
		args := []string{"build", "-o", dir}
		for _, p := range programs {
			args = append(args, "github.com/bk-backup/bk/cmd/"+p)
		}
		build := exec.Command("go", args...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make builds them
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// killsDefault takes some ten seconds for each test.
const killsDefault = 12

// kills is how many kills a test makes.
func kills(t *testing.T, byDefault int) int {
	if n, err := strconv.Atoi(os.Getenv("BK_KILLS")); err == nil {
		return n
	}
	if testing.Short() {
		return byDefault / 5
	}
	return byDefault
}

// place is a repository and the programs that work on it.
type place struct {
	t     *testing.T
	repo  string
	cache string
}

func newPlace(t *testing.T, cipher string) *place {
	t.Helper()
	dir := t.TempDir()
	p := &place{t, filepath.Join(dir, "repo"), filepath.Join(dir, "cache")}
	p.must("bk-init", "--cipher", cipher)
	return p
}

func (p *place) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, name), append(args, "-r", p.repo, "--cache-dir", p.cache)...)
	cmd.Env = append(os.Environ(), "BK_PASSPHRASE=p", "BK_IMPORT_PASSPHRASE=p", "TMPDIR="+p.t.TempDir())
	return cmd
}

// must runs a program that has to succeed and returns its standard output.
func (p *place) must(name string, args ...string) []byte {
	p.t.Helper()
	cmd := p.command(name, args...)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		p.t.Fatalf("%s %q: %v\n%s", name, args, err, messages.String())
	}
	return out.Bytes()
}

// snapshot is what bk-snapshots --json says of one.
type snapshot struct {
	ID   string   `json:"id"`
	Tags []string `json:"tags"`
}

func (p *place) snapshots() []snapshot {
	p.t.Helper()
	return parseSnapshots(p.must("bk-snapshots", "--json"))
}

func parseSnapshots(out []byte) (list []snapshot) {
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var s snapshot
		if dec.Decode(&s) != nil {
			return list
		}
		list = append(list, s)
	}
}

// checkRestores restores a snapshot and compares it with a tree.
func (p *place) checkRestores(id string, want map[string]string) {
	p.t.Helper()
	dir, err := os.MkdirTemp(p.t.TempDir(), "out")
	if err != nil {
		p.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	p.must("bk-restore", id, "--target", dir)
	if diff := cmp.Diff(want, read(p.t, dir)); diff != "" {
		p.t.Fatalf("snapshot %s: %s", id, diff[:min(len(diff), 1000)])
	}
}

// checkAll exports everything and compares each snapshot with its version.
func (p *place) checkAll(versions map[string]map[string]string) (snapshots int) {
	p.t.Helper()
	rd := format.NewReader(bytes.NewReader(p.must("bk-export", "--all", "--full", "--plain")), format.ReaderOptions{})
	chunks := map[format.ID][]byte{}
	var tag, name string
	var files map[string]string
	for {
		rec, err := rd.Next()
		if errors.Is(err, io.EOF) {
			return snapshots
		}
		if err != nil {
			p.t.Fatal(err)
		}
		switch rec := rec.(type) {
		case *format.Snapshot:
			tag, files = rec.Tags[0], map[string]string{}
		case *format.Entry:
			if name = filepath.Base(rec.Path); rec.Type == format.TypeFile {
				files[name] = ""
			}
		case *format.Data:
			chunks[rec.ID] = bytes.Clone(rec.Payload)
			files[name] += string(rec.Payload)
		case *format.Refs:
			for _, ref := range rec.Chunks {
				files[name] += string(chunks[ref.ID])
			}
		case *format.Hole:
			files[name] += string(make([]byte, rec.Size))
		case *format.Commit:
			for name, content := range files {
				files[name] = digest(content)
			}
			if diff := cmp.Diff(versions[tag], files); diff != "" {
				p.t.Fatalf("snapshot %s: %s", tag, diff[:min(len(diff), 1000)])
			}
			snapshots++
		}
	}
}

// digest stands for the content of a file.
func digest(content string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(content))) }

// read returns the digests of the files below a directory by the ends of their
// names, since a restored tree lies deeper than its source.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files[filepath.Base(path)] = digest(string(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// change writes some files anew: many small ones and a few large ones.
func change(t *testing.T, rng *rand.Rand, dir string, version int) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{byte(version), byte(rng.Uint32())})
	for range 15 {
		size := rng.IntN(20_000)
		if rng.IntN(10) == 0 {
			size = rng.IntN(1_000_000)
		}
		content := make([]byte, size)
		_, _ = random.Read(content)
		name := filepath.Join(dir, fmt.Sprintf("d%d", rng.IntN(5)), fmt.Sprintf("file%d", rng.IntN(40)))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		// The name that read goes by is unique: files of one number in two
		// directories would hide each other.
		if err := os.WriteFile(name+filepath.Base(filepath.Dir(name)), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// connect makes a pipe of programs. The files are to be closed when they run.
func connect(cmds []*exec.Cmd) (files []*os.File, err error) {
	for i := range cmds[1:] {
		r, w, err := os.Pipe()
		if err != nil {
			return files, err
		}
		cmds[i].Stdout, cmds[i+1].Stdin = w, r
		files = append(files, r, w)
	}
	return files, nil
}

// runKilled starts a pipe of programs and kills one of them after some time. It
// reports whether all ended well before that.
func runKilled(t *testing.T, rng *rand.Rand, within time.Duration, cmds ...*exec.Cmd) (done bool) {
	t.Helper()
	return runKilling(t, cmds, rng.IntN(len(cmds)), time.Duration(rng.Int64N(int64(within))), new(bytes.Buffer)).done
}

// ending is how a pipe of programs ended.
type ending struct {
	done   bool            // all of them well
	killed bool            // the victim by the signal, before it could end by itself
	lived  []time.Duration // from the beginning until each ended, and those before it
}

// runKilling is runKilled with a victim, -1 for none, and a moment. The messages
// are those of the last program.
func runKilling(t *testing.T, cmds []*exec.Cmd, victim int, delay time.Duration, messages *bytes.Buffer) (end ending) {
	t.Helper()
	begun := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	files, err := connect(cmds)
	if err != nil {
		t.Fatal(err)
	}
	cmds[len(cmds)-1].Stderr = messages
	for _, cmd := range cmds {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files {
		f.Close()
	}
	if victim >= 0 {
		go func() {
			select {
			case <-time.After(delay):
				_ = cmds[victim].Process.Kill()
			case <-ctx.Done():
			}
		}()
	}
	end.done = true
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			end.done = false
		}
		end.lived = append(end.lived, time.Since(begun))
		status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		end.killed = end.killed || i == victim && status.Signaled()
	}
	if strings.Contains(messages.String(), "panic") {
		t.Fatalf("%s", messages.String())
	}
	return end
}

// TestKillBackup kills bk-backup.
func TestKillBackup(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	p := newPlace(t, "aes-256-gcm")
	source := filepath.Join(t.TempDir(), "source")
	versions := map[string]map[string]string{}
	took := 500 * time.Millisecond
	killed, survived := 0, 0
	for n := 0; killed < kills(t, killsDefault) && n < 4*kills(t, killsDefault); n++ {
		change(t, rng, source, n)
		tag := fmt.Sprint("v", n)
		versions[tag] = read(t, source)
		if runKilled(t, rng, took, p.command("bk-backup", "--tag", tag, source)) {
			survived++
		} else {
			killed++
		}
		if list := p.snapshots(); len(list) > 0 && n%5 == 0 {
			s := list[len(list)-1]
			p.checkRestores(s.ID, versions[s.Tags[0]])
		}
		if n%5 == 4 {
			begun := time.Now()
			p.must("bk-backup", "--tag", tag, source)
			took = time.Since(begun)
		}
	}
	t.Logf("%d killed, %d ended before, %d snapshots", killed, survived, p.checkAll(versions))
}

// TestKillPipe kills either end of bk-export | bk-import.
func TestKillPipe(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, uint64(time.Now().UnixNano())))
	from := newPlace(t, "aes-256-gcm")
	source := filepath.Join(t.TempDir(), "source")
	versions := map[string]map[string]string{}
	const snapshots = 5
	for n := range snapshots {
		change(t, rng, source, n)
		tag := fmt.Sprint("v", n)
		versions[tag] = read(t, source)
		from.must("bk-backup", "--tag", tag, source)
	}
	took := time.Second
	killed, survived := 0, 0
	var to *place
	for n := 0; killed < kills(t, killsDefault) && n < 4*kills(t, killsDefault); n++ {
		if to == nil {
			to = newPlace(t, "xchacha20-poly1305")
		}
		before := to.snapshots()
		begun := time.Now()
		if runKilled(t, rng, took, from.command("bk-export", "--all"), to.command("bk-import")) {
			survived++
			took = time.Since(begun)
		} else {
			killed++
		}
		list := to.snapshots()
		if len(list) < len(before) || len(list) > snapshots {
			t.Fatalf("%d snapshots, where %d were there", len(list), len(before))
		}
		if len(list) > 0 && n%5 == 0 {
			s := list[len(list)-1]
			to.checkRestores(s.ID, versions[s.Tags[0]])
		}
		if len(list) < snapshots {
			continue
		}
		to.checkAll(versions)
		to = nil // complete: begin with another
	}
	if to != nil {
		if !runKilled(t, rng, time.Hour, from.command("bk-export", "--all"), to.command("bk-import")) {
			t.Fatal("the last run did not complete")
		}
		if n := to.checkAll(versions); n != snapshots {
			t.Fatalf("%d snapshots in the end", n)
		}
	}
	t.Logf("%d killed, %d ended before", killed, survived)
}
