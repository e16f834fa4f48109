"""``include``: other Compose files with their own folder and variables, as parts of a project."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass

from controller.core.compose.forms.paths import join
from controller.core.compose.merging.extends import PartScope
from controller.core.compose.merging.session import Session, refuse_remote, unreadable
from controller.core.compose.project import EXTENSION, FileAbsent
from controller.core.compose.text.nodes import ComposeNode, Fault, fail, same

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
