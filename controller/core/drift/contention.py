"""Contention: another program alters a slot's container again and again, or holds its host port.

Contention: another program alters, stops or removes a slot's container again and again.

Healing at once is right against a mistake. Against a program that never gives up, each side would
change the container forever. From its fourth alteration within ten minutes a field is contended,
and healed only after growing pauses. A stop and a removal count as fields. Ten minutes without an
alteration clear the history.

Pure. Instants are seconds of the wall clock, which can jump: an instant in the future counts as
now.

Host ports: whether another program holds a port of the next container, before anything stops.

The answer is given only where it is certain. Listening ports come from the network namespace of
this process. The engine has the same namespace only if the published ports of the service's own
containers show up there.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from controller.core.drift.actions import healed_by
from controller.core.drift.classify import ALIVE, alterations
from controller.model.desired.desired import Service
from controller.model.desired.plan import AnyAction
from controller.model.observed import Container, HostPort

#: The "fields" for a stop and a removal of the whole container.
REMOVED = "removed"
STOPPED = "stopped"
ENDED = frozenset({REMOVED, STOPPED})
#: More than this many alterations within ``WITHIN_S`` seconds are a contention.
AGAIN = 3
WITHIN_S = 600.0
FIRST_S = 2.0
FACTOR = 3.0
LONGEST_S = 300.0


@dataclass(frozen=True, slots=True)
class Contention:
    """The alterations of a field in a slot."""

    #: The instants of the last alterations, oldest first.
    times: tuple[float, ...] = ()
    #: Alterations since the contention began; 0: not contended.
    rounds: int = 0
    #: The ids of containers with the alteration at the last observation.
    altered: frozenset[str] = frozenset()


CALM = Contention()
NOTHING_ENDED: Mapping[str, str] = MappingProxyType({})


def observe(
    contentions: Mapping[str, Contention],
    containers: Iterable[Container],
    now: float,
    *,
    ended: Mapping[str, str] = NOTHING_ENDED,
) -> dict[str, Contention]:
    """Return a slot's contentions after an observation; fields without alterations are left out.

    *ended* has the container that was stopped or removed from outside, by ``STOPPED`` and
    ``REMOVED``.
    """
    altered = {name: {identifier} for name, identifier in ended.items()}
    for container in containers:
        known = container.state in ALIVE and container.admitted is not None
        known = known and not container.violation
        for each in alterations(container) if known else ():
            altered.setdefault(each.what, set()).add(container.id)
    names = sorted(contentions.keys() | altered.keys())
    after = {
        name: update(contentions.get(name, CALM), altered.get(name, ()), now) for name in names
    }
    return {name: contention for name, contention in after.items() if contention != CALM}


def update(contention: Contention, altered: Collection[str], now: float) -> Contention:
    """Return a contention after an observation; *altered* are the containers with the alteration.

    A container counts once, even if it stays altered because its repair waits.
    """
    times = tuple(at for each in contention.times if now - (at := min(each, now)) < WITHIN_S)
    rounds = contention.rounds if times else 0
    if not contention.altered.issuperset(altered):
        times = (*times, now)[-AGAIN - 1 :]
        rounds = rounds + 1 if rounds or len(times) > AGAIN else 0
    return Contention(times, rounds, frozenset(altered))


def record_healing(
    contentions: Mapping[str, Contention], action: AnyAction
) -> dict[str, Contention]:
    """Return a slot's contentions after an action: its healed fields are no longer altered."""
    names = healed_by(action)
    return {
        name: replace(contention, altered=contention.altered - {action.precondition.id})
        if name in names
        else contention
        for name, contention in contentions.items()
    }


def not_before(contention: Contention) -> float:
    """Return the next instant to heal a field; 0 without contention."""
    if not contention.rounds:
        return 0.0
    return contention.times[-1] + min(LONGEST_S, FIRST_S * FACTOR ** min(contention.rounds - 1, 10))


def is_contended(contention: Contention, now: float) -> bool:
    """Return True if a field is contended and was altered recently."""
    return contention.rounds > 0 and now - contention.times[-1] < WITHIN_S


_LISTEN = "0A"
#: The state of udp(7) sockets that are bound and not connected.
_UNBOUND = "07"
_ANY_IPV4 = str(ipaddress.IPv4Address(0))


def parse_sockets(text: str, protocol: str) -> frozenset[HostPort]:
    """Return the bound ports in ``/proc/net/tcp``, ``tcp6``, ``udp`` or ``udp6`` (proc(5)).

    *protocol* is ``tcp`` or ``udp``. Unreadable lines are skipped.
    """
    wanted = _LISTEN if protocol == "tcp" else _UNBOUND
    ports = set()
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 4 or fields[3] != wanted:
            continue
        address, _, port = fields[1].partition(":")
        try:
            ports.add(HostPort(_address(address), int(port, 16), protocol))
        except ValueError:
            continue
    return frozenset(ports)


def _address(digits: str) -> str:
    """Return an address from the kernel's hex: words of four bytes in the machine's order."""
    raw = bytes.fromhex(digits)
    if len(raw) not in (4, 16):
        raise ValueError(digits)
    words = (raw[at : at + 4] for at in range(0, len(raw), 4))
    packed = b"".join(int.from_bytes(word, "big").to_bytes(4, sys.byteorder) for word in words)
    return str(ipaddress.ip_address(packed))


def port_taken(
    service: Service, containers: Iterable[Container], listening: frozenset[HostPort]
) -> HostPort | None:
    """Return a host port of *service* that another program holds; None if there is none, or
    unknown.

    *containers* are the service's own.
    """
    own = {port for container in containers for port in container.ports}
    if not own or not own <= listening:
        return None
    others = set(listening - own)
    # A socket bound to :: takes connections of IPv4 as well.
    others |= {replace(port, address=_ANY_IPV4) for port in others if port.address == "::"}
    published = (port.published for each in service.spec.ports for port in each.each)
    return next((p for p in published if p and any(map(p.overlaps, others))), None)
