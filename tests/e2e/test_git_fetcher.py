"""A Source in DIR: the fetcher runs as a process of its own, and a pushed commit becomes desired."""

from __future__ import annotations

import hmac
import os
import pwd
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.fetch.webhook import SECRETS
from tests.git.repository import Repository
from tests.instance import Host, eventually

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
        host.cli("source", "hold", "shop", "--note", "a look by hand")
        (record,) = [
            r for r in host.records() if r.get("request", {}).get("object") == "Source/default/shop"
        ]
        assert record["request"]["summary"]["act"] == "source.hold"
        assert record["request"]["summary"]["note"] == "a look by hand"
        assert "source.hold" in host.cli("journal", "list").stdout
        host.cli("source", "resume", "shop")
        host.remove("shop.yaml")
        eventually(lambda: fetchers(host) == [])
        # The socket is removed after the process was seen to end.
        eventually(lambda: not (host.state / "run" / "fetch.sock").exists())
        assert (host.state / "fetcher" / "sources" / "shop" / "current").is_symlink()
    finally:
        host.stop()


@pytest.fixture
def webhook_secret() -> Iterator[tuple[str, bytes]]:
    """A source's name and the secret of its webhook, in the host's folder of secrets."""
    name, secret = f"hook-{secrets.token_hex(4)}", secrets.token_hex(32).encode()
    SECRETS.mkdir(parents=True, exist_ok=True)
    file = SECRETS / name
    file.touch(mode=0o640)
    file.write_bytes(secret)
    os.chown(file, 0, pwd.getpwnam("trimtab-fetch").pw_gid)
    yield name, secret
    file.unlink()


@pytest.mark.needs_root
def test_a_webhook_wakes_a_source_at_once(
    host: Host, webhook_secret: tuple[str, bytes], record_property: Callable[[str, object], None]
) -> None:
    name, secret = webhook_secret
    repository = Repository(host.folder / "shop.git")
    repository.commit({"deploy/data.yaml": VOLUME.format(name="data")})
    source = SOURCE.format(url=repository.url).replace("interval: 10s", "interval: 24h")
    host.write("shop.yaml", source.replace("name: shop,", f"name: {name},"))
    host.up("--webhook", "127.0.0.1:9000")
    try:
        eventually(lambda: host.is_ready("data", namespace="shop"))
        repository.commit(
            {f"deploy/{each}.yaml": VOLUME.format(name=each) for each in ("data", "more")}
        )
        body = (
            '{"ref": "refs/heads/other", "repository": {"clone_url": "https://example.org/evil"}}'
        )
        began = time.monotonic()
        assert post(host, name, body, b"another secret") == "403"
        assert post(host, name, body, secret) == "202"
        eventually(lambda: host.is_ready("more", namespace="shop"))
        taken = f"{time.monotonic() - began:.1f} s"
        record_property("from a webhook to the new resource", [taken])
    finally:
        host.stop()


def post(host: Host, name: str, body: str, secret: bytes) -> str:
    """Send a webhook as GitHub does; return the status of the answer."""
    digest = hmac.new(secret, body.encode(), "sha256").hexdigest()
    header = f"X-Hub-Signature-256: sha256={digest}"
    curl = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]
    curl += ["--header", header, "--data", body, f"http://127.0.0.1:9000/hooks/{name}"]
    return host.engine.run_inside(curl).stdout
