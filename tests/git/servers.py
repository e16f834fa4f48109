"""Servers of repositories on loopback: nginx with git-http-backend, sshd, and a faulty HTTP server.

A server can stand in another network namespace: *inside* begins the command lines that start there,
and *listen* makes sockets there.
"""

from __future__ import annotations

import base64
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.engine import free_port, listen_here
from tests.instance import eventually

BACKEND = "/usr/lib/git-core/git-http-backend"
#: sbin isn't on every PATH.
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
#: The user of HTTP repositories.
USER = "git"


class _Program:
    """A program in the foreground, with a log in its folder."""

    def __init__(self, folder: Path, name: str, argv: Sequence[str]) -> None:
        self._log = folder / f"{name}.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                env={"PATH": PATH},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End the program and what it started."""
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()

    def has_written(self, file: Path) -> bool:
        """Return True once the running program has made a file; its end is an AssertionError."""
        code = self._process.poll()
        assert code is None, f"{self._log.name} ended with {code}: {self._log.read_text()}"
        return file.exists()


class NginxServer:
    """nginx, which serves the repositories in *root* by git-http-backend to ``git:PASSWORD``."""

    def __init__(
        self,
        folder: Path,
        root: Path,
        *,
        password: str,
        inside: Sequence[str] = (),
        listen: Callable[[int], socket.socket] = listen_here,
    ) -> None:
        self.folder = folder
        folder.mkdir()
        self._inside = inside
        self._port = free_port(listen)
        self.address = f"http://127.0.0.1:{self._port}"
        self.change_password(password)
        (folder / "nginx.conf").write_text(self._settings(root))
        self._programs: list[_Program] = []

    def change_password(self, password: str) -> None:
        """Let *password* alone be right from now on. nginx reads the file for each request."""
        words = ("htpasswd", "-n", "-b", "-m", USER, password)
        done = subprocess.run(words, env={"PATH": PATH}, capture_output=True, check=True)
        (self.folder / "htpasswd.new").write_bytes(done.stdout)
        (self.folder / "htpasswd.new").rename(self.folder / "htpasswd")

    def start(self) -> None:
        bridge = ("fcgiwrap", "-c", "2", "-s", f"unix:{self.folder / 'backend.sock'}")
        self._programs.append(_Program(self.folder, "fcgiwrap", bridge))
        eventually((self.folder / "backend.sock").is_socket)
        words = (*self._inside, "nginx", "-c", str(self.folder / "nginx.conf"))
        self._programs.append(nginx := _Program(self.folder, "nginx", words))
        # nginx listens before it writes the file.
        pid = self.folder / "nginx.pid"
        eventually(lambda: nginx.has_written(pid), what=f"nginx in {self.folder}")

    def stop(self) -> None:
        while self._programs:
            self._programs.pop().stop()
        (self.folder / "backend.sock").unlink(missing_ok=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        try:
            self.start()
            yield
        finally:
            self.stop()

    def _settings(self, root: Path) -> str:
        """Return nginx.conf, with all files of nginx in the server's folder."""
        names = ("client_body", "fastcgi", "proxy", "scgi", "uwsgi")
        temporary = "".join(f"{name}_temp_path {self.folder / name};\n" for name in names)
        parameters = {
            "SCRIPT_FILENAME": BACKEND,
            "GIT_PROJECT_ROOT": str(root),
            "GIT_HTTP_EXPORT_ALL": "1",
            # The repositories may belong to another user than the server's.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_PROTOCOL": "$http_git_protocol",
            "PATH_INFO": "$uri",
            "QUERY_STRING": "$args",
            "REQUEST_METHOD": "$request_method",
            "CONTENT_TYPE": "$content_type",
            "CONTENT_LENGTH": "$content_length",
            "REMOTE_USER": "$remote_user",
        }
        passed = "".join(f'fastcgi_param {name} "{value}";\n' for name, value in parameters.items())
        return (
            "daemon off;\nworker_processes 1;\n"
            f"{'user root;' if os.getuid() == 0 else ''}\n"
            f"pid {self.folder / 'nginx.pid'};\nerror_log {self.folder / 'error.log'};\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{temporary}"
            f"server {{\nlisten 127.0.0.1:{self._port};\nlocation / {{\n"
            f'auth_basic "git";\nauth_basic_user_file {self.folder / "htpasswd"};\n'
            f"fastcgi_pass unix:{self.folder / 'backend.sock'};\n{passed}}}\n}}\n}}\n"
        )


class SshServer:
    """An sshd on loopback, whose only user is the caller."""

    def __init__(
        self,
        folder: Path,
        *,
        inside: Sequence[str] = (),
        listen: Callable[[int], socket.socket] = listen_here,
    ) -> None:
        self.folder = folder
        folder.mkdir()
        self._inside = inside
        for name in ("host", "other_host", "id"):
            self.new_key(name)
        shutil.copy(folder / "id.pub", folder / "authorized_keys")
        self.port = free_port(listen)
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self._programs: list[_Program] = []

    def new_key(self, name: str) -> None:
        path = self.folder / name
        subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)), check=True)

    def known_host(self, name: str = "host") -> str:
        key = (self.folder / f"{name}.pub").read_text()
        return f"[127.0.0.1]:{self.port} {key}"

    def url(self, repository: Path) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}{repository}"

    def start(self, host_key: str = "host") -> None:
        config, pid = self.folder / "sshd_config", self.folder / "sshd.pid"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder / host_key}\n"
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}\nPidFile {pid}\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
            # Below this level a shell under sshd reads the caller's .bashrc, however long that takes.
            "AcceptEnv GIT_PROTOCOL\nSetEnv SHLVL=2\n"
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        pid.unlink(missing_ok=True)
        words = (*self._inside, "/usr/sbin/sshd", "-D", "-e", "-f", str(config))
        self._programs.append(sshd := _Program(self.folder, "sshd", words))
        # sshd listens before it writes the file.
        eventually(lambda: sshd.has_written(pid), what=f"sshd in {self.folder}")

    def stop(self) -> None:
        while self._programs:
            self._programs.pop().stop()

    @contextmanager
    def running(self, host_key: str = "host") -> Iterator[None]:
        try:
            self.start(host_key)
            yield
        finally:
            self.stop()


class _Handler(BaseHTTPRequestHandler):
    """Serves the repositories in ``root`` to everybody, until it is to fail."""

    protocol_version = "HTTP/1.1"
    root: Path
    #: Set when the server ends.
    ended: threading.Event
    #: A status to answer instead; ``drip`` for a byte at a time, ``cut`` for half of each pack.
    fault: int | str | None = None

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self._body())

    def log_message(self, *_: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _serve(self, body: bytes) -> None:
        if isinstance(self.fault, int):
            self._answer(self.fault, [("Location", "http://127.0.0.1:1/x.git")], b"")
            return
        if self.fault == "drip":
            self._drip()
            return
        if self.fault == "repeat":
            self._repeat()
            return
        status, headers, content = self._ask_backend(body)
        if self.fault == "cut" and b"command=fetch" in body:
            self._head(status, headers, len(content))
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self._answer(status, headers, content)

    def _ask_backend(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        path, _, query = self.path.partition("?")
        done = subprocess.run(
            [BACKEND],
            input=body,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            },
            capture_output=True,
            check=False,
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = [line.split(": ", 1) for line in head.decode().split("\r\n") if line]
        status = next((int(value[:3]) for name, value in headers if name == "Status"), 200)
        return status, [(n, v) for n, v in headers if n != "Status"], content

    def _repeat(self) -> None:
        """Ask for a password, and repeat it in an error."""
        given = self.headers.get("Authorization", "")
        if not given:
            self._answer(401, [("WWW-Authenticate", 'Basic realm="x"')], b"")
            return
        told = f"ERR {given} is {base64.b64decode(given.split()[-1]).decode()}\n".encode()
        kind = "application/x-git-upload-pack-advertisement"
        lines = (b"# service=git-upload-pack\n", told)
        first, second = (b"%04x%b" % (len(line) + 4, line) for line in lines)
        self._answer(200, [("Content-Type", kind)], first + b"0000" + second)

    def _drip(self) -> None:
        """Answer with one byte a second, as long as the client stays."""
        self._head(200, [], 100_000)
        while not self.ended.wait(1.0):
            self.wfile.write(b"0")

    def _head(self, status: int, headers: list[tuple[str, str]], length: int) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self._head(status, headers, len(content))
        self.wfile.write(content)


class _QuietServer(ThreadingHTTPServer):
    """Clients that give up are no errors here."""

    def handle_error(self, *_: object) -> None:
        pass


class FaultyServer:
    """An HTTP server that fails in the ways that nginx never would."""

    def __init__(self, root: Path, listen: Callable[[int], socket.socket] = listen_here) -> None:
        listener = listen(0)
        ended = threading.Event()
        self._handler = type("Handler", (_Handler,), {"root": root, "ended": ended})
        self._ended = ended
        address = listener.getsockname()[:2]
        self.address = f"http://127.0.0.1:{address[1]}"
        self._server = _QuietServer(address, self._handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = listener
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def fail(self, fault: int | str | None) -> None:
        """Fail from now on: with a status, by ``drip``, by ``cut``, or by an error with the given password
        (``repeat``); None for no longer.
        """
        self._handler.fault = fault  # type: ignore[attr-defined]

    def stop(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    @contextmanager
    def running(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.stop()
