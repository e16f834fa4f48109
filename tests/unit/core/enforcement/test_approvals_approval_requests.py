"""The objects of an approval, its request, and the mutations that it admits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.enforcement import approvals
from controller.core.enforcement.approvals import PlannedRemoval
from controller.model.desired.plan import (
    Blocked,
    Plan,
    RemoveContainer,
    StartContainer,
    StopContainer,
)
from controller.model.inventory import Approval
from controller.model.names import service_key
from controller.model.observed import Observed, Settings
from controller.model.records import Precondition, Verdict
from tests.unit.core.plain import WEB, container

PLAN = "ab" * 32


def test_an_approval_is_about_what_goes_and_what_is_held_back() -> None:
    """Each container once, by service and name; what is denied anyway isn't asked for."""

    def at(identifier: str) -> dict[str, Any]:
        return {"object": WEB, "cause": "scaled down", "precondition": Precondition(id=identifier)}

    api = replace(container("a1"), key=service_key("default", "api"))
    blocked = Blocked(api.key, "PrunePending", "it isn't declared any more", "")
    theirs = replace(container("b1"), key=api.key, origin="client")
    made = Plan(
        (
            StopContainer(target="gone", **at("x2")),
            StopContainer(target="x1", **at("x1")),
            RemoveContainer(target="x1", **{**at("x1"), "cause": "later"}),
            StopContainer(target="x3", **at("x3"), verdict=Verdict("deny")),
            StartContainer(target="x4", **at("x4")),
        ),
        blocked=(blocked,),
    )
    named = replace(container("x1"), settings=Settings(name="web.1-0"))
    assert approvals.planned_removals(made, Observed("i1", containers=(named, theirs, api))) == (
        PlannedRemoval("Service/default/api", "a1", "a1", "it isn't declared any more"),
        PlannedRemoval("Service/default/web", "gone", "x2", "scaled down"),
        PlannedRemoval("Service/default/web", "web.1-0", "x1", "scaled down"),
    )


APPROVAL = Approval("r1", PLAN, ("c1", "volume:data"), "", used=("c2",))


@pytest.mark.parametrize(
    ("subject", "plan", "age_s", "fits"),
    [
        ("c1", PLAN, 0.0, True),
        ("volume:data", PLAN, 3599.0, True),
        ("c1", PLAN, 3600.0, False),
        ("c1", PLAN, -1.0, False),
        ("c1", "cd" * 32, 0.0, False),
        ("c1", "", 0.0, False),
        ("c3", PLAN, 0.0, False),
    ],
)
def test_an_approval_is_for_its_objects_its_plan_and_an_hour(
    subject: str, plan: str, age_s: float, *, fits: bool
) -> None:
    found = approvals.approval_for(subject, plan=plan, approvals=[(APPROVAL, age_s)])
    assert found == (APPROVAL if fits else None)


def test_an_approval_is_used_once_for_each_object() -> None:
    spent = replace(APPROVAL, used=("c1",))
    assert approvals.approval_for("c1", plan=PLAN, approvals=[(spent, 0.0)]) is None
    again = replace(APPROVAL, id="r2")
    found = approvals.approval_for("c1", plan=PLAN, approvals=[(spent, 0.0), (again, 0.0)])
    assert found == again


NO_PLAN = "plan isn't the digest of a plan: 64 hex digits"
NO_LIST = "objects isn't a list of 1 to 1000"
NO_OBJECT = "an object is a container's full id, volume:NAME, or move:FROM>TO@OWNER#DIGEST"
NO_NOTE = "note isn't a text of at most 512 characters"


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"plan": "ab"}, NO_PLAN),
        ({"plan": PLAN.upper()}, NO_PLAN),
        ({"objects": []}, NO_LIST),
        ({"objects": ["a" * 64] * 1001}, NO_LIST),
        ({"objects": ["a" * 64, "a" * 64]}, "an object is named twice"),
        ({"objects": ["web"]}, NO_OBJECT),
        ({"objects": ["volume:../x"]}, NO_OBJECT),
        ({"objects": [1]}, NO_OBJECT),
        ({"objects": "a" * 64}, NO_LIST),
        ({"note": 1}, NO_NOTE),
        ({"note": "x" * 513}, NO_NOTE),
        ({"more": 1, "other": 2}, "it has no member 'more'"),
    ],
)
def test_an_approval_of_another_shape_is_none(body: dict[str, object], wrong: str) -> None:
    good: dict[str, object] = {"act": "approve", "plan": PLAN, "objects": ["a" * 64], "note": "n"}
    assert approvals.read_approval(good) == (PLAN, ("a" * 64,), "n")
    assert approvals.read_approval({**good, **body}) == wrong


def test_an_approval_needs_no_note_and_may_name_as_much_as_it_can_hold() -> None:
    objects = [*(f"volume:v{number}" for number in range(999)), "a" * 64]
    asked: dict[str, object] = {"plan": PLAN, "objects": objects}
    assert approvals.read_approval(asked) == (PLAN, tuple(objects), "")
    assert approvals.read_approval({**asked, "note": "x" * 512}) == (
        PLAN,
        tuple(objects),
        "x" * 512,
    )
