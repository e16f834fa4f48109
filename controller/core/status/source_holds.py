"""The holds of Git sources that the journal has no record of yet. Pure.

A hold is one commit with one reason. A hold that goes on over outages, suspensions and restarts is the
same hold; after the source was Ready, the same commit is held anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from controller.model.desired.desired import Desired
from controller.model.sources import SourceHold, SourceState

VERSION = 1
HOLDS_MAX = 64
MESSAGE_MAX = 400
#: The commit and the reason of the last recorded hold, by source.
Holds = Mapping[str, tuple[str, str]]


def new_holds(desired: Desired, recorded: Holds) -> Iterator[SourceHold]:
    """Yield the holds without a record."""
    for source in desired.sources:
        status = source.report
        if status is None or status.state is not SourceState.HELD or status.candidate is None:
            continue
        commit, reason = status.candidate.commit, status.reason
        if recorded.get(source.key.name) != (commit, reason):
            yield SourceHold(
                source.key,
                commit,
                reason,
                status.message[:MESSAGE_MAX],
                source.source.file,
                source.source.line,
            )


def without_ended(desired: Desired, recorded: Holds) -> dict[str, tuple[str, str]]:
    """Return the holds that can go on: those of sources that aren't Ready."""
    ready = {
        source.key.name
        for source in desired.sources
        if source.report is not None and source.report.state is SourceState.READY
    }
    return {name: hold for name, hold in recorded.items() if name not in ready}


def render(recorded: Holds) -> bytes:
    """Return the file of the recorded holds; of too many, the latest."""
    latest = dict(list(recorded.items())[-HOLDS_MAX:])
    return f"{json.dumps({'version': VERSION, 'holds': latest}, indent=1)}\n".encode()


def parse(data: bytes) -> dict[str, tuple[str, str]]:
    """Return the recorded holds of a file.

    Raises:
        ValueError: the file is damaged, or of another version.
    """
    try:
        body = json.loads(data)
        if body["version"] != VERSION:
            raise ValueError(f"the file isn't of version {VERSION}")
        return {str(name): (str(c), str(r)) for name, (c, r) in body["holds"].items()}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the file has another form: {error}") from error
