"""Listings and snapshots of a bk repository, read and checked as spec/repository.md says (sections 7 and 8).

load(id) is what returns the plain bytes of a meta chunk. repository.py is the program that reads repositories,
repo_vectors.py checks this against spec/vectors/repo. It needs Debian's python3-cryptography and python3-msgpack.
"""
import collections
import hashlib

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from repo_objects import Damaged, must

TYPES = {"file", "dir", "symlink", "char", "block", "fifo", "socket"}
Item = collections.namedtuple("Item", "path body content eof size")


def decode(data):
    """One msgpack value; text is bytes but for str, which is UTF-8."""

    def unique(pairs):
        must(len(dict(pairs)) == len(pairs), "a key comes twice")
        return dict(pairs)

    try:
        return msgpack.unpackb(data, object_pairs_hook=unique)
    except Damaged:
        raise
    except ValueError as err:
        raise Damaged("not one msgpack value: %r" % err)


def is_id(value):
    return type(value) is bytes and len(value) == 32 and any(value)


def uint(value, least=0, most=2**63 - 1):
    must(type(value) is int and least <= value <= most, "not a number from %d to %d: %.60r" % (least, most, value))
    return value


# Section 7: listings


def components(path):
    """The components of a path that stream.md allows. Lists of them compare in path order."""
    names = path.split(b"/") if path else []
    must(len(path) <= 32768 and not {b"", b".", b".."} & set(names) and b"\0" not in path, "path %.200r" % path)
    must(all(len(name) <= 4096 for name in names), "component of %.200r" % path)
    return names


def chunk_of(load, id, tag, most):
    plain = load(id)
    must(len(plain) <= most, "a %s of %d bytes" % (tag, len(plain)))
    value = decode(plain)
    must(type(value) is list and len(value) == 2 and value[0] == tag and type(value[1]) is not bytes, "not a " + tag)
    return value[1]


def node(load, id):
    """Level, items, and how many entries and bytes they hold. An item is its path and what stands behind the suffix."""
    plain = load(id)
    must(len(plain) <= 256 << 10, "a node of %d bytes" % len(plain))
    value = decode(plain)
    must(type(value) is list and len(value) == {"leaf": 2, "node": 3}.get(value[0], 0), "not a node")
    level = uint(value[1], 1, 32) if value[0] == "node" else 0
    must(type(value[-1]) is list and (level == 0 or value[-1]) and len(value[-1]) <= 256, "number of items")
    items, path, last, total, size = [], b"", None, 0, 0
    for item in value[-1]:
        must(type(item) is list and len(item) in ((5,) if level else (3, 4, 5)), "item")
        shared, suffix, *rest = item
        must(type(suffix) is bytes, "suffix")
        path = path[: uint(shared, 0, len(path))] + suffix
        names = components(path)
        must(last is None or last < names, "%.200r comes too late" % path)
        last = names
        if level:
            must(is_id(rest[0]), "id of a child")
            total, size = total + uint(rest[1], 1), size + uint(rest[2])
        else:
            must(all(type(b) is dict or is_id(b) for b in rest[:1] + rest[2:]), "body or eof")
            total, size = total + 1, size + sum(p[0] for p in pieces(rest[1] if len(rest) > 1 else [], 32))
        items.append((path, rest))
    must(total < 2**63 and size < 2**63, "sums")
    return level, items, total, size


def walk(load, id, parent=None, limit=None):
    """Yields the items of a listing in order; limit is where what follows begins."""
    level, items, total, size = node(load, id)
    if parent is not None:
        must(items and (level, items[0][0], total, size) == parent, "a node is not what its parent says")
        must(limit is None or components(items[-1][0]) < components(limit), "a node goes too far")
    for i, (path, rest) in enumerate(items):
        if level:
            after = items[i + 1][0] if i + 1 < len(items) else limit
            yield from walk(load, rest[0], (level - 1, path, *rest[1:]), after)
            continue
        body, content, eof = (rest + [None, None])[:3]
        body = body if type(body) is dict else chunk_of(load, body, "body", (8 << 20) + 16)
        eof = chunk_of(load, eof, "body", (8 << 20) + 16) if is_id(eof) else eof
        must(body.get("type") in TYPES and "path" not in body, "body of %.200r" % path)
        must(content is None or body["type"] == "file", "content of what is no file")
        yield Item(path, body, content or [], eof, sum(p[0] for p in content or []))


def listing(load, root):
    """Yields the items of a snapshot's listing."""
    above = None
    for item in walk(load, root):
        must(above is None or not item.path.startswith(above + b"/"), "%.200r is not in a directory" % item.path)
        must(item.path or item.body["type"] == "dir", "the root is no directory")
        above = None if item.body["type"] == "dir" else item.path
        yield item


def pieces(value, most):
    """Checks an array of pieces, which is returned."""
    must(type(value) is list and len(value) <= most, "number of pieces")
    for piece in value:
        must(type(piece) is list and 1 <= len(piece) <= 3 and all(is_id(id) for id in piece[1:2]), "piece")
        uint(piece[0], 1, 32 << 20 if len(piece) == 2 else 2**63 - 1)
        must(depth(piece) == depth(value[0]) and (len(piece) < 3 or uint(piece[2], 1, 10)), "depth of a piece")
    must(sum(piece[0] for piece in value) < 2**63, "sum of pieces")
    return value


def depth(piece):
    return piece[2] if len(piece) == 3 else 0


def expand(load, content):
    """Yields size and id of each chunk, size and None for each hole."""
    for piece in content:
        if depth(piece) == 0:
            yield piece[0], piece[1] if len(piece) == 2 else None
            continue
        below = pieces(chunk_of(load, piece[1], "list", 64 << 10), 1024)
        must(below and depth(below[0]) == piece[2] - 1 and sum(p[0] for p in below) == piece[0], "list")
        yield from expand(load, below)


# Section 8: snapshots


def public_key(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def verified(plain, public, context):
    """The body of a signed object whose signature is right."""
    value = decode(plain)
    must(type(value) is list and len(value) in (2, 3), "not a signed body")  # 3: it was sealed again
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(value[1], context + value[0])
    except InvalidSignature:
        raise Damaged("signature")
    return value[0]


def open_snapshot(plain, public, name, repository):
    """The map of a snapshot, with its id; None for a void."""
    if decode(plain) == ["void"]:
        return None
    signed = verified(plain, public, b"bk snapshot 1\0")
    body = decode(signed)
    own = "snapshots/%s/%s-%d" % (body["client"].hex(), body["session"].hex(), body["number"])
    resealed = name[len(own) :] if name.startswith(own + "-") else ""
    must(body["repository"] == repository and own + resealed == name, "it belongs to " + own)
    must(not resealed or len(decode(plain)) == 3, "it does not say when it was received")
    must(is_id(body["root"]) and type(body["snapshot"]) is dict, "body")
    return dict(body, id=hashlib.sha256(signed).digest())
