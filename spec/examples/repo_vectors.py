#!/usr/bin/python3
"""Checks repo_objects.py and repo_listings.py against spec/vectors/repo, or the directory given."""
import hashlib
import json
import pathlib
import sys

import repo_listings as listings
import repo_objects as objects

h = bytes.fromhex


def refused(what, do):
    try:
        do()
    except objects.Damaged:
        return
    raise AssertionError("%s was not refused" % what)


def check_objects(load):
    for v in load("labels.json"):
        assert objects.label(h(v["label_key"]), v["chunk_kind"], h(v["id"])) == h(v["label"])
    for v in load("sizes.json"):
        assert objects.padded(v["size"]) == v["padded"], v
    for v in load("keys.json"):
        for purpose in ("commitment", "body", "chunk", "directory"):
            assert objects.key(h(v["secret"]), h(v["header"]), purpose.encode()) == h(v[purpose])
    for v in load("objects.json"):
        assert objects.open_object(h(v["secret"]), h(v["object"]), v["kind"]) == h(v["body"])
        for place in (0, 20, 100, 130, -40, -1):
            bad = bytearray(h(v["object"]))
            bad[place] ^= 1
            if v["kind"] != objects.INDEX or place not in (20, 100):  # those its name alone would show
                refused("a flipped bit at %d" % place, lambda: objects.open_object(h(v["secret"]), bytes(bad), v["kind"]))


def check_packs(load):
    directories = []
    for v in load("packs.json"):
        secret, pack = h(v["epoch_key"]), h(v["object"])
        objects.check(pack, objects.DATA_PACK, v["name"])
        directories.append(objects.open_directory(secret, pack))
        for i, (entry, chunk) in enumerate(zip(directories[-1], v["chunks"])):
            payload = objects.open_chunk(secret, pack[:128], i, entry, pack[entry.offset : entry.offset + entry.stored])
            assert payload == h(chunk["payload"]) and entry.offset == chunk["offset"]
            assert entry.label == objects.label(h(v["label_key"]), chunk["kind"], h(chunk["id"]))
    v = load("index.json")
    listed = list(objects.open_index(objects.open_object(h(v["epoch_key"]), h(v["object"]), objects.INDEX, v["name"])))
    assert [e for _, e in listed] == directories and [p.name.hex() for p, _ in listed] == [n[-64:] for n in v["packs"]]
    for (p, _), v in zip(listed, load("packs.json")):
        assert objects.pack_header(p, h(v["epoch_key"]), h(v["repository"]), h(v["group"])) == h(v["object"])[:128]


def check_keyring(load):
    for v in load("keyring.json"):
        stored = {name: h(object) for name, object in v["objects"].items()}
        (credential,) = [name for name in stored if name.startswith("credentials/")]
        client, client_key = objects.open_credential(v["passphrase"].encode(), stored[credential])
        name = "clients/%s/0" % client.hex()
        chunk = listings.decode(objects.open_object(client_key, stored[name], objects.CLIENT, name))
        (own,) = [g for g in chunk["groups"] if g.get("own")]
        assert client_key == h(v["client_key"]) and own["epochs"] == [[v["epoch"], h(v["epoch_key"])]]
        taken = own.get("chunker_keys", {})
        assert (taken.get("rabin"), taken.get("buzhash")) == (v.get("polynomial"), v.get("seed"))
        assert listings.public_key(chunk["sign"]) == h(v["public_key"])


def check_listings(load):
    for v in load("tree-listings.json"):
        loader, entries = loader_of(v), v["entries"] or []
        items = list(listings.listing(loader, h(v["root"])))
        assert len(items) == len(entries)
        for item, want in zip(items, entries):
            assert (item.path, item.body) == (h(want["path"]), listings.decode(h(want["body"]))), item
            content = [(p["size"], h(p["id"]) if "id" in p else None) for p in want.get("content", [])]
            assert list(listings.expand(loader, item.content)) == content
            assert item.eof == (listings.decode(h(want["eof"])) if "eof" in want else None)
    for v in load("tree-refused.json"):
        loader = loader_of(v)
        refused(v["name"], lambda: [list(listings.expand(loader, item.content)) for item in listings.listing(loader, h(v["root"]))])


def loader_of(v):
    chunks = {hashlib.sha256(h(chunk)).digest(): h(chunk) for chunk in v["chunks"]}

    def load(id):
        objects.must(id in chunks, "no such chunk")
        return chunks[id]

    return load


def check_signed(load):
    for v in load("snapshots.json") + [v for v in load("epochs.json") if v["name"].startswith("snapshots/")]:
        plain = objects.open_object(h(v["epoch_key"]), h(v["object"]), objects.SNAPSHOT)
        read = lambda: listings.open_snapshot(plain, h(v["public_key"]), v["name"], h(v["repository"]))
        if "refused" in v:
            refused(v["refused"], read)
        else:
            assert read() is None if v.get("void") else read()["id"] == h(v["id"])
    for v in load("forgets.json") + [v for v in load("epochs.json") if v["name"].startswith("forgets/")]:
        plain = objects.open_object(h(v["epoch_key"]), h(v["object"]), objects.FORGET)
        assert listings.verified(plain, h(v["public_key"]), b"bk forget 1\0") == h(v["body"])
    for v in load("damage.json"):
        plain = objects.open_object(h(v["epoch_key"]), h(v["object"]), objects.DAMAGE)
        assert listings.verified(plain, h(v["public_key"]), b"bk damage 1\0") == h(v["body"])
        assert len(listings.decode(h(v["body"]))["chunks"]) % 33 == 0
    for v in load("sessions.json"):
        plain = objects.open_object(h(v["epoch_key"]), h(v["object"]), objects.SESSION)
        assert listings.decode(plain)["client"] == h(v["client"])


def receipt(text):
    """The parts of a receipt: what repository, client and id begin with, and the sequence."""
    head, _, check = text.rpartition("-")
    magic, repository, client, sequence, snapshot = (head + "----").split("-")[:5]
    parts = [h(x) if len(x) == n and set(x) <= set("0123456789abcdef") else None for x, n in ((repository, 8), (client, 8), (snapshot, 20))]
    if magic != "bk1" or None in parts or not sequence.isdigit() or str(int(sequence)) != sequence or hashlib.sha256(head.encode()).hexdigest()[:4] != check:
        raise objects.Damaged("this is not a receipt")
    return parts[0], parts[1], int(sequence), parts[2]


def check_receipts(load):
    for v in load("receipts.json"):
        if "refused" in v:
            refused(v["refused"], lambda: receipt(v["text"]))
        else:
            assert receipt(v["text"]) == (h(v["repository"]), h(v["client"]), v["sequence"], h(v["id"])), v


def main(directory):
    load = lambda name: json.loads((directory / name).read_text())
    for check in (check_objects, check_packs, check_keyring, check_listings, check_signed, check_receipts):
        check(load)
    print("all vectors are as they should be")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "vectors" / "repo")
