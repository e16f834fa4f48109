"""What a dockerd makes of a create and an image's config, beside what the gate foresees: drawn pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings

from controller.core.effective import effective
from controller.core.engine_api.parse import parse_create
from controller.model.policy.document import Policy
from tests.contract.sides import LABEL, RealSide
from tests.engine import Engine
from tests.examples import examples
from tests.unit.core.creates import FACTS, IMAGE, REFERENCE, judged, policy
from tests.unit.core.effective.drawn import BODIES, CONFIGS, POLICIES
from tools import image_archive
from tools.image_archive import Archive, file, layer_of

LAYER = layer_of((file("bin/serve", "no program"),))
MEMBERS = (
    *("User", "Env", "Cmd", "Entrypoint", "Healthcheck", "WorkingDir", "Volumes"),
    *("ExposedPorts", "StopSignal"),
)
OPEN = policy(security={"groupAdd": True}, images={"allow": ["ghcr.io/platformnetwork/"]})


@contextmanager
def made(side: RealSide, body: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Create a container, and yield its Config; None if the engine refuses it."""
    data = {**body, "HostConfig": {"NetworkMode": "none"}}
    status, answer = side.raw("POST", "/containers/create", json.dumps(data).encode())
    identifier = json.loads(answer).get("Id", "")
    if status != 201:
        yield None
        return
    try:
        _, shown = side.raw("GET", f"/containers/{identifier}/json", None)
        yield json.loads(shown)["Config"]
    finally:
        side.raw("DELETE", f"/containers/{identifier}?v=1", None)


@settings(max_examples=examples(25), suppress_health_check=[*HealthCheck])
@given(config=CONFIGS, asked=BODIES, rules=POLICIES)
def test_what_the_gate_judges_is_what_the_engine_runs(
    engine: Engine, config: dict[str, Any], asked: dict[str, Any], rules: Policy
) -> None:
    side = RealSide(engine)
    archive = Archive(f"contract.test/drawn:{LABEL}", (LAYER,), config, "tests/contract")
    image_archive.load(engine.host, archive)
    image = image_archive.inspect(engine.host, archive.reference) or {}
    try:
        own = image["Config"]
        with made(side, {**asked, "Image": image["Id"]}) as shown:
            if shown is None:
                return  # nothing to run, for example
            foreseen(own, asked, shown)
        found = judged(asked, rules=rules, facts=replace(FACTS, image=replace(IMAGE, config=own)))
        if found.verdict.decision == "deny":
            return
        body: Any = found.body
        body = {name: body[name] for name in (*MEMBERS, "Labels") if name in body}
        with made(side, {**body, "Image": image["Id"]}) as shown:
            assert shown is not None, "the engine refuses what the gate rebuilt"
            assert {n: shown.get(n) or None for n in MEMBERS} == {
                n: body.get(n) or None for n in MEMBERS
            } | ({"Entrypoint": None} if body.get("Entrypoint") == [""] else {})
            assert shown["Labels"] == body["Labels"]
    finally:
        side.raw("DELETE", f"/images/{image['Id']}?force=1", None)


def foreseen(own: dict[str, Any], asked: dict[str, Any], shown: dict[str, Any]) -> None:
    """Compare what the engine merged with what the gate merges."""
    found = effective(parse_create({"Image": REFERENCE, **asked}), own, OPEN)
    request, check = found.request, shown.get("Healthcheck") or {}
    assert request.user == shown["User"]
    assert list(request.env) == (shown["Env"] or [])
    assert list(request.command or ()) == (shown["Cmd"] or [])
    assert [each for each in request.entrypoint or () if each] == (shown["Entrypoint"] or [])
    assert request.working_dir == shown["WorkingDir"]
    assert request.stop_signal == shown.get("StopSignal", "").upper()
    assert {*request.volumes} == {*(shown["Volumes"] or {})}
    assert {*request.exposed_ports} == {*(shown.get("ExposedPorts") or {})}
    health = request.healthcheck
    assert list(health.test if health else ()) == check.get("Test", [])
    assert (health.interval_ns if health else 0) == check.get("Interval", 0)
    assert (health.retries if health else 0) == check.get("Retries", 0)
    kept = {key: value for key, value in shown["Labels"].items() if key not in found.blanked}
    assert dict(request.labels) == kept
