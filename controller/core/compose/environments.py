"""Variables and labels of services from files: ``env_file`` and ``label_file``."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Final

from controller.core.compose.forms.paths import file_path
from controller.core.compose.merging.session import Session, unreadable
from controller.core.compose.project import FileAbsent
from controller.core.compose.text.nodes import ComposeNode, Fault, NodePath, fail

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
