"""The line of a record in the journal: one form, written by the broker and checked by every reader.

A line is the canonical JSON (RFC 8785) of ``seq``, ``id``, ``time``, ``stage``, ``prev`` and
``hash``, with those of ``actor``, ``request``, ``verdict``, ``claims`` and ``result`` that are not
empty. An empty member is always left out, so that a record has exactly one line. ``hash`` is the
SHA-256 of the line without the member ``hash``. ``prev`` is the hash of the previous record, 64
zeros for the first.

The broker never writes a line that ``parse`` would refuse: ``prepare`` checks an entry before the
entry gets a place in the chain.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, cast, get_args

from controller.core.encoding.json_values import MAX_SAFE_INTEGER, canonical, encode, normalize
from controller.model.records import ENTRY_PARTS, Entry, Record, Stage

GENESIS: Final = "0" * 64
#: The longest line, without its newline. The gate bounds bodies and summaries well below.
LINE_MAX_BYTES: Final = 1024 * 1024
#: Stages of closing records. Each intent has exactly one closing record.
CLOSING: Final = frozenset({"outcome", "recovered"})

_STAGES: Final = frozenset(get_args(Stage))
_REQUIRED: Final = frozenset({"seq", "id", "time", "stage", "prev", "hash"})
_KNOWN: Final = _REQUIRED | frozenset(ENTRY_PARTS)
#: The most bytes outside the parts of a line: names, seq, id, time, stage, hashes.
_FRAME_MAX_BYTES: Final = 512

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_HASH = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z"
)
_AHEAD_MAX_MINUTES: Final = 366 * 24 * 60
_UNSAFE_DIGITS: Final = len(str(MAX_SAFE_INTEGER))
#: RFC 8785 and the standard encoder sort keys beyond the basic plane differently.
_BEYOND_PLANE = re.compile(rb"[\xf0-\xf4]")


class BadLine(ValueError):
    """A line is not a record; the text gives the reason."""


class NewerLine(BadLine):
    """A whole line of a record with members or a stage that only a newer version knows."""


def timestamp(now: float) -> str:
    """Return the wall time *now* (seconds since the epoch) as RFC 3339, UTC, milliseconds."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def is_clock_jump(before: str, time: str) -> bool:
    """Return True if the clock went back, or jumped ahead by more than a year, between two records.

    The times are those of the records. They are compared by their minutes, and a step back of one
    minute is allowed: clocks are corrected by seconds. A text that is no time is no jump; ``parse``
    refuses such a record.
    """
    if before <= time and before[:4] == time[:4]:
        return False
    try:
        step = _minutes(time) - _minutes(before)
    except ValueError:
        return False
    return step < -1 or step > _AHEAD_MAX_MINUTES


def _minutes(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() // 60)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An entry in canonical form, before its place in the chain is known."""

    #: The entry as a reader of the line sees it: lists for tuples, strings for integers beyond
    #: 2^53. A copy, so that the caller cannot change it.
    entry: Entry
    before: bytes  # the members that sort before "hash", each followed by a comma
    middle: bytes  # the members between "prev" and "seq"
    after: bytes  # the members after "time", each preceded by a comma

    @property
    def size(self) -> int:
        """An upper bound of the line's length."""
        return len(self.before) + len(self.middle) + len(self.after) + _FRAME_MAX_BYTES

    def seal(self, *, seq: int, time: str, prev: str) -> tuple[Record, bytes]:
        """Return the record at this place in the chain, and its line without a newline."""
        rest = (
            f'"id":"{self.entry.id}","prev":"{prev}",'.encode()
            + self.middle
            + f'"seq":{seq},"stage":"{self.entry.stage}","time":"{time}"'.encode()
            + self.after
            + b"}"
        )
        head = b"{" + self.before
        own = hashlib.sha256(head + rest).hexdigest()
        line = head + f'"hash":"{own}",'.encode() + rest
        return Record(seq=seq, time=time, entry=self.entry, prev=prev, hash=own), line


def prepare(entry: Entry) -> Prepared:
    """Bring *entry* into its canonical form.

    Raises:
        ValueError: the entry cannot be a record: no UUIDv7, a float, a lone surrogate, too long.
    """
    if entry.stage not in _STAGES:
        raise ValueError(f"no stage of a record: {entry.stage!r}")
    if _UUID7.fullmatch(entry.id) is None:
        raise ValueError(f"not a UUIDv7 in lower case: {entry.id!r}")
    texts: dict[str, bytes] = {}
    values: dict[str, dict[str, object]] = {}
    for part in ENTRY_PARTS:
        value = getattr(entry, part)
        if value:
            texts[part], values[part] = _normalize(part, value)

    def members(*parts: str) -> list[bytes]:
        return [b'"' + part.encode() + b'":' + texts[part] for part in parts if part in texts]

    prepared = Prepared(
        entry=Entry(id=str(entry.id), stage=entry.stage, **values),
        before=b"".join(member + b"," for member in members("actor", "claims")),
        middle=b"".join(member + b"," for member in members("request", "result")),
        after=b"".join(b"," + member for member in members("verdict")),
    )
    if prepared.size > LINE_MAX_BYTES:
        raise ValueError(f"longer than {LINE_MAX_BYTES} bytes")
    return prepared


def _normalize(part: str, value: object) -> tuple[bytes, dict[str, object]]:
    """Return the canonical text of a part, and a copy of the part as a reader sees it."""
    try:
        normal = cast("dict[str, object]", normalize(value))
        return encode(normal), normal
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{part} can't be recorded: {error}") from error


def record_members(record: Record) -> dict[str, object]:
    """Return the members of a record, without its place in the hash chain."""
    entry = record.entry
    return {
        "seq": record.seq,
        "id": entry.id,
        "time": record.time,
        "stage": entry.stage,
        **{part: value for part in ENTRY_PARTS if (value := getattr(entry, part))},
    }


def line_of(record: Record) -> bytes:
    """Return the line of a record, without a newline."""
    members = {**record_members(record), "prev": record.prev, "hash": record.hash}
    line = _encoded(members)
    own = _hash_without_member(line, members)
    assert own == record.hash, f"record {record.seq} was changed after it was read"
    return line


def _encoded(value: object) -> bytes:
    """Return the canonical bytes of a value from canonical JSON.

    The standard encoder is much faster. Its output is the same unless keys sort differently.
    """
    line = _ENCODER.encode(value).encode()
    return line if line.isascii() or not _BEYOND_PLANE.search(line) else canonical(value)


def parse(line: bytes) -> Record:
    """Read one line, given without its newline.

    Raises:
        BadLine: the bytes differ from the record's canonical line, or the hash is wrong.
        NewerLine: the line is whole, and of a newer version.
    """
    record, newer = parse_any(line)
    if newer:
        raise NewerLine(newer)
    return record


def parse_any(line: bytes) -> tuple[Record, str]:
    """Read a record's line, also of a newer version. Return the record and its unknown members in words, or ''.

    Raises:
        BadLine: the bytes differ from the record's canonical line, or the hash is wrong.
    """
    members = _members(line)
    newer = _check_form(members)
    own = members["hash"]
    if _hash_without_member(line, members) != own:
        raise BadLine("its hash isn't that of its content")
    record = Record(
        seq=members["seq"],
        time=members["time"],
        entry=Entry(
            id=members["id"],
            stage=members["stage"],
            **{part: members[part] for part in ENTRY_PARTS if part in members},
        ),
        prev=members["prev"],
        hash=own,
    )
    return record, newer


def parse_or_none(line: bytes) -> Record | None:
    """Return the record of a line, or None for a bad line."""
    try:
        return parse(line)
    except BadLine:
        return None


def _refuse_float(_text: str) -> NoReturn:
    raise BadLine("it holds a number that isn't an integer")


def _safe_integer(text: str) -> int:
    value = int(text)
    if len(text) >= _UNSAFE_DIGITS and abs(value) > MAX_SAFE_INTEGER:
        raise BadLine("it holds an integer beyond 2^53 that isn't a string")
    return value


_DECODER = json.JSONDecoder(
    parse_float=_refuse_float, parse_constant=_refuse_float, parse_int=_safe_integer
)
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False
)


def _members(line: bytes) -> dict[str, Any]:
    """Return the members of a line that is canonical JSON of a mapping."""
    if len(line) > LINE_MAX_BYTES:
        raise BadLine(f"it is longer than {LINE_MAX_BYTES} bytes")
    try:
        value = _DECODER.decode(line.decode())
        same = _encoded(value)
    except BadLine:
        raise
    except (ValueError, RecursionError) as error:
        raise BadLine("it isn't JSON" if line else "it is empty") from error
    if not isinstance(value, dict):
        raise BadLine("it isn't a JSON object")
    if same != line:
        raise BadLine("it isn't in canonical form")
    return value


def _check_form(members: dict[str, Any]) -> str:
    """Check the members that this version knows.

    Return the names of unknown members, as of a newer version, in words; '' if there are none.

    Raises:
        BadLine: a known member is missing, or has the wrong form.
    """
    if not members.keys() >= _REQUIRED:
        raise BadLine(f"it lacks {', '.join(sorted(_REQUIRED - members.keys()))}")
    seq = members["seq"]
    if type(seq) is not int or seq < 1:
        raise BadLine("seq isn't a positive integer")
    for name, form in (("id", _UUID7), ("time", _TIME), ("prev", _HASH), ("hash", _HASH)):
        text = members[name]
        if not isinstance(text, str) or form.fullmatch(text) is None:
            raise BadLine(f"{name} has the wrong format")
    try:
        datetime.fromisoformat(members["time"])
    except ValueError as error:
        raise BadLine("time is not a valid date") from error
    stage = members["stage"]
    if not isinstance(stage, str):
        raise BadLine(f"unknown stage {stage!r}")
    for part in ENTRY_PARTS:
        if part in members and (not isinstance(members[part], dict) or not members[part]):
            raise BadLine(f"{part} isn't an object with members")
    unknown = [*sorted(members.keys() - _KNOWN), *((stage,) if stage not in _STAGES else ())]
    return f"it is of a newer trimtab, with {', '.join(unknown)}" if unknown else ""


def _hash_without_member(line: bytes, members: dict[str, Any]) -> str:
    member = b'"hash":"' + members["hash"].encode() + b'",'
    if line.count(member) == 1:
        # "hash" is never the last member, so its comma goes with it.
        rest = line.replace(member, b"")
    else:
        rest = canonical({name: value for name, value in members.items() if name != "hash"})
    return hashlib.sha256(rest).hexdigest()
