"""A drawn secret goes through the gate, the worker and the store: only the mounted folder has it.

The engine of this test repeats each body that it gets in its errors. ``--secrets 500`` draws more.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from controller.broker import deliveries
from controller.broker.deliveries import values_of
from controller.broker.dispatch import handle
from controller.broker.files import FileStore
from controller.broker.gate import mutate
from controller.broker.gate.call import Author
from controller.broker.gate.commands import (
    Command,
    Forward,
    MakeFiles,
    OpenSecret,
    ReadSecret,
    StoreContent,
    WriteRecord,
)
from controller.broker.gate.mutate import Change, perform
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.secrets.opener import GeneratedValues, SecretOpener, SecretWorker
from controller.core.engine_api.requests import CreateRequest, VariableRequest
from controller.core.records.inventory_json import to_json
from controller.model.delivery import FileSet, Variant
from controller.model.mutations import Mutation
from controller.model.records import Reply, Verdict
from tests.leaks import found_in, leaks_below
from tests.unit.broker.dialogue import CONTROLLER, record, reply, request, state
from tests.unit.core.secrets.oracle import Keys

SHOP = Keys()
DB = FileSet("secret", "shop", "db")
#: Shorter texts are in other texts by chance.
SHORTEST = 12


@pytest.fixture(scope="module")
def worker() -> Iterator[SecretWorker]:
    worker = SecretWorker(monotonic=time.monotonic)
    yield worker
    worker.stop()


class Broker:
    """The parts of a broker that see plain text, and all that the broker writes and says."""

    def __init__(self, folder: Path, worker: SecretWorker) -> None:
        self.state_folder, self.memory = folder / "state", folder / "memory"
        keys = folder / "keys"
        for made in (folder, self.state_folder, self.memory, keys):
            made.mkdir(mode=0o755)
        (keys / "shop.age").write_text(SHOP.private)
        (keys / "shop.age").chmod(0o600)
        generated = GeneratedValues(self.state_folder / "generated", b"h" * 32, os.urandom)
        opener = SecretOpener(worker, generated, b"h" * 32, lambda: 0.0, keys=keys)
        self.store = FileStore(
            self.state_folder / "files",
            {"secret": self.memory},
            {"secret": opener.reopen_stored},
            open_secret=opener.answer,
        )
        self.knows: GateState = state()
        #: Records, commands and replies, as texts.
        self.said: list[str] = []

    def run(self, flow: Generator[Command, Any, Any]) -> Any:
        """Carry a flow out to its end. The engine refuses everything, and repeats what it got."""
        answer: Any = None
        try:
            while True:
                command = flow.send(answer)
                answer = self._carry_out(command)
                self.said.append(repr(command) if not isinstance(command, Forward) else "")
        except StopIteration as end:
            value: Any = end.value
        except Denied as denied:
            value = denied
        if isinstance(value, Reply):
            self.said.append(value.body.decode("utf-8", "replace"))
        return value

    def _carry_out(self, command: Command) -> Any:
        match command:
            case WriteRecord(entry):
                made = record(self.knows, entry)
                self.said.append(json.dumps(made.entry, default=vars_of, ensure_ascii=False))
                return made
            case OpenSecret():
                return self.store.open_secret(command)
            case StoreContent(files, content, blob):
                return self.store.put(files, content, blob)
            case MakeFiles(files, content, variant, stable):
                return self.store.make(files, content, variant, stable=stable)
            case ReadSecret(files, content, key):
                return self.store.read(files, content, key)
            case Forward(body=body):
                return reply({"message": f"invalid: {body.decode()}"}, 400)
            case _:
                raise AssertionError(f"an unexpected command: {command!r}")


def vars_of(entry: Any) -> dict[str, object]:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}


def deliver(broker: Broker, source: dict[str, object]) -> str:
    """Ask for the content, deliver it, and mount it; return its id."""
    body = {"owner": "team", "source": source}
    for method, target in (
        ("POST", "/trimtab/v1/secrets/shop/db"),
        ("PUT", f"/trimtab/v1/files/{DB}"),
    ):
        asked = request(method, target, actor=CONTROLLER, body=body)
        answered = broker.run(handle(asked, broker.knows))
    assert answered.status in {200, 201}, answered
    content = str(json.loads(answered.body)["Content"])
    assert (
        broker.run(_one(MakeFiles(DB, content, Variant(os.geteuid(), os.getegid(), 0o400)))) == ""
    )
    return content


def _one(command: Command) -> Generator[Command, Any, Any]:
    return (yield command)


def create(broker: Broker, content: str) -> None:
    """Ask the engine for a container with the secret as a variable; the engine refuses."""
    wanted = VariableRequest("PASSWORD", "db", "pw", content, "TrimtabEnv[0]")
    values = broker.run(values_of(broker.knows, CreateRequest(variables=(wanted,)), "shop"))
    if isinstance(values, Denied):
        broker.said.append(repr(values))
        return
    change = Change(
        mutation=Mutation.CONTAINER_CREATE,
        subject="web",
        path="/containers/create?name=web",
        summary={"name": "web"},
        verdict=Verdict("allow"),
        body={"Image": "x", "Env": ["LEVEL=info"]},
        deadline_s=1,
        secret_env=values,
    )
    broker.said.append(repr(change))
    answered = broker.run(perform(broker.knows, Author("i", CONTROLLER, policy="p"), change))
    assert answered.status == 400


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=SHORTEST, max_size=200)
SECRETS = st.one_of(
    TEXTS.map(str.encode),
    st.text("\\\"'\n\t{}[]$%=", min_size=SHORTEST, max_size=60).map(str.encode),
    st.binary(min_size=SHORTEST, max_size=200),
)


def texts_of(secret: bytes, worker: SecretWorker, folder: Path) -> bytes:
    """Deliver a secret, mount it and ask for it as a variable; return all that is written and said."""
    shutil.rmtree(folder, ignore_errors=True)
    broker = Broker(folder, worker)
    create(broker, deliver(broker, {"age": {"pw": SHOP.sealed(secret)}}))
    inventory = json.dumps(to_json(broker.knows.inventory), ensure_ascii=False)
    texts = [text.encode("utf-8", "surrogatepass") for text in (*broker.said, inventory)]
    assert list(leaks_below(broker.memory, secret)) != [], "the search finds what is there"
    assert list(leaks_below(broker.state_folder, secret)) == []
    return b"\n".join(texts)


def _values_in_place_of_hashes(_original: Any) -> Any:
    def wrong(_state: GateState, change: Change) -> dict[str, str]:
        forwarded: Any = change.forwarded or {}
        entries = forwarded.get("Env") or ()
        return {name: value for name, _, value in (str(e).partition("=") for e in entries)}

    return wrong


def _nothing_withheld(_original: Any) -> Any:
    return lambda reply, _change: reply


def _source_in_the_record(original: Any) -> Any:
    def wrong(method: str, route: str, subject: str, summary: Any, *rest: Any, **named: Any) -> Any:
        return original(
            method, route, subject, {**summary, "opened": PLANTED.decode()}, *rest, **named
        )

    return wrong


PLANTED = b"correct horse battery staple"
#: Planted bugs, by the module and the function that has them.
PLANTS = {
    "the intent of a create has values in place of hashes": (
        mutate,
        "_env_hashes",
        _values_in_place_of_hashes,
    ),
    "a reply repeats the values that the engine got": (
        mutate,
        "_without_values",
        _nothing_withheld,
    ),
    "the record of an opened Secret has the plain text": (
        deliveries,
        "request_of",
        _source_in_the_record,
    ),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_the_search_finds_a_planted_secret(
    plant: str, worker: SecretWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found_in(texts_of(PLANTED, worker, tmp_path / "sound"), PLANTED) == []
    module, name, wrong = PLANTS[plant]
    monkeypatch.setattr(module, name, wrong(getattr(module, name)))
    assert found_in(texts_of(PLANTED, worker, tmp_path / "planted"), PLANTED) != []


def test_no_secret_is_in_records_replies_state_or_texts(
    pytestconfig: pytest.Config, worker: SecretWorker, tmp_path: Path
) -> None:
    usual = texts_of(PLANTED, worker, tmp_path / "usual")

    @settings(
        max_examples=pytestconfig.getoption("secrets"),
        deadline=None,
        suppress_health_check=[*HealthCheck],
    )
    @given(SECRETS)
    def search(secret: bytes) -> None:
        assume(len(set(secret)) > 4)
        # Drawn texts can be constants of the code, which are in every record.
        assume(found_in(usual, secret) == [])
        assert found_in(texts_of(secret, worker, tmp_path / "one"), secret) == []

    search()
