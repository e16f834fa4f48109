"""Rows of the lists that callers get: whole, or shortened so that no list is too long.

Owners choose labels, commands, mounts and ports of their objects. The rows of each owner are whole
up to 1 MiB of a list; further rows are shortened. The controller gets few members of each row, and so
does everybody of the rows after the first 16 MiB. So the objects of nobody, however many and large,
keep others from a list.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from controller.core.effective.labels import is_reserved
from controller.model import names
from controller.model.records import Actor, Reply, Role

#: Bytes of an owner's whole rows in a list.
WHOLE_BYTES = 1024 * 1024
#: Bytes of a list after which each row has few members.
LEAN_AFTER_BYTES = 16 * 1024 * 1024
TEXT_MAX = 256
#: Characters of a label's value, and of all labels: docker compose reads its labels whole.
LABEL_MAX, LABELS_MAX = 4096, 64 * 1024
ITEMS_MAX = 8
COMPOSE = "com.docker.compose."
#: The reply's header with the number of shortened rows.
SHORTENED_HEADER = "trimtab-shortened"
#: The members and labels that the controller reads, of containers and volumes, and the names of
#: images. A list of 10,000 containers is read by each plan of everything: every further member costs
#: both processes time.
_MEMBERS = frozenset(
    {"Id", "Names", "State", "Name", "Driver", "Options", "RepoTags", "RepoDigests"}
)
_LABELS = (names.INSTANCE, names.NAMESPACE, names.SERVICE, names.SLOT)


class ListRows:
    """Encodes the rows of one list for one caller."""

    def __init__(self, actor: Actor) -> None:
        self._lean = actor.role is Role.CONTROLLER
        self._sizes: Counter[str] = Counter()
        self._shortened = 0
        self._size = 0

    def encode(self, row: Mapping[str, Any], owner: str) -> bytes:
        """Return the JSON of a row that the caller can see."""
        if self._lean:
            return _json(_lean(row))
        encoded = _json(row) if self._size <= LEAN_AFTER_BYTES else b""
        if encoded and self._sizes[owner] + len(encoded) <= WHOLE_BYTES:
            self._sizes[owner] += len(encoded)
        else:
            self._shortened += 1
            encoded = _json(shorten(row) if encoded else _lean(row))
        self._size += len(encoded)
        return encoded

    def finish(self, reply: Reply) -> Reply:
        """Return the reply, with the number of shortened rows."""
        if not self._shortened:
            return reply
        header = (SHORTENED_HEADER, str(self._shortened))
        return Reply(reply.status, reply.body, (*reply.headers, header))


#: ``json.dumps`` with an option makes an encoder for each row.
_ENCODER = json.JSONEncoder(ensure_ascii=False)


def _json(value: object) -> bytes:
    return _ENCODER.encode(value).encode("utf-8", "replace")


def _lean(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that the controller reads."""
    lean = {key: _cut(value) for key, value in row.items() if key in _MEMBERS}
    if "Labels" in row:
        labels = row["Labels"] or {}
        lean["Labels"] = {key: labels[key][:LABEL_MAX] for key in _LABELS if key in labels}
    if "NetworkSettings" in row:
        networks = (row["NetworkSettings"] or {}).get("Networks") or {}
        lean["NetworkSettings"] = {"Networks": dict.fromkeys(networks)}
    return lean


def shorten(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with long texts, long lists, and labels of other tools cut off."""
    short = {key: _cut(value) for key, value in row.items()}
    if "Labels" in row:
        short["Labels"] = _labels(row["Labels"])
    return short


def _labels(labels: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return the labels of trimtab and then of docker compose, as many as ``LABELS_MAX`` holds."""
    if labels is None:
        return None
    ours = {key: value for key, value in labels.items() if is_reserved(key)}
    others = {key: value for key, value in labels.items() if key.startswith(COMPOSE)}
    kept, left = dict[str, str](), LABELS_MAX
    for key, value in (ours | others).items():
        left -= len(key) + len(value[:LABEL_MAX])
        if left < 0:
            break
        kept[key] = value[:LABEL_MAX]
    return kept


def _cut(value: Any) -> Any:
    match value:
        case str():
            return value[:TEXT_MAX]
        case list():
            return [_cut(each) for each in value[:ITEMS_MAX]]
        case dict():
            return {key: _cut(each) for key, each in [*value.items()][: 2 * ITEMS_MAX]}
        case _:
            return value
