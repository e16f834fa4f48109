"""``journal explain``, ``blame``, ``state``, ``follow`` and ``export``, as users type them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.broker.dispatch import handle
from controller.broker.handlers.trimtab_reads import line_for
from controller.cli.clients.socket_client import BrokerApi
from controller.cli.journal.explain import containers_at, render
from controller.cli.journal.filters import BrokerArchive, parse_result
from controller.cli.main import main
from controller.core.records.provenance import provenance
from controller.core.records.query import SHAPING_MAX, Filter, QueryResult, chronicle
from controller.journal.index.queries import FolderArchive
from controller.journal.store.reader import records
from controller.model.records import Actor, Role
from controller.settings import Instance, StateFolder, write_instance
from tests.unit.broker.dialogue import state as gate_state
from tests.unit.broker.serving import Bench, get
from tests.unit.broker.serving import ask as ask_broker
from tests.unit.core.happened import ID, NAME, OPERATOR, OTHER, SUMMARY, Happened
from tests.unit.journal.builders import NOON
from tests.unit.journal.stories import write_entries


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder whose journal tells of a container that was raised, and one that is gone."""
    return made(tmp_path / "state", the_story())


def the_story() -> Happened:
    happened = Happened().created()
    happened.change("container.start", {"name": NAME}, cause="slot 1 is stopped")
    settings = {**SUMMARY["settings"], "memory": 2**30}  # type: ignore[dict-item]
    happened.change("container.update", {"settings": settings}, actor=OPERATOR)
    labels = {**SUMMARY["labels"], "io.trimtab.service": "old"}  # type: ignore[dict-item]
    create = happened.ask("container.create", "old.1", {"name": "old.1", "labels": labels})
    happened.close(create, status=201, container=OTHER)
    removal = happened.ask("container.remove", OTHER, actor=OPERATOR)
    happened.close(removal)
    return happened


def made(root: Path, happened: Happened) -> Path:
    layout = StateFolder(root=root, run=root / "run")
    layout.broker.mkdir(parents=True)
    write_instance(root, Instance(id="1" * 16, dir="/d", run=str(layout.run)))
    told = [(NOON + number, each.entry) for number, each in enumerate(happened.records, 1)]
    write_entries(layout.journal, told, of_a_segment=100)
    return root


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["journal", *map(str, arguments)])
    printed = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return code, printed.out, printed.err


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    return out


EXPLAINED = """\
web.1-1f0c22aa (aaaaaaaaaaaa), slot 1 of default/web, owner team
running since 2026-01-01T12:00:03.000Z (record 4), according to the journal, which doesn't record containers that end by themselves
made by controller at 2026-01-01T12:00:01.000Z (record 2): slot 1 is empty
FIELD             VALUE                                                                     FROM                           CHANGED SINCE
name              web.1-1f0c22aa                                                            web.yaml:3 of c0ffeec0ffee
image             trimtab.local/web:1                                                       web.yaml:7 of c0ffeec0ffee
image id          sha256:1111111111111111111111111111111111111111111111111111111111111111   policy: image.pinned
"""


@pytest.mark.parametrize("container", [NAME, ID, ID[:6]])
def test_a_container_is_explained_field_by_field(
    state: Path, capsys: pytest.CaptureFixture[str], container: str
) -> None:
    lines = told(capsys, "explain", container, "--state", state).splitlines()
    assert lines[:7] == EXPLAINED.splitlines()
    (memory,) = (line for line in lines if line.startswith("memory  "))
    assert memory.split() == [
        *("memory", "1Gi", "the", "request"),
        *("root", "at", "2026-01-01T12:00:05.000Z", "(record", "6)"),
    ]


def test_for_programs_it_is_told_with_its_records(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(told(capsys, "explain", NAME, "--json", "--state", state))
    assert (found["container"], found["state"], found["owner"]) == (ID, "running", "team")
    (image,) = (fact for fact in found["facts"] if fact["field"] == "image")
    assert image["source"] == {"file": "web.yaml", "line": 7, "commit": "c0ffee" * 6}
    assert image["record"]["seq"] == 2
    assert image["record"]["actor"]["role"] == "controller"
    assert image["plan"] == "p"


def test_one_that_is_gone_is_explained_too(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "\nremoved since 2026-01-01T12:00:09.000Z (record 10)" in told(
        capsys, "explain", "old.1", "--state", state
    )


def test_what_is_not_there_is_an_error_with_a_hint(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["explain", "none"], ["blame", "old"], ["blame", "shop/web"]):
        code, out, err = run(capsys, *arguments, "--state", state)
        assert (code, out) == (1, "")
        assert "'trimtab journal " in err


def test_the_name_of_a_service_leads_to_its_containers(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "explain", "web", "--state", state)
    assert code == 1
    assert err == (
        "error: no container web is in the journal [container.unknown]\n"
        "remedy: web is a service: 'trimtab journal blame web' explains its containers "
        "web.1-1f0c22aa\n"
    )


def test_what_may_be_several_is_not_guessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    happened = Happened()
    for name, identifier in (("one", "abcd1" + "0" * 59), ("two", "abcd2" + "0" * 59)):
        happened.close(
            happened.ask("container.create", name, {"name": name}),
            status=201,
            container=identifier,
        )
    state = made(tmp_path / "several", happened)
    code, _, err = run(capsys, "explain", "abcd", "--state", state)
    assert code == 1
    assert "abcd means one (abcd10000000), two (abcd20000000)" in err


def test_a_service_is_blamed_for_each_of_its_containers(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = told(capsys, "explain", NAME, "--state", state)
    assert told(capsys, "blame", "web", "--state", state) == whole
    (one,) = json.loads(told(capsys, "blame", "default/web", "--json", "--state", state))
    assert one["name"] == NAME


THERE = """\
At 2026-01-01T12:00:08.000Z, according to the journal, which doesn't record containers that end by themselves.
NAMESPACE   SERVICE   SLOT   CONTAINER        STATE     SINCE                      RECORD   BY           WHY
default     old       1      old.1            created   2026-01-01T12:00:07.000Z   8        controller
default     web       1      web.1-1f0c22aa   running   2026-01-01T12:00:03.000Z   4        controller   slot 1 is stopped
"""


def test_what_was_there_at_a_time_is_told(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = "2026-01-01T12:00:08Z"
    assert told(capsys, "state", "--at", at, "--state", state) == THERE
    assert "old.1" not in told(capsys, "state", "--state", state)
    early = told(capsys, "state", "--at", "2026-01-01T11:00:00Z", "--state", state)
    assert early.splitlines()[1:] == ["No containers."]
    found = json.loads(
        told(capsys, "state", "--at", at, "--service", "old", "--json", "--state", state)
    )
    assert (found["at"], [each["name"] for each in found["containers"]]) == (
        "2026-01-01T12:00:08.000Z",
        ["old.1"],
    )


def test_who_adopted_a_container_is_told_by_all_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    happened = Happened()
    happened.adopt(effective="verified")
    state = made(tmp_path / "adopted", happened)
    whole = told(capsys, "explain", NAME, "--state", state)
    head = (
        "running since 2026-01-01T12:00:01.000Z (record 2); it was adopted then, and ran already,"
    )
    assert whole.splitlines()[1].startswith(head)
    (image,) = (line for line in whole.splitlines() if line.startswith("image  "))
    assert image.split()[2:] == ["the", "adoption"]
    assert "adopted by root at 2026-01-01T12:00:01.000Z (record 2)" in whole
    assert told(capsys, "blame", "web", "--state", state) == whole
    at = ("state", "--at", "2026-01-01T12:00:01Z", "--state", state)
    assert "it was adopted then" in told(capsys, *at)


def test_that_not_all_changes_are_told_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    happened = Happened().created()
    for _ in range(SHAPING_MAX // 2 + 1):
        happened.change("network.connect", {"network": "platform-ingress"})
    state = made(tmp_path / "many", happened)
    lines = told(capsys, "explain", NAME, "--state", state).splitlines()
    first = json.loads(told(capsys, "explain", NAME, "--json", "--state", state))["toldSince"]
    assert lines[2] == (
        f"changes before record {first} aren't shown, "
        "and what they made of it may be told as a later one's"
    )


# Handing on


def lines_of(state: Path) -> list[bytes]:
    return (state / "broker" / "journal" / "00000000000000000001.jsonl").read_bytes().splitlines()


def exported(capfdbinary: pytest.CaptureFixture[bytes], *arguments: object) -> list[bytes]:
    with pytest.raises(SystemExit) as ended:
        main(["journal", "export", *map(str, arguments)])
    assert ended.value.code == 0
    return capfdbinary.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "first", "last"),
    [
        ([], 1, 11),
        (["--from", 3, "--to", 5, "--exact"], 3, 5),
        (["--since", "2026-01-01T12:00:04Z", "--exact"], 5, 11),
        (["--until", "2026-01-01T12:00:04Z", "--from", 2, "--exact"], 2, 5),
        # Without a checkpoint before and after them all records are needed.
        (["--from", 3, "--to", 5], 1, 11),
    ],
)
def test_records_are_exported_as_they_are(
    state: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    arguments: list[object],
    first: int,
    last: int,
) -> None:
    lines = exported(capfdbinary, *arguments, "--state", state)
    assert lines == lines_of(state)[first - 1 : last]


def test_whole_segments_are_exported_into_a_folder_that_verifies(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    assert told(capsys, "export", "--from", 3, "--folder", folder, "--state", state) == (
        f"records 1 to 11 are in {folder}; verify them with\n"
        f"trimtab journal verify --journal {folder} --key journal.pub\n"
    )
    assert told(capsys, "verify", "--journal", folder).startswith("11 records")
    code, _, err = run(capsys, "export", "--folder", folder, "--json", "--state", state)
    assert (code, "[export.not-empty]" in err) == (1, True)


def test_what_is_not_there_is_not_exported(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--since", "1h"], ["--until", "2025-01-01"], ["--from", 5, "--to", 4]):
        code, out, err = run(capsys, "export", *arguments, "--state", state)
        assert (code, out) == (1, "")
        assert "[records.none]" in err


@pytest.mark.parametrize("content", [b"\n", b"\xff\n", b"key until\n", b"key until noon\n", None])
def test_a_list_of_keys_that_can_not_be_read_is_told_with_what_helps(
    state: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    if content is not None:
        (state / "journal.pub").write_bytes(content)
    code, out, err = run(capsys, "keys", "--state", state)
    assert (code, out) == (1, "")
    assert "[journal.bad-key]\nremedy: the broker writes it when it starts" in err


# Through a broker


def test_a_client_is_explained_its_container_and_named_no_person() -> None:
    happened = the_story()
    client = Actor(uid=1000, gid=1000, pid=7, role=Role.CLIENT, owner="team")
    gate = gate_state()

    def told(wanted: Filter, *, limit: int = 0, last: bool = True) -> Iterator[QueryResult]:
        for found in happened.find(wanted, limit=limit, last=last):
            yield parse_result(line_for(found, actor=client, state=gate, with_about=True))

    def words(text: str) -> list[list[str]]:
        return [line.split() for line in text.splitlines()]

    explained = provenance(chronicle(told, ID))
    assert explained is not None
    whole = render(happened.told)
    assert "root at" in whole
    assert words(render(explained)) == words(re.sub(r"\broot at", "operator at", whole))


@contextlib.contextmanager
def served(root: Path) -> Iterator[Bench]:
    """Have a broker serve the journal of a state folder in a thread of its own."""
    bench = Bench(root, handle)
    bench.socket.parent.mkdir(exist_ok=True)
    loop = asyncio.new_event_loop()
    over, ready = asyncio.Event(), threading.Event()

    async def serve() -> None:
        async with bench.serving():
            for _ in range(3):
                await ask_broker(bench.socket, get("/nowhere"))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield bench
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()


def test_a_broker_tells_the_same_as_the_files(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from controller.cli.journal import filters

    monkeypatch.setattr(filters, "PAGE", 3)
    with served(state) as bench:
        asked = BrokerArchive(BrokerApi(bench.socket))
        with FolderArchive(bench.journal) as archive:
            for wanted in (  # the broker goes on writing
                Filter(upto=11),
                Filter(upto=11, service="web"),
                Filter(upto=11, stages=frozenset({"intent", "refusal"}), after=2),
                Filter(upto=9, ids=frozenset({ID, OTHER})),
                Filter(upto=11, container=NAME, since="2026-01-01T12:00:02.000Z"),
            ):
                whole = list(archive.find(wanted))
                assert list(asked.find(wanted)) == whole
                for limit in (1, 2, 4, 7, 100):
                    for last in (True, False):
                        expected = list(archive.find(wanted, limit=limit, last=last))
                        assert list(asked.find(wanted, limit=limit, last=last)) == expected
            at = "2026-01-01T12:00:08.000Z"
            assert list(containers_at(asked, at, Filter())) == list(
                containers_at(archive, at, Filter())
            )
        follower = asked.follow(Filter(stages=frozenset({"refusal"})))
        refused = [
            record.seq for record in records(bench.journal) if record.entry.stage == "refusal"
        ]
        assert [next(follower).record.seq for _ in refused] == refused
        follower.close()  # type: ignore[attr-defined]


def test_following_needs_a_broker_and_says_so(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "follow", "--state", state)
    assert (code, out) == (1, "")
    assert "[nothing.running]" in err


def test_following_begins_with_the_last_ones_and_ends_with_the_broker(state: Path) -> None:
    argv = [sys.executable, "-m", "controller", "journal", "follow", "--stage", "refusal"]
    argv += ["--limit", "2", "--state", str(state)]
    with contextlib.ExitStack() as stack:
        with served(state) as bench:
            followed = stack.enter_context(
                subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            assert followed.stdout is not None
            head = followed.stdout.readline()
            before = [followed.stdout.readline() for _ in range(2)]
            asyncio.run(ask_broker(bench.socket, get("/elsewhere")))
            after = followed.stdout.readline()
        out, err = followed.communicate(timeout=20)
    said = (
        "error: the broker ended the connection [broker.ended]\n"
        "remedy: see its log, or 'trimtab journal verify'\n"
    )
    assert (followed.returncode, out, err) == (1, "", said)
    assert head.split()[:3] == ["SEQ", "TIME", "ACTOR"]
    assert all("refusal" in line and "/nowhere" in line for line in before)
    assert "/elsewhere" in after


def test_what_a_proof_says_is_shown_as_proven(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proof = {
        "source": "shop",
        "commit": "d0" * 20,
        "signer": "alice@example.org",
        "key": "SHA256:x",
        "path": "web.yaml",
        "blob": "b1" * 20,
        "shape": "5e" * 32,
    }
    happened = Happened()
    create = happened.ask("container.create", NAME, {**SUMMARY, "proof": proof})
    happened.close(create, status=201, container=ID)
    root = made(tmp_path / "signed", happened)
    lines = told(capsys, "explain", NAME, "--state", root).splitlines()
    (image,) = (line for line in lines if line.startswith("image  "))
    assert "shop:web.yaml of d0d0d0d0d0d0, proven: signed by alice@example.org" in image
    found = json.loads(told(capsys, "explain", NAME, "--json", "--state", root))
    (fact,) = (fact for fact in found["facts"] if fact["field"] == "image")
    assert fact["proof"] == proof
    # A blame names the proof likewise, and says of a claim only where the claim comes from.
    blamed = told(capsys, "blame", "web", "--state", root)
    assert "shop:web.yaml of d0d0d0d0d0d0, proven: signed by alice@example.org" in blamed
    claimed = made(tmp_path / "claimed", Happened().created())
    assert "proven" not in told(capsys, "blame", "web", "--state", claimed)
