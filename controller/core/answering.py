"""What containers answer to by name, and that nobody takes over a name of another owner's.

On a network of ours the engine resolves a container's name, its aliases and its host name. Where
owners share a network, a name that two of them answer to would lead the one's traffic to the
other. First come, first served: who comes later is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controller.core.bodies import CreateRequest, Finding
from controller.model import names
from controller.model.inventory import Item


@dataclass(frozen=True, slots=True)
class Answering:
    """Whose container answers to which names, in which networks (by name)."""

    owner: str
    networks: frozenset[str]
    names: frozenset[str]


def answering(owner: str, networks: Iterable[str], told: Iterable[str]) -> Answering:
    """Return one; names resolve in any case, and an empty one is none."""
    return Answering(owner, frozenset(networks), frozenset(name.lower() for name in told if name))


def of_item(item: Item) -> Answering:
    """Return what a container of the inventory answers to."""
    # A client's service is a label; it resolves only where it is an alias, too.
    service = item.service if item.origin == "controller" else ""
    told = (item.admitted.name, service, *item.aliases)
    return answering(item.owner, item.admitted.networks, told)


def of_summary(summary: Mapping[str, Any]) -> Answering:
    """Return what the container of an open create will answer to, by its intent's summary."""
    labels, settings = _mapping(summary.get("labels")), _mapping(summary.get("settings"))
    by_controller = labels.get(names.ORIGIN) == "controller"
    service = str(labels.get(names.SERVICE, "")) if by_controller else ""
    told = (str(summary.get("name", "")), service, *_texts(summary.get("answersTo")))
    return answering(str(labels.get(names.OWNER, "")), _texts(settings.get("networks")), told)


def beside_its_name(request: CreateRequest, aliases: Iterable[str]) -> list[str]:
    """Return what a new container answers to besides its name, for the journal."""
    return sorted({name for name in (request.hostname, *aliases) if name})


def clashes(
    mine: Answering, others: Iterable[Answering], *, free: Iterable[str] = ()
) -> Iterator[Finding]:
    """Yield each name of mine that another owner's container answers to where both are.

    *free* are names that the policy leaves to everybody.
    """
    taken: set[str] = set()
    for other in others:
        if other.owner != mine.owner and other.networks & mine.networks:
            taken |= other.names
    for name in sorted((mine.names & taken) - {each.lower() for each in free}):
        yield Finding(
            "network.name-taken",
            "NetworkingConfig",
            f"another owner's container answers to {name!r} on a network that both would share",
            "choose another name, or ask root for a namespace of your own",
        )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
