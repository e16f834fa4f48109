"""Problems of the networks and volumes of a document: missing, foreign, or of another size."""

from __future__ import annotations

from controller.core.engine_api.mount_grammar import is_known_volume, size_of_volume
from controller.core.engine_api.remote_volumes import RemoteVolume, read_remote, remote_of
from controller.model.desired.desired import Network, Service, Volume
from controller.model.errors import Problem
from controller.model.names import Key
from controller.model.observed import Observed, ObservedNetwork, ObservedVolume
from controller.model.quantities import KIB, format_bytes


def unadopted(
    declared: Network | Volume | None,
    source: Service | Network | Volume,
    found: ObservedNetwork | ObservedVolume | None = None,
) -> Problem | None:
    """Return the problem of an object with an ``engineName`` that is missing, or *found* and foreign.

    It is never created. None for another object.
    """
    if declared is None or declared.spec.engine_name is None or (found and found.ours):
        return None
    kind, name = declared.key.kind.lower(), declared.engine_name
    place = f"{declared.key.namespace}/{declared.key.name}"
    make = "" if found else f"docker {kind} create {name}, then "
    why = "no operator adopted it" if found else f"the engine has no such {kind}"
    return problem_of(
        source,
        code="volume.not-adopted" if kind == "volume" else "network.not-adopted",
        message=f"{declared.key} has the engineName {name}, and {why}",
        remedy=f"{make}trimtab {kind} adopt {name} --as {place} --owner {declared.owner}; or remove "
        f"engineName (in a Compose file, {kind}s of x-trimtab)",
    )


def adopted_elsewhere(
    kind: str, name: str, namespace: str, source: Service | Network | Volume
) -> Problem:
    """Return the problem of a network or volume that belongs to another namespace."""
    return problem_of(
        source,
        code="volume.foreign" if kind == "volume" else "network.foreign",
        message=f"the {kind} {name} was adopted for the namespace {namespace}",
        remedy=f"adopt it for {source.key.namespace}, or declare it in {namespace}",
    )


def foreign_network(network: ObservedNetwork, source: Service | Network) -> Problem:
    """Return the problem of an unusable network with a needed name."""
    why = "isn't what it should be" if network.ours else "isn't ours"
    return problem_of(
        source,
        code="network.foreign",
        message=f"the network {network.name} on this engine {why}",
        remedy=f"remove it (docker network rm {network.name}), or name another one: "
        "a declared network in its document, an implied one in the policy's networks",
    )


def foreign_volume(volume: ObservedVolume, source: Service | Volume) -> Problem | None:
    """Return the problem of an unusable volume with a needed name; None for a usable one.

    A volume with a driver or options of its own can be any directory of the host.
    """
    if volume.belongs_to not in {"", source.key.namespace}:
        return adopted_elsewhere("volume", volume.name, volume.belongs_to, source)
    if volume.ours and is_known_volume(volume.driver, volume.options):
        return None
    why = "isn't a plain local one" if volume.ours else "isn't ours"
    return problem_of(
        source,
        code="volume.foreign",
        message=f"the volume {volume.name} on this engine {why}",
        remedy="name another volume, or rename that one's data to it by hand",
    )


def size_problem(volume: ObservedVolume, declared: Volume) -> Problem | None:
    """Return the problem of a volume with another size or folder than declared; None for the declared one.

    The engine can't change the size of a volume, and no volume is removed for a size. Services go on
    with the volume. A document without a size accepts the size of an adopted volume.
    """
    found, remote = read_remote(dict(volume.options)), declared.spec.remote
    if (found if isinstance(found, RemoteVolume) else None) != (remote_of(remote)):
        return problem_of(
            declared,
            code="volume.remote-changed",
            message=f"the volume {volume.name} is another folder than its document says, and a volume keeps its own",
            remedy="declare a Volume of another name, or remove that one by hand once nothing uses it",
        )
    size, wanted = size_of_volume(volume.options), declared.spec.size
    if size == wanted or (wanted is None and declared.spec.engine_name is not None):
        return None
    has, says = (format_bytes(each) if each else "no size" for each in (size, wanted))
    keep = _present_size(size, declared)
    move = (
        "dump it, declare a Volume of another name with the new size, and restore the dump into that "
        "(docs/volumes.md)"
    )
    return problem_of(
        declared,
        code="volume.size",
        message=f"the volume {volume.name} was made with {has}, its document says {says}, and a "
        "volume keeps its size",
        remedy=f"{keep}; or {move}" if keep else move,
    )


def _present_size(size: int | None, declared: Volume) -> str:
    """Return how the document accepts the volume's size; empty if the document can't.

    A document has no notation for a size that is no multiple of 1 KiB.
    """
    if size is None:
        return "write no size"
    if size % KIB == 0:
        return f"write size: {format_bytes(size)}"
    return "write no size" if declared.spec.engine_name is not None else ""


def unread_problem(key: Key, observed: Observed, service: Service | None) -> Problem:
    """Return the problem of a service with a container that can't be read."""
    message = f"a container of {key} can't be read, so nothing is changed: {observed.unread[key]}"
    remedy = "look at it with docker inspect past the gate, and remove it: it is created again"
    if service is None:
        return Problem("engine.garbled", message, remedy=remedy, key=key)
    return problem_of(service, code="engine.garbled", message=message, remedy=remedy)


def problem_of(
    source: Service | Network | Volume, *, code: str, message: str, remedy: str
) -> Problem:
    """Return a problem at the place of a document."""
    file, line = source.source.file, source.source.line
    return Problem(code, message, file, line, remedy=remedy, key=source.key)
