"""Read the logs of containers through the broker, and merge them by time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from controller.cli.clients.engine_api import EngineApi
from controller.cli.containers.printing import LineOrigin, LinePrinter
from controller.cli.containers.replicas import VisibleContainer
from controller.core.engine_api.streams.log_stream import MULTIPLEXED, BadFrame, LogLines, merge
from controller.model.container_output import LogLine
from controller.model.errors import EngineFailed, StateError

#: Each log needs a connection, and the broker limits the connections of a user.
CONTAINERS_MAX = 64
#: The engine's message for a log driver without readable logs (moby, daemon/logger).
_UNREADABLE = "does not support reading"


def origin_of(replica: VisibleContainer) -> LineOrigin:
    """Return the origin of a container's lines."""
    return LineOrigin(replica.label, replica.slot, replica.name)


def read_log(
    api: EngineApi, replica: VisibleContainer, query: Mapping[str, str]
) -> Iterator[tuple[VisibleContainer, LogLine]]:
    """Yield the lines of a container; without an end if *query* has ``follow``.

    Raises:
        EngineFailed: the log driver keeps no readable log, or the log is garbled.
    """
    try:
        with api.stream(f"/containers/{replica.id}/logs", query) as answer:
            lines = LogLines(multiplexed=answer.content_type == MULTIPLEXED)
            for data in answer.chunks:
                yield from ((replica, line) for line in lines.feed(data))
            yield from ((replica, line) for line in lines.finish())
    except BadFrame as error:
        message = f"the output of {replica.name} can't be read: {error}"
        raise EngineFailed("logs.garbled", message) from error
    except EngineFailed as error:
        if _UNREADABLE not in error.message:
            raise
        raise EngineFailed(
            "logs.unreadable",
            f"{replica.name}: its log driver keeps no readable log",
            remedy="read the logs where the driver sends them, or use the driver json-file or local",
        ) from error


def print_logs(
    api: EngineApi,
    replicas: Sequence[VisibleContainer],
    query: Mapping[str, str],
    printer: LinePrinter,
) -> dict[str, str]:
    """Print the present logs of containers by time; return the time of each container's last line.

    Raises:
        StateError: there are more than CONTAINERS_MAX containers.
    """
    if len(replicas) > CONTAINERS_MAX:
        raise StateError(
            "logs.too-many",
            f"these are {len(replicas)} containers; at most {CONTAINERS_MAX} are read at once",
            remedy="name some of the slots, as NAME.SLOT",
        )
    printer.expect([replica.label for replica in replicas])
    last: dict[str, str] = {}
    for replica, line in merge(read_log(api, replica, query) for replica in replicas):
        last[replica.id] = line.time
        printer.print(origin_of(replica), line)
    return last
