"""Reports between controller and fetcher: ``feedback.json`` and ``status.json``, to JSON and back.

``feedback.json``: the outcomes of commits, from the controller to the fetcher.

The reader is strict and bounded: the fetcher doesn't trust the controller with its token. An unknown
version, a wrong type or a text beyond its bound refuses the whole file.

``status.json`` of the fetcher: statuses of sources to JSON and back.

The reader is strict and bounded: the controller doesn't trust the fetcher, which reads hostile
bytes. An unknown version, a wrong type or a text beyond its bound refuses the whole file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from typing import Any

from controller.core.encoding.stored_form import StoredForm
from controller.model.names import COMMIT_ID
from controller.model.sources import CommitInfo, CommitOutcome, SourceStatus

SOURCES_MAX = 64
REPORT_MAX_BYTES = 1 << 20
STATUS_MAX = 2048
_COUNT_MAX = 1 << 31
_STATUS, _COMMIT = StoredForm(SourceStatus), StoredForm(CommitInfo)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def render_status(statuses: Iterable[SourceStatus]) -> bytes:
    """Return the file for the statuses, ordered by name."""
    ordered = sorted(statuses, key=lambda status: status.name)
    body = {"version": VERSION, "sources": [status_to_json(each) for each in ordered]}
    return f"{json.dumps(body, ensure_ascii=False, indent=1)}\n".encode()


def parse_status(data: bytes) -> tuple[SourceStatus, ...]:
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
    members: dict[str, Any] = _bounded(asdict(status))
    return members


def commit_to_json(info: CommitInfo) -> dict[str, Any]:
    """Return a commit as JSON, for ``COMMIT.json``."""
    members: dict[str, Any] = _bounded(asdict(info))
    return members


def status_from_json(raw: object) -> SourceStatus:
    """Parse the JSON of a status: exactly what ``status_to_json`` writes.

    Raises:
        ValueError: a member is missing, unknown, or of another form.
    """
    status = _STATUS.from_json(raw)
    _raise_unless_equal(raw, status_to_json(status))
    if not _NAME.fullmatch(status.name):
        raise ValueError("the name of a source is malformed")
    if not 0 <= status.failures < _COUNT_MAX:
        raise ValueError("failures isn't a count")
    for commit in (status.current, status.candidate):
        _raise_if_malformed(commit)
    return status


def commit_from_json(raw: object) -> CommitInfo:
    """Parse the JSON of a commit; raises as ``status_from_json``."""
    commit = _COMMIT.from_json(raw)
    _raise_unless_equal(raw, commit_to_json(commit))
    _raise_if_malformed(commit)
    return commit


def _raise_unless_equal(raw: object, written: dict[str, Any]) -> None:
    """Raise ValueError for JSON with other members, types or texts than the parsed value writes."""
    try:
        is_equal = json.dumps(raw, sort_keys=True) == json.dumps(written, sort_keys=True)
    except RecursionError as error:
        raise ValueError("the file is nested too deeply") from error
    if not is_equal:
        raise ValueError(
            f"a member is missing, unknown, or no printable text of at most {STATUS_MAX} characters"
        )


def _raise_if_malformed(commit: CommitInfo | None) -> None:
    if commit is not None and not COMMIT_ID.fullmatch(commit.commit):
        raise ValueError("the id of a commit is malformed")


def _bounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bounded(each) for name, each in value.items()}
    if isinstance(value, str):
        return "".join(c if c.isprintable() else " " for c in value)[:STATUS_MAX]
    return value


VERSION = 1
OUTCOMES_MAX = 2000
FEEDBACK_MAX_BYTES = 1 << 20
#: The bytes around the list of outcomes, at most.
_FRAME_BYTES = 64
#: GitHub refuses a longer description.
FEEDBACK_MAX = 140
_OUTCOME = StoredForm(CommitOutcome)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def render_feedback(outcomes: Iterable[CommitOutcome]) -> bytes:
    """Return the file for the outcomes, in their order; those beyond a bound are left out.

    Of two outcomes of one commit and namespace, the first counts: the reader refuses the second.
    """
    lines: list[bytes] = []
    left = FEEDBACK_MAX_BYTES - _FRAME_BYTES
    first: dict[tuple[str, str, str], CommitOutcome] = {}
    for each in outcomes:
        first.setdefault(each.place, each)
    for each in islice(first.values(), OUTCOMES_MAX):
        line = json.dumps(_written(each), ensure_ascii=False).encode()
        left -= len(line) + len(b",\n")
        if left < 0:
            break
        lines.append(line)
    return b'{"version": %d, "outcomes": [\n%b\n]}\n' % (VERSION, b",\n".join(lines))


def parse_feedback(data: bytes) -> tuple[CommitOutcome, ...]:
    """Return the outcomes of a file.

    Raises:
        ValueError: the file is damaged, too long, or of another version.
    """
    listed = read_list(
        data, "outcomes", version=VERSION, most=OUTCOMES_MAX, size=FEEDBACK_MAX_BYTES
    )
    outcomes = tuple(_outcome(each) for each in listed)
    if len({each.place for each in outcomes}) != len(outcomes):
        raise ValueError("the file has two outcomes of one commit and namespace")
    return outcomes


def shorten(text: str) -> str:
    """Return a printable text of at most ``FEEDBACK_MAX`` characters."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= FEEDBACK_MAX else f"{clean[: FEEDBACK_MAX - 1]}…"


def _written(outcome: CommitOutcome) -> dict[str, str]:
    return asdict(outcome) | {"text": shorten(outcome.text)}


def _outcome(raw: object) -> CommitOutcome:
    outcome = _OUTCOME.from_json(raw)
    if _written(outcome) != raw:
        raise ValueError(
            f"expected printable texts of at most {FEEDBACK_MAX} characters, and no more"
        )
    names = (outcome.source, outcome.namespace)
    if not all(map(_LABEL.fullmatch, names)) or not COMMIT_ID.fullmatch(outcome.commit):
        raise ValueError("a name or a commit is malformed")
    return outcome
