#!/usr/bin/python3
"""Reads a bk repository in a directory; its passphrase is in BK_PASSPHRASE.

    repository.py DIR snapshots
    repository.py DIR ls SNAPSHOT
    repository.py DIR restore SNAPSHOT TARGET      TARGET must not exist yet

SNAPSHOT is the beginning of an id, or latest. Written from spec/repository.md alone; what is read is checked as that page asks readers
to: checksums, commitments, signatures, ids, listings. Owners are set by number, flags are not set; the index is held in memory.
Needs Debian's python3-cryptography, python3-msgpack and python3-zstandard. Start reading at Repository.
Exit code: 0; 1 something is damaged or failed; 2 wrong usage; 3 done, but something was lost; 10 no repository; 12 no key fits.
"""
import collections
import datetime
import hashlib
import os
import pathlib
import re
import stat
import sys

import msgpack
import zstandard

import repo_listings as listings
import repo_objects as objects
from repo_objects import Damaged, WrongKey, must

SLOT = re.compile("[0-9a-f]{32}-(0|[1-9][0-9]*)(-([2-9]|[1-9][0-9]+))?")  # with an epoch if it was sealed again
SUM = re.compile("[0-9a-f]{64}")
ID = re.compile("[0-9a-f]{32}")
NODES = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK}
LETTERS = {"file": "-", "dir": "d", "symlink": "l", "char": "c", "block": "b", "fifo": "p", "socket": "s"}
NOT_EQUAL = {"atime", "ctime", "btime", "inode", "links", "chunker"}  # informative, stream.md section 4.3
Place = collections.namedtuple("Place", "pack number entry")


class NoRepository(Exception):
    pass


class Repository:
    """A repository in a directory, opened by a passphrase."""

    def __init__(self, top, passphrase):
        self.top = pathlib.Path(top)
        number = self.last("config")
        if number is None:
            raise NoRepository("%s: there is no repository" % top)
        header, content = objects.check(self.read("config/%d" % number), objects.CONFIG)
        self.id, features = header[16:48], listings.decode(content).get("features_read")
        if features:
            raise ValueError("to read this repository one must know %s" % features)
        self.client, keys = self.unlock(passphrase)
        (self.own,) = [group for group in keys["groups"] if group.get("own")]
        self.epochs, self.public = dict(self.own["epochs"]), listings.public_key(keys["sign"])
        self.places, self.packs = {}, {}
        for name in self.names("index", SUM):
            self.load_index(name)

    def names(self, folder, pattern):
        """The objects below folder. Others with other names are none of ours."""
        return sorted("%s/%s" % (folder, p.name) for p in (self.top / folder).glob("*") if pattern.fullmatch(p.name))

    def last(self, folder):
        return max((int(name.rsplit("/", 1)[1]) for name in self.names(folder, re.compile("0|[1-9][0-9]*"))), default=None)

    def read(self, name):
        return (self.top / name).read_bytes()

    def unlock(self, passphrase):
        for name in self.names("credentials", ID):
            stored = self.read(name)
            try:
                if stored[16:48] == self.id:  # others were left by somebody who did not finish
                    client, client_key = objects.open_credential(passphrase, stored)
                    return client, self.client_chunk(client, client_key)
            except WrongKey:  # also if the client has another client key by now
                continue
        raise WrongKey("no credential opens with this passphrase")

    def client_chunk(self, client, client_key):
        folder = "clients/" + client.hex()
        number = self.last(folder)
        keys = listings.decode(self.open("%s/%s" % (folder, number), objects.CLIENT, client_key, client))
        must((keys["client"], keys["generation"]) == (client, number), "the client chunk belongs under another name")
        return keys

    def open(self, name, kind, secret=None, owner=None):
        """The body of an object of the client or, without a secret, of the own group; None for one of another group."""
        stored = self.read(name)
        header, _ = objects.check(stored, kind, name)
        must(header[16:48] == self.id and owner in (None, header[48:64]), name + " is of another repository or client")
        if secret is None and header[48:64] != self.own["id"]:
            return None
        epoch = int.from_bytes(header[12:16], "big")
        body = objects.open_object(secret or (self.epochs[epoch] if epoch else self.own["label"]), stored, kind, name)
        must(secret or epoch or listings.decode(body) == ["void"], name + " is sealed as a void and is none")
        return body

    def load_index(self, name):
        body = self.open(name, objects.INDEX)
        for pack, entries in objects.open_index(body) if body else []:
            secret = self.epochs[pack.epoch]
            self.packs[pack.name] = secret, objects.pack_header(pack, secret, self.id, self.own["id"])
            for number, entry in enumerate(entries):
                self.places.setdefault(entry.label, Place(pack.name, number, entry))

    def chunk(self, kind, id):
        """The plain bytes of a chunk."""
        place = self.places.get(objects.label(self.own["label"], kind, id))
        must(place, "no index lists chunk " + id.hex())
        secret, header = self.packs[place.pack]
        with open(self.top / "packs" / place.pack.hex()[:2] / place.pack.hex(), "rb") as f:
            f.seek(place.entry.offset)
            sealed = f.read(place.entry.stored)
        plain = objects.open_chunk(secret, header, place.number, place.entry, sealed)
        if place.entry.codec == 1:
            must(plain[:4] == b"\x28\xb5\x2f\xfd", "not a zstd frame")
            decoder = zstandard.ZstdDecompressor(max_window_size=32 << 20)
            plain = decoder.stream_reader(plain).read(place.entry.raw + 1)  # never more than that, whatever the frame says
        must(len(plain) == place.entry.raw and hashlib.sha256(plain).digest() == id, "chunk %s is something else" % id.hex())
        return plain

    def meta(self, id):
        return self.chunk(objects.META, id)

    def snapshots(self):
        """The maps of the client's snapshots, oldest first."""
        found = {}
        for name in self.names("snapshots/" + self.client.hex(), SLOT):
            plain = self.open(name, objects.SNAPSHOT)
            snapshot = plain and listings.open_snapshot(plain, self.public, name, self.id)
            if snapshot and snapshot["group"] == self.own["id"]:
                found[snapshot["id"]] = snapshot  # once, also if it has just been sealed again
        return sorted(found.values(), key=lambda s: (s["snapshot"].get("time", [0, 0]), s["sequence"], s["id"]))

    def snapshot(self, word):
        found = self.snapshots()
        found = found[-1:] if word == "latest" else [s for s in found if s["id"].hex().startswith(word)]
        must(len(found) == 1, "%d snapshots are called %s" % (len(found), word))
        return found[0]

    def listing(self, snapshot):
        """The items of a snapshot in order; the totals are compared at the end."""
        entries = size = 0
        for item in listings.listing(self.meta, snapshot["root"]):
            entries, size = entries + 1, size + item.size
            yield item
        must((entries, size) == (snapshot["entries"], snapshot["bytes"]), "the listing is not what the snapshot says")

    def content(self, item):
        """Yields offset and plain bytes of each chunk of a file."""
        offset = 0
        for size, id in listings.expand(self.meta, item.content):
            if id:
                plain = self.chunk(objects.DATA, id)
                must(len(plain) == size, "a chunk of another size")
                yield offset, plain
            offset += size


class Restore:
    """Writes a listing below a new directory. Nothing is opened through a link: a listing has nothing below what is no directory."""

    def __init__(self, repository, top):
        self.repository, self.top, self.losses = repository, os.fsencode(top), collections.Counter()
        self.groups, self.names, self.dirs = {}, {}, []
        os.mkdir(self.top)

    def run(self, items):
        for item in items:
            full = os.path.join(self.top, item.path) if item.path else self.top
            os.makedirs(os.path.dirname(full), exist_ok=True)
            try:
                self.make(full, item)
            except OSError as err:
                self.lost("unwritable", full, err)
                continue
            if item.body["type"] == "dir":
                self.dirs.append((full, item.body))
            else:
                self.set_metadata(full, item.body)
            if item.eof and "error" in item.eof:
                self.lost("unreadable", full, "when it was backed up: %r" % item.eof["error"])
        for full, body in reversed(self.dirs):
            self.set_metadata(full, body)
        return self.losses

    def lost(self, kind, full, why):
        self.losses[kind] += 1
        print("repository.py: %s: %a: %s" % (kind, os.fsdecode(full), why), file=sys.stderr)

    def make(self, full, item):
        body = item.body
        if "hardlink" in body:
            what = {key: value for key, value in body.items() if key not in NOT_EQUAL}
            member = body["hardlink"], hashlib.sha256(msgpack.packb([what, item.content])).digest()
            if self.names.setdefault(body["hardlink"], member) != member:
                self.lost("hardlink", full, "it differs from the others of its group")
            if self.groups.setdefault(member, full) != full:
                return os.link(self.groups[member], full, follow_symlinks=False)
        if body["type"] == "dir":
            os.makedirs(full, exist_ok=True)
        elif body["type"] == "symlink":
            os.symlink(body["target"], full)
        elif body["type"] in NODES:
            os.mknod(full, NODES[body["type"]] | 0o600, os.makedev(*body.get("rdev", (0, 0))))
        else:
            with open(full, "xb") as f:
                for offset, plain in self.repository.content(item):
                    f.seek(offset)
                    f.write(plain)
                f.truncate(item.size)  # a hole at the end

    def set_metadata(self, full, body):
        owned = self.attempt("owner", full, os.chown, full, body.get("uid", -1), body.get("gid", -1), follow_symlinks=False)
        for name, value in body.get("xattrs", []):
            self.attempt("xattr", full, os.setxattr, full, name, value, follow_symlinks=False)
        if "mode" in body and body["type"] != "symlink":
            self.attempt("mode", full, os.chmod, full, body["mode"] & (0o7777 if owned else 0o1777))
        if "mtime" in body:
            nanoseconds = body["mtime"][0] * 10**9 + body["mtime"][1]
            self.attempt("time", full, os.utime, full, ns=(nanoseconds, nanoseconds), follow_symlinks=False)
        if "flags" in body:
            self.lost("flags", full, body["flags"])

    def attempt(self, loss, full, do, *args, **options):
        try:
            do(*args, **options)
            return True
        except (OSError, OverflowError) as err:
            self.lost(loss, full, err)


def when(time):
    return (datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=time[0])).isoformat(" ")


def main(repository, command, *args):
    if command == "snapshots":
        for s in repository.snapshots():
            info = s["snapshot"]
            names = [info.get("host", b""), *info.get("roots", []), *info.get("tags", [])]
            print(s["id"].hex()[:12], when(info.get("time", [0, 0])), "%12d" % s["bytes"], *(ascii(os.fsdecode(name)) for name in names))
        return 0
    snapshot = repository.snapshot(args[0])
    if command == "restore":
        return 3 if Restore(repository, args[1]).run(repository.listing(snapshot)) else 0
    for item in repository.listing(snapshot):
        mode = "%s%04o" % (LETTERS[item.body["type"]], item.body.get("mode", 0))
        print(mode, "%12d" % item.size, when(item.body.get("mtime", [0, 0])), ascii(os.fsdecode(item.path)))
    return 0


if __name__ == "__main__":
    if {"snapshots": 3, "ls": 4, "restore": 5}.get(sys.argv[2] if len(sys.argv) > 2 else "") != len(sys.argv):
        sys.exit(print(__doc__, file=sys.stderr) or 2)
    try:
        sys.exit(main(Repository(sys.argv[1], os.environb.get(b"BK_PASSPHRASE", b"")), *sys.argv[2:]))
    except (Damaged, WrongKey, NoRepository, OSError, ValueError, KeyError, TypeError) as err:
        print("repository.py: %s: %s" % (type(err).__name__, err), file=sys.stderr)
        sys.exit({NoRepository: 10, WrongKey: 12}.get(type(err), 1))
