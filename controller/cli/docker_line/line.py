"""A line of the docker command, as the requests that it would send.

For ``policy explain``: what a client is about to do is judged before it does it. ``run``,
``create``, ``update`` and ``exec`` with their bodies, other commands as far as their routes and
parameters. An option that isn't known is an error that names it.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.cli.docker_line.commands import COMMANDS, Asked
from controller.cli.docker_line.options import LineError, read, table
from controller.cli.docker_line.values import Surroundings

__all__ = ["Asked", "LineError", "Surroundings", "requests_of"]

_GLOBAL = table(
    """
    config text
    c context text
    D debug flag
    H host list
    l log-level text
    tls flag
    tlscacert text
    tlscert text
    tlskey text
    tlsverify flag
    """
)
#: Groups of commands that are the same as the command without the group's name.
_GROUPS = ("container", "image", "network", "volume", "system")


def requests_of(words: Sequence[str], around: Surroundings) -> tuple[Asked, ...]:
    """Return the requests of a line, with or without ``docker`` in front.

    Raises:
        LineError: the docker command wouldn't take it, or it isn't known here.
    """
    line = list(words[1:] if words[:1] and words[0].rpartition("/")[2] == "docker" else words)
    line = list(read(line, _GLOBAL, anywhere=False).words)
    if not line:
        raise LineError("no command of docker's is named")
    name, rest = line[0], line[1:]
    if name in _GROUPS and rest and not rest[0].startswith("-"):
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name == "compose":
        raise LineError("compose sends many requests: judge its file with 'trimtab policy check'")
    if name in _REFUSED:
        method, path = _REFUSED[name]
        return (Asked(method, path),)
    command = COMMANDS.get(name) or COMMANDS.get(name.removeprefix("container "))
    if command is None:
        raise LineError(f"unknown command docker {name}")
    return tuple(command.make(read(rest, command.options, anywhere=command.anywhere), around))


#: Commands whose route is served to nobody: their options don't matter.
_REFUSED: dict[str, tuple[str, str]] = {
    "build": ("POST", "/build"),
    "buildx": ("POST", "/build"),
    "builder": ("POST", "/build/prune"),
    "image build": ("POST", "/build"),
    "commit": ("POST", "/commit"),
    "container commit": ("POST", "/commit"),
    "push": ("POST", "/images/IMAGE/push"),
    "image push": ("POST", "/images/IMAGE/push"),
    "tag": ("POST", "/images/IMAGE/tag"),
    "image tag": ("POST", "/images/IMAGE/tag"),
    "save": ("GET", "/images/get"),
    "image save": ("GET", "/images/get"),
    "load": ("POST", "/images/load"),
    "image load": ("POST", "/images/load"),
    "search": ("GET", "/images/search"),
    "login": ("POST", "/auth"),
    "checkpoint": ("POST", "/containers/CONTAINER/checkpoints"),
    "container prune": ("POST", "/containers/prune"),
    "image prune": ("POST", "/images/prune"),
    "network prune": ("POST", "/networks/prune"),
    "volume prune": ("POST", "/volumes/prune"),
    "system prune": ("POST", "/containers/prune"),
    "volume update": ("PUT", "/volumes/VOLUME"),
    "swarm": ("POST", "/swarm/init"),
    "node": ("GET", "/nodes"),
    "service": ("POST", "/services/create"),
    "stack": ("POST", "/services/create"),
    "secret": ("POST", "/secrets/create"),
    "config": ("POST", "/configs/create"),
    "plugin": ("POST", "/plugins/pull"),
}
