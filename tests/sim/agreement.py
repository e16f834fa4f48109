"""What people and programs are told of a host agrees in all forms: the invariant of the view.

The forms are ``status`` (text and JSON), the page, the metrics and the open incidents of notifications. Each is
made as its reader makes it, from the controller's answers alone, and read back from its text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import unescape
from typing import Any, Final

import click

from controller.cli.status.table import TableView, render_status
from controller.core.metrics.families import series_of
from controller.core.notify.incidents import step_incidents
from controller.core.notify.symptoms import ENGINE, symptoms_of
from controller.core.status.standing import worst_of
from controller.loop.metrics import ControllerMetrics
from controller.model.notifications import SETTLE_S, NoticeState
from controller.web.pages import Fetched, PageName, PageRoute, WebSession, render
from controller.web.pages.resources import SEVERITIES
from tests.sim.doomed import DoomedWorld
from tests.sim.stories import Tale
from tests.sim.violation import Violation
from tests.sim.world import World

#: The number of the invariant.
AGREEMENT: Final = 18
PERSON, TIME, NOBODY = "a person", "time", "nobody"
#: What a row needs, by its severity.
NEEDS: Final = {"page": PERSON, "warning": PERSON, "progress": TIME, "ok": NOBODY}
#: What acts next.
ACTORS: Final = {"operator": PERSON, "author": PERSON, "trimtab": TIME, "nobody": NOBODY}
#: What the words of the text mean. ``NotReady`` means what the JSON says: nobody knows, or it comes up.
WORDS: Final = {
    **dict.fromkeys(("PolicyViolation", "PrunePending", "CrashLoop", "Failed", "Stalled"), PERSON),
    **dict.fromkeys(("Paused", "Contended", "Suspended", "Stopped", "RolledBack"), PERSON),
    **dict.fromkeys(("PolicyWarning",), PERSON),
    **dict.fromkeys(("Ready", "Completed", "AdoptedAsFound", "Moved", "Quarantined"), NOBODY),
    **dict.fromkeys(("Progressing", "Degraded"), TIME),
}
#: The same condition in the words of the text.
SAME_WORDS: Final = {
    "Ready": {"Ready", "Completed", "AdoptedAsFound"},
    "Suspended": {"Suspended", "Stopped"},
    "Complete": {"Completed"},
    "EngineIgnores": {"Ready"},
    # The count is the text's word, and the cause its message.
    "Progressing": {"Progressing", "Degraded"},
}


@dataclass(frozen=True, slots=True)
class Told:
    """What one form says about each resource, by its key."""

    #: Who or what is needed: a person, time, or nobody.
    needs: Mapping[str, str] = field(default_factory=dict)
    #: The condition that says why.
    why: Mapping[str, str] = field(default_factory=dict)
    as_declared: int | None = None


def said_by_json(view: Mapping[str, Any]) -> Told:
    """Return what the rows of ``status --json`` say, which are those of the view."""
    rows = {_key(row): row for row in view["resources"]}
    needs = {key: NEEDS[row["severity"]] for key, row in rows.items()}
    why = {key: worst_of(row)[0] for key, row in rows.items()}
    return Told(needs, why, view["state"]["counts"]["asDeclared"])


def said_by_text(text: str, needs: Mapping[str, str]) -> Told:
    """Return what the table of ``status`` says. *needs*: what ``NotReady`` stands for."""
    table = click.unstyle(text).partition("\nSOURCE ")[0].split("\n")[1:]
    rows = [line.split() for line in table if re.match(r"[A-Z][a-z]+ +\S+ +\S+ +\S+ +\w", line)]
    why = {"/".join(row[:3]): row[4] for row in rows}
    return Told({key: WORDS.get(word, needs[key]) for key, word in why.items()}, why)


def said_by_page(html: str) -> Told:
    """Return what the start page says: its table, with the entries above it."""
    found = re.findall(
        r'data-label="State">.*?</svg>(.*?)</span>.*?href="/([^"]*)".*?data-label="Condition"[^>]*>(.*?)<',
        html,
        re.DOTALL,
    )
    severities = {word: severity for severity, word in SEVERITIES.items()}
    needs = {key: NEEDS[severities[word.strip()]] for word, key, _ in found}
    why = {key: condition for _, key, condition in found}
    for who, section in ((PERSON, "h-people"), (TIME, "h-moving")):
        entries = html.partition(f'id="{section}"')[2].partition("</section>")[0]
        groups = [int(number) for number in re.findall(r"(\d+) resources[ <]", entries)]
        single = re.findall(r"<(?:h3|li)>.*?<use[^>]*/></svg>(?:<span>)?<a ", entries)
        count = sum(groups) + len(single)
        _same(
            f"resources that need {who}",
            {
                "the page's entries": count,
                "the page's table": sum(need == who for need in needs.values()),
            },
        )
    tally = re.search(r"(?:All )?(\d+)(?: of \d+)? resources are as declared", unescape(html))
    return Told(needs, why, None if tally is None else int(tally[1]))


def said_by_metrics(text: str) -> tuple[Told, Mapping[str, str], Counter[str]]:
    """Return what metrics say, the reason of each condition, and the resources by condition."""
    series: dict[str, list[tuple[dict[str, str], float]]] = {}
    for each in series_of(text):
        series.setdefault(each["name"], []).append((each["labels"], each["value"]))
    conditions = [labels for labels, _ in series.get("trimtab_resource_condition", ())]
    ready = series.get("trimtab_resource_ready", ())
    why = {_key(labels): labels["condition"] for labels in conditions}
    reasons = {_key(labels): labels["reason"] for labels in conditions}
    sums = Counter({x["condition"]: int(n) for x, n in series.get("trimtab_resources", ())})
    return Told({}, why, sum(value == 1 for _, value in ready)), reasons, sums


def _key(row: Mapping[str, Any]) -> str:
    return f"{row['kind']}/{row['namespace']}/{row['name']}"


@dataclass(slots=True)
class Readers:
    """The readers of a world: each looks at every state that the controller shows."""

    notices: NoticeState = field(default_factory=NoticeState)
    #: The states that were compared.
    compared: int = 0
    _last: str = ""

    def look(self, world: World) -> None:
        """Compare what the forms say now.

        Raises:
            Violation: two of them say different things.
        """
        controller = world.controller
        if controller is None:
            return
        report: Mapping[str, Any] = controller.loop.status()
        views = controller.loop.reporter.views
        answer = views.answer("", wait_s=0.0)
        assert answer is not None, "a status was just made"
        view = json.loads(answer)
        now = world.clock.now()
        if view["version"] == self._last:
            return
        self._last = view["version"]
        self.compared += 1
        shown = json.loads(json.dumps(report))
        members = {"declared", "fields", "revisions"}
        rows = [{k: v for k, v in row.items() if k not in members} for row in view["resources"]]
        own = [{k: v for k, v in row.items() if k not in members} for row in shown["resources"]]
        _same("rows", {"status --json": own, "view": rows})
        said = said_by_json(view)
        self._compare_text(shown, said, now)
        self._compare_page(view, said, now)
        self._compare_metrics(ControllerMetrics(controller.loop, 0.0).text(), view, said)
        self._compare_notices(view, said, now)

    def _compare_text(self, report: Mapping[str, Any], said: Told, now: float) -> None:
        acts = {_key(row): ACTORS[row["who"]] for row in report["resources"]}
        text = said_by_text(render_status(dict(report), TableView(None, now)), acts)
        _same("who acts", {"JSON": acts, "text": text.needs})
        for key, worst in said.why.items():
            if text.why[key] not in SAME_WORDS.get(worst, {worst}):
                raise Violation(AGREEMENT, f"{key} is {worst}, in the text {text.why[key]}")

    def _compare_page(self, view: Mapping[str, Any], said: Told, now: float) -> None:
        fetched = Fetched(datetime.fromtimestamp(now, UTC))
        route = PageRoute(PageName.START)
        start = render(route, view, {}, WebSession(), fetched).html
        page = said_by_page(start)
        _same("needs", {"JSON": said.needs, "page": page.needs})
        _same("conditions", {"JSON": said.why, "page": page.why})
        if page.as_declared is not None:
            _same("as declared", {"JSON": said.as_declared, "page": page.as_declared})
        held = re.search(r'href="/sources"><span.*?</span> (\d+)</a>', start, re.DOTALL)
        number = int(held[1]) if held else 0
        _same("sources", {"JSON": view["state"]["counts"]["sources"], "page": number})
        for row in view["resources"]:
            kind, namespace, name = row["kind"], row["namespace"], row["name"]
            route = PageRoute(PageName.RESOURCE, f"{kind}/{namespace}/{name}")
            html = render(route, view, {}, WebSession(), fetched).html
            word = re.search(r"<h1>.*?<small>(.*?)</small>", html, re.DOTALL)
            assert word is not None, "a resource's page has its severity"
            _same(f"severity of {name}", {"JSON": SEVERITIES[row["severity"]], "page": word[1]})

    def _compare_metrics(self, text: str, view: Mapping[str, Any], said: Told) -> None:
        metrics, reasons, sums = said_by_metrics(text)
        rows = {_key(row): row for row in view["resources"]}
        wrong = {key: row for key, row in rows.items() if row["severity"] != "ok"}
        worst = {key: worst_of(row)[1] for key, row in wrong.items()}
        _same("conditions", {"JSON": {k: said.why[k] for k in wrong}, "metrics": metrics.why})
        _same("reasons", {"JSON": {k: c["reason"] for k, c in worst.items()}, "metrics": reasons})
        _same("as declared", {"JSON": said.as_declared, "metrics": metrics.as_declared})
        ready = [e for e in series_of(text) if e["name"] == "trimtab_source_ready"]
        told = {(e["labels"]["source"], e["labels"]["state"]) for e in ready}
        _same(
            "sources", {"JSON": {(e["name"], e["state"]) for e in view["sources"]}, "metrics": told}
        )
        _same(
            "resources by condition",
            {"JSON": sorted(Counter(said.why.values()).items()), "metrics": sorted(sums.items())},
        )

    def _compare_notices(self, view: Mapping[str, Any], said: Told, now: float) -> None:
        """Compare open incidents: nobody is told of an incident that no other form shows, and vice versa."""
        seen = symptoms_of(view, now)
        self.notices, _ = step_incidents(
            self.notices, seen, instance="sim", now=now, settle=SETTLE_S
        )
        going_on = [each for each in self.notices.incidents.values() if each.gone is None]
        told = {a.key for each in going_on for a in each.affected}
        person = {key for key, need in said.needs.items() if need == PERSON}
        # What isn't known ends nothing, and begins nothing but the engine's incident.
        away = {
            a.key for s in seen.symptoms if s.cause == ENGINE and s.affected for a in [s.affected]
        }
        if untold := person - told - (seen.unknown - away):
            raise Violation(AGREEMENT, f"no incident is open for {untold}: {going_on}")
        self._compare_sources(view, {each.cause for each in seen.symptoms})
        causes = {symptom.cause for symptom in seen.symptoms}
        for each in going_on:
            affected = {a.key for a in each.affected}
            if each.cause not in causes and not affected & (person | seen.unknown):
                raise Violation(AGREEMENT, f"nothing but an open incident shows {each}")

    def _compare_sources(self, view: Mapping[str, Any], causes: set[str]) -> None:
        """Compare the word about everything with what needs a person, Git sources among it."""
        word, sources = view["state"]["word"], view["sources"]
        if word == "Attention" and not causes:
            raise Violation(AGREEMENT, f"a person must act, and no incident says where: {sources}")
        held = {cause for cause in causes if cause.startswith("source ")}
        counts = view["state"]["counts"]
        _same("sources", {"JSON": counts["sources"], "incidents": len(held)})
        if (held or "files" in causes) and word not in {"Attention", "Unknown"}:
            raise Violation(AGREEMENT, f"{causes} need a person, and everything is {word}")


def _same(what: str, forms: Mapping[str, object]) -> None:
    first, *others = forms.values()
    if any(other != first for other in others):
        texts = "\n".join(f"{form}: {value!r}" for form, value in forms.items())
        raise Violation(AGREEMENT, f"{what} differ:\n{texts}")


class ReadWorld(World):
    """A world in which every state that the controller shows is read in all forms."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.readers = Readers()

    def _step(self, end: float) -> None:
        super()._step(end)
        self.readers.look(self)


class ReadStory(DoomedWorld):
    """A story that is told once, nobody dies, and that is read in all forms."""

    def __init__(self, tale: Tale) -> None:
        super().__init__(tale)
        self.readers = Readers()

    def _step(self, end: float) -> None:
        super()._step(end)
        self.readers.look(self)
