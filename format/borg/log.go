package borg

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// logWriter appends segments to the log of a repository in a directory. What it
// wrote counts only when commit has returned. It is for one goroutine.
type logWriter struct {
	dir     string
	perDir  uint64
	sizeMax int64 // of a segment, which one entry may exceed
	quota   int64 // of all that was put, 0 for none
	used    int64 // of it, what the log took before and what was put since
	next    uint32
	first   uint32 // the first segment that is not committed
	file    *os.File
	w       *bufio.Writer
	number  uint32 // of the segment in file
	offset  int64
	flushed int64
	buf     []byte
	old     *os.File // a segment that is being read
	oldNo   uint32
}

func newLogWriter(dir string, perDir uint64, sizeMax int64, next uint32) *logWriter {
	return &logWriter{dir: dir, perDir: perDir, sizeMax: sizeMax, next: next, first: next, w: bufio.NewWriterSize(nil, 1<<20)}
}

func (l *logWriter) name(number uint32) string {
	return filepath.Join(l.dir, filepath.FromSlash(segmentName(number, l.perDir)))
}

// append writes an entry and returns where it lies.
func (l *logWriter) append(tag byte, id *objectID, data []byte) (place, error) {
	if l.file != nil && l.offset > l.sizeMax {
		if err := l.closeSegment(); err != nil {
			return place{}, err
		}
	}
	if l.file == nil {
		if err := l.begin(); err != nil {
			return place{}, err
		}
	}
	l.buf = appendEntry(l.buf[:0], tag, id, data)
	if len(l.buf) > entrySizeMax {
		return place{}, fmt.Errorf("write to %s: an entry of %d bytes is more than %d", l.file.Name(), len(l.buf), entrySizeMax)
	}
	if tag == tagPut {
		if err := l.take(int64(len(l.buf))); err != nil {
			return place{}, err
		}
	}
	at := place{l.number, uint32(l.offset)}
	if _, err := l.w.Write(l.buf); err != nil {
		return place{}, fmt.Errorf("write to the log of a borg repository: %w", err)
	}
	l.offset += int64(len(l.buf))
	return at, nil
}

// take uses up some of the quota. What is superseded or deleted counts until
// borg compact has removed it, as with borg.
func (l *logWriter) take(size int64) error {
	if l.used += size; l.quota == 0 || l.used <= l.quota {
		return nil
	}
	return fmt.Errorf("write %d bytes to the log, of which %d are there: it may take %d: %w", size, l.used-size, l.quota, ErrQuota)
}

// begin begins a segment.
func (l *logWriter) begin() error {
	name := l.name(l.next)
	dir := filepath.Dir(name)
	if err := os.Mkdir(dir, 0o700); err == nil {
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make a directory for segments: %w", err)
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("begin a segment: %w", err)
	}
	l.file, l.number = file, l.next
	l.next++
	l.w.Reset(file)
	if _, err := l.w.WriteString(segmentMagic); err != nil {
		return fmt.Errorf("begin a segment: %w", err)
	}
	l.offset, l.flushed = segmentMagicSize, 0
	return nil
}

// flush has everything written to the file, so that it can be read back.
func (l *logWriter) flush() error {
	if l.file == nil || l.flushed == l.offset {
		return nil
	}
	if err := l.w.Flush(); err != nil {
		return fmt.Errorf("write to the log of a borg repository: %w", err)
	}
	l.flushed = l.offset
	return nil
}

// closeSegment makes the segment durable and closes it.
func (l *logWriter) closeSegment() error {
	if l.file == nil {
		return nil
	}
	err := l.flush()
	if err == nil {
		err = l.file.Sync()
	}
	err = errors.Join(err, l.file.Close())
	name := l.file.Name()
	l.file = nil
	if err == nil {
		err = syncDir(filepath.Dir(name))
	}
	if err != nil {
		return fmt.Errorf("close the segment %s: %w", name, err)
	}
	return nil
}

// commit makes everything that was written count: when it is durable, a segment
// follows that holds nothing but the commit.
func (l *logWriter) commit() error {
	if err := l.closeSegment(); err != nil {
		return err
	}
	if _, err := l.append(tagCommit, nil, nil); err != nil {
		return err
	}
	if err := l.closeSegment(); err != nil {
		return err
	}
	l.first = l.next
	return nil
}

// rollback takes away what was not committed.
func (l *logWriter) rollback() error {
	var err error
	if l.file != nil {
		err = l.file.Close()
		l.file = nil
	}
	if l.old != nil {
		err = errors.Join(err, l.old.Close())
		l.old = nil
	}
	for l.next > l.first {
		l.next--
		if e := os.Remove(l.name(l.next)); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("take away a segment that was not committed: %w", e))
		}
	}
	return err
}

// read returns an entry that this writer wrote, with its head.
func (l *logWriter) read(at place) (*entryHead, []byte, error) {
	file, err := l.reader(at)
	if err != nil {
		return nil, nil, err
	}
	var head [putHeadSize]byte
	if _, err := file.ReadAt(head[:], int64(at.offset)); err != nil {
		return nil, nil, fmt.Errorf("read back from %s: %w", file.Name(), err)
	}
	h, err := parseEntryHead(head[:])
	if err != nil {
		return nil, nil, fmt.Errorf("read back from %s: %w", file.Name(), err)
	}
	b := make([]byte, h.size)
	if _, err := file.ReadAt(b, int64(at.offset)); err != nil {
		return nil, nil, fmt.Errorf("read back from %s: %w", file.Name(), err)
	}
	if err := checkEntry(b, &h); err != nil {
		return nil, nil, fmt.Errorf("read back from %s: %w", file.Name(), err)
	}
	return &h, b[putHeadSize:], nil
}

// reader returns an open file of a segment that this writer wrote.
func (l *logWriter) reader(at place) (*os.File, error) {
	if l.file != nil && l.number == at.segment {
		return l.file, l.flush() // its end may still be in memory
	}
	if l.old != nil && l.oldNo == at.segment {
		return l.old, nil
	}
	if l.old != nil {
		l.old.Close()
		l.old = nil
	}
	file, err := os.Open(l.name(at.segment))
	if err != nil {
		return nil, fmt.Errorf("read back a segment: %w", err)
	}
	l.old, l.oldNo = file, at.segment
	return file, nil
}

// removeUncommitted takes away the segments behind the last commit, which borg
// itself would delete before it writes: what counts is only what was committed.
func removeUncommitted(dir string, last uint32) error {
	dirs, err := os.ReadDir(filepath.Join(dir, "data"))
	if err != nil {
		return fmt.Errorf("list the segments of %s: %w", dir, err)
	}
	for _, d := range dirs {
		if _, err := strconv.ParseUint(d.Name(), 10, 32); err != nil || !d.IsDir() {
			continue
		}
		below := filepath.Join(dir, "data", d.Name())
		files, err := os.ReadDir(below)
		if err != nil {
			return fmt.Errorf("list the segments of %s: %w", dir, err)
		}
		for _, f := range files {
			n, err := strconv.ParseUint(f.Name(), 10, 32)
			if err != nil || n <= uint64(last) {
				continue
			}
			if err := os.Remove(filepath.Join(below, f.Name())); err != nil {
				return fmt.Errorf("take away a segment of an interrupted backup: %w", err)
			}
		}
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("make a directory durable: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("make %s durable: %w", name, err)
	}
	return nil
}

// replaceEmpty renames a directory to where there is none, or an empty one, which
// os.Rename does not.
func replaceEmpty(from, to string) error {
	if err := unix.Rename(from, to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// writeFile makes or replaces a small file so that it is whole whatever happens.
func writeFile(name string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", name, err)
	}
	return syncDir(filepath.Dir(name))
}
