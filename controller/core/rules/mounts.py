"""Rules of mounts: the paths of the host and the volumes that a container may see.

Paths are compared by whole components, never as text. The order of judgement:

1. ``NEVER`` and the broker's own places: refused by every policy.
2. The policy's forbidden paths, except inside a listed project.
3. The policy's allowed paths, or the owner's.

A path below the engine's volumes root is judged as a mount of its volume.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from controller.core.encoding.text import quote
from controller.core.engine_api.grammar import is_clean
from controller.core.engine_api.mount_grammar import VOLUME_NAME, is_plain_volume
from controller.core.engine_api.requests import (
    Finding,
    Findings,
    Grant,
    MountRequest,
    RemoteVolume,
    new_bound,
    read_remote,
)
from controller.core.rules.confinement import data_path
from controller.core.rules.context import DEFAULT_VOLUMES_ROOT, Case, VolumeFacts
from controller.core.rules.identity import judge_name
from controller.core.rules.images import makes_named, mounts_of
from controller.model.delivery import FileSet
from controller.model.host_paths import ENGINE_DATA, TIME_ZONE, PathFacts, is_below
from controller.model.inventory import ContainerItem, OwnedObject
from controller.model.names import REVISION
from controller.model.policy.document import OPERATOR_OWNER, Policy
from controller.model.policy.sections import Project
from controller.model.quantities import format_bytes
from controller.model.records import Role

#: Refused by every policy, also as part of a larger folder. The broker adds its own places by
#: device and inode (``PathFacts.protected``).
NEVER = (
    "/proc",
    "/sys",
    "/dev",
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/docker",
    "/var/run/docker",
    "/run/containerd",
    "/var/run/containerd",
    "/run/trimtab",
    "/var/run/trimtab",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/trimtab",
)
_SOCKET_NAMES = (
    "docker.sock",
    "containerd.sock",
    "broker.sock",
    "broker-operator.sock",
    "broker-controller.sock",
    "broker-viewer.sock",
)
_WRITABLE_BY_OTHERS = 0o022


def mounts_bounded(case: Case) -> Findings:
    """The number of mounts is bounded, and memory filesystems have a size limit."""
    mounts, policy = mounts_of(case), case.policy
    if len(mounts) > policy.mounts.max:
        reason = f"{len(mounts)} mounts: at most {policy.mounts.max}"
        permit = Grant("set", "mounts.max", len(case.request.mounts))
        yield Finding("mount.count", "HostConfig.Mounts", reason, "ask for fewer", permit=permit)
    most = policy.resources.tmpfs.max
    for mount in mounts:
        if mount.type == "tmpfs" and not 0 <= mount.size <= most:
            reason = f"{format_bytes(mount.size)} in memory is outside 0 to {format_bytes(most)}"
            size, more = format_bytes(mount.size), mount.size > most
            larger = new_bound("resources.tmpfs.max", size, is_beyond=more)
            yield Finding("mount.tmpfs", mount.path, reason, "ask for less", more, larger)
        if mount.executable and not policy.resources.tmpfs.executable:
            reason = "exec lets programs in the tmpfs run, which the policy does not admit"
            permit = Grant("set", "resources.tmpfs.exec", True)
            yield Finding("mount.options", mount.path, reason, "leave exec out", permit=permit)


def sources_allowed(case: Case) -> Findings:
    """The policy allows each source, and the source is the file or folder that its path names."""
    root, mounts = volumes_root(case), mounts_of(case)
    if len(mounts) > case.policy.mounts.max:
        return  # ``mounts_bounded`` refuses the create, and the gate looked up no mount
    for mount in mounts:
        if mount.type == "volume":
            if mount.source and makes_named(case):
                yield from judge_name(mount.source, mount.path, most=case.policy.names.max)
            yield from _volume(case, mount, mount.source)
        elif mount.type == "bind" and is_clean(mount.source):
            if is_below(mount.source, root):
                yield from _below_volumes_root(case, mount, root)
            else:
                yield from _bind(case, mount)


def files_own(case: Case) -> Findings:
    """Delivered files belong to the namespace and the owner of the container."""
    for mount in case.request.mounts:
        if mount.files is None:
            continue
        if not case.by_controller:
            reason = f"a mount of type {mount.type!r} is the controller's alone"
            remedy = "declare a Service and a Config, or mount a folder"
            yield Finding("mount.type", f"{mount.path}.Type", reason, remedy)
        elif case.facts is not None:
            files, wanted = FileSet(mount.type, case.namespace, mount.source), mount.files
            path = f"{mount.path}.Trimtab.Content"
            yield from _files(case, files, wanted.content, path, stable=wanted.stable)
    for variable in case.request.variables:
        if not case.by_controller:
            reason = "variables with values of Secrets are the controller's alone"
            yield Finding("env.secret", variable.path, reason, "declare a Service and a Secret")
        elif case.facts is not None:
            files = FileSet("secret", case.namespace, variable.secret)
            yield from _files(case, files, variable.content, variable.path, stable=False)


def _files(case: Case, files: FileSet, content: str, path: str, *, stable: bool) -> Findings:
    assert case.facts is not None, "files are judged by the stored contents"
    own = case.facts.files.get(str(files))
    stored = own.find(content) if own is not None else None
    # A folder that stays shows the content that was delivered last.
    shown = own.contents[-1] if own is not None and own.contents and stable else stored
    if stored is not None and shown is not None and {stored.owner, shown.owner} == {case.owner}:
        return
    elsewhere = any(each.find(content) for each in case.facts.files.values())
    if stored is None and not elsewhere and case.facts.existing:
        return  # the mount of a container that is there, below the instance's own folder
    if stored is not None or elsewhere:
        reason = f"the content isn't one of {files} for the owner {quote(case.owner)}"
        remedy = "mount a Config of the service's own namespace and owner"
        yield Finding("files.foreign", path, reason, remedy)
    else:
        reason = f"the broker has no such content of {files}"
        yield Finding("files.unknown", path, reason, "deliver it first")


def volumes_root(case: Case) -> str:
    """Return the folder in which the engine keeps its volumes."""
    return case.facts.host.volumes_root if case.facts else DEFAULT_VOLUMES_ROOT


def volume_below(source: str, root: str) -> str:
    """Return the volume whose data is at a path below the volumes root, '' if there is none."""
    parts = source.removeprefix(root).strip("/").split("/")
    data = len(parts) > 1 and parts[1] == "_data" and VOLUME_NAME.fullmatch(parts[0])
    return parts[0] if data else ""


def _below_volumes_root(case: Case, mount: MountRequest, root: str) -> Findings:
    name = volume_below(mount.source, root)
    if not name:
        reason = f"{mount.source} is no volume's data"
        yield Finding("mount.forbidden", mount.path, reason, "mount the volume by its name")
        return
    yield from _volume(case, mount, name)
    if mount.source != data_path(root, name):
        # The engine follows links in this path, but not when it resolves a volume's Subpath.
        reason = (
            f"containers with the volume {name} could put a link in the place of {mount.source}"
        )
        remedy = "mount the volume by its name; a part of it with VolumeOptions.Subpath"
        yield Finding("mount.parent", mount.path, reason, remedy)
    yield from _judge_facts(case, mount, in_volume=True)


def _bind(case: Case, mount: MountRequest) -> Findings:
    source = mount.source
    if source == "/" and case.observer is not None and mount.read_only:
        return  # ``observers_confined``: without the mounts below it, where sockets and Secrets are
    never = next((path for path in NEVER if _touches(source, path)), "")
    if never or source.rpartition("/")[2] in _SOCKET_NAMES:
        relation = _relation(source, never) if never else "is a socket of the engine, "
        reason = f"{source} {relation}which no policy admits"
        yield Finding("mount.never", mount.path, reason, "remove the mount")
        return
    project = project_of(case, source)
    if project is not None:
        yield from _judge_facts(case, mount, in_volume=False, project=project)
        yield from _judge_project_user(case, mount, project)
        return
    if case.by_controller and case.policy.directory and is_below(source, case.policy.directory):
        reason = f"{source} is a folder of the directory, which the policy keeps from containers"
        remedy = "mount a volume, or set mounts.directory in the policy"
        yield Finding("mount.directory", mount.path, reason, remedy)
        return
    mounts, allowed = case.policy.mounts, _allowed(case, mount)
    forbidden = next((path for path in mounts.forbidden if _touches(source, _folder(path))), "")
    if forbidden:
        reason = f"{source} {_relation(source, _folder(forbidden))}which the policy forbids"
        remedy = "use a volume, or another folder"
        if source != _folder(forbidden) and is_below(source, _folder(forbidden)):
            remedy += ", or list your project's folder in mounts.projects of the policy"
        yield Finding("mount.forbidden", mount.path, reason, remedy)
        return
    if not any(_allows(prefix, source) for prefix in allowed):
        folders = ", ".join(allowed) or "none"
        reason = f"{source} is not below an admitted path ({folders})"
        remedy, permit = "use a path below one of them", _permit_source(case, mount.source)
        yield Finding("mount.not-allowed", mount.path, reason, remedy, permit=permit)
        return
    yield from _judge_facts(case, mount, in_volume=False)


def _permit_source(case: Case, source: str) -> Grant:
    for index, owner in enumerate(case.policy.owners or ()):
        if owner.name == case.owner and owner.sources:
            return Grant("add", f"owners.{index}.sources", source)
    return Grant("add", "mounts.allowed", source)


def _allowed(case: Case, mount: MountRequest) -> tuple[str, ...]:
    """Return the prefixes of the sources that the policy allows, with the time zone for reading."""
    listed = case.policy.owner(case.owner)
    own = (listed.sources if listed else ()) or case.policy.mounts.allowed
    return (*own, *TIME_ZONE) if mount.read_only and mount.source in TIME_ZONE else own


def project_of(case: Case, source: str) -> Project | None:
    """Return the policy's project folder around a source, if the actor may mount from there.

    The policy lists project folders in addition to its forbidden paths, each with the user that
    owns the files.
    """
    for project in case.policy.projects if case.by_controller else case.policy.mounts.projects:
        own = case.actor.role is not Role.CLIENT or case.actor.uid == project.uid
        if own and is_below(source, _folder(project.path)):
            return project
    return None


def _judge_project_user(case: Case, mount: MountRequest, project: Project) -> Findings:
    """A client's container runs as the project's user, without other groups.

    The user can replace the folder by a link before the start, and later runs programs that the
    container leaves there. A container with root's rights would therefore make the user root: by
    access to a file of the host until the broker stops the container, or by a program with the
    set-user-id bit. A group of the host, such as docker, would do the same. Only numeric ids
    count, since the image chooses the meaning of names.
    """
    uid = str(project.uid)
    alone = case.request.user == f"{uid}:{uid}" and not set(case.request.groups) - {uid}
    if case.actor.role is Role.CLIENT and not alone:
        reason = f"{mount.source} is a project of the user {uid}, and the container runs as another"
        remedy = f'run it as that user, without other groups (user: "{uid}:{uid}")'
        yield Finding("mount.project", mount.path, reason, remedy)


def _touches(source: str, path: str) -> bool:
    return is_below(source, path) or is_below(path, source)


def _relation(source: str, path: str) -> str:
    """Return the relation of a source to a path, to be followed by a relative clause."""
    if source == path:
        return "is a path "
    return f"lies under {path}, " if is_below(source, path) else f"contains {path}, "


def _folder(path: str) -> str:
    return path.rstrip("/") or "/"


def _allows(prefix: str, source: str) -> bool:
    folder = _folder(prefix)
    # A prefix with a trailing slash covers the paths below the folder, not the folder (/tmp/).
    return is_below(source, folder) and not (prefix.endswith("/") and source == folder)


_KINDS = {
    "symlink": ("mount.symlink", "is a link, or lies behind one", "name the place itself"),
    "missing": (
        "mount.missing",
        "isn't there",
        "create it first: the gate lets the engine create nothing on the host",
    ),
    "socket": ("mount.socket", "is a socket", "no policy allows that"),
    "other": ("mount.kind", "is neither a folder nor a file", "mount a folder or a file"),
    "unreadable": ("mount.unreadable", "can't be looked at by the broker", "check its rights"),
    "other-view": (
        "mount.other-view",
        "isn't what the engine would mount: the broker sees another /tmp, /home or /dev",
        "start the broker without PrivateTmp=, ProtectHome= and the like; see 'trimtab doctor'",
    ),
}


def _judge_facts(
    case: Case, mount: MountRequest, *, in_volume: bool, project: Project | None = None
) -> Findings:
    """Yield the faults of a source on the host. The user of a *project* may own the folders above it."""
    if case.facts is None:
        return
    facts = case.facts.paths.get(mount.source)
    if facts is None:
        reason = f"{mount.source} wasn't looked at"
        yield Finding("mount.unreadable", mount.path, reason, "try again")
        return
    protected = "" if in_volume and facts.protected == ENGINE_DATA else facts.protected
    if facts.in_directory and project is not None and case.by_controller:
        yield from _judge_in_directory(mount, facts)
    elif protected:
        reason = f"{mount.source} is, contains or lies under what is the gate's own: {protected}"
        yield Finding("mount.never", mount.path, reason, "no policy allows that")
        return
    if facts.kind in _KINDS and not makes_folder(case, mount):
        rule, fault, remedy = _KINDS[facts.kind]
        yield Finding(rule, mount.path, f"{mount.source} {fault}", remedy)
        return
    if not in_volume:
        # Folders above a volume belong to the engine alone, so nobody else can swap them.
        yield from _parents(case, mount, facts, () if project is None else (project.uid,))


def _judge_in_directory(mount: MountRequest, facts: PathFacts) -> Findings:
    """Yield the faults of a source in the directory of the desired state.

    Containers write to no file that declares something, nor beside one: they would choose what runs.
    """
    if ".git" in mount.source.split("/"):
        reason = f"{mount.source} is Git's, and no policy admits it"
        yield Finding("mount.never", mount.path, reason, "mount another folder")
    elif mount.read_only:
        return
    elif facts.kind == "file" or facts.declares:
        what = f"holds {facts.declares}" if facts.declares else "is a file of the directory"
        reason = (
            f"{mount.source} {what}: a container that writes there could change what is declared"
        )
        remedy = "mount it read-only, or mount a folder below it"
        yield Finding("mount.directory", mount.path, reason, remedy)


def makes_folder(case: Case, mount: MountRequest) -> bool:
    """Return True if the gate makes the missing source of a document's writable mount.

    Only in projects, for which the policy names a user. Elsewhere a missing source is possibly a disk
    that isn't mounted.
    """
    facts = case.facts.paths.get(mount.source) if case.facts else None
    is_missing = facts is not None and facts.kind == "missing"
    asked = mount.type == "bind" and not mount.read_only and case.by_controller
    return is_missing and asked and project_of(case, mount.source) is not None


def folders_to_make(case: Case) -> tuple[tuple[str, int], ...]:
    """Return the missing folders of an admitted create, each with the user who gets it."""
    sources = [each for each in mounts_of(case) if makes_folder(case, each)]
    made = [*sources, *(each for each in mount_points(case) if _makes_point(case, each))]
    return tuple(
        (mount.source, project.uid)
        for mount in made
        if (project := project_of(case, mount.source)) is not None
    )


def mount_points(case: Case) -> Iterator[MountRequest]:
    """Yield the folders of projects that other mounts cover inside of read-only ones.

    The engine makes the point of a mount, and can't in a read-only folder (``.:/app`` with a volume at
    ``/app/node_modules``). The source of each is the folder on the host.
    """
    mounts = mounts_of(case) if case.by_controller else ()
    for inner in mounts:
        around = [m for m in mounts if m is not inner and is_below(inner.target, m.target)]
        outer = max(around, key=lambda each: len(each.target), default=None)
        is_file = inner.files is not None and inner.files.key
        if outer is None or outer.type != "bind" or not outer.read_only or is_file:
            continue
        if project_of(case, outer.source) is not None:
            below = inner.target.removeprefix(outer.target)
            yield replace(outer, source=f"{outer.source}{below}", path=inner.path)


def _makes_point(case: Case, point: MountRequest) -> bool:
    facts = case.facts.paths.get(point.source) if case.facts else None
    project = project_of(case, point.source)
    if facts is None or facts.kind != "missing" or project is None:
        return False
    covering = next((m for m in mounts_of(case) if m.path == point.path), None)
    source = case.facts.paths.get(covering.source) if case.facts and covering else None
    is_file = source is not None and source.kind == "file"
    is_open = facts.in_directory or not facts.protected
    return is_open and not is_file and not any(_parents(case, point, facts, (project.uid,)))


def _parents(
    case: Case, mount: MountRequest, facts: PathFacts, owners: tuple[int, ...]
) -> Findings:
    """Yield the folders in which another user could replace the source after the judgement."""
    listed = case.policy.owner(case.owner)
    trusted = {0, *owners, *(listed.uids if listed else ())}
    remedy = "let root own the folders above it, writable by nobody else"
    if facts.parents_writable_by_others:
        reason = f"others may write to {facts.parents_writable_by_others}, above {mount.source}"
        yield Finding("mount.parent", mount.path, reason, remedy)
    own = {case.actor.uid} - trusted if case.actor.role is Role.CLIENT else set()
    if own & {*facts.parent_owners, *(parent.next_uid for parent in facts.sticky_parents)}:
        reason = f"uid {case.actor.uid} could put a link in the place of {mount.source} before the engine mounts it"
        folder = f"use a volume, or let root list {mount.source} in mounts.projects of the policy"
        yield Finding("mount.parent", mount.path, reason, f"{folder}, with the uid")
        return
    for parent in facts.sticky_parents:
        if parent.next_uid not in trusted or parent.next_mode & _WRITABLE_BY_OTHERS:
            reason = f"what lies below {parent.path} on the way to {mount.source} isn't root's"
            yield Finding("mount.parent", mount.path, reason, remedy)
    strangers = sorted(set(facts.parent_owners) - trusted)
    if strangers:
        reason = f"uid {strangers[0]} owns a folder above {mount.source}"
        yield Finding("mount.parent", mount.path, reason, remedy)


def _volume(case: Case, mount: MountRequest, name: str) -> Findings:
    if case.facts is None or not VOLUME_NAME.fullmatch(name):
        return
    facts = case.facts.volumes.get(name)
    if facts is None or facts.name != name:
        reason = f"there is no volume {name}"
        by_hand = case.request.label(REVISION) == ""
        permit = new_bound("mounts.createVolumes", True, is_beyond=by_hand)
        yield Finding("volume.missing", mount.path, reason, "create it first", permit=permit)
        return
    yield from judge_volume(case, facts, mount.path)


def judge_volume(case: Case, facts: VolumeFacts, path: str) -> Findings:
    """Yield the reasons why a volume cannot be mounted."""
    if not facts.ours:
        reason = f"the volume {facts.name} isn't ours"
        yield Finding("volume.foreign", path, reason, "create one through the gate")
    elif not _may_use(case, facts):
        # A client does not learn the owner.
        reason = f"the volume {facts.name} belongs to another owner or namespace"
        yield Finding("volume.foreign", path, reason, "use one of your own")
    remote = read_remote(dict(facts.options)) if facts.driver == "local" else ""
    if isinstance(remote, RemoteVolume):
        yield from judge_remote(
            remote, case.policy, owner=case.owner, namespace=case.namespace, path=path
        )
    elif not is_plain_volume(facts.driver, facts.options):
        reason = (
            f"the volume {facts.name} has options or a driver, and can reach any path of the host"
        )
        yield Finding("volume.options", path, reason, "use a plain local volume")


def judge_remote(
    remote: RemoteVolume, policy: Policy, *, owner: str, namespace: str, path: str
) -> Findings:
    """Yield why a folder of another machine isn't granted to an owner in a namespace."""
    for grant in policy.mounts.remote:
        same = (grant.owner, grant.namespace) == (owner, namespace)
        there = (grant.type, grant.server) == (remote.type, remote.server)
        if same and there and is_below(remote.path, _folder(grant.path)):
            return
    reason = (
        f"{remote.type} {remote.device} is a folder of another machine that the policy doesn't grant to owner "
        f"{owner} in namespace {namespace}"
    )
    place = {"owner": owner, "namespace": namespace, "type": remote.type}
    folder = {**place, "server": remote.server, "path": remote.path}
    permit = Grant("add", "mounts.remote", folder)
    yield Finding("volume.remote", path, reason, "use a volume of this host", permit=permit)


def _may_use(case: Case, facts: VolumeFacts) -> bool:
    match case.actor.role:
        case Role.CONTROLLER:
            same = facts.namespace == case.namespace
            # With a list of owners, one namespace may be shared by several.
            return same and (case.policy.owners is None or facts.owner == case.owner)
        case Role.CLIENT:
            return facts.owner == case.owner
        case _:
            return True


def is_admitted_volume(item: ContainerItem, volume: OwnedObject) -> bool:
    """Return True if a volume of this instance is the one to which a container was admitted.

    Of a container without recorded identities each volume of its owner or namespace counts.
    """
    if recorded := dict(item.volume_ids).get(volume.name):
        return recorded == volume.identity
    return item.owner in {OPERATOR_OWNER, volume.owner} or (
        item.origin == "controller" and volume.namespace == item.namespace
    )


def warnings(mounts: Iterable[MountRequest]) -> tuple[str, ...]:
    """Return a warning for each writable bind mount."""
    return tuple(
        f"{mount.source} is mounted writable: read-only is safer"
        for mount in mounts
        if mount.type == "bind" and not mount.read_only
    )
