package killtest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// serveKilled serves a directory, and kills the server and begins it anew all the
// time, until the test ends. It returns the URL.
func serveKilled(t *testing.T, rng *rand.Rand, dir string) (url string, killed func() int) {
	t.Helper()
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	kills := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			server := exec.Command(filepath.Join(bin, "bk-serve"), "--quiet", "--listen", address, dir)
			server.Stderr = os.Stderr
			if err := server.Start(); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			life := 100*time.Millisecond + time.Duration(rng.Int64N(int64(900*time.Millisecond)))
			kills++
			mu.Unlock()
			select {
			case <-time.After(life):
			case <-ctx.Done():
			}
			_ = server.Process.Kill()
			_ = server.Wait()
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	for range 100 {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return "http://" + address + "/", func() int {
		mu.Lock()
		defer mu.Unlock()
		return kills
	}
}

// TestKillServer kills the server under backups, forgetting and collection. They
// try again, and succeed; what they say is done is there.
func TestKillServer(t *testing.T) {
	rng := rand.New(rand.NewPCG(41, 1))
	p := newPlace(t, "aes-256-gcm")
	local := p.repo
	url, killed := serveKilled(t, rand.New(rand.NewPCG(41, 2)), local)
	p.repo = url
	source := t.TempDir()
	versions := map[string]map[string]string{}
	// The first question of a program is not repeated: the server may be down by
	// a mistake in the URL.
	patient := func(name string, args ...string) {
		t.Helper()
		for try := 0; ; try++ {
			cmd := p.command(name, args...)
			var messages bytes.Buffer
			cmd.Stderr = &messages
			err := cmd.Run()
			if err == nil {
				return
			}
			if try == 50 || !bytes.Contains(messages.Bytes(), []byte(name+": open "+url[:len(url)-1])) {
				t.Fatalf("%s %q: %v\n%s", name, args, err, messages.String())
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	for version := range kills(t, killsDefault) {
		change(t, rng, source, version)
		tag := fmt.Sprintf("v%d", version)
		versions[tag] = read(t, source)
		patient("bk-backup", "--tag", tag, source)
		if version%4 == 3 {
			patient("bk-forget", "--keep-last", "3")
			patient("bk-gc", "--grace", "0")
		}
	}
	p.repo = local
	if n := p.checkAll(versions); n < 3 {
		t.Errorf("%d snapshots are left", n)
	}
	p.must("bk-check", "--read-data")
	t.Logf("the server was killed %d times", killed())
}
