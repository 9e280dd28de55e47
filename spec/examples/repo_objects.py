"""The objects of a bk repository, opened as spec/repository.md says (sections 2 to 6).

repository.py is the program that reads repositories, repo_vectors.py checks this against spec/vectors/repo. It needs
Debian's python3-cryptography and python3-msgpack, and for passphrases python3-argon2 or the library of libargon2-1.
python3-cryptography has no XChaCha20; but the first 16 bytes of our nonces are zero, so that it is
ChaCha20-Poly1305 under one subkey, which hchacha20 below computes.
"""
import collections
import ctypes
import functools
import hashlib
import hmac
import struct

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

CONFIG, CREDENTIAL, CLIENT, DATA_PACK, META_PACK, INDEX, SNAPSHOT, SESSION, PLAN, FORGET, PARTIAL, DAMAGE = range(1, 13)
DATA, META = 1, 2  # kinds of chunks
ENTRY = struct.Struct(">20sBII")
LISTED = struct.Struct(">32sBBI32sQ16sI")
Entry = collections.namedtuple("Entry", "label codec raw stored offset")
Listed = collections.namedtuple("Listed", "name kind suite epoch salt size writer count")


class Damaged(Exception):
    """What is there is not what was written."""


class WrongKey(Exception):
    """The key is not the one that the object was sealed under."""


def must(ok, what):
    if not ok:
        raise Damaged(what)


# Section 2: every object


def hkdf(secret, salt, info):
    return hmac.digest(hmac.digest(salt, secret, "sha256"), info + b"\x01", "sha256")


def key(secret, header, purpose):
    return hkdf(secret, header[64:96], b"bk 1 " + purpose + header[:64])


def hchacha20(key):
    """The subkey of XChaCha20 for a nonce that begins with 16 zeros."""
    s = list(struct.unpack("<4I8I", b"expand 32-byte k" + key)) + [0] * 4
    rotate = lambda v, n: (v << n | v >> (32 - n)) & 0xFFFFFFFF
    columns = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
    diagonals = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
    for a, b, c, d in (columns + diagonals) * 10:
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            s[z] = rotate(s[z] ^ s[x], n)
    return struct.pack("<8I", *s[:4], *s[12:])


@functools.lru_cache(maxsize=1024)
def cipher(secret, header, purpose):
    """The cipher of one purpose of the object that begins with header, once its commitment was compared."""
    if not hmac.compare_digest(key(secret, header, b"commitment"), header[96:128]):
        raise WrongKey("wrong key")
    k = key(secret, header, purpose)
    return AESGCM(k) if header[10] == 1 else ChaCha20Poly1305(hchacha20(k))


def unseal(secret, header, purpose, counter, sealed, ad):
    try:
        return cipher(secret, header, purpose).decrypt(struct.pack(">IQ", 0, counter), sealed, ad)
    except InvalidTag:
        raise Damaged("authentication failed")


def padded(n):
    if n <= 1 << 20:
        return max(1 << 16, 1 << max(n - 1, 0).bit_length())
    e = n.bit_length() - 1
    unit = 1 << (e - e.bit_length())
    return -(-n // unit) * unit


def check_header(header):
    must(header[:8] == b"bkobject", "not an object of a repository")
    version, kind, suite, zero, epoch = struct.unpack_from(">BBBBI", header, 8)
    if version != 1 or kind not in range(1, 13) or suite not in (1, 2):
        raise ValueError(f"version {version}, kind {kind}, suite {suite}: a newer program is needed")
    must(zero == 0 and ((epoch > 0) == (kind >= DATA_PACK) or kind == SNAPSHOT), "header")  # a void has epoch 0
    must(kind != CONFIG or not any(header[48:64] + header[96:128]), "header of a config")


def check(stored, kind, name=None):
    """What anybody can check about an object without keys. Returns its header and what stands behind it."""
    must(len(stored) >= 160, "too short")
    end = len(stored)
    if kind in (DATA_PACK, META_PACK, INDEX):
        must(name is None or hashlib.sha256(stored).hexdigest() == name.split("/")[-1], "not the bytes that it is named by")
    else:
        end -= 32
        must(hashlib.sha256(stored[:end]).digest() == stored[end:], "checksum")
    check_header(stored[:128])
    must(stored[9] == kind, f"kind {stored[9]} where {kind} belongs")
    return stored[:128], stored[128:end]


def open_object(secret, stored, kind, name=None):
    """The body of an object of kind 3 or 6 to 11."""
    header, sealed = check(stored, kind, name)
    size = len(stored)
    must(padded(size) == size if kind == INDEX else size >= 1024 and size & (size - 1) == 0, "size")
    plain = unseal(secret, header, b"body", 0, sealed, header)
    length = int.from_bytes(plain[:4], "big")
    must(length <= len(plain) - 4 and not any(plain[4 + length :]), "padding")
    return plain[4 : 4 + length]


# Section 4: credentials


def open_credential(passphrase, stored):
    """Returns client id and client key."""
    header, content = check(stored, CREDENTIAL)
    unpacker, fields, pairs = msgpack.Unpacker(), {}, b""
    unpacker.feed(content)
    count = unpacker.read_map_header()
    for _ in range(count):
        begin = unpacker.tell()
        name = unpacker.unpack()
        fields[name] = unpacker.unpack()
        if name != "sealed":
            pairs += content[begin : unpacker.tell()]
    must(unpacker.tell() == len(content) and fields["client"] == header[48:64], "content of a credential")
    p = fields["params"]
    if fields["kind"] != "passphrase" or p["kdf"] != "argon2id":
        raise WrongKey("not a passphrase")
    bounds = p["memory"] <= 4 << 20 and 1 <= p["passes"] <= 64 and 1 <= p["threads"] <= 64 and p["memory"] >= 8 * p["threads"]
    must(bounds and len(p["salt"]) == 32, "Argon2id out of bounds")
    secret = argon2id(passphrase, p["salt"], p["passes"], p["memory"], p["threads"])
    ad = header + msgpack.Packer().pack_map_header(count - 1) + pairs
    return fields["client"], unseal(secret, header, b"body", 0, fields["sealed"], ad)


def argon2id(passphrase, salt, passes, memory, threads):
    try:
        from argon2.low_level import Type, hash_secret_raw
    except ImportError:
        lib, out = ctypes.CDLL("libargon2.so.1"), ctypes.create_string_buffer(32)
        sizes = [ctypes.c_size_t(len(b)) for b in (passphrase, salt)]
        failed = lib.argon2id_hash_raw(passes, memory, threads, passphrase, sizes[0], salt, sizes[1], out, ctypes.c_size_t(32))
        must(not failed, f"argon2id: error {failed}")
        return out.raw
    return hash_secret_raw(passphrase, salt, passes, memory, threads, 32, Type.ID)


# Sections 5 and 6: chunks, packs, indexes


def label(label_key, kind, chunk_id):
    return hmac.digest(label_key, bytes([kind]) + chunk_id, "sha256")[:20]


def entries(data, count):
    """The entries of a directory."""
    must(len(data) >= count * ENTRY.size, "fewer entries than were announced")
    offset, found = 128, []
    for fields in ENTRY.iter_unpack(data[: count * ENTRY.size]):
        entry = Entry(*fields, offset)
        most = entry.raw + entry.raw // 128 + (64 << 10)
        payload_fits = {0: entry.stored == entry.raw + 16, 1: 16 < entry.stored <= most + 16}[entry.codec]
        must(1 <= entry.raw <= 32 << 20 and payload_fits, "sizes of a chunk")
        found.append(entry)
        offset += entry.stored
    return found, offset


def open_directory(secret, pack):
    header = pack[:128]
    offset, length, count = struct.unpack(">QII", unseal(secret, header, b"directory", 1, pack[-32:], header))
    must(offset + length == len(pack) - 32, "trailer")
    plain = unseal(secret, header, b"directory", 0, pack[offset:-32], header)
    found, end = entries(plain[20:], count)
    must(plain[16:20] == count.to_bytes(4, "big") and end == offset and not any(plain[20 + 29 * count :]), "directory")
    return found


def open_chunk(secret, header, number, entry, sealed):
    """Returns the payload, which is a zstd frame if the entry's codec is 1."""
    return unseal(secret, header, b"chunk", number, sealed, header + entry.label + struct.pack(">BI", entry.codec, entry.raw))


def open_index(body):
    """Yields what an index says of each pack, and the pack's entries."""
    count = lambda at: int.from_bytes(body[at : at + 4], "big")
    at = 4 + 32 * count(0)
    packs, at = count(at), at + 4
    for _ in range(packs):
        must(at + LISTED.size <= len(body), "index is cut off")
        listed = Listed(*LISTED.unpack_from(body, at))
        at += LISTED.size
        found, end = entries(body[at : at + listed.count * ENTRY.size], listed.count)
        must(listed.kind in (DATA_PACK, META_PACK) and listed.epoch and end + 32 <= listed.size < 1 << 32, "pack in an index")
        yield listed, found
        at += listed.count * ENTRY.size
    must(at == len(body), "index goes on")


def pack_header(listed, secret, repository, group):
    """The header of a pack that an index lists."""
    header = b"bkobject" + struct.pack(">BBBBI", 1, listed.kind, listed.suite, 0, listed.epoch) + repository + group + listed.salt
    check_header(header)
    return header + key(secret, header, b"commitment")
