"""``status.json`` of the fetcher: statuses of sources to JSON and back.

The reader is strict and bounded: the controller doesn't trust the fetcher, which reads hostile
bytes. An unknown version, a wrong type or a text beyond its bound refuses the whole file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from controller.model.sources import CommitInfo, CommitSignature, SourceState, SourceStatus

VERSION = 1
SOURCES_MAX = 64
REPORT_MAX_BYTES = 1 << 20
TEXT_MAX = 2048
_COUNT_MAX = 1 << 31
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def render(statuses: Iterable[SourceStatus]) -> bytes:
    """Return the file for the statuses, ordered by name."""
    ordered = sorted(statuses, key=lambda status: status.name)
    body = {"version": VERSION, "sources": [status_to_json(each) for each in ordered]}
    return f"{json.dumps(body, ensure_ascii=False, indent=1)}\n".encode()


def parse(data: bytes) -> tuple[SourceStatus, ...]:
    """Return the statuses of a file.

    Raises:
        ValueError: the file is damaged, too long, or of another version.
    """
    listed = read_list(data, "sources", version=VERSION, most=SOURCES_MAX, size=REPORT_MAX_BYTES)
    statuses = tuple(status_from_json(each) for each in listed)
    if len({status.name for status in statuses}) != len(statuses):
        raise ValueError("the report has two sources of one name")
    return statuses


def read_list(data: bytes, member: str, *, version: int, most: int, size: int) -> list[Any]:
    """Return the list of a file ``{"version": …, MEMBER: […]}`` of another process.

    *most* bounds the items, *size* the bytes of the file.

    Raises:
        ValueError: the file is damaged, too long, or of another version.
    """
    if len(data) > size:
        raise ValueError(f"the file is longer than {size} bytes")
    try:
        body = json.loads(data)
    except RecursionError as error:
        raise ValueError("the file is nested too deeply") from error
    if not isinstance(body, dict) or body.get("version") != version:
        raise ValueError(f"the file isn't of version {version}")
    listed = body.get(member)
    if not isinstance(listed, list) or len(listed) > most:
        raise ValueError(f"the file has no list of at most {most} {member}")
    return listed


def status_to_json(status: SourceStatus) -> dict[str, Any]:
    """Return a status as JSON; texts are cut to their bound, and line breaks removed."""
    raw = asdict(status)
    for side in ("current", "candidate"):
        if raw[side] is not None:
            raw[side] = _bounded(raw[side])
            if raw[side]["signature"] is not None:
                raw[side]["signature"] = _bounded(raw[side]["signature"])
    return _bounded(raw)


def commit_to_json(info: CommitInfo) -> dict[str, Any]:
    """Return a commit as JSON, for ``COMMIT.json``."""
    raw = _bounded(asdict(info))
    if raw["signature"] is not None:
        raw["signature"] = _bounded(raw["signature"])
    return raw


def status_from_json(raw: object) -> SourceStatus:
    """Parse the JSON of a status.

    Raises:
        ValueError: a member is missing, unknown, or of another form.
    """
    members = _members(_without_forge(raw), SourceStatus)
    name = _text(members, "name")
    if not _NAME.fullmatch(name):
        raise ValueError("the name of a source is malformed")
    failures = members.get("failures")
    if type(failures) is not int or not 0 <= failures < _COUNT_MAX:
        raise ValueError("failures isn't a count")
    others = set(members) - {"state", "current", "candidate", "failures"}
    return SourceStatus(
        **{member: _text(members, member) for member in others},
        state=SourceState(_text(members, "state")),
        current=commit_from_json(members["current"]),
        candidate=commit_from_json(members["candidate"]),
        failures=failures,
    )


def _without_forge(raw: object) -> object:
    """Return a status with all members: those about the forge came later, and can be missing."""
    known = raw if isinstance(raw, dict) else None
    return (
        raw
        if known is None
        else {"forge_reason": "", "forge_message": "", "forge_remedy": "", **known}
    )


def commit_from_json(raw: object) -> CommitInfo | None:
    """Parse the JSON of a commit; raises as ``status_from_json``."""
    if raw is None:
        return None
    members = _members(raw, CommitInfo)
    commit = _text(members, "commit")
    if not _COMMIT.fullmatch(commit):
        raise ValueError("the id of a commit is malformed")
    texts = {member: _text(members, member) for member in set(members) - {"signature"}}
    return CommitInfo(**texts, signature=_signature(members["signature"]))


def _signature(raw: object) -> CommitSignature | None:
    if raw is None:
        return None
    members = _members(raw, CommitSignature)
    return CommitSignature(**{member: _text(members, member) for member in members})


def _members(raw: object, kind: type) -> Mapping[str, object]:
    expected = {field.name for field in fields(kind)}
    if not isinstance(raw, dict) or set(raw) != expected:
        raise ValueError(f"expected the members {', '.join(sorted(expected))}")
    return raw


def _text(members: Mapping[str, object], name: str) -> str:
    value = members[name]
    if not isinstance(value, str) or len(value) > TEXT_MAX or not value.isprintable():
        raise ValueError(f"{name} isn't a printable text of at most {TEXT_MAX} characters")
    return value


def _bounded(raw: dict[str, Any]) -> dict[str, Any]:
    return {name: _clean(value) if isinstance(value, str) else value for name, value in raw.items()}


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:TEXT_MAX]
