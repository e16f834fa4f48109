"""docs/images.md: its documents are valid under the policy that it names, and its table is theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli.main import main
from tests.instance import POLICIES
from tests.pages import blocks, rows
from tools import debian_images

PAGE = blocks("images.md")
DOCUMENTS = [each for text in PAGE.values() for each in yaml.safe_load_all(text)]
RECIPES = {recipe().reference: recipe() for recipe in debian_images.RECIPES.values()}
ROWS = rows("images.md")


@pytest.mark.parametrize("heading", PAGE)
def test_documents_are_valid_under_home(
    heading: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(PAGE[heading])
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(tmp_path), "--policy", "home"])
    assert ended.value.code in {0, None}, capsys.readouterr().out


def test_documents_without_root_are_valid_under_strict_once_it_admits_the_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = yaml.safe_load((POLICIES / "strict.yaml").read_text())
    policy["images"]["allow"].append("docker.io/")
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "a.yaml").write_text(PAGE["Without root"])
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(tmp_path / "state"), "--policy", str(tmp_path / "policy.yaml")])
    assert ended.value.code in {0, None}, capsys.readouterr().out


@pytest.mark.parametrize("name", ["strict", "production", "development", "home"])
def test_the_policies_admit_the_capabilities_that_the_page_says(name: str) -> None:
    by_default = yaml.safe_load((POLICIES / "strict.yaml").read_text())["capabilities"]
    policy = yaml.safe_load((POLICIES / f"{name}.yaml").read_text())
    admitted = set(policy.get("capabilities", by_default)["allowed"])
    needed = {cap for d in DOCUMENTS for cap in d["spec"].get("security", {}).get("capAdd", [])}
    assert admitted == {"CHOWN", "SETGID", "SETUID"} if name != "home" else needed <= admitted


def test_every_image_has_a_recipe_for_the_tests() -> None:
    images = {document["spec"]["image"] for document in DOCUMENTS}
    assert images - {"ghcr.io/example/shop:1"} <= RECIPES.keys()


@pytest.mark.parametrize("name", ROWS)
def test_the_table_says_of_an_image_what_its_document_and_the_image_do(name: str) -> None:
    starts, switches, adds, init, volume, writable, signal = ROWS[name]
    (document,) = [d for d in DOCUMENTS if d["metadata"] == {"name": name, "owner": "me"}]
    spec: dict[str, Any] = document["spec"]
    config = RECIPES[spec["image"]].config
    user = RECIPES[spec["image"]].user
    assert starts[0] == config.get("User", "root")
    assert str(user.uid) in (switches if starts[0] == "root" else starts)
    assert sorted([*adds, *init]) == spec.get("security", {}).get("capAdd", [])
    assert volume == list(config.get("Volumes", {}))
    assert signal == [config.get("StopSignal", "SIGTERM")]
    assert all(path.startswith("/") for path in writable)
