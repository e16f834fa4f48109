"""Passes that need the same network share one creation of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from controller.loop.executor import ActionDone, Execution
from controller.loop.workqueue import SharedCreations
from controller.model.desired.plan import (
    AnyAction,
    CreateNetwork,
    RemoveNetwork,
)
from controller.model.errors import Conflict, EngineFailed
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.records import Context, Precondition
from controller.ports import EngineEvent
from tests.unit.loop.test_controller import house
from tests.unit.loop.test_executor import Sequence
from tests.unit.loop.toy import House, ToyEngine
from tests.worlds import ISOLATED, WEB, engine, network, service

NAMES = ("api", "db", "web")


@dataclass
class Crowd(ToyEngine):
    """An engine that all passes look at before any of them acts, and that has one of each name."""

    meeting: threading.Barrier | None = None
    acting: threading.Lock = field(default_factory=threading.Lock)
    met: set[int] = field(default_factory=set)

    def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:
        with self.acting:
            seen = super().observe(images=images, only=only)
        me = threading.get_ident()
        if self.meeting is not None and me not in self.met:
            self.met.add(me)
            self.meeting.wait(timeout=60)
        return seen

    def perform(self, action: AnyAction, context: Context) -> str:
        with self.acting:
            foreign = {each.name for each in self.world.networks if not each.ours}
            if isinstance(action, CreateNetwork) and action.target in foreign:
                raise Conflict("engine.conflict", f"{action.target} already exists")
            return super().perform(action, context)


def crowd(folder: Path) -> House:
    data = [{"type": "volume", "source": "data", "target": "/data", "shared": True}]
    services = [service(name, mounts=data) for name in NAMES]
    home = house(folder, services=tuple(services))
    home.engine = Crowd(world=engine(networks=(), volumes=()))
    home.restart()
    return home


def pass_together(home: House) -> list[str]:
    """Run a pass of each service at the same time; return how those that failed did."""
    for _ in range(2):  # the files, and the first look
        home.controller.run_chore(home.controller.chores.poll())  # type: ignore[arg-type]
    keys = [service(name).key for name in NAMES]
    assert isinstance(home.engine, Crowd)
    home.engine.meeting = threading.Barrier(len(keys))
    with ThreadPoolExecutor(len(keys)) as pool:
        results = list(pool.map(home.controller.handle, keys))
    return [r.failure.message for r in results if r is not None and r.failure is not None]


def test_passes_that_find_the_same_network_and_volume_missing_make_them_once(
    tmp_path: Path,
) -> None:
    home = crowd(tmp_path)
    assert pass_together(home) == []
    made = [each for each in home.engine.done if each.startswith(("create-n", "create-v"))]
    assert sorted(made) == ["create-network platform-network", "create-volume data"]
    assert sum(each.startswith("start-container") for each in home.engine.done) == len(NAMES)


def test_who_waited_for_a_creation_that_failed_makes_it_itself(tmp_path: Path) -> None:
    home = crowd(tmp_path)
    failing = [EngineFailed("engine.failed", "no space left")]
    home.engine.fault = lambda a: (
        failing.pop() if isinstance(a, CreateNetwork) and failing else None
    )
    assert pass_together(home) == ["no space left"]
    made = [each for each in home.engine.done if each.startswith("create-network")]
    assert made == ["create-network platform-network !", "create-network platform-network"]


def test_what_is_not_ours_is_never_used_in_the_place_of_what_is_missing() -> None:
    there = Crowd(world=engine(networks=(replace(ISOLATED, ours=False),)))
    action = CreateNetwork(
        object=WEB,
        target="platform-network",
        cause="",
        precondition=Precondition(absent="platform-network"),
        owner="team",
    )

    def run() -> Execution:
        return Sequence(there, creations=SharedCreations()).execute([action])

    error = run().error
    assert error is not None and error.message == "platform-network already exists"
    there.world = engine(networks=(ISOLATED,))
    assert run().done == (ActionDone(action, ISOLATED.id, shared=True),)
    assert there.done == []


def test_what_somebody_removes_again_and_again_is_created_after_growing_pauses(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, networks=(network("lan"),))
    home.engine.world = engine(networks=())
    create = ["create-network lan"]

    def remove() -> None:
        networks = tuple(n for n in home.engine.world.networks if n.name != "lan")
        home.engine.world = replace(home.engine.world, networks=networks)
        home.controller.handle_event(EngineEvent(1, "network", "destroy", "", None))

    for _ in range(4):  # first, and then three times at once
        assert home.settle() == create
        remove()
    for pause_s in (2, 6, 18):
        assert home.settle() == []
        assert home.condition("lan", "Progressing") == ("True", "Waiting")
        told = "create.contended: lan is repeatedly removed from outside"
        assert home.message("lan", "Progressing").startswith(told)
        report: Any = home.controller.status()
        assert report["resources"][0]["nextTry"]["reason"].startswith(told)
        # It counts from when it was created the last time.
        assert home.let_pass(pause_s - 0.5) == []
        assert home.let_pass(0.6) == create
        remove()
    home.let_pass(700)
    remove()
    assert home.settle() == create, "quiet for ten minutes"


def test_what_trimtab_removed_itself_is_created_at_once() -> None:
    creations = SharedCreations()
    lan: dict[str, Any] = {"object": WEB, "target": "lan", "cause": ""}
    create, remove = CreateNetwork(**lan, owner="team"), RemoveNetwork(**lan)
    for _ in range(9):
        assert creations.wait_s(create, 5.0) == 0
        creations.record_action(create, 5.0)
        creations.record_action(remove, 5.0)
    assert creations.wait_s(create, 5.0) == 0
