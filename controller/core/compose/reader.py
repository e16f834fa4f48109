"""Reading of a Compose project: from the text of its files to one tree with long forms.

No function raises for the content of a file. The environment of the process never counts: variables
come from ``.env`` of the project, and from env files.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import replace

from controller.core.compose.consistency import check_consistency
from controller.core.compose.environments import read_environments
from controller.core.compose.forms.attributes import read_values
from controller.core.compose.forms.paths import join
from controller.core.compose.merging.extends import PartScope
from controller.core.compose.merging.model import Incomplete, load_model
from controller.core.compose.merging.session import Session, TooManyFiles
from controller.core.compose.normalize import normalize
from controller.core.compose.project import (
    EXTENSION,
    ComposeProject,
    FileAbsent,
    ReadFile,
)
from controller.core.compose.selection import remove_unused, select_profiles
from controller.core.compose.text.interpolation import expand
from controller.core.compose.text.nodes import ComposeNode, Fault, fail, project_of
from controller.core.compose.written_name import written_name
from controller.model.errors import Problem

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
            self.session.report.add(
                Problem(
                    "compose.type", message, first, files.line, files.column, remedy="write a list"
                )
            )
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
            place = (chosen.file, chosen.line, chosen.column)
            self.session.report.add(
                Problem("compose.type", message, *place, remedy="write a list of names")
            )
        return [name.strip() for name in variables.get(_PROFILES, "").split(",") if name.strip()]


def _problem(file: str, code: str, message: str, remedy: str) -> Problem:
    return Problem(code, message, file, 1, 1, remedy=remedy)
