"""A small ``zfs`` that keeps its pools in a file: the words and rules of the real one.

It does what the storage asks for, with the same exit statuses and messages as OpenZFS
2.3.2, and streams with the same records at their beginning and end. It knows no disks,
mounts, encryption or rights. Real pools are the proof; with this one, the rules of the
storage, and how many processes it starts, are tested in milliseconds wherever tests run.

As a program: ``python -I -S pretend_zfs.py STATE COMMAND...``. Each call is written to
``STATE/log``. A command fails with what stands in ``STATE/refuse-COMMAND``, if that is there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import struct
import sys
import zlib

RECORD = 312
MAGIC = 0x2F5BACBAC
NOTHING = "-"
CLONE = 1
"""``DRR_FLAG_CLONE``."""
FILESYSTEM, VOLUME = 2, 3
TYPES = {"filesystem": FILESYSTEM, "volume": VOLUME}


class FailedError(Exception):
    """Words for standard error, and the exit status."""

    def __init__(self, *lines, status=1):
        super().__init__(*lines)
        self.status = status


class Pools:
    """What is on the pools, in a file that one process at a time changes."""

    def __init__(self, state):
        self.state = state
        self.path = os.path.join(state, "pools.json")

    def __enter__(self):
        self.lock = os.open(os.path.join(self.state, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        if os.path.exists(self.path):
            with open(self.path) as file:
                whole = json.load(file)
        else:
            whole = {"txg": 10, "datasets": {}}
        self.txg, self.datasets = whole["txg"], whole["datasets"]
        return self

    def __exit__(self, kind, *_):
        if kind is None or issubclass(kind, FailedError):
            with open(self.path + ".new", "w") as file:
                json.dump({"txg": self.txg, "datasets": self.datasets}, file)
            os.rename(self.path + ".new", self.path)
        os.close(self.lock)

    def next_txg(self):
        self.txg += 1
        return self.txg

    def dataset(self, name):
        if name not in self.datasets:
            raise FailedError(f"cannot open '{name}': dataset does not exist")
        return self.datasets[name]

    def part(self, full):
        """Find a snapshot or bookmark."""
        mark = "@" if "@" in full else "#"
        dataset, _, name = full.partition(mark)
        kind = "snapshots" if mark == "@" else "bookmarks"
        found = self.datasets.get(dataset, {}).get(kind, {}).get(name)
        if found is None:
            raise FailedError(f"cannot open '{full}': dataset does not exist")
        return found

    def by_guid(self, dataset, guid):
        both = {**dataset["snapshots"], **{f"#{k}": v for k, v in dataset["bookmarks"].items()}}
        return next((each for each in both.values() if each["guid"] == guid), None)

    def create(self, name, kind="filesystem", **properties):
        parent = name.rpartition("/")[0]
        if parent and parent not in self.datasets:
            raise FailedError(f"cannot create '{name}': parent does not exist")
        if name in self.datasets:
            raise FailedError(f"cannot create '{name}': dataset already exists")
        self.datasets[name] = {
            "type": kind,
            "guid": new_guid(),
            "txg": self.next_txg(),
            "properties": properties,
            "snapshots": {},
            "bookmarks": {},
            "content": [],
            "changed": False,
        }
        return self.datasets[name]

    def clone(self, full, name):
        found = self.part(full)
        self.create(name, found["type"])
        self.datasets[name].update(origin=full, content=list(found["content"]))

    def snapshot(self, full, guid=None):
        dataset, _, name = full.partition("@")
        head = self.datasets[dataset]
        txg = self.next_txg()
        head["snapshots"][name] = {
            "guid": guid or new_guid(),
            "txg": txg,
            "creation": 1_700_000_000 + txg,
            "holds": [],
            "content": list(head["content"]),
            "type": head["type"],
        }
        head["changed"] = False

    def property(self, name, key):
        while name:
            value = self.datasets.get(name, {}).get("properties", {}).get(key)
            if value is not None:
                return value
            name = name.rpartition("/")[0]
        return {"canmount": "on", "mountpoint": "none"}.get(key, NOTHING)


def new_guid():
    return int.from_bytes(os.urandom(8), "big") | 1


def options(arguments, flags="", values=""):
    """Divide arguments into options and names, as getopt does."""
    found, names = {}, []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if names or not word.startswith("-"):
            names.append(word)
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in values:
                found.setdefault(letter, []).append(letters or rest.pop(0))
                break
            if letter not in flags:
                raise FailedError(f"invalid option '{letter}'", "usage:", status=2)
            found[letter] = True
    return found, names


# --- the commands ---


def do_list(pools, arguments):
    chosen, names = options(arguments, "Hpr", "otd")
    columns = chosen["o"][-1].split(",")
    kinds = chosen["t"][-1]
    errors = []
    for name in names:
        try:
            if "@" in name:
                print_row(pools, columns, name, pools.part(name))
                continue
            pools.dataset(name)
        except FailedError as error:
            errors += error.args
            continue
        below = [name]
        if "r" in chosen:
            below = [each for each in sorted(pools.datasets) if f"{each}/".startswith(f"{name}/")]
        for each in below:
            print_dataset(pools, columns, each, parts="snapshot" in kinds)
    if errors:
        raise FailedError(*errors)


def print_dataset(pools, columns, name, *, parts):
    dataset = pools.datasets[name]
    print_row(pools, columns, name, dataset)
    if not parts:
        return
    for mark, kind in ("@", "snapshots"), ("#", "bookmarks"):
        for part, value in sorted(dataset[kind].items(), key=lambda each: each[1]["txg"]):
            print_row(pools, columns, f"{name}{mark}{part}", value)


def print_row(pools, columns, name, found):
    whole = "snapshots" in found
    values = {
        "name": name,
        "type": found["type"] if whole else ("snapshot" if "@" in name else "bookmark"),
        "guid": str(found["guid"]),
        "createtxg": str(found["txg"]),
        "creation": str(found.get("creation", 1_700_000_000)),
        "userrefs": str(len(found["holds"])) if "@" in name else NOTHING,
        "encryption": "off" if "#" not in name else NOTHING,
        "receive_resume_token": token_of(found) if whole and found.get("partial") else NOTHING,
    }
    if whole:
        values["origin"] = found.get("origin", NOTHING)
        for key in ("canmount", "mountpoint", "fsrep:made"):
            values[key] = pools.property(name, key)
    print("\t".join(values.get(column, NOTHING) for column in columns))


def do_holds(pools, arguments):
    _, names = options(arguments, "Hp")
    errors = []
    for name in names:
        try:
            for tag in pools.part(name)["holds"]:
                print(f"{name}\t{tag}\tThu Jan  1 00:00 1970")
        except FailedError as error:
            errors += error.args
    if errors:
        raise FailedError(*errors)


def do_hold(pools, arguments):
    tag, *names = arguments
    each_of(names, lambda name: hold(pools, tag, name))


def do_release(pools, arguments):
    tag, *names = arguments
    each_of(names, lambda name: release(pools, tag, name))


def each_of(names, work):
    errors = []
    for name in names:
        try:
            work(name)
        except FailedError as error:
            errors += error.args
    if errors:
        raise FailedError(*errors)


def hold(pools, tag, name):
    try:
        holds = pools.part(name)["holds"]
    except FailedError as error:
        raise FailedError(f"cannot hold snapshot '{name}': dataset does not exist") from error
    if tag in holds:
        raise FailedError(f"cannot hold snapshot '{name}': tag already exists on this dataset")
    holds.append(tag)


def release(pools, tag, name):
    what = f"cannot release hold from snapshot '{name}'"
    try:
        holds = pools.part(name)["holds"]
    except FailedError as error:
        raise FailedError(f"{what}: dataset does not exist") from error
    if tag not in holds:
        raise FailedError(f"{what}: no such tag on this dataset")
    holds.remove(tag)


def do_snapshot(pools, arguments):
    for name in arguments:
        dataset = name.partition("@")[0]
        if dataset not in pools.datasets:
            raise FailedError(
                f"cannot open '{dataset}': dataset does not exist", "usage:", status=2
            )
    for name in arguments:
        dataset, _, snapshot = name.partition("@")
        if snapshot in pools.datasets[dataset]["snapshots"]:
            raise FailedError(
                f"cannot create snapshot '{name}': dataset already exists",
                "no snapshots were created",
            )
    for name in arguments:
        pools.snapshot(name)


def do_bookmark(pools, arguments):
    source, name = arguments
    found = pools.part(source)
    dataset, _, bookmark = name.partition("#")
    bookmarks = pools.datasets[dataset]["bookmarks"]
    if bookmark in bookmarks:
        raise FailedError(f"cannot create bookmark '{name}': bookmark exists")
    bookmarks[bookmark] = {key: found[key] for key in ("guid", "txg", "creation")}
    if "content" in found:
        past = pools.datasets[dataset].setdefault("past", {})
        past[str(found["guid"])] = found["content"]


def do_destroy(pools, arguments):
    (spec,) = arguments
    if "#" in spec:
        dataset, _, name = spec.partition("#")
        if pools.datasets.get(dataset, {}).get("bookmarks", {}).pop(name, None) is None:
            raise FailedError(f"bookmark '{spec}' does not exist.")
        return
    dataset, _, names = spec.partition("@")
    snapshots = pools.dataset(dataset)["snapshots"]
    there = [name for name in names.split(",") if name in snapshots]
    if not there:
        raise FailedError("could not find any snapshots to destroy; check snapshot names.")
    held = [f"{dataset}@{name}" for name in there if snapshots[name]["holds"]]
    if held:
        raise FailedError(
            *(
                f"cannot destroy snapshot {name}: it's being held. Run 'zfs holds -r {name}' to "
                "see holders."
                for name in held
            )
        )
    for name in there:
        del snapshots[name]


def do_create(pools, arguments):
    chosen, (name,) = options(arguments, "u", "o")
    pools.create(name, **dict(each.split("=", 1) for each in chosen.get("o", ())))


def do_rollback(pools, arguments):
    (full,) = arguments
    found = pools.part(full)
    head = pools.datasets[full.partition("@")[0]]
    later = [*head["snapshots"].values(), *head["bookmarks"].values()]
    if any(each["txg"] > found["txg"] for each in later):
        raise FailedError(
            f"cannot rollback to '{full}': more recent snapshots or bookmarks exist",
            "use '-r' to force deletion of the following snapshots and bookmarks:",
        )
    head["content"], head["changed"] = list(found["content"]), False


# --- streams ---


def begin(kind, name="", guid=0, base=0, meaning=(0, 0)):
    """Make the first record of a stream; ``meaning`` is the type of the dataset, and flags."""
    return struct.pack("<IIQQQIIQQ256s", 0, 0, MAGIC, kind, 0, *meaning, guid, base, name.encode())


def end():
    return struct.pack("<II", 5, 0).ljust(RECORD, b"\0")


def blob_record(blob):
    with open(os.path.join(blobs(), blob), "rb") as file:
        data = file.read()
    return struct.pack("<II64s", 3, len(data), blob.encode()).ljust(RECORD, b"\0") + data


def blobs():
    return os.path.join(sys.argv[1], "blobs")


def add_blob(state, data):
    """Keep some bytes under a name that follows from them."""
    name = hashlib.sha256(data).hexdigest()
    path = os.path.join(state, "blobs", name)
    with open(f"{path}.{os.getpid()}", "wb") as file:
        file.write(data)
    os.rename(f"{path}.{os.getpid()}", path)
    return name


def substream(full, target, base, skip=0):
    """Make one stream: its beginning, what is new, the list of all, and its end."""
    known = set(base["content"]) if base else set()
    new = [blob for blob in target["content"] if blob not in known][skip:]
    listing = json.dumps(target["content"]).encode()
    guid, flags = (base["guid"], CLONE if base.get("elsewhere") else 0) if base else (0, 0)
    yield begin(1, full, target["guid"], guid, (TYPES[target["type"]], flags))
    yield from map(blob_record, new)
    yield struct.pack("<II", 1, len(listing)).ljust(RECORD, b"\0") + listing
    yield end()


def packed(pairs):
    body = b"".join(pair(*each) for each in pairs)
    return b"\0\1\0\0" + struct.pack("<iI", 0, 1) + body + bytes(4)


def pair(name, value):
    raw = name.encode() + b"\0"
    head = 16 + len(raw) + (-(16 + len(raw)) % 8)
    if isinstance(value, int):
        kind, data = 8, struct.pack("<Q", value)
    else:
        data = value.encode() + b"\0"
        kind, data = 9, data + bytes(-len(data) % 8)
    return (struct.pack("<ihhii", head + len(data), len(raw), 0, 1, kind) + raw).ljust(
        head, b"\0"
    ) + data


def token_of(dataset):
    partial = dataset["partial"]
    pairs = [
        ("object", 1),
        ("offset", len(partial["blobs"])),
        ("bytes", partial["bytes"]),
        ("toguid", partial["guid"]),
        ("toname", partial["source"]),
    ]
    if partial["base"]:
        pairs.append(("fromguid", partial["base"]))
    plain = packed(pairs)
    squeezed = zlib.compress(plain)
    words = squeezed[: len(squeezed) // 4 * 4]
    checksum = sum(struct.unpack(f"<{len(words) // 4}I", words))
    return f"1-{checksum:x}-{len(plain):x}-{squeezed.hex()}"


def read_token(token):
    """Read what this program has written; a real token is read by the storage's tests."""
    plain = zlib.decompress(bytes.fromhex(token.split("-")[3]))
    values, offset = {}, 12
    while True:
        (size,) = struct.unpack_from("<i", plain, offset)
        if not size:
            return values
        _, name_bytes, _, _, kind = struct.unpack_from("<ihhii", plain, offset)
        name = plain[offset + 16 : offset + 15 + name_bytes].decode()
        value = plain[offset + 16 + name_bytes + (-(16 + name_bytes) % 8) : offset + size]
        values[name] = (
            struct.unpack("<Q", value)[0] if kind == 8 else value.partition(b"\0")[0].decode()
        )
        offset += size


def do_send(pools, arguments):
    chosen, names = options(arguments, "nvPwLcepb", "iIt")
    with pools:
        parts = list(choose(pools, chosen, names))
        pieces = [b"".join(substream(*each)) for each in parts]
    size = sum(map(len, pieces))
    out = sys.stdout if "n" in chosen else sys.stderr
    if "v" in chosen:
        print(f"full\t{parts[-1][0]}\t{size}", f"size\t{size}", sep="\n", file=out, flush=True)
    if "n" in chosen:
        return
    write(begin(2) + end() if "I" in chosen else b"")
    for piece in pieces:
        write(piece)
    write(end() if "I" in chosen else b"")


def choose(pools, chosen, names):
    """Give name, target, base and what to leave out of each stream to be made."""
    if "t" in chosen:
        token = read_token(chosen["t"][-1])
        dataset = pools.datasets.get(token["toname"].partition("@")[0])
        target = pools.by_guid(dataset, token["toguid"]) if dataset else None
        if target is None or "content" not in target:
            raise FailedError(
                f"cannot resume send: '{token['toname']}' used in the initial send no longer "
                "exists",
                status=255,
            )
        base = with_content(dataset, pools.by_guid(dataset, token.get("fromguid", 0)))
        origin = dataset.get("origin")
        if base is None and origin and pools.part(origin)["guid"] == token.get("fromguid"):
            base = {**pools.part(origin), "elsewhere": True}
        yield token["toname"], target, base, token["offset"]
        return
    (full,) = names
    target = pools.part(full)
    name = full.partition("@")[0]
    dataset = pools.datasets[name]
    if "I" in chosen:
        base = pools.part(name + chosen["I"][-1])
        between = sorted(dataset["snapshots"].items(), key=lambda each: each[1]["txg"])
        for snapshot, value in between:
            if base["txg"] < value["txg"] <= target["txg"]:
                yield f"{name}@{snapshot}", value, base, 0
                base = value
        return
    base = None
    if "i" in chosen and "/" in chosen["i"][-1]:
        base = {**pools.part(chosen["i"][-1]), "elsewhere": True}
    elif "i" in chosen:
        base = with_content(dataset, pools.part(name + chosen["i"][-1]))
    yield full, target, base, 0


def with_content(dataset, base):
    """A bookmark remembers what was there, which this program keeps beside it."""
    if base is None or "content" in base:
        return base
    return {**base, "content": dataset.setdefault("past", {}).get(str(base["guid"]), [])}


def write(data):
    while data:
        data = data[os.write(1, data) :]


class BrokenOffError(Exception):
    """The stream ended too early."""


def read_exactly(size):
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            raise BrokenOffError
        data += piece
    return data


def do_receive(pools, arguments):
    chosen, (name,) = options(arguments, "suFA", "ox")
    if "A" in chosen:
        with pools:
            dataset = pools.dataset(name)
            if not dataset.pop("partial", None):
                raise FailedError(f"'{name}' does not have any resumable receive state to abort")
            if dataset.pop("provisional", False):
                del pools.datasets[name]
        return
    settings = dict(each.split("=", 1) for each in chosen.get("o", ()))
    try:
        record = read_exactly(RECORD)
        package = struct.unpack_from("<Q", record, 16)[0] & 3 == 2
        if package:
            read_exactly(RECORD)
            record = read_exactly(RECORD)
    except BrokenOffError:
        raise FailedError("cannot receive: failed to read from stream") from None
    while True:
        receive_one(pools, name, record, settings, forced="F" in chosen)
        if not package:
            return
        try:
            record = read_exactly(RECORD)
        except BrokenOffError:
            raise FailedError("cannot receive: failed to read from stream") from None
        if struct.unpack_from("<I", record)[0] == 5:
            return


def receive_one(pools, name, record, settings, *, forced):
    *_, kind, flags, guid, base_guid, source = struct.unpack_from("<IIQQQIIQQ256s", record)
    source = source.partition(b"\0")[0].decode()
    snapshot = source.partition("@")[2]
    coming = {
        "guid": guid,
        "base": base_guid,
        "source": source,
        "kind": "volume" if kind == VOLUME else "filesystem",
        "settings": settings,
        "forced": forced,
        "clone": flags & CLONE,
    }
    with pools:
        dataset, partial = open_receive(pools, name, coming)
        dataset["receiving"] = os.getpid()
        dataset["partial"] = partial
    got, listing = list(partial["blobs"]), None
    received = partial["bytes"]
    try:
        while True:
            head = read_exactly(RECORD)
            received += RECORD
            kind, size = struct.unpack_from("<II", head)
            data = read_exactly(size)
            received += size
            if kind == 3:
                got.append(add_blob(sys.argv[1], data))
                note(pools, name, {**partial, "blobs": got, "bytes": received})
            elif kind == 1:
                listing = json.loads(data)
            elif kind == 5:
                break
    except BrokenOffError:
        with pools:
            pools.datasets[name]["receiving"] = None
        what = "incremental" if base_guid else "new filesystem"
        raise FailedError(
            f"cannot receive {what} stream: checksum mismatch or incomplete stream.",
            "Partially received snapshot is saved.",
            "A resuming stream can be generated on the sending system by running:",
            "    zfs send -t 1-...",
        ) from None
    with pools:
        head = pools.datasets[name]
        if any(each["guid"] == guid for each in head["snapshots"].values()):
            raise FailedError(f"cannot restore to {name}@{snapshot}: destination already exists")
        for key in ("partial", "provisional", "receiving"):
            head.pop(key, None)
        head["content"] = listing
        pools.snapshot(f"{name}@{snapshot}", guid)


def note(pools, name, partial):
    with pools:
        pools.datasets[name]["partial"] = partial


def open_receive(pools, name, coming):
    """See whether a stream may be received, as the real one does; give where it goes."""
    dataset = pools.datasets.get(name)
    what = "incremental" if coming["base"] else "new filesystem"
    partial = (dataset or {}).get("partial")
    pid = (dataset or {}).get("receiving")
    if pid and os.path.exists(f"/proc/{pid}"):
        raise FailedError(f"cannot receive {what} stream: dataset is busy")
    if partial:
        if (partial["guid"], partial["base"]) != (coming["guid"], coming["base"]):
            raise FailedError(
                f"cannot receive {what} stream: destination {name} contains partially-complete "
                'state from "zfs receive -s".'
            )
        return dataset, partial
    open_one = open_increment if coming["base"] else open_full
    if coming["clone"]:
        open_one = open_clone
    fresh = {key: coming[key] for key in ("guid", "base", "source")}
    return open_one(pools, name, dataset, coming), {**fresh, "blobs": [], "bytes": 0}


def open_increment(_pools, name, dataset, coming):
    what = "cannot receive incremental stream"
    if dataset is None:
        raise FailedError(f"{what}: destination '{name}' does not exist")
    snapshots = sorted(dataset["snapshots"].values(), key=lambda each: each["txg"])
    base = next((each for each in snapshots if each["guid"] == coming["base"]), None)
    if base is None:
        raise FailedError(
            f"{what}: most recent snapshot of {name} does not", "match incremental source"
        )
    if dataset["changed"] or snapshots[-1]["content"] != base["content"]:
        raise FailedError(
            f"{what}: destination {name} has been modified", "since most recent snapshot"
        )
    dataset["properties"].update(coming["settings"])
    return dataset


def open_clone(pools, name, dataset, coming):
    for other, each in pools.datasets.items():
        for snapshot, value in each["snapshots"].items():
            if value["guid"] == coming["base"]:
                if dataset is not None:
                    raise FailedError("cannot receive: kernel modules must be upgraded")
                made = open_full(pools, name, dataset, coming)
                made["origin"] = f"{other}@{snapshot}"
                return made
    raise FailedError(
        "cannot receive new filesystem stream: local origin for clone "
        f"{name}@{coming['source'].partition('@')[2]} does not exist"
    )


def open_full(pools, name, dataset, coming):
    what = "cannot receive new filesystem stream"
    if dataset is None:
        parent = name.rpartition("/")[0]
        if parent not in pools.datasets:
            raise FailedError(
                f"cannot open '{parent}': dataset does not exist",
                f"{what}: unable to restore to destination",
            )
        dataset = pools.create(name, coming["kind"], **coming["settings"])
        dataset["provisional"] = True
        return dataset
    if not coming["forced"]:
        raise FailedError(f"{what}: destination '{name}' exists", "must specify -F to overwrite it")
    if dataset["snapshots"]:
        raise FailedError(
            f"{what}: destination has snapshots (eg. {name}@x)", "must destroy them to overwrite it"
        )
    dataset["properties"].update(coming["settings"])
    return dataset


COMMANDS = {
    "list": do_list,
    "holds": do_holds,
    "hold": do_hold,
    "release": do_release,
    "snapshot": do_snapshot,
    "bookmark": do_bookmark,
    "destroy": do_destroy,
    "create": do_create,
    "rollback": do_rollback,
}


def check_refusal(state, command):
    refusal = os.path.join(state, f"refuse-{command}")
    if os.path.exists(refusal):
        with open(refusal) as file:
            raise FailedError(file.read())


def main():
    state, command, *arguments = sys.argv[1:]
    with open(os.path.join(state, "log"), "a") as file:
        file.write(json.dumps([command, *arguments]) + "\n")
    pools = Pools(state)
    try:
        check_refusal(state, command)
        if command == "send":
            do_send(pools, arguments)
        elif command == "receive":
            do_receive(pools, arguments)
        else:
            with pools:
                COMMANDS[command](pools, arguments)
    except FailedError as error:
        print("\n".join(error.args), file=sys.stderr)
        return error.status
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
