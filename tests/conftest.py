"""What all rings share: the engine, the seeds of the simulation, and what is told at the end.

`make test` has several processes run test files side by side (pytest-xdist), each with an engine of
its own. What they find reaches the end of the run with their reports.
"""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, settings

from tests import engine as engines
from tests.late_collection import LateCollection, Progress
from tools import debian_images, engine_setups

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from xdist.workermanage import WorkerController

TESTS = Path(__file__).parent
LINT = TESTS / "unit" / "test_lint.py"
#: Long files that need no engine, the longest first. Simulated worlds compute on all processors.
COMPUTING = (
    "sim/test_worlds.py",
    "sim/test_crash_sweep.py",
    "sim",
    "hostile",
    "page",
    "package",
    "unit/sources/test_watch.py",
    "unit/loop/state/test_disruption_budget_ordinary_use.py",
    "unit/broker/test_dispatch_cost.py",
    "unit/core/planning/test_planner_properties.py",
    "unit/cli/output/test_terminal_hostile_text.py",
    "unit/core/planning/test_service_order_properties.py",
    "unit/journal/store/test_reader_tail.py",
    "unit/loop/test_controller_rollouts.py",
    "unit/loop/test_supervisor.py",
    "unit/tools/test_debian_packages.py",
)
#: Tests on an engine wait for it, and those of Git sources for servers. First the longest file.
WAITING = ("contract/test_second_engine.py", "e2e", "git", "gate", "compat", "contract")
LEFT_OUT = pytest.StashKey[set[str]]()
#: Set-ups and teardowns from this duration on are reported, for ``--durations``.
SLOW_FIXTURE_S = 0.5
#: Worlds of an ordinary run; ``make sim`` has more.
WORLDS = 30
#: Deaths of an ordinary run: every kind of death in every run, and some kinds in a second story.
#: ``make sim KIND=sweep`` has all deaths.
DEATHS = 120

# A run is the same each time: one that fails can be repeated, and nobody's change fails for what it
# didn't touch. `--hypothesis-profile fresh` draws anew, and twenty times as many.
# How fast a machine draws examples, and runs them, is no property of the code.
settings.register_profile(
    "repeatable",
    max_examples=50,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "fresh",
    max_examples=1_000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
# For `make fuzz KIND=differential`: as many examples as signed admission promises.
settings.register_profile(
    "thorough",
    max_examples=10_000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
# For `make fuzz KIND=facts`: each fact that two judges use is the same for both.
settings.register_profile(
    "facts",
    max_examples=100_000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

# A full collection of garbage looks at all imported modules, and finds little: a tenth as many.
gc.set_threshold(*gc.get_threshold()[:2], 100)

# A shell lets what it runs in the background ignore Ctrl-C and Ctrl-\, and the programs under test inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption(
        "--seeds", type=int, default=WORLDS, help=f"worlds to simulate (default {WORLDS})"
    )
    group.addoption("--seed", type=int, default=None, help="replay this one world")
    group.addoption(
        "--moments",
        type=int,
        default=DEATHS,
        help=f"deaths in told stories (default {DEATHS}; 0: all)",
    )
    group.addoption("--death", help="replay this one: STORY:NUMBER")
    group.addoption(
        "--anew", action="store_true", help="note anew which worlds find the planted bugs"
    )
    group.addoption("--stories", type=int, default=150, help="stories of each model (default 150)")
    group.addoption("--secrets", type=int, default=40, help="secrets to search for (default 40)")
    group.addoption(
        "--drawn", type=int, default=0, help="machines to draw anew (default: the same ones always)"
    )
    parser.getgroup("trimtab").addoption(
        "--every-loss", action="store_true", help="lose each file of a state folder, and each pair"
    )
    parser.getgroup("trimtab").addoption(
        "--engine", choices=engine_setups.SETUPS, help="the set-up of the tests' own engines"
    )
    parser.getgroup("trimtab").addoption(
        "--signed", action="store_true", help="run the instances of e2e under signed admission"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three more than processors: what runs on an engine waits for it most of the time."""
    return (os.cpu_count() or 1) + 3


def pytest_configure(config: pytest.Config) -> None:
    """In several processes: collect a file where it runs, unless the command names single tests.

    Options for the tests that failed last look at all tests at once.
    """
    if (setup := config.getoption("engine")) is not None:
        os.environ[engine_setups.VARIABLE] = setup  # also for programs that tests start
    if any("::" in argument for argument in config.args):
        return
    if config.getoption("lf", None) or config.getoption("failedfirst", None):
        return
    is_worker = hasattr(config, "workerinput")
    config.pluginmanager.register(LateCollection(run_order) if is_worker else Progress())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with long files, so that no process is left alone with one in the end.

    Leave out what stops an engine where the engine isn't the tests' own; say so below.
    """
    places = {path: place for place, path in enumerate(run_order({item.path for item in items}))}
    items.sort(key=lambda item: places[item.path])
    if os.geteuid() == 0:
        return
    stopping = [
        item
        for item in items
        if item.get_closest_marker("owns_engine") or item.get_closest_marker("needs_root")
    ]
    names = {item.nodeid for item in stopping}
    config.stash[LEFT_OUT] = config.stash.get(LEFT_OUT, set()) | names
    config.hook.pytest_deselected(items=stopping)
    items[:] = [item for item in items if item not in stopping]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """In one of several processes: send the report of the test, and those of fixtures that tell something.

    Each test would send six messages to the run's own process, for eleven thousand tests: more
    processor time than most tests take.
    """
    if not hasattr(item.config, "workerinput"):
        return None
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        is_slow = report.duration > SLOW_FIXTURE_S
        tells = report.when == "teardown" and report.user_properties
        if report.when == "call" or not report.passed or is_slow or tells:
            item.ihook.pytest_runtest_logreport(report=report)
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while tests are collected: what is made then stays to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In one of several processes: tell the run's own what was left out."""
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    names = session.config.stash.get(LEFT_OUT, set())
    if output is not None:
        output["left_out"] = list(names)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """Each process left out tests of the files that it ran."""
    left_out: list[str] = getattr(node, "workeroutput", {}).get("left_out", [])
    node.config.stash[LEFT_OUT] = node.config.stash.get(LEFT_OUT, set()) | set(left_out)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The tables that tests recorded, and how many ran per ring: one that ran nothing is seen."""
    run: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            if not isinstance(report, pytest.TestReport):
                continue
            ring = ring_of(config, report)
            if outcome == "skipped":
                skipped[ring] += 1
            # The body's report; a failed set-up has none, but counts as run.
            elif report.when == "call" or outcome == "error":
                run[ring] += 1
                for title, lines in report.user_properties:
                    terminalreporter.section(title)
                    for line in cast("list[str]", lines):
                        terminalreporter.write_line(line)
    terminalreporter.section("rings")
    folders = {path.name for path in TESTS.iterdir() if any(path.rglob("test_*.py"))}
    for ring in sorted(folders | set(run) | set(skipped)):
        terminalreporter.write_line(f"{ring:<10} {run[ring]:>6} run {skipped[ring]:>4} skipped")
    if names := config.stash.get(LEFT_OUT, set()):
        terminalreporter.write_line(
            f"left out: {len(names)} tests that need root, or stop an engine that isn't the tests' own "
            "here (run as root for these)"
        )


def run_order(files: Iterable[Path]) -> list[Path]:
    """Return test files in the order of a run: lint, computing between waiting, all others.

    Files that compute are spread: two at a time would take processors from each other, while
    processes that wait leave them idle.
    """
    ranked = sorted((rank_of(path), path) for path in files)
    lint = [path for _, path in ranked if path == LINT]
    computing = [path for (kind, _), path in ranked if kind == 0]
    waiting = [path for (kind, _), path in ranked if kind == 1]
    others = [path for (kind, _), path in ranked if kind == 2 and path not in lint]
    share = len(waiting) // (len(computing) + 1)
    spread: list[Path] = []
    for number, path in enumerate(computing):
        spread += [path, *waiting[number * share : (number + 1) * share]]
    return [*lint, *spread, *waiting[len(computing) * share :], *others]


def rank_of(path: Path) -> tuple[int, int]:
    """Return a file's kind (0 computes, 1 waits, 2 is short), and its place in its kind."""
    if path.is_relative_to(TESTS):
        name = f"{path.relative_to(TESTS).as_posix()}/"
        for kind, places in enumerate((COMPUTING, WAITING)):
            for number, place in enumerate(places):
                if name.startswith(f"{place}/"):
                    return kind, number
    return 2, 0


def ring_of(config: pytest.Config, report: pytest.TestReport) -> str:
    """Return the folder right under tests/ that a report is of."""
    return _ring_of(config.rootpath / report.location[0])


@cache
def _ring_of(file: Path) -> str:
    """Return a test file's ring: resolved once a file, not once for each of its tests."""
    path = file.resolve()
    return path.relative_to(TESTS).parts[0] if path.is_relative_to(TESTS) else "elsewhere"


@pytest.fixture(scope="session")
def engine() -> Iterator[engines.PrivateEngine | engines.FoundEngine]:
    """The engine of this run, with the demo images in it. Clean up what you make in it."""
    opened = engines.open_engine()
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="session")
def debian_image(engine: engines.PrivateEngine | engines.FoundEngine) -> Callable[..., str]:
    """Load an image of `tools.debian_images` into the engine when it is asked for.

    `debian_image("postgres")` returns its reference; `reference=` gives it another.
    """
    return partial(debian_images.provide, engine.host)


@pytest.fixture(scope="session")
def seeds(pytestconfig: pytest.Config) -> list[int]:
    """The worlds to simulate: one if --seed was given."""
    one = pytestconfig.getoption("seed")
    return [one] if one is not None else list(range(pytestconfig.getoption("seeds")))
