"""What the fetcher wrote about the commits of Git sources: author, subject and signature.

For people only: the broker verified none of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from controller.cli.clients.status_report import read_published
from controller.model.names import COMMIT_ID

if TYPE_CHECKING:
    from controller.model.sources import CommitInfo

#: Bytes of the file about one commit.
INFO_MAX = 64 * 1024
SHORT_COMMIT = 12
#: A file of a Git source, and its commit.
_NAME = re.compile(r"([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?):")
#: Members of the file that are about the export.
_OF_THE_EXPORT = ("version", "path")


def known_commits(places: Iterable[tuple[str, str]], fetcher: Path) -> Iterator[CommitInfo]:
    """Yield what is known of the commits in *places*, pairs of a file and a commit.

    Files of DIR are left out, and commits whose file can't be read.
    """
    from controller.core.git.report import commit_from_json

    for file, commit in dict.fromkeys(places):
        name = _NAME.match(file)
        if name is None or not COMMIT_ID.fullmatch(commit):
            continue
        path = fetcher / "sources" / name[1] / f"{commit}.json"
        with suppress(OSError, ValueError):
            written, _ = read_published(path, longest=INFO_MAX)
            if not isinstance(written, dict):
                continue
            info = commit_from_json({k: v for k, v in written.items() if k not in _OF_THE_EXPORT})
            if info.commit == commit:
                yield info


def commit_line(info: CommitInfo) -> str:
    """Return a commit as a line: ``commit 3f2a91bc5d07 by Ann, 2026-…: web: 2; unsigned``."""
    parts = f"commit {info.commit[:SHORT_COMMIT]} by {info.author or 'an unknown author'}"
    parts += f", {info.committed}" if info.committed else ""
    parts += f": {info.subject}" if info.subject else ""
    signature = info.signature
    if signature is None:
        return f"{parts}; no checked signature"
    claim = f"{signature.signer} ({signature.format}, {signature.key})"
    return f"{parts}; the fetcher claims a good signature of {claim}"
