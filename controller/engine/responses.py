"""What the broker's answers mean: errors of ours, the inventory, the header of claims.

Pure functions over whole answers; ``adapter`` sends and asks.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from controller.core.encoding.canonical_json import canonical
from controller.core.enforcement import disruption_budget
from controller.core.engine_api import pull_errors
from controller.core.records.inventory_json import settings_from_json
from controller.engine.transport import EngineResponse
from controller.model.errors import (
    Conflict,
    EngineError,
    EngineFailed,
    EngineUnavailable,
    NotFound,
    OverShare,
    PullFailed,
    Refused,
    ReplyLost,
)
from controller.model.inventory import ContainerItem, OwnedObject
from controller.model.observed import Ending, Image
from controller.model.records import Context

MESSAGE_MAX = 1000
CAUSE_MAX = 500
PATH_MAX = 1000
#: Statuses by which a proxy says that it got no answer from whom it asked.
_UNAVAILABLE = (429, 502, 503)
_NO_REPLY = 504
#: By which the broker says so in the middle of an answer.
OUTCOME_UNKNOWN = "outcome.unknown"


def header(context: Context) -> str:
    """Return the value of Trimtab-Context: at most 4 KiB, whatever the claims are."""
    claims: dict[str, object] = {"cause": context.cause[:CAUSE_MAX]}
    if context.file or context.commit:
        claims["source"] = {
            "file": context.file[:PATH_MAX],
            "line": context.line,
            "commit": context.commit,
            **({"lines": dict(context.lines)} if context.lines else {}),
        }
    if context.plan:
        claims["plan"] = context.plan
    if context.on_behalf_of:
        claims["onBehalfOf"] = context.on_behalf_of
    return base64.urlsafe_b64encode(canonical(claims)).decode().rstrip("=")


def error_of(answer: EngineResponse, *, mutation: bool) -> EngineError:
    """Return the error that an answer of status 400 or more means."""
    told = object_of(answer.body)
    gate = told.get("trimtab")
    gate = gate if isinstance(gate, dict) else {}
    message = str(gate.get("reason") or told.get("message") or f"status {answer.status}")
    message, remedy = message[:MESSAGE_MAX], str(gate.get("remedy") or "")[:MESSAGE_MAX]
    rule = str(gate.get("rule") or "")
    if rule in pull_errors.ACTS:
        return PullFailed(rule, message, act=pull_errors.ACTS[rule], remedy=remedy)
    kind, code = _kind(answer.status, rule=rule, mutation=mutation)
    return kind(rule or code, message, remedy=remedy, status=answer.status)


def _kind(status: int, *, rule: str, mutation: bool) -> tuple[type[EngineError], str]:
    if status in _UNAVAILABLE:
        return EngineUnavailable, "engine.unavailable"
    if status == _NO_REPLY:
        return (ReplyLost, "reply.lost") if mutation else (EngineUnavailable, "engine.unavailable")
    if status == 409:
        return Conflict, "engine.conflict"
    if rule == disruption_budget.RULE:
        return OverShare, rule
    if status == 403 or rule:
        return Refused, "refused"
    if status == 404:
        return NotFound, "engine.not-found"
    return EngineFailed, "engine.failed"


def pull_error(answer: EngineResponse, image: str) -> EngineError | None:
    """Return the error that a pull ended with, by the status and the last line; None for none.

    A good status says that it began: what became of it is told by its last line.
    """
    if answer.status >= 400:
        return error_of(answer, mutation=True)
    told = object_of(answer.body)
    gate = told.get("trimtab")
    if isinstance(gate, dict):
        lost = gate.get("rule") == OUTCOME_UNKNOWN
        return error_of(EngineResponse(_NO_REPLY if lost else 500, answer.body), mutation=True)
    if told.get("error"):
        return EngineFailed(pull_errors.OTHER, f"{image}: {told['error']}"[:MESSAGE_MAX])
    return None


def object_of(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body, or an empty one where there is none."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def parsed(answer: EngineResponse) -> Any:
    """Return the JSON of a good answer.

    Raises:
        EngineFailed: it isn't JSON.
    """
    try:
        return json.loads(answer.body)
    except ValueError as error:
        raise EngineFailed("engine.garbled", f"an answer isn't JSON: {error}") from error


class InventoryResponse:
    """The broker's inventory as its own route shows it."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.instance = str(told.get("instance") or "")
        self.engine_id = str(told.get("engineId") or "")
        self.containers = {item["id"]: _item(item) for item in told.get("containers") or ()}
        self.networks = {each["id"]: _belonging(each) for each in told.get("networks") or ()}
        self.volumes = {each["name"]: _belonging(each) for each in told.get("volumes") or ()}
        self.pins = {
            revision: Image(id=image["id"], digest=image.get("digest") or "")
            for revision, image in (told.get("pins") or {}).items()
        }
        self.endings = {each["container"]: _ending(each) for each in told.get("endings") or ()}
        self.taken_down = str(told.get("takenDown") or "")


def _item(told: Mapping[str, Any]) -> ContainerItem:
    return ContainerItem(
        id=told["id"],
        namespace=told.get("namespace") or "",
        service=told.get("service") or "",
        slot=told.get("slot") or 0,
        revision=told.get("revision") or "",
        owner=told.get("owner") or "",
        origin=told.get("origin") or "",
        intent=told.get("intent") or "",
        image=told.get("image") or "",
        started=bool(told.get("started")),
        effective=told.get("effective") or "",
        violation=told.get("violation") or "",
        admitted=settings_from_json(told.get("admitted") or {}),
    )


def _ending(told: Mapping[str, Any]) -> Ending:
    return Ending(
        container=told["container"],
        route=told.get("route") or "",
        role=told.get("role") or "",
        uid=int(told.get("uid") or 0),
        time=told.get("time") or "",
        reason=told.get("reason") or "",
    )


def _belonging(told: Mapping[str, Any]) -> OwnedObject:
    return OwnedObject(
        id=told.get("id") or "",
        name=told.get("name") or "",
        namespace=told.get("namespace") or "",
        owner=told.get("owner") or "",
        origin=told.get("origin") or "",
        intent=told.get("intent") or "",
    )
