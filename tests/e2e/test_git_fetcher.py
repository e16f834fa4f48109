"""A Source in DIR: the fetcher runs as a process of its own, and a pushed commit becomes desired."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from tests.instance import Host, eventually
from tests.unit.fetch.repository import Repository

SOURCE = """\
apiVersion: trimtab/v1
kind: Source
metadata: {{name: shop, owner: team}}
spec:
  git: {{url: "{url}", path: deploy, interval: 10s}}
  namespaces: [shop]
"""
VOLUME = """\
apiVersion: trimtab/v1
kind: Volume
metadata: {{name: {name}, namespace: shop, owner: team}}
spec: {{}}
"""


def fetchers(host: Host) -> list[Path]:
    """Return the /proc folders of the instance's fetchers."""
    return [
        path
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and _is_fetcher(path, host.state)
    ]


def _is_fetcher(path: Path, state: Path) -> bool:
    try:
        words = (path / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"fetch" in words and str(state).encode() in words


def test_a_source_is_fetched_while_dir_declares_it(host: Host) -> None:
    repository = Repository(host.folder / "shop.git")
    repository.commit({"deploy/data.yaml": VOLUME.format(name="data")})
    host.up()
    try:
        eventually(lambda: host.status() is not None)
        assert fetchers(host) == []
        host.write("shop.yaml", SOURCE.format(url=repository.url))
        eventually(lambda: host.is_ready("data", namespace="shop"))
        (process,) = fetchers(host)
        if os.getuid() == 0:
            assert process.stat().st_uid == pwd.getpwnam("trimtab-fetch").pw_uid
        second = repository.commit(
            {f"deploy/{name}.yaml": VOLUME.format(name=name) for name in ("data", "more")}
        )
        synced = host.json("source", "sync", "shop")
        assert synced["source"]["current"]["commit"] == second
        eventually(lambda: host.is_ready("more", namespace="shop"))
        (listed,) = host.json("source", "list")["sources"]
        assert (listed["state"], listed["current"]["commit"]) == ("Ready", second)
        host.remove("shop.yaml")
        eventually(lambda: fetchers(host) == [])
        assert not (host.state / "run" / "fetch.sock").exists()
        assert (host.state / "fetcher" / "sources" / "shop" / "current").is_symlink()
    finally:
        host.stop()
