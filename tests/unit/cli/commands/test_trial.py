"""``try``: what would become of a Compose project; nothing is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.cli.main import main

SHOP = """\
services:
  web:
    image: nginx:1.27
    ports: ["8080:80"]
    depends_on: [db]
    volumes: ["./nginx.conf:/etc/nginx/nginx.conf:ro"]
  db:
    image: postgres:17
    volumes: ["data:/var/lib/postgresql/data"]
volumes: {data: }
"""


def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, *options: str, expect: int = 0
) -> str:
    folder = tmp_path / "shop"
    folder.mkdir(exist_ok=True)
    (folder / "compose.yaml").write_text(text)
    (folder / "nginx.conf").write_text("events {}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as end:
        main(["try", str(folder / "compose.yaml"), "--state", str(tmp_path / "state"), *options])
    out = capsys.readouterr()
    assert end.value.code == expect, out
    assert sorted(tmp_path.rglob("*")) == before
    return out.out


def test_a_project_that_would_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(tmp_path, capsys, SHOP, "--policy", "home")
    assert "project shop: namespace shop, policy home; nothing is changed" in shown
    assert "  adapted  Service/shop/web" in shown
    assert "    docker compose: db; the internet; published on 0.0.0.0:8080" in shown
    assert "    trimtab:        db; the internet; published on 127.0.0.1:8080" in shown
    assert "compose.yaml:4:5: warning compose.loopback" in shown
    assert shown.rstrip().endswith("into the directory that `trimtab up` keeps")


def test_a_refusal_names_line_and_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(tmp_path, capsys, SHOP, "--policy", "strict", expect=4)
    assert "compose.yaml:3:5: refused image.not-allowed" in shown
    assert "--policy home" in shown


def test_an_error_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SHOP.replace("image: postgres:17", "image: postgres:17\n    privileged: true")
    shown = run(tmp_path, capsys, text, "--policy", "home", expect=3)
    assert "compose.yaml:9:5: error compose.refused: privileged" in shown
    assert "trimtab:        isn't started" in shown


def test_the_report_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report: dict[str, Any] = json.loads(run(tmp_path, capsys, SHOP, "--policy", "home", "--json"))
    assert (report["project"], report["namespace"]) == ("shop", "shop")
    assert [each["object"] for each in report["resources"]] == [
        "Service/shop/db",
        "Service/shop/web",
        "Volume/shop/data",
    ]
    assert [each["code"] for each in report["problems"]] == ["compose.loopback"]
    assert {each["service"] for each in report["reach"]} == {"web", "db"}
    assert report["gains"]
    assert report["losses"]


def test_a_folder_without_a_project_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path, tmp_path / "gone.yaml"):
        with pytest.raises(SystemExit) as end:
            main(["try", str(path), "--policy", "home", "--state", str(tmp_path / "state")])
        assert end.value.code == 64
        assert "compose.file-missing" in capsys.readouterr().err


def test_a_service_with_a_secret_is_judged_without_its_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SHOP.replace("    image: postgres:17\n", "    image: postgres:17\n    secrets: [pw]\n")
    shown = run(tmp_path, capsys, text + "secrets: {pw: {file: ./pw.txt}}\n", "--policy", "home")
    assert "  adapted  Service/shop/db" in shown
    assert "/etc/trimtab/secrets/shop/pw.txt" in shown
