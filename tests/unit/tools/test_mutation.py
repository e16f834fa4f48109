"""Mutation testing is only worth its time if the rules are among what is mutated.

The tests import what they use: the import of libcst takes 0.3 s, and each process of a run collects
this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tools.mutation.making import Mutant

MODULE = '''\
"""A module."""
from functools import cached_property

RULES = (("a", lambda n: n > 3), ("b", lambda n: True))


class Thing:
    """A thing."""

    count: int = 2

    @property
    def large(self) -> bool:
        return self.count > 7

    @cached_property
    def other(self) -> int:
        return 1


def twice(number: int) -> int:
    return number * 2
'''


def test_rules_and_properties_are_functions_and_mean_the_same() -> None:
    import libcst as cst

    from tools.mutation.making import flattened

    flat = flattened(cst.parse_module(MODULE)).code
    space: dict[str, object] = {}
    exec(compile(flat, "module", "exec"), space)
    rules, thing = space["RULES"], space["Thing"]
    assert isinstance(rules, tuple) and isinstance(thing, type)
    assert [rule(4) for _, rule in rules] == [True, True]
    assert [rule(3) for _, rule in rules] == [False, True]
    made = thing()
    assert (made.large, made.other) == (False, 1)
    assert "lambda" not in flat and "@property" not in flat and "@cached_property" in flat


def test_a_sample_is_the_same_each_time_and_says_what_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tools.mutation.making import mutate

    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.cfg").write_text("[mutmut]\nsource_paths=package\n")
    path = Path("package/module.py")
    path.parent.mkdir()

    def made(percent: float) -> tuple[list[Mutant], int]:
        path.write_text(MODULE)
        return mutate(path, percent=percent, seed=0)

    everything, possible = made(100)
    assert len(everything) == possible
    changes = [mutant.change for mutant in everything]
    assert "-    return n > 3\n+    return n >= 3" in changes
    assert "-        return self.count > 7\n+        return self.count >= 7" in changes
    assert {mutant.function for mutant in everything} == {
        f"package.module.{name}"
        for name in ("x__rule_2_0", "x__rule_2_1", "xǁThingǁlarge", "x_twice")
    }
    some, _ = made(25)
    assert some == made(25)[0]
    assert len(some) == -(-possible // 4)
    assert {each.change for each in some} <= set(changes)


def test_the_table_counts_what_no_test_reaches_among_the_survivors() -> None:
    from tools.mutation import report
    from tools.mutation.making import Mutant
    from tools.mutation.running import KILLED, SURVIVED, UNTESTED

    mutants = [Mutant("controller.core.drift.classify", f"x_f__mutmut_{n}", "") for n in range(4)]
    results = dict(zip(mutants, [KILLED, KILLED, SURVIVED, UNTESTED], strict=True))
    lines, share = report.table([(mutants, 9), ([], 0)], results)
    assert share == 50.0
    assert [line.split() for line in lines[1:]] == [
        ["drift.classify", "9", "4", "2", "1", "1", "50.0"],
        ["all", "9", "4", "2", "1", "1", "50.0"],
    ]
    assert len(list(report.survivors(results))) == 2
