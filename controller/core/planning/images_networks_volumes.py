"""What must exist before a container: its image, networks and volumes, and the problems of these.

A foreign object, or an object of the wrong kind, is a problem and is never used. Networks and volumes are
created at first use. Only volumes that their last document released are removed.

Adds the VOLUMEs of images to the services of a plan, by the policy's rule.

``core.rules.images`` has the choices of a policy.

Problems of the networks and volumes of a document: missing, foreign, or of another size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from controller.core.engine_api.create_body import joined_networks
from controller.core.engine_api.mount_grammar import is_known_volume, size_of_volume
from controller.core.engine_api.requests import RemoteVolume, read_remote, remote_of
from controller.core.planning.deliveries import FileDeliveries
from controller.core.rules.context import (
    Placement,
    exceptions_of,
    in_force,
    read_reference,
    with_exceptions,
)
from controller.core.rules.images import uncovered
from controller.model.desired.desired import Desired, ImageVolume, Network, Service, Volume
from controller.model.desired.plan import (
    AnyAction,
    BuildImage,
    CreateNetwork,
    CreateVolume,
    DeliverFiles,
    PullImage,
    RemoveVolume,
)
from controller.model.desired.spec.mounts import VolumeMount
from controller.model.desired.spec.service import FROM_SERVICE, Order, PullPolicy
from controller.model.errors import Problem
from controller.model.names import (
    DEFAULT_NAMESPACE,
    Key,
    NetworkNames,
    namespaced_network,
    qualified,
)
from controller.model.observed import Image, Observed, ObservedNetwork, ObservedVolume
from controller.model.policy.document import Policy
from controller.model.policy.values import AnonymousVolumes
from controller.model.quantities import KIB, format_bytes
from controller.model.records import Precondition, Role


def unadopted(
    declared: Network | Volume | None,
    source: Service | Network | Volume,
    found: ObservedNetwork | ObservedVolume | None = None,
) -> Problem | None:
    """Return the problem of an object with an ``engineName`` that is missing, or *found* and foreign.

    It is never created. None for another object.
    """
    if declared is None or declared.spec.engine_name is None or (found and found.ours):
        return None
    kind, name = declared.key.kind.lower(), declared.engine_name
    place = f"{declared.key.namespace}/{declared.key.name}"
    make = "" if found else f"docker {kind} create {name}, then "
    why = "no operator adopted it" if found else f"the engine has no such {kind}"
    return problem_of(
        source,
        code="volume.not-adopted" if kind == "volume" else "network.not-adopted",
        message=f"{declared.key} has the engineName {name}, and {why}",
        remedy=f"{make}trimtab {kind} adopt {name} --as {place} --owner {declared.owner}; or remove "
        f"engineName (in a Compose file, {kind}s of x-trimtab)",
    )


def adopted_elsewhere(
    kind: str, name: str, namespace: str, source: Service | Network | Volume
) -> Problem:
    """Return the problem of a network or volume that belongs to another namespace."""
    return problem_of(
        source,
        code="volume.foreign" if kind == "volume" else "network.foreign",
        message=f"the {kind} {name} was adopted for the namespace {namespace}",
        remedy=f"adopt it for {source.key.namespace}, or declare it in {namespace}",
    )


def foreign_network(network: ObservedNetwork, source: Service | Network) -> Problem:
    """Return the problem of an unusable network with a needed name."""
    why = "isn't what it should be" if network.ours else "isn't ours"
    return problem_of(
        source,
        code="network.foreign",
        message=f"the network {network.name} on this engine {why}",
        remedy=f"remove it (docker network rm {network.name}), or name another one: "
        "a declared network in its document, an implied one in the policy's networks",
    )


def foreign_volume(volume: ObservedVolume, source: Service | Volume) -> Problem | None:
    """Return the problem of an unusable volume with a needed name; None for a usable one.

    A volume with a driver or options of its own can be any directory of the host.
    """
    if volume.belongs_to not in {"", source.key.namespace}:
        return adopted_elsewhere("volume", volume.name, volume.belongs_to, source)
    if volume.ours and is_known_volume(volume.driver, volume.options):
        return None
    why = "isn't a plain local one" if volume.ours else "isn't ours"
    return problem_of(
        source,
        code="volume.foreign",
        message=f"the volume {volume.name} on this engine {why}",
        remedy="name another volume, or rename that one's data to it by hand",
    )


def size_problem(volume: ObservedVolume, declared: Volume) -> Problem | None:
    """Return the problem of a volume with another size or folder than declared; None for the declared one.

    The engine can't change the size of a volume, and no volume is removed for a size. Services go on
    with the volume. A document without a size accepts the size of an adopted volume.
    """
    found, remote = read_remote(dict(volume.options)), declared.spec.remote
    if (found if isinstance(found, RemoteVolume) else None) != (remote_of(remote)):
        return problem_of(
            declared,
            code="volume.remote-changed",
            message=f"the volume {volume.name} is another folder than its document says, and a volume keeps its own",
            remedy="declare a Volume of another name, or remove that one by hand once nothing uses it",
        )
    size, wanted = size_of_volume(volume.options), declared.spec.size
    if size == wanted or (wanted is None and declared.spec.engine_name is not None):
        return None
    has, says = (format_bytes(each) if each else "no size" for each in (size, wanted))
    keep = _present_size(size, declared)
    move = (
        "dump it, declare a Volume of another name with the new size, and restore the dump into that "
        "(docs/volumes.md)"
    )
    return problem_of(
        declared,
        code="volume.size",
        message=f"the volume {volume.name} was made with {has}, its document says {says}, and a "
        "volume keeps its size",
        remedy=f"{keep}; or {move}" if keep else move,
    )


def _present_size(size: int | None, declared: Volume) -> str:
    """Return how the document accepts the volume's size; empty if the document can't.

    A document has no notation for a size that is no multiple of 1 KiB.
    """
    if size is None:
        return "write no size"
    if size % KIB == 0:
        return f"write size: {format_bytes(size)}"
    return "write no size" if declared.spec.engine_name is not None else ""


def unread_problem(key: Key, observed: Observed, service: Service | None) -> Problem:
    """Return the problem of a service with a container that can't be read."""
    message = f"a container of {key} can't be read, so nothing is changed: {observed.unread[key]}"
    remedy = "look at it with docker inspect past the gate, and remove it: it is created again"
    if service is None:
        return Problem("engine.garbled", message, remedy=remedy, key=key)
    return problem_of(service, code="engine.garbled", message=message, remedy=remedy)


def problem_of(
    source: Service | Network | Volume, *, code: str, message: str, remedy: str
) -> Problem:
    """Return a problem at the place of a document."""
    file, line = source.source.file, source.source.line
    return Problem(code, message, file, line, remedy=remedy, key=source.key)


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """The required properties of a network.

    Masquerading means nothing for an internal network: packets cannot leave it.
    """

    internal: bool
    masquerade: bool = True
    icc: bool = True
    #: '' for any.
    subnet: str = ""
    ipv6_subnet: str = ""
    #: The host's interface and the range of addresses of a macvlan network; '' for a bridge.
    macvlan: str = ""
    ip_range: str = ""

    @classmethod
    def of(cls, network: Network) -> NetworkShape:
        """Return the shape of a declared network."""
        spec = network.spec
        return cls(
            internal=spec.internal,
            subnet=spec.subnet or "",
            ipv6_subnet=spec.ipv6_subnet or "",
            macvlan=spec.macvlan or "",
            ip_range=spec.ip_range or "",
        )

    def fits(self, network: ObservedNetwork) -> bool:
        """Return True if a network on the engine has this shape."""
        return not self.differences(network)

    def differences(self, network: ObservedNetwork) -> tuple[str, ...]:
        """Return how a network on the engine differs from this shape."""
        masquerade = network.masquerade if self.internal else self.masquerade
        # An engine can give each network IPv6 addresses too, which no document chooses.
        subnets = " and ".join(each for each in network.subnets if ":" not in each) or "unknown"
        six = " and ".join(each for each in network.subnets if ":" in each) or "none"
        pairs = (
            ("driver", network.driver, "macvlan" if self.macvlan else "bridge"),
            ("interface", network.parent, self.macvlan),
            ("range", network.ip_range if self.macvlan else "", self.ip_range),
            ("IPv6 subnet", six, self.ipv6_subnet or six),
            ("internal", network.internal, self.internal),
            ("traffic among containers", network.icc, self.icc),
            ("masquerading", network.masquerade, masquerade),
            ("subnet", subnets, self.subnet or subnets),
        )
        return tuple(
            f"{name} is {_word(now)}, want {_word(wanted)}"
            for name, now, wanted in pairs
            if now != wanted
        )


ISOLATED = NetworkShape(internal=True)
#: Published ports work. Containers reach neither the outside nor one another.
INGRESS = NetworkShape(internal=False, masquerade=False, icc=False)
BRIDGE = NetworkShape(internal=False)


def _word(value: object) -> str:
    return str(value).lower()


def network_key(network: ObservedNetwork) -> Key:
    """Return the key of the instance's network on the engine."""
    namespace = network.namespace or DEFAULT_NAMESPACE
    prefix = "" if namespace == DEFAULT_NAMESPACE else f"{namespace}."
    return Key("Network", namespace, network.name.removeprefix(prefix))


def network_creation(network: Network, cause: str) -> CreateNetwork:
    """Return the action to create a declared network."""
    return _network_action(network.engine_name, NetworkShape.of(network), network, cause)


def _network_action(
    name: str, shape: NetworkShape, by: Service | Network, cause: str
) -> CreateNetwork:
    return CreateNetwork(
        object=by.key,
        target=name,
        cause=cause,
        precondition=Precondition(absent=name),
        owner=by.owner,
        internal=shape.internal,
        masquerade=shape.masquerade,
        icc=shape.icc,
        subnet=shape.subnet,
        ipv6_subnet=shape.ipv6_subnet,
        macvlan=shape.macvlan,
        ip_range=shape.ip_range,
        gateway=(by.spec.gateway or "") if isinstance(by, Network) else "",
    )


def volume_removals(
    keys: Iterable[Key], desired: Desired, observed: Observed
) -> list[RemoveVolume]:
    """Return the removals of the released volumes among the *keys* that are permitted to go."""
    declared = {volume.key for volume in desired.volumes}
    there = {volume.name for volume in observed.volumes if volume.ours}
    names = {k: qualified(k.namespace, k.name) for k in keys if k.kind == "Volume"}
    return [
        RemoveVolume(
            object=key,
            target=name,
            cause="its document said retain: false and is gone; dumped, and approved by an operator",
            precondition=Precondition(id=name),
        )
        for key, name in names.items()
        if key not in declared and name in there
    ]


def volume_creation(name: str, by: Service | Volume, cause: str) -> CreateVolume:
    """Return the action to create a volume, on behalf of its document or its first user."""
    remote = remote_of(by.spec.remote) if isinstance(by, Volume) else None
    return CreateVolume(
        object=by.key,
        target=name,
        cause=cause,
        precondition=Precondition(absent=name),
        owner=by.owner,
        size=by.spec.size if isinstance(by, Volume) else None,
        remote=tuple(remote.driver_options.items()) if remote else (),
    )


@dataclass(frozen=True, slots=True)
class KnownImages:
    """The images on the engine, as far as known."""

    observed: Observed
    #: The revisions whose image was pulled, while no create was tried since.
    pulled: frozenset[tuple[Key, str]] = frozenset()

    def present(self, image: Image) -> bool | None:
        """Return whether an image is present; None if the snapshot does not say."""
        images = self.observed.images
        if image.id in images:
            return images[image.id] is not None
        if any(known is not None and known.id == image.id for known in images.values()):
            return True
        # The engine keeps the image of an existing container.
        return True if any(c.image_id == image.id for c in self.observed.containers) else None

    def pin(self, service: Service) -> Image | None:
        """Return the image that a service's containers are pinned to; None without a pin.

        A job's run with the image of a service has the pin of the service.
        """
        return self.observed.pins.get(service.image_revision or service.revision)

    def of(self, service: Service) -> str:
        """Return the image for a service's containers: the pin of its revision, or else the
        reference.

        A later move of the tag has no effect. The pin is an image id while the image is present.
        Otherwise the pin is a digest in the declared repository, from which the image can be pulled
        again.
        """
        pin = self.pin(service)
        if pin is None:
            return service.spec.image
        if pin.digest and not self.present(pin):
            return f"{repository(service.spec.image)}@{pin.digest}"
        return pin.id

    def rebuilt(self, service: Service) -> Image | None:
        """Return the image built here under a service's reference after its revision was pinned.

        None without such an image. A broker shows a controller only images with trust.
        """
        pin, here = self.pin(service), self.observed.images.get(service.spec.image)
        if pin is None or here is None or here.digest or here.id == pin.id:
            return None
        return here

    def pull(self, service: Service) -> str | None:
        """Return the reference to pull before a create; None if the image is present."""
        pin = self.pin(service)
        if pin is not None:
            return None if self.of(service) == pin.id else self.of(service)
        if service.image_revision:
            return None  # the plan of the service pulls
        reference = service.spec.image
        absent = self.observed.images.get(reference) is None
        # Always resolves the tag again for a new revision, and for a restart by a person (the broker
        # drops the pin then). Otherwise a replacement after a failure would change the image.
        # One pull serves until a create is tried: what the image declares is read in between.
        leaving = service.restarting.ids if service.restarting is not None else frozenset()
        again = (
            service.spec.pull_policy is PullPolicy.ALWAYS
            and (service.key, service.revision) not in self.pulled
            and not any(
                c.revision == service.revision and c.id not in leaving
                for c in self.observed.of(service.key)
            )
        )
        return reference if absent or again else None

    def volumes(self, service: Service) -> tuple[str, ...] | None:
        """Return the VOLUME paths of a service's image; None if the snapshot does not say."""
        wanted = self.of(service)
        image = self.observed.images.get(wanted)
        return self.observed.image_volumes.get(wanted if image is None else image.id)

    def problem(self, service: Service) -> Problem | None:
        """Return why a service's image is not available; None if it is, or can be pulled."""
        pin = self.pin(service)
        lost = pin is not None and not pin.digest and self.present(pin) is False
        never = service.spec.pull_policy is PullPolicy.NEVER and service.spec.build is None
        forbidden = never and self.pull(service) is not None
        if not lost and not forbidden:
            return None
        image = service.spec.image
        if lost:
            message = f"the local image {self.of(service)} that this revision runs is gone"
            remedy = f"load {image} onto the engine, or change spec.image"
            if service.spec.build is not None:
                remedy = f"build it again: trimtab restart {service.key.name}"
        else:
            message = f"{self.pull(service)} isn't here, and pullPolicy is Never"
            remedy = f"load {image} onto the engine, or set pullPolicy: IfNotPresent"
        return problem_of(service, code="image.absent", message=message, remedy=remedy)


def image_action(service: Service, reference: str, cause: str) -> PullImage:
    """Return the action that gets an image: a build of a service's own image, else a pull."""
    build = service.spec.build
    if build is None or reference != service.spec.image:
        return PullImage(object=service.key, target=reference, cause=cause)
    return BuildImage(
        object=service.key, target=reference, cause=cause, build=build, owner=service.owner
    )


def repository(reference: str) -> str:
    """Return a reference without its tag and digest."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def image_references(desired: Desired, observed: Observed | None = None) -> frozenset[str]:
    """Return the images to look up before a plan: references, and ids of pinned revisions."""
    pins = {} if observed is None else observed.pins
    ids = {pins[s.revision].id for s in desired.workloads if s.revision in pins}
    references = {service.spec.image for service in desired.workloads}
    return frozenset(ids | references - {FROM_SERVICE})


@dataclass(frozen=True, slots=True)
class OutdatedNetwork:
    """A declared network with other settings on the engine. An engine changes no network in place."""

    declared: Network
    observed: ObservedNetwork
    differences: tuple[str, ...]

    @property
    def why(self) -> str:
        """The differences in words."""
        return "; ".join(self.differences)


class Prerequisites:
    """The prerequisites of one plan: existing objects, and objects created by the plan.

    Each object is created once, in the first sequence with a need for it.
    """

    def __init__(
        self,
        desired: Desired,
        observed: Observed,
        names: NetworkNames,
        pulled: frozenset[tuple[Key, str]] = frozenset(),
    ) -> None:
        self.names = names
        self.images = KnownImages(observed, pulled)
        self.made: set[tuple[str, str]] = set()
        self._declared = {network.engine_name: network for network in desired.networks}
        self._volumes = {volume.engine_name: volume for volume in desired.volumes}
        self._networks_seen: dict[str, ObservedNetwork] = {}
        for network in sorted(observed.networks, key=lambda n: (n.name, n.ours, n.id)):
            # Engines allow two networks of the same name. A foreign one sorts first, to be reported.
            self._networks_seen.setdefault(network.name, network)
        self._files = FileDeliveries(desired, observed)
        self._volumes_seen = {volume.name: volume for volume in observed.volumes}

    def has_slot_addresses(self, name: str) -> bool:
        """Return True if slots have addresses of their own in a network on the engine."""
        network = self._networks_seen.get(name)
        return network is not None and network.has_slot_addresses

    def shape(self, name: str, service: Service) -> NetworkShape | None:
        """Return the shape of a service's network; None without a declaration."""
        if name in self._declared:
            return NetworkShape.of(self._declared[name])
        bases = {
            self.names.bridge: BRIDGE,
            self.names.ingress: INGRESS,
            self.names.isolated: ISOLATED,
        }
        namespace = service.key.namespace
        shapes = {namespaced_network(base, namespace): shape for base, shape in bases.items()}
        return shapes.get(name)

    def problems(self, service: Service, *, creating: bool) -> tuple[Problem, ...]:
        """Return why a container cannot be created, or, without *creating*, cannot be started."""
        networks = [self._network_problem(n, service) for n in joined_networks(service, self.names)]
        volumes = [self._volume_problem(name, service) for name in _volumes_of(service)]
        image = [self.images.problem(service), _order_problem(service)] if creating else []
        image += [self._files.problem(service)] if creating else []
        return tuple(problem for problem in (*image, *networks, *volumes) if problem)

    def _network_problem(self, name: str, service: Service) -> Problem | None:
        shape, network = self.shape(name, service), self._networks_seen.get(name)
        if network is None:
            if shape is not None:
                return unadopted(self._declared.get(name), service)
            return problem_of(
                service,
                code="network.undeclared",
                message=f"spec.network.attach names {name}, which no Network declares",
                remedy="declare a Network of that name, or remove it from spec.network.attach",
            )
        if network.adopted and network.namespace != service.key.namespace:
            return adopted_elsewhere("network", network.name, network.namespace, service)
        if network.ours and (shape is None or shape.fits(network)):
            return None
        if ("network", name) in self.made or self.outdated(name) is not None:
            return None  # remade by this plan, or a container waits for the remade network
        declared = self._declared.get(name)
        return unadopted(declared, service, network) or foreign_network(network, service)

    def outdated(self, name: str) -> OutdatedNetwork | None:
        """Return the declared network of an engine's name if it must be remade; None otherwise.

        Only a network that the controller made is remade, and only for settings of the document.
        Other settings are defaults of the engine (``default-network-opts``): a new network has them too.
        """
        declared, network = self._declared.get(name), self._networks_seen.get(name)
        if declared is None or network is None or ("network", name) in self.made:
            return None
        made_here = network.ours and network.origin == "controller" and not network.adopted
        shape = NetworkShape.of(declared)
        # What a document chooses may differ, and nothing else.
        seen = replace(shape, internal=network.internal, subnet="", ipv6_subnet="")
        if network.driver in {"bridge", "macvlan"}:
            ip_range = network.ip_range if network.parent else ""
            seen = replace(seen, macvlan=network.parent, ip_range=ip_range)
        if not made_here or not seen.fits(network):
            return None
        differences = shape.differences(network)
        return OutdatedNetwork(declared, network, differences) if differences else None

    def outdated_of(self, service: Service) -> OutdatedNetwork | None:
        """Return the first network of a service that must be remade; None without any."""
        found = map(self.outdated, joined_networks(service, self.names))
        return next((each for each in found if each is not None), None)

    def _volume_problem(self, name: str, service: Service) -> Problem | None:
        volume, declared = self._volumes_seen.get(name), self._volumes.get(name)
        if volume is None:
            return unadopted(declared, service)
        return unadopted(declared, service, volume) or foreign_volume(volume, service)

    def declared_problem(self, resource: Network | Volume) -> Problem | None:
        """Return why an existing object cannot serve as a declared network or volume, if so."""
        if isinstance(resource, Volume):
            volume = self._volumes_seen.get(resource.engine_name)
            if volume is None:
                return unadopted(resource, resource)
            foreign = unadopted(resource, resource, volume) or foreign_volume(volume, resource)
            return foreign or size_problem(volume, resource)
        network = self._networks_seen.get(resource.engine_name)
        if network is None:
            return unadopted(resource, resource)
        if network.adopted and network.namespace != resource.key.namespace:
            return adopted_elsewhere("network", network.name, network.namespace, resource)
        if network.ours and NetworkShape.of(resource).fits(network):
            return None
        if self.outdated(network.name) is not None:
            return None
        return unadopted(resource, resource, network) or foreign_network(network, resource)

    def joinable(self, service: Service) -> frozenset[str]:
        """Return the networks on the engine, and those that the service's plan creates."""
        return frozenset(self._networks_seen) | frozenset(joined_networks(service, self.names))

    def missing(self, service: Service, *, creating: bool) -> tuple[AnyAction, ...]:
        """Return the actions before a create or, without *creating*, before a start."""
        actions: list[AnyAction] = []
        pull = self.images.pull(service) if creating else None
        if pull is not None and (str(service.key), pull) not in self.made:
            present = self.images.observed.images.get(service.spec.image) is not None
            cause = f"pullPolicy is Always: pull {pull} again" if present else f"{pull} isn't here"
            actions.append(image_action(service, pull, cause))
        cause = f"first used by {service.key.name}"
        for name in joined_networks(service, self.names):
            if name not in self._networks_seen and ("network", name) not in self.made:
                shape = self.shape(name, service)
                assert shape is not None, f"nothing says what the network {name} should be"
                by = self._declared.get(name, service)
                actions.append(_network_action(name, shape, by, cause))
        actions += [
            volume_creation(name, self._volumes.get(name, service), cause)
            for name in _volumes_of(service)
            if name not in self._volumes_seen and ("volume", name) not in self.made
        ]
        if creating:
            actions += [d for d in self._files.missing(service) if _delivered(d) not in self.made]
        return tuple(actions)

    def declared(self, resource: Network | Volume) -> tuple[AnyAction, ...]:
        """Return the action to create a declared network or volume; empty for an existing one."""
        name, cause = resource.engine_name, "declared, and not there"
        if isinstance(resource, Volume):
            exists = name in self._volumes_seen
            return () if exists else (volume_creation(name, resource, cause),)
        return () if name in self._networks_seen else (network_creation(resource, cause),)

    def record_created(self, action: AnyAction) -> None:
        """Record an object created or pulled by an action of the plan."""
        match action:
            case CreateNetwork():
                self.made.add(("network", action.target))
            case CreateVolume():
                self.made.add(("volume", action.target))
            case PullImage():
                self.made.add((str(action.object), action.target))
            case DeliverFiles():
                self.made.add(_delivered(action))
            case _:
                pass


def _delivered(action: DeliverFiles) -> tuple[str, str]:
    return (f"{action.kind}/{action.object.namespace}/{action.target}", action.content)


def _order_problem(service: Service) -> Problem | None:
    """Return why the declared order conflicts with the image's volumes; None if it does not."""
    kept = [each.path for each in service.image_volumes or () if each.keeping == "slot"]
    if not kept or service.spec.rollout.order is not Order.START_FIRST:
        return None
    return problem_of(
        service,
        code="rollout.order",
        message=f"StartFirst can't hold: the image declares a VOLUME at {kept[0]}, each slot keeps "
        "one volume there, and two containers can't both write to it",
        remedy=f"use StopFirst, leave order out, or mount a tmpfs at {kept[0]}",
    )


def _volumes_of(service: Service) -> tuple[str, ...]:
    mounts = (mount for mount in service.spec.mounts if isinstance(mount, VolumeMount))
    names = (service.volume_name(mount.source) for mount in mounts)
    return tuple(dict.fromkeys(names))


#: Returns the policy's treatment of a service's image volumes.
VolumeRule = Callable[[Service], AnonymousVolumes]


def always_refuse(_service: Service) -> AnonymousVolumes:
    """Return ``refuse``, as the policy ``strict`` does."""
    return "refuse"


def volume_rule_of(policy: Policy) -> VolumeRule:
    """Return a policy's rule for image volumes, with the exceptions in force at ``judged_at``."""

    def rule(service: Service) -> AnonymousVolumes:
        place = Placement(service.owner, service.key.namespace, service.key.name)
        image = read_reference(service.spec.image)
        holding = exceptions_of(policy, place, image, role=Role.CONTROLLER)
        return with_exceptions(policy, in_force(holding, policy.judged_at)).images.anonymous_volumes

    return rule


def assume_none(rule: VolumeRule, observed: Observed) -> VolumeRule:
    """Return *rule* for a preview: an image that isn't here counts as an image without VOLUMEs.

    A plan that is carried out waits for the image instead.
    """
    images = KnownImages(observed)
    return lambda service: "refuse" if images.pull(service) is not None else rule(service)


def with_image_volumes(
    desired: Desired,
    observed: Observed,
    rule: VolumeRule,
    *,
    only: frozenset[Key] | None = None,
    pulled: frozenset[tuple[Key, str]] = frozenset(),
) -> Desired:
    """Return *desired* with each service's image volumes that no mount covers.

    ``image_volumes`` is None if the image is not present yet and its volumes matter. With *only*,
    the other services stay unchanged. *pulled*: see ``PlanContext``.
    """
    images = KnownImages(observed, pulled)
    changed: dict[Key, Service] = {}
    chosen = desired.services if only is None else map(desired.service, only)
    for service in filter(None, chosen):
        made = _with_volumes(service, images, rule(service))
        if made != service:
            changed[service.key] = made
    if not changed:
        return desired
    services = tuple(changed.get(each.key, each) for each in desired.services)
    return replace(desired, services=services)


def _with_volumes(service: Service, images: KnownImages, keeping: AnonymousVolumes) -> Service:
    if keeping == "refuse":
        return service
    declared = None if images.pull(service) is not None else images.volumes(service)
    if declared is None:
        return service if keeping == "scratch" else replace(service, image_volumes=None)
    targets = (mount.target for mount in service.spec.mounts)
    volumes = tuple(ImageVolume(path, keeping) for path in uncovered(declared, targets))
    return replace(service, image_volumes=volumes) if volumes else service
