"""``feedback.json``: the outcomes of commits, from the controller to the fetcher.

The reader is strict and bounded: the fetcher doesn't trust the controller with its token. An unknown
version, a wrong type or a text beyond its bound refuses the whole file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import fields
from itertools import islice

from controller.core.git.report import read_list
from controller.model.sources import CommitOutcome, OutcomeState

VERSION = 1
OUTCOMES_MAX = 2000
FEEDBACK_MAX_BYTES = 1 << 20
#: The bytes around the list of outcomes, at most.
_FRAME_BYTES = 64
#: GitHub refuses a longer description.
TEXT_MAX = 140
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
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
        listed = {
            "source": each.source,
            "commit": each.commit,
            "namespace": each.namespace,
            "state": each.state.value,
            "text": shorten(each.text),
        }
        line = json.dumps(listed, ensure_ascii=False).encode()
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


def _outcome(raw: object) -> CommitOutcome:
    expected = {field.name for field in fields(CommitOutcome)}
    if not isinstance(raw, dict) or set(raw) != expected:
        raise ValueError(f"expected the members {', '.join(sorted(expected))}")
    texts = [raw[name] for name in ("source", "commit", "namespace", "state", "text")]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("expected texts")
    source, commit, namespace, state, text = texts
    if not (_LABEL.fullmatch(source) and _LABEL.fullmatch(namespace) and _COMMIT.fullmatch(commit)):
        raise ValueError("a name or a commit is malformed")
    if len(text) > TEXT_MAX or not text.isprintable():
        raise ValueError(f"expected a printable text of at most {TEXT_MAX} characters")
    return CommitOutcome(source, commit, namespace, OutcomeState(state), text)
