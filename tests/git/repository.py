"""A real repository, and a source that follows its branch ``main``."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from controller.core.git.commit_objects import DetachedSignature
from controller.fetch.credentials import ASKPASS, AccessFiles
from controller.fetch.export import ExportFolder, MemoryFile, SourceMemory, fresh
from controller.fetch.mirror import GitCommand, GitLimits, Mirror
from controller.fetch.source_fetch import SourceFetch
from controller.model.desired.source_spec import SourceSpec
from controller.model.errors import SourceError
from controller.model.sources import CommitSignature

DOCUMENT = "apiVersion: trimtab/v1\nkind: Volume\nmetadata: {name: data}\nspec: {}\n"
NAME = "shop"
GOOD = {"deploy/web.yaml": DOCUMENT, "configs/web/Chart.yaml": "name: web\n", "README.md": "x"}


def git(
    folder: Path, *arguments: str, given: bytes = b"", variables: Mapping[str, str] | None = None
) -> str:
    """Run git without the machine's configuration; return the output without its end."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Alice",
        "GIT_AUTHOR_EMAIL": "alice@example.org",
        "GIT_COMMITTER_NAME": "Alice",
        "GIT_COMMITTER_EMAIL": "alice@example.org",
        **(variables or {}),
    }
    done = subprocess.run(
        ("git", "-c", "core.protectNTFS=false", *arguments),
        cwd=folder,
        env=environment,
        input=given,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout.decode("utf-8", "replace").strip()


class Repository:
    """A bare repository; commits are made without a working tree.

    Blobs and trees are written here: with a git for each, most of a test's time was in those.
    """

    def __init__(self, folder: Path, *, hashed_by: str = "sha1") -> None:
        self.folder = folder
        self._hashed_by = hashed_by
        folder.mkdir(parents=True)
        form = f"--object-format={hashed_by}"
        git(folder, "init", "--quiet", "--bare", "--initial-branch=main", "--template=", form)

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def blob(self, content: str | bytes) -> str:
        return self._write("blob", content if isinstance(content, bytes) else content.encode())

    def raw_tree(self, entries: list[tuple[str, bytes, str]]) -> str:
        """Write a tree of (mode, name, object id), also one that git would refuse to make."""
        raw = b"".join(
            mode.encode() + b" " + name + b"\0" + bytes.fromhex(object_id)
            for mode, name, object_id in entries
        )
        return self._write("tree", raw)

    def _write(self, kind: str, data: bytes) -> str:
        """Write a loose object, as ``git hash-object -w --literally`` does; return its id."""
        header = f"{kind} {len(data)}\0".encode()
        digest = hashlib.new(self._hashed_by, header, usedforsecurity=False)
        digest.update(data)
        name = digest.hexdigest()
        path = self.folder / "objects" / name[:2] / name[2:]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(header + data, 1))
        return name

    def tree(self, files: Mapping[str, str | bytes]) -> str:
        """Write the tree of files by their paths."""
        folders: dict[str, dict[str, str | bytes]] = {}
        entries: list[tuple[str, bytes, str]] = []
        for path, content in files.items():
            head, slash, rest = path.partition("/")
            if slash:
                folders.setdefault(head, {})[rest] = content
            else:
                entries.append(("100644", head.encode(), self.blob(content)))
        entries += [("40000", name.encode(), self.tree(inside)) for name, inside in folders.items()]
        entries.sort(key=lambda entry: entry[1] + (b"/" if entry[0] == "40000" else b""))
        return self.raw_tree(entries)

    def commit_tree(
        self,
        tree: str,
        *,
        parents: tuple[str, ...] | None = None,
        variables: Mapping[str, str] | None = None,
        key: Path | None = None,
    ) -> str:
        """Commit a tree on ``main``, signed with an SSH *key*.

        *parents* default to the head, or to none in an empty repository.
        """
        if parents is None:
            head = ("for-each-ref", "--format=%(objectname)", "refs/heads/main")
            parents = tuple(git(self.folder, *head).split())
        words = [part for parent in parents for part in ("-p", parent)]
        words += ["-m", "deploy", tree]
        signing = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={key}") if key else ()
        words = [*signing, "commit-tree", *(["-S"] if key else []), *words]
        commit = git(self.folder, *words, variables=variables)
        self.push(commit)
        return commit

    def commit(self, files: Mapping[str, str | bytes], *, key: Path | None = None) -> str:
        return self.commit_tree(self.tree(files), key=key)

    def push(self, commit: str, reference: str = "refs/heads/main") -> None:
        git(self.folder, "update-ref", reference, commit)

    def delete(self, reference: str) -> None:
        git(self.folder, "update-ref", "-d", reference)


def unverified(_keys: str, _signature: DetachedSignature | None) -> CommitSignature:
    raise SourceError("source.unsigned", "it has no signature")


def source_spec(url: str, *, path: str = "deploy", git: str = "", more: str = "") -> SourceSpec:
    return SourceSpec.model_validate_json(
        f'{{"namespaces": ["shop"], "git": {{"url": "{url}", "path": "{path}"{git}}}{more}}}'
    )


@dataclass
class Followed:
    """A source in a folder of the fetcher."""

    folder: Path
    url: str
    path: str = "deploy"
    git: str = ""
    more: str = ""
    limits: GitLimits = field(default_factory=GitLimits)
    verify: Callable[[str, DetachedSignature | None], CommitSignature] = unverified
    #: Why the last fetch served nothing new; '' if it did.
    message: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        askpass = self.folder / "askpass"
        askpass.write_text(ASKPASS)
        askpass.chmod(0o700)
        self.memory = self.remembered()

    def remembered(self) -> SourceMemory:
        """Return the memory as a restarted fetcher reads it."""
        file = MemoryFile(self.folder)
        assert file.load() is None
        return file.get(NAME) or fresh(NAME, self.spec.git)

    @property
    def spec(self) -> SourceSpec:
        return source_spec(self.url, path=self.path, git=self.git, more=self.more)

    @property
    def mirror(self) -> Mirror:
        path = self.folder / "mirror" / f"{NAME}.git"
        return Mirror(GitCommand(path, time.monotonic, self.limits))

    @property
    def exports(self) -> Path:
        return self.folder / "sources" / NAME

    def source(self) -> SourceFetch:
        files = AccessFiles(self.folder / "git", self.folder / "askpass", self.folder)
        return SourceFetch(NAME, self.mirror, ExportFolder(self.exports), files, self.verify)

    def fetch(self) -> str:
        """Fetch once; return the state and the reason, or the error's code."""
        file = MemoryFile(self.folder)
        file.load()
        known = self.memory

        def save(memory: SourceMemory) -> None:
            file.change(NAME, lambda _: memory, new=memory)

        try:
            self.memory = self.source().run(self.spec, known, save=save)
        except SourceError as error:
            self.message = error.message
            return f"Failing {error.code}"
        self.message = self.memory.status.message
        save(self.memory)
        return f"{self.memory.status.state} {self.memory.status.reason}".strip()

    def forget(self, **changes: object) -> None:
        self.memory = replace(self.memory, **changes)  # type: ignore[arg-type]

    @property
    def current(self) -> str:
        """The commit that the link leads to."""
        return (self.exports / "current").readlink().name

    def files(self) -> dict[str, str]:
        """Return the served files by their paths."""
        top = self.exports / "current"
        return {
            str(path.relative_to(top)): path.read_text()
            for path in sorted(top.rglob("*"))
            if path.is_file()
        }


@dataclass
class World:
    """A repository, and a source that serves its first commit."""

    repository: Repository
    source: Followed
    first: str

    @classmethod
    def served(cls, folder: Path) -> Self:
        repository = Repository(folder / "deploy.git")
        first = repository.commit(GOOD)
        source = Followed(folder / "fetcher", repository.url)
        assert source.fetch() == "Ready"
        return cls(repository, source, first)


def replace_repository(world: World) -> None:
    """Put an unrelated repository in the place of the followed one."""
    shutil.rmtree(world.repository.folder)
    Repository(world.repository.folder).commit({"deploy/web.yaml": "other: 1\n"})
