"""Objects that are exempt from collections of garbage."""

from __future__ import annotations

import gc

import pytest

from controller.system.runtime import (
    importing,
    keep_out_of_collections,
    postpone_full_collections,
)


def test_what_exists_is_kept_out_of_collections() -> None:
    kept: list[object] = [[]]
    try:
        keep_out_of_collections()
        assert gc.get_freeze_count() > 0
        assert not any(each is kept for each in gc.get_objects())
    finally:
        gc.unfreeze()


def test_what_a_plan_makes_is_not_visited_by_a_full_collection() -> None:
    before = gc.get_threshold()
    began: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        began.extend([info["generation"]] * (phase == "start"))

    try:
        gc.set_threshold(100, 2, 2)
        postpone_full_collections()
        gc.callbacks.append(note)
        # Objects that outlive the collections of young ones.
        made = [[number] for number in range(10_000)]
        gc.callbacks.remove(note)
        assert made
        assert 1 in began
        assert 2 not in began
    finally:
        gc.set_threshold(*before)


def test_imports_run_without_collections_and_stay_out_of_later_ones() -> None:
    try:
        with importing():
            assert not gc.isenabled()
            module: list[object] = [[]]
        assert gc.isenabled()
        assert not any(each is module for each in gc.get_objects())
    finally:
        gc.unfreeze()


def test_collections_go_on_after_an_import_that_fails() -> None:
    try:
        with pytest.raises(ImportError), importing():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()
