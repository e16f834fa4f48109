"""A policy file that others can change is refused, at a reload and at the start of the broker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.gate.fixtures import Knobs, World
from tests.gate.roles import CONTROLLER
from tests.instance import eventually

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    made = World(engine, [])
    try:
        yield made
    finally:
        made.close()


def policy_file(world: World) -> Path:
    return world.folder / "policy.yaml"


def error_of(world: World) -> str:
    return str(world.must("operator", "GET", "/trimtab/v1/health")["policy"]["error"])


def test_a_policy_that_others_can_change_replaces_nothing(world: World) -> None:
    path, before = policy_file(world), world.policy_digest()
    loosened = yaml.safe_dump({**yaml.safe_load(Knobs().policy()), "name": "loosened"})
    path.chmod(0o646)
    world.gate.reload(loosened)
    eventually(lambda: "can be written by every user" in error_of(world), what="the error")
    assert world.policy_digest() == before
    path.chmod(0o644)
    os.chown(path, CONTROLLER, -1)
    world.gate.reload(loosened)
    eventually(lambda: "belongs to the controller's user" in error_of(world), what="the error")
    assert world.policy_digest() == before
    os.chown(path, 0, -1)
    world.gate.reload(loosened)
    eventually(lambda: not error_of(world), what="the policy in force")
    assert world.policy_digest() != before


def test_a_broker_does_not_start_with_a_policy_that_others_can_change(world: World) -> None:
    world.gate.close()
    policy_file(world).chmod(0o666)
    world.gate.start()
    assert not world.gate.crashed(), "it ended by itself"
    assert "policy.exposed" in world.gate.log.read_text()
    policy_file(world).chmod(0o644)
    world.gate.start()
    eventually(world.gate.serves, what="the broker's socket")
