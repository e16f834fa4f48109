"""Changes of a running stack, as people make them in its files: pure edits of a Compose file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import yaml

Tree = dict[str, Any]
NEXT_PORT: Final = "19"


@dataclass(frozen=True, slots=True)
class Asked:
    """The services of a stack that a client asks, and where."""

    app: str
    app_port: int
    #: The network of the Compose file in which the client is.
    network: str
    edge: str
    edge_port: int
    #: The file that is mounted in the app.
    file: str = "app.ini"

    def of(self, change: str) -> tuple[str, str]:
        """Return the service of a change, and the address that the client asks."""
        if CHANGES[change][0]:
            return self.edge, f"{self.edge}:{self.edge_port}"
        return self.app, f"{self.app}:{self.app_port}"


#: For each stack, the service that is changed, and the one with a published port.
ASKED: Final = {
    "blog": Asked("app", 8080, "front", "web", 80),
    "meshed": Asked("app_one", 8080, "services", "edge", 80),
    "migrate": Asked("app", 8080, "default", "web", 8080),
    "monitor": Asked("api", 9090, "default", "web", 9090),
    "parts": Asked("api", 8080, "default", "edge", 8080),
    "queue": Asked("web", 8080, "default", "proxy", 80),
    "shop": Asked("api", 8080, "default", "web", 80),
    "studio": Asked("feed", 80, "default", "web", 8080, "feed.conf"),
    "vault": Asked("app", 8080, "default", "web", 80),
    "wiki": Asked("wiki", 8080, "default", "proxy", 80),
}
#: The next version of each image.
DEMO: Final = "trimtab.local/web"
NEXT: Final = {
    DEMO: "trimtab.local/web:2",
    "docker.io/library/nginx": "docker.io/library/nginx:1.27",
}


def change_image(service: Tree) -> None:
    """Name the next version of the image."""
    image = str(service.get("image", DEMO))  # an extended service has none of its own
    service["image"] = NEXT[image.partition(":")[0]]


def change_environment(service: Tree) -> None:
    """Add a variable."""
    given = service.setdefault("environment", {})
    if isinstance(given, list):
        given.append("CHANGED=1")
    else:
        given["CHANGED"] = "1"


def change_replicas(service: Tree) -> None:
    """Ask for two replicas more, and no port and no name that only one can have."""
    deploy = service.get("deploy", {})
    where, name = (deploy, "replicas") if "replicas" in deploy else (service, "scale")
    where[name] = where.get(name, 1) + 2


def change_ports(service: Tree) -> None:
    """Publish other ports of the host: 18400 becomes 19400."""
    service["ports"] = [_moved(port) for port in service["ports"]]


def _moved(port: Any) -> Any:
    if isinstance(port, dict):
        return {**port, "published": _moved(str(port["published"]))}
    return re.sub(
        r"\b18(4\d\d)\b|\$\{WIKI_PORT\}", lambda m: NEXT_PORT + (m[1] or "420"), str(port)
    )


#: Each change, and whether it is of the service with the published port. The file is changed by itself.
CHANGES: Final[dict[str, tuple[bool, Callable[[Tree], None] | None]]] = {
    "image": (False, change_image),
    "environment": (False, change_environment),
    "file": (False, None),
    "replicas": (False, change_replicas),
    "port": (True, change_ports),
}


def changed_text(text: str, service: str, edit: Callable[[Tree], None]) -> str:
    """Return a Compose file with a service edited."""
    tree = yaml.safe_load(text)
    edit(tree["services"][service])
    return yaml.safe_dump(tree, sort_keys=False)
