"""The view: rows with fields and origins, versions, and what a reader lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from controller.core.review.performed_actions import PerformedAction
from controller.core.service.overrides import apply_overrides
from controller.core.status.facts import Failure, StatusInputs
from controller.core.status.report import report, rows_of
from controller.core.view.attention import attended
from controller.core.view.view import FieldsMemo, ViewInputs, answer, merged, next_view
from controller.model.desired.desired import Desired, Overrides, Scaling
from controller.model.errors import Act
from controller.model.names import service_key
from controller.model.observed import Observed
from tests.worlds import (
    IMAGE,
    NAMES,
    WEB,
    container,
    declared,
    engine,
    network,
    plan,
    service,
    volume,
)

NOW = "2026-03-01T12:00:00Z"
GOLDEN = Path(__file__).parents[3] / "golden" / "view" / "view.json"
API = service_key("default", "api")


def inputs_of(desired: Desired, observed: Observed, **more: Any) -> ViewInputs:
    made = plan(desired, observed)
    stated = StatusInputs(desired=desired, observed=observed, plan=made, networks=NAMES, **more)
    reported = report(stated, previous=None, now=NOW)
    reported["resources"] = [attended(row) for row in rows_of(reported)]
    return ViewInputs(
        reported,
        desired=desired,
        observed=observed,
        plan=made,
        acts=tuple(
            PerformedAction(number, 1_772_366_400.0 + number, action)
            for number, action in enumerate(made.actions[:2], start=1)
        ),
        host={
            "name": "host",
            "instance": observed.instance,
            "engine": observed.engine_version,
            "trimtab": "1.0.0",
            "policy": "0" * 64,
        },
        at=NOW,
    )


def example() -> ViewInputs:
    """A service as declared, one that stays otherwise with its dependent, one of which a replica is missing."""
    web = service(WEB.name, resources={"memory": "512Mi"}, env={"TOKEN": "secret"})
    api, worker = service("api"), service("worker", replicas=2)
    edge = service("edge", dependsOn=[{"name": "api", "condition": "Healthy"}])
    desired = declared(web, api, worker, edge, network("back"), volume("data"))
    observed = engine(container("web"), container("worker"))
    why = "the registry refuses the image"
    denied = Failure(Act.STALLED, "image.denied", why, retry_at=1_772_366_440.0)
    return inputs_of(desired, observed, failures={API: denied})


def test_the_recorded_view_is_what_the_maker_makes():
    view = next_view(None, example(), FieldsMemo(), run="0a1b2c3d")
    made = json.dumps(answer(view, ""), indent=1) + "\n"
    assert made == GOLDEN.read_text("utf-8"), "python -m tests.unit.core.view.test_view writes it"


def test_no_value_of_a_variable_is_in_a_view():
    view = next_view(None, example(), FieldsMemo(), run="run")
    assert "TOKEN" in json.dumps(answer(view, ""))
    assert "secret" not in json.dumps(answer(view, ""))


def test_a_view_of_the_same_facts_at_another_instant_is_the_same_version():
    memo = FieldsMemo()
    view = next_view(None, example(), memo, run="run")
    assert next_view(view, example(), memo, run="run").version == view.version


def test_a_reader_gets_what_changed_since_its_version_and_what_went():
    web, api = service(WEB.name), service("api")
    memo = FieldsMemo()
    before = next_view(
        None, inputs_of(declared(web, api), engine(container("web"))), memo, run="run"
    )
    now = inputs_of(declared(api), engine(container("api")))
    after = next_view(before, now, memo, run="run")
    lacks = answer(after, before.version)
    assert (lacks["version"], lacks["full"], lacks["gone"]) == ("run-2", False, [str(WEB)])
    assert [row["name"] for row in rows_of(lacks)] == ["api"]
    assert merged(answer(before, ""), lacks) == answer(after, "")
    assert rows_of(answer(after, after.version)) == []


def test_a_reader_of_another_run_or_of_a_version_to_come_gets_everything():
    view = next_view(None, example(), FieldsMemo(), run="run")
    for have in ("", "other-1", "run-2", "run-x", "-"):
        assert answer(view, have)["full"] is True
        assert len(rows_of(answer(view, have))) == len(view.rows)


def test_a_field_has_its_values_and_its_origin():
    web = service(WEB.name, resources={"memory": "512Mi"})
    view = next_view(
        None, inputs_of(declared(web), engine(container("web"))), FieldsMemo(), run="run"
    )
    shown: Any = view.rows[str(WEB)]["fields"]
    fields = {each["field"]: each for each in shown}
    assert fields["spec.image"]["running"] == IMAGE
    memory = fields["spec.resources.memory"]
    assert (memory["desired"], memory["running"], memory["admitted"]) == ("512Mi", "512Mi", "512Mi")
    assert memory["origin"]["from"] == "document"
    assert fields["spec.resources.pids"]["origin"] == {
        "from": "policy",
        "rule": "resources.pids.default",
    }


def test_replicas_that_a_person_chose_are_not_the_document_s():
    memo, running = FieldsMemo(), engine(container("web"))
    documents = declared(service(WEB.name, replicas=2))
    scaled = apply_overrides(
        documents, {WEB: Overrides(scaling=Scaling(5, 2, "uid:0", "2026-03-01T11:00:00Z"))}
    )
    before = next_view(None, inputs_of(documents, running), memo, run="run")
    after = next_view(before, inputs_of(scaled, running), memo, run="run")
    rows: list[Any] = [view.rows[str(WEB)] for view in (before, after)]
    fields = [each for row in rows for each in row["fields"] if each["field"] == "spec.replicas"]
    assert [(each["desired"], each["origin"]["from"]) for each in fields] == [
        ("2", "document"),
        ("5", "operator"),
    ]
    assert fields[1]["origin"]["reason"].startswith("scaled to 5 by uid:0")


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    made = next_view(None, example(), FieldsMemo(), run="0a1b2c3d")
    GOLDEN.write_text(json.dumps(answer(made, ""), indent=1) + "\n", "utf-8")
