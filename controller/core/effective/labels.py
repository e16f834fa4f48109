"""The labels that only the gate writes, and those of an image that containers keep."""

from __future__ import annotations

import re

from controller.core.encoding.strict_json import fold
from controller.model import names
from controller.model.policy.document import Policy

RESERVED = fold(names.PREFIX)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def is_reserved(key: str) -> bool:
    """Return True if a label's key is reserved for trimtab, in any spelling."""
    folded = fold(key)
    return folded.startswith(RESERVED) or folded == RESERVED.removesuffix(".")


def inherits_label(key: str, value: str, policy: Policy) -> bool:
    """Return True if containers keep a label of their image.

    Others become empty: those that the gate writes, that grant rights in other tools, and that could
    forge a line of a log.
    """
    denied = tuple(fold(prefix) for prefix in policy.labels.denied_prefixes)
    if is_reserved(key) or fold(key).startswith(denied):
        return False
    return CONTROL.search(value) is None
