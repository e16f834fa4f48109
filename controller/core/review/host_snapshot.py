"""A snapshot of a host, to plan a change elsewhere: what is observed, the policy, the saved state.

A snapshot has no values that can be secret: those of environment variables and labels, commands
and arguments, and messages of the engine, which can repeat them. A plan from a snapshot neither
compares nor shows such values.

A snapshot has no digest of a Secret's plain text: a number stands for each content id. Equal
contents of one snapshot have equal numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, BinaryIO, Final

from pydantic import TypeAdapter

from controller.core.files.mounts import revision_contents
from controller.core.manifests.revision_hash import revision_of, slot_text
from controller.core.planning.deliveries import HostSecrets
from controller.core.service.history import FORM, kept_spec
from controller.model.delivery import Delivery
from controller.model.desired.desired import BoundName, Desired, GitSource, Service, SourceLocation
from controller.model.desired.source_spec import SourceSpec
from controller.model.desired.spec.fields import AS_WRITTEN
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import UsageError
from controller.model.names import Key
from controller.model.observed import Observed

VERSION: Final = 1
#: Stands for each hidden value.
HIDDEN: Final = "hidden"
BYTES_MAX: Final = 64 * 1024 * 1024
#: A content id of a Secret: a keyed digest of its plain text.
_CONTENT_ID = re.compile(r"hmac:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class HostSnapshot:
    """What a plan needs to know of a host."""

    host: str
    #: RFC 3339.
    taken: str
    observed: Observed
    #: The answer of the broker's route ``policy``.
    policy: Mapping[str, Any]
    #: The content of the controller's state file.
    state: Mapping[str, Any]
    #: The declared Git sources.
    sources: tuple[GitSource, ...] = ()
    secrets: HostSecrets = field(default_factory=HostSecrets)
    #: The declared services and jobs, bound to ``secrets``. Empty if read from a file.
    workloads: tuple[Service, ...] = ()
    #: Read from a file: without the values that can be secret.
    is_hidden: bool = False


@cache
def _observed_json() -> TypeAdapter[Observed]:
    return TypeAdapter(Observed)


def to_json(snapshot: HostSnapshot) -> dict[str, object]:
    """Return a snapshot as JSON, without the values that can be secret."""
    containers = tuple(
        replace(each, error="", check_output="") for each in snapshot.observed.containers
    )
    shown = replace(snapshot.observed, containers=containers)
    observed = _observed_json().dump_python(shown, mode="json")
    numbers = _Numbers()
    hidden = {
        "version": VERSION,
        "host": snapshot.host,
        "taken": snapshot.taken,
        "observed": {name: each for name, each in observed.items() if not name.startswith("_")},
        "policy": dict(snapshot.policy),
        "state": _without_values(snapshot.state),
        "sources": [_source_json(source) for source in snapshot.sources],
        "secrets": {
            "contents": dict(snapshot.secrets.contents),
            "restoredAtBoot": snapshot.secrets.restored_at_boot,
        },
    }
    written = numbers.hide(hidden)
    assert isinstance(written, dict), "an object stays an object"
    written["secrets"]["revisions"] = dict(_revisions(snapshot, numbers))
    return written


class _Numbers:
    """The numbers that stand for the content ids of Secrets, in the order of their appearance."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def hide(self, value: Any) -> Any:
        """Return a JSON value with numbers, in the form of content ids, for content ids."""
        match value:
            case dict():
                return {name: self.hide(each) for name, each in value.items()}
            case list() | tuple():
                return [self.hide(each) for each in value]
            case str() if _CONTENT_ID.fullmatch(value):
                return self._known.setdefault(value, f"hmac:{len(self._known) + 1:064x}")
        return value


def _revisions(snapshot: HostSnapshot, numbers: _Numbers) -> Iterator[tuple[str, str]]:
    """Yield each revision with a Secret: the name that the numbers give, and the host's name."""

    def with_numbers(
        owner: str,
        key: Key,
        spec: ServiceSpec,
        deliveries: Iterable[Delivery],
        bound_names: tuple[BoundName, ...],
    ) -> str:
        hidden = [replace(each, content=numbers.hide(each.content)) for each in deliveries]
        return revision_of(owner, key, spec, revision_contents(hidden, bound_names))

    for name, overrides in snapshot.state.get("steerings", {}).items():
        key = Key.parse(name)
        for kept in FORM.from_json(overrides).revisions:
            spec = kept_spec(kept)
            if spec is not None and any(each.kind == "secret" for each in kept.deliveries):
                yield (
                    with_numbers(kept.owner, key, spec, kept.deliveries, kept.bound_names),
                    kept.canonical or kept.revision,
                )
    for each in snapshot.workloads:
        if any(delivery.kind == "secret" for delivery in each.deliveries):
            found = with_numbers(each.owner, each.key, each.spec, each.deliveries, each.bound_names)
            yield found, each.canonical or each.revision


def from_text(text: str | bytes) -> HostSnapshot:
    """Parse a snapshot.

    Raises:
        UsageError: *text* isn't a snapshot of this version.
    """
    try:
        value = json.loads(text)
        if value["version"] != VERSION:
            raise UsageError(
                "snapshot.version",
                f"the snapshot has version {value['version']}, not {VERSION}",
                remedy="take it again with the trimtab that plans: 'trimtab snapshot'",
            )
        return HostSnapshot(
            host=str(value["host"]),
            taken=str(value["taken"]),
            observed=_read_observed(value["observed"]),
            policy=dict(value["policy"]),
            state=dict(value["state"]),
            sources=tuple(_source(each) for each in value["sources"]),
            secrets=_secrets(value["secrets"]),
            is_hidden=True,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged_snapshot(error) from error


def _secrets(value: Mapping[str, Any]) -> HostSecrets:
    contents, revisions = ({**value[name]} for name in ("contents", "revisions"))
    return HostSecrets(contents, bool(value["restoredAtBoot"]), revisions)


def _read_observed(value: Mapping[str, Any]) -> Observed:
    observed = _observed_json().validate_python(value)
    return replace(observed, containers=tuple(observed.containers))


def damaged_snapshot(error: Exception) -> UsageError:
    """Return the error for a file that isn't a snapshot; its text isn't repeated."""
    return UsageError(
        "snapshot.damaged",
        f"the file isn't a snapshot of a host: {type(error).__name__}",
        remedy="take one on the host: 'trimtab snapshot > host.json'",
    )


def read_snapshot(file: BinaryIO) -> HostSnapshot:
    """Read a snapshot of at most ``BYTES_MAX``.

    Raises:
        UsageError: as ``from_text``, or the file is too large.
    """
    text = file.read(BYTES_MAX + 1)
    if len(text) > BYTES_MAX:
        raise UsageError("snapshot.damaged", f"the file has more than {BYTES_MAX} bytes")
    return from_text(text)


def find_source(snapshot: HostSnapshot, name: str) -> GitSource:
    """Return a declared Git source of the host.

    Raises:
        UsageError: the host declares no such Source.
    """
    found = next((each for each in snapshot.sources if each.key.name == name), None)
    if found is None:
        names = ", ".join(sorted(each.key.name for each in snapshot.sources)) or "none"
        raise UsageError(
            "source.unknown",
            f"{snapshot.host} declares no Source {name}",
            remedy=f"name one of its Sources: {names}",
        )
    return found


def only_of(observed: Observed, source: GitSource, serving: Mapping[Key, str]) -> Observed:
    """Return an observation without the containers and networks of other sources, or of DIR."""
    containers = tuple(
        container
        for container in observed.containers
        if container.key.namespace in source.spec.namespaces
        and serving.get(container.key, source.key.name) == source.key.name
    )
    namespaces = source.spec.namespaces
    networks = tuple(each for each in observed.networks if each.namespace in namespaces)
    return replace(observed, containers=containers, networks=networks)


def hide_values(desired: Desired) -> Desired:
    """Return a desired state without the values that can be secret. Its revisions stay the same."""
    services = tuple(replace(each, spec=hide(each.spec)) for each in desired.services)
    return replace(desired, services=services)


def hide(spec: ServiceSpec) -> ServiceSpec:
    """Return a spec with ``HIDDEN`` for the values that can be secret."""
    check = spec.healthcheck
    if check is not None and check.exec is not None:
        check = check.model_copy(update={"exec": (HIDDEN,)})
    return spec.model_copy(
        update={
            "env": dict.fromkeys(spec.env, HIDDEN),
            "container_labels": dict.fromkeys(spec.container_labels, HIDDEN),
            "entrypoint": (HIDDEN,) if spec.entrypoint else spec.entrypoint,
            "command": (HIDDEN,) if spec.command else spec.command,
            "healthcheck": check,
        }
    )


def _source_json(source: GitSource) -> dict[str, object]:
    spec = source.spec.model_dump(
        mode="json", by_alias=True, exclude_unset=True, context=AS_WRITTEN
    )
    return {"key": str(source.key), "owner": source.owner, "spec": spec}


def _source(value: Mapping[str, Any]) -> GitSource:
    key, owner = Key.parse(value["key"]), str(value["owner"])
    spec = SourceSpec.model_validate_json(json.dumps(value["spec"]))
    return GitSource(key, owner, spec, SourceLocation(""))


def _without_values(state: Mapping[str, Any]) -> dict[str, object]:
    """Return the saved state without values and messages."""
    overrides = {key: dict(each) for key, each in state.get("steerings", {}).items()}
    for each in overrides.values():
        each["revisions"] = [_hidden_revision(revision) for revision in each.get("revisions", ())]
    return {
        **state,
        "steerings": overrides,
        "slots": [
            [key, number, history and {**history, "cause": ""}, cursor]
            for key, number, history, cursor in state.get("slots", ())
        ],
        "courses": {
            key: {**progress, "failed": _hidden_text(progress.get("failed", ""))}
            for key, progress in state.get("courses", {}).items()
        },
    }


def _hidden_revision(revision: Mapping[str, Any]) -> dict[str, Any]:
    spec = revision["spec"]
    return {
        **revision,
        "spec": spec and slot_text(hide(ServiceSpec.model_validate_json(spec))),
        "reason": _hidden_text(revision.get("reason", "")),
        "source": {**revision["source"], "text": ""},
        "hidden": True,
    }


def _hidden_text(text: str) -> str:
    """Return ``HIDDEN`` for a text, and '' for none: whether there is one has a meaning."""
    return HIDDEN if text else ""
