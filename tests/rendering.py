"""Releases rendered in the process of a test: the chart worker takes half a second to start."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from controller.core.charts.releases import render_texts
from controller.sources.charts import RenderRelease


def in_process() -> AbstractContextManager[RenderRelease]:
    """Begin a reading without a worker: the argument ``begin_reading`` of a ``DirectorySource``."""
    return nullcontext(render_texts)
