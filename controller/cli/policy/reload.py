"""``policy reload``: make the running broker read its policy file again."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from controller.cli.clients.socket_client import BrokerApi, ask_controller
from controller.cli.options import command, open_state, print_json
from controller.cli.output.terminal import echo
from controller.model.errors import StateError, TrimtabError, UsageError

RELOAD_TIMEOUT_S = 10.0
RELOAD_POLL_S = 0.05


@command(
    """\b
Example:
  trimtab policy reload

\b
Exit codes: 0 the file is in force, 1 it isn't valid (the policy before it stays in force).
""",
    short_help="Make the running broker read its policy again.",
)
def reload(state: Path | None, as_json: bool) -> int:
    """Make the running broker read its policy file again, as SIGHUP does.

    A new policy stops no running container. A service that the new policy refuses gets the
    condition PolicyViolation, and isn't started again. What the policy before refused is tried at once.
    """
    folder, _ = open_state(state)
    api = BrokerApi(folder.broker_socket)
    before = _policy_health(api)
    signal_broker(folder.broker_socket)
    deadline = time.monotonic() + RELOAD_TIMEOUT_S
    while (after := _policy_health(api))["reloads"] == before["reloads"]:
        if time.monotonic() >= deadline:
            raise StateError(
                "policy.not-reloaded",
                f"the broker didn't read its policy again within {RELOAD_TIMEOUT_S:g} s",
                remedy="look at the broker's log",
            )
        time.sleep(RELOAD_POLL_S)
    changed = after["digest"] != before["digest"]
    if changed:
        with suppress(TrimtabError):  # without a controller there is nothing to try
            ask_controller(folder.controller_socket, {"do": "observe"})
    if as_json:
        print_json({**after, "changed": changed})
    elif after["error"]:
        echo(f"{after['error']}\nthe policy {after['name']} stays in force", err=True)
    else:
        result = "is in force now" if changed else "is unchanged"
        echo(f"policy {after['name']} {result}, digest {after['digest']}")
    return 1 if after["error"] else 0


def _policy_health(api: BrokerApi) -> dict[str, Any]:
    """Return the broker's health of its policy.

    Raises:
        UsageError: the user isn't an operator.
    """
    health = dict(api.get("health")["policy"])
    if "reloads" not in health:  # the broker omits it for clients
        raise UsageError(
            "policy.not-operator",
            "only an operator reloads the policy",
            remedy="run it as root, or as a user whom the policy lists in operators",
        )
    return health


def signal_broker(path: Path) -> None:
    """Send SIGHUP to the process behind the broker's socket.

    Raises:
        StateError: the user isn't allowed to, or the broker is in another PID namespace.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect(str(path))
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, _, _ = struct.unpack("3i", credentials)
    with suppress(PermissionError, ProcessLookupError):
        if pid > 0:  # 0: in another PID namespace
            os.kill(pid, signal.SIGHUP)
            return
    raise StateError(
        "policy.not-signalled",
        f"this user may not signal the broker (process {pid})",
        remedy="run it as root on the host, or send SIGHUP to the broker's process",
    )
