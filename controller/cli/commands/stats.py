"""``stats``: processors, memory, processes and restarts of running containers, as ``docker stats`` shows them."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from controller.cli.clients.socket_client import ask_controller
from controller.cli.clients.status_report import name_of, names_argument, project_option
from controller.cli.commands.replicas import ContainerTarget, label_of
from controller.cli.exit_codes import EXIT_INTERRUPTED
from controller.cli.options import command, open_state, print_result
from controller.cli.output.tables import Column, clip, render, terminal_width
from controller.cli.output.terminal import SignalWaiter, echo, echo_data
from controller.cli.status.live_view import Screen
from controller.core.encoding.text import printable
from controller.model.errors import EngineUnavailable, StateError
from controller.model.names import Key
from controller.settings import StateFolder

#: The time between two looks of a stream.
REFRESH_S: Final = 2.0
#: The time over which processors are measured for one table; the controller looks at most once a second.
MEASURED_S: Final = 1.1
AWAY: Final = (
    "no figures: the containers have no folders in /sys/fs/cgroup of this host; the engine is on another host or "
    "in a virtual machine"
)
COLUMNS: Final = (
    Column("NAME", shrink=clip, least=16),
    Column("CPU %"),
    Column("MEMORY / LIMIT"),
    Column("MEM %"),
    Column("PIDS"),
    Column("RESTARTS"),
)
Number = TypeVar("Number", int, float)
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a container, or the sums of a service. None: unknown, or without a limit."""

    label: str
    cpus: float | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    pids: int | None
    restarts: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Figures:
        """Return the figures of a row of the controller's answer."""
        key = Key.parse(row["key"])
        return cls(
            label_of(key.namespace, key.name, row["slot"], row["container"]),
            row["cpus"],
            row["memoryBytes"],
            row["memoryLimitBytes"],
            row["pids"],
            row["restarts"],
        )

    @classmethod
    def sum_of(cls, key: Key, parts: Sequence[Figures]) -> Figures:
        """Return the figures of all containers of a service. A limit is known if all have one."""
        limits = [each.memory_limit_bytes for each in parts]
        return cls(
            name_of(str(key)),
            _sum(each.cpus for each in parts),
            _sum(each.memory_bytes for each in parts),
            None if None in limits else _sum(limits),
            _sum(each.pids for each in parts),
            sum(each.restarts for each in parts),
        )

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of a row of the table."""
        used, limit = self.memory_bytes, self.memory_limit_bytes
        return (
            self.label,
            "-" if self.cpus is None else f"{100 * self.cpus:.1f}",
            f"{_size(used)} / {_size(limit)}",
            "-" if used is None or limit is None else f"{100 * used / limit:.1f}",
            "-" if self.pids is None else str(self.pids),
            str(self.restarts),
        )


def _sum(values: Iterable[Number | None]) -> Number | None:
    """Return the sum of the known values; None if none is known."""
    known = [each for each in values if each is not None]
    return sum(known[1:], known[0]) if known else None


def _size(count: int | None) -> str:
    """Return a number of bytes with a unit, such as ``23.4MiB``."""
    if count is None:
        return "-"
    size, unit = float(count), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.3g}{_UNITS[unit]}"


def services_of(
    rows: Iterable[Mapping[str, Any]], sort: str
) -> Iterator[tuple[Figures, list[Figures]]]:
    """Yield each service with its containers; by name, or the largest use first."""
    found = []
    for key, own in groupby(rows, lambda row: str(row["key"])):
        parts = [Figures.of(row) for row in own]
        found.append((Figures.sum_of(Key.parse(key), parts), parts))
    if sort == "cpu":
        found.sort(key=lambda each: -(each[0].cpus or 0.0))
    elif sort == "memory":
        found.sort(key=lambda each: -(each[0].memory_bytes or 0))
    yield from found


def table_of(rows: Sequence[Mapping[str, Any]], sort: str, *, width: int | None) -> str:
    """Return the table: a row for each service, and below it a row for each of several containers."""
    if not rows:
        return "No running containers."
    shown = []
    for service, parts in services_of(rows, sort):
        shown.append(service.cells)
        if len(parts) > 1:
            shown += [(f"  {part.label}", *part.cells[1:]) for part in parts]
    return render(COLUMNS, shown, width=width, text_least=len(COLUMNS[-1].header))


def has_no_figures(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if containers run, and the controller found the files of none of them."""
    return bool(rows) and all(row["memoryBytes"] is None for row in rows)


@dataclass(frozen=True, slots=True)
class StatsQuestion:
    """The question of a command, and its choice of containers."""

    state: StateFolder
    targets: tuple[ContainerTarget, ...]
    namespace: str | None

    def ask(self) -> dict[str, Any]:
        """Return the answer of the controller, with the chosen containers.

        Raises:
            EngineUnavailable: nothing runs.
        """
        answer = ask_controller(self.state.controller_socket, {"do": "stats"})
        rows = [row for row in answer["containers"] if self._is_chosen(row)]
        return {**answer, "containers": rows}

    def _is_chosen(self, row: Mapping[str, Any]) -> bool:
        is_named = not self.targets or any(_is_of(row, each) for each in self.targets)
        return is_named and self.namespace in (None, Key.parse(row["key"]).namespace)

    def once(self) -> dict[str, Any]:
        """Return an answer with processors measured over a second.

        Raises:
            EngineUnavailable: nothing runs.
            StateError: a name has no running container.
        """
        self.ask()
        time.sleep(MEASURED_S)
        answer = self.ask()
        for each in self.targets:
            if not any(_is_of(row, each) for row in answer["containers"]):
                raise StateError(
                    "container.unknown",
                    f"there is no running container of {each.text}",
                    remedy=f"see 'trimtab status'; if it failed, 'trimtab logs --previous {each.text}'",
                )
        return answer


def _is_of(row: Mapping[str, Any], target: ContainerTarget) -> bool:
    key = Key.parse(row["key"])
    return target.matches(
        namespace=key.namespace, service=key.name, slot=row["slot"], name=row["container"]
    )


@command("""\b
Examples:
  trimtab stats                               all services, redrawn every two seconds
  trimtab stats web shop/api.2                a service, and one replica
  trimtab stats --sort memory --no-stream
  trimtab stats --no-stream --json | jq '.containers[] | {container, cpus, memoryBytes}'

\b
100 % is one processor. Memory is without pages of files that the kernel can give back. Ctrl-C ends it, and
exits with 130. Exit codes of --no-stream: 0 shown, 1 nothing runs, or no running container has the NAME.
""")
@names_argument
@project_option
@click.option("--no-stream", is_flag=True, help="Show one table, measured over a second, and exit.")
@click.option(
    "--sort",
    type=click.Choice(["name", "cpu", "memory"]),
    default="name",
    show_default=True,
    help="The order of services; the largest use first.",
)
def stats(
    names: tuple[str, ...],
    namespace: str | None,
    no_stream: bool,
    sort: str,
    state: Path | None,
    as_json: bool,
) -> int:
    """Show processors, memory, processes and restarts of services and their replicas.

    The figures are the kernel's, read while somebody looks. A NAME is NAME, NAMESPACE/NAME, NAME.SLOT or
    that of a container. In a pipe each look is a table with its time, and with --json a line.
    """
    asked = StatsQuestion(open_state(state)[0], tuple(map(ContainerTarget.parse, names)), namespace)
    if not no_stream:
        return _follow(asked, sort, as_json=as_json)
    answer = asked.once()
    rows = answer["containers"]
    width = None if as_json else terminal_width()
    print_result(answer, table_of(rows, sort, width=width), as_json=as_json)
    if has_no_figures(rows) and not as_json:
        echo(AWAY, err=True)
    return 0


def _follow(asked: StatsQuestion, sort: str, *, as_json: bool) -> int:
    """Show the figures until Ctrl-C, also while nothing runs."""
    signals = SignalWaiter(stop=(signal.SIGINT, signal.SIGTERM), wake=(signal.SIGWINCH,))
    if as_json or not sys.stdout.isatty():
        lost = ""
        while not signals.stopped:
            try:
                answer = asked.ask()
                lost = ""
                _print_look(answer, sort, as_json=as_json)
            except EngineUnavailable as error:
                if lost != (lost := error.message):
                    echo(printable(f"waiting: {lost}"), err=True)
            signals.wait(REFRESH_S)
        return EXIT_INTERRUPTED
    with Screen(alternate=True) as screen:
        while not signals.stopped:
            screen.draw(_screen_of(asked, sort, width=screen.width, height=screen.height))
            signals.wait(REFRESH_S)
    return EXIT_INTERRUPTED


def _print_look(answer: dict[str, Any], sort: str, *, as_json: bool) -> None:
    if as_json:
        echo_data(json.dumps(answer))
        return
    echo(answer["at"])
    echo(table_of(answer["containers"], sort, width=None))
    if has_no_figures(answer["containers"]):
        echo(AWAY, err=True)


def _screen_of(asked: StatsQuestion, sort: str, *, width: int, height: int) -> str:
    """Return what fits a terminal: a line about the figures, and the table."""
    try:
        rows = asked.ask()["containers"]
    except EngineUnavailable as error:
        return f"waiting: {printable(error.message)}"
    about = (
        AWAY if has_no_figures(rows) else "every two seconds, 100 % is one processor; Ctrl-C ends"
    )
    lines = [click.style(clip(about, width), dim=True)]
    lines += table_of(rows, sort, width=width).split("\n")
    if len(lines) > height:
        hidden = len(lines) - height + 1
        lines[height - 1 :] = [f"and {hidden} more rows: name services, or --sort cpu"]
    return "\n".join(lines)
