"""The requests of a docker command: runs the installed docker against a recorder.

No engine is contacted, no image is pulled and no container runs. Docker gets a configuration of
its own and finds no other program: no credential helper, no builder, no context.

A Unix socket that records Engine API requests and answers without an engine.

Each request gets the reply of an engine that has every image and carries out every call, so that
a docker client goes on to its next request. Nothing is created, pulled or started.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

from controller.core.encoding.json_values import parse_object
from controller.model.errors import UsageError

#: The newest version of the Engine API that the broker reads. Docker adapts its requests to it.
API_VERSION = "1.45"
REQUESTS_MAX = 1000
BODY_BYTES_MAX = 4 * 1024 * 1024
ALL_BODIES_BYTES_MAX = 64 * 1024 * 1024
IDLE_S = 20.0
_READ_BYTES = 4096
_VERSION = re.compile(r"^/v[0-9.]+(?=/)")
_LISTS = frozenset({"/images/json", "/images/search"})
_HIJACKED = re.compile(r"/(containers/[^/]+/attach|exec/[^/]+/start)")
#: Compose creates missing networks and volumes. Docker would write archives to files.
_ABSENT = re.compile(r"/((networks|volumes)/[^/]+|.+/(archive|export|logs)|images/get)")
#: One reply for all other calls, with the members that docker and compose read in any of them.
_REPLY: dict[str, Any] = {
    "ApiVersion": API_VERSION,
    "Version": "26.1.5",
    "OSType": "linux",
    "Os": "linux",
    "Swarm": {"LocalNodeState": "inactive"},
    "State": {"Status": "running", "Running": True, "Health": {"Status": "healthy"}},
    "Config": {"Labels": {}},
    "HostConfig": {},
    "NetworkSettings": {"Networks": {}},
    "Mounts": [],
    "Warnings": [],
    "StatusCode": 0,
    "ExitCode": 0,
}


class EngineRequest(NamedTuple):
    """A request to the engine."""

    method: str
    path: str  # without a version
    query: str  # raw
    body: bytes  # empty for no body; cut off above BODY_BYTES_MAX


class DockerRecorder(socketserver.ThreadingUnixStreamServer):
    """Records the requests to a socket: run ``serve_forever`` in a thread."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.requests: list[EngineRequest] = []
        #: The created containers, as a list of containers shows them to compose.
        self.containers: list[dict[str, Any]] = []
        #: The networks and volumes that a client has inspected.
        self.inspected: set[str] = set()
        super().__init__(str(path), _Handler)

    @property
    def is_full(self) -> bool:
        """Return True if the recorder takes no more requests."""
        size = sum(len(request.body) for request in self.requests)
        return len(self.requests) >= REQUESTS_MAX or size >= ALL_BODIES_BYTES_MAX

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: docker's own error shows that a connection broke."""


class _Handler(BaseHTTPRequestHandler):
    """Records and answers the requests of one connection."""

    server: DockerRecorder
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S

    def log_message(self, *_: object) -> None:
        """Print nothing: standard error belongs to the command."""

    def _handle(self) -> None:
        path, _, query = _VERSION.sub("", self.path).partition("?")
        request = EngineRequest(self.command, path, query, self._read_body())
        if self.server.is_full:
            self.close_connection = True
            return
        if path != "/_ping":
            self.server.requests.append(request)
        if _HIJACKED.fullmatch(path):
            self._hijack()
        elif request.method in {"GET", "HEAD"} and _ABSENT.fullmatch(path):
            self.server.inspected.add(_object_name(path))
            self._reply(HTTPStatus.NOT_FOUND, {"message": "no engine answers here"})
        else:
            created = path.endswith("/create")
            status = HTTPStatus.CREATED if created else HTTPStatus.OK
            self._reply(status, self._result(request))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 - named by http.server

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            length = int(self.headers.get("Content-Length") or 0)
            self.close_connection |= length > BODY_BYTES_MAX
            return self.rfile.read(min(length, BODY_BYTES_MAX))
        body = b""
        while size := int(self.rfile.readline(_READ_BYTES).partition(b";")[0] or b"0", 16):
            body += self.rfile.read(min(size, BODY_BYTES_MAX - len(body)))
            if len(body) >= BODY_BYTES_MAX:
                self.close_connection = True
                return body
            self.rfile.readline(_READ_BYTES)
        self.rfile.readline(_READ_BYTES)
        return body

    def _hijack(self) -> None:
        """Turn the connection into a stream: empty from here, read to the end of the client's."""
        self.close_connection = True
        self.send_response(HTTPStatus.SWITCHING_PROTOCOLS)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "tcp")
        self.end_headers()
        self.connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            # A close with unread input would reset the connection, and docker would fail.
            while self.connection.recv(_READ_BYTES):
                pass

    def _result(self, request: EngineRequest) -> object:
        path, body = request.path, parse_object(request.body)
        if path == "/containers/json":
            return self.server.containers
        if path == "/networks":
            # Compose inspects its own networks before it lists them, but lists external ones first.
            external = _filtered_names(request.query) - self.server.inspected
            return [{"Id": name, "Name": name} for name in sorted(external)]
        if path in _LISTS or path.endswith("/changes") or request.method == "DELETE":
            return []
        query_names = parse_qs(request.query).get("name")
        name = query_names[0] if query_names else str(body.get("Name") or _object_name(path))
        if path == "/containers/create":
            labels = body.get("Labels") or {}
            self.server.containers.append({"Id": name, "Names": [f"/{name}"], "Labels": labels})
        return _REPLY | {"Id": name, "Name": name}

    def _reply(self, status: HTTPStatus, result: object) -> None:
        data = b"" if self.command == "HEAD" else json.dumps(result).encode()
        self.send_response(status)
        self.send_header("Api-Version", API_VERSION)
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _filtered_names(query: str) -> set[str]:
    """Return the names in a ``filters`` parameter."""
    filters = parse_object("".join(parse_qs(query).get("filters", ())).encode())
    return set(filters.get("name") or ())


def _object_name(path: str) -> str:
    """Return the name in a path, or a placeholder: ``CONTAINER`` for ``/containers/create``."""
    kind, _, rest = path.strip("/").partition("/")
    if rest in {"", "create"}:
        return kind.removesuffix("s").upper()
    name, _, _ = rest.rpartition("/") if "/" in rest else (rest, "", "")
    return unquote(name)


TIMEOUT_S = 20.0
_STDERR_BYTES_MAX = 4096
_POLL_S = 0.05
_TMPDIR_MAX = 60
_MIB = ALL_BODIES_BYTES_MAX >> 20
#: Commands that only ask the engine. The others contact registries or builders themselves, change
#: the settings of docker, or are plugins of the user.
_COMMANDS = """
    attach build commit compose config container cp create diff events exec export history image images
    import info inspect kill load logs network node pause plugin port ps pull push rename restart rm
    rmi run save search secret service stack start stats stop swarm system tag top unpause update
    version volume wait
"""
#: Commands of compose that only ask the engine. `config -o` writes a file, `publish` pushes itself.
_COMPOSE_COMMANDS = """
    attach build create down events exec images kill logs ls pause port ps pull push restart rm run
    scale start stats stop top unpause up version wait
"""
_COMPOSE_OPTIONS_WITH_VALUE = """
    --ansi --env-file -f --file --parallel --profile --progress --project-directory -p --project-name
"""
#: Options in front of the command: they choose an engine, and no engine is asked.
_GLOBAL_OPTIONS_WITH_VALUE = """
    -H --host -c --context --config -l --log-level --tlscacert --tlscert --tlskey
"""
#: Compose asks these of the engine before it reads its file.
_PREAMBLE = frozenset({"/info", "/version"})
#: Options that write a file.
_FILE_OPTIONS = frozenset({"--cidfile", "--iidfile"})
#: Docker verifies pulls with a notary server unless this option is true. Go reads these as true.
_CONTENT_TRUST = "--disable-content-trust"
_TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})
#: Variables that lead docker to other engines, registries or builders.
_VARIABLES = (
    "BUILDKIT_",
    "BUILDX_",
    "DOCKER_CERT_PATH",
    "DOCKER_CLI_",
    "DOCKER_CONTENT_TRUST",
    "DOCKER_CONTEXT",
    "DOCKER_TLS",
)


@dataclass(frozen=True, slots=True)
class Recording:
    """The requests of a docker command."""

    #: In order, each once.
    requests: tuple[EngineRequest, ...]
    #: The reason why docker failed; None if it succeeded.
    error: str | None


def record(words: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> Recording:
    """Run a docker command, with or without ``docker`` in front, and return its requests.

    Raises:
        UsageError: docker isn't installed, or the command does more than ask the engine.
    """
    line = _command_line(words)
    program = shutil.which("docker")
    if program is None:
        raise UsageError(
            "docker.missing",
            "the docker command isn't installed; it is needed to find the requests of the line",
            remedy="install it (Debian: docker-cli, for compose also docker-compose), or name the "
            "request: trimtab policy explain METHOD PATH --body FILE",
        )
    # The path of a Unix socket has at most 107 bytes.
    parent = None if len(gettempdir()) <= _TMPDIR_MAX else "/tmp"  # noqa: S108 - made 0700
    with TemporaryDirectory(prefix="trimtab-docker-", dir=parent) as name:
        folder = Path(name)
        host = f"unix://{folder / 'docker.sock'}"
        with DockerRecorder(folder / "docker.sock") as recorder:
            threading.Thread(target=recorder.serve_forever, args=(_POLL_S,), daemon=True).start()
            try:
                argv = [program, "--host", host, *line]
                error = _run(argv, _environment(folder, host), folder / "stderr", timeout_s)
            finally:
                recorder.shutdown()
    if recorder.is_full:
        error = f"docker sent more than {REQUESTS_MAX} requests, or {_MIB} MiB"
    requests = tuple(dict.fromkeys(recorder.requests))
    command = tuple(request for request in requests if request.path not in _PREAMBLE)
    return Recording(command or (() if error else requests), error)


def _command_line(words: Sequence[str]) -> list[str]:
    """Return the words from the command on, without ``docker`` and its global options."""
    line = list(words)
    program = line[0].rpartition("/")[2] if line else ""
    if program == "docker-compose":
        line[0] = "compose"
    elif program == "docker":
        del line[0]
    while line and line[0].startswith("-"):
        del line[: 2 if line[0] in _GLOBAL_OPTIONS_WITH_VALUE.split() else 1]
    if not line or line[0] not in _COMMANDS.split():
        command = f"docker {line[0]}" if line else "docker"
        raise UsageError(
            "line.invalid",
            f"'{command}' isn't a command that only asks the engine",
            remedy=f"use one of {', '.join(_COMMANDS.split())}",
        )
    if line[0] == "compose":
        _check_compose(line[1:])
    for word in line:
        option, _, value = word.partition("=")
        if option in _FILE_OPTIONS or (option == _CONTENT_TRUST and value and value not in _TRUE):
            raise UsageError(
                "line.invalid",
                f"{word} does more than ask the engine",
                remedy="leave it out: the requests are the same without it",
            )
    return line


def _check_compose(words: Sequence[str]) -> None:
    """Check the words behind ``compose``.

    Raises:
        UsageError: the command does more than ask the engine, or a file is on another host.
    """
    rest = list(words)
    with_value = (*_COMPOSE_OPTIONS_WITH_VALUE.split(), *_GLOBAL_OPTIONS_WITH_VALUE.split())
    while rest and rest[0].startswith("-"):
        option, _, value = rest[0].partition("=")
        count = 2 if rest[0] in with_value else 1
        file = value or "".join(rest[1:count])
        if option in {"-f", "--file"} and ("://" in file or "git@" in file):
            raise UsageError(
                "line.invalid",
                f"{file} is on another host, and no other host is asked",
                remedy="name a file of this host",
            )
        del rest[:count]
    if rest and rest[0] not in _COMPOSE_COMMANDS.split():
        raise UsageError(
            "line.invalid",
            f"'docker compose {rest[0]}' isn't a command that only asks the engine",
            remedy=f"use one of {', '.join(_COMPOSE_COMMANDS.split())}",
        )


def _environment(folder: Path, host: str) -> dict[str, str]:
    """Return the variables for docker, and write its configuration to the folder.

    The configuration has the user's proxies, which docker adds to the variables of containers,
    and the user's compose plugin.
    """
    config = Path(os.environ.get("DOCKER_CONFIG") or Path("~/.docker").expanduser())
    try:
        settings = {"proxies": json.loads((config / "config.json").read_bytes())["proxies"]}
    except (OSError, ValueError, KeyError, TypeError):
        settings = {}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "cli-plugins").mkdir()
    compose = config / "cli-plugins" / "docker-compose"
    if compose.exists():
        (folder / "cli-plugins" / "docker-compose").symlink_to(compose.resolve())
    programs = folder / "bin"
    programs.mkdir()
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(_VARIABLES)},
        "DOCKER_HOST": host,
        "DOCKER_CONFIG": str(folder),
        # Compose doesn't read files of registries and repositories.
        "COMPOSE_EXPERIMENTAL_GIT_REMOTE": "0",
        "COMPOSE_EXPERIMENTAL_OCI_REMOTE": "0",
        "DOCKER_BUILDKIT": "0",  # BuildKit doesn't send a request that could be judged
        "PATH": str(programs),  # empty: no credential helper, no provider of a compose service
    }


def _run(
    argv: list[str], environment: Mapping[str, str], log: Path, timeout_s: float
) -> str | None:
    """Run docker, at most until the timeout, and return the reason why it failed."""
    # Docker refuses -t without a terminal. The lines answer its questions, such as those of prune.
    ours, theirs = os.openpty()
    try:
        os.write(ours, b"y\n" * 8)
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                argv,
                env=environment,
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return f"docker was stopped after {timeout_s:g} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # plugins are children of docker
            process.wait()
    finally:
        os.close(ours)
        os.close(theirs)
    return _error_in(log) or f"docker ended with exit code {status}" if status else None


def _error_in(log: Path) -> str:
    """Return the first line on docker's standard error that isn't progress or a warning."""
    with log.open("rb") as stderr:
        lines = stderr.read(_STDERR_BYTES_MAX).decode(errors="replace").splitlines()
    errors = (line for line in lines if line[:1].strip() and not line.startswith("DEPRECATED"))
    return next(errors, "")
