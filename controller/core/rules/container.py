"""Rules of a create about the container itself: limits, privileges, devices, hooks, restarts, checks.

Each rule is a function from a case to its findings. A rule that needs facts yields nothing in a
preview.

Rules about commands in a running container: lifecycle hooks, and the user of an exec.

A hook is part of the create. The gate runs the recorded hooks and no other command, so that a
controller cannot run a command of its own choice in a container.

The rules of devices: a path or a CDI name that the policy grants to the owner, and nothing more.

A device of the host is a way to the host's kernel. Each one needs a grant of the policy to a listed
owner in a namespace. The host decides what a path is: a character device that is no console,
no pseudo-terminal, no disk and no memory. The rules are the same for documents, clients and operators.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace

from controller.core.effective import is_named, is_number
from controller.core.encoding import json_values
from controller.core.encoding.json_values import canonical
from controller.core.encoding.text import quote
from controller.core.engine_api.cdi import FOLDERS, CdiDevice
from controller.core.engine_api.container_fields import BOUNDED, snake_case
from controller.core.engine_api.field_reader import FindingCollector, members_of
from controller.core.engine_api.field_tables import HOOK
from controller.core.engine_api.grammar import hooks
from controller.core.engine_api.requests import (
    CreateRequest,
    DeviceRequest,
    Finding,
    Findings,
    Grant,
    HealthcheckRequest,
    HookRequest,
    HookRequests,
    ResourceLimits,
    RestartRequest,
    new_bound,
)
from controller.core.rules.context import Case, HostFacts
from controller.model import names
from controller.model.desired.spec.fields import SYSCTL_MAX, is_sysctl
from controller.model.host_paths import PathFacts
from controller.model.policy.document import MEMORY_FLOOR, Policy
from controller.model.policy.sections import TUN, DeviceGrant, why_never, why_never_number
from controller.model.policy.values import NANO, format_cpus
from controller.model.quantities import format_bytes, format_duration_ms, parse_size

_REMEDY = "leave it out"
#: For an owner to whom no device can be granted yet.
_UNLISTED = (
    "leave it out, or list the owner with the namespace in owners of the policy, and grant the device in "
    "devices.grants"
)
#: The kinds of a path behind which there is no known device: rule, reason and remedy.
_UNKNOWN = {
    "missing": ("device.missing", "isn't there", "plug the device in, or load its module"),
    "symlink": ("device.kind", "is a link, or lies behind one", "name the device itself"),
    "unreadable": ("device.kind", "couldn't be looked at", "try again"),
}


def granting(case: Case, device: DeviceRequest) -> DeviceGrant | None:
    """Return the grant of a device to the container's owner; None for none."""
    return next(
        (
            grant
            for grant in case.policy.devices.of(case.owner, case.namespace)
            if device.source in grant.devices
        ),
        None,
    )


def of_devices(case: Case) -> tuple[str, ...]:
    """Return the capabilities that come with the container's devices, for a network of its own."""
    if case.request.shares.network:
        return ()
    grants = (granting(case, device) for device in case.request.devices)
    return tuple(name for grant in grants if grant is not None for name in grant.cap_add)


def devices_granted(case: Case) -> Findings:
    """Each device is granted to the owner in the namespace, and is what its grant is about."""
    for device in case.request.devices:
        grant = granting(case, device)
        if grant is None:
            yield _not_granted(case, device)
        elif case.facts is not None:
            if device.cdi:
                yield from _judge_name(case, device, grant)
            else:
                unread = PathFacts(device.source, "unreadable")
                yield from _judge_node(case.facts.paths.get(device.source, unread), device)


def _not_granted(case: Case, device: DeviceRequest) -> Finding:
    if not device.cdi and (why := why_never(device.source)):
        reason = f"{device.source}: {why}; no policy can grant it"
        return Finding("device.never", device.path, reason, _REMEDY)
    others = any(device.source in grant.devices for grant in case.policy.devices.grants)
    elsewhere = ", but to another owner or namespace" if others and case.by_controller else ""
    reason = (
        f"{device.source} is a device that the policy doesn't grant to owner {case.owner} in "
        f"namespace {case.namespace}{elsewhere}"
    )
    owner = next((each for each in case.policy.owners or () if each.name == case.owner), None)
    if owner is not None and case.namespace in owner.namespaces:
        permit = _permit_device(case, device)
        return Finding("devices", device.path, reason, _REMEDY, permit=permit)
    return Finding("devices", device.path, reason, _UNLISTED)


def _permit_device(case: Case, device: DeviceRequest) -> Grant:
    for index, grant in enumerate(case.policy.devices.grants):
        if (grant.owner, grant.namespace) == (case.owner, case.namespace):
            return Grant("add", f"devices.grants.{index}.devices", device.source)
    place = {"owner": case.owner, "namespace": case.namespace}
    return Grant("add", "devices.grants", {**place, "devices": [device.source]})


def _judge_node(facts: PathFacts, device: DeviceRequest) -> Findings:
    """Yield why an object of the host is no device that a grant can be about."""
    node = facts.path
    if facts.kind in _UNKNOWN:
        rule, what, remedy = _UNKNOWN[facts.kind]
        yield Finding(rule, device.path, f"{node} {what}", remedy)
    elif facts.device_type != "character":
        what = "a block device" if facts.device_type == "block" else "no device"
        yield Finding("device.never", device.path, f"{node} is {what}", _REMEDY)
    elif why := why_never_number(os.major(facts.number), os.minor(facts.number)):
        yield Finding("device.never", device.path, f"{node}: {why}", _REMEDY)
    elif facts.console:
        reason = f"{node} is a console of the host"
        yield Finding(
            "device.never", device.path, reason, "take it from the kernel's console= first"
        )


def _judge_name(case: Case, device: DeviceRequest, grant: DeviceGrant) -> Findings:
    assert case.facts is not None, "a name is judged by the specification"
    supported = case.facts.host.cdi_folders
    if not supported or not {*supported} <= {*FOLDERS}:
        read = ", ".join(supported)
        reason = (
            f"the engine reads CDI specifications in {read}, and only those in "
            f"{' and '.join(FOLDERS)} are checked"
            if supported
            else "the engine doesn't support CDI names"
        )
        remedy = 'write {"features": {"cdi": true}} into its daemon.json, and restart it'
        yield Finding("device.unsupported", device.path, reason, remedy)
        return
    found = case.facts.cdi.get(device.source)
    if found is None:
        reason = f"no CDI specification in {' or '.join(FOLDERS)} defines {device.source}"
        remedy = "write the specification with the vendor's tool, such as nvidia-ctk cdi generate"
        yield Finding("device.missing", device.path, reason, remedy)
        return
    if found.never:
        reason = f"{device.source} in {found.file}: {found.never}"
        yield Finding("device.never", device.path, reason, "correct the specification")
        return
    for node in found.nodes:
        paths = case.facts.paths
        yield from _judge_node(paths.get(node, PathFacts(node, "unreadable")), device)
    yield from _judge_edits(case, device, found, grant)


def _judge_edits(
    case: Case, device: DeviceRequest, found: CdiDevice, grant: DeviceGrant
) -> Findings:
    if found.digest in grant.specifications:
        return
    denied = [name for name in found.variables if name in case.policy.env.denied]
    further = [*found.further, *(f"the variable {name}" for name in denied)]
    if further:
        reason = (
            f"{found.file} gives {device.source} more than devices ({', '.join(further)}), and the "
            f"grant doesn't name its digest, {found.digest}"
        )
        remedy = "read the file, and name its digest in the grant"
        key = f"devices.grants.{case.policy.devices.grants.index(grant)}.specifications"
        permit = Grant("add", key, found.digest)
        yield Finding("device.edits", device.path, reason, remedy, permit=permit)


def paths_of(found: dict[str, CdiDevice], names: Iterator[str]) -> tuple[str, ...]:
    """Return the paths of the host that some named devices bring into a container."""
    devices = [found[name] for name in names if name in found]
    nodes = [node for device in devices for node in device.nodes]
    mounts = [mount.source for device in devices for mount in device.mounts]
    return tuple(sorted({*nodes, *mounts}))


CPU_PERIOD_DEFAULT = 100_000
ARGUMENTS_MAX_BYTES = 64 * 1024
#: A hundredth of a CPU: the smallest quota that the kernel accepts. The engine rounds far smaller
#: values down to a quota of 0, which means no limit.
CPUS_FLOOR = NANO // 100
#: Used while the host's number of CPUs is unknown; larger than any host's.
CPUS_MAX = 8192
ENGINE_RESTARTS = ("no", "always", "on-failure", "unless-stopped")
_NS_PER_MS = 1_000_000
_GROUPS = Grant("set", "security.groupAdd", True)
PRIVATE_MODES = {"ipc_mode": ("", "private", "none"), "cgroupns_mode": ("", "private")}
NO_NEW_PRIVILEGES = ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")


def environment_bounded(case: Case) -> Findings:
    """The environment is bounded, and no variable makes the loader run other code."""
    variables = tuple(f"{each.name}=" for each in case.request.variables)
    yield from judge_environment((*case.request.env, *variables), case.policy)


def variable_names(env: tuple[str, ...]) -> list[str]:
    """Return the names of ``NAME=value`` entries.

    Entries without ``=`` are left out, since any part of them may be secret.
    """
    return [name for name, equals, _ in (entry.partition("=") for entry in env) if equals]


def judge_environment(env: tuple[str, ...], policy: Policy) -> Findings:
    """Yield the faults of environment variables."""
    limits = policy.env
    size = sum(len(entry.encode(errors="replace")) + 1 for entry in env)
    if len(env) > limits.max or size > limits.max_bytes:
        most = f"at most {limits.max} variables of {format_bytes(limits.max_bytes)} together"
        reason = f"{len(env)} variables of {size} bytes: {most}"
        permit = Grant("set", "env.maxBytes", f"{-(-size // 1024)}Ki")
        if len(env) > limits.max:
            permit = Grant("set", "env.max", len(env))
        yield Finding("env.size", "Env", reason, "pass less", tolerable=True, permit=permit)
    for index, entry in enumerate(env):
        name, equals, _ = entry.partition("=")
        if not equals and not limits.unset:
            reason, remedy = "not of the form NAME=value", "write NAME=value, or leave it out"
            permit = Grant("set", "env.unset", True)
            yield Finding("env.invalid", f"Env[{index}]", reason, remedy, permit=permit)
        if name in limits.denied:
            reason = f"{name} makes every program run other code first"
            permit = Grant("remove", "env.denied", name)
            yield Finding("env.denied", f"Env[{index}]", reason, "remove it", permit=permit)


def arguments_bounded(case: Case) -> Findings:
    """Arguments are bounded, since every list of containers repeats them."""
    request = case.request
    check = request.healthcheck.test if request.healthcheck else ()
    yield from judge_arguments(
        (*(request.entrypoint or ()), *(request.command or ()), *request.shell, *check)
    )


def judge_arguments(arguments: tuple[str, ...]) -> Findings:
    """Yield the faults of arguments."""
    size = sum(len(argument.encode(errors="replace")) + 1 for argument in arguments)
    if size > ARGUMENTS_MAX_BYTES:
        reason = f"arguments of {size} bytes: at most {format_bytes(ARGUMENTS_MAX_BYTES)} together"
        yield Finding("command.size", "Cmd", reason, "put it into a file of the image or a volume")


def limits_bounded(case: Case) -> Findings:
    """Requested limits are within the policy's."""
    host = case.facts.host if case.facts else HostFacts()
    yield from judge_limits(case.request.limits, case.policy, host, "HostConfig.")
    yield from _judge_numbers(case.request, case.policy, "HostConfig.")
    asked = case.request.limits.memory
    memory = asked if asked > 0 else case.policy.resources.memory.default
    shm, most = case.request.shm_size, min(case.policy.resources.shm_max, memory)
    if not 0 <= shm <= most:
        reason = f"{format_bytes(shm)} of shared memory is outside 0 to {format_bytes(most)}"
        fits = 0 <= shm <= memory
        permit = new_bound("resources.shmMax", format_bytes(shm), is_beyond=fits)
        yield Finding("resources.shm", "HostConfig.ShmSize", reason, "ask for less", fits, permit)


def judge_limits(limits: ResourceLimits, policy: Policy, host: HostFacts, path: str) -> Findings:
    """Yield the limits out of bounds, except unset ones (0, or None for swappiness)."""
    yield from _judge_memory(limits, policy, path)
    yield from _judge_cpus(limits, policy, host, path)
    yield from _judge_numbers(limits, policy, path)


def _judge_numbers(request: CreateRequest | ResourceLimits, policy: Policy, path: str) -> Findings:
    """Yield the numbers of a request that are out of their bounds, except unset ones."""
    for field, bound in BOUNDED:
        number = field.number_in(request)
        least, most = bound.of(policy)
        if number and not least <= number <= most:
            reason = f"{number} is outside {least} to {most}"
            remedy = "ask for less" if number > most else "ask for more"
            line = bound.line(number, policy)
            permit = new_bound(line, number, is_beyond=line != "")
            yield Finding(bound.rule, f"{path}{field.member}", reason, remedy, line != "", permit)


def _judge_memory(limits: ResourceLimits, policy: Policy, path: str) -> Findings:
    most = policy.resources.memory.max
    memory = limits.memory or policy.resources.memory.default
    if limits.memory and not MEMORY_FLOOR <= limits.memory <= most:
        bounds = f"{format_bytes(MEMORY_FLOOR)} to {format_bytes(most)}"
        reason = f"{format_bytes(limits.memory)} of memory is outside {bounds}"
        remedy = "choose a size in that range"
        more = limits.memory > most
        permit = new_bound("resources.memory.max", format_bytes(limits.memory), is_beyond=more)
        yield Finding("resources.memory", f"{path}Memory", reason, remedy, more, permit)
    if limits.memory_swap and limits.memory_swap != limits.memory:
        reason = "swap isn't used here: MemorySwap is Memory"
        yield Finding("resources.swap", f"{path}MemorySwap", reason, "leave it out")
    if limits.memory_reservation and not MEMORY_FLOOR <= limits.memory_reservation <= memory:
        reason = f"a reservation is at least {format_bytes(MEMORY_FLOOR)} and not above the limit"
        remedy = "ask for something between"
        yield Finding("resources.memory", f"{path}MemoryReservation", reason, remedy)


def _judge_cpus(limits: ResourceLimits, policy: Policy, host: HostFacts, path: str) -> Findings:
    most = policy.resources.cpus.max
    here = host.cpus * NANO if host.cpus else CPUS_MAX * NANO
    most = min(most, here)
    if limits.nano_cpus and (limits.cpu_quota or limits.cpu_period):
        reason = "CPUs are limited in one way: NanoCpus, or CpuQuota and CpuPeriod"
        yield Finding("resources.cpus", f"{path}NanoCpus", reason, "leave one out")
    if limits.nano_cpus and not CPUS_FLOOR <= limits.nano_cpus <= most:
        asked = format_cpus(limits.nano_cpus)
        reason = f"{asked} CPUs are outside 0.01 to {format_cpus(most)}"
        where = f"{path}NanoCpus"
        alone = not limits.cpu_quota and not limits.cpu_period
        more = alone and most < limits.nano_cpus <= here
        remedy = "ask for fewer" if limits.nano_cpus > most else "ask for more"
        permit = new_bound("resources.cpus.max", asked, is_beyond=more)
        yield Finding("resources.cpus", where, reason, remedy, more, permit)
    period = limits.cpu_period or CPU_PERIOD_DEFAULT
    if not 1_000 <= period <= 1_000_000:
        reason = f"a period of {period} µs"
        yield Finding("resources.cpus", f"{path}CpuPeriod", reason, "1000 to 1000000")
    elif limits.cpu_quota and not 1_000 <= limits.cpu_quota <= most * period // NANO:
        reason = f"a quota of {limits.cpu_quota} µs in {period}: at most {format_cpus(most)} CPUs"
        where, remedy = f"{path}CpuQuota", "1000 or more, and fewer CPUs"
        more = 1_000 <= limits.cpu_quota <= here * period // NANO
        cpus = format_cpus(limits.cpu_quota * NANO // period)
        permit = new_bound("resources.cpus.max", cpus, is_beyond=more)
        yield Finding("resources.cpus", where, reason, remedy, more, permit)
    if limits.cpu_period and not limits.cpu_quota:
        reason = "a period without a quota limits nothing"
        yield Finding("resources.cpus", f"{path}CpuPeriod", reason, "give CpuQuota too")


def ulimits_bounded(case: Case) -> Findings:
    """Only listed ulimits are set, each within the policy's maximum."""
    allowed = case.policy.resources.ulimits
    for index, ulimit in enumerate(case.request.ulimits):
        most, ordered = allowed.get(ulimit.name), 0 <= ulimit.soft <= ulimit.hard
        if most is None:
            reason = f"the ulimit {ulimit.name!r}: the policy lists {', '.join(sorted(allowed))}"
        elif ordered and ulimit.hard <= most:
            continue
        else:
            reason = f"{ulimit.name} {ulimit.soft}:{ulimit.hard}, at most {most}"
        where, remedy = f"HostConfig.Ulimits[{index}]", "leave it out, or ask for less"
        permit = new_bound(f"resources.ulimits.{ulimit.name}", ulimit.hard, is_beyond=ordered)
        more = most is not None and ordered
        yield Finding("resources.ulimits", where, reason, remedy, more, permit)


def sysctls_listed(case: Case) -> Findings:
    """Only listed settings of the kernel are set, each one of the container alone."""
    for name, value in case.request.sysctls:
        where = f"HostConfig.Sysctls.{name}"
        if not is_sysctl(name):
            reason = f"{quote(name)} is no setting of a single container"
            yield Finding("sysctls", where, reason, "leave it out, or set it on the host")
        elif name not in case.policy.security.sysctls:
            reason = f"{name} isn't among the settings that the policy lists"
            permit = Grant("add", "security.sysctls", name)
            yield Finding("sysctls", where, reason, "leave it out", permit=permit)
        elif not value.isprintable() or not 0 < len(value) <= SYSCTL_MAX:
            reason = f"the value of {name} isn't one line of at most {SYSCTL_MAX} characters"
            yield Finding("sysctls", where, reason, "write the value as sysctl prints it")


def storage_bounded(case: Case) -> Findings:
    """The writable layer has a size limit only on a host that the policy declares capable."""
    most = case.policy.resources.disk_max
    for key, value in case.request.storage:
        where = f"HostConfig.StorageOpt.{key}"
        if key != "size" or most is None:
            reason = (
                "this host's storage can't bound it" if key == "size" else f"the option {key!r}"
            )
            yield Finding("resources.disk", where, reason, "leave it out")
        elif not 0 < (parse_size(value) or 0) <= most:
            reason = f"{value!r}: at most {format_bytes(most)}"
            yield Finding("resources.disk", where, reason, "ask for less")


def capabilities_listed(case: Case) -> Findings:
    """All capabilities are dropped, and only listed capabilities are added."""
    allowed = (*case.policy.capabilities.allowed, *of_devices(case))
    for index, asked in enumerate(case.request.cap_add):
        if capability(asked) not in allowed:
            admitted = ", ".join(allowed) or "none"
            reason = f"{quote(asked)} is not a capability that the policy admits ({admitted})"
            where, permit = f"HostConfig.CapAdd[{index}]", _permit_capability(case, asked)
            yield Finding("capabilities", where, reason, "remove it", permit=permit)


def _permit_capability(case: Case, asked: str) -> Grant:
    name, devices = capability(asked), {each.source for each in case.request.devices}
    for index, grant in enumerate(case.policy.devices.grants):
        own = (grant.owner, grant.namespace) == (case.owner, case.namespace)
        if name == "NET_ADMIN" and own and TUN in devices & {*grant.devices}:
            return Grant("add", f"devices.grants.{index}.capAdd", name)
    return Grant("add", "capabilities.allowed", name)


def capability(text: str) -> str:
    """Return a capability's name in capitals, without ``CAP_``."""
    return text.upper().removeprefix("CAP_") if text.isascii() else text


def security_options(case: Case) -> Findings:
    """Security options only repeat the gate's own: a later option would override it."""
    for index, option in enumerate(case.request.security_opt):
        if option not in NO_NEW_PRIVILEGES:
            reason = f"{option!r}: only no-new-privileges:true may be given"
            where = f"HostConfig.SecurityOpt[{index}]"
            yield Finding("security-opt", where, reason, "leave it out")


def namespaces_private(case: Case) -> Findings:
    """Namespaces are the container's own, and the policy lists its runtime."""
    request, ipc = case.request, PRIVATE_MODES["ipc_mode"]
    if case.by_controller and "ipc" in case.policy.security.shared_namespaces:
        ipc = (*ipc, "shareable")
    for where, value, allowed, rule in (
        ("IpcMode", request.ipc_mode, ipc, "namespace.ipc"),
        ("CgroupnsMode", request.cgroupns_mode, PRIVATE_MODES["cgroupns_mode"], "namespace.cgroup"),
        ("Isolation", request.isolation, ("", "default"), "resources.windows"),
    ):
        if value not in allowed:
            options = ", ".join(option for option in allowed if option)
            can_share = rule == "namespace.ipc" and case.request.label(names.REVISION) != ""
            permit = Grant("add", "security.sharedNamespaces", "ipc") if can_share else None
            remedy = f"leave it out, or {options}"
            yield Finding(rule, f"HostConfig.{where}", f"{value!r}", remedy, permit=permit)
    runtimes = case.policy.security.runtimes
    if request.runtime not in ("", *runtimes):
        reason, remedy = f"{request.runtime!r}", f"leave it out, or {', '.join(runtimes)}"
        permit = Grant("add", "security.runtimes", request.runtime)
        yield Finding("runtime", "HostConfig.Runtime", reason, remedy, permit=permit)


def user_allowed(case: Case) -> Findings:
    """If the policy forbids root, user and group are numbers other than 0.

    A preview knows neither the image's user nor the numbers of its names.
    """
    user = case.request.user
    is_known = case.facts is not None or (user != "" and not is_named(user))
    if case.policy.security.require_non_root and is_known:
        yield from judge_non_root(user)


def judge_non_root(user: str) -> Findings:
    """Yield a finding if a user may be root or in root's group; '' is the image's default, root."""
    uid, _, group = user.partition(":")
    remedy = "name a user other than root by number, such as 1000:1000"
    permit = Grant("set", "security.requireNonRoot", False)
    if not is_number(uid):
        named = f"{quote(user)} is a name, and the policy requires a number"
        reason = named if user else "the image runs as root"
        yield Finding("user.root", "User", reason, remedy, tolerable=True, permit=permit)
    elif int(uid) == 0 or (group and not (is_number(group) and int(group))):
        reason = f"{quote(user)} runs as root or in its group"
        yield Finding("user.root", "User", reason, remedy, tolerable=True, permit=permit)


def judge_named(user: str, policy: Policy) -> Findings:
    """Yield a finding for a user whose numbers nobody could look up, where further groups aren't admitted."""
    security = policy.security
    if is_named(user) and not security.group_add and not security.require_non_root:
        reason = f"only the image says which groups {quote(user)} is in, and the policy admits no further ones"
        remedy = "name user and group by number, such as 1000:1000"
        yield Finding("user.groups", "User", reason, remedy, permit=_GROUPS)


def groups_allowed(case: Case) -> Findings:
    """The policy allows further groups; root's group is refused if the policy forbids root."""
    security = case.policy.security
    if case.facts is not None and not case.facts.existing:
        yield from judge_named(case.request.user, case.policy)
    for index, group in enumerate(case.request.groups):
        where = f"HostConfig.GroupAdd[{index}]"
        if not security.group_add:
            reason = "the policy admits no further groups: one may own files that are mounted"
            yield Finding("user.groups", where, reason, "leave it out", permit=_GROUPS)
        elif security.require_non_root and not (group.isdigit() and int(group)):
            reason = f"{quote(group)} may be root's group"
            yield Finding("user.groups", where, reason, "give groups by number, and not 0")


def cpuset_allowed(case: Case) -> Findings:
    """CPUs are pinned only with the policy's permission, and only to existing CPUs."""
    host = case.facts.host if case.facts else HostFacts()
    yield from judge_cpuset(case.request.limits.cpuset, case.policy, host, "HostConfig.")


def judge_cpuset(text: str, policy: Policy, host: HostFacts, path: str) -> Findings:
    """Yield the faults of a set of CPUs; '' for none."""
    path = f"{path}CpusetCpus"
    if not text:
        return
    if not policy.resources.cpuset:
        reason = "the policy does not admit pinned CPUs"
        permit = Grant("set", "resources.cpuset", True)
        yield Finding("resources.cpuset", path, reason, "leave it out", permit=permit)
        return
    cpus = host.cpus
    last = max((int(number) for number in re.findall(r"[0-9]+", text)), default=0)
    if cpus and last >= cpus:
        reason = f"{quote(text)} names more CPUs than this host has: 0 to {cpus - 1}"
        yield Finding("resources.cpuset", path, reason, "choose from those")


def root_filesystem(case: Case) -> Findings:
    """The root filesystem is read-only if the policy requires a read-only one."""
    if case.policy.security.require_read_only_root and not case.request.read_only_root:
        reason = "the policy requires a read-only root filesystem"
        remedy = "set readOnlyRootFilesystem: true, and mount a tmpfs or volume to write to"
        where = "HostConfig.ReadonlyRootfs"
        permit = Grant("set", "security.requireReadOnlyRoot", False)
        yield Finding("root-filesystem", where, reason, remedy, tolerable=True, permit=permit)


def restart_bounded(case: Case) -> Findings:
    """The restart policy is allowed, with bounded retries."""
    auto_remove = case.request.auto_remove
    yield from judge_restart(case.request.restart, case.policy, "HostConfig.RestartPolicy")
    if auto_remove and not case.policy.auto_remove:
        where, reason = "HostConfig.AutoRemove", "evidence would go"
        permit = Grant("set", "autoRemove", True)
        yield Finding("auto-remove", where, reason, "leave it out", tolerable=True, permit=permit)
    if auto_remove and case.request.restart.name not in {"", "no"}:
        reason = "a container that is removed when it exits can't restart"
        yield Finding("auto-remove", "HostConfig.AutoRemove", reason, "choose one of the two")


def judge_restart(restart: RestartRequest, policy: Policy, path: str) -> Findings:
    """Yield the faults of a restart policy."""
    allowed, most = policy.restart.policies, policy.restart.max_retries
    if restart.name and restart.name not in allowed:
        admitted = ", ".join(allowed)
        reason = f"{quote(restart.name)} is not a restart policy that is admitted ({admitted})"
        known = restart.name in ENGINE_RESTARTS
        permit = Grant("add", "restart.policies", restart.name) if known else None
        yield Finding("restart", f"{path}.Name", reason, "use one of them", known, permit)
    if not 0 <= restart.max_retries <= most:
        reason = f"{restart.max_retries} retries: at most {most}"
        where = f"{path}.MaximumRetryCount"
        more = restart.name == "on-failure" and restart.max_retries > most
        permit = new_bound("restart.maxRetries", restart.max_retries, is_beyond=more)
        yield Finding("restart", where, reason, "ask for fewer", more, permit)
    elif restart.max_retries and restart.name != "on-failure":
        reason = "only on-failure counts retries"
        yield Finding("restart", f"{path}.MaximumRetryCount", reason, "leave it out")


def healthcheck_bounded(case: Case) -> Findings:
    """A health check repeats forever, so its interval and timeout are bounded."""
    check = case.request.healthcheck
    if check is None:
        return
    limits = case.policy.healthcheck
    for name, value, least_key, most_key in (
        ("Interval", check.interval_ns, "minInterval", "maxInterval"),
        ("StartInterval", check.start_interval_ns, "minInterval", "maxInterval"),
        ("Timeout", check.timeout_ns, "minTimeout", "maxTimeout"),
        ("StartPeriod", check.start_period_ns, "minTimeout", "maxStartPeriod"),
    ):
        least, most = (getattr(limits, snake_case(key)) for key in (least_key, most_key))
        if value and not least * _NS_PER_MS <= value <= most * _NS_PER_MS:
            bounds = f"{format_duration_ms(least)} to {format_duration_ms(most)}"
            reason = f"{_duration(value)} is outside {bounds}"
            where, tolerable = f"Healthcheck.{name}", value >= _NS_PER_MS  # the engine's minimum
            remedy, key = "choose one in that range", least_key
            milliseconds = value // _NS_PER_MS
            if value > most * _NS_PER_MS:
                key, milliseconds = most_key, -(-value // _NS_PER_MS)
            bound = format_duration_ms(milliseconds)
            permit = new_bound(f"healthcheck.{key}", bound, is_beyond=tolerable)
            yield Finding("healthcheck.bounds", where, reason, remedy, tolerable, permit)
    yield from _judge_check(check, case.policy)


def _duration(count_ns: int) -> str:
    whole, rest = divmod(count_ns, _NS_PER_MS)
    return f"{count_ns}ns" if rest else format_duration_ms(whole)


def _judge_check(check: HealthcheckRequest, policy: Policy) -> Findings:
    most = policy.healthcheck.max_retries
    if not 0 <= check.retries <= most:
        reason = f"{check.retries} retries are outside 0 to {most}"
        where, more = "Healthcheck.Retries", check.retries > most
        permit = new_bound("healthcheck.maxRetries", check.retries, is_beyond=more)
        yield Finding("healthcheck.bounds", where, reason, "ask for fewer", more, permit)
    if check.test[:1] == ("CMD-SHELL",) and not policy.healthcheck.shell:
        reason = "the policy wants commands without a shell"
        where, remedy = "Healthcheck.Test", 'write ["CMD", …]'
        permit = Grant("set", "healthcheck.shell", True)
        yield Finding("healthcheck.shell", where, reason, remedy, tolerable=True, permit=permit)


#: All hooks of a container. They are a label, and lists of containers repeat labels.
HOOKS_MAX_BYTES = 16 * 1024


def hooks_allowed(case: Case) -> Findings:
    """Hooks come from the controller, and have no more rights than the container."""
    asked = case.request.hooks.all
    if not asked:
        return
    if not case.by_controller:
        reason = "only documents have hooks"
        yield Finding("hook.client", "TrimtabHooks", reason, "write spec.lifecycle in a document")
        return
    size = sum(len(text.encode(errors="replace")) for hook in asked for text in _texts(hook))
    if size > HOOKS_MAX_BYTES:
        reason = f"hooks of {size} bytes: at most {HOOKS_MAX_BYTES} together"
        remedy = "put the commands into a file of the image, or of a Config"
        yield Finding("hook.size", "TrimtabHooks", reason, remedy)
    for hook in asked:
        yield from judge_hook(hook, case.policy, case.request.user)


def judge_hook(hook: HookRequest, policy: Policy, container_user: str) -> Findings:
    """Yield the faults of a hook; *container_user* is the container's user, '' for root."""
    yield from _at(hook.path, judge_arguments(hook.command))
    if hook.user:  # a hook without a user has the container's, which another rule judges
        yield from _at(hook.path, judge_command_user(hook.user, policy, container_user))
    yield from _at(hook.path, judge_environment(hook.env, policy))


def judge_command_user(user: str, policy: Policy, container_user: str) -> Findings:
    """Root needs the policy's permission, since most containers have fewer rights than root."""
    if policy.security.require_non_root:
        yield from judge_non_root(user or container_user)
    elif user and not policy.exec.root and _is_root(user):
        remedy = "leave User out to use the container's user"
        reason, permit = f"{user!r} is root or in its group", Grant("set", "exec.root", True)
        yield Finding("exec.root", "User", reason, remedy, permit=permit)


def _at(path: str, findings: Findings) -> Iterator[Finding]:
    for finding in findings:
        yield replace(finding, path=f"{path}.{finding.path}" if path else finding.path)


def _texts(hook: HookRequest) -> tuple[str, ...]:
    return (*hook.command, *hook.env, hook.user, hook.working_dir)


def _is_root(user: str) -> bool:
    return any(part == "root" or _is_zero(part) for part in user.split(":"))


def _is_zero(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) == 0


def hooks_text(hooks: HookRequests) -> str:
    """Return hooks as JSON, for the label of the container."""
    phases = {
        "PostStart": [members_of(HOOK, hook) for hook in hooks.post_start],
        "PreStop": [members_of(HOOK, hook) for hook in hooks.pre_stop],
    }
    return canonical({name: found for name, found in phases.items() if found}).decode()


def read_hooks(text: str) -> HookRequests | None:
    """Return the hooks of a text by ``hooks_text``; None for any other text."""
    findings = FindingCollector()
    try:
        value = json_values.parse_strict(text.encode())
    except (json_values.InvalidJson, UnicodeEncodeError):
        return None
    read = hooks(value, "TrimtabHooks", findings)
    return None if findings.all() else read
