"""The bare floor: a client of the engine's own socket that does only what is necessary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

from tools.benches.engine_api import ask

T = TypeVar("T")
#: Members of a container's inspect that a create repeats.
_CONFIG: Final = (
    "Image", "Env", "Cmd", "Entrypoint", "User", "WorkingDir", "StopTimeout", "StopSignal",
    "Healthcheck", "ExposedPorts",
)  # fmt: skip
_CLEARERS: Final = 4


class Bare:
    """The engine's socket, asked without a broker."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._numbers = count()

    def create_and_start(self, like: dict[str, Any]) -> str:
        """Create and start a container with the settings of another one; return the id."""
        number = next(self._numbers)
        mode = like["HostConfig"]["NetworkMode"]
        body = {
            **{name: like["Config"][name] for name in _CONFIG if like["Config"].get(name)},
            "Labels": {f"bench.{number}": "x" for number in range(10)},
            "HostConfig": like["HostConfig"],
        }
        if mode != "none":
            aliases = {"Aliases": [f"bare{number}"]}
            body["NetworkingConfig"] = {"EndpointsConfig": {mode: aliases}}
        made = ask(self.socket, "POST", f"/containers/create?name=bare-{number}", body)["Id"]
        ask(self.socket, "POST", f"/containers/{made}/start")
        return str(made)

    def time_one(self, like: dict[str, Any]) -> float:
        """Return the seconds of one create and start; the container is removed again."""
        began = monotonic()
        made = self.create_and_start(like)
        took_s = monotonic() - began
        self.remove(made)
        return took_s

    def remove(self, container: str) -> None:
        """Remove a container by force."""
        ask(self.socket, "DELETE", f"/containers/{container}?force=1")

    def clear(self) -> None:
        """Remove every container and every network of users from the engine."""
        listed = ask(self.socket, "GET", "/containers/json?all=1")
        in_parallel((partial(self.remove, each["Id"]) for each in listed), _CLEARERS)
        ask(self.socket, "POST", "/networks/prune")

    def time_many(self, like: dict[str, Any], containers: int, *, workers: int) -> float:
        """Return the seconds of many creates and starts with so many in flight.

        A network of users that the containers join is created first, as every client must.
        """
        mode = like["HostConfig"]["NetworkMode"]
        began = monotonic()
        if mode != "none":
            body = {"Name": "bare", "Driver": "bridge", "Internal": True}
            ask(self.socket, "POST", "/networks/create", body)
            like = {**like, "HostConfig": {**like["HostConfig"], "NetworkMode": "bare"}}
        in_parallel([partial(self.create_and_start, like)] * containers, workers)
        return monotonic() - began


def in_parallel(acts: Iterable[Callable[[], T]], workers: int) -> list[T]:
    """Run acts with so many in flight, and return their results; the first error is raised."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda act: act(), acts))
