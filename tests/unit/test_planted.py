"""The simulation's planted bugs patch what exists, by something that can be called the same way."""

from __future__ import annotations

import inspect
from types import FunctionType

import pytest

from tests.sim.planted import PLANTS, Plant
from tests.sim.planted_budget import BUDGET_PLANTS
from tests.sim.planted_identity import IDENTITY_PLANTS
from tests.sim.test_configs import PLANTED as CONFIGS
from tests.sim.test_everlasting import PLANTED

EACH = [
    *PLANTS,
    *BUDGET_PLANTS,
    *IDENTITY_PLANTS,
    *(plant for plant, _world in PLANTED),
    *CONFIGS,
]


@pytest.mark.parametrize("plant", EACH, ids=lambda plant: plant.patch)
def test_a_patch_is_called_like_the_original(plant: Plant) -> None:
    for owner, name, wrong in plant.places:
        original = inspect.getattr_static(owner, name)
        if not isinstance(original, FunctionType):
            continue
        positional = [
            each.name
            for each in inspect.signature(original).parameters.values()
            if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
        ]
        named = {
            each.name: None
            for each in inspect.signature(original).parameters.values()
            if each.default is each.empty and each.kind is each.KEYWORD_ONLY
        }
        inspect.signature(wrong(original)).bind(*positional, **named)
