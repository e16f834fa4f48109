"""The package's life on a Debian that boots: ``make ring KIND=package`` (root; ten minutes).

Install, a Compose project, a reboot, upgrades under requests and streams, with a journal of 1 GiB too, a
downgrade, a refused one, remove, purge and a new install. All the time the container is the same. Each
step prints what it found; the run adds a line to docs/operations/services.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyrage

from controller.app.process import SystemClock
from controller.core.transparency import parse_private
from controller.settings import StateFolder
from tests.e2e.machine import Machine, MachineError, missing
from tests.instance import eventually
from tools import demo_images
from tools.benches.records import lengthen
from tools.busybox import find_static_busybox

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "operations" / "services.md"
HEAD: Final = "| date | commit | steps | longest wait, small journal | with 1 GiB | outcome |\n|---|---|---|---|---|---|\n"
STATE: Final = StateFolder(root=Path("/var/lib/trimtab"), run=Path("/var/lib/trimtab/run"))
GIB: Final = 2**30
READY_S: Final = 60.0
GOAL_S: Final = 3.0
COMPOSE: Final = """services:
  web:
    image: trimtab.local/web:1
    configs:
      - source: page
        target: /www/page.html
    volumes: [data:/data]
configs:
  page: {file: ./page.html}
volumes:
  data: {}
"""
#: Asks over and over, each time by a connection of its own, and tells how long the longest answer took.
ASKER: Final = """import http.client, json, os, socket, sys, threading, time

class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(sys.argv[1])

def ask():
    while not os.path.exists("/root/enough"):
        begun = time.monotonic()
        try:
            client = Local("gate")
            client.request("GET", "/v1.44/containers/json")
            answer = client.getresponse()
            answer.read()
            client.close()
            if answer.status != 200:
                failed.append("status %d" % answer.status)
        except Exception as problem:
            failed.append(repr(problem))
        waits.append(time.monotonic() - begun)

waits, failed = [], []
threads = [threading.Thread(target=ask) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
print(json.dumps({"answers": len(waits), "longest": max(waits), "failed": failed[:3], "failures": len(failed)}))
"""


#: Prints what the broker would know of many paths of the host, for comparing two views of it.
VERDICTS: Final = """import json, os
from dataclasses import asdict
from controller.broker.host.path_inspector import PathInspector, protected_places

def below(folder, depth):
    if folder == "/run/systemd":
        return  # it names the unit that looks
    yield folder
    try:
        names = sorted(os.listdir(folder)) if depth else []
    except OSError:
        return
    for name in names:
        if not name.isdecimal():
            yield from below(os.path.join(folder, name), depth - 1)

with open("/proc/self/mountinfo") as file:
    mounts = [line.split()[4] for line in file]
paths = sorted({*below("/", 2), *below("/run", 3), *below("/var/lib/trimtab", 3), *below("/etc/trimtab", 4), *mounts})
state = "/var/lib/trimtab"
protected = protected_places(
    state=state, policy="/etc/trimtab/policy.yaml", settings="/etc/trimtab/trimtab.yaml",
    desired_state="/etc/trimtab/desired-state", engine_data="/var/lib/docker",
    sockets=(("broker socket", state + "/run/broker.sock"), ("engine socket", "/run/docker.sock")),
    secrets=("/run/trimtab/secrets",),
)
facts = PathInspector(protected, own_uid=0).inspect(tuple(paths))
print(json.dumps([asdict(each) for each in facts], sort_keys=True, default=str))
"""


@dataclass
class Life:
    """One run: the machine, the two versions, and what was found."""

    machine: Machine
    old: str  # names of the packages in the machine's /root
    new: str
    longest_s: dict[str, float] = field(default_factory=dict)
    container: str = ""

    def install(self) -> None:
        self.machine.run(
            "apt-get", "install", "--yes", "--no-install-recommends", f"/root/{self.old}"
        )
        assert self.active() == ["active", "active"]

    def project(self) -> None:
        machine = self.machine
        policy = machine.path("/etc/trimtab/policy.yaml")
        # An engine below a container has no controllers of its cgroup to bound memory with.
        text, count = re.subn(
            r"ignores: \[[^\]]*\]", "ignores: [memory, swap, cpus, pids]", policy.read_text()
        )
        assert count == 1
        policy.write_text(text)
        machine.run("docker", "load", "--input", "/root/web.tar")
        machine.run("trimtab", "policy", "reload")
        machine.run("trimtab", "image", "trust", "trimtab.local/web:1")
        folder = machine.path("/etc/trimtab/desired-state/shop")
        folder.mkdir()
        (folder / "page.html").write_text("hello\n")
        (folder / "compose.yaml").write_text(COMPOSE)
        self.is_ready()
        self.container = self.ids()

    def daily_units(self) -> None:
        """The units of the timers make a backup that can be verified, and verify the journal."""
        machine = self.machine
        timers = machine.run("systemctl", "is-active", *(f"{each}.timer" for each in DAILY))
        assert timers.split() == ["active", "active"], timers
        folder = machine.path(BACKUPS)
        folder.mkdir(mode=0o700)
        recipient = pyrage.x25519.Identity.generate().to_public()
        settings = machine.path("/etc/trimtab/trimtab.yaml")
        lines = f"backup: {{to: {BACKUPS}, recipient: {recipient}, volumes: [all]}}\n"
        settings.write_text(f"{settings.read_text()}\n{lines}")
        machine.run("trimtab", "settings", "reload")
        for unit in DAILY:
            machine.run("systemctl", "start", f"{unit}.service")
        (file,) = folder.iterdir()
        made = json.loads(
            machine.run("trimtab", "backup", "verify", f"{BACKUPS}/{file.name}", "--json")
        )
        assert (made["ok"], made["volumes"], made["volumesLeftOut"]) == (True, ["shop.data"], [])
        verified = json.loads(machine.path(str(STATE.verified)).read_text())
        assert verified["result"] == "ok", verified
        assert verified["records"] >= made["records"]
        print(f"    {file.name}, {verified['records']} records", flush=True)
        self.is_ready()
        self.same()

    def optional_units(self) -> None:
        """The units that serve, send and ship start once they are set up, and load nothing later."""
        machine = self.machine
        settings = machine.path("/etc/trimtab/trimtab.yaml")
        settings.write_text(f"{settings.read_text()}\n{OPTIONAL_SETTINGS}")
        policy = machine.path("/etc/trimtab/policy.yaml")
        uids = [machine.run("id", "-u", user).strip() for user in ("trimtab-web", "trimtab-notify")]
        lines = "".join(f"  - {{uid: {uid}, owners: all}}\n" for uid in uids)
        text = policy.read_text()
        assert re.search(r"^viewers: \[\]", text, re.MULTILINE), text
        policy.write_text(re.sub(r"^viewers: .*\n", f"viewers:\n{lines}", text, flags=re.MULTILINE))
        machine.run("trimtab", "settings", "reload")
        machine.run("trimtab", "policy", "reload")
        machine.run("systemctl", "enable", "--now", *OPTIONAL)  # returns when they are ready
        told = machine.run("trimtab", "notify", "test", "probe")
        assert "probe" in told, told
        asked = (
            "import urllib.request as r; print(r.urlopen('http://127.0.0.1:18474/login').status)"
        )
        assert machine.run("python3", "-c", asked).strip() == "200"

        def is_shipped() -> bool:
            told = machine.run("trimtab", "ship", "--status", check=False)
            return re.search(r"^archive +[1-9]\d* +0 .* -$", told, re.MULTILINE) is not None

        eventually(is_shipped, within_s=READY_S, what="the journal is shipped")
        assert machine.run("systemctl", "is-active", *OPTIONAL).split() == ["active"] * 3
        log = machine.run("journalctl", "--boot", "--unit", "trimtab-*", "--output", "cat")
        assert "import.late" not in log, re.findall(r".*import\.late.*", log)

    def paths_inside_and_outside(self) -> None:
        """The broker's facts of paths are the same in its unit and outside of any."""
        machine = self.machine
        machine.path("/root/verdicts.py").write_text(VERDICTS)
        command = ("/usr/lib/trimtab/bin/python3", "-I", "/root/verdicts.py")
        unit = machine.path("/usr/lib/systemd/system/trimtab-broker.service").read_text()
        own = r"^(Type|ExecReload|Sockets|Restart\w*|WatchdogSec|PartOf|Requires|Wants|After)=.*\n"
        text = re.sub(own, "", unit, flags=re.MULTILINE)
        text = re.sub(r"^ExecStart=.*$", f"ExecStart={' '.join(command)}", text, flags=re.MULTILINE)
        text = text.replace(
            "[Service]\n", "[Service]\nType=oneshot\nStandardOutput=truncate:/root/inside.json\n"
        )
        machine.path("/etc/systemd/system/verdicts.service").write_text(text)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "stop", *SERVICES, *OPTIONAL)  # they replace files meanwhile
        machine.run("systemctl", "start", "verdicts.service")
        inside = json.loads(machine.path("/root/inside.json").read_text())
        outside = json.loads(machine.run(*command))
        machine.run("systemctl", "start", *SERVICES, *OPTIONAL)
        assert inside == outside, [each for each in inside if each not in outside][:3]
        print(f"    {len(inside)} paths", flush=True)
        self.is_ready()

    def reboot(self) -> None:
        self.machine.power_off()
        self.machine.boot()
        self.is_ready()
        self.same()
        failed = self.machine.run(
            "systemctl", "list-units", "--failed", "--no-legend", "trimtab*", "docker*"
        ).strip()
        assert not failed, failed

    def upgrade_with_a_mistake(self) -> None:
        """A policy that can't be read: nothing is restarted, and the mistake is told."""
        policy = self.machine.path("/etc/trimtab/policy.yaml")
        kept, before = policy.read_bytes(), self.broker()
        policy.write_bytes(kept + b"mistaken: 1\n")
        told = self.dpkg("--install", f"/root/{self.new}")
        policy.write_bytes(kept)
        assert "mistaken" in told, told
        assert self.broker() == before
        self.dpkg("--install", f"/root/{self.old}")
        self.is_ready()
        self.same()

    def upgrade(self) -> None:
        self.under_load(self.new, "small")

    def downgrade(self) -> None:
        self.dpkg("--install", f"/root/{self.old}")
        self.is_ready()
        self.same()

    def refused_downgrade(self) -> None:
        """The state says that an older version can't read it."""
        instance = self.machine.path("/var/lib/trimtab/instance.json")
        kept, before, version = instance.read_bytes(), self.broker(), self.version()
        told = json.loads(kept)
        told["format"] = {"written": 99, "readable": 99}
        instance.write_text(json.dumps(told, indent=2))
        try:
            said = self.machine.run("dpkg", "--install", f"/root/{self.new}", check=False)
        finally:
            instance.write_bytes(kept)
        assert "Nothing was changed" in said, said
        assert (self.broker(), self.version()) == (before, version)
        status = self.machine.run(
            "dpkg-query", "--show", "--showformat=${db:Status-Status}", "trimtab"
        )
        assert status == "installed", status
        self.same()

    def upgrade_with_a_long_journal(self) -> None:
        machine = self.machine
        machine.run("systemctl", "stop", *SERVICES, *OPTIONAL)
        text = machine.path(str(STATE.journal_key)).read_text()
        lengthen(
            machine.path(str(STATE.journal)),
            GIB,
            key=parse_private(text.strip()),
            end=SystemClock().now(),
        )
        machine.run("systemctl", "start", *SERVICES, *OPTIONAL)
        self.is_ready()
        self.under_load(self.new, "1 GiB")

    def verified(self) -> None:
        told = json.loads(self.machine.run("trimtab", "journal", "verify", "--json"))
        assert told["ok"], told
        print(f"    {told['records']} records", flush=True)

    def remove(self) -> None:
        told = self.dpkg("--remove", "trimtab")
        assert "containers run on" in told, told
        units = self.machine.run("systemctl", "list-units", "trimtab*", "--no-legend", "--plain")
        assert not units.strip(), units
        self.same()

    def purge(self) -> None:
        told = self.dpkg("--purge", "trimtab")
        assert "/var/lib/trimtab/files" in told, told
        for folder, kept in (("/var/lib/trimtab", "files"), ("/etc/trimtab", "desired-state")):
            assert [each.name for each in self.machine.path(folder).iterdir()] == [kept]
        self.same()
        page = self.machine.run("docker", "exec", self.container, "cat", "/www/page.html")
        assert page == "hello\n", page

    def reinstall(self) -> None:
        self.dpkg("--install", f"/root/{self.new}")
        assert self.active() == ["active", "active"]
        eventually(lambda: "web" in self.status(), within_s=READY_S, what="web is shown")
        self.same()

    # What the steps share.

    def under_load(self, package: str, name: str) -> None:
        """Upgrade while requests are made and streams are open."""
        machine = self.machine
        gate = f"unix://{STATE.run / 'broker-operator.sock'}"
        docker = ("docker", "--host", gate)
        before = self.broker()
        asker = machine.start("python3", "/root/asker.py", str(STATE.run / "broker-operator.sock"))
        streams = [
            machine.start(*docker, "logs", "--follow", self.container),
            machine.start(*docker, "exec", self.container, "sh", "-c", "echo open; exec sleep 600"),
            machine.start(*docker, "events", "--since", "24h"),
        ]
        for each in streams:
            assert each.stdout is not None
            assert each.stdout.readline(), each.args
        self.dpkg("--install", f"/root/{package}")
        assert self.broker() != before
        machine.path("/root/enough").touch()
        told = asker.communicate(timeout=60)[0]
        machine.path("/root/enough").unlink()
        assert told.startswith("{"), told[-2000:]
        found: dict[str, Any] = json.loads(told)
        assert not found["failures"], found
        ends = [(each.communicate(timeout=20)[0][-200:], each.returncode) for each in streams]
        log = machine.run("journalctl", "--boot", "--unit", "trimtab-broker", "--output", "cat")
        cut = re.findall(r"stream\.cut.*", log)
        assert len(cut) >= len(streams), (ends, cut, log[-2000:])
        self.longest_s[name] = found["longest"]
        print(f"    cut: {cut}; {ends}", flush=True)
        print(
            f"    {found['answers']} answers, the longest took {found['longest']:.2f} s", flush=True
        )
        self.is_ready()
        self.same()

    def dpkg(self, *argv: str) -> str:
        return self.machine.run("dpkg", *argv)

    def status(self) -> str:
        return self.machine.run("trimtab", "status", check=False)

    def is_ready(self) -> None:
        def ready() -> bool:
            return re.search(r"web\s.*1/1.*Ready", self.status()) is not None

        try:
            eventually(ready, within_s=READY_S, what="web is Ready")
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{self.status()}") from None

    def ids(self) -> str:
        return self.machine.run("docker", "ps", "--quiet", "--no-trunc").strip()

    def same(self) -> None:
        assert self.ids() == self.container

    def broker(self) -> str:
        return self.machine.run(
            "systemctl", "show", "--property", "MainPID", "--value", SERVICES[0]
        )

    def version(self) -> str:
        return self.machine.run("dpkg-query", "--show", "--showformat=${Version}", "trimtab")

    def active(self) -> list[str]:
        return self.machine.run("systemctl", "is-active", *SERVICES, check=False).split()


SERVICES: Final = ("trimtab-broker.service", "trimtab-controller.service")
DAILY: Final = ("trimtab-backup", "trimtab-verify")
OPTIONAL: Final = ("trimtab-ship.service", "trimtab-notify.service", "trimtab-web.service")
OPTIONAL_SETTINGS: Final = """\
ship: {to: [archive=file:///var/lib/trimtab/ship/archive.jsonl]}
web: {listen: "127.0.0.1:18474"}
notify: {destinations: {probe: {command: [/bin/true]}}}
"""
BACKUPS: Final = "/var/backups/trimtab"
STEPS: Final[tuple[Callable[[Life], None], ...]] = (
    Life.install,
    Life.project,
    Life.daily_units,
    Life.optional_units,
    Life.paths_inside_and_outside,
    Life.reboot,
    Life.upgrade_with_a_mistake,
    Life.upgrade,
    Life.downgrade,
    Life.refused_downgrade,
    Life.upgrade_with_a_long_journal,
    Life.verified,
    Life.remove,
    Life.purge,
    Life.reinstall,
)


def build(folder: Path, version: str) -> Path:
    """Build the package with a version of its own."""
    environment = {**os.environ, "TRIMTAB_DEB_VERSION": version}
    told = subprocess.run(
        (ROOT / "tools" / "deb", folder),
        check=True,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Path(told.stdout.strip().rpartition("\n")[2])


def furnish(machine: Machine, packages: list[Path]) -> None:
    """Put what the steps need into the machine's /root."""
    home = machine.path("/root")
    for package in packages:
        shutil.copy(package, home)
    program = find_static_busybox()
    assert program is not None, "a static busybox is missing"
    image = demo_images.archive(demo_images.web("1"), program.read_bytes())
    with (home / "web.tar").open("wb") as file:
        file.writelines(image.stream())
    (home / "asker.py").write_text(ASKER)


def main() -> int:
    """Run the steps; the exit code is 1 if one failed."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp"), help="where the machine is made"
    )
    parser.add_argument(
        "--packages",
        nargs=2,
        type=Path,
        metavar=("OLD", "NEW"),
        help="two versions that are built already (default: this commit, twice)",
    )
    options = parser.parse_args()
    if gone := missing():
        print(
            f"make ring: {', '.join(gone)} missing; apt install mmdebstrap systemd-container",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="machine-", dir=options.folder) as folder:
        place = Path(folder)
        packages = options.packages or [
            build(place / "dist", f"0.1.{number}-1~ring") for number in (0, 1)
        ]
        machine = Machine(place / "root")
        machine.make()
        furnish(machine, packages)
        life = Life(machine, packages[0].name, packages[1].name)
        outcome = "all as expected"
        done = 0
        try:
            machine.boot()
            for step in STEPS:
                begun = time.monotonic()
                step(life)
                done += 1
                print(f"ok  {step.__name__} ({time.monotonic() - begun:.0f} s)", flush=True)
            machine.power_off()
        except (
            AssertionError,
            MachineError,
            OSError,
            ValueError,
            subprocess.SubprocessError,
        ) as problem:
            outcome = f"{STEPS[done].__name__} failed"
            print(f"{outcome}: {problem}", file=sys.stderr)
            print(
                machine.run(
                    "journalctl",
                    "--boot",
                    "--unit",
                    "trimtab*",
                    "--no-pager",
                    "--lines",
                    "40",
                    check=False,
                )
            )
        finally:
            machine.kill()
    if late := [name for name, longest_s in life.longest_s.items() if longest_s > GOAL_S]:
        outcome += f"; {', '.join(late)}: beyond the goal of {GOAL_S:g} s"
    add_line(done, life.longest_s, outcome)
    return 0 if done == len(STEPS) else 1


def add_line(done: int, longest_s: dict[str, float], outcome: str) -> None:
    """Add the run to the page."""
    commit = subprocess.run(
        ("git", "rev-parse", "--short=10", "HEAD"),
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.strip()
    waits = [f"{longest_s[name]:.2f} s" if name in longest_s else "" for name in ("small", "1 GiB")]
    line = f"| {time.strftime('%Y-%m-%d')} | {commit} | {done} of {len(STEPS)} | {waits[0]} | {waits[1]} | {outcome} |\n"
    text = PAGE.read_text("utf-8")
    assert HEAD in text
    PAGE.write_text(text.replace(HEAD, HEAD + line), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
