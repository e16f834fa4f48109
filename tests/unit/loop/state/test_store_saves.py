"""Saves in any order leave the file of a single save at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given
from hypothesis import strategies as st

from controller.core.drift.contention import Contention
from controller.core.drift.failures import ExitCursor, SlotHistory
from controller.core.planning.quarantine import QuarantinedContainer
from controller.core.service.rollout_progress import RolloutProgress
from controller.loop.state.store import StateStore
from controller.model.desired.desired import NO_OVERRIDES, Overrides, Suspension
from controller.model.errors import StateError
from controller.model.names import Key, service_key

#: Texts and tuples order the first two differently: `a-b/` precedes `a/`.
KEYS = tuple(service_key(place, "web") for place in ("a-b", "a", "ä"))
WEB, API, _ = KEYS

Change = Callable[[StateStore, Key, int], object]


def suspend(store: StateStore, key: Key, number: int) -> None:
    suspended = Overrides(suspension=Suspension(f"uid:{number}", "2026-01-01T00:00:00Z"))
    store.of(key).overrides = suspended if number else NO_OVERRIDES


def roll_out(store: StateStore, key: Key, number: int) -> None:
    store.of(key).rollout = RolloutProgress(f"v2:{number}")


def depend(store: StateStore, key: Key, number: int) -> None:
    store.of(key).dependencies = frozenset(KEYS[:number])


def fail(store: StateStore, key: Key, number: int) -> None:
    store.slot((key, number)).history = SlotHistory(count=number)


def end(store: StateStore, key: Key, number: int) -> None:
    store.slot((key, number)).exit_cursor = ExitCursor(f"c{number}") if number else None


def contend(store: StateStore, key: Key, number: int) -> None:
    contentions = {"removed": Contention((float(number),))} if number else {}
    store.slot((key, number)).contentions = contentions


def quarantine(store: StateStore, _key: Key, number: int) -> None:
    store.quarantined = {f"c{number}": QuarantinedContainer(30.5, 1000.0, "boot", 4000.0)}


CHANGES: dict[str, Change] = {
    "accept a spec": lambda store, key, number: store.accept_spec(key, f"digest {number}"),
    "mark a spec": lambda store, key, number: store.mark_acted_on(key, number),
    "suspend": suspend,
    "roll out": roll_out,
    "depend": depend,
    "fail": fail,
    "end": end,
    "contend": contend,
    "quarantine": quarantine,
    "take down": lambda store, _key, number: store.reset_after_down(f"d{number}"),
    "drop": lambda store, key, _number: store.keep_only(frozenset(KEYS) - {key}),
    "move": lambda store, key, _number: store.copy_moved(key, KEYS),
}
KEEPING = ("save", "fail to save", "restart")


class Unwritable:
    """The crash points of a disk that can be full."""

    is_full = False

    def __call__(self, _point: str) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")


class Memory:
    """A store on a file, and its restarts."""

    def __init__(self, file: Path) -> None:
        self.file, self.disk = file, Unwritable()
        self.store = StateStore(file, reach=self.disk)

    def keep(self, act: str) -> None:
        if act == "fail to save":
            self.disk.is_full = True
            with suppress(StateError):  # without a change there is no write
                self.store.save()
            self.disk.is_full = False
            return
        self.store.save()
        if act == "restart":
            self.store = StateStore(self.file, reach=self.disk)
            self.store.load(stamp="1")

    def end(self) -> bytes:
        self.store.taken_down = "the end"
        self.store.save()
        return self.file.read_bytes()


#: A change or an act of keeping, a resource, and a number.
ACTS = st.tuples(st.sampled_from((*CHANGES, *KEEPING)), st.sampled_from(KEYS), st.integers(0, 2))


@example([("suspend", WEB, 1), ("save", WEB, 0), ("drop", WEB, 0), ("suspend", WEB, 0)])
@given(st.lists(ACTS, max_size=20))
def test_the_file_is_that_of_a_store_that_is_saved_once(
    acts: list[tuple[str, Key, int]],
) -> None:
    with TemporaryDirectory() as folder:
        often, once = (Memory(Path(folder) / name) for name in ("often.json", "once.json"))
        for act, key, number in acts:
            if act in KEEPING:
                often.keep(act)
            else:
                for memory in (often, once):
                    CHANGES[act](memory.store, key, number)
        written = often.end()
        assert written == once.end()
        assert json.loads(written) == often.store.to_json()


class Hooked(frozenset[Key]):
    """Dependencies that call *hook* when they are encoded."""

    hook: Callable[[], object]

    def __iter__(self) -> Iterator[Key]:
        self.hook()
        return super().__iter__()


def test_a_change_during_a_save_is_part_of_the_next_one(tmp_path: Path) -> None:
    """Passes change states without the lock of a save."""
    store = StateStore(tmp_path / "state.json")
    for key in (WEB, API):
        dependencies = Hooked({key})
        dependencies.hook = lambda: [store.accept_spec(each, "meanwhile") for each in (WEB, API)]
        store.of(key).dependencies = dependencies
    assert store.save()
    assert store.save()
    again = StateStore(tmp_path / "state.json")
    again.read()
    assert all(again.of(key).generation for key in (WEB, API))
