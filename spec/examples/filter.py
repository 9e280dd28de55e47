#!/usr/bin/python3
"""Drop files from a stream: filter.py PATTERN... < STREAM > STREAM

Patterns are the shell's. One without a slash matches the name of a file or directory anywhere, one with a slash its whole path;
what is below goes with it. Written from spec/stream.md alone. Digests and the end are checked, the rest is left to who reads next.
Every record is encoded anew, so the input must be canonical, without 32-bit floats. Chunks of dropped files wait in a temporary
file; memory grows with how many they are. Needs python3-msgpack.
Exit code: 0; 1 a file that is kept is copied from one that is dropped; 4 the stream is cut off or damaged.
"""
import collections
import fnmatch
import hashlib
import os
import sys
import tempfile

import msgpack

pack = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape").pack


def fail(code, what):
    sys.exit(print("filter.py: " + what, file=sys.stderr) or code)


class Digests:  # of the input or of the output (section 11): for the stream, and for the open snapshot
    def __init__(self):
        self.all, self.one, self.top = hashlib.sha256(), None, True

    def add(self, kind, body, payload=None):
        wire = (b"\x92" if payload is None else b"\x93") + pack(kind) + pack({key: body[key] for key in sorted(body)})
        self.one = hashlib.sha256() if kind == "snapshot" else self.one
        self.top = kind == "commit" or self.top and kind != "snapshot"
        (self.all if self.top else self.one).update(wire)
        return wire


class Filter:
    def __init__(self, patterns):
        self.stage = b"filter.py drop=" + hashlib.sha256(repr(sorted(set(patterns))).encode()).hexdigest()[:32].encode()
        self.input, self.output, self.spool, self.spooled = Digests(), Digests(), tempfile.TemporaryFile(), {}
        self.patterns, self.dropping, self.counts = patterns, False, collections.Counter()

    def drops(self, path):
        names = os.fsdecode(path).split("/")
        return any(fnmatch.fnmatchcase("/".join(names[:n + 1]) if "/" in p else names[n], p.strip("/"))
                   for p in self.patterns for n in range(len(names)))

    def prune(self, body, key):
        body[key] = [path for path in body.get(key, []) if not self.drops(path)]
        if not body[key]:
            del body[key]

    def emit(self, kind, body, payload=None):
        self.counts.update({kind: 1, "bytes": body["size"] if kind == "eof" else 0})
        sys.stdout.buffer.write(self.output.add(kind, body, payload) + (b"" if payload is None else pack(payload)))

    def take(self, kind, body, payload=None):
        before, after = [(side.all if kind == "end" else side.one) for side in (self.input, self.output)]
        if kind in ("commit", "end") and body["digest"] != before.digest():
            fail(4, "digest: the stream is damaged, or not canonical")
        self.input.add(kind, body, payload)
        if kind in ("entry", "remove"):
            self.dropping = self.drops(body["path"])
        if kind == "snapshot":
            self.counts, via = collections.Counter(), {"from": body["id"], "stage": self.stage}
            for key in ("id", "parent") if any(body.get("parent", b"")) else ("id",):
                body[key] = hashlib.sha256(body[key] + self.stage).digest()
            body["via"] = body.get("via", []) + [via]
            self.prune(body, "roots")
        elif kind in ("commit", "end"):
            for loss in body.get("losses", []):
                self.prune(loss, "paths")
            body["digest"], self.dropping, n = after.digest(), False, self.counts
            body.update(dict(entries=n["entry"], removes=n["remove"], data=n["data"], bytes=n["bytes"]) if kind == "commit" else {})
        elif self.dropping and kind == "data" and not body.get("once") and body["id"] not in self.spooled:
            self.spooled[body["id"]] = self.spool.seek(0, os.SEEK_END), len(payload), body
            self.spool.write(payload)
        elif not self.dropping and kind == "refs" and any(key in self.spooled for key, _ in body["chunks"]):
            for ref in body["chunks"]:
                at, size, data = self.spooled.pop(ref[0], (0, 0, None))
                self.spool.seek(at)
                self.emit("data", data, self.spool.read(size)) if data else self.emit("refs", dict(body, chunks=[ref]))
            return
        elif not self.dropping and kind == "copy" and self.drops(body.get("from", b"")):
            fail(1, "a file is copied from %r, which is dropped: filter where the stream is made" % body["from"])
        if not self.dropping:  # extensions go or stay with the record before them
            self.emit(kind, body, payload)


record, stage = [""], Filter(sys.argv[1:])
unpacker = msgpack.Unpacker(sys.stdin.buffer, raw=False, unicode_errors="surrogateescape", strict_map_key=False)
try:
    for record in unpacker:
        stage.take(*record)
except (AttributeError, LookupError, TypeError, ValueError, msgpack.UnpackException) as err:
    fail(4, "syntax or field: %r" % err)
if record[0] != "end":
    fail(4, "cut: the stream ends before its end record")
