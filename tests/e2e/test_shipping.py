"""Shipping, as users run it: to a real rsyslog, a strict collector, files; killed and restarted."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import write_certificate
from tests.engine import free_port
from tests.instance import TRIMTAB, Host, descendants, eventually, web
from tests.otlp import Collector

CONFIG = """\
global(workDirectory="{folder}" maxMessageSize="1m")
module(load="imtcp")
module(load="imudp")
template(name="told" type="string" string="%structured-data% %app-name% %msgid% %msg%\\n")
ruleset(name="tcp") {{ action(type="omfile" file="{folder}/tcp" template="told" fileCreateMode="0644") }}
ruleset(name="tls") {{ action(type="omfile" file="{folder}/tls" template="told" fileCreateMode="0644") }}
ruleset(name="udp") {{ action(type="omfile" file="{folder}/udp" template="told" fileCreateMode="0644") }}
input(type="imtcp" address="127.0.0.1" port="{tcp}" ruleset="tcp" maxFrameSize="1000000")
input(type="imtcp" address="127.0.0.1" port="{tls}" ruleset="tls" maxFrameSize="1000000"
  streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon"
  streamDriver.CAFile="{folder}/ca.pem" streamDriver.CertFile="{folder}/ca.pem"
  streamDriver.KeyFile="{folder}/key.pem")
input(type="imudp" address="127.0.0.1" port="{udp}" ruleset="udp")
"""


class Rsyslog:
    """Debian's rsyslogd with a configuration of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="trimtab-rsyslog-", dir="/tmp"))
        self.folder.chmod(0o755)
        write_certificate(self.folder)
        self.ports = {
            "tcp": free_port(),
            "tls": free_port(),
            "udp": free_port(),
        }
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "rsyslog.conf").write_text(CONFIG.format(folder=self.folder, **self.ports))
        self.start()

    def start(self) -> None:
        argv = ["rsyslogd", "-n", "-f", str(self.folder / "rsyslog.conf")]
        argv += ["-i", str(self.folder / "pid")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

        def listens() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text()
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.ports["tls"]), 1).close()
                return True
            return False

        eventually(listens, what="rsyslog listens")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def said(self, how: str) -> list[str]:
        path = self.folder / how
        return path.read_text().splitlines() if path.exists() else []

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def rsyslog() -> Iterator[Rsyslog]:
    made = Rsyslog()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    try:
        yield made
    finally:
        made.close()


class Ship:
    """`trimtab ship` of an instance, in the background."""

    def __init__(self, host: Host, *targets: str) -> None:
        self._host = host
        self._targets = targets
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [TRIMTAB, "ship", "--state", str(self._host.state)]
        for target in self._targets:
            argv += ["--to", target]
        with self._host.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def worker(self) -> int:
        """Return the pid of the process that parses and talks."""
        assert self.process is not None
        below = list(descendants(self.process.pid))
        return below[-1] if below else self.process.pid

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)


def journal_of(host: Host) -> list[str]:
    """Return the lines in the journal's files."""
    segments = sorted((host.state / "broker" / "journal").glob("*.jsonl"))
    return [line for segment in segments for line in segment.read_text().splitlines()]


def messages(said: list[str]) -> dict[int, str]:
    """Return what rsyslog read, by the sequence that the message had."""
    found = {}
    for line in said:
        data, _, rest = line.partition("] trimtab ")
        sequence = int(data.partition('sequenceId="')[2].partition('"')[0])
        found[sequence] = rest.partition(" ")[2]
    return found


@pytest.mark.needs_root
def test_every_record_reaches_every_place_whatever_is_killed_on_the_way(
    host: Host, rsyslog: Rsyslog, collector: Collector
) -> None:
    out = host.folder / "shipped"
    out.mkdir()
    shutil.chown(out, "trimtab-ship", "trimtab-ship")
    tls = f"127.0.0.1:{rsyslog.ports['tls']}?ca={rsyslog.folder}/ca.pem"
    ship = Ship(
        host,
        f"tcp=syslog+tcp://127.0.0.1:{rsyslog.ports['tcp']}?format=cef",
        f"tls=syslog+tls://{tls}",
        f"udp=syslog+udp://127.0.0.1:{rsyslog.ports['udp']}",
        f"otel=otlp+{collector.url}",
        f"file=file://{out}/journal.jsonl",
        f"witness=note://{out}/journal.checkpoint",
    )
    host.write("web.yaml", web())
    host.up()
    host.await_ready("web")
    ship.start()
    eventually(lambda: len(messages(rsyslog.said("tls"))) > 5, what="records arrive")

    # Who talks to the network has no right to the journal, nor to anything else.
    status = Path(f"/proc/{ship.worker()}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] == str(out.stat().st_uid)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    folder = (host.state / "broker").stat()
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid) == (0o700, 0)

    # Killed, and a receiver away, while more happens.
    rsyslog.stop()
    os.kill(ship.worker(), signal.SIGKILL)
    assert ship.process is not None
    assert ship.process.wait(20) == 1
    ship.start()
    host.write("more.yaml", web("more"))
    host.await_ready("web", "more")
    told: dict[str, Any] = eventually(lambda: behind(host), what="it says that it is behind")
    assert told["tcp"]["error"]
    assert told["file"]["error"] == ""
    rsyslog.start()

    host.stop()  # the journal is complete, and its broker gone
    lines = journal_of(host)
    last = json.loads(lines[-1])["seq"]

    def arrived() -> bool:
        sinks = positions(host)
        return all(sink["seq"] == last and sink["lag_records"] == 0 for sink in sinks)

    eventually(arrived, within_s=90, what="everything arrived")
    shown = host.cli("ship", "--status", "--json").stdout
    assert {sink["seq"] for sink in json.loads(shown)["sinks"]} == {last}
    assert ship.stop() == 0

    wanted = {json.loads(line)["seq"]: line for line in lines}
    assert (out / "journal.jsonl").read_text().splitlines()[-1] == lines[-1]
    assert set((out / "journal.jsonl").read_text().splitlines()) == set(lines)
    assert messages(rsyslog.said("tls")) == wanted
    cef = messages(rsyslog.said("tcp"))
    assert cef.keys() == wanted.keys()
    assert all(text.startswith("CEF:0|trimtab|trimtab|") for text in cef.values())
    datagrams = messages(rsyslog.said("udp"))  # as many as somebody listened for
    assert all(wanted[seq] == line for seq, line in datagrams.items())
    assert collector.wrong == []
    assert {log["line"] for log in collector.taken} == set(lines)
    published = (host.state / "journal.checkpoint").read_text()
    assert (out / "journal.checkpoint").read_text() == published
    host.cli("journal", "verify", "--checkpoint", str(out / "journal.checkpoint"))


def positions(host: Host) -> list[dict[str, Any]]:
    """Return what ``ship --status --json`` prints, by its file: this is polled."""
    told = json.loads((host.state / "ship" / "status.json").read_text())
    return list(told["sinks"])


def behind(host: Host) -> dict[str, Any]:
    """Return the sinks by name, once those whose receiver is away are behind; else {}."""
    sinks = {sink["name"]: sink for sink in positions(host)}
    waiting = all(sinks[name]["lag_records"] and sinks[name]["error"] for name in ("tcp", "tls"))
    return sinks if waiting else {}
