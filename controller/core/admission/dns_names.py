"""What containers answer to by name, and that nobody takes over a name of another owner's.

On a network of ours the engine resolves a container's name, its aliases and its host name. Where
owners share a network, a name that two of them answer to would lead the one's traffic to the
other. First come, first served: who comes later is refused. The containers of one service are none
that come later: its owner may change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controller.core.encoding.json_members import mapping_member, texts_of
from controller.core.engine_api.requests import CreateRequest, Finding
from controller.model import names
from controller.model.inventory import ContainerItem


@dataclass(frozen=True, slots=True)
class DnsNames:
    """Whose container answers to which names, in which networks (by name).

    ``service`` is the key of the service that the controller made it for; '' for a client's.
    """

    owner: str
    networks: frozenset[str]
    names: frozenset[str]
    service: str = ""


def answering(
    owner: str, networks: Iterable[str], told: Iterable[str], *, service: str = ""
) -> DnsNames:
    """Return one; names resolve in any case, and an empty one is none."""
    lowered = frozenset(name.lower() for name in told if name)
    return DnsNames(owner, frozenset(networks), lowered, service)


def of_item(item: ContainerItem) -> DnsNames:
    """Return what a container of the inventory answers to."""
    # A client's service is a label; it resolves only where it is an alias, too.
    service = item.service if item.origin == "controller" else ""
    told = (item.admitted.name, service, *item.aliases)
    return answering(item.owner, item.admitted.networks, told, service=service_of(item))


def service_of(item: ContainerItem) -> str:
    """Return the key of the service that a container was made for; '' for a client's."""
    return f"{item.namespace}/{item.service}" if item.origin == "controller" else ""


def of_summary(summary: Mapping[str, Any]) -> DnsNames:
    """Return what the container of an open create will answer to, by its intent's summary."""
    labels, settings = mapping_member(summary, "labels"), mapping_member(summary, "settings")
    by_controller = labels.get(names.ORIGIN) == "controller"
    service = str(labels.get(names.SERVICE, "")) if by_controller else ""
    told = (str(summary.get("name", "")), service, *texts_of(summary.get("answersTo")))
    owner, networks = str(labels.get(names.OWNER, "")), texts_of(settings.get("networks"))
    key = f"{labels.get(names.NAMESPACE, '')}/{service}" if by_controller else ""
    return answering(owner, networks, told, service=key)


def beside_its_name(request: CreateRequest, aliases: Iterable[str]) -> list[str]:
    """Return what a new container answers to besides its name, for the journal."""
    return sorted({name for name in (request.hostname, *aliases) if name})


def clashes(
    mine: DnsNames, others: Iterable[DnsNames], *, free: Iterable[str] = ()
) -> Iterator[Finding]:
    """Yield each name of mine that another owner's container answers to where both are.

    Not what the service's own containers answer to, whoever owned it when they were made. *free* are names that the policy leaves to everybody.
    """
    taken: set[str] = set()
    for other in others:
        same = mine.service != "" and other.service == mine.service
        if other.owner != mine.owner and not same and other.networks & mine.networks:
            taken |= other.names
    for name in sorted((mine.names & taken) - {each.lower() for each in free}):
        yield Finding(
            "network.name-taken",
            "NetworkingConfig",
            f"another owner's container answers to {name!r} on a network that both would share",
            "choose another name, or ask root for a namespace of your own",
        )
