"""An instance under signed admission, for tests that are written for an ordinary one.

A test edits ``directory`` as ever. Each edit becomes a signed commit of a Git source, in the form in
which the fetcher exports commits with their proofs. DIR has nothing but the Source, and the policy
requires signed sources in all namespaces of the tests.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.fetch.verify import KEYS
from tests.instance import POLICIES, WITH_SECRETS, Host
from tests.unit.core.proofs.repository import ALICE, Repository, signer_files

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

NAME = "team"
FOLDER = "desired"
#: The namespaces of the documents of all tests.
NAMESPACES = ("default", "shop", "lab", "blog", "other", "validators", "no-root", WITH_SECRETS)
#: An edit that a test makes without ``write`` is committed after so long.
LOOK_AGAIN_S = 0.2
SOURCE = f"""\
apiVersion: trimtab/v1
kind: Source
metadata: {{name: {NAME}, owner: team}}
spec:
  git: {{url: 'file:///nowhere/deploy.git', path: {FOLDER}, interval: 1h}}
  namespaces: [{", ".join(NAMESPACES)}]
"""
#: Commands about documents alone take the edited folder itself.
_READERS = frozenset({"validate", "convert", "try"})
#: Nothing is wrong with these refusals: the controller uploads the proof, and tries again.
PASSING = frozenset({"proof.missing", "proof.busy"})


@dataclass(frozen=True, slots=True)
class SignedActs:
    """What the broker decided on the controller's changes by signed commits."""

    admitted: Counter[str]
    refused: Counter[str]

    @classmethod
    def read(cls, host: Host) -> SignedActs:
        """Read the journal of an instance."""
        admitted: Counter[str] = Counter()
        refused: Counter[str] = Counter()
        for record in host.records():
            if record["stage"] == "intent" and record["actor"].get("role") == "controller":
                admitted[str(record["request"].get("route"))] += 1
            rules = record.get("verdict", {}).get("rules", ())
            for rule in rules if record["stage"] == "refusal" else ():
                name = str(rule)
                if name.startswith("proof."):
                    refused[name] += 1
        return cls(admitted, refused)

    def counted(self) -> Iterator[tuple[str, int]]:
        """Yield how many changes of each kind were admitted, and refused."""
        yield from ((f"admitted {route}", count) for route, count in self.admitted.items())
        yield from ((f"refused {rule}", count) for rule, count in self.refused.items())

    @property
    def unexpected(self) -> dict[str, int]:
        """The refusals that no later upload mends."""
        return {rule: count for rule, count in self.refused.items() if rule not in PASSING}


class SignedHost(Host):
    """A host whose desired state is a signed Git source."""

    names_lines = False

    def __init__(self, engine: PrivateEngine | FoundEngine) -> None:
        super().__init__(engine)
        self._keys = f"trimtab-{self.folder.name[-8:].lower().replace('_', '-')}-k"
        self._instance_directory = self.folder / "instance"
        self._instance_directory.mkdir()
        (self._instance_directory / "source.yaml").write_text(SOURCE)
        folder = KEYS / self._keys
        folder.mkdir(parents=True)
        (folder / "allowed_signers").write_bytes(signer_files(ALICE).allowed)
        self._repository = Repository()
        self._first = self._head = self._repository.commit({})
        self._committed: dict[str, bytes] | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._commit_edits, daemon=True)
        self._watch.start()
        #: All of them, once the host is closed.
        self.acts = SignedActs(Counter(), Counter())

    def write(self, name: str, text: str) -> Path:
        path = super().write(name, text)
        self._commit()
        return path

    def remove(self, name: str) -> None:
        super().remove(name)
        self._commit()

    def prepared(self, arguments: Iterable[str]) -> list[str]:
        """Return a command's arguments with the instance's DIR and policy; commit edits before."""
        argv = list(arguments)
        self._commit(force=True)
        if argv[0] in _READERS:
            return argv
        if argv[:2] == ["policy", "reload"]:
            self._signed_policy(self.policy)
        made = []
        for before, each in zip(["", *argv], argv, strict=False):
            if before == "--policy":
                made.append(self._signed_policy(each))
            else:
                made.append(str(self._instance_directory) if each == str(self.directory) else each)
        return made

    def json(self, *arguments: str, expect: int | tuple[int, ...] = 0) -> Any:
        """Return what a command prints; nobody can fetch the source, and that is left out."""
        told = super().json(*arguments, expect=expect)
        if isinstance(told, dict) and isinstance(told.get("problems"), list):
            told["problems"] = [
                each for each in told["problems"] if each["code"] != "SourceFailing"
            ]
        return told

    def close(self) -> None:
        self._closed.set()
        self._watch.join()
        try:
            self._stop_and_count()
            super().close()
        finally:
            shutil.rmtree(KEYS / self._keys, ignore_errors=True)

    def _stop_and_count(self) -> None:
        """End what runs, and count what its journal says: the folder is about to go."""
        if not self.process_ended:
            self.stop()
        if (self.state / "broker" / "journal").is_dir():
            self.acts = SignedActs.read(self)

    def _signed_policy(self, name: str) -> str:
        text = (Path(name) if "/" in name else POLICIES / f"{name}.yaml").read_text()
        rule = f"{{source: {NAME}, namespaces: [{', '.join(NAMESPACES)}], require: signed, "
        rule += f"keys: {self._keys}, path: {FOLDER}, since: {self._first}}}"
        policy = self.folder / "signed-policy.yaml"
        policy.write_text(f"{text}\nsources:\n  - {rule}\n")
        return str(policy)

    def _commit_edits(self) -> None:
        """Commit the edits that tests make to files directly, while the instance may run."""
        seen = None
        while not self._closed.wait(LOOK_AGAIN_S):
            now = self._marks()
            if now is not None and now != seen:
                seen = now
                self._commit()

    def _marks(self) -> object:
        """Return what changes with the files of the folder; None while the folder can't be read."""
        try:
            paths = sorted(self.directory.rglob("*"))
            return [(str(path), path.lstat().st_mtime_ns, path.lstat().st_ino) for path in paths]
        except OSError:
            return None

    def _commit(self, *, force: bool = False) -> None:
        """Serve the folder's files as a signed commit, once an instance has a state folder.

        A folder without the form of a commit, or that is gone, leaves the served commit in place.
        """
        with self._lock:
            if not (force or self.state.exists()) or self._closed.is_set():
                return
            try:
                files = self._read()
            except OSError:
                return
            if not files and self._committed is None:
                return  # the commit would have no folder of documents
            if files is not None and files != self._committed:
                self._serve(files)
                self._committed = files

    def _read(self) -> dict[str, bytes] | None:
        """Return the files of a commit; None if the folder isn't that of a commit."""
        found = {}
        for top, prefix in ((self.directory, FOLDER), (self.folder / "configs", "configs")):
            for folder, _, names in os.walk(top):
                for name in names:
                    path = Path(folder) / name
                    if name.startswith(".") and name.endswith(".new"):
                        continue
                    if not stat.S_ISREG(path.lstat().st_mode):
                        return None
                    found[f"{prefix}/{path.relative_to(top)}"] = path.read_bytes()
        return found if self.directory.is_dir() else None

    def _serve(self, files: dict[str, bytes]) -> None:
        objects = self._repository.objects
        self._repository.objects = {n: each for n, each in objects.items() if each[0] == "commit"}
        self._head = commit = self._repository.commit(files, self._head)
        served = self.state / "fetcher" / "sources" / NAME
        (served / commit / FOLDER).mkdir(parents=True)
        # Nobody can reach the repository. After a failed fetch, the fetcher would let the link lead back
        # to a commit that it remembers as served.
        os.chown(served, 0, -1)
        served.chmod(0o755)
        for path, content in files.items():
            file = served / commit / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        (served / f"{commit}.json").write_text(f'{{"version": 1, "path": "{FOLDER}"}}')
        (served / f"{commit}.proof").write_bytes(self._repository.proof(commit))
        (served / "new").symlink_to(commit)
        (served / "new").rename(served / "current")
