"""The journal of a real scenario verifies, and doesn't once anything in it was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from controller.cli.journal.verify import EXIT_CODES
from controller.journal.verify.verify import TrustAnchors, verify
from controller.journal.writer.checkpointer import ends_of, read_published_keys
from tests.instance import Host, eventually, web

Lines = list[bytes]


def flipped(lines: Lines, at: int) -> Lines:
    """Return the lines with one bit of one byte changed, in the middle of line *at*."""
    line = bytearray(lines[at])
    line[len(line) // 2] ^= 1
    return [*lines[:at], bytes(line), *lines[at + 1 :]]


def removed(lines: Lines, at: int) -> Lines:
    """Return the lines without line *at*."""
    return [*lines[:at], *lines[at + 1 :]]


def swapped(lines: Lines, at: int) -> Lines:
    """Return the lines with line *at* and the next in the other order."""
    return [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]


def a_scenario(host: Host) -> None:
    """Have creates, a rollout, healing, refusals, another key and a removal happen, then end."""
    host.write("web.yaml", web())
    host.write("api.yaml", web("api"))
    with host.running():
        host.engine.docker("rm", "-f", host.running_ids("web")[0])
        host.docker_through_broker("run", "--privileged", "trimtab.local/web:1", check=False)
        eventually(lambda: host.running_ids("web"))
        shutil.copy(host.state / "journal.pub", host.folder / "before.pub")
        host.cli("journal", "rotate-key", "--note", "an admin left")
        green = host.running_ids("web")
        host.write("web.yaml", web(extra="env: {COLOUR: blue}\nrollout: {minHealthy: 1s}"))
        # Else web is ready by the revision before, while the file isn't read yet.
        eventually(lambda: host.running_ids("web") and not {*green} & {*host.running_ids("web")})
        host.await_ready("web", "api")
        host.remove("api.yaml")
        eventually(lambda: not host.containers("api"))
        host.cli("journal", "verify")


def test_what_is_changed_in_a_journal_or_the_inventory_shows(host: Host) -> None:
    """A byte, a line, or the order of lines."""
    a_scenario(host)
    verified = host.json("journal", "verify")
    assert (verified["ok"], verified["open_intents"]) == (True, [])
    folder = host.state / "broker" / "journal"
    (segment,) = sorted(folder.glob("*.jsonl"))
    lines = segment.read_bytes().splitlines(keepends=True)
    records = [json.loads(line) for line in lines]
    assert [record["seq"] for record in records] == list(range(1, len(lines) + 1))
    assert {"intent", "outcome", "refusal"} <= {record["stage"] for record in records}
    assert verified["records"] == len(lines)
    # A broker that ends signs what it wrote.
    assert (verified["signed"], verified["trusted"]) == (len(lines) - 1, False)
    assert verified["keys_from"] == str(host.state / "journal.pub")
    # Whoever has the key from before the rotation learns of the next one by its signature.
    new, old = host.json("journal", "keys")
    assert (new["until"], old["key"]) == (None, (host.folder / "before.pub").read_text().split()[0])
    before = host.json("journal", "verify", str(folder), "--key", str(host.folder / "before.pub"))
    assert (before["signed"], before["trusted"]) == (len(lines) - 1, True)

    keys = ends_of(read_published_keys(host.state / "journal.pub"))
    until = {key: last for key, last in keys.items() if last is not None}

    def judged(tamper: Callable[[Lines, int], Lines], at: int) -> tuple[int, int | None, int]:
        """Verify a copy in which line *at* (from 0) was tampered with: exit code, bad record, its line."""
        copy = host.folder / "copy"
        shutil.copytree(folder, copy)
        (copy / segment.name).write_bytes(b"".join(tamper(lines, at)))
        found = verify(copy, TrustAnchors(frozenset(keys), until=until))
        code = EXIT_CODES[found.fault]
        if at == middle:  # by the command, too: a text of each way
            key = ("--key", str(host.state / "journal.pub"))
            said = host.cli("journal", "verify", str(copy), *key, expect=code).stdout
            place = f"{segment.name}, line {found.line}"
            assert f"record {found.first_bad} is bad ({place})" in said
        shutil.rmtree(copy)
        return code, found.first_bad, found.line

    middle = len(lines) // 2
    for tamper, code in ((flipped, 10), (removed, 11), (swapped, 11)):
        for at in (0, middle):
            assert judged(tamper, at) == (code, at + 1, at + 1), (tamper, at)
    # The end, too: what the mark vouches for may not go missing.
    last = len(lines) - 1
    assert judged(flipped, last)[:2] == (10, last + 1)
    assert judged(removed, last)[:2] == (14, last + 1)

    an_edited_inventory_gives_nobody_a_container(host)

    changed_in_place(segment, middle)
    done = host.cli("journal", "verify", expect=10)
    assert f"record {middle + 1} is bad" in done.stdout


def changed_in_place(segment: Path, at: int) -> None:
    """Change a byte of line *at* where the journal lies."""
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(flipped(lines, at)))


def an_edited_inventory_gives_nobody_a_container(host: Host) -> None:
    """Somebody writes a container past the broker, an image and an approval into the snapshot."""
    ours = host.running_ids("web")[0]
    run = ("run", "--detach", "--name", "foreigner", "trimtab.local/web:1")
    foreign = host.engine.docker(*run).stdout.strip()
    path = host.state / "broker" / "inventory.json"
    value = json.loads(path.read_bytes())
    inventory = value["inventory"]
    item = dict(inventory["containers"])[ours]
    admitted = {**item["admitted"], "name": "foreigner"}
    evil = {**item, "id": foreign, "slot": 9, "admitted": admitted}
    inventory["containers"].append([foreign, evil])
    inventory["ledger"].append(["evil:1", {"reference": "evil:1", "id": "sha256:" + "66" * 32}])
    approval = {"plan": "cd" * 32, "objects": ["volume:data"], "time": "", "used": []}
    identifier = "019b7980-0000-7000-8000-000000000000"
    inventory["approvals"].append([identifier, {"id": identifier, **approval}])
    path.write_text(json.dumps(value))
    try:
        verified = host.json("journal", "verify", expect=17)
        assert (verified["ok"], verified["file"], verified["first_bad"]) == (False, str(path), None)
        with host.running():
            stopped = host.docker_through_broker("stop", foreign, check=False)
            assert stopped.returncode != 0, "the container isn't the instance's"
            assert host.running_ids("web") == [ours]
            said = host.cli("journal", "verify").stdout
            assert "says: inventory.json wasn't the file that record " in said
        assert host.engine.docker("inspect", foreign).returncode == 0
        assert len([*(host.state / "broker").glob("inventory.json.rejected-*")]) == 1
        assert "evil:1" not in path.read_text()
        assert host.json("journal", "verify")["ok"]
    finally:
        host.engine.docker("rm", "--force", foreign)
