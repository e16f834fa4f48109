"""The view of a viewer equals the view of a world that has its owners' resources alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.review.performed_actions import PerformedAction
from controller.core.status.facts import StatusInputs
from controller.core.status.report import report, rows_of
from controller.core.view.attention import attended
from controller.core.view.view import (
    FieldsMemo,
    ViewInputs,
    answer,
    blanked,
    hidden_names,
    next_view,
    scoped,
)
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import StopContainer
from controller.model.errors import Problem
from controller.model.names import service_key
from controller.model.observed import Container, ContainerState
from controller.model.records import ViewerScope
from tests.examples import examples
from tests.worlds import NAMES, container, declared, engine, network, plan, service, volume

NOW = "2026-03-01T12:00:00Z"
ALICE, BOB = "alice", "bob"
SCOPE = ViewerScope(frozenset({ALICE}))
STATES = [each.value for each in ContainerState]

#: A declared service or none, and its containers.
Part = tuple[Service | None, tuple[Container, ...]]


@st.composite
def parts(draw: st.DrawFn, owner: str) -> list[Part]:
    """Draw the services of an owner, whose names begin with the owner's."""
    drawn: list[Part] = []
    for number in range(draw(st.integers(0, 3))):
        name, namespace = f"{owner}-{number}", draw(st.sampled_from(["default", "shop"]))
        wanted = service(name, namespace=namespace, owner=owner, replicas=draw(st.integers(0, 2)))
        there = tuple(
            container(
                name,
                slot,
                draw(st.sampled_from("ab")),
                draw(st.sampled_from(STATES)),
                namespace=namespace,
                owner=owner,
            )
            for slot in range(1, draw(st.integers(1, 3)))
        )
        drawn.append((wanted if draw(st.integers(0, 3)) else None, there))
    return drawn


def inputs_of(
    drawn: Iterable[Part], extra: Iterable[Any] = (), further: tuple[Problem, ...] = ()
) -> ViewInputs:
    drawn = list(drawn)
    wanted = [each for each, _ in drawn if each is not None]
    problems = tuple(
        Problem("field.unknown", f"{key} has a mistake", f"{key.name}.yaml", 1, key=key)
        for key in (each.key for each in wanted)
    )
    desired: Desired = declared(*wanted, *extra, problems=(*problems, *further))
    observed = engine(*(each for _, there in drawn for each in there))
    made = plan(desired, observed)
    stated = StatusInputs(desired=desired, observed=observed, plan=made, networks=NAMES)
    reported = report(stated, previous=None, now=NOW)
    reported["resources"] = [attended(row) for row in rows_of(reported)]
    acts = tuple(PerformedAction(1, 1_772_366_400.0, action) for action in made.actions)
    return ViewInputs(reported, desired, observed, made, acts, at=NOW)


def view_of(inputs: ViewInputs, scope: ViewerScope = SCOPE) -> dict[str, object]:
    view = next_view(None, scoped(inputs, scope), FieldsMemo(), run="run")
    return dict(blanked(answer(view, ""), hidden_names(inputs, scope)))


@settings(max_examples=examples(40))
@given(parts(ALICE), parts(BOB))
def test_a_viewers_view_is_that_of_a_world_with_its_owners_alone(
    own: list[Part], others: list[Part]
) -> None:
    # A network and a volume of another owner, in namespaces that both use.
    extra = [network("bob-net"), volume("bob-data")]
    seen, alone = view_of(inputs_of([*own, *others], extra)), view_of(inputs_of(own))
    assert seen == alone
    assert BOB not in json.dumps(seen)
    assert [row["owner"] for row in rows_of(seen)] == [ALICE] * len(rows_of(seen))


def test_what_changes_of_others_makes_no_version_and_is_in_no_difference() -> None:
    memo = FieldsMemo()
    own: Part = (service("alice-0", owner=ALICE), (container("alice-0", owner=ALICE),))
    other: Part = (service("bob-0", owner=BOB), (container("bob-0", owner=BOB),))
    first = next_view(None, scoped(inputs_of([own, other]), SCOPE), memo, run="run")
    gone = next_view(first, scoped(inputs_of([own]), SCOPE), memo, run="run")
    assert gone.version == first.version
    both = ViewerScope(frozenset({ALICE, BOB}))
    assert len(rows_of(view_of(inputs_of([own, other]), both))) == 2
    assert view_of(inputs_of([own, other]), ViewerScope(frozenset({"nobody"})))["state"] == {
        "word": "AsDeclared",
        "text": "Nothing is declared.",
        "counts": {
            **dict.fromkeys(("ok", "progress", "warning", "page", "total"), 0),
            **dict.fromkeys(("asDeclared", "problems", "sources"), 0),
        },
    }


def test_a_message_about_an_own_resource_names_no_other_owners() -> None:
    own: Part = (service("alice-0", owner=ALICE), (container("alice-0", owner=ALICE),))
    other: Part = (
        service("web", owner=BOB, namespace="shop"),
        (container("web", owner=BOB, namespace="shop"),),
    )
    taken = f"port 80 is Service/shop/web's ({other[1][0].name}), see shop/web. Image x/shop/web:1"
    problem = Problem("port.taken", taken, key=service_key("default", "alice-0"))
    shown: Any = view_of(inputs_of([own, other], further=(problem,)))["problems"]
    assert shown[-1]["message"] == "port 80 is …'s (…), see …. Image x/shop/web:1"


def test_what_waits_for_another_owners_resource_says_neither_its_name_nor_how_it_stands() -> None:
    db = service("db", owner=BOB)
    broken = container("db", owner=BOB, state="exited", exit_code=7, settings={"restart": "no"})
    needs = [{"name": "db", "condition": "Healthy", "restart": True}]
    own: Part = (service("alice-0", owner=ALICE, dependsOn=needs), ())
    # It repeats what its dependency waits for.
    next_one: Part = (service("alice-1", owner=ALICE, dependsOn=[{"name": "alice-0"}]), ())
    for there in ((), (broken,)):
        made = inputs_of([own, next_one, (db, there)])
        assert " db " in json.dumps([row["conditions"] for row in rows_of(made.report)])
        shown = view_of(made)
        assert [row.get("waitsFor") for row in rows_of(shown)] == [
            None,
            ["Service/default/alice-0"],
        ]
        plain: Any = [{**row, "fields": []} for row in rows_of(shown)]
        texts = json.dumps([plain, shown["plan"], shown["problems"], shown["acts"]])
        assert "because of a resource of another owner" in texts
        for word in ("db", "7", "healthy", BOB):
            assert not re.search(rf"\b{word}\b", texts), (word, texts)
    everybody = view_of(inputs_of([own, next_one, (db, ())]), ViewerScope(frozenset({ALICE, BOB})))
    assert "waiting for db to be healthy" in json.dumps(everybody)


def test_an_act_because_of_another_owners_resource_does_not_name_it() -> None:
    needs = [{"name": "db", "restart": True}]
    own = service("alice-0", owner=ALICE, dependsOn=needs)
    made = inputs_of([(own, (container("alice-0", owner=ALICE),)), (service("db", owner=BOB), ())])
    replaced = StopContainer(
        object=own.key,
        target="alice-0.1",
        cause="db was replaced after alice-0.1 was started",
    )
    shown: Any = view_of(replace(made, acts=(PerformedAction(1, 1_772_366_400.0, replaced),)))
    assert [act["cause"] for act in shown["acts"]] == ["because of a resource of another owner"]
    assert "db" not in json.dumps(shown["acts"])


def test_problems_of_no_own_resource_and_sources_are_left_out() -> None:
    general = Problem("yaml.malformed", "bob.yaml can't be read", "bob.yaml", 1)
    made = inputs_of([(None, (container("alice-0", owner=ALICE),))], further=(general,))
    made = replace(made, report={**made.report, "sources": [{"name": "s"}]})
    shown = view_of(made)
    assert (len(rows_of(shown)), shown["problems"], shown["sources"]) == (1, [], [])


def test_an_engine_that_can_t_be_reached_is_everybodys_problem_without_its_message() -> None:
    away = Problem("engine.unavailable", "no answer about bob-0", remedy="see bob-0")
    shown: Any = view_of(inputs_of([], further=(away, away)))["problems"]
    assert [(each["code"], each["message"]) for each in shown] == [
        ("engine.unavailable", "the engine can't be reached")
    ]
    assert "bob" not in json.dumps(shown)
