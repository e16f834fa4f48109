"""Where a process can be killed in a test: before and after each write, fsync, send and receive.

The shells call ``reach(name)``; ``app.process`` gives them one that does nothing, or, when the environment
names a point, one that kills the process there (``kill -9`` on itself). The recovery sweep visits
every name of this table.
"""

from __future__ import annotations

from collections.abc import Callable

BROKER_POINTS = (
    "client.receive.before",
    "client.receive.after",
    "journal.write.before",
    "journal.write.after",
    "journal.fsync.before",
    "journal.fsync.after",
    "upstream.send.before",
    "upstream.send.after",
    "upstream.receive.before",
    "upstream.receive.after",
    "client.send.before",
    "client.send.after",
    "inventory.write.before",
    "inventory.write.after",
)
CONTROLLER_POINTS = (
    "broker.send.before",
    "broker.send.after",
    "broker.receive.before",
    "broker.receive.after",
    "state.write.before",
    "state.write.after",
    "state.fsync.before",
    "state.fsync.after",
)
CRASH_POINTS = BROKER_POINTS + CONTROLLER_POINTS

#: Tells that a point is reached. Points named here count mutations only, reads don't pass them.
Reach = Callable[[str], None]


def pass_by(_name: str) -> None:
    """The ``reach`` of ordinary life: do nothing."""
