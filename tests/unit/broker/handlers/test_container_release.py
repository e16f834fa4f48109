"""Releases at the gate: who may ask, what is shown, and what is refused before anything is recorded."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Command, CommandResult, Forward, ReadEngine, WriteRecord
from controller.model.inventory import Inventory
from controller.model.records import Actor, Reply
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    OPERATOR,
    drive,
    record,
    reply,
    request,
    state,
)
from tests.unit.broker.world import SLOT, STRAY, WEB, inspect, inventory

PATH = "/trimtab/v1/releases"


def shown(restart: str = "always", *, running: bool = True, **more: Any) -> dict[str, Any]:
    """Return the inspect of the controller's container."""
    host = {"NetworkMode": "none", "RestartPolicy": {"Name": restart, "MaximumRetryCount": 0}}
    status = {"Status": "running" if running else "exited", "Running": running}
    return inspect(SLOT, "web.1-01234567", "team", State=status, HostConfig={**host, **more})


def ask(
    body: dict[str, Any],
    engine: dict[str, Any] | None = None,
    *,
    actor: Actor = OPERATOR,
    known: Inventory | None = None,
) -> tuple[Reply, list[Any], list[Forward]]:
    """Send a request; return the reply, the recorded entries and what was forwarded."""
    gate = state(known or inventory())
    gate.file_roots = {"config": "/state/files"}
    entries: list[Any] = []
    forwarded: list[Forward] = []

    def answer(command: Command) -> CommandResult:
        match command:
            case ReadEngine():
                return reply(engine if engine is not None else shown())
            case WriteRecord(entry):
                entries.append(entry)
                return record(gate, entry)
            case Forward():
                forwarded.append(command)
                return reply({"Warnings": None})
            case _:
                raise AssertionError(command)

    found = drive(handle(request("POST", PATH, actor=actor, body=body), gate), answer)
    return found, entries, forwarded


@pytest.mark.parametrize("actor", [ALICE, CONTROLLER])
def test_only_operators_release(actor: Actor) -> None:
    found, entries, forwarded = ask({"container": SLOT}, actor=actor)
    assert found.status == 403
    assert [entry.stage for entry in entries] == ["refusal"]
    assert forwarded == []


@pytest.mark.parametrize(
    "body",
    [
        {"container": SLOT, "force": True},
        {"container": SLOT, "files": ["/a"]},
        {"container": SLOT, "files": {"/a": 1}},
        {"container": SLOT, "files": {"/a": "../etc"}},
        {"container": SLOT, "note": "x" * 600},
        {"container": SLOT, "files": {f"/{n}": "/b" for n in range(101)}},
    ],
)
def test_another_shape_is_refused(body: dict[str, Any]) -> None:
    found, entries, forwarded = ask(body)
    assert (found.status, json.loads(found.body)["trimtab"]["rule"]) == (400, "release.invalid")
    assert [entry.stage for entry in entries] == ["refusal"]
    assert forwarded == []


def rule(found: Reply) -> str:
    return str(json.loads(found.body)["trimtab"]["rule"])


def test_nobody_elses_container_is_released() -> None:
    runs = inventory()
    (job,) = [replace(item, is_run=True) for item in runs.containers.values() if item.id == SLOT]
    runs = replace(runs, containers={**runs.containers, SLOT: job})
    assert rule(ask({"container": STRAY})[0]) == "release.unknown"
    assert rule(ask({"container": WEB})[0]) == "release.kind"
    assert rule(ask({"container": SLOT}, known=runs)[0]) == "release.kind"
    known = inventory()
    done = replace(known, containers={}, released={SLOT: known.containers[SLOT]})
    assert rule(ask({"container": SLOT}, known=done)[0]) == "release.done"


@pytest.mark.parametrize(
    ("restart", "running", "keep", "becomes"),
    [
        ("always", True, False, "always"),
        ("on-failure", True, False, "on-failure"),
        ("no", True, False, "unless-stopped"),
        ("no", True, True, "no"),
        ("no", False, False, "no"),
    ],
)
def test_what_trimtab_alone_restarted_is_restarted_by_the_engine(
    restart: str, running: bool, keep: bool, becomes: str
) -> None:
    engine = shown(restart, running=running)
    body = {"container": SLOT, "keepRestart": keep}
    found, entries, forwarded = ask({**body, "dryRun": True}, engine)
    assert json.loads(found.body)["container"]["restart"] == {"was": restart, "becomes": becomes}
    assert (entries, forwarded) == ([], [])
    found, entries, (sent,) = ask(body, engine)
    assert json.loads(found.body)["released"] == SLOT
    assert (sent.path, json.loads(sent.body)) == (
        f"/containers/{SLOT}/update",
        {"RestartPolicy": {"Name": becomes}},
    )
    routes = [entry.request.get("route") for entry in entries if entry.stage == "intent"]
    assert routes == ["container.release"]


def test_delivered_files_need_a_folder() -> None:
    source = f"/state/files/default/site/{'a' * 64}/{'b' * 16}"
    mount = {"Type": "bind", "Source": source, "Target": "/srv", "ReadOnly": True}
    engine = shown(Mounts=[mount])
    engine["Config"]["Labels"]["io.trimtab.namespace"] = "default"
    found, _, _ = ask({"container": SLOT, "dryRun": True}, engine)
    container = json.loads(found.body)["container"]
    assert container["files"] == [{"target": "/srv", "path": source}]
    assert container["findings"] == []
    found, entries, forwarded = ask({"container": SLOT}, engine)
    assert rule(found) == "release.files"
    found, _, _ = ask({"container": SLOT, "files": {"/other": "/srv/copy"}}, engine)
    assert rule(found) == "release.files"
    assert forwarded == []
    assert [entry.stage for entry in entries] == ["refusal"]
