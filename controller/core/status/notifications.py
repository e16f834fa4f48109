"""Notifications in a status report: the member of a row, and the destinations that don't get what is declared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from controller.core.status.facts import Facts, Report
from controller.model.desired.desired import Desired, Notification
from controller.model.names import Key
from controller.model.notifications import NoticeTarget


def notification_facts(desired: Desired) -> Iterator[Facts]:
    """Yield the facts of the Notifications, with the scope of the Git source that declares each."""
    scopes = {source.key.name: source.spec for source in desired.sources}
    for each in desired.notifications:
        origin = each.source.origin
        shown: Report = {
            "match": each.spec.match.model_dump(mode="json", exclude_none=True),
            "to": [*each.spec.to],
            "source": origin,
        }
        if origin:
            # A Source that isn't declared any more permits nothing.
            scope = scopes.get(origin)
            shown["namespaces"] = [] if scope is None else [*scope.namespaces]
            shown["owners"] = [] if scope is None else [*scope.owners]
        yield Facts(each.key, each.owner, desired=0, ready=0, details={"notification": shown})


def unsent(desired: Desired, targets: Iterable[NoticeTarget]) -> dict[Key, str]:
    """Return why a destination gets nothing of a Notification, by the Notification's key."""
    known = {target.name: target for target in targets}
    reasons = {each.key: _reason(each, known) for each in desired.notifications}
    return {key: reason for key, reason in reasons.items() if reason}


def _reason(notification: Notification, known: dict[str, NoticeTarget]) -> str:
    origin = notification.source.origin
    for name in notification.spec.to:
        if name not in known:
            have = f"they are {', '.join(known)}" if known else "there are none"
            return f"the settings have no destination {name}: {have} (write it to notify.destinations, or correct spec.to)"
        if origin and origin not in known[name].sources:
            return f"destination {name} doesn't list Source {origin} (write it to notify.destinations.{name}.sources, or correct spec.to)"
    return ""
