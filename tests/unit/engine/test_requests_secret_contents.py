"""Content ids of Secrets: asked once, remembered, and asked again after a failure or for host files."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.manifests.check_together import desired_of
from controller.core.planning.deliveries import SecretFault
from controller.engine.requests import (
    LATE,
    OF_HOST,
    READING_S,
    RETRY_S,
    BrokerSecrets,
    OutgoingRequest,
)
from controller.model.desired.desired import Secret
from controller.model.errors import Refused
from controller.model.names import Key

DB = Key("Secret", "default", "db")
SEALED = "-----BEGIN AGE ENCRYPTED FILE-----"


def declared(spec: str) -> tuple[Secret, ...]:
    text = (
        f"apiVersion: trimtab/v1\nkind: Secret\nmetadata: {{name: db, owner: team}}\nspec: {spec}\n"
    )
    desired = desired_of({"db.yaml": text})
    assert desired.problems == ()
    return desired.secrets


class Broker:
    """Answers with one id after another, or refuses."""

    def __init__(self) -> None:
        self.asked: list[OutgoingRequest] = []
        self.refuses = False
        self.code = "secret.wrong-key"
        self.now = 0.0

    def __call__(self, request: OutgoingRequest, cause: str) -> str:
        self.asked.append(request)
        assert "Secret/default/db" in cause
        if self.refuses:
            raise Refused(self.code, "not for this key", remedy="encrypt it again")
        return f"hmac:{len(self.asked)}"


def test_a_source_is_asked_for_once() -> None:
    broker = Broker()
    ask = BrokerSecrets(broker, lambda: broker.now)
    secrets = declared(f"{{age: {{pw: '{SEALED}'}}}}")
    assert [ask(secrets), ask(secrets)] == [{DB: "hmac:1"}] * 2
    (request,) = broker.asked
    assert request.path == "/trimtab/v1/secrets/default/db"
    assert request.body == {"owner": "team", "source": {"age": {"pw": SEALED}}}
    assert ask(declared("{generate: {pw: {length: 9}}}")) == {DB: "hmac:2"}
    assert ask(secrets) == {DB: "hmac:3"}, "what is no longer declared is forgotten"


def test_a_forgotten_source_is_asked_for_again() -> None:
    broker = Broker()
    ask = BrokerSecrets(broker, lambda: broker.now)
    secrets = declared(f"{{age: {{pw: '{SEALED}'}}}}")
    assert ask(secrets) == {DB: "hmac:1"}
    ask.forget()
    assert ask(secrets) == {DB: "hmac:2"}


@pytest.mark.parametrize("spec", ["{file: {pw: pw}}", "{generate: {pw: {}}}"])
def test_what_can_change_without_its_document_is_asked_for_at_each_reading(spec: str) -> None:
    broker = Broker()
    ask = BrokerSecrets(broker, lambda: broker.now)
    secrets = declared(spec)
    assert [ask(secrets), ask(secrets)] == [{DB: "hmac:1"}, {DB: "hmac:2"}]


def test_a_refused_source_is_asked_for_again_later() -> None:
    broker = Broker()
    ask = BrokerSecrets(broker, lambda: broker.now)
    secrets = declared("{file: {pw: pw}}")
    broker.refuses = True
    fault = SecretFault("secret.wrong-key", "not for this key", "encrypt it again")
    assert [ask(secrets), ask(secrets)] == [{DB: fault}] * 2
    assert len(broker.asked) == 1
    broker.refuses, broker.now = False, RETRY_S
    assert ask(secrets) == {DB: "hmac:2"}


@pytest.mark.parametrize("code", sorted(OF_HOST))
def test_a_file_or_key_that_was_repaired_is_asked_for_at_the_next_reading(code: str) -> None:
    broker = Broker()
    ask = BrokerSecrets(broker, lambda: broker.now)
    secrets = declared(f"{{age: {{pw: '{SEALED}'}}}}")
    broker.refuses, broker.code = True, code
    assert ask(secrets) == {DB: SecretFault(code, "not for this key", "encrypt it again")}
    broker.refuses = False
    assert ask(secrets) == {DB: "hmac:2"}


def test_refused_generated_values_are_asked_for_at_each_reading() -> None:
    broker = Broker()
    ask = BrokerSecrets(broker, lambda: broker.now)
    secrets = declared("{generate: {pw: {}}}")
    broker.refuses = True
    assert isinstance(ask(secrets)[DB], SecretFault)
    broker.refuses = False  # an operator let lost ones be made anew
    assert ask(secrets) == {DB: "hmac:2"}


def test_questions_of_one_reading_are_bounded_in_time() -> None:
    broker = Broker()

    def slow(request: OutgoingRequest, cause: str) -> str:
        broker.now += READING_S
        return broker(request, cause)

    ask = BrokerSecrets(slow, lambda: broker.now)
    (one,) = declared("{generate: {pw: {}}}")
    other = replace(one, key=Key("Secret", "default", "zz"))
    assert ask([one, other]) == {DB: "hmac:1", other.key: LATE}
    assert [request.path[-2:] for request in broker.asked] == ["db"]
