"""What a service can ever import is loaded before it is ready: a replaced package changes no running process."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from controller.app.controller import LOADED_ON_USE
from controller.app.desired_state import READERS_ON_USE

ROOT = Path(__file__).parents[3]


def file_of(module: str) -> Path | None:
    """Return the file of a module of the project; None for another name."""
    place = ROOT / module.replace(".", "/")
    found = (place / "__init__.py", place.with_suffix(".py"))
    return next((path for path in found if path.is_file()), None)


@cache
def imports(module: str) -> tuple[tuple[str, bool], ...]:
    """Return the names that a module imports, and whether inside a function."""
    path = file_of(module)
    assert path is not None
    return tuple(_imports(ast.parse(path.read_text()), late=False))


def _imports(node: ast.AST, *, late: bool) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, late) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module, late
            yield from ((f"{child.module}.{alias.name}", late) for alias in child.names)
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _imports(child, late=late or is_function)


def is_module(name: str) -> bool:
    """Return True if a name is a module's, and not a function's of its parent."""
    if name.startswith("controller"):
        return file_of(name) is not None
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def late_imports(module: str) -> list[str]:
    """Return the modules that a module imports inside functions."""
    return [name for name, late in imports(module) if late and is_module(name)]


def modules(paths: Iterable[str]) -> list[str]:
    """Return the names of modules, from their paths in the package."""
    return [f"controller.{path.replace('/', '.')}" for path in paths]


#: The modules that each service has loaded as it gets ready: its own, and what the start loads.
SERVICES = {
    "broker": (
        *("controller.app.broker", "controller.core.policy.text"),
        "controller.core.settings_file",
    ),
    "controller": ("controller.app.controller", *modules(LOADED_ON_USE)),
    "fetcher": (
        "controller.app.fetcher",
        *late_imports("controller.app.fetcher"),
        *modules(READERS_ON_USE),
    ),
    "notifier": ("controller.app.notifier", *late_imports("controller.app.notifier")),
    "shipper": (
        "controller.app.shipper",
        *late_imports("controller.app.shipper"),
        *("controller.ship.otlp", *late_imports("controller.ship.otlp")),
    ),
    "page": (
        *("controller.app.page", "controller.cli.commands.web"),
        *late_imports("controller.app.page"),
    ),
}
#: Imports in functions that a service never calls, with the reason.
NEVER = {
    "broker": {
        # The controller makes approvals of a plan; the broker reads them.
        "controller.core.enforcement.approvals",
    },
    "controller": {
        # The broker and commands read the file of settings.
        "controller.app.state_folder",
        # The recipe of the shipper, for `trimtab ship` as root.
        "controller.app.child_commands",
        # A lock that waits in an event loop, for the broker.
        "controller.system.durable_files",
    },
    "fetcher": {
        # The broker and commands read the file of settings.
        "controller.app.state_folder",
        # Policies, records and archives of adopted files: for the broker.
        "controller.app.policy",
        "controller.core.files.content",
        "controller.core.records.parts",
        # The recipe of the shipper, for `trimtab ship` as root.
        "controller.app.child_commands",
        # A lock that waits in an event loop, for the broker.
        "controller.system.durable_files",
    },
    "notifier": {
        # Policies, forms of records, archives of adopted files, documents, the status: for other processes.
        "controller.app.policy",
        "controller.core.files.content",
        "controller.core.manifests.check_together",
        "controller.core.manifests.named_files",
        "controller.core.manifests.parse",
        "controller.core.records.parts",
        "controller.core.status.report",
        # The file of settings is checked by the broker and by commands; here the accepted ones are read.
        "controller.app.state_folder",
        # The recipe of the shipper, for `trimtab ship` as root.
        "controller.app.child_commands",
        # A lock that waits in an event loop, for the broker.
        "controller.system.durable_files",
    },
    "page": {
        # Policies, forms of records, archives of adopted files, documents, the status: for other processes.
        "controller.app.policy",
        "controller.core.files.content",
        "controller.core.manifests.check_together",
        "controller.core.manifests.named_files",
        "controller.core.manifests.parse",
        "controller.core.records.parts",
        "controller.core.status.report",
        # The file of settings is checked by the broker and by commands; here the accepted ones are read.
        "controller.app.state_folder",
        # Of commands: their status, filters of records, excerpts, the runs that the controller saved.
        "controller.cli.clients.status_report",
        "controller.cli.journal.filters",
        "controller.cli.options",
        "controller.cli.output.terminal",
        "controller.cli.commands.logs",
        # A lock that waits in an event loop, for the broker.
        "controller.system.durable_files",
    },
    "shipper": {
        # Policies, settings, forms of state and of records, the journal's base: for broker and commands.
        "controller.app.policy",
        "controller.app.state_folder",
        "controller.core.encoding.stored_form",
        "controller.core.files.content",
        "controller.core.records.parts",
        "controller.journal.store.chain",
        "controller.model.names",
        # Quiet hours of notifications: read with the settings, at the start alone.
        "controller.model.notice_targets",
        "controller.model.notifications",
        # A lock that waits in an event loop, for the broker.
        "controller.system.durable_files",
    },
}


def missed(start: str, loaded: frozenset[str], never: set[str]) -> list[str]:
    """Return the imports in functions, of all that a module reaches, that aren't loaded."""
    found, seen, to_see = [], set(), [start]
    while to_see:
        module = to_see.pop()
        if module in seen or file_of(module) is None:
            continue
        seen.add(module)
        for name, late in imports(module):
            if late and module in never:
                continue
            if late and name not in loaded and is_module(name):
                found.append(f"{module} imports {name}")
            to_see.append(name)
    return sorted(found)


def modules_after(imported: tuple[str, ...]) -> frozenset[str]:
    """Return the modules of a new process that imports *imported*."""
    program = (
        "import importlib, json, sys\n"
        f"for name in {imported!r}: importlib.import_module(name)\n"
        "print(json.dumps(list(sys.modules)))"
    )
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(json.loads(done.stdout))


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.slow
def test_a_service_has_loaded_before_it_is_ready_what_it_can_ever_import(service: str) -> None:
    loaded = modules_after(SERVICES[service])
    assert missed(SERVICES[service][0], loaded, NEVER[service]) == []


@pytest.mark.slow
def test_an_import_on_use_that_was_not_loaded_is_seen() -> None:
    loaded = modules_after(SERVICES["broker"])
    without = loaded - {"controller.core.proofs.rendering", "controller.core.policy.text"}
    assert missed("controller.app.broker", without, NEVER["broker"]) == [
        "controller.app.policy imports controller.core.policy.text"
    ]


@pytest.mark.slow
def test_the_broker_loads_no_parser_of_documents_and_nothing_of_the_loop() -> None:
    foreign = (
        "controller.core.compose.projects",
        "controller.core.manifests.parse",
        "controller.core.proofs.render",
        "controller.loop",
        "controller.sources",
        "docker",
        "jsonschema",
        "minijinja",
        "pyrage",
        "watchfiles",
    )
    loaded = modules_after(SERVICES["broker"])
    assert [name for name in foreign if name in loaded] == []
