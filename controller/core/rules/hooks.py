"""Rules about commands in a running container: lifecycle hooks, and the user of an exec.

A hook is part of the create. The gate runs the recorded hooks and no other command, so that a
controller cannot run a command of its own choice in a container.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from controller.core.encoding import strict_json
from controller.core.encoding.canonical_json import canonical
from controller.core.engine_api.field_reader import FindingCollector, members_of
from controller.core.engine_api.field_tables import HOOK
from controller.core.engine_api.grammar import hooks
from controller.core.engine_api.requests import Finding, Findings, Grant, HookRequest, HookRequests
from controller.core.rules.context import Case
from controller.core.rules.limits_privileges import (
    judge_arguments,
    judge_environment,
    judge_non_root,
)
from controller.model.policy.document import Policy

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
        value = strict_json.parse(text.encode())
    except (strict_json.InvalidJson, UnicodeEncodeError):
        return None
    read = hooks(value, "TrimtabHooks", findings)
    return None if findings.all() else read
