"""What the simulated engine consists of: its objects, its events, and what it is about to do."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable

from tests.sim.clock import VirtualClock, nanoseconds
from tests.sim.objects import (
    PREDEFINED,
    Body,
    SimContainer,
    SimImage,
    SimNetwork,
    SimVolume,
)

#: The engine keeps so many events.
RING = 256


class Refusal(Exception):
    """An answer of the engine that isn't a success."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class State:
    """Objects by id (images and volumes by name), found as the engine finds them."""

    def __init__(
        self,
        clock: VirtualClock,
        *,
        images: Iterable[SimImage] = (),
        registry: Iterable[SimImage] = (),
        seed: int = 0,
        engine_id: str = "00000000-0000-4000-8000-000000000001",
    ) -> None:
        self.clock = clock
        self.engine_id = engine_id
        self.images = {image.reference: image for image in images}
        self.registry = {image.reference: image for image in registry}
        self.registry_up = True
        #: Members of a create and of an update that are dropped without a word.
        self.discards: frozenset[str] = frozenset()
        #: Whether the storage has project quotas, which hold the sizes of volumes.
        self.holds_sizes = False
        #: References of images whose programs never answer, or only now and then; both are troubled.
        self.ill: set[str] = set()
        self.flapping: set[str] = set()
        self.troubled: frozenset[str] = frozenset()
        #: What containers of a service have been once, by namespace and name: running, healthy.
        self.been: dict[tuple[str, str], set[str]] = {}
        self.containers: dict[str, SimContainer] = {}
        self.networks: dict[str, SimNetwork] = {}
        #: Execs by id, their commands, and each one that was run in a container.
        self.execs: dict[str, Body] = {}
        self.commands: dict[str, tuple[str, ...]] = {}
        self.been_run: list[tuple[str, tuple[str, ...]]] = []
        self.volumes: dict[str, SimVolume] = {}
        self.events: list[Body] = []
        #: How many events there were: a clock can be set back, so times don't tell.
        self.emitted = 0
        self.lives = 1  # its process began so often
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        for name, driver in PREDEFINED:
            self._add_network(SimNetwork("", name, driver, clock.now(), predefined=True))

    def later(self, delay_s: float, act: Callable[[], object]) -> None:
        """Do something once *delay_s* passed."""
        self._count += 1
        due = self.clock.monotonic() + delay_s
        heapq.heappush(self._due, (due, self._count, lambda: (act(), None)[1]))

    def next_due(self) -> float | None:
        """Return when the next thing happens by itself (monotonic)."""
        return self._due[0][0] if self._due else None

    def settle(self) -> None:
        """Let everything happen whose time has come."""
        while self._due and self._due[0][0] <= self.clock.monotonic():
            heapq.heappop(self._due)[2]()

    def find(self, reference: str) -> SimContainer | None:
        """Return a container by id, name or an id's unique beginning."""
        if reference in self.containers:
            return self.containers[reference]
        for container in self.containers.values():
            if container.name == reference.removeprefix("/"):
                return container
        begin = [c for c in self.containers.values() if c.id.startswith(reference)]
        return begin[0] if len(begin) == 1 and reference else None

    def image(self, reference: str) -> SimImage | None:
        """Return a local image by reference, digest or id."""
        for image in self.images.values():
            if reference in {image.id, image.reference}:
                return image
            if image.digest and reference == f"{image.repository}@{image.digest}":
                return image
        return None

    def _container(self, reference: str) -> SimContainer:
        container = self.find(reference)
        if container is None:
            raise Refusal(404, f"No such container: {reference}")
        return container

    def _network(self, reference: str) -> SimNetwork:
        network = self.networks.get(reference) or self._by_name(reference)
        if network is None:
            raise Refusal(404, f"network {reference} not found")
        return network

    def _by_name(self, name: str) -> SimNetwork | None:
        return next((each for each in self.networks.values() if each.name == name), None)

    def _network_name(self, reference: str) -> str:
        network = self.networks.get(reference)
        return reference if network is None else network.name

    def _volume(self, name: str) -> SimVolume:
        if name not in self.volumes:
            raise Refusal(404, f"get {name}: no such volume")
        return self.volumes[name]

    def _add_network(self, network: SimNetwork) -> SimNetwork:
        network.id = self._identifier()
        if network.driver == "bridge":
            network.subnet = 17 + len(self.networks) % 200
        self.networks[network.id] = network
        if not network.predefined:
            attributes = {"name": network.name, "type": network.driver}
            self._event_of("network", "create", network.id, attributes)
        return network

    def _add_volume(self, volume: SimVolume) -> None:
        self.volumes[volume.name] = volume
        self._event_of("volume", "create", volume.name, {"driver": volume.driver})

    def _identifier(self) -> str:
        return f"{self._random.getrandbits(256):064x}"

    def _event(self, kind: str, action: str, container: SimContainer, **more: str) -> None:
        attributes = {
            **container.config["Labels"],
            "image": container.config["Image"],
            "name": container.name,
            **more,
        }
        self._event_of(kind, action, container.id, attributes)

    def _event_of(self, kind: str, action: str, subject: str, attributes: Body) -> None:
        time_ns = nanoseconds(self.clock.now())
        self.events.append(
            {
                "Type": kind,
                "Action": action,
                "Actor": {"ID": subject, "Attributes": attributes},
                "scope": "local",
                "time": time_ns // 1_000_000_000,
                "timeNano": time_ns,
            }
        )
        self.emitted += 1
        del self.events[:-RING]
