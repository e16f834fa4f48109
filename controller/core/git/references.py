"""References: the one to fetch for a Source, out of those that a repository lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from controller.core.git.versions import Version, VersionRange
from controller.model.desired.source_spec import GitRef

#: What ``git ls-remote`` is asked for if versions are followed.
ALL_TAGS = "refs/tags/*"
_LINE = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64})\t(refs/[\x21-\x7e]{1,250})")


def pattern_of(ref: GitRef) -> str | None:
    """Return the reference to list, or a pattern; None for a fixed commit, which needs no list."""
    if ref.branch is not None:
        return f"refs/heads/{ref.branch}"
    if ref.tag is not None:
        return f"refs/tags/{ref.tag}"
    return ALL_TAGS if ref.semver is not None else ref.name


def parse_listing(output: bytes) -> dict[str, str]:
    """Return reference and object id of each line of ``git ls-remote``; other lines are left out."""
    found = (_LINE.fullmatch(line) for line in output.split(b"\n"))
    return {line[2].decode(): line[1].decode() for line in found if line}


def select_reference(ref: GitRef, listed: Mapping[str, str]) -> str | None:
    """Return the full name of the listed reference that *ref* follows; None if there is none."""
    if ref.semver is not None:
        return _highest(ref.semver, listed)
    pattern = pattern_of(ref)
    return pattern if pattern in listed else None


def _highest(text: str, names: Iterable[str]) -> str | None:
    wanted = VersionRange.parse(text)
    tags = ((Version.parse(name.removeprefix("refs/tags/")), name) for name in names)
    fitting = [(version, name) for version, name in tags if version and wanted.has(version)]
    # Of "1.2.0" and "v1.2.0", the same one each time.
    return max(fitting, default=(None, None))[1]
