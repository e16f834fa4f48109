"""Rules of a create about the container itself: limits, privileges, restarts, health checks.

Each rule is a function from a case to its findings. A rule that needs facts yields nothing in a
preview.
"""

from __future__ import annotations

import re

from controller.core.effective.accounts import is_named, is_number
from controller.core.encoding.quoting import quote
from controller.core.engine_api.container_fields import BOUNDED, snake_case
from controller.core.engine_api.requests import (
    CreateRequest,
    Finding,
    Findings,
    Grant,
    HealthcheckRequest,
    ResourceLimits,
    RestartRequest,
    new_bound,
)
from controller.core.rules.context import Case
from controller.core.rules.devices import of_devices
from controller.core.rules.facts import HostFacts
from controller.model import names
from controller.model.desired.spec.fields import SYSCTL_MAX, is_sysctl
from controller.model.policy.devices import TUN
from controller.model.policy.document import MEMORY_FLOOR, Policy
from controller.model.policy.values import NANO, format_cpus
from controller.model.quantities import format_bytes, format_duration_ms, parse_size

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
        reason, permit = (
            "the policy does not admit pinned CPUs",
            Grant("set", "resources.cpuset", True),
        )
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
        where, permit = (
            "HostConfig.ReadonlyRootfs",
            Grant("set", "security.requireReadOnlyRoot", False),
        )
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
