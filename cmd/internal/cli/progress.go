package cli

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/bk-backup/bk/format"
)

// progress is one line on the terminal, redrawn at most five times a second.
// When several programs of a pipe share the terminal, only the last of them
// draws: the one whose standard output is not a pipe.
type progress struct {
	mu     sync.Mutex
	out    *os.File
	begun  time.Time
	drawn  time.Time
	active bool
}

const redrawInterval = 200 * time.Millisecond

// Progress returns the function to give to libraries as OnProgress; nil where
// nobody watches.
func (app *App) Progress() func(format.Progress) {
	if app.JSON && !app.Quiet {
		return app.jsonProgress()
	}
	if app.Quiet || !term.IsTerminal(int(os.Stderr.Fd())) || isPipe(app.Stdout) {
		return nil
	}
	app.progress = &progress{out: os.Stderr, begun: time.Now()}
	return app.progress.draw
}

func (p *progress) draw(state format.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.drawn) < redrawInterval {
		return
	}
	p.drawn, p.active = now, true
	width, _, err := term.GetSize(int(p.out.Fd()))
	if err != nil || width < 20 {
		width = 80
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s", progressLine(state, now.Sub(p.begun), width-1))
}

// progressLine is what is drawn, cut to width columns.
func progressLine(state format.Progress, elapsed time.Duration, width int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%s]", Duration(elapsed))
	rate := float64(state.Bytes) / max(elapsed.Seconds(), 0.001)
	if state.BytesTotal > 0 {
		share := min(float64(state.Bytes)/float64(state.BytesTotal), 1)
		fmt.Fprintf(&b, " %3.0f%%", 100*share)
	}
	fmt.Fprintf(&b, " %s files, %s, %s/s", Count(state.Entries), Bytes(state.Bytes), Bytes(int64(rate)))
	if state.BytesTotal > state.Bytes && rate > 0 && elapsed > 2*time.Second {
		left := time.Duration(float64(state.BytesTotal-state.Bytes) / rate * float64(time.Second))
		fmt.Fprintf(&b, ", ETA %s", Duration(left))
	}
	line := b.String()
	if path := oneLine(state.Path); path != "" && len(line)+4 < width {
		room := width - len(line) - 2
		if len(path) > room {
			path = "..." + strings.ToValidUTF8(path[len(path)-room+3:], "")
		}
		line += "  " + path
	}
	return line
}

func (app *App) clearProgress() {
	if p := app.progress; p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.active {
			fmt.Fprint(p.out, "\r\x1b[K")
			p.active = false
		}
	}
}

func (app *App) endProgress() {
	app.clearProgress()
	app.progress = nil
}

// jsonProgress emits one status object a second on standard error.
func (app *App) jsonProgress() func(format.Progress) {
	var mu sync.Mutex
	begun := time.Now()
	last := begun
	return func(state format.Progress) {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if now.Sub(last) < time.Second {
			return
		}
		last = now
		app.JSONEvent("status", map[string]any{
			"seconds_elapsed": now.Sub(begun).Seconds(),
			"snapshots":       state.Snapshots, "entries": state.Entries, "bytes": state.Bytes,
			"entries_total": state.EntriesTotal, "bytes_total": state.BytesTotal,
			"path": strings.ToValidUTF8(state.Path, "\uFFFD"),
		})
	}
}

func isPipe(f *os.File) bool {
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeNamedPipe != 0
}
