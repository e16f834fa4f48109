"""Uploads of proofs: once for each served commit, and again after a while if refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from controller.engine.proof_uploads import READ_AGAIN_S, RETRY_S, BrokerProofs
from controller.engine.requests import OutgoingRequest
from controller.model.desired.desired import GitSource, SourceLocation
from controller.model.desired.source_spec import SourceSpec
from controller.model.errors import EngineError, EngineUnavailable, Refused
from controller.model.names import Key

COMMIT, NEWER = "a" * 40, "b" * 40


class Broker:
    """A broker with one signed source; *refuses* is the error of every upload."""

    def __init__(self) -> None:
        self.rendered = ""
        self.uploads: list[OutgoingRequest] = []
        self.refuses: EngineError | None = None
        self.is_away = False

    def accepted(self) -> dict[str, Any]:
        if self.is_away:
            raise EngineUnavailable("broker.unavailable", "no broker")
        return {"sources": [{"source": "shop", "rendered": self.rendered}]}

    def upload(self, request: OutgoingRequest, cause: str) -> str:
        assert cause
        self.uploads.append(request)
        if self.refuses is not None:
            raise self.refuses
        self.rendered = request.data.decode()
        return ""


class Uploads:
    """The uploader, over exports in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.broker, self.now = folder, Broker(), 0.0
        self.forgotten = 0
        #: The asked readings of the documents, by their delays in seconds.
        self.readings: list[float] = []
        self.proofs = self.uploader()
        spec = {"git": {"url": "file:///x"}, "namespaces": ["shop"]}
        self.source = GitSource(
            Key("Source", "default", "shop"),
            "team",
            SourceSpec.model_validate_json(json.dumps(spec)),
            SourceLocation("shop.yaml", 3),
        )

    def uploader(self) -> BrokerProofs:
        return BrokerProofs(
            self.broker.accepted,
            self.broker.upload,
            lambda: self.now,
            self.forget,
            self.readings.append,
        )

    def forget(self) -> None:
        self.forgotten += 1

    def export(self, commit: str, content: bytes | None = None) -> None:
        (self.folder / "shop").mkdir(exist_ok=True)
        (self.folder / "shop" / f"{commit}.proof").write_bytes(
            commit.encode() if content is None else content
        )

    def send(self, commit: str) -> list[str]:
        problems = self.proofs([self.source], lambda _name: commit, self.folder)
        return [problem.message.partition(": ")[2] for problem in problems]


def test_two_refused_sources_wait_both(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    uploads.broker.refuses = Refused("proof.unsigned", "no signature")
    other = replace(uploads.source, key=Key("Source", "default", "lab"))
    sources = [{"source": name, "rendered": ""} for name in ("shop", "lab")]
    uploads.broker.accepted = lambda: {"sources": sources}  # type: ignore[method-assign]
    proofs = uploads.uploader()
    for name in ("shop", "lab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{COMMIT}.proof").write_bytes(b"x")
    for _ in range(3):
        assert len(proofs([uploads.source, other], lambda _name: COMMIT, tmp_path)) == 2
    assert len(uploads.broker.uploads) == 2


def test_a_proof_is_uploaded_once_and_again_when_the_broker_forgot_it(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    uploads.export(COMMIT)
    assert [uploads.send(COMMIT) for _ in range(3)] == [[], [], []]
    assert len(uploads.broker.uploads) == 1
    uploads.broker.rendered = ""
    uploads.send(COMMIT)
    uploads.export(NEWER)
    uploads.send(NEWER)
    assert [each.data for each in uploads.broker.uploads] == [
        COMMIT.encode(),
        COMMIT.encode(),
        NEWER.encode(),
    ]
    assert uploads.broker.uploads[0].query == {"source": "shop"}


def test_a_refused_proof_is_a_problem_and_is_tried_again_after_a_while(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    uploads.export(COMMIT)
    uploads.broker.refuses = Refused("proof.key-revoked", "its key is revoked")
    assert [uploads.send(COMMIT) for _ in range(3)] == [["its key is revoked"]] * 3
    assert len(uploads.broker.uploads) == 1
    uploads.now += RETRY_S + 1
    uploads.broker.refuses = None
    assert uploads.send(COMMIT) == []


def test_after_an_error_that_ends_by_itself_the_documents_are_read_again_soon(
    tmp_path: Path,
) -> None:
    uploads = Uploads(tmp_path)
    uploads.export(COMMIT)
    uploads.broker.refuses = EngineUnavailable("journal.unavailable", "it can't be written")
    assert [uploads.send(COMMIT) for _ in range(2)] == [["it can't be written"]] * 2
    # Readings for other reasons upload no proof meanwhile.
    assert (len(uploads.broker.uploads), uploads.readings) == (1, [READ_AGAIN_S])
    uploads.now += READ_AGAIN_S
    uploads.broker.refuses = Refused("proof.key-revoked", "its key is revoked")
    assert uploads.send(COMMIT) == ["its key is revoked"]
    assert (len(uploads.broker.uploads), uploads.readings) == (2, [READ_AGAIN_S])
    uploads.now += RETRY_S
    uploads.broker.refuses = None
    assert uploads.send(COMMIT) == []


def test_secrets_are_asked_for_again_after_each_accepted_proof(tmp_path: Path) -> None:
    """The broker has opened the Secrets anew, and one can have failed."""
    uploads = Uploads(tmp_path)
    uploads.export(COMMIT)
    uploads.broker.refuses = Refused("proof.key-revoked", "its key is revoked")
    uploads.send(COMMIT)
    assert uploads.forgotten == 0
    uploads.now += RETRY_S + 1
    uploads.broker.refuses = None
    uploads.send(COMMIT)
    uploads.send(COMMIT)
    assert uploads.forgotten == 1


def test_a_missing_or_long_proof_is_a_problem(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    assert uploads.send(COMMIT) == ["its proof can't be read: No such file or directory"]
    uploads.export(COMMIT, b"")
    assert uploads.send(COMMIT) == ["its files have more than 16 MiB"]
    assert uploads.send("") == []
    assert not uploads.broker.uploads


def test_sources_that_the_policy_does_not_list_and_a_lost_broker_are_left_alone(
    tmp_path: Path,
) -> None:
    uploads = Uploads(tmp_path)
    uploads.broker.is_away = True
    assert uploads.send(COMMIT) == []
    uploads.broker.is_away = False
    other = uploads.proofs([], lambda _name: COMMIT, tmp_path)
    assert other == []
