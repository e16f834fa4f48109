"""Lint, types and import contracts are tests: one command runs everything."""

import ast
import io
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from pylint.checkers.symilar import Symilar

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
#: mypy without garbage collection: it ends before its memory matters, in a tenth less time.
TYPES = """\
import gc
gc.disable()
gc.enable = gc.set_threshold = lambda *_: None
from mypy.__main__ import console_entry
console_entry()
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "command",
    [
        pytest.param([BIN / "ruff", "check", "--quiet", "--output-format=concise", "."], id="ruff"),
        pytest.param([BIN / "ruff", "format", "--check", "--quiet", "."], id="layout"),
        pytest.param([sys.executable, "-c", TYPES, "--no-error-summary"], id="types"),
        pytest.param([BIN / "lint-imports", "--no-logo"], id="imports"),
    ],
)
def test_the_code_passes(command: list[str | Path]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"{' '.join(map(str, command))} (make format mends layout)\n{done.stdout}{done.stderr}"
    )


def duplicates(files: Iterable[Path]) -> str:
    """Return pylint's report of lines that stand in more than one file.

    Imports and signatures are blanked here, by the standard library's parser: pylint's own infers
    the types of everything for it, and takes ten times as long.
    """
    search = Symilar(min_lines=8, ignore_comments=True, ignore_docstrings=True)
    for file in files:
        text = file.read_text()
        search.append_stream(str(file), io.StringIO(blanked(text)))
    out = io.StringIO()
    with redirect_stdout(out):
        search.run()
    return out.getvalue()


def blanked(text: str) -> str:
    """Return a module's text with its imports and signatures as empty lines."""
    lines = text.splitlines(keepends=True)
    for node in statements(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            end = node.end_lineno or node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            end = node.body[0].lineno - 1
        else:
            continue
        for number in range(node.lineno, end + 1):
            lines[number - 1] = "\n"
    return "".join(lines)


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements in a node. Expressions have none, so they aren't searched."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child
            yield from statements(child)


def test_no_code_stands_twice() -> None:
    report = duplicates(sorted((ROOT / "controller").rglob("*.py")))
    assert " duplicates=0 " in report, report


def test_code_that_stands_twice_is_seen(tmp_path: Path) -> None:
    body = "".join(f"    step_{number}()\n" for number in range(9))
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text(f"import os\n\n\ndef f(x):\n{body}")
    other.write_text(f"import sys\n\n\ndef g(\n    y,\n):\n{body}")
    assert "9 similar lines in 2 files" in duplicates([one, other])


def test_imports_signatures_and_docstrings_may_stand_twice(tmp_path: Path) -> None:
    imports = "".join(f"import m{number}\n" for number in range(9))
    signature = "".join(f"    a{number},\n" for number in range(9))
    prose = "".join(f"    Line {number}.\n" for number in range(9))
    text = f'{imports}\n\ndef f(\n{signature}):\n    """Do.\n\n{prose}    """\n'
    files = [tmp_path / "one.py", tmp_path / "other.py"]
    for file in files:
        file.write_text(text)
    assert " duplicates=0 " in duplicates(files)


_COMPOSE = (
    "__init__.py",
    *(f"{name}.py" for name in ("projects", "reader", "consistency", "project_files", "merging")),
    *(
        f"{name}.py"
        for name in ("long_forms", "schema", "attributes", "values", "paths", "variables")
    ),
    *("nodes.py", "project.py"),
)
_BROKER = ("dispatch.py", "wire.py", "guards.py", "deliveries.py", "signed_acts.py")


def test_a_contract_that_is_broken_is_seen(tmp_path: Path) -> None:
    """The contracts name packages with wildcards and options: prove that they still bite."""
    package = tmp_path / "controller"
    files = {
        "core/__init__.py": "import random\n",
        "core/encoding/__init__.py": "import controller.core.planning\n",
        "core/planning/__init__.py": "",
        "broker/gate/__init__.py": "import socket\nimport controller.broker.handlers\n",
        **{f"broker/{name}": "" for name in (*_BROKER, "handlers/__init__.py")},
        "journal/store/__init__.py": "def f():\n    import controller.journal.writer\n",
        "journal/writer/__init__.py": "import controller.journal.store\n",
        "model/__init__.py": "import controller.core\n",
        **dict.fromkeys(("model/desired/__init__.py", "model/desired/spec/__init__.py"), ""),
        "loop/__init__.py": "import docker\nimport controller.broker\n",
        "broker/__init__.py": "import watchfiles\nimport controller.core.secrets.sops\n",
        **{f"core/secrets/{name}.py": "" for name in ("__init__", "sops")},
        **{f"core/compose/{name}": "" for name in _COMPOSE},
        "engine/__init__.py": "import docker\n",
        "ship/__init__.py": "import controller.loop\n",
        "ship/sinks.py": "import opentelemetry\n",
        "ship/otlp.py": "import opentelemetry\n",
        "web/__init__.py": "",
        "web/pages/__init__.py": "import socket\n",
        "cli/commands/completion.py": "import controller.cli.main\n",
        **dict.fromkeys(("cli/__init__.py", "cli/main.py", "cli/commands/__init__.py"), ""),
        **dict.fromkeys(("journal/__init__.py", "process.py", "settings.py", "sources.py"), ""),
        "__init__.py": "",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    done = subprocess.run(
        [BIN / "lint-imports", "--no-logo", "--no-cache", "--config", ROOT / "pyproject.toml"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    for found in (
        "controller.core -> random",
        "controller.web.pages -> socket",
        "controller.model -> controller.core",
        "controller.loop -> docker",
        "controller.loop -> controller.broker",
        "controller.broker -> watchfiles",
        "controller.broker -> controller.core.secrets.sops",
        "controller.ship -> controller.loop",
        "controller.ship.sinks -> opentelemetry",
        "controller.core.encoding -> controller.core.planning",
        "controller.broker.gate -> socket",
        "controller.broker.gate -> controller.broker.handlers",
        "No cycles are allowed in controller.journal.",
    ):
        assert found in done.stdout, f"{found} wasn't seen:\n{done.stdout}"
    assert "controller.engine -> docker" not in done.stdout
    assert "controller.ship.otlp -> opentelemetry" not in done.stdout
