"""The validator of a model is built when the model is first used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import get_args

import pytest
from pydantic import GetCoreSchemaHandler, create_model
from pydantic_core import CoreSchema

from controller.core.manifests.declaration import ResourceSpec
from controller.model.desired.spec.fields import Model
from controller.model.policy.document import Policy

THREADS = 4


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Let the interpreter change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Name(str):
    """A text that counts how often a validator is built for it."""

    __slots__ = ()
    built = 0

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        cls.built += 1
        return handler(str)


@pytest.mark.usefixtures("frequent_switches")
def test_a_first_use_by_several_threads_builds_once() -> None:
    """Two builds at once take each other's schema away (pydantic before 2.14)."""
    models = 20
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(models):
            made = create_model("Made", __base__=Model, name=Name)
            together = Barrier(THREADS)

            def use(made: type[Model] = made, together: Barrier = together) -> Model:
                together.wait()
                return made.model_validate_json('{"name": "a"}')

            used = [pool.submit(use) for _ in range(THREADS)]
            assert [each.result().model_dump() for each in used] == [{"name": "a"}] * THREADS
    assert Name.built == models


def models_below(model: type[Model]) -> set[type[Model]]:
    return {each for below in model.__subclasses__() for each in {below, *models_below(below)}}


def test_defaults_that_were_not_validated_are_valid() -> None:
    """A default of a field is made with ``model_construct``, which runs no validator."""
    assert {*get_args(ResourceSpec), Policy} <= models_below(Model)
    checked = 0
    for model in models_below(Model):
        for field in model.model_fields.values():
            default = field.default
            if isinstance(default, Model) and type(default).__module__.startswith("controller."):
                given = {name: getattr(default, name) for name in default.model_fields_set}
                assert default == type(default).model_validate(given)
                checked += 1
    assert checked > 30
