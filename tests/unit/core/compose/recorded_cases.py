"""Cases with the recorded answers of docker-compose.

``recorded/*.txt`` has the cases: ``== TITLE``, then ``-- PATH`` before the text of each file. Without
a path, the text is ``compose.yaml``. ``recorded/*.json`` has the answers, which
``python -m tools.compose_record`` writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "recorded"
_CASE = re.compile(r"^== (.+)\n", re.MULTILINE)
_FILE = re.compile(r"^-- (.+)\n", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """A project in the folder ``shop``: texts by path."""

    group: str
    title: str
    files: dict[str, str]


def cases() -> Iterator[Case]:
    """Yield all cases."""
    for path in sorted(FOLDER.glob("*.txt")):
        _, *parts = _CASE.split(path.read_text("utf-8"))
        for title, text in zip(parts[::2], parts[1::2], strict=True):
            first, *files = _FILE.split(text)
            texts = dict(zip(files[::2], files[1::2], strict=True)) if files else {}
            yield Case(path.stem, title, texts or {"compose.yaml": first})


def answers(group: str) -> dict[str, Any]:
    """Return the recorded answers of a group: a tree, or the reason of a refusal as a string."""
    found: dict[str, Any] = json.loads((FOLDER / f"{group}.json").read_text("utf-8"))
    return found
