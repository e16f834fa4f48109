"""``release``: what is chosen, and the copies of files; the rest is tests/e2e/test_release.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.cli.commands import release
from controller.model.errors import StateError, UsageError
from tests.unit.cli.test_main import run


@pytest.mark.parametrize("arguments", [(), ("web", "--all"), ("-n", "shop", "--all")])
def test_services_are_named_in_one_way(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert run("release", *arguments, "--state", str(tmp_path / "state")) == 64


def item(name: str, namespace: str = "default", **more: Any) -> dict[str, Any]:
    place = {"namespace": namespace, "service": name, "slot": 1, "origin": "controller"}
    return {"id": f"{namespace}/{name}", **place, "is_run": False, "confined": None, **more}


FILES = {"mounts": [{"type": "config", "source": "site"}]}
INVENTORY = {
    "containers": [
        item("web"),
        item("web", "shop"),
        item("db", "shop"),
        item("alices", origin="client"),
        item("migrate", is_run=True),
    ],
    "released": [item("gone"), item("half", confined=FILES)],
}


@pytest.mark.parametrize(
    ("names", "namespace", "chosen"),
    [
        ((), None, ["default/half", "default/web", "shop/db", "shop/web"]),
        ((), "shop", ["shop/db", "shop/web"]),
        (("web",), "shop", ["shop/web"]),
        (("db", "default/web"), None, ["default/web", "shop/db"]),
        (("Service/shop/web",), None, ["shop/web"]),
        (("gone",), None, []),
        (("half",), None, ["default/half"]),
    ],
)
def test_services_are_chosen_and_nobody_elses_containers(
    names: tuple[str, ...], namespace: str | None, chosen: list[str]
) -> None:
    assert [*release._chosen(INVENTORY, names, namespace)] == chosen


@pytest.mark.parametrize(
    ("name", "code"),
    [("web", "service.ambiguous"), ("alices", "service.unknown"), ("migrate", "service.unknown")],
)
def test_another_name_is_refused(name: str, code: str) -> None:
    with pytest.raises(StateError) as refused:
        [*release._chosen(INVENTORY, (name,), None)]
    assert refused.value.code == code


def delivered(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Return a folder of delivered files as the broker lays it out, and a container with it."""
    place = tmp_path / "files" / "current-0"
    content = place / "..1"
    (content / "conf.d").mkdir(parents=True)
    (content / "conf.d" / "a.conf").write_text("a")
    (content / "tls.key").write_text("secret")
    (content / "tls.key").chmod(0o440)
    (place / "..data").symlink_to("..1")
    for name in ("conf.d", "tls.key"):
        (place / name).symlink_to(f"..data/{name}")
    files = [
        {"target": "/etc/site", "path": str(place)},
        {"target": "/run/tls.key", "path": str(content / "tls.key")},
    ]
    return place, {"id": "c1", "name": "web.1-0", "namespace": "default", "files": files}


def test_delivered_files_are_copied_with_their_modes(tmp_path: Path) -> None:
    _, container = delivered(tmp_path)
    made: list[Path] = []
    copies = release._copy([container], tmp_path / "to", made)
    place = tmp_path / "to" / "default" / "web.1-0"
    assert made == [place]
    assert place.stat().st_mode & 0o777 == 0o700
    assert copies == {
        ("c1", "/etc/site"): str(place / "etc_site"),
        ("c1", "/run/tls.key"): str(place / "run_tls.key"),
    }
    found = {
        str(path.relative_to(place)): path.stat().st_mode & 0o777
        for path in place.rglob("*")
        if not path.is_dir()
    }
    assert found == {
        "etc_site/conf.d/a.conf": (tmp_path / "files/current-0/conf.d/a.conf").stat().st_mode
        & 0o777,
        "etc_site/tls.key": 0o440,
        "run_tls.key": 0o440,
    }
    assert not any(path.is_symlink() for path in place.rglob("*"))


def test_no_file_of_the_folder_is_overwritten(tmp_path: Path) -> None:
    _, container = delivered(tmp_path)
    release._copy([container], tmp_path / "to", [])
    with pytest.raises(UsageError) as refused:
        release._copy([container], tmp_path / "to", [])
    assert refused.value.code == "release.folder"
