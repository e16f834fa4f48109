"""Idleness: what a controller does to twenty services of every feature that nobody touches: nothing.

Counted are the intents of the journal after all is Ready, for as long as ``MINUTES`` says (2): each
would be a drift that there isn't. Beside it, what broker and controller cost while they wait.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tests import engine as engines
from tests.instance import Host, web
from tools.benches.measure import row

#: Lines of the spec, a service each; the engine shows each in its own way.
FEATURES = (
    "replicas: 3",
    "ports: [{container: 8080, host: 18300}]",
    "mounts: [{type: volume, source: data, target: /data}]",
    "mounts: [{type: tmpfs, target: /scratch, size: 16Mi}]",
    "mounts: [{type: bind, source: FOLDER/srv, target: /srv, readOnly: true}]",
    "healthcheck: {http: {path: /healthz, port: 8080}, interval: 2s}",
    "healthcheck: {tcp: {port: 8080}, interval: 2s}",
    "healthcheck: {exec: [/bin/sh, -c, exit 0], interval: 2s, timeout: 1s, retries: 2, startPeriod: 1s}",
    "init: true\nstopSignal: SIGINT\nstopGracePeriod: 3s",
    'user: "1000:1000"\nworkingDir: /tmp',
    "security: {capAdd: [CHOWN, SETUID], readOnlyRootFilesystem: true}",
    "resources: {memory: 64Mi, cpus: 0.125, pids: 64, shm: 8Mi}",
    "logs: {maxSize: 1Mi, maxFiles: 2}\ncontainerLabels: {com.example.team: a}",
    "restart: {policy: OnFailure}",
    'restart: {policy: Never}\nentrypoint: [/bin/sh, -c, "exit 0"]',
    "state: Stopped",
    "network: {mode: none}",
    "network: {attach: [lan]}",
    "dependsOn: [{name: s0}]",
    "env: {A: one, B: two}\nrollout: {minHealthy: 1s, maxUnavailable: 2}",
)
LAN = "apiVersion: trimtab/v1\nkind: Network\nmetadata: {name: lan, owner: team}\n"


def seconds_of(pid: int) -> float:
    """Return the CPU seconds that a process used (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Return the memory that a process has resident, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run() -> None:
    if os.geteuid() != 0:
        print("  needs root: an engine of its own", file=sys.stderr)
        return
    minutes = float(os.environ.get("MINUTES") or 2)
    with ExitStack() as stack:
        engine = engines.open_engine()
        stack.callback(engine.close)
        host = Host(engine)
        stack.callback(host.close)
        (host.folder / "srv").mkdir()
        host.write("lan.yaml", LAN)
        for number, feature in enumerate(FEATURES):
            text = web(f"s{number}", extra=feature.replace("FOLDER", str(host.folder)))
            own = "replicas:" in feature
            host.write(f"s{number}.yaml", text.replace("  replicas: 1\n", "") if own else text)
        host.up()
        stack.callback(host.stop)
        host.await_ready(within_s=120)
        pids = {role: host.pid_of(role) for role in ("broker", "controller")}
        intents = len([r for r in host.journal() if r["stage"] == "intent"])
        before = {role: seconds_of(pid) for role, pid in pids.items()}
        time.sleep(minutes * 60)
        later = [r for r in host.journal() if r["stage"] == "intent"][intents:]
        row("false drift", minutes=f"{minutes:g}", intents=str(len(later)), goal="0")
        for record in later:
            print(f"    {record['request']['route']}: {record['claims'].get('cause')}")
        for role, pid in pids.items():
            used = (seconds_of(pid) - before[role]) / (minutes * 60)
            row(role, cpu=f"{used:.2%}", resident=f"{resident_mib(pid):.0f} MiB")
