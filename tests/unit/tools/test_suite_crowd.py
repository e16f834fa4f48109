"""Clones of a container: their records in the journal, and their containers in the engine."""

from __future__ import annotations

import json

from controller.model import names
from controller.model.records import Entry
from tools.suite.crowd import Clone, cloned
from tools.suite.engine_server import BenchEngine

TEMPLATE = Clone("a" * 64, "seed.1-0a1b2c3d", "seed", 1, "v2:" + "0a" * 32, "intent-1")
CLONE = Clone("b" * 64, "c7.4-9f8e7d6c", "c7", 4, "v2:" + "9f" * 32, "intent-2")


def labels(of: Clone) -> dict[str, object]:
    return {names.SERVICE: of.service, names.SLOT: str(of.slot), names.REVISION: of.revision}


def entry(of: Clone) -> Entry:
    return Entry(
        of.intent,
        "intent",
        request={"object": of.name, "summary": {"labels": labels(of)}},
        result={"container": of.id},
    )


def test_a_cloned_record_is_about_the_clone_alone() -> None:
    assert cloned(entry(TEMPLATE), TEMPLATE, CLONE) == entry(CLONE)


def test_a_cloned_container_is_listed_beside_its_template() -> None:
    engine = BenchEngine()
    body = {"Image": "trimtab.local/web:1", "Labels": labels(TEMPLATE)}
    _, answer = engine.call("POST", "/containers/create?name=seed", json.dumps(body).encode())
    template = json.loads(answer)["Id"]
    engine.call("POST", f"/containers/{template}/start")
    engine.clone(template, [{"id": CLONE.id, "name": CLONE.name, names.SERVICE: "c7"}])
    _, answer = engine.call("GET", "/containers/json")
    shown = {each["Id"]: each["Labels"][names.SERVICE] for each in json.loads(answer)}
    assert shown == {template: "seed", CLONE.id: "c7"}
    _, answer = engine.call("GET", f"/containers/{CLONE.id}/json")
    assert json.loads(answer)["Name"] == f"/{CLONE.name}"
