"""The spec of a Notification: which incidents are sent to which destinations of the settings."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from controller.model.desired.spec.fields import Model, matching
from controller.model.notifications import Gravity

TO_MAX = 20
MatchedKind = Literal[
    "Service", "Job", "Network", "Volume", "Config", "Secret", "Release", "Source"
]

#: A name with ``*`` for any characters, and ``?`` for one.
_PATTERN = re.compile(r"[a-z0-9*?](?:[a-z0-9*?-]*[a-z0-9*?])?", re.ASCII)
_CONDITION = re.compile(r"[A-Z][A-Za-z]*", re.ASCII)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)
NamePattern = Annotated[str, matching(_PATTERN, 63, "a name, with * and ? for any characters")]
ConditionType = Annotated[
    str, matching(_CONDITION, 63, "the type of a condition, such as CrashLoop")
]
TargetName = Annotated[str, matching(_NAME, 63, "the name of a destination in the settings")]


class NotificationMatch(Model):
    """The incidents that a Notification is about: those of resources that match each member. None matches
    all.
    """

    namespace: NamePattern | None = None
    kind: MatchedKind | None = None
    name: NamePattern = "*"
    condition: ConditionType | None = None
    #: The lowest severity.
    severity: Gravity = "warning"


class NotificationSpec(Model):
    """The spec of a Notification."""

    match: NotificationMatch = NotificationMatch.model_construct()
    #: The names of destinations.
    to: Annotated[tuple[TargetName, ...], Field(min_length=1, max_length=TO_MAX)]
