"""The search for documents of kind Source."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.sources.source_scan import SourceScan


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("apiVersion: trimtab/v1\nkind: Source\n", True),
        ("kind: Service\n---\nkind: Source # shop\n", True),
        ('{"kind":"Source","spec":{}}', True),
        ("{kind: 'Source'}", True),
        ("kind: Source", True),
        ("kind: SourceMap\n", False),
        ("kind: Service\nspec: {env: {A: Source}}\n", False),
        ("", False),
    ],
)
def test_a_source_is_found_by_its_kind(tmp_path: Path, text: str, found: bool) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert SourceScan(tmp_path).declares_sources() is found


def test_changes_are_noticed(tmp_path: Path) -> None:
    scan = SourceScan(tmp_path / "dir")
    assert not scan.declares_sources()
    (tmp_path / "dir").mkdir()
    assert not scan.declares_sources()
    path = tmp_path / "dir" / "a.yaml"
    path.write_text("kind: Source\n")
    assert scan.declares_sources()
    assert scan.declares_sources()
    path.write_text("kind: Volume\n")
    assert not scan.declares_sources()
    (tmp_path / "dir" / ".hidden.yaml").write_text("kind: Source\n")
    (tmp_path / "dir" / "a.txt").write_text("kind: Source\n")
    assert not scan.declares_sources()
