"""Notifications from a document to the route that the process of notifications reads in the view."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.manifests.check_together import desired_of
from controller.core.notify.symptoms import symptoms_of
from controller.core.status.facts import StatusInputs
from controller.core.status.report import report, rows_of, unsent
from controller.core.view.attention import attended
from controller.model.desired.desired import Desired, GitSource, SourceLocation
from controller.model.desired.plan import Plan
from controller.model.desired.source_spec import SourceSpec
from controller.model.names import Key
from controller.model.notifications import NoticeMatch, NoticeRoute, NoticeTarget
from controller.model.observed import Observed
from tests.worlds import NAMES

DOCUMENT = """\
apiVersion: trimtab/v1
kind: Notification
metadata: {name: shop, namespace: shop, owner: team}
spec:
  match: {namespace: "sh*", kind: Service, name: "web?", condition: CrashLoop, severity: page}
  to: [chat]
"""
PLAIN = "apiVersion: trimtab/v1\nkind: Notification\nmetadata: {name: all, owner: team}\nspec: {to: [chat]}\n"
CHAT = NoticeTarget("chat", webhook="https://example.org/x", sources=("shop",))


def from_source(name: str, *, declared: bool = True) -> Desired:
    """Return the desired state with the document in a Git source of namespace shop and owner team."""
    spec = SourceSpec.model_validate(
        {"git": {"url": "https://x.example/x.git"}, "namespaces": ("shop",), "owners": ("team",)}
    )
    source = GitSource(Key("Source", "default", name), "team", spec, SourceLocation("s.yaml", 1))
    desired = desired_of({"n.yaml": DOCUMENT})
    moved = (
        replace(each, source=replace(each.source, origin=name)) for each in desired.notifications
    )
    return replace(desired, notifications=tuple(moved), sources=(source,) if declared else ())


def row_of(desired: Desired, *targets: NoticeTarget, observed: bool = True) -> dict[str, Any]:
    inputs = StatusInputs(
        desired, Observed("e") if observed else None, Plan(), NAMES, unsent=unsent(desired, targets)
    )
    made = report(inputs, previous=None, now="2026-03-01T12:00:00Z")
    (row,) = (each for each in rows_of(made) if each["kind"] == "Notification")
    return dict(attended(row))


def route_of(desired: Desired) -> NoticeRoute:
    (route,) = symptoms_of({"resources": [row_of(desired)]}, 0.0).routes
    return route


def test_a_document_of_the_directory_is_a_route_without_a_scope() -> None:
    match = NoticeMatch("sh*", "Service", "web?", "CrashLoop", "page")
    assert route_of(desired_of({"n.yaml": DOCUMENT})) == NoticeRoute(match, ("chat",))
    assert route_of(desired_of({"n.yaml": PLAIN})) == NoticeRoute(NoticeMatch(), ("chat",))


def test_a_sources_notification_has_the_scope_of_the_source() -> None:
    route = route_of(from_source("shop"))
    assert route.source == "shop"
    assert (route.namespaces, route.owners) == (frozenset({"shop"}), frozenset({"team"}))
    lost = route_of(from_source("shop", declared=False))
    assert lost.namespaces == frozenset(), "a source that isn't declared permits nothing"


def test_a_notification_is_as_declared_without_the_engine() -> None:
    row = row_of(desired_of({"n.yaml": PLAIN}), CHAT, observed=False)
    ready = row["conditions"][0]
    assert (ready["status"], ready["reason"]) == ("True", "AsDeclared")
    assert (row["severity"], row["slots"]) == ("ok", [])


@pytest.mark.parametrize(
    ("desired", "targets", "message"),
    [
        (desired_of({"n.yaml": PLAIN}), [], "no destination chat: there are none"),
        (
            desired_of({"n.yaml": PLAIN}),
            [replace(CHAT, name="chats")],
            "no destination chat: they are chats",
        ),
        (
            from_source("other"),
            [CHAT],
            "destination chat doesn't list Source other",
        ),
    ],
)
def test_a_destination_that_gets_nothing_is_a_condition_by_name(
    desired: Desired, targets: list[NoticeTarget], message: str
) -> None:
    row = row_of(desired, *targets)
    stalled = next(each for each in row["conditions"] if each["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "notification.destination")
    assert message in stalled["message"]
    assert row["conditions"][0]["status"] == "False"
    assert (row["worst"], row["severity"], row["who"]) == ("Stalled", "warning", "author")


def test_a_destination_that_lists_the_source_gets_its_notifications() -> None:
    assert unsent(from_source("shop"), [CHAT]) == {}
