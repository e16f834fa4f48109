"""What a command loads: the privileged process as little as possible, looking commands too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import pytest

from controller.loop.control_api import ControlApi
from controller.loop.workqueue import PassLock
from tests.unit.cli.answering import DIR, answering
from tests.unit.loop.toy import House

pytestmark = pytest.mark.slow

IMPORTED = re.compile(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", re.MULTILINE)


#: The values that brokers and controllers decide on.
WORLD = (
    *("controller.model.inventory", "controller.model.observed", "controller.model.confinement"),
    *("controller.core.engine_api.requests", "controller.core.rules"),
)


def loaded_by(*arguments: str) -> set[str]:
    """Return the modules that a command of trimtab's imports."""
    argv = [sys.executable, "-X", "importtime", "-I", "-m", "controller", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    modules = set(IMPORTED.findall(done.stderr))
    assert "controller.cli.main" in modules, done.stderr[-2000:]
    return modules


def imported(*modules: str) -> set[str]:
    """Return the modules that a process has after it imported *modules*."""
    program = "import " + ", ".join(modules)
    argv = [sys.executable, "-X", "importtime", "-I", "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return set(IMPORTED.findall(done.stderr))


@cache
def loaded_controller() -> tuple[set[str], list[str]]:
    """Return the modules of a controller's process, and its models with validators."""
    program = (
        "import sys, controller.app.controller\n"
        "print(*sys.modules)\n"
        "from controller.model.desired.spec.fields import Model\n"
        "def below(model): return {m for c in model.__subclasses__() for m in {c, *below(c)}}\n"
        "models = below(Model)\n"
        "assert len(models) > 60, len(models)\n"
        "print(*(model.__name__ for model in models if model.__pydantic_complete__))"
    )
    argv = [sys.executable, "-I", "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    modules, models = done.stdout.split("\n")[:2]
    return {*modules.split()}, models.split()


def of_package(modules: set[str], *packages: str) -> set[str]:
    return {m for m in modules if any(m == p or m.startswith(f"{p}.") for p in packages)}


def test_the_broker_loads_nothing_of_the_controllers(tmp_path: Path) -> None:
    modules = loaded_by("broker", "--state", str(tmp_path), "--policy", "/nonexistent.yaml")
    assert "controller.broker.dispatch" in modules, "it came as far as building the broker"
    assert not of_package(
        modules,
        *("docker", "requests", "watchfiles", "jinja2", "rich"),
        *("controller.loop", "controller.engine", "controller.sources"),
        # The models of documents take a sixth of its start.
        *("controller.model.desired.desired", "controller.model.desired.plan"),
        *("controller.core.manifests.parse", "controller.core.drift", "controller.core.planning"),
    )


#: Modules that cost a command more than its work.
HEAVY = (
    *("docker", "requests", "watchfiles", "jinja2", "rich", "pydantic", "yaml", "httptools"),
    *("tenacity", "cryptography", "jsonschema", "http", "email", "ssl", "asyncio"),
)


def test_help_and_status_start_light(tmp_path: Path) -> None:
    assert not of_package(loaded_by("--help"), *HEAVY)
    assert not of_package(loaded_by("status", "--state", str(tmp_path)), *HEAVY)
    assert not of_package(loaded_by("logs", "web", "--state", str(tmp_path)), "pydantic", "yaml")
    assert not of_package(imported("controller.cli.commands.volume"), "pydantic", "yaml")


def test_commands_beside_a_running_controller_start_light(tmp_path: Path) -> None:
    """Each is a request to the controller. What is heavy is in memory there."""
    house = House(tmp_path)
    api = ControlApi(
        house.controller,
        PassLock(),
        threading.Event(),
        directory=DIR,
        trusted=frozenset({os.getuid()}),
    )
    house.settle()
    commands = (("status",), ("plan",), ("plan", "--json"), ("plan", "-v"), ("diff",), ("apply",))
    with answering(api) as root:
        for command in commands:
            modules = loaded_by(*command, "--state", str(root))
            assert not of_package(modules, *HEAVY), command
            assert not of_package(modules, "controller.loop", "controller.engine"), command


def test_questions_to_the_journal_start_light(tmp_path: Path) -> None:
    """Each is answered in milliseconds: most of what it takes is starting."""
    heavy = ("docker", "requests", "jinja2", "rich", "pydantic", "yaml", "httptools", "http")
    for command in (("list", "--since", "1d"), ("explain", "web.1-1f0c22aa"), ("verify",)):
        assert not of_package(loaded_by("journal", *command, "--state", str(tmp_path)), *heavy)
    assert not of_package(loaded_by("journal", "list", "--state", str(tmp_path)), *WORLD)
    modules = imported("controller.journal.index.queries")
    assert not of_package(modules, *heavy, *WORLD), "root and the broker's user read the files"


def test_a_screen_and_logs_load_no_values_of_the_gate(tmp_path: Path) -> None:
    for command in (("describe", "web"), ("logs", "web")):
        assert not of_package(loaded_by(*command, "--state", str(tmp_path)), *WORLD), command


def test_the_controller_loads_nothing_that_only_questions_or_rare_documents_need() -> None:
    modules, _ = loaded_controller()
    assert "controller.app.controller" in modules
    assert not of_package(
        modules,
        # Plans for people are printed on request.
        *(f"controller.core.review.{name}" for name in ("review", "plan_text")),
        *("controller.core.review.plan_json", "controller.core.review.progress"),
        "controller.core.adoption.forms",
        *("controller.core.enforcement.approvals", "controller.core.records.query"),
        # Only a document with a SOPS file needs ciphers.
        *("controller.core.secrets.sops_metadata", "cryptography"),
        # The parent's code: a controller that `up` starts inherits its socket.
        *("controller.app.up", "controller.app.child_commands", "controller.app.state_folder"),
    )


def test_validators_of_documents_are_built_with_the_first_document() -> None:
    """A directory has few of the kinds."""
    _, models = loaded_controller()
    assert models == []


def test_the_parent_of_up_starts_light() -> None:
    """The parent stays in memory beside its children, and reads no document and no record."""
    parts = ("controller.app.up", "controller.app.fetcher", "controller.cli.status.live_view")
    modules = imported(*parts)
    assert not of_package(modules, *HEAVY)
    assert not of_package(modules, "controller.core.manifests", "controller.core.records")


def test_the_parent_of_the_shipper_loads_no_sink(tmp_path: Path) -> None:
    """As root the parent opens files and nothing else: its child parses records and sends them."""
    modules = loaded_by("ship", "--state", str(tmp_path), "--to", "a=file:///tmp/a")
    assert "controller.app.shipper" in modules
    assert not of_package(modules, "controller.ship.shipper", "controller.ship.sinks")
