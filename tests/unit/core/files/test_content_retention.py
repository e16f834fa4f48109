"""Kept contents: those that containers name, and the latest of each name; bounded."""

from __future__ import annotations

from controller.core.files.content import why_full, with_delivered
from controller.model.delivery import (
    CONTENTS_KEPT,
    NAMES_MAX,
    NAMESPACE_BYTES_MAX,
    FileSet,
    StoredContent,
    StoredFiles,
)

SITE = FileSet("config", "default", "site")


def test_the_latest_contents_and_the_used_ones_are_kept():
    stored: dict[str, StoredFiles] = {}
    for number in range(CONTENTS_KEPT + 5):
        stored = with_delivered(stored, SITE, StoredContent(f"c{number}", "team"), [(SITE, "c1")])
    kept = [content.content for content in stored[str(SITE)].contents]
    assert kept == ["c1", *(f"c{number}" for number in range(5, CONTENTS_KEPT + 5))]
    assert stored[str(SITE)].current == f"c{CONTENTS_KEPT + 4}"


def test_a_content_delivered_again_is_the_current_one():
    stored: dict[str, StoredFiles] = {}
    for content in ("a", "b", "a"):
        stored = with_delivered(stored, SITE, StoredContent(content, "team"), [])
    assert [each.content for each in stored[str(SITE)].contents] == ["b", "a"]


def test_the_oldest_unused_names_go_beyond_the_limit():
    stored: dict[str, StoredFiles] = {}
    used = [(FileSet("config", "default", "n0"), "c")]
    for number in range(NAMES_MAX + 2):
        files = FileSet("config", "default", f"n{number}")
        stored = with_delivered(stored, files, StoredContent("c", "team"), used)
    assert len(stored) == NAMES_MAX
    assert "config/default/n0" in stored
    assert "config/default/n1" not in stored


def test_a_full_namespace_is_named():
    big = StoredContent("c", "team", NAMESPACE_BYTES_MAX + 1)
    stored = with_delivered({}, SITE, big, [])
    assert "namespace default" in why_full(stored, SITE)
    assert why_full(stored, FileSet("config", "other", "site")) == ""
