"""From what a path names to an object of ours, by full id, or to "no such object".

The engine resolves names before ids and ids by any prefix, so that a name can be made to mean
another's container (gate hazard H20). Here: full id, exact name, or an unambiguous prefix of at
least twelve digits, and always checked against the instance label and the inventory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controller.broker.gate import redact
from controller.broker.gate.call import BROKER, Author, Flow, read_json
from controller.broker.gate.journal_entries import record_event, request_of
from controller.broker.gate.refusals import Answered, Denied, message_reply
from controller.broker.gate.state import GateState
from controller.core.engine_api.requests import ICC, MASQUERADE
from controller.core.engine_api.translate import settings
from controller.core.rules.facts import ContainerFacts, NetworkFacts, VolumeFacts
from controller.model import mutations, names
from controller.model.inventory import ContainerItem, OwnedObject
from controller.model.records import Actor, Role

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", re.ASCII)
_FULL_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PREFIX = re.compile(r"[0-9a-f]{12,63}", re.ASCII)
_PLAIN_OPTIONS = frozenset({MASQUERADE, ICC})


@dataclass(frozen=True, slots=True)
class OwnContainer:
    """A container of ours that the caller may see, and the engine's inspect of it."""

    item: ContainerItem
    inspect: dict[str, Any]

    @property
    def path(self) -> str:
        """Its path, by full id."""
        return f"/containers/{self.item.id}"


def can_see(actor: Actor, owner: str) -> bool:
    """Tell whether an object of ours is the caller's to see and to act on."""
    return actor.role is not Role.CLIENT or (owner != "" and owner == actor.owner)


def can_see_host(actor: Actor) -> bool:
    """Return True if the actor may learn where things lie on the host: operators alone."""
    return actor.role is Role.OPERATOR


def find_container(
    state: GateState,
    actor: Actor,
    name: str,
    ahead: Callable[[ContainerItem], tuple[str, ...]] = lambda _item: (),
) -> Flow[OwnContainer]:
    """Return the container of ours that *name* means; what is *ahead* of it is looked at next.

    Raises:
        Answered: there is none, as the engine would say it.
        Denied: ``foreign``: there is one, and it isn't the caller's; or there is none, and the
            caller is a client, who can't tell the two apart.
    """
    missing = f"No such container: {redact.text(name)}"
    if not _NAME.fullmatch(name):
        raise not_found(actor, missing, redact.text(name))
    identifier = _known_id(state, name)
    known = state.inventory.containers.get(identifier)
    follows = ahead(known) if known is not None and can_see(actor, known.owner) else ()
    inspect = yield from _read_named(f"/containers/{identifier or name}/json", follows)
    if inspect is None:
        if identifier in state.inventory.containers:
            yield from record_gone(state, mutations.CONTAINER_GONE, identifier)
        raise not_found(actor, missing, name)
    found = str(inspect.get("Id", ""))
    exact = identifier == found or inspect.get("Name") == f"/{name}"
    item = state.inventory.containers.get(found)
    labels = (inspect.get("Config") or {}).get("Labels") or {}
    ours = item is not None and labels.get(names.INSTANCE) == state.instance
    if not exact or item is None or not ours or not can_see(actor, item.owner):
        raise foreign_object(missing, name)
    return OwnContainer(item, inspect)


def _read_named(path: str, ahead: tuple[str, ...] = ()) -> Flow[Any]:
    """Return what the engine has under a name; several that a prefix fits are none."""
    try:
        return (yield from read_json(path, ahead))
    except Answered as answered:
        if answered.reply.status == 400:
            return None
        raise


def _known_id(state: GateState, name: str) -> str:
    if _FULL_ID.fullmatch(name):
        return name
    if _PREFIX.fullmatch(name):
        matching = [known for known in state.inventory.containers if known.startswith(name)]
        if len(matching) == 1:
            return matching[0]
    return ""


def foreign_object(missing: str, subject: str) -> Denied:
    """Return the refusal of an object that isn't the caller's: it reads as if there were none."""
    return Denied(
        "foreign",
        f"{subject} isn't one of the caller's",
        "name an object that was made through this broker for your owner",
        status=404,
        message=missing,
        subject=subject,
    )


def not_found(actor: Actor, missing: str, subject: str) -> Exception:
    """Return how it is told that there is none of that name.

    A client reads (and the journal keeps) the same as of a foreign object: names of others can't
    be found out. Controller and operators see all of ours, and need to know.
    """
    if actor.role is Role.CLIENT:
        return foreign_object(missing, subject)
    return Answered(message_reply(404, missing))


def record_gone(state: GateState, route: str, identifier: str) -> Flow[bool]:
    """Record that an object of ours isn't on the engine any more, and take it off the inventory."""
    request = request_of("GET", route, identifier, {})
    return (yield from record_event("read", Author(state.new_id(), BROKER), request)) is not None


def container_facts(found: OwnContainer) -> ContainerFacts:
    """Return what admission must know of a container."""
    item, inspect = found.item, found.inspect
    host = inspect.get("HostConfig") or {}
    return ContainerFacts(
        settings=settings(inspect),
        owner=item.owner,
        namespace=item.namespace,
        service=item.service,
        origin=item.origin,
        image=item.image,
        id=item.id,
        auto_remove=bool(host.get("AutoRemove")),
        network_mode=str(host.get("NetworkMode") or ""),
        published=bool(host.get("PortBindings")),
        admitted_networks=item.admitted.networks,
    )


@dataclass(frozen=True, slots=True)
class FoundNetwork:
    """A network of the engine: ``belonging`` is None when it isn't ours."""

    inspect: dict[str, Any]
    belonging: OwnedObject | None

    @property
    def facts(self) -> NetworkFacts:
        """What admission must know of it."""
        options = self.inspect.get("Options") or {}
        ipam = self.inspect.get("IPAM") or {}
        mine = self.belonging
        return NetworkFacts(
            id=str(self.inspect.get("Id", "")),
            name=str(self.inspect.get("Name", "")),
            ours=mine is not None,
            owner=mine.owner if mine else "",
            namespace=mine.namespace if mine else "",
            internal=bool(self.inspect.get("Internal")),
            driver=str(self.inspect.get("Driver", "")),
            masquerade=options.get(MASQUERADE, "true") == "true",
            icc=options.get(ICC, "true") == "true",
            plain=options.keys() <= _PLAIN_OPTIONS
            and str(ipam.get("Driver") or "default") == "default"
            and not ipam.get("Options"),
            instance=_instance_of(self.inspect),
        )


def _instance_of(inspect: dict[str, Any]) -> str:
    """Return the instance that the labels of a network or volume name, '' for what isn't one."""
    told = str((inspect.get("Labels") or {}).get(names.INSTANCE) or "")
    return told if names.is_instance(told) else ""


def network_path(name: str) -> str:
    """Return the path at which a network is looked up, '' for what can't be a name."""
    return f"/networks/{name}" if _NAME.fullmatch(name) else ""


def volume_path(name: str) -> str:
    """Return the path at which a volume is looked up, '' for what can't be a name."""
    return f"/volumes/{name}" if _NAME.fullmatch(name) else ""


def find_network(state: GateState, name: str) -> Flow[FoundNetwork | None]:
    """Return the network of the engine that is called exactly *name*, or has that id."""
    path = network_path(name)
    if not path:
        return None
    inspect = yield from _read_named(path)
    if inspect is None:
        if name in state.inventory.networks:
            yield from record_gone(state, mutations.NETWORK_GONE, name)
        return None
    if name not in {inspect.get("Id"), inspect.get("Name")}:
        # The engine resolves a prefix of an id; such a name means nothing here, unless ours.
        belonging = state.inventory.networks.get(str(inspect.get("Id", "")))
        if not _PREFIX.fullmatch(name) or belonging is None:
            return None
    return FoundNetwork(inspect, owned_network(state, inspect))


def owned_network(state: GateState, inspect: dict[str, Any]) -> OwnedObject | None:
    """Return the inventory's word on a network, if its labels agree."""
    belonging = state.inventory.networks.get(str(inspect.get("Id", "")))
    return belonging if belonging and _has_own_labels(state, inspect, belonging) else None


def find_own_network(state: GateState, actor: Actor, name: str) -> Flow[FoundNetwork]:
    """Return the network of ours that *name* means.

    Raises:
        Answered, Denied: as ``container``.
    """
    return _visible_network(actor, name, (yield from find_network(state, name)))


def _visible_network(actor: Actor, name: str, found: FoundNetwork | None) -> FoundNetwork:
    missing = f"network {redact.text(name)} not found"
    if found is None:
        raise not_found(actor, missing, redact.text(name))
    if found.belonging is None or not can_see(actor, found.belonging.owner):
        raise foreign_object(missing, name)
    return found


def find_network_to_leave(
    state: GateState, actor: Actor, name: str, found: OwnContainer
) -> Flow[FoundNetwork]:
    """Return the network that *found* is to leave: one of ours, or one that it is in by mistake.

    To keep a container off what isn't ours touches nothing that isn't ours. A client isn't told
    of such networks.

    Raises:
        Answered, Denied: as ``container``.
    """
    left = yield from find_network(state, name)
    ends = (found.inspect.get("NetworkSettings") or {}).get("Networks") or {}
    if actor.role is not Role.CLIENT and left is not None and left.facts.name in ends:
        return left
    return _visible_network(actor, name, left)


@dataclass(frozen=True, slots=True)
class FoundVolume:
    """A volume of the engine: ``belonging`` is None when it isn't ours."""

    inspect: dict[str, Any]
    belonging: OwnedObject | None

    @property
    def facts(self) -> VolumeFacts:
        """What admission must know of it."""
        options = self.inspect.get("Options") or {}
        return VolumeFacts(
            name=str(self.inspect.get("Name", "")),
            ours=self.belonging is not None,
            owner=self.belonging.owner if self.belonging else "",
            namespace=self.belonging.namespace if self.belonging else "",
            driver=str(self.inspect.get("Driver", "")),
            options=tuple(sorted((str(k), str(v)) for k, v in options.items())),
            instance=_instance_of(self.inspect),
        )


def find_volume(state: GateState, name: str) -> Flow[FoundVolume | None]:
    """Return the volume of that name. One that was removed and made anew elsewhere isn't ours."""
    path = volume_path(name)
    if not path:
        return None
    inspect = yield from read_json(path)
    if inspect is None:
        if name in state.inventory.volumes:
            yield from record_gone(state, mutations.VOLUME_GONE, name)
        return None
    return FoundVolume(inspect, owned_volume(state, inspect))


def owned_volume(state: GateState, inspect: dict[str, Any]) -> OwnedObject | None:
    """Return the inventory's word on a volume, if its labels agree."""
    belonging = state.inventory.volumes.get(str(inspect.get("Name", "")))
    return belonging if belonging and _has_own_labels(state, inspect, belonging) else None


def find_own_volume(state: GateState, actor: Actor, name: str) -> Flow[FoundVolume]:
    """Return the volume of ours that *name* means.

    Raises:
        Answered, Denied: as ``container``.
    """
    missing = f"get {redact.text(name)}: no such volume"
    found = yield from find_volume(state, name)
    if found is None:
        raise not_found(actor, missing, redact.text(name))
    if found.belonging is None or not can_see(actor, found.belonging.owner):
        raise foreign_object(missing, name)
    return found


def _has_own_labels(state: GateState, inspect: dict[str, Any], belonging: OwnedObject) -> bool:
    labels = inspect.get("Labels") or {}
    return bool(
        labels.get(names.INSTANCE) == state.instance
        and labels.get(names.INTENT) == belonging.intent
    )
