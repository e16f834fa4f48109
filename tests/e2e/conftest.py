"""The e2e ring runs what users run: the command, in a folder of its own, on a real engine.

With ``--signed`` the suites of ``signed_suites`` run under signed admission. Without it, tests that are
marked ``also_signed`` run both ways.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

import pytest

from tests.e2e import signed_suites
from tests.instance import Host
from tests.signed_host import SignedHost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine import FoundEngine, PrivateEngine

ACTS = "acts under signed admission"


@pytest.fixture
def host(request: pytest.FixtureRequest, engine: PrivateEngine | FoundEngine) -> Iterator[Host]:
    """A folder with an empty DIR, and the command to run an instance on it; cleaned up after."""
    signed = getattr(request, "param", request.config.getoption("signed"))
    host = SignedHost(engine) if signed else Host(engine)
    try:
        yield host
    finally:
        host.close()
    if isinstance(host, SignedHost):
        request.node.user_properties.append((ACTS, [*host.acts.counted()]))
        assert host.acts.unexpected == {}, "an honest act was refused"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have tests of both ways run twice."""
    both = metafunc.definition.get_closest_marker("also_signed") is not None
    if both and not metafunc.config.getoption("signed"):
        metafunc.parametrize("host", [False, True], ids=["plain", "signed"], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--signed``, keep what runs under signed admission."""
    if not config.getoption("signed"):
        return
    left_out = [item for item in items if not signed_suites.runs_signed(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what the broker admitted and refused in all tests together."""
    acts: Counter[str] = Counter()
    tests = 0
    for report in (each for reports in terminalreporter.stats.values() for each in reports):
        if not isinstance(report, pytest.TestReport) or report.when != "teardown":
            continue
        properties = cast("list[tuple[str, list[tuple[str, int]]]]", report.user_properties)
        found = [told for title, told in properties if title == ACTS]
        tests += len(found)
        for what, count in (line for told in found for line in told):
            acts[what] += count
    if tests:
        terminalreporter.section(ACTS)
        terminalreporter.write_line(f"{'tests':<40} {tests:>6}")
        for what, count in sorted(acts.items()):
            terminalreporter.write_line(f"{what:<40} {count:>6}")
