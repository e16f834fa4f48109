"""The progress of a pull, from the lines of the engine.

A line is progress if it changes the state of a layer or of the whole pull. The countdown to the
next retry is not progress. Otherwise a pull from an unresponsive registry would never be aborted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from controller.core.encoding.json_members import parse_json

#: Further layers are ignored.
LAYERS_MAX = 1024
_MEBIBYTE = 1024 * 1024
_DONE = frozenset({"Pull complete", "Already exists"})
_BEGINS = "Pulling from"
_RETRYING = "Retrying"
_DOWNLOADING = "Downloading"
_DOWNLOADED = frozenset({"Verifying Checksum", "Download complete", "Extracting", "Pull complete"})


@dataclass(frozen=True, slots=True)
class Layer:
    """The last state of a layer, and its downloaded bytes."""

    status: str
    current: int = 0
    total: int = 0
    detail: int = 0  # the progress of the current step


@dataclass(frozen=True, slots=True)
class PullProgress:
    """The progress of a pull so far."""

    layers: Mapping[str, Layer] = field(default_factory=lambda: MappingProxyType({}))
    said: str = ""  # the last line without a layer


def advance(progress: PullProgress, line: bytes) -> PullProgress:
    """Return the progress after a line; the same object if the line shows none."""
    try:
        value = parse_json(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return _said(progress, line.decode("utf-8", "replace"))
    status, name = str(value.get("status") or ""), str(value.get("id") or "")
    if not name or status.startswith(_BEGINS):
        return _said(progress, str(value.get("error") or status))
    before = progress.layers.get(name)
    if before is None and len(progress.layers) >= LAYERS_MAX:
        return progress
    after = _layer(before or Layer(""), status, value.get("progressDetail"))
    if after == before:
        return progress
    return replace(progress, layers=MappingProxyType({**progress.layers, name: after}))


def describe(progress: PullProgress) -> str:
    """Return the progress as text: ``3 of 7 layers, 41 of 120 MiB``."""
    layers = progress.layers.values()
    if not layers:
        return "asking its registry"
    done = sum(layer.status in _DONE for layer in layers)
    parts = [f"{done} of {len(layers)} layers"]
    total = sum(layer.total for layer in layers)
    if total:
        here = sum(min(layer.current, layer.total) for layer in layers)
        parts.append(f"{here // _MEBIBYTE} of {max(1, round(total / _MEBIBYTE))} MiB")
    if any(layer.status == _RETRYING for layer in layers):
        parts.append("its registry failed, trying again")
    return ", ".join(parts)


def _said(progress: PullProgress, what: str) -> PullProgress:
    return progress if what == progress.said else replace(progress, said=what)


def _layer(before: Layer, status: str, detail: object) -> Layer:
    if status.startswith(_RETRYING):
        return Layer(_RETRYING, total=before.total)
    current, total = _numbers(detail)
    if status == _DOWNLOADING:
        return Layer(status, current=current, total=total or before.total, detail=current)
    if status in _DOWNLOADED:
        return Layer(status, current=before.total, total=before.total, detail=current)
    return Layer(status, before.current, before.total, current)


def _numbers(detail: object) -> tuple[int, int]:
    if not isinstance(detail, dict):
        return 0, 0
    return _number(detail.get("current")), _number(detail.get("total"))


def _number(value: Any) -> int:
    known = isinstance(value, int) and not isinstance(value, bool)
    return max(0, value) if known else 0
