"""Unit tests have their temporary folders in memory: journals flush what they write thousands of times."""

from tests.memory import tmp_path_factory

__all__ = ["tmp_path_factory"]
