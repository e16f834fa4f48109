"""What may be run in a container that runs: by the text of the request, and the policy."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.admission.calls import admit_exec, admit_exec_of_client, admit_exec_start
from controller.core.engine_api.parse import parse_exec, parse_exec_start
from controller.core.engine_api.requests import ExecRequest, ExecStart
from controller.core.rules.verdict import AdmissionDecision
from controller.model.policy.document import Policy

STRICT = Policy(name="strict")
ECHO: dict[str, Any] = {"Cmd": ["echo", "x"]}


def policy(**sections: Any) -> Policy:
    return Policy.from_json({"name": "p", **sections})


def judged(body: object, rules: Policy = STRICT, container_user: str = "") -> AdmissionDecision:
    return admit_exec(parse_exec(body), policy=rules, container_user=container_user)


def denials(admission: AdmissionDecision) -> tuple[str, ...]:
    verdict = admission.verdict
    return verdict.rules if verdict.decision == "deny" else ()


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({**ECHO, "Privileged": True}, "exec.privileged"),
        ({**ECHO, "privileged": True}, "body.key"),
        ({**ECHO, "Privileged": "true"}, "exec.privileged"),
        ({**ECHO, "User": "0"}, "exec.root"),
        ({**ECHO, "User": "00"}, "exec.root"),
        ({**ECHO, "User": "root"}, "exec.root"),
        ({**ECHO, "User": "0:5"}, "exec.root"),
        ({**ECHO, "User": "1000:0"}, "exec.root"),
        ({**ECHO, "User": "app:root"}, "exec.root"),
        ({**ECHO, "User": "+0"}, "user.invalid"),
        ({**ECHO, "User": ":0"}, "user.invalid"),
        ({**ECHO, "User": "-1"}, "user.invalid"),
        ({**ECHO, "User": "\u0660"}, "user.invalid"),
        ({**ECHO, "WorkingDir": "/proc/self/fd/7"}, "workdir.forbidden"),
        ({**ECHO, "WorkingDir": "/sys"}, "workdir.forbidden"),
        ({**ECHO, "WorkingDir": "/dev/fd"}, "workdir.forbidden"),
        ({**ECHO, "WorkingDir": "/srv/../proc"}, "workdir.invalid"),
        ({**ECHO, "WorkingDir": "srv"}, "workdir.invalid"),
        ({**ECHO, "Env": ["LD_PRELOAD=/x"]}, "env.denied"),
        ({**ECHO, "Env": ["LD_AUDIT=/x"]}, "env.denied"),
        ({**ECHO, "Env": ["NAME"]}, "env.invalid"),
        ({**ECHO, "Env": [f"N{n}=1" for n in range(513)]}, "env.size"),
        ({**ECHO, "Env": {"A": "1"}}, "body.type"),
        ({"Cmd": []}, "exec.command"),
        ({"Cmd": None}, "exec.command"),
        ({"Cmd": [""]}, "exec.command"),
        ({}, "exec.command"),
        (None, "exec.command"),
        ({"Cmd": "echo"}, "body.type"),
        ({"Cmd": ["a\0b"]}, "body.type"),
        ({"Cmd": ["echo", "x" * 70_000]}, "command.size"),
        ({**ECHO, "ConsoleSize": [1]}, "body.type"),
        ({**ECHO, "ConsoleSize": [-1, 80]}, "body.type"),
        ({**ECHO, "DetachKeys": "a b"}, "body.type"),
        ({**ECHO, "Tty": 1}, "body.type"),
        ({**ECHO, "CapAdd": ["ALL"]}, "body.unknown"),
    ],
)
def test_forbidden_execs_are_refused(body: object, rule: str) -> None:
    assert rule in denials(judged(body))


def test_what_clients_send_for_unset_is_dropped() -> None:
    body = {
        "User": "",
        "Privileged": False,
        "Tty": False,
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "Detach": True,
        "DetachKeys": "",
        "Env": None,
        "WorkingDir": "",
        "Container": "web",
        "ConsoleSize": None,
        **ECHO,
    }
    assert judged(body).body == {
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "Cmd": ["echo", "x"],
    }


def test_what_is_asked_for_within_bounds_is_passed_on() -> None:
    body = {
        "User": "1000:1000",
        "Tty": True,
        "AttachStdin": True,
        "DetachKeys": "ctrl-p,ctrl-q",
        "Env": ["TERM=xterm"],
        "WorkingDir": "/srv",
        "ConsoleSize": [24, 80],
        **ECHO,
    }
    assert judged(body).body == {**body, "AttachStdout": False, "AttachStderr": False}


def test_the_summary_has_no_argument() -> None:
    told = judged({"Cmd": ["psql", "--password", "hunter2"], "User": "5"}).summary
    assert told == {
        "program": "psql",
        "arguments": 2,
        "user": "5",
        "workingDir": "",
        "env": [],
        "tty": False,
        "stdin": False,
    }


def test_the_summary_names_variables_and_nothing_that_has_no_value() -> None:
    told = judged({"Cmd": ["sh"], "Env": ["TOKEN=hunter2", "hunter2", "EMPTY=", "=x"]}).summary
    assert told["env"] == ["TOKEN", "EMPTY", ""]


@pytest.mark.parametrize("line", ["psql --password hunter2", "psql\thunter2", " psql\nhunter2"])
def test_of_a_command_line_in_the_program_s_place_the_summary_has_the_first_word(line: str) -> None:
    told = judged({"Cmd": [line]}).summary
    assert (told["program"], told["arguments"]) == ("psql", 0)


@pytest.mark.parametrize(
    ("user", "container_user", "rules"),
    [
        ("", "", ("user.root",)),
        ("", "app", ("user.root",)),
        ("", "0:0", ("user.root",)),
        ("", "1000", ()),
        ("1000", "", ()),
        ("app", "1000", ("user.root",)),
        ("1000:0", "1000", ("user.root",)),
        ("0", "1000", ("user.root",)),
    ],
)
def test_where_no_root_is_wanted_a_user_is_a_number(
    user: str, container_user: str, rules: tuple[str, ...]
) -> None:
    never = policy(security={"requireNonRoot": True}, exec={"root": True})
    assert denials(judged({**ECHO, "User": user}, never, container_user)) == rules


def test_the_policy_may_let_root_be_named_and_may_refuse_every_exec() -> None:
    assert denials(judged({**ECHO, "User": "0"}, policy(exec={"root": True}))) == ()
    assert denials(judged(ECHO, policy(exec={"enabled": False}))) == ("exec.disabled",)


def test_clients_run_commands_in_their_own_containers_where_the_policy_says_so():
    allowed = policy(exec={"clients": True})
    assert denials(admit_exec_of_client(STRICT)) == ("exec.client",)
    assert denials(admit_exec_of_client(allowed)) == ()
    assert denials(admit_exec_of_client(allowed, is_own=False)) == ("exec.client",)
    assert denials(admit_exec_of_client(allowed, has_binds=True)) == ()
    assert denials(admit_exec_of_client(allowed, changes_user=True)) == ()
    both = admit_exec_of_client(allowed, has_binds=True, changes_user=True)
    assert denials(both) == ("exec.client",)


def started(body: object, *, stdin: bool = False, hijack: bool = True) -> AdmissionDecision:
    request = ExecRequest(command=("cat",), attach_stdin=stdin)
    return admit_exec_start(parse_exec_start(body), request, hijack=hijack)


def test_a_start_is_rebuilt_and_knows_three_fields() -> None:
    assert started({"Detach": False, "Tty": False}).body == {"Detach": False, "Tty": False}
    size = started({"Tty": True, "ConsoleSize": [24, 80]}).body
    assert size == {"Detach": False, "Tty": True, "ConsoleSize": [24, 80]}
    assert started({"ConsoleSize": [24, 80]}).body == {"Detach": False, "Tty": False}
    assert denials(started({"Privileged": True})) == ("body.unknown",)
    assert denials(started({"detach": True})) == ("body.key",)


def test_input_needs_the_connection() -> None:
    assert denials(started({}, stdin=True, hijack=False)) == ("exec.upgrade",)
    assert denials(started({"Detach": True}, stdin=True, hijack=False)) == ()
    assert denials(started({}, stdin=True)) == ()
    assert parse_exec_start(None) == ExecStart()
