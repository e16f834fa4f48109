"""Bugs planted where objects are recognised: each must be found by some story of ``identity_model``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller.broker.guards import conflicts, kernel_verify
from controller.core.rules import networks
from tests.sim.planted import Plant, always

#: The invariant that no container reaches another owner's object.
OWN = 18


def _by_name(original: Any) -> Any:
    """Take each network of an admitted name for the admitted one."""

    def joined_of(
        state: Any, item: Any, policy: Any, inspect: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        admitted = item.admitted.networks
        return tuple(
            replace(each, own=each.own or each.name in admitted)
            for each in original(state, item, policy, inspect)
        )

    return joined_of


IDENTITY_PLANTS: tuple[Plant, ...] = (
    Plant(
        OWN,
        "identity-started-by-name",
        "a start joins whatever network has the admitted name",
        ((networks, "is_admitted", always(lambda *_: True)),),
    ),
    Plant(
        OWN,
        "identity-verified-by-name",
        "a container in a network of an admitted name runs as admitted",
        ((kernel_verify, "joined_of", _by_name),),
    ),
    Plant(
        OWN,
        "identity-names-not-judged-again",
        "a container is started under a name that it got past the gate",
        ((conflicts, "refuse_clashes", always(lambda *_: None)),),
    ),
    Plant(
        OWN,
        "identity-found-names-not-held",
        "a name that a container got past the gate stays free to others",
        ((conflicts, "names_of", always(conflicts._recorded_names)),),
    ),
)
