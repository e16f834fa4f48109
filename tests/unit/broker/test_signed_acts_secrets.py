"""Secrets in a namespace that requires signed sources: the signed commit says which, where and for whom."""

from __future__ import annotations

import json

import pytest

from controller.engine.requests import OutgoingRequest
from controller.model.records import Entry, Record, Reply
from tests.unit.broker.signed.forged_requests import ONCE, POOL, WEB, body_of
from tests.unit.broker.signed.instance import create_of, desired_of, prerequisites
from tests.unit.broker.signed.opened import armored, new_once
from tests.unit.broker.signed.rich import CIPHERTEXTS, RICH, RichInstance
from tests.unit.broker.test_signed_acts import rule

PASSWORD = CIPHERTEXTS["PASSWORD}"]
NEWER = RICH.replace(PASSWORD, armored(b"second"))
NEWEST = RICH.replace(PASSWORD, armored(b"third"))


@pytest.fixture
def instance() -> RichInstance:
    made = RichInstance()
    made.prepare(RICH)
    return made


def look(instance: RichInstance, name: str, text: str = RICH, *, source: str = "") -> Reply:
    """Ask for the content of a Secret as the controller does; *source* is of another Secret."""
    (secret,) = (each for each in desired_of(text).secrets if each.key.name == (source or name))
    body = {"owner": secret.owner, "source": dict(secret.declared)}
    return instance.ask("POST", f"/trimtab/v1/secrets/shop/{name}", body)


def delivery(name: str, text: str = RICH) -> OutgoingRequest:
    path = f"/trimtab/v1/files/secret/shop/{name}"
    return next(each for each in prerequisites(text) if each.path == path)


def test_declared_secrets_are_delivered_and_mounted(instance: RichInstance) -> None:
    web, pool = instance.run(create_of(WEB, RICH)), instance.run(create_of(POOL, RICH))
    assert all(instance.inventory.containers[each].signed for each in (web, pool))
    pin = instance.inventory.pins[instance.inventory.containers[web].revision].id
    instance.take_down(web)
    instance.run(create_of(WEB, RICH, attempt=2, image=pin))
    for name in ("db", "tls", "host", "made"):
        assert look(instance, name).status == 200, name


def test_a_host_that_restores_no_secrets_leaves_the_starts_to_the_controller(
    instance: RichInstance,
) -> None:
    honest = create_of(WEB, RICH)
    body = body_of(honest)
    body["HostConfig"]["RestartPolicy"] = {"Name": "no"}
    web = instance.run(OutgoingRequest(honest.method, honest.path, honest.query, body=body))
    for name, status in (("always", 200), ("no", 200), ("unless-stopped", 403)):
        update = {"RestartPolicy": {"Name": name}}
        assert instance.ask("POST", f"/containers/{web}/update", update).status == status, name
    # Without a Secret there is no such choice.
    honest = create_of("Service/shop/plain", RICH)
    body = body_of(honest)
    body["HostConfig"]["RestartPolicy"] = {"Name": "no"}
    other = OutgoingRequest(honest.method, honest.path, honest.query, body=body)
    assert rule(instance.send(other)) == "proof.unproven"


def test_the_values_of_the_last_revisions_can_be_mounted_again_and_no_others(
    instance: RichInstance,
) -> None:
    instance.take_down(instance.run(create_of(WEB, RICH)))
    pin = next(iter(instance.inventory.pins.values())).id
    instance.prepare(NEWER)  # delivered, and never started
    instance.prepare(NEWEST)
    assert rule(instance.send(create_of(WEB, NEWER))) == "proof.unproven"
    instance.take_down(instance.run(create_of(WEB, NEWEST)))
    instance.run(create_of(WEB, RICH, attempt=2, image=pin))


def test_a_superseded_ciphertext_is_neither_opened_nor_delivered(instance: RichInstance) -> None:
    instance.prepare(NEWER)
    assert rule(look(instance, "db")) == "proof.unproven"
    assert rule(instance.send(delivery("db"))) == "proof.unproven"
    assert instance.send(delivery("db", NEWER)).status < 300


def test_equal_values_in_another_ciphertext_are_the_same_content(instance: RichInstance) -> None:
    sealed_again = RICH.replace(PASSWORD, armored(b"first"))
    instance.prepare(sealed_again)
    assert create_of(WEB, sealed_again).body == create_of(WEB, RICH).body
    instance.run(create_of(WEB, sealed_again))


@pytest.mark.parametrize(("name", "source"), [("db", "other"), ("other", "db"), ("spy", "db")])
def test_a_ciphertext_is_opened_under_its_own_name_alone(
    instance: RichInstance, name: str, source: str
) -> None:
    assert rule(look(instance, name, source=source)) == "proof.unproven"


def test_a_changed_file_of_the_host_needs_a_proof_again(
    instance: RichInstance,
) -> None:
    """The document names the file, and root has the say about the file."""
    proof = instance.repository.proof(instance.head)
    instance.opener.host["pw"] = b"rotated"
    assert instance.run(create_of(POOL, RICH))  # the broker doesn't know yet
    assert look(instance, "host").status == 200
    assert rule(instance.send(create_of(POOL, RICH, slot=2))) == "proof.missing"
    assert instance.upload(proof).status == 200
    # The bodies of the test's controller have the content from before: only a revision that ran.
    rotated = json.loads(look(instance, "host").body)["Content"]
    stale = body_of(create_of(POOL, RICH, slot=2))
    (mount,) = (m for m in stale["HostConfig"]["Mounts"] if m.get("Source") == "host")
    assert mount["Trimtab"]["Content"] != rotated
    made = instance.broker.state.proofs.renderings["shop"]  # type: ignore[union-attr]
    assert made.contents["Secret/shop/host"] == rotated


def test_a_secret_that_cant_be_opened_is_named_and_holds_no_other_service(
    instance: RichInstance,
) -> None:
    foreign = "-----BEGIN AGE ENCRYPTED FILE-----"
    text = RICH.replace(PASSWORD, f'"{foreign}\\nYWdl\\n-----END AGE ENCRYPTED FILE-----\\n"')
    instance.commit(text, parent=instance.head)
    made = instance.broker.state.proofs.renderings["shop"]  # type: ignore[union-attr]
    assert made.unsupported == {WEB: "the Secret db can't be opened"}
    assert rule(instance.send(create_of(WEB, RICH))) == "proof.unsupported"
    instance.run(create_of(ONCE, RICH))


SECRETS = [f"secret/shop/{name}" for name in ("db", "host", "made", "other", "tls")]


def recorded(instance: RichInstance) -> list[object]:
    requests = [each.entry.request for each in instance.records]
    return [each["object"] for each in requests if each.get("route") == "own.secret"]


def test_each_content_that_a_proof_opens_first_is_recorded(instance: RichInstance) -> None:
    assert recorded(instance) == SECRETS


@pytest.mark.parametrize("again", ["upload", "look"])
def test_contents_that_cannot_be_recorded_are_recorded_with_the_next_request(again: str) -> None:
    """The opener calls a content new only once, and the disk is full amid the contents of a proof."""
    instance = RichInstance()
    instance.opener.open = new_once(instance.opener.open)  # type: ignore[method-assign,assignment]
    write = instance.journal.append

    def fill(entry: Entry) -> Record:
        instance.journal.full = len(recorded(instance)) == 2
        return write(entry)

    instance.journal.append = fill  # type: ignore[method-assign]
    commit = instance.repository.commit({"deploy/all.yaml": RICH.encode()}, instance.since)
    proof = instance.repository.proof(commit)
    assert rule(instance.upload(proof)) == "journal.unavailable"
    assert recorded(instance) == SECRETS[:2]
    instance.journal.append, instance.journal.full = write, False  # type: ignore[method-assign]
    if again == "look":
        # No commit is accepted yet, so the operator lifts the requirement for a while.
        instance.require(signed=False)
        assert look(instance, "db").status == 200
        assert recorded(instance) == SECRETS
        instance.require(signed=True)
    assert instance.upload(proof).status == 200
    assert recorded(instance) == SECRETS
