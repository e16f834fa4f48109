"""The DNS names of containers, and the check against taking over another owner's name.

On a network of ours the engine resolves a container's name, aliases, host name and short id. If
owners share a network, two containers with the same name could get each other's traffic. So the
later container is refused. Containers of the same service never clash, because the owner of a
service can change.

The engine resolves ``NAME.NETWORK`` too. It looks for a container of the whole text first, on all
networks of the asking container, and only then for ``NAME`` on the network ``NETWORK``. So no
container answers to a name that ends in the name of a network of others.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from controller.core.engine_api.requests import CreateRequest, Finding
from controller.core.records.parts import CreatePart, SummaryPart
from controller.core.rules.identity import is_controllers_name
from controller.model import names
from controller.model.inventory import ContainerItem
from controller.model.policy.sections import Networks

_REMEDY = "choose another name, or ask root for a namespace of your own"
_ID_PREFIX = re.compile(r"[0-9a-f]{12,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class DnsNames:
    """A container's names, and the networks (by name) on which they resolve."""

    owner: str
    networks: frozenset[str]
    names: frozenset[str]
    service: str = ""  # key of the service if the controller created the container, else ''
    id: str = ""  # the full id; '' before the create
    joined: frozenset[str] = frozenset()  # further networks of the container, without new names

    def answers_to(self, name: str) -> bool:
        """Return True if the engine or a person could take a name for this container."""
        return name in self.names or (
            self.id.startswith(name) and _ID_PREFIX.fullmatch(name) is not None
        )

    def answering_to(self, texts: Iterable[str]) -> DnsNames:
        """Return the names with further ones."""
        return replace(self, names=self.names | _comparable(texts))

    @property
    def network_keys(self) -> frozenset[str]:
        """The names of all networks of the container in lower case, as in ``names``."""
        return frozenset(network.lower() for network in self.networks | self.joined)

    @property
    def suffixes(self) -> dict[str, str]:
        """The names of networks in which the names could end, each with such a name.

        Without names that only the controller gives: a client can't have them on any network.
        """
        given = {name for name in self.names if self.service and is_controllers_name(name)}
        return {
            ending: name
            for name in sorted(self.names - given, reverse=True)
            for ending in endings(name)
        }


def endings(name: str) -> Iterator[str]:
    """Yield each part of a name that the engine could read as a network: all after each dot.

    For example ``db.net.org`` yields ``net.org`` and ``org``.
    """
    while "." in name:
        name = name.partition(".")[2]
        yield name


def make_dns_names(
    owner: str,
    networks: Iterable[str],
    texts: Iterable[str],
    *,
    service: str = "",
    identifier: str = "",
    joined: Iterable[str] = (),
) -> DnsNames:
    """Return the names as DNS compares them: in lower case, without a last dot, and not empty."""
    known = frozenset(networks)
    return DnsNames(
        owner, known, _comparable(texts), service, identifier, frozenset(joined) - known
    )


def _comparable(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(lower for text in texts if (lower := text.lower().rstrip(".")))


def shown_names(inspect: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names to which the engine lets a container answer, by its inspect."""
    identifier = str(inspect.get("Id") or "")
    config, settings = inspect.get("Config") or {}, inspect.get("NetworkSettings") or {}
    yield str(inspect.get("Name") or "").removeprefix("/")
    shown = [str(config.get("Hostname") or "")]
    for end in (settings.get("Networks") or {}).values():
        shown += map(str, (end or {}).get("Aliases") or ())
    # The beginning of its own id belongs to no other container.
    yield from (name for name in shown if name and not identifier.startswith(name))


def of_item(item: ContainerItem, *, without: Container[str] = ()) -> DnsNames:
    """Return the names of a container in the inventory, in its networks but for those *without*."""
    # For a client's container the service is only a label, not a name that resolves.
    # Nor does a job's name: its runs have no alias.
    service = item.service if item.origin == "controller" and not item.is_run else ""
    texts = (item.admitted.name, service, *item.aliases)
    return make_dns_names(
        item.owner,
        [name for name in item.admitted.networks if name not in without],
        texts,
        service=service_of(item),
        identifier=item.id,
    )


def service_of(item: ContainerItem) -> str:
    """Return the key of a container's service; '' for a client's container."""
    return f"{item.namespace}/{item.service}" if item.origin == "controller" else ""


def of_summary(summary: SummaryPart) -> DnsNames:
    """Return the future names of the container of an open create, by the summary of its intent."""
    by_controller = summary.label(names.ORIGIN) == "controller"
    service = summary.label(names.SERVICE) if by_controller else ""
    alias = "" if names.run_of_slot(summary.label(names.SLOT)) else service
    create = summary.part(CreatePart)
    texts = (summary.name, alias, *create.aliases)
    key = f"{summary.label(names.NAMESPACE)}/{service}" if by_controller else ""
    networks = create.settings.networks
    return make_dns_names(summary.label(names.OWNER), networks, texts, service=key)


def extra_names(request: CreateRequest, aliases: Iterable[str]) -> list[str]:
    """Return a new container's host name and aliases, for the journal."""
    return sorted({name for name in (request.hostname, *aliases) if name})


def clashes(mine: DnsNames, others: Iterable[DnsNames], *, policy: Networks) -> Iterator[Finding]:
    """Yield a finding for each name of *mine* that another owner's container could be asked by.

    Only containers on a shared network count. Containers of the same service do not count, whoever
    owned the service at their create. ``policy.aliases`` are left to everybody.
    """
    free = {each.lower() for each in policy.aliases}
    neighbours = _neighbours(mine, others)
    near = [other for other in neighbours if other.networks & mine.networks]
    for name in taken_names(mine, near, policy=policy):
        reason = f"another owner's container answers to {name!r} on a network that both would share"
        yield Finding("network.name-taken", "NetworkingConfig", reason, _REMEDY)
    yield from _own_network_names(mine, near, policy, free)
    yield from _others_network_names(mine, neighbours)


def taken_names(mine: DnsNames, others: Iterable[DnsNames], *, policy: Networks) -> Iterator[str]:
    """Yield each name of *mine* to which another owner's container on a network of both answers."""
    near = [each for each in _neighbours(mine, others) if each.networks & mine.networks]
    for name in sorted(mine.names - {each.lower() for each in policy.aliases}):
        if any(other.answers_to(name) for other in near):
            yield name


def _neighbours(mine: DnsNames, others: Iterable[DnsNames]) -> list[DnsNames]:
    """Return the containers of other owners and services on the networks of *mine*."""
    reached = mine.networks | mine.joined
    return [
        other
        for other in others
        if other.owner != mine.owner
        and other.networks & reached
        and not (mine.service and other.service == mine.service)
    ]


def _own_network_names(
    mine: DnsNames, neighbours: Iterable[DnsNames], policy: Networks, free: set[str]
) -> Iterator[Finding]:
    """Yield a finding for each name of *mine* that others could read as ``NAME.NETWORK``."""
    theirs = frozenset[str]().union(*(other.network_keys for other in neighbours))
    for ending, name in sorted(mine.suffixes.items()):
        if name not in free and (is_shared_network(ending, policy) or ending in theirs):
            reason = (
                f"{name!r} has the form NAME.NETWORK: containers of other owners find their own "
                f"neighbours on the network {ending} by such names"
            )
            yield Finding("network.name-reserved", "NetworkingConfig", reason, _REMEDY)


def _others_network_names(mine: DnsNames, neighbours: Iterable[DnsNames]) -> Iterator[Finding]:
    """Yield a finding for each name of a neighbour that *mine* could read as ``NAME.NETWORK``."""
    for other in neighbours:
        for ending in sorted(other.suffixes.keys() & mine.network_keys):
            reason = (
                f"another owner's container on a network that both would share answers to a name "
                f"of the form NAME.{ending}, which stands for containers on the network {ending}"
            )
            remedy = "leave one of the networks, or ask root for a namespace of your own"
            yield Finding("network.name-taken", "NetworkingConfig", reason, remedy)


def is_shared_network(name: str, policy: Networks) -> bool:
    """Return True if a name in lower case is that of a network open to several owners.

    These are the networks that a namespace implies, also of namespaces without any, and the
    networks that the policy grants.
    """
    bases = (policy.isolated, policy.ingress, policy.bridge)
    return name in {each.lower() for each in (*policy.granted, *bases)} or any(
        name.startswith(f"{base.lower()}.") for base in bases
    )
