"""Collect each test file in the process that runs the file, when its turn comes.

Each of several processes (pytest-xdist) otherwise imports all test files and makes eleven thousand
tests, of which it runs a fraction. Here a process first collects the paths alone: one item a file.
An item collects its file, runs the tests, and sends their reports.

Invariant: each test has the node, the fixtures and the report that an early collection gives.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import pytest


class LateFile(pytest.File):
    """A test file that isn't imported yet."""

    def collect(self) -> Iterable[LateTests]:
        # Each test has a time limit of its own; the file has none.
        item = LateTests.from_parent(self, name=self.name, nodeid=self.nodeid)
        item.add_marker(pytest.mark.timeout(0))
        yield item


class LateTests(pytest.Item):
    """All tests of a file."""

    #: The test that runs.
    test: pytest.Item | None = None
    #: What the process runs afterwards: shared fixtures stay set up for it.
    following: pytest.Item | None = None

    @property
    def nodeid(self) -> str:
        """The name of the test that runs: pytest-xdist compares each report with its item."""
        return super().nodeid if self.test is None else self.test.nodeid

    def runtest(self) -> None:
        """Collect the file, and run its tests."""
        tests = self._tests()
        if not tests:
            # The test before left set up what it shares with this file, as this was to follow.
            self.session._setupstate.teardown_exact(self.following)
        for number, self.test in enumerate(tests, 1):
            following = tests[number] if number < len(tests) else self.following
            self.config.hook.pytest_runtest_protocol(item=self.test, nextitem=following)
            if self.session.shouldfail or self.session.shouldstop:
                break
        self.test = None

    def _tests(self) -> list[pytest.Item]:
        """Return the tests that the command line selects; report a file that can't be collected."""
        assert self.parent is not None
        assert self.parent.parent is not None
        module = pytest.Module.from_parent(self.parent.parent, path=self.path)
        # What is made here stays for the file's tests.
        gc.disable()
        try:
            tests = list(self.session.genitems(module))
        finally:
            gc.enable()
        self.config.hook.pytest_collection_modifyitems(
            session=self.session, config=self.config, items=tests
        )
        return tests


class LateCollection:
    """The plugin of a process that is one of several."""

    def __init__(self, run_order: Callable[[Iterable[Path]], list[Path]]) -> None:
        self.run_order = run_order

    @pytest.hookimpl
    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> pytest.Collector:
        return LateFile.from_parent(parent, path=module_path)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None]:
        """Put files in order. Options such as ``-k`` select among tests, later."""
        late = [item for item in items if isinstance(item, LateTests)]
        if not late:
            return (yield)
        items.clear()
        yield
        files = {item.path: item for item in late}
        items += [files[path] for path in self.run_order(files)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        if not isinstance(item, LateTests):
            return None
        item.following = nextitem
        item.runtest()
        return True


class Progress:
    """The plugin of the run's own process: it estimates the number of tests, for the percentages.

    The process knows the number of files from the start, and the number of tests at the end. A
    process that runs the tests itself knows them all, and gets no number of files.
    """

    def __init__(self) -> None:
        self.files = 0
        self.begun: set[str] = set()
        self.tests = 0

    @pytest.hookimpl
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self.session = session

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.files = len(ids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self.files and (report.when == "call" or not report.passed):
            self.tests += 1
            self.begun.add(report.location[0])
            estimate = self.tests * self.files // len(self.begun)
            self.session.testscollected = max(estimate, self.tests + 1)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        result = yield
        if self.files:
            self.session.testscollected = self.tests
        return result
