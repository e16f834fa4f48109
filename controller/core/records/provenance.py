"""The provenance of a container's properties: the record and the policy rule behind each.

Derived from records alone (``core.records.query.chronicle``): the summary of the create or the
adoption, then the later changes. Changes past the broker are unknown, and so is a container's own
exit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from controller.core.engine_api.comparable_fields import SETTINGS, Setting
from controller.core.records import parts
from controller.core.records.query import (
    SHAPING,
    SHAPING_MAX,
    QueryResult,
    RecordSubject,
    is_adoption,
)
from controller.core.records.record import CLOSING
from controller.model import mutations, names
from controller.model.mutations import Mutation
from controller.model.observed import Settings

#: States of a container that exists.
_EXISTING: Final = frozenset({"created", "running", "paused", "stopped"})
#: Signals of a kill that stop a container.
_STOPPING: Final = frozenset({"", "KILL", "SIGKILL", "9"})


@dataclass(frozen=True, slots=True)
class Fact:
    """A property of a container, with the intent that set it."""

    name: str
    value: str
    origin: QueryResult
    rule: str = ""  # the policy rule that set the value, if any

    @property
    def line(self) -> int:
        """The line of the field in its file, else the first line of the document."""
        return parts.ClaimsPart.read(self.origin.record.entry.claims).source.line(
            DOCUMENT_FIELDS.get(self.name, "")
        )


@dataclass(frozen=True, slots=True)
class Provenance:
    """The properties and the state of a container, as far as its records say."""

    about: RecordSubject
    slot: str = ""
    revision: str = ""
    facts: tuple[Fact, ...] = ()
    #: created, running, paused, stopped, removed, gone or unknown.
    state: str = "unknown"
    #: The record since which the container has this state; None if no record says.
    since: QueryResult | None = None
    #: The last open intent.
    pending: QueryResult | None = None
    #: Further information about the state, for a person.
    note: str = ""
    #: Changes before this seq are not shown, because there were too many; 0 if all are shown.
    #: A property that they set may be attributed to a later change.
    shown_since: int = 0


def provenance(chronicle: Iterable[QueryResult]) -> Provenance | None:
    """Return the provenance of a container by its chronicle; None without records."""
    builder = _Builder()
    for result in chronicle:
        builder.add(result)
    return builder.build()


def without_replaced(containers: Iterable[Provenance]) -> list[Provenance]:
    """Return the containers whose name no later container has.

    Names are unique in an engine, so the earlier container was removed past the broker.
    *containers* are in the order of their creates.
    """
    listed = list(containers)
    latest = {each.about.name: each.about.id for each in listed if each.state in _EXISTING}
    return [each for each in listed if latest.get(each.about.name, each.about.id) == each.about.id]


@dataclass(slots=True)
class _Builder:
    """The properties and state of a container after the records so far."""

    about: RecordSubject | None = None
    summary: parts.SummaryPart = field(default_factory=parts.SummaryPart)
    facts: dict[tuple[str, str], Fact] = field(default_factory=dict)
    settings: Settings | None = None
    open: dict[str, QueryResult] = field(default_factory=dict)
    state: str = "unknown"
    since: QueryResult | None = None
    note: str = ""
    shaped: list[int] = field(default_factory=list)

    def add(self, result: QueryResult) -> None:
        entry, about = result.record.entry, result.about
        if about.action in SHAPING:
            self.shaped.append(result.record.seq)
        if entry.stage == "intent":
            self.open[entry.id] = result
            if self.about is None or about.action != Mutation.CONTAINER_CREATE:
                self.about = about
            return
        if entry.stage in CLOSING:
            # A mutation that was open during a rename has the old name.
            self.about = replace(about, name=(self.about or about).name)
            intent = self.open.pop(entry.id, None)
            if intent is not None:
                self._close(intent, result)
        elif about.action == mutations.CONTAINER_GONE:
            self._set_state("gone", result, "it was removed past the broker, or removed itself")
        elif is_adoption(result.record, about):
            self._adopt(result)

    def _close(self, intent: QueryResult, closing: QueryResult) -> None:
        action, result = intent.about.action, parts.ResultPart.read(closing.record.entry.result)
        if not parts.is_applied(closing.record):
            if result.settled == "unknown":
                self._set_state("unknown", intent, f"what came of {action} isn't known")
            return
        summary = parts.RequestPart.read(intent.record.entry.request).summary
        if action == Mutation.CONTAINER_CREATE:
            self._create(intent, summary)
        elif action == Mutation.CONTAINER_ADOPT:
            self._create(intent, summary)
            self._set_state("running", intent, "it was adopted as found then, and ran already")
        elif action in _CHANGES:
            _CHANGES[action](self, intent, summary)
        elif action == Mutation.CONTAINER_KILL:
            self._kill(intent, summary)
        elif action in _STATES and result.status == parts.NOT_MODIFIED:
            self._confirm_state(_STATES[action], intent)
        elif action in _STATES:
            self._set_state(_STATES[action], intent)

    def _set_state(self, state: str, since: QueryResult | None, note: str = "") -> None:
        self.state, self.since, self.note = state, since, note

    def _confirm_state(self, state: str, intent: QueryResult) -> None:
        """Set a state without an origin: the container had the state before the request."""
        never_ran = (self.state, state) == ("created", "stopped")
        if self.state != state and not never_ran:
            note = f"it already was when record {intent.record.seq} asked for it"
            self._set_state(state, None, note)

    def _kill(self, intent: QueryResult, summary: parts.SummaryPart) -> None:
        signal = summary.part(parts.StopPart).signal
        if signal.upper() in _STOPPING:
            self._set_state("stopped", intent)
        else:
            self.note = f"it was sent {signal} by record {intent.record.seq}"

    def _create(self, intent: QueryResult, summary: parts.SummaryPart) -> None:
        create = summary.part(parts.CreatePart)
        self.summary = create
        self.settings = create.settings
        rules = frozenset(parts.VerdictPart.read(intent.record.entry.verdict).rules)
        for name, value, rule in _properties(create, self.settings, rules):
            self._set_fact(name, value, intent, rule if rule in rules else "")
        self._set_state("created", intent)

    def _adopt(self, result: QueryResult) -> None:
        """Start again from the state at the adoption, whatever the create said."""
        self.about = result.about
        self.facts.clear()
        request = parts.RequestPart.read(result.record.entry.request)
        summary = request.summary.part(parts.AdoptionPart)
        self._create(result, summary)
        # The summary has the kernel's verified state only for a running container.
        if summary.effective:
            self._set_state("running", result, "it was adopted then, and ran already")
        elif summary.started:
            self._set_state("stopped", result, "it was adopted then, and didn't run")
        else:
            self._set_state("created", result, "it was adopted then")

    def _set_fact(self, name: str, value: str, intent: QueryResult, rule: str = "") -> None:
        key = (name, value if name in _SEVERAL else "")
        self.facts[key] = Fact(name, value, intent, rule)

    def update(self, intent: QueryResult, summary: parts.SummaryPart) -> None:
        now = summary.part(parts.SettingsPart).settings
        before = self.settings
        for name, setting, _ in _SETTINGS:
            value = _value(setting, now)
            if before is None or value != _value(setting, before):
                self._set_fact(name, value, intent)
        self.settings = now

    def rename(self, intent: QueryResult, summary: parts.SummaryPart) -> None:
        self._set_fact("name", summary.name, intent)
        self.about = replace(self.about or intent.about, name=summary.name)

    def connect(self, intent: QueryResult, summary: parts.SummaryPart) -> None:
        self._set_fact("network", summary.part(parts.EndpointPart).network, intent)

    def disconnect(self, _: QueryResult, summary: parts.SummaryPart) -> None:
        self.facts.pop(("network", summary.part(parts.EndpointPart).network), None)

    def build(self) -> Provenance | None:
        if self.about is None:
            return None
        return Provenance(
            about=self.about,
            slot=self.summary.label(names.SLOT),
            revision=self.summary.label(names.REVISION),
            facts=tuple(sorted(self.facts.values(), key=lambda fact: _ORDER[fact.name])),
            state=self.state,
            since=self.since,
            pending=[*self.open.values()][-1] if self.open else None,
            note=self.note,
            shown_since=self.shaped[0] if len(self.shaped) > SHAPING_MAX else 0,
        )


_CHANGES: Final[dict[str, Callable[[_Builder, QueryResult, parts.SummaryPart], None]]] = {
    Mutation.CONTAINER_UPDATE: _Builder.update,
    Mutation.CONTAINER_RENAME: _Builder.rename,
    Mutation.NETWORK_CONNECT: _Builder.connect,
    Mutation.NETWORK_DISCONNECT: _Builder.disconnect,
}
_STATES: Final[dict[str, str]] = {
    Mutation.CONTAINER_START: "running",
    Mutation.CONTAINER_RESTART: "running",
    Mutation.CONTAINER_UNPAUSE: "running",
    Mutation.CONTAINER_STOP: "stopped",
    Mutation.CONTAINER_PAUSE: "paused",
    Mutation.CONTAINER_REMOVE: "removed",
}


#: The words of a fact, where they aren't those of the setting.
_WORDS: Final = {"memory_swap": "memory and swap", "nano_cpus": "cpus", "pids": "processes"}
#: The rules of the policy that can set a value.
_DEFAULTS: Final = {
    "memory": "default.memory",
    "memory_swap": "default.swap",
    "nano_cpus": "default.cpus",
    "pids": "default.pids",
}
#: The settings that are told: the fact's name, the setting, and the rule that can set its value.
_SETTINGS: Final = tuple(
    (
        _WORDS.get(each.name, each.name.replace("_", " ")),
        each,
        _DEFAULTS.get(each.name, ""),
    )
    for each in SETTINGS
    if each.path.startswith("spec.") or each.name == "memory_swap"
)


def _value(setting: Setting, settings: Settings) -> str:
    """Return the value of a setting in words; '' if unset."""
    value = getattr(settings, setting.name)
    match setting.name:
        case "nano_cpus" if settings.cpu_quota and settings.cpu_period:
            return f"{settings.cpu_quota / settings.cpu_period:g}"
        case "restart" if settings.restart_max:
            return f"{settings.restart}:{settings.restart_max}"
        case _:
            return setting.show(value) if value else ""


#: The field in a user's document (path under ``spec``) that sets a fact.
DOCUMENT_FIELDS: Final[dict[str, str]] = {
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
#: Facts that a container can have several times, each with its own origin.
_SEVERAL: Final = frozenset({"network", "mount", "port"})
_NAMES: Final = (
    *("name", "image", "image id", "revision"),
    *(name for name, *_ in _SETTINGS),
    *("network", "answers to", "devices", "port", "mount", "root filesystem", "capabilities"),
    *("new privileges", "environment", "healthcheck", "logs", "exceptions"),
)
_ORDER: Final = {name: place for place, name in enumerate(_NAMES)}


def _properties(
    summary: parts.CreatePart, settings: Settings, rules: frozenset[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield the properties set by a create: fact, value, and the rule behind a default."""
    plain = (
        ("name", settings.name, "name.given"),
        ("image", summary.image, ""),
        ("image id", summary.image_id, "image.pinned"),
        ("revision", summary.label(names.REVISION), ""),
        *((name, _value(setting, settings), rule) for name, setting, rule in _SETTINGS),
        ("answers to", ", ".join(summary.aliases), ""),
        ("devices", ", ".join(_device_text(device) for device in summary.devices), ""),
        ("root filesystem", _root(summary), ""),
        ("capabilities", ", ".join(summary.capabilities) or "none", ""),
        ("environment", ", ".join(summary.environment), ""),
        ("healthcheck", ", ".join(summary.healthcheck), ""),
        ("exceptions", ", ".join(summary.exceptions), ""),
        *(("network", network, "network.mode") for network in settings.networks),
        *(("port", port, "port.loopback") for port in summary.ports),
        *(("mount", _mount(mount), mount.rule or "default.tmpfs") for mount in summary.mounts),
    )
    yield from ((name, value, rule) for name, value, rule in plain if value)
    if "hardening.privileges" in rules:
        yield "new privileges", "never", "hardening.privileges"
    if "default.logs" in rules:
        yield "logs", "rotate", "default.logs"


def _root(summary: parts.CreatePart) -> str:
    match summary.has_read_only_root:
        case None:
            return ""
        case read_only:
            return "read-only" if read_only else "writable"


def _mount(mount: parts.MountPart) -> str:
    access = "" if mount.type == "tmpfs" else ", read-only" if mount.read_only else ""
    source = f"{mount.source} at " if mount.source else ""
    return f"{mount.type} {source}{mount.target}{access}"


def _device_text(device: parts.DevicePart) -> str:
    """Return a device with the numbers of its nodes, and the digest of its specification."""
    details = [*device.numbers, *([device.specification] if device.specification else [])]
    return f"{device.source} ({', '.join(details)})" if details else device.source
