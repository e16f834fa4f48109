"""Secrets of all kinds: bound to namespace, owner and name, and limited as an oracle."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from controller.broker.gate.commands import OpenSecret, SecretNotOpened, SecretOpened
from controller.broker.secrets.opener import (
    COUNTED_MAX,
    NEW_MAX,
    STALLED_S,
    WINDOW_S,
    GeneratedValues,
    SecretOpener,
    SecretWorker,
)
from controller.core.files.content import DamagedContent, UnopenedContent
from controller.core.secrets.declared import (
    AgeSource,
    GeneratedSource,
    HostFileSource,
    SecretName,
    SecretSource,
    SopsSource,
)
from controller.core.secrets.formats import SopsForm
from controller.model.delivery import FileSet
from controller.model.errors import SecretError
from tests.unit.core.secrets.oracle import Keys, encrypt

SHOP, OTHER = Keys(), Keys()
DB = SecretName("shop", "team-a", "db")
SOPS = SopsSource(encrypt("db.yaml", b"pw: s3cret-value\n", SHOP), SopsForm.YAML, "db.yaml")
LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@pytest.fixture(scope="module")
def worker() -> Iterator[SecretWorker]:
    worker = SecretWorker(monotonic=time.monotonic)
    yield worker
    worker.stop()


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opener(worker: SecretWorker, tmp_path: Path, clock: Clock) -> SecretOpener:
    for folder in (tmp_path, tmp_path / "keys", tmp_path / "host", tmp_path / "host" / "shop"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    for namespace, keys in (("shop", SHOP), ("other", OTHER)):
        (tmp_path / "keys" / f"{namespace}.age").write_text(keys.private)
        (tmp_path / "keys" / f"{namespace}.age").chmod(0o600)
    (tmp_path / "host" / "shop" / "pw").write_bytes(b"of the host")
    (tmp_path / "host" / "shop" / "pw").chmod(0o600)
    generated = GeneratedValues(tmp_path / "generated", b"h" * 32, os.urandom)
    return SecretOpener(
        worker=worker,
        generated=generated,
        hash_key=b"h" * 32,
        monotonic=clock,
        keys=tmp_path / "keys",
        host_files=tmp_path / "host",
    )


def refusal(opener: SecretOpener, bound: SecretName, source: SecretSource) -> SecretError:
    with pytest.raises(SecretError) as caught:
        opener.open(bound, source)
    return caught.value


SOURCES: dict[str, SecretSource] = {
    "sops": SOPS,
    "age": AgeSource({"pw": SHOP.sealed(b"s3cret-value")}),
    "file": HostFileSource({"pw": "pw"}),
    "generate": GeneratedSource({"pw": 32}),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_each_kind_opens_again_to_the_same_files(opener: SecretOpener, kind: str) -> None:
    opened = opener.open(DB, SOURCES[kind])
    assert list(opened.files) == ["pw"]
    assert opener.reopen("shop", "db", opened.content, opened.stored) == opened.files
    assert opened.files["pw"] not in opened.stored
    assert opened.files["pw"].decode() not in repr(opened)
    assert opener.open(DB, SOURCES[kind]).content == opened.content


def test_a_document_copied_into_another_namespace_isnt_decrypted(opener: SecretOpener) -> None:
    error = refusal(opener, SecretName("other", "team-a", "db"), SOPS)
    assert error.code == "secret.wrong-key"
    error = refusal(opener, SecretName("third", "team-a", "db"), SOPS)
    assert (error.code, error.remedy) == ("secret.key-missing", "sudo trimtab secret keygen third")


def test_a_stored_content_isnt_served_under_another_name_or_owner(opener: SecretOpener) -> None:
    opened = opener.open(DB, SOPS)
    for namespace, name, stored in (
        ("shop", "db2", opened.stored),
        ("shop", "db", opened.stored.replace(b"team-a", b"team-b")),
    ):
        with pytest.raises(SecretError) as caught:
            opener.reopen(namespace, name, opened.content, stored)
        assert caught.value.code == "secret.changed"
    with pytest.raises(SecretError):
        opener.reopen("other", "db", opened.content, opened.stored)


def test_a_changed_host_file_is_another_content(opener: SecretOpener, tmp_path: Path) -> None:
    opened = opener.open(DB, SOURCES["file"])
    (tmp_path / "host" / "shop" / "pw").write_bytes(b"changed")
    with pytest.raises(SecretError) as caught:
        opener.reopen("shop", "db", opened.content, opened.stored)
    assert caught.value.code == "secret.changed"
    assert opener.open(DB, SOURCES["file"]).content != opened.content


def test_generated_values_are_made_once_and_kept(opener: SecretOpener, tmp_path: Path) -> None:
    first = opener.open(DB, GeneratedSource({"pw": 32})).files["pw"]
    assert len(first) == 32
    assert set(first) <= set(LETTERS)
    longer = opener.open(DB, GeneratedSource({"pw": 64, "more": 8})).files
    assert (longer["pw"], len(longer["more"])) == (first, 8)
    assert opener.open(DB, GeneratedSource({"more": 8})).files == {"more": longer["more"]}
    assert opener.open(DB, GeneratedSource({"pw": 16})).files["pw"] == first
    on_disk = (tmp_path / "generated" / "shop" / "db").read_bytes()
    assert first not in on_disk
    assert (
        opener.open(SecretName("shop", "team-a", "db2"), GeneratedSource({"pw": 32})).files["pw"]
        != first
    )
    assert (
        refusal(opener, SecretName("shop", "team-b", "db"), GeneratedSource({"pw": 8})).code
        == "secret.foreign"
    )


def test_forgotten_values_are_made_anew_for_a_delivery_alone(opener: SecretOpener) -> None:
    source = GeneratedSource({"pw": 32})
    opened = opener.open(DB, source)
    assert opener.generated.forget("shop", "db")
    assert not opener.generated.forget("shop", "db")
    with pytest.raises(SecretError) as caught:
        opener.reopen("shop", "db", opened.content, opened.stored)
    assert caught.value.code == "secret.forgotten"
    assert opener.open(DB, source).files != opened.files


def test_a_damaged_or_moved_file_of_generated_values_is_named(
    opener: SecretOpener, tmp_path: Path
) -> None:
    source = GeneratedSource({"pw": 32})
    opener.open(DB, source)
    path = tmp_path / "generated" / "shop" / "db"
    path.rename(path.with_name("db2"))
    bound = SecretName("shop", "team-a", "db2")
    assert refusal(opener, bound, source).code == "secret.generated-damaged"
    path.with_name("db2").write_bytes(b"short")
    assert refusal(opener, bound, source).code == "secret.generated-damaged"


def guess(number: int) -> AgeSource:
    return AgeSource({"pw": SHOP.sealed(f"guess {number}".encode())})


def test_new_contents_of_a_secret_are_limited_in_an_hour(
    opener: SecretOpener, clock: Clock
) -> None:
    for number in range(NEW_MAX):
        opener.open(DB, guess(number))
    assert refusal(opener, DB, guess(NEW_MAX)).code == "secret.too-many"
    assert refusal(opener, DB, SOPS).code == "secret.too-many"
    opener.open(SecretName("shop", "team-a", "other"), guess(0))
    clock.now += WINDOW_S
    opener.open(DB, guess(NEW_MAX))


def test_contents_that_are_stored_arent_counted(opener: SecretOpener) -> None:
    known = opener.open(DB, SOPS).content
    for _ in range(2 * NEW_MAX):
        opener.open(DB, SOPS, known={known})


def test_a_flood_of_names_makes_no_name_uncounted(opener: SecretOpener, clock: Clock) -> None:
    source = HostFileSource({"pw": "pw"})
    for number in range(COUNTED_MAX - 1):
        opener._count(SecretName("shop", "team-a", str(number)), "x")
    opener.open(DB, source)
    assert refusal(opener, SecretName("shop", "team-a", "new"), source).code == "secret.too-many"
    opener.open(DB, source)
    clock.now += WINDOW_S
    opener.open(SecretName("shop", "team-a", "new"), source)


def test_requests_at_the_same_time_are_counted_one_after_the_other(
    opener: SecretOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all of them would be looked at before the first is counted."""
    for number in range(NEW_MAX - 1):
        opener.open(DB, guess(number))
    inside = threading.Barrier(2)

    def files(*_: object, **__: object) -> dict[str, bytes]:
        with suppress(threading.BrokenBarrierError):
            inside.wait(0.2)  # the other request, if it could be here, too
        return {"pw": os.urandom(8)}

    monkeypatch.setattr(SecretOpener, "_files", files)
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.append(opener.answer(OpenSecret(DB, SOPS))))
        for _ in range(2)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(type(each).__name__ for each in answers) == ["SecretNotOpened", "SecretOpened"]


def test_only_a_content_that_is_gone_is_damaged(opener: SecretOpener, tmp_path: Path) -> None:
    """What a missing key, or a worker that fails, hides now can be opened later."""
    named = FileSet("secret", "shop", "db")
    opened = opener.open(DB, SOPS)
    (tmp_path / "keys" / "shop.age").unlink()
    with pytest.raises(UnopenedContent, match="no private key"):
        opener.reopen_stored(named, opened.content, opened.stored)
    opened = opener.open(DB, SOURCES["file"])
    (tmp_path / "host" / "shop" / "pw").write_bytes(b"changed")
    with pytest.raises(DamagedContent, match="have changed"):
        opener.reopen_stored(named, opened.content, opened.stored)


class Stalling:
    """A worker that fails after its deadline."""

    def __init__(self) -> None:
        self.asked = 0

    def open(self, _request: object) -> dict[str, bytes]:
        self.asked += 1
        raise SecretError("secret.worker", "no answer within 5 s")


def test_a_source_that_stalls_the_worker_is_refused_at_once_for_a_while(
    opener: SecretOpener, clock: Clock
) -> None:
    opener.worker = worker = Stalling()  # type: ignore[assignment]
    for _ in range(3):
        assert refusal(opener, DB, SOPS).code == "secret.worker"
    assert worker.asked == 1
    changed = AgeSource({"pw": SHOP.sealed(b"another")})
    assert refusal(opener, DB, changed).code == "secret.worker"
    assert worker.asked == 2, "another content is tried"
    clock.now += STALLED_S
    refusal(opener, DB, SOPS)
    assert worker.asked == 3


@pytest.mark.parametrize("earlier", [{"known": ["hmac:1"]}, {"doubted": True}])
def test_lost_values_are_not_replaced_before_an_operator_says_so(
    opener: SecretOpener, earlier: dict[str, Any]
) -> None:
    with pytest.raises(SecretError) as caught:
        opener.open(DB, SOURCES["generate"], **earlier)
    assert caught.value.code == "secret.generated-lost"
    assert "trimtab secret forget shop/db" in caught.value.remedy
    # Nothing was made meanwhile.
    with pytest.raises(SecretError):
        opener.open(DB, SOURCES["generate"], **earlier)
    assert not opener.generated.forget("shop", "db"), "there are none"
    made = opener.open(DB, SOURCES["generate"], **earlier)
    assert opener.open(DB, SOURCES["generate"], **earlier).content == made.content


def test_values_that_this_process_made_and_that_are_gone_are_lost(
    opener: SecretOpener, tmp_path: Path
) -> None:
    command = OpenSecret(DB, GeneratedSource({"pw": 32}))
    opened = opener.answer(command)
    assert isinstance(opened, SecretOpened)
    (tmp_path / "generated" / "shop" / "db").unlink()
    lost = opener.answer(command)
    assert isinstance(lost, SecretNotOpened)
    assert lost.code == "secret.generated-lost"
    # A content that can't be opened now stays in the inventory, so that it is known later.
    with pytest.raises(UnopenedContent):
        opener.reopen_stored(FileSet("secret", "shop", "db"), opened.content, opened.stored)


def test_a_further_value_is_made_beside_those_that_are_there(opener: SecretOpener) -> None:
    first = opener.open(DB, GeneratedSource({"pw": 32}))
    both = opener.open(DB, GeneratedSource({"pw": 32, "token": 16}), known=[first.content])
    assert both.files["pw"] == first.files["pw"]
    assert len(both.files["token"]) == 16
