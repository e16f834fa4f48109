"""Python clients of a row's role: expressions come in, what they are or raise goes out.

Run as a process of the caller's uid; one for all rows, since importing the clients takes long.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import docker
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE, SERVED = "trimtab.local/worker:1", "trimtab.local/web:1"


def logs_after(container: DockerContainer, text: str) -> str:
    """Start a container of Testcontainers', wait until it prints *text*, and end it."""
    with container.waiting_for(LogMessageWaitStrategy(text)) as started:
        return started.get_logs()[0].decode()


class Things:
    """What an expression speaks of; its container, network and volume are made for it.

    ``shown`` is a container that all expressions look at.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._client = docker.from_env(timeout=30)
        self._told = told
        self._numbers = itertools.count()

    def of(self, expression: str) -> dict[str, Any]:
        """Return the names in an expression, and what they are."""
        makers: dict[str, Callable[[], Any]] = {
            "container": self._container,
            "shown": self._shown,
            "network": lambda: self._client.networks.create(self._free()),
            "volume": lambda: self._client.volumes.create(self._free()).name,
            "free": self._free,
        }
        named = compile(expression, "row", "eval").co_names
        made = {name: make() for name, make in makers.items() if name in named}
        return {
            "client": self._client,
            "DockerContainer": DockerContainer,
            "logs_after": logs_after,
            "IMAGE": IMAGE,
            "SERVED": SERVED,
            **self._told,
            **made,
        }

    def _container(self) -> Any:
        return self._client.containers.run(IMAGE, detach=True)

    @cache  # noqa: B019 - one for all rows that only look
    def _shown(self) -> Any:
        return self._container()

    def _free(self) -> str:
        return f"{self._told['PREFIX']}-{next(self._numbers)}"


def main() -> None:
    """Answer each line of standard input: an expression, for its value or error."""
    things = Things(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        expression = json.loads(line)
        try:
            told = {"value": repr(eval(expression, things.of(expression)))}
        except Exception as error:  # noqa: BLE001 - it is what the row is about
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
