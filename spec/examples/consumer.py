#!/usr/bin/python3
"""Make a directory of a stream: consumer.py DIR < STREAM, for Linux. DIR must not exist yet.

The stream goes to a temporary file; once all of it has been found right, its last snapshot is written. Written from spec/stream.md
alone, this checks what section 15 asks of readers, decoders and sinks, but for most limits, types of keys that are not used here,
what a flat stream may not have, and eof's sha256. It refuses base, copy and held; owners are set by number, flags are not set. The
listing is held in memory. Needs python3-msgpack, and python3-zstandard where payloads are compressed.
Exit code: 0; 1 DIR could not be made; 3 done, but something was lost; 4 the stream is cut off or invalid.
"""
import collections
import hashlib
import mmap
import os
import shutil
import stat
import sys
import tempfile

import msgpack

PLACES = {"bk": "start", "snapshot": "top", "end": "top", "entry": "snapshot", "remove": "snapshot", "commit": "snapshot",
          "data": "file", "refs": "file", "hole": "file", "eof": "file"}
NODES = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK}
NOT_EQUAL = {"path", "atime", "ctime", "btime", "inode", "links", "chunker"}


def check(ok, what):
    """Fails with a class of section 15, and words."""
    if not ok:
        raise ValueError(what)


def unique(pairs):
    check(len(dict(pairs)) == len(pairs), "field: a key comes twice")
    return dict(pairs)


def records(file, wire):
    """Yields kind and body of each record, where its payload begins and ends, and its bytes up to the end of the body."""
    kind, unpacker = "", msgpack.Unpacker(file, raw=False, unicode_errors="surrogateescape", object_pairs_hook=unique,
                                          strict_map_key=False, max_buffer_size=64 << 20)
    while kind != "end":
        start, payload = unpacker.tell(), b""
        try:
            size, kind, body = unpacker.read_array_header(), unpacker.unpack(), unpacker.unpack()
            end = unpacker.tell()
            check(isinstance(body, dict) and size == (3 if kind == "data" else 2), "syntax: not a record")
            payload = unpacker.unpack() if size == 3 else b""
        except msgpack.OutOfData:
            raise ValueError("cut: the stream ends before its end record")
        yield kind, body, (unpacker.tell() - len(payload), unpacker.tell()), wire[start:end]
    check(unpacker.tell() == len(wire), "trailing: bytes follow the end record")


def components(path):
    names = path.split(b"/") if path else []
    check(isinstance(path, bytes) and not {b"", b".", b".."} & set(names) and b"\0" not in path, "path: %r" % path)
    return names


class Receiver:
    """Checks records and applies them to a listing: path to body and content, which is chunks or None for a hole, with sizes."""

    def __init__(self, wire):
        self.wire, self.place, self.id, self.records, self.snapshots, self.all = wire, "start", None, 0, 0, hashlib.sha256()
        self.listing, self.chunks, self.losses = {}, {}, collections.Counter()

    def take(self, kind, body, payload, wire):
        if not kind.startswith("x-"):
            check(PLACES.get(kind) == self.place, "%s: %r has no place here" % ("grammar" if kind in PLACES else "kind", kind))
            self.take_content(kind, body, payload) if self.place == "file" else self.take_other(kind, body)
        check(self.place != "start", "grammar: a stream begins with a bk record")
        (self.all if self.place == "top" else self.one).update(wire)  # behind a commit the place is the top
        self.records += 1

    def take_other(self, kind, body):
        if kind == "bk":
            check(body["version"] == 1, "version: %r" % body["version"])
            self.features, self.place = set(body.get("features", [])), "top"
            check(self.features <= {"zstd", "flat"}, "feature: of %s not all are served here" % self.features)
        elif kind == "snapshot":
            parent = body.get("parent", bytes(32))
            check(parent in (bytes(32), self.id) and parent != body["id"], "parent: it is not the snapshot before")
            self.id, self.sorted, self.last, self.place = body["id"], body.get("sorted", True), ([], None), "snapshot"
            self.listing = self.listing if any(parent) else {}
            self.scan = bool(self.listing) or not self.sorted  # whether anything can be below a path that comes
            self.one, self.counts = hashlib.sha256(), dict(entries=0, removes=0, data=0, bytes=0)
        elif kind in ("remove", "entry"):
            self.take_path(body["path"], body["type"] if kind == "entry" else "", body)
        elif kind == "commit":
            check(all(body[key] == n for key, n in self.counts.items()), "count: commit and records differ")
            check(body["digest"] == self.one.digest(), "digest: of a snapshot")
            self.losses.update({loss["kind"]: loss["count"] for loss in body.get("losses", [])})
            self.snapshots, self.place = self.snapshots + 1, "top"
        else:
            check(body["snapshots"] == self.snapshots, "count: end and commits differ")
            check(body["digest"] == self.all.digest(), "digest: of the stream")

    def take_path(self, path, kind, body):
        self.counts["entries" if kind else "removes"] += 1
        names, (before, kind_before), self.last = components(path), self.last, (components(path), kind)
        emptied = (names, kind, kind_before) == (before, "dir", "")
        check(not self.sorted or kind_before is None or names > before or emptied, "order: %r comes too late" % path)
        if kind != "dir" and self.scan:
            for gone in [p for p in self.listing if not path or (p + b"/").startswith(path + b"/")]:
                del self.listing[gone]
        if kind:
            check(kind == "dir" or names and kind in {"file", "symlink", *NODES}, "field: type %r" % kind)
            for above in [self.listing.get(b"/".join(names[:n])) for n in range(len(names))]:
                check(not above or above[0]["type"] == "dir", "tree: %r is not in a directory" % path)
            self.listing[path] = body, []
            self.content, self.place = self.listing[path][1], "file" if kind == "file" else "snapshot"

    def take_content(self, kind, body, payload):
        if kind == "eof":
            self.place, self.counts["bytes"] = "snapshot", self.counts["bytes"] + body["size"]
            return check(body["size"] == sum(size for _, size in self.content) < 1 << 63, "count: eof says another size")
        content = [tuple(ref) for ref in body["chunks"]] if kind == "refs" else [(body.get("id"), body["size"])]
        check(all(0 < size <= (2**63 - 1 if kind == "hole" else 32 << 20) for _, size in content), "limit: size of chunk or hole")
        if kind == "data":
            self.counts["data"] += 1
            self.chunks[body["id"]] = body["size"], body.get("codec", "none"), *payload
            plain = self.plain(body["id"])
            check(payload[1] - payload[0] <= body["size"] + body["size"] // 128 + (64 << 10), "limit: payload")
            check(len(plain) == body["size"] and hashlib.sha256(plain).digest() == body["id"], "chunk: not what its id says")
        check(kind == "hole" or all(self.chunks.get(key, [0])[0] == size for key, size in content), "reference: never sent")
        self.content += content

    def plain(self, key):
        size, codec, start, end = self.chunks[key]
        check(codec in self.features - {"flat"} | {"none"}, "feature: the codec %s was not announced" % codec)
        if codec == "none":
            return self.wire[start:end]
        decoder = __import__("zstandard").ZstdDecompressor(max_window_size=32 << 20)
        return decoder.stream_reader(self.wire[start:end]).read(size + 1)  # never more than that, whatever the frame says

    def write(self, top):
        """Writes the listing: links last, so that nothing is opened through one; then metadata, directories' last of all."""
        paths, groups = sorted(self.listing, key=components), {}
        for path in sorted(paths, key=lambda path: self.listing[path][0]["type"] == "symlink"):
            os.makedirs(os.path.dirname(os.path.join(top, path)), exist_ok=True)
            self.attempt("unwritable", self.make, os.path.join(top, path), *self.listing[path], groups)
        for path in reversed(paths):
            full, body = os.path.join(top, path), self.listing[path][0]
            owned = self.attempt("owner", os.chown, full, body.get("uid", -1), body.get("gid", -1), follow_symlinks=False)
            if "mode" in body and body["type"] != "symlink":
                self.attempt("mode", os.chmod, full, body["mode"] & (0o7777 if owned else 0o1777))
            for name, value in body.get("xattrs", []):
                self.attempt("xattr", os.setxattr, full, name, value, follow_symlinks=False)
            if "mtime" in body:
                self.attempt("time", os.utime, full, ns=(body["mtime"][0] * 10**9 + body["mtime"][1],) * 2, follow_symlinks=False)
            self.losses.update(["flags"] if "flags" in body else [])

    def attempt(self, loss, do, *args, **options):
        try:
            do(*args, **options)
            return True
        except (OSError, OverflowError):
            self.losses[loss] += 1

    def make(self, full, body, content, groups):
        same = {key: body[key] for key in body if key not in NOT_EQUAL}, content
        first, same_there = groups.setdefault((body["hardlink"],) if "hardlink" in body else full, (full, same))
        if first != full and same_there == same:
            return os.link(first, full, follow_symlinks=False)
        self.losses.update(["hardlink"] if first != full else [])
        if body["type"] == "dir":
            os.makedirs(full, exist_ok=True)
        elif body["type"] == "symlink":
            os.symlink(body["target"], full)
        elif body["type"] != "file":
            os.mknod(full, NODES[body["type"]] | 0o600, os.makedev(*body.get("rdev", (0, 0))))
        else:
            with open(full, "xb") as f:
                for key, size in content:
                    f.write(self.plain(key)) if key else f.seek(size, os.SEEK_CUR)
                f.truncate()


def main():
    os.mkdir(sys.argv[1])
    with tempfile.TemporaryFile(buffering=0) as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        receiver = Receiver(mmap.mmap(file.fileno(), 0) if file.tell() else b"")
        file.seek(0)
        try:
            for record in records(file, receiver.wire):
                receiver.take(*record)
        except Exception as err:  # what wrong types and values make Python and the libraries raise is the stream's fault too
            what = err if type(err) is ValueError else "field: %r" % err
            return print("consumer.py: record %d: %s" % (receiver.records, what), file=sys.stderr) or 4
        receiver.write(os.fsencode(sys.argv[1]))
    for kind, n in sorted(receiver.losses.items()):
        print("consumer.py: lost: %d %s" % (n, kind), file=sys.stderr)
    return 3 if receiver.losses else 0


if __name__ == "__main__":
    sys.exit(main())
