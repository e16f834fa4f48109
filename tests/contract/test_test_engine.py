"""The tests' own engine keeps its promises: apart from the machine's, and gone afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import engine as engines
from tools import dockerd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine import FoundEngine, PrivateEngine

WEB = "trimtab.local/web:1"


@pytest.fixture
def web(engine: PrivateEngine | FoundEngine) -> Iterator[str]:
    container = engine.docker(
        "run", "--detach", "--publish", "127.0.0.1::8080", "--env", "MESSAGE=moin", WEB
    ).stdout.strip()
    yield container
    engine.docker("rm", "--force", container)


def published_port(engine: PrivateEngine | FoundEngine, container: str) -> int:
    return int(engine.docker("port", container, "8080/tcp").stdout.rpartition(":")[2])


def test_a_published_port_answers_inside_the_engines_network(
    engine: PrivateEngine | FoundEngine, web: str
) -> None:
    port = published_port(engine, web)
    assert dockerd.wait_until(lambda: "healthy" == health(engine, web), 10)

    assert "Hello from trimtab.local/web:1" in engine.http_get(port).text
    assert "message moin" in engine.http_get(port, path="/cgi-bin/info").text
    assert engine.http_get(port, path="/nothing").status == 404


def health(engine: PrivateEngine | FoundEngine, container: str) -> str:
    found = engine.docker("inspect", "--format={{.State.Health.Status}}", container)
    return found.stdout.strip()


def test_the_demo_images_are_the_same_at_each_build(engine: PrivateEngine | FoundEngine) -> None:
    first = ids(engine)
    engine.docker("rmi", "--force", "trimtab.local/web:2")
    subprocess.run(
        [sys.executable, "tools/images", "--quiet", "--host", engine.host], check=True, timeout=30
    )
    assert ids(engine) == first


def ids(engine: PrivateEngine | FoundEngine) -> list[str]:
    listed = engine.docker("images", "--no-trunc", "--format=json", "trimtab.local/*").stdout
    return sorted(
        f"{image['Repository']}:{image['Tag']} {image['ID']}"
        for image in map(json.loads, listed.splitlines())
    )


@pytest.mark.owns_engine
def test_the_engine_is_apart_from_the_machines(engine: PrivateEngine) -> None:
    assert dockerd.network_namespace(engine.pid) != dockerd.network_namespace("self")
    assert engine.socket != dockerd.STANDARD_SOCKET


@pytest.mark.owns_engine
def test_a_killed_engine_starts_again_on_the_same_data(engine: PrivateEngine) -> None:
    container = engine.docker("run", "--detach", "--restart=always", WEB).stdout.strip()
    engine.kill()
    assert not engine.answers()
    # By the time of a restart the pid may be anybody's: dockerd alone would refuse to start.
    engine.layout.pidfile.write_text(f"{os.getpid()}\n")
    engine.start()
    assert dockerd.wait_until(lambda: is_running(engine, container), 10)
    engine.restart()
    assert dockerd.wait_until(lambda: is_running(engine, container), 10)
    engine.docker("rm", "--force", container)


def is_running(engine: PrivateEngine, container: str) -> bool:
    found = engine.docker("inspect", "--format={{.State.Running}}", container)
    return found.stdout.strip() == "true"


@pytest.mark.owns_engine
def test_a_closed_engine_leaves_nothing() -> None:
    opened = engines.PrivateEngine()
    folder, name = opened.socket.parent, opened.netns
    opened.docker("run", "--detach", "--publish", "127.0.0.1:8099:8080", WEB)
    paused = opened.docker("run", "--detach", WEB).stdout.strip()
    opened.docker("pause", paused)
    with ThreadPoolExecutor(1) as pool:
        # While another run looks for leftovers, the folder keeps the lock that tells whose it is.
        with engines.turn():
            closing = pool.submit(opened.close)
            assert dockerd.wait_until(lambda: traces(folder, name) == [str(folder)], 60)
            assert (folder / "lock").exists()
        closing.result(timeout=60)
    assert traces(folder, name) == []


@pytest.mark.owns_engine
def test_what_a_killed_run_left_is_cleared_by_the_next() -> None:
    # A run of its own that leaves a container running and dies without a word.
    script = f"""
import os, signal
from tests.engine import PrivateEngine
opened = PrivateEngine()
opened.docker("run", "--detach", "--publish", "127.0.0.1:8099:8080", "{WEB}")
paused = opened.docker("run", "--detach", "{WEB}").stdout.strip()
opened.docker("pause", paused)
print(opened.socket.parent, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    dead = subprocess.run(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    folder = Path(dead.stdout.strip())
    assert traces(folder, folder.name), "the killed run left nothing, so this proves nothing"

    engines.clear_leftovers()

    assert traces(folder, folder.name) == []


def traces(folder: Path, name: str) -> list[str]:
    """Whatever of a private engine is still on the machine."""
    places = [folder, Path("/run/netns", name), *Path("/sys/fs/cgroup").glob(f"**/{name}")]
    processes = [
        f"process {pid}: {line}"
        for pid in dockerd.all_pids()
        if pid != os.getpid() and name in (line := " ".join(dockerd.command_line(pid)))
    ]
    return [
        *(str(place) for place in places if place.exists()),
        *(f"mount {point}" for point in dockerd.mounts_below(folder)),
        *processes,
    ]
