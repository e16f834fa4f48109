"""Writes docs/screens.md: what ``up``, ``status``, ``plan`` and ``journal list`` show at 80 and 120 columns.

The screens are made by the code that shows them, of one imagined instance with fixed times and ids.
``python -m tests.unit.docs.screens`` (part of ``make docs``) writes the page; a test holds it to the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from controller.cli.journal.table import clock_for, render_changes
from controller.cli.status.live_view import screen_of
from controller.cli.status.table import TableView, render_status
from controller.core.planning.context import SlotPause
from controller.core.records.query import QueryResult, RecordSubject
from controller.core.status.facts import Failure, SlotTrouble, StatusInputs
from controller.core.status.report import report, rows_of, with_last_lines
from controller.core.view.attention import attended
from controller.model.container_output import FailedRun, LogLine
from controller.model.errors import Act
from controller.model.names import service_key
from controller.model.observed import Image
from controller.model.records import Entry, Record
from tests.golden.scenes import plan_of
from tests.plans import render_review
from tests.worlds import IMAGE_ID, NAMES, container, declared, engine, plan, service

PAGE = Path(__file__).parents[3] / "docs" / "screens.md"
WIDTHS = (80, 120)
HEIGHT = 24
NOW = 1_772_366_400.0  # 2026-03-01T12:00:00Z
SCENE = "a-changed-limit-and-a-changed-value-are-named"

INTRO = """\
# Screens

What the commands show on a terminal of 80 and of 120 columns. In a pipe every column is printed, in full and on one
line; `--json` is for programs. The page is made from the code by `make docs`, and a test holds it to the code.
"""
STATUS = """\
CONDITION is the gravest condition of a resource, READY counts replicas of any revision, AGE is the time since
the oldest container was started. A message, and what happens next,
stand below their row where the columns leave them too little room. The image gives up its registry first; NAMESPACE is left out while all is in `default`.
"""
UP = """\
`up` redraws this screen. Once nothing is in progress, its head names the addresses that answer. Rows beyond the
screen are summed up, Ready ones first.
"""
PLAN = """\
A service, its actions, and the fields that change, each with its old and its new value.
"""
JOURNAL = """\
A change is one line: an intent, and the outcome that closes it. TIME is the time of day, with the date where that isn't
today. `--all` shows each record.
"""


def a_report() -> dict[str, Any]:
    """The status of an instance: one service is well, one crash-loops, one has no image."""
    web = service(
        replicas=2, image="trimtab.local/web:1", ports=[{"container": 8080, "host": 18080}]
    )
    db = service("postgres", "c", image="docker.io/library/postgres:17")
    api = service("api", "d", image="registry.example.com/platform/services/api:2.4.1")
    desired = declared(web, db, api)
    observed = engine(
        container(image=web.spec.image, started_at="2026-03-01T11:55:00Z"),
        container(slot=2, image=web.spec.image, started_at="2026-03-01T11:55:01Z"),
        container(
            "postgres",
            rev="c",
            state="exited",
            image=db.spec.image,
            exit_code=1,
            restart_count=4,
            settings={"restart": "no"},
        ),
        images={each.spec.image: Image(IMAGE_ID) for each in (web, db)},
    )
    loop = (service_key("default", "postgres"), 1)
    image = "image.notfound"
    missing = (
        f"{api.spec.image}: its registry has no such image: manifest unknown (push it, or correct "
        "the image's name)"
    )
    world = StatusInputs(
        desired=desired,
        observed=observed,
        plan=plan(desired, observed, backoff={loop: "failed 3 times in a row"}),
        networks=NAMES,
        troubles={
            loop: SlotTrouble(
                "exited with 1",
                crash_looping="3 times",
                pause=SlotPause("failed 3 times in a row", NOW + 40),
            )
        },
        failures={service_key("default", "api"): Failure(Act.STALLED, image, missing)},
    )
    given = report(world, previous=None, now="2026-03-01T12:00:00Z")
    given["resources"] = [attended(row) for row in rows_of(given)]
    said = LogLine("2026-03-01T11:59:20Z", "stderr", "FATAL: POSTGRES_PASSWORD is not set")
    failed = FailedRun(
        key=db.key,
        slot=1,
        container="postgres.1-cccccccc",
        id="c1",
        run="ended",
        revision=db.revision,
        owner=db.owner,
        at="2026-03-01T11:59:20Z",
        cause="exited with 1",
        lines=(said,),
    )
    return with_last_lines(given, [failed])


def records() -> Iterator[QueryResult]:
    """A replica that somebody removed and that was created again, a refusal, and an edit."""
    ours, ann = {"role": "controller", "uid": 990}, {"role": "operator", "uid": 0}
    changes = (
        ("11:58:02", ann, "container.remove", "web.1-2bdaa731", "", 204, 85),
        ("11:58:02", ours, "container.create", "web.1-2bdaa731", "slot 1 is missing", 201, 11),
        ("11:58:02", ours, "container.start", "web.1-2bdaa731", "slot 1 is missing", 204, 182),
        (
            "11:59:30",
            ours,
            "image.pull",
            "registry.example.com/platform/services/api:2.4.1",
            "",
            404,
            90,
        ),
        (
            "11:59:41",
            ours,
            "container.stop",
            "postgres.1-0c3ab8df",
            "revision is 0c3ab8df, want 9999e53a",
            204,
            10_250,
        ),
    )
    for number, (time, actor, action, name, cause, status, taken) in enumerate(changes):
        about = RecordSubject(name=name, action=action)
        seq, at = 41 + 2 * number, f"2026-03-01T{time}.000Z"
        intent = Entry(f"id{seq}", "intent", actor=actor, claims={"cause": cause})
        yield QueryResult(Record(seq, at, intent, "", ""), about)
        result: dict[str, Any] = {"status": status, "durationMs": taken}
        yield QueryResult(
            Record(seq + 1, at, Entry(f"id{seq}", "outcome", result=result), "", ""), about
        )
    about = RecordSubject(name="tool", action="container.create")
    refusal = Entry(
        "id51",
        "refusal",
        actor={"role": "client", "uid": 0},
        verdict={"decision": "deny", "rules": ["privileged"]},
        result={"status": 403, "error": "privileged containers are never admitted"},
    )
    yield QueryResult(Record(51, "2026-03-01T11:59:55.000Z", refusal, "", ""), about)


def screens(width: int) -> Iterator[tuple[str, str, str]]:
    """Yield each command, what there is to say of it, and its screen."""
    view = TableView(width, NOW)
    heading = [
        "trimtab keeps /srv/desired under the policy home; Ctrl-C stops it",
        "  web  http://127.0.0.1:18080",
        "  next: trimtab status --state /srv/shop/state, trimtab journal list --state /srv/shop/state",
    ]
    clock = clock_for(NOW, utc=True, exact=False)
    yield "status", STATUS, render_status(a_report(), view)
    yield "up", UP, screen_of(heading, a_report(), view, height=HEIGHT)
    yield "plan", PLAN, render_review(plan_of(SCENE)[1], width=width)
    yield "journal list", JOURNAL, render_changes(records(), clock, limit=50, width=width)


def page() -> str:
    """Return the page."""
    lines = [INTRO]
    wide = {command: screen for command, _, screen in screens(WIDTHS[1])}
    for command, about, screen in screens(WIDTHS[0]):
        lines += [f"## trimtab {command}", "", about]
        for width, shown in ((WIDTHS[0], screen), (WIDTHS[1], wide[command])):
            text = "\n".join(line.rstrip() for line in click.unstyle(shown).rstrip().split("\n"))
            lines += [f"{width} columns:", "", "```text", text, "```", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
