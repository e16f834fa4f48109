"""Metrics and figures of use on a real engine: what Prometheus' own tool reads, and what the kernel counts."""

from __future__ import annotations

import subprocess

import pytest

from controller.core.metrics.families import FAMILIES
from tests.instance import Host, eventually, web

pytestmark = pytest.mark.needs_root
BUSY = """\
entrypoint: [/bin/sh, -c, 'trap exit TERM; while :; do :; done']
healthcheck: {exec: [/bin/sh, -c, "true"], interval: 1s}
resources: {memory: 64Mi, cpus: 0.5}"""


def complaints(text: str) -> str:
    """Return what promtool has to say about a text of metrics."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    return f"{done.stdout}{done.stderr}" if done.returncode else ""


def test_an_instance_counts_measures_and_says_so_to_prometheus(host: Host) -> None:
    textfile = host.folder / "out" / "trimtab.prom"
    textfile.parent.mkdir(mode=0o777)
    textfile.parent.chmod(0o777)
    host.state.mkdir()
    (host.state / "trimtab.yaml").write_text(f"metrics: {{textfile: {textfile}}}\n")
    host.write("web.yaml", web(replicas=2))
    host.write("busy.yaml", web("busy", extra=BUSY))
    with host.running():
        host.await_ready("web", "busy")
        text = host.cli("metrics").stdout
        assert complaints(text) == ""
        for line in (
            'trimtab_up{process="broker"} 1',
            'trimtab_up{process="controller"} 1',
            'trimtab_series_dropped{process="controller"} 0',
            'trimtab_resource_ready{kind="Service",namespace="default",name="busy"} 1',
            "trimtab_open_intents 0",
            'trimtab_admissions_total{verdict="allow",rule=""}',
        ):
            assert line in text, line
        heads = [line.split()[2] for line in text.split("\n") if line.startswith("# TYPE")]
        assert set(heads) <= {each.name for each in FAMILIES}
        eventually(textfile.exists, what="the textfile")
        assert complaints(textfile.read_text()) == ""

        told = host.json("stats", "--no-stream")["containers"]
        assert [row["container"].split("-")[0] for row in told] == ["busy.1", "web.1", "web.2"]
        busy, first, _ = told
        assert 0.05 < busy["cpus"] < 0.6, "half a processor is its limit"
        assert busy["cpuLimit"] == 0.5 and busy["memoryLimitBytes"] == 64 << 20
        assert 0 < busy["memoryBytes"] < 64 << 20
        assert first["pids"] >= 1 and first["cpus"] < 0.2
        table = host.cli("stats", "--no-stream", "web").stdout.split("\n")
        assert [line.split()[0] for line in table[:4]] == ["NAME", "web", "web.1", "web.2"]

        host.cli("stop", "busy")
        assert [row["key"] for row in host.json("stats", "--no-stream")["containers"]] == [
            "Service/default/web",
            "Service/default/web",
        ]
    assert 'trimtab_up{process="broker"} 0' in host.cli("metrics").stdout
    assert "nothing.running" in host.cli("stats", "--no-stream", expect=1).stderr
