"""The world that the cases speak of: a broker behind a tap, callers, and what the tokens mean.

What belongs to alice and bob is made through the broker, what belongs to nobody straight on the
engine. Everything is gone after ``close``.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from controller.app.state_folder import trimtab_gid
from controller.core.encoding.identifiers import parse_reference
from controller.model import names
from controller.system import sockets
from tests.gate import wire
from tests.gate.roles import ALICE, BOB, CONTROLLER, VIEWER, VIEWER_OF_ALL, Peer
from tests.gate.tap import DIGEST, Tap
from tests.gate.wire import Answer
from tests.instance import eventually

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

PROJECT = Path(__file__).parents[2]
STRICT = PROJECT / "configs" / "policies" / "strict.yaml"
KNOBS: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "knobs.yaml").read_text()
)
IMAGE = "ghcr.io/platformnetwork/web:1.2.3"
ALLOWED = "ghcr.io/platformnetwork/"
#: The image that runs, and another one for names that mean something else than was let in.
RUNS, OTHER = "trimtab.local/worker:1", "trimtab.local/web:1"
BIND_ROOTS = ("/tmp/", "/var/lib/platform/")
#: Which folders the worlds of all processes made.
MADE = Path("/run/lock/trimtab-test-folders")
#: A Trimtab-Context, without which the controller's uid is nobody.
CONTEXT = "eyJjYXVzZSI6ImdhdGUtY2FzZXMifQ"
PATIENCE_S = 60.0
_REFERENCE = re.compile(r"ghcr\.io/platformnetwork/[a-z0-9][a-z0-9._/-]*(?::[A-Za-z0-9_.-]+)?")
_SIZE = re.compile(r"\{\{PAD_([0-9]+)(B|KIB|MIB|)\}\}")
_PARAMETERS = re.compile(r"\{\{Q_([0-9]+)\}\}")
_FACTOR = {"": 1, "B": 1, "KIB": 1024, "MIB": 1024 * 1024}


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a case asks of the policy: settings by path."""

    settings: tuple[tuple[str, str], ...] = ()  # values as JSON: hashable, in one order

    @classmethod
    def read(cls, text: str | None, *, permit: bool) -> Knobs:
        """Read a case's knob: ``K=v`` is that value; K alone permits only if *permit*.

        A knob with ``always`` permits in any case; ``needs`` has settings that it needs beside.
        """
        name, given, value = (text or "").partition("=")
        known = KNOBS.get(name)
        if known is None or not (given or permit or known.get("always")):
            return cls()
        meant = _setting(value, known["permits"]) if given else known["permits"]
        needed = sorted(known.get("needs", {}).items())
        return cls(((known["path"], json.dumps(meant)), *((k, json.dumps(v)) for k, v in needed)))

    def policy(self) -> str:
        """Return strict with these settings, with alice and bob as clients, and with viewers."""
        policy = yaml.safe_load(STRICT.read_text())
        policy["clients"] = [{"uid": ALICE, "owner": "alice"}, {"uid": BOB, "owner": "bob"}]
        policy["viewers"] = [
            {"uid": VIEWER, "owners": ["alice"], "logs": ["alice"]},
            {"uid": VIEWER_OF_ALL, "owners": "all"},
        ]
        # The tests ask far more than a client does.
        policy["quotas"] |= {"mutationsPerSecond": 10_000, "journalPerDay": "10Gi"}
        policy["quotas"] |= {"networksPerOwner": 20}
        policy["quotas"]["clients"] |= {"networks": 24}
        for path, value in self.settings:
            *above, last = path.split(".")
            section = policy
            for part in above:
                section = section.setdefault(part, {})
            section[last] = json.loads(value)
        return yaml.safe_dump(policy)


def _setting(text: str, permits: object) -> object:
    """Read the value of ``K=v``: a list may be written plainly, and ``no`` is a word in one."""
    if not isinstance(permits, list):
        return yaml.safe_load(text)
    words = text.strip().removeprefix("[").removesuffix("]").split(",")
    return [word.strip().strip("'\"") for word in words if word.strip()]


class Gate:
    """A broker of its own process, on the tap's socket."""

    def __init__(
        self,
        folder: Path,
        *,
        engine: Path,
        program: str = "controller",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.state = folder / "state"
        self.socket = folder / "state" / "run" / "broker.sock"
        self.log = folder / "broker.log"
        self._policy = folder / "policy.yaml"
        self._present = Knobs()
        self._policy.write_text(self._present.policy())
        (folder / "desired-state").mkdir()
        argv = [sys.executable, "-m", program, "broker", "--engine", f"unix://{engine}"]
        argv += ["--policy", str(self._policy), "--state", str(self.state)]
        self._argv = [*argv, "--controller-uid", str(CONTROLLER)]
        own = {"PYTHONPATH": str(PROJECT), "DOCKER_HOST": f"unix://{engine}"}
        self._environment = {**own, **(environment or {})}
        self.start()

    def start(self) -> None:
        """Start it, again after it ended."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                cwd=self._policy.parent,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def serves(self) -> bool:
        """Tell whether it serves; that it ended is an error."""
        assert self._process.poll() is None, f"the broker ended:\n{self.log.read_text()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            return caller.connect_ex(str(self.socket)) == 0

    def put_in_force(self, knobs: Knobs, digest: Callable[[], str]) -> None:
        """Change the policy, and return once the broker judges by it."""
        if knobs == self._present:
            return
        before, text = digest(), knobs.policy()
        changed = yaml.safe_load(text) != yaml.safe_load(self._present.policy())
        self._present = knobs
        if changed:
            self._policy.write_text(text)
            self._process.send_signal(signal.SIGHUP)
            eventually(lambda: digest() != before, within_s=PATIENCE_S, what="the new policy")

    def crashed(self) -> bool:
        """Wait until it ended by itself, and tell that it was killed."""
        return self._process.wait(timeout=PATIENCE_S) < 0

    def kill(self) -> None:
        """End it as a lack of memory would."""
        self._process.kill()
        self._process.wait(timeout=PATIENCE_S)

    def reload(self, text: str) -> None:
        """Write another policy and say so."""
        self._policy.write_text(text)
        self._process.send_signal(signal.SIGHUP)

    def close(self) -> None:
        """End it as systemd would."""
        self._process.terminate()
        try:
            self._process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


class World:
    """Broker, tap, callers and objects. ``texts`` are the cases, for the images that they name."""

    def __init__(self, engine: PrivateEngine | FoundEngine, texts: Iterable[str]) -> None:
        self.engine = engine
        self.folder = Path(tempfile.mkdtemp(prefix="trimtab-gate-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self._stack = ExitStack()
        self._configs: dict[str, dict[str, Any]] = {}  # of images, by id
        self._stack.callback(shutil.rmtree, self.folder)
        try:
            self._open()
            self._furnish(texts)
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        # Its folder is closed to mounts, and so would be the directory below the same folder.
        (self.folder / "engine").mkdir()
        self.tap = Tap(self.folder / "engine" / "engine.sock", engine_host=self.engine.host)
        self._stack.callback(self.tap.close)
        self.gate = Gate(self.folder, engine=self.tap.path)
        self._stack.callback(self.gate.close)
        group = trimtab_gid()
        self._peers = {
            "alice": self._stack.enter_context(Peer(ALICE, [group])),
            "bob": self._stack.enter_context(Peer(BOB, [group])),
            "controller": self._stack.enter_context(Peer(CONTROLLER, [group])),
            "operator": self._stack.enter_context(Peer(0, [])),
            "viewer": self._stack.enter_context(Peer(VIEWER, [])),
            "viewer-of-all": self._stack.enter_context(Peer(VIEWER_OF_ALL, [])),
        }
        eventually(self.gate.serves, within_s=PATIENCE_S, what="the broker's socket")

    def close(self) -> None:
        """Remove what was made, end the broker, remove every file."""
        with self._stack:
            if "gate" in self.__dict__ and self.gate.socket.exists():
                self._remove_all()

    # Asking.

    def connect(self, who: str, path: Path | None = None) -> socket.socket:
        """Return a caller's connection to the broker, or to whatever serves *path*."""
        return self._peers[who].connect(path or self._door(who))

    def _door(self, who: str) -> Path:
        """Return the broker's socket for a caller: viewers are in no group, and have their own."""
        shared = self.gate.socket
        is_viewer = who.startswith("viewer")
        return sockets.reserved_socket(shared, sockets.VIEWER) if is_viewer else shared

    def ask(self, who: str, method: str, path: str, body: object = None) -> Answer:
        """Ask the broker as somebody."""
        sent = None if body is None else json.dumps(body).encode()
        headers: dict[str, str | None] = {"Trimtab-Context": CONTEXT} if who == "controller" else {}
        target = path if path.startswith("/trimtab/") else f"/v1.45{path}"
        return wire.ask(self.connect(who), wire.request(method, target.encode(), sent, headers))

    def must(self, who: str, method: str, path: str, body: object = None) -> Any:
        """Ask for a fixture, which must be had; returns the answer's JSON."""
        answer = self.ask(who, method, path, body)
        assert answer.good or answer.status == 304, (
            f"{who}: {method} {path}: {answer.status} {answer.body!r}"
        )
        return answer.json

    def config_of(self, image: str) -> dict[str, Any]:
        """Return the config of an image; empty for ''."""
        if image and image not in self._configs:
            shown = self.engine.docker("image", "inspect", image, check=False).stdout or "[]"
            self._configs[image] = next((each["Config"] for each in json.loads(shown)), {})
        return self._configs.get(image, {})

    def engine_id(self, kind: str, name: str) -> str:
        """Return the id of an object of the engine's."""
        path = f"/images/{name}/json" if kind == "image" else f"/{kind}s/{name}"
        return str(self.engine.must("GET", path)["Id"])

    def _tag(self, image: str, reference: str) -> None:
        repository, _, tag = reference.rpartition(":")
        self.engine.must("POST", f"/images/{image}/tag?repo={repository}&tag={tag}")

    def policy_digest(self) -> str:
        """Return the digest of the policy in force."""
        return str(self.must("operator", "GET", "/trimtab/v1/policy")["digest"])

    def set_knobs(self, knobs: Knobs) -> None:
        """Put the policy with these knobs into force."""
        self.gate.put_in_force(knobs, self.policy_digest)

    # Objects.

    def _furnish(self, texts: Iterable[str]) -> None:
        self.instance = str(self.must("operator", "GET", "/trimtab/v1/whoami")["instance"])
        self._tag_images(texts)
        self._make_loose_objects()
        self.tokens |= {"INSTANCE": self.instance, "LIKE6": "000000"}
        self.own = ""
        for owner, token in (("alice", "OWN"), ("bob", "FOREIGN")):
            self.must(owner, "POST", "/networks/create", {"Name": f"{owner}-isle"})
            self.must(owner, "POST", "/volumes/create", {"Name": f"{owner}-store"})
            self.tokens |= {f"NET_{token}": f"{owner}-isle", f"VOL_{token}": f"{owner}-store"}
        foreign = self._container("bob", "bob-shop-1", running=True)
        self.tokens |= {"FOREIGN": foreign, "FOREIGN_SHORT": foreign[:12]}
        self.tokens |= {"FOREIGN_NAME": "bob-shop-1"}
        # The networks that modes and ports imply: so that no case is the one to make them.
        for mode in ("default", "bridge"):
            ports = {"8080/tcp": [{"HostPort": "18079"}]} if mode == "default" else {}
            host = {"NetworkMode": mode, "PortBindings": ports}
            made = self._container("alice", "alice-door", running=False, HostConfig=host)
            self.must("alice", "DELETE", f"/containers/{made}")

    def _tag_images(self, texts: Iterable[str]) -> None:
        image = self.engine_id("image", RUNS)
        self.tap.trusted_id = image
        named = {IMAGE, f"{ALLOWED}web:latest", f"{ALLOWED}team/sub/app:2"}
        named |= {match.rstrip(":.") for text in texts for match in _REFERENCE.findall(text)}
        references = {canonical for text in named if (canonical := _canonical(text))}
        self._tags = [*sorted(references), f"{ALLOWED}moved:1", f"{ALLOWED}spoofed:1"]
        self._tags += ["docker.io/library/gate-foreign:1", "untrusted.example/x:1"]
        for tag in self._tags:
            forged = tag.endswith(("/spoofed:1", "gate-foreign:1", "untrusted.example/x:1"))
            self._tag(OTHER if forged else RUNS, tag)
        by_digest = {f"{tag.rpartition(':')[0]}@sha256:{DIGEST}" for tag in references}
        by_digest |= {f"{tag}@sha256:{DIGEST}" for tag in references}
        for reference in sorted({*references, *by_digest, f"{ALLOWED}moved:1"}):
            self.must("operator", "POST", "/trimtab/v1/trust", {"reference": reference})
        self._tag(OTHER, f"{ALLOWED}moved:1")
        self.tokens = {
            "IMG": IMAGE,
            "DIGEST": DIGEST,
            "IMG_ID": image,
            "IMG_SPOOFED": f"{ALLOWED}spoofed:1",
            "IMG_MOVED": f"{ALLOWED}moved:1",
            "IMG_FOREIGN": "docker.io/library/gate-foreign:1",
            "UNTRUSTED_IMG": "untrusted.example/x:1",
            "L_OWNER": names.OWNER,
            "L_SERVICE": names.SERVICE,
            "L_MANAGED": names.MANAGED,
            "L_OWNER_UPPER": names.OWNER.upper(),
        }

    def _make_loose_objects(self) -> None:
        docker = self.engine.docker
        self.unmanaged = docker("create", "--name", "gate-unmanaged", RUNS).stdout.strip()
        bind = [f"--opt={each}" for each in ("type=none", "o=bind", "device=/")]
        docker("volume", "create", *bind, "gate-bindroot")
        docker("volume", "create", "gate-unlabelled")
        bridge = self.engine_id("network", "bridge")
        link = Path("/tmp", f"gate-link-{self.folder.name}")
        link.symlink_to(self.folder)
        self._stack.callback(link.unlink, missing_ok=True)
        # Other processes' worlds have the same folders: this one's lock is held while it has them.
        self._made = self._stack.enter_context(MADE.open("a+"))
        fcntl.flock(self._made, fcntl.LOCK_SH)
        self._stack.callback(self._remove_folders)
        self.make_folder("/tmp/policy-x")
        self.tokens |= {
            "UNMANAGED": self.unmanaged,
            "VOL_BINDROOT": "gate-bindroot",
            "VOL_UNLABELLED": "gate-unlabelled",
            "NET_HOST_ID": self.engine_id("network", "host"),
            "NET_BRIDGE_ID": bridge,
            "NET_BRIDGE_PREFIX": bridge[:6],
            "SYMLINK": str(link),
            "DIR": str(self.folder / "desired-state"),
        }
        shop = self.folder / "desired-state" / "shop"
        (shop / "data").mkdir(parents=True)
        (shop / "compose.yaml").touch()

    def make_folder(self, path: str) -> None:
        """Make a bind source of a case, if it is a plain path under an allowed root.

        A name with ``.conf`` at its end is a file's.
        """
        missing = Path(path)
        if path != os.path.normpath(path) or not path.startswith(BIND_ROOTS):
            return
        while not missing.exists() and not missing.is_symlink():
            self._made.write(f"{missing}\n")
            missing = missing.parent
        self._made.flush()
        if not missing.is_dir():
            return
        folder = Path(path).parent if path.endswith(".conf") else Path(path)
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        if path.endswith(".conf"):
            Path(path).touch(mode=0o644)

    def _remove_folders(self) -> None:
        """Remove what was made, of all worlds there were, if no other world is left."""
        try:
            fcntl.flock(self._made, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        self._made.seek(0)
        made = {Path(line) for line in self._made.read().splitlines()}
        for place in sorted(made, key=lambda path: -len(path.parts)):
            if place.suffix == ".conf":
                place.unlink(missing_ok=True)
            elif place.is_dir() and not any(place.iterdir()):
                place.rmdir()
        self._made.truncate(0)

    def _container(self, owner: str, name: str, *, running: bool, **more: object) -> str:
        labels = {names.OWNER: owner, names.SERVICE: "web"}
        body = {"Image": IMAGE, "Labels": labels, "Env": ["SECRET=hidden-of-" + owner], **more}
        made = str(self.must(owner, "POST", f"/containers/create?name={name}", body)["Id"])
        if running:
            self.must(owner, "POST", f"/containers/{made}/start")
        return made

    def renew_own(self, state: str) -> None:
        """Make alice's container anew, in the state that a case needs."""
        self.drop_own()
        isolated = {"NetworkMode": self.tokens["NET_OWN"]} if state == "joined" else {}
        self.own = self._container(
            "alice",
            "alice-web-1",
            running=state != "created",
            Tty=state == "terminal",
            OpenStdin=True,
            HostConfig=isolated or {"NetworkMode": "none" if state == "alone" else "default"},
        )
        if state == "paused":
            self.must("alice", "POST", f"/containers/{self.own}/pause")
        if state == "stopped":
            self.must("alice", "POST", f"/containers/{self.own}/kill")
        self.tokens |= {
            "OWN": self.own,
            "OWN_NAME": "alice-web-1",
            "OWN_UPPER": self.own.upper(),
            "OWN_PREFIX1": self.own[:1],
            "OWN_SHORT": self.own[:12],
        }

    def drop_own(self) -> None:
        """Remove alice's container, if it is there."""
        if self.own:
            self.ask("operator", "DELETE", f"/containers/{self.own}?force=1")
        self.own = ""

    def renew_belongings(self) -> None:
        """Make alice's network and volume again if a case removed them."""
        for kind, key in (("networks", "NET_OWN"), ("volumes", "VOL_OWN")):
            name = self.tokens[key]
            if self.ask("alice", "GET", f"/{kind}/{name}").status == 404:
                self.must("alice", "POST", f"/{kind}/create", {"Name": name})

    def make_exec(self, token: str) -> None:
        """Make an exec for a token: through the broker, or outside of it."""
        held = self.tokens["FOREIGN" if token == "FOREIGN_EXEC" else "OWN"]
        path = f"/containers/{held}/exec"
        outside = token == "PRIV_EXEC_OUTSIDE"
        body = {"Cmd": ["echo", "x"], "AttachStdout": True, "Privileged": outside}
        if not outside:
            self.tokens[token] = str(self.must("operator", "POST", path, body)["Id"])
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as straight:
            straight.connect(str(self.engine.socket))
            raw = wire.request("POST", f"/v1.45{path}".encode(), json.dumps(body).encode())
            answer = wire.ask(straight, raw)
        assert answer.status == 201, answer
        self.tokens[token] = str(answer.json["Id"])

    def pin_revision(self) -> None:
        """Have the controller create a container of a revision: the revision is pinned to IMAGE."""
        if "REV_PINNED" in self.tokens:
            return
        revision = "v2:" + "5a" * 32
        labels = controller_labels("pinned", slot=1, revision=revision, image=IMAGE)
        name = names.container_name("pins", "pinned", slot=1, revision=revision)
        body = {"Image": IMAGE, "Labels": labels, "HostConfig": {"NetworkMode": "none"}}
        self.must("controller", "POST", f"/containers/create?name={name}", body)
        self.tokens |= {"REV_PINNED": revision, "NAME_PINNED": name}

    def deliver_files(self) -> None:
        """Have the controller deliver a Config of alice's, one elsewhere, and mount the first."""
        if "CONTENT" in self.tokens:
            return
        for token, namespace, page in (
            ("CONTENT", "files", "aGk="),
            ("CONTENT_ELSEWHERE", "elsewhere", "eA=="),
        ):
            body = {"owner": "alice", "files": {"page": page}}
            path = f"/trimtab/v1/files/config/{namespace}/site"
            self.tokens[token] = self.must("controller", "PUT", path, body)["Content"]
        revision = "v2:" + "6c" * 32
        labels = controller_labels("maker", slot=1, revision=revision, image=IMAGE)
        labels |= {names.OWNER: "alice", names.NAMESPACE: "files"}
        files = {"Content": self.tokens["CONTENT"]}
        mount = {"Type": "config", "Source": "site", "Target": "/srv/site", "ReadOnly": True}
        host = {"NetworkMode": "none", "Mounts": [{**mount, "Trimtab": files}]}
        name = names.container_name("files", "maker", slot=1, revision=revision)
        body = {"Image": IMAGE, "Labels": labels, "HostConfig": host}
        made = self.must("controller", "POST", f"/containers/create?name={name}", body)["Id"]
        self.tokens["FILES_FOLDER"] = self.engine_mounts(made)
        self.ask("operator", "DELETE", f"/containers/{made}?force=1")

    def make_look_alike(self, looks: Mapping[str, Any]) -> None:
        """Make a container of nobody, in place of the one before."""
        docker = self.engine.docker
        for each in LOOK_ALIKES:
            self.engine.clear(f"/containers/{each}?force=1&v=1")
        act, name = looks.get("act", "run"), looks.get("name", LOOK_ALIKES[0])
        verb = ("create",) if act == "create" else ("run", "--detach")
        image = looks.get("image", IMAGE)
        made = docker(
            *verb, "--name", name, *looks["options"], image, *looks.get("command", ())
        ).stdout.strip()
        if act == "pause":
            docker("pause", name)
        self.tokens["LIKE6"] = made[:6]

    def engine_mounts(self, container: str) -> str:
        """Return the source of a container's first mount, as the engine has it."""
        return str(self.engine.inspect(container)["HostConfig"]["Mounts"][0]["Source"])

    def make_runs(self) -> None:
        """Have the controller make runs of jobs: some that ended well, and some that go on."""
        if "RUN_ENDED" in self.tokens:
            return
        ends, goes_on = ["/bin/sh", "-c", "exit 0"], ["/bin/sh", "-c", "exec sleep 600"]
        for token, job, number, command, completions in (
            ("RUN_FEW", "few", 1, ends, {names.COMPLETIONS: "2/2"}),
            ("RUN_FEWER", "few", 2, ends, {names.COMPLETIONS: "2/2"}),
            ("RUN_MANY", "many", 1, goes_on, {names.COMPLETIONS: "3/2"}),
            ("RUN_MORE", "many", 2, goes_on, {names.COMPLETIONS: "3/2"}),
            ("RUN_ENDED", "ended", 1, ends, {}),
            ("RUN_OPEN", "open", 1, goes_on, {}),
        ):
            labels = controller_labels(job, slot=1, revision=RUN_REVISION, image=IMAGE)
            labels |= {names.SLOT: names.run_slot(number), names.OCCASION: "change", **completions}
            name = names.run_name("pins", job, number=number, revision=RUN_REVISION)
            body = {
                "Image": IMAGE,
                "Labels": labels,
                "Entrypoint": command,
                "HostConfig": {"NetworkMode": "none"},
            }
            made = self.must("controller", "POST", f"/containers/create?name={name}", body)
            run = str(made["Id"])
            self.must("controller", "POST", f"/containers/{run}/start")
            self.tokens[token] = run
        for token in ("RUN_FEW", "RUN_FEWER", "RUN_ENDED"):
            path = f"/containers/{self.tokens[token]}/json"
            while self.must("controller", "GET", path)["State"]["Running"]:
                pass

    def make_mates(self) -> None:
        """Have the controller make services to share with: one that runs, and others that aren't to be had."""
        if "MATE" in self.tokens:
            return
        revision = "v2:" + "7d" * 32
        for service, owner, namespace in (
            ("mate", "alice", "default"),
            ("away", "alice", "vols"),
            ("rival", "bob", "default"),
            ("halted", "alice", "default"),
        ):
            labels = controller_labels(service, slot=1, revision=revision, image=IMAGE)
            labels |= {names.OWNER: owner, names.NAMESPACE: namespace}
            name = names.container_name(namespace, service, slot=1, revision=revision)
            body = {
                "Image": IMAGE,
                "Labels": labels,
                "Entrypoint": ["/bin/sh", "-c", "exec sleep 600"],
                "HostConfig": {"NetworkMode": "none"},
            }
            made = self.must("controller", "POST", f"/containers/create?name={name}", body)["Id"]
            self.tokens[service.upper()] = str(made)
            if service != "halted":
                self.must("controller", "POST", f"/containers/{made}/start")

    def fill(self, text: str) -> str:
        """Replace the tokens of a case's text; one that isn't known is an error."""
        text = _SIZE.sub(lambda found: "x" * (int(found[1]) * _FACTOR[found[2]]), text)
        text = _PARAMETERS.sub(
            lambda found: "&".join(f"p{number}=1" for number in range(int(found[1]))), text
        )
        return re.sub(r"\{\{(\w+)\}\}", lambda found: self.tokens[found[1]], text)

    def _remove_all(self) -> None:
        """Remove from the engine what was made through the broker, and the rest.

        Asked of the engine itself, several at a time: the broker would judge and record each removal.
        """
        inventory = self.must("operator", "GET", "/trimtab/v1/inventory")
        for kind, suffix in (("containers", "?force=1"), ("networks", ""), ("volumes", "")):
            named = (each["name" if kind == "volumes" else "id"] for each in inventory[kind])
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(self.engine.clear, [f"/{kind}/{each}{suffix}" for each in named]))
        for each in ("gate-unmanaged", *LOOK_ALIKES):
            self.engine.clear(f"/containers/{each}?force=1")
        for each in ("gate-bindroot", "gate-unlabelled"):
            self.engine.clear(f"/volumes/{each}")
        for tag in self._tags:
            self.engine.clear(f"/images/{tag}")

    _tags: tuple[str, ...] | list[str] = ()


#: The names of containers of nobody that look like a service.
LOOK_ALIKES = ("gate-like", "like.1-7e7e7e7e")
#: The revision of all runs of jobs.
RUN_REVISION = "v2:" + "6a" * 32


def controller_labels(service: str, *, slot: int, revision: str, image: str) -> dict[str, str]:
    """Return the labels of a container that the controller makes for carol, in namespace pins."""
    return {
        names.OWNER: "carol",
        names.NAMESPACE: "pins",
        names.SERVICE: service,
        names.SLOT: str(slot),
        names.REVISION: revision,
        names.IMAGE: image,
    }


def _canonical(text: str) -> str:
    try:
        return parse_reference(text).canonical
    except ValueError:
        return ""
