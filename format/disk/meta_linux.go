package disk

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// cname is the name of a file within its directory that has a NUL byte behind
// it in memory, so that system calls take it without a copy.
type cname string

// newCname makes a cname of any string without NUL bytes.
func newCname(s string) cname { return cname((s + "\x00")[:len(s)]) }

func (n cname) pointer() unsafe.Pointer {
	if n == "" {
		return unsafe.Pointer(&nul)
	}
	return unsafe.Pointer(unsafe.StringData(string(n)))
}

var nul byte

// status is what statx says about a file, in the stream's types.
type status struct {
	mode         uint16 // with the type, as st_mode
	hasBtime     bool
	nlink        uint32
	uid, gid     uint32
	rdev         format.Rdev
	dev          format.Rdev
	ino          uint64
	size         uint64
	blocks       uint64 // of 512 bytes
	attributes   uint64 // STATX_ATTR_...
	atime, mtime format.Time
	ctime, btime format.Time
}

// kind returns the type of the file, and false for one that Linux does not have.
func (st *status) kind() (format.Type, bool) {
	switch st.mode & unix.S_IFMT {
	case unix.S_IFREG:
		return format.TypeFile, true
	case unix.S_IFDIR:
		return format.TypeDir, true
	case unix.S_IFLNK:
		return format.TypeSymlink, true
	case unix.S_IFCHR:
		return format.TypeChar, true
	case unix.S_IFBLK:
		return format.TypeBlock, true
	case unix.S_IFIFO:
		return format.TypeFifo, true
	case unix.S_IFSOCK:
		return format.TypeSocket, true
	}
	return "", false
}

func (st *status) isDir() bool     { return st.mode&unix.S_IFMT == unix.S_IFDIR }
func (st *status) isFile() bool    { return st.mode&unix.S_IFMT == unix.S_IFREG }
func (st *status) isSymlink() bool { return st.mode&unix.S_IFMT == unix.S_IFLNK }

// sameContent reports whether nobody wrote to the file between two looks.
func (st *status) sameContent(other *status) bool {
	return st.ino == other.ino && st.dev == other.dev && st.size == other.size && st.mtime == other.mtime
}

// fill sets everything in e that status knows. Names of owners come from owners.
func (st *status) fill(e *format.Entry, path string, owners *ownerMemo) {
	kind, _ := st.kind()
	e.Path, e.Type = path, kind
	e.Has = format.HasMode | format.HasUID | format.HasGID | format.HasMtime |
		format.HasAtime | format.HasCtime | format.HasInode | format.HasLinks
	e.Mode, e.UID, e.GID = uint32(st.mode&0o7777), st.uid, st.gid
	e.User, e.Group = owners.user(st.uid), owners.group(st.gid)
	e.Mtime, e.Atime, e.Ctime = st.mtime, st.atime, st.ctime
	e.Inode, e.Links = st.ino, uint64(st.nlink)
	if st.hasBtime {
		e.Has |= format.HasBtime
		e.Btime = st.btime
	}
	switch kind {
	case format.TypeFile:
		e.Has |= format.HasSize
		e.Size = st.size
	case format.TypeChar, format.TypeBlock:
		e.Rdev = st.rdev
	}
}

// prober asks the kernel about files. It owns the buffers that system calls
// fill, so that none is allocated for each call; it is for one goroutine.
type prober struct {
	statx unix.Statx_t
	names []byte // list of attribute names
	value []byte // value of an attribute, target of a link
	args  xattrArgs
	// withoutAt is set once the kernel says that it has no listxattrat (6.13).
	withoutAt bool
}

// xattrArgs is struct xattr_args of getxattrat(2).
type xattrArgs struct {
	value uint64
	size  uint32
	flags uint32
}

const (
	xattrListSizeMax  = 64 << 10 // XATTR_LIST_MAX
	xattrValueSizeMax = 64 << 10 // XATTR_SIZE_MAX
	// xattrsSizeMax bounds names and values of one entry together, well below
	// what the body of a record may have.
	xattrsSizeMax = 4 << 20
	statxMask     = unix.STATX_BASIC_STATS | unix.STATX_BTIME
)

func newProber() *prober {
	return &prober{names: make([]byte, xattrListSizeMax), value: make([]byte, xattrValueSizeMax)}
}

// retry calls a system call again for as long as a signal interrupts it. What
// its arguments point to stays in place until it returns.
//
//go:uintptrescapes
func retry(trap, a, b, c, d, e, f uintptr) (uintptr, error) {
	for {
		r, _, errno := unix.Syscall6(trap, a, b, c, d, e, f)
		switch errno {
		case 0:
			return r, nil
		case unix.EINTR:
		default:
			return r, errno
		}
	}
}

// statAt takes the status of name in dirfd; flags may be AT_SYMLINK_NOFOLLOW.
func (p *prober) statAt(dirfd int, name cname, flags int, st *status) error {
	_, err := retry(unix.SYS_STATX, uintptr(dirfd), uintptr(name.pointer()), uintptr(flags|unix.AT_NO_AUTOMOUNT),
		statxMask, uintptr(unsafe.Pointer(&p.statx)), 0)
	if err != nil {
		return err
	}
	x := &p.statx
	*st = status{
		mode:       x.Mode,
		hasBtime:   x.Mask&unix.STATX_BTIME != 0,
		nlink:      x.Nlink,
		uid:        x.Uid,
		gid:        x.Gid,
		rdev:       format.Rdev{Major: x.Rdev_major, Minor: x.Rdev_minor},
		dev:        format.Rdev{Major: x.Dev_major, Minor: x.Dev_minor},
		ino:        x.Ino,
		size:       x.Size,
		blocks:     x.Blocks,
		attributes: x.Attributes & x.Attributes_mask,
		atime:      format.Time{Sec: x.Atime.Sec, Nsec: x.Atime.Nsec},
		mtime:      format.Time{Sec: x.Mtime.Sec, Nsec: x.Mtime.Nsec},
		ctime:      format.Time{Sec: x.Ctime.Sec, Nsec: x.Ctime.Nsec},
		btime:      format.Time{Sec: x.Btime.Sec, Nsec: x.Btime.Nsec},
	}
	return nil
}

// statFD takes the status of an open file.
func (p *prober) statFD(fd int, st *status) error {
	// The empty name means the descriptor itself.
	return p.statAt(fd, "", unix.AT_EMPTY_PATH, st)
}

// openAt opens name in dirfd. The descriptor is closed on exec.
func openAt(dirfd int, name cname, flags int) (int, error) {
	fd, err := retry(unix.SYS_OPENAT, uintptr(dirfd), uintptr(name.pointer()), uintptr(flags|unix.O_CLOEXEC|unix.O_LARGEFILE), 0, 0, 0)
	return int(fd), err
}

// openQuietAt is openAt for reading without a trace in the access time, where
// the kernel lets us: the owner and root may ask for that.
func openQuietAt(dirfd int, name cname, flags int) (int, error) {
	fd, err := openAt(dirfd, name, flags|unix.O_NOATIME)
	if err == unix.EPERM {
		return openAt(dirfd, name, flags)
	}
	return fd, err
}

// readlinkAt returns the target of a symbolic link.
func (p *prober) readlinkAt(dirfd int, name cname) (string, error) {
	n, err := retry(unix.SYS_READLINKAT, uintptr(dirfd), uintptr(name.pointer()),
		uintptr(unsafe.Pointer(&p.value[0])), uintptr(len(p.value)), 0, 0)
	if err != nil {
		return "", err
	}
	return string(p.value[:n]), nil
}

// xattrsFD returns all extended attributes of an open file that we may see,
// sorted by name. Where some could not be read it returns the others and an
// error that names the first.
func (p *prober) xattrsFD(fd int) ([]format.Xattr, error) {
	n, err := retry(unix.SYS_FLISTXATTR, uintptr(fd), uintptr(unsafe.Pointer(&p.names[0])), uintptr(len(p.names)), 0, 0, 0)
	if err != nil || n == 0 {
		return nil, noXattrs(err)
	}
	return p.values(int(n), func(name unsafe.Pointer) (uintptr, error) {
		return retry(unix.SYS_FGETXATTR, uintptr(fd), uintptr(name), uintptr(unsafe.Pointer(&p.value[0])), uintptr(len(p.value)), 0, 0)
	})
}

// xattrsAt is xattrsFD for name in dirfd, which it neither opens nor follows.
func (p *prober) xattrsAt(dirfd int, name cname) ([]format.Xattr, error) {
	if p.withoutAt {
		return p.xattrsProc(dirfd, name)
	}
	n, err := retry(unix.SYS_LISTXATTRAT, uintptr(dirfd), uintptr(name.pointer()), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(&p.names[0])), uintptr(len(p.names)), 0)
	if err == unix.ENOSYS || err == unix.EPERM {
		// Sandboxes refuse calls that they do not know with EPERM.
		p.withoutAt = true
		return p.xattrsProc(dirfd, name)
	}
	if err != nil || n == 0 {
		return nil, noXattrs(err)
	}
	return p.values(int(n), func(attr unsafe.Pointer) (uintptr, error) {
		p.args = xattrArgs{value: uint64(uintptr(unsafe.Pointer(&p.value[0]))), size: uint32(len(p.value))}
		return retry(unix.SYS_GETXATTRAT, uintptr(dirfd), uintptr(name.pointer()), unix.AT_SYMLINK_NOFOLLOW,
			uintptr(attr), uintptr(unsafe.Pointer(&p.args)), unsafe.Sizeof(p.args))
	})
}

// xattrsProc does xattrsAt on kernels before 6.13: by way of /proc the path
// stays short and every link on it but the descriptor's is ours.
func (p *prober) xattrsProc(dirfd int, name cname) ([]format.Xattr, error) {
	path := newCname("/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + string(name))
	n, err := retry(unix.SYS_LLISTXATTR, uintptr(path.pointer()), uintptr(unsafe.Pointer(&p.names[0])), uintptr(len(p.names)), 0, 0, 0)
	if err != nil || n == 0 {
		return nil, noXattrs(err)
	}
	return p.values(int(n), func(attr unsafe.Pointer) (uintptr, error) {
		return retry(unix.SYS_LGETXATTR, uintptr(path.pointer()), uintptr(attr), uintptr(unsafe.Pointer(&p.value[0])), uintptr(len(p.value)), 0, 0)
	})
}

// noXattrs turns the answer of a file system without attributes into none.
func noXattrs(err error) error {
	if err == nil || err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		return nil
	}
	return fmt.Errorf("list extended attributes: %w", err)
}

// values reads the attributes whose names stand in p.names[:n], each closed by
// a NUL byte, and sorts them.
func (p *prober) values(n int, get func(name unsafe.Pointer) (uintptr, error)) ([]format.Xattr, error) {
	list := string(p.names[:n])
	xattrs := make([]format.Xattr, 0, strings.Count(list, "\x00"))
	var failed error
	total := 0
	for len(list) > 0 {
		name, rest, ok := strings.Cut(list, "\x00")
		if !ok {
			break
		}
		size, err := get(cname(list).pointer())
		list = rest
		if err == unix.ENODATA {
			continue // gone since the names were listed
		}
		if err == nil && (len(xattrs) == format.XattrsMax || total+len(name)+int(size) > xattrsSizeMax) {
			err = errors.New("more attributes than one entry can have")
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("read extended attribute %q: %w", name, err))
			continue
		}
		total += len(name) + int(size)
		xattrs = append(xattrs, format.Xattr{Name: name, Value: string(p.value[:size])})
	}
	slices.SortFunc(xattrs, func(a, b format.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return xattrs, failed
}

// fileFlag is one flag of FS_IOC_GETFLAGS by its name in the stream.
type fileFlag struct {
	name string
	bit  uint32
}

// fileFlags are the flags that a person can set with chattr(1), sorted by name.
// The others tell how a file system stores a file and mean nothing elsewhere.
// The bits are those of linux/fs.h.
var fileFlags = []fileFlag{
	{"append", 0x00000020},
	{"casefold", 0x40000000},
	{"compress", 0x00000004},
	{"dax", 0x02000000},
	{"dirsync", 0x00010000},
	{"immutable", 0x00000010},
	{"journal-data", 0x00004000},
	{"noatime", 0x00000080},
	{"nocompress", 0x00000400},
	{"nocow", 0x00800000},
	{"nodump", 0x00000040},
	{"notail", 0x00008000},
	{"project-inherit", 0x20000000},
	{"secure-delete", 0x00000001},
	{"sync", 0x00000008},
	{"top-dir", 0x00020000},
	{"undelete", 0x00000002},
}

// flagNames returns the names of the flags in bits, sorted; nil if there is none.
func flagNames(bits uint32) []string {
	var names []string
	for _, f := range fileFlags {
		if bits&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	return names
}

// flagBits is the reverse of flagNames. It also returns the names that Linux
// does not have.
func flagBits(names []string) (bits uint32, unknown []string) {
	for _, name := range names {
		i := slices.IndexFunc(fileFlags, func(f fileFlag) bool { return f.name == name })
		if i < 0 {
			unknown = append(unknown, name)
			continue
		}
		bits |= fileFlags[i].bit
	}
	return bits, unknown
}

// flagsFD returns the flags of an open file or directory. Where the file system
// has no call for it, st has the few that statx knows.
func flagsFD(fd int, st *status) []string {
	bits, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return flagsOf(st)
	}
	return flagNames(bits)
}

// flagsOf returns the flags that statx knows.
func flagsOf(st *status) []string {
	const known = unix.STATX_ATTR_COMPRESSED | unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND | unix.STATX_ATTR_NODUMP
	// The values of these attributes are those of the flags on purpose.
	return flagNames(uint32(st.attributes & known))
}

// ownerCache knows the names of users and groups by number. Any number of
// goroutines may use it.
type ownerCache struct {
	users, groups sync.Map // uint32 to string
}

func cached(m *sync.Map, id uint32, lookup func(id string) string) string {
	if name, ok := m.Load(id); ok {
		return name.(string)
	}
	name := lookup(strconv.FormatUint(uint64(id), 10))
	if len(name) > format.TextSizeMax {
		name = ""
	}
	m.Store(id, name)
	return name
}

// user returns the name of a user, or "" if there is none.
func (c *ownerCache) user(id uint32) string {
	return cached(&c.users, id, func(id string) string {
		if u, err := user.LookupId(id); err == nil {
			return u.Username
		}
		return ""
	})
}

// group returns the name of a group, or "" if there is none.
func (c *ownerCache) group(id uint32) string {
	return cached(&c.groups, id, func(id string) string {
		if g, err := user.LookupGroupId(id); err == nil {
			return g.Name
		}
		return ""
	})
}

// ownerMemo remembers the last answers of an ownerCache, since files that lie
// together mostly have one owner. It is for one goroutine.
type ownerMemo struct {
	cache      *ownerCache
	uid, gid   uint32
	uname      string
	gname      string
	hasU, hasG bool
}

func (m *ownerMemo) user(id uint32) string {
	if !m.hasU || m.uid != id {
		m.uid, m.uname, m.hasU = id, m.cache.user(id), true
	}
	return m.uname
}

func (m *ownerMemo) group(id uint32) string {
	if !m.hasG || m.gid != id {
		m.gid, m.gname, m.hasG = id, m.cache.group(id), true
	}
	return m.gname
}
