"""Names of Compose as names of trimtab: DNS labels, bounded, and still to be told apart."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from controller.model.names import NAMESPACE_MAX, SERVICE_NAME_MAX, is_dns_label

#: Hex digits of the original name's digest behind a name that was cut.
_DIGITS: Final = 8
_OTHER = re.compile(r"[^a-z0-9]+")


def dns_name(original: str, length: int = SERVICE_NAME_MAX) -> str:
    """Return the name of a resource for a name of Compose.

    Lower case, with ``-`` for ``_`` and ``.``. A longer name is cut, and ends with a digest of the
    original, so that two long names stay different.
    """
    name = _OTHER.sub("-", original.lower()).strip("-")
    if is_dns_label(name, length=length):
        return name
    digest = hashlib.sha256(original.encode()).hexdigest()[:_DIGITS]
    head = name[: length - _DIGITS - 1].strip("-")
    return f"{head}-{digest}" if head else f"x-{digest}"


def namespace_of(project: str) -> str:
    """Return the namespace of a project's resources."""
    return dns_name(project, NAMESPACE_MAX)
