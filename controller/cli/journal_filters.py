"""Which records a command is about: the options, and what they mean."""

from __future__ import annotations

import pwd
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, TypeVar

import click

from controller.core.record import timestamp
from controller.core.search import Filter
from controller.model.quantities import parse_duration_ms

STAGES = ("intent", "outcome", "recovered", "refusal", "violation", "summary", "read")
STAGES_OF_OURS = ("operator", "policy", "checkpoint", "segment")
DECISIONS = ("allow", "mutate", "deny", "audit-deny")
ROLES = frozenset({"controller", "operator", "client", "broker"})
DAY_MS = 86_400_000
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
    try:
        return _moment(value) if value else ""
    except (ValueError, OverflowError):
        text = f"{value!r} is no duration (90s, 1h, 7d), time of day (03:12) or time (RFC 3339)"
        raise click.BadParameter(text) from None


def _moment(value: str) -> str:
    if value.endswith("d") and value[:-1].isdigit():
        return _ago(int(value[:-1]) * DAY_MS)
    if value[-1:] in set("smh") and value[:1].isdigit():
        return _ago(parse_duration_ms(value))
    if _CLOCK.fullmatch(value):
        return _last(value)
    when = datetime.fromisoformat(value)
    return timestamp((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def _ago(milliseconds: int) -> str:
    return timestamp(max(0.0, _now() - milliseconds / 1000))


def _last(clock: str) -> str:
    now = datetime.fromtimestamp(_now(), UTC)
    then = datetime.fromisoformat(f"{now.date()}T{clock}+00:00")
    return timestamp((then if then <= now else then - timedelta(days=1)).timestamp())


def _now() -> float:
    from controller.wiring import SystemClock

    return SystemClock().now()


def now() -> str:
    """Return the present as records have it."""
    return timestamp(_now())


def uid_of(actor: str) -> str:
    """Return the uid of a user's name, or of uid:N; a role or a uid stays as it is."""
    if actor in ROLES:
        return actor
    try:
        return str(pwd.getpwnam(actor).pw_uid)
    except KeyError:
        return actor.removeprefix("uid:")


_OPTIONS = (
    click.option("--since", callback=moment, metavar="TIME", help="1h, 7d, 03:12, or RFC 3339."),
    click.option("--until", callback=moment, metavar="TIME", help="Likewise."),
    click.option("--service", metavar="NAME", default="", help="NAME, or NAMESPACE/NAME."),
    click.option("--owner", metavar="NAME", default="", help="The owner of the object."),
    click.option("--actor", metavar="WHO", default="", help="A role, a user, or uid:N."),
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
        wanted = Filter(
            since=since,
            until=until,
            service=service,
            owner=owner,
            actor=uid_of(actor),
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
