"""The look of a pass: which image it asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.service.prune_guard import DesiredView
from controller.loop.passes import observe_key
from controller.model.observed import Image, Observed
from tests import worlds
from tests.unit.loop.toy import ToyEngine

PINNED = Image("sha256:" + "9" * 64)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("now", [True, False])
def test_a_look_asks_for_the_pin_or_else_for_the_reference(*, before: bool, now: bool) -> None:
    web = worlds.service()
    bare = worlds.engine()
    pinned = replace(bare, images={**bare.images, PINNED.id: PINNED}, pins={web.revision: PINNED})
    engine = ToyEngine(pinned if now else bare)
    view = DesiredView(worlds.declared(web))
    seen: Observed = observe_key(engine, web.key, view, pinned if before else bare)
    # The broker drops a pin when a person restarts the service, and has one after the first create.
    assert (PINNED.id if now else web.spec.image) in seen.images
    assert engine.looks == (1 if before == now else 2)


def test_a_new_pin_on_the_image_of_the_reference_needs_no_second_look() -> None:
    web = worlds.service()
    bare = worlds.engine()
    image = bare.images[web.spec.image]
    assert image is not None
    engine = ToyEngine(replace(bare, pins={web.revision: image}))
    observe_key(engine, web.key, DesiredView(worlds.declared(web)), bare)
    assert engine.asked_images == [frozenset({web.spec.image})]
