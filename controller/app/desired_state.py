"""Desired state: the source for a DIR, its charts and its Git sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from controller.broker.secrets.key_files import FILES, key_path
from controller.core.charts.releases import DEFERRED
from controller.core.compose.translation.scope import ComposeSettings, owned_by
from controller.core.manifests.check_together import desired_from
from controller.core.manifests.declaration import FolderReading
from controller.core.planning.deliveries import bind_secrets
from controller.engine.requests import OF_HOST
from controller.model.desired.desired import Desired, GitSource, Secret, SourceIdentity
from controller.model.errors import Problem
from controller.model.names import Key
from controller.sources.directory import DirectorySource, Export
from controller.sources.written_folders import WrittenFolders

if TYPE_CHECKING:
    from controller.sources.fetched import FetchedSources


#: What readers of documents load on use, because commands start faster so.
READERS_ON_USE = (
    "core/manifests/combine",
    "core/manifests/source_document",
    "core/secrets/sops_metadata",
    "sources/charts",
    "sources/compose_projects",
    "sources/fetched",
)
#: Returns the policy's choices for Compose files.
AskCompose = Callable[[], ComposeSettings]


def directory_source(
    directory: Path,
    *,
    overlay: Path | None = None,
    compose: AskCompose = ComposeSettings,
    written: WrittenFolders | None = None,
) -> DirectorySource:
    """Return the source of the files in DIR, with the charts in ``configs/`` beside DIR.

    The documents of the file *overlay* take the place of those of the same resources. *compose* returns
    the policy's choices for Compose files; the default is those of ``strict``. *written* has the
    folders that containers write to.
    """
    charts = charts_folder(directory)
    return DirectorySource(
        directory, charts=charts, overlay=overlay, compose=compose, written=written
    )


def charts_folder(directory: Path) -> Path:
    """Return the charts folder of DIR's Releases."""
    return directory.parent / "configs"


#: Returns a desired state with the contents of its Secrets.
BindSecrets = Callable[[Desired], Desired]


def bind_nothing(desired: Desired) -> Desired:
    """Return a desired state without contents: without a broker all are unknown."""
    return bind_secrets(desired, {})


#: Uploads the proofs of the sources' served commits, and returns the problems.
SendProofs = Callable[[Iterable[GitSource], Callable[[str], str], Path], list[Problem]]


def send_no_proof(*_: object) -> list[Problem]:
    """Return no problem: without a broker nothing needs a proof."""
    return []


#: Asks for another reading of the files, in seconds.
ReadAgain = Callable[[float], object]
#: Seconds until the Releases that a reading left out are tried again.
DEFERRED_S = 5.0
#: A person repairs a missing file of the host soon after the message, where no watch can see it: the
#: broker is asked again after this time, so many times. Each answer is a record.
MISSING_S = 2.0
MISSING_LOOKS = 60


def read_once(_seconds: float) -> None:
    """Read no file again: a command shows what it has read."""


class SourceFiles:
    """A ``ports.DesiredSource`` for the documents of one Git source in a folder, such as a checkout."""

    def __init__(
        self,
        source: GitSource,
        folder: Path,
        serving: Mapping[Key, str],
        compose: AskCompose = ComposeSettings,
        bind: BindSecrets = bind_nothing,
    ) -> None:
        export, charts = Export(source.key.name, commit=""), charts_folder(folder)
        self._source = source
        self._files = DirectorySource(
            folder, charts=charts, export=export, compose=owned_by(source.spec.owners, compose)
        )
        self._serving = serving
        self._bind = bind

    def load(self) -> Desired:
        """Return the desired state of the source alone, with the contents of Secrets."""
        from controller.core.manifests.combine import SourceReading, combine

        # Unknown, not empty: what DIR or another source serves stays there.
        unknown = FolderReading((), SourceIdentity("DIR", present=True), absent=True)
        reading = SourceReading(self._source, self._files.read())
        combined = combine(unknown, [reading], self._serving)
        return self._bind(replace(combined, blind=reading.reading.blind))


def _host_files(secret: Secret) -> Iterable[Path]:
    """Return the files of the host that a Secret's values come from, or are opened with."""
    namespace, spec = secret.key.namespace, secret.spec
    if spec.file is not None:
        return (FILES / namespace / name for name in spec.file.values())
    return () if spec.generate is not None else (key_path(namespace),)


class DesiredFiles:
    """A ``ports.DesiredSource`` for DIR and the Git sources that DIR declares.

    *serving* returns the source of each known resource, by name. Without any Source, all is as with
    ``directory_source``. *read_again* is called for Releases that a reading left out.
    """

    def __init__(
        self,
        directory: DirectorySource,
        fetcher: Path,
        serving: Callable[[], Mapping[Key, str]],
        bind: BindSecrets = bind_nothing,
        compose: AskCompose = ComposeSettings,
        proofs: SendProofs = send_no_proof,
        read_again: ReadAgain = read_once,
    ) -> None:
        self._read_again = read_again
        self._compose = compose
        self._proofs = proofs
        self._bind = bind
        self._directory = directory
        self._fetcher = fetcher
        self._serving = serving
        self._fetched: FetchedSources | None = None
        self._marks: tuple[Path, ...] = ()
        self._of_secrets: tuple[Path, ...] = ()
        #: The Secrets without their files of the host, and how often they were looked for.
        self._missing: frozenset[Key | None] = frozenset()
        self._looks = 0

    def marks(self) -> tuple[Path, ...]:
        """Return the files outside the directory's walk with an effect on the desired state.

        These are the fetcher's files of the sources, named files in hidden folders, and the host's
        files and keys of Secrets.
        """
        return (*self._marks, *self._of_secrets, *self._directory.hidden_files)

    def closed(self) -> frozenset[str]:
        """Return the folders of the directory of which nothing is read, by their resolved paths."""
        return self._directory.closed()

    def load(self) -> Desired:
        """Return the desired state of the present files, with the contents of Secrets."""
        desired = self._load()
        if any(problem.code == DEFERRED for problem in desired.problems):
            self._read_again(DEFERRED_S)
        # Before the files are read: a change meanwhile is noticed.
        self._of_secrets = tuple(
            sorted({path for secret in desired.secrets for path in _host_files(secret)})
        )
        bound = self._bind(desired)
        missing = frozenset(p.key for p in bound.problems if p.code in OF_HOST)
        self._looks = self._looks + 1 if missing == self._missing else 0
        self._missing = missing
        if missing and self._looks < MISSING_LOOKS:
            self._read_again(MISSING_S)
        return bound

    def _load(self) -> Desired:
        reading, serving = self._directory.read(), self._serving()
        desired = desired_from(reading)
        has_broken = any(key.kind == "Source" for key in desired.blind_keys)
        if not (desired.sources or has_broken or any(serving.values())):
            self._marks = ()
            return desired
        if self._fetched is None:
            from controller.sources.fetched import FetchedSources

            self._fetched = FetchedSources(
                self._fetcher, self._compose, self._directory.begin_reading
            )
        self._marks = self._fetched.marks(desired.sources)
        fetched = self._fetched
        combined = fetched.combine(reading, desired.sources, serving, self._directory.top)
        unproven = self._proofs(desired.sources, fetched.commit_of, fetched.folder)
        return replace(combined, problems=(*combined.problems, *unproven))
