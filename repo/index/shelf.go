package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrNoCache says that a run of the index could not be written where it should
// be kept. Nothing is wrong with the repository.
var ErrNoCache = errors.New("the cache cannot be written")

// shelf is where a run lies.
type shelf int

// Which writes are indispensable: a run has to lie somewhere, since what it lists
// is found by nothing else. That it is kept for the next program, and that small
// runs are merged, only saves time. So a run that cannot be kept goes to the next
// shelf, runs that cannot be merged stay as they are, and it is an error only if
// no shelf has room for what is new.
const (
	shelfKept   shelf = iota // a file in the cache's directory, which the next program finds
	shelfTemp                // a file without a name where temporary files are
	shelfMemory              // memory, up to memoryMax
)

// memoryMax bounds the bytes of the runs that lie in memory: 1.6 million chunks.
// It is a variable for tests.
var memoryMax int64 = 64 << 20

// makeFile makes the file of a run. It is a variable for tests, which let it fail.
var makeFile = os.CreateTemp

// file makes the file of a run, and says what it will be named when it is whole;
// empty if it has no name.
func (s shelf) file(dir string) (f *os.File, final string, err error) {
	switch s {
	case shelfKept:
		if f, err = makeFile(dir, ".run-*"); err == nil {
			final = filepath.Join(dir, "run-"+filepath.Base(f.Name())[len(".run-"):])
		}
	case shelfTemp:
		if f, err = makeFile("", "bk-index-*"); err == nil {
			err = os.Remove(f.Name())
		}
	case shelfMemory:
		f, err = memoryFile()
	}
	if err != nil && f != nil {
		f.Close()
	}
	return f, final, err
}

// newRun makes a run of at most size bytes, on the first shelf from best on that
// takes it. write gets its file and its final name.
func (c *Cache) newRun(best shelf, size uint64, write func(f *os.File, final string) (*Run, error)) (*Run, error) {
	if best == shelfKept && c.keeps {
		run, err := putOn(shelfKept, c.dir, write)
		if !errors.Is(err, ErrNoCache) {
			return run, err
		}
		c.stopKeeping(err)
	}
	run, temp := putOn(shelfTemp, "", write)
	if !errors.Is(temp, ErrNoCache) {
		return run, temp
	}
	if held := c.inMemory(); uint64(held)+size > uint64(memoryMax) {
		full := fmt.Errorf("%w, and an index of %d KiB is too large to lie in memory", temp, (uint64(held)+size)>>10)
		if c.unkept != nil {
			full = fmt.Errorf("%w; elsewhere: %w", c.unkept, full)
		}
		return nil, full
	}
	return putOn(shelfMemory, "", write)
}

func putOn(s shelf, dir string, write func(f *os.File, final string) (*Run, error)) (*Run, error) {
	f, final, err := s.file(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCache, err)
	}
	run, err := write(f, final)
	if err != nil {
		f.Close()
		if final != "" {
			os.Remove(f.Name())
		}
		return nil, err
	}
	run.shelf = s
	return run, nil
}

// inMemory returns how many bytes of runs lie in memory.
func (c *Cache) inMemory() (bytes int64) {
	for _, r := range c.runs {
		if r.shelf == shelfMemory {
			bytes += int64(len(r.file))
		}
	}
	return bytes
}

// stopKeeping tells why nothing more goes to the cache's directory. That it is
// not tried again spares a full disk the last of its space.
func (c *Cache) stopKeeping(why error) {
	c.unkept = why
	if c.keeps && c.warn != nil {
		c.warn(why)
	}
	c.keeps = false
}
