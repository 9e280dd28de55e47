package disk

import (
	"errors"
	"io/fs"
	"math/bits"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// task is what is to be done about a path.
type task uint8

const (
	taskNone   task = iota // nothing but to report troubles
	taskRemove             // the previous listing has it and this one has not
	taskEntry              // the entry is complete
	taskMeta               // a reader completes the entry of something that is not a file or directory
	taskFile               // a reader completes the entry and reads the content
	taskLink               // as taskFile, but the content came with another link before
	taskAdopt              // the entry is complete, its content is the parent's
)

// item is one path on its way from the merge by a reader to Next. Each of the
// three owns it in turn.
type item struct {
	task   task
	path   string
	name   cname
	dir    *dir
	status status
	// prev, if set, is the previous entry, equal in what status tells: the entry
	// goes out only if the rest differs.
	prev *format.Entry
	// had says that the previous listing has something here or below.
	had      bool
	hardlink string
	names    uint32        // how many the entry has in the listing; 0: as status says
	content  *linkContent  // of the group of hard links, to be recorded or repeated
	known    *knownContent // that need not be read
	reserved int64         // bytes of the budget

	// From a reader:
	entry    format.Entry
	pieces   []piece
	stream   *stream // the pieces after those
	cut      string  // what cut the content short
	same     bool    // equal to prev: nothing goes out
	gone     bool    // there is nothing that could go out
	troubles []trouble
}

// piece is a chunk of content or a hole.
type piece struct {
	hole    uint64 // size of a hole; otherwise it is a chunk
	id      format.ID
	size    uint32
	codec   format.Codec
	payload []byte
	known   bool // the chunk was sent before and has no payload
}

// trouble is something that could not be read as it should be.
type trouble struct {
	loss string
	err  error
}

// fail records that nothing of the item can go out.
func (it *item) fail(op string, err error) {
	it.gone = true
	it.troubles = append(it.troubles, troubleOf(op, it.path, err))
}

// note records a trouble in spite of which the item goes out.
func (it *item) note(loss, op string, err error) {
	it.troubles = append(it.troubles, trouble{loss, &fs.PathError{Op: op, Path: "/" + it.path, Err: err}})
}

// fill makes the entry of what status tells.
func (it *item) fill(owners *ownerMemo) {
	it.entry = format.Entry{Target: it.entry.Target}
	it.status.fill(&it.entry, it.path, owners)
	it.entry.Hardlink = it.hardlink
	if it.names > 0 {
		it.entry.Links = uint64(it.names)
	}
}

// translate gives the complete entry to the caller's function, if there is one.
func (it *item) translate(o *ScanOptions, read func() ([]byte, error)) {
	if o.Translate == nil {
		return
	}
	if read == nil {
		read = func() ([]byte, error) { return nil, errors.New("it has no content") }
	}
	if err := o.Translate(&it.entry, read); err != nil {
		it.note(LossXattr, "understand attributes of", err)
	}
}

// lost reports whether a trouble of a kind was noted.
func (it *item) lost(kind string) bool {
	return slices.ContainsFunc(it.troubles, func(t trouble) bool { return t.loss == kind })
}

// troubleOf tells what vanished from what cannot be read.
func troubleOf(op, path string, err error) trouble {
	t := trouble{LossUnreadable, &fs.PathError{Op: op, Path: "/" + path, Err: err}}
	if isVanished(err) {
		t.loss = LossVanished
	}
	return t
}

// isVanished reports whether a name no longer means what its directory's
// listing said: it is gone, or has another type.
func isVanished(err error) bool {
	for _, errno := range []unix.Errno{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENXIO, unix.ESTALE, unix.EINVAL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return errors.Is(err, errReplaced)
}

var errReplaced = errors.New("it is no longer the type of file that it was")

// group is some items that one reader does in one go.
type group struct {
	items     []item
	size      int64 // bytes of content to be read
	work      bool  // some item needs a reader
	done      chan struct{}
	unchanged ScanStats // what was passed without an item since the group before
}

const (
	groupItemsMax = 64
	groupSizeMax  = 1 << 20
)

// linkContent is the content of a file with several names, recorded when the
// first one goes out and repeated for the others.
type linkContent struct {
	entry    format.Entry
	pieces   []piece // without payloads
	cut      string
	recorded bool // otherwise the first name's file could not be opened
}

// linkGroup is the names that a file has in the listing.
type linkGroup struct {
	name    string // what Entry.Hardlink says
	left    uint32 // names not seen yet
	content *linkContent
	weight  int64
}

// linksWeightMax bounds what is kept in memory of the content of files whose
// names have not all been seen, in bytes. Beyond that content is read again.
const linksWeightMax = 32 << 20

// linkWeight estimates the memory that the list of a file's chunks takes.
func linkWeight(size uint64) int64 { return int64(512 + size>>16*80) }

// linkKey is what all names of one file share.
type linkKey struct {
	dev format.Rdev
	ino uint64
}

// reserveSize returns what reading a file takes from the budget: payloads lie in
// buffers of powers of two, from 4 KiB.
func reserveSize(size uint64) int64 {
	if size > fileSizeInline {
		return streamReserve
	}
	return int64(max(4<<10, uint64(1)<<bits.Len64(size-min(size, 1))))
}
