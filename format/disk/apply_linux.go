package disk

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// Names of the attributes that hold ACLs, in the kernel's binary form.
const (
	xattrACLAccess  = "system.posix_acl_access"
	xattrACLDefault = "system.posix_acl_default"
	xattrCapability = "security.capability"
)

// metadata is what a restore sets on an object.
type metadata struct {
	has    format.Has
	mode   uint32
	uid    int // resolved for this system; -1 where it is not to be set
	gid    int
	mtime  format.Time
	atime  format.Time
	xattrs []format.Xattr
	flags  []string
}

// present is what is known about an object before metadata is set on it.
type present struct {
	uid, gid int    // -1: not known
	mode     uint32 // permission bits
	modeOK   bool   // mode is known
	// fresh: the restore has made the object and it has no attribute that the
	// directory handed down.
	fresh bool
	stat  *unix.Stat_t // of an object that was there; nil for one just made
}

func presentOf(st *unix.Stat_t) present {
	return present{uid: int(st.Uid), gid: int(st.Gid), mode: st.Mode & 07777, modeOK: true, stat: st}
}

// applier sets metadata and reports what cannot be set.
type applier struct {
	root bool
	loss func(kind, path string, err error)
}

// file sets everything but flags on an open file or directory, in the order in
// which no step undoes another: stale attributes, owner (which clears setuid and
// capabilities), attributes, mode, ACLs (a later chmod would change their mask),
// times. Flags come when the file has its name, since immutable allows nothing
// after it.
func (a *applier) file(fd int, path string, m *metadata, had present) {
	owned := true
	if !had.fresh {
		a.dropXattrs(path, m, fdXattrs(fd))
	}
	if want := m.owner(had); want.differ {
		if err := fchown(fd, want.uid, want.gid); err != nil {
			owned = false
			a.loss(LossOwner, path, fmt.Errorf("set owner %d and group %d: %w", want.uid, want.gid, err))
			// The group alone may be among the user's own.
			if want.gid >= 0 && want.gid != had.gid {
				_ = fchown(fd, -1, want.gid)
			}
		}
		had.modeOK = had.modeOK && had.mode&06000 == 0
	}
	if len(m.xattrs) > 0 {
		a.setXattrs(path, m, fdXattrs(fd), false)
	}
	if m.has&format.HasMode != 0 {
		mode := a.mode(path, m, owned)
		if !had.modeOK || had.mode != mode {
			if err := unix.Fchmod(fd, mode); err != nil {
				a.loss(LossMode, path, fmt.Errorf("set mode %04o: %w", mode, err))
			}
		}
	}
	if len(m.xattrs) > 0 {
		a.setXattrs(path, m, fdXattrs(fd), true)
	}
	a.times(fd, path, m)
}

// link sets everything on an object that is not opened: a symbolic link, a
// device, a fifo, a socket. dirfd and name say where it is, and typ what.
func (a *applier) node(dirfd int, name, path string, typ format.Type, m *metadata, had present) {
	owned := true
	xattrs := nameXattrs(dirfd, name)
	if !had.fresh {
		a.dropXattrs(path, m, xattrs)
	}
	if want := m.owner(had); want.differ {
		if err := unix.Fchownat(dirfd, name, want.uid, want.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			owned = false
			a.loss(LossOwner, path, fmt.Errorf("set owner %d and group %d: %w", want.uid, want.gid, err))
			if want.gid >= 0 && want.gid != had.gid {
				_ = unix.Fchownat(dirfd, name, -1, want.gid, unix.AT_SYMLINK_NOFOLLOW)
			}
		}
		had.modeOK = had.modeOK && had.mode&06000 == 0
	}
	a.setXattrs(path, m, xattrs, false)
	// The mode of a symbolic link means nothing and cannot be set.
	if typ != format.TypeSymlink && m.has&format.HasMode != 0 {
		mode := a.mode(path, m, owned)
		if !had.modeOK || had.mode != mode {
			if err := chmodNode(dirfd, name, mode); err != nil {
				a.loss(LossMode, path, fmt.Errorf("set mode %04o: %w", mode, err))
			}
		}
	}
	a.setXattrs(path, m, xattrs, true)
	if m.has&format.HasMtime != 0 {
		ts := m.timespecs()
		if err := unix.UtimesNanoAt(dirfd, name, ts[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
			a.loss(LossTime, path, fmt.Errorf("set times: %w", err))
		} else if m.farTime() {
			var st unix.Stat_t
			if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
				a.checkTime(path, m, &st)
			}
		}
	}
	if len(m.flags) > 0 {
		a.loss(LossFlags, path, fmt.Errorf("flags %s: only files and directories have them", strings.Join(m.flags, ", ")))
	}
}

type wantedOwner struct {
	uid, gid int
	differ   bool
}

// owner says what to hand to chown; -1 leaves one of the two.
func (m *metadata) owner(had present) wantedOwner {
	w := wantedOwner{uid: m.uid, gid: m.gid}
	if w.uid == had.uid {
		w.uid = -1
	}
	if w.gid == had.gid {
		w.gid = -1
	}
	w.differ = w.uid != -1 || w.gid != -1
	return w
}

// mode is the mode to set: setuid and setgid only together with the owner they
// were meant for, or they would lend out the rights of whoever restores.
func (a *applier) mode(path string, m *metadata, owned bool) uint32 {
	if owned || m.mode&06000 == 0 {
		return m.mode
	}
	a.loss(LossMode, path, fmt.Errorf("setuid and setgid left out of mode %04o, because the owner could not be set", m.mode))
	return m.mode &^ 06000
}

// timespecs are the times for utimensat: of access, if it is known, and of
// modification.
func (m *metadata) timespecs() [2]unix.Timespec {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	if m.has&format.HasAtime != 0 {
		ts[0] = timespec(m.atime)
	}
	if m.has&format.HasMtime != 0 {
		ts[1] = timespec(m.mtime)
	}
	return ts
}

// farTime reports whether the time lies where some file systems cannot go; such
// a time is read back, because they store another without an error.
func (m *metadata) farTime() bool { return m.mtime.Sec < 0 || m.mtime.Sec > 1<<31-1 }

func (a *applier) times(fd int, path string, m *metadata) {
	if m.has&(format.HasMtime|format.HasAtime) == 0 {
		return
	}
	ts := m.timespecs()
	if err := futimens(fd, &ts); err != nil {
		a.loss(LossTime, path, fmt.Errorf("set times: %w", err))
		return
	}
	if m.has&format.HasMtime != 0 && m.farTime() {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil {
			a.checkTime(path, m, &st)
		}
	}
}

func (a *applier) checkTime(path string, m *metadata, st *unix.Stat_t) {
	if got := timeOf(st.Mtim); got != m.mtime {
		a.loss(LossTimeRange, path, fmt.Errorf("the file system stores the time of modification %d s as %d s", m.mtime.Sec, got.Sec))
	}
}

func timespec(t format.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
}

func timeOf(ts unix.Timespec) format.Time {
	return format.Time{Sec: ts.Sec, Nsec: uint32(ts.Nsec)}
}

// isACL reports whether an attribute is an ACL, set after the mode.
func isACL(name string) bool { return name == xattrACLAccess || name == xattrACLDefault }

// isOurs reports whether an attribute that an entry does not have is removed
// from an object that was there before. Labels that a security module sets by
// itself stay.
func isOurs(name string) bool {
	return isACL(name) || name == xattrCapability || strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.")
}

// xattrCalls are the three calls for attributes, on an open file or by name.
type xattrCalls struct {
	list   func(buf []byte) (int, error)
	get    func(name string, buf []byte) (int, error)
	set    func(name string, value []byte) error
	remove func(name string) error
}

func fdXattrs(fd int) xattrCalls {
	return xattrCalls{
		list:   func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) },
		get:    func(name string, buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) },
		set:    func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) },
		remove: func(name string) error { return unix.Fremovexattr(fd, name) },
	}
}

// nameXattrs reaches an object that cannot be opened through the descriptor of
// its directory, so that no other directory can be put in between.
func nameXattrs(dirfd int, name string) xattrCalls {
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, name)
	return xattrCalls{
		list:   func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) },
		get:    func(name string, buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) },
		set:    func(name string, value []byte) error { return unix.Lsetxattr(path, name, value, 0) },
		remove: func(name string) error { return unix.Lremovexattr(path, name) },
	}
}

// setXattrs sets the ACLs, or everything else.
func (a *applier) setXattrs(path string, m *metadata, calls xattrCalls, acls bool) {
	for _, x := range m.xattrs {
		if isACL(x.Name) != acls {
			continue
		}
		if err := calls.set(x.Name, []byte(x.Value)); err != nil {
			kind := LossXattr
			if acls {
				kind = LossACL
			}
			a.loss(kind, path, fmt.Errorf("set attribute %q of %d bytes: %w", x.Name, len(x.Value), err))
		}
	}
}

// dropXattrs removes attributes that the object has and the entry does not.
func (a *applier) dropXattrs(path string, m *metadata, calls xattrCalls) {
	for _, name := range listXattrs(calls) {
		if !isOurs(name) || slices.ContainsFunc(m.xattrs, func(x format.Xattr) bool { return x.Name == name }) {
			continue
		}
		if err := calls.remove(name); err != nil && !errors.Is(err, unix.ENODATA) {
			kind := LossXattr
			if isACL(name) {
				kind = LossACL
			}
			a.loss(kind, path, fmt.Errorf("remove attribute %q: %w", name, err))
		}
	}
}

// listXattrs returns the names of an object's attributes, none where the file
// system has no attributes.
func listXattrs(calls xattrCalls) []string {
	buf := make([]byte, 1024)
	for {
		n, err := calls.list(buf)
		if errors.Is(err, unix.ERANGE) && len(buf) < 1<<20 {
			buf = make([]byte, 4*len(buf))
			continue
		}
		if err != nil || n <= 0 {
			return nil
		}
		return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	}
}

// sameXattrs reports whether an object has the entry's attributes and no other
// that a restore would remove.
func sameXattrs(m *metadata, calls xattrCalls) bool {
	for _, name := range listXattrs(calls) {
		if isOurs(name) && !slices.ContainsFunc(m.xattrs, func(x format.Xattr) bool { return x.Name == name }) {
			return false
		}
	}
	for _, x := range m.xattrs {
		buf := make([]byte, len(x.Value)+1)
		n, err := calls.get(x.Name, buf)
		if err != nil || string(buf[:n]) != x.Value {
			return false
		}
	}
	return true
}

// Flags that keep everybody, root included, from changing an object.
const flagsHard = 0x10 | 0x20 // immutable, append

// setFlags adds flags to those that the file system gave the object.
func (a *applier) setFlags(fd int, path string, names []string) {
	if len(names) == 0 {
		return
	}
	bits, unknown := flagBits(names)
	if len(unknown) > 0 {
		a.loss(LossFlags, path, fmt.Errorf("flags %s are not known here", strings.Join(unknown, ", ")))
	}
	if bits == 0 {
		return
	}
	have, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err == nil && have&bits != bits {
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(have|bits))
		if err != nil && bits&flagsHard != 0 && bits&^flagsHard != 0 {
			// An ordinary user may set the others.
			_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(have|bits&^flagsHard))
		}
	}
	if err != nil {
		a.loss(LossFlags, path, fmt.Errorf("set flags %s: %w", strings.Join(names, ", "), err))
	}
}

// hasHardFlags reports whether an entry has a flag that forbids changes.
func hasHardFlags(names []string) bool {
	return slices.Contains(names, "immutable") || slices.Contains(names, "append")
}

// softenFD takes the flags that forbid changes off an open object, and returns
// all its flags for hardenFD, or 0 if there was nothing to take off.
func softenFD(fd int) uint32 {
	have, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || have&flagsHard == 0 ||
		unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(have&^flagsHard)) != nil {
		return 0
	}
	return have
}

// hardenFD puts flags back that softenFD took off.
func hardenFD(fd int, flags uint32) {
	if flags != 0 {
		_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags))
	}
}

// soften is softenFD for a regular file or a directory by name. harden puts the
// flags back, whatever the name is then: other names of a file that is removed
// still have them.
func soften(dirfd int, name string) (harden func()) {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return func() {}
	}
	flags := softenFD(fd)
	return func() {
		hardenFD(fd, flags)
		unix.Close(fd)
	}
}

// softenForGood is soften for what gets its flags in another way.
func softenForGood(dirfd int, name string) {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	softenFD(fd)
	unix.Close(fd)
}

// chmodNode changes the mode of an object that is not a symbolic link, and
// never that of one that a link leads to.
func chmodNode(dirfd int, name string, mode uint32) error {
	err := unix.Fchmodat(dirfd, name, mode, unix.AT_SYMLINK_NOFOLLOW)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// Before Linux 6.6: a descriptor that only names the object, by way of /proc.
	fd, err := unix.Openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
}

func fchown(fd, uid, gid int) error {
	_, err := retry(unix.SYS_FCHOWN, uintptr(fd), uintptr(uid), uintptr(gid), 0, 0, 0)
	return err
}

// futimens sets the times of an open file.
func futimens(fd int, ts *[2]unix.Timespec) error {
	_, err := retry(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	return err
}

// processUmask is the mask that the kernel takes off the modes of new files;
// false where /proc does not tell it.
func processUmask() (uint32, bool) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Umask:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(rest), 8, 12)
			return uint32(mask), err == nil
		}
	}
	return 0, false
}

// kept sets metadata on a file whose content was left as it is, if any differs.
func (a *applier) kept(fd int, path string, m *metadata, st *unix.Stat_t) {
	had := presentOf(st)
	same := !m.owner(had).differ && (m.has&format.HasMode == 0 || m.mode == had.mode) && sameXattrs(m, fdXattrs(fd))
	if same && hasFlags(fd, m.flags) {
		return
	}
	if hasHardFlags(m.flags) {
		softenFD(fd)
	}
	a.file(fd, path, m, had)
	a.setFlags(fd, path, m.flags)
}

// hasFlags reports whether an open object has all these flags.
func hasFlags(fd int, names []string) bool {
	bits, _ := flagBits(names)
	if bits == 0 {
		return true
	}
	have, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	return err == nil && have&bits == bits
}

// openNew creates a file that must not be there yet, and opens it for reading
// and writing.
func openNew(dirfd int, name cname, mode uint32) (int, error) {
	fd, err := retry(unix.SYS_OPENAT, uintptr(dirfd), uintptr(name.pointer()),
		unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_LARGEFILE, uintptr(mode), 0, 0)
	return int(fd), err
}
