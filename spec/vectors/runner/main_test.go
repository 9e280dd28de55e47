package main

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bk-backup/bk/format/vectortest"
)

// TestMain lets the test program itself be the command that the runner runs.
func TestMain(m *testing.M) {
	switch os.Getenv("RUNNER_TEST_COMMAND") {
	case "answer":
		if vectortest.Answer(context.Background(), os.Stdout, os.Stdin) != nil {
			os.Exit(4)
		}
		os.Exit(0)
	case "copy":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	case "sleep":
		time.Sleep(time.Minute)
	}
	os.Exit(m.Run())
}

func TestRunner(t *testing.T) {
	dir := "../stream"
	for _, c := range []struct {
		command string
		r       runner
		failed  int
		out     string
	}{
		{"answer", runner{only: "order-"}, 0, "passed\n"},
		{"answer", runner{only: "ok-data"}, 0, "3 of 3 vectors passed\n"},
		{"copy", runner{only: "ok-data"}, 3, "line 1 is: "},
		{"copy", runner{only: "ok-data", identity: true}, 0, "3 of 3 vectors passed\n"},
		{"answer", runner{only: "ok-data", identity: true}, 3, "bytes came out of"},
		{"sleep", runner{only: "ok-empty", timeout: 50 * time.Millisecond}, 1, "exit code -1"},
	} {
		t.Setenv("RUNNER_TEST_COMMAND", c.command)
		c.r.command = []string{os.Args[0]}
		if c.r.timeout == 0 {
			c.r.timeout = time.Minute
		}
		var out strings.Builder
		failed, err := c.r.run(t.Context(), &out, dir)
		if err != nil || failed != c.failed || !strings.Contains(out.String(), c.out) {
			t.Errorf("%s %+v: %d failed, %v\n%s", c.command, c.r, failed, err, out.String())
		}
	}
	r := runner{command: []string{"/nowhere/at/all"}, timeout: time.Minute, only: "ok-empty"}
	if failed, err := r.run(t.Context(), io.Discard, dir); err != nil || failed != 1 {
		t.Error(failed, err)
	}
	if _, err := (&runner{only: "no such vector"}).run(t.Context(), io.Discard, dir); err == nil {
		t.Error("nothing was chosen, and nobody said so")
	}
}
