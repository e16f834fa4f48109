"""Ended runs of docker compose: a run that did what the document says counts, every other job is held."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.broker.gate.state import GateState
from controller.core.jobs.memory import ON_CHANGE
from controller.core.records.inventory_json import from_json, to_json
from controller.model.names import Key
from controller.model.policy.document import Policy
from controller.model.records import Actor
from tests.unit.broker.dialogue import ALICE, CONTROLLER, OPERATOR
from tests.unit.broker.handlers import test_adoption_as_found_as_found
from tests.unit.broker.handlers.test_adoption_as_found_as_found import (
    CREATE,
    IMAGE,
    OLD,
    OWN,
    REFERENCE,
    REVISION,
    Host,
    broker,
)

JOB = Key("Job", "default", "migrate")
NAME = "migrate.run-1-01234567"
LABELS = {
    **CREATE["Labels"],
    "io.trimtab.service": "migrate",
    "io.trimtab.slot": "run-1",
    "io.trimtab.occasion": "change",
}
RUN: dict[str, Any] = {
    **CREATE,
    "Labels": LABELS,
    "HostConfig": {"NetworkMode": "platform-network"},
    "NetworkingConfig": {"EndpointsConfig": {"platform-network": {}}},
}


def ended(**state: Any) -> Host:
    """Return an engine with an ended container of docker compose."""
    host = Host()
    host.containers[OLD]["Name"] = "/shop-migrate-1"
    host.containers[OLD]["State"] |= {"Status": "exited", "Running": False, "ExitCode": 0, **state}
    return host


def adopt(
    host: Host, knows: GateState, *, create: object = RUN, by: Actor = OPERATOR, **more: Any
) -> Any:
    run = {"container": OLD, "name": NAME, "create": create}
    asked = {"containers": [], "runs": [run], **more}
    return host.ask(knows, "POST", "/trimtab/v1/adoptions", asked, actor=by)


def create(host: Host, knows: GateState, number: int) -> Any:
    """Ask for a run, as a controller does."""
    path = f"/v1.45/containers/create?name=migrate.run-{number}-01234567"
    body = {**RUN, "Labels": {**LABELS, "io.trimtab.slot": f"run-{number}"}}
    status, told = host.ask(knows, "POST", path, body, actor=CONTROLLER)
    return told["trimtab"]["rule"] if status >= 400 else status


def test_a_run_that_succeeded_counts_and_is_never_repeated() -> None:
    host, knows = ended(), broker()
    status, told = adopt(host, knows)
    assert status == 200, told
    assert [(each["job"], each["outcome"]) for each in told["runs"]] == [(str(JOB), "succeeded")]
    (entry,) = host.entries
    assert (entry.stage, entry.request["route"], entry.request["object"]) == (
        "operator",
        "job.adopted",
        str(JOB),
    )
    assert host.forwarded == []
    assert OLD not in knows.inventory.containers
    memory = knows.inventory.jobs[JOB]
    known = memory.occasion(REVISION, ON_CHANGE)
    assert known is not None
    assert known.is_complete
    assert known.why == "exited with 0, under docker compose as shop-migrate-1"
    assert create(host, knows, 2) == "job.done"
    assert from_json(json.loads(json.dumps(to_json(knows.inventory)))) == knows.inventory
    # Once is enough.
    host.entries.clear()
    assert adopt(host, knows)[1]["runs"] == []
    assert host.entries == []


def test_the_volumes_that_an_image_declares_are_no_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = Policy.from_json({"name": "strict", "images": {"anonymousVolumes": "scratch"}})
    monkeypatch.setattr(test_adoption_as_found_as_found, "POLICY", scratch)
    monkeypatch.setitem(OWN["Config"], "Volumes", {"/data": {}})
    host, knows = ended(), broker()
    volume = {"Type": "volume", "Name": "f" * 64, "Destination": "/data", "RW": True}
    host.containers[OLD]["Mounts"] = [volume]
    run = adopt(host, knows)[1]["runs"][0]
    assert run["outcome"] == "succeeded", run["reasons"]


def other_program(host: Host) -> None:
    host.containers[OLD]["Config"]["Cmd"] = ["/bin/other"]


def other_image(host: Host) -> None:
    host.containers[OLD]["Image"] = IMAGE.replace("a", "b")


def other_environment(host: Host) -> None:
    host.containers[OLD]["Config"]["Env"] = ["PATH=/bin", "LEVEL=2"]


def nothing(host: Host) -> None:
    host.containers.clear()


def running(host: Host) -> None:
    host.containers[OLD]["State"] |= {"Status": "running", "Running": True}


def failed(host: Host) -> None:
    host.containers[OLD]["State"]["ExitCode"] = 1


def out_of_memory(host: Host) -> None:
    host.containers[OLD]["State"]["OOMKilled"] = True


@pytest.mark.parametrize(
    "fault",
    [other_program, other_image, other_environment, nothing, running, failed, out_of_memory],
)
def test_any_other_job_is_held(fault: Any) -> None:
    host, knows = ended(), broker()
    fault(host)
    status, told = adopt(host, knows, dryRun=True)
    assert (status, host.entries) == (200, [])
    assert told["runs"][0]["outcome"] == "held"
    assert told["runs"][0]["reasons"]
    assert adopt(host, knows)[0] == 200
    assert create(host, knows, 1) == "job.held"


@pytest.mark.parametrize(
    "label",
    [
        {"io.trimtab.slot": "1"},
        {"io.trimtab.occasion": "manual:0"},
        {"io.trimtab.revision": "v2:0"},
        {"io.trimtab.service": "a/b"},
    ],
)
def test_only_the_run_of_a_changed_job_is_adopted(label: dict[str, str]) -> None:
    host, knows = ended(), broker()
    status, told = adopt(host, knows, create={**RUN, "Labels": {**LABELS, **label}})
    assert (status, told["trimtab"]["rule"]) == (400, "adopt.invalid")
    assert JOB not in knows.inventory.jobs


@pytest.mark.parametrize("who", [CONTROLLER, ALICE])
def test_only_operators_adopt_runs(who: Actor) -> None:
    host, knows = ended(), broker()
    assert adopt(host, knows, by=who)[0] == 403
    assert JOB not in knows.inventory.jobs
    assert REFERENCE in knows.inventory.ledger
