"""Ordinary Compose stacks, by docker compose and by trimtab: no difference that `try` doesn't announce.

Two stacks that hold most attributes; `make ring KIND=compose-side` compares all (docs/compose-stacks.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tools.stacks.side_by_side import compare_stack
from tools.stacks.sides import STACKS, load_images

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine


@pytest.mark.needs_root
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["blog", "vault"])
def test_a_stack_is_the_same_with_docker_compose_but_for_announced_differences(
    engine: PrivateEngine | FoundEngine, name: str
) -> None:
    load_images(engine)
    compared = compare_stack(engine, STACKS / name)
    assert compared.missing == ()
    assert compared.unannounced == ()
