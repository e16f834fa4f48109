"""``feedback.json``: the outcomes of commits, from the controller to the fetcher.

The reader is strict and bounded: the fetcher doesn't trust the controller with its token. An unknown
version, a wrong type or a text beyond its bound refuses the whole file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice

from controller.core.encoding.stored_form import StoredForm
from controller.core.git.report import read_list
from controller.model.names import COMMIT_ID
from controller.model.sources import CommitOutcome

VERSION = 1
OUTCOMES_MAX = 2000
FEEDBACK_MAX_BYTES = 1 << 20
#: The bytes around the list of outcomes, at most.
_FRAME_BYTES = 64
#: GitHub refuses a longer description.
TEXT_MAX = 140
_OUTCOME = StoredForm(CommitOutcome)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def render(outcomes: Iterable[CommitOutcome]) -> bytes:
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


def parse(data: bytes) -> tuple[CommitOutcome, ...]:
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
    """Return a printable text of at most ``TEXT_MAX`` characters."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= TEXT_MAX else f"{clean[: TEXT_MAX - 1]}…"


def _written(outcome: CommitOutcome) -> dict[str, str]:
    return asdict(outcome) | {"text": shorten(outcome.text)}


def _outcome(raw: object) -> CommitOutcome:
    outcome = _OUTCOME.from_json(raw)
    if _written(outcome) != raw:
        raise ValueError(f"expected printable texts of at most {TEXT_MAX} characters, and no more")
    names = (outcome.source, outcome.namespace)
    if not all(map(_LABEL.fullmatch, names)) or not COMMIT_ID.fullmatch(outcome.commit):
        raise ValueError("a name or a commit is malformed")
    return outcome
