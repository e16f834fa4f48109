"""Hooks in a create: who asks, the bounds, and what the label and the record have of them."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.admission.calls import admit_hook
from controller.core.records.parts import SummaryPart
from controller.core.rules.container import hooks_text, read_hooks
from controller.model import names
from tests.unit.core.creates import STRICT, denials, judged, judged_for_controller, policy

HOOK = {"Cmd": ["warm", "hunter2"], "TimeoutMs": 5000}


def asked(*hooks: dict[str, Any], event: str = "PostStart") -> dict[str, Any]:
    return {"TrimtabHooks": {event: list(hooks)}}


def test_the_label_has_the_hooks_and_the_record_none_of_their_arguments() -> None:
    decision = judged_for_controller(asked({**HOOK, "User": "1000"}))
    assert decision.verdict.decision == "mutate"
    assert decision.body is not None
    labels = decision.body["Labels"]
    assert isinstance(labels, dict)
    text = labels[names.HOOKS]
    read = read_hooks(text)
    assert read is not None
    assert [hook.command for hook in read.post_start] == [("warm", "hunter2")]
    assert hooks_text(read) == text
    assert "hunter2" not in str(decision.summary)
    assert names.HOOKS not in SummaryPart.read(decision.summary).labels
    assert "TrimtabHooks" not in decision.body


def test_a_client_has_no_hooks() -> None:
    assert denials(judged(asked(HOOK))) == ("hook.client",)


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        (asked({"Cmd": ["x"]}), ["hook.timeout"]),
        (asked({**HOOK, "TimeoutMs": 60_001}), ["hook.timeout"]),
        (asked({**HOOK, "Cmd": []}), ["hook.command"]),
        (asked({**HOOK, "Cmd": [""]}, event="PreStop"), ["hook.command"]),
        (asked({**HOOK, "Privileged": True}), ["hook.privileged"]),
        (asked({**HOOK, "User": "root"}), ["exec.root"]),
        (asked({**HOOK, "User": "1000:0"}), ["exec.root"]),
        (asked({**HOOK, "User": "a b"}), ["user.invalid"]),
        (asked({**HOOK, "WorkingDir": "/proc/self/fd/7"}), ["workdir.forbidden"]),
        (asked({**HOOK, "Env": ["LD_PRELOAD=/x"]}), ["env.denied"]),
        (asked({**HOOK, "Cmd": ["x" * 20_000]}), ["hook.size"]),
        (asked({**HOOK, "Tty": True}), ["body.unknown"]),
        (asked(*[HOOK] * 9), ["hook.count"]),
        ({"TrimtabHooks": [HOOK]}, ["body.type"]),
    ],
)
def test_a_hook_out_of_bounds_is_refused(body: dict[str, Any], rules: list[str]) -> None:
    assert list(denials(judged_for_controller(body))) == rules


def test_a_hook_is_judged_again_by_the_policy_of_today() -> None:
    read = read_hooks('{"PostStart":[{"Cmd":["x"],"TimeoutMs":1000,"User":"root"}]}')
    assert read is not None
    hook = read.post_start[0]
    free = policy(exec={"root": True})
    assert admit_hook(hook, policy=free, container_user="").verdict.decision == "allow"
    assert admit_hook(hook, policy=STRICT, container_user="").verdict.rules == ("exec.root",)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"PostStart":[{"Cmd":[]}]}', '{"Other":[1]}'])
def test_another_text_holds_no_hooks(text: str) -> None:
    assert read_hooks(text) is None
