"""Mounts of a create's body, from the three places of the API.

Only the grammar is checked here: kinds, options, clean paths. ``core.rules.mounts`` decides whether
a source is allowed.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from controller.core.engine_api.field_reader import (
    FindingCollector,
    Values,
    is_one_line,
    read_object,
)
from controller.core.engine_api.field_tables import (
    BIND_OPTIONS,
    DRIVER_CONFIG,
    FILE_OPTIONS,
    MOUNT,
    TMPFS_OPTIONS,
    VOLUME_OPTIONS,
)
from controller.core.engine_api.grammar import is_clean
from controller.core.engine_api.requests import (
    VOLUME_SIZE,
    FileRequest,
    MountRequest,
    RemoteVolume,
    read_remote,
)
from controller.core.files.content import is_content_id
from controller.model.delivery import FILE_KINDS, ID_MAX, is_key
from controller.model.host_paths import is_below
from controller.model.names import SERVICE_NAME_MAX, is_dns_label
from controller.model.quantities import parse_size

#: The options of a volume: names and values.
VolumeOptions = Iterable[tuple[str, str]]
#: Up to the limit of file systems. The policy limits the names of new volumes further.
VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", re.ASCII)
#: Targets that are, or contain, files of the kernel.
_KERNEL_TARGETS = ("/proc", "/sys", "/dev")
#: Folders from which programs are loaded, before their own code runs.
_LOADER_TARGETS = (
    *("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr/libexec"),
    *("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32"),
    *("/usr/local/bin", "/usr/local/sbin", "/usr/local/lib", "/usr/local/libexec"),
)
_MODE = re.compile(r"[0-7]{3,5}", re.ASCII)
_MODE_MAX = 0o1777
#: Set on every tmpfs anyway, so a request for them changes nothing.
TMPFS_FLAGS = ("nosuid", "nodev")


def mounts(host: Values, findings: FindingCollector) -> tuple[MountRequest, ...]:
    """Return every mount, in the order Binds, Mounts, Tmpfs; no target twice."""
    parsed = [
        *(_bind(text, index, findings) for index, text in enumerate(host.texts("Binds"))),
        *(_mount(item, index, findings) for index, item in enumerate(host.items("Mounts"))),
        *(_tmpfs(target, str(o), findings) for target, o in host.members("Tmpfs").items()),
    ]
    result = tuple(mount for mount in parsed if mount is not None)
    targets: set[str] = set()
    for mount in result:
        _check_target(mount, findings)
        if mount.target in targets:
            findings.add("mount.duplicate", mount.path, f"{mount.target} is mounted twice")
        targets.add(mount.target)
    return result


def is_plain_volume(driver: str, options: VolumeOptions) -> bool:
    """Return True if a volume is a folder of the engine: local, and without options except its size.

    Any other option can make the volume any path of the host.
    """
    return driver == "local" and all(name == VOLUME_SIZE for name, _ in options)


def is_known_volume(driver: str, options: VolumeOptions) -> bool:
    """Return True if a volume is plain, or a folder of another machine in the gate's form.

    The policy decides whether the folder is granted.
    """
    listed = tuple(options)
    if is_plain_volume(driver, listed):
        return True
    return driver == "local" and isinstance(read_remote(dict(listed)), RemoteVolume)


def size_of_volume(options: VolumeOptions) -> int | None:
    """Return the largest size of a plain volume in bytes; None without a size.

    The engine ignores a size of 0, and refuses one that is no size.
    """
    return parse_size(dict(options).get(VOLUME_SIZE, "")) or None


def _bind(text: str, index: int, findings: FindingCollector) -> MountRequest | None:
    path = f"HostConfig.Binds[{index}]"
    parts = text.split(":")
    if len(parts) == 1 and text.startswith("/"):
        return MountRequest("volume", "", text, form="binds", path=path)  # a volume without a name
    options = parts[2].split(",") if len(parts) == 3 else []
    if len(parts) not in {2, 3} or not parts[0]:
        reason = f"{text!r} isn't SOURCE:TARGET or SOURCE:TARGET:ro"
        findings.add("mount.invalid", path, reason, "name a source and a target")
        return None
    if not set(options) <= {"ro", "rw"} or len(set(options)) > 1 or parts[2:] == [""]:
        reason = f"{parts[2]!r}: the options are ro or rw"
        findings.add("mount.options", path, reason, "relabelling and propagation aren't for here")
        return None
    kind = "bind" if parts[0].startswith("/") else "volume"
    access = options[0] if options else ""
    mount = MountRequest(
        kind, parts[0], parts[1], access == "ro", form="binds", path=path, access=access
    )
    _check_source(mount, findings)
    return mount


def _mount(item: object, index: int, findings: FindingCollector) -> MountRequest | None:
    path = f"HostConfig.Mounts[{index}]"
    read = read_object(MOUNT, item, path, findings)
    kind = read.text("Type")
    if kind not in {"bind", "volume", "tmpfs", *FILE_KINDS}:
        reason = f"a mount of type {kind!r}"
        findings.add("mount.type", f"{path}.Type", reason, "write bind, volume or tmpfs")
        return None
    tables = {"Bind": BIND_OPTIONS, "Volume": VOLUME_OPTIONS, "Tmpfs": TMPFS_OPTIONS}
    options = {
        name.lower(): read_object(
            table, read.values.get(f"{name}Options"), f"{path}.{name}Options", findings
        )
        for name, table in tables.items()
    }
    for other, values in options.items():
        if other != kind and values.values:
            findings.add("mount.options", path, f"options of a {other} mount on a {kind} mount")
    if options["bind"].text("Propagation") not in {"", "rprivate"}:
        where = f"{path}.BindOptions.Propagation"
        findings.add("mount.propagation", where, "mounts would show outside", "leave it out")
    files = read_object(FILE_OPTIONS, read.values.get("Trimtab"), f"{path}.Trimtab", findings)
    if files.values and kind not in FILE_KINDS:
        findings.add("mount.options", f"{path}.Trimtab", f"files of a {kind} mount")
    mount = MountRequest(
        **read.attributes(MOUNT),
        **options["bind"].attributes(BIND_OPTIONS),
        **options["volume"].attributes(VOLUME_OPTIONS),
        **options["tmpfs"].attributes(TMPFS_OPTIONS),
        path=path,
        driver=_driver(options["volume"], f"{path}.VolumeOptions", findings),
        files=FileRequest(**files.attributes(FILE_OPTIONS)) if kind in FILE_KINDS else None,
    )
    _check_subpath(mount, findings)
    _check_mode(mount, findings)
    _check_source(mount, findings)
    return mount


def _driver(options: Values, path: str, findings: FindingCollector) -> str:
    path = f"{path}.DriverConfig"
    driver = read_object(DRIVER_CONFIG, options.values.get("DriverConfig"), path, findings)
    if driver.text("Name") not in {"", "local"}:
        reason = f"the volume driver {driver.text('Name')!r}"
        findings.add("volume.driver", f"{path}.Name", reason, "leave it out, or write local")
    return driver.text("Name")


def _check_subpath(mount: MountRequest, findings: FindingCollector) -> None:
    text = mount.subpath
    clean = posixpath.normpath(text) == text and not text.startswith(("/", ".."))
    if text and (not clean or not is_one_line(text)):
        where = f"{mount.path}.VolumeOptions.Subpath"
        findings.add("mount.subpath", where, f"{text!r} isn't a clean relative path")


def _check_mode(mount: MountRequest, findings: FindingCollector) -> None:
    if mount.mode is not None and not 0 <= mount.mode <= _MODE_MAX:
        findings.add("mount.options", f"{mount.path}.TmpfsOptions.Mode", "no permission bits")


def _tmpfs(target: str, options: str, findings: FindingCollector) -> MountRequest | None:
    path = f"HostConfig.Tmpfs.{target}"
    size, read_only, executable = 0, False, False
    mode: int | None = None
    for option in options.split(",") if options else ():
        name, _, value = option.partition("=")
        if name in {"ro", "rw"} and not value:
            read_only = name == "ro"
        elif name == "size" and (given := parse_size(value)):
            size = given
        elif name == "mode" and _MODE.fullmatch(value):
            mode = int(value, 8)
        elif option in {"exec", "noexec"}:
            executable = option == "exec"
        elif option not in TMPFS_FLAGS:
            reason = f"the option {option!r}"
            findings.add("mount.options", path, reason, "size, mode, ro and rw may be given")
    mount = MountRequest(
        *("tmpfs", "", target, read_only),
        form="tmpfs",
        path=path,
        size=size,
        mode=mode,
        executable=executable,
    )
    _check_mode(mount, findings)
    return mount


def _check_source(mount: MountRequest, findings: FindingCollector) -> None:
    if mount.type == "bind" and (not is_clean(mount.source) or "\\" in mount.source):
        reason = f"the source {mount.source!r} isn't a clean absolute path"
        remedy = "write it without .., double or trailing slashes"
        findings.add("mount.source", mount.path, reason, remedy)
    elif mount.type == "volume" and mount.source and not VOLUME_NAME.fullmatch(mount.source):
        findings.add("mount.source", mount.path, f"{mount.source!r} is no name of a volume")
    elif mount.type == "tmpfs" and mount.source:
        findings.add("mount.source", mount.path, "a tmpfs has no source")
    elif mount.files is not None:
        _check_files(mount, mount.files, findings)


def _check_files(mount: MountRequest, files: FileRequest, findings: FindingCollector) -> None:
    if not is_dns_label(mount.source, length=SERVICE_NAME_MAX):
        findings.add("mount.source", mount.path, f"{mount.source!r} is no name of a {mount.type}")
    if not is_content_id(files.content):
        findings.add("files.invalid", f"{mount.path}.Trimtab.Content", "not the id of a content")
    ids = 0 <= files.uid <= ID_MAX and 0 <= files.gid <= ID_MAX
    if not ids or not 0 <= files.mode <= 0o777:
        findings.add("files.invalid", f"{mount.path}.Trimtab", "not an owner, group and mode")
    chosen = (*files.keys, *((files.key,) if files.key else ()))
    if any(not is_key(name) for name in chosen) or len(set(chosen)) != len(chosen):
        findings.add(
            "files.invalid", f"{mount.path}.Trimtab", "not clean names of files, each once"
        )
    if files.key and (files.keys or files.stable):
        reason = "one file can't be several files, and can't change in place"
        findings.add("files.invalid", f"{mount.path}.Trimtab.Key", reason)
    if not mount.read_only:
        reason = f"a mount of type {mount.type} is read-only"
        findings.add("files.invalid", f"{mount.path}.ReadOnly", reason, "write true")


def _check_target(mount: MountRequest, findings: FindingCollector) -> None:
    target = mount.target
    if not is_clean(target) or target == "/" or ":" in target or "\\" in target:
        reason = f"the target {target!r} isn't a clean absolute path in the container"
        remedy = "write it without .., double or trailing slashes"
        findings.add("mount.target", mount.path, reason, remedy)
    elif any(is_below(target, folder) for folder in _KERNEL_TARGETS):
        reason = f"{target} would cover files of the kernel"
        findings.add("mount.target", mount.path, reason, "choose another target")
    elif target in {"/usr", "/usr/local"} or any(is_below(target, f) for f in _LOADER_TARGETS):
        reason = f"{target} would replace what programs are loaded from"
        findings.add("mount.target", mount.path, reason, "put it into the image")
    elif is_below(target, "/etc"):
        _check_etc(mount, findings)


_ENGINES = "is the engine's to write"
#: Names in /etc reserved for the image or the engine, with the reason. Any other file or folder
#: configures one program. The author of the mounts could start the program with other arguments
#: anyway.
_ETC_NEVER = (
    (
        "decides who may do what in the container",
        re.compile(
            r"passwd-?|shadow-?|group-?|gshadow-?|subuid-?|subgid-?|sudo.*|doas.*|pam\..*|security"
            r"|login\.defs|nsswitch\.conf|polkit-1|securetty|hosts\.(allow|deny|equiv)"
        ),
    ),
    (
        "decides what code runs in the container",
        re.compile(
            r"ld\.so(\..*)?|ld-musl-.*|alternatives|environment(\.d)?|profile(\.d)?|bash\.bashrc|bashrc"
            r"|zsh(env|rc|profile)?|init(\.d|tab)?|rc([0-9S]?\.d|\.local)|systemd|cron.*|anacrontab"
        ),
    ),
    (_ENGINES, re.compile(r"hosts|hostname|resolv\.conf|mtab")),
)
#: Further names in /etc, of the image's system: covered read-only at most. Any other name is an
#: application's, whose files may lie in a volume or a writable folder (``/etc/letsencrypt``).
_ETC_OF_SYSTEM = re.compile(
    r"ssl|ssh|ca-certificates(\.conf)?|pki|crypto-policies|krb5.*|gss|selinux|apparmor.*|audit"
    r"|apt|dpkg|apk|yum.*|dnf|rpm|pacman.*|kernel|udev|modprobe\.d|modules.*|sysctl.*|binfmt\.d"
    r"|fstab|crypttab|network|networks|netplan|protocols|services|rpc|ethertypes|host\.conf|gai\.conf"
    r"|issue.*|motd.*|machine-id|os-release|debian_version|.*-release|default|skel|shells|inputrc"
    r"|localtime|timezone|adjtime|locale.*|terminfo|logrotate.*|dbus-1|xdg|tmpfiles\.d"
    r"|bash_completion.*|iproute2|python[0-9.]*|perl"
)


def _check_etc(mount: MountRequest, findings: FindingCollector) -> None:
    name = mount.target.removeprefix("/etc").lstrip("/").partition("/")[0]
    for why, names in _ETC_NEVER:
        if names.fullmatch(name):
            top = f"/etc/{name}"
            where = f"{mount.target} lies under {top}, which" if mount.target != top else top
            reason = f"{where} {why}"
            remedy = "remove the mount" if why == _ENGINES else "put the file into the image"
            findings.add("mount.target", mount.path, reason, remedy)
            return
    if not name:
        reason, remedy = "/etc as a whole would be covered", "mount a file or folder below it"
        findings.add("mount.target", mount.path, reason, remedy)
    elif not mount.read_only and _ETC_OF_SYSTEM.fullmatch(name):
        reason = f"{mount.target} could be changed: /etc/{name} is of the image's system"
        remedy = "make the mount read-only, or choose a target outside /etc"
        findings.add("mount.target", mount.path, reason, remedy)
