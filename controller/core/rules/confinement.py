"""What a container is admitted as for good: from its create, into the journal, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from controller.core.rules.anonymous_volumes import uncovered
from controller.model.confinement import Confinement, ExpectedMount
from controller.model.host_paths import PathFacts

if TYPE_CHECKING:
    from controller.core.engine_api.requests import CreateRequest, MountRequest
    from controller.core.rules.context import Case

#: The journal cuts longer texts: then nothing is recorded, and nothing can be compared.
TEXT_MAX = 512


def confinement_of(case: Case, request: CreateRequest) -> Confinement:
    """Return as what a finished create is admitted, with the identities of its mounts' sources."""
    policy = case.policy.security
    return Confinement(
        capabilities=request.cap_add,
        read_only_root=request.read_only_root,
        non_root=policy.require_non_root,
        private_cgroup=request.cgroupns_mode == "private",
        shm=request.shm_size,
        runtime=request.runtime,
        mounts=tuple(_fastenings(case, request)),
    )


def _fastenings(case: Case, request: CreateRequest) -> Iterator[ExpectedMount]:
    paths: Mapping[str, PathFacts] = case.facts.paths if case.facts else {}
    root = case.facts.host.volumes_root if case.facts else ""
    for mount in request.mounts:
        source = data_path(root, mount.source) if mount.type == "volume" else mount.source
        yield _fastening(mount, paths.get(source))
    image = case.image.volumes if case.image else ()
    for target in uncovered((*request.volumes, *image), (mount.target for mount in request.mounts)):
        yield ExpectedMount("volume", target)


def data_path(volumes_root: str, name: str) -> str:
    """Return where the engine keeps a volume's data; '' for an anonymous one."""
    return f"{volumes_root}/{name}/_data" if name else ""


def _fastening(mount: MountRequest, seen: PathFacts | None) -> ExpectedMount:
    known = seen is not None and seen.kind in {"dir", "file"}
    return ExpectedMount(
        type=mount.type,
        target=mount.target,
        source=mount.source,
        read_only=mount.read_only,
        subpath=mount.subpath,
        size=mount.size if mount.type == "tmpfs" else 0,
        executable=mount.executable,
        device=seen.device if seen and known else 0,
        inode=seen.inode if seen and known else 0,
        place=seen.place if seen and known else "",
    )


def confinement_to_json(confinement: Confinement) -> dict[str, object] | None:
    """Return it as the journal has it; None when the journal would cut or escape one of its texts."""
    texts = [
        text
        for mount in confinement.mounts
        for text in (mount.target, mount.source, mount.subpath, mount.place)
    ]
    if any(len(text) > TEXT_MAX or not text.isprintable() for text in texts):
        return None
    told = asdict(confinement)
    told["mounts"] = [_sparse(asdict(mount)) for mount in confinement.mounts]
    return _sparse({**told, "capabilities": list(confinement.capabilities)})


def _sparse(told: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in told.items() if value}


def confinement_from_json(told: object) -> Confinement | None:
    """Return what ``confinement_to_json`` wrote, None for a record that has nothing of it."""
    if not isinstance(told, Mapping):
        return None
    known: dict[str, Any] = {name: told[name] for name in _NAMES & told.keys()}
    known["capabilities"] = tuple(str(name) for name in known.get("capabilities", ()))
    known["mounts"] = tuple(_fastening_from(each) for each in known.get("mounts", ()))
    known["shm"] = int(known.get("shm", 0))
    return Confinement(**known)


def _fastening_from(told: Mapping[str, Any]) -> ExpectedMount:
    known = {name: told[name] for name in _MOUNT_NAMES & told.keys()}
    # Large numbers may have become strings.
    known |= {name: int(known[name]) for name in ("size", "device", "inode") if name in known}
    return ExpectedMount(**{"type": "", "target": "", **known})


_NAMES = frozenset(field.name for field in fields(Confinement))
_MOUNT_NAMES = frozenset(field.name for field in fields(ExpectedMount))
