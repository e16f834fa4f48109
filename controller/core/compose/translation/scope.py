"""One translation in progress: the names of a project, and the problems found so far.

Names of Compose as names of trimtab: DNS labels, bounded, and still to be told apart.

The choices of the policy that complete a Compose file.

The extension ``x-trimtab`` of a project: choices for trimtab that Docker Compose ignores.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast

from controller.core.compose.project import EXTENSION, ComposeProject, Place, TreePath
from controller.core.encoding.text import path_text
from controller.core.yaml.documents import YamlPath
from controller.model.desired.spec.network import ALIASES_MAX
from controller.model.errors import Problem, Severity
from controller.model.names import JOB_NAME_MAX, NAMESPACE_MAX, SERVICE_NAME_MAX, Key, is_dns_label
from controller.model.policy.document import Policy

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Hex digits of the original name's digest behind a name that was cut.
_DIGITS: Final = 8
_OTHER = re.compile(r"[^a-z0-9]+")


def dns_name(original: str, length: int = SERVICE_NAME_MAX) -> str:
    """Return the name of a resource for a name of Compose.

    Lower case, with ``-`` for ``_`` and ``.``. A longer name is cut, and ends with a digest of the
    original, so that two long names stay different.
    """
    name = _OTHER.sub("-", original.lower()).strip("-")
    if is_dns_label(name, length=length):
        return name
    digest = hashlib.sha256(original.encode()).hexdigest()[:_DIGITS]
    head = name[: length - _DIGITS - 1].strip("-")
    return f"{head}-{digest}" if head else f"x-{digest}"


def namespace_of(project: str) -> str:
    """Return the namespace of a project's resources."""
    return dns_name(project, NAMESPACE_MAX)


#: The capabilities that Docker gives to every container, without those that endanger other
#: containers or that few images need: NET_RAW, MKNOD, AUDIT_WRITE, SETFCAP, SYS_CHROOT.
USUAL_CAPABILITIES: Final = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE"),
    *("SETGID", "SETPCAP", "SETUID"),
)
#: The owner of projects, if nothing names an owner.
DEFAULT_OWNER: Final = "default"
#: The code of the warning that a file must be copied for a Secret. It ends when the Secret is opened.
SECRET_COPY: Final = "compose.secret-copy"  # noqa: S105 — a code


@dataclass(frozen=True, slots=True)
class ComposeSettings:
    """The policy's choices. The defaults are those of the policy ``strict``."""

    #: The owner of projects without ``x-trimtab.owner``.
    owner: str = DEFAULT_OWNER
    #: The network ``default`` of a project.
    network: Literal["isolated", "bridge"] = "isolated"
    #: The host address of a port without an address.
    address: str = "127.0.0.1"
    #: The policy admits ports on all addresses of the host.
    everywhere: bool = False
    #: The capabilities of a service that drops none.
    capabilities: tuple[str, ...] = ("CHOWN", "SETGID", "SETUID")
    #: The policy allows further names of services.
    aliases: bool = False
    #: The policy grants builds. Otherwise an image beside a build is run as it is.
    builds: bool = False
    #: The size of a tmpfs without a size, in bytes.
    tmpfs: int = 64 * 1024**2
    #: The absolute path of the source's root, '' for none: files of a Git source have no place that lasts.
    directory: str = ""
    #: The observers of the policy: NAMESPACE/SERVICE.
    observers: tuple[str, ...] = ()

    @property
    def home(self) -> str:
        """The home of a user around the directory, which ``~`` means; '' if there is none."""
        parts = self.directory.split("/")
        if parts[:2] == ["", "root"]:
            return "/root"
        return "/".join(parts[:3]) if parts[:2] == ["", "home"] and len(parts) > 2 else ""


def settings_of(policy: Policy) -> ComposeSettings:
    """Return the choices of a policy."""
    networks, owners = policy.networks, policy.owners or ()
    allowed = policy.capabilities.allowed
    return ComposeSettings(
        owner=owners[0].name if len(owners) == 1 else DEFAULT_OWNER,
        network=networks.compose_default,
        address=networks.ports.host_ips[0],
        everywhere="0.0.0.0" in networks.ports.host_ips,  # noqa: S104 - what the policy admits
        capabilities=tuple(name for name in USUAL_CAPABILITIES if name in allowed),
        aliases=networks.service_aliases,
        builds=policy.images.build is not None,
        tmpfs=policy.resources.tmpfs.default,
        directory=policy.directory,
        observers=tuple(
            f"{each.namespace}/{each.service}"
            for each in policy.exceptions
            if each.loosens.observer is not None
        ),
    )


def owned_by(
    owners: Sequence[str], settings: Callable[[], ComposeSettings]
) -> Callable[[], ComposeSettings]:
    """Return the settings of a Git source: with its only owner, if it lists one alone."""

    def own() -> ComposeSettings:
        chosen = settings()
        owner = owners[0] if len(owners) == 1 else chosen.owner
        return replace(chosen, owner=owner, directory="")

    return own


#: The reader of projects takes ``files`` and ``profiles``.
_MEMBERS: Final = ("files", "networks", "owner", "profiles", "suspend", "volumes")
#: Members that choose between the objects of Docker Compose and those of trimtab.
_KEEPING: Final = ("networks", "volumes")
_CHOICES: Final = ("compose", "trimtab")


@dataclass(frozen=True, slots=True)
class Extension:
    """The valid choices of ``x-trimtab``; the defaults for all others."""

    owner: str = ""  # '' for the owner of the settings
    is_suspended: bool = False  # services are left as they are, and no job runs
    keeps_volumes: bool = False  # volumes have the names that Docker Compose gives
    keeps_networks: bool = False  # the services join the networks that Docker Compose made


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in ``x-trimtab``."""

    #: The member with the mistake; None for all of ``x-trimtab``.
    member: str | None
    message: str
    remedy: str


def extension_of(project: ComposeProject) -> Extension:
    """Return the choices of a project."""
    tree = _tree(project)
    owner = tree.get("owner")
    return Extension(
        owner=owner if isinstance(owner, str) else "",
        is_suspended=tree.get("suspend") is True,
        keeps_volumes=tree.get("volumes") == "compose",
        keeps_networks=tree.get("networks") == "compose",
    )


def mistakes_of(project: ComposeProject) -> Iterator[Mistake]:
    """Yield the mistakes in ``x-trimtab``."""
    whole = project.tree.get(EXTENSION)
    if whole is not None and not isinstance(whole, Mapping):
        yield Mistake(None, f"{EXTENSION} must be a mapping", f"write {EXTENSION}: {{owner: NAME}}")
    for name, value in _tree(project).items():
        if name not in _MEMBERS:
            near = get_close_matches(name, _MEMBERS, 1)
            remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(_MEMBERS)}"
            yield Mistake(name, f"{EXTENSION} has no member {name}", remedy)
        elif name == "owner" and not (isinstance(value, str) and value):
            yield Mistake(name, f"{EXTENSION}.owner must be a name", "write the name of an owner")
        elif name == "suspend" and not isinstance(value, bool):
            yield Mistake(name, f"{EXTENSION}.suspend must be true or false", "write true or false")
        elif name in _KEEPING and value not in _CHOICES:
            message = f"{EXTENSION}.{name} must be one of {', '.join(_CHOICES)}"
            yield Mistake(name, message, f"write compose to keep the {name} of Docker Compose")


def _tree(project: ComposeProject) -> Mapping[str, object]:
    tree = project.tree.get(EXTENSION)
    return cast("Mapping[str, object]", tree) if isinstance(tree, Mapping) else {}


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
