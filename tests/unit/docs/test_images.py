"""docs/images.md: its documents are valid under the policy that it names, and its table is theirs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli.main import main
from tests.pages import DOCS, blocks
from tools import debian_images

PAGE = blocks("images.md")
DOCUMENTS = [each for text in PAGE.values() for each in yaml.safe_load_all(text)]
RECIPES = {recipe().reference: recipe() for recipe in debian_images.RECIPES.values()}
ROWS = re.findall(r"^\| `([a-z]+)` \|(.*)\|$", (DOCS / "images.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("heading", PAGE)
def test_documents_are_valid_under_home(
    heading: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(PAGE[heading])
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(tmp_path), "--policy", "home"])
    assert ended.value.code in {0, None}, capsys.readouterr().out


def test_every_image_has_a_recipe_for_the_tests() -> None:
    images = {document["spec"]["image"] for document in DOCUMENTS}
    assert images - {"ghcr.io/example/shop:1"} <= RECIPES.keys()


@pytest.mark.parametrize(("name", "rest"), ROWS)
def test_the_table_says_of_an_image_what_its_document_and_the_image_do(
    name: str, rest: str
) -> None:
    starts, switches, adds, init, volume, writable, signal = (
        re.findall(r"[\w/_-]+", cell) for cell in rest.split(" | ")
    )
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
