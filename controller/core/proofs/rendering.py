"""The answer of the render worker, read strictly: the worker parsed what others wrote."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from controller.core.git.commit_objects import CHARTS
from controller.core.proofs.proven_commit import ProvenCommit
from controller.core.secrets.declared import SecretName, SecretSource, declared_from_json
from controller.core.yaml.file_limit import MAX_BYTES
from controller.model.delivery import FILE_BYTES_MAX
from controller.model.errors import SecretError
from controller.model.names import Key

ENTRIES_MAX = 10_000
#: A service has up to 19 names (own, claimed and former), two rules of revisions, and two kinds of hosts.
SHAPES_MAX = 4 * 19
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
class RenderedShape:
    """A permitted create of a document.

    Besides its own create, a document permits the create with the revision by which a former name of
    the service knows the same settings (``core.service.history``).
    """

    shape: str
    #: The shape without the members that an update can change.
    base: str
    #: On a host that doesn't restore the files of Secrets before the engine.
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class RenderedWorkload:
    """A rendered service or job."""

    #: The document's file below the documents' folder, and its blob.
    path: str
    blob: str
    #: The creates that the document permits, its own first.
    shapes: tuple[RenderedShape, ...]
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
    #: The label of a run's completions; '' for one completion.
    completions: str = ""

    def has_shape(self, shape: str) -> bool:
        """Return True if a create of the shape is one of this document."""
        return any(shape == each.shape for each in self.shapes)

    def updates_of(self, shape: RenderedShape) -> Mapping[str, object]:
        """Return the values of an update's members for a shape."""
        # The controller starts late containers itself (``Service.is_boot_ordered``).
        return {**self.updates, "RestartPolicy": {"Name": "no"}} if shape.is_late else self.updates

    def declared(self, member: str) -> list[object]:
        """Return the values of a member of an update."""
        found = (self.updates_of(each) for each in self.shapes)
        return [updates[member] for updates in found if member in updates]


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
    #: By ``network:NAME``, ``volume:NAME``, ``files:KIND/NAMESPACE/NAME``, ``secret:NAMESPACE/NAME`` and
    #: ``move:KEY``, and by shape.
    objects: Mapping[str, Mapping[str, RenderedObject]]
    #: Why a resource isn't rendered.
    unsupported: Mapping[str, str] = field(default_factory=dict)
    #: Resources with a broken document, and ``every_key`` of the namespaces of broken Compose projects.
    broken: frozenset[str] = frozenset()
    #: A broken document possibly declares any resource.
    blind: bool = False
    #: The content ids of the Secrets that the broker has opened for this rendering, by their keys.
    contents: Mapping[str, str] = field(default_factory=dict)

    def find(self, key: str, shape: str) -> RenderedWorkload | None:
        """Return a service or job: of the variants of a job, the one of the shape, or else the first.

        A job with the image of services has a variant for each service, as ``KEY@SERVICE``.
        """
        variants = [each for name, each in self.entries.items() if name.startswith(f"{key}@")]
        found = [each for each in variants if each.has_shape(shape)]
        return self.entries.get(key) or next(iter([*found, *variants]), None)

    def may_declare(self, key: str) -> bool:
        """Return True if the commit declares a resource, or possibly does in an unreadable document."""
        is_broken = key in self.broken or every_key(Key.parse(key).namespace) in self.broken
        return self.find(key, "") is not None or is_broken or self.blind

    @classmethod
    def read(
        cls,
        proven: ProvenCommit,
        answer: Mapping[str, Any],
        contents: Mapping[str, str] = MappingProxyType({}),
    ) -> Rendering:
        """Read the worker's answer. *contents* are those of the opened Secrets.

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
                contents=contents,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a member of another form: {error!r:.100}") from None


def every_key(namespace: str) -> str:
    """Return the text for all resources of a namespace."""
    return f"*/{namespace}/*"


def join_parts(parts: object) -> dict[str, Any]:
    """Return the rendering that the worker sent in parts.

    Raises:
        ValueError: a part has another form.
    """
    rendered: dict[str, Any] = {"entries": {}, "objects": {}, "unsupported": {}}
    rendered["broken"] = []
    chunks: dict[str, list[str]] = {}
    if not isinstance(parts, list):
        raise ValueError("an answer without parts")  # noqa: TRY004 - documented above
    for part in parts:
        for name, value in part.items():
            known = rendered.get(name)
            if name == "secrets":
                _add_chunks(chunks, value)
            elif isinstance(known, dict) and isinstance(value, dict):
                known |= value
            elif isinstance(known, list) and isinstance(value, list):
                known += value
            elif name == "blind" and known is None:
                rendered[name] = value
            else:
                raise ValueError("a part of another form")
    return rendered | {"secrets": {key: "".join(texts) for key, texts in chunks.items()}}


def _add_chunks(chunks: dict[str, list[str]], part: object) -> None:
    if not isinstance(part, dict) or not all(isinstance(text, str) for text in part.values()):
        raise ValueError("a part of another form")
    for key, text in part.items():
        chunks.setdefault(key, []).append(text)


@dataclass(frozen=True, slots=True)
class ProvenSecret:
    """A Secret of the commit, for the broker to open."""

    bound: SecretName
    source: SecretSource = field(repr=False)


def read_secrets(texts: Mapping[str, str], namespaces: Collection[str]) -> dict[str, ProvenSecret]:
    """Return the Secrets of the worker's answer, by their keys.

    Raises:
        ValueError: another form, or a namespace of others.
    """
    found = {}
    try:
        for text, source in texts.items():
            key, value = Key.parse(_text(text)), json.loads(source)
            if key.kind != "Secret" or key.namespace not in namespaces:
                raise ValueError("a Secret of another namespace")
            bound = SecretName(key.namespace, _text(value["owner"]), key.name)
            found[text] = ProvenSecret(bound, declared_from_json(value["source"]))
    except (KeyError, TypeError, RecursionError, SecretError) as error:
        raise ValueError(f"a Secret of another form: {error!r:.100}") from None
    return found


def _entry(proven: ProvenCommit, value: Mapping[str, Any]) -> RenderedWorkload:
    path, blob = _place(proven, value["file"])
    replicas, updates = value["replicas"], value["updates"]
    if not isinstance(replicas, int) or not isinstance(updates, dict):
        raise TypeError("an entry")
    return RenderedWorkload(
        path=path,
        blob=blob,
        shapes=_shapes(value["shapes"]),
        reference=_text(value["reference"]),
        endpoints={
            _text(network): tuple(map(_text, aliases))
            for network, aliases in _bounded(value["endpoints"])
        },
        updates=updates,
        replicas=replicas,
        occasions=tuple(map(_text, value["occasions"])),
        schedule=_schedule(value["schedule"]),
        completions=_text(value["completions"]),
    )


def _shapes(value: list[Any]) -> tuple[RenderedShape, ...]:
    if not value or len(value) > SHAPES_MAX:
        raise ValueError("no shape, or too many of them")
    return tuple(
        RenderedShape(_text(shape), _text(base), is_late is True) for shape, base, is_late in value
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
