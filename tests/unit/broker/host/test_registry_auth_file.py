"""The file of registry credentials: its owner and mode, its reloads, and the use of its content."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from controller.broker.dispatch import handle
from controller.broker.host.registry_auth import Credentials
from controller.core.engine_api.streams import Access
from controller.journal.store.reader import records
from controller.model.errors import CredentialsInvalid
from controller.model.policy.document import Policy
from tests.unit.broker.engine_side import chunked, told
from tests.unit.broker.serving import Bench, ask, get, post, run, until

SECRET = "hunter2-s3cr3t"
MINE = os.geteuid()
REFERENCE = "ghcr.io/platformnetwork/web:1"
PULL = "/images/create?fromImage=ghcr.io/platformnetwork/web&tag=1"


def write(path: Path, password: str = SECRET, *, host: str = "ghcr.io") -> None:
    auths = {host: {"username": "ann", "password": password}}
    path.write_text(json.dumps({"auths": auths}))
    path.chmod(0o600)


def password_in(header: str) -> str:
    return str(json.loads(base64.urlsafe_b64decode(header))["password"]) if header else ""


def test_a_file_is_read_at_the_start_and_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    write(path)
    credentials = Credentials(path, own_uid=MINE)
    credentials.load()
    assert credentials.access == Access(str(path), frozenset({"ghcr.io"}))
    assert password_in(credentials.header("ghcr.io")) == SECRET
    assert credentials.header("quay.io") == ""
    assert credentials.refresh() is False

    write(path, "another")
    assert credentials.refresh() is True
    assert password_in(credentials.header("ghcr.io")) == "another"


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda p: p.write_text("{"), "invalid", ":1:2: that isn't JSON"),
        (lambda p: p.write_text('{"credsStore":"x"}'), "helper", ": credsStore asks for a helper "),
        (lambda p: p.unlink(), "unreadable", ": it isn't there"),
        (
            lambda p: p.chmod(0o640),
            "exposed",
            " can be read or written by others than its owner",
        ),
        (lambda p: p.write_bytes(b"\xff"), "unreadable", ": it isn't UTF-8"),
        (lambda p: p.write_bytes(b" " * 300_000), "unreadable", ": it is longer than "),
        (lambda p: (p.unlink(), p.mkdir()), "unreadable", ": it isn't a file"),
    ],
)
def test_a_file_that_can_not_be_used_replaces_nothing(
    tmp_path: Path, spoil: object, code: str, message: str
) -> None:
    path = tmp_path / "registry.json"
    write(path)
    credentials = Credentials(path, own_uid=MINE)
    credentials.load()
    assert callable(spoil)
    spoil(path)
    assert credentials.refresh() is True
    assert credentials.error.startswith(f"registry-auth.{code}: {path}{message}")
    assert password_in(credentials.header("ghcr.io")) == SECRET
    assert credentials.refresh() is False, "it is told once"

    with pytest.raises(CredentialsInvalid) as raised:
        Credentials(path, own_uid=MINE).load()
    assert raised.value.code == f"registry-auth.{code}"
    assert raised.value.remedy


def test_a_file_that_others_own_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    write(path)
    if MINE == 0:
        os.chown(path, 4321, 4321)
    credentials = Credentials(path, own_uid=0 if MINE == 0 else MINE + 1)
    with pytest.raises(CredentialsInvalid, match=r"belongs to uid \d+, who could change it"):
        credentials.load()


def test_the_standard_file_need_not_be_there(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    credentials = Credentials(path, required=False, own_uid=MINE)
    credentials.load()
    assert (credentials.access, credentials.error) == (Access(str(path)), "")
    write(path)
    assert credentials.refresh()
    assert credentials.access.hosts == {"ghcr.io"}


# Where they go


def bench_of(root: Path) -> Bench:
    bench = Bench(root, handle, policy=Policy(name="test"))
    bench.registry_auth = root / "registry.json"
    bench.engine.answers = {
        "POST /v1.45/images/create": chunked(b'{"status":"Digest: x"}\r\n'),
        f"GET /v1.45/distribution/{REFERENCE}/json": told(200, {"Descriptor": {}}),
    }
    return bench


def sent_with(bench: Bench) -> dict[str, str]:
    """Return the credentials of each request to the engine."""
    found = {}
    for head in bench.engine.heads:
        first, *lines = head.decode().split("\r\n")
        values = [line.partition(": ")[2] for line in lines if line.startswith("X-Registry-Auth")]
        found[first.split(" ")[1].partition("?")[0]] = "".join(values)
    return found


def test_credentials_go_to_the_engine_with_pulls_of_their_registry_and_nowhere_else(
    tmp_path: Path,
) -> None:
    bench = bench_of(tmp_path)
    write(tmp_path / "registry.json")
    told_to_clients = []

    async def test() -> None:
        async with bench.serving():
            # What a client sends of its own stays here.
            own = "X-Registry-Auth: " + base64.b64encode(b'{"password":"theirs"}').decode()
            told_to_clients.append(await ask(bench.socket, post(PULL, b"", own)))
            asked = get(f"/distribution/{REFERENCE}/json", own)
            told_to_clients.append(await ask(bench.socket, asked))
            others = ("/images/json", "/trimtab/v1/health", "/trimtab/v1/policy", "/info")
            told_to_clients.extend([await ask(bench.socket, get(path)) for path in others])
            write(tmp_path / "registry.json", host="quay.io")
            await ask(bench.socket, post(PULL))

    run(test())
    by_path = sent_with(bench)
    assert password_in(by_path[f"/v1.45/distribution/{REFERENCE}/json"]) == SECRET
    pulls = [head for head in bench.engine.heads if head.startswith(b"POST")]
    # The second pull was of a registry without credentials.
    assert [b"X-Registry-Auth" in head for head in pulls] == [True, False]
    others = {path for path, value in by_path.items() if value}
    assert others == {f"/v1.45/distribution/{REFERENCE}/json"}

    encoded = base64.b64encode(f"ann:{SECRET}".encode())
    lines = b"".join(path.read_bytes() for path in bench.journal.glob("*.jsonl"))
    for place in (lines, b"".join(told_to_clients)):
        assert SECRET.encode() not in place
        assert encoded not in place
        assert b"theirs" not in place
    loaded = [r.entry for r in records(bench.journal) if r.entry.stage == "policy"]
    summaries = [each.request["summary"] for each in loaded if "summary" in each.request]
    assert summaries == [{"registries": ["ghcr.io"]}, {"registries": ["quay.io"]}]


def test_a_reload_reads_them_anew_and_a_bad_one_is_told(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    write(tmp_path / "registry.json")

    async def test() -> None:
        async with bench.serving() as broker:
            write(tmp_path / "registry.json", host="quay.io")
            bench.reload.set()
            await until(lambda: broker.state.access.hosts == {"quay.io"})
            (tmp_path / "registry.json").chmod(0o644)
            bench.reload.set()
            await until(lambda: bool(broker.state.health.access_error))
            assert broker.state.access.hosts == {"quay.io"}

    run(test())
    results = [r.entry.result["error"] for r in bench.recorded("policy")]
    assert [bool(error) for error in results] == [False, False, False, False, False, True]
    assert "registry-auth.exposed" in str(results[-1])
