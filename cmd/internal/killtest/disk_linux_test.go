package killtest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/repo/seal"
)

// failingCall, in the environment of the test's own program, is the number of a
// system call: that one fails with EIO in the program that the arguments name.
const failingCall = "BK_KILLTEST_EIO"

func init() {
	if nr := os.Getenv(failingCall); nr != "" {
		os.Unsetenv(failingCall)
		fmt.Fprintln(os.Stderr, runFailing(nr, os.Args[1:]))
		os.Exit(125)
	}
}

// runFailing becomes another program, in which a system call fails.
func runFailing(number string, args []string) error {
	var nr uint32
	if _, err := fmt.Sscan(number, &nr); err != nil {
		return err
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EIO)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	const setModeFilter, threadSync = 1, 1 // SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, threadSync, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return errno
	}
	runtime.KeepAlive(filter)
	return syscall.Exec(args[0], args, os.Environ())
}

// failing makes a command fail with EIO at a system call.
func failing(t *testing.T, nr int, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, append([]string{cmd.Path}, cmd.Args[1:]...)...)
	c.Env = append(cmd.Env, fmt.Sprintf("%s=%d", failingCall, nr))
	return c
}

// expectFailure runs a program that has to fail, with a message that says why.
func expectFailure(t *testing.T, cmd *exec.Cmd, code int, why ...string) {
	t.Helper()
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("%s: exit code %d, not %d: %s", filepath.Base(cmd.Path), got, code, out)
	}
	for _, text := range why {
		if !strings.Contains(string(out), text) {
			t.Errorf("%s does not say %q: %s", filepath.Base(cmd.Path), text, out)
		}
	}
	if strings.Contains(string(out), "panic") {
		t.Errorf("%s", out)
	}
}

// TestDiskErrors lets storage fail with EIO in programs that write, read and
// collect: they say so, and what was there before stays whole.
func TestDiskErrors(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	p := cheapPlace(t)
	source := filepath.Join(t.TempDir(), "source")
	change(t, rng, source, 0)
	versions := map[string]map[string]string{"v0": read(t, source)}
	p.must("bk-backup", "--tag", "v0", source)
	change(t, rng, source, 1)
	for name, nr := range map[string]int{"fsync": unix.SYS_FSYNC, "renameat2": unix.SYS_RENAMEAT2, "fchmod": unix.SYS_FCHMOD} {
		cmd := failing(t, nr, p.command("bk-backup", "--tag", "v1", source))
		out, err := cmd.CombinedOutput()
		if err == nil && name == "fsync" {
			t.Errorf("nothing could be made durable, and the backup reports success: %s", out)
		}
		if err == nil { // there was another way
			versions["v1"] = read(t, source)
		} else if !strings.Contains(string(out), "input/output error") || strings.Contains(string(out), "panic") {
			t.Errorf("%s: %s", name, out)
		}
		p.checkAll(versions)
	}
	expectFailure(t, failing(t, unix.SYS_PREAD64, p.command("bk-restore", "latest", "--target", t.TempDir())), 1, "input/output error", "bk-restore")
	expectFailure(t, failing(t, unix.SYS_UNLINKAT, p.command("bk-forget", "latest")), 1, "input/output error", "bk-forget")
	expectFailure(t, failing(t, unix.SYS_FSYNC, p.command("bk-key", "rotate")), 1, "input/output error")
	expectFailure(t, failing(t, unix.SYS_FSYNC, p.command("bk-gc", "--grace", "0")), 1, "input/output error")
	expectFailure(t, failing(t, unix.SYS_UNLINKAT, p.command("bk-gc", "--grace", "0", "--reseal")), 1, "input/output error")
	p.checkAll(versions)
	p.must("bk-backup", "--tag", "v1", source)
	versions["v1"] = read(t, source)
	p.must("bk-gc", "--grace", "0", "--reseal")
	p.checkAll(versions)
}

// onSmallDisk calls do with a small file system, which it sees, as the programs
// that it starts do. It needs the right to mount one.
func onSmallDisk(t *testing.T, size string, do func(path string)) {
	path := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its mounts
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")
		}
		if err == nil {
			err = unix.Mount("tmpfs", path, "tmpfs", 0, "size="+size)
		}
		if err != nil {
			t.Logf("no file system can be mounted here: %v", err)
			return
		}
		defer func() { _ = unix.Unmount(path, unix.MNT_DETACH) }()
		do(path)
	}()
	<-done
}

// TestFullDisk fills storage, a small file system, by every program that writes,
// and makes it read-only.
func TestFullDisk(t *testing.T) {
	onSmallDisk(t, "8m", func(path string) { fullDisk(t, path) })
}

// TestFullCache fills the cache sooner or later, and makes it read-only: programs
// say so once and do their work.
func TestFullCache(t *testing.T) {
	for i, size := range []string{"4k", "20k", "40k"} {
		t.Run(size, func(t *testing.T) {
			onSmallDisk(t, size, func(path string) { fullCache(t, path, uint64(i)) })
		})
	}
}

func fullCache(t *testing.T, path string, seed uint64) {
	rng := rand.New(rand.NewPCG(7, seed))
	p := cheapPlace(t)
	p.cache = path
	source := filepath.Join(t.TempDir(), "source")
	versions := map[string]map[string]string{}
	told := 0
	run := func(args ...string) {
		t.Helper()
		out, err := p.command(args[0], args[1:]...).CombinedOutput()
		n := strings.Count(string(out), "is not cached")
		if err != nil || n > 1 || n > 0 && !(strings.Contains(string(out), path) && strings.Contains(string(out), "to fix: make room there")) {
			t.Errorf("%s: %v: %s", args, err, out)
		}
		told += n
	}
	work := func(first, end int) {
		for n := first; n < end; n++ {
			change(t, rng, source, n)
			tag := fmt.Sprint("v", n)
			run("bk-backup", "--tag", tag, source)
			versions[tag] = read(t, source)
			if n%3 == 2 {
				run("bk-gc", "--grace", "0")
			}
		}
		run("bk-check")
		if got := p.checkAll(versions); got != len(versions) {
			t.Errorf("%d of %d snapshots are there", got, len(versions))
		}
	}
	work(0, 6)
	if told == 0 {
		t.Error("the cache was never full")
	}
	if err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Error(err)
		return
	}
	work(6, 7)
	p.cache = filepath.Join(path, "another")
	work(7, 8)
}

// fullDisk runs on the thread that sees the small file system, as the programs
// that it starts do.
func fullDisk(t *testing.T, path string) {
	rng := rand.New(rand.NewPCG(6, 6))
	p := cheapPlaceIn(t, path, seal.SuiteAES256GCM)
	source := filepath.Join(t.TempDir(), "source")
	versions := map[string]map[string]string{}
	full := 0
	for n := 0; full < 3; n++ {
		change(t, rng, source, n)
		tag := fmt.Sprint("v", n)
		out, err := p.command("bk-backup", "--tag", tag, source).CombinedOutput()
		if err == nil {
			versions[tag] = read(t, source)
			continue
		}
		full++
		if !strings.Contains(string(out), "no space left on device") {
			t.Errorf("%v: %s", err, out)
		}
		if got := p.checkAll(versions); got != len(versions) {
			t.Errorf("%d of %d snapshots are there", got, len(versions))
		}
	}
	// What would free space needs some: it says so, and harms nothing.
	filler := filepath.Join(path, "filler")
	for size := 1 << 20; size >= 4096; size /= 2 {
		if f, err := os.OpenFile(filler, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			for err == nil {
				err = binary.Write(f, binary.LittleEndian, make([]byte, size))
			}
			f.Close()
		}
	}
	for _, args := range [][]string{{"bk-gc", "--grace", "0"}, {"bk-forget", "latest"}, {"bk-key", "rotate"}, {"bk-tag", "--add", "x", "latest"}} {
		expectFailure(t, p.command(args[0], args[1:]...), 1, "no space left on device")
	}
	// A restore says it once, not for every file that it was at and in sum again.
	target := filepath.Join(path, "restored")
	out, _ := p.command("bk-restore", "latest", "--target", target).CombinedOutput()
	if text := string(out); strings.Count(text, "no space left on device") != 1 || strings.Contains(text, "lost:") ||
		!strings.Contains(text, "\nto fix: make room on the file system of "+target+" ") {
		t.Errorf("bk-restore: %s", text)
	}
	if err := os.RemoveAll(target); err != nil {
		t.Error(err)
	}
	p.checkAll(versions)
	if err := os.Remove(filler); err != nil {
		t.Error(err)
	}
	p.must("bk-gc", "--grace", "0")
	if got := p.checkAll(versions); got != len(versions) || got == 0 {
		t.Errorf("%d of %d snapshots are there", got, len(versions))
	}
	if err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Error(err)
		return
	}
	for _, args := range [][]string{{"bk-backup", source}, {"bk-gc"}, {"bk-forget", "latest"}, {"bk-key", "rotate"}, {"bk-restore", "latest", "--target", target}} {
		expectFailure(t, p.command(args[0], args[1:]...), 1, "read-only file system")
	}
	p.checkAll(versions)
}
