"""The file of settings: its text to values, or its mistakes with their places; and a value into the text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import yaml

from controller.core.yaml.documents import Document, compose, tree
from controller.core.yaml.loading import ERRORS, resolve_plain
from controller.model.errors import SettingsInvalid
from controller.model.settings import BY_NAME, SettingKey, SettingsRead, read_settings, values_of

_SHOWN_MAX = 10
_REMEDY = "correct the file; docs/settings.md has every key"
_PLAIN = re.compile(r"[\w/][\w./:@=+-]*", re.ASCII)


def load_settings(text: str, file: str) -> SettingsRead:
    """Return the settings of a file's text; an empty text has the defaults.

    Raises:
        SettingsInvalid: the text has mistakes. The message has a line ``FILE:LINE: what (remedy)`` for
            each.
    """
    documents, problems = compose(text, file)
    lines = [f"{each.file}:{each.line}: {each.message} ({each.remedy})" for each in problems]
    if not lines and len(documents) > 1:
        lines = [f"{file}:{documents[1].place.line}: a second document (write all keys into one)"]
    if not lines and documents:
        read = read_settings(documents[0].value)
        lines = [
            f"{file}:{_line(documents[0], fault.path)}: {fault.message} ({fault.remedy})"
            for fault in read.faults
        ]
    if lines:
        raise SettingsInvalid("settings.invalid", "\n".join(lines[:_SHOWN_MAX]), remedy=_REMEDY)
    return read if documents else read_settings(None)


def _line(document: Document, path: tuple[str, ...]) -> int:
    return document.locate_key(path).line if path else document.place.line


def with_values(text: str, file: str, values: Mapping[str, str]) -> str:
    """Return a file's text with other values of keys. All else stays, comments too.

    Raises:
        SettingsInvalid: the text has mistakes, a value has another form, or a key has no place in the text.
    """
    wanted = {**values_of(load_settings(text, file).settings), **values}
    edited = text if not text or text.endswith("\n") else f"{text}\n"
    for name, value in values.items():
        key = BY_NAME[name]
        if key.read(value) is None:
            message = f"{name} {value!r} has another form"
            raise SettingsInvalid("settings.invalid", message, remedy=f"write {key.told}")
    try:
        for name, value in values.items():
            edited = _with_value(edited, BY_NAME[name], _scalar(value))
        is_kept = values_of(load_settings(edited, file).settings) == wanted
    except (SettingsInvalid, *ERRORS):
        is_kept = False
    if not is_kept:  # brackets around keys, or an alias
        raise SettingsInvalid(
            "settings.form",
            f"{file} has a form that isn't edited",
            remedy=f"write {', '.join(values)} into it yourself, a key on each line",
        )
    return edited


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text) and not text.endswith(":") and resolve_plain(text) == text:
        return text
    return json.dumps(text, ensure_ascii=False)


def _with_value(text: str, key: SettingKey, scalar: str) -> str:
    lines = text.splitlines(keepends=True)
    node, line, column = tree(text), len(lines), 0
    for depth, part in enumerate(key.path):
        member = _member(node, part)
        if member is None:
            added = _lines(key.path[depth:], scalar, column)
            return "".join((*lines[:line], *added, *lines[line:]))
        name, node = member
        # Where the next key goes, if the section doesn't have it: before its first one.
        has_members = isinstance(node, yaml.MappingNode) and node.value
        line = node.start_mark.line if has_members else name.start_mark.line + 1
        column = node.start_mark.column if has_members else name.start_mark.column + 2
    assert node is not None, "a key has a path"
    begin, end = (_offset(lines, mark) for mark in (node.start_mark, node.end_mark))
    return f"{text[:begin]}{'' if begin < end else ' '}{scalar}{text[end:]}"


def _member(node: yaml.Node | None, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next(((key, value) for key, value in node.value if key.value == name), None)


def _lines(path: tuple[str, ...], scalar: str, column: int) -> list[str]:
    *sections, last = path
    made = [f"{' ' * (column + 2 * depth)}{each}:\n" for depth, each in enumerate(sections)]
    return [*made, f"{' ' * (column + 2 * len(sections))}{last}: {scalar}\n"]


def _offset(lines: list[str], mark: yaml.Mark) -> int:
    return sum(map(len, lines[: mark.line])) + mark.column
