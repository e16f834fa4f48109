"""Lock files, for callers with and without an event loop."""

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.model.errors import StateError
from controller.system.durable_files import hold_lock, hold_lock_async

Hold = Callable[..., int]


def hold_in_a_loop(path: Path, *, program: str, monotonic: Callable[[], float]) -> int:
    return asyncio.run(hold_lock_async(path, program=program, monotonic=monotonic))


both = pytest.mark.parametrize("hold", [hold_lock, hold_in_a_loop])


@both
def test_one_process_holds_a_lock(tmp_path: Path, hold: Hold) -> None:
    handle = hold(tmp_path / "lock", program="broker", monotonic=time.monotonic)
    with pytest.raises(StateError, match="another broker holds") as caught:
        hold(tmp_path / "lock", program="broker", monotonic=itertools.count().__next__)
    assert caught.value.code == "state.held"
    os.close(handle)
    os.close(hold(tmp_path / "lock", program="broker", monotonic=time.monotonic))


@both
def test_a_dying_holder_is_waited_for(tmp_path: Path, hold: Hold) -> None:
    holder = hold(tmp_path / "lock", program="broker", monotonic=time.monotonic)
    timer = threading.Timer(0.1, os.close, [holder])
    timer.start()
    # A clock that stands: on a busy machine the timer may come late.
    os.close(hold(tmp_path / "lock", program="broker", monotonic=lambda: 0.0))
    timer.join()


@both
def test_a_lock_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path: Path, hold: Hold) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "missing" / "lock", tmp_path / "link"):
        with pytest.raises(StateError) as caught:
            hold(path, program="broker", monotonic=time.monotonic)
        assert caught.value.code == "state.unwritable"
        assert "run the broker as the owner" in caught.value.remedy


def test_a_waiter_that_is_cancelled_leaves_no_descriptor_open(tmp_path: Path) -> None:
    holder = hold_lock(tmp_path / "lock", program="broker", monotonic=time.monotonic)

    async def test() -> None:
        waiting = hold_lock_async(tmp_path / "lock", program="x", monotonic=time.monotonic)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiting, 0.05)

    asyncio.run(test())
    os.close(holder)
    os.close(hold_lock(tmp_path / "lock", program="x", monotonic=time.monotonic, wait_s=0.0))
