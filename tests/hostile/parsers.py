"""The parsers and the export on drawn repositories, without git: the bulk of the fuzz.

git refuses most hostile objects when it fetches. Here they reach the parsers all the same, as from a git
that overlooks them.
"""

from __future__ import annotations

import itertools
import json
import stat
from collections.abc import Iterator
from pathlib import Path

from controller.core.git import reports
from controller.core.git.commit_objects import (
    FILES_MAX,
    DetachedSignature,
    Refusal,
    TreeFile,
    folders_of,
    parse_commit,
    parse_tag,
    parse_tree,
    select_files,
)
from controller.core.git.references import parse_listing, select_reference
from controller.core.git.remote_failures import explain_failure
from controller.fetch.export import ExportFolder
from controller.model.desired.source_spec import SourceSpec
from controller.model.sources import CommitInfo, SourceState, SourceStatus
from tests.hostile.drawn import BLOB, TAG, Entry, Hostile

#: More entries than an export can have end the walk: git's output is cut there too.
_ENTRIES_MAX = FILES_MAX + 2
_DEPTH_MAX = 100


def examine(it: Hostile, folder: Path) -> str:
    """Send a drawn repository through the parsers, and what they admit through the export.

    Returns the outcome: a code, or ``exported``.

    Raises:
        AssertionError: an invariant doesn't hold.
    """
    _examine_tags(it)
    _examine_listing(it)
    info = _examine_commit(it)
    if info is None:
        return "commit refused"
    listing = b"".join(render(it, it.tree, it.path))
    selected = select_files(parse_tree(listing), path=it.path)
    if isinstance(selected, Refusal):
        assert_printable(selected.message, selected.remedy)
        return selected.code
    others = {file.path for file in selected.files} - _regular(it)
    assert not others, f"no regular files, and admitted: {sorted(others)}"
    contents = dict(_expected(it))
    if any(file.object_id.encode() not in it.objects for file in selected.files):
        return "object missing"
    exports = ExportFolder(folder / "sources" / "shop")
    exports.prepare()
    pairs = [(file, _blob(it, file)) for file in selected.files]
    exports.write(info, pairs, path=it.path)
    exports.serve(info.commit)
    raise_if_not_exported(folder / "sources" / "shop", info.commit, contents)
    return "exported"


def assert_printable(*texts: str) -> None:
    for text in texts:
        assert text.isprintable(), f"unprintable for people: {text!r}"
        assert len(text) < 1000, f"a text of {len(text)} characters"


def _blob(it: Hostile, file: TreeFile) -> bytes:
    return bytes(it.objects[file.object_id.encode()].as_raw_string())


def _examine_commit(it: Hostile) -> CommitInfo | None:
    raw = bytes(it.objects[it.commit].as_raw_string())
    try:
        parsed = parse_commit(raw)
    except ValueError as error:
        assert not it.is_plain, f"a good commit was refused: {error}"
        return None
    assert_printable(parsed.author, parsed.authored, parsed.committed, parsed.subject)
    _examine_signature(parsed.signature, raw)
    info = CommitInfo(
        it.commit.decode(), parsed.author, parsed.authored, parsed.committed, parsed.subject
    )
    status = SourceStatus("shop", SourceState.READY, "file:///x", "main", ".", current=info)
    # The controller reads with strict rules what the fetcher writes.
    assert reports.parse_status(reports.render_status([status]))[0].current == info
    return info


def _examine_signature(signature: DetachedSignature | None, raw: bytes) -> None:
    if signature is None:
        return
    head = signature.payload.partition(b"\n\n")[0]
    assert len(signature.payload) < len(raw), "the signature covers itself"
    assert b"\ngpgsig" not in head, "a second signature is among the signed bytes"
    armored = signature.armored.rstrip(b"\n").split(b"\n")
    assert armored[0].startswith(b"-----BEGIN "), "a signature without a beginning"
    assert armored[-1].startswith(b"-----END "), "a signature without an end"


def _examine_tags(it: Hostile) -> None:
    for made in it.objects.values():
        if made.type_num != TAG:
            continue
        raw = bytes(made.as_raw_string())
        try:
            tag = parse_tag(raw)
        except ValueError:
            continue
        assert_printable(tag.name, tag.kind, tag.target)
        if tag.signature is not None:
            assert raw.startswith(tag.signature.payload), "a tag's signature covers other bytes"
            assert raw == tag.signature.payload + tag.signature.armored


def _examine_listing(it: Hostile) -> None:
    """Send the references through the parser of ``git ls-remote``, and failures to people."""
    lines = [content.strip() + b"\t" + name.encode() for name, content in it.references.items()]
    noise = it.dice.randbytes(40)
    listed = parse_listing(b"\n".join((noise, *lines, b"", noise + b"\trefs/heads/" + noise)))
    spec = SourceSpec.model_validate_json(spec_json(it, "file:///x"))
    chosen = select_reference(spec.git.ref, listed)
    assert chosen is None or chosen in listed
    for name, object_id in listed.items():
        assert_printable(name, object_id)
    failure = explain_failure(f"fatal: {noise!r}\x1b\u202e", exit_code=128)
    assert_printable(failure.message, failure.remedy)


def spec_json(it: Hostile, url: str) -> str:
    """Return the spec of a source that follows a drawn repository."""
    git = {"url": url, "path": it.path, "ref": json.loads(it.ref)}
    spec: dict[str, object] = {"namespaces": ["shop"], "git": git}
    if it.verify != "none":
        spec["verify"] = {"mode": it.verify, "keys": "team"}
    return json.dumps(spec)


def render(it: Hostile, tree: bytes, path: str) -> Iterator[bytes]:
    """Yield the lines of ``git ls-tree -r -z -l`` for the folders of a source."""
    for name, entry in itertools.islice(_walk(it, tree, b"", 0), _ENTRIES_MAX):
        if not _is_inside(name, path):
            continue
        mode = int(entry.mode, 8)
        size = "-"
        if entry.object_id in it.objects and it.objects[entry.object_id].type_num == BLOB:
            size = str(it.objects[entry.object_id].raw_length())
        kind = "commit" if stat.S_IFMT(mode) == 0o160000 else "blob"
        yield f"{mode:06o} {kind} {entry.object_id.decode()} {size:>7}\t".encode() + name + b"\0"


def _is_inside(name: bytes, path: str) -> bool:
    folders = folders_of(path)
    return folders == (".",) or any(name.startswith(f"{each}/".encode()) for each in folders)


def _walk(it: Hostile, tree: bytes, prefix: bytes, depth: int) -> Iterator[tuple[bytes, Entry]]:
    for entry in it.trees.get(tree, ()):
        name = prefix + entry.name
        if stat.S_ISDIR(int(entry.mode, 8)):
            if depth < _DEPTH_MAX:
                yield from _walk(it, entry.object_id, name + b"/", depth + 1)
        else:
            yield name, entry


def _regular(it: Hostile) -> set[str]:
    """Return the names of the drawn entries that are regular files."""
    entries = itertools.islice(_walk(it, it.tree, b"", 0), _ENTRIES_MAX)
    return {_text(name) for name, entry in entries if _is_regular(entry)}


def _is_regular(entry: Entry) -> bool:
    return entry.mode.lstrip(b"0") in {b"100644", b"100755"}


def _is_read_as_regular(entry: Entry) -> bool:
    """Return True if git reads an entry as a regular file: it lists 100600 as 100644."""
    return stat.S_ISREG(int(entry.mode, 8))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _expected(it: Hostile) -> Iterator[tuple[str, bytes]]:
    """Yield the files that an export of the whole tree has, by the drawn entries alone."""
    for name, entry in itertools.islice(_walk(it, it.tree, b"", 0), _ENTRIES_MAX):
        made = it.objects.get(entry.object_id)
        if made is not None and _is_read_as_regular(entry) and _is_inside(name, it.path):
            yield _text(name), bytes(made.as_raw_string())


def expected_of(it: Hostile) -> dict[str, bytes]:
    """Return the files that an export of the drawn commit has."""
    return dict(_expected(it))


def raise_if_not_exported(exports: Path, commit: str, expected: dict[str, bytes]) -> None:
    """Raise AssertionError unless the served export has exactly the expected files."""
    assert (exports / "current").readlink() == Path(commit), "another commit is served"
    found: dict[str, bytes] = {}
    for path in (exports / commit).rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode), f"{path} is no regular file"
        assert ".git" not in {part.lower() for part in path.parts}, f"{path} is git's"
        if stat.S_ISREG(mode):
            assert stat.S_IMODE(mode) == 0o640, f"{path} has mode {mode:o}"
            found[str(path.relative_to(exports / commit))] = path.read_bytes()
    assert found == expected, f"exported {sorted(found)}, expected {sorted(expected)}"
