"""The table of resources at different widths and heights."""

from __future__ import annotations

from typing import Any

import click
import pytest

from controller.cli.output.tables import cell_width
from controller.cli.status.table import (
    TableView,
    age_of,
    fit_status,
    image_of,
    ready_of,
    render_projects,
    render_status,
)
from controller.core.view.attention import attended
from tests.unit.cli.reports import condition, problem, report, resource, slot

NOW = 1_772_366_400.0  # 2026-03-01T12:00:00Z
WHY = (
    "image.notfound registry.example.com/platform/services/web:1.4: its registry has no such image"
)
PORTS = [
    {"container": 8080, "host": 18080, "address": "127.0.0.1", "protocol": "tcp", "scheme": "http"}
]
WEB = resource("web", ports=PORTS, slots=[slot(restarts=1)])
GATEWAY = resource("gateway", condition("Stalled", WHY), ready=0, slots=[slot(started="")])


def shown(status: dict[str, Any], width: int | None = 80, **view: Any) -> list[str]:
    return click.unstyle(render_status(status, TableView(width, NOW, **view))).split("\n")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_the_reason_is_readable_in_full_at_any_width(width: int) -> None:
    lines = shown(report(WEB, GATEWAY), width)
    assert max(map(cell_width, lines)) <= width
    assert "".join(WHY.split()) in "".join("".join(lines).split())


def test_at_80_columns_the_image_is_left_out_and_the_reason_stands_below() -> None:
    assert shown(report(WEB, GATEWAY)) == [
        "KIND     NAME     READY  CONDITION  RESTARTS  AGE  PORTS",
        "Service  web      1/1    Ready      1         5m   http://127.0.0.1:18080",
        "Service  gateway  0/1    Stalled    0         -    -",
        "    image.notfound registry.example.com/platform/services/web:1.4: its registry",
        "    has no such image",
    ]


def test_a_pipe_gets_every_column() -> None:
    assert shown(report(WEB), None) == [
        (
            "KIND      NAMESPACE   NAME   READY   CONDITION   RESTARTS   AGE   PORTS                    "
            "IMAGE                                            MESSAGE"
        ),
        (
            "Service   default     web    1/1     Ready       1          5m    http://127.0.0.1:18080   "
            "registry.example.com/platform/services/web:1.4"
        ),
    ]


def test_addresses_are_left_out_last() -> None:
    one = resource("validator-monitoring", namespace="validators", ports=PORTS)
    two = resource("web", slots=[slot(restarts=4)])
    assert shown(report(one, two)) == [
        "KIND     NAMESPACE  NAME                READY  CONDITION  PORTS",
        "Service  validato…  validator-monitor…  1/1    Ready      http://127.0.0.1:18080",
        "Service  default    web                 1/1    Ready      -",
    ]


def test_wide_has_the_revision_and_the_last_output_of_what_failed() -> None:
    failed = slot(lastFailure={"line": "Permission denied"})
    crashing = resource("web", condition("CrashLoop", "it exited with 1"), slots=[failed])
    lines = shown(report(crashing), 100, wide=True)
    assert "OWNER" in lines[0]
    assert "2bdaa731" in lines[1]
    assert "Permission denied" in "\n".join(lines)
    assert "Permission denied" not in "\n".join(shown(report(crashing)))


def test_the_next_try_is_counted_from_the_instant_of_looking() -> None:
    waiting = resource(
        "web", condition("CrashLoop", "it exited with 1"), nextTry={"at": "2026-03-01T12:00:40Z"}
    )
    assert "it exited with 1; again in 40 s" in "\n".join(shown(report(waiting), 120))


def test_a_row_says_what_happens_next_unless_its_message_does() -> None:
    stalled = attended(
        resource("api", condition("Stalled", "no such image", reason="image.notfound"))
    )
    row, following = shown(report(stalled), 120)[-2:]
    assert row.endswith("  no such image")
    assert following.strip() == "next: nothing until its document is corrected"
    at_work = attended(resource("web", condition("Progressing", "creating web.2", reason="Acting")))
    other = {**stalled, "nextTry": {"at": "2026-03-01T12:00:40Z", "reason": "failed once"}}
    for each in (at_work, other, attended(resource("db"))):
        assert "next:" not in "\n".join(shown(report(each), 120))
    again = {"at": "2026-03-01T12:00:40Z", "reason": "image.notfound: no such image"}
    row, following = shown(report(attended({**stalled, "nextTry": again})), 120)[-2:]
    assert row.endswith("  no such image; again in 40 s")
    told = "next: trimtab tries again by itself; a person must remove the cause"
    assert following.strip() == told
    unexplained = attended(resource("web", condition("Ready", reason="NotReady", status="False")))
    assert shown(report(unexplained), 120)[-1].endswith("next: trimtab looks at it again")


def test_a_service_is_as_old_as_its_oldest_container() -> None:
    """A further replica doesn't make a service young."""
    times = ("2026-03-01T11:58:00Z", "2026-02-27T12:00:00Z", "", "2026-03-01T11:59:00Z")
    slots = [slot(slot=number, started=time) for number, time in enumerate(times, start=1)]
    assert age_of(resource("web", slots=slots), NOW) == "2d"
    assert age_of(resource("web", slots=[slot(started="")]), NOW) == "-"


@pytest.mark.parametrize(
    ("members", "ready"),
    [
        ({"ready": 1, "desired": 2}, "1/2"),
        ({"ready": 1, "desired": 2, "earlier": 1}, "2/2"),
        ({"ready": 2, "desired": 0}, "2/-"),
        ({"ready": 0, "desired": 0}, "0/0"),
        ({"kind": "Volume"}, "-"),
    ],
)
def test_ready_counts_replicas_of_every_revision(members: dict[str, Any], ready: str) -> None:
    assert ready_of(resource("web", **members)) == ready


def test_ready_of_an_unreadable_document_has_no_number_that_is_declared() -> None:
    blind = condition("Ready", reason="Blind", status="Unknown")
    assert ready_of(resource("web", blind, ready=2, desired=0)) == "2/?"


def test_a_problem_is_shown_once_and_the_row_says_where() -> None:
    typo = problem("unknown key 'replica'", file="web.yaml", line=6, column=3, remedy="write it")
    stalled = resource("web", condition("Stalled", "unknown key 'replica' (write it)"))
    lines = shown(report(stalled, problems=[typo, typo]), 120)
    assert lines[1].endswith("see web.yaml:6:3 below")
    assert lines[2:] == [
        "problem web.yaml:6:3: unknown key 'replica' [a.code]",
        "        remedy: write it",
    ]


def test_one_problem_of_many_resources_is_shown_once_with_their_names() -> None:
    why = "would be removed, but 3 of 3 services go"
    blocked = [
        problem(f"Service/shop/{name}: {why}", code="PrunePending", remedy="trimtab approve")
        for name in ("api", "db", "web")
    ]
    pending = [
        resource(name, condition("PrunePending", f"{why} (trimtab approve)"), namespace="shop")
        for name in ("api", "db", "web")
    ]
    lines = shown(report(*pending, problems=blocked), 120)
    assert [line.endswith("see below") for line in lines[1:4]] == [True] * 3
    assert lines[4:] == [
        f"problem Service/shop/api, db, web: {why} [PrunePending]",
        "        remedy: trimtab approve",
    ]


def test_problems_with_one_remedy_stand_together_and_say_it_once() -> None:
    problems = [
        problem("a", file="a.yaml", remedy="quote it"),
        problem("b", code="other.code", expected="an image"),
        problem("c", file="c.yaml", remedy="quote it", expected="a string"),
    ]
    assert shown(report(problems=problems)) == [
        "No resources.",
        "problem a.yaml: a [a.code]",
        "problem c.yaml: c [a.code]",
        "        remedy: quote it",
        "problem b [other.code]",
        "        expected: an image",
    ]


def test_what_is_ready_gives_way_on_a_low_screen() -> None:
    rows = [resource(f"web{number}") for number in range(30)]
    text = click.unstyle(fit_status(report(GATEWAY, *rows), TableView(80, NOW), 12))
    lines = text.split("\n")
    assert len(lines) == 12
    assert "has no such image" in text
    assert lines[-1] == "and 23 more, all Ready"


def test_where_no_row_fits_the_resources_are_still_counted() -> None:
    problems = [problem(f"problem {number}") for number in range(9)]
    status = report(resource("a"), resource("b"), problems=problems)
    lines = click.unstyle(fit_status(status, TableView(80, NOW), 4)).split("\n")
    assert lines[0] == "and 2 more, all Ready"


def test_on_a_very_low_screen_all_else_is_summed_up() -> None:
    rows = [GATEWAY, resource("a"), resource("b", condition("Degraded", "x"), ready=0)]
    problems = [problem(f"problem {number}") for number in range(9)]
    lines = click.unstyle(
        fit_status(report(*rows, problems=problems), TableView(80, NOW), 7)
    ).split("\n")
    assert lines[-3:] == [
        "and 2 more: 1 Degraded, 1 Ready",
        "problem problem 0 [a.code]",
        "and 8 more problems; see 'trimtab status'",
    ]


def test_notes_on_compose_files_are_counted_and_no_problems() -> None:
    notes = [
        problem("port 8080 for this host alone", code="compose.loopback", severity="warning"),
        problem("build has no effect", code="compose.by-policy", severity="warning"),
    ]
    shown = report(resource("web"), problems=[problem("no"), *notes])
    text = click.unstyle(render_status(shown, TableView(None, NOW)))
    assert text.splitlines()[2:] == [
        "problem no [a.code]",
        "2 notes on Compose files; 'trimtab validate' shows them",
    ]


def test_the_image_that_runs_is_shown_and_not_the_one_that_is_to_come() -> None:
    def image(*images: str) -> str:
        slots = [slot(**({"image": each} if each else {})) for each in images]
        return image_of(resource("web", image="team/web:1.1", slots=slots))

    assert image("team/web:1.0") == "team/web:1.0"
    assert image("", "team/web:1.0") == "team/web:1.1"
    assert image("") == image_of(resource("web", image="team/web:1.1", slots=[])) == "team/web:1.1"


def test_projects_have_a_row_with_the_gravest_condition_and_who_has_it() -> None:
    stop = {**condition("Suspended", "stopped by uid:0"), "reason": "Stopped"}
    rows = [
        resource("web", namespace="shop"),
        resource("worker", condition("RolledBack", "why"), namespace="shop"),
        resource("api", condition("CrashLoop", "why"), namespace="shop"),
        resource("site", namespace="blog"),
        resource("db", stop, namespace="store"),
    ]
    split = problem("project shop runs two versions", code="project.split", remedy="go back")
    told = report(*rows, problems=[split, problem("another", code="x.y")])
    lines = click.unstyle(render_projects(told, TableView(80, NOW))).split("\n")
    assert lines == [
        "PROJECT  READY  CONDITION  MESSAGE",
        "blog     1/1    Ready",
        "shop     1/3    CrashLoop  api CrashLoop, worker RolledBack",
        "store    0/1    Stopped    db Stopped",
        "problem project shop runs two versions [project.split]",
        "        remedy: go back",
    ]
    assert render_projects(report(), TableView(80, NOW)) == "No projects."
