import pytest

from tests.golden.scenes import FOLDER, scenes, text_of


@pytest.mark.parametrize("scene", scenes())
def test_the_plan_is_the_golden_one(scene):
    assert text_of(scene) == (FOLDER / scene / "plan.txt").read_text("utf-8")


def test_every_folder_is_a_whole_scene():
    folders = {path for path in FOLDER.iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert {path.name for path in folders} == set(scenes())
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {
            "desired.yaml",
            "engine.yaml",
            "plan.txt",
        }
