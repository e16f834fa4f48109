"""The loss of each part of the state folder, alone and in pairs: no second writer, and no other password.

Bugs that are planted here are found by the checker of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest

from controller.broker.gate.state import GateState
from controller.broker.guards import recovery
from controller.broker.secrets.opener import GeneratedValues
from controller.core.planning.service_order import Ordering
from tests.sim.checkers import ADDRESSES
from tests.sim.losses import DATA, LOST, LossWorld
from tests.sim.planted import Plant, always
from tests.sim.violation import Violation

JOURNAL, KEY, GENERATED = r"broker/journal/.*", r"broker/secrets\.key", r"broker/generated/.*"
CASES = [(part,) for part in LOST] + [*combinations(LOST, 2)]


@pytest.mark.parametrize("lost", CASES, ids=" ".join)
def test_no_loss_starts_a_second_writer_or_changes_a_password(lost: tuple[str, ...]) -> None:
    LossWorld(*lost).tell()


@pytest.mark.parametrize("lost", [case for case in CASES if JOURNAL in case], ids=" ".join)
def test_a_container_that_is_not_taken_over_holds_its_slot_until_it_is_ended(
    lost: tuple[str, ...],
) -> None:
    LossWorld(*lost, changed=True).tell()


def _always_made(original: Callable[..., Any]) -> Callable[..., Any]:
    def opened(self: GeneratedValues, bound: Any, source: Any, *, make: str) -> Any:
        return original(self, bound, source, make="always" if make == "unless-lost" else make)

    return opened


PLANTS = (
    (
        (JOURNAL, KEY),
        Plant(
            DATA,
            "foreign-overlooked",
            "a container outside the inventory holds only its name",
            (
                (Ordering, "_held_by_foreign", always(lambda *_: None)),
                (recovery, "refuse_if_slot_held", always(lambda *_: None)),
            ),
        ),
    ),
    (
        (GENERATED,),
        Plant(
            DATA,
            "lost-values-made-anew",
            "a missing file of generated values is made anew",
            ((GeneratedValues, "open", _always_made),),
        ),
    ),
    (
        (JOURNAL, GENERATED),
        Plant(
            DATA,
            "nothing-doubted",
            "objects of a lost state folder say nothing of the values in their namespace",
            ((GateState, "doubted_namespaces", always(frozenset())),),
        ),
    ),
)


@pytest.mark.parametrize(("lost", "plant"), PLANTS, ids=lambda each: getattr(each, "patch", ""))
def test_a_bug_that_loses_data_is_found(lost: tuple[str, ...], plant: Plant) -> None:
    # A second writer has another address than its slot, which can be seen first.
    with plant.growing(), pytest.raises(Violation, match=f"invariant ({DATA}|{ADDRESSES}):"):
        LossWorld(*lost, changed=JOURNAL in lost).tell()
