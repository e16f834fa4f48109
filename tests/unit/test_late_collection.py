"""A test file that is collected where it runs has the tests and reports of an early collection."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFTEST = """
import pytest

from tests.late_collection import LateCollection, Progress


def pytest_configure(config):
    is_worker = hasattr(config, "workerinput")
    config.pluginmanager.register(LateCollection(sorted) if is_worker else Progress())


@pytest.fixture(scope="session")
def shared():
    yield
    raise AssertionError("the teardown of a session")


@pytest.fixture(scope="module")
def files_own(request):
    yield
    assert request.module.passed == ["one", "two"]
"""
TESTS = """
import pytest

passed = []


@pytest.mark.parametrize("name", ["one", "two", "left out"])
def test_each(name, shared, files_own):
    passed.append(name)


class TestOfAClass:
    def test_wrong(self):
        raise AssertionError("as planned")
"""


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    options = "-p no:cacheprovider -p no:hypothesispytest -q -rA --numprocesses 1 --dist loadfile"
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options.split(), "-k", "not left"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_file_is_collected_where_it_runs(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_a.py").write_text("raise ValueError('cannot import')\n")
    (tmp_path / "test_b.py").write_text(TESTS)
    (tmp_path / "test_c.py").write_text("def test_c(shared): pass\n")
    done = run(tmp_path)
    summary = done.stdout.partition("short test summary info")[2].splitlines()[1:]
    assert [line.partition(" in ")[0] for line in summary] == [
        "PASSED test_b.py::test_each[one]",
        "PASSED test_b.py::test_each[two]",
        "PASSED test_c.py::test_c",
        "ERROR test_a.py - ValueError: cannot import",
        "ERROR test_c.py::test_c - AssertionError: the teardown of a session",
        "FAILED test_b.py::TestOfAClass::test_wrong - AssertionError: as planned",
        "1 failed, 3 passed, 2 errors",
    ], done.stdout + done.stderr


def test_a_file_without_selected_tests_lets_the_next_folder_begin(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for file, name in (("a/test_1", "one"), ("a/test_2", "left"), ("b/test_3", "two")):
        path = tmp_path / f"{file}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"def test_{name}(): pass\n")
    done = run(tmp_path)
    assert done.stdout.splitlines()[-1].startswith("2 passed in "), done.stdout + done.stderr
