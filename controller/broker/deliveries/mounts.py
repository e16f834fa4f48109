"""The mounts of delivered files: make their folders, and find the objects that a container must show.

The record of a container names contents and variants. Where those lie is decided here, at each
look: a folder that was made again is the right one.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace

from controller.broker.gate.call import BROKER, Author, Flow, inspect_paths
from controller.broker.gate.commands import MakeFiles, MakeFolder, is_lost
from controller.broker.gate.journal_entries import record_event, request_of
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.core.engine_api.requests import CreateRequest, MountRequest
from controller.core.files.content import recorded_source, source_of
from controller.model.confinement import Confinement, ExpectedMount
from controller.model.delivery import FILE_KINDS, FileSet
from controller.model.inventory import ContainerItem
from controller.model.mutations import FILES_GONE


def file_mounts(confined: Confinement | None) -> Iterator[ExpectedMount]:
    """Yield the admitted mounts of delivered files."""
    for mount in confined.mounts if confined is not None else ():
        if mount.type in FILE_KINDS:
            yield mount


def make_requested(state: GateState, request: CreateRequest, namespace: str) -> Flow[None]:
    """Make the folders for an admitted create.

    Raises:
        Denied: ``files.undelivered``: a folder can't be made.
    """
    for mount in request.mounts:
        if mount.files is None:
            continue
        files = FileSet(mount.type, namespace, mount.source)
        wanted = mount.files
        command = MakeFiles(files, wanted.content, wanted.variant, stable=wanted.stable)
        yield from _make(state, command, mount.source)


def make_sources(folders: tuple[tuple[str, int], ...]) -> Flow[None]:
    """Make the missing sources of an admitted create, each for a user.

    Raises:
        Denied: ``mount.missing``: a folder can't be made.
    """
    for path, uid in folders:
        failure = yield MakeFolder(path, uid)
        if failure:
            # The broker can't write into other users' folders.
            reason = f"{path} isn't there, and can't be made: {failure}"
            remedy = f"make it: install -d -o {uid} -g {uid} {shlex.quote(path)}"
            raise Denied("mount.missing", reason, remedy, subject=path)


def paths_of(state: GateState, request: CreateRequest, namespace: str) -> dict[str, str]:
    """Return the path of the host for each requested mount of files, by its target."""
    return {
        mount.target: _requested_source(state, mount, namespace)
        for mount in request.mounts
        if mount.files is not None
    }


def _requested_source(state: GateState, mount: MountRequest, namespace: str) -> str:
    files = mount.files
    assert files is not None, "only mounts of files are asked for"
    return source_of(
        state.file_roots.get(mount.type, ""),
        FileSet(mount.type, namespace, mount.source),
        files.content,
        files.variant,
        key=files.key,
        stable=files.stable,
    )


def present_contents(state: GateState, item: ContainerItem) -> tuple[str, ...]:
    """Return the contents that a container sees in folders that stay, as KIND/NAME=CONTENT."""
    names = {(m.type, m.source) for m in file_mounts(item.confined) if m.stable}
    stored = state.inventory.files
    found = ((f"{kind}/{name}", f"{kind}/{item.namespace}/{name}") for kind, name in sorted(names))
    return tuple(f"{short}={stored[key].current}" for short, key in found if key in stored)


def make_recorded(state: GateState, item: ContainerItem) -> Flow[frozenset[str]]:
    """Make the folders of a container again that are missing. Return the paths of the host.

    Raises:
        Denied: ``files.undelivered``: a folder is missing and can't be made.
    """
    paths = set()
    for mount in file_mounts(item.confined):
        files = FileSet(mount.type, item.namespace, mount.source)
        command = MakeFiles(files, mount.content, mount.variant, stable=mount.stable)
        yield from _make(state, command, item.id)
        paths.add(_recorded_path(state, item, mount))
    return frozenset(paths)


def _make(state: GateState, command: MakeFiles, subject: str) -> Flow[None]:
    """Make a folder. A content that the store has lost leaves the inventory, to be delivered again.

    Raises:
        Denied: ``files.undelivered``.
    """
    reason = yield command
    if reason != "":
        files, content = command.files, command.content
        raise (yield from undelivered(state, files, content, str(reason), subject))


def undelivered(
    state: GateState, files: FileSet, content: str, reason: str, subject: str
) -> Flow[Denied]:
    """Return the refusal of a content that can't be used. A lost content leaves the inventory."""
    stored = state.inventory.files.get(str(files))
    if is_lost(reason) and stored is not None and stored.find(content) is not None:
        gone = request_of("GET", FILES_GONE, f"{files}={content}", {})
        yield from record_event("read", Author(state.new_id(), BROKER), gone)
    return Denied(
        "files.undelivered",
        f"the files of {files} can't be used: {reason}",
        "look at the broker's log, the key, and the disk of the state folder; the controller tries again",
        subject=subject,
    )


def _recorded_path(state: GateState, item: ContainerItem, mount: ExpectedMount) -> str:
    return recorded_source(
        state.file_roots.get(mount.type, ""),
        FileSet(mount.type, item.namespace, mount.source),
        mount.content,
        mount.variant,
        key=mount.key,
        stable=mount.stable,
    )


def with_present_sources(
    state: GateState, item: ContainerItem, confined: Confinement
) -> Flow[Confinement]:
    """Return a confinement with delivered files as binds of the folders that are there now."""
    paths = {mount: _recorded_path(state, item, mount) for mount in file_mounts(confined)}
    if not paths:
        return confined
    facts = yield from inspect_paths(tuple(sorted(set(paths.values()))))
    mounts: list[ExpectedMount] = []
    for mount in confined.mounts:
        found = facts.get(paths.get(mount, ""))
        if mount not in paths:
            mounts.append(mount)
        elif found is None or found.kind not in {"dir", "file"}:
            mounts.append(replace(mount, type="bind", source=paths[mount]))
        else:
            mounts.append(
                replace(
                    mount,
                    type="bind",
                    source=paths[mount],
                    device=found.device,
                    inode=found.inode,
                    place=found.place,
                )
            )
    return replace(confined, mounts=tuple(mounts))
