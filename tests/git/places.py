"""A repository that a source follows, with all that can happen to it, also by its server and keys.

The ring of the fetcher and the test beside a real engine share it: a happening has one definition.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from controller.fetch.credentials import FOLDER as CREDENTIALS
from controller.fetch.mirror import GitLimits
from controller.fetch.verify import KEYS
from tests.engine import listen_here
from tests.git.repository import Repository, git
from tests.git.servers import FaultyServer, NginxServer, SshServer
from tests.instance import Host

PASSWORD = "a token"
#: The namespace that several sources declare resources in.
COMMON = "common"
SERVICE = """\
apiVersion: trimtab/v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}, owner: team}}
spec:
  image: trimtab.local/worker:1
  network: {{mode: none}}
  env: {{VERSION: "{version}"}}
"""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The folders and the network around a repository."""

    #: Everything of the repository and of its server.
    folder: Path
    #: The folder of ``spec.git.credentials``, and that of ``spec.verify.keys``.
    credentials: Path
    keys: Path
    namespace: str = "shop"
    #: The group that reads secrets; None for the caller alone.
    group: int | None = None
    #: Begins the command lines that start in the network of the fetcher.
    inside: Sequence[str] = ()
    #: Returns a listening socket in that network.
    listen: Callable[[int], socket.socket] = listen_here


@dataclass
class Place:
    """A repository that a source follows."""

    around: Surroundings
    repository: Repository
    happening: Happening
    server: NginxServer | SshServer | FaultyServer | None = None
    #: The commit that is served before the happening.
    served: str = ""

    @property
    def url(self) -> str:
        match self.server:
            case None:
                return self.repository.url
            case SshServer() as ssh:
                return ssh.url(self.repository.folder)
            case web:
                return f"{web.address}/{self.repository.folder.name}"

    def source_document(self, name: str, *, interval: str = "1h") -> str:
        """Return the Source that follows the repository, as JSON, which is YAML."""
        metadata = {"name": name, "owner": "team"}
        document = {"apiVersion": "trimtab/v1", "kind": "Source", "metadata": metadata}
        return json.dumps({**document, "spec": self.spec(interval=interval)})

    def spec(self, *, interval: str = "1h") -> dict[str, object]:
        """Return the spec of that Source."""
        git_spec: dict[str, object] = {"url": self.url, "path": "deploy", "interval": interval}
        if self.happening.ref is not None:
            git_spec["ref"] = dict(self.happening.ref)
        if isinstance(self.server, NginxServer | SshServer):
            git_spec["credentials"] = self.around.credentials.name
        if isinstance(self.server, NginxServer | FaultyServer):
            git_spec["allowInsecureLoopback"] = True
        spec: dict[str, object] = {"git": git_spec, "namespaces": [self.around.namespace]}
        if self.happening.verify is not None:
            spec["verify"] = {"mode": self.happening.verify, "keys": self.around.keys.name}
        if self.happening.is_shared:
            spec |= {"namespaces": [self.around.namespace, COMMON], "shared": True}
        return spec

    # What people with the right to push do.

    @property
    def head(self) -> str:
        """The newest commit of the branch main."""
        return git(self.repository.folder, "rev-parse", "refs/heads/main")

    def document(self, name: str = "web", *, namespace: str = "", version: int = 1) -> str:
        """Return a Service of the source's namespace."""
        space = namespace or self.around.namespace
        return SERVICE.format(name=name, namespace=space, version=version)

    @property
    def good(self) -> dict[str, str | bytes]:
        """The files of a good commit."""
        chart = "name: web\n"
        return {"deploy/web.yaml": self.document(), "configs/web/Chart.yaml": chart, "a.md": "x"}

    def commit(self, more: Mapping[str, str | bytes] | None = None, *, key: str = "") -> str:
        """Commit good files and *more* on ``main``, signed by the owner of a key."""
        path = self.key(key) if key else None
        return self.repository.commit({**self.good, **(more or {})}, key=path)

    def commit_another(self, *, key: str = "") -> str:
        """Commit a good change: the service, and another one."""
        return self.commit({"deploy/db.yaml": self.document("db")}, key=key)

    def tag(self, name: str, commit: str, *, key: str = "") -> None:
        """Make an annotated tag, signed by the owner of a key."""
        signing: tuple[str, ...] = ()
        if key:
            signing = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={self.key(key)}")
        words = (*signing, "tag", "-f", "-s" if key else "-a", "-m", name, name, commit)
        git(self.repository.folder, *words)

    def key(self, name: str) -> Path:
        """Return the private key of somebody, made when it is first asked for."""
        path = self.around.folder / name
        if not path.exists():
            words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path))
            subprocess.run(words, check=True)
        return path

    # What people with the right to change the host do.

    def allow(self, name: str = "alice", options: str = "") -> None:
        """Trust somebody's signatures, and nobody else's."""
        public = self.key(name).with_suffix(".pub").read_text()
        self.write_key("allowed_signers", f"{name}@example.org {options} {public}")

    def write_key(self, name: str, text: str) -> None:
        self.around.keys.mkdir(parents=True, exist_ok=True)
        (self.around.keys / name).write_text(text)

    def put(self, name: str, text: str) -> None:
        """Write a file of the credentials."""
        path = self.around.credentials / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if self.around.group is None:
            path.chmod(0o600)
        else:
            path.chmod(0o640)
            os.chown(path, -1, self.around.group)


def _commit_good(place: Place) -> object:
    return place.commit()


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happens to a repository or around it, and what comes of it."""

    happen: Callable[[Place], object]
    #: The state of the source and the reason, such as ``Held source.unrelated``.
    outcome: str = "Ready"
    #: Makes the commit that is served before.
    prepare: Callable[[Place], object] = _commit_good
    #: ``spec.git.ref``; None for the branch main.
    ref: Mapping[str, str] | None = None
    #: ``spec.verify.mode``.
    verify: str | None = None
    #: The server: file, http (nginx), ssh or faulty.
    over: str = "file"
    #: True if *happen* returns a commit that is served from then on.
    moves: bool = False
    #: True if the container is replaced by one of the new commit.
    replaces: bool = False
    #: The code of a problem of a resource, which the controller finds in the served commit.
    problem: str = ""
    #: True for a Source with ``shared: true``, which also declares resources of ``COMMON``.
    is_shared: bool = False
    #: The bounds in the fetcher's ring. Elsewhere they are the real ones.
    limits: GitLimits = field(default_factory=GitLimits)

    @property
    def shown(self) -> str:
        """The outcome as the status shows it: the controller finds problems in the served commit."""
        return "Degraded" if self.problem else self.outcome

    @property
    def state(self) -> str:
        """The state in the status."""
        return self.shown.partition(" ")[0]

    @property
    def reason(self) -> str:
        """The code of the outcome; '' for Ready."""
        return self.outcome.partition(" ")[2]


@contextmanager
def surroundings_beside(host: Host, name: str, *, namespace: str) -> Iterator[Surroundings]:
    """Yield surroundings for an instance of root's, whose fetcher has a user of its own.

    *name* is that of the Source, and must be the only one on this machine.
    """
    folders = CREDENTIALS / name, KEYS / name
    try:
        yield Surroundings(
            host.folder / "places" / name,
            *folders,
            namespace=namespace,
            group=pwd.getpwnam("trimtab-fetch").pw_gid,
            inside=host.engine.inside(),
            listen=host.engine.listen,
        )
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def open_place(happening: Happening, around: Surroundings) -> Iterator[Place]:
    """Make the repository, its first commit and its server; stop the server at the end."""
    root = around.folder / "served"
    place = Place(around, Repository(root / "deploy.git"), happening)
    if happening.verify is not None:
        place.allow()
    happening.prepare(place)
    with ExitStack() as stack:
        server = _server(happening.over, around, root)
        if server is not None:
            stack.callback(server.stop)
            place.server = server
        match server:
            case NginxServer():
                server.start()
                place.put("password", f"{PASSWORD}\n")
            case SshServer():
                server.start()
                place.put("id", (server.folder / "id").read_text())
                place.put("known_hosts", server.known_host())
            case FaultyServer() | None:
                pass
        yield place


def _server(
    over: str, around: Surroundings, root: Path
) -> NginxServer | SshServer | FaultyServer | None:
    inside, listen = around.inside, around.listen
    match over:
        case "http":
            folder = around.folder / "nginx"
            return NginxServer(folder, root, password=PASSWORD, inside=inside, listen=listen)
        case "ssh":
            return SshServer(around.folder / "ssh", inside=inside, listen=listen)
        case "faulty":
            return FaultyServer(root, listen)
        case _:
            assert over == "file", f"no such server: {over}"
            return None
