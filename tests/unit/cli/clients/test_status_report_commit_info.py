"""What the fetcher wrote about a commit is shown, and never trusted."""

import json
import os
from dataclasses import replace
from pathlib import Path

from controller.cli.clients.status_report import commit_line, known_commits
from controller.core.git.reports import commit_to_json
from controller.model.sources import CommitInfo, CommitSignature

COMMIT = "a" * 40
INFO = CommitInfo(
    COMMIT, "Ann", "", "2026-01-01T00:00:00Z", "web: 2", CommitSignature("ssh", "ann", "SHA256:x")
)


def write(fetcher: Path, text: str) -> Path:
    file = fetcher / "sources" / "team" / f"{COMMIT}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_the_commit_of_a_source_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, json.dumps({"version": 1, "path": "deploy", **commit_to_json(INFO)}))
    places = [
        *(("team:web.yaml", COMMIT), ("team:web.yaml", COMMIT), ("own.yaml", COMMIT)),
        *(("team:web.yaml", "../x"), ("../team:web.yaml", COMMIT), ("gone:web.yaml", COMMIT)),
    ]
    assert list(known_commits(places, tmp_path)) == [INFO]


def test_a_damaged_file_says_nothing(tmp_path: Path) -> None:
    place = [("team:web.yaml", COMMIT)]
    other = json.dumps(commit_to_json(replace(INFO, commit="b" * 40)))
    for damaged in ("", "[]", "null", "[" * 50_000, other):
        write(tmp_path, damaged)
        assert list(known_commits(place, tmp_path)) == []
    file = write(tmp_path, "")
    file.unlink()
    os.mkfifo(file)
    assert list(known_commits(place, tmp_path)) == []


def test_a_signature_is_a_claim() -> None:
    assert commit_line(INFO) == (
        "commit aaaaaaaaaaaa by Ann, 2026-01-01T00:00:00Z: web: 2; the fetcher claims a good"
        " signature of ann (ssh, SHA256:x)"
    )
    assert commit_line(CommitInfo(COMMIT)) == (
        "commit aaaaaaaaaaaa by an unknown author; no checked signature"
    )
