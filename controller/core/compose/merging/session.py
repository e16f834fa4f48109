"""A project while its files are read: the files, the limits and the problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from controller.core.compose import project
from controller.core.compose.text.env_file import EnvFileInvalid, read_env, read_raw_env
from controller.core.compose.text.nodes import ComposeNode, ReadingReport, fail
from controller.core.compose.text.yaml_nodes import MAX_NODES, YamlDocument, read_yaml
from controller.core.yaml.file_limit import MAX_BYTES
from controller.core.yaml.loading import NodeAllowance
from controller.model.errors import Problem

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
            place = (node.file, node.line, node.column)
            self.report.add(Problem("compose.limit", message, *place, remedy=remedy))
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
