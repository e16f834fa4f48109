"""The desired state of passes, and the keys that a change of the desired state touches.

A changed key gets a pass. The plan of a key depends on other keys too: on dependencies, on leaving
dependents, on holders of a port or volume, and on users of a network. Those neighbors of changed
keys are planned again. All other keys have the actions that they had before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from controller.core.drift.classify import ALIVE
from controller.core.engine_api.create_body import joined_networks
from controller.core.manifests.checks.claims import ResourceClaim, claims_of
from controller.core.manifests.dependencies import dependencies_of
from controller.core.planning import planner
from controller.core.planning.images_networks_volumes import network_key
from controller.model.desired.desired import Desired, Network, Service, Volume
from controller.model.desired.plan import Blocked
from controller.model.desired.spec.rollout import RunState
from controller.model.names import Key, NetworkNames, job_key
from controller.model.observed import Observed

DeclaredResource = Service | Network | Volume


@dataclass(frozen=True, slots=True)
class DesiredView:
    """The desired state with overrides applied, and the prune guard's decision on exactly this state."""

    desired: Desired = field(default_factory=Desired)
    prunable: frozenset[Key] = frozenset()
    blocked: tuple[Blocked, ...] = ()

    def goal(self, key: Key) -> tuple[object, ...]:
        """Return the parts of the desired state that a pass of *key* works towards."""
        desired = self.desired
        left_alone = (key in desired.suspended, desired.is_unread(key))
        service = desired.workload(key)
        if service is None:
            return left_alone
        spec = service.spec
        if key.kind == "Job":
            return (*left_alone, service.revision, spec)
        slots = (service.revision, service.limits, spec.state, spec.replicas)
        return (*left_alone, *slots, service.restarting, service.deliveries)

    def able(self, keys: Iterable[Key]) -> frozenset[Key]:
        """Return the keys whose passes can act: not the suspended, blind and held back ones."""
        declared, suspended = self.resources(), self.desired.suspended
        return frozenset(
            key
            for key in keys
            if (key in declared or key in self.prunable or key.kind == "Network")
            and key not in self.desired.blind_keys
            and key not in suspended
        )

    def resources(self) -> dict[Key, DeclaredResource]:
        """Return the declared services, networks and volumes."""
        resources: tuple[DeclaredResource, ...] = (
            *self.desired.workloads,
            *self.desired.networks,
            *self.desired.volumes,
        )
        return {resource.key: resource for resource in resources}

    @property
    def permits(self) -> tuple[object, ...]:
        """The parts of the desired state that the plans of all undeclared resources depend on."""
        desired, scopes = self.desired, self.desired.all_scopes
        return (
            desired.blind,
            desired.blind_namespaces | {key.namespace for key in desired.blind_keys},
            bool(self.blocked),
            [(scope.name, scope.blind, scope.whole, scope.namespaces) for scope in scopes],
            [] if desired.whole else [scope.keys for scope in scopes],
        )


@dataclass(frozen=True, slots=True)
class Touched:
    """The keys that a change of the desired state touches."""

    #: Keys with a changed goal: a pass brings them to it.
    changed: frozenset[Key] = frozenset()
    #: Further keys that possibly have other actions than before.
    neighbors: frozenset[Key] = frozenset()
    #: Further keys of which only the place in the files has changed.
    moved: frozenset[Key] = frozenset()


def touched(
    before: DesiredView,
    after: DesiredView,
    observed: Observed,
    *,
    names: NetworkNames,
    remembered: Mapping[Key, Collection[Key]],
) -> Touched:
    """Compare two views by the same snapshot.

    *remembered* are the dependencies of each service when it was last declared.
    """
    if before is after:
        return Touched()
    everything = planner.keys(after.desired, observed) | planner.keys(before.desired, observed)
    old, new = _goals(before), _goals(after)
    changed, moved = set[Key](), set[Key]()
    for key in everything | old.keys() | new.keys():
        if not _equal(old.get(key), new.get(key)):
            changed.add(key)
        elif old.get(key) != new.get(key):
            moved.add(key)
    undeclared = {c.key for c in observed.containers} - after.resources().keys()
    turned = {
        key
        for key in undeclared
        if before.desired.is_blind_for(key) != after.desired.is_blind_for(key)
    }
    # A service waits for a move while an unread document possibly declares its earlier name.
    changed |= turned
    changed |= {s.key for s in after.desired.services if not turned.isdisjoint(s.moved)}
    if before.permits != after.permits:
        near = set(everything)
    else:
        near = _neighbors(changed, before, after, observed, names, remembered)
    return Touched(frozenset(changed), frozenset(near - changed), frozenset(moved - near))


#: The parts of a view about one key: the declared resource, and the rest.
_Goal = tuple[DeclaredResource | None, tuple[object, ...]]


def _goals(view: DesiredView) -> dict[Key, _Goal]:
    notes = defaultdict[Key, list[object]](list)
    for key in view.desired.blind_keys:
        notes[key].append("blind")
    for key in view.prunable:
        notes[key].append("prunable")
    for blocked in view.blocked:
        notes[blocked.key].append(blocked)
    for hold in view.desired.holds:
        notes[hold.key].append(hold)
    for problem in view.desired.problems:
        if problem.key is not None:
            notes[problem.key].append(problem)
    resources = view.resources()
    return {
        key: (resources.get(key), tuple(notes.get(key, ()))) for key in resources.keys() | notes
    }


def _equal(old: _Goal | None, new: _Goal | None) -> bool:
    """Return True if two goals differ at most in the place of the document."""
    if old == new:
        return True
    if old is None or new is None or old[0] is None or new[0] is None:
        return False
    return (replace(old[0], source=new[0].source), old[1]) == new


def _neighbors(
    changed: set[Key],
    before: DesiredView,
    after: DesiredView,
    observed: Observed,
    names: NetworkNames,
    remembered: Mapping[Key, Collection[Key]],
) -> set[Key]:
    """Return the changed keys and their neighbors, direct and indirect."""
    if not changed:
        return set()
    links = _Links(before, after, observed, remembered)
    near, frontier = set(changed), list(changed)
    while frontier:
        further = links.of(frontier.pop()) - near
        near |= further
        frontier += further
    # A network that a service joined before can be of no use now.
    needed = {n for service in after.desired.workloads for n in joined_networks(service, names)}
    used = {name for key in near for name in links.networks(key, names)} - needed
    near |= {network_key(n) for n in observed.networks if n.ours and n.name in used}
    return near


class _Links:
    """The links between the keys of two views and a snapshot."""

    def __init__(
        self,
        before: DesiredView,
        after: DesiredView,
        observed: Observed,
        remembered: Mapping[Key, Collection[Key]],
    ) -> None:
        self._observed = observed
        self._views = [
            {service.key: service for service in view.desired.workloads} for view in (before, after)
        ]
        self._networks = {
            each.key: each.engine_name for view in (before, after) for each in view.desired.networks
        }
        self._dependencies = defaultdict[Key, set[Key]](set)
        self._dependents = defaultdict[Key, set[Key]](set)
        #: The users of each port, volume and attached network.
        self._users = defaultdict[object, set[Key]](set)
        self._used = defaultdict[Key, set[object]](set)
        for key, use in self._uses():
            self._users[use].add(key)
            self._used[key].add(use)
        for key, others in self._needs(remembered):
            self._dependencies[key].update(others)
            for other in others:
                self._dependents[other].add(key)

    def _uses(self) -> Iterator[tuple[Key, object]]:
        for services in self._views:
            for key, service in services.items():
                for claim in claims_of(service.spec, service.volume_name):
                    yield key, claim.group
                for attached in service.spec.network.attach:
                    yield key, Key("Network", key.namespace, attached.name)
        for network in self._networks:
            yield network, network
        for container in self._observed.containers:
            if container.state in ALIVE:
                yield from ((container.key, ResourceClaim(p).group) for p in container.ports)
                yield from ((container.key, volume) for volume in container.writes)

    def _needs(
        self, remembered: Mapping[Key, Collection[Key]]
    ) -> Iterator[tuple[Key, Collection[Key]]]:
        for services in self._views:
            for key, service in services.items():
                if needed := dependencies_of(key, service.spec):
                    yield key, needed
                rollout = service.spec.rollout
                for name in (*rollout.before, *rollout.after):
                    job = job_key(key.namespace, name)
                    yield key, {job}
                    yield job, {key}
        yield from remembered.items()

    def of(self, key: Key) -> set[Key]:
        """Return the keys whose plan depends on *key*."""
        leaving = {each for each in self._dependencies[key] if not self._stays(each)}
        sharing = (self._users[use] for use in self._used[key])
        return leaving.union(self._dependents[key], *sharing)

    def _stays(self, key: Key) -> bool:
        """Return True if both views want a service to run."""
        return all(
            key in services
            and services[key].spec.replicas > 0
            and services[key].spec.state is not RunState.STOPPED
            for services in self._views
        )

    def networks(self, key: Key, names: NetworkNames) -> Iterator[str]:
        """Yield the engine names of the networks that a service joins or joined."""
        for services in self._views:
            if key in services:
                yield from joined_networks(services[key], names)
        for container in self._observed.of(key):
            yield from container.settings.networks
        if key in self._networks:
            yield self._networks[key]
