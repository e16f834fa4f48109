"""More than a thousand forged acts of a usurped controller: none is admitted.

The acts are those of an attacker with the controller's user and sockets. The gate, the policy, the
proofs and the renderings are real; the engine is simulated.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from controller.engine.requests import OutgoingRequest
from controller.model.quantities import format_instant
from controller.model.records import Reply
from tests.unit.broker.signed import forged_acts, forged_requests, forged_secrets
from tests.unit.broker.signed.forged_acts import run_of_nightly
from tests.unit.broker.signed.forged_proofs import EVIL, PROOFS
from tests.unit.broker.signed.forged_requests import KEYS, ONCE, POOL, WEB
from tests.unit.broker.signed.instance import create_of, prerequisites
from tests.unit.broker.signed.rich import LAB, RICH, RichInstance

pytestmark = pytest.mark.slow

_RULE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)?")
ACTS = (*forged_acts.ACTS, *forged_secrets.ACTS)
_REFUSED = frozenset({400, 403, 404, 409, 413})


@pytest.fixture
def instance() -> RichInstance:
    made = RichInstance()
    made.prepare(RICH)
    return made


def rule(reply: Reply) -> str:
    """Return the rule of a refusal; ``image.unknown`` for an image that the engine lacks."""
    assert reply.status in _REFUSED, reply
    answer = json.loads(reply.body)
    if "trimtab" not in answer and answer["message"].startswith("No such image"):
        return "image.unknown"
    found = str(answer["trimtab"]["rule"])
    assert _RULE.fullmatch(found), reply
    return found


def report(what: str, rules: Counter[str]) -> None:
    proofs = sum(count for name, count in rules.items() if name.startswith("proof."))
    print(f"{what}: {rules.total()} forged acts, 0 admitted, {proofs} refused by proof.…")


Requests = Callable[[], Iterator[tuple[str, OutgoingRequest]]]
#: Each generator of requests, with the least number of its requests, and of refusals by ``proof.…``.
REQUESTS: tuple[tuple[Requests, int, int], ...] = (
    (forged_requests.one_place, 900, 400),
    (forged_requests.more_members, 200, 20),
    (forged_requests.other_documents, 70, 65),
    (forged_requests.other_bodies, 50, 15),
    (forged_acts.altered_objects, 50, 20),
)


@pytest.mark.parametrize(
    ("requests", "least", "proven"), REQUESTS, ids=[each[0].__name__ for each in REQUESTS]
)
def test_no_forged_request_is_admitted(
    instance: RichInstance, requests: Requests, least: int, proven: int
) -> None:
    rules: Counter[str] = Counter()
    networks = instance.inventory.networks
    for what, request in requests():
        reply = instance.send(request)
        assert reply.status in _REFUSED, (what, reply)
        rules[rule(reply)] += 1
    report(requests.__name__, rules)
    assert rules.total() >= least
    assert sum(n for name, n in rules.items() if name.startswith("proof.")) >= proven
    assert not instance.inventory.containers
    assert instance.inventory.networks == networks
    for key in KEYS:
        assert instance.send(create_of(key, RICH)).status == 201


def test_no_forged_proof_is_accepted() -> None:
    rules: Counter[str] = Counter()
    for what, act, wanted in PROOFS:
        instance = RichInstance()
        instance.prepare(RICH)
        reply = act(instance)
        assert reply.status in _REFUSED, (what, reply)
        assert rule(reply) == wanted, (what, reply)
        rules[wanted] += 1
        assert rule(instance.send(create_of(WEB, EVIL))) == "proof.unproven", what
        assert rule(instance.send(create_of("Service/lab/web", LAB))) == "proof.missing", what
    report("proofs", rules)
    assert rules.total() >= 55


def test_no_forged_act_on_what_exists_is_admitted() -> None:
    rules: Counter[str] = Counter()
    for what, act in ACTS:
        instance = RichInstance()
        instance.prepare(RICH)
        reply = act(instance)
        assert reply.status in _REFUSED, (what, reply)
        rules[rule(reply)] += 1
    report("acts", rules)
    assert rules.total() >= 155


def test_the_policy_alone_admits_most_of_the_other_documents(instance: RichInstance) -> None:
    """Without signed admission, a usurped controller runs what the policy admits."""
    instance.require(signed=False)
    admitted = 0
    for _, request in forged_requests.other_documents():
        reply = instance.send(request)
        if reply.status < 300:
            admitted += 1
        if reply.status == 201 and request.path == "/containers/create":
            instance.take_down_unstarted(str(json.loads(reply.body)["Id"]))
    print(f"other documents: {admitted} admitted by the policy alone")
    assert admitted >= 60


def test_every_honest_act_of_the_same_documents_is_admitted() -> None:
    """Each act is one that the controller plans for the documents."""
    instance, count = RichInstance(), 0

    def ask(reply: Reply) -> Reply:
        nonlocal count
        assert reply.status < 300, reply.body
        count += 1
        return reply

    def run(request: OutgoingRequest) -> str:
        identifier = str(json.loads(ask(instance.send(request)).body)["Id"])
        ask(instance.ask("POST", f"/containers/{identifier}/start"))
        return identifier

    instance.commit(RICH)
    distinct = {json.dumps([each.path, each.body]): each for each in prerequisites(RICH)}
    for request in distinct.values():
        ask(instance.send(request))
    web = run(create_of(WEB, RICH))
    for slot in (1, 2, 3):
        run(create_of(POOL, RICH, slot=slot))
    run(create_of("Service/shop/plain", RICH))
    run(create_of(ONCE, RICH))
    instance.clock.advance(4 * 3600 - instance.clock.now() % 86_400)
    run(run_of_nightly(f"schedule:{format_instant(instance.clock.now())}"))
    for limits in (
        {"Memory": 64 << 20},
        {"NanoCpus": 5 * 10**8},
        {"PidsLimit": 64},
        {"CpuShares": 512},
        {"RestartPolicy": {"Name": "always"}},
    ):
        ask(instance.ask("POST", f"/containers/{web}/update", limits))
    names_on = {"shop.back": ["web", "site"], "platform-network.shop": ["web"]}
    for network, aliases in names_on.items():
        body: dict[str, object] = {"Container": web}
        ask(instance.ask("POST", f"/networks/{network}/disconnect", body))
        body |= {"EndpointConfig": {"Aliases": aliases}}
        ask(instance.ask("POST", f"/networks/{network}/connect", body))
    instance.take_down(web)
    pin = next(each for each in instance.inventory.pins.values() if "web" in each.repository).id
    instance.take_down(run(create_of(WEB, RICH, attempt=2, image=pin, with_alias=False)))
    newer = RICH.replace("MODE: plain", "MODE: other")
    instance.prepare(newer)
    instance.take_down(run(create_of(WEB, newer)))
    run(create_of(WEB, RICH, attempt=3, image=pin))
    print(f"{count} honest acts, all admitted")
    assert count >= 30


def test_the_table_has_far_more_than_300_acts() -> None:
    least = sum(each[1] for each in REQUESTS) + len(PROOFS) + len(ACTS)
    assert least >= 1300
