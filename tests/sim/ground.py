"""The ground that a world stands on: its engine, files, journal, clock, and what may happen next."""

from __future__ import annotations

import heapq
import logging
import random
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from controller.model.policy.document import Policy
from controller.model.records import Role
from controller.ports import EngineFacts
from tests.memory import MEMORY
from tests.sim.broker import Places
from tests.sim.checkers import Checkers, Scene
from tests.sim.clock import VirtualClock
from tests.sim.controller import SimController
from tests.sim.engine import SimEngine
from tests.sim.faults import Action, Fault, Faults
from tests.sim.files import SECRET, Doc, Files
from tests.sim.journal import SimJournal
from tests.sim.objects import SimImage
from tests.sim.people import Marks
from tests.sim.sourced import files_of

POLICY = Policy.model_validate_json(
    """{"name": "simulated", "profile": "development",
        "images": {"allow": ["trimtab.local/", "ghcr.io/platformnetwork/"],
                   "trustLocal": ["trimtab.local/"], "anonymousVolumes": "slot"},
        "security": {"sharedNamespaces": ["network"]},
        "clients": [{"uid": 2000, "owner": "guest"}]}"""
)


def _image(reference: str, digit: str, *, digest: str = "") -> SimImage:
    return SimImage(reference, f"sha256:{digit * 64}", digest=digest, exposed=("8080/tcp",))


LOCAL = tuple(
    _image(f"trimtab.local/{name}:{tag}", f"{index}")
    for index, (name, tag) in enumerate(
        [("web", "1"), ("web", "2"), ("web", "3"), ("db", "1"), ("db", "2"), ("job", "1")], 1
    )
)
REGISTRY = tuple(
    _image(f"ghcr.io/platformnetwork/app:{tag}", digit, digest=f"sha256:{digit * 64}")
    for tag, digit in (("1", "a"), ("2", "b"))
)


#: After how long something happens, what, and how.
Event = tuple[float, str, Callable[[], object]]


class Story(Protocol):
    """What a world is about: its documents, and what people do, and when.

    ``keep_s``: how long what was pruned is kept. Programs of images in ``ill`` never answer, those of
    ``flapping`` ones now and then.
    """

    @property
    def keep_s(self) -> float: ...

    @property
    def ill(self) -> frozenset[str]: ...

    @property
    def flapping(self) -> frozenset[str]: ...

    def docs(self, secret: str) -> Iterable[Doc]:
        """Return the documents that the world begins with."""
        ...

    def events(self, world: Any) -> Iterable[Event]:
        """Return what happens from outside."""
        ...


@dataclass(slots=True)
class Now:
    """What is being done: the request, and the fault that meets it."""

    role: Role | None = None
    fault: Fault | None = None
    action: Action | None = None
    forwarded: bool = False


@dataclass(slots=True)
class Trace:
    """What happened, in a line each; shown when a world fails."""

    lines: list[str] = field(default_factory=list)

    def note(self, now: float, what: str) -> None:
        self.lines.append(f"{now:10.3f}  {what}")


class Secrets(logging.Handler):
    """Looks for a secret in whatever is logged."""

    def __init__(self, secret: str) -> None:
        super().__init__(logging.DEBUG)
        self._secret = secret
        self.found = ""

    def emit(self, record: logging.LogRecord) -> None:
        if self._secret in self.format(record):
            self.found = record.name


class Ground:
    """What is there, and what was planned to happen."""

    def __init__(self, seed: int, faults: Faults, keep_s: float) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.clock = VirtualClock()
        self.trace = Trace()
        self.faults = faults
        self.keep_s = keep_s
        self.marks = Marks()
        self.engine = SimEngine(self.clock, images=LOCAL, registry=REGISTRY, seed=seed)
        self.folder = Path(tempfile.mkdtemp(prefix="trimtab-sim-", dir=MEMORY))
        self.files = self.make_files()
        self.secret = SECRET.format(seed=seed)
        self.logged = Secrets(self.secret)
        self.now = Now()
        self.away = False
        self.deaf = False
        self.controller: SimController | None = None
        self._todo: list[tuple[float, int, str, Callable[[], object]]] = []
        self._count = 0
        self.checkers = Checkers(
            Scene(
                clock=self.clock,
                engine=self.engine,
                marks=self.marks,
                secret=self.secret,
                journal_full=lambda: self.journal.full,
                stale=self._is_stale,
                role=lambda: self.now.role,
                keep_s=self.keep_s,
            )
        )
        self.journal = SimJournal(self.clock, self.checkers.written)
        facts = EngineFacts(self.engine.engine_id, "26.1.5", "1.45", 4, 16 << 30)
        self.places = Places(self.clock, self.journal, self.make_policy(), facts, self.new_id)

    def make_files(self) -> Files:
        """Return the files of the world."""
        return files_of(self.seed, self.folder)

    def make_policy(self) -> Policy:
        """Return the policy of the world's brokers."""
        return POLICY

    def _is_stale(self) -> bool:
        return self.controller is not None and self.controller.transport.stale

    def at(self, after_s: float, what: str, do: Callable[[], object]) -> None:
        """Plan something."""
        self._count += 1
        heapq.heappush(self._todo, (self.clock.monotonic() + after_s, self._count, what, do))

    @property
    def planned(self) -> float | None:
        """When the next planned thing comes."""
        return self._todo[0][0] if self._todo else None

    def happen(self) -> None:
        """Let the next planned thing happen."""
        _, _, what, do = heapq.heappop(self._todo)
        told = do()
        self.note(f"{what}{f': {told}' if isinstance(told, str) else ''}")
        self.checkers.look()

    def call_off(self) -> None:
        """Plan nothing any more, but the restarts of what died."""
        self._todo = [each for each in self._todo if each[2].startswith("restart")]
        heapq.heapify(self._todo)

    def files_changed(self) -> None:
        """Hint that the files changed, as a watch does a moment later."""
        if self.controller is not None and not self.deaf:
            self.at(0.1, "files changed", self._hint_files)

    def _hint_files(self) -> None:
        if self.controller is not None:
            self.controller.loop.files_changed()

    def new_id(self) -> str:
        """Return a UUIDv7 of virtual time."""
        milliseconds = round(self.clock.now() * 1000)
        value = (milliseconds & (2**48 - 1)) << 80 | self.random.getrandbits(80)
        value = value & ~(0xF << 76) | 0x7 << 76
        value = value & ~(0b11 << 62) | 0b10 << 62
        digits = f"{value:032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def note(self, what: str) -> None:
        self.trace.note(self.clock.monotonic() - 1000.0, what)
