package cli

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/bk-backup/bk/repo"
)

// Logger hands what libraries log as a warning or worse to Warnf, on one line.
func (app *App) Logger() *slog.Logger { return slog.New(warnings{app: app}) }

// warnings is the slog.Handler behind Logger.
type warnings struct {
	app   *App
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (warnings) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements slog.Handler.
func (w warnings) Handle(_ context.Context, rec slog.Record) error {
	var b strings.Builder
	b.WriteString(rec.Message)
	fix := ""
	add := func(a slog.Attr) bool {
		b.WriteString("; " + a.Key + ": " + a.Value.String())
		if err, ok := a.Value.Any().(error); ok && errors.Is(err, repo.ErrNoCache) {
			fix = cacheFix
		}
		return true
	}
	for _, a := range w.attrs {
		add(a)
	}
	rec.Attrs(add)
	w.app.Warnf("%s", b.String())
	if fix != "" {
		w.app.Warnf("to fix: %s", fix)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (w warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	w.attrs = append(w.attrs[:len(w.attrs):len(w.attrs)], attrs...)
	return w
}

// WithGroup implements slog.Handler. Names of groups do not show.
func (w warnings) WithGroup(string) slog.Handler { return w }
