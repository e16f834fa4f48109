"""Rules about the sender and the names of objects: owners, names, labels, quotas."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from controller.core.effective import CONTROL, is_reserved
from controller.core.encoding.json_values import fold
from controller.core.encoding.text import quote, shorten
from controller.core.engine_api.container_fields import snake_case
from controller.core.engine_api.requests import Finding, Findings, Grant
from controller.core.rules.context import Case, QuotaCounts
from controller.model import names
from controller.model.policy.document import Policy
from controller.model.policy.sections import Sums
from controller.model.policy.values import OWNER_MAX
from controller.model.quantities import format_bytes
from controller.model.records import Role

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_LIKE_AN_ID = re.compile(r"[0-9a-f]{12,64}", re.ASCII)
_CONTROLLERS_NAME = re.compile(r".*\.([0-9]{1,3}|run-[0-9]{1,8})-[0-9a-f]{8}(\.[0-9]+)?", re.ASCII)
_ATTEMPT = re.compile(r"(\.([2-9]|[1-9][0-9]{1,3}))?", re.ASCII)
_SLOT = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)
_REVISION = re.compile(r"v[12]:[0-9a-f]{64}", re.ASCII)
_LABEL_KEY = re.compile(r"[!-<>-~]{1,255}", re.ASCII)  # printable ASCII without =

_SHOWN_MAX = 96


def owner_known(case: Case) -> Findings:
    """The policy lists the owner and the namespace, and nobody claims another owner's name."""
    yield from judge_owner(case.policy, case.actor.role, case.owner, case.namespace)


def judge_owner(policy: Policy, role: Role, owner: str, namespace: str) -> Findings:
    """Yield the reasons why an owner cannot create objects, or not in that namespace."""
    if role not in {Role.CONTROLLER, Role.CLIENT}:
        return
    where = f"Labels.{names.OWNER}"
    if not names.is_dns_label(owner, length=OWNER_MAX):
        remedy = "write metadata.owner in lower-case letters, digits and dashes"
        yield Finding("owner.invalid", where, f"{owner!r} is no owner's name", remedy)
        return
    listed = policy.owner(owner)
    if listed is None:
        reason = f"{quote(owner)} is not an owner that the policy lists"
        permit = Grant("add", "owners", {"name": owner, "namespaces": [namespace]})
        remedy = "let root add it to the policy's owners"
        yield Finding("owner.unknown", where, reason, remedy, permit=permit)
    elif policy.owners is not None and namespace not in listed.namespaces:
        own = ", ".join(listed.namespaces)
        reason = f"{quote(owner)} has the namespaces {own}, and not {quote(namespace)}"
        key = f"owners.{policy.owners.index(listed)}.namespaces"
        permit = Grant("add", key, namespace)
        yield Finding("owner.namespace", where, reason, "use one of them", permit=permit)


def name_valid(case: Case) -> Findings:
    """A container's name resembles neither an id nor a name of the controller's containers."""
    name, request = case.name, case.request
    most = case.policy.names.max
    yield from judge_name(name, "name", most=most, optional=not case.by_controller)
    if case.facts and case.facts.name_taken == "foreign":
        reason = f"a container that isn't ours has the name {name}"
        remedy = "rename or remove that one"
        if instance := case.facts.name_of:
            reason += f": it says that instance {instance} made it"
            remedy += f"; {adopt_remedy(instance)}"
        yield Finding("name.foreign", "name", reason, remedy)
    if not case.by_controller:
        yield from judge_reserved_name(name)
        return
    slot, revision = request.label(names.SLOT), request.label(names.REVISION)
    if not _has_slot_labels(case):
        return
    if number := names.run_of_slot(slot):
        if len(case.service) > names.JOB_NAME_MAX:
            return  # refused by the rule for runs
        wanted = names.run_name(case.namespace, case.service, number=number, revision=revision)
        if name != wanted:
            yield Finding("name.mismatch", "name", f"{name!r} isn't the name of that run: {wanted}")
        return
    stem = names.container_name(case.namespace, case.service, slot=int(slot), revision=revision)
    if not name.startswith(stem) or not _ATTEMPT.fullmatch(name.removeprefix(stem)):
        yield Finding("name.mismatch", "name", f"{name!r} isn't the name of that slot: {stem}")


def host_named(case: Case) -> Findings:
    """A host name follows RFC 1123, unless the policy allows "_" as the engine does."""
    for field, name in (
        ("Hostname", case.request.hostname),
        ("Domainname", case.request.domainname),
    ):
        if "_" in name and not case.policy.names.underscores:
            reason = f'{quote(name)} is not a host name by RFC 1123: it has "_"'
            permit = Grant("set", "names.underscores", True)
            yield Finding("host.name", field, reason, 'write "-" instead', permit=permit)


def adopt_remedy(instance: str) -> str:
    """Return the remedy for objects of an instance without a state folder."""
    return f"if that instance's state folder is lost: 'trimtab adopt --instance {instance}'"


def is_controllers_name(name: str) -> bool:
    """Return True if a name has the form of the names that the controller gives to containers."""
    return _CONTROLLERS_NAME.fullmatch(name) is not None


def judge_reserved_name(name: str) -> Findings:
    """Refuse a name in the controller's form: it could block a later create of the controller."""
    if is_controllers_name(name):
        reason = f"{name!r} is a name as the controller gives them"
        yield Finding("name.reserved", "name", reason, "choose another name")


def judge_name(
    name: str, path: str, *, most: int, optional: bool = False, least: int = 2
) -> Findings:
    """Yield the faults of a name of a container, network or volume.

    *most* is the policy's limit on its length.
    """
    if not name and optional:
        return
    if len(name) > most:
        shown = quote(shorten(name, _SHOWN_MAX))
        reason = f"{shown} is too long: {len(name)} characters, at most {most}"
        remedy = "choose a shorter name (docker compose: a shorter project name)"
        permit = Grant("set", "names.max", len(name))
        yield Finding("name.invalid", path, reason, remedy, permit=permit)
    elif not _NAME.fullmatch(name) or len(name) < least:
        reason = f"{name!r} is no name: letters, digits, _ . -, {least} to {most} characters"
        yield Finding("name.invalid", path, reason, "choose another name")
    elif _LIKE_AN_ID.fullmatch(name):
        reason = f"{name!r} could be taken for an id"
        yield Finding("name.like-an-id", path, reason, "choose another name")


def _has_slot_labels(case: Case) -> bool:
    request, slot = case.request, case.request.label(names.SLOT)
    return (
        names.is_dns_label(request.label(names.NAMESPACE), length=names.NAMESPACE_MAX)
        and names.is_dns_label(request.label(names.SERVICE), length=names.SERVICE_NAME_MAX)
        and (_SLOT.fullmatch(slot) is not None or names.run_of_slot(slot) > 0)
        and _REVISION.fullmatch(request.label(names.REVISION)) is not None
    )


def slot_labelled(case: Case) -> Findings:
    """The controller labels each container with namespace, service, slot and revision."""
    if case.by_controller and not _has_slot_labels(case):
        wanted = "namespace, service, slot and revision"
        yield Finding("label.slot", "Labels", f"the controller names {wanted} of what it makes")


def service_named(case: Case) -> Findings:
    """A service's name is a DNS label, since containers resolve the name as a host name."""
    service = case.service
    if service and not names.is_dns_label(service, length=63):
        reason = f"{service!r} is no service's name"
        where = f"Labels.{names.SERVICE}"
        yield Finding("service.invalid", where, reason, "lower-case letters, digits and dashes")


def labels_free(case: Case) -> Findings:
    """Requests write no label of ours except their own owner, and other labels are bounded."""
    labels = (*case.request.labels, *((key, "") for key in case.blanked))
    yield from judge_labels(labels, case.policy, case.actor.role, case.owner, case.blanked)


def judge_labels(
    labels: Iterable[tuple[str, str]],
    policy: Policy,
    role: Role,
    owner: str,
    blanked: Collection[str] = (),
) -> Findings:
    """Yield the faults of labels; *blanked* are those of an image that containers have as ''."""
    size = count = 0
    for key, value in labels:
        count, size = count + 1, size + len((key + value).encode(errors="replace"))
        if key not in blanked:
            yield from _judge_label(key, value, policy, role, owner)
    most_bytes = label_bytes_max(policy, role)
    if count > policy.labels.max or size > most_bytes:
        most = f"at most {policy.labels.max} of {format_bytes(most_bytes)} together"
        reason = f"{count} labels of {size} bytes: {most}"
        is_clients = role is Role.CLIENT and size > policy.labels.client_max_bytes
        key = "labels.clientMaxBytes" if is_clients else "labels.maxBytes"
        permit = Grant("set", key, f"{-(-size // 1024)}Ki")
        if count > policy.labels.max:
            permit = Grant("set", "labels.max", count)
        yield Finding("label.size", "Labels", reason, "write fewer", tolerable=True, permit=permit)


def _judge_label(key: str, value: str, policy: Policy, role: Role, owner: str) -> Findings:
    where = f"Labels.{key}"
    own: tuple[str, ...] = names.CLIENT_LABELS
    if role is Role.CONTROLLER:
        own = (*names.CLIENT_LABELS, *names.CONTROLLER_LABELS, *names.RUN_LABELS)
    if is_reserved(key):
        if key not in own:
            yield Finding("label.reserved", where, "the gate writes that one", "leave it out")
        elif key == names.OWNER and value != owner:
            reason = f"you are {owner!r}, not {value!r}"
            yield Finding("label.reserved", where, reason, "leave it out")
    elif prefixes := [p for p in policy.labels.denied_prefixes if fold(key).startswith(fold(p))]:
        reason = "labels of this prefix grant rights in a tool that reads the engine's labels"
        permit = Grant("remove", "labels.deniedPrefixes", prefixes[0]) if not prefixes[1:] else None
        yield Finding("label.denied", where, reason, "remove it", permit=permit)
    elif not _LABEL_KEY.fullmatch(key):
        reason = "a key is printable ASCII without =, at most 255 characters"
        yield Finding("label.invalid", "Labels", reason, "choose another key")
    if CONTROL.search(value):
        reason = "line breaks and control characters could forge a line of a log"
        yield Finding("label.invalid", where, reason, "write it in one line")


def label_bytes_max(policy: Policy, role: Role) -> int:
    """Return how many bytes the labels of an object may have together."""
    most = policy.labels.max_bytes
    return min(most, policy.labels.client_max_bytes) if role is Role.CLIENT else most


def quotas_kept(case: Case) -> Findings:
    """Containers count in any state; a rollout may exceed the service's quota by its surge.

    A container without a service counts for its owner alone.
    """
    if case.facts is None:
        return
    quotas = case.policy.quotas
    surge = 1 if case.by_controller and case.facts.replaces else 0
    if case.service and case.facts.service_count >= quotas.per_service + surge:
        reason = f"{case.service} has {case.facts.service_count} containers"
        remedy = f"at most {quotas.per_service}: remove some first"
        permit = Grant("set", "quotas.perService", quotas.per_service + 1)
        yield Finding("quota.service", f"Labels.{names.SERVICE}", reason, remedy, permit=permit)
    role, counts = case.actor.role, case.facts.counts
    yield from _judge_own(CONTAINER_QUOTA, case.policy, role, case.owner, case.facts.owner_count)
    yield from _judge_sum("quota.all-containers", case.policy, role, counts.all_containers)
    if new := case.facts.new_volumes:
        yield from judge_volume_quota(case.policy, role, case.owner, counts, new=new)
    if new := len(case.request.ports):
        yield from judge_port_quota(case.policy, role, case.owner, counts, new=new)
    new = case.facts.new_networks  # of the namespace: they are no owner's
    yield from _judge_sum("quota.all-networks", case.policy, role, counts.all_networks, new=new)


def sums_of(policy: Policy, role: Role) -> Sums | None:
    """Return the limits on objects of all owners together; None for operators."""
    match role:
        case Role.CONTROLLER:
            return policy.quotas.documents
        case Role.CLIENT:
            return policy.quotas.clients
        case _:
            return None


@dataclass(frozen=True, slots=True)
class OwnerQuota:
    """A quota of each owner: that of the owner's entry in the policy, or that of all."""

    rule: str
    #: The counted objects, in words.
    what: str
    #: The member of an owner's entry, and the key in ``quotas``.
    member: str
    key: str

    def most(self, policy: Policy, owner: str) -> int:
        """Return how many an owner may have."""
        return self._place(policy, owner)[1]

    def permit(self, policy: Policy, owner: str) -> Grant:
        """Return the change of the policy for one more."""
        key, most = self._place(policy, owner)
        return Grant("set", key, most + 1)

    def _place(self, policy: Policy, owner: str) -> tuple[str, int]:
        for index, listed in enumerate(policy.owners or ()):
            most = getattr(listed, self.member)
            if listed.name == owner and most is not None:
                return f"owners.{index}.{self.member}", most
        return f"quotas.{self.key}", getattr(policy.quotas, snake_case(self.key))


CONTAINER_QUOTA = OwnerQuota("quota.owner", "containers", "quota", "perOwner")
VOLUME_QUOTA = OwnerQuota("quota.volumes", "volumes", "volumes", "volumesPerOwner")
NETWORK_QUOTA = OwnerQuota("quota.networks", "networks", "networks", "networksPerOwner")
PORT_QUOTA = OwnerQuota("quota.ports", "published ports", "ports", "portsPerOwner")


def judge_volume_quota(
    policy: Policy, role: Role, owner: str, counts: QuotaCounts, *, new: int = 1
) -> Findings:
    """Yield the quotas that *new* more volumes of an owner exceed."""
    yield from _judge_own(VOLUME_QUOTA, policy, role, owner, counts.volumes, new=new)
    yield from _judge_sum("quota.all-volumes", policy, role, counts.all_volumes, new=new)


def judge_network_quota(policy: Policy, role: Role, owner: str, counts: QuotaCounts) -> Findings:
    """Yield the quotas that one more network exceeds.

    Networks of a namespace, such as all of the controller's, count in the sum only.
    """
    if role is not Role.CONTROLLER:
        yield from _judge_own(NETWORK_QUOTA, policy, role, owner, counts.networks)
    yield from _judge_sum("quota.all-networks", policy, role, counts.all_networks)


def judge_port_quota(
    policy: Policy, role: Role, owner: str, counts: QuotaCounts, *, new: int
) -> Findings:
    """Yield the quotas that *new* more published ports of an owner exceed.

    The engine runs a process for each published port, beyond the limits of any container.
    """
    yield from _judge_own(PORT_QUOTA, policy, role, owner, counts.ports, new=new)
    yield from _judge_sum("quota.all-ports", policy, role, counts.all_ports, new=new)


def _owner_place(role: Role) -> str:
    """Return the place of the owner in a request; '' for people, whose owner is no part of it."""
    return f"Labels.{names.OWNER}" if role is Role.CONTROLLER else ""


def _judge_own(
    quota: OwnerQuota, policy: Policy, role: Role, owner: str, count: int, *, new: int = 1
) -> Findings:
    most = quota.most(policy, owner)
    if count + new > most:
        reason, remedy = f"{owner} has {count} {quota.what}", f"at most {most}: remove some first"
        permit = quota.permit(policy, owner)
        yield Finding(quota.rule, _owner_place(role), reason, remedy, permit=permit)


def _judge_sum(
    rule: str,
    policy: Policy,
    role: Role,
    count: int,
    *,
    new: int = 1,
) -> Findings:
    """Yield a finding for a sum of all owners. Only operators learn the number of other clients' objects."""
    sums, what = sums_of(policy, role), rule.rpartition("-")[2]
    most = 0 if sums is None else getattr(sums, what)
    if sums is None or not new or count + new <= most:
        return
    words = "published ports" if what == "ports" else what
    whose = "documents" if role is Role.CONTROLLER else "clients"
    if role is Role.CONTROLLER:
        reason = f"documents have {count} {words}, of all owners together"
    else:
        reason = f"clients have as many {words} as the policy lets all of them have together"
    remedy = f"at most {most}: remove some first, or let root raise the policy's quotas"
    permit = Grant("set", f"quotas.{whose}.{what}", most + 1)
    yield Finding(rule, _owner_place(role), reason, remedy, permit=permit)
