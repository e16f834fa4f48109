"""``stats``: the table, the choice of containers, and what is shown without figures or without a controller."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.cli.commands import stats as module
from controller.cli.commands.stats import table_of
from controller.cli.main import main
from controller.loop.control_api import ControlApi
from controller.loop.workqueue import PassLock
from controller.model.observed import ContainerUse
from tests.unit.cli.answering import DIR, answering
from tests.unit.loop.toy import House
from tests.worlds import container, engine, network, service


class Kernel:
    """What the kernel counts: a second of a processor at each look, over two seconds of the clock."""

    def __init__(self) -> None:
        self.looks = 0
        self.house: House | None = None

    def __call__(self, ids: Collection[str]) -> Mapping[str, ContainerUse]:
        self.looks += 1
        assert self.house is not None
        self.house.watch.time += 2.0
        return {each: ContainerUse(float(self.looks), 64 << 20, 3) for each in ids}


@pytest.fixture
def house(tmp_path: Path) -> House:
    kernel = Kernel()
    made = House(tmp_path, read_use=kernel)
    kernel.house = made
    made.engine.world = engine(
        container(), container(slot=2, restart_count=4), container(namespace="shop")
    )
    made.declare(service(replicas=2), service(namespace="shop"), network("other"))
    made.let_pass(120)
    return made


@pytest.fixture
def root(house: House) -> Iterator[Path]:
    trusted = frozenset({os.getuid()})
    stopped = threading.Event()
    with answering(
        ControlApi(house.controller, PassLock(), stopped, directory=DIR, trusted=trusted)
    ) as root:
        yield root


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the toy moves by itself."""
    monkeypatch.setattr(module, "MEASURED_S", 0.0)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_services_have_a_row_and_their_replicas_if_there_are_several(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("top", "--no-stream", "--state", str(root)) == 0
    out, err = capsys.readouterr()
    assert out == (
        "NAME       CPU %   MEMORY / LIMIT   MEM %   PIDS   RESTARTS\n"
        "web        100.0   128MiB / 1GiB    12.5    6      4\n"
        "  web.1    50.0    64MiB / 512MiB   12.5    3      0\n"
        "  web.2    50.0    64MiB / 512MiB   12.5    3      4\n"
        "shop/web   50.0    64MiB / 512MiB   12.5    3      0\n"
    )
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (("web",), ["web.1", "web.2", "web.1"]),
        (("web.2",), ["web.2"]),
        (("shop/web",), ["web.1"]),
        (("-n", "default"), ["web.1", "web.2"]),
        (("-n", "shop", "web"), ["web.1"]),
    ],
)
def test_names_and_namespaces_choose(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    chosen: list[str],
) -> None:
    assert run("stats", *arguments, "--no-stream", "--json", "--state", str(root)) == 0
    rows = json.loads(capsys.readouterr().out)["containers"]
    assert [f"{row['key'].split('/')[2]}.{row['slot']}" for row in rows] == chosen
    assert all(row["cpus"] == 0.5 for row in rows), "measured between two looks"


def test_a_name_without_a_running_container_is_an_error(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("stats", "--no-stream", "web", "wbe", "--state", str(root)) == 1
    assert "there is no running container of wbe [container.unknown]" in capsys.readouterr().err


def test_containers_elsewhere_have_no_figures_and_the_command_says_so(
    root: Path, house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.controller.sampler._read = lambda _ids: {}
    assert run("stats", "shop/web", "--no-stream", "--state", str(root)) == 0
    out, err = capsys.readouterr()
    assert out.split("\n")[1] == "shop/web   -       - / 512MiB       -       -      0"
    assert err.startswith("no figures: the containers have no folders in /sys/fs/cgroup")


def test_a_stream_goes_on_until_it_is_interrupted(
    root: Path, house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFRESH_S", 0.0)
    read, looks = house.controller.sampler._read, []

    def interrupting(ids: Collection[str]) -> Mapping[str, ContainerUse]:
        looks.append(ids)
        if len(looks) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(ids)

    house.controller.sampler._read = interrupting
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH)}
    try:
        assert run("stats", "--json", "--state", str(root)) == 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) >= 3
    assert [line["containers"][0]["cpus"] for line in lines[:2]] == [None, 0.5]


def test_nothing_that_runs_is_an_error_of_one_look(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for socket in (root / "run").rglob("*.sock"):
        socket.unlink()
    assert run("stats", "--no-stream", "--state", str(root)) == 1
    assert "[nothing.running]" in capsys.readouterr().err


ROW: dict[str, Any] = {
    "key": "Service/default/web",
    "slot": 1,
    "container": "web.1-bbbbbbbb",
    "cpus": 0.1,
    "memoryBytes": 1536,
    "memoryLimitBytes": None,
    "pids": 1,
    "restarts": 0,
}


def test_the_largest_use_comes_first_on_request() -> None:
    rows = [
        {**ROW, "key": "Service/default/a", "memoryBytes": 9 << 30},
        {**ROW, "key": "Service/default/b", "cpus": 2.0},
    ]

    def order(sort: str) -> list[str]:
        return [line.split()[0] for line in table_of(rows, sort, width=None).split("\n")[1:]]

    assert order("name") == order("memory") == ["a", "b"]
    assert order("cpu") == ["b", "a"]


@pytest.mark.parametrize("name", ["n" * 27, "\x1b[2J"])
def test_a_table_fits_80_columns(name: str) -> None:
    rows = [
        {
            **ROW,
            "key": f"Service/{'s' * 20}/{name}",
            "slot": slot,
            "container": name,
            "cpus": 127.999,
            "memoryBytes": 999 << 30,
            "memoryLimitBytes": 999 << 30,
            "pids": 32768,
            "restarts": 12345,
        }
        for slot in (1, 2)
    ]
    lines = table_of(rows, "name", width=80).split("\n")
    assert len(lines) == 4 and all(len(line) <= 80 for line in lines), lines
    assert "\x1b" not in "".join(lines)


def test_no_containers_are_said_in_words() -> None:
    assert table_of([], "name", width=80) == "No running containers."
