"""Reading of a Compose project: from the text of its files to one tree with long forms.

No function raises for the content of a file. The environment of the process never counts: variables
come from ``.env`` of the project, and from env files.

Variables and labels of services from files: ``env_file`` and ``label_file``.

Implicit parts of a project: the default network, names, dependencies from other attributes.

The reference is ``loader/normalize.go`` of compose-go.

The services of the chosen profiles, and the resources of these services.

The name of a Compose project whose files are broken, by the lines of their text.

A name hides behind a mistake: a misspelt key, a missing colon, text in braces. Then no name is
certain, and the project possibly is of any namespace.
"""

from __future__ import annotations

import posixpath
import re
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Final

from controller.core.compose.attributes import read_values
from controller.core.compose.consistency import check_consistency, volumes_of
from controller.core.compose.long_forms import clean_path, nodes_of
from controller.core.compose.nodes import ComposeNode, Fault, NodePath, fail, problem_at, project_of
from controller.core.compose.project import EXTENSION, SERVICE, ComposeProject, FileAbsent, ReadFile
from controller.core.compose.project_files import (
    Incomplete,
    PartScope,
    Session,
    TooManyFiles,
    file_path,
    join,
    load_model,
    unreadable,
)
from controller.core.compose.variables import expand
from controller.core.yaml.documents import decode
from controller.model.errors import Problem

#: The format of env files whose values are taken as they are.
RAW: Final = "raw"


def read_environments(services: ComposeNode, variables: dict[str, str], session: Session) -> None:
    """Put the variables and labels of files into the services, in place."""
    for name, service in services.members.items():
        env_files = service.members.pop("env_file", None)
        label_files = service.members.pop("label_file", None)
        try:
            if env_files is not None:
                path = ("services", name, "env_file")
                found = _from_env_files(env_files, variables, session, path)
                _add(service, "environment", found)
            if label_files is not None:
                _add(service, "labels", _from_label_files(label_files, session))
        except Fault as fault:
            session.report.add(fault.problem)


def _add(service: ComposeNode, attribute: str, found: dict[str, ComposeNode]) -> None:
    if members := {**found, **service.members_of(attribute)}:
        service.members[attribute] = (service.get(attribute) or service).at(members)


def _from_env_files(
    files: ComposeNode, variables: dict[str, str], session: Session, path: NodePath
) -> dict[str, ComposeNode]:
    found: dict[str, ComposeNode] = {}
    texts: dict[str, str] = {}
    known = ChainMap(texts, variables)
    for file in files.items:
        name, required, kind = (file.get(key) for key in ("path", "required", "format"))
        if name is None or name.text is None:
            continue
        location = file_path(name.text)
        is_optional = required is not None and required.value is False
        if is_optional and not session.exists(location):
            continue
        if kind is not None and kind.value != RAW:
            message = f"the format {kind.value!r} of env files is not supported"
            fail(kind, "compose.value", message, "write raw, or remove format", path)
        values = _variables_of(location, known, file, session, raw=kind is not None)
        texts |= values
        found |= {key: file.at(value) for key, value in values.items()}
    return found


def _from_label_files(files: ComposeNode, session: Session) -> dict[str, ComposeNode]:
    found: dict[str, ComposeNode] = {}
    for file in files.items:
        known = {key: node.text or "" for key, node in found.items()}
        values = _variables_of(file_path(file.text or ""), known, file, session)
        found |= {key: file.at(value) for key, value in values.items()}
    return found


def _variables_of(
    path: str, known: Mapping[str, str], file: ComposeNode, session: Session, *, raw: bool = False
) -> dict[str, str]:
    try:
        return session.variables(path, known, file, raw=raw) or {}
    except FileAbsent as error:
        raise Fault(unreadable(error, path, file)) from None


_NAMESPACES = ("network_mode", "ipc", "pid", "uts", "cgroup")
_SECTIONS = ("networks", "volumes", "configs", "secrets")


def normalize(tree: ComposeNode, name: str, variables: Mapping[str, str]) -> None:
    """Add the implicit parts of a project, in place."""
    _add_default_network(tree)
    for service in tree.members_of("services").values():
        _normalize_service(service, variables)
    _add_names(tree, name)


def _add_default_network(tree: ComposeNode) -> None:
    used = False
    for service in tree.members_of("services").values():
        networks = service.get("networks")
        if "network_mode" in service.members:
            continue
        if networks is None or not networks.members:
            service.members["networks"] = service.at({"default": service.at(None)})
            used = True
        elif "default" in networks.members:
            used = True
    if used and "default" not in tree.members_of("networks"):
        section = tree.members.get("networks")
        if section is None or not isinstance(section.value, dict):
            section = tree.members["networks"] = tree.at({})
        section.members["default"] = tree.at(None)


def _normalize_service(service: ComposeNode, variables: Mapping[str, str]) -> None:
    policy = service.get("pull_policy")
    if policy is not None and policy.value == "if_not_present":
        policy.value = "missing"
    build = service.get("build")
    if build is not None:
        if build.get("dockerfile") is None and build.get("dockerfile_inline") is None:
            build.members["dockerfile"] = build.at("Dockerfile")
        _resolve(build.get("args"), variables, keep=False)
    _resolve(service.get("environment"), variables, keep=True)
    for mount in service.items_of("volumes"):
        target = mount.get("target")
        if target is not None and target.text is not None:
            target.value = clean_path(target.text)
    _add_dependencies(service)


def _resolve(node: ComposeNode | None, variables: Mapping[str, str], *, keep: bool) -> None:
    """Give values to names without a value; without *keep*, remove names that stay without."""
    if node is None:
        return
    if isinstance(node.value, dict):
        for name, member in list(node.value.items()):
            if member.value is None and name in variables:
                member.value = variables[name]
            elif member.value is None and not keep:
                del node.value[name]
        return
    kept = []
    for item in node.items:
        if item.text is not None and "=" not in item.text:
            if item.text in variables:
                item.value = f"{item.text}={variables[item.text]}"
            elif not keep:
                continue
        kept.append(item)
    node.value = kept


def _add_dependencies(service: ComposeNode) -> None:
    found: list[tuple[str, ComposeNode, bool]] = []
    for link in service.items_of("links"):
        parts = (link.text or "").split(":")
        found.append((parts[0] if len(parts) == 2 else link.text or "", link, True))
    for name in _NAMESPACES:
        mode = service.get(name)
        if mode is not None and mode.text is not None and mode.text.startswith(SERVICE):
            found.append((mode.text.removeprefix(SERVICE), mode, True))
    found += [
        (source.text.partition(":")[0], source, False)
        for source in service.items_of("volumes_from")
        if source.text is not None and not source.text.startswith("container:")
    ]
    if not found:
        return
    depends_on = service.members.setdefault("depends_on", service.at({}))
    for name, node, restart in found:
        fields = {"condition": "service_started", "restart": restart, "required": True}
        if name not in depends_on.members:
            depends_on.members[name] = nodes_of(node, fields)


def _add_names(tree: ComposeNode, project: str) -> None:
    for section in _SECTIONS:
        members = tree.members_of(section)
        for key, resource in members.items():
            if not isinstance(resource.value, dict):
                resource.value = {}
            name = resource.get("name")
            if name is None or name.value is None:
                external = resource.get("external")
                is_external = external is not None and external.value in {True, "true", "1"}
                resource.members["name"] = resource.at(key if is_external else f"{project}_{key}")


def select_profiles(tree: ComposeNode, profiles: Sequence[str]) -> set[str]:
    """Remove services of other profiles, in place, and return the removed names."""
    services = tree.members_of("services")
    removed: set[str] = set()
    for name, service in list(services.items()):
        names = {item.value for item in service.items_of("profiles")}
        if names and not names & {*profiles} and "*" not in profiles:
            removed.add(name)
            del services[name]
    return removed


def remove_unused(tree: ComposeNode) -> None:
    """Remove unused resources, in place."""
    used: dict[str, set[object]] = {section: set() for section in _SECTIONS}
    for service in tree.members_of("services").values():
        used["networks"] |= service.members_of("networks").keys()
        used["volumes"] |= set(_sources(volumes_of(service)))
        used["secrets"] |= set(_sources(service.items_of("secrets")))
        used["configs"] |= set(_sources(service.items_of("configs")))
        build = service.get("build")
        if build is not None:
            used["secrets"] |= set(_sources(build.items_of("secrets")))
    for section, names in used.items():
        found = tree.get(section)
        if found is None:
            continue
        kept = {name: node for name, node in found.members.items() if name in names}
        if kept:
            found.value = kept
        else:
            del tree.members[section]


def _sources(mounts: Iterable[ComposeNode]) -> Iterable[object]:
    for mount in mounts:
        source = mount.get("source")
        if source is not None:
            yield source.value


_KEY: Final = "name"
_SERVICES: Final = frozenset({"services", "include"})
_NAME_WORD: Final = re.compile(r"""["']?([\w.-]+)["']?[ \t]*(:?)[ \t]*(.*)""")
_LITERAL: Final = re.compile(r"""(["']?)([A-Za-z0-9][\w-]*)\1[ \t]*(?:#.*)?""")
#: Comments, marks of documents, and marks of an unfinished merge.
_MARK: Final = re.compile(r"#|%|---|\.\.\.|<<<<<<<|\|\|\|\|\|\|\||=======|>>>>>>>|[\]},]+[ \t]*$")
_SIMILARITY: Final = 0.6


def written_name(texts: Iterable[bytes], default: str) -> str | None:
    """Return the name that the texts of a project's files give it; None if it isn't certain.

    *default* is the name of a project without a written one. The last file decides. A text without the
    beginning of any service, such as a truncated one, is never certain.
    """
    name, has_services = default, False
    for text in texts:
        found = set[str]()
        for line in decode(text).lstrip("\ufeff").splitlines():
            if not line.strip() or line[0].isspace() or _MARK.match(line) or line.startswith("- "):
                continue
            word = _NAME_WORD.match(line)
            if word is None:
                return None
            key, colon, value = word.groups()
            if key == _KEY and colon:
                literal = _LITERAL.fullmatch(value.strip())
                if literal is None:
                    return None
                found.add(literal[2])
            elif SequenceMatcher(None, key.lower(), _KEY).ratio() >= _SIMILARITY:
                return None
            has_services = has_services or key in _SERVICES
        if len(found) > 1:
            return None
        name = next(iter(found), name)
    return name if has_services else None


#: The names of a project's first file, in the order of their choice.
FILE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
#: The names of the file over the first file, in the order of their choice.
OVERRIDE_NAMES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
_PROJECT_NAME = "COMPOSE_PROJECT_NAME"
_PROFILES = "COMPOSE_PROFILES"
#: Variables of ``.env`` that would choose other files in Compose.
_REFUSED = ("COMPOSE_FILE",)
_NAME_LETTER = re.compile(r"[a-z0-9_-]")


def read_project(folder: str, read: ReadFile, *, folder_name: str | None = None) -> ComposeProject:
    """Return the Compose project of a folder.

    *folder* is relative to the root of the source. *folder_name* is the name of the folder on disk,
    for the name of a project in the root itself.
    """
    session = Session(read)
    reading = _Reading(session, posixpath.normpath(folder), folder_name)
    try:
        tree = reading.read()
    except (Incomplete, TooManyFiles):
        tree = None
    name = reading.certain_name() if session.report.failed else reading.name
    project = ComposeProject(reading.name, reading.folder, {}, {})
    if tree is not None:
        project = project_of(tree, reading.name)
    return replace(
        project,
        name=reading.name if name is None else name,
        folder=reading.folder,
        problems=session.report.problems,
        files=tuple(session.files),
        is_named=name is not None,
        config_values=reading.config_values,
        weight=session.weight,
    )


def normalize_name(name: str) -> str:
    """Return the name of a project as Compose makes the name of a folder."""
    return "".join(_NAME_LETTER.findall(name.lower())).lstrip("_-")


class _Reading:
    """The steps of reading a project."""

    def __init__(self, session: Session, folder: str, folder_name: str | None) -> None:
        self.session = session
        self.folder = folder
        base = posixpath.basename(folder) if folder != "." else ""
        self.name = normalize_name(folder_name or base)
        self._default = self.name
        #: The files that can have the project's name.
        self._own: list[str] = []
        self.config_values: dict[str, str] = {}
        #: The name is that of the variables.
        self._is_given = False

    def read(self) -> ComposeNode | None:
        """Return the tree; None if the project has no file.

        Raises:
            Incomplete: a file has errors.
            TooManyFiles: a limit of the project is exceeded.
        """
        session, report = self.session, self.session.report
        self._own = files = self._files()
        variables = self._dot_env()
        self._read_name(files, variables)
        if report.failed:
            raise Incomplete
        variables[_PROJECT_NAME] = self.name
        scope = PartScope(self.folder, variables)
        tree = load_model(session, scope, [(path, None) for path in files])
        if not tree.members:
            report.add(_problem(files[0], "compose.empty", "the file is empty", "add services"))
            raise Incomplete
        tree.members.pop("name", None)
        normalize(tree, self.name, variables)
        read_values(tree, report)
        tree.members.setdefault("services", tree.at({}))
        disabled = select_profiles(tree, self._profiles(tree, variables))
        if report.failed:
            raise Incomplete
        check_consistency(tree, disabled, report)
        read_environments(tree.members["services"], variables, session)
        if report.failed:
            raise Incomplete
        remove_unused(tree)
        for config in tree.members_of("configs").values():
            variable = config.get("environment")
            if variable is not None and variable.text in variables:
                self.config_values[variable.text] = variables[variable.text]
        tree.members["name"] = tree.at(self.name)
        return tree

    def certain_name(self) -> str | None:
        """Return the name of a project with errors; None if its files possibly say another one."""
        texts = [self.session.text_of(path) for path in self._own]
        dot_env = self.session.text_of(join(self.folder, ".env"))
        if not self._own or None in texts:
            return None
        if dot_env is None or _PROJECT_NAME.encode() in dot_env:
            # Read before the files: the name is certain if nothing is wrong with the variables.
            return self.name if self._is_given else None
        name = written_name([text for text in texts if text is not None], self._default)
        return None if name is None else normalize_name(name) or None

    def _files(self) -> list[str]:
        """Return the paths of the project's files.

        Raises:
            Incomplete: the project has no file, or a file cannot be read.
        """
        first = self._first(FILE_NAMES, "Compose files")
        if first is None:
            path = join(self.folder, FILE_NAMES[0])
            message = f"the folder {self.folder} has no Compose file"
            self.session.report.add(
                _problem(path, "compose.file-missing", message, f"add {FILE_NAMES[0]}")
            )
            raise Incomplete
        override = self._first(OVERRIDE_NAMES, "override files")
        further = self._further(first)
        return [first, *([override] if override is not None else []), *further]

    def _first(self, names: tuple[str, ...], kind: str) -> str | None:
        """Return the first file that exists, with a warning about the others."""
        found = []
        for name in names:
            path = join(self.folder, name)
            if self.session.exists(path):
                found.append(path)
        for other in found[1:]:
            message = f"several {kind}: {found[0]} is read, {other} is not"
            node = ComposeNode(None, other, 1, 1)
            self.session.report.warn(node, "compose.several-files", message, "remove one of them")
        return found[0] if found else None

    def _further(self, first: str) -> list[str]:
        """Return the paths of ``x-trimtab.files``."""
        for document in self.session.look_ahead(first):
            extension = document.get(EXTENSION)
            files = extension.get("files") if extension is not None else None
            if files is None:
                continue
            if isinstance(files.value, list) and all(item.text for item in files.value):
                return [join(self.folder, item.text or "") for item in files.value]
            message = f"{EXTENSION}.files must be a list of paths"
            self.session.report.add(problem_at(files, "compose.type", message, "write a list"))
        return []

    def _dot_env(self) -> dict[str, str]:
        path = join(self.folder, ".env")
        try:
            variables = self.session.variables(path, {}, None) or {}
        except FileAbsent:
            return {}
        for name in _REFUSED:
            if variables.get(name):
                message = f"{name} in .env chooses no files"
                remedy = f"list the files in {EXTENSION}.files of the Compose file"
                self.session.report.add(_problem(path, "compose.file-variable", message, remedy))
        return variables

    def _read_name(self, files: list[str], variables: Mapping[str, str]) -> None:
        given = variables.get(_PROJECT_NAME)
        if given:
            if normalize_name(given) != given:
                message = f"{_PROJECT_NAME} is {given!r}, which is no name of a project"
                remedy = "use lower-case letters, digits, '-' and '_', and no sign first"
                path = join(self.folder, ".env")
                self.session.report.add(_problem(path, "compose.project-name", message, remedy))
            self.name, self._is_given = given, normalize_name(given) == given
            return
        try:
            node = self._written_name(files)
            if node is not None:
                self.name = normalize_name(expand(node, variables, self.session.report))
        except Fault as fault:
            self.session.report.add(fault.problem)
            return
        if not self.name:
            message = "the project has no name"
            remedy = "add name: NAME at the top of the file"
            self.session.report.add(_problem(files[0], "compose.project-name", message, remedy))

    def _written_name(self, files: list[str]) -> ComposeNode | None:
        """Return the last ``name`` in the files.

        Raises:
            Fault: a name is a mapping or a list.
        """
        last = None
        for path in dict.fromkeys(files):
            for document in self.session.look_ahead(path):
                name = document.get("name")
                if name is None or name.value is None or name.value == "":
                    continue
                if isinstance(name.value, dict | list):
                    fail(name, "compose.type", "name must be a string", "write name: NAME")
                last = name.at(str(name.value))
        return last

    def _profiles(self, tree: ComposeNode, variables: Mapping[str, str]) -> list[str]:
        extension = tree.get(EXTENSION)
        chosen = extension.get("profiles") if extension is not None else None
        if chosen is not None:
            if isinstance(chosen.value, list) and all(item.text for item in chosen.value):
                return [item.text or "" for item in chosen.value]
            message = f"{EXTENSION}.profiles must be a list of names"
            remedy = "write a list of names"
            self.session.report.add(problem_at(chosen, "compose.type", message, remedy))
        return [name.strip() for name in variables.get(_PROFILES, "").split(",") if name.strip()]


def _problem(file: str, code: str, message: str, remedy: str) -> Problem:
    return Problem(code, message, file, 1, 1, remedy=remedy)
