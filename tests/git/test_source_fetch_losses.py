"""Interruptions, losses and full mirrors: what a source then serves, and how it goes on."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import pytest

from controller.fetch.export import MemoryFile
from controller.fetch.mirror import GitLimits
from controller.model.errors import SourceError, StateError
from controller.model.sources import SourceState
from tests.git.repository import DOCUMENT, GOOD, NAME, World, git, replace_repository


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.served(tmp_path)


def test_a_crash_before_the_link_is_repaired(world: World) -> None:
    second = world.repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    world.source.fetch()
    link = world.source.exports / "current"
    link.unlink()
    link.symlink_to(world.first)
    world.source.memory = world.source.remembered()
    assert world.source.fetch() == "Ready"
    assert world.source.current == second


def test_a_lost_memory_is_taken_from_the_link(world: World) -> None:
    (world.source.folder / "state.json").unlink()
    world.source.memory = world.source.remembered()
    assert world.source.memory.status.state is SourceState.PENDING
    replace_repository(world)
    assert world.source.fetch() == "Held source.unrelated"
    assert world.source.current == world.first


def test_lost_exports_are_made_again(world: World) -> None:
    shutil.rmtree(world.source.exports)
    assert world.source.fetch() == "Ready"
    assert world.source.current == world.first


def test_a_lost_mirror_is_fetched_again(world: World) -> None:
    shutil.rmtree(world.source.folder / "mirror")
    second = world.repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    assert world.source.fetch() == "Ready"
    assert world.source.current == second


def test_a_mirror_lost_during_an_outage_is_fetched_again(world: World) -> None:
    shutil.rmtree(world.source.folder / "mirror")
    status = replace(world.source.memory.status, state=SourceState.FAILING)
    world.source.memory = replace(world.source.memory, status=status)
    assert world.source.fetch() == "Ready"


def test_a_lost_mirror_with_lost_exports_is_fetched_and_served_again(world: World) -> None:
    shutil.rmtree(world.source.folder / "mirror")
    shutil.rmtree(world.source.exports)
    assert world.source.fetch() == "Ready"
    assert world.source.current == world.first


def test_an_export_without_its_description_is_made_again(world: World) -> None:
    (world.source.exports / f"{world.first}.json").unlink()
    assert world.source.fetch() == "Ready"
    assert (world.source.exports / f"{world.first}.json").is_file()
    assert world.source.current == world.first


def test_an_interrupted_fetch_leaves_nothing(world: World) -> None:
    mirror = world.source.folder / "mirror" / "shop.git"
    before = {path.relative_to(mirror) for path in mirror.rglob("*")}
    (mirror / "quarantine" / "pack").mkdir(parents=True)
    (mirror / "quarantine" / "pack" / "tmp_pack_x").write_bytes(b"x")
    (mirror / "refs" / "trimtab" / "incoming").write_text("1" * 40)
    (mirror / "refs" / "trimtab" / "head.lock").write_text("")
    world.source.memory = replace(world.source.memory, tip="")
    assert world.source.fetch() == "Ready"
    assert {path.relative_to(mirror) for path in mirror.rglob("*")} == before


def test_a_fetch_beyond_its_bound_leaves_nothing(world: World) -> None:
    mirror = world.source.folder / "mirror" / "shop.git"
    before = {path.relative_to(mirror) for path in mirror.rglob("*")}
    world.repository.commit({**GOOD, "deploy/big.yaml": os.urandom(3_000_000)})
    world.source.limits = GitLimits(pack_max=1_000_000)
    assert world.source.fetch() == "Failing source.too-large"
    assert {path.relative_to(mirror) for path in mirror.rglob("*")} == before


def test_a_mirror_beyond_its_bound_is_refused(world: World) -> None:
    world.repository.commit({**GOOD, "deploy/big.yaml": os.urandom(3_000_000)})
    world.source.limits = GitLimits(mirror_max=1_000_000)
    assert world.source.fetch() == "Failing source.too-large"
    assert world.source.current == world.first


def rewrite(world: World, content: str | bytes) -> None:
    """Push a history that is held, and fetch it."""
    tree = world.repository.tree({**GOOD, "README.md": content})
    world.repository.commit_tree(tree, parents=())
    assert world.source.fetch() == "Held source.unrelated"


def packs_of(world: World) -> list[str]:
    folder = world.source.folder / "mirror" / "shop.git" / "objects" / "pack"
    return sorted(path.name for path in folder.iterdir())


def test_packs_of_held_commits_are_made_one(world: World) -> None:
    world.source.limits = GitLimits(packs_max=3)
    for number in range(9):
        rewrite(world, f"{number}")
    assert len([name for name in packs_of(world) if name.endswith(".pack")]) <= 5
    world.repository.push(world.first)
    assert world.source.fetch() == "Ready"


def test_held_commits_never_fill_the_mirror_for_good(world: World) -> None:
    world.source.limits = GitLimits(mirror_max=3_000_000)
    for _ in range(4):
        rewrite(world, os.urandom(1_000_000))
    world.repository.push(world.first)
    second = world.repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    assert world.source.fetch() == "Ready"
    assert world.source.current == second


def test_leftovers_of_an_interrupted_tidying_are_removed(world: World) -> None:
    before = packs_of(world)
    folder = world.source.folder / "mirror" / "shop.git" / "objects" / "pack"
    for name in ("tmp_pack_x", ".tmp-7-pack-x.pack", "pack-x.pack", "pack-x.rev"):
        (folder / name).write_bytes(b"x")
    world.source.memory = replace(world.source.memory, tip="")
    assert world.source.fetch() == "Ready"
    assert packs_of(world) == before


def test_a_mirror_that_cannot_be_tidied_is_no_failure(world: World) -> None:
    world.repository.commit({**GOOD, "deploy/big.yaml": os.urandom(2_000_000)})
    assert world.source.fetch() == "Ready"
    # No pack of all objects fits into the bound of a file.
    world.source.limits = GitLimits(packs_max=1, mirror_max=2_100_000, pack_max=1_000_000)
    world.repository.commit({**GOOD, "deploy/big.yaml": "a: 1\n"})
    assert world.source.fetch() == "Ready"
    before = packs_of(world)
    world.repository.commit({**GOOD, "deploy/big.yaml": "a: 2\n"})
    assert world.source.fetch() == "Ready"
    assert not [name for name in packs_of(world) if name.startswith((".tmp-", "tmp_"))], before


def test_the_packs_of_a_server_without_the_protocol_of_git_are_bounded(world: World) -> None:
    """The server has many packs, and makes the client wait for the last ones."""
    for _ in range(5):
        world.repository.commit({**GOOD, "README.md": os.urandom(100_000)})
        git(world.repository.folder, "repack", "-d", "-q")
    git(world.repository.folder, "update-server-info")
    is_over, sent = threading.Event(), count()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith(".pack") and next(sent) >= 3:
                is_over.wait(60.0)
            super().do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - of the base class
            """Log nothing."""

    handler = partial(Handler, directory=str(world.repository.folder.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        world.source.url = f"http://127.0.0.1:{server.server_port}/deploy.git"
        world.source.git = ', "allowInsecureLoopback": true'
        world.source.limits = GitLimits(mirror_max=200_000)
        assert world.source.fetch() == "Failing source.too-large"
        is_over.set()
        server.shutdown()
    assert world.source.current == world.first


def test_the_link_never_moves_back_after_a_memory_that_was_not_saved(world: World) -> None:
    source, state = world.source, world.source.folder / "state.json"
    file = MemoryFile(source.folder)
    file.load()

    def run() -> None:
        memory = file.get(NAME)
        assert memory is not None
        source.source().run(
            source.spec, memory, save=lambda new: file.change(NAME, lambda _: new, new=new)
        )

    second = world.repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    saved = state.read_bytes()
    state.unlink()
    state.mkdir()  # nothing can be written in its place
    with pytest.raises(StateError):
        run()
    assert source.current == world.first
    state.rmdir()
    state.write_bytes(saved)
    world.repository.folder.rename(world.repository.folder.with_name("away"))
    with pytest.raises(SourceError):
        run()
    assert source.current == second
    source.source().restore(source.remembered())  # as after a restart
    assert source.current == second
