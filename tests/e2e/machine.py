"""A Debian with systemd as process 1 and an engine of its own, in a container of systemd-nspawn.

Needs root, mmdebstrap, systemd-container and a mirror of Debian. The container has its own network
without a way out, so what a story needs is copied into its root folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.instance import eventually

PACKAGES: Final = (
    *("systemd", "systemd-sysv", "dbus", "debconf", "ca-certificates", "procps", "python3"),
    *("docker.io", "docker-cli", "iptables"),
)
SUITE: Final = "trixie"
BOOT_S: Final = 90.0
STOP_S: Final = 90.0
#: What an engine in a container needs beyond the usual.
CALLS: Final = "bpf keyctl add_key @mount @privileged"


class MachineError(Exception):
    """The machine didn't start or stop, or a command failed in it."""


def missing() -> list[str]:
    """Return the programs that a machine needs and that aren't here."""
    programs = ("mmdebstrap", "systemd-nspawn", "nsenter", "unshare")
    return [each for each in programs if shutil.which(each) is None]


class Machine:
    """A machine with its root in a folder; ``boot`` starts it, and ``power_off`` stops it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._console: subprocess.Popen[bytes] | None = None
        self._init = 0  # the number here of its process 1

    def make(self) -> None:
        """Install Debian into the root folder."""
        argv = ("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}")
        subprocess.run((*argv, SUITE, str(self.root)), check=True)

    def boot(self) -> None:
        """Start the machine, and wait until its services are up."""
        # A mount that nspawn makes for the second hierarchy of cgroups stays in a namespace.
        argv = (
            *("unshare", "--mount", "--propagation", "private", "systemd-nspawn", "--quiet"),
            *("--boot", "--directory", str(self.root), "--register=no", "--keep-unit"),
            *("--private-network", "--capability=all", f"--system-call-filter={CALLS}"),
        )
        with (self.root.parent / "console.log").open("ab") as console:
            self._console = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        eventually(self._has_init, within_s=BOOT_S, what="process 1")
        eventually(self._is_up, within_s=BOOT_S, what="the start of all services")

    def power_off(self) -> None:
        """Stop the machine as an operator does, and wait until it is gone."""
        console = self._console
        if console is None:
            return
        self.run("systemctl", "--no-block", "poweroff")
        try:
            console.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise MachineError(f"not stopped within {STOP_S:.0f} s") from None
        self._console, self._init = None, 0

    def kill(self) -> None:
        """End the machine without asking it."""
        if self._init:
            with suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
        if self._console is not None:
            with suppress(subprocess.TimeoutExpired):
                self._console.wait(10)
            self._console.kill()
            self._console.wait()
        self._console, self._init = None, 0

    def inside(self, *argv: str) -> tuple[str, ...]:
        """Return the command that runs *argv* in the machine."""
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        clean = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root")
        quiet = ("DEBIAN_FRONTEND=noninteractive",)
        return ("nsenter", "--target", str(self._init), *spaces, *clean, *quiet, *argv)

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a command, and return what it printed on both outputs.

        Raises:
            MachineError: it failed, and *check* is set.
        """
        done = subprocess.run(
            self.inside(*argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        if check and done.returncode:
            raise MachineError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}")
        return done.stdout

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a command that goes on."""
        return subprocess.Popen(
            self.inside(*argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def path(self, name: str) -> Path:
        """Return where a file of the machine is here."""
        return self.root / name.lstrip("/")

    def _has_init(self) -> bool:
        console = self._console
        if console is None or console.poll() is not None:
            raise MachineError(f"the machine ended: {self.root.parent / 'console.log'}")
        found = [console.pid]
        while found:
            pid = found.pop()
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                    self._init = pid
                    return True
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                found += [int(each) for each in children.split()]
        return False

    def _is_up(self) -> bool:
        told = self.run("systemctl", "is-system-running", check=False).strip()
        return told in {"running", "degraded"}
