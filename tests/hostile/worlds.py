"""Drawn repositories through real git: fetch, verification and export of one source."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dulwich.repo import Repo

from controller.core.git import reports
from controller.core.git.commit_objects import DetachedSignature
from controller.fetch.verify import Verifier, read_keys
from controller.model.desired.source_spec import SourceSpec
from controller.model.sources import CommitSignature
from tests.git.repository import DOCUMENT, NAME, Followed, Repository, git
from tests.hostile.drawn import ESCAPE, Damage, GoodCommit, Hostile
from tests.hostile.parsers import (
    assert_printable,
    expected_of,
    raise_if_not_exported,
    spec_json,
)

_GOOD = {"deploy/web.yaml": DOCUMENT, "configs/web/Chart.yaml": "name: web\n"}
_FETCHER_FILES = {"askpass", "mirror", "sources", "state.json", "status.json", "shop.gitconfig"}


#: The good commit has one id in all runs: an input by its number is the same bytes each time.
_DATES = {"GIT_AUTHOR_DATE": "1700000000 +0000", "GIT_COMMITTER_DATE": "1700000000 +0000"}


class HostileSource(Followed):
    """A source whose spec a drawn repository determines."""

    it: Hostile | None = None

    @property
    def spec(self) -> SourceSpec:
        if self.it is None:
            return super().spec
        return SourceSpec.model_validate_json(spec_json(self.it, self.url))


class World:
    """A repository with a good, signed commit that a source serves already, in *folder*.

    Each input begins with a copy of this state, at the same place: no input depends on another.
    """

    def __init__(self, folder: Path) -> None:
        self._keys = folder / "keys"
        self._template, self._live = folder / "template", folder / "live"
        self._scratch = folder / "scratch"
        self._scratch.mkdir(parents=True)
        self._keys.mkdir(mode=0o700)
        key = _write_key(folder)
        repository = Repository(self._live / "deploy.git")
        tree = repository.tree(_GOOD)
        commit = repository.commit_tree(tree, parents=(), key=key, variables=_DATES)
        source = self._source()
        assert source.fetch() == "Ready"
        raw = git(repository.folder, "cat-file", "commit", commit)
        signature = raw.partition("gpgsig ")[2].partition("\n\n")[0]
        self.good = GoodCommit(commit.encode(), signature.encode())
        self._live.rename(self._template)

    def fetch(self, it: Hostile) -> str:
        """Let the source fetch a drawn repository twice. Return the outcome.

        Raises:
            AssertionError: an invariant doesn't hold.
        """
        shutil.rmtree(self._live, ignore_errors=True)
        shutil.copytree(self._template, self._live, symlinks=True)
        before = tempfile.tempdir
        tempfile.tempdir = str(self._scratch)  # for what a verification leaves
        try:
            source = self._source()
            source.it = it
            write(it, self._live / "deploy.git")
            outcome = source.fetch()
            self._raise_if_wrong(it, source, outcome)
            again = source.fetch()
            assert again in {outcome, "Ready"}, f"first {outcome}, then {again}"
            self._raise_if_wrong(it, source, again)
        finally:
            tempfile.tempdir = before
        return outcome

    def _source(self) -> HostileSource:
        url = f"file://{self._live / 'deploy.git'}"
        return HostileSource(self._live / "fetcher", url, verify=self._verify)

    def _verify(self, keys: str, signature: DetachedSignature | None) -> CommitSignature:
        found = read_keys(self._keys, owners=(os.getuid(),))
        now = time.clock_gettime(time.CLOCK_REALTIME)
        return Verifier(found, now=now, monotonic=time.monotonic).verify(signature)

    def _raise_if_wrong(self, it: Hostile, source: HostileSource, outcome: str) -> None:
        good = self.good.commit.decode()
        served = source.current
        if outcome != "Ready":
            assert served == good, f"{outcome}, and {served} is served"
            expected = {path: text.encode() for path, text in _GOOD.items()}
            raise_if_not_exported(source.exports, good, expected)
        elif served == it.commit.decode():
            assert it.verify == "none", "a commit without a good signature is served"
            raise_if_not_exported(source.exports, served, expected_of(it))
        else:
            assert served == good, f"{served} is served, which no reference names"
        assert outcome == "Ready" or not it.is_plain, f"a good commit is refused: {outcome}"
        self._raise_if_outside(source)
        _raise_if_unprintable(source)

    def _raise_if_outside(self, source: HostileSource) -> None:
        assert not list(self._scratch.iterdir()), "a verification left a folder"
        names = {path.name for path in self._live.iterdir()}
        assert names == {"deploy.git", "fetcher"}, f"beside the fetcher: {sorted(names)}"
        names = {path.name for path in source.folder.iterdir()} - _FETCHER_FILES
        assert not names, f"in the fetcher's folder: {sorted(names)}"
        names = {path.name for path in source.exports.iterdir()}
        commits = {name.removesuffix(".json") for name in names}
        assert commits <= {"current", self.good.commit.decode(), source.current}, sorted(names)
        mirror = source.folder / "mirror" / f"{NAME}.git"
        left = [*mirror.glob("quarantine"), *mirror.rglob("*.lock"), *mirror.rglob("tmp_*")]
        left += mirror.glob("refs/trimtab/incoming")
        assert not left, f"the fetch left {left}"
        assert not os.path.lexists(ESCAPE), f"{ESCAPE!r} exists"


def _write_key(folder: Path) -> Path:
    """Write the same key each time, and trust it. Return the private key's path."""
    private = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
    encoding, no_password = serialization.Encoding, serialization.NoEncryption()
    path = folder / "key"
    path.touch(mode=0o600)
    form = serialization.PrivateFormat.OpenSSH
    path.write_bytes(private.private_bytes(encoding.PEM, form, no_password))
    openssh = serialization.PublicFormat.OpenSSH
    public = private.public_key().public_bytes(encoding.OpenSSH, openssh).decode()
    path.with_suffix(".pub").write_text(f"{public}\n")
    (folder / "keys" / "allowed_signers").write_text(f"alice@example.org {public}\n")
    return path


def _raise_if_unprintable(source: HostileSource) -> None:
    status = source.memory.status
    assert_printable(status.reason, status.message, status.remedy)
    # The controller reads with strict rules what the fetcher writes.
    assert reports.parse_status(reports.render_status([status])) == (status,)
    assert source.remembered() == source.memory, "a restart reads another memory"


def write(it: Hostile, repository: Path) -> None:
    """Write a drawn repository's objects and references, then damage its files."""
    with Repo(str(repository)) as repo:
        for each in it.objects.values():
            repo.object_store.add_object(each)
    if it.damage in {Damage.FLIPPED_PACK, Damage.CUT_PACK}:
        _pack(it, repository)
    for name, content in it.references.items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if it.damage is not Damage.NONE:
        _damage(it, repository)


def _pack(it: Hostile, repository: Path) -> None:
    """Move the drawn objects into one pack."""
    objects = repository / "objects"
    ids = b"".join(each + b"\n" for each in it.objects)
    git(repository, "pack-objects", "--quiet", str(objects / "pack" / "pack"), given=ids)
    for each in it.objects:
        objects.joinpath(each[:2].decode(), each[2:].decode()).unlink()


def _damage(it: Hostile, repository: Path) -> None:
    is_pack = it.damage in {Damage.FLIPPED_PACK, Damage.CUT_PACK}
    pattern = "pack/*.pack" if is_pack else "??/*"
    files = sorted((repository / "objects").glob(pattern))
    if not files:
        return
    path = it.dice.choice(files)
    data = bytearray(path.read_bytes())
    if it.damage in {Damage.CUT_OBJECT, Damage.CUT_PACK}:
        del data[it.dice.randrange(len(data)) :]
    else:
        for _ in range(it.dice.randint(1, 4)):
            data[it.dice.randrange(len(data))] ^= 1 << it.dice.randrange(8)
    path.chmod(0o600)
    path.write_bytes(data)
