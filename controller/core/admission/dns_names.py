"""The DNS names of containers, and the check against taking over another owner's name.

On a network of ours the engine resolves a container's name, aliases and host name. If owners share
a network, two containers with the same name could get each other's traffic. So the later container
is refused. Containers of the same service never clash, because the owner of a service can change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from controller.core.engine_api.requests import CreateRequest, Finding
from controller.core.records.parts import SummaryPart
from controller.model import names
from controller.model.inventory import ContainerItem


@dataclass(frozen=True, slots=True)
class DnsNames:
    """A container's names, and the networks (by name) on which they resolve."""

    owner: str
    networks: frozenset[str]
    names: frozenset[str]
    service: str = ""  # key of the service if the controller created the container, else ''


def make_dns_names(
    owner: str, networks: Iterable[str], texts: Iterable[str], *, service: str = ""
) -> DnsNames:
    """Return the names in lower case, as DNS ignores case, without empty ones."""
    lowered = frozenset(text.lower() for text in texts if text)
    return DnsNames(owner, frozenset(networks), lowered, service)


def of_item(item: ContainerItem) -> DnsNames:
    """Return the names of a container in the inventory."""
    # For a client's container the service is only a label, not a name that resolves.
    service = item.service if item.origin == "controller" else ""
    texts = (item.admitted.name, service, *item.aliases)
    return make_dns_names(item.owner, item.admitted.networks, texts, service=service_of(item))


def service_of(item: ContainerItem) -> str:
    """Return the key of a container's service; '' for a client's container."""
    return f"{item.namespace}/{item.service}" if item.origin == "controller" else ""


def of_summary(summary: SummaryPart) -> DnsNames:
    """Return the future names of the container of an open create, by the summary of its intent."""
    by_controller = summary.label(names.ORIGIN) == "controller"
    service = summary.label(names.SERVICE) if by_controller else ""
    texts = (summary.name, service, *summary.aliases)
    key = f"{summary.label(names.NAMESPACE)}/{service}" if by_controller else ""
    networks = summary.settings.networks
    return make_dns_names(summary.label(names.OWNER), networks, texts, service=key)


def extra_names(request: CreateRequest, aliases: Iterable[str]) -> list[str]:
    """Return a new container's host name and aliases, for the journal."""
    return sorted({name for name in (request.hostname, *aliases) if name})


def clashes(
    mine: DnsNames, others: Iterable[DnsNames], *, free: Iterable[str] = ()
) -> Iterator[Finding]:
    """Yield a finding for each name of *mine* that another owner's container also has.

    Only containers on a shared network count. Containers of the same service do not count, whoever
    owned the service at their create. *free* are the names that the policy leaves to everybody.
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
