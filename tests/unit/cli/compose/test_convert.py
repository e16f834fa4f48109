"""``convert``: documents for Compose files and docker commands, with comments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli.main import main


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
