"""A directory that declares a Git source, and the source's exported files.

The documents of some namespaces lie in the source. Every other time, what befalls the directory
befalls the source instead: its pointer is lost, or a file that may declare anything lies in a commit.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from controller.app.desired_state import DesiredFiles
from controller.core.git.reports import render_status
from controller.model.names import Key, service_key
from controller.model.sources import SourceState, SourceStatus
from controller.ports import DesiredSource
from controller.sources.directory import DirectorySource
from controller.sources.fetched import STATUS
from tests.sim.files import BAD_YAML, Doc, Files, Truth

NAME = "team"
NAMESPACES = ("lab", "herd")
SERVED = Doc(service_key("lab", "served"), {"image": "trimtab.local/job:1"})
#: Worlds with a source: none of those in ``found.json``, which planted bugs are found by.
REMAINDERS = frozenset({3, 5, 12})


def files_of(seed: int, folder: Path) -> Files:
    """Return the files of a world."""
    return SourcedFiles(folder) if seed % 16 in REMAINDERS else Files(folder)


class SourcedFiles(Files):
    """DIR with a Source, whose folder the fetcher would write."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder / "fetcher" / "sources" / NAME
        self._folder.mkdir(parents=True)
        self._mishaps = 0
        self._littered = False
        self._sync()

    def source(self, serving: Callable[[], Mapping[Key, str]]) -> DesiredSource:
        return DesiredFiles(DirectorySource(self.root), self._folder.parents[1], serving)

    def mishaps(self, seed: int) -> Iterator[tuple[float, str, Callable[[], object]]]:
        """A service is served from the source, and the source's pointer is lost for a while."""
        draw = random.Random(f"source-{seed}")
        yield draw.uniform(0, 2), "edit: served from a source", partial(self.put, SERVED)
        for begin in (5, 80):
            lost = draw.uniform(begin, begin + 40)
            yield lost, "the source is lost", partial(self._lose, True)
            yield lost + draw.uniform(2, 35), "the source is back", partial(self._lose, False)

    def _lose(self, lost: bool) -> None:
        if self.present and not self.emptied:
            self.lost = lost
            self._sync()

    def truth(self) -> Truth:
        truth = super().truth()
        if not self.present or self.emptied:
            return truth
        truth = replace(truth, documents=truth.documents + 1, unreadable=self.garbage)
        if self.lost:
            declared = {k: d for k, d in truth.declared.items() if k.namespace not in NAMESPACES}
            return replace(truth, declared=declared, hidden_namespaces=frozenset(NAMESPACES))
        if self._littered:
            return replace(truth, hidden_namespaces=frozenset(NAMESPACES))
        return truth

    @property
    def broken(self) -> bool:
        return super().broken or self.lost or self._littered

    def vanish(self) -> None:
        self._mishaps += 1
        if self._mishaps % 2 and self.present:
            self.lost = True
            self._sync()
        else:
            super().vanish()

    def litter(self) -> None:
        self._mishaps += 1
        if self._mishaps % 2:
            self._littered = True
            self._sync()
        else:
            super().litter()

    def mend(self) -> None:
        self.lost = self._littered = False
        super().mend()

    def _texts(self) -> dict[str, str]:
        own = {
            doc.file: doc.text(bad=key in self.bad)
            for key, doc in self.docs.items()
            if key.namespace not in NAMESPACES
        }
        return {**own, "source.yaml": _source(), **self._garbage()} if not self.emptied else {}

    def _sync(self) -> None:
        super()._sync()
        texts = {
            doc.file: doc.text(bad=key in self.bad)
            for key, doc in self.docs.items()
            if key.namespace in NAMESPACES
        }
        if self._littered:
            texts["zz-garbage.yaml"] = BAD_YAML
        self._export(texts)
        self._report()

    def _report(self) -> None:
        """Say how the fetches went, as the fetcher does; nothing until it has its first turn."""
        if self._mishaps or self.lost or self._littered:
            state = SourceState.FAILING if self.lost else SourceState.READY
            status = SourceStatus(NAME, state, "https://example.org/deploy.git", "branch main", ".")
            (self._folder.parents[1] / STATUS).write_bytes(render_status([status]))

    def _export(self, texts: dict[str, str]) -> None:
        """Serve the files as a commit, as the fetcher does."""
        commit = hashlib.sha1(json.dumps(texts, sort_keys=True).encode()).hexdigest()
        folder, pointer = self._folder / commit, self._folder / "current"
        if not folder.exists():
            folder.mkdir()
            for name, text in texts.items():
                (folder / name).write_text(text)
            (self._folder / f"{commit}.json").write_text(json.dumps({"version": 1, "path": "."}))
        pointer.unlink(missing_ok=True)
        if not self.lost:
            pointer.symlink_to(commit)


def _source() -> str:
    spec = {"git": {"url": "https://example.org/deploy.git"}, "namespaces": NAMESPACES}
    metadata = {"name": NAME, "owner": "team"}
    document = {"apiVersion": "trimtab/v1", "kind": "Source", "metadata": metadata, "spec": spec}
    return json.dumps(document)
