"""Uploads of proofs through the gate: what is accepted, what is recorded, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

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


def reload_while_proving(instance: Instance) -> None:
    """Have the settings read again while a proof is verified."""
    state = instance.broker.state
    assert state is not None
    verify = instance.broker.prove

    def reload_meanwhile(command: VerifyProof) -> ProofVerified | ProofRefused:
        result = verify(command)
        state.proofs.forget()
        return result

    instance.broker.prove = reload_meanwhile


def test_a_proof_that_was_verified_across_a_reload_admits_nothing(instance: Instance) -> None:
    """The keys of the verification can be revoked by the reload."""
    commit = instance.repository.commit(FILES, instance.since)
    verify = instance.broker.prove
    reload_while_proving(instance)
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


REWRITTEN = {"deploy/all.yaml": DOCUMENTS.replace("plain", "rewritten").encode()}


def rewritten(instance: Instance) -> tuple[str, str]:
    """Return the accepted commit, and a signed commit that was uploaded and isn't its descendant."""
    old = instance.prepare()
    new = instance.repository.commit(REWRITTEN, instance.since)
    assert rule(instance.upload(instance.repository.proof(new))) == "proof.not-newer"
    return old, new


def line_of(instance: Instance) -> dict[str, str]:
    (source,) = json.loads(instance.ask("GET", "/trimtab/v1/proofs").body)["sources"]
    return dict(source.get("line", {}))


def approve(
    instance: Instance, digest: str, *, actor: Actor = OPERATOR, source: str = "shop"
) -> Reply:
    body = {"act": "source.line", "object": source, "digest": digest, "note": "rebased"}
    return instance.ask("POST", "/trimtab/v1/records", body, actor=actor)


def test_an_operator_approves_the_commit_of_a_rewritten_history(instance: Instance) -> None:
    old, new = rewritten(instance)
    line = line_of(instance)
    shown = (line["accepted"], line["commit"], line["signer"], line["subject"])
    assert shown == (old, new, "alice@example.org", "deploy")
    assert approve(instance, line["digest"]).status == 200
    (record,) = (r for r in instance.records if r.entry.request.get("route") == "source.line")
    assert record.entry.actor["role"] == "operator"
    # The accepted commit stays in force until the approved one is proven, also after a restart.
    assert listed(instance)["commit"] == old
    instance.restart()
    assert listed(instance)["commit"] == old
    assert instance.upload(instance.repository.proof(new)).status == 200
    assert (listed(instance)["commit"], line_of(instance)) == (new, {})
    later = instance.repository.commit(REWRITTEN | {"deploy/more": b"x"}, new)
    assert instance.upload(instance.repository.proof(later)).status == 200
    for commit in (old, new, instance.since):
        assert rule(instance.upload(instance.repository.proof(commit))) == "proof.not-newer"


def test_after_an_approval_the_old_line_doesnt_go_on(instance: Instance) -> None:
    old, new = rewritten(instance)
    assert approve(instance, line_of(instance)["digest"]).status == 200
    child = instance.repository.commit(FILES | {"deploy/more": b"x"}, old)
    other = instance.repository.commit(FILES, instance.since)
    for commit in (old, child, other, instance.since):
        assert rule(instance.upload(instance.repository.proof(commit))) == "proof.not-newer"
    descendant = instance.repository.commit(REWRITTEN | {"deploy/more": b"x"}, new)
    assert instance.upload(instance.repository.proof(descendant)).status == 200
    assert listed(instance)["commit"] == descendant


def test_an_approval_is_an_operators_and_of_what_was_shown(instance: Instance) -> None:
    assert rule(approve(instance, "x")) == "proof.source"
    _old, _new = rewritten(instance)
    digest = line_of(instance)["digest"]
    assert approve(instance, digest, actor=CONTROLLER).status == 403
    assert rule(approve(instance, digest, source="lab")) == "proof.source"
    assert rule(approve(instance, "0" * 64)) == "approval.changed"
    # A usurped controller uploads another commit after the operator's look.
    other = instance.repository.commit(FILES | {"deploy/evil": b"x"}, instance.since)
    assert rule(instance.upload(instance.repository.proof(other))) == "proof.not-newer"
    assert rule(approve(instance, digest)) == "approval.changed"
    # The accepted commit moved meanwhile.
    digest = line_of(instance)["digest"]
    instance.prepare(DOCUMENTS.replace("plain", "newer"))
    assert rule(approve(instance, digest)) == "proof.source"


def test_a_commit_that_arrives_with_the_approval_of_another_line_is_refused(
    instance: Instance,
) -> None:
    """Of both records the later one would undo the earlier one, and both would be answered with success."""
    old, new = rewritten(instance)
    child = instance.repository.commit(FILES | {"deploy/more": b"x"}, old)
    replies: list[str] = []
    write = instance.journal.append

    def race(entry: Any) -> Any:
        if entry.request.get("route") == "source.line" and not replies:
            replies.append(rule(instance.upload(instance.repository.proof(child))))
        return write(entry)

    instance.journal.append = race  # type: ignore[method-assign]
    assert approve(instance, line_of(instance)["digest"]).status == 200
    assert replies == ["proof.busy"]
    assert rule(instance.upload(instance.repository.proof(child))) == "proof.not-newer"
    assert instance.upload(instance.repository.proof(new)).status == 200


def test_no_line_is_approved_while_a_commit_is_recorded(instance: Instance) -> None:
    """The approval would name an accepted commit that isn't the accepted one any more."""
    rewritten(instance)
    state = instance.broker.state
    assert state is not None
    digest = line_of(instance)["digest"]
    state.proofs.accepting.add("shop")
    assert rule(approve(instance, digest)) == "proof.busy"
    state.proofs.accepting.clear()
    assert approve(instance, digest).status == 200


def test_a_line_that_was_verified_across_a_reload_waits_for_no_approval(
    instance: Instance,
) -> None:
    instance.prepare()
    new = instance.repository.commit(REWRITTEN, instance.since)
    reload_while_proving(instance)
    assert rule(instance.upload(instance.repository.proof(new))) == "proof.not-newer"
    assert line_of(instance) == {}


def test_an_unsigned_commit_of_another_line_waits_for_nothing(instance: Instance) -> None:
    instance.prepare()
    for key, wanted in ((MALLORY, "proof.key-unknown"), (None, "proof.unsigned")):
        commit = instance.repository.commit(REWRITTEN, instance.since, key=key)
        assert rule(instance.upload(instance.repository.proof(commit))) == wanted
    assert line_of(instance) == {}
