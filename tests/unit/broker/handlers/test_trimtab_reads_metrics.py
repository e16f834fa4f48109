"""The route of metrics: text for operators and the controller, and nothing for clients."""

from __future__ import annotations

from controller.broker.dispatch import handle
from controller.broker.guards import client_shares
from controller.core.enforcement.limits import all_counted, quota_use
from controller.model.records import Actor
from tests.unit.broker.dialogue import ALICE, CONTROLLER, OPERATOR, Told, converse, request, state
from tests.unit.broker.world import inventory, policy


def ask(actor: Actor, **counted: int) -> Told:
    knows = state()
    knows.health.counted.update(
        {("trimtab_admissions_total", *k.split("__")): n for k, n in counted.items()}
    )
    knows.health.journal_error = "the disk is full"
    steps = (("refusal", True),) if actor is ALICE else ()
    return converse(handle(request("GET", "/trimtab/v1/metrics", actor=actor), knows), steps, knows)


def test_operators_and_the_controller_get_counters_and_health_without_a_record() -> None:
    for actor in (OPERATOR, CONTROLLER):
        reply = ask(actor, deny__mount=3).value
        assert dict(reply.headers)["content-type"].startswith("text/plain; version=0.0.4")
        text = reply.body.decode()
        assert 'trimtab_admissions_total{verdict="deny",rule="mount"} 3\n' in text
        assert "trimtab_journal_writable 0\n" in text
        assert 'trimtab_build_info{process="broker"' in text


def test_quotas_and_clients_that_wait_are_counted() -> None:
    knows = state(inventory(), policy=policy(quotas={"mutationsPerSecond": 1}))
    while client_shares.take_mutation(knows, ALICE):
        pass
    asked = request("GET", "/trimtab/v1/metrics", actor=OPERATOR)
    lines = converse(handle(asked, knows), (), knows).value.body.decode().split("\n")
    fullest = quota_use(all_counted(knows.inventory, {}), knows.policy)[0].percent
    assert fullest > 0
    assert {f"trimtab_quota_fullest_percent {fullest}", "trimtab_clients_waiting 1"} < {*lines}
