from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

from controller.loop.sampler import FRESH_S, WANTED_S, Sampler
from controller.model.observed import ContainerUse
from tests import worlds
from tests.instance import eventually
from tests.unit.loop.toy import Watch

WORLD = worlds.engine(worlds.container(), worlds.container("api", state="exited"))
WEB = worlds.container()


class Kernel:
    """What is counted of containers: a second more at each look."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.looked = threading.Event()

    def __call__(self, ids: Collection[str]) -> Mapping[str, ContainerUse]:
        self.asked.append([*ids])
        self.looked.set()
        return {each: ContainerUse(float(len(self.asked)), 100) for each in ids}


def test_only_running_containers_are_looked_at_and_young_figures_are_shown_again() -> None:
    kernel, watch = Kernel(), Watch()
    sampler = Sampler(kernel, lambda: (WORLD, ()), watch)
    first = sampler.look()
    assert kernel.asked == [[WEB.id]] and first.containers.keys() == {WEB.id}
    watch.time += 0.5
    assert sampler.look() is first
    watch.time += 1.5
    assert sampler.look().services[WEB.key].cpus == 0.5
    assert sampler.samples_of(WEB.key), "the first look is a sample"


def test_nothing_is_read_before_the_first_observation() -> None:
    kernel = Kernel()
    assert Sampler(kernel, lambda: (None, ()), Watch()).look().services == {}
    assert kernel.asked == [[]]


def test_samples_are_taken_while_somebody_wants_them() -> None:
    kernel, watch = Kernel(), Watch()

    def slow(ids: Collection[str]) -> Mapping[str, ContainerUse]:
        watch.time += FRESH_S  # so that the figures are old when the thread looks
        return kernel(ids)

    sampler = Sampler(slow, lambda: (WORLD, ()), watch)
    thread = threading.Thread(target=sampler.run, daemon=True)
    thread.start()
    assert kernel.asked == [], "nobody asked"
    assert len(sampler.samples_of(WEB.key)) == 1, "whoever asks for samples looks"
    eventually(lambda: len(kernel.asked) >= 2, what="a sample of the thread")
    watch.time += WANTED_S + 1
    sampler.stop()
    thread.join(10)
    assert not thread.is_alive()
