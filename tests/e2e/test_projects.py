"""A Compose project as a unit: a typo, stop, start, down and a change that fails, on a real engine."""

from __future__ import annotations

import pytest

from tests.instance import Host, eventually, has, web
from tests.signed_host import SignedHost

SHOP = """\
services:
  web:
    image: trimtab.local/web:1
    environment: {VERSION: "${VERSION}"}
    healthcheck: {test: ["CMD", "/bin/sh", "-c", "test $$VERSION != bad"], interval: 1s, retries: 1}
    depends_on: [store]
    deploy: {update_config: {failure_action: rollback, monitor: 1s}}
  worker:
    image: trimtab.local/web:1
    environment: {VERSION: "${VERSION}"}
    deploy: {update_config: {monitor: 1s}}
  store:
    image: trimtab.local/web:1
    volumes: ["data:/data"]
    deploy: {update_config: {monitor: 1s}}
  prometheus:
    image: trimtab.local/web:1
    profiles: [monitoring]
    volumes: ["./prometheus.yml:/etc/prometheus.yml:ro"]
volumes: {data: }
x-trimtab: {owner: team}
"""
OTHER = web("gone").replace("name: gone", "name: gone, namespace: blog")
#: The directory isn't empty without the project.
KEPT = (
    "apiVersion: trimtab/v1\nkind: Network\nmetadata: {name: kept, namespace: blog, owner: team}\n"
)
SERVICES = ("store", "web", "worker")


def put(host: Host, text: str = SHOP, version: str = "one") -> None:
    (host.directory / "shop").mkdir(exist_ok=True)
    (host.directory / "shop" / "prometheus.yml").write_text("scrape_configs: []\n")
    (host.directory / "shop" / ".env").write_text(f"VERSION={version}\n")
    host.write("shop/compose.yaml", text)


def running(host: Host) -> list[str]:
    return sorted(each for name in SERVICES for each in host.running_ids(name))


def versions(host: Host) -> dict[str, list[str]]:
    """Return the versions of the running containers."""
    found: dict[str, list[str]] = {}
    for name in ("web", "worker"):
        there = [each for each in host.containers(name) if each["State"]["Running"]]
        envs = [dict(e.split("=", 1) for e in each["Config"]["Env"]) for each in there]
        found[name] = [env["VERSION"] for env in envs]
    return found


def problems(host: Host) -> list[str]:
    return [each["code"] for each in (host.status() or {"problems": []})["problems"]]


@pytest.mark.also_signed
def test_a_project_is_stopped_started_and_taken_down_as_one(host: Host) -> None:
    put(host)
    host.write("blog.yaml", OTHER)
    host.write("kept.yaml", KEPT)
    with host.running():
        host.await_ready(*SERVICES, "gone", within_s=60)
        kept = running(host)
        assert "apiversion" not in problems(host)

        # A typo threatens nothing of the project, and keeps nothing of others.
        host.write("shop/compose.yaml", SHOP.replace("services:", "services: ]"))
        eventually(lambda: "yaml.syntax" in problems(host))
        host.remove("blog.yaml")
        eventually(lambda: host.running_ids("gone") == [])
        table = host.cli("status", "-n", "shop").stdout
        assert table.count("its document can't be read: it is left as it is") == len(SERVICES)
        assert "PrunePending" not in table
        assert running(host) == kept
        put(host)
        host.await_ready(*SERVICES)
        if not isinstance(host, SignedHost):
            fail_a_change(host)
            kept = running(host)

        host.cli("stop", "-n", "shop", "--note", "moving the rack", "--timeout", "60s")
        assert running(host) == []
        host.cli("apply", "--timeout", "60s")
        told = host.cli("status", "--projects").stdout
        assert told.splitlines()[-1].split()[:3] == ["shop", "0/3", "Stopped"], told
        assert "trimtab start shop/web" in host.cli("status", "web").stdout
        ids = {each["Id"] for name in SERVICES for each in host.containers(name)}
        assert {each["HostConfig"]["RestartPolicy"]["Name"] for each in host.containers("web")} == {
            "no"
        }
        assert ids == set(kept)
        host.cli("start", "-n", "shop", "--timeout", "60s")
        assert running(host) == kept
        host.await_ready(*SERVICES)

        host.cli("down", "-n", "shop", "--timeout", "60s")
        assert [host.containers(name) for name in SERVICES] == [[], [], []]
        assert "shop.data" in host.engine.docker("volume", "ls", "-q").stdout.split()
        host.cli("apply", "--timeout", "60s")
        assert [host.containers(name) for name in SERVICES] == [[], [], []]
        host.cli("start", "-n", "shop", "--timeout", "60s")
        host.await_ready(*SERVICES)
        assert versions(host) == {"web": ["one"], "worker": ["one"]}


def fail_a_change(host: Host) -> None:
    """A change that fails for one service is told for the project, and undone as one."""
    good(host)
    put(host, version="bad")
    eventually(lambda: "project.split" in problems(host), within_s=60)
    eventually(lambda: versions(host) == {"web": ["one"], "worker": ["bad"]}, within_s=60)
    host.await_ready("worker")
    assert "web went back to" in host.cli("status").stdout
    host.cli("rollback", "-n", "shop", "--timeout", "60s")
    eventually(lambda: versions(host) == {"web": ["one"], "worker": ["one"]}, within_s=60)
    assert "project.split" not in problems(host)
    assert has(host.resource("worker", namespace="shop"), "RolledBack")
    assert not has(host.resource("store", namespace="shop"), "RolledBack")
    put(host)
    host.await_ready(*SERVICES)


def good(host: Host) -> None:
    """Wait until the revisions are known to run well."""

    def are_good() -> bool:
        newest = [
            host.json("history", f"shop/{name}")["revisions"][:1] for name in ("web", "worker")
        ]
        return all(rows and rows[0]["outcome"] == "good" for rows in newest)

    eventually(are_good)
