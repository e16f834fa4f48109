"""The journal of a real scenario verifies, and doesn't once anything in it was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
        host.write("web.yaml", web(extra="env: {COLOUR: blue}\nrollout: {minHealthy: 1s}"))
        host.await_ready("web", "api")
        host.remove("api.yaml")
        eventually(lambda: not host.containers("api"))
        host.cli("journal", "verify")


def test_a_journal_verifies_until_a_byte_a_line_or_their_order_is_changed(host: Host) -> None:
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

    def judged(tamper: Callable[[Lines, int], Lines], at: int, code: int) -> dict[str, Any]:
        """Verify a copy in which line *at* (from 0) was tampered with."""
        copy = host.folder / "copy"
        shutil.copytree(folder, copy)
        (copy / segment.name).write_bytes(b"".join(tamper(lines, at)))
        key = ("--key", str(host.state / "journal.pub"))
        told = host.json("journal", "verify", str(copy), *key, expect=code)
        if at == middle:  # a text of each way
            said = host.cli("journal", "verify", str(copy), *key, expect=code).stdout
            place = f"{segment.name}, line {told['line']}"
            assert f"record {told['first_bad']} is bad ({place})" in said
        shutil.rmtree(copy)
        return dict(told)

    middle = len(lines) // 2
    for tamper, code in ((flipped, 10), (removed, 11), (swapped, 11)):
        for at in (0, middle):
            told = judged(tamper, at, code)
            assert (told["ok"], told["first_bad"], told["line"]) == (False, at + 1, at + 1), (
                tamper,
                at,
                told,
            )
    # The end, too: what the mark vouches for may not go missing.
    last = len(lines) - 1
    assert judged(flipped, last, 10)["first_bad"] == last + 1
    assert judged(removed, last, 14)["first_bad"] == last + 1

    changed_in_place(segment, middle)
    done = host.cli("journal", "verify", expect=10)
    assert f"record {middle + 1} is bad" in done.stdout


def changed_in_place(segment: Path, at: int) -> None:
    """Change a byte of line *at* where the journal lies."""
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(flipped(lines, at)))


def test_an_edited_inventory_gives_nobody_a_container(host: Host) -> None:
    """Somebody writes a container past the broker, an image and an approval into the snapshot."""
    host.write("web.yaml", web())
    with host.running():
        ours = host.running_ids("web")[0]
    run = ("run", "--detach", "--name", "foreigner", "trimtab.local/web:1")
    foreign = host.engine.docker(*run).stdout.strip()
    path = host.state / "broker" / "inventory.json"
    value = json.loads(path.read_bytes())
    inventory = value["inventory"]
    (item,) = (each for each in inventory["containers"] if each["id"] == ours)
    admitted = {**item["admitted"], "name": "foreigner"}
    inventory["containers"].append({**item, "id": foreign, "slot": 9, "admitted": admitted})
    inventory["ledger"].append({"reference": "evil:1", "id": "sha256:" + "66" * 32, "digest": ""})
    approval = {"plan": "cd" * 32, "objects": ["volume:data"], "time": "", "used": []}
    inventory["approvals"].append({"id": "019b7980-0000-7000-8000-000000000000", **approval})
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
