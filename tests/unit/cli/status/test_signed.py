"""Signed sources as ``doctor`` shows them."""

from __future__ import annotations

from typing import Any

from controller.cli.status.signed import signed_rows

COMMIT = "ab" * 20
SOURCE: dict[str, Any] = {
    "source": "shop",
    "namespaces": ["shop", "lab"],
    "commit": COMMIT,
    "signer": "alice@example.org",
    "rendered": COMMIT,
    "unsupported": {},
}


def shown(**changes: Any) -> list[tuple[str, str]]:
    rows = signed_rows({"sources": [{**SOURCE, **changes}]})
    return [(level, message) for level, message, _remedy in rows]


def test_each_signed_source_has_a_row_with_its_namespaces() -> None:
    assert list(signed_rows({})) == []
    where = "shop, lab (Source shop)"
    assert shown() == [
        ("ok", f"{where}: only what abababababab declares, signed by alice@example.org")
    ]
    assert shown(rendered="") == [("warning", f"{where}: the broker has no proof of abababababab")]
    assert shown(commit="", rendered="") == [
        ("warning", f"{where}: no commit was accepted, so the controller can change nothing")
    ]


def test_what_cannot_be_proven_is_a_warning() -> None:
    rows = shown(unsupported={"Release/shop/web": "Releases aren't rendered"})
    assert rows[1] == ("warning", "Release/shop/web can't be proven: Releases aren't rendered")
