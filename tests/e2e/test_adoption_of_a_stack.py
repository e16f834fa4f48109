"""An ordinary project of docker compose is adopted under load: for its clients, nothing changes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.client import Client, pressing
from tests.instance import POLICIES, Host, eventually

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(300)]

PORT = 18082
NGINX, REDIS = "docker.io/library/nginx:1.26", "docker.io/library/redis:8"
#: As most write it: nginx resolves the name once, at its start.
SITE = "server { listen 80; location / { proxy_pass http://web:8080; } }\n"
COMPOSE = f"""\
name: mart
services:
  proxy:
    image: {NGINX}
    ports: ["{PORT}:80"]
    volumes: ["./site.conf:/etc/nginx/conf.d/default.conf:ro"]
    depends_on: [web]
  web:
    image: trimtab.local/web:1
    stop_grace_period: 1s
    deploy: {{replicas: 2, update_config: {{monitor: 1s}}}}
    networks: {{default: {{aliases: [shop-web]}}, back: {{}}}}
    depends_on: {{migrate: {{condition: service_completed_successfully}}}}
  migrate:
    image: {REDIS}
    command: [redis-cli, -h, db, INCR, migrations]
    networks: [back]
    depends_on: [db]
  seed:
    image: trimtab.local/web:1
    entrypoint: ["/bin/sh", "-c", "exit ${{SEED:-0}}"]
    deploy: {{mode: replicated-job}}
  db:
    image: {REDIS}
    volumes: ["data:/data"]
    networks: [back]
volumes: {{data: }}
networks: {{back: {{internal: true}}}}
"""
SUSPENDED = "x-trimtab: {suspend: true, volumes: compose, networks: compose}\n"
TAKEN = SUSPENDED.replace("suspend: true, ", "")


@pytest.fixture
def mart(host: Host, debian_image: Callable[..., str]) -> Iterator[Host]:
    """A host on which docker compose runs the project."""
    debian_image("nginx", reference=NGINX)
    debian_image("redis", reference=REDIS)
    host.policy = str(POLICIES / "home.yaml")
    (host.folder / "mart").mkdir()
    (host.folder / "mart" / "site.conf").write_text(SITE)
    (host.folder / "mart" / "compose.yaml").write_text(COMPOSE)
    compose(host, "up", "-d", SEED="1")
    yield host
    host.stop()
    # docker compose leaves a network that others' containers are in, without an error.
    for name in host.names():
        host.engine.remove(name)
    compose(host, "down", "-v", "-t", "0")


def compose(host: Host, *arguments: str, **variables: str) -> None:
    done = subprocess.run(
        host.engine.inside("docker-compose", *arguments),
        env=host.environment(**variables),
        cwd=host.folder / "mart",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def seen_by_clients(host: Host) -> dict[str, Any]:
    """Return of each container of the project what its clients and its process could notice."""
    listed = host.engine.docker(
        *("ps", "-aq", "--filter", "label=com.docker.compose.project=mart")
    ).stdout.split()
    return {
        each["Name"]: (
            each["Id"],
            each["State"]["StartedAt"],
            each["RestartCount"],
            each["NetworkSettings"]["Ports"],
            {
                name: (end["NetworkID"], end["IPAddress"], end["MacAddress"], end["Aliases"])
                for name, end in each["NetworkSettings"]["Networks"].items()
            },
        )
        for each in json.loads(host.engine.docker("inspect", *listed).stdout)
    }


def migrations(host: Host) -> str:
    return host.engine.docker("exec", "mart-db-1", "redis-cli", "GET", "migrations").stdout.strip()


def answered(client: Client, more: int = 40) -> None:
    """Wait until further requests were answered."""
    enough = client.answers(f"127.0.0.1:{PORT}") + more
    eventually(lambda: client.answers(f"127.0.0.1:{PORT}") >= enough, what="requests are answered")


def declare(host: Host, extension: str) -> None:
    host.write("mart/site.conf", SITE)
    host.write("mart/compose.yaml", COMPOSE)
    host.write("mart/compose.override.yaml", extension)


def test_the_adoption_of_a_stack_changes_nothing_for_its_clients(mart: Host) -> None:
    with mart.running(), pressing(mart, PORT, per_s=20) as client:
        answered(client)
        before = seen_by_clients(mart)
        declare(mart, SUSPENDED)
        eventually(lambda: mart.resource("proxy", namespace="mart"), what="the project is read")
        for image in (NGINX, REDIS, "trimtab.local/web:1"):
            mart.cli("image", "trust", image)
        command = ("adopt", "--project", "mart", "--from", str(mart.folder / "mart"))
        shown = mart.cli(*command, "--dry-run", expect=4).stdout
        assert "Clients notice nothing" in shown, shown
        assert "mart/migrate: its run by docker compose counts" in shown, shown
        assert "mart/seed: is held" in shown, shown
        line = next(each for each in shown.splitlines() if each.startswith("  trimtab adopt"))
        mart.cli(*line.split()[1:])
        assert seen_by_clients(mart) == before
        answered(client)
        declare(mart, TAKEN)
        ready = ("proxy", "web", "db", "migrate")
        eventually(
            lambda: (
                all(mart.is_ready(each, namespace="mart") for each in ready)
                and not mart.resource("web", namespace="mart").get("suspended")
            ),
            what="the services are no longer suspended",
        )
        planned = (mart.plan() or {})["actions"]
        assert [each["object"] for each in planned] == ["Job/mart/seed"], planned
        answered(client)
        assert seen_by_clients(mart) == before
        assert migrations(mart) == "1"
        assert client.failures() == []
        proxy = mart.resource("proxy", namespace="mart")
        assert [each["address"] for each in proxy["ports"]] == ["0.0.0.0"]
        # What the dry run said about the job whose run failed: nothing runs until somebody asks.
        mart.cli("run-job", "mart/seed")
        assert mart.is_ready("seed", namespace="mart")
        a_later_replacement_has_the_names_of_compose(mart, before)


def a_later_replacement_has_the_names_of_compose(mart: Host, before: dict[str, Any]) -> None:
    """Roll a change out: the new containers are on the networks of the project, with its names."""
    mart.write(
        "mart/compose.yaml", COMPOSE.replace("    deploy: {rep", "    init: true\n    deploy: {rep")
    )
    eventually(
        lambda: (
            len(mart.containers("web")) == 2
            and "mart-web" not in mart.engine.docker("ps", "-a", "--format", "{{.Names}}").stdout
            and (mart.plan() or {}).get("actions") == []
        ),
        what="both are replaced by ordinary containers, and nothing is to be done",
    )
    for each in mart.containers("web"):
        ends = each["NetworkSettings"]["Networks"]
        assert {*ends} == {"mart_default", "mart_back"}
        assert {"web", "shop-web"} <= {*ends["mart_default"]["Aliases"]}
        assert ends["mart_back"]["NetworkID"] == before["/mart-web-1"][4]["mart_back"][0]
