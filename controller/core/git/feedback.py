"""``feedback.json``: the outcomes of commits, from the controller to the fetcher.

The reader is strict and bounded: the fetcher doesn't trust the controller with its token. An unknown
version, a wrong type or a text beyond its bound refuses the whole file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import fields

from controller.model.sources import CommitOutcome, OutcomeState

VERSION = 1
OUTCOMES_MAX = 2000
FEEDBACK_MAX_BYTES = 1 << 20
#: GitHub refuses a longer description.
TEXT_MAX = 140
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def render(outcomes: Iterable[CommitOutcome]) -> bytes:
    """Return the file for the outcomes, in their order; those beyond the bound are left out."""
    listed = [
        {
            "source": each.source,
            "commit": each.commit,
            "namespace": each.namespace,
            "state": each.state.value,
            "text": shorten(each.text),
        }
        for each in outcomes
    ]
    body = {"version": VERSION, "outcomes": listed[:OUTCOMES_MAX]}
    return f"{json.dumps(body, ensure_ascii=False, indent=1)}\n".encode()


def parse(data: bytes) -> tuple[CommitOutcome, ...]:
    """Return the outcomes of a file.

    Raises:
        ValueError: the file is damaged, too long, or of another version.
    """
    if len(data) > FEEDBACK_MAX_BYTES:
        raise ValueError(f"the file is longer than {FEEDBACK_MAX_BYTES} bytes")
    try:
        body = json.loads(data)
    except RecursionError as error:
        raise ValueError("the file is nested too deeply") from error
    if not isinstance(body, dict) or body.get("version") != VERSION:
        raise ValueError(f"the file isn't of version {VERSION}")
    listed = body.get("outcomes")
    if not isinstance(listed, list) or len(listed) > OUTCOMES_MAX:
        raise ValueError(f"the file has no list of at most {OUTCOMES_MAX} outcomes")
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
