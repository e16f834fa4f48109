"""Containers that ran before trimtab came: adopted as found, without a restart."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.instance import Host, eventually, web

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

#: The gaps of a container of ``docker run`` without options.
GAPS = ("capabilities", "new-privileges", "logs")
ADMIT = tuple(part for gap in GAPS for part in ("--admit", gap))


@pytest.fixture
def project(engine: PrivateEngine | FoundEngine) -> Iterator[None]:
    """Remove what docker compose made, once the instance is gone with its containers there."""
    yield
    networks = engine.docker("network", "ls", "-q", "--filter", "name=^(shop|lab)_default$").stdout
    if networks:
        engine.docker("network", "rm", *networks.split())
    engine.docker("volume", "rm", "shop_data", check=False)


@pytest.fixture(autouse=True)
def tidied(project: None, host: Host) -> Iterator[None]:
    """Remove the containers without labels first: the instance's clean-up doesn't know them."""
    yield
    listed = host.engine.docker("ps", "-aq", "--filter", "name=^/(old-|shop-|lab-)").stdout.split()
    if listed:
        host.engine.docker("rm", "-f", "-v", *listed)


def run(host: Host, name: str, *options: str) -> str:
    """Start a container as somebody without trimtab does; return its id."""
    return host.engine.docker(
        "run", "-d", "--name", name, *options, "trimtab.local/web:1"
    ).stdout.strip()


def inspect(host: Host, container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.engine.docker("inspect", container).stdout)[0]
    return found


def condition(host: Host, name: str, kind: str) -> str:
    """Return the message of a condition that holds, '' otherwise."""
    for each in host.resource(name).get("conditions", []):
        if each["type"] == kind and each["status"] == "True":
            return str(each["message"])
    return ""


def plan(host: Host) -> list[Any] | None:
    """Return the actions of the plan, None while nothing answers."""
    answer = host.plan()
    return None if answer is None else list(answer["actions"])


def suspended(name: str, extra: str = "") -> str:
    return web(name, extra=f"suspend: true\n{extra}".rstrip())


def a_container_of_docker_run_is_adopted_as_found_and_ends_with_a_rollout(host: Host) -> None:
    container = run(host, "old-web")
    host.write("web.yaml", suspended("web"))
    refused = host.cli("adopt", "old-web", "--as", "web", expect=4).stdout
    assert all(f"--admit {gap}" in refused for gap in GAPS), refused
    assert host.containers() == []
    adopted = host.json("adopt", "old-web", "--as", "web", *ADMIT)
    assert adopted["adopted"] == [container]
    assert adopted["failed"] == []
    now = inspect(host, container)
    assert now["RestartCount"] == 0
    assert [*now["NetworkSettings"]["Networks"]] == ["platform-network"]
    assert now["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert now["HostConfig"]["Memory"] > 0
    host.write("web.yaml", web("web"))
    eventually(lambda: condition(host, "web", "AdoptedAsFound"), what="the status says so")
    assert plan(host) == []
    assert "capabilities" in condition(host, "web", "AdoptedAsFound")
    assert inspect(host, container)["State"]["StartedAt"] == now["State"]["StartedAt"]
    # It is restarted like others.
    host.engine.docker("kill", "old-web")
    eventually(lambda: inspect(host, container)["State"]["Running"], what="it is healed")
    eventually(lambda: plan(host) == [], what="all is as declared again")
    changed = 'env: {CHANGED: "1"}\nrollout: {minHealthy: 1s}'
    host.write("web.yaml", web("web", extra=changed))
    eventually(
        lambda: [each["Id"] for each in host.containers("web")] not in ([], [container]),
        what="a rollout replaces it by an ordinary container",
    )
    eventually(lambda: not condition(host, "web", "AdoptedAsFound"), what="it has ended")
    gone = host.engine.docker("ps", "-aq", "--no-trunc", "--filter", f"id={container}")
    assert gone.stdout.strip() == ""


COMPOSE = """\
name: shop
services:
  web:
    image: trimtab.local/web:1
    ports: ["127.0.0.1:18080:8080"]
    volumes: ["data:/data"]
  api:
    image: trimtab.local/web:1
    environment: {ROLE: api}
    restart: unless-stopped
volumes:
  data:
"""
#: The services of the project as documents, on networks of the namespace.
MOVED = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, namespace: shop, owner: team}
spec:
  image: trimtab.local/web:1
  suspend: true
  ports: [{container: 8080, host: 18080, hostIP: 127.0.0.1}]
  mounts: [{type: volume, source: data, target: /data}]
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: api, namespace: shop, owner: team}
spec:
  image: trimtab.local/web:1
  suspend: true
  env: {ROLE: api}
---
apiVersion: trimtab/v1
kind: Volume
metadata: {name: data, namespace: shop, owner: team}
spec: {engineName: shop_data}
"""
#: The same, on the network that docker compose made.
KEPT = (
    MOVED.replace("  suspend", "  network: {mode: declared, attach: [{name: front}]}\n  suspend")
    + """\
---
apiVersion: trimtab/v1
kind: Network
metadata: {name: front, namespace: shop, owner: team}
spec: {engineName: shop_default, internal: false}
"""
)


#: What a project's folder adds to its Compose file, which stays unchanged. Docker Compose ignores it.
OVERRIDE = "x-trimtab:\n  volumes: compose\n  suspend: true\n"


def declare(host: Host, documents: str, *, suspend: bool) -> None:
    """Declare the project, by documents of trimtab or by its Compose file."""
    name = "shop/compose.override.yaml" if documents == OVERRIDE else "shop.yaml"
    host.write(name, documents if suspend else documents.replace("  suspend: true\n", ""))
    if documents == OVERRIDE:
        host.write("shop/compose.yaml", COMPOSE)


def compose(host: Host, *arguments: str, text: str = COMPOSE, project: str = "shop") -> str:
    """Run docker compose on a project, as somebody without trimtab does."""
    folder = host.folder / project
    folder.mkdir(exist_ok=True)
    (folder / "compose.yaml").write_text(text)
    done = subprocess.run(
        host.engine.inside("docker-compose", *arguments),
        env=host.environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ids(host: Host, project: str = "shop") -> dict[str, str]:
    """Return the ids of a project's containers that run, by service."""
    listed = host.engine.docker(
        "ps",
        "--no-trunc",
        "--filter",
        f"label=com.docker.compose.project={project}",
        "--format",
        '{{.Label "com.docker.compose.service"}} {{.ID}}',
    ).stdout
    return dict(line.split() for line in listed.splitlines())


def of_lab(host: Host) -> list[dict[str, Any]]:
    """Return the containers of the other project."""
    label = "io.trimtab.namespace"
    return [each for each in host.containers() if each["Config"]["Labels"][label] == "lab"]


def is_ready(host: Host, name: str) -> bool:
    """Return whether a service of the project has its replica."""
    return bool(host.resource(name, namespace="shop").get("ready") == 1)


def reaches(host: Host, container: str, name: str) -> bool:
    """Return whether a container gets an answer from another one by its name."""
    done = host.engine.docker(
        "exec", container, "wget", "-q", "-T", "3", "-O", "-", f"http://{name}:8080/", check=False
    )
    return done.returncode == 0


def a_project_is_adopted_without_a_restart(host: Host, documents: str) -> dict[str, str]:
    """Adopt the project that docker compose started; return its containers by service."""
    before = ids(host)
    started = {each: inspect(host, each)["State"]["StartedAt"] for each in before.values()}
    declare(host, documents, suspend=True)
    answer = host.json("adopt", "--project", "shop", *ADMIT)
    assert answer["failed"] == [], answer
    assert sorted(answer["adopted"]) == sorted(before.values()), answer
    assert {each["kind"] for each in answer["objects"]} >= {"volume"}
    declare(host, documents, suspend=False)
    eventually(
        lambda: is_ready(host, "web") and is_ready(host, "api"),
        what="both count as their services' slots",
    )
    eventually(lambda: plan(host) == [], what="nothing is to be done")
    assert ids(host) == before
    assert {each: inspect(host, each)["State"]["StartedAt"] for each in started} == started
    assert reaches(host, before["web"], "api")
    assert reaches(host, before["api"], "web")
    assert host.engine.http_get(18080).status == 200
    networks = {*inspect(host, before["api"])["NetworkSettings"]["Networks"]}
    assert networks == ({"shop_default"} if documents == KEPT else {"platform-network.shop"})
    return before


@pytest.mark.timeout(300)
def test_what_docker_run_and_docker_compose_started_is_adopted_without_a_restart(
    host: Host,
) -> None:
    with host.running():
        a_container_of_docker_run_is_adopted_as_found_and_ends_with_a_rollout(host)
        compose(host, "up", "-d")
        a_project_is_adopted_without_a_restart(host, MOVED)


@contextmanager
def kept_from(host: Host, service: str) -> Iterator[None]:
    """Keep trimtab from a service during the block."""
    host.cli("suspend", f"shop/{service}")
    yield
    host.cli("resume", f"shop/{service}", "--no-wait")


@pytest.mark.timeout(300)
def test_compose_up_by_mistake_makes_foreign_containers_and_the_slot_is_filled(
    host: Host,
) -> None:
    compose(host, "up", "-d")
    with host.running():
        before = a_project_is_adopted_without_a_restart(host, KEPT)
        # The same file: docker compose finds its containers as they are.
        compose(host, "up", "-d")
        assert ids(host) == before
        assert plan(host) == []
        # Another file: docker compose makes the container anew, and trimtab fills the slot. Between
        # docker compose's stop and its removal trimtab would start the container, and the removal fail.
        with kept_from(host, "api"):
            compose(host, "up", "-d", text=COMPOSE.replace("ROLE: api", "ROLE: other"))
        after = ids(host)
        assert after["web"] == before["web"]
        assert after["api"] != before["api"]
        eventually(
            lambda: [each["Config"]["Env"] for each in host.containers("api")],
            what="the slot has an ordinary container",
        )
        eventually(lambda: plan(host) == [], what="all is as declared")
        assert inspect(host, after["api"])["State"]["Running"]
        foreign = host.cli("adopt", after["api"], "--as", "shop/api", expect=4).stdout
        assert "no free slot" in foreign
        compose(host, "rm", "-fs", "api", text=COMPOSE)
        assert plan(host) == []
        # A container of docker compose that has the port of the host: trimtab's waits for it.
        taken = COMPOSE.replace("    ports", "    environment: {ROLE: other}\n    ports")
        with kept_from(host, "web"):
            compose(host, "up", "-d", "-t", "0", "web", text=taken)
        assert ids(host)["web"] != before["web"]
        said = "port 18080 is taken by another container"
        eventually(lambda: said in str(host.resource("web", namespace="shop")), what=said)
        compose(host, "rm", "-fs", "web")
        eventually(lambda: is_ready(host, "web"), what="the port is free, and trimtab's starts")


FORMS = """\
name: lab
services:
  web:
    image: trimtab.local/web:1
    ports: ["18081:8080"]
    volumes: ["./app.ini:/srv/app.ini"]
    tmpfs: [/scratch]
    healthcheck: {test: "wget -q -O /dev/null http://127.0.0.1:8080/healthz", interval: 3s}
    restart: always
"""
ALL_GAPS = (*GAPS, "files", "ports", "tmpfs", "healthcheck")


@pytest.mark.timeout(300)
def test_a_compose_file_is_adopted_and_other_forms_are_kept_by_a_repair(host: Host) -> None:
    compose(host, "up", "-d")
    with host.running():
        a_project_is_adopted_without_a_restart(host, OVERRIDE)
        # The containers are gone with docker compose's project, and trimtab creates them anew.
        compose(host, "down", "-t", "0")
        assert ids(host) == {}
        eventually(
            lambda: host.running_ids("web") and host.running_ids("api"), what="both run anew"
        )
        other_forms_end_with_a_rollout(host)


def other_forms_end_with_a_rollout(host: Host) -> None:
    """Adopt another project, with files, ports of all addresses, a tmpfs and a healthcheck."""
    folder = host.folder / "lab"
    folder.mkdir()
    (folder / "app.ini").write_text("a = 1\n")
    compose(host, "up", "-d", text=FORMS, project="lab")
    container = ids(host, "lab")["web"]
    host.write("lab/app.ini", "a = 2\n")
    host.write("lab/compose.yaml", FORMS)
    host.write("lab/compose.override.yaml", OVERRIDE)
    command = ("adopt", "--project", "lab", "--from", str(folder))
    admit = [part for gap in ALL_GAPS for part in ("--admit", f"web:{gap}")]
    refused = host.cli(*command, *admit, expect=4).stdout
    assert "its files differ from the config" in refused, refused
    host.write("lab/app.ini", "a = 1\n")
    asked = host.cli(*command, "--dry-run", expect=4).stdout
    line = next(each for each in asked.splitlines() if "--admit" in each and "trimtab" in each)
    admitted = {word for word in line.split() if word.startswith("web:")}
    assert admitted == {f"web:{gap}" for gap in ALL_GAPS}
    assert host.json(*command, *admit)["adopted"] == [container]
    host.write("lab/compose.override.yaml", OVERRIDE.replace("  suspend: true\n", ""))
    eventually(lambda: plan(host) == [], what="nothing is to be done")
    host.engine.docker("kill", container)
    eventually(lambda: inspect(host, container)["State"]["Running"], what="it is healed")
    eventually(lambda: plan(host) == [], what="it is as found again")
    assert ids(host, "lab") == {"web": container}
    host.write("lab/app.ini", "a = 3\n")
    eventually(
        lambda: [each["Id"] for each in of_lab(host)] not in ([], [container]),
        what="a rollout replaces it by an ordinary container",
    )
    eventually(lambda: plan(host) == [], what="the rollout has ended")
    (now,) = of_lab(host)
    bindings = now["HostConfig"]["PortBindings"]["8080/tcp"]
    assert [each["HostIp"] for each in bindings] == ["127.0.0.1"]
    assert not (folder / "app.ini").samefile(now["HostConfig"]["Mounts"][0]["Source"])
