"""Admission of execs: a command that a person runs in a running container.

An exec shares the container's cgroup, mounts and networks. These rules judge the rights that an
exec could have beyond the container: privileges, another user, a working folder from which the
runtime's files are reachable, and variables that choose code. The gate judges an exec twice: when
the client creates it, and when the client starts it.
"""

from __future__ import annotations

from dataclasses import replace

from controller.core.engine_api.field_reader import members_of
from controller.core.engine_api.field_tables import EXEC, TERMINAL
from controller.core.engine_api.requests import (
    ExecRequest,
    ExecStart,
    Finding,
    Findings,
    Grant,
    HookRequest,
)
from controller.core.policy.remedies import with_grants
from controller.core.records.parts import ExecPart
from controller.core.rules import limits_privileges
from controller.core.rules.hooks import judge_command_user, judge_hook
from controller.core.rules.verdict import (
    AdmissionDecision,
    deny,
    enforced_findings,
    verdict_of,
    with_tolerated,
)
from controller.model.policy.document import Policy


def admit_exec(
    request: ExecRequest, *, policy: Policy, container_user: str, looked_up: bool = True
) -> AdmissionDecision:
    """Judge an exec; *container_user* is the container's user, '' for root.

    Where the policy bounds groups, the user was *looked_up* in the files of the container. A preview can't.

    ``summary`` has the program and the number of arguments. Arguments and values of variables may
    be secrets, so the summary never has them.
    """
    findings = [*_enabled(policy), *request.findings]
    findings += _command(request)
    findings += judge_command_user(request.user, policy, container_user)
    findings += limits_privileges.judge_environment(request.env, policy)
    findings += limits_privileges.judge_named(request.user, policy) if looked_up else ()
    if refused := enforced_findings(findings, policy.modes):
        return deny(with_grants(refused, policy), summary_of(request))
    decision = AdmissionDecision(verdict_of(()), _body(request), summary=summary_of(request))
    return with_tolerated(decision, findings, policy.modes)


def admit_exec_of_client(
    policy: Policy, *, is_own: bool = True, has_binds: bool = False, changes_user: bool = False
) -> AdmissionDecision:
    """Judge that a client runs a command in a container, before the command is judged.

    *is_own*: the client's uid made the container, and so could have had the command run at its start. A
    document's container can have Secrets, and one of another uid of the owner that user's folders.
    *has_binds*: the container mounts folders of the host. A container with a folder of a project runs
    as the project's user alone (``mount.project``), and so does the command: *changes_user*.
    """
    findings = [*_of_client(policy, is_own=is_own, is_another_user=has_binds and changes_user)]
    if not findings:
        return AdmissionDecision(verdict_of(()))
    return deny(with_grants(findings, policy))


def _of_client(policy: Policy, *, is_own: bool, is_another_user: bool) -> Findings:
    remedy = "let an operator run it"
    if not policy.exec.clients:
        reason = "the policy lets operators alone run commands in containers"
        permit = Grant("set", "exec.clients", True)
        yield Finding("exec.client", "", reason, remedy, permit=permit)
    elif not is_own:
        yield Finding("exec.client", "", "another user, or a document, made the container", remedy)
    elif is_another_user:
        reason = (
            "the container mounts a folder of the host, and the command would run as another user"
        )
        remedy = "leave User out to use the container's user"
        yield Finding("exec.client", "User", reason, remedy)


def admit_hook(hook: HookRequest, *, policy: Policy, container_user: str) -> AdmissionDecision:
    """Judge a recorded hook again, before the gate runs the hook: the policy can be another now.

    The switch of execs doesn't count: nobody chooses the command of a hook.
    """
    request = ExecRequest(hook.command, hook.user, hook.env, hook.working_dir)
    findings = [*judge_hook(replace(hook, path=""), policy, container_user)]
    findings += limits_privileges.judge_named(hook.user, policy)
    if refused := enforced_findings(findings, policy.modes):
        return deny(refused, summary_of(request))
    decision = AdmissionDecision(verdict_of(()), _body(request), summary=summary_of(request))
    return with_tolerated(decision, findings, policy.modes)


def admit_exec_start(start: ExecStart, request: ExecRequest, *, hijack: bool) -> AdmissionDecision:
    """Judge the start of an exec; *hijack* is True if the client takes over the connection."""
    findings = [*start.findings]
    if request.attach_stdin and not start.detach and not hijack:
        reason = "it reads its input from the connection, which this request doesn't take over"
        remedy = "send Connection: Upgrade and Upgrade: tcp"
        findings.append(Finding("exec.upgrade", "Upgrade", reason, remedy))
    if findings:
        return deny(findings)
    body: dict[str, object] = {"Detach": start.detach, "Tty": start.tty}
    if start.tty and any(start.console_size):
        body["ConsoleSize"] = list(start.console_size)
    return AdmissionDecision(
        verdict_of(()), body, summary=ExecPart(detach=start.detach, tty=start.tty).members
    )


def summary_of(request: ExecRequest) -> dict[str, object]:
    """Return the journal's summary of an exec.

    A common mistake is a whole command line in the program's place. The summary therefore ends the
    program at its first blank.
    """
    return ExecPart(
        program=next(iter(request.command[0].split()), "") if request.command else "",
        arguments=max(0, len(request.command) - 1),
        user=request.user,
        working_dir=request.working_dir,
        environment=tuple(limits_privileges.variable_names(request.env)),
        tty=request.tty,
        stdin=request.attach_stdin,
    ).members


def _enabled(policy: Policy) -> Findings:
    if not policy.exec.enabled:
        remedy = "look at the container's logs"
        permit = Grant("set", "exec.enabled", True)
        yield Finding("exec.disabled", "", "the policy admits no exec", remedy, permit=permit)


def _command(request: ExecRequest) -> Findings:
    if not request.command or not request.command[0]:
        yield Finding("exec.command", "Cmd", "there is nothing to run", "name a program")
    yield from limits_privileges.judge_arguments(request.command)


def _body(request: ExecRequest) -> dict[str, object]:
    body = {entry.name: False for entry in TERMINAL} | members_of(EXEC, request)
    if request.tty and any(request.console_size):
        body["ConsoleSize"] = list(request.console_size)
    return body
