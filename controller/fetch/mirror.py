"""The bare mirror of one repository: fetched into quarantine, then moved in as a whole.

An interrupted, oversized or damaged fetch leaves nothing in the mirror. Nothing is ever checked out.

Runs of the git command with a closed environment.

No configuration of user or system, no prompts, hooks, helpers, submodules or filters; only the protocol
of the URL. A run has bounds on time, memory, output and the size of a file, and ends as a whole.
"""

from __future__ import annotations

import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from controller.core.git.commit_objects import TreeFile, parse_tree
from controller.core.git.references import parse_listing
from controller.core.git.remote_failures import explain_failure
from controller.model.errors import SourceError
from controller.system.child_programs import Bounds, Finished, run_program
from controller.system.durable_files import fsync_folder

GIT = "git"
_NOTHING: Mapping[str, str] = MappingProxyType({})

_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
    "GIT_SSH_COMMAND": "/bin/false",
    "GIT_SSH_VARIANT": "ssh",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_PROTOCOL_FROM_USER": "0",
    #: No protocol has this name.
    "GIT_ALLOW_PROTOCOL": "none",
}
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.attributesFile=/dev/null",
    "credential.helper=",
    "fetch.fsckObjects=true",
    "transfer.fsckObjects=true",
    "transfer.bundleURI=false",
    "transfer.credentialsInUrl=die",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "fetch.writeCommitGraph=false",
    "fetch.showForcedUpdates=false",
    # A fetch makes one pack, which moves into the mirror as a whole (mirror.fetch).
    "fetch.unpackLimit=1",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.followRedirects=false",
    "http.sslVerify=true",
    "http.lowSpeedLimit=200",
    "http.lowSpeedTime=30",
    "protocol.version=2",
    # Memory: beyond this size a blob is streamed; a bomb never is in memory as a whole.
    "core.bigFileThreshold=8m",
    "core.packedGitWindowSize=16m",
    "core.packedGitLimit=256m",
    "core.deltaBaseCacheLimit=64m",
    "pack.threads=1",
)


#: Stands for a password.
WITHHELD = "(withheld)"
_AUTHORIZATION = re.compile(r"\b(Basic|Bearer) [A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RemoteAccess:
    """The access to one remote repository: its protocol, settings and variables. No secrets."""

    protocol: str
    settings: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    #: The file with the password.
    password: Path | None = None

    def withhold(self, text: str) -> str:
        """Return a text of git without the password: a server can repeat what it got."""
        with suppress(OSError):
            if self.password is not None:
                secret = self.password.read_text("utf-8", "replace").partition("\n")[0]
                text = text.replace(secret, WITHHELD) if secret else text
        return _AUTHORIZATION.sub(rf"\1 {WITHHELD}", text)


@dataclass(frozen=True, slots=True)
class GitLimits:
    """The bounds of runs. Units: seconds, bytes."""

    fetch_time_s: float = 600.0
    list_time_s: float = 60.0
    read_time_s: float = 60.0
    #: Longest pack of one fetch.
    pack_max: int = 512 << 20
    #: Largest mirror.
    mirror_max: int = 2 << 30
    #: Most packs of a mirror, before one pack is made of them.
    packs_max: int = 40
    memory_max: int = 2 << 30
    #: Longest output of a run that lists or reads objects.
    output_max: int = 32 << 20


@dataclass(frozen=True, slots=True)
class GitCommand:
    """The git command on one bare repository."""

    folder: Path
    monotonic: Callable[[], float]
    limits: GitLimits = field(default_factory=GitLimits)

    def run(
        self,
        *arguments: str,
        access: RemoteAccess | None = None,
        time_s: float | None = None,
        given: bytes = b"",
        extra: Mapping[str, str] = _NOTHING,
        is_full: Callable[[], bool] = lambda: False,
    ) -> bytes:
        """Run git and return its output. *is_full* as in ``run_program``.

        Raises:
            SourceError: git failed, or went beyond a bound.
        """
        finished = self.finish(
            *arguments, access=access, time_s=time_s, given=given, extra=extra, is_full=is_full
        )
        if not finished.is_success:
            errors = finished.errors if access is None else access.withhold(finished.errors)
            why = explain_failure(errors, exit_code=finished.code, exceeded=finished.exceeded)
            raise SourceError(why.code, why.message, remedy=why.remedy)
        return finished.output

    def finish(
        self,
        *arguments: str,
        access: RemoteAccess | None = None,
        time_s: float | None = None,
        given: bytes = b"",
        extra: Mapping[str, str] = _NOTHING,
        file_max: int | None = None,
        is_full: Callable[[], bool] = lambda: False,
    ) -> Finished:
        """Run git and return its result, also that of a failure.

        *file_max* is the longest file that git can write, by default a pack of one fetch.

        Raises:
            SourceError: there is no git command.
        """
        settings = (*_SETTINGS, *(access.settings if access else ()))
        environment = {**_ENVIRONMENT, "GIT_DIR": str(self.folder), **extra}
        if access is not None:
            environment |= {"GIT_ALLOW_PROTOCOL": access.protocol, **access.environment}
        argv = (GIT, *(part for setting in settings for part in ("-c", setting)), *arguments)
        bounds = Bounds(
            time_s=self.limits.read_time_s if time_s is None else time_s,
            output_max=self.limits.output_max,
            memory_max=self.limits.memory_max,
            file_max=self.limits.pack_max if file_max is None else file_max,
        )
        try:
            return run_program(
                argv,
                environment=environment,
                bounds=bounds,
                monotonic=self.monotonic,
                given=given,
                folder=Path("/"),
                is_full=is_full,
            )
        except OSError as error:
            raise SourceError(
                "source.git-missing",
                f"git can't be run: {error.strerror}",
                remedy="install git 2.40 or newer",
            ) from error


#: The served commit, and the newest one.
SERVED, HEAD = "refs/trimtab/served", "refs/trimtab/head"
#: The code of a tree whose list is beyond the bound.
TOO_MANY = "source.too-many-files"
_INCOMING = "refs/trimtab/incoming"
_QUARANTINE = "quarantine"
#: Files that move from quarantine; git takes a pack for complete when its index is there.
_PACK_ENDINGS = (".pack", ".rev", ".idx")
#: The beginnings of files that an interrupted repack leaves.
_LEFTOVERS = (".tmp-", "tmp_")
_BATCH_FILES, _BATCH_BYTES = 500, 8 << 20


class Mirror:
    """The mirror that *git* works on. Use from one thread."""

    def __init__(self, git: GitCommand) -> None:
        self._git = git
        self._folder = git.folder

    @property
    def exists(self) -> bool:
        return (self._folder / "HEAD").is_file()

    def prepare(self, *, hash_name: str) -> None:
        """Create the mirror if it is missing, and remove what an interrupted fetch left.

        Raises:
            SourceError: the mirror can't be created.
        """
        if not self.exists:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(mode=0o700, parents=True)
            self._git.run(
                "init",
                "--quiet",
                "--bare",
                "--template=",
                "--initial-branch=none",
                f"--object-format={hash_name}",
            )
        shutil.rmtree(self._folder / _QUARANTINE, ignore_errors=True)
        self._remove_leftovers()
        for lock in (*self._folder.glob("*.lock"), *self._folder.glob("refs/**/*.lock")):
            lock.unlink(missing_ok=True)
        (self._folder / _INCOMING).unlink(missing_ok=True)

    def list_references(self, url: str, pattern: str, access: RemoteAccess) -> dict[str, str]:
        """Return the references of the remote repository that match *pattern*, with their ids.

        Raises:
            SourceError: the repository can't be reached.
        """
        output = self._git.run(
            "ls-remote",
            "--refs",
            "--",
            url,
            pattern,
            access=access,
            time_s=self._git.limits.list_time_s,
            # Without a mirror, git looks for a repository in the folder that it stands in.
            extra={} if self.exists else {"GIT_DIR": "/nonexistent"},
        )
        return parse_listing(output)

    def fetch(self, url: str, reference: str, access: RemoteAccess) -> str:
        """Fetch a reference or a commit id with its history. Return the fetched object's id.

        Raises:
            SourceError: the fetch failed; the mirror is as before.
        """
        self._tidy()
        quarantine = self._folder / _QUARANTINE
        shutil.rmtree(quarantine, ignore_errors=True)
        (quarantine / "pack").mkdir(mode=0o700, parents=True)
        places = {
            "GIT_OBJECT_DIRECTORY": str(quarantine),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self._folder / "objects"),
        }
        try:
            self._git.run(
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-recurse-submodules",
                "--no-write-fetch-head",
                "--no-auto-maintenance",
                "--force",
                "--",
                url,
                f"+{reference}:{_INCOMING}",
                access=access,
                time_s=self._git.limits.fetch_time_s,
                extra=places,
                # A server without git's protocol names any number of packs.
                is_full=lambda: self._is_full(quarantine),
            )
            self._raise_if_nothing_came()
            fetched = self._resolve(_INCOMING, extra=places)
            self._make_room()
            self._move_in(quarantine)
            self._git.run("update-ref", HEAD, fetched)
        except SourceError as error:
            if self._is_full(quarantine):
                raise self._too_large(self._git.limits.pack_max) from error
            raise
        finally:
            shutil.rmtree(quarantine, ignore_errors=True)
            (self._folder / _INCOMING).unlink(missing_ok=True)
        return fetched

    def has(self, object_id: str) -> bool:
        """Return True if the mirror has an object."""
        return self.exists and self._git.finish("cat-file", "-e", object_id).is_success

    def find_commit(self, prefix: str) -> str | None:
        """Return the id of the commit with a full or shortened id; None if there isn't exactly one."""
        if not self.exists:
            return None
        words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{prefix}^{{commit}}")
        finished = self._git.finish(*words)
        return finished.output.decode().strip() if finished.is_success else None

    def commit_of(self, object_id: str) -> str:
        """Return the id of the commit that a tag, or a tag of a tag, leads to.

        Raises:
            SourceError: the object leads to no commit.
        """
        return self._resolve(f"{object_id}^{{commit}}")

    def kind_of(self, object_id: str) -> str:
        """Return the type of an object, such as ``commit`` or ``tag``."""
        return self._git.run("cat-file", "-t", object_id).decode().strip()

    def read(self, kind: str, object_id: str) -> bytes:
        """Return a commit or tag as it is stored."""
        return self._git.run("cat-file", kind, object_id)

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Return True if *older* is an ancestor of *newer*, or the same commit."""
        return self._answer("merge-base", "--is-ancestor", older, newer)

    def has_common_history(self, one: str, other: str) -> bool:
        """Return True if two commits have a common ancestor."""
        return self._answer("merge-base", one, other)

    def commits_between(self, older: str, newer: str, *, at_most: int) -> list[str]:
        """Return the commits of *newer* that *older* doesn't contain, the newest first."""
        output = self._git.run("rev-list", f"--max-count={at_most}", newer, f"^{older}", "--")
        return output.decode().split()

    def latest_commits(self, *, at_most: int) -> list[str]:
        """Return the latest commits that were fetched, the newest first; none without a mirror."""
        if not self.exists:
            return []
        output = self._git.run("rev-list", f"--max-count={at_most}", HEAD, "--")
        return output.decode().split()

    def list_tree(self, commit: str, folders: Iterable[str]) -> bytes:
        """Return the output of ``git ls-tree`` for the files below *folders*.

        Raises:
            SourceError: there are too many files, or git failed.
        """
        paths = [f"{folder}/" for folder in folders if folder != "."]
        words = ("ls-tree", "-r", "-z", "-l", "--full-tree", commit, "--", *paths)
        finished = self._git.finish(*words)
        if finished.exceeded == "output":
            raise SourceError(TOO_MANY, "the tree has too many files")
        return finished.output if finished.is_success else self._git.run(*words)  # raises

    def read_files(self, files: Iterable[TreeFile]) -> Iterator[tuple[TreeFile, bytes]]:
        """Yield the files with their contents, a few megabytes at a time.

        Raises:
            SourceError: an object is missing, or of another size than listed.
        """
        for batch in _batches(files):
            ids = "".join(f"{file.object_id}\n" for file in batch)
            output = self._git.run("cat-file", "--batch", given=ids.encode())
            at = 0
            for file in batch:
                head = f"{file.object_id} blob {file.size_bytes}\n".encode()
                end = at + len(head) + file.size_bytes
                if output[at : at + len(head)] != head or output[end : end + 1] != b"\n":
                    raise SourceError(
                        "source.damaged",
                        f"the mirror lacks the content of {file.path}",
                        remedy=f"stop the fetcher, and remove {self._folder}",
                    )
                yield file, output[at + len(head) : end]
                at = end + 1

    def list_trees(self, commit: str, path: str) -> list[str]:
        """Return the ids of a commit's tree, of the trees on the way to *path*, and of the trees below."""
        parts = [] if path == "." else path.split("/")
        above = ["/".join(parts[:count]) for count in range(len(parts) + 1)]
        found = [self._resolve(f"{commit}:{folder}") for folder in above]
        words = ("ls-tree", "-r", "-d", "-z", "-l", "--full-tree", f"{commit}:{'/'.join(parts)}")
        return [*found, *(entry.object_id for entry in parse_tree(self._git.run(*words)))]

    def ancestors(self, commit: str, *, since: str | None, at_most: int) -> list[str]:
        """Return earlier commits: the first parents, and the commits between *since* and *commit*."""
        bound = f"--max-count={at_most}"
        listed: list[tuple[str, ...]] = [("rev-list", bound, "--first-parent", commit, "--")]
        if since is not None:
            listed.append(("rev-list", bound, "--ancestry-path", commit, f"^{since}", "--"))
        found = [name for words in listed for name in self._git.run(*words).decode().split()]
        return [name for name in dict.fromkeys(found) if name != commit]

    def read_batch(self, object_ids: Iterable[str]) -> bytes:
        """Return small objects in the form of ``git cat-file --batch``."""
        given = "".join(f"{name}\n" for name in object_ids)
        return self._git.run("cat-file", "--batch", given=given.encode())

    def mark_served(self, commit: str) -> None:
        """Keep a commit and its history when the mirror is tidied."""
        self._git.run("update-ref", SERVED, commit)

    def _resolve(self, name: str, *, extra: dict[str, str] | None = None) -> str:
        output = self._git.run(
            "rev-parse", "--verify", "--quiet", "--end-of-options", name, extra=extra or {}
        )
        return output.decode().strip()

    def _answer(self, *arguments: str) -> bool:
        """Return the answer of a git command that exits with 0 or 1."""
        finished = self._git.finish(*arguments)
        if finished.exceeded or finished.code not in {0, 1}:
            self._git.run(*arguments)  # raises
        return finished.code == 0

    def _tidy(self) -> None:
        """Make one pack of many. Commits that are held add packs as well as served ones."""
        packs = list((self._folder / "objects" / "pack").glob("*.pack"))
        if len(packs) > self._git.limits.packs_max:
            self._repack()

    def _repack(self) -> None:
        """Make one pack, without what no reference leads to. A failure leaves the packs as they are."""
        limits = self._git.limits
        self._git.finish(
            "repack", "-a", "-d", "-q", time_s=limits.fetch_time_s, file_max=limits.mirror_max
        )
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Remove what an interrupted repack or move left: git never looks at it."""
        for path in (self._folder / "objects" / "pack").iterdir():
            if path.name.startswith(_LEFTOVERS) or not path.with_suffix(".idx").exists():
                path.unlink(missing_ok=True)

    def _make_room(self) -> None:
        """Remove earlier commits that were held, if the mirror with the quarantine is too big.

        Raises:
            SourceError: it is too big without them as well.
        """
        if not self._is_too_big():
            return
        (self._folder / _INCOMING).unlink(missing_ok=True)  # its objects are in quarantine
        self._repack()
        if self._is_too_big():
            raise self._too_large(self._git.limits.mirror_max)

    def _is_too_big(self) -> bool:
        return sum(_sizes(self._folder)) > self._git.limits.mirror_max

    def _raise_if_nothing_came(self) -> None:
        """Raise for a shallow repository: git rejects its history, and exits with 0 all the same."""
        if not (self._folder / _INCOMING).exists():
            raise SourceError(
                "source.damaged",
                "the repository is shallow: its history is cut off",
                remedy="run 'git fetch --unshallow' in the repository",
            )

    def _is_full(self, quarantine: Path) -> bool:
        """Return True if a pack, or all packs, reached the bound.

        At the bound of a pack git ends without a word about it.
        """
        sizes = list(_sizes(quarantine))
        limits = self._git.limits
        return max(sizes, default=0) >= limits.pack_max or sum(sizes) > limits.mirror_max

    def _too_large(self, bound: int) -> SourceError:
        return SourceError(
            "source.too-large",
            f"the repository has more than {bound >> 20} MiB",
            remedy="shrink the repository, or move the documents to a repository of their own",
        )

    def _move_in(self, quarantine: Path) -> None:
        target = self._folder / "objects" / "pack"
        packs = sorted(
            (path for path in (quarantine / "pack").iterdir() if path.suffix in _PACK_ENDINGS),
            key=lambda path: _PACK_ENDINGS.index(path.suffix),
        )
        for path in packs:
            path.replace(target / path.name)
        with suppress(OSError):
            fsync_folder(target)


def _sizes(folder: Path) -> Iterator[int]:
    """Yield the sizes of the files below a folder; a file can vanish meanwhile."""
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if stat.S_ISREG((status := path.lstat()).st_mode):
                yield status.st_size


def _batches(files: Iterable[TreeFile]) -> Iterator[list[TreeFile]]:
    batch: list[TreeFile] = []
    size = 0
    for file in files:
        if batch and (len(batch) >= _BATCH_FILES or size + file.size_bytes > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size_bytes
    if batch:
        yield batch
