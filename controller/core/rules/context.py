"""One create to be judged: the request with all that the rules look at, resolved once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from controller.core.encoding.image_reference import Reference, parse_reference
from controller.core.engine_api.requests import CreateRequest, PortRequest
from controller.core.rules.facts import CreateFacts, ImageFacts, Stamp
from controller.model import names
from controller.model.names import (
    CONTAINER_NAME_MAX,
    DEFAULT_NAMESPACE,
    is_dns_label,
    namespaced_network,
)
from controller.model.policy.document import OPERATOR_OWNER, Exemption, Policy
from controller.model.policy.sections import CpuLimit, MemoryLimit, PidLimit
from controller.model.records import Actor, Role

_Limit = TypeVar("_Limit", MemoryLimit, CpuLimit, PidLimit)

COMPOSE_SERVICE = "com.docker.compose.service"
SERVICE_LABEL_MAX = 63


@dataclass(frozen=True, slots=True)
class Case:
    """A create, who asks, and the policy with the exceptions that hold for this service.

    ``facts`` None is a preview. ``reference`` None is one that can't be read.
    """

    request: CreateRequest
    name: str
    actor: Actor
    policy: Policy
    facts: CreateFacts | None
    stamp: Stamp
    platform: str
    owner: str
    namespace: str
    service: str
    reference: Reference | None
    exceptions: tuple[str, ...] = ()

    @property
    def by_controller(self) -> bool:
        """Tell whether the controller asks."""
        return self.actor.role is Role.CONTROLLER

    @property
    def image(self) -> ImageFacts | None:
        """The image, where it is known."""
        return self.facts.image if self.facts else None

    @property
    def networks(self) -> ImpliedNetworks:
        """The namespace's implied networks."""
        return implied(self.policy, self.namespace)

    @property
    def ports(self) -> tuple[PortRequest, ...]:
        """The published ports."""
        return self.request.ports


@dataclass(frozen=True, slots=True)
class ImpliedNetworks:
    """The names of a namespace's implied networks."""

    isolated: str
    ingress: str
    bridge: str

    def all(self) -> tuple[str, ...]:
        """Return the three names."""
        return (self.isolated, self.ingress, self.bridge)


def implied(policy: Policy, namespace: str) -> ImpliedNetworks:
    """Return the names of a namespace's implied networks."""
    networks = policy.networks
    return ImpliedNetworks(
        namespaced_network(networks.isolated, namespace),
        namespaced_network(networks.ingress, namespace),
        namespaced_network(networks.bridge, namespace),
    )


def owner_of(actor: Actor, asked: str) -> str:
    """Return the owner of what an actor makes: only the controller names one freely."""
    match actor.role:
        case Role.CONTROLLER:
            return asked
        case Role.CLIENT:
            return actor.owner
        case _:
            return OPERATOR_OWNER


def namespace_of(actor: Actor, asked: str, policy: Policy) -> str:
    """Return the namespace of what an actor makes."""
    match actor.role:
        case Role.CONTROLLER:
            return asked or DEFAULT_NAMESPACE
        case Role.CLIENT:
            return policy.namespace_of(actor.owner)
        case _:
            return DEFAULT_NAMESPACE


def reference_text(request: CreateRequest, actor: Actor) -> str:
    """Return the reference by which an image is admitted.

    The controller may name a pinned image by id or digest: a label says what was written.
    """
    if actor.role is Role.CONTROLLER:
        return request.label(names.IMAGE)
    return request.image


def read_reference(text: str) -> Reference | None:
    """Return a reference, None if it isn't one."""
    try:
        return parse_reference(text)
    except ValueError:
        return None


def service_of(request: CreateRequest) -> str:
    """Return the service that a container is counted with, '' for none."""
    asked = request.label(names.SERVICE)
    composed = request.label(COMPOSE_SERVICE)
    return asked or (composed if is_dns_label(composed, length=SERVICE_LABEL_MAX) else "")


def make_case(
    request: CreateRequest,
    *,
    name: str,
    actor: Actor,
    policy: Policy,
    facts: CreateFacts | None,
    stamp: Stamp,
    platform: str,
) -> Case:
    """Resolve who owns the container, and which exceptions hold for it."""
    owner = owner_of(actor, request.label(names.OWNER))
    namespace = namespace_of(actor, request.label(names.NAMESPACE), policy)
    service = service_of(request)
    reference = read_reference(reference_text(request, actor))
    holding = exceptions_of(
        policy,
        owner=owner,
        namespace=namespace,
        service=service,
        reference=reference,
        now=facts.host.now if facts else None,
    )
    return Case(
        request=request,
        name=name,
        actor=actor,
        policy=loosened(policy, holding),
        facts=facts,
        stamp=stamp,
        platform=platform,
        owner=owner,
        namespace=namespace,
        service=service,
        reference=reference,
        exceptions=tuple(exemption.label for exemption in holding),
    )


#: The stamp of a preview: no instance, and an intent that is never recorded.
PREVIEW_STAMP = Stamp(instance="", intent="00000000-0000-7000-8000-000000000000")


def preview_case(request: CreateRequest, *, name: str, actor: Actor, policy: Policy) -> Case:
    """Return the case of a create about which nothing has been looked up."""
    return make_case(
        request, name=name, actor=actor, policy=policy, facts=None, stamp=PREVIEW_STAMP, platform=""
    )


def exceptions_of(
    policy: Policy,
    *,
    owner: str,
    namespace: str,
    service: str,
    reference: Reference | None,
    now: float | None,
) -> tuple[Exemption, ...]:
    """Return the policy's exceptions for a service; *now* None counts expired ones too."""
    return tuple(
        exemption
        for exemption in policy.exceptions
        if (exemption.owner, exemption.namespace, exemption.service) == (owner, namespace, service)
        and reference is not None
        and exemption.repository == reference.repository
        and (now is None or now < exemption.ends_at)
    )


def name_of(case: Case) -> str:
    """Return the container's name: the one asked for, else one that is made from its intent."""
    if case.name:
        return case.name
    stem = (case.service or case.owner)[: CONTAINER_NAME_MAX - 13]
    return f"{stem}-{case.stamp.intent.replace('-', '')[-12:]}"


def loosened(policy: Policy, holding: Iterable[Exemption]) -> Policy:
    """Return the policy as it is for a service with these exceptions."""
    for exemption in holding:
        grant = exemption.loosens
        resources, security = policy.resources, policy.security
        networks, ports = policy.networks, policy.networks.ports
        policy = policy.model_copy(
            update={
                "capabilities": policy.capabilities.model_copy(
                    update={"allowed": (*policy.capabilities.allowed, *grant.cap_add)}
                ),
                "resources": resources.model_copy(
                    update={
                        "memory": _raised(resources.memory, grant.memory_max),
                        "cpus": _raised(resources.cpus, grant.cpus_max),
                        "pids": _raised(resources.pids, grant.pids_max),
                        "shm_max": max(resources.shm_max, grant.shm_max or 0),
                    }
                ),
                "security": security.model_copy(
                    update={
                        "require_non_root": security.require_non_root and not grant.root,
                        "require_read_only_root": security.require_read_only_root
                        and not grant.writable_root,
                        "runtimes": (*security.runtimes, *grant.runtimes),
                    }
                ),
                "networks": networks.model_copy(
                    update={
                        "modes": tuple(dict.fromkeys((*networks.modes, *grant.modes))),
                        "granted": (*networks.granted, *grant.networks),
                        "ports": ports.model_copy(
                            update={
                                "granted": (*ports.granted, *grant.host_ports),
                                "host_ips": (*ports.host_ips, *grant.host_ips),
                            }
                        ),
                    }
                ),
                "mounts": policy.mounts.model_copy(
                    update={"allowed": (*policy.mounts.allowed, *grant.mounts)}
                ),
                "images": policy.images.model_copy(
                    update={
                        "anonymous_volumes": policy.images.anonymous_volumes
                        if grant.anonymous_volumes == "refuse"
                        else grant.anonymous_volumes
                    }
                ),
            }
        )
    return policy


def _raised(limit: _Limit, most: int | None) -> _Limit:
    return limit.model_copy(update={"max": max(limit.max, most or 0)})


def case_of_existing(
    request: CreateRequest, *, actor: Actor, policy: Policy, facts: CreateFacts, name: str
) -> Case:
    """Return the case of a container that is there already, as far as its labels tell."""
    return make_case(
        request,
        name=name,
        actor=actor,
        policy=policy,
        facts=facts,
        stamp=Stamp("", ""),
        platform="",
    )
