"""Admission: what the policy says of a mutation, and the body that the engine gets instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.core.bodies import (
    ConnectRequest,
    CreateRequest,
    NetworkRequest,
    UpdateRequest,
    VolumeRequest,
)
from controller.core.facts import (
    DEFAULT_VOLUMES_ROOT,
    ContainerFacts,
    CreateFacts,
    HostFacts,
    ImageFacts,
    Needs,
    NetworkFacts,
    Stamp,
    VolumeFacts,
)
from controller.model.entries import Actor
from controller.model.observed import Settings
from controller.model.plan import ALLOW, AnyAction, Verdict
from controller.model.policy import Policy


@dataclass(frozen=True, slots=True)
class Admission:
    """The verdict on a mutation and, unless it is denied, what to forward and to record.

    ``body`` and ``query`` are rebuilt from typed values, in canonical case. ``malformed`` tells
    that the request isn't one that the engine could have answered (400 instead of 403).
    """

    verdict: Verdict
    body: dict[str, object] | None = None
    query: tuple[tuple[str, str], ...] = ()
    summary: dict[str, object] = field(default_factory=dict)
    settings: Settings | None = None
    malformed: bool = False


def needs(
    request: CreateRequest,
    *,
    actor: Actor,
    policy: Policy,
    volumes_root: str = DEFAULT_VOLUMES_ROOT,
) -> Needs:
    """Return what to look at before this create can be judged."""
    return Needs(request.image, (), (), ())


def admit_create(
    request: CreateRequest,
    *,
    name: str,
    actor: Actor,
    policy: Policy,
    facts: CreateFacts | None,
    stamp: Stamp,
    platform: str = "",
) -> Admission:
    """Judge a create; *facts* None is a preview, which skips the rules that need facts.

    *name* and *platform* are the query's; '' is unset: a client's container then gets a name.
    """
    return Admission(ALLOW)


def admit_update(
    request: UpdateRequest,
    *,
    actor: Actor,
    policy: Policy,
    current: ContainerFacts | None,
    host: HostFacts,
) -> Admission:
    """Judge an update by the state that it would lead to; *current* None is a preview."""
    return Admission(ALLOW)


def admit_network(
    request: NetworkRequest,
    *,
    actor: Actor,
    policy: Policy,
    existing: NetworkFacts | None,
    stamp: Stamp,
) -> Admission:
    """Judge a network create; *existing* is what holds the name already."""
    return Admission(ALLOW)


def admit_implied_network(name: str, *, actor: Actor, policy: Policy, stamp: Stamp) -> Admission:
    """Return the create of one of a client's implied networks, which the gate makes on first use."""
    return Admission(ALLOW)


def admit_volume(
    request: VolumeRequest,
    *,
    actor: Actor,
    policy: Policy,
    existing: VolumeFacts | None,
    stamp: Stamp,
) -> Admission:
    """Judge a volume create; *existing* is what holds the name already."""
    return Admission(ALLOW)


def admit_connect(
    request: ConnectRequest,
    *,
    actor: Actor,
    policy: Policy,
    current: ContainerFacts,
    network: NetworkFacts | None,
) -> Admission:
    """Judge a network connect of a container that the gate found to be ours and the actor's."""
    return Admission(ALLOW)


def admit_disconnect(
    request: ConnectRequest,
    *,
    actor: Actor,
    policy: Policy,
    current: ContainerFacts,
    network: NetworkFacts | None,
) -> Admission:
    """Judge a network disconnect likewise."""
    return Admission(ALLOW)


def admit_pull(query: Mapping[str, str], *, actor: Actor, policy: Policy) -> Admission:
    """Judge images/create by its query (fromImage, tag, platform); ``query`` is rebuilt.

    ``summary`` has ``reference``, canonical.
    """
    return Admission(ALLOW)


def admit_reference(reference: str, *, policy: Policy) -> Admission:
    """Judge a look at an image in its registry (distribution), or trusting a local one."""
    return Admission(ALLOW)


def admit_start(query: Mapping[str, str]) -> Admission:
    """Judge a start: no checkpoints."""
    return Admission(ALLOW)


def admit_restart_allowed(image: str, *, policy: Policy) -> Admission:
    """Judge starting a container made under another policy: its image must still be admitted."""
    return Admission(ALLOW)


def admit_stop(query: Mapping[str, str]) -> Admission:
    """Judge a stop or restart: ``t`` 0 to 300, ``signal`` a name or number that exists."""
    return Admission(ALLOW)


def admit_kill(query: Mapping[str, str]) -> Admission:
    """Judge a kill: ``signal``."""
    return Admission(ALLOW)


def admit_remove(query: Mapping[str, str]) -> Admission:
    """Judge a container's removal: ``force`` passes, ``v`` is dropped, ``link`` is refused."""
    return Admission(ALLOW)


def admit_rename(query: Mapping[str, str], *, actor: Actor, admitted: str) -> Admission:
    """Judge a rename; *admitted* is the container's name in the inventory."""
    return Admission(ALLOW)


def preview(policy: Policy, action: AnyAction, body: dict[str, object] | None) -> Verdict:
    """Return what the gate will say of a planned action; *body* is a CreateContainer's.

    Facts of the engine aren't known here: the broker may still refuse.
    """
    return ALLOW


def describe(policy: Policy) -> tuple[str, ...]:
    """Return the policy as lines for people."""
    return ()
