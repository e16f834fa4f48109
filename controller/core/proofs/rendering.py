"""The answer of the render worker, read strictly: the worker parsed what others wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.core.encoding.yaml import MAX_BYTES
from controller.core.git.tree_checks import CHARTS
from controller.core.proofs.proven_commit import ProvenCommit
from controller.model.files.delivery import FILE_BYTES_MAX

ENTRIES_MAX = 10_000
#: Longer files are refused by their length, so the worker gets no more of their bytes.
RENDERED_MAX = max(MAX_BYTES, FILE_BYTES_MAX) + 1
_TEXT_MAX = 4096
#: The folder of the charts, from the documents' folder.
_CHARTS = f"../{CHARTS}/"


@dataclass(frozen=True, slots=True)
class RenderedSchedule:
    """When a job runs: the cron schedule, its time zone, and how late a run may begin."""

    text: str
    zone: str
    deadline_s: int


@dataclass(frozen=True, slots=True)
class RenderedWorkload:
    """A rendered service or job."""

    #: The document's file below the documents' folder, and its blob.
    path: str
    blob: str
    shape: str
    #: The reference of the image.
    reference: str
    endpoints: Mapping[str, tuple[str, ...]]
    #: The values of an update's members.
    updates: Mapping[str, object]
    #: 0 for a stopped service.
    replicas: int
    #: The beginnings of the occasions for which a job has runs.
    occasions: tuple[str, ...] = ()
    schedule: RenderedSchedule | None = None


@dataclass(frozen=True, slots=True)
class RenderedObject:
    """A rendered network, volume or delivery: the declaring resource, with the file."""

    resource: str
    path: str
    blob: str


@dataclass(frozen=True, slots=True)
class Rendering:
    """The changes that an accepted commit permits in the namespaces of a source."""

    proven: ProvenCommit
    entries: Mapping[str, RenderedWorkload]
    #: By ``network:NAME``, ``volume:NAME`` and ``files:KIND/NAMESPACE/NAME``, and by shape.
    objects: Mapping[str, Mapping[str, RenderedObject]]
    #: Why a resource isn't rendered.
    unsupported: Mapping[str, str] = field(default_factory=dict)
    #: Resources with a broken document.
    broken: frozenset[str] = frozenset()
    #: A broken document possibly declares any resource.
    blind: bool = False

    def may_declare(self, key: str) -> bool:
        """Return True if the commit declares a resource, or possibly does in an unreadable document."""
        return key in self.entries or key in self.broken or self.blind

    @classmethod
    def read(cls, proven: ProvenCommit, answer: Mapping[str, Any]) -> Rendering:
        """Read the worker's answer.

        Raises:
            ValueError: the answer has another form.
        """
        try:
            rendered = answer["rendered"]
            return cls(
                proven,
                {_text(key): _entry(proven, each) for key, each in _bounded(rendered["entries"])},
                {
                    _text(name): {
                        _text(shape): _object(proven, each) for shape, each in _bounded(shapes)
                    }
                    for name, shapes in _bounded(rendered["objects"])
                },
                {_text(key): _text(why) for key, why in _bounded(rendered["unsupported"])},
                frozenset(map(_text, rendered["broken"])),
                blind=rendered["blind"] is not False,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a member of another form: {error!r:.100}") from None


def join_parts(parts: object) -> dict[str, Any]:
    """Return the rendering that the worker sent in parts.

    Raises:
        ValueError: a part has another form.
    """
    rendered: dict[str, Any] = {"entries": {}, "objects": {}, "unsupported": {}, "broken": []}
    if not isinstance(parts, list):
        raise ValueError("an answer without parts")  # noqa: TRY004 - documented above
    for part in parts:
        for name, value in part.items():
            known = rendered.get(name)
            if isinstance(known, dict) and isinstance(value, dict):
                known |= value
            elif isinstance(known, list) and isinstance(value, list):
                known += value
            elif name == "blind" and known is None:
                rendered[name] = value
            else:
                raise ValueError("a part of another form")
    return rendered


def _entry(proven: ProvenCommit, value: Mapping[str, Any]) -> RenderedWorkload:
    path, blob = _place(proven, value["file"])
    replicas, updates = value["replicas"], value["updates"]
    if not isinstance(replicas, int) or not isinstance(updates, dict):
        raise TypeError("an entry")
    return RenderedWorkload(
        path=path,
        blob=blob,
        shape=_text(value["shape"]),
        reference=_text(value["reference"]),
        endpoints={
            _text(network): tuple(map(_text, aliases))
            for network, aliases in _bounded(value["endpoints"])
        },
        updates=updates,
        replicas=replicas,
        occasions=tuple(map(_text, value["occasions"])),
        schedule=_schedule(value["schedule"]),
    )


def _schedule(value: list[Any] | None) -> RenderedSchedule | None:
    if value is None:
        return None
    text, zone, deadline_s = value
    if not isinstance(deadline_s, int):
        raise TypeError("a schedule")
    return RenderedSchedule(_text(text), _text(zone), deadline_s)


def _object(proven: ProvenCommit, value: list[Any]) -> RenderedObject:
    resource, file = value
    return RenderedObject(_text(resource), *_place(proven, file))


def _place(proven: ProvenCommit, file: str) -> tuple[str, str]:
    """Return the path and the blob of a document's file in the commit."""
    source, _, path = _text(file).partition(":")
    is_chart = path.startswith(_CHARTS)
    listed = proven.charts if is_chart else proven.files
    found = listed.get(path.removeprefix(_CHARTS) if is_chart else path)
    if source != proven.source or found is None:
        raise ValueError("a file that the commit doesn't have")
    return path, found.blob


def _bounded(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    if len(value) > ENTRIES_MAX:
        raise ValueError(f"more than {ENTRIES_MAX} members")
    return list(value.items())


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _TEXT_MAX:
        raise ValueError("a member that is no short text")
    return value
