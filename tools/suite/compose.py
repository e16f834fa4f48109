"""The peer: docker compose, run as whole commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tools.benches.measure import taken

if TYPE_CHECKING:
    from tests.engine import PrivateEngine

PROJECT: Final = "peer"
#: HostConfig's member and compose's field for the same setting.
_SAME: Final = (
    ("Memory", "mem_limit"),
    ("MemorySwap", "memswap_limit"),
    ("PidsLimit", "pids_limit"),
    ("CapDrop", "cap_drop"),
    ("CapAdd", "cap_add"),
    ("SecurityOpt", "security_opt"),
    ("ReadonlyRootfs", "read_only"),
    ("Init", "init"),
)


class Compose:
    """A project of equal services."""

    def __init__(self, engine: PrivateEngine, folder: Path) -> None:
        self._engine = engine
        self._file = folder / "compose.yaml"

    def declare(self, like: dict[str, Any], services: int, **changed: object) -> None:
        """Write the project: services with the settings of a container, and changed fields."""
        service = {**service_like(like), **changed}
        project: dict[str, Any] = {"services": {f"s{n}": service for n in range(services)}}
        if "networks" in service:
            project["networks"] = {"own": {"internal": True}}
        # JSON is YAML.
        self._file.write_text(json.dumps(project), "utf-8")

    def up(self) -> float:
        """Return the seconds of a whole `docker compose up -d`."""
        return taken(lambda: self._run("up", "-d"))

    def down(self) -> None:
        """Remove the project's containers and networks."""
        self._run("down", "--timeout", "0")

    def _run(self, *arguments: str) -> None:
        argv = ["docker", "compose", "--project-name", PROJECT, "--file", str(self._file)]
        self._engine.run_inside([*argv, *arguments], timeout_s=300)


def service_like(like: dict[str, Any]) -> dict[str, Any]:
    """Return compose's service with the settings of an inspected container."""
    config, host = like["Config"], like["HostConfig"]
    service: dict[str, Any] = {"image": config["Image"], "command": config["Cmd"]}
    service |= {field: host[member] for member, field in _SAME if host.get(member)}
    if host.get("NanoCpus"):
        service["cpus"] = host["NanoCpus"] / 10**9
    if host["LogConfig"]["Config"]:
        logs = host["LogConfig"]
        service["logging"] = {"driver": logs["Type"], "options": logs["Config"]}
    service["restart"] = host["RestartPolicy"]["Name"]
    if host["NetworkMode"] == "none":
        service["network_mode"] = "none"
    else:
        service["networks"] = ["own"]
    if check := config.get("Healthcheck"):
        service["healthcheck"] = {
            "test": check["Test"],
            "interval": f"{check.get('Interval', 0) // 10**6}ms",
            "timeout": f"{check.get('Timeout', 0) // 10**6}ms",
            "retries": check.get("Retries", 3),
            "start_period": f"{check.get('StartPeriod', 0) // 10**6}ms",
        }
    return service
