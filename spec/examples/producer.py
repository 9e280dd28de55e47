#!/usr/bin/python3
"""Write a directory as a stream: producer.py [--zstd] DIR [DIR...] > STREAM

Each DIR becomes a snapshot and the root of its listing; those after the first are sent as differences to the one before. Content
is cut every 1 MiB. Written from spec/stream.md alone, for Linux; needs python3-msgpack, and python3-zstandard for --zstd. Listings
are held in memory; flags and birth times are left out. Exit code: 0, or 3 if something could not be read.
"""
import argparse
import collections
import errno
import grp
import hashlib
import os
import pwd
import stat
import sys
import time

import msgpack

CHUNK_SIZE = 1 << 20
pack = msgpack.Packer(use_bin_type=True).pack
TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFCHR: "char",
         stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}
PLURALS = {"entry": "entries", "remove": "removes", "data": "data"}
INFORMATIVE = {"atime", "ctime", "btime", "inode", "links", "chunker"}


class Writer:
    """Encodes records, counts and digests them (sections 2 and 11)."""

    def __init__(self, out):
        self.out, self.all, self.one = out, hashlib.sha256(), None
        self.sent = set()

    def write(self, kind, body, payload=None):
        body = {key: body[key] for key in sorted(body) if body[key] is not None}
        wire = bytes([0x92 if payload is None else 0x93]) + pack(kind) + pack(body)
        if kind == "snapshot":
            self.one, self.counts = hashlib.sha256(), dict(entries=0, removes=0, data=0, bytes=0)
        if kind != "end":
            (self.all if kind in ("bk", "commit") else self.one).update(wire)
        if kind in PLURALS:
            self.counts[PLURALS[kind]] += 1
        self.out.write(wire)
        if payload is not None:
            self.out.write(pack(payload))

    def commit(self, losses):
        losses = [dict(count=len(paths), kind=kind, paths=paths[:16]) for kind, paths in sorted(losses.items())]
        self.write("commit", dict(self.counts, digest=self.one.digest(), losses=losses or None))


def moment(ns):
    return [ns // 10**9, ns % 10**9]  # both round downward, so nanoseconds count upward before 1970 too


def name_of(lookup, number):
    try:
        return os.fsencode(lookup(number)[0])
    except KeyError:
        return None


class Scan:
    """One directory as a snapshot."""

    def __init__(self, top, writer, compress, old):
        self.top, self.writer, self.compress, self.old = os.fsencode(top), writer, compress, old
        self.losses, self.groups = collections.defaultdict(list), {}

    def walk(self, path=b""):
        """Yields paths with their entries in the order of section 5: each directory right before what is in it."""
        full = os.path.join(self.top, path)
        try:
            e, names = self.entry(path, full), []
        except OSError:
            return self.losses["vanished"].append(path)
        yield path, e
        try:
            names = sorted(os.listdir(full)) if e["type"] == "dir" else []
        except OSError:
            self.losses["unreadable"].append(path)
        for name in names:
            yield from self.walk(os.path.join(path, name))

    def entry(self, path, full):
        st = os.lstat(full)
        kind = TYPES[stat.S_IFMT(st.st_mode)]
        e = {"path": path, "type": kind, "mode": stat.S_IMODE(st.st_mode), "uid": st.st_uid, "gid": st.st_gid,
             "user": name_of(pwd.getpwuid, st.st_uid), "group": name_of(grp.getgrgid, st.st_gid), "inode": st.st_ino,
             "mtime": moment(st.st_mtime_ns), "ctime": moment(st.st_ctime_ns), "links": st.st_nlink}
        if kind == "file":
            e["size"] = st.st_size
        elif kind == "symlink":
            e["target"] = os.readlink(full)
        elif kind in ("char", "block"):
            e["rdev"] = [os.major(st.st_rdev), os.minor(st.st_rdev)]
        if kind != "dir" and st.st_nlink > 1:
            first = self.groups.setdefault((st.st_dev, st.st_ino), path)
            e["hardlink"] = hashlib.sha256(first).digest()
        try:
            names = sorted(map(os.fsencode, os.listxattr(full, follow_symlinks=False)))
            e["xattrs"] = [[name, os.getxattr(full, name, follow_symlinks=False)] for name in names] or None
        except OSError as err:
            if err.errno != errno.ENOTSUP:
                self.losses["xattr"].append(path)
        return e

    def content(self, path, full):
        size, error = 0, None
        try:
            with open(full, "rb", buffering=0) as f:
                fd, before = f.fileno(), os.fstat(f.fileno())
                while size < before.st_size:
                    try:
                        data = os.lseek(fd, size, os.SEEK_DATA)
                    except OSError as err:
                        if err.errno != errno.ENXIO:
                            raise
                        data = before.st_size  # nothing but a hole follows
                    if data > size:
                        self.writer.write("hole", {"size": data - size})
                        size = data
                        continue
                    chunk = os.pread(fd, min(CHUNK_SIZE, os.lseek(fd, size, os.SEEK_HOLE) - size), size)
                    if not chunk:
                        break
                    self.chunk(chunk)
                    size += len(chunk)
                if os.fstat(fd).st_mtime_ns != before.st_mtime_ns or size != before.st_size:
                    self.losses["changed"].append(path)
        except OSError as err:
            error = os.fsencode("at byte %d: %s" % (size, err.strerror))
            self.losses["unreadable"].append(path)
        self.writer.write("eof", {"size": size, "error": error})
        self.writer.counts["bytes"] += size

    def chunk(self, plain):
        key = hashlib.sha256(plain).digest()
        if key in self.writer.sent:
            return self.writer.write("refs", {"chunks": [[key, len(plain)]]})
        self.writer.sent.add(key)
        packed = self.compress(plain) if self.compress else plain
        small = len(packed) < len(plain)
        body = {"id": key, "size": len(plain), "codec": "zstd" if small else None}
        self.writer.write("data", body, packed if small else plain)

    def run(self, parent):
        key = os.urandom(32)
        self.writer.write("snapshot", {
            "id": key, "parent": parent, "unstable": True, "time": moment(time.time_ns()), "roots": [b""],
            "host": os.fsencode(os.uname().nodename)})
        found = dict(self.walk())
        dirs = {path for path, e in found.items() if e["type"] == "dir"}
        gone = {path for path in self.old if path not in found and os.path.dirname(path) in dirs}
        for path in sorted(found.keys() | gone, key=lambda path: path.split(b"/") if path else []):
            if path in gone:
                self.writer.write("remove", {"path": path})
                continue
            e, old = found[path], self.old.get(path)
            # ctime and inode are no part of equality, but tell whether a file's content may have changed.
            keys = (e.keys() | (old or {}).keys()) - INFORMATIVE | ({"ctime", "inode"} if e["type"] == "file" else set())
            same = old and all(e.get(key) == old.get(key) for key in keys)
            if not same:
                self.writer.write("entry", e)
            if not same and e["type"] == "file":
                self.content(path, os.path.join(self.top, path))
        self.writer.commit(self.losses)
        return key, found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--zstd", action="store_true")
    parser.add_argument("dir", nargs="+")
    args = parser.parse_args()
    if not all(map(os.path.isdir, args.dir)):
        parser.error("each DIR must be a directory")
    compress = None
    if args.zstd:
        import zstandard
        compress = zstandard.ZstdCompressor(level=3).compress
    writer = Writer(sys.stdout.buffer)
    writer.write("bk", {"version": 1, "producer": b"producer.py 1", "created": moment(time.time_ns()),
                        "features": ["zstd"] if args.zstd else None})
    parent, listing, lost = None, {}, False
    for top in args.dir:
        scan = Scan(top, writer, compress, listing)
        parent, listing = scan.run(parent)
        lost = lost or bool(scan.losses)
    writer.write("end", {"snapshots": len(args.dir), "digest": writer.all.digest()})
    sys.stdout.buffer.flush()
    return 3 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
