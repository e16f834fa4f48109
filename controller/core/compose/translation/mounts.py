"""Mounts of a service: volumes, paths of the host, files of the project, configs, secrets, tmpfs.

Binds of a service: paths of the host, and files and folders of the project.

A file, or a small folder that is mounted read-only, becomes a Config. Other folders stay folders of the
host. What containers can write is never read as a part of the desired state, and what is read for the
project is never writable: the folder with the Compose file is mounted read-only.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Final

from controller.core.compose.project import TreePath
from controller.core.compose.translation.container import Workload
from controller.core.compose.translation.rollout import replicas_of
from controller.core.compose.translation.scope import (
    Draft,
    FoundPath,
    TranslationScope,
    Tree,
    dns_name,
    items,
    mapping,
    texts,
    whole_number,
)
from controller.core.compose.values import byte_text
from controller.model.host_paths import is_below

_EXECUTE: Final = "0555"
PLAIN: Final = "0444"


class ProjectPaths:
    """Mounted files and folders of a project: read ones, written ones, and the Configs of the files."""

    def __init__(self, scope: TranslationScope) -> None:
        self.scope = scope
        #: The absolute path of the source's root; '' if folders have no lasting place.
        self.directory = scope.settings.directory
        #: The Config of each file or folder of the project.
        self._configs: dict[str, str] = {}
        self._names = {dns_name(name) for name in mapping(scope.project.tree.get("configs"))}
        #: The paths that trimtab reads for the project.
        self._read = frozenset(map(posixpath.normpath, _paths_read(scope)))
        #: The folders that containers of the project write to.
        self._written = frozenset(self._folders_written()) if self.directory else frozenset[str]()

    def _folders_written(self) -> Iterator[str]:
        for service in self.scope.services.values():
            for each in items(mapping(service).get("volumes")):
                terms = mapping(each)
                path = self.inside(self.expand(str(terms.get("source") or "")))
                if terms.get("type") != "bind" or terms.get("read_only") or path is None:
                    continue
                kind = self.scope.look(f"./{path}", listed=False).kind
                if kind in ("folder", "absent") and not self.is_read(path):
                    yield path

    def expand(self, source: str) -> str:
        """Return a source with the home for ``~``; unchanged if the directory lies in no home."""
        home = self.scope.settings.home
        return f"{home}{source[1:]}" if home and source.split("/", maxsplit=1)[0] == "~" else source

    def inside(self, source: str) -> str | None:
        """Return a path relative to the source's root; None for another place of the host."""
        path = posixpath.normpath(source)
        if not path.startswith("/"):
            return None if path.split("/")[0] in ("..", "~") else path
        if not self.directory or not is_below(path, self.directory):
            return None
        return posixpath.relpath(path, self.directory)

    def on_host(self, path: str) -> str:
        """Return the absolute path for a path relative to the source's root."""
        return posixpath.normpath(f"{self.directory}/{path}")

    def is_read(self, folder: str) -> bool:
        """Return True if trimtab reads a folder, or a file in it, for the project."""
        return folder == "." or any(is_below(path, folder) for path in self._read)

    def is_near_written(self, path: str) -> bool:
        """Return True if a path lies in a folder that containers write to, or contains one."""
        return any(is_below(path, each) or is_below(each, path) for each in self._written)

    def is_written_by(self, mount: Tree) -> bool:
        """Return True if a translated mount is a writable folder of the directory."""
        is_writable = mount.get("type") == "bind" and not mount.get("readOnly")
        return is_writable and self.inside(str(mount.get("source"))) is not None

    def config_of(self, path: str, files: dict[str, str], origin: TreePath) -> str:
        """Return the name of the Config with files of the project, made at the first use."""
        name = self._configs.get(path)
        if name is None:
            name = dns_name(posixpath.basename(path) or self.scope.namespace)
            if name in self._names:
                name = dns_name(f"{name}-{path}-{'x' * 20}")  # long, so that it ends with a digest
            self._configs[path] = name
            self._names.add(name)
            draft = Draft("Config", name, origin)
            draft.put("spec.files", files, ())
            self.scope.drafts.append(draft)
        return name


def _paths_read(scope: TranslationScope) -> Iterator[str]:
    """Yield the paths that trimtab reads for a project, and the contexts of builds."""
    yield from scope.project.files
    for config in mapping(scope.project.tree.get("configs")).values():
        yield str(mapping(config).get("file") or "")
    for service in scope.services.values():
        context = str(mapping(mapping(service).get("build")).get("context"))
        if context.startswith("./"):
            yield context


def put_bind(work: Workload, paths: ProjectPaths, terms: Tree, origin: TreePath) -> None:
    """Translate a bind mount."""
    written, target = str(terms.get("source") or ""), clean(terms.get("target"))
    is_read_only, source = bool(terms.get("read_only")), paths.expand(written)
    if source.startswith("~"):
        place = ("services", work.name, *origin)
        message = f"{source!r} depends on the home folder of a user"
        remedy = "write the absolute path, or a path beside the Compose file"
        work.scope.error(place, "compose.home", message, remedy, work.key)
        return
    path = paths.inside(source)
    if source.startswith("/") and (path is None or _look(paths, path, listed=False).is_absent):
        _put_host(work, clean(source), target, is_read_only=is_read_only, origin=origin)
        return
    source = source if path is None else f"./{path}" if path != "." else "."
    path = posixpath.normpath(source)
    is_host = not is_read_only or paths.is_near_written(path)
    found = work.scope.look(source, listed=not is_host)
    if fault := _fault(source, target, found, paths, is_read_only=is_read_only):
        work.refuse(origin, *fault)
        return
    is_folder = found.kind != "file"
    if (is_host and is_folder) or paths.is_near_written(path) or found.reason:
        keeps = is_read_only or not is_folder or paths.is_read(path)
        _put_host(work, paths.on_host(path), target, is_read_only=keeps, origin=origin)
        if keeps and not is_read_only:
            what = "is one file" if not is_folder else "holds files that trimtab reads"
            message = f"the container can't write to {target}: {written} {what}"
            remedy = "add :ro, or mount a folder below it for what the program writes"
            work.warn(origin, message, remedy, "compose.read-only")
        return
    _put_config(work, paths, source, target, found, origin)
    if not is_read_only:
        message = f"the container can't write to {target}: {source} is delivered as a Config"
        remedy = "add :ro, or mount a volume if the program writes there"
        work.warn(origin, message, remedy, "compose.read-only")


def _look(paths: ProjectPaths, path: str, *, listed: bool) -> FoundPath:
    return paths.scope.look("." if path == "." else f"./{path}", listed=listed)


def _put_host(
    work: Workload, source: str, target: str, *, is_read_only: bool, origin: TreePath
) -> None:
    entry: dict[str, object] = {"type": "bind", "source": source, "target": target}
    if is_read_only:
        entry["readOnly"] = True
    work.draft.add("mounts", entry, origin)


def _put_config(
    work: Workload,
    paths: ProjectPaths,
    source: str,
    target: str,
    found: FoundPath,
    origin: TreePath,
) -> None:
    path, place = posixpath.normpath(source), (*work.draft.origin, *origin)
    mount: dict[str, object] = {"type": "config", "target": target, "mode": PLAIN}
    if found.kind == "folder":
        files = {name: posixpath.join(path, name) for name in found.names}
        _warn_of_variables(work, source, target, found.names, origin)
        mount["source"] = paths.config_of(path, files, place)
    else:
        key = posixpath.basename(path)
        mount |= {"source": paths.config_of(path, {key: path}, place), "key": key}
        mount["mode"] = _EXECUTE if found.executable else PLAIN
    work.draft.add("mounts", mount, origin)


def _warn_of_variables(
    work: Workload, source: str, target: str, names: tuple[str, ...], origin: TreePath
) -> None:
    """Announce files with variables, which are often secret, in a delivered folder."""
    found = [
        name
        for name in names
        if name.endswith(".env") or posixpath.basename(name).startswith(".env.")
    ]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        message = (
            f"{found[0]}{more} of {source} is delivered to {target}: its values are no secret there"
        )
        remedy = "mount a folder without it, and keep secret values in a Secret"
        work.warn(origin, message, remedy, "compose.variables-delivered")


def _fault(
    source: str, target: str, found: FoundPath, paths: ProjectPaths, *, is_read_only: bool
) -> tuple[str, str] | None:
    """Return the message and the remedy for a path of the project that can't be mounted."""
    volume = f"name a volume (data:{target}) and declare it under volumes"
    # A name with an ending is a file's that was forgotten.
    is_new_folder = not is_read_only and "." not in posixpath.basename(source).lstrip(".")
    match found.kind:
        case "absent" if not is_new_folder or not paths.directory:
            remedy = "add the file, correct the path, or make the folder"
            return f"{source} doesn't exist in the project", remedy
        case "outside":
            remedy = (
                "copy the file into the project, or write an absolute path that the policy allows"
            )
            return f"{source} leads out of the folder that trimtab reads", remedy
        case "other":
            return f"{source} is no regular file and no folder", volume
        case "folder" | "absent" if not is_read_only and not paths.directory:
            message = f"{source} is a folder of the project, mounted writable, and the files of a Git source have no lasting place"
            return message, f"add :ro if the container only reads {target}; for data {volume}"
        case "folder" | "file" if found.reason and not paths.directory:
            return f"{source} can't be delivered as a Config: {found.reason}", volume
        case _:
            return None


def clean(value: object) -> str:
    """Return an absolute path without a slash at its end."""
    text = str(value or "")
    return posixpath.normpath(text) if text.startswith("/") and ".." not in text else text


_READ: Final = 0o444
_SECRETS: Final = "/run/secrets"
#: The word before the name of another container in ``volumes_from``.
_CONTAINER: Final = "container"
#: Options of a tmpfs that every tmpfs of trimtab has.
_USUAL_OPTIONS: Final = frozenset({"noexec", "nosuid", "nodev", "rw", ""})


#: The mounts that services of a project take from others, in all.
INHERITED_MAX: Final = 10_000
#: A mount of a service, with its place in the service.
VolumeEntry = tuple[Tree, TreePath]


class MountPlan:
    """The mounts of all services of a project: who writes which volume, and the paths of the project."""

    def __init__(self, scope: TranslationScope) -> None:
        self.scope = scope
        self.paths = ProjectPaths(scope)
        self._writers: dict[str, int] = {}
        #: The volumes and binds of each service, with those of ``volumes_from``.
        self._entries: dict[str, tuple[VolumeEntry, ...]] = {}
        self._inherited = 0
        for name, service in scope.services.items():
            tree = mapping(service)
            containers = max(1, replicas_of(tree)) + len(items(tree.get("pre_start")))
            for volume in {_volume_of(name, terms) for terms, _ in self.entries(name)} - {""}:
                self._writers[volume] = self._writers.get(volume, 0) + containers

    def entries(self, service: str) -> tuple[VolumeEntry, ...]:
        """Return the volumes and binds of a service: its own, and those that it takes from others.

        Services don't take mounts in a circle: they would depend on one another in a circle. Of too many
        mounts, the further ones are left out, and services that take mounts have a problem.
        """
        pending = [service]
        while pending:
            sources = _sources(mapping(self.scope.services.get(pending[-1])))
            if unread := [name for name, _ in sources if name not in self._entries]:
                pending += unread
            else:
                name = pending.pop()
                self._entries.setdefault(name, self._read(name))
        return self._entries[service]

    def _read(self, service: str) -> tuple[VolumeEntry, ...]:
        """Return the entries of a service; those of the services in ``volumes_from`` are known."""
        tree = mapping(self.scope.services.get(service))
        listed = enumerate(items(tree.get("volumes")))
        own: list[VolumeEntry] = [(mapping(each), ("volumes", index)) for index, each in listed]
        taken = _targets(tree, own)
        found: dict[str, VolumeEntry] = {}
        for index, (name, mode) in enumerate(_sources(tree)):
            for terms, _ in self._entries[name] if self.is_small else ():
                target = clean(terms.get("target"))
                if target not in taken and terms.get("type") in ("volume", "bind"):
                    found[target] = (_inherited(name, terms, mode), ("volumes_from", index))
            self._inherited += len(self._entries[name])
        return (*found.values(), *own)

    @property
    def is_small(self) -> bool:
        """False once services take too many mounts from each other."""
        return self._inherited <= INHERITED_MAX

    def is_shared(self, volume: str) -> bool:
        """Return True if several containers write to a volume."""
        return self._writers.get(volume, 0) > 1


def _sources(service: Tree) -> list[tuple[str, str]]:
    """Return the services in ``volumes_from``, each with its mode; '' for another container."""
    listed = (text.partition(":") for text in texts(service.get("volumes_from")))
    return [("" if name == _CONTAINER else name, mode) for name, _, mode in listed]


def _targets(service: Tree, own: list[VolumeEntry]) -> set[str]:
    """Return the paths where a service itself mounts something."""
    tmpfs = {clean(entry.partition(":")[0]) for entry in texts(service.get("tmpfs"))}
    files = {
        _file_target(kind, _file_terms(each))
        for kind in ("config", "secret")
        for each in items(service.get(f"{kind}s"))
    }
    return {clean(terms.get("target")) for terms, _ in own} | tmpfs | files


def _inherited(service: str, terms: Tree, mode: str) -> Tree:
    """Return a mount of a service as another one has it that takes the mounts."""
    found: dict[str, object] = {**terms, "read_only": bool(terms.get("read_only")) or mode == "ro"}
    if terms.get("type") == "volume":
        # The engine copies no files of the other image into it.
        found["volume"] = {**mapping(terms.get("volume")), "nocopy": True}
        found["source"] = terms.get("source") or _anonymous(service, terms)
    return found


def _anonymous(service: str, terms: Tree) -> str:
    """Return the name that a volume without a name gets; no written name has a slash."""
    return f"{service}-{clean(terms.get('target'))}"


def _volume_of(service: str, terms: Tree) -> str:
    """Return the volume that a service writes by a mount; '' for other mounts."""
    if terms.get("type") != "volume" or terms.get("read_only"):
        return ""
    return str(terms.get("source") or _anonymous(service, terms))


def put_mounts(work: Workload, plan: MountPlan) -> None:
    """Translate all mounts of a service."""
    for terms, origin in plan.entries(work.name):
        _put_volume(work, plan, terms, origin)
    for index, text in enumerate(texts(work.tree.get("volumes_from"))):
        _judge_source(work, plan, text, ("volumes_from", index))
    for index, entry in enumerate(texts(work.tree.get("tmpfs"))):
        _put_tmpfs(work, entry, ("tmpfs", index))
    for index, each in enumerate(items(work.tree.get("configs"))):
        _put_file(work, "config", _file_terms(each), ("configs", index))
    for index, each in enumerate(items(work.tree.get("secrets"))):
        _put_file(work, "secret", _file_terms(each), ("secrets", index))
    mounts = [mapping(each) for each in items(work.draft.spec.get("mounts"))]
    is_shared = any(each.get("shared") or plan.paths.is_written_by(each) for each in mounts)
    written = mapping(work.draft.spec.get("rollout"))
    if is_shared and not work.is_job and "order" not in written and replicas_of(work.tree) == 1:
        # Others share the volume, or it is a folder. Nothing says that two containers of this service can.
        work.draft.put("spec.rollout.order", "StopFirst", ("volumes",))


def _judge_source(work: Workload, plan: MountPlan, text: str, origin: TreePath) -> None:
    """Refuse mounts of other containers, and announce what isn't taken from a service."""
    name, _, mode = text.partition(":")
    if name == _CONTAINER:
        message = (
            f"volumes_from {text} is not supported: a project shares with its own services alone"
        )
        work.refuse(origin, message, "name each volume under volumes")
    elif mode not in ("", "ro", "rw"):
        message = f"volumes_from {text} has the mode {mode}"
        work.refuse(origin, message, f"write {name}, {name}:ro or {name}:rw")
    elif not plan.is_small:
        message = f"the services take more than {INHERITED_MAX} mounts from each other"
        work.refuse(origin, message, "name each volume under volumes")
    else:
        message = f"volumes that the image of {name} declares are not taken along"
        remedy = f"name them under volumes of {name}, if the image has some"
        work.warn(origin, message, remedy)


def _file_terms(value: object) -> Tree:
    return {"source": value} if isinstance(value, str) else mapping(value)


def _put_volume(work: Workload, plan: MountPlan, terms: Tree, origin: TreePath) -> None:
    match terms.get("type"):
        case "volume":
            _put_named(work, plan, terms, origin)
        case "bind":
            put_bind(work, plan.paths, terms, origin)
        case "tmpfs" if terms.get("read_only"):
            message = f"the tmpfs at {terms.get('target')} can't be read-only"
            work.refuse(origin, message, "remove read_only")
        case "tmpfs":
            options = mapping(terms.get("tmpfs"))
            entry = {"type": "tmpfs", "target": clean(terms.get("target"))}
            size, mode = options.get("size"), options.get("mode")
            entry["size"] = _size(work, size)
            if mode is not None:
                entry["mode"] = f"{_octal(mode) & 0o1777:04o}"
            work.draft.add("mounts", entry, origin)
        case other:
            message = f"a mount of type {other} is not supported"
            work.refuse(origin, message, "write volume, bind or tmpfs")


def _put_named(work: Workload, plan: MountPlan, terms: Tree, origin: TreePath) -> None:
    target = clean(terms.get("target"))
    source = str(terms.get("source") or _anonymous(work.name, terms))
    entry: dict[str, object] = {"type": "volume", "source": dns_name(source), "target": target}
    if not terms.get("source"):
        if replicas_of(work.tree) > 1:
            message = f"each replica would need a volume of its own at {target}"
            work.refuse(origin, message, "name the volume, or write a tmpfs")
            return
        name = dns_name(source)
        work.scope.drafts.append(Draft("Volume", name, (*work.draft.origin, *origin)))
    if terms.get("read_only"):
        entry["readOnly"] = True
    elif plan.is_shared(source):
        entry["shared"] = True
    options = mapping(terms.get("volume"))
    if options.get("nocopy"):
        entry["noCopy"] = True
    if options.get("subpath"):
        entry["subpath"] = options["subpath"]
    work.draft.add("mounts", entry, origin)


def _put_tmpfs(work: Workload, entry: str, origin: TreePath) -> None:
    target, _, options = entry.partition(":")
    mount: dict[str, object] = {"type": "tmpfs", "target": clean(target)}
    size: object = None
    for option in options.split(","):
        name, _, value = option.partition("=")
        if name == "size":
            size = value
        elif name == "mode":
            mount["mode"] = f"{_octal(value) & 0o1777:04o}"
        elif name == "exec":
            mount["exec"] = True
        elif option not in _USUAL_OPTIONS:
            work.refuse(origin, f"tmpfs option {name} is not supported", "write size, mode or exec")
            return
    mount["size"] = _size(work, size)
    work.draft.add("mounts", mount, origin)


def _size(work: Workload, size: object) -> str:
    is_unlimited = size in (None, "", "0", 0)
    return byte_text(work.scope.settings.tmpfs if is_unlimited else size) or str(size)


def _put_file(work: Workload, kind: str, terms: Tree, origin: TreePath) -> None:
    """Translate a mount of a config or a secret."""
    source = str(terms.get("source") or "")
    declared = mapping(mapping(work.scope.project.tree.get(f"{kind}s")).get(source))
    name, key = file_of(source, declared)
    mount: dict[str, object] = {
        "type": kind,
        "source": dns_name(name),
        "target": _file_target(kind, terms),
        "key": key,
    }
    for field in ("uid", "gid"):
        value = terms.get(field)
        if value not in (None, ""):
            number = whole_number(value)
            mount[field] = value if number is None else number
    mode = terms.get("mode")
    if mode is not None:
        mount["mode"] = f"{(_octal(mode) & 0o555) or _READ:04o}"
    elif kind == "config":
        mount["mode"] = PLAIN
    work.draft.add("mounts", mount, origin)


def _file_target(kind: str, terms: Tree) -> str:
    target = str(terms.get("target") or "")
    if not target.startswith("/"):
        folder = _SECRETS if kind == "secret" else "/"
        target = posixpath.join(folder, target or str(terms.get("source") or ""))
    return clean(target)


def file_of(source: str, declared: Tree) -> tuple[str, str]:
    """Return the name of the resource with a config or a secret, and of its file there.

    In a resource that a document declares, the file has the name of the config or secret, too.
    """
    if declared.get("external"):
        name = str(declared.get("name") or source)
        return name, name
    return source, source


def _octal(value: object) -> int:
    """Return the mode for a number, or for octal digits."""
    if isinstance(value, int):
        return value
    text = str(value).removeprefix("0o")
    return int(text, 8) if text and set(text) <= set("01234567") else _READ
