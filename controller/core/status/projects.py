"""Projects: the services of a namespace, which one change of the files brings to a new version together.

Pure. Services with revisions of one instant were declared by one reading of the files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller.core.drift.classify import short_revision
from controller.model.desired.overrides import Overrides
from controller.model.errors import Problem, Severity
from controller.model.names import Key

SPLIT = "project.split"


@dataclass(frozen=True, slots=True)
class RevisionTimes:
    """When the revisions of a service were declared (RFC 3339)."""

    declared: str
    #: Of the revision in force: the pinned one, else the declared one.
    in_force: str
    #: The revision to which a failed rollout went back; '' if none did.
    back_to: str = ""
    #: True if there was a revision before.
    has_earlier: bool = False


def revision_times(overrides: Overrides) -> RevisionTimes | None:
    """Return the times of a service's revisions; None without any."""
    if not overrides.revisions:
        return None
    declared, pin = overrides.revisions[-1].since, overrides.pin
    kept = None if pin is None else overrides.find_revision(pin.revision, pin.limits)
    return RevisionTimes(
        declared,
        declared if kept is None else kept.since,
        pin.revision if pin is not None and pin.automatic else "",
        len(overrides.revisions) > 1,
    )


def split_projects(
    times: Mapping[Key, RevisionTimes], failed: Mapping[Key, str]
) -> Iterator[Problem]:
    """Yield a problem for each project with two versions: one service failed, and others went on.

    *failed* are the services whose rollout is paused.
    """
    projects = defaultdict[str, list[Key]](list)
    for key in sorted(times):
        projects[key.namespace].append(key)
    for namespace, keys in projects.items():
        behind = [k for k in keys if times[k].back_to or (k in failed and times[k].has_earlier)]
        changes = {times[key].declared for key in behind}
        ahead = [k for k in keys if k not in behind and times[k].in_force in changes]
        if ahead:
            yield Problem(
                SPLIT,
                f"project {namespace} runs two versions: {', '.join(_failure(k, times) for k in behind)}; "
                f"of the same change, {', '.join(key.name for key in ahead)} went on",
                severity=Severity.WARNING,
                remedy="correct what failed, or return the project to the version before: "
                f"trimtab rollback -n {namespace}",
            )


def _failure(key: Key, times: Mapping[Key, RevisionTimes]) -> str:
    back_to = times[key].back_to
    return f"{key.name} went back to {short_revision(back_to)}" if back_to else f"{key.name} failed"
