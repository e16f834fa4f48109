"""Rows of lists: whole up to a size an owner, then shortened, and few members for the controller."""

from __future__ import annotations

import json
from typing import Any

from controller.broker.engine.response import LIST_BYTES_MAX
from controller.broker.guards.lists import SHORTENED_HEADER, WHOLE_BYTES, ListRows, shorten
from controller.model.records import Reply
from tests.unit.broker.dialogue import ALICE, CONTROLLER, OPERATOR

LABELS = {
    "io.trimtab.owner": "alice",
    "com.docker.compose.project": "shop",
    **{f"pad{n}": "x" * 4000 for n in range(4)},
}


def container(**more: Any) -> dict[str, Any]:
    """Return a row as large as clients can make one."""
    return {
        "Id": "c" * 64,
        "Names": ["/alice-web"],
        "Command": "y" * 60_000,
        "State": "running",
        "Labels": LABELS,
        "Ports": [{"PrivatePort": n} for n in range(64)],
        "Mounts": [{"Source": "/srv/" + "m" * 4000, "Destination": "/d"} for _ in range(64)],
        "NetworkSettings": {"Networks": {"net": {"IPAddress": "172.30.0.2"}}},
        **more,
    }


def test_rows_are_whole_until_their_owner_has_had_its_share() -> None:
    rows = ListRows(OPERATOR)
    row = container()
    size = len(json.dumps(row))
    whole = WHOLE_BYTES // size
    encoded = [json.loads(rows.encode(row, "alice")) for _ in range(whole + 2)]
    assert encoded[:whole] == [row] * whole
    # Another owner's rows are whole all the same.
    assert json.loads(rows.encode(row, "bob")) == row
    short = encoded[-1]
    assert (short["Id"], short["State"]) == (row["Id"], "running")
    assert short["Labels"] == {k: v for k, v in LABELS.items() if not k.startswith("pad")}
    assert short["NetworkSettings"] == row["NetworkSettings"]
    assert len(json.dumps(short)) < 8_000
    assert rows.finish(Reply(200)).headers == ((SHORTENED_HEADER, "2"),)


def test_a_shortened_row_keeps_the_labels_of_compose_and_trimtab() -> None:
    labels = {
        **{f"com.docker.compose.x{n}": "y" * 373 for n in range(20)},
        **{f"io.trimtab.x{n}": "z" for n in range(8)},
    }
    assert shorten(container(Labels=labels))["Labels"] == labels
    long = shorten(container(Labels={"com.docker.compose.x": "y" * 60_000}))
    assert len(long["Labels"]["com.docker.compose.x"]) == 4096


def test_no_objects_make_a_list_too_long() -> None:
    rows = ListRows(OPERATOR)
    nasty = container(Labels={f"com.docker.compose.x{n}": "y" * 4000 for n in range(250)})
    size = sum(len(rows.encode(nasty, f"owner{n}")) for n in range(5_000))
    assert size < LIST_BYTES_MAX
    last = json.loads(rows.encode(container(), "late"))
    assert (last["Id"], last["Labels"]) == ("c" * 64, {})


def test_half_a_surrogate_pair_costs_its_character() -> None:
    assert json.loads(ListRows(OPERATOR).encode({"Id": "a\ud800"}, "alice")) == {"Id": "a?"}


def test_a_short_list_is_whole_and_says_nothing() -> None:
    rows = ListRows(ALICE)
    assert json.loads(rows.encode(container(), "alice")) == container()
    assert rows.finish(Reply(200)).headers == ()


def test_the_controller_gets_what_it_reads_of_each_row() -> None:
    rows = ListRows(CONTROLLER)
    read = {"io.trimtab.namespace": "shop", "io.trimtab.service": "web", "io.trimtab.slot": "1"}
    made = container(Image="sha256:1", Created=1, Labels={**LABELS, **read})
    row = json.loads(rows.encode(made, "alice"))
    assert row == {
        "Id": "c" * 64,
        "Names": ["/alice-web"],
        "State": "running",
        "Labels": read,
        "NetworkSettings": {"Networks": {"net": None}},
    }
    volume = {"Name": "v", "Driver": "local", "Options": None, "Labels": {"pad": "x" * 16_000}}
    assert json.loads(rows.encode(volume, "alice")) == {**volume, "Labels": {}}
