"""Signals to a command that shows something: none is lost, and none blocks it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from controller.cli.output.terminal import SignalWaiter

USED = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in USED]
    yield
    for number, handler in zip(USED, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.timeout(20)  # a signal that ends no wait takes 60 s
def test_a_signal_before_a_wait_ends_it() -> None:
    waiter = SignalWaiter(stop=[signal.SIGUSR1], wake=[signal.SIGUSR2])
    os.kill(os.getpid(), signal.SIGUSR2)
    waiter.wait(60)
    assert not waiter.stopped
    os.kill(os.getpid(), signal.SIGUSR1)
    waiter.wait(60)
    assert waiter.stopped


def test_more_signals_than_the_pipe_holds_block_nobody() -> None:
    waiter = SignalWaiter(stop=[signal.SIGUSR1], wake=[signal.SIGUSR2])
    for _ in range(70_000):
        waiter._wake(signal.SIGUSR2, None)
    waiter._stop(signal.SIGUSR1, None)
    assert waiter.stopped


@pytest.mark.timeout(20)
def test_a_readable_descriptor_ends_a_wait() -> None:
    waiter = SignalWaiter(stop=[signal.SIGUSR1])
    reader, writer = os.pipe()
    os.write(writer, b"x")
    waiter.wait(60, descriptor=reader)
    assert not waiter.stopped
    os.close(reader)
    os.close(writer)
