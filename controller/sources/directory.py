"""The directory of the desired state, read whole at each call.

What users wrote never makes ``load`` raise. Whatever couldn't be read makes the result blind:
creating goes on, pruning doesn't.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from controller.core.encoding.yaml import decode
from controller.core.manifests.parse import Declaration, ParsedDocument, read_text
from controller.core.manifests.resolve import resolve
from controller.model.desired.desired import Desired, SourceIdentity
from controller.model.desired.spec import ReleaseSpec
from controller.model.errors import Problem, Severity
from controller.sources import git
from controller.sources.safe_read import MAX_TOTAL_BYTES, FolderWalk, Pread, SourceFile, read_whole

_COMPOSE = re.compile(r"(?:.*/)?(?:docker-)?compose[^/]*\.ya?ml")


@dataclass(frozen=True, slots=True)
class _Known:
    """What a file said when it was last read whole."""

    digest: bytes
    size: int
    readings: tuple[ParsedDocument, ...]


class DirectorySource:
    """A ``ports.DesiredSource`` over a directory; ``charts`` is where Releases find theirs.

    Any thread may call ``load``; one at a time reads. Files are read again at each call (a
    change within the resolution of a timestamp must show), and parsed only if they differ.
    """

    def __init__(self, root: Path, *, charts: Path | None = None, pread: Pread = os.pread) -> None:
        self._root = root.absolute()
        self._charts = charts
        self._pread = pread
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._last: Desired | None = None
        self._releases: dict[object, tuple[ParsedDocument, ...]] = {}

    def load(self) -> Desired:
        """Return the desired state as the files are now."""
        with self._lock:
            return self._load()

    def _load(self) -> Desired:
        try:
            top = os.path.realpath(self._root, strict=True)
            status = Path(top).stat()
        except OSError as error:
            return self._absent(f"{self._root} can't be found: {error.strerror}")
        if not stat.S_ISDIR(status.st_mode):
            return self._absent(f"{self._root} is no directory")
        repository = git.git_folder(Path(top))
        before = git.fingerprint(repository) if repository else ()
        sign = git.busy(repository) if repository else ""
        if sign:
            return self._while_busy(sign, status.st_dev)
        readings, problems = self._read(top)
        if repository and (git.busy(repository) or git.fingerprint(repository) != before):
            return self._while_busy("index", status.st_dev)
        identity = SourceIdentity(
            path=str(self._root),
            present=True,
            device=status.st_dev,
            documents=sum(reading.declaration is not None for reading in readings),
            commit=git.commit_of(repository) if repository else "",
        )
        rendered = self._rendered(readings)
        charts = git.git_folder(self._charts) if rendered and self._charts else None
        elsewhere = git.commit_of(charts) if charts else ""
        readings = [*_committed(readings, identity.commit), *_committed(rendered, elsewhere)]
        self._last = resolve(readings, identity=identity, problems=problems)
        return self._last

    def _absent(self, message: str) -> Desired:
        """Return the state without a directory: nothing is known, so nothing may go."""
        problem = Problem("source.missing", message, remedy="create it, or name another directory")
        identity = SourceIdentity(path=str(self._root), present=False)
        return resolve((), identity=identity, problems=(problem,), blind=True)

    def _while_busy(self, sign: str, device: int) -> Desired:
        """Return what was read before a Git operation began, blind."""
        problem = Problem(
            "git.busy",
            f"a Git operation is under way here ({sign}): what was read before it stays in force",
            severity=Severity.WARNING,
            remedy="finish it; if none runs, remove what a crashed one left in .git",
        )
        if self._last is None:
            identity = SourceIdentity(path=str(self._root), present=True, device=device)
            return resolve((), identity=identity, problems=(problem,), blind=True)
        return replace(self._last, blind=True, problems=(problem, *self._last.problems))

    def _read(self, top: str) -> tuple[list[ParsedDocument], list[Problem]]:
        """Return what all files say, and what is wrong with reading them."""
        found = FolderWalk(top)
        readings: list[ParsedDocument] = []
        problems = found.problems
        known: dict[str, _Known] = {}
        total = 0
        for file in found.files():
            if _COMPOSE.fullmatch(file.name):
                problems.append(_compose(file.name))
                continue
            if total > MAX_TOTAL_BYTES:
                message = (
                    f"the files are over {MAX_TOTAL_BYTES // 1024**2} MiB; the rest wasn't read"
                )
                problems.append(Problem("source.too-big", message, file.name))
                break
            entry, problem = self._read_file(file, top)
            if problem is not None:
                problems.append(problem)
            if entry is not None:
                known[file.name] = entry
                total += entry.size
                readings += entry.readings
        self._known = known
        return readings, problems

    def _read_file(self, file: SourceFile, top: str) -> tuple[_Known | None, Problem | None]:
        last = self._known.get(file.name)

        def is_known(content: bytes) -> bool:
            return last is not None and hashlib.sha256(content).digest() == last.digest

        content = read_whole(file, top, known=is_known, pread=self._pread)
        if isinstance(content, Problem):
            return (last if content.code == "file.unstable" else None), content
        digest = hashlib.sha256(content).digest()
        if last is not None and last.digest == digest:
            return last, None
        return _Known(digest, len(content), read_text(decode(content), file.name)), None

    def _rendered(self, readings: list[ParsedDocument]) -> list[ParsedDocument]:
        """Return what the Releases among the readings render to."""
        releases = [
            reading.declaration
            for reading in readings
            if reading.declaration is not None and isinstance(reading.declaration.spec, ReleaseSpec)
        ]
        if not releases:
            return []
        # Jinja and JSON Schema are loaded where a chart is used, and nowhere else.
        from controller.sources.charts import MAX_RELEASES, Chart, load_chart, render_release

        charts: dict[str, Chart] = {}
        kept: dict[object, tuple[ParsedDocument, ...]] = {}
        for release in releases[:MAX_RELEASES]:
            assert isinstance(release.spec, ReleaseSpec), "only Releases were taken"
            name = release.spec.chart
            if name not in charts:
                charts[name] = load_chart(self._charts, name)
            memo = (_sameness(release), charts[name])
            kept[memo] = self._releases.get(memo) or render_release(release, charts[name])
        self._releases = kept
        rendered = [reading for readings in kept.values() for reading in readings]
        if len(releases) > MAX_RELEASES:
            message = f"there are more than {MAX_RELEASES} Releases; the rest wasn't rendered"
            problem = Problem("source.too-many", message, releases[MAX_RELEASES].source.file)
            rendered.append(ParsedDocument(None, (problem,), None))
        return rendered


def _committed(readings: list[ParsedDocument], commit: str) -> list[ParsedDocument]:
    """Return the readings with the commit that is checked out where their files are."""
    return [_at(reading, commit) for reading in readings] if commit else readings


def _at(reading: ParsedDocument, commit: str) -> ParsedDocument:
    if reading.declaration is None:
        return reading
    source = replace(reading.declaration.source, commit=commit)
    return replace(reading, declaration=replace(reading.declaration, source=source))


def _sameness(release: Declaration) -> object:
    """Return what decides how a Release renders, its place included (problems name it)."""
    return release.key, release.owner, release.source, release.document.text


def _compose(name: str) -> Problem:
    return Problem(
        "unsupported",
        "compose projects are not supported yet",
        name,
        # Without a key: the file may declare anything, and what ran from it before must not go.
        remedy="write its services as documents of kind Service; rename it if it is another file",
    )
