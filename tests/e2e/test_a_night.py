"""The worked incident of docs/operations/journal.md, typed as it stands there, on a night that is made for it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.app.process import SystemClock
from controller.app.state_folder import trimtab_gid
from controller.core.records.record import timestamp
from tests.gate.roles import ALICE
from tests.instance import TRIMTAB, Host, eventually, web

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "journal.md"
SECTION = "A night: who removed web at 03:12?"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What differs from night to night, and how it is compared.
SHAPES = (
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "ID"),
    (r"-[0-9a-f]{8}\b", "-REVISION"),
    (r"\b[0-9a-f]{12,}", "HEX"),
    (r"\b(client|uid):\d+", r"\1:UID"),
    (r"\b\d+\b|\d+(?=ms)", "N"),
    (r"\s+", " "),
)


def shape(line: str) -> str:
    for pattern, word in SHAPES:
        line = re.sub(pattern, word, line)
    return line.strip()


def check(printed: str, shown: str) -> None:
    """See that each line of the page was printed, in this order; one may be shown without its end."""
    rest = iter([shape(line) for line in printed.splitlines()])
    for line in map(shape, shown.splitlines()):
        begins = line.removesuffix("…")
        assert any(one == line or (begins != line and one.startswith(begins)) for one in rest), (
            f"{line!r} isn't shown, or not in this order:\n{printed}"
        )


class Night:
    """Who types, where, and what the page's times, numbers and places are in this night."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.means = {
            "/srv/desired": str(host.directory),
            "/var/lib/trimtab": str(host.state),
            "uid:1001": f"uid:{ALICE}",
        }
        self._blocks = iter(BLOCK.findall(section()))
        who = {"NAME": "dave", "EMAIL": "dave@example.org"}
        self._environment = host.environment(
            PATH=f"{Path(TRIMTAB).parent}:{host.environment()['PATH']}",
            TRIMTAB_STATE=str(host.state),
            **{f"GIT_{role}_{n}": v for role in ("AUTHOR", "COMMITTER") for n, v in who.items()},
        )

    def now(self, *names: str) -> None:
        """Let times of the page be the present."""
        self.means |= dict.fromkeys(names, timestamp(SystemClock().now()))

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            self.host.engine.inside(*argv),
            env=self._environment,
            cwd=self.host.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{argv}\n{done.stdout}"
        return done.stdout

    def git(self, *argv: str) -> str:
        return self.run("git", "-C", str(self.host.directory), *argv).strip()

    def next(self, kind: str) -> str:
        """Return the page's next block."""
        found, body = next(self._blocks)
        assert found == kind, f"expected {kind}: {body}"
        # All at once: an instant of this night may contain a time of the page.
        words = "|".join(re.escape(word) for word in sorted(self.means, key=len, reverse=True))
        return re.sub(words, lambda word: self.means[word[0]], body)

    def type_next(self) -> str:
        """Type the next commands, and see that what they print is what the page shows."""
        printed = self.run("bash", "-euo", "pipefail", "-c", self.next("sh"))
        check(printed, self.next("text"))
        return printed

    @contextmanager
    def following(self) -> Iterator[Callable[[], str]]:
        """Type the next command, which goes on until it is ended; gives what it printed so far."""
        argv = self.host.engine.inside(*self.next("sh").split())
        path = self.host.folder / "followed"
        with path.open("wb") as file:
            followed = subprocess.Popen(
                argv, env=self._environment, cwd=self.host.folder, stdout=file
            )
        try:
            yield path.read_text
        finally:
            followed.terminate()
            followed.wait(timeout=60)


def section() -> str:
    return PAGE.read_text().partition(f"\n## {SECTION}\n")[2].partition("\n## ")[0]


def removals(host: Host) -> list[dict[str, Any]]:
    """Return the intents to remove a container that have an outcome."""
    records = host.records()
    closed = {r["id"] for r in records if r["stage"] == "outcome"}
    intents = (r for r in records if r["stage"] == "intent" and r["id"] in closed)
    return [r for r in intents if r["request"]["route"] == "container.remove"]


def remove_as_client(host: Host, name: str) -> None:
    """Remove a container through the broker as a client that the policy names."""
    group = str(trimtab_gid())
    become = ("setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", f"--groups={group}")
    docker = ("docker", "-H", f"unix://{host.broker_socket}", "rm", "--force", name)
    done = subprocess.run(
        host.engine.inside(*become, *docker),
        env=host.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.needs_root
def test_who_removed_web_is_found_as_the_page_says(host: Host) -> None:
    text = Path(host.policy).read_text() + f"clients: [{{uid: {ALICE}, owner: team}}]\n"
    (host.folder / "policy.yaml").write_text(text)
    host.policy = str(host.folder / "policy.yaml")
    night = Night(host)
    night.git("init", "--quiet")
    host.write("web.yaml", web(extra="stopGracePeriod: 0s"))
    host.write("other.yaml", web("other", extra="stopGracePeriod: 0s"))
    night.git("add", ".")
    night.git("commit", "--quiet", "--message", "Serve")
    served = night.git("rev-parse", "HEAD")
    night.git("checkout", "--quiet", "-b", "tidy")
    night.git("rm", "--quiet", "web.yaml")
    night.git("commit", "--quiet", "--message", "Tidy up")
    removed = night.git("rev-parse", "HEAD")
    night.git("checkout", "--quiet", "-")
    with host.running():
        (before,) = host.containers("web")
        night.now("03:00", "03:10")
        night.git("merge", "--quiet", "--ff-only", "tidy")
        (removal,) = eventually(lambda: removals(host), what="web is removed")
        night.now("03:20")
        night.means |= {
            "show 43": f"show {removal['seq']}",
            "explain fbd5d3fec112": f"explain {before['Id'][:12]}",
            "93eb5c1ea49c25f12e7fdd7fd33a8f5ee2a7ea4e": removed,
        }
        for _ in range(2):
            night.type_next()
        told = night.type_next()
        assert f"not declared in {removed}" in told
        assert re.search(r"^dave, .*: Tidy up$", told, re.MULTILINE)
        assert f" web.yaml:1 of {served[:12]}\n" in night.type_next()
        for _ in range(2):
            night.type_next()
        with night.following() as told_so_far:
            eventually(told_so_far, what="the last records before")
            remove_as_client(host, host.names("web")[0])
            eventually(lambda: "client:" in told_so_far(), what="the removal is told")
            eventually(
                lambda: "container.create" in told_so_far().rpartition("client:")[2],
                what="its healing is told",
            )
            check(told_so_far(), night.next("text"))
        assert f"client:{ALICE}" in night.run("bash", "-c", night.next("sh"))
