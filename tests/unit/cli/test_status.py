"""The table of ``status``."""

from __future__ import annotations

from typing import Any

import click
import pytest

from controller.cli.status import ready_of, render_status
from controller.cli.tables import cell_width


def resource(name: str, word: str, message: str = "", **members: Any) -> dict[str, Any]:
    condition = {"type": word, "status": "True", "reason": "", "message": message}
    return {
        "kind": "Service",
        "namespace": "default",
        "name": name,
        "ready": 1,
        "desired": 1,
        "image": "registry.example.com/platform/services/web:1.4",
        "conditions": [condition],
        "slots": [],
        **members,
    }


WHY = (
    "image.notfound registry.example.com/platform/services/web:1.4: its registry has no such image"
)
STATUS = {
    "resources": [resource("web", "Ready"), resource("gateway", "Stalled", WHY, ready=0)],
    "problems": [],
}


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_the_reason_is_readable_in_full_at_any_width(width: int) -> None:
    shown = click.unstyle(render_status(STATUS, width=width))
    assert max(map(cell_width, shown.split("\n"))) <= width
    assert "".join(WHY.split()) in "".join(shown.split())


def test_at_80_columns_the_reason_stands_below_the_service() -> None:
    assert click.unstyle(render_status(STATUS, width=80)).split("\n") == [
        "KIND     NAME     READY  CONDITION  IMAGE",
        "Service  web      1/1    Ready      …/web:1.4",
        "Service  gateway  0/1    Stalled    …/web:1.4",
        "    image.notfound registry.example.com/platform/services/web:1.4: its registry",
        "    has no such image",
    ]


@pytest.mark.parametrize(
    ("members", "shown"),
    [
        ({"ready": 1, "desired": 2}, "1/2"),
        ({"ready": 1, "desired": 2, "earlier": 1}, "2/2"),
        ({"ready": 2, "desired": 0}, "2/-"),
        ({"ready": 0, "desired": 0}, "0/0"),
        ({"kind": "Volume"}, "-"),
    ],
)
def test_ready_counts_replicas_of_every_revision(members: dict[str, Any], shown: str) -> None:
    assert ready_of(resource("web", "Ready", **members)) == shown


def test_ready_of_an_unreadable_document_has_no_number_that_is_declared() -> None:
    blind = {"type": "Ready", "status": "Unknown", "reason": "Blind", "message": ""}
    assert ready_of(resource("web", "", conditions=[blind], ready=2, desired=0)) == "2/?"
