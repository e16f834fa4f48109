import pytest

from tests.golden.scenes import FOLDER, scenes, texts_of


@pytest.mark.parametrize("scene", scenes())
def test_the_plan_is_the_golden_one(scene):
    for name, text in texts_of(scene).items():
        assert text == (FOLDER / scene / name).read_text("utf-8")


@pytest.mark.parametrize("scene", scenes())
def test_what_people_see_fits_80_columns(scene):
    shown, _, _problems = texts_of(scene)["shown.txt"].partition("desired.yaml:")
    assert [line for line in shown.splitlines() if len(line) > 80] == []


def test_every_folder_is_a_whole_scene():
    folders = {path for path in FOLDER.iterdir() if path.is_dir() and path.name[0] not in "._"}
    folders.remove(FOLDER / "records")  # of test_record_forms
    folders.remove(FOLDER / "view")  # of unit/core/view
    assert {path.name for path in folders} == set(scenes())
    for folder in folders:
        assert {path.name for path in folder.iterdir()} - {"before.yaml"} == {
            "desired.yaml",
            "engine.yaml",
            "plan.txt",
            "shown.txt",
        }
