package cli

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// StepProgress returns the function to give to libraries that work in named
// steps; nil where nobody watches. done and total count what the step is made of.
func (app *App) StepProgress() func(what string, done, total int) {
	if app.JSON && !app.Quiet {
		return app.jsonSteps()
	}
	if app.Quiet || !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil
	}
	p := &progress{out: os.Stderr, begun: time.Now()}
	app.progress = p
	return func(what string, done, total int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if now := time.Now(); now.Sub(p.drawn) >= redrawInterval {
			p.drawn, p.active = now, true
			fmt.Fprintf(p.out, "\r\x1b[K[%s] %s: %s of %s", Duration(now.Sub(p.begun)), what, Count(done), Count(total))
		}
	}
}

// jsonSteps emits one status object a second on standard error.
func (app *App) jsonSteps() func(what string, done, total int) {
	var mu sync.Mutex
	begun := time.Now()
	last := begun
	return func(what string, done, total int) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last) >= time.Second {
			last = now
			app.JSONEvent("status", map[string]any{"seconds_elapsed": now.Sub(begun).Seconds(), "step": what, "done": done, "total": total})
		}
	}
}
