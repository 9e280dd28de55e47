package disk

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

// Survey is what the status of everything in a directory tells: which files have
// several names there, and a listing to compare another directory with. It lies
// in temporary files beyond a few MiB.
type Survey struct {
	// Estimate is what a scan of the whole directory would amount to.
	Estimate format.Estimate

	mu      sync.Mutex   // of names
	names   *spill.Table // how many names each file has, of those with several
	entries *spill.Log   // in the order of the walk
	memo    ownerMemo
	row     []byte
}

// TakeSurvey walks what a scan with these options would, and opens no file. Of
// the options it looks at Dir, At, those that leave something out, and Workers.
// Temporary files are made in tempDir, or where the system puts them if it is "".
// What cannot be looked at is left out: the scan will tell.
func TakeSurvey(ctx context.Context, options ScanOptions, tempDir string) (*Survey, error) {
	if options.Workers <= 0 {
		options.Workers = runtime.GOMAXPROCS(0)
	}
	s := &Survey{names: spill.NewTable(tempDir), entries: spill.NewLog(tempDir), memo: ownerMemo{cache: new(ownerCache)}}
	w := newWalk(&options)
	defer w.dirs.close()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer w.stop()
	for range options.Workers {
		wg.Go(func() { w.work(newWalker()) })
	}
	p := newWalker()
	top, err := w.root(&rootTree{isRoot: true}, p)
	if err == nil {
		err = s.directory(ctx, w, p, top.path, &top.status, top)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("survey %s: %w", options.Dir, err), s.Close())
	}
	return s, nil
}

// Close gives the temporary files back.
func (s *Survey) Close() error { return errors.Join(s.names.Close(), s.entries.Close()) }

// directory adds a directory and what lies below.
func (s *Survey) directory(ctx context.Context, w *walk, p *walker, path string, st *status, l *listing) error {
	if err := w.need(ctx, l, p); err != nil {
		return err
	}
	e := format.Entry{}
	st.fill(&e, path, &s.memo)
	e.Xattrs, e.Flags = l.xattrs, l.flags
	if err := s.add(&e, st); err != nil {
		return err
	}
	for i, b := range l.batches {
		if err := w.need(ctx, b, p); err != nil {
			return err
		}
		for j := range b.nodes {
			if err := s.node(ctx, w, p, &b.nodes[j]); err != nil {
				return err
			}
		}
		w.consumed(len(b.nodes))
		l.batches[i] = nil
	}
	return nil
}

func (s *Survey) node(ctx context.Context, w *walk, p *walker, n *node) error {
	if _, known := n.status.kind(); n.err != nil || !known || len(n.path) > format.PathSizeMax {
		return nil
	}
	if n.sub != nil {
		return s.directory(ctx, w, p, n.path, &n.status, n.sub)
	}
	e := format.Entry{}
	n.status.fill(&e, n.path, &s.memo)
	if n.status.nlink > 1 {
		key := namesKey(linkKey{n.status.dev, n.status.ino})
		count, _, err := s.names.Get(key)
		if err == nil {
			err = s.names.Put(key, count+1)
		}
		if err != nil {
			return err
		}
	}
	return s.add(&e, &n.status)
}

// add writes an entry: its length, where the file lies, and the body.
func (s *Survey) add(e *format.Entry, st *status) error {
	s.Estimate.Entries++
	s.Estimate.Bytes += e.Size
	s.row = appendInode(append(s.row[:0], 0, 0, 0, 0), linkKey{st.dev, st.ino})
	s.row = e.AppendBody(s.row, true)
	binary.BigEndian.PutUint32(s.row, uint32(len(s.row)-4))
	_, err := s.entries.Write(s.row)
	return err
}

func namesKey(key linkKey) spill.Key {
	return spill.KeyOf('n', string(appendInode(make([]byte, 0, 16), key)))
}

// namesOf returns how many names a file has in the directory.
func (s *Survey) namesOf(key linkKey) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	count, _, err := s.names.Get(namesKey(key))
	return uint32(count), err
}

// Previous returns the listing, to compare a scan of another directory with. One
// at a time can be read.
func (s *Survey) Previous() Previous {
	return &surveyListing{
		survey: s, links: make(map[linkKey]*linkGroup),
		in: bufio.NewReaderSize(io.NewSectionReader(s.entries, 0, s.entries.Size()), 64<<10),
	}
}

// surveyListing reads the entries of a survey.
type surveyListing struct {
	survey *Survey
	in     *bufio.Reader
	links  map[linkKey]*linkGroup // whose names have not all been read
	row    []byte
	entry  format.Entry
}

// Next implements Previous.
func (l *surveyListing) Next() (*format.Entry, error) {
	var head [4]byte
	if _, err := io.ReadFull(l.in, head[:]); err != nil {
		return nil, err // io.EOF at the end
	}
	size := int(binary.BigEndian.Uint32(head[:]))
	if cap(l.row) < size {
		l.row = make([]byte, size)
	}
	row := l.row[:size]
	if _, err := io.ReadFull(l.in, row); err != nil {
		return nil, fmt.Errorf("read a survey: %w", err)
	}
	key := linkKey{
		dev: format.Rdev{Major: binary.BigEndian.Uint32(row), Minor: binary.BigEndian.Uint32(row[4:])},
		ino: binary.BigEndian.Uint64(row[8:]),
	}
	l.entry = format.Entry{}
	if _, err := l.entry.ParseBody(row[16:], true); err != nil {
		return nil, fmt.Errorf("read a survey: %w", err)
	}
	if l.entry.Type != format.TypeDir && l.entry.Links > 1 {
		if err := l.group(key); err != nil {
			return nil, err
		}
	}
	return &l.entry, nil
}

// group names the group of hard links that the entry is in, as the scan does.
func (l *surveyListing) group(key linkKey) error {
	g := l.links[key]
	if g == nil {
		names, err := l.survey.namesOf(key)
		if err != nil || names < 2 {
			return err
		}
		g = &linkGroup{name: groupName(l.entry.Path), left: names}
		l.links[key] = g
	}
	if g.left--; g.left == 0 {
		delete(l.links, key)
	}
	l.entry.Hardlink = g.name
	return nil
}
