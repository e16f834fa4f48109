"""Admission of execs: a command that an operator runs in a container that runs already.

It shares the container's cgroup, mounts and networks. What it could have beyond the container is
judged here: privileges, another user, a folder where the runtime's files can be reached,
variables that choose code. Judged twice, when it is created and when it is started.
"""

from __future__ import annotations

from controller.core.engine_api.requests import (
    CreateRequest,
    ExecRequest,
    ExecStart,
    Finding,
    Findings,
)
from controller.core.policy.grants import GrantRequest
from controller.core.policy.remedies import with_grants
from controller.core.rules.container import (
    judge_arguments,
    judge_environment,
    judge_non_root,
    variable_names,
)
from controller.core.rules.verdict import (
    AdmissionDecision,
    deny,
    enforced_findings,
    verdict_of,
    with_tolerated,
)
from controller.model.policy.document import Policy


def admit_exec(request: ExecRequest, *, policy: Policy, container_user: str) -> AdmissionDecision:
    """Judge an exec; *container_user* is who the container runs as, '' for root.

    ``summary`` tells the program and how many arguments it has: never the arguments themselves,
    nor values of variables, which may be secrets.
    """
    findings = [*_enabled(policy), *request.findings]
    findings += _command(request)
    findings += _user(request.user, policy, container_user)
    findings += judge_environment(request.env, policy)
    refusing = enforced_findings(findings, policy.modes)
    if refusing:
        asked = GrantRequest(CreateRequest(env=request.env))
        return deny(with_grants(refusing, asked, policy), summary_of(request))
    judged = AdmissionDecision(verdict_of(()), _body(request), summary=summary_of(request))
    return with_tolerated(judged, findings, policy.modes)


def admit_exec_start(start: ExecStart, request: ExecRequest, *, hijack: bool) -> AdmissionDecision:
    """Judge how an exec is started; *hijack* tells whether the client takes the connection over."""
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
        verdict_of(()), body, summary={"detach": start.detach, "tty": start.tty}
    )


def summary_of(request: ExecRequest) -> dict[str, object]:
    """Return what the journal has of an exec.

    A whole command line in the program's place, a common slip, is told up to its first blank.
    """
    return {
        "program": next(iter(request.command[0].split()), "") if request.command else "",
        "arguments": max(0, len(request.command) - 1),
        "user": request.user,
        "workingDir": request.working_dir,
        "env": variable_names(request.env),
        "tty": request.tty,
        "stdin": request.attach_stdin,
    }


def _enabled(policy: Policy) -> Findings:
    if not policy.exec.enabled:
        remedy = "look at the container's logs"
        yield Finding("exec.disabled", "", "the policy admits no exec", remedy)


def _command(request: ExecRequest) -> Findings:
    if not request.command or not request.command[0]:
        yield Finding("exec.command", "Cmd", "there is nothing to run", "name a program")
    yield from judge_arguments(request.command)


def _user(user: str, policy: Policy, container_user: str) -> Findings:
    """Root by name only where the policy says so: it is more than most containers run as."""
    if policy.security.require_non_root:
        yield from judge_non_root(user or container_user)
    elif user and not policy.exec.root and _is_root(user):
        remedy = "leave User out to be who the container is"
        yield Finding("exec.root", "User", f"{user!r} is root or in its group", remedy)


def _is_root(user: str) -> bool:
    return any(part == "root" or _is_zero(part) for part in user.split(":"))


def _is_zero(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) == 0


def _body(request: ExecRequest) -> dict[str, object]:
    body: dict[str, object] = {
        "AttachStdin": request.attach_stdin,
        "AttachStdout": request.attach_stdout,
        "AttachStderr": request.attach_stderr,
        "Tty": request.tty,
        "Cmd": list(request.command),
    }
    optional = {
        "User": request.user,
        "Env": list(request.env),
        "WorkingDir": request.working_dir,
        "DetachKeys": request.detach_keys,
        "ConsoleSize": list(request.console_size)
        if request.tty and any(request.console_size)
        else [],
    }
    return body | {key: value for key, value in optional.items() if value}
