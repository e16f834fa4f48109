"""Commands as another user, also from a checkout in a folder that is closed to that user (``/root``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from controller.process.drop_privileges import closed_ancestor

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKOUT = Path(__file__).resolve().parents[1]
#: The arguments are the checkout, the folder above it that is closed, and the command. In mounts of
#: the command's own, an empty folder that is open takes the closed one's place, with the checkout in it.
_OPENED = """
held=$(mktemp -d) && mount --bind "$1" "$held" && mount -t tmpfs -o mode=755 opened "$2" &&
mkdir -p "$1" && mount --move "$held" "$1" && rmdir "$held" && shift 2 && exec "$@"
"""


def as_user(argv: Sequence[str], *, uid: int, gid: int) -> list[str]:
    """Return the command line that runs a command as a user without other groups. Needs root."""
    dropped = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--", *argv]
    closed = closed_ancestor(CHECKOUT, uid=uid, gid=gid)
    if closed is None:
        return dropped
    shell = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _OPENED, "opened"]
    return [*shell, str(CHECKOUT), str(closed), *dropped]
