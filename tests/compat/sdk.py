"""Python clients of a row's role: expressions come in, what they are or raise goes out.

Run as a process of the caller's uid; one for all rows, since importing the clients takes long.
"""

from __future__ import annotations

import ast
import asyncio
import itertools
import json
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import docker
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import CodeType

IMAGE, SERVED = "trimtab.local/worker:1", "trimtab.local/web:1"


def logs_after(container: DockerContainer, text: str) -> str:
    """Start a container of Testcontainers', wait until it prints *text*, and end it."""
    with container.waiting_for(LogMessageWaitStrategy(text)) as started:
        return started.get_logs()[0].decode()


def error_of(call: Callable[[], object]) -> str:
    """Return what a call raises."""
    try:
        return f"no error: {call()}"
    except docker.errors.APIError as error:
        return str(error)


async def event_of(aio: Any, made: Awaitable[object]) -> dict[str, Any]:
    """Return the first event of aiodocker after *made*."""
    channel = aio.events.subscribe()
    await made
    found: dict[str, Any] = await channel.get()
    return found


async def typed(container: Any, text: bytes) -> object:
    """Return what a container of aiodocker answers to a text."""
    async with container.attach(stdin=True, stdout=True, stderr=True) as stream:
        await container.start()
        await stream.write_in(text)
        return (await stream.read_out()).data


class Things:
    """What an expression speaks of; its container, network and volume are made for it.

    ``shown`` is a container that all expressions look at.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._client = docker.from_env(timeout=30)
        self._told = told
        self._aiodocker: Any = None
        sys.path.append(told["PACKAGES"])
        self._numbers = itertools.count()

    def of(self, expression: str) -> dict[str, Any]:
        """Return the names in an expression, and what they are."""
        makers: dict[str, Callable[[], Any]] = {
            "container": self._container,
            "shown": self._shown,
            "network": lambda: self._client.networks.create(self._free()),
            "volume": lambda: self._client.volumes.create(self._free()).name,
            "free": self._free,
            "aio": self._aio,
        }
        named = compiled(expression).co_names
        made = {name: make() for name, make in makers.items() if name in named}
        return {
            "client": self._client,
            "DockerContainer": DockerContainer,
            "logs_after": logs_after,
            "error_of": error_of,
            "event_of": event_of,
            "typed": typed,
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

    def _aio(self) -> Any:
        if self._aiodocker is None:
            self._aiodocker = import_module("aiodocker").Docker()
        return self._aiodocker

    def _free(self) -> str:
        return f"{self._told['PREFIX']}-{next(self._numbers)}"


def compiled(expression: str) -> CodeType:
    """Return the code of an expression, which may await."""
    code: CodeType = compile(expression, "row", "eval", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return code


async def value_of(expression: str, things: Things) -> object:
    """Return the value of an expression."""
    found = eval(compiled(expression), things.of(expression))
    return await found if asyncio.iscoroutine(found) else found


def main() -> None:
    """Answer each line of standard input: an expression, for its value or error."""
    things = Things(json.loads(sys.stdin.readline()))
    loop = asyncio.new_event_loop()  # aiodocker keeps its connections to it
    for line in sys.stdin:
        expression = json.loads(line)
        try:
            told = {"value": repr(loop.run_until_complete(value_of(expression, things)))}
        except Exception as error:  # noqa: BLE001 - it is what the row is about
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
