"""A project's own folders on a real engine: writable data, read-only code, and nothing that declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.instance import Host, eventually, web

WRITES = "(: > /code/x) 2> /data/denied; echo > /data/now; exec sleep 3600"
SHOP = f"""\
services:
  web:
    image: trimtab.local/web:1
    user: "4242:4242"
    entrypoint: ["/bin/sh", "-c", "{WRITES}"]
    healthcheck: {{test: ["CMD", "/bin/sh", "-c", "test -f /data/now"], interval: 1s, start_period: 0s}}
    volumes:
      - ./data:/data
      - .:/code
      - modules:/code/node_modules
      - ./large.log:/large.log
      - certificates:/etc/letsencrypt
      - /etc/localtime:/etc/localtime:ro
volumes: {{certificates: , modules: }}
x-trimtab: {{owner: team}}
"""


def mounts(inspect: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    found = inspect["Mounts"]
    return {each["Destination"]: (each.get("Source", ""), each["RW"]) for each in found}


def codes(host: Host) -> list[str]:
    return [each["code"] for each in (host.status() or {"problems": []})["problems"]]


@pytest.mark.needs_root
def test_a_project_has_its_folders_and_no_container_declares_anything(host: Host) -> None:
    shop = host.directory / "shop"
    shop.mkdir()
    (shop / "large.log").write_bytes(bytes(1024 * 1024 + 1))
    text = Path(host.policy).read_text() + "mounts: {directory: {uid: 4242}}\n"
    host.policy = str(host.folder / "policy.yaml")
    Path(host.policy).write_text(text)
    host.write("shop/compose.yaml", SHOP)
    with host.running():
        host.await_ready("web")
        eventually((shop / "data" / "denied").exists)
        (inspect,) = host.containers("web")
        found = mounts(inspect)
        assert [found.pop(each)[1] for each in ("/etc/letsencrypt", "/code/node_modules")] == [
            True,
            True,
        ]
        assert found == {
            "/data": (str(shop / "data"), True),
            "/code": (str(shop), False),
            "/large.log": (str(shop / "large.log"), False),
            "/etc/localtime": ("/etc/localtime", False),
        }
        assert (shop / "data").stat().st_uid == 4242
        assert "Read-only file system" in (shop / "data" / "denied").read_text()

        # What a container leaves in its folder is no document, also without the mount.
        (shop / "data" / "evil.yaml").write_text(web("evil"))
        host.write("shop/compose.yaml", SHOP.replace("./data:/data", "./other:/data"))
        eventually((shop / "other" / "now").exists)
        host.await_ready("web")
        assert host.containers("evil") == []
        assert "source.written" in codes(host)

        # A client and an operator mount no folder of the directory, and a link isn't followed.
        refused = host.docker_through_broker(
            "run", "--rm", "-v", f"{shop}/data:/d", "trimtab.local/web:1", "true", check=False
        )
        assert "mount.never" in refused.stderr
        (shop / "linked").symlink_to("/etc")
        host.write("shop/compose.yaml", SHOP.replace("./data:/data", "./linked:/data"))
        eventually(lambda: "compose.refused" in codes(host))
