"""The address of the engine: always a Unix socket."""

from __future__ import annotations

from controller.model.errors import UsageError

_UNIX = "unix://"


def socket_path(engine: str) -> str:
    """Return the socket of an engine address such as ``unix:///var/run/docker.sock``.

    Raises:
        UsageError: the address is not a Unix socket.
    """
    path = engine.removeprefix(_UNIX)
    if engine.startswith(_UNIX) and path.startswith("/"):
        return path
    raise UsageError(
        "engine.address",
        f"the engine's address {engine!r} isn't unix:///PATH",
        remedy="name the engine's Unix socket with --engine or DOCKER_HOST",
    )
