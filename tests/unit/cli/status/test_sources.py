"""The table of Git sources below the table of resources."""

from typing import Any

from click import unstyle

from controller.cli.status.sources import describe_source, render_sources, select_source

COMMIT = {
    "commit": "b" * 40,
    "author": "Ann <ann@example.org>",
    "authored": "2026-01-01T00:00:00Z",
    "committed": "2026-01-01T00:00:00Z",
    "subject": "web: 2",
    "signature": {"format": "ssh", "signer": "ann", "key": "SHA256:x"},
}
SOURCE: dict[str, Any] = {
    "name": "team",
    "state": "Held",
    "commit": "a" * 40,
    "namespaces": ["shop"],
    "resources": 2,
    "url": "https://example.org/x.git",
    "ref": "branch main",
    "path": ".",
    "message": "the commit isn't signed",
    "remedy": "sign it",
    "current": None,
    "candidate": COMMIT,
    "approvedBy": "",
    "since": "",
    "lastFetch": "",
    "lastSuccess": "",
    "nextFetch": "2026-01-01T00:01:00Z",
    "failures": 0,
    "blind": False,
    "reason": "x",
}
NOW = 1767225630.0  # 2026-01-01T00:00:30Z


def test_the_table_shows_what_runs_and_what_waits():
    (_, table, _) = render_sources({"sources": [SOURCE]}, width=None, now=NOW)
    head, row = unstyle(table).splitlines()
    assert head.split() == [
        *("SOURCE", "STATE", "COMMIT", "WAITING", "REF", "NEXT", "FETCH", "MESSAGE"),
    ]
    assert row.split()[:4] == ["team", "Held", "aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    assert row.endswith("the commit isn't signed")


def test_without_sources_there_is_no_table():
    assert render_sources({"resources": [], "problems": []}, width=None, now=NOW) == []


def test_a_source_is_found_by_its_name_and_shown_in_full():
    status = {"sources": [SOURCE]}
    assert select_source(status, "web") is None
    for name in ("team", "Source/team", "Source/default/team"):
        source = select_source(status, name)
        assert source is not None
        assert describe_source(source) == (
            "Source team\n"
            "  State:        Held\n"
            "  Message:      the commit isn't signed\n"
            "  Remedy:       sign it\n"
            "  Repository:   https://example.org/x.git\n"
            "  Reference:    branch main\n"
            "  Path:         .\n"
            "  Namespaces:   shop\n"
            "  Resources:    2\n"
            f"  Runs:         {'a' * 40}\n"
            f"  Waits:        {'b' * 40}, Ann <ann@example.org>, 2026-01-01T00:00:00Z, web: 2,"
            " signed by ann (ssh)\n"
            "  Next fetch:   2026-01-01T00:01:00Z"
        )
