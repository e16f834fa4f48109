"""Accepting connections: short turns, rests under a flood, and no socket waits for another."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

from controller.broker.host.sockets import (
    ACCEPTED_AT_ONCE,
    PAUSE_S,
    REFUSED_AT_ONCE,
    REST_S,
    Acceptor,
)
from tests.unit.broker.serving import run, until


class Door:
    """A listening socket with waiting connections, and the number of its accepted connections."""

    def __init__(self, path: Path, waiting: int, *, admits: bool = False) -> None:
        self.accepted = 0
        self._admits = admits
        self._open = ExitStack()
        self.listening = self._open.enter_context(socket.socket(socket.AF_UNIX))
        self.listening.bind(str(path))
        self.listening.listen(waiting)
        self.listening.setblocking(False)
        for _ in range(waiting):
            self._open.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))

    def admit(self, connected: socket.socket) -> bool:
        self.accepted += 1
        connected.close()
        return self._admits

    @asynccontextmanager
    async def accepting(self, *, paced: bool) -> AsyncIterator[None]:
        acceptor = Acceptor(self.listening, self.admit, paced=paced)
        try:
            yield
        finally:
            acceptor.stop()
            self.close()

    def close(self) -> None:
        self._open.close()


async def turn(condition: Callable[[], bool]) -> None:
    """Let the event loop take turns until *condition* returns True."""
    while True:
        if condition():
            return
        await asyncio.sleep(0)


def test_a_turn_accepts_a_bounded_number(tmp_path: Path) -> None:
    async def test() -> None:
        door = Door(tmp_path / "a.sock", ACCEPTED_AT_ONCE + 5, admits=True)
        async with door.accepting(paced=True):
            await turn(lambda: door.accepted > 0)
            assert door.accepted == ACCEPTED_AT_ONCE
            await until(lambda: door.accepted == ACCEPTED_AT_ONCE + 5)

    run(test())


def test_a_paced_acceptor_rests_after_refusals_and_accepts_all_in_the_end(tmp_path: Path) -> None:
    async def test() -> None:
        door = Door(tmp_path / "a.sock", 2 * REFUSED_AT_ONCE)
        loop = asyncio.get_running_loop()
        began = loop.time()  # before the rest begins, whatever the machine does in between
        async with door.accepting(paced=True):
            await turn(lambda: door.accepted > 0)
            assert door.accepted == REFUSED_AT_ONCE
            await turn(lambda: door.accepted > REFUSED_AT_ONCE)
            assert loop.time() - began >= REST_S / 2
            assert door.accepted == 2 * REFUSED_AT_ONCE

    run(test())


def test_refusals_of_a_reserved_socket_are_no_reason_to_rest(tmp_path: Path) -> None:
    async def test() -> None:
        door = Door(tmp_path / "a.sock", 3 * REFUSED_AT_ONCE)
        async with door.accepting(paced=False):
            await turn(lambda: door.accepted > 0)
            assert door.accepted == 3 * REFUSED_AT_ONCE

    run(test())


def test_a_connection_waits_for_none_of_another_socket(tmp_path: Path) -> None:
    async def test() -> None:
        flooded, quiet = Door(tmp_path / "a.sock", 60), Door(tmp_path / "b.sock", 1)
        async with flooded.accepting(paced=True), quiet.accepting(paced=False):
            await turn(lambda: quiet.accepted > 0)
            assert flooded.accepted <= REFUSED_AT_ONCE

    run(test())


def test_a_stopped_acceptor_doesnt_resume_after_its_rest(tmp_path: Path) -> None:
    async def test() -> None:
        door = Door(tmp_path / "a.sock", REFUSED_AT_ONCE + 1)
        async with door.accepting(paced=True):
            await turn(lambda: door.accepted > 0)
        await asyncio.sleep(2 * REST_S)
        assert door.accepted == REFUSED_AT_ONCE

    run(test())


class Crowded(socket.socket):
    """A listening socket in a process whose other threads take each descriptor that is free."""

    full = False
    attempts = 0

    def accept(self) -> tuple[socket.socket, object]:
        if not self.full:
            return super().accept()
        self.attempts += 1
        with suppress(OSError):
            self.taken = os.open("/dev/null", os.O_RDONLY)
        raise OSError(errno.EMFILE, "too many open files")


def test_a_descriptor_that_another_thread_took_stays_open_and_no_attempt_follows_at_once(
    tmp_path: Path,
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def test() -> None:
        door = Door(tmp_path / "a.sock", 1, admits=True)
        listening = Crowded(fileno=os.dup(door.listening.fileno()))
        acceptor = Acceptor(listening, door.admit)
        gc.collect()  # garbage of earlier tests can hold descriptors, and free them at any time
        unused = os.dup(listening.fileno())
        os.close(unused)  # the lowest free descriptor
        resource.setrlimit(resource.RLIMIT_NOFILE, (unused, before[1]))
        listening.full = True
        try:
            began = asyncio.get_running_loop().time()
            await until(lambda: listening.attempts >= 4)
            took = asyncio.get_running_loop().time() - began
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        os.fstat(listening.taken)
        os.close(listening.taken)
        assert listening.attempts <= took / PAUSE_S + 3, "one attempt in each pause"
        listening.full = False
        await until(lambda: door.accepted == 1)
        acceptor.stop()
        door.close()

    run(test())
