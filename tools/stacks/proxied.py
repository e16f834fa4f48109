"""A shop behind a proxy that resolves names once: every act on it under load, with both programs.

The client asks the proxy's published port at a fixed rate, and waits for no answer before the next request. A request
that has neither an answer nor an error after 3 s hangs.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.model.confinement import GAPS
from tests.e2e.client import Client, pressing
from tests.engine import FoundEngine, PrivateEngine
from tests.instance import Host, eventually, has
from tools.stacks.changes import Tree, changed_text
from tools.stacks.sides import READY_S, ComposeSide, TrimtabSide

FOLDER: Final = Path(__file__).resolve().parents[2] / "tests" / "e2e" / "proxied"
PORT: Final = 18500
NAME: Final = f"127.0.0.1:{PORT}"
SERVICE: Final = "catalog"
#: The act that docker compose has no counterpart of.
ADOPTION: Final = "adoption of the running stack"
#: Good answers in a row that end an act.
SETTLED: Final = 150


@dataclass(frozen=True, slots=True)
class Pressed:
    """The requests during one act with one program."""

    answered: int
    #: Requests with an error: a status other than 200, or no connection.
    errors: int
    #: Requests with neither an answer nor an error.
    hung: int
    #: Of those, requests that were answered before twice that time: the proxy tried another address.
    late: int
    #: The longest time without a good answer.
    pause_ms: int


@dataclass(frozen=True, slots=True)
class Act:
    """One act on the stack, as a user of each program does it."""

    name: str
    with_trimtab: Callable[[Host, Path], None]
    with_compose: Callable[[ComposeSide], None]


def proxied_stack(
    engine: PrivateEngine | FoundEngine, stack: Path
) -> dict[str, dict[str, Pressed]]:
    """Return what became of the requests, by act and program."""
    ours = dict(_with_trimtab(engine, stack))
    theirs = dict(_with_compose(engine, stack))
    found = {act.name: {"trimtab": ours[act.name], "compose": theirs[act.name]} for act in ACTS}
    return {**found, ADOPTION: {"trimtab": _adopted(engine, stack)}}


def _with_trimtab(
    engine: PrivateEngine | FoundEngine, stack: Path
) -> Iterator[tuple[str, Pressed]]:
    side = TrimtabSide(engine, stack)
    with side.running() as host:
        side.put()
        eventually(lambda: (host.status() or {"resources": []})["resources"], within_s=READY_S)
        host.await_ready(within_s=READY_S)
        for act in ACTS:
            with pressing(host, PORT) as client:
                _settle(client)
                act.with_trimtab(host, side.folder)
                host.await_ready(within_s=READY_S)
                _settle(client)
            yield act.name, _pressed(client)
            # So that the proxy knows the replicas that the act added.
            host.cli("restart", f"{stack.name}/proxy")
            host.await_ready(within_s=READY_S)


def _adopted(engine: PrivateEngine | FoundEngine, stack: Path) -> Pressed:
    """Start the stack with docker compose, and take it over while the proxy is asked."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        compose = ComposeSide(engine, Path(shutil.copytree(stack, Path(folder) / stack.name)))
        side = TrimtabSide(engine, stack)
        try:
            compose.run("up", "-d", "--quiet-pull")
            with side.running() as host:
                try:
                    with pressing(host, PORT) as client:
                        _settle(client)
                        _adopt(host, side, compose.folder)
                        host.await_ready(within_s=READY_S)
                        _settle(client)
                    return _pressed(client)
                finally:
                    host.stop()
                    compose.down()
        finally:
            compose.down()


def _adopt(host: Host, side: TrimtabSide, folder: Path) -> None:
    kept = {"volumes": "compose", "networks": "compose"}
    side.put()
    override = side.folder / "compose.override.yaml"
    override.write_text(json.dumps({"x-trimtab": {**kept, "suspend": True}}))
    eventually(lambda: _service(host, side.folder), within_s=READY_S, what="the project is read")
    admit = [part for gap in sorted(GAPS) for part in ("--admit", gap)]
    host.cli("adopt", "--project", side.stack, "--from", str(folder), *admit)
    override.write_text(json.dumps({"x-trimtab": kept}))
    eventually(lambda: not _service(host, side.folder).get("suspended"), within_s=READY_S)


def _with_compose(
    engine: PrivateEngine | FoundEngine, stack: Path
) -> Iterator[tuple[str, Pressed]]:
    host = Host(engine)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        side = ComposeSide(engine, Path(shutil.copytree(stack, Path(folder) / stack.name)))
        try:
            side.run("up", "-d", "--quiet-pull")
            for act in ACTS:
                with pressing(host, PORT) as client:
                    _settle(client)
                    act.with_compose(side)
                    # The proxy of docker compose can lose its upstreams for good.
                    with contextlib.suppress(AssertionError):
                        _settle(client)
                side.run("restart", "proxy")
                yield act.name, _pressed(client)
        finally:
            side.down()
            host.close()


def _settle(client: Client) -> None:
    """Wait for good answers without any other outcome between them."""

    def settled(seen: list[int]) -> bool:
        failures, answers = len(client.failures()), client.answers(NAME)
        if seen[:1] != [failures]:
            seen[:] = [failures, answers]
        return answers - seen[1] >= SETTLED

    seen: list[int] = []
    eventually(lambda: settled(seen), what=f"answers on port {PORT}")


def _pressed(client: Client) -> Pressed:
    outcomes = [each[1] for each in client.failures()]
    late = outcomes.count("late")
    hung = outcomes.count("hung") + late
    errors = len(client.failures()) - hung
    return Pressed(client.answers(NAME), errors, hung, late, client.pause_ms(NAME))


def _edited(folder: Path, edit: Callable[[Tree], None]) -> None:
    path = folder / "compose.yaml"
    temporary = path.with_name(".compose.yaml.new")
    temporary.write_text(changed_text(path.read_text(), SERVICE, edit))
    temporary.rename(path)


def _edit(
    edit: Callable[[Tree], None],
) -> tuple[Callable[[Host, Path], None], Callable[[ComposeSide], None]]:
    def with_trimtab(host: Host, folder: Path) -> None:
        before = _service(host, folder)
        _edited(folder, edit)
        eventually(lambda: _is_done(host, folder, before), within_s=READY_S, what="the rollout")

    def with_compose(side: ComposeSide) -> None:
        _edited(side.folder, edit)
        side.run("up", "-d", "--quiet-pull")

    return with_trimtab, with_compose


def _service(host: Host, folder: Path) -> dict[str, object]:
    return host.resource(SERVICE, namespace=folder.name)


def _is_done(host: Host, folder: Path, before: dict[str, object]) -> bool:
    now = _service(host, folder)
    differs = any(now.get(each) != before[each] for each in ("revision", "desired"))
    return differs and has(now, "Ready") and not has(now, "Progressing")


def _release(number: int, order: str) -> Callable[[Tree], None]:
    def edit(service: Tree) -> None:
        service["environment"]["RELEASE"] = str(number)
        service["deploy"]["update_config"]["order"] = order

    return edit


def _scale(replicas: int) -> Callable[[Tree], None]:
    def edit(service: Tree) -> None:
        service["scale"] = replicas

    return edit


def _rollback(host: Host, folder: Path) -> None:
    before = _service(host, folder)
    name = f"{folder.name}/{SERVICE}"
    kept = (each["revision"] for each in host.json("history", name)["revisions"])
    earlier = next(each for each in kept if each != before["revision"])
    host.cli("rollback", name, "--to", earlier)
    eventually(lambda: _is_done(host, folder, before), within_s=READY_S, what="the rollback")


def _remove_one(host: Host, _folder: Path) -> None:
    gone, *_ = _replicas(host)
    host.engine.docker("rm", "--force", gone)
    eventually(lambda: len(now := _replicas(host)) == 2 and gone not in now, what="another replica")


def _replicas(host: Host) -> list[str]:
    return host.running_ids(SERVICE)


def _remove_one_of_compose(side: ComposeSide) -> None:
    side.engine.docker("rm", "--force", side.containers()[SERVICE, 1]["Id"])
    side.run("up", "-d", "--quiet-pull")


#: In this order: each act finds what the one before left.
ACTS: Final = (
    Act("rollout, StartFirst", *_edit(_release(2, "start-first"))),
    Act("rollback", _rollback, _edit(_release(1, "start-first"))[1]),
    Act("rollout, StopFirst", *_edit(_release(3, "stop-first"))),
    Act("scale from 2 to 4", *_edit(_scale(4))),
    Act("scale from 4 to 2", *_edit(_scale(2))),
    Act("a replica removed by force", _remove_one, _remove_one_of_compose),
    Act(
        "engine restarted",
        lambda host, _folder: host.engine.restart(),
        lambda side: side.engine.restart(),
    ),
)
