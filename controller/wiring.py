"""The composition root: builds adapters and hands them what they need.

The only reader of clock, randomness, environment and signals. Imports are inside the functions,
so that the broker's process never loads what belongs to the controller, and ``status`` loads
neither.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from controller.launch import (
    CRASH_AT,
    Launch,
    broker_recipe,
    controller_recipe,
    controller_socket,
    controller_user,
    prepare,
)
from controller.model.crashpoints import CRASH_POINTS, Reach, pass_by
from controller.model.errors import UsageError
from controller.process.assembly import Assembly
from controller.settings import STANDARD_SOCKET

if TYPE_CHECKING:
    from collections.abc import Mapping


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()


def new_id() -> str:
    """Return a new UUIDv7 (RFC 9562, section 5.7): ordered by time, else random."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0b11 << 62) | 0b10 << 62  # variant
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_instance_id() -> str:
    """Return a new instance id: 16 hex digits."""
    return secrets.token_hex(8)


def crash_reach(environ: Mapping[str, str]) -> Reach:
    """Return the ``reach`` of this process: nothing, or a kill at the point that is named.

    ``TRIMTAB_CRASH_AT=NAME`` or ``NAME:N`` for the N-th time the point is reached.

    Raises:
        UsageError: there is no such point.
    """
    wanted = environ.get(CRASH_AT)
    if not wanted:
        return pass_by
    name, _, count = wanted.partition(":")
    if name not in CRASH_POINTS:
        raise UsageError("crash-point.unknown", f"{CRASH_AT} names no crash point: {name}")
    left = int(count or "1")

    def reach(point: str) -> None:
        nonlocal left
        if point == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reach


def engine_url(explicit: str | None) -> str:
    """Return the engine's address: as given, else ``$DOCKER_HOST``, else the standard socket."""
    return explicit or os.environ.get("DOCKER_HOST") or STANDARD_SOCKET


def prepare_launch(
    root: Path,
    *,
    directory: Path,
    engine: str | None,
    policy: str | None,
    controller_user_name: str | None,
    rebind: bool,
) -> Launch:
    """Make the state folder ready for ``up``; raises as ``launch.prepare``."""
    return prepare(
        root,
        directory=directory,
        engine=engine_url(engine),
        policy=policy,
        user=controller_user(controller_user_name, uid=os.getuid()),
        new_instance_id=new_instance_id(),
        rebind=rebind,
    )


@contextmanager
def both(launch: Launch) -> Iterator[Assembly]:
    """Run broker and controller as children until the block ends; then the broker last."""
    assembly = Assembly(monotonic=time.monotonic, wait=time.sleep)
    try:
        child = assembly.start(broker_recipe(launch, os.environ))
        assembly.await_socket(child, launch.state.broker_socket)
        with controller_socket(launch.state, user=launch.user) as listener:
            assembly.start(controller_recipe(launch, os.environ, listener=listener))
            yield assembly
    finally:
        assembly.stop()


@contextmanager
def broker_alone(launch: Launch) -> Iterator[Path]:
    """Run a broker as a child until the block ends, and yield its socket."""
    assembly = Assembly(monotonic=time.monotonic, wait=time.sleep)
    try:
        child = assembly.start(broker_recipe(launch, os.environ))
        assembly.await_socket(child, launch.state.broker_socket)
        yield launch.state.broker_socket
    finally:
        assembly.stop()
