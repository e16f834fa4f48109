"""The points at which a test can kill a process: around each write, fsync, send and receive.

The code with I/O calls ``reach(name)``. In production ``reach`` does nothing. If the environment
names a point, ``reach`` kills the process there (``kill -9`` on itself). The recovery sweep visits
the names of these tables; of two names with nothing in between, it visits the first.
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
    "files.content.write.before",
    "files.content.write.after",
    "files.content.fsync.before",
    "files.content.fsync.after",
    "files.write.before",
    "files.write.after",
    "files.rename.before",
    "files.rename.after",
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
#: Of the commands ``backup`` and ``restore``.
COMMAND_POINTS = (
    "backup.member.after",
    "backup.fsync.before",
    "restore.move.before",
    "restore.move.after",
)
#: Of the process that sends notifications.
NOTIFIER_POINTS = (
    "notices.write.before",
    "notices.write.after",
    "notices.fsync.before",
    "notices.fsync.after",
    "notice.send.before",
    "notice.send.after",
)
CRASH_POINTS = BROKER_POINTS + CONTROLLER_POINTS

#: Called when a point is reached. Only mutations pass the points of these tables, not reads.
Reach = Callable[[str], None]


def pass_by(_name: str) -> None:
    """Do nothing: the ``reach`` of production."""
