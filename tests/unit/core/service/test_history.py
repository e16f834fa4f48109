"""What is told of a service's past."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controller.core.service.history import history, record_outcome
from controller.model.desired.desired import Overrides, Pin, Restarting, Suspension
from controller.model.observed import Image
from tests.unit.core.service.test_history_revisions import SINCE, declared_as
from tests.worlds import IMAGE, WEB, revision

COURSE = record_outcome(declared_as("a", "b"), revision("a"), "good")


def rows(overrides: Overrides, declared: str) -> list[dict[str, Any]]:
    found = history(WEB, overrides, declared=declared, generation=2)["revisions"]
    assert isinstance(found, list)
    return found


def test_the_newest_revision_comes_first_with_all_that_is_known_of_it() -> None:
    past = history(
        WEB,
        COURSE,
        declared=revision("b"),
        generation=2,
        pins={revision("a"): Image("sha256:1", "sha256:2"), revision("b"): Image("sha256:3")},
        running={revision("b"): 2},
    )
    assert past == {
        "kind": "Service",
        "namespace": "default",
        "name": "web",
        "generation": 2,
        "suspended": None,
        "pin": None,
        "scaling": None,
        "restarting": None,
        "revisions": [
            {
                "revision": revision("b"),
                "generation": 2,
                "since": "2026-01-01T00:00:02Z",
                "image": IMAGE,
                "digest": "sha256:3",
                "file": "web.yaml",
                "line": 1,
                "commit": "",
                "outcome": "",
                "reason": "",
                "limits": "restart Always",
                "current": True,
                "declared": True,
                "pinned": False,
                "containers": 2,
            },
            {
                "revision": revision("a"),
                "generation": 1,
                "since": "2026-01-01T00:00:01Z",
                "image": IMAGE,
                "digest": "sha256:2",
                "file": "web.yaml",
                "line": 1,
                "commit": "",
                "outcome": "good",
                "reason": "",
                "limits": "restart Always",
                "current": False,
                "declared": False,
                "pinned": False,
                "containers": 0,
            },
        ],
    }


def test_what_it_is_pinned_to_is_current_and_its_documents_revision_only_declared() -> None:
    pinned = replace(COURSE, pin=Pin(revision("a"), 2, "asked", "uid:0", SINCE))
    new, old = rows(pinned, revision("b"))
    assert (new["current"], new["declared"], new["pinned"]) == (False, True, False)
    assert (old["current"], old["declared"], old["pinned"]) == (True, False, True)


def test_what_people_want_of_it_is_told() -> None:
    held = replace(
        COURSE,
        suspension=Suspension("uid:0", SINCE),
        restarting=Restarting(frozenset({"1", "2"}), "uid:7"),
    )
    told = history(WEB, held, declared=revision("b"), generation=2)
    assert told["suspended"] == {"by": "uid:0", "since": SINCE, "stopped": False}
    assert told["restarting"] == {"by": "uid:7", "containers": 2}


def test_without_its_document_nothing_is_current() -> None:
    assert [row["current"] for row in rows(COURSE, "")] == [False, False]
