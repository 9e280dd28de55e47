#!/usr/bin/env python3
"""The objects of a bk repository, opened as spec/repository.md says (sections 2 to 6).

Import it, or run it to check it against spec/vectors/repo. It needs python3-cryptography and
python3-msgpack, and for passphrases python3-argon2 or the library of libargon2-1.
python3-cryptography has no XChaCha20; but the first 16 bytes of our nonces are zero, so that it is
ChaCha20-Poly1305 under one subkey, which hchacha20 below computes.
"""
import ctypes, hashlib, hmac, json, pathlib, struct, sys
import msgpack
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

PACKS, INDEX = (4, 5), 6
ENTRY = struct.Struct(">20sBII")  # label, codec, raw length, stored length
LISTED = struct.Struct(">32sBBI32sQ16sI")  # name, kind, suite, epoch, salt, size, writer, count


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


def unseal(secret, header, purpose, counter, sealed, ad):
    """Opens sealed bytes of the object that begins with header, after checking its commitment."""
    if not hmac.compare_digest(key(secret, header, b"commitment"), header[96:128]):
        raise ValueError("wrong key")
    k = key(secret, header, purpose)
    aead = {1: lambda: AESGCM(k), 2: lambda: ChaCha20Poly1305(hchacha20(k))}[header[10]]()
    return aead.decrypt(struct.pack(">IQ", 0, counter), sealed, ad)


def check(name, stored):
    """What anybody can check about an object without keys. Returns header and content."""
    header = stored[:128]
    if header[:8] != b"bkobject" or header[8] != 1:
        raise ValueError(f"{name}: not an object of version 1")
    if header[9] in PACKS or header[9] == INDEX:
        if hashlib.sha256(stored).hexdigest() != name.split("/")[-1]:
            raise ValueError(f"{name}: damaged")
        return header, stored[128:]
    if hashlib.sha256(stored[:-32]).digest() != stored[-32:]:
        raise ValueError(f"{name}: damaged")
    return header, stored[128:-32]


def open_object(secret, name, stored):
    header, sealed = check(name, stored)
    plain = unseal(secret, header, b"body", 0, sealed, header)
    return plain[4 : 4 + int.from_bytes(plain[:4], "big")]


def open_credential(passphrase, name, stored):
    """Returns client id and client key."""
    header, content = check(name, stored)
    fields = msgpack.unpackb(content)
    sealed, p = fields.pop("sealed"), fields["params"]
    secret = argon2id(passphrase, p["salt"], p["passes"], p["memory"], p["threads"])
    return fields["client"], unseal(secret, header, b"body", 0, sealed, header + msgpack.packb(fields))


def argon2id(passphrase, salt, passes, memory, threads):
    try:
        from argon2.low_level import Type, hash_secret_raw
    except ImportError:
        lib, out = ctypes.CDLL("libargon2.so.1"), ctypes.create_string_buffer(32)
        sizes = [ctypes.c_size_t(len(b)) for b in (passphrase, salt)]
        if lib.argon2id_hash_raw(passes, memory, threads, passphrase, sizes[0], salt, sizes[1], out, ctypes.c_size_t(32)):
            raise ValueError("argon2id failed")
        return out.raw
    return hash_secret_raw(passphrase, salt, passes, memory, threads, 32, Type.ID)


def label(label_key, kind, chunk_id):
    return hmac.digest(label_key, bytes([kind]) + chunk_id, "sha256")[:20]


def entries(data, count):
    """The entries of a directory: label, codec, raw length, stored length, offset."""
    offset = 128
    for i in range(count):
        entry = ENTRY.unpack_from(data, i * ENTRY.size)
        yield entry + (offset,)
        offset += entry[3]


def open_directory(secret, pack):
    header = pack[:128]
    offset, length, count = struct.unpack(">QII", unseal(secret, header, b"directory", 1, pack[-32:], header))
    plain = unseal(secret, header, b"directory", 0, pack[offset : offset + length], header)
    return list(entries(plain[20:], count))


def open_chunk(secret, header, number, entry, sealed):
    """Returns the payload, which is a zstd frame if the entry's codec is 1."""
    return unseal(secret, header, b"chunk", number, sealed, header + entry[0] + struct.pack(">BI", entry[1], entry[2]))


def open_index(body):
    """Yields (name, kind, suite, epoch, salt, size, writer, count), entries."""
    at = 4 + 32 * int.from_bytes(body[:4], "big")
    packs, at = int.from_bytes(body[at : at + 4], "big"), at + 4
    for _ in range(packs):
        listed = LISTED.unpack_from(body, at)
        at += LISTED.size
        yield listed, list(entries(body[at:], listed[7]))
        at += listed[7] * ENTRY.size


def padded(n):
    if n <= 1 << 20:
        return max(1 << 16, 1 << max(n - 1, 0).bit_length())
    e = n.bit_length() - 1
    unit = 1 << (e - e.bit_length())
    return -(-n // unit) * unit


def main(vectors):
    load = lambda name: json.loads((vectors / name).read_text())
    h = bytes.fromhex
    for v in load("labels.json"):
        assert label(h(v["label_key"]), v["chunk_kind"], h(v["id"])) == h(v["label"])
    for v in load("sizes.json"):
        assert padded(v["size"]) == v["padded"], v
    for v in load("keys.json"):
        for purpose in ("commitment", "body", "chunk", "directory"):
            assert key(h(v["secret"]), h(v["header"]), purpose.encode()) == h(v[purpose])
    for v in load("objects.json"):
        assert open_object(h(v["secret"]), v["comment"], h(v["object"])) == h(v["body"])
    directories = []
    for v in load("packs.json"):
        secret, pack = h(v["epoch_key"]), h(v["object"])
        check(v["name"], pack)
        directories.append(open_directory(secret, pack))
        for i, (entry, chunk) in enumerate(zip(directories[-1], v["chunks"])):
            payload = open_chunk(secret, pack[:128], i, entry, pack[entry[4] : entry[4] + entry[3]])
            assert payload == h(chunk["payload"]) and entry[0] == label(h(v["label_key"]), chunk["kind"], h(chunk["id"]))
    v = load("index.json")
    listed = list(open_index(open_object(h(v["epoch_key"]), v["name"], h(v["object"]))))
    assert [e for _, e in listed] == directories and [p[0].hex() for p, _ in listed] == [n[-64:] for n in v["packs"]]
    for v in load("keyring.json"):
        objects = {name: h(stored) for name, stored in v["objects"].items()}
        (credential,) = [name for name in objects if name.startswith("credentials/")]
        client, client_key = open_credential(v["passphrase"].encode(), credential, objects[credential])
        name = f"clients/{client.hex()}/0"
        chunk = msgpack.unpackb(open_object(client_key, name, objects[name]))
        (own,) = [g for g in chunk["groups"] if g.get("own")]
        assert client_key == h(v["client_key"]) and own["epochs"] == [[v["epoch"], h(v["epoch_key"])]]
    print("all vectors open")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "vectors" / "repo")
