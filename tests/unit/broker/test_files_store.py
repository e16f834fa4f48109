"""The store on disk: contents, folders, links that move at once, and crashes in between."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from controller.broker.files import FileStore, first_id, open_config
from controller.broker.gate.commands import is_lost
from controller.core.files import content as blob
from controller.core.files.content import (
    UnopenedContent,
    content_folder,
    content_id,
    source_of,
    variant_id,
)
from controller.model.delivery import FileSet, Variant

SITE = FileSet("config", "default", "site")
ALL = Variant(os.geteuid(), os.getegid(), 0o444)
ONE, TWO = {"page": b"one", "sub/deep": b"x"}, {"page": b"two", "other": b"y"}


class Killed(BaseException):
    """The process ended here."""


def store(folder: Path, *, killed_at: str = "") -> FileStore:
    def reach(point: str) -> None:
        if point == killed_at:
            raise Killed

    return FileStore(folder / "contents", {"config": folder / "files"}, reach=reach)


def put(to: FileStore, files: dict[str, bytes]) -> str:
    content = content_id(files)
    assert to.put(SITE, content, blob.encode_blob(files)) == ""
    return content


def seen(folder: Path, content: str, variant: Variant = ALL, *, stable: bool = False):
    top = Path(source_of(str(folder / "files"), SITE, content, variant, stable=stable))
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and not path.relative_to(top).parts[0].startswith("..")
    }


def test_a_folder_has_the_files_of_its_content_for_good(tmp_path):
    files = store(tmp_path)
    one = put(files, ONE)
    assert files.make(SITE, one, ALL) == ""
    two = put(files, TWO)
    assert files.make(SITE, two, ALL) == ""
    assert (seen(tmp_path, one), seen(tmp_path, two)) == (ONE, TWO)


def test_chosen_files_and_modes_make_a_variant(tmp_path):
    files = store(tmp_path)
    one = put(files, ONE)
    chosen = Variant(os.geteuid(), os.getegid(), 0o440, ("page",))
    assert files.make(SITE, one, chosen) == ""
    assert seen(tmp_path, one, chosen) == {"page": b"one"}
    path = Path(source_of(str(tmp_path / "files"), SITE, one, chosen, key="page"))
    assert path.stat().st_mode & 0o777 == 0o440
    assert path.parent.stat().st_mode & 0o777 == 0o755


def test_a_stable_folder_shows_the_content_that_was_delivered_last(tmp_path):
    files = store(tmp_path)
    one = put(files, ONE)
    assert files.make(SITE, one, ALL, stable=True) == ""
    top = Path(source_of(str(tmp_path / "files"), SITE, one, ALL, stable=True))
    before = top.stat().st_ino
    assert (top / "page").read_bytes() == b"one"
    put(files, TWO)
    assert (top / "page").read_bytes() == b"two"
    assert sorted(p.name for p in top.iterdir() if not p.name.startswith("..")) == ["other", "page"]
    assert top.stat().st_ino == before, "a container goes on seeing the folder"
    assert len(list(top.glob("..*"))) == 2, "the folder of the old content is gone"


POINTS = [
    *(
        f"files.content.{step}.{when}"
        for step in ("write", "fsync")
        for when in ("before", "after")
    ),
    *("files.write.before", "files.write.after", "files.rename.before", "files.rename.after"),
]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("stable", [False, True])
def test_killed_at_a_point_it_shows_one_content_or_the_other_and_finishes_later(
    tmp_path, point, stable
):
    files = store(tmp_path)
    one = put(files, ONE)
    assert files.make(SITE, one, ALL, stable=stable) == ""
    two = content_id(TWO)
    with pytest.raises(Killed):
        dying = store(tmp_path, killed_at=point)
        dying.put(SITE, two, blob.encode_blob(TWO))
        dying.make(SITE, two, ALL, stable=stable)
    if stable:
        assert seen(tmp_path, one, stable=True)["page"] in {b"one", b"two"}
    else:
        assert seen(tmp_path, one) == ONE
    again = store(tmp_path)
    assert put(again, TWO) == two
    assert again.make(SITE, two, ALL, stable=stable) == ""
    assert seen(tmp_path, two, stable=stable)["page"] == b"two"


def test_lost_folders_are_made_again(tmp_path):
    files = store(tmp_path)
    one = put(files, ONE)
    files.make(SITE, one, ALL)
    files.make(SITE, one, ALL, stable=True)
    import shutil

    shutil.rmtree(tmp_path / "files")
    again = store(tmp_path)
    assert list(again.restore()) == []
    assert seen(tmp_path, one) == ONE
    assert seen(tmp_path, one, stable=True)["page"] == b"one"
    assert again.make(SITE, one, variant_id(ALL)) == "", "known by its id"


def test_a_changed_or_missing_content_is_never_mounted(tmp_path):
    files = store(tmp_path)
    one = put(files, ONE)
    place = tmp_path / "contents" / "config" / "default" / "site" / one.partition(":")[2]
    place.write_bytes(blob.encode_blob({"page": b"other"}))
    assert files.make(SITE, one, ALL) == "the stored content can't be used: its bytes have changed"
    place.write_bytes(b"nothing")
    assert "can't be used" in files.make(SITE, one, ALL)
    place.unlink()
    assert files.make(SITE, one, ALL) == "the content isn't stored"
    assert files.put(SITE, one, None) == "the content isn't stored"


def test_unneeded_contents_go_with_their_folders(tmp_path):
    files = store(tmp_path)
    one = put(files, ONE)
    files.make(SITE, one, ALL)
    two = put(files, TWO)
    files.make(SITE, two, ALL)
    files.collect({})
    assert (seen(tmp_path, one), seen(tmp_path, two)) == (ONE, TWO), "the inventory can be older"
    files.collect({str(SITE): frozenset({two})})
    assert seen(tmp_path, one) == {}
    assert seen(tmp_path, two) == TWO
    files.collect({})
    assert seen(tmp_path, two) == {}
    assert not any((tmp_path / "contents" / "config" / "default").iterdir())


def test_a_link_in_the_way_is_never_followed(tmp_path):
    files = store(tmp_path)
    one = put(files, ONE)
    folder = tmp_path / "files" / "default" / "site" / one.partition(":")[2]
    folder.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / f".{variant_id(ALL)}.new").symlink_to(outside)
    assert files.make(SITE, one, ALL) != "" or not any(outside.iterdir())
    assert not any(outside.iterdir())


@pytest.mark.parametrize(
    ("root", "first"),
    [("/var/lib/docker/volumes", 0), ("/var/lib/docker/100000.100000/volumes", 100_000)],
)
def test_the_first_id_of_a_user_namespace_is_in_the_engines_root(root, first):
    assert first_id(root) == first


def test_a_content_that_cannot_be_opened_now_is_not_lost(tmp_path):
    def locked(*_):
        raise UnopenedContent("there is no private key")

    files = store(tmp_path)
    one = put(files, ONE)
    files.openers = {"config": locked}
    reason = files.make(SITE, one, ALL)
    assert "no private key" in reason
    assert not is_lost(reason)
    assert is_lost(store(tmp_path).make(SITE, "sha256:" + "0" * 64, ALL))


SECRET = FileSet("secret", "default", "db")


def in_memory(folder: Path) -> FileStore:
    roots = {"config": folder / "files", "secret": folder / "memory"}
    openers = {"config": open_config, "secret": open_config}
    return FileStore(folder / "contents", roots, openers)


def put_secret(to: FileStore, files: dict[str, bytes]) -> str:
    content = content_id(files)
    assert to.put(SECRET, content, blob.encode_blob(files)) == ""
    return content


def folders_of(folder: Path) -> set[str]:
    return {path.name for path in (folder / "memory" / "default" / "db").glob("*")}


def test_secrets_that_no_container_mounts_leave_the_memory(tmp_path: Path) -> None:
    files = in_memory(tmp_path)
    one, two = put_secret(files, ONE), put_secret(files, TWO)
    for content in (one, two):
        assert files.make(SECRET, content, ALL) == ""
    assert files.make(SECRET, two, ALL, stable=True) == ""
    stable = f"current-{variant_id(ALL)}"
    mounted = {str(SECRET): frozenset({two})}
    # Their containers can be on the way.
    files.clear_memory({})
    assert folders_of(tmp_path) == {content_folder(one), content_folder(two), stable}
    files.collect({str(SECRET): frozenset({one, two})})
    files.clear_memory(mounted)
    assert folders_of(tmp_path) == {content_folder(two), stable}
    # What is gone isn't restored at the next boot, and is made for the next container.
    assert list(files.restore()) == []
    assert folders_of(tmp_path) == {content_folder(two), stable}
    files.clear_memory({}, everything=True)
    assert not (tmp_path / "memory").exists()
    assert files.make(SECRET, two, ALL, stable=True) == ""
    assert folders_of(tmp_path) == {stable}


def test_configs_stay_on_the_disk_without_containers(tmp_path: Path) -> None:
    files = in_memory(tmp_path)
    one = put(files, ONE)
    assert files.make(SITE, one, ALL) == ""
    files.clear_memory({}, everything=True)
    assert seen(tmp_path, one) == ONE


@pytest.mark.parametrize("variant", [ALL, Variant(os.geteuid(), os.getegid(), 0o400, ("page",))])
def test_a_store_that_is_lost_knows_its_folders_again_by_their_files(tmp_path, variant):
    files = store(tmp_path)
    content = put(files, ONE)
    assert files.make(SITE, content, variant) == ""
    assert files.make(SITE, content, variant, stable=True) == ""
    shutil.rmtree(tmp_path / "contents")
    again = store(tmp_path)
    # A container that is there mounts them, whatever the store has.
    assert again.make(SITE, content, variant_id(variant)) == ""
    shutil.rmtree(tmp_path / "contents")
    again = store(tmp_path)
    put(again, TWO)
    wanted = {name: TWO[name] for name in variant.keys or TWO}
    assert seen(tmp_path, content, variant, stable=True) == wanted, "a stable one shows the latest"


@pytest.mark.parametrize("damaged", [False, True])
def test_a_lost_record_of_a_variant_refuses_no_start(tmp_path, damaged):
    files = store(tmp_path)
    content = put(files, ONE)
    assert files.make(SITE, content, ALL) == ""
    (record,) = (tmp_path / "contents").glob("*/*/*/variants/*")
    record.unlink()
    top = Path(source_of(str(tmp_path / "files"), SITE, content, ALL))
    if damaged:  # the folder doesn't show its variant any more
        (top / "page").unlink()
        (top / "sub" / "deep").unlink()
    again = store(tmp_path)
    assert again.make(SITE, content, ALL) == "", "a create names the whole variant"
    assert again.make(SITE, content, variant_id(ALL)) == "", "and the start its id"
    assert record.is_file()


def test_a_folder_with_other_files_than_its_name_says_is_not_known(tmp_path):
    files = store(tmp_path)
    content = put(files, ONE)
    assert files.make(SITE, content, ALL) == ""
    shutil.rmtree(tmp_path / "contents")
    top = Path(source_of(str(tmp_path / "files"), SITE, content, ALL))
    top.rename(top.with_name("0" * 16))
    assert is_lost(store(tmp_path).make(SITE, content, "0" * 16))
