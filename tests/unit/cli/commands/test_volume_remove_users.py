"""The containers with each volume."""

from controller.cli.commands.volume import users_of


def item(name: str, *volumes: str) -> dict[str, object]:
    mounts = [{"type": "volume", "source": each} for each in volumes]
    mounts.append({"type": "bind", "source": "/tmp/x"})
    return {"admitted": {"name": name}, "confined": {"mounts": mounts}}


def test_a_volume_is_listed_with_each_container_once():
    containers = [item("a", "data", "data"), item("b", "data", "more"), {"admitted": {"name": "c"}}]
    assert users_of(containers) == {"data": ["a", "b"], "more": ["b"]}
