"""Each module can be imported: `make ring KIND=python-share` asks it of the oldest Python that is promised."""

from __future__ import annotations

import importlib
import pkgutil

import controller


def test_every_module_can_be_imported() -> None:
    names = [each.name for each in pkgutil.walk_packages(controller.__path__, "controller.")]
    imported = [importlib.import_module(name).__name__ for name in names if "__main__" not in name]
    assert {"controller.cli.main", "controller.core.drift.classify"} < set(imported)
