"""Lists that callers get: their filters and rows, and errors that must not reveal foreign objects.

The ``filters`` parameter: parsed, bounded, and restricted to objects that the caller can see.

A filter must not reveal objects of others. The gate adds labels to filters of containers,
networks, volumes and events; other filters only narrow the result further. Image filters are
answered from the names that the policy admits.

Rows of the lists that callers get: whole, or shortened so that no list is too long.

Owners choose labels, commands, mounts and ports of their objects. The rows of each owner are whole
up to 1 MiB of a list; further rows are shortened. The controller gets few members of each row, and so
does everybody of the rows after the first 16 MiB. So the objects of nobody, however many and large,
keep others from a list.

Scrubbing: an engine error must not reveal foreign objects to a client.

The engine words its errors for the owner of the host, with the names of containers that hold a
name, a port, a volume or a network. For a client, ids and names of foreign objects are blanked,
except those in the client's own request.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.guards.lookup import can_see
from controller.broker.wire import json_reply
from controller.core.effective import is_reserved
from controller.core.encoding import json_values
from controller.core.encoding.json_values import parse_object
from controller.model import names
from controller.model.records import RESTRICTED, Actor, Reply, Request, Role

VALUES_MAX = 64
PATTERN_MAX = 255
#: Labels that the gate sets itself. A client's filter for these labels is replaced.
_REPLACED = frozenset({json_values.fold(key) for key in (names.INSTANCE, names.OWNER)})

CONTAINER_KEYS = frozenset(
    {"ancestor", "exited", "expose", "health", "id", "is-task", "label", "name", "network"}
    | {"publish", "status", "volume"}
)
IMAGE_KEYS = frozenset({"before", "dangling", "label", "reference", "since", "until"})
NETWORK_KEYS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
VOLUME_KEYS = frozenset({"dangling", "driver", "label", "name"})
EVENT_KEYS = frozenset({"container", "event", "image", "label", "network", "type", "volume"})
EVENT_TYPES = frozenset({"container", "image", "network", "volume"})

Filters = dict[str, list[str]]


def parse_filters(text: str, known: frozenset[str]) -> Filters:
    """Return the values of each key in ``filters``.

    Raises:
        Denied: ``filters.malformed`` or ``filters.unknown``.
    """
    if not text:
        return {}
    try:
        value = json_values.parse_strict(text.encode())
    except json_values.InvalidJson as error:
        raise _malformed(str(error)) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _malformed("expected an object")
    found: Filters = {}
    for key, raw in value.items():
        values = _values(raw)
        if not values:
            continue
        if key not in known:
            raise Denied(
                "filters.unknown",
                f"this list has no filter {key:.64}",
                f"use {', '.join(sorted(known))}",
                status=400,
            )
        found[key] = values
    return found


def _values(raw: object) -> list[str]:
    """Return the values of a key. Clients send a list, or a map of values to true."""
    if raw is None:
        return []
    if isinstance(raw, Mapping):
        values = [key for key, wanted in raw.items() if wanted is True]
        plain = all(isinstance(wanted, bool) for wanted in raw.values())
    else:
        values = [item for item in raw if isinstance(item, str)] if isinstance(raw, list) else []
        plain = isinstance(raw, list) and len(values) == len(raw)
    if not plain or len(values) > VALUES_MAX:
        raise _malformed(f"expected a list of at most {VALUES_MAX} texts for each filter")
    return values


def _malformed(reason: str) -> Denied:
    return Denied(
        "filters.malformed",
        f"filters: {reason}",
        'send JSON such as {"label":["key=value"]}',
        status=400,
    )


def is_name_wanted(patterns: list[str], name: str) -> bool:
    """Return True if there are no ``reference`` patterns, or if a pattern matches the image name.

    The engine matches all names of an image, and so would reveal names that the client can't see.
    """
    if not patterns:
        return True
    repository = name.partition("@")[0]
    head, slash, last = repository.rpartition("/")
    spellings = (name, f"{head}{slash}{last.partition(':')[0]}")
    return any(_matches(pattern[:PATTERN_MAX], each) for pattern in patterns for each in spellings)


def _matches(pattern: str, name: str) -> bool:
    wanted, parts = pattern.split("/"), name.split("/")
    return len(wanted) == len(parts) and all(map(fnmatchcase, parts, wanted))


def restrict_filters(
    filters: Filters, state: GateState, actor: Actor, *, adopted: bool = False
) -> Filters:
    """Return the filters with the labels that limit the result to the caller's objects.

    With *adopted*, objects without our labels are in the result, too: the caller drops the others.
    """
    labels = [
        label
        for label in filters.get("label", [])
        if json_values.fold(label.partition("=")[0]) not in _REPLACED
    ]
    if adopted:
        others = {key: values for key, values in filters.items() if key != "label"}
        return {**others, "label": labels} if labels else others
    labels.append(f"{names.INSTANCE}={state.instance}")
    if actor.role is Role.CLIENT:
        labels.append(f"{names.OWNER}={actor.owner}")
    return {**filters, "label": labels}


def split_places(filters: Filters) -> tuple[Filters, frozenset[str]]:
    """Return the filters without filters by namespace and service, and the asked labels.

    The engine knows the names in the labels. A move doesn't change labels.
    """
    prefixes = (f"{names.NAMESPACE}=", f"{names.SERVICE}=")
    labels = filters.get("label", [])
    asked = [label for label in labels if label.startswith(prefixes)]
    rest = {**filters, "label": [label for label in labels if label not in asked]}
    return rest, frozenset(asked)


def encode_filters(filters: Filters) -> str:
    """Return the value of the parameter."""
    return json.dumps(filters, separators=(",", ":"))


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
    """Encodes the rows of a list for a caller."""

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


BLANK = "…"
_ID = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{12,64}(?![0-9A-Za-z])", re.ASCII)
#: The form in which newer engines name the endpoints of a network.
_ATTACHED = re.compile(r'name:"(?P<name>[^"]*)"')


def scrub_reply(reply: Reply, request: Request, actor: Actor, state: GateState) -> Reply:
    """Return a reply for this caller: errors to clients and viewers are scrubbed."""
    if actor.role not in RESTRICTED or reply.status < 400 or not reply.body:
        return reply
    error = parse_object(reply.body)
    message = error.get("message")
    if not isinstance(message, str):
        return reply
    said = f"{request.path}?{request.query} {request.body.decode(errors='replace')}"
    scrubbed = scrub_text(message, said, actor, state)
    if scrubbed == message:
        return reply
    return Reply(
        reply.status, json_reply(reply.status, {**error, "message": scrubbed}).body, reply.headers
    )


def scrub_text(message: str, said: str, actor: Actor, state: GateState) -> str:
    """Return an engine error without foreign names and ids, except those in *said*, the request."""
    own_ids, own_names = _visible_objects(actor, state)

    def identifier(match: re.Match[str]) -> str:
        found = match[0]
        known = found in said or any(each.startswith(found) for each in own_ids)
        return found if known else BLANK

    def attached(match: re.Match[str]) -> str:
        return match[0] if match["name"] in own_names else f'name:"{BLANK}"'

    text = _ATTACHED.sub(attached, _ID.sub(identifier, message))
    for name in _hidden_names(actor, state):
        if name in text and name not in said:
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", BLANK, text)
    return text


def _visible_objects(actor: Actor, state: GateState) -> tuple[set[str], set[str]]:
    known = state.inventory
    items = [item for item in known.containers.values() if can_see(actor, item.owner)]
    made = [*known.networks.values(), *known.volumes.values()]
    mine = [each for each in made if can_see(actor, each.owner)]
    ids = {item.id for item in items} | {each.id for each in mine}
    return ids, {item.admitted.name for item in items} | {each.name for each in mine}


def _hidden_names(actor: Actor, state: GateState) -> Iterator[str]:
    for item in state.inventory.containers.values():
        if item.admitted.name and not can_see(actor, item.owner):
            yield item.admitted.name
    for volume in state.inventory.volumes.values():
        if not can_see(actor, volume.owner):
            yield volume.name
