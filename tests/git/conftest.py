"""Temporary folders are in memory: exports flush each file, and one has ten thousand."""

from tests.memory import tmp_path_factory

__all__ = ["tmp_path_factory"]
