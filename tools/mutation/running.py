"""Running mutants: tests are collected once, and each mutant is a child of the process that has
them, which runs those that reach the mutated function, the quickest first, until one fails.

mutmut's own runner collects the tests anew for each mutant, which takes many times as long.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import pytest
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

from tools.mutation.making import Mutant

#: Of what a mutant would have to survive, the quickest tests are asked, of so much CPU together:
#: all would take minutes each, and find few more.
ENOUGH_S = 4.0
#: A child may take so many times the CPU that its tests took, and
#: so many seconds more.
PATIENCE, PATIENCE_S = 5, 10
MEMORY_BYTES = 3 << 30
TOLD_EVERY = 100
KILLED, SURVIVED, UNTESTED = "killed", "survived", "untested"


def run(runner: Runner, tests: Sequence[str]) -> None:
    """Run *tests* against all mutants, in the working directory: a copy with the mutants in it."""
    options = ["-p", "no:cacheprovider", "-p", "no:terminal", "--rootdir=."]
    if pytest.main([*options, *tests], plugins=[runner]) not in {0, 1, 5} and not runner.broken:
        runner.broken = "the tests can't be collected"


@dataclass(slots=True)
class Runner:
    """A pytest plugin: runs the tests as they are, then against each mutant."""

    mutants: Sequence[Mutant]
    #: On the clock of `time.monotonic`: neither a test nor a mutant begins later.
    until_s: float = math.inf
    jobs: int = os.cpu_count() or 1
    results: dict[Mutant, str] = field(default_factory=dict)
    broken: str = ""  # why no test can be run
    _reaching: dict[str, list[tuple[float, pytest.Item]]] = field(default_factory=dict)
    _failed: bool = False

    def pytest_configure(self) -> None:
        """Leave nothing to chance, nor to how busy the machine is: a mutant is judged alike each time."""
        from hypothesis import HealthCheck, settings

        settings.register_profile(
            "mutants",
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Do it all, in the place of pytest's own loop."""
        if session.testsfailed:
            self.broken = "the tests can't be collected"
        else:
            self._run_unchanged(session.items)
            self._run_mutants()
        return True

    def _run_unchanged(self, items: Sequence[pytest.Item]) -> None:
        """Run all tests as they are, to know which functions each reaches, and how long it takes.

        One that fails even so says nothing of mutants, and is left out.
        """
        set_mutant_under_test("stats")
        for item, following in zip(items, [*items[1:], None], strict=True):
            if time.monotonic() > self.until_s:
                break
            began = time.process_time()
            failed = self._fails(item, following)
            took_s = time.process_time() - began
            called = state()._stats  # noqa: SLF001 - mutmut's own runner reads it, too
            if failed:
                print(
                    f"left out, since it fails without any mutant: {item.nodeid}", file=sys.stderr
                )
            else:
                for function in called:
                    self._reaching.setdefault(function, []).append((took_s, item))
            called.clear()
        self._reaching = {name: _quickest(tests) for name, tests in self._reaching.items()}
        set_mutant_under_test("")

    def _run_mutants(self) -> None:
        running: dict[int, Mutant] = {}
        for number, mutant in enumerate(self.mutants, 1):
            if number % TOLD_EVERY == 0:
                print(f"mutants: {number} of {len(self.mutants)}", file=sys.stderr)
            if time.monotonic() > self.until_s:
                print(f"mutants: no time for {len(self.mutants) - number + 1}", file=sys.stderr)
                break
            tests = self._reaching.get(mutant.function)
            if not tests:
                self.results[mutant] = UNTESTED
                continue
            if len(running) >= self.jobs:
                self._await_one(running)
            running[self._begin(mutant, tests)] = mutant
        while running:
            self._await_one(running)

    def _await_one(self, running: dict[int, Mutant]) -> None:
        pid, status = os.wait()
        # A test may have left a child of its own behind.
        if mutant := running.pop(pid, None):
            # One that never ends, or takes all memory, is noticed too.
            self.results[mutant] = SURVIVED if status == 0 else KILLED

    def _begin(self, mutant: Mutant, tests: Sequence[tuple[float, pytest.Item]]) -> int:
        """Start a child that ends with 0 if no test notices the mutant; return its pid."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            limit_s = round(PATIENCE * sum(took_s for took_s, _ in tests)) + PATIENCE_S
            resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 1)
            os.dup2(nothing, 2)
            code = int(any(self._notices(mutant, item) for _, item in tests))
        finally:
            os._exit(code)

    def _notices(self, mutant: Mutant, item: pytest.Item) -> bool:
        """Tell whether a test fails with a mutant and passes without it.

        It ran before: one that can't be run again would kill every mutant.
        """
        set_mutant_under_test(mutant.full_name)
        if not self._fails(item, None):
            return False
        set_mutant_under_test("")
        return not self._fails(item, None)

    def _fails(self, item: pytest.Item, following: pytest.Item | None) -> bool:
        """Run a test; without one that follows, it leaves nothing set up that others share."""
        self._failed = False
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        return self._failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notice a test that fails, in its set-up and tear-down too."""
        self._failed |= report.failed


def _quickest(tests: list[tuple[float, pytest.Item]]) -> list[tuple[float, pytest.Item]]:
    tests = sorted(tests, key=lambda test: test[0])
    until = accumulate(took_s for took_s, _ in tests)
    return [test for test, all_s in zip(tests, until, strict=True) if all_s <= ENOUGH_S]
