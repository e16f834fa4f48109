"""Pairs of features: a few documents in which each two values of two features meet once, and each three
values of the features that decide how a container is replaced.

``ROWS`` is a covering array. A row is the whole life of a service in a world of its own, without faults
(``lifetime``): it comes, changes, is restarted, and goes. Each step is over when the product has nothing
to do any more, after a bounded number of acts.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from controller.app.desired_state import DesiredFiles, charts_folder
from controller.broker.gate.commands import OpenSecret, ReadSecret, SecretOpened, SecretValue
from controller.core.compose.translation.scope import ComposeSettings, settings_of
from controller.core.planning.deliveries import AskSecrets, bind_secrets
from controller.engine.adapter import BrokerEngine
from controller.engine.requests import BrokerSecrets
from controller.model import names
from controller.model.desired.desired import Desired, GitSource
from controller.model.errors import Problem, Severity
from controller.model.names import Key
from controller.model.policy.document import Policy
from controller.model.records import Reply, Request
from controller.ports import DesiredSource
from controller.sources.directory import DirectorySource
from tests.plans import flat_text
from tests.rendering import in_process
from tests.sim.controller import request_of
from tests.sim.faults import Action, Faults
from tests.sim.files import Files
from tests.sim.objects import SimContainer
from tests.sim.pair_documents import (
    DIGITS,
    NAMESPACES,
    Row,
    documents,
    edited,
    image_of,
    policy_of,
    project,
)
from tests.sim.people import OPERATOR
from tests.sim.places import slot_of
from tests.sim.signed import SignedFiles, verify_here
from tests.sim.sourced import SourcedFiles
from tests.sim.stories import Tale
from tests.sim.violation import Violation
from tests.sim.world import World
from tests.unit.core.proofs.repository import signer_files

FEATURES: Final[Mapping[str, tuple[str, ...]]] = {
    "volume": ("none", "named", "image", "tmpfs"),
    "policy": ("home", "strict", "production", "development", "scratch"),
    "pull": ("IfNotPresent", "Always", "Never"),
    "order": ("unset", "StartFirst", "StopFirst"),
    "source": ("directory", "git", "signed", "compose", "chart"),
    "network": ("isolated", "none", "bridge", "published", "attached"),
    "files": ("none", "config", "signalled", "secret"),
    "probe": ("none", "exec", "http"),
    "depends": ("none", "Started", "Healthy", "restarted"),
    "job": ("none", "before", "after", "Completed"),
    "replicas": ("1", "2"),
    "restart": ("Always", "OnFailure", "Ordered"),
    "limits": ("default", "declared"),
    "hooks": ("none", "both"),
    "edit": ("image", "env", "limits"),
}
#: The features that decide how a container is replaced.
REPLACING: Final = ("volume", "policy", "pull", "order")
#: Values that exclude each other: a document with both is refused, or means nothing.
EXCLUDED: Final = (
    # Two containers of a slot can't hold these at a time.
    (("order", "StartFirst"), ("volume", "named")),
    (("order", "StartFirst"), ("network", "published")),
    (("replicas", "2"), ("volume", "named")),
    (("replicas", "2"), ("network", "published")),
    # Refused by the policy.
    (("volume", "image"), ("policy", "strict")),
    (("volume", "image"), ("policy", "production")),
    (("network", "bridge"), ("policy", "production")),
    # A limit that is declared for the first time makes another revision, as any other edit.
    (("limits", "default"), ("edit", "limits")),
    # Nobody reaches the container.
    (("network", "none"), ("probe", "http")),
    # No attribute of Compose.
    (("source", "compose"), ("probe", "http")),
    (("source", "compose"), ("files", "signalled")),
    (("source", "compose"), ("restart", "Ordered")),
    (("source", "compose"), ("job", "before")),
    (("source", "compose"), ("job", "after")),
)
#: Of three values: an image's volume that slots keep excludes StartFirst.
KEEPING: Final = frozenset({"home", "development"})


def is_possible(row: Row) -> bool:
    """Return True if no values of a row, whole or begun, exclude each other."""
    if any(row.get(a) == x and row.get(b) == y for (a, x), (b, y) in EXCLUDED):
        return False
    kept = row.get("volume") == "image" and row.get("policy") in KEEPING
    return not (kept and row.get("order") == "StartFirst")


#: Values of two or three features, by feature.
Meeting = tuple[tuple[str, str], ...]


#: The features whose values meet.
MEETING: Final[tuple[tuple[str, ...], ...]] = (
    *itertools.combinations(FEATURES, 2),
    *itertools.combinations(REPLACING, 3),
)


def meetings() -> frozenset[Meeting]:
    """Return the values that meet in some row: all but those that exclude each other."""
    every = (
        tuple(zip(chosen, values, strict=True))
        for chosen in MEETING
        for values in itertools.product(*(FEATURES[each] for each in chosen))
    )
    return frozenset(meeting for meeting in every if is_possible(dict(meeting)))


def met_in(row: Row) -> frozenset[Meeting]:
    """Return the values that meet in a row, whole or begun."""
    return frozenset(
        tuple((each, row[each]) for each in chosen)
        for chosen in MEETING
        if all(each in row for each in chosen)
    )


def _turn(meeting: Meeting) -> tuple[int, Meeting]:
    """Return the place of a meeting in the order: three values come before two."""
    return -len(meeting), meeting


def covering() -> Iterator[dict[str, str]]:
    """Yield rows until all values met: greedily, and always the same."""
    left = set(meetings())
    while left:
        first: Meeting = min(left, key=_turn)
        row = dict(first)
        for name in FEATURES:
            if name in row:
                continue
            tried = [{**row, name: value} for value in FEATURES[name]]
            fitting = [each for each in tried if is_possible(each)]
            row = max(fitting, key=lambda each: len(met_in(each) & left))
        left -= met_in(row)
        yield row


ROWS: Final = tuple(covering())


# Sources


class PairFiles(Files):
    """A directory whose Secrets a broker opens."""

    def __init__(self, folder: Path) -> None:
        self._fetcher = folder / "fetcher"
        self._ask: AskSecrets | None = None
        self.settings = ComposeSettings()
        super().__init__(folder)

    def source(self, serving: Callable[[], Mapping[Key, str]]) -> DesiredSource:
        return DesiredFiles(
            DirectorySource(
                self.root,
                charts=charts_folder(self.root),
                compose=lambda: self.settings,
                begin_reading=in_process,
            ),
            self._fetcher,
            serving,
            self._bind,
            compose=lambda: self.settings,
            proofs=self.prove,
        )

    def _bind(self, desired: Desired) -> Desired:
        return bind_secrets(desired, self._ask(desired.secrets) if self._ask else {})

    def prove(
        self, _sources: Iterable[GitSource], _commit_of: Callable[[str], str], _folder: Path
    ) -> list[Problem]:
        """Send no proof: nothing is signed."""
        return []

    def reach_broker(self, engine: BrokerEngine, monotonic: Callable[[], float]) -> None:
        super().reach_broker(engine, monotonic)
        self._ask = BrokerSecrets(engine.ask_content, monotonic)

    def mishaps(self, _seed: int) -> Iterator[Any]:
        yield from ()


class GitFiles(PairFiles, SourcedFiles):
    """A Git source."""


class SignedGitFiles(PairFiles, SignedFiles):
    """A signed Git source."""

    def prove(
        self, sources: Iterable[GitSource], commit_of: Callable[[str], str], folder: Path
    ) -> list[Problem]:
        return self._prove(sources, commit_of, folder)


class ComposeFiles(PairFiles):
    """The documents as a Compose project."""

    def _texts(self) -> dict[str, str]:
        return {}

    def _sync(self) -> None:
        folder = self.root / NAMESPACES["compose"]
        folder.mkdir(exist_ok=True)
        (folder / "compose.yaml").write_text(json.dumps(project(self.docs.values())))


class ChartFiles(PairFiles):
    """The documents as the templates of a chart, and one Release of it."""

    def _texts(self) -> dict[str, str]:
        metadata = {"name": "shop", "owner": "team"}
        spec = {"chart": "shop"}
        release = {
            "apiVersion": "trimtab/v1",
            "kind": "Release",
            "metadata": metadata,
            "spec": spec,
        }
        return {"release.yaml": json.dumps(release)}

    def _sync(self) -> None:
        super()._sync()
        chart = charts_folder(self.root) / "shop"
        templates = chart / "templates"
        templates.mkdir(parents=True, exist_ok=True)
        about = {"apiVersion": "trimtab/v1", "name": "shop", "version": "1"}
        (chart / "Chart.yaml").write_text(json.dumps(about))
        wanted = {doc.file: doc for doc in self.docs.values()}
        for path in templates.iterdir():
            if path.name not in wanted:
                path.unlink()
        for name, doc in wanted.items():
            whole = json.loads(doc.text())
            whole["metadata"] = {"name": doc.key.name}
            (templates / name).write_text(json.dumps(whole, indent=1))


class SameSecrets:
    """Secrets of the host that never change."""

    def open(self, command: OpenSecret) -> SecretOpened:
        return SecretOpened(f"sha256:{'c' * 64}", ("key",), b"stored", is_new=True)

    def read(self, _command: ReadSecret) -> SecretValue:
        return SecretValue(b"value")


# A row's life

#: A step ends within so much virtual time.
STEP_S: Final = 600.0
LOOK_S: Final = 5.0


class PairWorld(World):
    """The world of a row."""

    heard = 1.0

    def __init__(self, row: Row) -> None:
        self.row = row
        self.done: Counter[Action] = Counter()
        *others, app = documents(row)
        self.app = app
        tale = Tale(frozenset(), (*others, app))
        super().__init__(0, story=tale, faults=Faults.none())
        self.engine.images.clear()
        tags = (image_of(row, tag) for tag in ("1", "2", "base"))
        self.engine.registry = {image.reference: image for image in tags}
        if row["volume"] == "image" and row["policy"] in KEEPING:
            self.checkers.stopped_first = frozenset({app.key})
        self.broker.secrets = SameSecrets()
        if row["source"] == "signed":
            self.broker.prove = lambda command: verify_here(
                command, signer_files(), self.clock.now(), SameSecrets().open
            )

    def make_files(self) -> Files:
        match self.row["source"]:
            case "git":
                return GitFiles(self.folder)
            case "signed":
                return SignedGitFiles(self.folder)
            case "compose":
                return ComposeFiles(self.folder)
            case "chart":
                return ChartFiles(self.folder)
            case _:
                return PairFiles(self.folder)

    def make_policy(self) -> Policy:
        policy = policy_of(self.row)
        assert isinstance(self.files, PairFiles)
        self.files.settings = settings_of(policy)
        if not isinstance(self.files, SignedFiles):
            return policy
        whole = policy.model_dump(mode="json", by_alias=True, exclude_unset=True)
        rules = self.files.policy().model_dump(mode="json", by_alias=True, exclude_unset=True)
        return Policy.model_validate_json(json.dumps({**whole, "sources": rules["sources"]}))

    def _ask_for_a_plan(self) -> None:
        """Ask for none: only the controller's own looks count."""

    def act(self, action: Action, request: Request) -> Reply:
        reply = super().act(action, request)
        self.done[action] += 1
        return reply

    # What is there

    def containers(self, key: Key) -> list[SimContainer]:
        """Return the running containers of a service."""
        places = ((each, slot_of(each)) for each in self.people.ours())
        return [
            each
            for each, place in places
            if place is not None
            and place[:2] == (key.namespace, key.name)
            and each.status == "running"
        ]

    def settle(self, what: str) -> None:
        """Live until the product has nothing to do, and all is ready.

        Raises:
            Violation: it isn't so in time, or took too many acts.
        """
        self.done.clear()
        end = self.clock.monotonic() + STEP_S
        while lacking := self.lacking():
            if self.clock.monotonic() >= end:
                raise Violation(10, f"{what}: {lacking}\n{self.told()}")
            self.live(LOOK_S)
        self._check_acts(what)

    def lacking(self) -> str:
        """Return what isn't done yet, '' if all is."""
        state, controller = self.broker.state, self.controller
        assert state is not None and controller is not None, "nobody dies here"
        if state.inventory.open:
            return "intents are open"
        loop = controller.loop
        controller.transport.turn(None, stale=False)
        full = loop.plan_everything()
        controller.source.desired = full.declared
        self.judge.remember(full.declared)
        desired = full.view.desired
        if {each.key for each in desired.workloads} != {
            key for key in self.files.docs if key.kind in names.WORKLOADS
        }:
            return f"the files weren't read: {desired.problems}"
        errors = [each for each in full.plan.problems if each.severity is Severity.ERROR]
        if full.plan.actions or full.plan.blocked or errors:
            return f"planned: {flat_text(full.plan)}"
        if any(service.restarting for service in desired.services):
            return "a restart isn't over"
        for service in desired.services:
            mine = self.containers(service.key)
            if len(mine) != service.spec.replicas:
                return f"{len(mine)} of {service.key} run"
            if {each.config["Labels"][names.REVISION] for each in mine} != {service.revision}:
                return f"{service.key} isn't of its revision"
            if service.spec.resources.memory not in (None, mine[0].host["Memory"]):
                return f"{service.key} has other limits"
        return self._unready()

    def _unready(self) -> str:
        assert self.controller is not None
        report: Any = self.controller.loop.status()
        return "; ".join(
            f"{each['name']}: {condition['reason']} {condition['message']}"
            for each in report["resources"]
            for condition in each["conditions"]
            if condition["type"] == "Ready" and condition["status"] != "True"
        )

    def _check_acts(self, what: str) -> None:
        """Check that no act was repeated, above all no pull."""
        workloads = [key for key in self.files.docs if key.kind in names.WORKLOADS]
        pulls = self.done[Action.PULL]
        if pulls > len(workloads):
            raise Violation(11, f"{what}: {pulls} pulls for {len(workloads)} workloads")
        if (acts := self.done.total()) > 24 * (len(workloads) + 2):
            raise Violation(11, f"{what}: {acts} acts: {dict(self.done)}")

    def told(self) -> str:
        """Return the row and the end of the trace."""
        return "\n".join((str(dict(self.row)), *self.trace.lines[-30:]))

    # What people do

    def load_images(self) -> None:
        """An operator pulls all images, for documents with ``pullPolicy: Never``."""
        for image in self.engine.registry.values():
            query = {"fromImage": image.repository, "tag": image.reference.rpartition(":")[2]}
            if self.row["policy"] == "production":
                query["tag"] = image.digest
            reply = self.ask(request_of(OPERATOR, "POST", "/images/create", query=query))
            assert reply is not None and reply.status == 200, reply

    def push(self) -> None:
        """Somebody pushes another image under the tags of the service."""
        for tag in ("1", "2"):
            image = image_of(self.row, tag, digits=DIGITS["pushed"])
            self.engine.registry[image.reference] = image


def lifetime(row: Row) -> Counter[Action]:
    """Live a row: it comes, changes, is restarted, and goes. Return what was done in all.

    Raises:
        Violation: a step doesn't end as it must.
    """
    world = PairWorld(row)
    total: Counter[Action] = Counter()
    key = world.app.key
    if row["pull"] == "Never":
        world.load_images()
    with world.begun():
        world.settle("it comes")
        total += world.done
        world.files.put(edited(row, world.files.docs[key]))
        world.files_changed()
        world.live(1.0)
        world.settle("it changes")
        total += world.done
        images = {each.image.id for each in world.containers(key)}
        is_digest = row["policy"] == "production"
        if not is_digest:
            world.push()
        told = world.hands.act("restart", key)
        world.settle(f"it is restarted ({told})")
        total += world.done
        pushed = {image_of(row, "1", digits=DIGITS["pushed"]).id}
        wanted = pushed if row["pull"] == "Always" and not is_digest else images
        if {each.image.id for each in world.containers(key)} != wanted:
            raise Violation(7, f"restarted with another image than {wanted}: {world.told()}")
        # Without a dependent, a job of a Compose file is a service.
        for gone in {key, *(each for each in world.files.docs if each.kind == "Job")}:
            world.files.drop(gone)
        world.files_changed()
        world.live(1.0)
        world.settle("it goes")
        if world.containers(key):
            raise Violation(10, f"it doesn't go: {world.told()}")
        return total + world.done
