"""Where each thing that holds of a container comes from: which record put it there, and why.

From records alone (``questions.chronicle``): the create's or adoption's summary, then what later
changes left of it. What nobody recorded isn't known: what was changed past the broker, and that a container ended by
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from controller.core.encoding.json_members import (
    list_of,
    mapping_member,
    mapping_of,
    text_member,
    texts_of,
)
from controller.core.records.inventory import applied
from controller.core.records.inventory_json import settings_from_json
from controller.core.records.query import QueryResult, RecordSubject, is_adoption
from controller.core.records.record import CLOSING
from controller.core.records.views import SHAPING, SHAPING_MAX
from controller.model import mutations, names
from controller.model.mutations import Mutation
from controller.model.observed import Settings
from controller.model.quantities import format_bytes

_NANO: Final = 1_000_000_000
#: The engine's answer to a start of what runs, and a stop of what doesn't.
_NOT_MODIFIED: Final = 304
#: States of a container that the engine has.
_THERE: Final = frozenset({"created", "running", "paused", "stopped"})
#: Signals after which nothing of a container runs any more, or soon won't.
_ENDING: Final = frozenset({"", "KILL", "SIGKILL", "9"})


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that holds: since which intent, and by which of the policy's rules, if by one."""

    name: str
    value: str
    origin: QueryResult
    rule: str = ""

    @property
    def line(self) -> int:
        """The line of the file that says so: the field's, else where the document begins."""
        source = mapping_member(self.origin.record.entry.claims, "source")
        lines = mapping_member(source, "lines")
        line = lines.get(WRITTEN.get(self.name, ""), source.get("line", 0))
        return line if isinstance(line, int) else 0


@dataclass(frozen=True, slots=True)
class Provenance:
    """A container by its records: what holds of it, and how it is as far as they know.

    ``state`` is created, running, paused, stopped, removed, gone or unknown, since the record
    ``since`` (None: no record tells since when); ``pending`` is the intent that wasn't closed yet,
    ``note`` what else is to be known. Where it was changed too often, the changes before record
    ``told_since`` aren't told, and what they made of it may be a later one's; 0: all are told.
    """

    about: RecordSubject
    slot: str = ""
    revision: str = ""
    facts: tuple[Fact, ...] = ()
    state: str = "unknown"
    since: QueryResult | None = None
    pending: QueryResult | None = None
    note: str = ""
    told_since: int = 0


def provenance(chronicle: Iterable[QueryResult]) -> Provenance | None:
    """Return where a container comes from, by its chronicle; None for no records."""
    told = _Told()
    for found in chronicle:
        told.take(found)
    return told.result()


def without_replaced(found: Iterable[Provenance]) -> list[Provenance]:
    """Return the containers without those whose name a later one has: they are gone.

    An engine has one container of a name, so an earlier one was removed past the broker. *found* is in
    the order in which the containers were made.
    """
    told = list(found)
    latest = {each.about.name: each.about.id for each in told if each.state in _THERE}
    return [each for each in told if latest.get(each.about.name, each.about.id) == each.about.id]


@dataclass(slots=True)
class _Told:
    """What the records so far say of one container."""

    about: RecordSubject | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    facts: dict[tuple[str, str], Fact] = field(default_factory=dict)
    settings: Settings | None = None
    open: dict[str, QueryResult] = field(default_factory=dict)
    state: str = "unknown"
    since: QueryResult | None = None
    note: str = ""
    shaped: list[int] = field(default_factory=list)

    def take(self, found: QueryResult) -> None:
        entry, about = found.record.entry, found.about
        if about.action in SHAPING:
            self.shaped.append(found.record.seq)
        if entry.stage == "intent":
            self.open[entry.id] = found
            if self.about is None or about.action != Mutation.CONTAINER_CREATE:
                self.about = about
            return
        if entry.stage in CLOSING:
            # One that was under way when it was renamed was asked for by the name before.
            self.about = replace(about, name=(self.about or about).name)
            intent = self.open.pop(entry.id, None)
            if intent is not None:
                self._close(intent, found)
        elif about.action == mutations.CONTAINER_GONE:
            self._is("gone", found, "it was removed past the broker, or removed itself")
        elif is_adoption(found.record, about):
            self._adopted(found)

    def _close(self, intent: QueryResult, closing: QueryResult) -> None:
        action = intent.about.action
        if not applied(closing.record):
            if closing.record.entry.result.get("settled") == "unknown":
                self._is("unknown", intent, f"what came of {action} isn't known")
            return
        summary = mapping_member(intent.record.entry.request, "summary")
        if action == Mutation.CONTAINER_CREATE:
            self._created(intent, summary)
        elif action in _CHANGES:
            _CHANGES[action](self, intent, summary)
        elif action == Mutation.CONTAINER_KILL:
            self._killed(intent, summary)
        elif action in _STATES and _nothing_done(closing):
            self._was(_STATES[action], intent)
        elif action in _STATES:
            self._is(_STATES[action], intent)

    def _is(self, state: str, found: QueryResult | None, note: str = "") -> None:
        self.state, self.since, self.note = state, found, note

    def _was(self, state: str, intent: QueryResult) -> None:
        """Take note that it already was what was asked for: who asked didn't do that."""
        never_ran = (self.state, state) == ("created", "stopped")
        if self.state != state and not never_ran:
            self._is(state, None, f"it already was when record {intent.record.seq} asked for it")

    def _killed(self, intent: QueryResult, summary: Mapping[str, Any]) -> None:
        signal = text_member(summary, "signal")
        if signal.upper() in _ENDING:
            self._is("stopped", intent)
        else:
            self.note = f"it was sent {signal} by record {intent.record.seq}"

    def _created(self, intent: QueryResult, summary: Mapping[str, Any]) -> None:
        self.summary = summary
        self.settings = settings_from_json(mapping_member(summary, "settings"))
        rules = frozenset(texts_of(intent.record.entry.verdict.get("rules")))
        for name, value, rule in _asked(summary, self.settings, rules):
            self._holds(name, value, intent, rule if rule in rules else "")
        self._is("created", intent)

    def _adopted(self, found: QueryResult) -> None:
        """Begin anew: what was taken in is what was seen then, whatever it was created as."""
        self.about = found.about
        self.facts.clear()
        summary = mapping_member(found.record.entry.request, "summary")
        self._created(found, summary)
        # Only of one that ran, the kernel was asked what it runs as.
        if text_member(summary, "effective"):
            self._is("running", found, "it was adopted then, and ran already")
        elif summary.get("started"):
            self._is("stopped", found, "it was adopted then, and didn't run")
        else:
            self._is("created", found, "it was adopted then")

    def _holds(self, name: str, value: str, intent: QueryResult, rule: str = "") -> None:
        key = (name, value if name in _SEVERAL else "")
        self.facts[key] = Fact(name, value, intent, rule)

    def updated(self, intent: QueryResult, summary: Mapping[str, Any]) -> None:
        now = settings_from_json(mapping_member(summary, "settings"))
        before = self.settings
        for name, attribute, written, _ in _SETTINGS:
            value = written(getattr(now, attribute), now)
            if before is None or value != written(getattr(before, attribute), before):
                self._holds(name, value, intent)
        self.settings = now

    def renamed(self, intent: QueryResult, summary: Mapping[str, Any]) -> None:
        name = text_member(summary, "name")
        self._holds("name", name, intent)
        self.about = replace(self.about or intent.about, name=name)

    def joined(self, intent: QueryResult, summary: Mapping[str, Any]) -> None:
        self._holds("network", text_member(summary, "network"), intent)

    def left(self, _: QueryResult, summary: Mapping[str, Any]) -> None:
        self.facts.pop(("network", text_member(summary, "network")), None)

    def result(self) -> Provenance | None:
        if self.about is None:
            return None
        labels = mapping_member(self.summary, "labels")
        return Provenance(
            about=self.about,
            slot=text_member(labels, names.SLOT),
            revision=text_member(labels, names.REVISION),
            facts=tuple(sorted(self.facts.values(), key=lambda fact: _ORDER[fact.name])),
            state=self.state,
            since=self.since,
            pending=[*self.open.values()][-1] if self.open else None,
            note=self.note,
            told_since=self.shaped[0] if len(self.shaped) > SHAPING_MAX else 0,
        )


_CHANGES: Final[dict[str, Callable[[_Told, QueryResult, Mapping[str, Any]], None]]] = {
    Mutation.CONTAINER_UPDATE: _Told.updated,
    Mutation.CONTAINER_RENAME: _Told.renamed,
    Mutation.NETWORK_CONNECT: _Told.joined,
    Mutation.NETWORK_DISCONNECT: _Told.left,
}
_STATES: Final[dict[str, str]] = {
    Mutation.CONTAINER_START: "running",
    Mutation.CONTAINER_RESTART: "running",
    Mutation.CONTAINER_UNPAUSE: "running",
    Mutation.CONTAINER_STOP: "stopped",
    Mutation.CONTAINER_PAUSE: "paused",
    Mutation.CONTAINER_REMOVE: "removed",
}


def _nothing_done(closing: QueryResult) -> bool:
    return closing.record.entry.result.get("status") == _NOT_MODIFIED


def _bytes(count: int, _: Settings) -> str:
    return format_bytes(count) if count > 0 else ""


def _cpus(nano: int, settings: Settings) -> str:
    if settings.cpu_quota and settings.cpu_period:
        return f"{settings.cpu_quota / settings.cpu_period:g}"
    return f"{nano / _NANO:g}" if nano else ""


def _number(count: object, _: Settings) -> str:
    return str(count) if count else ""


def _restart(policy: str, settings: Settings) -> str:
    return f"{policy}:{settings.restart_max}" if settings.restart_max else policy


#: Of the settings: how a fact is called, the attribute, how it is written, and which of the
#: policy's rules may have given it.
_SETTINGS: Final[tuple[tuple[str, str, Callable[[Any, Settings], str], str], ...]] = (
    ("memory", "memory", _bytes, "default.memory"),
    ("memory and swap", "memory_swap", _bytes, "default.swap"),
    ("memory reservation", "memory_reservation", _bytes, ""),
    ("cpus", "nano_cpus", _cpus, "default.cpus"),
    ("cpu shares", "cpu_shares", _number, ""),
    ("cpuset", "cpuset", _number, ""),
    ("processes", "pids", _number, "default.pids"),
    ("restart", "restart", _restart, ""),
)
#: The field of a document, by its path under spec, that says a fact where it is written at all.
WRITTEN: Final[dict[str, str]] = {
    "image": "image",
    "memory": "resources.memory",
    "cpus": "resources.cpus",
    "cpuset": "resources.cpuset",
    "processes": "resources.pids",
    "restart": "restart",
    "network": "network",
    "port": "ports",
    "mount": "mounts",
    "root filesystem": "security.readOnlyRootFilesystem",
    "capabilities": "security.capAdd",
    "environment": "env",
    "healthcheck": "healthcheck",
    "logs": "logs",
}
#: Facts of which a container has several, each with an origin of its own.
_SEVERAL: Final = frozenset({"network", "mount", "port"})
_NAMES: Final = (
    *("name", "image", "image id", "revision"),
    *(name for name, *_ in _SETTINGS),
    *("network", "answers to", "port", "mount", "root filesystem", "capabilities"),
    *("new privileges", "environment", "healthcheck", "logs", "exceptions"),
)
_ORDER: Final = {name: place for place, name in enumerate(_NAMES)}


def _asked(
    summary: Mapping[str, Any], settings: Settings, rules: frozenset[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield what a create asked for or was given: fact, value, and the rule that may have given it."""
    labels = mapping_member(summary, "labels")
    plain = (
        ("name", settings.name, "name.given"),
        ("image", text_member(summary, "image"), ""),
        ("image id", text_member(summary, "imageId"), "image.pinned"),
        ("revision", text_member(labels, names.REVISION), ""),
        *(
            (name, written(getattr(settings, attribute), settings), rule)
            for name, attribute, written, rule in _SETTINGS
        ),
        ("answers to", ", ".join(texts_of(summary.get("answersTo"))), ""),
        ("root filesystem", _root(summary), ""),
        ("capabilities", ", ".join(texts_of(summary.get("caps"))) or "none", ""),
        ("environment", ", ".join(texts_of(summary.get("env"))), ""),
        ("healthcheck", ", ".join(texts_of(summary.get("healthcheck"))), ""),
        ("exceptions", ", ".join(texts_of(summary.get("exceptions"))), ""),
        *(("network", network, "network.mode") for network in settings.networks),
        *(("port", port, "port.loopback") for port in texts_of(summary.get("ports"))),
        *(
            ("mount", _mount(mount), text_member(mapping_of(mount), "rule") or "default.tmpfs")
            for mount in list_of(summary.get("mounts"))
        ),
    )
    yield from ((name, value, rule) for name, value, rule in plain if value)
    if "hardening.privileges" in rules:
        yield "new privileges", "never", "hardening.privileges"
    if "default.logs" in rules:
        yield "logs", "rotate", "default.logs"


def _root(summary: Mapping[str, Any]) -> str:
    confined = summary.get("confined")
    if not isinstance(confined, Mapping):
        return ""
    return "read-only" if confined.get("read_only_root") else "writable"


def _mount(mount: object) -> str:
    told = mapping_of(mount)
    source = text_member(told, "source")
    access = "" if told.get("type") == "tmpfs" else ", read-only" if told.get("readOnly") else ""
    return f"{text_member(told, 'type')} {source + ' at ' if source else ''}{text_member(told, 'target')}{access}"
