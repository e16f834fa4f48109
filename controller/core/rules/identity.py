"""Rules about the sender and the names of objects: owners, names, labels, quotas."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from controller.core.effective.labels import CONTROL, is_reserved
from controller.core.encoding.quoting import quote, shorten
from controller.core.encoding.strict_json import fold
from controller.core.engine_api.requests import Finding, Findings
from controller.core.rules.context import Case
from controller.core.rules.facts import QuotaCounts
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
        yield Finding("owner.unknown", where, reason, "let root add it to the policy's owners")
    elif policy.owners is not None and namespace not in listed.namespaces:
        own = ", ".join(listed.namespaces)
        reason = f"{quote(owner)} has the namespaces {own}, and not {quote(namespace)}"
        yield Finding("owner.namespace", where, reason, "use one of them")


def name_valid(case: Case) -> Findings:
    """A container's name resembles neither an id nor a name of the controller's containers."""
    name, request = case.name, case.request
    most = case.policy.names.max
    yield from judge_name(name, "name", most=most, optional=not case.by_controller)
    if case.facts and case.facts.name_taken == "foreign":
        reason, remedy = f"a container that isn't ours has the name {name}", _foreign_remedy(case)
        if case.facts.name_of:
            reason += f": it says that instance {case.facts.name_of} made it"
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
            yield Finding("host.name", field, reason, 'write "-" instead')


def _foreign_remedy(case: Case) -> str:
    remedy = "rename or remove that one"
    instance = case.facts.name_of if case.facts else ""
    return f"{remedy}; {adopt_remedy(instance)}" if instance else remedy


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
        yield Finding("name.invalid", path, reason, remedy)
    elif not _NAME.fullmatch(name) or len(name) < least:
        reason = f"{name!r} is no name: letters, digits, _ . -, {least} to {most} characters"
        yield Finding("name.invalid", path, reason, "choose another name")
    elif _LIKE_AN_ID.fullmatch(name):
        reason = f"{name!r} could be taken for an id"
        yield Finding("name.like-an-id", path, reason, "choose another name")


def _has_slot_labels(case: Case) -> bool:
    request = case.request
    return (
        names.is_dns_label(request.label(names.NAMESPACE), length=names.NAMESPACE_MAX)
        and names.is_dns_label(request.label(names.SERVICE), length=names.SERVICE_NAME_MAX)
        and _is_slot(request.label(names.SLOT))
        and _REVISION.fullmatch(request.label(names.REVISION)) is not None
    )


def _is_slot(label: str) -> bool:
    return _SLOT.fullmatch(label) is not None or names.run_of_slot(label) > 0


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
        yield Finding("label.size", "Labels", reason, "write fewer", tolerable=True)


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
    elif any(fold(key).startswith(fold(prefix)) for prefix in policy.labels.denied_prefixes):
        reason = "labels of this prefix grant rights in a tool that reads the engine's labels"
        yield Finding("label.denied", where, reason, "remove it")
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
    quotas, per_owner = case.policy.quotas, container_quota(case.policy, case.owner)
    surge = 1 if case.by_controller and case.facts.replaces else 0
    if case.service and case.facts.service_count >= quotas.per_service + surge:
        reason = f"{case.service} has {case.facts.service_count} containers"
        remedy = f"at most {quotas.per_service}: remove some first"
        yield Finding("quota.service", f"Labels.{names.SERVICE}", reason, remedy)
    role, counts = case.actor.role, case.facts.counts
    if (count := case.facts.owner_count) >= per_owner:
        yield _over_own("quota.owner", role, "containers", case.owner, count, per_owner)
    sums = sums_of(case.policy, role)
    if sums is not None and counts.all_containers >= sums.containers:
        yield _over_sum(
            "quota.all-containers", role, "containers", counts.all_containers, sums.containers
        )
    if new := case.facts.new_volumes:
        yield from judge_volume_quota(case.policy, role, case.owner, counts, new=new)
    if new := len(case.request.ports):
        yield from judge_port_quota(case.policy, role, case.owner, counts, new=new)
    new = case.facts.new_networks  # of the namespace: they are no owner's
    if new and sums is not None and counts.all_networks + new > sums.networks:
        yield _over_sum("quota.all-networks", role, "networks", counts.all_networks, sums.networks)


def sums_of(policy: Policy, role: Role) -> Sums | None:
    """Return the limits on objects of all owners together; None for operators."""
    match role:
        case Role.CONTROLLER:
            return policy.quotas.documents
        case Role.CLIENT:
            return policy.quotas.clients
        case _:
            return None


def container_quota(policy: Policy, owner: str) -> int:
    """Return how many containers an owner may have."""
    listed = policy.owner(owner) if policy.owners is not None else None
    if listed is not None and listed.quota is not None:
        return listed.quota
    return policy.quotas.per_owner


def volume_quota(policy: Policy, owner: str) -> int:
    """Return how many volumes an owner may have."""
    listed = policy.owner(owner) if policy.owners is not None else None
    if listed is not None and listed.volumes is not None:
        return listed.volumes
    return policy.quotas.volumes_per_owner


def network_quota(policy: Policy, owner: str) -> int:
    """Return how many networks the clients of an owner may have."""
    listed = policy.owner(owner) if policy.owners is not None else None
    if listed is not None and listed.networks is not None:
        return listed.networks
    return policy.quotas.networks_per_owner


def judge_volume_quota(
    policy: Policy, role: Role, owner: str, counts: QuotaCounts, *, new: int = 1
) -> Findings:
    """Yield the quotas that *new* more volumes of an owner exceed."""
    most, sums = volume_quota(policy, owner), sums_of(policy, role)
    if counts.volumes + new > most:
        yield _over_own("quota.volumes", role, "volumes", owner, counts.volumes, most)
    if sums is not None and counts.all_volumes + new > sums.volumes:
        yield _over_sum("quota.all-volumes", role, "volumes", counts.all_volumes, sums.volumes)


def judge_network_quota(policy: Policy, role: Role, owner: str, counts: QuotaCounts) -> Findings:
    """Yield the quotas that one more network exceeds.

    Networks of a namespace, such as all of the controller's, count in the sum only.
    """
    most, sums = network_quota(policy, owner), sums_of(policy, role)
    if role is not Role.CONTROLLER and counts.networks >= most:
        yield _over_own("quota.networks", role, "networks", owner, counts.networks, most)
    if sums is not None and counts.all_networks >= sums.networks:
        yield _over_sum("quota.all-networks", role, "networks", counts.all_networks, sums.networks)


def port_quota(policy: Policy, owner: str) -> int:
    """Return how many ports of the host the containers of an owner may publish."""
    listed = policy.owner(owner) if policy.owners is not None else None
    if listed is not None and listed.ports is not None:
        return listed.ports
    return policy.quotas.ports_per_owner


def judge_port_quota(
    policy: Policy, role: Role, owner: str, counts: QuotaCounts, *, new: int
) -> Findings:
    """Yield the quotas that *new* more published ports of an owner exceed.

    The engine runs a process for each published port, beyond the limits of any container.
    """
    most, sums = port_quota(policy, owner), sums_of(policy, role)
    if counts.ports + new > most:
        yield _over_own("quota.ports", role, "published ports", owner, counts.ports, most)
    if sums is not None and counts.all_ports + new > sums.ports:
        yield _over_sum("quota.all-ports", role, "published ports", counts.all_ports, sums.ports)


def _owner_place(role: Role) -> str:
    """Return the place of the owner in a request; '' for people, whose owner is no part of it."""
    return f"Labels.{names.OWNER}" if role is Role.CONTROLLER else ""


def _over_own(rule: str, role: Role, what: str, owner: str, count: int, most: int) -> Finding:
    reason = f"{owner} has {count} {what}"
    return Finding(rule, _owner_place(role), reason, f"at most {most}: remove some first")


def _over_sum(rule: str, role: Role, what: str, count: int, most: int) -> Finding:
    """Return the refusal; the number of other clients' objects is told to nobody but operators."""
    if role is Role.CONTROLLER:
        reason = f"documents have {count} {what}, of all owners together"
    else:
        reason = f"clients have as many {what} as the policy lets all of them have together"
    remedy = f"at most {most}: remove some first, or let root raise the policy's quotas"
    return Finding(rule, _owner_place(role), reason, remedy)
