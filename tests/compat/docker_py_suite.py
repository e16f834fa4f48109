"""docker-py's own integration suite, on an engine and through a broker: what differs, and why.

``python -m tests.compat.docker_py_suite SUITE`` takes a checkout of github.com/docker/docker-py. It
runs the suite straight on an engine of its own, then through a broker under policies/home as root,
and compares test by test. A test that passes straight and not through the broker must be refused by
a rule that docs/compatibility.md names; whatever else differs is a defect, and the exit code is 1.

Nothing of the suite is part of this project. Pulls are answered by a registry beside each engine,
which serves images of busybox under the names that the suite uses.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import venv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import yaml

from tests import engine as engines
from tests.compat.table import ALWAYS, CHANGED
from tests.compat.world import PROJECT, Broker
from tests.engine import PrivateEngine
from tests.registry import Registry
from tools import dockerd
from tools.busybox import find_static_busybox

HOME = PROJECT / "configs" / "policies" / "home.yaml"
PAGE = PROJECT / "docs" / "compatibility.md"
CODES = "".join(page.read_text() for page in sorted((PROJECT / "docs" / "errors").glob("*.md")))
MIRROR = "127.0.0.1:5000"
IMAGES = ("alpine:3.10", "alpine:latest", "busybox:latest", "hello-world:latest")
#: What the suite imports besides docker-py itself.
NEEDED = ("requests", "urllib3", "paramiko", "pytest", "pytest-timeout")
TEST_S = 60
FILE_S = 1800
#: Writes the outcome of each test, and when it began and ended, as a line of JSON.
PLUGIN = """
import json, os, time
import pytest

BEGAN, OUT = {}, os.environ["TRIMTAB_OUTCOMES"]

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logstart(nodeid, location):
    BEGAN[nodeid] = {"test": nodeid, "began": time.time(), "outcome": "passed", "text": ""}

def pytest_runtest_logreport(report):
    told = BEGAN[report.nodeid]
    if report.outcome == "failed" or (report.outcome == "skipped" and told["outcome"] == "passed"):
        told["outcome"] = report.outcome
        told["text"] += str(report.longrepr or "")

def pytest_runtest_logfinish(nodeid, location):
    with open(OUT, "a") as out:
        out.write(json.dumps({**BEGAN[nodeid], "ended": time.time()}) + "\\n")
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a test: passed, failed or skipped, with its error and its span of time."""

    test: str
    outcome: str
    text: str = ""
    began: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """A refusal in the broker's journal, or an intent that was changed: when, and by which rules."""

    at: float
    rules: tuple[str, ...]
    refused: bool = True


@dataclass(frozen=True, slots=True)
class Difference:
    """A test that passes straight and not through the broker; without rules it is a defect.

    ``refused`` are the rules that refused anything in its time, for whoever looks into a defect.
    """

    test: str
    outcome: str
    text: str
    rules: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The two runs, side by side; ``named`` are the rules of the page on compatibility."""

    straight: Mapping[str, Outcome]
    through: Mapping[str, Outcome]
    differences: tuple[Difference, ...]
    named: frozenset[str]

    @property
    def defects(self) -> list[Difference]:
        """Differences that no rule of the page explains."""
        return [each for each in self.differences if not self.named & {*each.rules}]


def compare(
    straight: Mapping[str, Outcome],
    through: Mapping[str, Outcome],
    journal: Sequence[Judgement],
    named: Iterable[str],
) -> Comparison:
    """Return how the runs differ, and the rules behind each difference.

    A rule that the test's own error quotes is the cause; else those that changed something in the
    test's time, if the error shows what. That something was refused in its time proves nothing:
    clean-up is refused too, and the test goes on.
    """
    differences = []
    for test, outcome in straight.items():
        other = through.get(test, Outcome(test, "missing"))
        if outcome.outcome != "passed" or other.outcome == "passed":
            continue
        met = [each for each in journal if other.began <= each.at <= other.ended]
        quoted = [rule for rule in _QUOTED.findall(other.text) if rule in _codes()]
        refused = [rule for each in met if each.refused for rule in each.rules]
        changed = [rule for each in met if not each.refused for rule in each.rules]
        may = [rule for rule in (*changed, *ALWAYS) if rule in CHANGED]
        shown = [rule for rule in may if re.search(CHANGED[rule][1], other.text)]
        rules, met_rules = tuple(dict.fromkeys(quoted or shown)), tuple(dict.fromkeys(refused))
        differences.append(Difference(test, other.outcome, other.text, rules, met_rules))
    return Comparison(straight, through, tuple(differences), frozenset(named))


def report(comparison: Comparison) -> Iterator[str]:
    """Yield the share, the table by rule and the defects."""
    counts = {
        name: Counter(each.outcome for each in run.values())
        for name, run in (("straight", comparison.straight), ("through", comparison.through))
    }
    for name, counted in counts.items():
        yield f"{name:<9} " + ", ".join(f"{n} {word}" for word, n in sorted(counted.items()))
    by_rule = Counter(
        next(rule for rule in each.rules if rule in comparison.named)
        for each in comparison.differences
        if comparison.named & {*each.rules}
    )
    yield ""
    for rule, count in by_rule.most_common():
        yield f"{count:>5}  {'changed' if rule in CHANGED else 'refused'}: {rule}"
    passed = counts["straight"]["passed"]
    same = passed - len(comparison.differences)
    share = f"{100 * same / passed:.1f} %" if passed else "none"
    yield ""
    yield f"{passed} pass straight; {same} of them pass through the broker ({share}),"
    changes = sum(count for rule, count in by_rule.items() if rule in CHANGED)
    yield f"{sum(by_rule.values()) - changes} are refused by a rule that docs/compatibility.md names,"
    yield f"{changes} see what a rule of that page changes,"
    yield f"{len(comparison.defects)} are defects"
    for each in comparison.defects:
        yield f"\nDEFECT {each.test}: {each.outcome}; refused meanwhile: {', '.join(each.refused) or 'nothing'}"
        yield textwrap.indent("\n".join(each.text.splitlines()[-6:]), "    ")


#: How an answer of the broker begins: with the rule's id.
_QUOTED = re.compile(r"[\"'(]([a-z][a-z-]*(?:\.[a-z0-9][a-z0-9-]*)*): ")


@cache
def _codes() -> frozenset[str]:
    return frozenset(re.findall(r"^\| `([a-z0-9.-]+)` \|", CODES, re.MULTILINE))


def named_rules(page: str) -> frozenset[str]:
    """Return the rules that the page on compatibility names: those that refuse and that change."""
    return frozenset(re.findall(r"(?:refused|changed): `([a-z0-9.-]+)`", page))


def read_journal(journal: Path) -> list[Judgement]:
    """Return what a broker's journal has refused and changed."""
    found = []
    for segment in sorted(journal.glob("*.jsonl")):
        for line in segment.read_text().splitlines():
            record = json.loads(line)
            if record["stage"] in {"refusal", "intent"}:
                rules = tuple(record["verdict"]["rules"])
                at = datetime.fromisoformat(record["time"]).timestamp()
                found.append(Judgement(at, rules, refused=record["stage"] == "refusal"))
    return found


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """Return what the plugin wrote."""
    told = (json.loads(line) for line in path.read_text().splitlines())
    return {each["test"]: Outcome(**each) for each in told}


def python_for(suite: Path) -> Path:
    """Return an interpreter that has what the suite imports; made in the suite's folder if need be."""
    folder = suite / ".venv"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *NEEDED], check=True)
    return python


@contextmanager
def engine_with_images(folder: Path) -> Iterator[PrivateEngine]:
    """Have an engine that has the suite's images, and pulls them from a registry beside it."""
    with ExitStack() as stack:
        engine = PrivateEngine()
        stack.callback(engine.close)
        engine.options = (f"--registry-mirror=http://{MIRROR}",)
        engine.restart()
        registry = Registry(folder, engine, host=MIRROR)
        stack.callback(registry.stop)
        for reference in IMAGES:
            _load(engine, reference)
            pushed = f"{MIRROR}/library/{reference}"
            engine.docker("tag", reference, pushed)
            engine.docker("push", "--quiet", pushed)
            engine.docker("rmi", pushed)
        yield engine


def _load(engine: PrivateEngine, reference: str) -> None:
    """Import a busybox under a name: what the suite runs is in it."""
    busybox = find_static_busybox()
    assert busybox is not None, "the demo images were built with it"
    applets = subprocess.run(
        [busybox, "--list"], check=True, capture_output=True, text=True
    ).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "root", "var", "mnt", "opt"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        tar.add(busybox, "bin/busybox")
        for applet in applets:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            if applet != "busybox":
                tar.addfile(entry)
        for name, text in (
            # The users of alpine that the suite names.
            ("etc/passwd", "root:x:0:0::/root:/bin/sh\npostgres:x:70:70::/var:/bin/sh\n"),
            ("etc/group", "root:x:0:\npostgres:x:70:\n"),
            # So that no two references are one image.
            ("etc/reference", reference),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    path = f"/images/create?fromSrc=-&repo={reference.replace(':', '&tag=')}"
    path += "&changes=ENV%20PATH%3D/bin&changes=CMD%20%5B%22sh%22%5D"
    status, body = dockerd.call(
        engine.host, "POST", path, body=out.getvalue(), content_type="application/x-tar"
    )
    assert status == 200, body


def run_suite(
    suite: Path, engine: PrivateEngine, *, socket: str, folder: Path, select: Sequence[str]
) -> dict[str, Outcome]:
    """Run the suite against a socket, as root, where the engine's ports are."""
    (folder / "trimtab_outcomes.py").write_text(PLUGIN)
    # Beside it docker-py keeps contexts; without one, in the suite's own folder.
    (folder / ".docker").mkdir()
    (folder / ".docker" / "config.json").write_text("{}")
    outcomes = folder / "outcomes.jsonl"
    outcomes.touch()
    argv = [str(python_for(suite)), "-m", "pytest", "-q", "-p", "trimtab_outcomes"]
    argv += ["-p", "no:cacheprovider", f"--timeout={TEST_S}"]
    files = sorted(path.relative_to(suite) for path in suite.glob("tests/integration/*_test.py"))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DOCKER_HOST": socket,
        "DOCKER_TEST_API_VERSION": "1.45",
        "PYTHONPATH": f"{folder}:{suite}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TRIMTAB_OUTCOMES": str(outcomes),
    }
    # File by file: some tests change the process's environment for all that come after them.
    for part in [select] if select else [[str(path)] for path in files]:
        with (folder / "pytest.log").open("ab") as log:
            subprocess.run(
                engine.inside(*argv, *part),
                cwd=suite,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=FILE_S,
                check=False,
            )
    found = read_outcomes(outcomes)
    assert found, f"the suite ran no test:\n{(folder / 'pytest.log').read_text()[-3000:]}"
    return found


def run_straight(suite: Path, folder: Path, select: Sequence[str]) -> dict[str, Outcome]:
    """Run the suite on an engine."""
    with engine_with_images(folder) as engine:
        return run_suite(suite, engine, socket=engine.host, folder=folder, select=select)


def run_through(
    suite: Path, folder: Path, select: Sequence[str]
) -> tuple[dict[str, Outcome], list[Judgement]]:
    """Run the suite through a broker under home; return what its journal judged, too."""
    with engine_with_images(folder) as engine:
        broker = Broker(folder, engine=engine.host, policy=yaml.safe_load(HOME.read_text()))
        try:
            for reference in IMAGES:
                broker.trust(reference)
            socket = f"unix://{broker.socket}"
            found = run_suite(suite, engine, socket=socket, folder=folder, select=select)
        finally:
            broker.end()
        return found, read_journal(folder / "state" / "broker" / "journal")


def main(arguments: Sequence[str]) -> int:
    """Compare, and print; 1 if there are defects."""
    parser = argparse.ArgumentParser(
        prog="docker-py-suite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", type=Path, help="a checkout of github.com/docker/docker-py")
    parser.add_argument("--keep", type=Path, help="keep both runs here, and reuse the straight one")
    parser.add_argument("select", nargs="*", help="pytest's own selection (default: all)")
    chosen = parser.parse_args(arguments)
    if os.geteuid() != 0:
        print("docker-py-suite needs root: engines of its own")
        return 1
    engines.clear_leftovers()
    suite = chosen.suite.resolve()
    folder = Path(tempfile.mkdtemp(prefix="trimtab-docker-py-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        with ExitStack() as stack:
            runs = {name: folder / name for name in ("straight", "through")}
            for each in runs.values():
                each.mkdir(mode=0o755)
            kept = chosen.keep / "straight.jsonl" if chosen.keep else None
            if kept is not None and kept.exists():
                straight = read_outcomes(kept)
            else:
                straight = run_straight(suite, runs["straight"], chosen.select)
            through, journal = run_through(suite, runs["through"], chosen.select)
            stack.callback(_keep, chosen.keep, runs)
        if chosen.select:
            straight = {test: each for test, each in straight.items() if test in through}
        compared = compare(straight, through, journal, named_rules(PAGE.read_text()))
    finally:
        shutil.rmtree(folder)
    print("\n".join(report(compared)))
    return 1 if compared.defects else 0


def _keep(into: Path | None, runs: Mapping[str, Path]) -> None:
    if into is None:
        return
    into.mkdir(exist_ok=True)
    for name, folder in runs.items():
        if (folder / "outcomes.jsonl").exists():
            shutil.copy(folder / "outcomes.jsonl", into / f"{name}.jsonl")
            shutil.copy(folder / "pytest.log", into / f"{name}.log")
    journal = runs["through"] / "state" / "broker" / "journal"
    with (into / "journal.jsonl").open("w") as out:
        for segment in sorted(journal.glob("*.jsonl")):
            out.write(segment.read_text())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
