"""A published project, run by trimtab from its unchanged folder: started, changed once, and taken down."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from controller.core.compose.translation.scope import dns_name
from tests.engine import FoundEngine, PrivateEngine
from tests.instance import LABEL, POLICIES, Host, eventually, has
from tools.stacks import stand_ins
from tools.stacks.changes import change_environment, changed_text
from tools.stacks.sides import TrimtabSide

#: Seconds until all services of a project are Ready, builds and first starts of databases included.
READY_S: Final = 150.0
#: A port whose connection is open after this time has a server.
OPEN_S: Final = 0.5
#: What a person does whom ``trimtab try`` tells to.
_COPY: Final = re.compile(r"sudo (install -m 600 -D \S+ (\S+));")
_PORT: Final = re.compile(r"add (\d+) to networks\.ports\.granted")
_GRANTED: Final = "granted: [80, 443"


def run_published(engine: PrivateEngine | FoundEngine, project: Path) -> dict[str, Any]:
    """Run a project; return its outcome and counts.

    A project that ``home`` refuses is run with ports of the host added, if that is all it lacks.
    """
    side = TrimtabSide(engine, project, trusted=stand_ins.provide(engine, project))
    host = side.host
    refused = [*_refusals(side.tried(project))]
    ports = [int(port) for each in refused for port in _PORT.findall(each["remedy"])]
    if ports and len(ports) == len(refused):
        policy = host.folder / "policy.yaml"
        lines = ", ".join((_GRANTED, *map(str, ports)))
        policy.write_text((POLICIES / "home.yaml").read_text().replace(_GRANTED, lines))
        host.policy = str(policy)
        refused = [*_refusals(side.tried(project))]
    if refused:
        host.close()
        codes = dict.fromkeys(each["code"] for each in refused)
        return {"refused": [*codes], "reason": refused[0]["message"]}
    tried = side.tried(project)
    secrets = [*_copied_secrets(project, tried)]
    try:
        with side.running():
            return {"granted": ports, **_run(side, tried)}
    finally:
        for path in secrets:
            path.unlink()
            path.parent.rmdir()


def _refusals(tried: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    verdicts = (each["verdict"].get("problems", ()) for each in tried["resources"])
    for problems in (tried["problems"], *verdicts):
        yield from (each for each in problems if each["severity"] != "warning")


def _copied_secrets(project: Path, tried: Mapping[str, Any]) -> Iterator[Path]:
    for problem in tried["problems"]:
        for command, path in _COPY.findall(problem["remedy"]):
            subprocess.run(command.split(), cwd=project, check=True)
            yield Path(path)


def _run(side: TrimtabSide, tried: Mapping[str, Any]) -> dict[str, Any]:
    host, namespace = side.host, tried["namespace"]
    side.put()
    file = next(side.folder.glob("compose.y*ml"))
    services = yaml.safe_load(file.read_text())["services"]
    host.await_ready(*map(dns_name, services), within_s=READY_S)
    ports = _published(host)
    for port in ports:
        eventually(partial(_is_open, host, port), within_s=READY_S, what=f"a server on port {port}")
    # One change, of the first service.
    changed = next(iter(services))
    name = dns_name(changed)
    before = host.resource(name, namespace=namespace)
    temporary = file.with_name(".new")
    temporary.write_text(changed_text(file.read_text(), changed, change_environment))
    temporary.rename(file)

    def is_done() -> bool:
        now = host.resource(name, namespace=namespace)
        is_new = now.get("revision") != before["revision"]
        return is_new and has(now, "Ready") and not has(now, "Progressing")

    eventually(is_done, within_s=READY_S, what=f"the change of {name}; up: {host.said()}")
    (replica,) = (host.engine.inspect(each) for each in host.running_ids(name))
    assert "CHANGED=1" in replica["Config"]["Env"], replica["Config"]["Env"]
    host.await_ready(within_s=READY_S)
    built = sum(each["request"]["route"] == "image.build" for each in host.records("intent"))
    host.stop()
    host.cli("down")
    mine = f"label={LABEL}.instance={host.instance}"
    left = host.containers() or host.engine.docker("network", "ls", "-q", "--filter", mine).stdout
    return {
        "services": len(services),
        "built": built,
        "open": len(ports),
        "left": len(left),
    }


def _published(host: Host) -> list[int]:
    """Return the ports of the host that TCP is published on."""
    found = (each["NetworkSettings"]["Ports"] or {} for each in host.containers())
    return sorted(
        {
            int(binding["HostPort"])
            for ports in found
            for port, bindings in ports.items()
            for binding in bindings or ()
            if port.endswith("/tcp")
        }
    )


def _is_open(host: Host, port: int) -> bool:
    """Tell whether a server holds a connection: the engine's proxy closes it where there is none."""
    try:
        with host.engine.connect(port) as connection:
            connection.settimeout(OPEN_S)
            return bool(connection.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False
