"""Inputs that could cost somebody a host: no healthy container and no volume is lost by any.

One instance lives through all of them, one after the other. Each must be noticed and told; while
it lasts nothing may go, nor be planned to; and when it is over, everything is as it was, the very
containers included.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from controller.cli.clients.socket_client import ask_controller
from tests.instance import LABEL, Host, eventually, has, web
from tools import dockerd

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

OWNERS = "owners: [{name: team, namespaces: [default]}]\n"
NAMES = ("a", "b", "c", "d", "e", "f")
TRAITS = "init: true\nstopGracePeriod: 1s\n"
DB = TRAITS + "mounts: [{type: volume, source: data, target: /data}]\n"
RELEASE = """\
apiVersion: trimtab/v1
kind: Release
metadata: {name: chart, owner: team}
spec: {chart: small}
"""
CHART = {
    "Chart.yaml": "apiVersion: trimtab/v1\nname: small\nversion: 1.0.0\ndescription: one service\n",
    "values.yaml": "{}\n",
    "values.schema.json": '{"type": "object"}\n',
    "templates/one.yaml": web("charted", extra=TRAITS).replace(", owner: team", ""),
}
BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
#: What may follow what the controller does to containers that are to stay.
TAKING = {"stop-container", "remove-container", "disconnect-network"}


class Ground:
    """The instance, and the folder that DIR leads to: by a link, and a mount where root runs it.

    ``texts`` are the files as they should be.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.source = host.folder / "source"
        self.tree = host.folder / "tree"
        self.link = host.directory
        self.mounts = os.geteuid() == 0
        self.texts = {f"{name}.yaml": web(name, extra=TRAITS) for name in NAMES}
        self.texts |= {"db.yaml": web("db", extra=DB), "chart.yaml": RELEASE}
        self.link.rmdir()
        self.source.mkdir()
        self.tree.mkdir()
        if self.mounts:
            # Shared, as systemd makes all mounts: a controller that has its own view of them (its
            # checkout lies in a folder closed to its user) is told of those that come and go.
            subprocess.run(["mount", "--bind", host.folder, host.folder], check=True)
            subprocess.run(["mount", "--make-shared", host.folder], check=True)
            subprocess.run(["mount", "--bind", self.source, self.tree], check=True)
        self.link.symlink_to(self.tree if self.mounts else self.source)
        for name, text in CHART.items():
            path = host.folder / "configs" / "small" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("init", "--quiet", "--initial-branch=main")
        self.restore()
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "all of it")
        own = Path(host.policy).read_text() + OWNERS
        (host.folder / "policy.yaml").write_text(own)
        host.policy = str(host.folder / "policy.yaml")
        self.before: set[str] = set()

    def git(self, *argv: str) -> None:
        """Run Git in the folder, as somebody with a name."""
        who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        subprocess.run(["git", *who, *argv], cwd=self.source, check=True, capture_output=True)

    def put(self, name: str, content: str | bytes) -> None:
        """Write a file in one move."""
        data = content.encode() if isinstance(content, str) else content
        temporary = self.source / f".{name}.new"
        temporary.write_bytes(data)
        temporary.rename(self.source / name)

    def restore(self) -> None:
        """Have the files as they should be, and no others."""
        for path in self.source.iterdir():
            if path.name in self.texts and path.is_file() and not path.is_symlink():
                path.chmod(0o644)
            elif path.name != ".git":
                path.unlink()
        for name, text in self.texts.items():
            path = self.source / name
            if not path.exists() or path.read_bytes() != text.encode():
                self.put(name, text)

    def running(self) -> set[str]:
        """Return the ids of the instance's containers that run."""
        mine = quote(json.dumps({"label": [f"{LABEL}.instance={self.host.instance}"]}))
        return {each["Id"] for each in self.engine_has(f"/containers/json?filters={mine}")}

    def engine_has(self, path: str) -> Any:
        """Ask the engine itself, without starting a command: each input does so four times."""
        _, body = dockerd.call(self.host.engine.host, "GET", path)
        return json.loads(body)

    def codes(self) -> set[str]:
        """Return the codes of all problems, and the reasons of conditions that hold."""
        status = self.host.status() or {"problems": [], "resources": []}
        conditions = [c for r in status["resources"] for c in r["conditions"]]
        reasons = {c["reason"] for c in conditions if c["status"] == "True"}
        return {problem["code"] for problem in status["problems"]} | reasons

    def well(self) -> bool:
        """Tell whether all is as it was, and nothing told any more."""
        status = self.host.status()
        if status is None or status["problems"]:
            return False
        there = {r["name"] for r in status["resources"] if has(r, "Ready")}
        everything = {r["name"] for r in status["resources"]}
        return there == everything >= {*NAMES, "db", "charted"}

    def look(self) -> None:
        """Have the controller look at everything, where nothing hints that it should."""
        self.ask({"do": "pass", "timeout_s": 1})

    def ask(self, question: dict[str, object]) -> dict[str, Any]:
        """Ask the running controller."""
        return dict(ask_controller(self.host.state / "run" / "controller.sock", question))

    def nothing_goes(self) -> None:
        """Check that what ran runs, and that no plan says otherwise."""
        planned = self.ask({"do": "plan"})["plan"]["actions"]
        taking = [
            a for a in planned if a["action"] in TAKING and a["precondition"]["id"] in self.before
        ]
        assert not taking, taking
        assert self.before <= self.running()
        assert "data" in {each["Name"] for each in self.engine_has("/volumes")["Volumes"]}

    def data(self) -> str:
        """Return what is in the volume."""
        (db,) = self.host.running_ids("db")
        return self.host.engine.docker("exec", db, "cat", "/data/precious").stdout


@pytest.fixture(scope="module")
def ground(engine: PrivateEngine | FoundEngine) -> Iterator[Ground]:
    """An instance with eight services that run, one of them with data."""
    host = Host(engine)
    ground = Ground(host)
    host.up()
    try:
        host.await_ready(*NAMES, "db", "charted")
        ground.before = ground.running()
        assert len(ground.before) == 8
        (db,) = host.running_ids("db")
        engine.docker("exec", "--user", "0", db, "sh", "-c", "echo precious > /data/precious")
        yield ground
        assert "Traceback" not in host.said()
    finally:
        host.stop()
        if ground.mounts:
            subprocess.run(["umount", "-l", ground.tree], check=False)
            subprocess.run(["umount", "-l", host.folder], check=False)
        host.close()


Change = Callable[[Ground], AbstractContextManager[None]]


# What becomes of the files


def each(change: Callable[[str], str | bytes | None]) -> Change:
    """Rewrite every file; None removes it."""

    @contextlib.contextmanager
    def changed(ground: Ground) -> Iterator[None]:
        for name, text in ground.texts.items():
            content = change(text)
            if content is None:
                (ground.source / name).unlink()
            else:
                ground.put(name, content)
        yield

    return changed


def every(change: Callable[[Path], object]) -> Change:
    """Do something to the path of every file."""

    @contextlib.contextmanager
    def changed(ground: Ground) -> Iterator[None]:
        for name in ground.texts:
            change(ground.source / name)
        yield

    return changed


def service(change: Callable[[str], str]) -> Change:
    """Rewrite every file that declares a Service."""
    return each(lambda text: change(text) if "kind: Service" in text else text)


def relink(target: Callable[[Path], Path | str]) -> Change:
    """Put a link in the place of every file."""

    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to(target(path))

    return every(link)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@contextlib.contextmanager
def half_deleted(ground: Ground) -> Iterator[None]:
    for name in ("a", "b", "c", "d"):
        (ground.source / f"{name}.yaml").unlink()
    yield


@contextlib.contextmanager
def in_a_circle(ground: Ground) -> Iterator[None]:
    for name, other in zip(NAMES, [*NAMES[1:], NAMES[0]], strict=True):
        text = ground.texts[f"{name}.yaml"].rstrip()
        ground.put(f"{name}.yaml", f"{text}\n  dependsOn: [{{name: {other}}}]\n")
    yield


@contextlib.contextmanager
def wrong_branch(ground: Ground) -> Iterator[None]:
    ground.git("checkout", "--quiet", "--orphan", "wrong")
    ground.git("rm", "--quiet", "-r", "--force", ".")
    (ground.source / "README.md").write_text("nothing to see\n")
    ground.git("add", ".")
    ground.git("commit", "--quiet", "--message", "another world")
    yield
    ground.git("checkout", "--quiet", "main")


# What becomes of the directory


@contextlib.contextmanager
def gone(ground: Ground) -> Iterator[None]:
    aside = ground.link.rename(ground.host.folder / "aside")
    try:
        yield
    finally:
        aside.rename(ground.link)


@contextlib.contextmanager
def replaced_by_a_file(ground: Ground) -> Iterator[None]:
    with gone(ground):
        ground.link.write_text(web("other"))
        try:
            yield
        finally:
            ground.link.unlink()


@contextlib.contextmanager
def led_elsewhere(ground: Ground) -> Iterator[None]:
    empty = ground.host.folder / "empty"
    empty.mkdir(exist_ok=True)
    swap(ground.link, empty)
    try:
        yield
    finally:
        swap(ground.link, ground.tree if ground.mounts else ground.source)


def swap(link: Path, target: Path) -> None:
    """Have a link lead elsewhere, in one move."""
    new = link.with_name(".link.new")
    new.symlink_to(target)
    new.rename(link)


@contextlib.contextmanager
def closed(ground: Ground) -> Iterator[None]:
    ground.source.chmod(0o000)
    try:
        yield
    finally:
        ground.source.chmod(0o755)


@contextlib.contextmanager
def unmounted(ground: Ground) -> Iterator[None]:
    subprocess.run(["umount", "-l", ground.tree], check=True)
    ground.look()  # the kernel tells nobody of it
    try:
        yield
    finally:
        subprocess.run(["mount", "--bind", ground.source, ground.tree], check=True)
        ground.look()


@contextlib.contextmanager
def mounted_over(ground: Ground) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", ground.tree], check=True)
    ground.look()
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", ground.tree], check=True)
        ground.look()


# What becomes of the charts


@contextlib.contextmanager
def chart_deleted(ground: Ground) -> Iterator[None]:
    chart = ground.host.folder / "configs" / "small"
    aside = chart.rename(ground.host.folder / "chart-aside")
    try:
        yield
    finally:
        aside.rename(chart)


@contextlib.contextmanager
def template_broken(ground: Ground) -> Iterator[None]:
    template = ground.host.folder / "configs" / "small" / "templates" / "one.yaml"
    template.write_text("{% if %}\n")
    try:
        yield
    finally:
        template.write_text(CHART["templates/one.yaml"])


@dataclass(frozen=True, slots=True)
class Row:
    """One input, and a code that tells of it."""

    name: str
    change: Change
    told: str
    root: bool = False


ROWS = (
    Row("all files deleted", each(lambda _text: None), "PrunePending"),
    Row("half of the files deleted", half_deleted, "PrunePending"),
    Row("all files renamed", every(lambda p: p.rename(p.with_suffix(".bak"))), "PrunePending"),
    Row("another branch checked out", wrong_branch, "PrunePending"),
    Row("only comments left", each(lambda t: t.replace("\n", "\n# ").join(("# ", "\n"))), "PrunePending"),
    Row("files cut short", each(lambda text: text[: text.index("owner") + 3]), "yaml.syntax"),
    Row("files emptied", each(lambda _text: ""), "PrunePending"),
    Row("marks of a merge conflict", each(lambda t: f"<<<<<<< ours\n{t}=======\n{t}>>>>>>> theirs\n"), "yaml.syntax"),
    Row("binary garbage", each(lambda _text: bytes(range(256)) * 64), "yaml.character"),
    Row("nothing but zeros", each(lambda text: b"\0" * len(text)), "yaml.character"),
    Row("huge files", each(lambda text: text + "#" * (2 << 20)), "file.too-big"),
    Row("UTF-16", each(lambda text: text.encode("utf-16")), "yaml.character"),
    Row("tabs", each(lambda text: text.replace("  ", "\t")), "yaml.syntax"),
    Row("a bomb of aliases", each(lambda _text: BOMB), "yaml.limit"),
    Row("another apiVersion everywhere", each(lambda t: t.replace("trimtab/v1", "trimtab/v2")), "field.value"),
    Row("another kind everywhere", each(lambda t: t.replace("kind: ", "kind: My")), "kind.unknown"),
    Row("another namespace everywhere", each(lambda t: t.replace("owner:", "namespace: lab, owner:")), "PrunePending"),
    Row("another owner everywhere", each(lambda t: t.replace("owner: team", "owner: rival")), "owner.unknown"),
    Row("a misspelt field everywhere", service(lambda t: t.replace("image:", "imgae:")), "field.unknown"),
    Row("an image that isn't there", service(lambda t: t.replace("web:1", "wbe:1\n  pullPolicy: Never")), "image.absent"),
    Row("all scaled to nothing", service(lambda t: t.replace("replicas: 1", "replicas: 0")), "PrunePending"),
    Row("all declared stopped", service(lambda t: t.replace("replicas: 1", "state: Stopped")), "PrunePending"),
    Row("all in a circle", in_a_circle, "dependency.cycle"),
    Row("every document twice", every(lambda p: shutil.copy(p, p.with_name(f"copy-of-{p.name}"))), "document.duplicate"),
    Row("files that nobody may read", every(lambda path: path.chmod(0o000)), "file.unreadable"),
    Row("dangling links", relink(lambda _path: "nowhere"), "file.unreadable"),
    Row("links to themselves", relink(lambda path: path.name), "file.unreadable"),
    Row("links that lead outside", relink(lambda _path: "/etc/hostname"), "file.outside"),
    Row("pipes", every(pipe), "file.special"),
    Row("the directory is gone", gone, "source.missing"),
    Row("the directory is a file", replaced_by_a_file, "source.missing"),
    Row("the directory may not be read", closed, "file.unreadable"),
    Row("the directory leads elsewhere", led_elsewhere, "PrunePending"),
    Row("the directory is unmounted", unmounted, "PrunePending", root=True),
    Row("the directory is mounted over", mounted_over, "PrunePending", root=True),
    Row("the chart is deleted", chart_deleted, "chart.unusable"),
    Row("the chart's template is broken", template_broken, "chart.template"),
)  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [pytest.param(r, id=r.name, marks=[pytest.mark.needs_root] * r.root) for r in ROWS],
)
def test_whatever_is_put_into_the_directory_costs_nothing(ground: Ground, row: Row) -> None:
    try:
        with row.change(ground):
            eventually(lambda: row.told in ground.codes(), what=f"{row.told} is told")
            ground.nothing_goes()
    finally:
        ground.restore()
    eventually(ground.well, what="all is well again")
    ground.nothing_goes()


# What becomes of the state folder


def far_off(state: dict[str, Any]) -> dict[str, Any]:
    """Return a memory that was written while the clock was years ahead."""
    ahead = 2_100_000_000.0  # of 2036
    slots = [[key, slot, _failing(ahead), mark] for key, slot, _, mark in state["slots"]]
    passed = [[key, ahead] for key, *_ in state["slots"]]
    prune = {**state["prune"], "passed": passed, "settling_since": ahead}
    return {**state, "slots": slots, "prune": prune}


def _failing(ahead: float) -> dict[str, object]:
    return {"count": 3, "recent": [ahead] * 3}


def another(state: dict[str, Any]) -> dict[str, Any]:
    """The memory of an instance in which nothing has the same name or generation."""
    text = json.dumps(state).replace("Service/default/", "Service/elsewhere/")
    return dict(json.loads(text))


MEMORIES: dict[str, Callable[[Path], object]] = {
    "garbled": lambda path: path.write_bytes(os.urandom(4096)),
    "of a clock that was ahead": lambda p: p.write_text(json.dumps(far_off(json.loads(p.read_text())))),
    "of another instance": lambda p: p.write_text(json.dumps(another(json.loads(p.read_text())))),
}  # fmt: skip


@pytest.mark.parametrize("memory", MEMORIES)
def test_whatever_becomes_of_the_memory_costs_nothing(ground: Ground, memory: str) -> None:
    ground.host.stop()
    found = [*(ground.host.state / "broker").glob("index.sqlite*")]
    assert found, "the journal has an index"
    MEMORIES[memory](ground.host.state / "controller" / "state.json")
    for path in found:
        path.write_bytes(b"no index")
    ground.host.up()
    if memory == "garbled":
        eventually(lambda: "state.damaged" in ground.codes())
    else:
        eventually(ground.well, what="all is well again")
    ground.nothing_goes()


def test_a_second_controller_on_one_folder_costs_nothing(ground: Ground) -> None:
    second = ground.host.second()
    second.up()
    assert second.process is not None
    assert second.process.wait(timeout=60) == 1
    assert "[state.served]" in second.said()
    ground.nothing_goes()


def test_labels_on_a_foreign_container_cost_neither_it_nor_ours(ground: Ground) -> None:
    docker = ground.host.engine.docker
    (mine,) = ground.host.containers("a")
    labels = [f"--label={name}={value}" for name, value in mine["Config"]["Labels"].items()]
    argv = ["run", "-d", "--init", *labels, "--network", "none", "trimtab.local/worker:1"]
    foreign = docker(*argv).stdout.strip()
    try:
        told = ground.host.json("doctor", expect=(0, 1))
        assert any(foreign[:12] in finding["message"] for finding in told), told
        ground.look()
        ground.nothing_goes()
        assert foreign in ground.running()
    finally:
        docker("rm", "-f", foreign)


def test_after_all_that_the_data_is_there_and_the_containers_are_the_same(ground: Ground) -> None:
    eventually(ground.well)
    assert ground.running() == ground.before
    assert ground.data() == "precious\n"
