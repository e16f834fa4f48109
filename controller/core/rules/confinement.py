"""The confinement that a create fixes, as the journal records it. The rules are in ``core.rules.container``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from controller.core.effective import is_number
from controller.core.encoding.stored_form import StoredForm
from controller.core.engine_api.requests import MountRequest, RemoteVolume, read_remote
from controller.core.files.content import variant_id
from controller.core.rules.images import uncovered
from controller.model.confinement import Confinement, ExpectedDevice, ExpectedMount
from controller.model.host_paths import PathFacts, is_below
from controller.model.inventory import ContainerItem

if TYPE_CHECKING:
    from controller.core.engine_api.requests import CreateRequest
    from controller.core.rules.context import Case

#: The journal cuts longer texts. A cut text cannot be compared, so no confinement is recorded then.
TEXT_MAX = 512


def confinement_of(case: Case, request: CreateRequest) -> Confinement:
    """Return the confinement of a finished create, with device and inode of its mounts' sources."""
    policy = case.policy.security
    shared = case.facts.shared if case.facts else None
    return Confinement(
        capabilities=request.cap_add,
        read_only_root=request.read_only_root,
        non_root=policy.require_non_root,
        **_admitted_ids(case, request),
        private_cgroup=request.cgroupns_mode == "private",
        shm=shared.shm if shared and request.shares.ipc else request.shm_size,
        network_of=shared.id if shared and request.shares.network else "",
        runtime=request.runtime,
        mounts=tuple(_expected_mounts(case, request)),
        devices=tuple(_expected_devices(case, request)),
        observer=request.observes,
        host_namespaces=tuple(
            name
            for name, is_shared in (("net", request.shares.network), ("pid", request.shares.pid))
            if is_shared and request.shares.host
        ),
    )


def _admitted_ids(case: Case, request: CreateRequest) -> dict[str, Any]:
    """Return user and groups, if they are numbers that the container can't change."""
    named = any(not is_number(part) for part in (*request.user.split(":"), *request.groups))
    existing = case.facts is not None and case.facts.existing
    if named or ":" not in request.user or "SETGID" in request.cap_add or existing:
        return {}
    return {"user": request.user, "groups": request.groups}


def _expected_devices(case: Case, request: CreateRequest) -> Iterator[ExpectedDevice]:
    paths: Mapping[str, PathFacts] = case.facts.paths if case.facts else {}
    for device in request.devices:
        found = case.facts.cdi.get(device.source) if case.facts else None
        nodes = found.nodes if found else (device.source,)
        yield ExpectedDevice(
            device.source,
            tuple(f"{node}={number_text(paths[node].number)}" for node in nodes if node in paths),
            found.digest if found else "",
        )


def number_text(number: int) -> str:
    """Return a device's number as ``MAJOR:MINOR``."""
    return f"{os.major(number)}:{os.minor(number)}"


def _expected_mounts(case: Case, request: CreateRequest) -> Iterator[ExpectedMount]:
    paths: Mapping[str, PathFacts] = case.facts.paths if case.facts else {}
    root = case.facts.host.volumes_root if case.facts else ""
    for mount in request.mounts:
        source = data_path(root, mount.source) if mount.type == "volume" else mount.source
        yield replace(_expected_mount(mount, paths.get(source)), remote=_remote_source(case, mount))
    for device in request.devices:
        found = case.facts.cdi.get(device.source) if case.facts else None
        for each in found.mounts if found else ():
            brought = MountRequest("bind", each.source, each.target, each.read_only)
            yield _expected_mount(brought, paths.get(each.source))
    for target in uncovered(request.volumes, (mount.target for mount in request.mounts)):
        yield ExpectedMount("volume", target)


def _remote_source(case: Case, mount: MountRequest) -> str:
    """Return the source of a volume of another machine; '' for any other mount."""
    volume = case.facts.volumes.get(mount.source) if case.facts else None
    if mount.type != "volume" or volume is None or volume.driver != "local":
        return ""
    found = read_remote(dict(volume.options))
    return found.device if isinstance(found, RemoteVolume) else ""


def data_path(volumes_root: str, name: str) -> str:
    """Return the folder in which the engine keeps a volume's data; '' for an anonymous volume."""
    return f"{volumes_root}/{name}/_data" if name else ""


def mounts_volume(item: ContainerItem, volume: str, volumes_root: str) -> bool:
    """Return True if a container mounts a volume, by its name or by the path of its data."""
    data = data_path(volumes_root, volume)
    return any(
        (mount.type == "volume" and mount.source == volume)
        or (mount.type == "bind" and is_below(mount.source, data))
        for mount in (item.confined.mounts if item.confined else ())
    )


def _expected_mount(mount: MountRequest, facts: PathFacts | None) -> ExpectedMount:
    known = facts if facts is not None and facts.kind in {"dir", "file"} else None
    return ExpectedMount(
        type=mount.type,
        target=mount.target,
        source=mount.source,
        read_only=mount.read_only,
        subpath=mount.subpath,
        size=mount.size if mount.type == "tmpfs" else 0,
        executable=mount.executable,
        device=known.device if known else 0,
        inode=known.inode if known else 0,
        place=known.place if known else "",
        content=mount.files.content if mount.files else "",
        variant=(mount.files.known_variant or variant_id(mount.files.variant))
        if mount.files
        else "",
        key=mount.files.key if mount.files else "",
        stable=mount.files is not None and mount.files.stable,
    )


def confinement_to_json(confinement: Confinement) -> dict[str, object] | None:
    """Return the confinement in the journal's form.

    None if the journal would cut or escape any of the texts.
    """
    texts = [
        text
        for mount in confinement.mounts
        for text in (mount.target, mount.source, mount.subpath, mount.place, mount.key)
    ]
    texts += [text for each in confinement.devices for text in (each.source, *each.nodes)]
    if any(len(text) > TEXT_MAX or not text.isprintable() for text in texts):
        return None
    members: dict[str, object] = _FORM.to_json(confinement)
    return members


def confinement_from_json(value: object) -> Confinement | None:
    """Return the confinement from the journal's form; None for a record without a confinement."""
    return _FORM.from_json(value) if isinstance(value, Mapping) else None


_FORM = StoredForm(Confinement)
