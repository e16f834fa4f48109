"""CDI specifications: the changes that a named device makes to a container.

The engine applies a specification when a container starts
(https://github.com/cncf-tags/container-device-interface, SPEC.md). Its device nodes are checked one by
one. A member that can do more than add a device or a variable needs a person who read the file: a
grant that names the digest.

Invariant: what this module doesn't know exactly counts as such a member. The engine's own reader
folds the case of keys, and this one doesn't.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from controller.core.yaml.documents import compose_all
from controller.model.desired.spec.container import is_device_path
from controller.model.policy.sections import why_never

#: The folders that an engine reads by default.
FOLDERS = ("/etc/cdi", "/var/run/cdi")
_TOP = frozenset({"cdiVersion", "kind", "devices", "containerEdits", "annotations"})
_DEVICE = frozenset({"name", "containerEdits", "annotations"})
_NODE = frozenset({"path", "hostPath", "type", "permissions", "major", "minor", "fileMode"})
_NODE_IDS = frozenset({"uid", "gid"})
_MOUNT = frozenset({"hostPath", "containerPath", "options", "type"})


@dataclass(frozen=True, slots=True)
class CdiFile:
    """A file of a folder with specifications, as read."""

    path: str
    #: None for a file that can't be trusted.
    content: bytes | None

    @property
    def digest(self) -> str:
        """The digest that a grant of the policy names."""
        return f"sha256:{hashlib.sha256(self.content or b'').hexdigest()}"


@dataclass(frozen=True, slots=True)
class CdiMount:
    """A file or folder of the host that a specification mounts."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class CdiDevice:
    """The changes of one named device."""

    name: str
    #: The file, and its digest.
    file: str
    digest: str
    #: The paths of its device nodes on the host.
    nodes: tuple[str, ...] = ()
    mounts: tuple[CdiMount, ...] = ()
    #: The names of the variables that it sets.
    variables: tuple[str, ...] = ()
    #: What it does besides, in words: such as ``hooks``. Needs a grant with the digest.
    further: tuple[str, ...] = ()
    #: Why no grant admits it; '' if one can.
    never: str = ""


def read_devices(files: tuple[CdiFile, ...]) -> dict[str, CdiDevice]:
    """Return the devices of all files by name.

    A name in two files is admitted by no grant: the engine prefers one of them. So is each name
    beside a file that can't be trusted.
    """
    found: dict[str, CdiDevice] = {}
    for file in files:
        for device in _devices_of(file):
            if device.name in found:
                never = f"{file.path} and {found[device.name].file} both define it"
                found[device.name] = CdiDevice(device.name, file.path, file.digest, never=never)
            else:
                found[device.name] = device
    untrusted = next((file.path for file in files if file.content is None), "")
    if untrusted:
        never = (
            f"{untrusted} may define it too, and isn't read: it must be a regular file of root's, that "
            "nobody else can write"
        )
        return {name: replace(device, never=never) for name, device in found.items()}
    return found


def _devices_of(file: CdiFile) -> Iterator[CdiDevice]:
    try:
        text = (file.content or b"").decode()
    except UnicodeDecodeError:
        return
    documents = [*compose_all(text, file.path)]
    if len(documents) != 1 or documents[0].faults or not isinstance(documents[0].value, dict):
        return
    whole = documents[0].value
    kind, listed = whole.get("kind"), whole.get("devices")
    if not isinstance(kind, str) or not isinstance(listed, list):
        return
    common = _edits(whole.get("containerEdits"))
    unknown = sorted(whole.keys() - _TOP)
    for item in listed:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            continue
        own = _edits(item.get("containerEdits"))
        further = [*unknown, *sorted(item.keys() - _DEVICE), *common.further, *own.further]
        nodes = (*common.nodes, *own.nodes)
        yield CdiDevice(
            f"{kind}={item['name']}",
            file.path,
            file.digest,
            nodes=nodes,
            mounts=(*common.mounts, *own.mounts),
            variables=(*common.variables, *own.variables),
            further=tuple(dict.fromkeys(further)),
            never=common.never or own.never or _refused_node(nodes),
        )


def _refused_node(nodes: tuple[str, ...]) -> str:
    for node in nodes:
        if not is_device_path(node):
            return f"its device node {node[:80]!r} is not below /dev"
        if why := why_never(node):
            return f"its device node {node} is refused: {why}"
    return ""


@dataclass(slots=True)
class _Edits:
    nodes: tuple[str, ...] = ()
    mounts: tuple[CdiMount, ...] = ()
    variables: tuple[str, ...] = ()
    further: tuple[str, ...] = ()
    never: str = ""


def _edits(value: object) -> _Edits:
    """Return the parts of ``containerEdits``."""
    edits = _Edits()
    if value is None:
        return edits
    if not isinstance(value, dict):
        return _Edits(further=("containerEdits in another form",))
    for name, member in value.items():
        if not member:
            continue
        known = _READERS.get(name)
        if known is None or not isinstance(member, list) or not known(edits, member):
            edits.further += (name,)
    if edits.mounts:
        edits.further += ("mounts",)
    return edits


def _read_nodes(edits: _Edits, members: list[object]) -> bool:
    plain = True
    for node in members:
        path = node.get("hostPath") or node.get("path") if isinstance(node, dict) else None
        if not isinstance(node, dict) or not isinstance(path, str):
            return False
        if node.get("type") not in (None, "", "c", "u"):
            edits.never = f"its device node {path[:80]!r} is no character device"
        # Given numbers make the engine ignore those of the host's node.
        numbers = {"major", "minor"} & {key for key, value in node.items() if value}
        plain = plain and not numbers and not node.keys() - _NODE - _NODE_IDS
        edits.nodes += (path,)
    return plain


def _read_mounts(edits: _Edits, members: list[object]) -> bool:
    for mount in members:
        if not isinstance(mount, dict) or mount.keys() - _MOUNT:
            return False
        source, target = mount.get("hostPath"), mount.get("containerPath")
        if not isinstance(source, str) or not isinstance(target, str):
            return False
        options = mount.get("options")
        read_only = isinstance(options, list) and "ro" in options
        edits.mounts += (CdiMount(source, target, read_only),)
    return True


def _read_variables(edits: _Edits, members: list[object]) -> bool:
    if not all(isinstance(entry, str) and "=" in entry for entry in members):
        return False
    edits.variables += tuple(str(entry).partition("=")[0] for entry in members)
    return True


#: The members that this module reads. Each reader returns False if it doesn't know a part.
_READERS: Mapping[str, Callable[[_Edits, list[object]], bool]] = {
    "deviceNodes": _read_nodes,
    "mounts": _read_mounts,
    "env": _read_variables,
}
