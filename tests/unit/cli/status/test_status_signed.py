"""Signed sources as ``doctor`` shows them."""

from __future__ import annotations

from typing import Any

import pytest

from controller.cli.commands.source import described, waiting_line
from controller.cli.status.status import signed_rows
from controller.model.errors import UsageError

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


LINE = {
    "source": "shop",
    "accepted": COMMIT,
    "acceptedSigner": "alice@example.org",
    "commit": "cd" * 20,
    "signer": "bob@example.org",
    "key": "SHA256:x",
    "committed": "2026-01-02T03:04:05Z",
    "subject": "evil \x1b[2J",
    "digest": "d" * 64,
}


def test_a_commit_of_another_line_is_a_warning_with_the_command() -> None:
    *_, (level, message, remedy) = signed_rows({"sources": [{**SOURCE, "line": LINE}]})
    assert level == "warning"
    assert message.endswith("cdcdcdcdcdcd, signed by bob@example.org, isn't a descendant of it")
    assert remedy == "after a rewritten history: trimtab source accept shop COMMIT"


def test_accept_shows_both_commits_with_their_signers() -> None:
    proofs = {"sources": [{**SOURCE, "line": LINE}]}
    line = waiting_line(proofs, "shop", "cd" * 20)
    text = "\n".join(described(line))
    for shown_ in (COMMIT, "alice@example.org", "cd" * 20, "bob@example.org", "SHA256:x"):
        assert shown_ in text
    assert "rewritten" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("name", "commit", "code"),
    [
        ("shop", "cd" * 6, "source.other-commit"),
        ("shop", "cd" * 20 + "0", "source.other-commit"),
        ("shop", "", "source.other-commit"),
        ("shop", "ab" * 20, "source.other-commit"),
        ("lab", "cd" * 20, "source.no-line"),
    ],
)
def test_accept_takes_only_the_commit_that_waits(name: str, commit: str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        waiting_line({"sources": [{**SOURCE, "line": LINE}]}, name, commit)
    assert caught.value.code == code
