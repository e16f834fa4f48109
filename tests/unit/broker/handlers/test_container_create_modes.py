"""What a rule's mode lets through: forwarded as asked, journaled with its reason, told or not."""

from __future__ import annotations

import pytest

from controller.broker.gate.commands import Forward
from tests.unit.broker.dialogue import OPERATOR, RECORDED, Step, reply, state
from tests.unit.broker.gate.test_mutate import LIMITS, ask, changed, look
from tests.unit.broker.handlers.test_container_create import (
    BODY,
    FREE,
    LOOK_IMAGE,
    MADE,
    NEW,
    Forwarded,
    create,
)
from tests.unit.broker.world import WEB, inventory, policy

MEMORY = 32 * 1024**3
ASKED = {**BODY, "HostConfig": {"NetworkMode": "none", "Memory": MEMORY}}


@pytest.mark.parametrize("mode", ["warn", "audit"])
def test_a_create_beyond_a_bound_is_recorded_as_audit_deny_and_told_in_warn_alone(
    mode: str,
) -> None:
    knows = state(inventory(), policy=policy(modes={"resources.memory": mode}))
    sent = Forwarded("/containers/create?name=job")
    dialogue: list[Step] = [
        LOOK_IMAGE,
        FREE,
        ("intent", RECORDED),
        (sent, MADE),
        ("outcome", RECORDED),
    ]
    answer = create(dialogue, knows=knows, body=ASKED)
    host = sent.body["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["CapDrop"]) == (MEMORY, MEMORY, ["ALL"])
    verdict = answer.entries[0].verdict
    reason = "HostConfig.Memory: 32Gi of memory is outside 6Mi to 8Gi"
    rules = verdict["rules"]
    assert isinstance(rules, list)
    assert (verdict["decision"], verdict["reason"], rules[0]) == (
        "audit-deny",
        reason,
        "resources.memory",
    )
    remedy = "choose a size in that range"
    warning = f"the policy will refuse this: resources.memory: {reason} ({remedy})"
    assert answer.json == {"Id": NEW, "Warnings": [warning] if mode == "warn" else []}
    assert knows.inventory.containers[NEW].admitted.memory == MEMORY


def test_without_a_mode_the_same_create_is_refused() -> None:
    answer = create([("refusal", RECORDED)], knows=state(inventory(), policy=policy()), body=ASKED)
    assert (answer.status, answer.rule) == (403, "resources.memory")
    assert "reason" not in answer.entries[0].verdict


def test_an_update_beyond_a_bound_tells_its_client_too() -> None:
    knows = state(inventory(), policy=policy(modes={"resources.pids": "warn"}))
    sent = Forwarded(f"/containers/{WEB}/update")
    dialogue: list[Step] = [
        look(HostConfig=LIMITS),
        ("intent", RECORDED),
        (sent, reply({"Warnings": None})),
        ("outcome", RECORDED),
    ]
    path = f"/containers/{WEB}/update"
    answer = ask("POST", path, dialogue, knows, body={"PidsLimit": 4096}, actor=OPERATOR)
    assert sent.body == {"PidsLimit": 4096}
    (warning,) = answer.json["Warnings"]
    assert warning.startswith("the policy will refuse this: resources.pids: PidsLimit: 4096")
    assert answer.entries[0].verdict["decision"] == "audit-deny"


def test_a_start_of_what_is_let_through_for_now_is_recorded_so() -> None:
    rules = policy(images={"requireDigest": True}, modes={"image.mutable": "audit"})
    knows = state(inventory(), policy=rules)
    dialogue = [look(), *changed(Forward("POST", f"/containers/{WEB}/start"))]
    answer = ask("POST", f"/containers/{WEB}/start", dialogue, knows)
    assert answer.entries[0].verdict["rules"] == ["image.mutable"]
