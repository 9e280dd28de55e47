package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/bk-backup/bk/format"
)

// runProgram runs bk-filter as a user does.
func runProgram(t *testing.T, stdin io.Reader, args ...string) (stdout []byte, stderr string, code int) {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, args...)
	var out, messages bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &messages
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	if err := cmd.Run(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() < 0 {
			t.Fatalf("%v: %v", args, err)
		}
	}
	return out.Bytes(), messages.String(), cmd.ProcessState.ExitCode()
}

// smallStream has a snapshot of three entries.
func smallStream(t *testing.T, features ...format.Feature) []byte {
	t.Helper()
	var b bytes.Buffer
	w := format.NewWriter(&b, format.WriterOptions{})
	meow := []byte("meow")
	for _, rec := range []format.Record{
		&format.Header{Version: format.Version, Features: features},
		&format.Snapshot{ID: format.SumID([]byte("s")), Tags: []string{"t"}},
		&format.Entry{Path: "a", Type: format.TypeDir},
		&format.Entry{Path: "a/cat\x1b.jpg", Type: format.TypeFile},
		&format.Data{ID: format.SumID(meow), Size: 4, Payload: meow},
		&format.EOF{Size: 4},
		&format.Entry{Path: "a/dog", Type: format.TypeFile},
		&format.Refs{Chunks: []format.ChunkRef{{ID: format.SumID(meow), Size: 4}}},
		&format.EOF{Size: 4},
		&format.Commit{}, &format.End{},
	} {
		if err := w.Write(rec); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

const cutFix = "to fix: look at what the program that writes the stream said; what had been committed stays, and running the pipeline again completes it\n"

func TestProgram(t *testing.T) {
	stream := smallStream(t)
	for _, tc := range []struct {
		name   string
		args   []string
		stdin  []byte
		stdout string // "=": the stream itself; "-": a stream that is not checked here
		stderr string
		code   int
	}{
		{"identity", nil, stream, "=", "bk-filter: dropped 0 of 3 entries (0 B of 8 B)\n", 0},
		{"drop", []string{"--drop", "*.jpg"}, stream, "-", "bk-filter: dropped 1 of 3 entries (4 B of 8 B)\n", 0},
		{"quiet", []string{"-q", "--drop", "*.jpg"}, stream, "-", "", 0},
		{"snapshots", []string{"--snapshot", "tag=u"}, stream, "-", "bk-filter: dropped 0 of 0 entries (0 B of 0 B) and 1 of 1 snapshots\n", 0},
		{"json", []string{"--json", "--drop", "*.jpg"}, stream, "-",
			`{"bytes":4,"dropped_bytes":4,"dropped_entries":1,"dropped_snapshots":0,"entries":2,"event":"summary","resent_chunks":1,"snapshots":1,"spool_bytes":50}` + "\n", 0},
		{"dry run", []string{"--dry-run", "--drop", "*.jpg"}, stream, `043a7187  path              4 B  /a/cat\x1b.jpg` + "\n",
			"bk-filter: would drop 1 of 3 entries (4 B of 8 B)\n", 0},
		{"dry run, snapshots", []string{"--dry-run", "-q", "--snapshot", "tag=u"}, stream, "043a7187  snapshot\n", "", 0},
		{"dry run as json", []string{"--dry-run", "--json", "-q", "--type", "file"}, stream,
			`{"path":"a/cat\u001b.jpg","size":4,"snapshot":"043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89","type":"file","why":"attributes"}` + "\n" +
				`{"path":"a/dog","size":4,"snapshot":"043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89","type":"file","why":"attributes"}` + "\n",
			`{"bytes":0,"dropped_bytes":8,"dropped_entries":2,"dropped_snapshots":0,"entries":1,"event":"summary","resent_chunks":0,"snapshots":1,"spool_bytes":50}` + "\n", 0},
		{"drop if", []string{"--drop-if", `test "$BK_PATH" = a/dog && grep -q meow`}, stream, "-", "bk-filter: dropped 1 of 3 entries (4 B of 8 B)\n", 0},
		{"drop if fails", []string{"--drop-if", "exit 7"}, stream, "-", "bk-filter: judge \"a/cat\\x1b.jpg\" by its content: command [\"/bin/sh\" \"-c\" \"exit 7\"]: exit status 7 (0 drops a file, 1 keeps it)\n", 1},
		{"bad pattern", []string{"--drop", "a["}, stream, "", "bk-filter: pattern \"a[\" has a [ without its ]\nto fix: run bk-filter --help\n", 2},
		{"bad flag", []string{"--dorp", "a"}, stream, "", "bk-filter: unknown flag --dorp, did you mean \"--drop\"?\nto fix: run bk-filter --help\n", 2},
		{"cut", []string{"--drop", "x"}, stream[:len(stream)-3], "-", "bk-filter: stream record 10 at byte 373 (end): cut: the stream ends inside a record\n" + cutFix, 4},
		{"empty", nil, nil, "", "bk-filter: stream record 0 at byte 0: cut: the stream is empty; did the program before this one fail?\n" + cutFix, 4},
		{"refused", []string{"--larger-than", "1"}, smallStream(t, format.FeatureCopy), "",
			"bk-filter: this filter cannot be applied to this stream: the stream has copy records (feature \"copy\"), and what they copy from may be dropped by its attributes or its content\n" +
				"to fix: give the same filter options to bk-export, or export without that feature (bk-export --no-copy)\n", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, stderr, code := runProgram(t, bytes.NewReader(tc.stdin), tc.args...)
			if code != tc.code || stderr != tc.stderr {
				t.Errorf("exit code %d, want %d, and on stderr\n%swant\n%s", code, tc.code, stderr, tc.stderr)
			}
			switch {
			case tc.stdout == "=" && !bytes.Equal(stdout, tc.stdin):
				t.Errorf("the stream changed")
			case tc.stdout == "-" && !bytes.HasPrefix(stdout, []byte("\x92\xa2bk")):
				t.Errorf("no stream came: %q", stdout)
			case tc.stdout != "=" && tc.stdout != "-" && string(stdout) != tc.stdout:
				t.Errorf("on stdout\n%s, want\n%s", stdout, tc.stdout)
			}
			if tc.name == "drop" && bytes.Contains(stdout, []byte("jpg")) {
				t.Error("what was dropped, or the pattern that dropped it, is in the output")
			}
		})
	}
}

// TestMemory lets a stream go to the spool nearly whole.
func TestMemory(t *testing.T) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeStream(w, 384<<20, false)) }()
	checkMemory(t, r, "--keep", "*.cat.jpg")
}

// TestMemoryOfLargeChunks judges the largest chunks that there can be by their
// content: those that compress a little, which a decoder has to remember whole.
func TestMemoryOfLargeChunks(t *testing.T) {
	name := os.Getenv("BK_TEST_LARGE_CHUNKS")
	if name != "" { // the process that makes the stream: its memory would count for those that this one starts
		file, err := os.Create(name)
		if err == nil {
			err = writeLargeChunks(file, strings.HasSuffix(name, "once"))
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, name := range []string{"often", "once"} {
		name = filepath.Join(t.TempDir(), name)
		cmd := exec.Command(os.Args[0], "-test.run=^TestMemoryOfLargeChunks$")
		cmd.Env = append(os.Environ(), "BK_TEST_LARGE_CHUNKS="+name)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, args := range [][]string{
			{"--drop-if", `test "$(sha256sum | head -c 8)" = 00000000`},
			{"--magic", "image/*"},
		} {
			file, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			checkMemory(t, file, args...)
			file.Close()
		}
	}
}

func writeLargeChunks(w io.Writer, once bool) error {
	out := format.NewWriter(w, format.WriterOptions{})
	plain := make([]byte, format.ChunkSizeMax)
	encoder, err := zstd.NewWriter(nil, zstd.WithWindowSize(format.ZstdWindowMax))
	if err != nil {
		return err
	}
	rnd := rand.NewChaCha8([32]byte{1})
	recs := []format.Record{&format.Header{Version: format.Version, Features: []format.Feature{format.FeatureZstd}}, &format.Snapshot{ID: format.ID{1}}}
	for _, rec := range recs {
		if err := out.Write(rec); err != nil {
			return err
		}
	}
	for i := range 2 {
		rnd.Read(plain)
		for at := 0; at < len(plain); at += 1 << 20 {
			copy(plain[at+1<<19:], plain[:1<<17]) // found at the far end of the window
		}
		payload := encoder.EncodeAll(plain, nil)
		if len(payload) >= len(plain) {
			return errors.New("the chunk does not compress")
		}
		for _, rec := range []format.Record{
			&format.Entry{Path: fmt.Sprintf("file%d", i), Type: format.TypeFile},
			&format.Data{ID: format.SumID(plain), Size: format.ChunkSizeMax, Codec: format.CodecZstd, Once: once, Payload: payload},
			&format.EOF{Size: format.ChunkSizeMax},
		} {
			if err := out.Write(rec); err != nil {
				return err
			}
		}
	}
	for _, rec := range []format.Record{&format.Commit{}, &format.End{}} {
		if err := out.Write(rec); err != nil {
			return err
		}
	}
	return nil
}

// checkMemory runs the program on a stream and fails where it takes 64 MiB.
func checkMemory(t *testing.T, stream io.Reader, args ...string) {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, append([]string{"--quiet"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	cmd.Stdin, cmd.Stderr = stream, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	const limit = 64 << 20
	if peak := peakMemory(cmd.ProcessState); peak > limit {
		t.Errorf("the filter took %d MiB with %q", peak>>20, args)
	} else {
		t.Logf("peak memory %d MiB with %q", peak>>20, args)
	}
}
