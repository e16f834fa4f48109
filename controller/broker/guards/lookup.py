"""Look-up: from the name in a path to an object of this instance, by full id, or to a 404.

The engine resolves names before ids, and ids by any prefix, so that a crafted name can address
another container. The gate accepts a full id, an exact name, or an unambiguous prefix of at least
twelve digits, and always checks the instance label and the inventory. An adopted container has no
label: its full id in the inventory decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from controller.broker.gate import redact
from controller.broker.gate.call import BROKER, Author, Flow, GateRequest, find_uid_user, read_json
from controller.broker.gate.journal_entries import record_event, request_of
from controller.broker.gate.refusals import Answered, Denied, message_reply
from controller.broker.gate.state import GateState
from controller.core.addresses import slot_subnet
from controller.core.adoption.likeness import show_on_inspect
from controller.core.engine_api.requests import ICC, MASQUERADE, SharesRequest
from controller.core.engine_api.translate import settings, shared_ids
from controller.core.rules.context import (
    COMPOSE_SERVICE,
    ContainerFacts,
    NetworkFacts,
    SharedContainer,
    VolumeFacts,
)
from controller.model import mutations, names
from controller.model.inventory import ContainerItem, OwnedObject
from controller.model.records import RESTRICTED, UNMET, Actor, Role

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", re.ASCII)
_FULL_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PREFIX = re.compile(r"[0-9a-f]{12,63}", re.ASCII)
_PLAIN_OPTIONS = frozenset({MASQUERADE, ICC})


@dataclass(frozen=True, slots=True)
class OwnContainer:
    """A container of the instance, visible to the caller."""

    item: ContainerItem
    #: The engine's inspect.
    inspect: dict[str, Any]
    #: When the engine was asked, by the monotonic clock.
    asked_at: float = 0.0

    @property
    def path(self) -> str:
        """The path of the container, by full id."""
        return f"/containers/{self.item.id}"


def can_see(actor: Actor, owner: str) -> bool:
    """Return True if the actor can see objects of an owner, and change them where a route lets it."""
    if actor.role is Role.VIEWER:
        return actor.scope.has(owner)
    return actor.role is not Role.CLIENT or (owner != "" and owner == actor.owner)


def can_see_host(actor: Actor) -> bool:
    """Return True if the actor can see paths of the host: only operators can."""
    return actor.role is Role.OPERATOR


def find_container(
    state: GateState,
    actor: Actor,
    name: str,
    ahead: Callable[[ContainerItem], tuple[str, ...]] = lambda _item: (),
) -> Flow[OwnContainer]:
    """Return the container of the instance with a name or id.

    The reads of *ahead* will follow (``ReadEngine.ahead``).

    Raises:
        Answered: no such container, in the engine's wording.
        Denied: ``foreign``: the container isn't the caller's. A client gets the same refusal for a
            missing container, and can't tell the two cases apart.
    """
    missing = f"No such container: {redact.text(name)}"
    if not _NAME.fullmatch(name):
        raise not_found(actor, missing, redact.text(name))
    identifier = _known_id(state, name)
    known = state.inventory.containers.get(identifier)
    follows = ahead(known) if known is not None and can_see(actor, known.owner) else ()
    asked_at = state.clock.monotonic()
    inspect = yield from _read_named(container_path(identifier or name), follows)
    if inspect is None:
        if identifier in state.inventory.containers:
            yield from record_gone(state, mutations.CONTAINER_GONE, identifier)
        raise not_found(actor, missing, name)
    found = str(inspect.get("Id", ""))
    exact = identifier == found or inspect.get("Name") == f"/{name}"
    item = state.inventory.containers.get(found)
    labels = (inspect.get("Config") or {}).get("Labels") or {}
    ours = item is not None and (item.adopted or labels.get(names.INSTANCE) == state.instance)
    if not exact or item is None or not ours or not can_see(actor, item.owner):
        raise foreign_object(missing, name)
    return OwnContainer(item, show_on_inspect(inspect, item, state.instance), asked_at)


def find_requested(
    call: GateRequest,
    state: GateState,
    ahead: Callable[[ContainerItem], tuple[str, ...]] = lambda _item: (),
) -> Flow[OwnContainer]:
    """Return the container that the path of a request names, as ``find_expected``."""
    return (yield from find_expected(call, state, call.names["container"], ahead))


def find_expected(
    call: GateRequest,
    state: GateState,
    name: str,
    ahead: Callable[[ContainerItem], tuple[str, ...]] = lambda _item: (),
) -> Flow[OwnContainer]:
    """Return the container with a name or id, if the request's precondition holds.

    Raises:
        Answered, Denied: as ``find_container``, or ``precondition.unmet``.
    """
    finding = find_container(state, call.actor, name, ahead)
    found = yield from refuse_if_gone(call, finding, f"the container {redact.text(name)}")
    refuse_if_other(call, found.item.id, found.item.revision)
    return found


def refuse_if_gone(call: GateRequest, finding: Flow[T], what: str) -> Flow[T]:
    """Return the object of a look-up; a missing object doesn't meet a precondition.

    Raises:
        Answered, Denied: as the look-up, or ``precondition.unmet``.
    """
    try:
        return (yield from finding)
    except Answered as answered:
        if call.precondition.id and answered.reply.status == 404:
            raise _unmet(f"{what} is gone") from answered
        raise


def refuse_if_other(call: GateRequest, identifier: str, revision: str = "") -> None:
    """Refuse a change of an object unless the object is the expected one.

    Raises:
        Denied: ``precondition.unmet``.
    """
    expected = call.precondition
    if expected.id and expected.id != identifier:
        raise _unmet(f"the object is {identifier}", identifier)
    if expected.revision and expected.revision != revision:
        raise _unmet(f"{identifier} is of revision {revision or 'none'}", identifier)


def refuse_if_present(call: GateRequest, name: str, *, ours: bool) -> None:
    """Refuse to create an object of a name that is required to be absent. *ours*: the object exists.

    Raises:
        Denied: ``precondition.unmet``.
    """
    if ours and name and call.precondition.absent == name:
        raise _unmet(f"{name} is there already", name)


def _unmet(reason: str, subject: str = "") -> Denied:
    remedy = "look again: another change came first"
    return Denied(UNMET, reason, remedy, status=409, subject=subject)


def _read_named(path: str, ahead: tuple[str, ...] = ()) -> Flow[Any]:
    """Return the engine's object of a name; None also for a prefix of several ids."""
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
    """Return the refusal of a foreign object, with the message for a missing object."""
    return Denied(
        "foreign",
        f"{subject} isn't one of the caller's",
        "name an object that was made through this broker for your owner",
        status=404,
        message=missing,
        subject=subject,
    )


def not_found(actor: Actor, missing: str, subject: str) -> Exception:
    """Return the exception for a missing object.

    A client or viewer gets (and the journal keeps) the same refusal as for a foreign object, and so can't
    find out names of others. Controller and operators see all objects, and get a plain 404.
    """
    if actor.role in RESTRICTED:
        return foreign_object(missing, subject)
    return Answered(message_reply(404, missing))


def record_gone(state: GateState, route: str, identifier: str) -> Flow[bool]:
    """Record that an object disappeared from the engine, and drop it from the inventory."""
    request = request_of("GET", route, identifier, {})
    return (yield from record_event("read", Author(state.new_id(), BROKER), request)) is not None


def find_shared(
    state: GateState, asked: SharesRequest, labels: Mapping[str, Any]
) -> Flow[SharedContainer | None]:
    """Return the container whose namespaces a create shares; None if the create asks for none.

    The newest running container of the named service counts, with the slot, namespace and owner of the
    new container, and created in the same namespace. The engine is asked by full id, never by a name.

    Raises:
        Denied: ``namespace.target``: none runs.
    """
    if not asked.is_asked or asked.host:
        return None
    owner, namespace, slot = (
        str(labels.get(name, "")) for name in (names.OWNER, names.NAMESPACE, names.SLOT)
    )
    items = state.inventory.items.of_service(namespace, asked.service)
    for item in sorted(items, key=lambda each: each.seq, reverse=True):
        if item.origin != "controller" or (item.owner, item.slot_label) != (owner, slot):
            continue
        inspect = yield from _read_named(f"/containers/{item.id}/json")
        shared = None if inspect is None else _shared_container(state, item, inspect)
        if shared is not None:
            return shared
    raise Denied(
        "namespace.target",
        f"no container of {asked.service} runs in slot {slot}",
        "wait until one runs",
        status=409,
    )


def _shared_container(
    state: GateState, item: ContainerItem, inspect: dict[str, Any]
) -> SharedContainer | None:
    """Return a container of the inventory, if it is there and runs."""
    labels = (inspect.get("Config") or {}).get("Labels") or {}
    host = inspect.get("HostConfig") or {}
    ours = item.adopted or labels.get(names.INSTANCE) == state.instance
    is_running = (inspect.get("State") or {}).get("Status") == "running"
    if str(inspect.get("Id", "")) != item.id or not ours or not is_running:
        return None
    return SharedContainer(
        item.id,
        shareable=host.get("IpcMode") == "shareable",
        joined=shared_ids(inspect) != (),
        shm=int(host.get("ShmSize") or 0),
    )


def container_facts(found: OwnContainer, joined: Iterable[str] = ()) -> ContainerFacts:
    """Return the facts of a container for admission.

    *joined*: its networks by the inventory, with those of connects in progress.
    """
    item, inspect = found.item, found.inspect
    namespace, service = item.namespace, item.service
    host, config = inspect.get("HostConfig") or {}, inspect.get("Config") or {}
    return ContainerFacts(
        settings=settings(inspect),
        owner=item.owner,
        namespace=namespace,
        service=service,
        origin=item.origin,
        image=item.image,
        id=item.id,
        auto_remove=bool(host.get("AutoRemove")),
        network_mode=str(host.get("NetworkMode") or ""),
        published=bool(host.get("PortBindings")),
        admitted_networks=item.admitted.networks,
        is_run=item.is_run,
        adopted=item.adopted,
        compose_service=str((config.get("Labels") or {}).get(COMPOSE_SERVICE, "")),
        joined=tuple(joined),
    )


@dataclass(frozen=True, slots=True)
class FoundNetwork:
    """A network of the engine."""

    inspect: dict[str, Any]
    #: The item in the inventory; None for an object of somebody else.
    owned: OwnedObject | None

    @property
    def facts(self) -> NetworkFacts:
        """The facts of the network for admission."""
        options = self.inspect.get("Options") or {}
        ipam = self.inspect.get("IPAM") or {}
        mine = self.owned
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
            subnet=slot_subnet(self.inspect) if mine and not mine.adopted else "",
            held={
                str(end.get("IPv4Address") or "").partition("/")[0]: str(identifier)
                for identifier, end in (self.inspect.get("Containers") or {}).items()
            },
        )


def _instance_of(inspect: dict[str, Any]) -> str:
    """Return the instance in the labels of a network or volume; '' without a valid one."""
    instance = str((inspect.get("Labels") or {}).get(names.INSTANCE) or "")
    return instance if names.is_instance(instance) else ""


def container_path(reference: str) -> str:
    """Return the path of the inspect of a container, by its full id or a valid name."""
    return f"/containers/{reference}/json"


def network_path(name: str) -> str:
    """Return the path of a network, '' for an invalid name."""
    return f"/networks/{name}" if _NAME.fullmatch(name) else ""


def volume_path(name: str) -> str:
    """Return the path of a volume, '' for an invalid name."""
    return f"/volumes/{name}" if _NAME.fullmatch(name) else ""


def find_network(state: GateState, name: str) -> Flow[FoundNetwork | None]:
    """Return the network of the engine with exactly the given name or id, or None."""
    path = network_path(name)
    if not path:
        return None
    inspect = yield from _read_named(path)
    if inspect is None:
        if name in state.inventory.networks:
            yield from record_gone(state, mutations.NETWORK_GONE, name)
        return None
    if name not in {inspect.get("Id"), inspect.get("Name")}:
        # The engine resolves a prefix of an id; the gate does so only for its own networks.
        owned = state.inventory.networks.get(str(inspect.get("Id", "")))
        if not _PREFIX.fullmatch(name) or owned is None:
            return None
    return FoundNetwork(inspect, owned_network(state, inspect))


def owned_network(state: GateState, inspect: dict[str, Any]) -> OwnedObject | None:
    """Return the inventory's item of a network, if the labels agree.

    An adopted network has none of our labels: its full id is its identity.
    """
    return _if_own(state, inspect, state.inventory.networks.get(str(inspect.get("Id", ""))))


def find_own_network(state: GateState, actor: Actor, name: str) -> Flow[FoundNetwork]:
    """Return the network of the instance with a name or id.

    Raises:
        Answered, Denied: as ``find_container``.
    """
    return _visible_network(actor, name, (yield from find_network(state, name)))


def _visible_network(actor: Actor, name: str, found: FoundNetwork | None) -> FoundNetwork:
    return _visible(actor, name, found, f"network {redact.text(name)} not found")


def _visible(actor: Actor, name: str, found: Found | None, missing: str) -> Found:
    if found is None:
        raise not_found(actor, missing, redact.text(name))
    if found.owned is None or not can_see(actor, found.owned.owner):
        raise foreign_object(missing, name)
    return found


def find_network_to_leave(
    state: GateState, actor: Actor, name: str, found: OwnContainer
) -> Flow[FoundNetwork]:
    """Return the network for *found* to leave: a network of this instance, or a joined foreign one.

    Leaving a foreign network changes nothing of that network. A client gets no information about
    foreign networks.

    Raises:
        Answered, Denied: as ``find_container``.
    """
    left = yield from find_network(state, name)
    ends = (found.inspect.get("NetworkSettings") or {}).get("Networks") or {}
    if actor.role is not Role.CLIENT and left is not None and left.facts.name in ends:
        return left
    return _visible_network(actor, name, left)


@dataclass(frozen=True, slots=True)
class FoundVolume:
    """A volume of the engine."""

    inspect: dict[str, Any]
    #: The item in the inventory; None for an object of somebody else.
    owned: OwnedObject | None

    @property
    def facts(self) -> VolumeFacts:
        """The facts of the volume for admission."""
        options = self.inspect.get("Options") or {}
        return VolumeFacts(
            name=str(self.inspect.get("Name", "")),
            ours=self.owned is not None,
            owner=self.owned.owner if self.owned else "",
            namespace=self.owned.namespace if self.owned else "",
            driver=str(self.inspect.get("Driver", "")),
            options=tuple(sorted((str(k), str(v)) for k, v in options.items())),
            instance=_instance_of(self.inspect),
            identity=self.owned.identity if self.owned else "",
        )


Found = TypeVar("Found", FoundNetwork, FoundVolume)


def find_volume(state: GateState, name: str) -> Flow[FoundVolume | None]:
    """Return the volume of a name. A volume that was removed and created elsewhere is foreign."""
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
    """Return the inventory's item of a volume, if the labels agree.

    An adopted volume has none of our labels: name and time of creation are its identity.
    """
    return _if_own(state, inspect, state.inventory.volumes.get(str(inspect.get("Name", ""))))


def find_own_volume(state: GateState, actor: Actor, name: str) -> Flow[FoundVolume]:
    """Return the volume of the instance with a name.

    Raises:
        Answered, Denied: as ``find_container``.
    """
    found = yield from find_volume(state, name)
    return _visible(actor, name, found, f"get {redact.text(name)}: no such volume")


def _if_own(
    state: GateState, inspect: dict[str, Any], owned: OwnedObject | None
) -> OwnedObject | None:
    labels = inspect.get("Labels") or {}
    if owned is not None and owned.adopted:
        return owned if owned.adopted == identity_of(inspect) else None
    if owned is None or labels.get(names.INSTANCE) != state.instance:
        return None
    return owned if labels.get(names.INTENT) == owned.intent else None


def identity_of(inspect: Mapping[str, Any]) -> str:
    """Return the identity of a foreign network or volume: its id, or its time of creation."""
    return str(inspect.get("Id") or inspect.get("CreatedAt") or "")


def uid_user_of(state: GateState, user: str, *, observes: bool) -> Flow[str]:
    """Return who else on the host has the uid of an observer; '' for nobody, and for others."""
    uid = user.partition(":")[0]
    if not observes or not uid.isdecimal():
        return ""
    items = state.inventory.containers.values()
    own = (item.id for item in items if item.confined and item.confined.observer)
    return (yield from find_uid_user(int(uid), tuple(sorted(own))))
