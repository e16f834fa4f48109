"""The answer of the render worker, read strictly, and the form in which requests are compared with it.

The controller's own choices are taken out of a create: the slot, the occasion of a run, and
when a container gets the names of its service. The number of a job's runs is compared with the
newest document, apart from the revision. Everything else is one digest, the *shape*. The broker
loads no parser of documents for it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from controller.core.encoding.json_values import digest
from controller.core.engine_api.comparable_fields import LIMITS
from controller.core.git.commit_objects import CHARTS
from controller.core.proofs.proven_commit import ProvenCommit
from controller.core.secrets.declared import SecretName, SecretSource, declared_from_json
from controller.core.yaml.file_limit import MAX_BYTES
from controller.model import names
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


#: The names of a container by network.
Endpoints = tuple[tuple[str, tuple[str, ...]], ...]
#: The members of a create's ``HostConfig`` that an update can change.
UPDATES: Final = (*LIMITS.values(), "RestartPolicy")


@dataclass(frozen=True, slots=True)
class CreateShape:
    """A create, without the controller's choices."""

    shape: str
    #: The shape without the members that an update can change.
    base: str
    #: The values of these members.
    updates: Mapping[str, object]
    #: The image to run, and the reference in the document.
    image: str
    reference: str
    slot: str
    #: Why a run is made; '' for a container of a service.
    occasion: str
    #: The label of a run's completions; '' without one.
    completions: str
    endpoints: Endpoints


def shape_of_create(body: object, *, former: str = "") -> CreateShape | None:
    """Return the shape of a create's body; None for a body of another form.

    *former*: the shape that the create would have under an earlier name of its service.
    """
    if not isinstance(body, dict):
        return None
    labels = body.get("Labels")
    if not isinstance(labels, dict):
        return None
    if former:
        labels = {**labels, names.SERVICE: former}
    free = (names.SLOT, names.OCCASION, names.COMPLETIONS)
    slot, occasion, completions, reference = (labels.get(name, "") for name in (*free, names.IMAGE))
    image = body.get("Image", "")
    kept = {name: text for name, text in labels.items() if name not in free}
    rest = {**body, "Labels": kept, "Image": None}
    endpoints = _take_endpoints(rest)
    texts = (image, reference, slot, occasion, completions)
    if endpoints is None or not all(isinstance(each, str) for each in texts):
        return None
    host = rest.get("HostConfig", {})
    if not isinstance(host, dict):
        return None
    fixed = {name: value for name, value in host.items() if name not in UPDATES}
    shape, base = shape_of(rest), shape_of({**rest, "HostConfig": fixed})
    if shape is None or base is None:
        return None
    return CreateShape(shape, base, updates_of(host), *texts, endpoints)


def updates_of(host: Mapping[str, Any]) -> dict[str, object]:
    """Return the values that an update brings a container to, from the ``HostConfig`` of a create."""
    values = {name: host[name] for name in UPDATES if name in host}
    # Swap follows the memory (core.rules.container).
    swap = {"MemorySwap": values["Memory"]} if "Memory" in values else {}
    return values | swap


def are_same(name: str, one: object, other: object) -> bool:
    """Return True if a member of an update has the same value in both."""
    if name == "RestartPolicy" and isinstance(one, dict) and isinstance(other, dict):
        one, other = ({"MaximumRetryCount": 0, **each} for each in (one, other))
    return shape_of(one) == shape_of(other)


def shape_of(body: object) -> str | None:
    """Return the digest of a body; None for a value that no request has."""
    try:
        return digest(body)
    except TypeError:
        return None


def _take_endpoints(body: dict[str, object]) -> Endpoints | None:
    """Replace the endpoints of a body by the names of their networks, and return the endpoints."""
    config = body.get("NetworkingConfig")
    if config is None:
        return ()
    if not isinstance(config, dict) or config.keys() != {"EndpointsConfig"}:
        return None
    ends = config["EndpointsConfig"]
    if not isinstance(ends, dict):
        return None
    found = {network: _aliases(end) for network, end in ends.items()}
    body["NetworkingConfig"] = sorted(found)
    endpoints = tuple((name, each) for name, each in sorted(found.items()) if each is not None)
    return endpoints if len(endpoints) == len(found) else None


def _aliases(end: object) -> tuple[str, ...] | None:
    if not isinstance(end, dict) or not end.keys() <= {"Aliases"}:
        return None
    aliases = end.get("Aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(each, str) for each in aliases):
        return None
    return tuple(aliases)


def are_names_of(asked: Endpoints, declared: Mapping[str, tuple[str, ...]]) -> bool:
    """Return True if endpoints have the declared names, or none yet."""
    return all(
        network in declared and (not aliases or aliases == declared[network])
        for network, aliases in asked
    )
