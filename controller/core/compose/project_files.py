"""The files of a project to one tree: ``extends``, ``include``, ``!reset``, within limits.

``extends``: services with the attributes of another service, from the same or another file.

``include``: other Compose files with their own folder and variables, as parts of a project.

A project while its files are read: the files, the limits and the problems.

The stages from the files of a project to one tree in long form.

The order is the order of Compose: variables, extends, resets, includes, merging, the schema, long
forms, and after the last file the defaults, the checks and the paths.

The tags ``!reset`` and ``!override``: values of earlier files that a later file removes.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from controller.core.compose import nodes, project
from controller.core.compose.attributes import CASTS
from controller.core.compose.long_forms import add_defaults, to_long_forms
from controller.core.compose.merging import extend_service, merge, remove_repeated
from controller.core.compose.nodes import (
    MAX_NODES,
    ComposeNode,
    Fault,
    ReadingReport,
    RootPath,
    YamlDocument,
    fail,
    problem_at,
    read_yaml,
    same,
)
from controller.core.compose.project import EXTENSION, FileAbsent
from controller.core.compose.schema import check_choices, validate
from controller.core.compose.variables import EnvFileInvalid, interpolate, read_env, read_raw_env
from controller.core.yaml.file_limit import MAX_BYTES
from controller.core.yaml.loading import NodeAllowance
from controller.model.errors import Problem

_REMOTE = ("https://", "http://", "git://", "ssh://", "github.com/", "git@")
_WINDOWS = re.compile(r"(?:[a-zA-Z]:|\\\\[^\\/.][^\\/]*[\\/][^\\/.]+)[\\/]")

Resolver = Callable[[nodes.ComposeNode, str, nodes.NodePath], None]


def join(folder: str, path: str) -> str:
    """Return a path relative to the root of the source, for a path relative to a folder."""
    return posixpath.normpath(posixpath.join(folder, path))


def root_path(folder: str, path: str) -> nodes.RootPath:
    """Return a path of a tree: with ``./`` or ``../`` before a relative path."""
    joined = join(folder, path)
    if joined.startswith(("/", "../")) or joined == "..":
        return nodes.RootPath(joined.removeprefix("/") if joined.startswith("//") else joined)
    return nodes.RootPath("." if joined == "." else f"./{joined}")


def file_path(path: str) -> str:
    """Return the path of a file for the port, from a path of a tree."""
    return posixpath.normpath(path)


def resolve_paths(root: nodes.ComposeNode, folder: str, report: nodes.ReadingReport) -> None:
    """Resolve all paths of a tree that are relative to *folder*."""
    _RESOLVERS.walk(root, report, lambda resolve, node, path: resolve(node, folder, path))


def _local(node: nodes.ComposeNode, folder: str, path: nodes.NodePath) -> None:
    text = node.text
    if text is None or isinstance(text, nodes.RootPath):
        return
    if text.startswith("~"):
        message = f"{text!r} depends on the home folder of a user"
        nodes.fail(node, "compose.home", message, "write a path beside the Compose file", path)
    if not text.startswith("/") and not _WINDOWS.match(text):
        node.value = root_path(folder, text)


def _not_empty(node: nodes.ComposeNode, folder: str, path: nodes.NodePath) -> None:
    if node.value:
        _local(node, folder, path)


def _context(node: nodes.ComposeNode, folder: str, path: nodes.NodePath) -> None:
    text = node.text or ""
    if "://" not in text and not text.startswith(("service:", *_REMOTE)):
        _not_empty(node, folder, path)


def _mount(node: nodes.ComposeNode, folder: str, path: nodes.NodePath) -> None:
    kind, source = node.get("type"), node.get("source")
    if kind is None or kind.value != "bind":
        return
    if source is None:
        nodes.fail(node, "compose.missing", "a bind mount without source", "add source", path)
    if not (source.text or "").startswith("~"):  # the translation knows the home
        _local(source, folder, (*path, "source"))


def _driver_options(node: nodes.ComposeNode, folder: str, path: nodes.NodePath) -> None:
    driver, options = node.get("driver"), node.get("driver_opts")
    if driver is None or driver.value != "local" or options is None:
        return
    device, kind = options.get("device"), options.get("o")
    if device is not None and kind is not None and kind.value == "bind":
        _local(device, folder, (*path, "driver_opts", "device"))


_RESOLVERS: nodes.PathTable[Resolver] = nodes.PathTable(
    {
        "services.*.build.context": _context,
        "services.*.env_file.*.path": _not_empty,
        "services.*.label_file.*": _not_empty,
        "services.*.extends.file": _not_empty,
        "services.*.volumes.*": _mount,
        "configs.*.file": _local,
        "secrets.*.file": _local,
        "volumes.*": _driver_options,
    }
)


#: The number of files of a project, with overrides, includes, extended files and env files.
MAX_FILES = 200


#: The readings of YAML files, and the bytes of env files that are read, for all services together.
MAX_READINGS = 1_000
MAX_ENV_BYTES = 16 * 1024 * 1024
#: So many characters that a reading makes cost as much as a value.
CHARACTERS_A_VALUE = 16


class TooManyFiles(Exception):
    """A project has more than ``MAX_FILES`` files, or extends more than ``MAX_NODES`` values."""


def _allowance() -> NodeAllowance:
    return NodeAllowance(MAX_NODES)


@dataclass(slots=True)
class Session:
    """The state of a project's reading."""

    read: project.ReadFile
    report: ReadingReport = field(default_factory=ReadingReport)
    budget: NodeAllowance = field(default_factory=_allowance)
    #: Every file that was read or looked for, in order.
    files: dict[str, None] = field(default_factory=dict)
    #: The nodes that merging, checks and long forms visit again for each further document.
    _revisits: NodeAllowance = field(default_factory=_allowance)
    _readings: int = 0
    _env_bytes: int = 0
    _contents: dict[str, bytes] = field(default_factory=dict)
    #: The files that were parsed ahead of their turn.
    _parsed: dict[str, list[YamlDocument]] = field(default_factory=dict)

    @property
    def weight(self) -> int:
        """What the reading cost so far, in values (``ComposeProject.weight``)."""
        made = (self.report.made + self._env_bytes) // CHARACTERS_A_VALUE
        return self.budget.spent + self._revisits.spent + made

    def content(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileUnreadable: the file cannot be read.
            TooManyFiles: the project has too many files.
        """
        kept = self._contents.get(path)
        if kept is not None:
            return kept
        self.files.setdefault(path)
        if len(self.files) > MAX_FILES:
            self._end(path, f"the project has more than {MAX_FILES} files", "split the project")
        content = self.read(path)
        if len(content) > MAX_BYTES:
            raise project.FileTooBig(f"the file is over {MAX_BYTES // 1024} KiB")
        self._contents[path] = content
        return content

    def text_of(self, path: str) -> bytes | None:
        """Return the content of a file that was read, empty if it doesn't exist; None if it can't be read."""
        if path in self._contents or path not in self.files:
            return self._contents.get(path)
        try:
            self.read(path)
        except project.FileAbsent:
            return b""
        except project.FileUnreadable:
            return None
        return None  # too big

    def _end(self, path: str, message: str, remedy: str) -> NoReturn:
        self.report.add(Problem("compose.limit", message, path, 1, 1, remedy=remedy))
        raise TooManyFiles

    def exists(self, path: str) -> bool:
        """Return True if a file exists, readable or not."""
        try:
            self.content(path)
        except project.FileAbsent:
            return False
        except project.FileUnreadable:
            return True
        return True

    def revisit(self, tree: ComposeNode) -> None:
        """Count the nodes of a tree that another document or file is merged into.

        Raises:
            TooManyFiles: the project has too many documents and files for its size.
        """
        if tree.members and not self._revisits.spend(_count(tree)):
            remedy = "merge the documents of a file, and use fewer override files"
            self._end(tree.file, "the project has too many documents or override files", remedy)

    def spend(self, node: ComposeNode) -> None:
        """Count the nodes of a copy.

        Raises:
            TooManyFiles: the project has too many values.
        """
        if not self.budget.spend(_count(node)):
            message, remedy = "the project has too many values", "extend smaller services"
            self.report.add(problem_at(node, "compose.limit", message, remedy))
            raise TooManyFiles

    def yaml(self, path: str, referrer: ComposeNode | None) -> list[YamlDocument]:
        """Return the documents of a file; none, with a problem in the report, of a bad file.

        Raises:
            TooManyFiles: the project has too many files.
        """
        if path in self._parsed:
            return self._parsed.pop(path)
        self._readings += 1
        if self._readings > MAX_READINGS:
            self._end(path, "the project reads too many files", "include each file once")
        try:
            content = self.content(path)
        except project.FileUnreadable as error:
            self.report.add(unreadable(error, path, referrer))
            return []
        return read_yaml(content, path, self.budget, self.report)

    def look_ahead(self, path: str) -> tuple[ComposeNode, ...]:
        """Return the documents of a file before any change; ``yaml`` returns them next.

        Raises:
            TooManyFiles: the project has too many files.
        """
        if path not in self._parsed:
            self._parsed[path] = self.yaml(path, None)
        return tuple(document for document, _ in self._parsed[path])

    def variables(
        self,
        path: str,
        known: Mapping[str, str],
        referrer: ComposeNode | None,
        *,
        raw: bool = False,
    ) -> dict[str, str] | None:
        """Return the variables of an env file; None, with a problem in the report, without any.

        The values of a *raw* file are taken as they are.

        Raises:
            FileAbsent: the file does not exist.
            TooManyFiles: the project has too many files.
        """
        try:
            text = self.content(path).decode("utf-8", "replace")
            self._env_bytes += len(text)
            if self._env_bytes > MAX_ENV_BYTES:
                remedy = "use smaller env files, or fewer services with env files"
                self._end(path, "the project reads too many env files", remedy)
            if raw:
                return read_raw_env(text, known)
            return read_env(text, known, lambda name: self._missing(path, name))
        except project.FileAbsent:
            raise
        except project.FileUnreadable as error:
            self.report.add(unreadable(error, path, referrer))
        except EnvFileInvalid as error:
            remedy = "write NAME=VALUE; quote a value with special characters"
            place = (path, error.line, 1)
            self.report.add(Problem("compose.env-line", error.reason, *place, remedy=remedy))
        return None

    def _missing(self, path: str, name: str) -> None:
        message = f"the variable {name} is not set; an empty string is used"
        node = ComposeNode(None, path, 1, 1)
        remedy = f"set {name} in an earlier line, or write ${{{name}:-}}"
        self.report.warn(node, "compose.variable-unset", message, remedy)


def _count(node: ComposeNode) -> int:
    children = node.value.values() if isinstance(node.value, dict) else node.items
    return 1 + sum(map(_count, children))


def copy(node: ComposeNode) -> ComposeNode:
    """Return a copy of a tree."""
    value = node.value
    if isinstance(value, dict):
        return node.at({name: copy(member) for name, member in value.items()})
    return node.at([copy(item) for item in value] if isinstance(value, list) else value)


def unreadable(error: project.FileUnreadable, path: str, referrer: ComposeNode | None) -> Problem:
    """Return the problem of a file that cannot be read, at the place of its name."""
    match error:
        case project.FileAbsent():
            code, reason, remedy = "compose.file-missing", "does not exist", "add the file"
        case project.FileOutside():
            code, reason = "compose.file-outside", "is outside the source"
            remedy = "copy the file into the source"
        case project.FileTooBig():
            code, reason, remedy = "file.too-big", "is too big", "split the file"
        case _:
            code, reason = "compose.file-unreadable", f"can't be read: {error}"
            remedy = "make the path a regular file with read permission"
    place = (path, 0, 0) if referrer is None else (referrer.file, referrer.line, referrer.column)
    return Problem(code, f"the file {path} {reason}", *place, remedy=remedy)


def refuse_remote(node: ComposeNode, reference: str) -> None:
    """Raise the problem of a file from elsewhere, such as a Git repository.

    Raises:
        Fault: the reference names no local file.
    """
    prefixes = ("github.com/", "git@", "oci:")
    if "://" in reference or reference.startswith(prefixes):
        message = f"{reference!r} is not a local file"
        remedy = "copy the file into the source; trimtab reads no Compose files from elsewhere"
        fail(node, "compose.remote", message, remedy)


ResetPath = tuple[str, ...]


def apply_resets(tree: ComposeNode, resets: Iterable[ResetPath]) -> None:
    """Remove the members at the paths, in place. Paths into lists remove nothing, as in Compose."""
    for path in resets:
        node: ComposeNode | None = tree
        for part in path[:-1]:
            node = node.get(part) if node is not None else None
        if node is not None and path:
            node.members.pop(path[-1], None)


#: The number of services that extend one another in a row.
MAX_CHAIN = 50


@dataclass(frozen=True, slots=True)
class PartScope:
    """The folder and the variables of a project, or of an included part of the project."""

    #: The folder of relative paths, relative to the root of the source.
    folder: str
    variables: dict[str, str]
    #: The files that include this part, the first one first.
    included: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Source:
    """The services of one file, and the values that the files on the way reset."""

    services: ComposeNode
    file: str
    resets: tuple[ResetPath, ...]


@dataclass(slots=True)
class Extends:
    """The extended services of one scope; other files are read once."""

    session: Session
    scope: PartScope
    _files: dict[str, _Source] = field(default_factory=dict)

    def apply(self, root: ComposeNode, file: str, resets: tuple[ResetPath, ...]) -> None:
        """Complete every service of a file that extends another service, in place."""
        services = root.get("services")
        if services is None or not isinstance(services.value, dict):
            return
        source = _Source(services, file, resets)
        for name in list(services.value):
            try:
                self._service(name, source, ())
            except Fault as fault:
                self.session.report.add(fault.problem)

    def _service(
        self, name: str, source: _Source, chain: tuple[tuple[str, str], ...]
    ) -> ComposeNode:
        service = source.services.members[name]
        extends = service.get("extends")
        if extends is None:
            return service
        named = extends.get("service") if isinstance(extends.value, dict) else extends
        if named is None or named.text is None:
            fail(extends, "compose.extends", "extends names no service", "add service: NAME")
        base_source = self._base(extends.get("file"), source)
        step = (base_source.file, name)
        if step in chain:
            names = " → ".join(f"{each} ({file})" for file, each in (*chain, step))
            message = f"a cycle of extends: {names}"
            fail(extends, "compose.extends-cycle", message, "remove one extends of the cycle")
        if len(chain) >= MAX_CHAIN:
            message = f"more than {MAX_CHAIN} services extend one another in a row"
            fail(extends, "compose.limit", message, "extend fewer services in a row")
        if named.text not in base_source.services.members:
            message = f"the service {named.text!r} does not exist in {base_source.file}"
            fail(named, "compose.extends", message, "name a service of that file")
        base = self._service(named.text, base_source, (*chain, step))
        if base.value is None or not isinstance(base.value, dict):
            return service
        self.session.spend(base)
        return self._merged(name, copy(base), service, source, base_source)

    def _merged(
        self,
        name: str,
        base: ComposeNode,
        service: ComposeNode,
        source: _Source,
        base_source: _Source,
    ) -> ComposeNode:
        parent = base.at({"services": base.at({name: base})})
        apply_resets(parent, {*source.resets, *base_source.resets})
        merged = extend_service(base, service, name)
        merged.members.pop("extends", None)
        source.services.members[name] = merged
        return merged

    def _base(self, file: ComposeNode | None, source: _Source) -> _Source:
        if file is None or file.value is None:
            return source
        if file.text is None:
            fail(file, "compose.type", "the file of extends must be a string", "write a path")
        refuse_remote(file, file.text)
        is_resolved = isinstance(file.text, RootPath)
        path = file_path(file.text) if is_resolved else join(self.scope.folder, file.text)
        found = self._files.get(path)
        if found is None:
            found = self._files[path] = self._read(path, file)
        return found

    def _read(self, path: str, referrer: ComposeNode) -> _Source:
        """Return the services of another file, in long form and with paths of the root.

        Raises:
            Fault: the file has no services.
        """
        session = self.session
        tree = ComposeNode({}, path, 1, 1)
        resets: tuple[ResetPath, ...] = ()
        for document, document_resets in session.yaml(path, referrer):
            root = interpolate(document, CASTS, self.scope.variables, session.report)
            if not isinstance(root.value, dict):
                continue
            session.revisit(tree)
            resets += document_resets
            apply_resets(tree, document_resets)
            tree = remove_repeated(merge(tree, root))
            tree = remove_repeated(to_long_forms(tree, session.report))
        services = tree.get("services")
        if services is None or not isinstance(services.value, dict):
            message = f"the file {path} has no services"
            fail(referrer, "compose.extends", message, "name a file with services")
        resolve_paths(tree, posixpath.dirname(path) or ".", session.report)
        return _Source(services, path, resets)


#: The depth of includes in included files.
MAX_DEPTH = 20
_SECTIONS = ("services", "volumes", "networks", "secrets", "configs")

#: Loads the files of a scope as one tree.
LoadModel = Callable[[Session, PartScope, list[tuple[str, ComposeNode | None]]], ComposeNode]


@dataclass(frozen=True, slots=True)
class Include:
    """The includes of a file."""

    session: Session
    scope: PartScope
    load: LoadModel

    def apply(self, root: ComposeNode, file: str) -> None:
        """Add the resources of included files to the tree of a file, in place."""
        include = root.members.pop("include", None)
        if include is None or include.value is None:
            return
        if not isinstance(include.value, list):
            message = "include must be a list"
            fail(include, "compose.type", message, "write a list of files")
        for item in include.value:
            try:
                self._include(item, root, file)
            except Fault as fault:
                self.session.report.add(fault.problem)

    def _include(self, item: ComposeNode, root: ComposeNode, file: str) -> None:
        paths = _paths(item if item.text is not None else item.get("path"), item)
        files: list[tuple[str, ComposeNode | None]] = []
        for path in paths:
            refuse_remote(path, path.text or "")
            files.append((join(self.scope.folder, path.text or ""), path))
        first = files[0][0]
        chain = (*self.scope.included, file)
        if first in chain:
            message = f"a cycle of includes: {' → '.join((*chain, first))}"
            fail(item, "compose.include-cycle", message, "remove one include of the cycle")
        if len(chain) > MAX_DEPTH:
            message = f"includes are deeper than {MAX_DEPTH} levels"
            fail(item, "compose.limit", message, "include the files from the first file")
        directory = item.get("project_directory")
        folder = posixpath.dirname(first) or "."
        if directory is not None and directory.text:
            folder = join(self.scope.folder, directory.text)
        variables = self._variables(item.get("env_file"), folder)
        model = self.load(self.session, PartScope(folder, variables, chain), files)
        extension = model.get(EXTENSION)
        if extension is not None:
            message = f"{EXTENSION} of an included file has no effect"
            remedy = f"write {EXTENSION} in the first file of the project"
            self.session.report.warn(extension, "compose.by-policy", message, remedy)
        _import(model, root, item)

    def _variables(self, env_file: ComposeNode | None, folder: str) -> dict[str, str]:
        outer = self.scope.variables
        found: dict[str, str] = {}
        if env_file is None or not env_file.value:
            try:
                path = join(folder, ".env")
                found = self.session.variables(path, outer, None) or {}
            except FileAbsent:
                found = {}
            return {**found, **outer}
        for node in _paths(env_file, env_file):
            path = join(self.scope.folder, node.text or "")
            try:
                found |= self.session.variables(path, {**found, **outer}, node) or {}
            except FileAbsent as error:
                raise Fault(unreadable(error, path, node)) from None
        return {**found, **outer}


def _paths(node: ComposeNode | None, place: ComposeNode) -> list[ComposeNode]:
    """Return the strings of a string or a list of strings.

    Raises:
        Fault: another kind of value, or none.
    """
    items = [node] if node is not None and node.text is not None else (node or place).items
    if not items or any(item.text is None for item in items):
        fail(place, "compose.type", "an include needs a path", "write path: FILE")
    return items


def _import(model: ComposeNode, root: ComposeNode, include: ComposeNode) -> None:
    for section in _SECTIONS:
        added = model.get(section)
        if added is None or not added.members:
            continue
        target = root.members.setdefault(section, include.at({}))
        if not isinstance(target.value, dict):
            continue
        for name, resource in added.members.items():
            known = target.value.setdefault(name, resource)
            if known is not resource and not same(known, resource):
                message = f"{section}.{name} is also in an included file"
                fail(known, "compose.include", message, "rename it, or override it in a file")


class Incomplete(Exception):
    """The files have errors, so that later stages would report nonsense."""


def load_model(
    session: Session, scope: PartScope, files: list[tuple[str, ComposeNode | None]]
) -> ComposeNode:
    """Return the tree of the files, each one over the files before.

    Raises:
        Incomplete: a file has errors.
        TooManyFiles: a limit of the project is exceeded.
    """
    tree = ComposeNode({}, files[0][0], 1, 1)
    extends = Extends(session, scope)
    for path, referrer in files:
        for document, resets in session.yaml(path, referrer):
            session.revisit(tree)
            try:
                tree = _add(session, extends, tree, document, resets)
            except Fault as fault:
                session.report.add(fault.problem)
        if session.report.failed:
            raise Incomplete
    add_defaults(tree, session.report)
    check_choices(tree, session.report)
    resolve_paths(tree, scope.folder, session.report)
    _resolve_environment(tree, scope)
    if session.report.failed:
        raise Incomplete
    return tree


def _add(
    session: Session,
    extends: Extends,
    tree: ComposeNode,
    document: ComposeNode,
    resets: tuple[ResetPath, ...],
) -> ComposeNode:
    """Return the tree, with a document of a later file merged in."""
    report, scope, file = session.report, extends.scope, document.file
    if not isinstance(document.value, dict):
        message = "a Compose file must be a mapping"
        fail(document, "compose.type", message, "begin the file with services:")
    sops = document.members.get("sops")
    if sops is not None and isinstance(sops.value, dict) and "mac" in sops.members:
        message = "the file is encrypted with SOPS, and a Compose file is read as plain text"
        remedy = (
            "decrypt it, and keep the secret values in files of Secrets (`trimtab secret encrypt`)"
        )
        fail(sops, "compose.encrypted", message, remedy)
    root = interpolate(document, CASTS, scope.variables, report)
    extends.apply(root, file, resets)
    apply_resets(tree, resets)
    Include(session, scope, load_model).apply(root, file)
    tree = remove_repeated(merge(tree, root))
    validate(tree, report)
    version = tree.members.pop("version", None)
    if version is not None:
        message = f"version {version.value!r} is ignored: a Compose file has no version any more"
        report.warn(version, "compose.version", message, "remove the line")
    if report.failed:
        raise Incomplete
    return remove_repeated(to_long_forms(tree, report))


def _resolve_environment(tree: ComposeNode, scope: PartScope) -> None:
    """Give a value to variables without ``=`` in lists, from the variables of the scope."""
    for service in tree.members_of("services").values():
        for item in service.items_of("environment"):
            if item.text is not None and item.text in scope.variables:
                item.value = f"{item.text}={scope.variables[item.text]}"
