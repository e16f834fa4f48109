"""A stack changed under load: failed requests of a client, with docker compose and with trimtab."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controller.core.compose.translation.scope import dns_name
from tests.e2e.client import HANGS_S, Client, asking
from tests.engine import FoundEngine, PrivateEngine
from tests.instance import Host, eventually, has
from tools.stacks.changes import ASKED, CHANGES, Asked, changed_text
from tools.stacks.sides import READY_S, ComposeSide, TrimtabSide

#: Answers that a client gets before a change, and after it.
SETTLED: Final = 40


@dataclass(frozen=True, slots=True)
class Figures:
    """The requests of a client during one change."""

    answered: int
    failed: int
    #: The longest time from one good answer to the next.
    outage_ms: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """One change of a stack, with both programs."""

    stack: str
    change: str
    service: str
    #: The order of trimtab's rollout.
    order: str
    trimtab: Figures
    compose: Figures


def change_under_load(engine: PrivateEngine | FoundEngine, stack: Path) -> Iterator[Loaded]:
    """Make each change with both programs, one program after the other."""
    asked = ASKED[stack.name]
    ours = dict(_with_trimtab(engine, stack, asked))
    theirs = dict(_with_compose(engine, stack, asked))
    for change, (order, figures) in ours.items():
        service = asked.edge if CHANGES[change][0] else asked.app
        yield Loaded(stack.name, change, service, order, figures, theirs[change])


def _with_trimtab(
    engine: PrivateEngine | FoundEngine, stack: Path, asked: Asked
) -> Iterator[tuple[str, tuple[str, Figures]]]:
    side = TrimtabSide(engine, stack)
    with side.running() as host:
        side.put()
        eventually(lambda: (host.status() or {"resources": []})["resources"], within_s=READY_S)
        host.await_ready(within_s=READY_S)
        for change in CHANGES:
            name, address = asked.of(change)
            key = dns_name(name)
            before = _service(host, stack.name, key)

            def is_done(key: str = key, before: dict[str, Any] = before) -> bool:
                now = _service(host, stack.name, key)
                fields = ("revision", "desired")
                differs = bool(now) and any(now[each] != before[each] for each in fields)
                return differs and has(now, "Ready") and not has(now, "Progressing")

            with _strictly(host, address, side.network(asked.network)) as client:
                _await_answers(client, address)
                _apply(change, side.folder, asked)
                try:
                    eventually(is_done, within_s=READY_S, what=f"{stack.name}: {change}")
                except AssertionError as error:
                    now = _service(host, stack.name, key)
                    raise AssertionError(f"{error}; {now.get('conditions')}") from error
                _await_answers(client, address)
            order = before.get("rollout", {}).get("order", "")
            yield change, (order, _figures(client, address))


def _service(host: Host, namespace: str, name: str) -> dict[str, Any]:
    """Return a service of the status; {} while it isn't there. A Config can have its name."""
    wanted = ("Service", namespace, name)
    for each in (host.status() or {"resources": []})["resources"]:
        if (each["kind"], each["namespace"], each["name"]) == wanted:
            return dict(each)
    return {}


def _with_compose(
    engine: PrivateEngine | FoundEngine, stack: Path, asked: Asked
) -> Iterator[tuple[str, Figures]]:
    host = Host(engine)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        copy = Path(shutil.copytree(stack, Path(folder) / stack.name))
        side = ComposeSide(engine, copy)
        try:
            side.run("up", "-d", "--quiet-pull")
            for change in CHANGES:
                name, address = asked.of(change)
                with _strictly(host, address, f"{stack.name}_{asked.network}") as client:
                    _await_answers(client, address)
                    _apply(change, copy, asked)
                    # docker compose doesn't look into mounted files.
                    force = ("--force-recreate", name) if change == "file" else ()
                    side.run("up", "-d", "--quiet-pull", *force)
                    _await_answers(client, address)
                yield change, _figures(client, address)
        finally:
            side.down()
            host.close()


def _strictly(host: Host, address: str, network: str) -> contextlib.AbstractContextManager[Client]:
    return asking(host, address, patience_s=HANGS_S, network=network, first_address=True)


def _apply(change: str, folder: Path, asked: Asked) -> None:
    """Write the changed file in one move."""
    is_edge, edit = CHANGES[change]
    path = folder / ("compose.yaml" if edit else asked.file)
    text = path.read_text()
    if edit is None:
        new = f"{text}# changed\n"
    else:
        new = changed_text(text, asked.edge if is_edge else asked.app, edit)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(new)
    temporary.rename(path)


def _await_answers(client: Client, address: str) -> None:
    had = client.answers(address)
    eventually(lambda: client.answers(address) >= had + SETTLED, what=f"answers of {address}")


def _figures(client: Client, address: str) -> Figures:
    failed = len(client.failures(address))
    return Figures(client.answers(address), failed, client.outage_ms(address))
