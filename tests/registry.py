"""Debian's docker-registry beside an engine: on loopback, where the engine asks without TLS."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.instance import eventually
from tools import demo_images, image_archive
from tools.busybox import find_static_busybox

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine
    from tests.instance import Host

PATIENCE_S = 20.0
UP = frozenset({200, 401})


def write_credentials(path: Path, host: str, password: str) -> None:
    """Write ann's password for a registry as docker would: whole, in the form of its config.json."""
    pair = base64.b64encode(f"ann:{password}".encode()).decode()
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"auths": {host: {"auth": pair}}}))
    temporary.chmod(0o600)
    temporary.rename(path)


def admit(host: Host, *registries: str) -> None:
    """Let images of *registries* in."""
    policy = yaml.safe_load(Path(host.policy).read_text())
    policy["images"]["allow"] += [f"{each}/" for each in registries]
    path = host.folder / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    host.policy = str(path)


class Registry:
    """One registry in *folder*; what was pushed stays there while it is down.

    With a password the user ``ann`` may pull and push, and nobody else.
    """

    def __init__(
        self, folder: Path, engine: PrivateEngine | FoundEngine, *, host: str, password: str = ""
    ) -> None:
        self.host = host
        self._folder = folder
        self._engine = engine
        self._users = folder / "htpasswd"
        self._process: subprocess.Popen[bytes] | None = None
        self._password = password
        if password:
            self.let_in(password)
        self.start()

    def let_in(self, password: str) -> None:
        """Make it the password of ``ann``, also while the registry runs."""
        done = subprocess.run(
            ["htpasswd", "-nbB", "-C", "4", "ann", password],
            capture_output=True,
            check=True,
            text=True,
        )
        temporary = self._users.with_suffix(".new")
        temporary.write_text(done.stdout)
        temporary.rename(self._users)
        self._password = password

    def start(self) -> None:
        """Serve; returns once it answers."""
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self._folder / "registry")}},
            "http": {"addr": self.host},
        }
        if self._password:
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(self._users)}}
        settings = self._folder / "registry.yaml"
        settings.write_text(yaml.safe_dump(config))
        with (self._folder / "registry.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._engine.inside("docker-registry", "serve", str(settings)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._serves, within_s=PATIENCE_S, what="the registry")

    def _serves(self) -> bool:
        process = self._process
        said = self._folder / "registry.log"
        assert process is not None, "it was started"
        assert process.poll() is None, said.read_text()
        try:
            port = int(self.host.rpartition(":")[2])
            return self._engine.http_get(port, path="/v2/").status in UP
        except OSError:
            return False

    def push(self, reference: str, image: demo_images.Image, *, config: Path | None = None) -> None:
        """Put an image of content of its own into the registry, and into nothing else.

        *config* is a folder with docker's config.json, where a password is asked for.
        """
        busybox = find_static_busybox()
        assert busybox is not None, "the demo images were built with it"
        files = {**image.files, "data/big": (os.urandom(256_000).hex(), 0o644)}
        unique = replace(image, reference=reference, files=files)
        image_archive.load(self._engine.host, demo_images.archive(unique, busybox.read_bytes()))
        env = {} if config is None else {"DOCKER_CONFIG": str(config)}
        self._engine.run_inside(["docker", "push", reference], env=env)
        self._engine.docker("rmi", reference)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
