//go:build linux

package disk

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"

	"github.com/bk-backup/bk/format"
)

// report counts what a restore does and tells the caller. It is safe for
// several goroutines, and serialises the caller's callbacks.
type report struct {
	mu       sync.Mutex
	opts     *RestoreOptions
	log      *slog.Logger
	sum      Summary
	losses   map[string]*format.Loss
	progress format.Progress
	untold   uint64 // bytes and entries since OnProgress was called
}

func newReport(opts *RestoreOptions) *report {
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &report{opts: opts, log: log, losses: make(map[string]*format.Loss)}
}

// problem counts a loss and names it.
func (p *report) problem(kind, path string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.losses[kind]
	if l == nil {
		l = &format.Loss{Kind: kind}
		p.losses[kind] = l
	}
	l.Count++
	if len(l.Paths) < format.LossPathsMax {
		l.Paths = append(l.Paths, path)
	}
	p.log.Debug("restore: loss", "kind", kind, "path", path, "error", err)
	if p.opts.OnProblem != nil {
		p.opts.OnProblem(Problem{Kind: kind, Path: path, Err: err})
	}
}

// item counts an action.
func (p *report) item(it Item) { p.file(it, 0, 0) }

// file counts an action on a file of which some bytes were written, and some
// were told to advance.
func (p *report) file(it Item, wrote, told uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sum.BytesWritten += wrote
	switch it.Action {
	case ActionCreated:
		p.sum.Created++
	case ActionReplaced:
		p.sum.Replaced++
	case ActionUnchanged:
		p.sum.Unchanged++
	case ActionSkipped:
		p.sum.Skipped++
	case ActionLinked:
		p.sum.Linked++
	case ActionRemoved:
		p.sum.Removed++
	}
	if it.Action != ActionRemoved {
		switch it.Type {
		case format.TypeFile:
			p.sum.Files++
			if it.Action != ActionSkipped && it.Action != ActionLinked {
				p.sum.Bytes += it.Size
			}
		case format.TypeDir:
			p.sum.Dirs++
		default:
			p.sum.Others++
		}
	}
	if p.opts.OnItem != nil {
		p.opts.OnItem(it)
	}
	if it.Action != ActionRemoved {
		p.progress.Entries++
		p.tell(it.Path, it.Size-min(told, it.Size))
	}
}

// advance counts bytes of a file that is not done yet.
func (p *report) advance(path string, n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell(path, n)
}

// progressStep is how many bytes, an entry counting as 4096, lie between two
// calls of OnProgress.
const progressStep = 1 << 20

func (p *report) tell(path string, n uint64) {
	p.progress.Bytes += n
	p.untold += 4096 + n
	if p.opts.OnProgress == nil || p.untold < progressStep {
		return
	}
	p.untold = 0
	p.progress.Path = path
	p.progress.Snapshots = p.sum.Snapshots
	p.opts.OnProgress(p.progress)
}

// expect takes over what a producer expects a snapshot to amount to.
func (p *report) expect(e *format.Estimate) {
	if e == nil {
		return
	}
	p.mu.Lock()
	p.progress.BytesTotal += e.Bytes
	p.progress.EntriesTotal += e.Entries
	p.mu.Unlock()
}

// committed counts a snapshot and what it says was lost before.
func (p *report) committed(losses []format.Loss) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sum.Snapshots++
	for _, l := range losses {
		i, found := slices.BinarySearchFunc(p.sum.Source, l.Kind, func(a format.Loss, k string) int { return cmp.Compare(a.Kind, k) })
		if !found {
			p.sum.Source = slices.Insert(p.sum.Source, i, format.Loss{Kind: l.Kind})
		}
		s := &p.sum.Source[i]
		s.Count += l.Count
		for _, path := range l.Paths {
			if len(s.Paths) < format.LossPathsMax {
				s.Paths = append(s.Paths, path)
			}
		}
	}
}

// summary returns what was counted so far.
func (p *report) summary() Summary {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sum
	s.Source = slices.Clone(s.Source)
	for _, l := range p.losses {
		c := *l
		c.Paths = slices.Clone(l.Paths)
		s.Losses = append(s.Losses, c)
	}
	slices.SortFunc(s.Losses, func(a, b format.Loss) int { return cmp.Compare(a.Kind, b.Kind) })
	return s
}
