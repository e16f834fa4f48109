"""The sizes of volumes, from the engine's list."""

from controller.cli.volume.group import sizes_of


def test_a_volume_has_the_size_of_its_options_or_none() -> None:
    listed = {
        "Volumes": [
            {"Name": "a", "Options": {"size": "1073741824"}},
            {"Name": "b", "Options": {"size": "10g"}},
            {"Name": "c", "Options": None},
            {"Name": "d", "Options": {"type": "nfs"}},
        ]
    }
    assert sizes_of(listed) == {"a": 1 << 30, "b": 10 << 30}
    assert sizes_of({"Volumes": None}) == {}
