"""The stages from the files of a project to one tree in long form.

The order is the order of Compose: variables, extends, resets, includes, merging, the schema, long
forms, and after the last file the defaults, the checks and the paths.
"""

from __future__ import annotations

from controller.core.compose.forms.attributes import CASTS
from controller.core.compose.forms.choices import check_choices
from controller.core.compose.forms.long_forms import add_defaults, to_long_forms
from controller.core.compose.forms.paths import resolve_paths
from controller.core.compose.forms.schema import validate
from controller.core.compose.merging.extends import Extends, PartScope
from controller.core.compose.merging.include import Include
from controller.core.compose.merging.merge import merge
from controller.core.compose.merging.resets import ResetPath, apply_resets
from controller.core.compose.merging.session import Session
from controller.core.compose.merging.unique import remove_repeated
from controller.core.compose.text.interpolation import interpolate
from controller.core.compose.text.nodes import ComposeNode, Fault, fail


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
    """Return the tree with one document over it."""
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
