"""The stage of measurements on a real engine: an engine, an instance with services, and the peer.

Lines that need the same stage share one, since its set-up takes longer than the measurements.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests import engine as engines
from tests.instance import Host, eventually
from tools.suite.bare import Bare
from tools.suite.compose import Compose

#: Services of an ordinary host.
SERVICES: Final = 50
_READY_S: Final = 180.0
#: The spec of most services. The limit is low, so that lines can raise it.
PLAIN: Final = """\
network: {mode: none}
resources: {memory: 64Mi}
rollout: {minHealthy: 1s}
"""


def document(name: str, spec: str = PLAIN) -> str:
    """Return a document that declares a small service; *spec* has lines of the spec."""
    lines = "".join(f"  {line}\n" for line in spec.splitlines())
    return (
        "apiVersion: trimtab/v1\nkind: Service\n"
        f"metadata: {{name: {name}, owner: team}}\n"
        f"spec:\n  image: trimtab.local/worker:1\n{lines}"
    )


class Stage:
    """The parts that lines ask for, made at the first use and removed at the end."""

    def __init__(self, *, rounds: int) -> None:
        #: The most rounds of a line.
        self.rounds = rounds
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @cached_property
    def engine(self) -> engines.PrivateEngine:
        """An engine of the suite's own."""
        engine = engines.open_engine()
        self._stack.callback(engine.close)
        assert isinstance(engine, engines.PrivateEngine), "needs root: an engine of its own"
        return engine

    @cached_property
    def bare(self) -> Bare:
        """The bare client of the engine."""
        return Bare(self.engine.socket)

    @cached_property
    def compose(self) -> Compose:
        """The peer's project, not started."""
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))
        return Compose(self.engine, Path(folder))

    @cached_property
    def running(self) -> Host:
        """An instance that runs, with ``SERVICES`` converged services without a network."""
        host = self.new_host()
        for number in range(SERVICES):
            host.write(f"s{number}.yaml", document(f"s{number}"))
        host.up()
        host.await_ready(within_s=_READY_S)
        return host

    @cached_property
    def peer(self) -> Compose:
        """The peer's project with ``SERVICES`` running services like those of ``running``."""
        self.compose.declare(self.like, SERVICES)
        self.compose.up()
        return self.compose

    @cached_property
    def like(self) -> dict[str, Any]:
        """The inspect of a container of ``running``."""
        return self.running.containers("s0")[0]

    def new_host(self) -> Host:
        """Return another instance on the engine, not started."""
        host = Host(self.engine)
        self._stack.callback(host.close)
        return host


def await_settled(host: Host, services: Iterable[str]) -> None:
    """Wait until each service is Ready with one container: nothing of a change is left."""
    for service in services:
        eventually(
            partial(_is_settled, host, service), within_s=_READY_S, what=f"{service} settled"
        )


def _is_settled(host: Host, service: str) -> bool:
    return host.is_ready(service) and len(host.containers(service)) == 1
