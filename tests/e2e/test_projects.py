"""A Compose project as a unit: a typo, stop, start, down and a change that fails, on a real engine."""

from __future__ import annotations

import pytest

from tests.instance import Host, eventually, has, web
from tests.signed_host import SignedHost

SHOP = """\
services:
  web:
    image: trimtab.local/web:1
    depends_on: [store]
  worker:
    image: trimtab.local/web:1
  store:
    image: trimtab.local/web:1
    volumes: ["data:/data"]
  prometheus:
    image: trimtab.local/web:1
    profiles: [monitoring]
    volumes: ["./prometheus.yml:/etc/prometheus.yml:ro"]
volumes: {data: }
x-trimtab: {owner: team}
"""
OTHER = web("gone").replace("name: gone", "name: gone, namespace: blog")
SERVICES = ("store", "web", "worker")


def put(host: Host, text: str = SHOP) -> None:
    (host.directory / "shop").mkdir(exist_ok=True)
    (host.directory / "shop" / "prometheus.yml").write_text("scrape_configs: []\n")
    host.write("shop/compose.yaml", text)


def running(host: Host) -> list[str]:
    return sorted(each for name in SERVICES for each in host.running_ids(name))


def problems(host: Host) -> list[str]:
    return [each["code"] for each in (host.status() or {"problems": []})["problems"]]


@pytest.mark.also_signed
def test_a_project_is_stopped_started_and_taken_down_as_one(host: Host) -> None:
    put(host)
    host.write("blog.yaml", OTHER)
    change(host, "one")
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

        host.cli("stop", "-n", "shop", "--note", "moving the rack", "--timeout", "60s")
        assert running(host) == []
        host.cli("apply", "--timeout", "60s", expect=5)
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
        host.cli("apply", "--timeout", "60s", expect=5)
        assert [host.containers(name) for name in SERVICES] == [[], [], []]
        host.cli("start", "-n", "shop", "--timeout", "60s")
        host.await_ready(*SERVICES)


def change(host: Host, version: str) -> None:
    """Write two services of one project, the first of which never gets healthy with the version bad."""
    check = f'["/bin/sh", "-c", "test {version} != bad"]'
    rollout = "rollout: {minHealthy: 0s, progressDeadline: 3s}"
    env = f"env: {{VERSION: {version}}}\n{rollout}"
    checked = f"{env}\nhealthcheck: {{exec: {check}, interval: 1s, retries: 1, startPeriod: 0s}}"
    host.write("lab.yaml", f"{web('front', extra=checked)}---\n{web('back', extra=env)}")


def fail_a_change(host: Host) -> None:
    """A change that fails for one service is told for the project, and undone as one."""
    eventually(lambda: are_good(host))
    change(host, "bad")
    eventually(lambda: "project.split" in problems(host))
    host.await_ready()
    assert "front went back to" in host.cli("status").stdout
    assert versions(host) == {"front": ["one"], "back": ["bad"]}
    host.cli("rollback", "-n", "default", "--timeout", "60s")
    assert versions(host) == {"front": ["one"], "back": ["one"]}
    assert "project.split" not in problems(host)
    held = {name: has(host.resource(name), "RolledBack") for name in ("front", "back")}
    assert held == {"front": True, "back": True}


def are_good(host: Host) -> bool:
    """Return True once the revisions are known to run well."""
    newest = [host.history(name)[:1] for name in ("front", "back")]
    return all(rows and rows[0]["outcome"] == "good" for rows in newest)


def versions(host: Host) -> dict[str, list[str]]:
    """Return the versions of the running containers."""
    found: dict[str, list[str]] = {}
    for name in ("front", "back"):
        there = [each for each in host.containers(name) if each["State"]["Running"]]
        envs = [dict(e.split("=", 1) for e in each["Config"]["Env"]) for each in there]
        found[name] = [env["VERSION"] for env in envs]
    return found
