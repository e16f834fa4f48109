"""A request on its way through the gate, and the reads that handlers make for it."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, TypeVar, cast

from controller.broker.gate import commands, redact
from controller.broker.gate.refusals import Answered
from controller.broker.gate.routes import Route
from controller.broker.wire import JSON_TYPE, refusal
from controller.core.effective import Accounts, in_numbers, is_named, needs_numbers
from controller.core.encoding import json_values
from controller.core.engine_api import cdi
from controller.core.engine_api.cdi import CdiDevice, CdiFile
from controller.core.engine_api.engine_objects import ENGINE_OBJECT, misfit
from controller.core.records.query import Page, Question
from controller.model.host_paths import PathFacts
from controller.model.policy.document import Policy
from controller.model.records import (
    NO_PRECONDITION,
    Actor,
    Context,
    Precondition,
    Reply,
    Request,
    Role,
)

T = TypeVar("T")
#: Bytes of an image's inspect, or history. Anybody chooses images, and while one is parsed nobody is
#: served; an image of use has some 10 KB.
IMAGE_BYTES_MAX = 512 * 1024
#: The paths of objects with the members of ``ENGINE_OBJECT``.
_OBJECTS = ("/containers/", "/images/", "/networks/", "/volumes/", "/exec/")


#: A generator of commands that ends with a value.
Flow = Generator[commands.Command, commands.CommandResult, T]


#: The broker as an actor of its own: recovery, clean-up, implied networks.
BROKER = Actor(uid=0, gid=0, pid=0, role=Role.BROKER)


@dataclass(frozen=True, slots=True)
class GateRequest:
    """A request with a known route: the caller, the parameters and the body."""

    #: The id of its journal records.
    id: str
    #: The policy that judges the whole request, even if another policy is loaded meanwhile.
    policy: Policy
    request: Request
    #: The caller, with the role of this very request.
    actor: Actor
    context: Context | None
    route: Route
    names: Mapping[str, str]
    query: Mapping[str, str]
    body: object = None

    @property
    def verb(self) -> str:
        """The last word of the route's name, for example ``start``."""
        return self.route.name.rpartition(".")[2]

    @property
    def precondition(self) -> Precondition:
        """The state that the controller requires; the empty precondition for every other caller."""
        return NO_PRECONDITION if self.context is None else self.context.precondition

    @property
    def by(self) -> Author:
        """The author in the records of the request."""
        return Author(self.id, self.actor, self.context, policy=self.policy.digest)


@dataclass(frozen=True, slots=True)
class Author:
    """The author of a record, and the id of the record."""

    id: str
    actor: Actor
    context: Context | None = None
    #: The digest of the policy that judged.
    policy: str = field(default="", kw_only=True)


def read_engine(
    path: str, ahead: tuple[str, ...] = (), rows: commands.Rows | None = None
) -> Flow[Reply]:
    """Read from the engine, a list as the encoded *rows*. The reads at *ahead* will follow.

    Raises:
        Answered: the engine doesn't answer.
    """
    bytes_max = IMAGE_BYTES_MAX if path.startswith("/images/") else commands.REPLY_BYTES_MAX
    answer = yield commands.ReadEngine(path, ahead=ahead, rows=rows, bytes_max=bytes_max)
    if isinstance(answer, commands.Lost):
        raise Answered(engine_unavailable(answer))
    assert isinstance(answer, Reply), f"a look was answered by {answer!r}"
    return answer


def announcing(flow: Flow[T], ahead: tuple[str, ...]) -> Flow[T]:
    """Run *flow*, and announce with each of its reads that the reads at *ahead* will follow."""
    result: commands.CommandResult = None
    while True:
        try:
            command = flow.send(result)
        except StopIteration as end:
            return cast("T", end.value)
        if isinstance(command, commands.ReadEngine):
            command = replace(command, ahead=(*command.ahead, *ahead))
        result = yield command


def read_json(path: str, ahead: tuple[str, ...] = ()) -> Flow[Any]:
    """Return the JSON object of a read, or None if the engine has no such object.

    Raises:
        Answered: any other failure, with the engine's reply; or ``engine.garbled``.
    """
    reply = yield from read_engine(path, ahead)
    if reply.status == 404:
        return None
    if reply.status >= 400:
        raise Answered(engine_reply(reply))
    value = parse_json(reply)
    wrong = misfit(value, ENGINE_OBJECT) if path.startswith(_OBJECTS) else ""
    if wrong:
        raise Answered(_garbled(f"{wrong} has an unexpected type"))
    return value


def read_if_readable(path: str) -> Flow[Any]:
    """Return the JSON object of a read; None if the engine has none, or none that can be read.

    Raises:
        Answered: the engine doesn't answer.
    """
    try:
        return (yield from read_json(path))
    except Answered as answered:
        if answered.reply.status != HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        return None


def read_rows(path: str, rows: commands.Rows) -> Flow[Reply]:
    """Return the reply to a list, with the encoded rows.

    Raises:
        Answered: the read failed, with the engine's reply.
    """
    answer = yield from read_engine(path, rows=rows)
    if answer.status >= 400:
        raise Answered(engine_reply(answer))
    return Reply(answer.status, answer.body, JSON_TYPE)


def read_members(path: str, *members: str, of: str = "") -> Flow[list[dict[str, Any]]]:
    """Return some members of each row of a list, or all; *of* is the answer's member with the list.

    Raises:
        Answered: the read failed, with the engine's reply.
    """

    def encode(row: dict[str, Any]) -> bytes:
        kept = {name: row[name] for name in members if name in row} if members else row
        return json.dumps(kept).encode()

    reply = yield from read_rows(path, commands.Rows(encode, of))
    return list(parse_json(reply).get(of) or ()) if of else parse_list(reply)


def inspect_paths(paths: tuple[str, ...]) -> Flow[dict[str, PathFacts]]:
    """Inspect paths of the host."""
    if not paths:
        return {}
    answer = yield commands.InspectPaths(paths)
    assert isinstance(answer, tuple), f"an examination was answered by {answer!r}"
    return {facts.path: facts for facts in answer if isinstance(facts, PathFacts)}


def read_cdi_devices() -> Flow[dict[str, CdiDevice]]:
    """Return the devices of the host's CDI specifications, by name."""
    answer = yield commands.ReadCdiFiles()
    assert isinstance(answer, tuple), f"a read of files was answered by {answer!r}"
    return cdi.read_devices(tuple(each for each in answer if isinstance(each, CdiFile)))


def find_uid_user(uid: int, own: tuple[str, ...]) -> Flow[str]:
    """Return who on the host has a uid, besides the processes of some containers; '' for nobody."""
    answer = yield commands.FindUidUser(uid, own)
    return str(answer)


def read_accounts(layers: tuple[str, ...]) -> Flow[Accounts | None]:
    """Return users and groups in the topmost of some folders that has them; None if they can't be told."""
    answer = yield commands.ReadAccounts(layers)
    assert answer is None or isinstance(answer, Accounts), f"accounts were {answer!r}"
    return answer


def find_numbers(user: str, pid: int, policy: Policy) -> Flow[str]:
    """Return the user of a command in a container in numbers, where the policy bounds groups.

    As it is if the files of the container of process *pid* don't tell.
    """
    if not user or not needs_numbers(policy):
        return user
    accounts = (yield from read_accounts((f"/proc/{pid}/root/.",))) if is_named(user) else None
    return in_numbers(user, accounts) or user


def query_journal(question: Question) -> Flow[Page]:
    """Query the journal.

    Raises:
        Answered: the journal can't be queried now.
    """
    answer = yield commands.QueryJournal(question)
    if isinstance(answer, commands.JournalNotReadable):
        raise Answered(refusal(503, answer.code, answer.reason, remedy=answer.remedy))
    assert isinstance(answer, Page), f"a recall was answered by {answer!r}"
    return answer


def parse_json(reply: Reply) -> dict[str, Any]:
    """Return the JSON object of a reply of the engine.

    Raises:
        Answered: the body is no object, which the engine never sends on these routes.
    """
    return _parsed(reply, dict)


def parse_list(reply: Reply) -> list[Any]:
    """Return the JSON list of a reply of the engine, also an absent one.

    Raises:
        Answered: the body is no list, which the engine never sends on these routes.
    """
    return [] if reply.body.strip() == b"null" else _parsed(reply, list)


def _parsed(reply: Reply, kind: type[T]) -> T:
    try:
        value = json_values.parse_json(reply.body)
    except ValueError as error:
        raise Answered(_garbled("it isn't JSON")) from error
    if not isinstance(value, kind):
        raise Answered(_garbled(f"it is no {'object' if kind is dict else 'list'}"))
    return value


def _garbled(why: str) -> Reply:
    return refusal(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "engine.garbled",
        f"the engine's answer can't be read: {why}",
        remedy="remove the object, or what makes it so large, with the engine's own commands",
    )


def engine_reply(reply: Reply) -> Reply:
    """Return a reply of the engine for the client: of the headers only the content type."""
    kept = tuple((name, value) for name, value in reply.headers if name == "content-type")
    return Reply(reply.status, reply.body, kept)


def engine_unavailable(lost: commands.Lost) -> Reply:
    """Return the reply while the engine doesn't answer, or not in a form that can be read."""
    if lost.unreadable:
        return _garbled(redact.text(lost.reason))
    return refusal(
        502,
        "engine.unavailable",
        unavailable_reason(lost),
        remedy=commands.engine_remedy(lost.reason),
    )


def unavailable_reason(lost: commands.Lost) -> str:
    """Return why the engine is unavailable, in one sentence."""
    reason = redact.text(lost.reason)
    return reason if reason.startswith("the engine at ") else f"the engine doesn't answer: {reason}"
