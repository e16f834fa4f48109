"""``convert``: documents for Compose files and docker commands, with comments."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from controller.cli.main import main
from controller.model.settings import InForce, InstanceSettings
from controller.settings import Instance, state_of, write_in_force, write_instance


def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str, expect: int = 0
) -> tuple[str, dict[str, Any]]:
    with pytest.raises(SystemExit) as end:
        main(["convert", "--policy", "home", "--state", str(tmp_path / "state"), *words])
    out = capsys.readouterr()
    assert end.value.code == expect, out
    documents = [each for each in yaml.safe_load_all(out.out) if each is not None]
    return out.out, {f"{d['kind']}/{d['metadata']['name']}": d for d in documents}


def test_a_compose_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "services: {web: {image: 'nginx:1.27', privileged: true, volumes: ['data:/d']}}\nvolumes: {data: }\n"
    (tmp_path / "compose.yaml").write_text(text)
    shown, found = run(tmp_path, capsys, str(tmp_path / "compose.yaml"), expect=3)
    assert sorted(found) == ["Service/web", "Volume/data"]
    assert "error compose.refused: privileged is not supported" in shown
    assert "#     remedy: add the capabilities it needs" in shown
    with pytest.raises(SystemExit) as end:
        main(["validate", str(tmp_path), "--policy", "home", "--state", str(tmp_path / "state")])
    assert end.value.code == 3


def test_a_docker_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "docker run -d --name my_web -p 8080:80 -v data:/data -e A=b --memory 64m nginx:1.27 sleep 1"
    _, found = run(tmp_path, capsys, "--namespace", "shop", "--", *line.split())
    spec = found["Service/my-web"]["spec"]
    assert found["Service/my-web"]["metadata"]["namespace"] == "shop"
    assert (spec["image"], spec["command"], spec["env"]) == (
        "nginx:1.27",
        ["sleep", "1"],
        {"A": "b"},
    )
    assert spec["ports"] == [{"container": 80, "host": 8080, "hostIP": "127.0.0.1"}]
    assert spec["resources"] == {"memory": "64Mi"}
    assert "Volume/data" in found


def test_an_option_that_can_t_be_expressed_is_a_comment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "docker run --blkio-weight 100 --privileged nginx:1.27"
    shown, found = run(tmp_path, capsys, "--", *line.split(), expect=3)
    assert "# nginx: BlkioWeight has no field" in shown
    assert "privileged is not supported" in shown
    assert "Service/nginx" in found


def test_nothing_to_convert_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ((), ("--", "docker", "ps")):
        with pytest.raises(SystemExit) as end:
            main(["convert", "--policy", "home", "--state", str(tmp_path / "state"), *words])
        assert end.value.code == 64
        assert "line.invalid" in capsys.readouterr().err


@contextmanager
def answers(socket: Path, replies: Mapping[str, tuple[int, object]]) -> Iterator[None]:
    """Answer GETs on a socket, by the end of their paths; 404 otherwise."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = (each for path, each in replies.items() if self.path.endswith(path))
            status, reply = next(found, (404, {"message": "no such object"}))
            body = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingUnixStreamServer(str(socket), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


FOREIGN = {
    "message": "No such container: web",
    "trimtab": {"rule": "foreign", "reason": "web isn't one of the caller's", "remedy": "none"},
}


def test_a_container_that_is_foreign_to_the_broker_is_read_from_the_engine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody who can open the engine's socket is kept from reading it."""
    inspect = {
        "Id": "0" * 64,
        "Name": "/web",
        "Image": "sha256:0",
        "Config": {"Image": "nginx:1.27"},
        "HostConfig": {"CgroupnsMode": "host"},
    }
    with TemporaryDirectory(prefix="trimtab-", dir="/tmp") as folder:  # sun_path is short
        root, engine = Path(folder) / "state", Path(folder) / "engine.sock"
        root.mkdir()
        instance = Instance(id="0123456789abcdef", dir="/srv/desired")
        write_instance(root, instance)
        write_in_force(root, InForce(InstanceSettings(engine=f"unix://{engine}")))
        broker = state_of(root, instance).broker_socket
        broker.parent.mkdir()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{engine}")
        of_engine = {"/containers/web/json": (200, inspect), "/info": (200, {"CgroupVersion": "1"})}
        with (
            answers(engine, of_engine),
            answers(broker, {"/containers/web/json": (404, FOREIGN)}),
        ):
            _, found = run(Path(folder), capsys, "web")
    assert found["Service/web"]["spec"]["image"] == "nginx:1.27"
