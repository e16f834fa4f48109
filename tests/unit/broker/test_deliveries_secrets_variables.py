"""Variables with values of Secrets: read for an admitted create, and refused if they can't be."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from controller.broker.deliveries import VALUE_BYTES_MAX, values_of
from controller.broker.gate.commands import ReadSecret, SecretValue, WriteRecord
from controller.broker.gate.refusals import Denied
from controller.core.engine_api.requests import CreateRequest, VariableRequest
from controller.model.delivery import FileSet, StoredContent, StoredFiles
from controller.model.inventory import Inventory
from tests.unit.broker.dialogue import state

DB = FileSet("secret", "shop", "db")
CONTENT = "hmac:" + "a" * 64
WANTED = VariableRequest("URL", "db", "url", CONTENT, "TrimtabEnv[0]")
REQUEST = replace(CreateRequest(), variables=(WANTED,))
READ = ReadSecret(DB, CONTENT, "url")


def asked(answer: object, inventory: Inventory | None = None) -> tuple[str, ...]:
    """Return the entries, after one answer; a record is written if one is asked for."""
    known = inventory or Inventory()
    flow: Generator[Any, Any, tuple[str, ...]] = values_of(state(known), REQUEST, "shop")
    assert next(flow) == READ
    try:
        while True:
            command = flow.send(answer)
            assert isinstance(command, WriteRecord)
            answer = None
    except StopIteration as end:
        entries: tuple[str, ...] = end.value
        return entries


def test_a_value_becomes_an_entry_and_is_in_no_text_of_the_command() -> None:
    value = SecretValue("geheim ä=1\nzwei".encode())
    assert asked(value) == ("URL=geheim ä=1\nzwei",)
    assert "geheim" not in repr(value)


@pytest.mark.parametrize(
    "value", [b"a\0b", b"\xff\xfe", b"x" * (VALUE_BYTES_MAX + 1)], ids=["zero", "bytes", "long"]
)
def test_a_value_that_cannot_be_a_variable_is_refused_without_the_value(value: bytes) -> None:
    with pytest.raises(Denied) as denied:
        asked(SecretValue(value))
    assert denied.value.rule == "env.secret"
    assert "xxx" not in denied.value.reason


@pytest.mark.parametrize("reason", ["the content can't be opened now: no key", "no space"])
def test_a_value_that_cannot_be_read_is_refused(reason: str) -> None:
    with pytest.raises(Denied) as denied:
        asked(reason)
    assert denied.value.rule == "files.undelivered"


def test_a_lost_content_leaves_the_inventory_so_that_it_is_delivered_again() -> None:
    known = Inventory(files={str(DB): StoredFiles(DB, (StoredContent(CONTENT, "team"),))})
    with pytest.raises(Denied) as denied:
        asked("the content isn't stored", known)
    assert denied.value.rule == "files.undelivered"
