"""One translation in progress: the names of a project, and the problems found so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, cast

from controller.core.compose.project import ComposeProject, Place, TreePath
from controller.core.compose.translation.extension import extension_of
from controller.core.compose.translation.names import dns_name, namespace_of
from controller.core.compose.translation.settings import ComposeSettings
from controller.core.encoding.quoting import path_text
from controller.core.yaml.documents import YamlPath
from controller.model.desired.spec.network import ALIASES_MAX
from controller.model.errors import Problem, Severity
from controller.model.names import JOB_NAME_MAX, SERVICE_NAME_MAX, Key

Tree = Mapping[str, object]
#: The digits of a number that is converted; a longer one is a problem of the document.
_DIGITS_MAX: Final = 40


def mapping(value: object) -> Tree:
    """Return a mapping; an empty one for any other value."""
    return cast("Tree", value) if isinstance(value, Mapping) else {}


def items(value: object) -> list[object]:
    """Return a list; an empty one for any other value."""
    return list(value) if isinstance(value, list | tuple) else []


def texts(value: object) -> list[str]:
    """Return the texts of a list or of a single text."""
    return [value] if isinstance(value, str) else [str(each) for each in items(value)]


def whole_number(value: object) -> int | None:
    """Return the number that decimal digits write, such as a port; None for another value."""
    text = str(value)
    is_number = text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX
    return int(text) if is_number else None


def _ends(service: Tree) -> bool:
    """Return True if a service isn't started again once it has ended."""
    condition = mapping(mapping(service.get("deploy")).get("restart_policy")).get("condition")
    return (condition or service.get("restart")) in (None, "", "no", "none", False)


def _linked_names(services: Tree) -> Mapping[str, list[str]]:
    """Return the second names in ``links``, by the named service.

    Of too many names, the allowed number and a further name are kept: the document has a problem.
    """
    found: dict[str, list[str]] = {}
    for tree in services.values():
        for link in texts(mapping(tree).get("links")):
            service, _, alias = link.partition(":")
            names = found.setdefault(service, [])
            if alias and len(names) <= ALIASES_MAX:
                names.append(alias)
    return found


@dataclass(frozen=True, slots=True)
class FoundPath:
    """The file or folder at a path of the project."""

    kind: Literal["file", "folder", "absent", "outside", "other"]
    #: Somebody can execute the file.
    executable: bool = False
    #: The files below a folder, by their names in it, if they are few.
    names: tuple[str, ...] = ()
    #: Why a file or folder can't be a Config: it is too large.
    reason: str = ""

    @property
    def is_absent(self) -> bool:
        return self.kind == "absent"


@dataclass(frozen=True, slots=True)
class ContextRequest:
    """The files that a build asks for."""

    #: A folder, relative to the root of the source.
    context: str
    #: The path of the Dockerfile, relative to the context.
    dockerfile: str
    #: The text of the Dockerfile if the Compose file has it.
    inline: str | None = None


@dataclass(frozen=True, slots=True)
class FoundContext:
    """What a folder has for a build."""

    #: The folder, as documents name it.
    name: str = ""
    #: The platform of the engine, such as ``linux/amd64``.
    platform: str = ""
    #: The digest of the files that the build gets.
    digest: str = ""
    #: The text of the Dockerfile.
    dockerfile: str = ""
    #: The Dockerfile is a file of the context.
    is_inside: bool = True
    #: The reason why there is no context, and the remedy.
    fault: tuple[str, str] | None = None


#: Returns the files of a build.
ReadContext = Callable[[ContextRequest], FoundContext]


def no_context(_request: ContextRequest) -> FoundContext:
    """Return that nothing can be built, for readers without the files of a context."""
    fault = "nothing can be built here: only the Compose file is known", "build the image elsewhere"
    return FoundContext(fault=fault)


#: The network of services that name none.
DEFAULT_NETWORK: Final = "default"
#: The warnings of a translation that are kept. Errors are all kept: each one holds its resource back.
WARNINGS_MAX = 200


class LookUp(Protocol):
    """Returns the file or folder at a path, relative to the root of the source."""

    def __call__(self, path: str, /, *, listed: bool = True) -> FoundPath:
        """Look at *path*; *listed*: with the names of the files in a folder."""
        ...


@dataclass(slots=True)
class Draft:
    """A document in the making, with the origin of its fields in the project."""

    kind: str
    name: str
    #: The element of the project for which the document is made.
    origin: TreePath
    spec: dict[str, object] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    #: The path in the project for a path in the document.
    origins: dict[YamlPath, TreePath] = field(default_factory=dict)

    def put(self, path: str, value: object, origin: str | TreePath) -> None:
        """Set the field at a path, such as ``spec.resources.memory``.

        *origin* is the attribute in the element of the project, or its path there.
        """
        _, *parents, last = path.split(".")
        members = self.spec
        for part in parents:
            members = cast("dict[str, object]", members.setdefault(part, {}))
        members[last] = value
        self.trace(tuple(path.split(".")), origin)
        if parents and origin:
            first = origin if isinstance(origin, str) else origin[0]
            self.origins.setdefault(("spec", parents[0]), (*self.origin, first))

    def add(self, path: str, value: object, origin: TreePath) -> None:
        """Append an item to a list below spec."""
        listed = cast("list[object]", self.spec.setdefault(path, []))
        self.origins.setdefault(("spec", path), (*self.origin, origin[0]))
        self.trace(("spec", path, len(listed)), origin)
        listed.append(value)

    def trace(self, path: YamlPath, origin: str | TreePath) -> None:
        """Record the origin of a field."""
        own = origin if isinstance(origin, tuple) else (origin,)
        self.origins[path] = (*self.origin, *own)


class TranslationScope:
    """A project in translation, with the names in trimtab and the problems."""

    def __init__(
        self,
        project: ComposeProject,
        settings: ComposeSettings,
        look: LookUp,
        read_context: ReadContext = no_context,
    ) -> None:
        self.project = project
        self.settings = settings
        self.look = look
        self.read_context = read_context
        self.namespace = namespace_of(project.name)
        self._warnings = 0
        self.extension = extension_of(project)
        self.owner = self.extension.owner or settings.owner
        self.services = mapping(project.tree.get("services"))
        self.problems: list[Problem] = []
        self.drafts: list[Draft] = []
        #: The names that links of other services give to a service.
        self.linked_names = _linked_names(self.services)
        #: The services that run to completion.
        self.jobs = frozenset(self._jobs())

    def _jobs(self) -> Iterable[str]:
        for service in self.services.values():
            for name, terms in mapping(mapping(service).get("depends_on")).items():
                completed = mapping(terms).get("condition") == "service_completed_successfully"
                if completed and _ends(mapping(self.services.get(name))):
                    yield name
        for name, service in self.services.items():
            mode = mapping(mapping(service).get("deploy")).get("mode")
            if mode in ("replicated-job", "global-job"):
                yield name

    def kind_of(self, service: str) -> str:
        """Return the kind of the resource for a service."""
        return "Job" if service in self.jobs else "Service"

    def name_of(self, service: str) -> str:
        """Return the name of the resource for a service."""
        return dns_name(service, JOB_NAME_MAX if service in self.jobs else SERVICE_NAME_MAX)

    def key_of(self, service: str) -> Key:
        """Return the key of the resource for a service."""
        return Key(self.kind_of(service), self.namespace, self.name_of(service))

    def name_by_compose(self, name: str, declared: Tree) -> str:
        """Return the name that Docker Compose gives to a volume or network of the project."""
        return str(declared.get("name") or f"{self.project.name}_{name}")

    def is_declared(self, network: str) -> bool:
        """Return True if a network of the project is a Network; False for an implied one."""
        declared = mapping(mapping(self.project.tree.get("networks")).get(network))
        is_kept = bool(declared.get("external")) or self.extension.keeps_networks
        return network != DEFAULT_NETWORK or is_kept

    def place(self, path: TreePath) -> Place:
        """Return the place of a value, or of its nearest ancestor."""
        return self.project.locate(path)

    def error(self, path: TreePath, code: str, message: str, remedy: str, key: Key | None) -> None:
        """Add an error; it blinds the resource *key*, or the source if there is none."""
        self._add(path, code, message, remedy, key, Severity.ERROR)

    def warn(self, path: TreePath, code: str, message: str, remedy: str, key: Key | None) -> None:
        """Add a warning. Of many warnings, the first ones are kept."""
        self._warnings += 1
        if self._warnings <= WARNINGS_MAX:
            self._add(path, code, message, remedy, key, Severity.WARNING)

    def count_left_out(self) -> None:
        """Add a warning with the number of warnings that were not kept."""
        left_out = self._warnings - WARNINGS_MAX
        if left_out > 0:
            message = f"{left_out} more warnings of the project are not listed"
            remedy = "correct those that are listed"
            self._add((), "compose.limit", message, remedy, None, Severity.WARNING)

    def _add(
        self,
        path: TreePath,
        code: str,
        message: str,
        remedy: str,
        key: Key | None,
        severity: Severity,
    ) -> None:
        at = self.place(path)
        self.problems.append(
            Problem(
                code,
                message,
                at.file,
                at.line,
                at.column,
                remedy=remedy,
                severity=severity,
                key=key,
                field=path_text(path),
            )
        )
