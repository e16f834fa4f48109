"""``extends``: services with the attributes of another service, from the same or another file."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field

from controller.core.compose.forms.attributes import CASTS
from controller.core.compose.forms.long_forms import to_long_forms
from controller.core.compose.forms.paths import file_path, join, resolve_paths
from controller.core.compose.merging.merge import extend_service, merge
from controller.core.compose.merging.resets import ResetPath, apply_resets
from controller.core.compose.merging.session import Session, copy, refuse_remote
from controller.core.compose.merging.unique import remove_repeated
from controller.core.compose.text.interpolation import interpolate
from controller.core.compose.text.nodes import ComposeNode, Fault, RootPath, fail

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
