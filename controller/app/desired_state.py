"""Desired state: the source for a DIR and its charts."""

from __future__ import annotations

from pathlib import Path

from controller.sources.directory import DirectorySource


def directory_source(directory: Path) -> DirectorySource:
    """Return the source of the files in DIR, with the charts in ``configs/`` beside DIR."""
    return DirectorySource(directory, charts=charts_folder(directory))


def charts_folder(directory: Path) -> Path:
    """Return the charts folder of DIR's Releases."""
    return directory.parent / "configs"
