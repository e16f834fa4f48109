"""The settings that an engine drops: members of a create or an update that its inspect doesn't show.

An engine accepts a limit that its kernel cannot enforce, drops it, and answers with success. A
dropped setting is nobody's alteration, and no repair brings it back. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from controller.core.engine_api.comparable_fields import LIMITS, REQUIRED_LIMITS
from controller.core.engine_api.container_fields import FIELDS
from controller.core.engine_api.field_tables import CONFIG, HOST_CONFIG
from controller.core.engine_api.requests import Finding, Findings
from controller.core.rules.context import Case
from controller.model.observed import Settings
from controller.model.policy.document import Policy

_LIMITS: Final = frozenset(LIMITS.values())
#: Members with a meaning for the request or for other systems only.
_NOT_SHOWN: Final = frozenset({"HostConfig", "NetworkingConfig", "ConsoleSize", "Isolation"})
_CONFIG: Final = tuple(entry.name for entry in CONFIG if entry.name not in _NOT_SHOWN)
_HOST: Final = tuple(entry.name for entry in HOST_CONFIG if entry.name not in _NOT_SHOWN)


#: The limits of every container, in words, and what makes an engine keep them.
IGNORED_WORDS = {
    "memory": "the limit of memory",
    "swap": "the limit of swap",
    "cpus": "the limit of CPUs",
    "pids": "the limit of processes",
}
#: Members without which no container runs: hardening, what it is found by, and whose rights it has.
NEVER_IGNORED = frozenset({"CapDrop", "Labels", "NetworkMode", "SecurityOpt", "User"})
_ENABLED = {
    "memory": "enable the kernel's memory cgroup (cgroup_enable=memory)",
    "swap": "boot the kernel with swapaccount=1, or with cgroup v2",
    "cpus": "enable the CPU cgroup; give a rootless engine its controllers",
    "pids": "enable the kernel's pids cgroup; give a rootless engine its controllers",
}


def ignored_by_engine(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the members of HostConfig that the engine cannot keep, by its own words in ``/info``."""
    return tuple(
        sorted(
            field.member
            for field in FIELDS
            if any(info.get(key) is False for key in field.info.split())
        )
    )


def ignored_by_create(
    body: Mapping[str, Any], settings: Settings, inspect: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the members of a create that the inspect of the new container doesn't show, sorted.

    *settings* are the admitted ones: *body* may lack a limit that the engine would refuse.
    """
    limits = {name: getattr(settings, setting) for setting, name in LIMITS.items()}
    host = {**limits, **(body.get("HostConfig") or {})}
    found = {
        *_dropped(_CONFIG, body, inspect.get("Config") or {}),
        *_dropped(_HOST, host, inspect.get("HostConfig") or {}),
    }
    ends = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    joined = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    for network, end in ends.items():
        shown = joined.get(network)
        found |= set(
            _dropped(tuple(end), end, shown) if shown is not None else ["NetworkingConfig"]
        )
    return tuple(sorted(found))


def ignored_by_update(body: Mapping[str, Any], inspect: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the members of an update that the inspect of the container doesn't show, sorted."""
    return tuple(sorted(_dropped(tuple(body), body, inspect.get("HostConfig") or {})))


def limits_kept(case: Case) -> Findings:
    """The engine keeps each limit of the policy that the policy doesn't let the engine ignore."""
    ignored = case.facts.host.ignores if case.facts else ()
    yield from judge_ignored(ignored, case.policy)


def judge_ignored(ignored: Collection[str], policy: Policy) -> Findings:
    """Yield the limits of every container that an engine drops, without the policy's leave.

    *ignored* are members of HostConfig.
    """
    for member in sorted(NEVER_IGNORED.intersection(ignored)):
        reason = f"the engine ignores {member}, which every container needs"
        yield Finding("engine.ignores", member, reason, "use another engine")
    for word in required_and_ignored(ignored, policy):
        reason = f"the engine ignores {IGNORED_WORDS[word]}: a container would run without it"
        remedy = f"{_ENABLED[word]}; or add {word} to engine.ignores in the policy"
        member = next(iter(sorted(REQUIRED_LIMITS[word] & set(ignored))))
        yield Finding("engine.ignores", f"HostConfig.{member}", reason, remedy)


def ignored_limits(ignored: Sequence[str]) -> tuple[str, str]:
    """Return a sentence on what an engine ignores, and the remedy."""
    words = [word for word, members in REQUIRED_LIMITS.items() if not members.isdisjoint(ignored)]
    message = f"the engine ignores {', '.join(ignored)}: engine.ignores of the policy decides"
    remedy = "; ".join(_ENABLED[word] for word in words)
    return f"{message} what runs without", remedy or "nothing, or a kernel that keeps it"


def required_and_ignored(ignored: Collection[str], policy: Policy) -> tuple[str, ...]:
    """Return the limits of every container, in the policy's words, that nobody enforces.

    A limit that the policy lets an engine ignore is left out.
    """
    return tuple(
        word
        for word, members in REQUIRED_LIMITS.items()
        if word not in policy.engine.ignores and not members.isdisjoint(ignored)
    )


def admitted_ignored(ignored: Collection[str], policy: Policy) -> frozenset[str]:
    """Return the ignored members that the policy lets an engine ignore."""
    return frozenset(
        member
        for word in policy.engine.ignores
        for member in REQUIRED_LIMITS[word]
        if member in ignored
    )


def _dropped(
    names: Sequence[str], sent: Mapping[str, Any], shown: Mapping[str, Any]
) -> Iterator[str]:
    for name in names:
        value, now = sent.get(name), shown.get(name)
        if name in _LIMITS:
            # Another number was set by somebody. The engine's own default of swap is twice the memory.
            default = 2 * (sent.get("Memory") or 0) if name == "MemorySwap" else -1
            is_kept = bool(now) and now not in (-1, default)
        else:
            is_kept = _is_kept(value, now)
        if value and not is_kept:
            yield name


def _is_kept(sent: Any, shown: Any) -> bool:
    """Return True if everything in *sent* is in *shown*, which may have defaults besides."""
    if isinstance(sent, Mapping):
        known = shown if isinstance(shown, Mapping) else {}
        return all(
            name in known and (not value or _is_kept(value, known[name]))
            for name, value in sent.items()
        )
    if isinstance(sent, list | tuple):
        there = shown if isinstance(shown, list | tuple) else ()
        if all(isinstance(value, str) for value in sent):
            return {_plain(text) for text in sent} <= {_plain(str(text)) for text in there}
        return len(there) >= len(sent)  # an engine adds members to objects
    return bool(sent == shown)


def _plain(text: str) -> str:
    """Return a text of a list as engines of all versions show it."""
    return text.removeprefix("CAP_")
