"""What shows that a mutation took effect: the word that the route table has for each route."""

from __future__ import annotations

from enum import StrEnum


class ProofKind(StrEnum):
    """Where recovery looks."""

    LABEL = "the label of the intent"  # what was created carries it
    ABSENCE = "it isn't there any more"
    STARTED = "another StartedAt than before"
    FINISHED = "another FinishedAt than before"
    FIELD = "the field that was to change"
    DIGEST = "the image that the reference means"
    NONE = "none"
