"""What reaches what, on a real engine: the tables of docs/networking.md, cell by cell."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.instance import POLICIES, Host, eventually, web
from tools import dockerd

PAGE = Path(__file__).parents[2] / "docs" / "networking.md"
QUICK = "init: true\nstopGracePeriod: 1s\nrollout: {minHealthy: 0s}\n"
SERVICES = {
    "db": "network: {mode: isolated}",
    "web": "network: {mode: isolated}\nports: [{container: 8080, host: 18080}]",
    "app": "network: {mode: bridge}",
    "store": "network: {mode: isolated, attach: [backend]}",
    "sync": "network: {mode: bridge, attach: [backend]}",
    "batch": "network: {mode: none}",
}
BACKEND = "apiVersion: trimtab/v1\nkind: Network\nmetadata: {name: backend, owner: team}\n"
ISOLATED = "platform-network"
INTERNET = "192.0.2.2"  # TEST-NET-1 (RFC 5737)
#: Everything is asked at once: a name that nobody knows takes seconds.
ASK = "for each in {targets}; do (wget -q -T 5 -O /dev/null http://$each:8080/ && echo $each) & done; wait"
Table = dict[str, dict[str, bool]]


def tables() -> list[Table]:
    """Return the tables of the page in which cells say yes or no, by row and column."""
    found: list[Table] = []
    head: list[str] = []
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "from":
            head = cells[1:]
            found.append({})
        elif head and line.startswith("|") and not cells[0].startswith("-"):
            answers = [cell == "yes" for cell in cells[1:]]
            found[-1][cells[0]] = dict(zip(head, answers, strict=True))
        elif not line.startswith("|"):
            head = []
    return found


@contextlib.contextmanager
def internet(host: Host) -> Iterator[None]:
    """A web server in a network of its own, which knows no way to any container."""
    inside, outside = host.engine.netns, f"{host.engine.netns}-net"

    def run(*argv: str) -> None:
        subprocess.run(argv, check=True, timeout=60)

    run("ip", "netns", "add", outside)
    try:
        run(
            "ip",
            "link",
            "add",
            "wan0",
            "netns",
            inside,
            "type",
            "veth",
            "peer",
            "wan1",
            "netns",
            outside,
        )
        for netns, link, address in ((inside, "wan0", "192.0.2.1"), (outside, "wan1", INTERNET)):
            run("ip", "-n", netns, "address", "add", f"{address}/24", "dev", link)
            run("ip", "-n", netns, "link", "set", link, "up")
        serve = [sys.executable, "-m", "http.server", "8080", "--bind", INTERNET]
        server = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{outside}", *serve],
            cwd=host.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            server.kill()
            server.wait()
    finally:
        run("ip", "netns", "delete", outside)


def reached(host: Host) -> Table:
    """Return what each service reaches now."""
    targets = [*SERVICES, INTERNET]

    def ask(service: str) -> dict[str, bool]:
        (container,) = host.running_ids(service)
        script = ASK.format(targets=" ".join(targets))
        said = host.engine.docker("exec", container, "/bin/sh", "-c", script).stdout.split()
        return {"internet" if each == INTERNET else each: each in said for each in targets}

    with ThreadPoolExecutor(len(SERVICES)) as pool:
        return dict(zip(SERVICES, pool.map(ask, SERVICES), strict=True))


def is_replaced(host: Host, name: str, before: dict[str, list[str]]) -> bool:
    ids = host.running_ids(name)
    return len(ids) == 1 and ids != before[name]


def is_open(host: Host, name: str, *, members: int) -> bool:
    """Return True if a network has a way out and its containers: asking all costs more."""
    status, told = dockerd.call(host.engine.host, "GET", f"/networks/{name}")
    if status != 200:
        return False
    found: dict[str, Any] = json.loads(told)
    return not found["Internal"] and len(found["Containers"]) == members


def loses_internal(host: Host) -> None:
    """By hand, make the isolated network anew with a way out, and join its containers to it again.

    The broker takes the containers off; with the network away, the controller makes the internal one.
    """

    def ask(method: str, path: str, body: object = None) -> dict[str, Any]:
        sent = None if body is None else json.dumps(body).encode()
        status, told = dockerd.call(host.engine.host, method, path, body=sent)
        assert status < 300, (path, told)
        return dict(json.loads(told or "{}"))

    def shown() -> dict[str, Any]:
        status, told = dockerd.call(host.engine.host, "GET", f"/networks/{ISOLATED}")
        return dict(json.loads(told)) if status == 200 else {"Internal": False, "Containers": {}}

    before = {name: host.running_ids(name) for name in SERVICES}
    was = shown()
    members = set(was["Containers"])
    assert was["Internal"] is True
    assert len(members) == len(SERVICES) - 1
    controller = host.pid_of("controller")
    # Otherwise the controller is faster: each container would be on the internal network again.
    os.kill(controller, signal.SIGSTOP)
    try:
        for each in members:
            ask("POST", f"/networks/{ISOLATED}/disconnect", {"Container": each})
        ask("DELETE", f"/networks/{ISOLATED}")
        opened = ask("POST", "/networks/create", {"Name": ISOLATED, "Labels": was["Labels"]})["Id"]
        for each in members:
            ask("POST", f"/networks/{opened}/connect", {"Container": each})
        eventually(lambda: shown()["Containers"] == {}, what="the broker takes all off")
    finally:
        os.kill(controller, signal.SIGCONT)
    found = host.records("violation")
    assert {record["request"]["object"] for record in found} == members
    assert {text for record in found for text in record["result"]["found"]} == {
        f"it is in the network {ISOLATED}: a foreign one of that name"
    }

    def is_named() -> bool:
        conditions = host.resource("db").get("conditions", ())
        fault = f"the network {ISOLATED} isn't ours and has a way out"
        return any(fault in each["message"] for each in conditions)

    eventually(is_named, what="the status names the network")
    assert shown()["Id"] == opened, "nobody's network is removed"
    assert shown()["Containers"] == {}
    ask("DELETE", f"/networks/{opened}")
    eventually(
        lambda: shown()["Internal"] and set(shown()["Containers"]) == members,
        what="all are on an internal network",
    )
    assert {name: host.running_ids(name) for name in SERVICES} == before
    host.await_ready()


@pytest.mark.needs_root
def test_what_reaches_what_is_as_the_page_says(host: Host) -> None:
    apart, joined = tables()
    host.write("backend.yaml", BACKEND)
    for name, network in SERVICES.items():
        host.write(f"{name}.yaml", web(name, extra=QUICK + network))
    policy = host.folder / "policy.yaml"
    text = (POLICIES / "development.yaml").read_text()
    policy.write_text(text)
    host.policy = str(policy)
    with internet(host):
        with host.running():
            first = eventually(lambda: host.json("status"))
            noise = [p["code"] for p in first["problems"]]
            assert noise == [], "the first start is quiet"
            assert reached(host) == apart
            assert host.engine.http_get(18080).status == 200
            before = {name: host.running_ids(name) for name in SERVICES}
        policy.write_text(
            text.replace("networks:\n", "networks:\n  bridgeJoinsIsolated: true\n", 1)
        )
        with host.running():
            # A changed policy replaces nothing: what runs keeps the networks that it has.
            assert {name: host.running_ids(name) for name in SERVICES} == before
            host.cli("restart", "app")
            host.cli("restart", "sync")
            eventually(lambda: all(is_replaced(host, name, before) for name in ("app", "sync")))
            host.await_ready()
            assert reached(host) == joined
            # A changed network is remade, and its containers run on.
            before = {name: host.running_ids(name) for name in SERVICES}
            opened = {**joined, "store": {**joined["store"], "internet": True}}
            host.write("backend.yaml", f"{BACKEND}spec: {{internal: false}}\n")
            eventually(lambda: is_open(host, "backend", members=2), what="the open network")
            eventually(lambda: reached(host) == opened)
            assert {name: host.running_ids(name) for name in SERVICES} == before
            host.await_ready()
            violations = host.records("violation")
            assert violations == []
            loses_internal(host)
