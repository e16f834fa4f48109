"""Converters of attributes: from the long form to the values that Compose prints.

A converter returns None for a value that Compose leaves out: an empty string, zero, false, an empty
list. The references are the ``DecodeMapstructure`` functions of compose-go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from controller.core.compose.forms import values
from controller.core.compose.text import nodes
from controller.core.compose.text.interpolation import to_boolean, to_integer, to_number
from controller.core.encoding.quoting import kind_of


@dataclass(frozen=True, slots=True)
class Target:
    """Where a conversion is: the path for messages, and the report."""

    path: nodes.NodePath
    report: nodes.ReadingReport

    def below(self, part: str | int) -> Target:
        """Return the target of a member or an item."""
        return Target((*self.path, part), self.report)


Convert = Callable[[nodes.ComposeNode, Target], nodes.ComposeNode | None]


def wrong(node: nodes.ComposeNode, expected: str, target: Target) -> nodes.ComposeNode:
    """Raise the problem of a value of the wrong kind.

    Raises:
        Fault: always.
    """
    message = f"must be {expected}, not {kind_of(node.value)}"
    nodes.fail(node, "compose.type", message, f"write {expected}", target.path)


def always(convert: Convert) -> Convert:
    """Return a converter that also keeps zero, false and the empty string."""

    def keep(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
        if node.value is None:
            return None
        converted = convert(node, target)
        if converted is not None:
            return converted
        return node.at(_EMPTY.get(convert, ""))

    return keep


def text(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
    """Convert a string; Compose turns an integer into a string."""
    value = node.value
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return node
    if isinstance(value, int) and not isinstance(value, bool):
        return node.at(str(value))
    return wrong(node, "a string", target)


def flag(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
    """Convert a boolean."""
    value = node.value
    if isinstance(value, str):
        value = to_boolean(node, value, target.path)
    if value is not None and not isinstance(value, bool):
        return wrong(node, "true or false", target)
    return node.at(value) if value else None


def integer(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
    """Convert an integer; Compose cuts fractions off."""
    value = node.value
    if isinstance(value, str):
        value = to_integer(node, value, target.path)
    if value is None or value == 0:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return wrong(node, "an integer", target)
    if isinstance(value, float) and not value.is_integer():
        return wrong(node, "an integer without fraction", target)
    return node.at(int(value))


def natural(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
    """Convert an integer that is not negative; Compose takes no string here.

    At paths of ``interpolation.CASTS``, a string is an integer already.
    """
    if isinstance(node.value, str):
        return wrong(node, "an integer", target)
    converted = integer(node, target)
    if converted is not None and isinstance(converted.value, int) and converted.value < 0:
        nodes.fail(node, "compose.value", "must not be negative", "write 0 or more", target.path)
    return converted


def fraction(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
    """Convert a number of single precision."""
    value = node.value
    if isinstance(value, str):
        value = to_number(node, value, target.path)
    if value is None or value == 0:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return wrong(node, "a number", target)
    return node.at(values.single_precision(float(value)))


def size(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
    """Convert a size to a string with the number of bytes."""
    value = node.value
    if isinstance(value, str):
        value = values.parse_size(node, value, target.path)
    if value is None or value == 0:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        return wrong(node, "a size, such as 64m", target)
    return node.at(str(value))


#: The values that Compose leaves out, where a pointer would keep them.
_EMPTY: dict[Convert, nodes.NodeValue] = {integer: 0, natural: 0, flag: False}


def duration(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
    """Convert a duration; zero is kept."""
    if node.value is None:
        return None
    value = nodes.scalar_text(node.value)
    return node.at(values.duration_text(values.parse_duration(node, value, target.path)))


def nonzero_duration(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
    """Convert a duration; zero is left out."""
    converted = duration(node, target)
    return None if converted is None or converted.value == "0s" else converted


def texts(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
    """Convert a list of strings, or a single string; numbers become strings."""
    if node.value is None:
        return None
    if isinstance(node.value, str):
        return node.at([node])
    if not isinstance(node.value, list):
        return wrong(node, "a list", target)
    items = [
        item.at(nodes.scalar_text(item.value))
        if isinstance(item.value, str | int | float)
        else wrong(item, "a string", target.below(number))
        for number, item in enumerate(node.value)
    ]
    return node.at(list(items)) if items else None


def command(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode:
    """Convert a command line, or a list of words; null stays null."""
    value = node.value
    if isinstance(value, str):
        words, cut = values.split_command(node, value, target.path)
        if cut:
            message = "Compose drops the text from the first ; & | < or > outside quotes"
            remedy = 'write a list: ["sh", "-c", "…"]'
            target.report.warn(node, "compose.command-cut", message, remedy, target.path)
        return node.at([node.at(word) for word in words])
    if isinstance(value, list):
        return texts(node, target) or node.at([])
    return node if value is None else wrong(node, "a string or a list", target)


def health_test(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
    """Convert the test of a health check; a string is a command for the shell."""
    if isinstance(node.value, str):
        return node.at([node.at("CMD-SHELL"), node])
    return texts(node, target)


def _pairs(node: nodes.ComposeNode, target: Target) -> dict[str, nodes.ComposeNode]:
    """Return the members of a mapping, or of a list ``KEY=VALUE``; null is no value."""
    if isinstance(node.value, dict):
        return node.value
    if not isinstance(node.value, list):
        wrong(node, "a mapping or a list", target)
    pairs: dict[str, nodes.ComposeNode] = {}
    for item in node.items:
        key, equals, value = nodes.scalar_text(item.value).partition("=")
        pairs[key] = item.at(value if equals else None)
    return pairs


def _scalars(absent: str | None) -> Convert:
    def convert(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
        if node.value is None:
            return None
        members: dict[str, nodes.ComposeNode] = {}
        for key, member in _pairs(node, target).items():
            if isinstance(member.value, dict | list):
                wrong(member, "a string", target.below(key))
            value = absent if member.value is None else nodes.scalar_text(member.value)
            members[key] = member.at(value)
        return node.at(members) if members else None

    return convert


#: Strings by name; a name without a value has an empty string.
mapping = _scalars("")
#: Variables by name; a name without a value has null.
environment = _scalars(None)


def options(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
    """Convert strings and integers by name; Compose accepts no other values here."""
    for key, member in node.members.items():
        if isinstance(member.value, bool | float):
            wrong(member, "a string or an integer", target.below(key))
    return mapping(node, target)


def hosts(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
    """Convert extra hosts to a sorted list ``HOST=ADDRESS``."""
    if node.value is None:
        return None
    found: list[tuple[str, nodes.ComposeNode]] = []
    for host, value in _host_addresses(node, target):
        if not host or ":" in host or "=" in host:
            nodes.fail(
                value, "compose.value", f"invalid host {host!r}", "write HOST=ADDRESS", target.path
            )
        address = nodes.scalar_text(value.value) if value.value is not None else ""
        if len(address) > 2 and address.startswith("[") and address.endswith("]"):
            address = address[1:-1]
        found.append((f"{host}={address}", value))
    items = [value.at(line) for line, value in sorted(found, key=lambda pair: pair[0])]
    return node.at(items) if items else None


def _host_addresses(node: nodes.ComposeNode, target: Target) -> list[tuple[str, nodes.ComposeNode]]:
    if isinstance(node.value, dict):
        pairs = node.value.items()
        return [(host, item) for host, value in pairs for item in (value.items or [value])]
    found = []
    for item in node.items:
        line = nodes.scalar_text(item.value)
        separator = "=" if "=" in line else ":"
        host, cut, addresses = line.partition(separator)
        if not cut:
            message = f"{line!r} has no address"
            nodes.fail(item, "compose.value", message, "write HOST=ADDRESS", target.path)
        found += [(host, item.at(address)) for address in addresses.split(",")]
    return found


def ulimit(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode:
    """Convert a limit: a number, or a mapping with soft and hard."""
    if isinstance(node.value, dict):
        members = {
            name: converted
            for name in ("soft", "hard")
            if (member := node.value.get(name)) is not None
            and (converted := integer(member, target.below(name))) is not None
        }
        return node.at(members)
    return integer(node, target) or node.at({})


def device_count(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
    """Convert a number of devices; ``all`` is -1."""
    if isinstance(node.value, str) and node.value.lower() == "all":
        return node.at(-1)
    return integer(node, target)


def ssh_keys(node: nodes.ComposeNode, _target: Target) -> nodes.ComposeNode | None:
    """Convert SSH keys to a list of names, or of ``NAME: PATH``."""
    items = [
        member.at(name) if member.value is None else member.at(f"{name}: {member.value}")
        for name, member in sorted(node.members.items())
    ]
    return node.at(items) if items else None


@contextmanager
def reported(target: Target) -> Iterator[None]:
    """Report a problem of the block, and go on after the block."""
    try:
        yield
    except nodes.Fault as fault:
        target.report.add(fault.problem)


def list_of(convert: Convert) -> Convert:
    """Return a converter of lists; an item with a problem is reported and left out."""

    def convert_list(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
        if node.value is None:
            return None
        if not isinstance(node.value, list):
            return wrong(node, "a list", target)
        found: list[nodes.ComposeNode] = []
        for number, item in enumerate(node.value):
            with reported(target):
                found.append(convert(item, target.below(number)) or item.at(None))
        return node.at(list(found)) if found else None

    return convert_list


def mapping_of(convert: Convert) -> Convert:
    """Return a converter of mappings with free keys; a value of null stays null."""

    def convert_mapping(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
        members: dict[str, nodes.ComposeNode] = {}
        for name, member in node.members.items():
            with reported(target):
                members[name] = convert(member, target.below(name)) or member.at(None)
        return node.at(members) if members else None

    return convert_mapping


def structure(
    fields: Mapping[str, Convert],
    *,
    renamed: Mapping[str, str] | None = None,
    defaults: Mapping[str, str | int | None] | None = None,
) -> Convert:
    """Return a converter of mappings with known keys; others are left out.

    A value of null stays null. The result is kept also without members. *defaults* are the values
    of members that are always present, by their names in the result.
    """

    def convert_structure(node: nodes.ComposeNode, target: Target) -> nodes.ComposeNode | None:
        if node.value is None:
            return None
        if not isinstance(node.value, dict):
            return wrong(node, "a mapping", target)
        members: dict[str, nodes.ComposeNode] = {}
        for name, member in node.value.items():
            if name in fields:
                with reported(target):
                    if (converted := fields[name](member, target.below(name))) is not None:
                        members[(renamed or {}).get(name, name)] = converted
        for name, value in (defaults or {}).items():
            members.setdefault(name, node.at(value))
        return node.at(members)

    return convert_structure
