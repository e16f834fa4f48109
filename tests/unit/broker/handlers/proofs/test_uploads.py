"""Uploads of proofs through the gate: what is accepted, what is recorded, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from controller.broker.gate.commands import ProofRefused, ProofVerified, VerifyProof
from controller.core.records import inventory as inventories
from controller.core.records.inventory_json import from_json, to_json
from controller.model.inventory import Inventory
from controller.model.records import Actor, Reply, Role
from tests.unit.broker.signed.instance import CONTROLLER, DOCUMENTS, OPERATOR, Instance, create_of
from tests.unit.core.proofs.repository import ALICE, MALLORY, Repository, signer_files

WEB = "Service/shop/web"
FILES = {"deploy/all.yaml": DOCUMENTS.encode()}


@pytest.fixture
def instance() -> Instance:
    return Instance()


def rule(reply: Reply) -> str:
    return str(json.loads(reply.body)["trimtab"]["rule"]) if reply.status >= 400 else ""


def listed(instance: Instance) -> dict[str, str]:
    reply = instance.ask("GET", "/trimtab/v1/proofs")
    (source,) = json.loads(reply.body)["sources"]
    return dict(source)


def test_an_accepted_commit_is_recorded_once_and_before_its_use(instance: Instance) -> None:
    assert listed(instance)["commit"] == ""
    assert rule(instance.send(create_of(WEB))) == "volume.missing"
    commit = instance.commit()
    (record,) = [r for r in instance.records if r.entry.stage == "operator"]
    assert record.entry.request["route"] == "source.accepted"
    assert record.entry.actor["role"] == "controller"
    assert listed(instance) | {"unsupported": ""} == {
        "source": "shop",
        "namespaces": ["shop"],
        "commit": commit,
        "signer": "alice@example.org",
        "rendered": commit,
        "unsupported": "",
    }
    count = len(instance.records)
    assert instance.upload(instance.repository.proof(commit)).status == 200
    assert len(instance.records) == count


def test_without_a_record_no_commit_is_accepted(instance: Instance) -> None:
    commit = instance.repository.commit(FILES, instance.since)
    instance.journal.full = True
    assert rule(instance.upload(instance.repository.proof(commit))) == "journal.unavailable"
    instance.journal.full = False
    assert listed(instance)["rendered"] == ""
    assert rule(instance.send(create_of(WEB))) != ""


def test_a_restarted_broker_remembers_the_commit_and_wants_its_proof_again(
    instance: Instance,
) -> None:
    first = instance.prepare()
    second = instance.prepare(DOCUMENTS.replace("plain", "other"))
    instance.restart()
    assert (listed(instance)["commit"], listed(instance)["rendered"]) == (second, "")
    missing = instance.send(create_of(WEB))
    # The controller takes a conflict for a change to try again, and a refusal for a stall.
    assert (missing.status, rule(missing)) == (409, "proof.missing")
    assert rule(instance.upload(instance.repository.proof(first))) == "proof.not-newer"
    assert instance.upload(instance.repository.proof(second)).status == 200
    assert instance.send(create_of(WEB, DOCUMENTS.replace("plain", "other"))).status == 201


def test_a_reload_of_the_policy_asks_for_the_proof_again_and_a_revoked_key_accepts_nothing(
    instance: Instance,
) -> None:
    commit = instance.prepare()
    state = instance.broker.state
    assert state is not None
    state.proofs.forget()  # as a reload does
    instance.keys = signer_files(ALICE, revoked=[ALICE])
    assert rule(instance.upload(instance.repository.proof(commit))) == "proof.key-revoked"
    assert rule(instance.send(create_of(WEB))) == "proof.missing"
    instance.keys = signer_files(ALICE, MALLORY, revoked=[ALICE])
    newer = instance.repository.commit(FILES, commit, key=MALLORY)
    assert instance.upload(instance.repository.proof(newer)).status == 200


def test_a_proof_that_was_verified_across_a_reload_admits_nothing(instance: Instance) -> None:
    """The keys of the verification can be revoked by the reload."""
    commit = instance.repository.commit(FILES, instance.since)
    state = instance.broker.state
    assert state is not None
    verify = instance.broker.prove

    def reload_meanwhile(command: VerifyProof) -> ProofVerified | ProofRefused:
        result = verify(command)
        state.proofs.forget()
        return result

    instance.broker.prove = reload_meanwhile
    assert rule(instance.upload(instance.repository.proof(commit))) == "proof.busy"
    assert listed(instance)["commit"] == listed(instance)["rendered"] == ""
    instance.broker.prove = verify
    assert instance.upload(instance.repository.proof(commit)).status == 200


def test_another_first_commit_in_the_policy_begins_another_line(instance: Instance) -> None:
    instance.prepare()
    other = Repository()
    root = other.commit(FILES, message="rewritten")
    assert rule(instance.upload(other.proof(root))) == "proof.not-newer"
    state = instance.broker.state
    assert state is not None
    (source,) = state.policy.sources
    moved = source.model_copy(update={"since": root})
    state.policy = state.policy.model_copy(update={"sources": (moved,)})
    assert instance.upload(other.proof(root)).status == 200
    assert listed(instance)["commit"] == root


Forge = Callable[[Instance], Reply]


def _unsigned(instance: Instance) -> Reply:
    commit = instance.repository.commit(FILES, instance.head, key=None)
    return instance.upload(instance.repository.proof(commit))


def _by_another_key(instance: Instance) -> Reply:
    commit = instance.repository.commit(FILES, instance.head, key=MALLORY)
    return instance.upload(instance.repository.proof(commit))


def _before_the_first(instance: Instance) -> Reply:
    repository = Repository()
    return instance.upload(repository.proof(repository.commit(FILES)))


def _unknown_source(instance: Instance) -> Reply:
    commit = instance.repository.commit(FILES, instance.head)
    return instance.upload(instance.repository.proof(commit), source="other")


def _as_json(instance: Instance) -> Reply:
    return instance.ask("POST", "/trimtab/v1/proofs", {"a": 1}, query={"source": "shop"})


def _as_an_operator(instance: Instance) -> Reply:
    instance.actor = OPERATOR
    commit = instance.repository.commit(FILES, instance.head)
    return instance.upload(instance.repository.proof(commit))


def _with_one_uid(instance: Instance) -> Reply:
    instance.actor = replace(CONTROLLER, separated=False)
    commit = instance.repository.commit(FILES, instance.head)
    return instance.upload(instance.repository.proof(commit))


def _as_a_client(instance: Instance) -> Reply:
    instance.actor = Actor(1000, 1000, 13, Role.CLIENT, owner="alice")
    return instance.upload(b"")


FORGED: tuple[tuple[Forge, str], ...] = (
    (_unsigned, "proof.unsigned"),
    (_by_another_key, "proof.key-unknown"),
    (_before_the_first, "proof.not-newer"),
    (_unknown_source, "proof.source"),
    (_as_json, "body.media-type"),
    (_as_an_operator, "role.denied"),
    (_with_one_uid, "proof.unseparated"),
    (_as_a_client, "role.denied"),
)


@pytest.mark.parametrize(
    ("forge", "wanted"), FORGED, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_forged_proof_moves_nothing(instance: Instance, forge: Forge, wanted: str) -> None:
    commit = instance.prepare()
    assert rule(forge(instance)) == wanted
    instance.actor = CONTROLLER
    assert listed(instance)["commit"] == commit
    assert instance.send(create_of(WEB)).status == 201


def test_no_end_of_the_broker_brings_a_superseded_commit_back(instance: Instance) -> None:
    """Whatever part of the journal is left, the accepted commit is the last recorded one."""
    commits = [instance.prepare(DOCUMENTS.replace("plain", f"m{at}")) for at in range(5)]
    inventory, accepted = Inventory(), []
    for record in instance.records:
        inventory = inventories.fold(inventory, record)
        found = inventory.accepted.get("shop")
        accepted.append(commits.index(found.commit) if found is not None else -1)
        # The snapshot has the same commits and revisions.
        again = from_json(json.loads(json.dumps(to_json(inventory))))
        assert (again.accepted, again.signed) == (inventory.accepted, inventory.signed)
    assert accepted == sorted(accepted)
    assert accepted[-1] == len(commits) - 1
