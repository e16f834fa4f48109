"""Hostile repositories, drawn by number: objects and references that git itself refuses to make.

dulwich writes any bytes as an object. A drawn repository builds upon one good commit, which a source
serves already. Cycles are impossible, since an id is the hash of the content.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from dulwich.objects import ShaFile

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
_TYPES = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}
DOCUMENT = b"apiVersion: trimtab/v1\nkind: Volume\nmetadata: {name: data}\nspec: {}\n"
#: A file that no export can create; found outside, it proves an escape.
ESCAPE = b"/tmp/trimtab-escape"
MISSING = b"1" * 40
BIG_BYTES = 9_000_000

_NAMES: tuple[bytes, ...] = (b"a", b"A", b"b.yaml", b"x.yaml", b"web", b"configs", b"deploy")
_NAMES += (b"e\xcc\x81", b"\xc3\xa9", b"%s", b" ", b"-rf", b"$(id)", b"x" * 250)
_BAD_NAMES: tuple[bytes, ...] = (b".git", b"..", b".", b"git~1", b"\xff", b"\n", b"\xe2\x80\x8c")
_BAD_NAMES += (b"/", b"\\", b"a/b", b"../up", b"x" * 300, b".GIT", b".git ", b"\x7f", b"\x1b[2J")
_BAD_NAMES += (ESCAPE, b"", b"\xe2\x80\xae", b"CON", b".gitmodules", b"\xed\xa0\x80", b"{" * 9)
_FLAWS = ("name", "mode", "object")
_FILE_MODES = (b"100644", b"100644", b"100644", b"100755")
_BAD_MODES = (b"120000", b"160000", b"100600", b"100664", b"0100644", b"0", b"777777", b"140000")
_BLOBS = (DOCUMENT, b"", b"a: 1\n", b"\0" * 100, b"- " * 5000, b"\xff\xfe", b"../../../etc/passwd")
_BAD_BLOBS = (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ESCAPE)
_PERSON = b"Alice <alice@example.org> 1700000000 +0000"
_BAD_PERSONS: tuple[bytes, ...] = (
    b"",
    b"<>",
    b"A <a> <b> 1 +0000",
    b"A <a> 99999999999999999999 +0000",
)
_BAD_PERSONS += (b"\xff\xfe <\xff> 1 +0000", b"A <a> -1 +0000", b"A <a> 1 +99999", b"A" * 5000)
_BAD_PERSONS += (b"A\x1b[31m <a> 99999999999 +0000", b"A <a@\xe2\x80\xae> 1 +0000")
_ARMOR: dict[bytes, bytes] = {
    b"-----BEGIN PGP SIGNATURE-----": b"-----END PGP SIGNATURE-----",
    b"-----BEGIN PGP MESSAGE-----": b"-----END PGP MESSAGE-----",
    b"-----BEGIN SSH SIGNATURE-----": b"-----END SSH SIGNATURE-----",
    b"-----BEGIN SIGNED MESSAGE-----": b"-----END SIGNED MESSAGE-----",
    b"-----BEGIN NOTHING-----": b"-----END NOTHING-----",
}


class RawObject(ShaFile):
    """An object of a type with any content: dulwich's own classes refuse what they can't parse."""

    def __init__(self, type_num: int, raw: bytes) -> None:
        super().__init__()
        self.type_num = type_num
        self.type_name = _TYPES[type_num]
        self.set_raw_string(raw)

    def _deserialize(self, chunks: list[bytes]) -> None:
        pass


class Damage(StrEnum):
    """What happens to the files of the repository after the objects are written."""

    NONE = "none"
    FLIPPED_OBJECT = "flipped object"
    CUT_OBJECT = "cut object"
    FLIPPED_PACK = "flipped pack"
    CUT_PACK = "cut pack"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a tree, as it is stored."""

    mode: bytes
    name: bytes
    object_id: bytes


@dataclass(frozen=True, slots=True)
class GoodCommit:
    """The commit that is served: its id, and its header ``gpgsig`` with a good signature."""

    commit: bytes
    signature: bytes


@dataclass(slots=True)
class Hostile:
    """A drawn repository."""

    number: int
    dice: Random
    good: GoodCommit
    objects: dict[bytes, RawObject] = field(default_factory=dict)
    trees: dict[bytes, list[Entry]] = field(default_factory=dict)
    #: The newest commit, and its tree.
    commit: bytes = MISSING
    tree: bytes = MISSING
    #: Content of each file of a reference.
    references: dict[str, bytes] = field(default_factory=dict)
    damage: Damage = Damage.NONE
    #: spec.git.path, spec.git.ref and spec.verify.
    path: str = "deploy"
    ref: str = '{"branch": "main"}'
    verify: str = "none"
    #: True if nothing is wrong: the commit must be served.
    is_plain: bool = False
    #: What is wrong with entries of trees: names, modes, objects, or any of them.
    flaw: str = "any"

    def add(self, kind: int, raw: bytes) -> bytes:
        made = RawObject(kind, raw)
        self.objects[made.id] = made
        return bytes(made.id)

    def add_tree(self, entries: list[Entry]) -> bytes:
        raw = b"".join(
            each.mode + b" " + each.name + b"\0" + bytes.fromhex(each.object_id.decode())
            for each in entries
        )
        made = self.add(TREE, raw)
        self.trees[made] = entries
        return made

    def chance(self, share: float) -> bool:
        return self.dice.random() < share


def draw(seed: int, number: int, good: GoodCommit) -> Hostile:
    """Return input *number* of a seed: the same each time."""
    it = Hostile(number, Random(f"{seed}:{number}"), good)
    kind = it.dice.random()
    it.is_plain = kind < 0.12
    bad_tree, bad_commit = 0.12 <= kind < 0.6, kind >= 0.5
    it.flaw = it.dice.choice(("any", "name", "mode", "object"))
    it.tree = _top(it, wickedness=it.dice.choice((0.02, 0.1, 0.4)) if bad_tree else 0.0)
    it.commit = it.add(COMMIT, _commit(it, is_good=not bad_commit))
    it.references["refs/heads/main"] = it.commit + b"\n"
    if not it.is_plain:
        _vary(it)
    return it


def _vary(it: Hostile) -> None:
    """Draw what is around the commit: references, damage, and the spec of the source."""
    if it.chance(0.2):
        it.damage = it.dice.choice(list(Damage))
    if it.chance(0.15):
        it.path = it.dice.choice((".", "deploy/a", "missing", "configs"))
    if it.chance(0.3):
        it.verify = it.dice.choice(("head", "all", "tag"))
    if it.chance(0.25):
        _tags(it)
    if it.chance(0.1):
        it.references["refs/heads/main"] = _reference(it)


# Trees.


def _top(it: Hostile, *, wickedness: float) -> bytes:
    if wickedness and it.chance(0.1):
        return it.dice.choice((_wide, _deep, _nested, _without_folder))(it)
    entries = [Entry(b"40000", b"deploy", _folder(it, wickedness, depth=0))]
    if it.chance(0.3):
        entries.insert(0, Entry(b"40000", b"configs", _folder(it, wickedness, depth=1)))
    if it.chance(0.3):
        entries.append(Entry(b"100644", b"zz.txt", it.add(BLOB, b"read me\n")))
    return it.add_tree(entries)


def _folder(it: Hostile, wickedness: float, depth: int) -> bytes:
    entries = [Entry(b"100644", b"base.yaml", it.add(BLOB, DOCUMENT))]
    entries += [_entry(it, wickedness, depth) for _ in range(it.dice.randint(0, 5))]
    if not wickedness or it.flaw in {"mode", "object"}:
        entries = list({_folded(entry.name): entry for entry in entries}.values())
    elif it.flaw in {"any", "name"} and it.chance(wickedness):
        entries.append(it.dice.choice(entries))  # the same again
    if it.chance(1 - wickedness):
        entries.sort(key=_order)
    return it.add_tree(entries)


def _folded(name: bytes) -> bytes:
    return name.lower().replace(b"e\xcc\x81", b"\xc3\xa9")


def _order(entry: Entry) -> bytes:
    """Return the key of git's order: a folder is sorted as if its name ended in a slash."""
    return entry.name + (b"/" if entry.mode == b"40000" else b"")


def _entry(it: Hostile, wickedness: float, depth: int) -> Entry:
    bad = {flaw: wickedness if it.flaw in {"any", flaw} else 0.0 for flaw in _FLAWS}
    names = _BAD_NAMES if it.chance(bad["name"]) else _NAMES
    name = it.dice.choice(names)
    if it.chance(0.3) and names is _NAMES:
        name = name[:200] + b"-" + str(it.dice.randint(0, 3)).encode()
    if it.chance(0.35) and depth < 4:
        return Entry(b"40000", name, _folder(it, wickedness, depth + 1))
    if it.chance(bad["mode"]):
        mode = it.dice.choice(_BAD_MODES)
        blob = it.add(BLOB, ESCAPE)
        wrong = it.dice.choice((blob, blob, blob, it.good.commit, MISSING))
        return Entry(mode, name, MISSING if mode == b"160000" else wrong)
    if it.chance(bad["object"] / 4):
        # A file that is a folder, a folder that is a file, or nothing.
        inside = _folder(it, wickedness, depth=4)
        blob = it.add(BLOB, DOCUMENT)
        pairs = ((b"100644", inside), (b"40000", blob), (b"100644", MISSING), (b"40000", MISSING))
        mode, object_id = it.dice.choice(pairs)
        return Entry(mode, name, object_id)
    return Entry(it.dice.choice(_FILE_MODES), name, it.add(BLOB, _content(it, wickedness)))


def _content(it: Hostile, wickedness: float) -> bytes:
    if it.chance(wickedness / 2):
        return it.dice.choice(_BAD_BLOBS)
    if it.chance(wickedness / 50):
        return b"\0" * BIG_BYTES
    return it.dice.choice((*_BLOBS, it.dice.randbytes(it.dice.randint(0, 300))))


def _wide(it: Hostile) -> bytes:
    blob = it.add(BLOB, DOCUMENT)
    count = it.dice.choice((200, 2000, 10_001))
    wide = [Entry(b"100644", f"{number:06}.yaml".encode(), blob) for number in range(count)]
    return it.add_tree([Entry(b"40000", b"deploy", it.add_tree(wide))])


def _deep(it: Hostile) -> bytes:
    inside = it.add_tree([Entry(b"100644", b"x.yaml", it.add(BLOB, DOCUMENT))])
    for _ in range(it.dice.choice((20, 22, 23, 60, 300))):
        inside = it.add_tree([Entry(b"40000", b"d", inside)])
    return it.add_tree([Entry(b"40000", b"deploy", inside)])


def _nested(it: Hostile) -> bytes:
    """Return a tree of 10^8 files in a few hundred bytes."""
    inside, mode = it.add(BLOB, DOCUMENT), b"100644"
    for _ in range(8):
        entries = [Entry(mode, f"f{number}.yaml".encode(), inside) for number in range(10)]
        inside, mode = it.add_tree(entries), b"40000"
    return it.add_tree([Entry(b"40000", b"deploy", inside)])


def _without_folder(it: Hostile) -> bytes:
    blob = it.add(BLOB, b"/etc")
    mode = it.dice.choice((b"100644", b"120000", b"160000"))
    return it.add_tree([Entry(mode, b"deploy", blob)] if it.chance(0.7) else [])


# Commits and tags.

_Header = tuple[bytes, bytes]


def _commit(it: Hostile, *, is_good: bool) -> bytes:
    headers = [
        (b"tree", it.tree),
        (b"parent", it.good.commit),
        (b"author", _PERSON),
        (b"committer", _PERSON),
    ]
    message = b"deploy\n"
    if not is_good:
        for _ in range(it.dice.randint(1, 3)):
            it.dice.choice(_SPOILERS)(it, headers)
        message = it.dice.choice((message, b"", b"\0\xff\x1b[2J\n", b"m" * 3000, _armored(it)))
    raw = b"".join(name + b" " + value + b"\n" for name, value in headers) + b"\n" + message
    if not is_good and it.chance(0.2):
        raw = _bitten(it, raw)
    return raw


def _bitten(it: Hostile, raw: bytes) -> bytes:
    """Return bytes with one change anywhere."""
    at = it.dice.randrange(len(raw))
    other = it.dice.choice((b"", b"\0", b"\n", b"\r\n", b" ", b"\xff", raw[at : at + 40] * 2))
    return raw[:at] + other + raw[at + it.dice.randint(0, 3) :]


def _twice(it: Hostile, headers: list[_Header]) -> None:
    headers.insert(it.dice.randint(0, len(headers)), it.dice.choice(headers))


def _lose(it: Hostile, headers: list[_Header]) -> None:
    if len(headers) > 1:
        headers.pop(it.dice.randrange(len(headers)))


def _shuffle(it: Hostile, headers: list[_Header]) -> None:
    it.dice.shuffle(headers)


def _person(it: Hostile, headers: list[_Header]) -> None:
    name = it.dice.choice((b"author", b"committer"))
    headers[:] = [
        (name, it.dice.choice(_BAD_PERSONS)) if each[0] == name else each for each in headers
    ]


def _parents(it: Hostile, headers: list[_Header]) -> None:
    ids = (MISSING, it.good.commit, it.tree, b"x" * 40, b"0" * 40)
    count = it.dice.choice((1, 2, 17, 400))
    headers[1:1] = [(b"parent", it.dice.choice(ids)) for _ in range(count)]


def _orphan(_it: Hostile, headers: list[_Header]) -> None:
    headers[:] = [each for each in headers if each[0] != b"parent"]


def _other_tree(it: Hostile, headers: list[_Header]) -> None:
    others = (MISSING, it.good.commit, it.add(BLOB, DOCUMENT), b"", b"A" * 40, b"1" * 64)
    headers[:] = [(b"tree", it.dice.choice(others)) if e[0] == b"tree" else e for e in headers]


def _odd_header(it: Hostile, headers: list[_Header]) -> None:
    odd: tuple[_Header, ...] = (
        (b"encoding", b"latin1\xff"),
        (b"mergetag", b"object 1\n type x"),
        (b"\0", b"\0"),
    )
    odd += ((b"gpgsig-md5", b"x"), (b"x" * 5000, b"y"), (b"", b"z"), (b"HG:extra", b"\xff" * 99))
    headers.insert(it.dice.randint(0, len(headers)), it.dice.choice(odd))


def _sign(it: Hostile, headers: list[_Header]) -> None:
    """Add a signature: noise, or the good one of another commit."""
    name = it.dice.choice((b"gpgsig", b"gpgsig", b"gpgsig", b"gpgsig-sha256"))
    value = it.good.signature if it.chance(0.4) else _armored(it).replace(b"\n", b"\n ")
    headers.insert(it.dice.randint(1, len(headers)) if headers else 0, (name, value))


_SPOILERS: tuple[Callable[[Hostile, list[_Header]], None], ...] = (
    _twice,
    _lose,
    _shuffle,
    _person,
    _person,
    _parents,
    _orphan,
    _other_tree,
    _odd_header,
    _sign,
    _sign,
    _sign,
)


def _armored(it: Hostile) -> bytes:
    begin, end = it.dice.choice(list(_ARMOR.items()))
    lines = [it.dice.randbytes(20).hex().encode() for _ in range(it.dice.randint(0, 6))]
    if it.chance(0.2):
        end = it.dice.choice((b"", begin, b"-----END-----", end + b"\nmore"))
    if it.chance(0.2):
        lines.insert(0, it.dice.choice((b"", b"-----", b"Hash: SHA256", b"\xff\0", begin)))
    return b"\n".join((begin, *lines, end))


def _tags(it: Hostile) -> None:
    """Draw annotated tags, of tags too, and let the source follow one of them or a range."""
    target, kind = it.dice.choice(
        ((it.commit, b"commit"), (it.tree, b"tree"), (it.commit, b"blob"), (MISSING, b"commit"))
    )
    for _ in range(it.dice.choice((1, 1, 2, 30))):
        target, kind = it.add(TAG, _tag(it, target, kind)), b"tag"
    name = it.dice.choice(("v1.0.0", "v1.2.3-rc.1", "v999999999.0.0", "live"))
    it.references[f"refs/tags/{name}"] = target + b"\n"
    it.references["refs/tags/v1.1.0"] = it.dice.choice((it.commit, it.tree)) + b"\n"
    refs = (f'{{"tag": "{name}"}}', '{"semver": "1.x"}', f'{{"name": "refs/tags/{name}"}}')
    it.ref = it.dice.choice(refs)


def _tag(it: Hostile, target: bytes, kind: bytes) -> bytes:
    headers = [(b"object", target), (b"type", kind), (b"tag", b"v1.0.0"), (b"tagger", _PERSON)]
    if it.chance(0.3):
        it.dice.choice((_twice, _lose, _shuffle, _odd_header))(it, headers)
    message = b"release\n" + (_armored(it) + b"\n" if it.chance(0.5) else b"")
    raw = b"".join(name + b" " + value + b"\n" for name, value in headers) + b"\n" + message
    return _bitten(it, raw) if it.chance(0.1) else raw


def _reference(it: Hostile) -> bytes:
    """Return the content of a reference's file that isn't the newest commit."""
    return it.dice.choice(
        (
            MISSING,
            it.tree,
            it.add(BLOB, DOCUMENT),
            b"ref: refs/heads/main\n",
            b"ref: ../../../../etc/passwd\n",
            b"",
            b"\0" * 40,
            it.commit[:39],
            it.good.commit,
            it.commit + b" trailing\n",
        )
    )
