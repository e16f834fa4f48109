"""Objects that are exempt from collections of garbage."""

from __future__ import annotations

import gc

from controller.system.heap import keep_out_of_collections


def test_what_exists_is_kept_out_of_collections() -> None:
    kept: list[object] = [[]]
    try:
        keep_out_of_collections()
        assert gc.get_freeze_count() > 0
        assert not any(each is kept for each in gc.get_objects())
    finally:
        gc.unfreeze()
