"""The two programs that run a stack from its unchanged folder: docker compose, and trimtab."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from controller.broker.secrets.key_files import FILES
from controller.core.compose.translation.scope import dns_name
from tests.engine import FoundEngine, PrivateEngine
from tests.instance import POLICIES, Host, eventually
from tools import debian_images, demo_images, image_archive
from tools.stacks.compare import Fields, Inspect, Renaming

STACKS: Final = Path(__file__).resolve().parents[2] / "tests" / "e2e" / "stacks"
IMAGES: Final = ("nginx", "postgres", "redis")
#: The second version of nginx, for a changed image: the same files under another id.
NEXT_NGINX: Final = "docker.io/library/nginx:1.27"
TRUSTED: Final = (
    *(debian_images.RECIPES[name]().reference for name in IMAGES),
    NEXT_NGINX,
    *(image.reference for image in demo_images.IMAGES),
)
LABEL: Final = "com.docker.compose"
READY_S: Final = 90.0
#: Networks of a namespace: the two behind the network `default`, and that of published ports.
OWN_NETWORKS: Final = {
    "platform-network": "default",
    "platform-bridge": "default",
    "platform-ingress": "(ports)",
}
#: A container of a service, by the name in the Compose file and the number of the replica.
Replica = tuple[str, int]


def load_images(engine: PrivateEngine | FoundEngine) -> None:
    """Load the images that the stacks name; the demo images are there already."""
    for name in IMAGES:
        debian_images.provide(engine.host, name)
    nginx = debian_images.build("nginx", reference=NEXT_NGINX)
    config = {**nginx.config, "Labels": {"version": "next"}}
    image_archive.load(engine.host, replace(nginx, config=config))


def number_of(text: str) -> int:
    """Return the number in a slot, or in the name of a run."""
    return int(re.findall(r"\d+", text)[-1])


def content(path: str) -> object:
    """Return what lies at a path of the host: bytes, with the right to execute, by name."""
    found = Path(path)
    if found.is_dir():
        files = (each for each in sorted(found.rglob("*")) if each.is_file())
        return tuple((str(each.relative_to(found)), each.read_bytes()) for each in files)
    return (found.read_bytes(), bool(found.stat().st_mode & 0o100))


def _compose_names(inspect: Inspect) -> set[str]:
    labels = inspect["Config"]["Labels"]
    project, service, number = (
        labels[f"{LABEL}.{name}"] for name in ("project", "service", "container-number")
    )
    return {f"{project}-{service}-{number}", inspect["Id"][:12], service, dns_name(service)}


def _trimtab_names(inspect: Inspect) -> set[str]:
    own = inspect["Config"]["Labels"]["io.trimtab.service"]
    aliases = {
        alias
        for endpoint in inspect["NetworkSettings"]["Networks"].values()
        for alias in endpoint.get("Aliases") or ()
    }
    spellings = {each for each in aliases if each.lower().replace("_", "-") == own}
    return {inspect["Name"].removeprefix("/"), inspect["Id"][:12], own, *spellings}


class ComposeSide:
    """A stack that docker compose runs."""

    def __init__(self, engine: PrivateEngine | FoundEngine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.stack = folder.name

    def run(self, *arguments: str, check: bool = True) -> str:
        """Run docker compose in the folder of the stack."""
        argv = ["docker-compose", "--project-directory", str(self.folder), *arguments]
        return self.engine.run_inside(argv, check=check, timeout_s=READY_S).stdout

    def containers(self) -> dict[Replica, Inspect]:
        """Return the containers of the project."""
        mine = f"label={LABEL}.project={self.stack}"
        ids = self.engine.docker("ps", "-aq", "--no-trunc", "--filter", mine).stdout.split()
        if not ids:
            return {}
        inspects = json.loads(self.engine.docker("inspect", *ids).stdout)
        labels = [(each, each["Config"]["Labels"]) for each in inspects]
        return {
            (told[f"{LABEL}.service"], int(told[f"{LABEL}.container-number"])): each
            for each, told in labels
        }

    def failed(self) -> list[str]:
        """Return the containers that ended with an error."""
        states = ((each["Name"], each["State"]) for each in self.containers().values())
        return [name for name, state in states if state["ExitCode"] or state["Restarting"]]

    def copied_files(self, replica: Replica, container: str) -> Fields:
        """Return the inline configs of a service, which docker compose copies into its containers.

        They are given as the read-only mounts that configs from files are.
        """
        tree = self._tree
        inline = {name for name, each in tree.get("configs", {}).items() if "content" in each}
        mounted = tree["services"][replica[0]].get("configs", ())
        targets = [
            each.get("target", f"/{each['source']}") for each in mounted if each["source"] in inline
        ]
        return {
            f"Mounts.{target}": ("bind", (self._read(container, target), False), "ro")
            for target in targets
        }

    def _read(self, container: str, path: str) -> bytes:
        return self.engine.docker("exec", container, "cat", path).stdout.encode()

    def volumes(self) -> dict[str, str]:
        """Return the volumes that the file declares, by their names on the engine."""
        declared = self._tree.get("volumes", {})
        return {str(terms["name"]): dns_name(name) for name, terms in declared.items()}

    @cached_property
    def _tree(self) -> dict[str, Any]:
        """The stack as docker compose reads it."""
        return dict(json.loads(self.run("config", "--format", "json")))

    def renaming(self) -> Renaming:
        """Return the names in the Compose file of the project's networks and volumes."""
        return Renaming(self._own, self.volumes().get, _compose_names, content)

    def _own(self, name: str) -> str:
        return name.removeprefix(f"{self.stack}_")

    def down(self) -> None:
        """Remove everything of the project."""
        self.run("down", "--volumes", "--timeout", "5")


class TrimtabSide:
    """A stack in the directory of an instance with the policy ``home``."""

    def __init__(
        self,
        engine: PrivateEngine | FoundEngine,
        source: Path,
        trusted: Iterable[str] = TRUSTED,
    ) -> None:
        self.source, self.stack, self.trusted = source, source.name, trusted
        self.host = Host(engine)
        self.host.policy = str(POLICIES / "home.yaml")
        self.folder = self.host.directory / self.stack

    @contextlib.contextmanager
    def running(self) -> Iterator[Host]:
        """Run an instance during the block, with the images trusted, and without the stack."""
        host = self.host
        secrets = self.source / "secrets"
        try:
            host.up()
            eventually(host.broker_socket.exists, what="the broker's socket")
            for image in self.trusted:
                host.cli("image", "trust", image)
            if secrets.is_dir():
                shutil.copytree(secrets, FILES / self.stack, dirs_exist_ok=True)
                for path in (FILES / self.stack).iterdir():
                    path.chmod(0o600)
            yield host
        finally:
            host.close()
            if secrets.is_dir():
                shutil.rmtree(FILES / self.stack, ignore_errors=True)

    def put(self) -> None:
        """Copy the folder of the stack into the directory."""
        shutil.copytree(self.source, self.folder)

    def tried(self, folder: Path) -> Mapping[str, Any]:
        """Return what ``trimtab try --json`` prints for a folder."""
        argv = ("try", str(folder), "--policy", self.host.policy)
        answer: Mapping[str, Any] = self.host.json(*argv, expect=(0, 3, 4))
        return answer

    def containers(self, services: Iterable[str]) -> dict[Replica, Inspect]:
        """Return the containers of the instance, by the names in the Compose file."""
        written = {dns_name(name): name for name in services}
        labels = [(each, each["Config"]["Labels"]) for each in self.host.containers()]
        return {
            (written[told["io.trimtab.service"]], number_of(told["io.trimtab.slot"])): each
            for each, told in labels
        }

    def renaming(self, volumes: Iterable[str]) -> Renaming:
        """Return the names in the Compose file of the namespace's networks and volumes."""
        named = {f"{self.stack}.{name}": name for name in volumes}
        return Renaming(self._network, named.get, _trimtab_names, content)

    def network(self, name: str) -> str:
        """Return the engine's name of a network of the Compose file."""
        return f"platform-network.{self.stack}" if name == "default" else f"{self.stack}.{name}"

    def _network(self, name: str) -> str:
        base = name.removesuffix(f".{self.stack}")
        return OWN_NETWORKS.get(base, name.removeprefix(f"{self.stack}."))
