"""Released services: their containers stay as ordinary ones, and trimtab leaves them alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_configs import config, mounting, said
from tests.e2e.test_secrets import Namespace, namespace, service
from tests.e2e.test_secrets import mounting as mounting_secret
from tests.instance import Host, eventually, web

__all__ = ["namespace"]


def inspect(host: Host, container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.engine.docker("inspect", container).stdout)[0]
    return found


def blocked(host: Host) -> str:
    """Return why nothing is done for the service."""
    found = host.resource("web").get("conditions", [])
    return " ".join(each["message"] for each in found if "was released" in each["message"])


def test_a_released_container_goes_on_alone_and_can_be_taken_back(host: Host) -> None:
    host.write("web.yaml", web())
    with host.running():
        host.await_ready("web")
        (old,) = host.running_ids("web")
        before = inspect(host, old)
        shown = host.json("release", "web")
        assert [each["id"] for each in shown["containers"]] == [old]
        assert shown["released"] == []
        assert host.json("release", "web", "--yes")["released"] == [old]
        eventually(lambda: blocked(host), what="the status says why nothing is done")
        # It is changed, stopped and started by anybody, and trimtab doesn't mind.
        host.engine.docker("stop", "-t", "1", old)
        host.write("web.yaml", web(extra='env: {CHANGED: "1"}'))
        host.engine.docker("start", old)
        assert host.running_ids("web") == [old]
        assert "Nothing is left" in host.cli("release", "web").stdout
        host.write("web.yaml", web())
        host.cli("adopt", before["Name"].removeprefix("/"), "--as", "web")
        host.await_ready("web")
        assert host.running_ids("web") == [old]
        eventually(lambda: (host.plan() or {}).get("actions") == [], what="it is as declared")
    assert host.nothing_open()


def test_with_files_an_ordinary_container_with_copies_takes_its_place(host: Host) -> None:
    copies = host.folder / "copies"
    host.write("site.yaml", config("first"))
    host.write("web.yaml", mounting())
    with host.running():
        host.await_ready("web")
        (old,) = host.running_ids("web")
        told = host.cli("release", "web", "--yes", expect=4).stdout
        assert "--to FOLDER" in told
        assert host.running_ids("web") == [old]
        # A path that the policy doesn't admit: nothing is changed, and no copy stays.
        elsewhere = Path("/var/lib/docker/trimtab-copies")
        host.cli("release", "web", "--to", str(elsewhere), "--yes", expect=4)
        assert host.running_ids("web") == [old]
        assert not elsewhere.exists() or not [*elsewhere.rglob("*page*")]
        (new,) = host.json("release", "web", "--to", str(copies), "--yes")["released"]
        assert host.running_ids("web") == [new] != [old]
        assert said(host) == "first;"
        assert host.engine.docker("inspect", old, check=False).returncode != 0
        (mount,) = inspect(host, new)["Mounts"]
        assert (mount["RW"], mount["Destination"]) == (False, "/srv/site")
        assert Path(mount["Source"]).is_relative_to(copies)
    host.cli("down")
    assert host.running_ids("web") == [new]
    # What trimtab kept is gone, as after a purge and a boot.
    shutil.rmtree(host.state / "files")
    host.engine.docker("restart", "-t", "1", new)
    assert said(host) == "first;"
    host.engine.docker("rm", "-f", new)


@pytest.mark.needs_root
def test_a_whole_instance_is_released_with_secrets_ports_and_boot_order(
    host: Host, namespace: Namespace
) -> None:
    copies = host.folder / "copies"
    (host.directory / ".sops").mkdir()
    (host.directory / ".sops" / "db.yaml").write_text(namespace.sops({"password": "open sesame"}))
    host.write("db.yaml", namespace.document("{sops: .sops/db.yaml}"))
    port = "ports: [{container: 8080, host: 18650, hostIP: 127.0.0.1}]"
    host.write("web.yaml", service(namespace, f"{mounting_secret('db')}\n{port}"))
    host.write("plain.yaml", web("plain", extra="restart: {boot: Ordered}"))
    with host.running():
        eventually(lambda: host.is_ready("web", namespace=namespace.name), what="web is ready")
        host.await_ready("plain")
        (plain,), (old,) = host.running_ids("plain"), host.running_ids("web")
        assert inspect(host, plain)["HostConfig"]["RestartPolicy"]["Name"] == "no"
        released = host.json("release", "--all", "--to", str(copies), "--yes")["released"]
        assert plain in released
        (new,) = {*released} - {plain}
        assert new != old
        assert inspect(host, plain)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        starts = [each for each in host.records("outcome") if "effective" in each["result"]]
        assert starts[-1]["result"]["effective"] == "verified"
        ports = inspect(host, new)["HostConfig"]["PortBindings"]
        assert ports == inspect(host, new)["NetworkSettings"]["Ports"]
    places = [*copies.glob("*/*")]
    assert [place.stat().st_mode & 0o777 for place in places] == [0o700]
    for container in (plain, new):
        host.engine.docker("restart", "-t", "1", container)
    assert "open sesame" in host.engine.docker("exec", new, "cat", "/run/db/data").stdout
    assert "open sesame" not in str(host.records())
    host.engine.docker("rm", "-f", plain, new)
