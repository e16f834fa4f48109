"""Bugs planted in production code: each must be found by some world, by its invariant's checker.

A patch replaces a named attribute of the real modules by a wrong variant, for as long as a world
lives. A checker without its planted bugs proves nothing.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from controller.broker import dispatch
from controller.broker.gate import call, journal_entries, mutate, redact
from controller.broker.gate.commands import Forward, Lost, WriteRecord
from controller.broker.guards import disruption_budget, lookup, recovery
from controller.broker.handlers import container_create, container_lifecycle, container_read
from controller.broker.handlers import networks_volumes as gate_addresses
from controller.core import addresses, disruption
from controller.core.admission import calls, create
from controller.core.admission.create import PortClaim
from controller.core.drift import availability
from controller.core.encoding.stored_form import StoredForm
from controller.core.enforcement import kernel
from controller.core.enforcement import settlement as settling
from controller.core.manifests import check_together as render
from controller.core.manifests.declaration import FolderReading
from controller.core.planning import planner, rollout_waves, service_order, slot_plan
from controller.core.records.parts import ResultPart
from controller.core.service import overrides, prune_guard
from controller.engine import adapter, requests
from controller.loop import controller as loop
from controller.loop import executor, prober, reconciler, shared_state
from controller.loop.state import overrides as override_store
from controller.loop.state import overrides as retries
from controller.loop.state import service_tracker
from controller.loop.state.store import SavedState
from controller.model import names
from controller.model.confinement import KernelDifference
from controller.model.desired.desired import SourceIdentity
from controller.model.desired.plan import CreateContainer, StopContainer, UpdateContainer, Wait
from controller.model.desired.spec.service import DependencyCondition, Order
from controller.model.errors import Conflict
from controller.model.inventory import ContainerItem
from controller.model.observed import ContainerState, Settings
from controller.model.records import Context, Entry, Record, Reply
from controller.sources import fetched

#: Makes the wrong variant of what was there.
Wrong = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Plant:
    """One planted bug: an invariant that it breaks, and the patches that break it."""

    invariant: int
    patch: str
    what: str
    places: tuple[tuple[object, str, Wrong], ...]

    @contextmanager
    def growing(self) -> Iterator[None]:
        """Have it in the code until the block ends."""
        with ExitStack() as stack:
            for owner, name, wrong in self.places:
                original = getattr(owner, name)
                setattr(owner, name, wrong(original))
                stack.callback(setattr, owner, name, original)
            yield


def always(value: Any) -> Wrong:
    """Replace by a constant."""
    return lambda _original: value


def returning(change: Callable[[Any], Any]) -> Wrong:
    """Replace by a function that changes what the original returned."""
    return lambda original: lambda *args, **named: change(original(*args, **named))


def _with_a_breach(found: tuple[KernelDifference, ...]) -> tuple[KernelDifference, ...]:
    return (KernelDifference("effective.limit", "processes have no limit"), *found)


def _at_once(original: Any) -> Any:
    def wrong(container: Any, spec: Any, sighting: Any, *, now: float) -> Any:
        said = original(container, spec, sighting, now=now)
        up = said.word is availability.AvailabilityWord.SETTLING
        return availability.Availability(availability.AvailabilityWord.AVAILABLE) if up else said

    return wrong


# Mutations on the wire


def _forward_first(original: Any) -> Any:
    def recorded(state: Any, intent: Entry, change: Any, *rest: Any) -> Any:
        body = b"" if change.body is None else json.dumps(change.body).encode()
        yield Forward(change.method, change.path, body, stream=change.stream)
        return (yield from original(state, intent, change, *rest))

    return recorded


def _answers(bend: Callable[[Any, Any], Any]) -> Wrong:
    """Drive a generator of commands, and bend what it is answered."""

    def wrong(original: Any) -> Any:
        def recorded(*args: Any) -> Generator[Any, Any, Any]:
            inner, answer = original(*args), None
            while True:
                try:
                    command = inner.send(answer)
                except StopIteration as stop:
                    return stop.value
                answer = bend(command, (yield command))

        return recorded

    return wrong


def _lost_is_failed(command: Any, answer: Any) -> Any:
    lost = isinstance(command, Forward) and isinstance(answer, Lost)
    return Lost(answer.reason, sent=False) if lost else answer


def _written_anyway(command: Any, answer: Any) -> Any:
    if isinstance(command, WriteRecord) and answer is None and command.entry.stage == "intent":
        return Record(0, "", command.entry, "", "")
    return answer


def _unjournaled_stops(original: Any) -> Any:
    def perform(state: Any, by: Any, change: Any, *rest: Any, **more: Any) -> Any:
        if not state.health.journal_error:
            return (yield from original(state, by, change, *rest, **more))
        answer = yield Forward(change.method, change.path)
        return answer if isinstance(answer, Reply) else Reply(502)

    return perform


def _no_reads(original: Any) -> Any:
    def inventory(call: Any, state: Any) -> Any:
        if state.health.journal_error:
            return journal_entries.journal_unavailable(call.id)
        return (yield from original(call, state))

    return inventory


def _without_inventory(endpoints: Any) -> Any:
    reads = {name: endpoints[name] for name in ("own.inventory", "own.observe")}
    wrong = {name: _no_reads(handler) for name, handler in reads.items()}
    return {**endpoints, **wrong}


def _unbounded(_original: Any) -> Any:
    def bounded(_call: Any, _state: Any, _found: Any, judged: Any, **_named: Any) -> Any:
        yield from ()
        return judged

    return bounded


# Bodies


def _client_body(original: Any) -> Any:
    def create(call: Any, state: Any, judged: Any, image: Any, **rest: Any) -> Any:
        mixed = {**call.body, **(judged.body or {})}
        return (yield from original(call, state, replace(judged, body=mixed), image, **rest))

    return create


def _client_host_config(original: Any) -> Any:
    def create(call: Any, state: Any, judged: Any, image: Any, **rest: Any) -> Any:
        body = judged.body or {}
        mixed = {**body, "HostConfig": {**body["HostConfig"], **call.body["HostConfig"]}}
        return (yield from original(call, state, replace(judged, body=mixed), image, **rest))

    return create


def _soft(original: Any) -> Any:
    def create(call: Any, state: Any, judged: Any, image: Any, **rest: Any) -> Any:
        body = judged.body or {}
        host = {name: value for name, value in body["HostConfig"].items() if name != "CapDrop"}
        softened = replace(judged, body={**body, "HostConfig": host})
        return (yield from original(call, state, softened, image, **rest))

    return create


# Foreign objects


def _by_label(original: Any) -> Any:
    def container(state: Any, actor: Any, name: str, *more: Any, **known: Any) -> Any:
        inspect = yield from call.read_json(f"/containers/{name}/json")
        labels = {} if inspect is None else inspect["Config"]["Labels"]
        is_known = inspect is None or inspect["Id"] in state.inventory.containers
        if is_known or labels.get(names.INSTANCE) != state.instance:
            return (yield from original(state, actor, name, *more, **known))
        item = _labelled_item(inspect["Id"], inspect["Name"], labels)
        return lookup.OwnContainer(item, inspect)

    return container


def _row_by_label(original: Any) -> Any:
    def item(row: Any, call: Any, state: Any) -> Any:
        is_known = row["Id"] in state.inventory.containers
        if is_known or row["Labels"].get(names.INSTANCE) != state.instance:
            return original(row, call, state)
        return _labelled_item(row["Id"], row["Names"][0], row["Labels"])

    return item


def _labelled_item(identifier: str, name: str, labels: dict[str, str]) -> ContainerItem:
    run = names.run_of_slot(labels[names.SLOT])
    return ContainerItem(
        id=identifier,
        namespace=labels[names.NAMESPACE],
        service=labels[names.SERVICE],
        slot=run or int(labels[names.SLOT] or 0),
        is_run=run > 0,
        revision=labels[names.REVISION],
        owner=labels[names.OWNER],
        origin=labels[names.ORIGIN],
        intent=labels[names.INTENT],
        image=labels[names.IMAGE],
        admitted=Settings(name=name.removeprefix("/")),
    )


def _any_intent(_original: Any) -> Any:
    def sight(intent: Any, identifier: str, told: Any) -> Any:
        found = told if isinstance(told, list) else [told] if told else []
        ours = [e for e in found if (e.get("Labels") or {}).get(names.INTENT) == identifier]
        if not ours:
            return settling.SettlementEvidence(applied=False, state="")
        made = str(ours[0].get("Id") or ours[0].get("Name"))
        key = "container" if "container" in str(intent.request["route"]) else "object"
        result = ResultPart.read({key: made})
        return settling.SettlementEvidence(applied=True, state=made, result=result)

    return sight


# Removals


def _forgets_bad_documents(original: Any) -> Any:
    def resolve_(*args: Any, **named: Any) -> Any:
        return replace(original(*args, **named), blind=False, blind_keys=frozenset())

    return resolve_


def _like_a_source_without_documents(original: Any) -> Any:
    def read(self: Any, source: Any, before: Any) -> Any:
        reading = original(self, source, before)
        if not reading.absent:
            return reading
        device = self._fetcher.stat().st_dev
        return FolderReading((), SourceIdentity(source.key.name, True, device, documents=1))

    return read


def _forgets_dependencies(original: Any) -> Any:
    def known_services(*args: Any, **named: Any) -> Any:
        return replace(original(*args, **named), remembered={})

    return known_services


def _with_volumes(judged: Any) -> Any:
    return replace(judged, query=(*judged.query, ("v", "1")))


def _kept_for_nothing(original: Any) -> Any:
    return lambda containers, judge, _quarantine=None: original(containers, judge)


# Replicas


def _dodges(original: Any) -> Any:
    def perform(self: Any, action: Any, context: Any) -> str:
        try:
            return str(original(self, action, context))
        except Conflict:
            if not isinstance(action, CreateContainer):
                raise
            return str(original(self, replace(action, target=f"{action.target}.9"), context))

    return perform


def _created_is_missing(original: Any) -> Any:
    def slot_of(number: int, containers: Any, *others: Any) -> Any:
        there = tuple(c for c in containers if c.state is not ContainerState.CREATED)
        return original(number, there, *others)

    return slot_of


# What serves


def _stops_before(original: Any) -> Any:
    def replace_slot(slot: Any, situation: Any) -> Any:
        done = original(slot, situation)
        first = (StopContainer, UpdateContainer)
        actions = [*done.before, *done.after]
        early = [action for action in actions if isinstance(action, first)]
        late = [action for action in actions if not isinstance(action, first)]
        return replace(done, before=[*early, *late], barrier=None, after=[])

    return replace_slot


# Plans


def _acts(original: Any) -> Any:
    def survey(self: Any) -> Any:
        told = original(self)
        wanted = [a for a in told.plan.actions if not isinstance(a, Wait) and a.precondition.id]
        if wanted:
            self.parts.engine.perform(wanted[0], Context(cause="plan"))
        return told

    return survey


def _remembers(_original: Any) -> Any:
    def survey(self: Any) -> Any:
        told = self._plan_everything(None, approved=False, record=True)
        self._store.prune = told.decision.memory
        return told

    return survey


def _in_any_order(original: Any) -> Any:
    def plan(desired: Any, observed: Any, **named: Any) -> Any:
        done = original(desired, observed, **named)
        place = {container.id: n for n, container in enumerate(observed.containers)}
        actions = sorted(done.actions, key=lambda a: place.get(a.precondition.id, -1))
        return replace(done, actions=tuple(actions))

    return plan


def _counted(original: Any) -> Any:
    numbers = itertools.count()
    return lambda value: original([value, next(numbers)])


# Liveness and bounds


def _keeps_reservations(original: Any) -> Any:
    def create(call: Any, state: Any, judged: Any, *rest: Any, **more: Any) -> Any:
        reply = yield from original(call, state, judged, *rest, **more)
        state.reservations.ports[call.id] = PortClaim("", "")
        return reply

    return create


# Secrets


def _values_too(original: Any) -> Any:
    return lambda env: [str(entry) for entry in env] or original(env)


def _summed_up_with_values(original: Any) -> Any:
    return lambda case, final: {**original(case, final), "env": list(final.request.env)}


def _tells_env(original: Any) -> Any:
    def create(service: Any, *args: Any, **named: Any) -> Any:
        made = original(service, *args, **named)
        return replace(made, cause=f"{made.cause} {dict(service.spec.env)}")

    return create


def _logs_bodies(original: Any) -> Any:
    def creation(action: Any, networks: Any) -> Any:
        made = original(action, networks)
        logging.getLogger("trimtab.engine").warning("sending %s", made.body)
        return made

    return creation


# What people hold


def _unsuspended(original: Any) -> Any:
    def to_json(self: StoredForm[Any], value: Any) -> Any:
        if isinstance(value, SavedState):
            kept = {k: replace(each, suspension=None) for k, each in value.steerings.items()}
            value = replace(value, steerings=kept)
        return original(self, value)

    return to_json


# The order among services


def _unhindered(_original: Any) -> Any:
    return lambda _self, _service: service_order.NO_BLOCKERS


def _unasked(_original: Any) -> Any:
    return lambda _self, _key: None


def _started_is_enough(original: Any) -> Any:
    def dependencies_of(key: Any, spec: Any) -> Any:
        return dict.fromkeys(original(key, spec), DependencyCondition.STARTED)

    return dependencies_of


PLANTS = (
    Plant(
        1,
        "forward-first",
        "the engine is asked before the intent is durable",
        ((mutate, "_forward_recorded", _forward_first),),
    ),
    Plant(
        1,
        "lost-is-failed",
        "a lost answer is recorded as an outcome",
        ((mutate, "_forward_recorded", _answers(_lost_is_failed)),),
    ),
    Plant(
        1,
        "hasty-recovery",
        "recovery concludes from one look, while the engine may be at it",
        (
            (
                settling,
                "conclude",
                lambda original: (
                    lambda evidence, sighting, _earlier, *, expired: original(
                        evidence, sighting, sighting, expired=True
                    )
                ),
            ),
        ),
    ),
    Plant(
        2,
        "written-anyway",
        "that an intent isn't durable is overlooked",
        ((mutate, "_forward_recorded", _answers(_written_anyway)),),
    ),
    Plant(
        2,
        "unjournaled-changes",
        "while the journal can't be written, containers are still stopped and started",
        ((container_lifecycle, "perform", _unjournaled_stops),),
    ),
    Plant(
        2,
        "reads-stop",
        "while the journal can't be written, looks are refused too",
        ((dispatch, "ENDPOINTS", _without_inventory),),
    ),
    Plant(
        3,
        "client-body",
        "unknown members of a client's body are passed on",
        ((container_create, "create_judged", _client_body),),
    ),
    Plant(
        3,
        "client-host-config",
        "a client's HostConfig is laid over the rebuilt one",
        ((container_create, "create_judged", _client_host_config),),
    ),
    Plant(
        3,
        "capabilities-kept",
        "CapDrop isn't forwarded",
        ((container_create, "create_judged", _soft),),
    ),
    Plant(
        4,
        "label-is-enough",
        "who carries our labels is ours, whatever the inventory says",
        (
            (lookup, "find_container", _by_label),
            (container_read, "_visible_item", _row_by_label),
        ),
    ),
    Plant(
        4,
        "copied-label",
        "recovery takes whatever carries an intent's label",
        ((settling, "_labelled_object", _any_intent),),
    ),
    Plant(
        4,
        "probe-elsewhere",
        "a health check asks at an address that the container never had",
        ((prober, "_address", always(lambda _container, _network: "172.16.0.9")),),
    ),
    Plant(
        5,
        "no-count-rules",
        "an emptied directory lets everything go",
        (
            (prune_guard, "SCOPE_RULES", always(())),
            (prune_guard, "_held_back", always(lambda _look: {})),
        ),
    ),
    Plant(
        5,
        "lost-source-is-empty",
        "a Git source whose files can't be read counts as one that declares nothing",
        ((fetched.FetchedSources, "_read", _like_a_source_without_documents),),
    ),
    Plant(
        5,
        "bad-documents-forgotten",
        "what a bad document may declare counts as not declared",
        ((render, "_with_resources", _forgets_bad_documents),),
    ),
    Plant(
        5,
        "volumes-along",
        "a container's removal takes anonymous volumes along",
        ((calls, "admit_remove", returning(_with_volumes)),),
    ),
    Plant(
        5,
        "quarantine-forgotten",
        "what was pruned is removed as soon as it is down",
        ((planner, "removal_actions", _kept_for_nothing),),
    ),
    Plant(
        5,
        "radius-forgotten",
        "the gate lets the controller take down what it likes",
        ((disruption_budget, "enforce_budget", _unbounded),),
    ),
    Plant(
        5,
        "radius-counts-one-look",
        "the gate forgets what the controller took down before",
        ((disruption, "down_services", always(lambda *_: {})),),
    ),
    Plant(
        6,
        "conflict-dodged",
        "a create whose name is taken is tried again under another one",
        ((adapter.BrokerEngine, "perform", _dodges),),
    ),
    Plant(
        6,
        "created-is-missing",
        "a container that was created and not started is taken for none",
        ((rollout_waves, "slot_of", _created_is_missing),),
    ),
    Plant(
        7,
        "always-stop-first",
        "what serves stops before its successor starts, where it needn't",
        (
            (rollout_waves, "order_of", always(lambda _service: Order.STOP_FIRST)),
            (slot_plan, "order_of", always(lambda _service: Order.STOP_FIRST)),
        ),
    ),
    Plant(
        7,
        "stops-before-create",
        "what serves stops before its successor is created",
        ((slot_plan, "replace_slot", _stops_before),),
    ),
    Plant(
        7,
        "up-is-available",
        "whoever is up counts as available at once",
        ((availability, "availability_of", _at_once),),
    ),
    Plant(
        7,
        "nameless-successor",
        "a successor isn't given its service's name before its predecessor goes",
        ((slot_plan, "attach_service_alias", always(lambda *_, **__: [])),),
    ),
    Plant(
        8,
        "plan-acts",
        "a plan performs its first action",
        ((loop.Controller, "plan_everything", _acts),),
    ),
    Plant(
        8,
        "plan-remembers",
        "a plan counts as a look of the prune guard",
        ((loop.Controller, "plan_everything", _remembers),),
    ),
    Plant(
        7,
        "cut-in-two",
        "a pass may end between what is stopped and what is started for it",
        (
            (executor, "atomic_groups", always(lambda actions: [(action,) for action in actions])),
            (slot_plan, "_plan_fallback", always(lambda *_: None)),
        ),
    ),
    Plant(
        7,
        "no-stand-in",
        "what served before isn't started again while its successor can't be had",
        ((slot_plan, "_plan_fallback", always(lambda *_: None)),),
    ),
    Plant(
        7,
        "false-violation",
        "what runs as it was admitted is ended",
        ((kernel, "compare_kernel", returning(_with_a_breach)),),
    ),
    Plant(
        9,
        "any-order",
        "actions come in the order in which the engine lists containers",
        ((planner, "plan", _in_any_order),),
    ),
    Plant(
        9,
        "counted-digest",
        "a plan's digest covers a counter",
        ((planner, "digest", _counted),),
    ),
    Plant(
        10,
        "never-again",
        "what failed once is tried again in a year",
        ((retries, "delay_s", always(lambda _error, _count, _random: 3e7)),),
    ),
    Plant(
        10,
        "no-recovery",
        "open intents are nobody's business",
        ((recovery, "intents_to_settle", always(lambda _state: ())),),
    ),
    Plant(
        10,
        "no-resync",
        "without a hint nobody looks again",
        ((loop, "OBSERVE_S", always(1e9)), (loop, "LIST_S", always(1e9))),
    ),
    Plant(
        11,
        "no-pause",
        "what failed is tried again at once",
        (
            (retries, "delay_s", always(lambda _error, _count, _random: 0.0)),
            (loop, "delay_s", always(lambda _error, _count, _random: 0.0)),
            (reconciler, "delay_s", always(lambda _error, _count, _random: 0.0)),
        ),
    ),
    Plant(
        11,
        "pull-forgotten",
        "what is always pulled is pulled for ever, and nothing is made of it",
        ((service_tracker.ServiceTracker, "record_pulls", always(lambda *_: None)),),
    ),
    Plant(
        11,
        "reservations-kept",
        "each create leaves a reservation behind",
        ((container_create, "create_judged", _keeps_reservations),),
    ),
    Plant(
        12,
        "env-values",
        "the journal has the values of the environment",
        ((redact, "env_names", _values_too), (create, "summary_of", _summed_up_with_values)),
    ),
    Plant(
        12,
        "cause-tells-env",
        "an action's cause tells the environment",
        ((slot_plan, "create_of", _tells_env),),
    ),
    Plant(
        12,
        "bodies-logged",
        "what is sent to the broker is logged",
        ((requests, "create_request", _logs_bodies),),
    ),
    Plant(
        8,
        "precondition-unchecked",
        "a precondition is not checked",
        ((lookup, "refuse_if_present", always(lambda *_args, **_named: None)),),
    ),
    Plant(
        13,
        "suspension-overlooked",
        "a suspended service is worked for like any other",
        (
            (
                override_store,
                "apply_overrides",
                returning(lambda desired: replace(desired, holds=())),
            ),
        ),
    ),
    Plant(
        13,
        "suspension-forgotten",
        "a suspension ends with the controller's process",
        ((StoredForm, "to_json", _unsuspended),),
    ),
    Plant(
        13,
        "pin-overlooked",
        "a service that is pinned gets the slots of its document",
        ((overrides, "slots_of", always(lambda _earlier, service: service)),),
    ),
    Plant(
        14,
        "no-order",
        "services start whatever becomes of what they depend on",
        ((service_order.Ordering, "blockers", _unhindered),),
    ),
    Plant(
        14,
        "started-is-healthy",
        "who is to be healthy needs only be started",
        ((service_order, "dependencies_of", _started_is_enough),),
    ),
    Plant(
        14,
        "no-farewell",
        "what goes doesn't wait for what depends on it",
        ((service_order.Ordering, "teardown_blocker", _unasked),),
    ),
    Plant(
        14,
        "nothing-remembered",
        "what services depended on is forgotten with their documents",
        ((reconciler, "KnownServices", _forgets_dependencies),),
    ),
    Plant(
        16,
        "guard-unasked",
        "nobody asks the prune guard about a container that outlasts its document",
        ((shared_state.SharedState, "is_undecided", always(lambda *_: False)),),
    ),
    Plant(
        16,
        "network-forgotten",
        "nobody looks at a network once its last container is gone",
        ((shared_state, "possibly_unused", always(lambda *_: ())),),
    ),
    Plant(
        17,
        "addresses-forgotten",
        "the engine chooses the addresses of replicas",
        ((gate_addresses, "slot_address", always(lambda *_, **__: "")),),
    ),
    Plant(
        17,
        "one-address-for-all",
        "each new slot gets the same address",
        ((addresses, "_first_address", always(lambda *_: "10.208.0.2")),),
    ),
)
