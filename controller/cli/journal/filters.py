"""Which records a command is about: the options, and what they mean."""

from __future__ import annotations

import pwd
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from math import ceil
from typing import Any, TypeVar

import click

from controller.app.clock import SystemClock
from controller.core.records.query import Filter
from controller.core.records.record import timestamp
from controller.model.quantities import parse_duration_ms

STAGES = ("intent", "outcome", "recovered", "refusal", "violation", "summary", "read")
STAGES_OF_OURS = ("operator", "policy", "checkpoint", "segment")
#: Stages that belong to changes, or to attempts at one: not reads, and not the journal's upkeep.
CHANGES = frozenset({*STAGES, *STAGES_OF_OURS} - {"read", "checkpoint", "segment"})
DECISIONS = ("allow", "mutate", "deny", "audit-deny")
ROLES = frozenset({"controller", "operator", "client", "broker"})
DAY_S = 86_400
#: As far as numbers of records go; what is beyond is mistyped.
SEQ_MAX = 2**53
F = TypeVar("F", bound=Callable[..., Any])
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?", re.ASCII)


def scan_option(command: F) -> F:
    """Add ``--scan``."""
    text = "Believe no index: read and check every record."
    return click.option("--scan", is_flag=True, help=text)(command)


def moment(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str:
    """Return a time as records have it; '' for none.

    It is given as RFC 3339, as a duration before now, or as the time of day that was last (UTC, as
    records have it).
    """
    return timestamp(_instant(value, _now())) if value else ""


def span(since: str, until: str) -> tuple[str, str]:
    """Return the times between which records are wanted, as records have them; '' for none.

    Raises:
        click.UsageError: one of them is none, or the first is later than the last.
    """
    return span_at(since, until, now=_now())


def span_at(since: str, until: str, *, now: float) -> tuple[str, str]:
    """Return what ``span`` does, at the time *now*.

    A time of day is the last one that was, as in ``moment``; as an end it is the first one after the
    beginning, which may lie ahead. After a duration it is the last one all the same, if it can be:
    what was asked for since a week ago doesn't end six days ago.
    """
    begin = _instant(since, now, "'--since'") if since else None
    end = _instant(until, now, "'--until'") if until else None
    if begin is not None and end is not None:
        if _CLOCK.fullmatch(until) and (end < begin or not _is_duration(since)):
            end += ceil((begin - end) / DAY_S) * DAY_S
        if end < begin:
            text = f"--since, {timestamp(begin)}, is later than --until, {timestamp(end)}"
            raise click.UsageError(text)
    return ("" if begin is None else timestamp(begin), "" if end is None else timestamp(end))


def _instant(value: str, now: float, option: str | None = None) -> float:
    """Return a time in seconds since the epoch.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        if _is_duration(value):
            ago_ms = _days_ms(value) if value.endswith("d") else parse_duration_ms(value)
            return max(0.0, now - ago_ms / 1000)
        if _CLOCK.fullmatch(value):
            return _last(value, now)
        when = datetime.fromisoformat(value.upper())  # RFC 3339 has t and z, too
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return when.astimezone(UTC).timestamp()  # no record is of another year than 1 to 9999
    except (ValueError, OverflowError):
        text = f"{value!r} is no duration (90s, 1h, 7d), time of day (03:12) or time (RFC 3339)"
        raise click.BadParameter(text, param_hint=option) from None


def _is_duration(value: str) -> bool:
    return value[:1].isdigit() and value[-1:] in set("smhd")


def _days_ms(value: str) -> int:
    if not value[:-1].isdigit():
        raise ValueError(value)
    return int(value[:-1]) * DAY_S * 1000


def _last(clock: str, now: float) -> float:
    today = datetime.fromtimestamp(now, UTC).date()
    then = datetime.fromisoformat(f"{today}T{clock}+00:00").timestamp()
    return then if then <= now else then - DAY_S


def _now() -> float:
    return SystemClock().now()


def now() -> str:
    """Return the present as records have it."""
    return timestamp(_now())


def actor_wanted(who: str) -> str:
    """Return a role, a uid, or ROLE:UID; '' for nobody in particular.

    It is given as such, with a user's name for a uid, as ``uid:N``, or as ACTOR shows it.

    Raises:
        click.BadParameter: there is no such role or user, so that nothing would ever be found.
    """
    role, colon, user = who.removesuffix("?").rpartition(":")
    if not colon and (not user or user in ROLES):
        return user
    uid = _uid_of(user)
    if uid and role in ROLES:
        return f"{role}:{uid}"
    if uid and role in {"", "uid"}:
        return uid
    from controller.core.manifests.problems import did_you_mean

    if role and role not in ROLES | {"uid"}:
        text, hint = f"there is no role {role!r}", did_you_mean(role, sorted(ROLES))
    else:
        text = f"there is no user {user!r} here"
        hint = did_you_mean(user, [*sorted(ROLES), *(each.pw_name for each in pwd.getpwall())])
    forms = f"a role ({', '.join(sorted(ROLES))}), a user, uid:N, or ROLE:USER"
    raise click.BadParameter(
        "; ".join(each for each in (text, hint, f"known are {forms}") if each),
        param_hint="'--actor'",
    )


def _uid_of(user: str) -> str:
    """Return the uid of a user's name, or a uid as it is; '' for neither."""
    try:
        return str(pwd.getpwnam(user).pw_uid)
    except KeyError:
        return (user.lstrip("0") or "0") if user.isascii() and user.isdigit() else ""


SPAN_OPTIONS = (
    click.option(
        "--since", metavar="TIME", default="", help="1h, 7d, 03:12 (the last), or RFC 3339."
    ),
    click.option(
        "--until", metavar="TIME", default="", help="Likewise; 03:20 is the first after --since."
    ),
)
_OPTIONS = (
    *SPAN_OPTIONS,
    click.option("--service", metavar="NAME", default="", help="NAME, or NAMESPACE/NAME."),
    click.option("--owner", metavar="NAME", default="", help="The owner of the object."),
    click.option("--actor", metavar="WHO", default="", help="A role, a user, uid:N, or ROLE:USER."),
    click.option("--verdict", type=click.Choice(DECISIONS), help="What was decided."),
    click.option(
        "--stage",
        "stages",
        type=click.Choice(STAGES + STAGES_OF_OURS),
        multiple=True,
        help="What kind of record; may be repeated.",
    ),
    click.option("--action", metavar="NAME", default="", help="container.create, create, POST, …"),
    click.option(
        "--container", metavar="NAME|ID", default="", help="A name, or the start of an id."
    ),
)


def filter_options(command: F) -> F:
    """Add the options that say which records are wanted, and give the command a ``Filter``."""

    @wraps(command)
    def filtered(
        *,
        since: str,
        until: str,
        service: str,
        owner: str,
        actor: str,
        verdict: str | None,
        stages: tuple[str, ...],
        action: str,
        container: str,
        **others: Any,
    ) -> Any:
        since, until = span(since, until)
        wanted = Filter(
            since=since,
            until=until,
            service=service,
            owner=owner,
            actor=actor_wanted(actor),
            verdict=verdict or "",
            stages=frozenset(stages),
            action=action,
            container=container,
        )
        return command(wanted=wanted, **others)

    decorated: Any = filtered
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
