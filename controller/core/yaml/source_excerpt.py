"""One line of a document with a mark below the place of a problem, for the author's terminal.

A line can hold a password. Values of fields that can carry secrets are replaced by asterisks. The
structure (quotes, colons, brackets) stays, so the mark is in the right column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from controller.core.yaml.documents import Document, YamlPath, compose_all, tree
from controller.core.yaml.loading import resolve_plain

#: Fields of a Service, a Network and a Volume that carry no secrets.
SHOWN = frozenset(
    (
        *("image", "pullPolicy", "state", "suspend", "replicas", "workingDir", "user", "init"),
        *("stopSignal", "stopGracePeriod", "ports", "mounts", "network", "resources", "security"),
        *("restart", "rollout", "dependsOn", "logs", "internal", "retain", "chart", "volumes"),
        *("depends_on", "mem_limit", "cpus", "networks", "network_mode", "container_name"),
        "expose",
    )
)
#: The fields of a health check that carry no secrets. The others are commands, or paths with a query.
_HEALTHCHECK_FIELDS = frozenset(("interval", "timeout", "retries", "startPeriod"))
_TOP = frozenset(("apiVersion", "kind", "metadata", "version"))
#: A longer number is possibly a password. A port is shorter.
_DIGITS_MAX = 5
_LINE = re.compile(r"""(?P<head> *+(?:- *+)*+["']?(?P<key>[\w.-]+)["']?\s*:)(?P<rest>.*)""")
_LETTER = re.compile(r"[^\W_]")


def excerpt(text: str, line: int, column: int, *, width: int) -> tuple[str, ...]:
    """Return the numbered line and a line with the mark; () if the text has no such line.

    *width* limits both. A long line is cut to the part around the column.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    if not 1 <= line <= len(lines):
        return ()
    shown, at = _mask_line(text, lines, line), max(0, column - 1)
    gutter = f"  {line:>4} | "
    room = max(20, width - len(gutter) - 2)
    start = 0 if len(shown) <= room else max(0, min(at - room // 2, len(shown) - room))
    part = "".join(map(_printable, shown[start : start + room]))
    cut, more = "…" if start else "", "…" if start + room < len(shown) else ""
    blank = " " * (len(gutter) - 2) + "| "
    return f"{gutter}{cut}{part}{more}", f"{blank}{' ' * (len(cut) + at - start)}^"


def _printable(character: str) -> str:
    if character == "\t":
        return " "
    return character if character.isprintable() else "?"


def _mask_line(text: str, lines: list[str], line: int) -> str:
    document = _document(text, line)
    if document is None or not document.readable:
        return _mask_unparsed(lines[line - 1])
    shown = lines[line - 1]
    for start, end in _spans(document, line):
        shown = shown[:start] + _LETTER.sub("*", shown[start:end]) + shown[end:]
    return shown


def _document(text: str, line: int) -> Document | None:
    around = [d for d in compose_all(text, "") if d.line <= line <= d.line + d.text.count("\n")]
    return around[-1] if around else None


def _mask_unparsed(line: str) -> str:
    """Mask a line that cannot be parsed: hide the value, unless the key carries no secrets."""
    match = _LINE.match(line)
    if match is None:
        return _LETTER.sub("*", line)
    if match["key"] in SHOWN | _TOP | {"name", "namespace", "owner", "spec"}:
        return line if "{" not in match["rest"] else match["head"] + _mask(match["rest"])
    return match["head"] + _mask(match["rest"])


def _mask(text: str) -> str:
    return _LETTER.sub("*", text)


def _spans(document: Document, line: int) -> Iterator[tuple[int, int]]:
    """Yield the columns, from 0, of the masked parts of a line of the file."""
    root = tree(document.text)
    if root is None:
        return
    row = line - document.line
    for path, node in _scalars(root, ()):
        first, last = node.start_mark, node.end_mark
        if first.line <= row <= last.line and _is_hidden(path, node):
            start = first.column if first.line == row else 0
            yield start, last.column if last.line == row else 10**9


def _is_hidden(path: YamlPath, node: yaml.ScalarNode) -> bool:
    if not node.style and not isinstance(resolve_plain(str(node.value)), str):
        # A short number, a boolean or nothing. The message repeats such values, too.
        return len(node.value) > _DIGITS_MAX and not _is_shown(path)
    return not _is_shown(path)


def _is_shown(path: YamlPath) -> bool:
    match path:
        case ("spec", "healthcheck", str(field)):
            return field in _HEALTHCHECK_FIELDS
        case ("spec", field, *_):
            return field in SHOWN
        case (top, *_):
            return top in _TOP
        case _:
            return False


def _scalars(node: yaml.Node, path: YamlPath) -> Iterator[tuple[YamlPath, yaml.ScalarNode]]:
    """Yield path and node of each scalar value below *node*."""
    if isinstance(node, yaml.ScalarNode):
        yield path, node
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _scalars(item, (*path, index))
    else:
        for name, value in node.value:
            key = str(name.value) if isinstance(name, yaml.ScalarNode) else ""
            yield from _scalars(value, (*path, key))
