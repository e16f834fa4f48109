"""Mutation testing is only worth its time if the rules are among what is mutated.

The tests import what they use: the import of libcst takes 0.3 s, and each process of a run collects
this file.
"""

from __future__ import annotations

import subprocess
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

    def made(percent: float, most: int | None = None) -> tuple[list[Mutant], int]:
        path.write_text(MODULE)
        return mutate(path, percent=percent, most=most, seed=0)

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
    assert [len(made(100, most=most)[0]) for most in (2, possible + 1)] == [2, possible]


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
    # What there was no time for isn't counted.
    lines, share = report.table([(mutants, 9)], {mutants[0]: KILLED})
    assert (lines[-1].split(), share) == (["all", "9", "1", "1", "0", "0", "100.0"], 100.0)


def test_a_clone_without_the_commit_compares_with_its_oldest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tools.mutation.choosing import changed

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)

    project = tmp_path / "project"
    git("init", str(project))
    names = [f"controller/core/{name}.py" for name in "abc"]
    (project / "controller/core").mkdir(parents=True)
    for name in names:
        (project / name).write_text("")
        git("-C", str(project), "add", ".")
        git("-C", str(project), "commit", "-m", name)
    assert changed(project, "HEAD~1") == {Path(names[2])}
    assert capsys.readouterr().err == ""
    # The oldest commit has the first file.
    assert changed(project, "HEAD~20") == {Path(name) for name in names[1:]}
    assert "no commit HEAD~20 here" in capsys.readouterr().err
    git("clone", "--depth", "1", project.as_uri(), str(tmp_path / "shallow"))
    assert changed(tmp_path / "shallow", "HEAD~1") == set()
    assert "no commit HEAD~1 here" in capsys.readouterr().err


def test_a_short_run_has_a_few_modules_and_an_equal_share_of_each() -> None:
    from tools.mutation.choosing import EACH, draw

    paths = [Path(f"{number}.py") for number in range(9)]
    drawn, each = draw(paths, 3 * EACH, seed=1)
    assert (len(drawn), each) == (3, EACH)
    assert draw(paths, 3 * EACH, seed=1)[0] == drawn
    assert drawn not in [draw(paths, 3 * EACH, seed=2)[0], draw(paths, 3 * EACH, seed=3)[0]]
    assert draw(paths[:1], 3 * EACH, seed=1) == (paths[:1], 3 * EACH)
    assert draw([], 3 * EACH, seed=1)[0] == []


def test_the_tests_of_a_module_import_it_or_stand_in_the_core_and_import_a_user(
    tmp_path: Path,
) -> None:
    from tools.mutation.choosing import tests_of

    files = {
        "controller/core/room/fact.py": "",
        "controller/core/room/user.py": "from controller.core.room.fact import it",
        "controller/core/room/other.py": "from controller.model import names",
        "tests/unit/core/room/test_fact.py": "from controller.core.room import fact",
        "tests/unit/core/room/test_user.py": "import controller.core.room.user",
        "tests/unit/core/room/test_other.py": "import controller.core.room.other",
        "tests/unit/loop/test_fact.py": "def test(): from controller.core.room.fact import it",
        "tests/unit/loop/test_user.py": "import controller.core.room.user",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert tests_of(tmp_path, [Path("controller/core/room/fact.py")]) == [
        "tests/unit/core/room/test_fact.py",
        "tests/unit/core/room/test_user.py",
        "tests/unit/loop/test_fact.py",
    ]
