"""Contexts: one digest for all files, and paths that stay inside."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.builds.context import ContextFile, EntryKind, digest, link_fault, path_fault

FILES = (
    ContextFile("a", EntryKind.FOLDER, 0o755),
    ContextFile("a/b", EntryKind.FILE, 0o644, sha256="0" * 64, size=3),
    ContextFile("c", EntryKind.LINK, 0o777, target="a/b"),
)


def test_the_digest_is_that_of_names_modes_targets_and_contents() -> None:
    known = digest(FILES)
    assert known == digest(reversed(FILES))
    others = [
        (replace(FILES[1], path="a/d"), 1),
        (replace(FILES[1], mode=0o755), 1),
        (replace(FILES[1], sha256="1" * 64), 1),
        (replace(FILES[2], target="a"), 2),
        (replace(FILES[0], kind=EntryKind.FILE), 0),
    ]
    digests = {digest([*FILES[:place], other, *FILES[place + 1 :]]) for other, place in others}
    assert len({known, *digests}) == 6
    assert digest([replace(FILES[1], size=9), FILES[0], FILES[2]]) == known


@pytest.mark.parametrize(
    ("path", "target"),
    [("a", "/etc/passwd"), ("a", ".."), ("a/b", "../../c"), ("a/b", "x/../../../c"), ("a", "x\n")],
)
def test_a_link_that_leads_out_is_refused(path: str, target: str) -> None:
    assert link_fault(path, target)


def test_a_link_inside_is_permitted() -> None:
    assert not link_fault("a/b", "../c")
    assert not link_fault("a", "not-there")


def test_paths_are_bounded_and_printable() -> None:
    assert not path_fault("a/b.txt")
    for path in ("a\nb", "a\udcff", "x" * 1025, "/".join("x" * 33)):
        assert path_fault(path), path
