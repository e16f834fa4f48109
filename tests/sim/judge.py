"""What is true of a world, and whether it is as the files say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from controller.core.engine_api.translate import settings
from controller.core.jobs.rollout_hooks import occasion_of
from controller.core.review.plan_json import review_json
from controller.model import names
from controller.model.desired.desired import Desired, Service
from controller.model.desired.spec.fields import AS_WRITTEN
from controller.model.desired.spec.service import Boot
from controller.model.errors import EngineError
from controller.model.inventory import ContainerItem, Inventory
from controller.model.names import Key, service_key
from controller.model.observed import NO_RUNS, JobMemory
from tests.plans import flat_text, render_review
from tests.sim.broker import SimBroker
from tests.sim.checkers import HELD
from tests.sim.files import Doc, Truth
from tests.sim.ground import POLICY, Ground
from tests.sim.hands import Hands
from tests.sim.objects import SimContainer
from tests.sim.people import People
from tests.sim.places import Place, slot_of
from tests.sim.violation import Violation


def _differs(container: SimContainer, item: ContainerItem | None, service: Service) -> str:
    """Return how a container differs from its document, '' if it doesn't."""
    memory = service.spec.resources.memory
    if container.status != "running":
        return f"is {container.status}"
    by = "no" if service.spec.restart.boot is Boot.ORDERED else "always"
    if container.policy != by:
        return f"has the restart policy {container.policy}, not {by}"
    if item is None or _is_altered(container, item):
        return "is altered"
    if memory is not None and container.host["Memory"] != memory:
        return "has other memory than is declared"
    return ""


def _is_altered(container: SimContainer, item: ContainerItem) -> bool:
    asked = {name for end in container.networks.values() for name in end.aliases or ()}
    return (
        bool(asked - {item.service, item.former}) or settings(container.inspect()) != item.admitted
    )


def _is_beyond_healing(container: SimContainer, known: Mapping[str, ContainerItem]) -> bool:
    """Tell whether it has what an engine can't take back: then it isn't started as it is."""
    item = known.get(container.id)
    shown = settings(container.inspect())
    return item is not None and (shown.cpu_shares, shown.cpuset) != (
        item.admitted.cpu_shares,
        item.admitted.cpuset,
    )


class Judge:
    """Looks at everything, the product's own knowledge included."""

    def __init__(self, world: Ground, broker: SimBroker, people: People) -> None:
        self._world = world
        self._broker = broker
        self._people = people
        self._truths: dict[int, tuple[Desired, Truth]] = {}
        #: The desired state of the pass that runs, with overrides and without.
        self._begun_with: tuple[Desired, Desired | None] | None = None
        self.hands: Hands | None = None

    def remember(self, desired: Desired) -> None:
        """Note what was true when *desired* was read; it is kept, so that its id stays its own."""
        if self._world.controller is None:
            return
        truth = self._world.controller.source.truth
        self._truths[id(desired)] = (desired, truth)
        # A state under the revisions that containers have, as after a rename, is another object.
        declared = self._world.controller.loop.shared.declared
        read = {each.key for each in desired.services}
        if declared is not None and {each.key for each in declared.services} == read:
            self._truths.setdefault(id(declared), (declared, truth))
        assert self.hands is not None, "there are people in every world"
        self.hands.read(truth)
        if (
            truth.documents
            and not truth.unreadable
            and not truth.hidden
            and not truth.hidden_namespaces
        ):
            self._world.checkers.healthy = truth

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Judge until the block ends by what a pass begins with, whatever is read meanwhile."""
        assert self._world.controller is not None
        shared = self._world.controller.loop.shared
        self._begun_with = shared.view.desired, shared.declared
        try:
            yield
        finally:
            self._begun_with = None

    def _view(self) -> Desired:
        assert self._world.controller is not None
        if self._begun_with is not None:
            return self._begun_with[0]
        return self._world.controller.loop.shared.view.desired

    def truth_seen(self) -> Truth | None:
        """What the directory held when the controller's view was read."""
        if self._world.controller is None:
            return None
        declared = self._world.controller.loop.shared.declared
        if self._begun_with is not None:
            declared = self._begun_with[1]
        known = self._truths.get(id(declared))
        return None if known is None else known[1]

    def wanted(self, key: Key) -> tuple[Doc, str] | None:
        truth = self.truth_seen()
        if truth is None or key not in truth.declared:
            return None
        service = self._view().service(key)
        if service is None:
            return None
        return truth.declared[key], service.revision

    def check_serving(self, keys: frozenset[Key]) -> None:
        """Check that of services whose successor can't be had one container runs in each slot.

        Raises:
            Violation: what served before, and is there, is down.
        """
        assert self._broker.state is not None, "the broker is up"
        known = self._broker.state.inventory.containers
        ended = {item.id for item in known.values() if item.violation}
        slots: dict[Place, list[SimContainer]] = {}
        for container in self._people.ours():
            place = slot_of(container)
            if place is not None and service_key(*place[:2]) in keys:
                slots.setdefault(place, []).append(container)
        for place, containers in slots.items():
            doc = self._world.files.docs[service_key(*place[:2])]
            wanted = int(place[2]) <= doc.spec.get("replicas", 1)
            if not wanted or doc.spec.get("state") == "Stopped":
                continue
            usable = [
                c
                for c in containers
                if c.id not in ended
                and c.started_at is not None
                and not _is_beyond_healing(c, known)
            ]
            if usable and not any(c.status == "running" for c in containers):
                told = ", ".join(f"{c.name} ({c.status})" for c in usable)
                raise Violation(7, f"nothing serves in {'/'.join(place)}, though there is {told}")

    def quiet(self) -> str:
        """Return what isn't yet as the files say, '' if all is."""
        if self._world.controller is None or self._broker.state is None:
            return "a process is down"
        if self._world.files.broken:
            return "files are broken"
        inventory = self._broker.state.inventory
        if under_way := self._under_way(inventory):
            return under_way
        desired = self._world.controller.source.desired
        services = {
            key: doc for key, doc in self._world.files.docs.items() if key.kind == "Service"
        }
        if {service.key for service in desired.services} != services.keys():
            return "the files weren't read"
        for service in desired.services:
            spec = services[service.key].spec
            told = (spec["image"], spec.get("containerLabels", {}), spec.get("resources", {}))
            resources = service.spec.resources.model_dump(
                mode="json", exclude_none=True, context=AS_WRITTEN
            )
            if (service.spec.image, service.spec.container_labels, resources) != told:
                return "the files weren't read since they changed"
        return self._jobs_unfinished(desired, inventory) or self._slots_unfilled(
            services, inventory
        )

    def _slots_unfilled(self, services: dict[Key, Doc], inventory: Inventory) -> str:
        """Return what isn't yet as the documents of services say."""
        wanted: dict[tuple[str, str, str], Service] = {}
        for service in self._view().services:  # as it is pinned, where it is
            doc = services.get(service.key)
            if doc is not None and doc.spec.get("state") != "Stopped":
                for slot in range(1, doc.spec.get("replicas", 1) + 1):
                    place = (service.key.namespace, service.key.name, str(slot))
                    wanted[place] = service
        return self._compare(wanted, inventory)

    def _jobs_unfinished(self, desired: Desired, inventory: Inventory) -> str:
        """Return the job that has no successful run of its present revision, '' if there is none."""
        docs = {key: doc for key, doc in self._world.files.docs.items() if key.kind == "Job"}
        if {job.key for job in desired.jobs} != docs.keys():
            return "the jobs weren't read"
        for job in desired.jobs:
            if list(job.spec.entrypoint or ()) != docs[job.key].spec.get("entrypoint"):
                return "the jobs weren't read since they changed"
            memory = inventory.jobs.get(job.key, NO_RUNS)
            if job.key in desired.services_by_hook:
                if lacking := self._rollouts_unfinished(job, memory):
                    return lacking
                continue
            if job.revision not in {o.revision for o in memory.occasions if o.is_complete}:
                return f"{job.key} has no successful run"
        return ""

    def _rollouts_unfinished(self, job: Service, memory: JobMemory) -> str:
        """Return the service for whose present revision a job of rollouts has not succeeded."""
        done = {each.name for each in memory.occasions if each.is_complete}
        for service in self._view().services_by_hook.get(job.key, ()):
            # A service that is rolled back runs an earlier revision.
            if not service.because and occasion_of(service) not in done:
                return f"{job.key} has no successful run for {service.key}"
        return ""

    def _under_way(self, inventory: Inventory) -> str:
        assert self._world.controller is not None and self.hands is not None
        if inventory.open:
            return "intents are open"
        # Until that is over the controller has the restart policy.
        if self._world.controller.loop.reconciler.tracker.crash_looping(self._world.clock.now()):
            return "a crash loop isn't over"
        if self.hands.suspended or self.hands.unsure:
            return "somebody still holds a service"
        if any(service.restarting for service in self._view().services):
            return "a restart isn't over"
        return ""

    def _compare(self, wanted: dict[tuple[str, str, str], Service], inventory: Inventory) -> str:
        there: dict[tuple[str, str, str], str] = {}
        for container in self._people.ours():
            place = slot_of(container)
            if place is None:
                continue
            item = inventory.containers.get(container.id)
            revision = container.config["Labels"][names.REVISION]
            stopped = self._is_stopped(place)
            if stopped:
                may_start = container.status != "created" and container.policy != "no"
                if container.alive or may_start:
                    return f"{container.name} runs, or may again"
                continue
            service = wanted.get(place)
            if place in there or service is None or service.revision != revision:
                return f"{container.name} is too much"
            if wrong := _differs(container, item, service):
                return f"{container.name} {wrong}"
            there[place] = revision
        missing = wanted.keys() - there.keys()
        if missing:
            return f"nothing fills {', '.join('/'.join(place) for place in sorted(missing))}"
        return self._networks_missing() or self._health_unknown()

    def _health_unknown(self) -> str:
        """Return whose health isn't known, or known wrongly: by now everybody is well."""
        assert self._world.controller is not None
        loop = self._world.controller.loop
        probed = {s.revision for s in self._view().services if s.spec.healthcheck is not None}
        known = loop.shared.observed
        for container in () if known is None else known.containers:
            if container.revision in probed and container.running and container.health != "healthy":
                return f"{container.name} is {container.health or 'without a word'}"
        return ""

    def _is_stopped(self, place: tuple[str, str, str]) -> bool:
        doc = self._world.files.docs.get(Key("Service", place[0], place[1]))
        return doc is not None and doc.spec.get("state") == "Stopped"

    def _networks_missing(self) -> str:
        there = {network.name: network for network in self._world.engine.networks.values()}
        needed = self._networks_needed()
        for network in self._world.engine.networks.values():
            mine = network.labels.get(names.ORIGIN) == "controller"
            # Of a directory without a document nobody knows that nothing needs a network.
            known = mine and self._world.files.docs and network.id not in self._world.marks.foreign
            if known and network.name not in needed:
                return f"the network {network.name} is too much"
        for key, doc in self._world.files.docs.items():
            if key.kind == "Network":
                found = there.get(names.qualified(key.namespace, key.name))
                if found is None:
                    return f"{key} isn't there"
                if found.internal != doc.spec.get("internal", True):
                    return f"{key} isn't as declared"
            if key.kind == "Volume":
                volume = doc.spec.get("engineName") or names.qualified(key.namespace, key.name)
                if volume not in self._world.engine.volumes:
                    return f"{key} isn't there"
        return ""

    def _networks_needed(self) -> set[str]:
        needed = {
            names.qualified(key.namespace, key.name)
            for key in self._world.files.docs
            if key.kind == "Network"
        }
        base = POLICY.networks
        for key, doc in self._world.files.docs.items():
            if key.kind in names.WORKLOADS:
                needed.add(names.namespaced_network(base.isolated, key.namespace))
                if doc.spec.get("ports"):
                    needed.add(names.namespaced_network(base.ingress, key.namespace))
        return needed

    def look_at_plan(self) -> None:
        """Plan: nothing changes by that, it is bounded, and nothing of it is secret."""
        assert self._world.controller is not None
        loop = self._world.controller.loop
        self._world.controller.transport.turn(None, stale=False)
        before = (
            self._world.checkers.forwards,
            self._world.journal.last_seq,
            self._world.controller.store.to_json(),
        )
        try:
            truth = self._world.controller.source.truth
            survey = loop.plan_everything()
            self._world.controller.source.truth = truth
        except EngineError:
            return
        after = (
            self._world.checkers.forwards,
            self._world.journal.last_seq,
            self._world.controller.store.to_json(),
        )
        if before[:1] != after[:1]:
            raise Violation(8, "a plan reached the engine with a mutation")
        if before[2] != after[2]:
            raise Violation(8, "a plan changed what the controller remembers")
        first = survey.plan
        slots = sum(s.spec.replicas for s in survey.view.desired.services)
        if len(first.actions) > 12 * (len(survey.observed.containers) + slots + 2):
            raise Violation(11, f"a plan of {len(first.actions)} actions")
        review = self._world.controller.loop.review(survey)
        shown = render_review(review, width=80, verbose=True), review_json(review)
        told = flat_text(first) + str(shown) + str(loop.status())
        if self._world.secret in told:
            raise Violation(12, "a plan or the status holds a secret")
        if self._world.logged.found:
            raise Violation(12, f"a secret was logged: {self._world.logged.found}")

    def pending(self) -> str:
        """Return what the product itself says is to be done, once all seems to be there."""
        assert self._world.controller is not None, "all is there, so is the controller"
        self._world.controller.transport.turn(None, stale=False)
        plan = self._world.controller.loop.plan_everything().plan
        return f"the plan isn't empty:\n{flat_text(plan)}" if plan.actions or plan.blocked else ""

    def check_rest(self) -> None:
        """Check that the product holds nothing any more, once all is well."""
        assert self._broker.state is not None
        self.look_at_plan()
        self._check_pins()
        self._world.checkers.check_addresses_kept()
        begun = (
            self._broker.state.intents.recorded_at.keys() - self._broker.state.inventory.open.keys()
        )
        if begun:
            raise Violation(11, f"closed intents are still remembered as begun: {begun}")
        for intent in self._world.checkers.intents.values():
            if not intent.closed:
                raise Violation(1, f"an intent stays open: {intent.route} {intent.subject}")

    def _check_pins(self) -> None:
        """Check that what people went back to is what runs."""
        assert self.hands is not None, "there are people in every world"
        for container in self._people.ours():
            place = slot_of(container)
            pin = "" if place is None else self.hands.pin_of(names.service_key(*place[:2]))
            if pin and container.alive and container.config["Labels"][names.REVISION] != pin:
                raise Violation(HELD, f"{container.name} runs, of a service pinned to {pin}")
