"""Policies as text: loaded from YAML, described for people, and made of a template.

The comments of the template stay, so the file explains each of its lines. Only values change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controller.core.engine_api.container_fields import BOUNDED
from controller.core.yaml.documents import Document, compose
from controller.model.errors import PolicyInvalid
from controller.model.names import DEFAULT_NAMESPACE
from controller.model.policy.document import Exemption, Owner, Policy, PolicyOrigin
from controller.model.policy.sections import SignedSource
from controller.model.policy.values import AnonymousVolumes, format_cpus
from controller.model.quantities import format_bytes, format_duration_ms

REMEDY = "correct the file; configs/policies/strict.yaml shows every key"
_SHOWN_MAX = 10


def load_policy(text: str, file: str) -> Policy:
    """Return the policy of a file's text.

    Raises:
        PolicyInvalid: the text is not a policy. The message has a line ``FILE:LINE: where: why``
            for each fault.
    """
    documents, problems = compose(text, file)
    if problems:
        lines = [f"{p.file}:{p.line}: {p.message}" for p in problems[:_SHOWN_MAX]]
        raise PolicyInvalid("policy.invalid", "\n".join(lines), remedy=REMEDY)
    if len(documents) != 1:
        count = "no document" if not documents else f"{len(documents)} documents"
        raise PolicyInvalid("policy.invalid", f"{file}: {count}, a policy is one", remedy=REMEDY)
    document = documents[0]
    if not isinstance(document.value, dict):
        line = document.place.line
        raise PolicyInvalid("policy.invalid", f"{file}:{line}: no keys and values", remedy=REMEDY)
    try:
        return Policy.from_json(document.value).read_from(PolicyOrigin(file, _lines(document)))
    except ValidationError as error:
        lines = [_line(details, document) for details in error.errors()[:_SHOWN_MAX]]
        raise PolicyInvalid("policy.invalid", "\n".join(lines), remedy=REMEDY) from None


def _lines(document: Document) -> dict[str, int]:
    """Return the line of each key, by its dotted path; items of lists by their index."""
    lines: dict[str, int] = {}

    def walk(value: object, path: tuple[str | int, ...]) -> None:
        if path and isinstance(path[-1], str):
            lines[".".join(map(str, path))] = document.locate_key(path).line
        members = value.items() if isinstance(value, dict) else ()
        items = enumerate(value) if isinstance(value, list) else ()
        for key, inner in (*members, *items):
            walk(inner, (*path, key))

    walk(document.value, ())
    return lines


def _line(details: ErrorDetails, document: Document) -> str:
    path = details["loc"]
    text = details["msg"]
    context = details.get("ctx") or {}
    match details["type"]:
        case "extra_forbidden":
            place = document.locate_key(path)
            text = "no key of a policy"
        case "policy":
            # A contradiction between two keys names its own place.
            path = tuple(str(context["path"]).split("."))
            place = document.locate(path)
        case "missing":
            place = document.locate(path[:-1])
            text = "is needed"
        case _:
            place = document.locate(path)
    where = ".".join(str(part) for part in path)
    return f"{document.file}:{place.line}: {where}: {text.removeprefix('Value error, ')}"


Publish = Literal["asked", "all", "loopback"]

#: The allowed addresses of published ports; the first is the default.
ADDRESSES: dict[Publish, tuple[str, ...]] = {
    "asked": ("127.0.0.1", "::1", "0.0.0.0", "::"),  # noqa: S104 - what the policy admits
    "all": ("0.0.0.0", "::", "127.0.0.1", "::1"),  # noqa: S104 - likewise
    "loopback": ("127.0.0.1", "::1"),
}
#: The public registries of ``home``.
REGISTRIES = (
    "docker.io/",
    "ghcr.io/",
    "quay.io/",
    "lscr.io/",
    "gcr.io/",
    "registry.k8s.io/",
    "mcr.microsoft.com/",
    "docker.elastic.co/",
    "public.ecr.aws/",
)
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9./_-]*|[0-9]+(\.[0-9]+){3}", re.ASCII)
_KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?P<comment>#.*)?")
_COMMENT_COLUMN = 34


@dataclass(frozen=True, slots=True)
class TemplateAnswers:
    """The answers of the operator."""

    name: str = "own"
    images: tuple[str, ...] = REGISTRIES
    publish: Publish = "asked"
    low_ports: tuple[int, ...] = (80, 443)
    owners: tuple[tuple[str, tuple[str, ...]], ...] = ()  # with namespaces; empty admits any owner
    clients: tuple[tuple[int, str], ...] = ()  # uids with their owners
    viewers: tuple[tuple[int, tuple[str, ...]], ...] = ()  # uids with owners; empty means all
    anonymous_volumes: AnonymousVolumes = "slot"


def policy_text(template: str, answers: TemplateAnswers, *, file: str) -> str:
    """Return the text of a new policy.

    Args:
        template: the text of ``home.yaml``.
        file: the name of the new file.

    Raises:
        PolicyInvalid: an answer is not valid in a policy.
    """
    owners = [
        f"{{name: {_yaml_word(name)}, namespaces: {_yaml_list(namespaces or (DEFAULT_NAMESPACE,))}}}"
        for name, namespaces in answers.owners
    ]
    clients = [f"{{uid: {uid}, owner: {_yaml_word(owner)}}}" for uid, owner in answers.clients]
    viewers = [
        f"{{uid: {uid}, owners: {_yaml_list(owners) if owners else 'all'}}}"
        for uid, owners in answers.viewers
    ]
    body = template[template.index("\nname: ") + 1 :]
    for key, value in (
        ("name", _yaml_word(answers.name)),
        ("images.allow", [_yaml_word(prefix) for prefix in answers.images]),
        ("images.anonymousVolumes", answers.anonymous_volumes),
        ("networks.ports.hostIPs", _yaml_list(ADDRESSES[answers.publish])),
        ("networks.ports.minHost", "1024"),
        ("networks.ports.granted", _yaml_list(answers.low_ports)),
        ("owners", owners or "null"),
        ("clients", clients or "[]"),
        ("viewers", viewers or "[]"),
    ):
        body = _replace_value(body, key, value)
    text = _head(file) + body
    load_policy(text, file)
    return text


def _head(file: str) -> str:
    return f"""\
# The policy of this machine, made by `trimtab policy init`: a copy of `home` with a few answers.
#
# Use it with `trimtab up DIR --policy {file}`.
# After an edit, `trimtab policy reload` puts it in force; a mistake leaves the rules before it.
#
# A key that isn't written here has the value of `strict` (`trimtab policy show --policy strict`),
# but the quotas of volumes, networks and ports are those of `home`.
# No policy can grant privileged containers, host namespaces, devices, the host's sysctls, the engine's socket
# or the broker's folders. Keep this file root's own: whoever can write it decides what may run.
"""


def _replace_value(text: str, path: str, value: str | list[str]) -> str:
    """Return the text of a policy with another value of an existing key."""
    lines = text.splitlines()
    index = _line_of(lines, path.split("."))
    match = _KEY.fullmatch(lines[index])
    assert match is not None, f"{path} is written in a way that can't be replaced"
    indent, key, comment = match["indent"], match["key"], match["comment"]
    end = index + 1
    while end < len(lines) and lines[end].startswith(f"{indent}  - "):
        end += 1
    items = value if isinstance(value, list) else []
    head = f"{indent}{key}:" if items else f"{indent}{key}: {value}"
    if comment:
        head = f"{head.ljust(_COMMENT_COLUMN - 1)} {comment}"
    new = [head, *(f"{indent}  - {item}" for item in items)]
    return "\n".join([*lines[:index], *new, *lines[end:]]) + "\n"


def _line_of(lines: list[str], path: list[str]) -> int:
    """Return the index of the line of a key in block style."""
    start = 0
    for depth, part in enumerate(path):
        wanted = f"{'  ' * depth}{part}:"
        start = next(n for n in range(start, len(lines)) if lines[n].startswith(wanted))
    return start


def _yaml_word(value: str | int) -> str:
    """Return a value as YAML, in quotes if it could be read as a number or a boolean."""
    if isinstance(value, int):
        return str(value)
    plain = _PLAIN.fullmatch(value) and value.lower() not in ("true", "false", "null")
    return value if plain else json.dumps(value)


def _yaml_list(values: Iterable[str | int]) -> str:
    return f"[{', '.join(_yaml_word(value) for value in values)}]"


NEVER = (
    "privileged containers, namespaces and sysctls of the host",
    "disks, consoles, terminals, memory and ports of the host as devices",
    "sockets as mounts, and folders of the engine and the gate",
    "volumes with options that no grant names, anonymous references (ids), local images without trust",
)


_ANONYMOUS_VOLUMES = {
    "refuse": "refused",
    "slot": "a named volume of the slot, which is kept",
    "scratch": "a tmpfs, empty at each start",
}


def describe(policy: Policy) -> tuple[str, ...]:
    """Return the policy as lines: a title, then ``NAME  VALUE`` in columns."""
    rows = [*_rows(policy)]
    width = max(len(name) for name, _ in rows)
    title = f"policy {policy.name} ({policy.profile}), digest {policy.digest}"
    lines = [f"  {name.ljust(width)}  {value}" for name, value in rows]
    never = [f"  {'never'.ljust(width)}  {text}" for text in NEVER]
    return (title, *lines, *never)


def _rows(policy: Policy) -> Iterator[tuple[str, str]]:
    yield "images", _join(policy.images.allow)
    if policy.images.trust_local:
        yield "trusted as found", _join(policy.images.trust_local)
    if policy.images.require_digest:
        yield "references", "only with a digest"
    yield "anonymous volumes", _ANONYMOUS_VOLUMES[policy.images.anonymous_volumes]
    yield "capabilities", f"all dropped; may be asked for: {_join(policy.capabilities.allowed)}"
    yield from _security(policy)
    yield from _resources(policy)
    yield from _mounts(policy)
    yield from _networks(policy)
    yield from _devices(policy)
    logs = policy.logs
    size = f"{format_bytes(logs.default_size)} x {logs.default_files}"
    most = f"{format_bytes(logs.max_size)} x {logs.max_files}"
    yield "logs", f"{_join(logs.drivers)}; {size} by default, at most {most}"
    for each in logs.collectors:
        yield "", f"{each.driver} to {each.address}: what containers print leaves the host for it"
    restart = policy.restart
    yield "restart", f"{_join(restart.policies)}; at most {restart.max_retries} retries"
    yield "removed at exit", "may be asked for" if policy.auto_remove else "refused"
    check = policy.healthcheck
    shell = "" if check.shell else ", no shell"
    yield "health checks", f"every {format_duration_ms(check.min_interval)} at most{shell}"
    yield "environment", f"{policy.env.max} variables, {format_bytes(policy.env.max_bytes)}"
    if policy.env.denied:
        yield "", f"not {_join(policy.env.denied)}"
    yield "names", f"at most {policy.names.max} characters"
    if grants := [*_grants(policy)]:
        yield "may be asked for", _join(grants)
    yield "exec", _exec(policy)
    quotas = policy.quotas
    yield "quotas", f"{quotas.per_service} containers a service, {quotas.per_owner} an owner"
    own = f"{quotas.volumes_per_owner} volumes an owner, {quotas.networks_per_owner} networks"
    yield "", f"{own} of its clients, {quotas.ports_per_owner} published ports"
    for whose, sums in (("documents", quotas.documents), ("clients", quotas.clients)):
        most = f"{sums.containers} containers, {sums.volumes} volumes, {sums.networks} networks"
        most += f", {sums.ports} published ports"
        yield "", f"{whose} of all owners together: {most}"
    size = format_bytes(quotas.journal_per_day)
    yield "", f"a client: {quotas.mutations_per_second} changes a second, {size} of records a day"
    for rule in policy.sources:
        yield "signed only", _source(rule)
    yield from _people(policy)


def _mounts(policy: Policy) -> Iterator[tuple[str, str]]:
    yield "mounts", f"below {_join(policy.mounts.allowed)}"
    yield "", f"not {_join(policy.mounts.forbidden)}"
    for project in policy.mounts.projects:
        yield "", f"{project.path}, whose files are uid {project.uid}'s"
    if policy.mounts.directory is not None:
        uid = policy.mounts.directory.uid
        yield "", f"folders of the directory for documents, whose files are uid {uid}'s"
    for there in policy.mounts.remote:
        folder = f"{there.type} {there.server}:{there.path}"
        yield "", f"volumes of {there.owner} in {there.namespace} on {folder}"


def _source(rule: SignedSource) -> str:
    owner = "" if rule.owner is None else f", Compose projects of {rule.owner}"
    return (
        f"{_join(rule.namespaces)}: commits of Source {rule.source}, folder {rule.path}{owner}, by keys "
        f"{rule.keys}, from {rule.since[:12]} on; by hand: stop, restart, rollback, suspend, approve"
    )


def _grants(policy: Policy) -> Iterator[str]:
    """Yield the rights of clients in addition to ``strict``, in terms of the docker command."""
    networks, shared = policy.networks, policy.security.shared_namespaces
    for granted, text in (
        (policy.env.unset, "variables without a value"),
        (policy.names.underscores, "_ in host names"),
        (policy.mounts.create_volumes, "new volumes by their name"),
        (policy.security.group_add, "further groups"),
        (policy.resources.cpuset, "CPU sets"),
        (policy.resources.tmpfs.executable, "programs in a tmpfs"),
        (networks.client_aliases, "any alias in networks of one's own"),
        (
            networks.compose_default == "bridge",
            "mode bridge for the default network of a compose file",
        ),
        (networks.ports.ranges, "ranges of host ports"),
        (networks.static_addresses, "chosen addresses of containers"),
        (networks.ipv6, "IPv6 subnets"),
        (shared != (), f"services that share namespaces: {_join(shared)}"),
    ):
        if granted:
            yield text
    if policy.security.sysctls:
        yield f"settings of the kernel: {_join(policy.security.sysctls)}"
    if networks.subnets:
        yield f"subnets of networks within {_join(networks.subnets)}"
    if networks.service_aliases:
        yield "any alias of services"
    if networks.dns.servers:
        yield f"DNS servers within {_join(networks.dns.servers)}"
    if networks.dns.search:
        yield "search domains"
    if networks.dns.options:
        yield "options of resolv.conf"
    if networks.extra_hosts:
        yield f"hosts entries ({_join(networks.extra_hosts)})"


def _security(policy: Policy) -> Iterator[tuple[str, str]]:
    forced = ["no new privileges"]
    forced += ["never root"] if policy.security.require_non_root else []
    forced += ["read-only root filesystem"] if policy.security.require_read_only_root else []
    yield "forced", _join(forced)
    unverified = "runs, and status says so" if policy.security.unverified == "allow" else "is ended"
    if policy.engine.ignores:
        yield "missing", f"limits that containers may lack: {_join(policy.engine.ignores)}"
    yield "unverified", f"what can't be compared with what was admitted {unverified}"


def _resources(policy: Policy) -> Iterator[tuple[str, str]]:
    resources = policy.resources
    for name, default, most in (
        ("memory", format_bytes(resources.memory.default), format_bytes(resources.memory.max)),
        ("CPUs", format_cpus(resources.cpus.default), format_cpus(resources.cpus.max)),
        ("processes", str(resources.pids.default), str(resources.pids.max)),
        ("tmpfs", format_bytes(resources.tmpfs.default), format_bytes(resources.tmpfs.max)),
    ):
        yield name, f"{default} by default, at most {most}"
    for field, bound in BOUNDED:
        if isinstance(bound.least, str):
            lowest, highest = bound.of(policy)
            yield field.path.removeprefix("spec."), f"{lowest} to {highest}"
    yield "shared memory", f"at most {format_bytes(resources.shm_max)}"


def _networks(policy: Policy) -> Iterator[tuple[str, str]]:
    networks, ports = policy.networks, policy.networks.ports
    yield "network modes", _join(networks.modes)
    beside = ", which joins the first one, too" if networks.bridge_joins_isolated else ""
    yield "networks", f"{networks.isolated}, {networks.ingress}, {networks.bridge}{beside}"
    for each in networks.macvlan:
        place = f"{each.owner} in {each.namespace}"
        yield "", f"{place}: machines of the host's network on {each.parent}, at {each.range}"
    granted = f", and {_join(str(port) for port in ports.granted)}" if ports.granted else ""
    yield "ports", f"{ports.min_host} and above{granted} on {_join(ports.host_ips)}"


def _devices(policy: Policy) -> Iterator[tuple[str, str]]:
    if not policy.devices.grants:
        yield "devices", "none"
    for number, grant in enumerate(policy.devices.grants):
        text = f"{grant.owner} in {grant.namespace}: {_join(grant.devices)}"
        if grant.cap_add:
            text += f", with {_join(grant.cap_add)} over the container's own network"
        if grant.specifications:
            text += f", also by the specifications {_join(grant.specifications)}"
        yield "" if number else "devices", text


def _exec(policy: Policy) -> str:
    if not policy.exec.enabled:
        return "refused"
    root = "" if policy.exec.root else ", not as root by name"
    who = "operators, clients in their own containers" if policy.exec.clients else "operators"
    return f"{who}, for at most {format_duration_ms(policy.exec.max_duration)}{root}"


def _people(policy: Policy) -> Iterator[tuple[str, str]]:
    if policy.owners is None:
        yield "owners", "any"
    for owner in policy.owners or ():
        yield "owner", _owner(owner)
    if policy.operators:
        yield "operators", f"uid {_join(str(uid) for uid in policy.operators)}"
    for client in policy.clients:
        yield "client", f"uid {client.uid} for {client.owner}"
    for viewer in policy.viewers:
        owners = "all owners" if viewer.owners == "all" else _join(viewer.owners)
        output = "no output" if viewer.logs == "none" else f"output of {_join(viewer.logs)}"
        yield "viewer", f"uid {viewer.uid} reads the state of {owners}, {output}"
    for rule, mode in sorted(policy.modes.items()):
        if mode != "enforce":
            yield f"{mode} only", rule
    for exemption in policy.exceptions:
        yield "exception", _exemption(exemption)


def _owner(owner: Owner) -> str:
    parts = [f"{owner.name}: namespaces {_join(owner.namespaces)}"]
    parts += [f"mounts below {_join(owner.sources)}"] if owner.sources else []
    for most, what in (
        (owner.quota, "containers"),
        (owner.volumes, "volumes"),
        (owner.networks, "networks of clients"),
        (owner.ports, "published ports"),
    ):
        parts += [f"{most} {what}"] if most is not None else []
    return "; ".join(parts)


def _exemption(exemption: Exemption) -> str:
    place = f"{exemption.owner}/{exemption.namespace}/{exemption.service}"
    grants = exemption.loosens.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text = ", ".join(f"{key} {_value(value)}" for key, value in sorted(grants.items()))
    place += " of clients" if exemption.made_by == "clients" else ""
    return f"{place} from {exemption.repository} until {exemption.expires}: {text}"


def _value(value: object) -> str:
    return _join(str(item) for item in value) if isinstance(value, list) else str(value)


def _join(items: Iterable[str]) -> str:
    return ", ".join(items) or "none"
