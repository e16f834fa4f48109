"""The short form of a mount, ``SOURCE:TARGET:OPTIONS``, and of ports."""

from __future__ import annotations

from controller.core.compose.text.nodes import ComposeNode, NodePath, fail

#: How mounts below a bind appear on the host, and the other way.
PROPAGATIONS = frozenset({"rprivate", "private", "rshared", "shared", "rslave", "slave"})
_REMEDY = "write SOURCE:TARGET or SOURCE:TARGET:ro, or use the long form"

MountTree = dict[str, object]


def parse_volume(node: ComposeNode, spec: str, path: NodePath = ()) -> dict[str, object]:
    """Return the long form of a mount as plain values.

    Raises:
        Fault: an empty part, or too many parts.
    """
    if not spec:
        fail(node, "compose.mount", "the mount is empty", _REMEDY, path)
    if len(spec) <= 2:
        return {"type": "volume", "target": spec}
    parts = _parts(spec)
    if not all(parts):
        fail(node, "compose.mount", f"empty part between colons in {spec!r}", _REMEDY, path)
    if len(parts) > 3:
        fail(node, "compose.mount", f"too many colons in {spec!r}", _REMEDY, path)
    source = parts[0] if len(parts) > 1 else ""
    mount: dict[str, object] = {"type": "volume"}
    if source:
        mount["source"] = source
    mount["target"] = parts[min(1, len(parts) - 1)]
    bind: dict[str, object] = {}
    _read_options(parts[2] if len(parts) > 2 else "", mount, bind)
    if is_path(source):
        mount["type"] = "bind"
        mount["bind"] = {**bind, "create_host_path": True}
    else:
        mount.setdefault("volume", {})
        if bind:
            mount["bind"] = bind
    return mount


def _read_options(text: str, mount: MountTree, bind: dict[str, object]) -> None:
    for option in text.split(","):
        if option == "ro":
            mount["read_only"] = True
        elif option == "rw":
            mount.pop("read_only", None)
        elif option == "nocopy":
            mount["volume"] = {"nocopy": True}
        elif option in PROPAGATIONS:
            bind["propagation"] = option
        elif option in {"z", "Z"}:
            bind["selinux"] = option


def _parts(spec: str) -> list[str]:
    """Return the parts between colons; the colon of a Windows drive separates no parts."""
    parts, part = [], ""
    for letter in spec:
        if letter == ":" and not (len(part) == 1 and part.isalpha()):
            parts.append(part)
            part = ""
        else:
            part += letter
    return [*parts, part]


def is_path(source: str) -> bool:
    """Return True if the source of a mount is a path, not the name of a volume."""
    if not source:
        return False
    return (
        source[0] in "./~"
        or source.startswith("\\\\")
        or (len(source) > 1 and source[1] == ":" and source[0].isalpha())
    )
