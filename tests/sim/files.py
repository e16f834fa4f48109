"""The directory of the desired state, and what is true of it whatever the product thinks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from controller.engine.adapter import BrokerEngine
from controller.model.desired.desired import Desired
from controller.model.names import Key
from controller.ports import DesiredSource
from controller.sources.directory import DirectorySource

SECRET = "hunter2-{seed}-Zq"
BAD_YAML = "apiVersion: trimtab/v1\nkind: [Service\n"


@dataclass(frozen=True, slots=True)
class Doc:
    """One document, alone in its file."""

    key: Key
    spec: dict[str, Any]
    owner: str = "team"
    moved: str = ""  # the earlier name

    @property
    def earlier(self) -> Key | None:
        """The earlier key, if the document names one."""
        return self.key._replace(name=self.moved) if self.moved else None

    @property
    def file(self) -> str:
        return f"{self.key.namespace}-{self.key.kind.lower()}-{self.key.name}.yaml"

    def text(self, *, bad: bool = False) -> str:
        metadata = {
            "name": self.key.name,
            "namespace": self.key.namespace,
            "owner": self.owner,
            **({"moved": [{"from": self.moved}]} if self.moved else {}),
        }
        spec = {**self.spec, "imaeg": "typo"} if bad else self.spec
        whole = {
            "apiVersion": "trimtab/v1",
            "kind": self.key.kind,
            "metadata": metadata,
            "spec": spec,
        }
        return json.dumps(whole, indent=1)  # JSON is YAML


@dataclass(frozen=True, slots=True)
class Truth:
    """What the directory held at one moment.

    ``unreadable``: something in it may declare anything. ``hidden``: keys that a bad document may
    declare.
    """

    present: bool = False
    documents: int = 0
    unreadable: bool = False
    declared: dict[Key, Doc] = field(default_factory=dict)
    hidden: frozenset[Key] = frozenset()
    #: Anything in these may be declared by what can't be read.
    hidden_namespaces: frozenset[str] = frozenset()

    def hides(self, key: Key) -> bool:
        """Return True if something that can't be read may declare the resource."""
        return key in self.hidden or key.namespace in self.hidden_namespaces


class Files:
    """The directory. Its documents are valid, but for those in ``bad``."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "desired"
        self.root.mkdir()
        self._aside = folder / "aside"
        self.docs: dict[Key, Doc] = {}
        self.bad: set[Key] = set()
        self.garbage = False
        self.present = True
        self.emptied = False
        self.lost = False  # a Git source, if there is one

    def source(self, _serving: Callable[[], Mapping[Key, str]]) -> DesiredSource:
        """Return what reads the files; the argument is the source of each known resource."""
        return DirectorySource(self.root)

    def mishaps(self, _seed: int) -> Iterator[tuple[float, str, Callable[[], object]]]:
        """Yield what befalls these files alone: when, what, and the change."""
        yield from ()

    def reach_broker(self, _engine: BrokerEngine, _monotonic: Callable[[], float]) -> None:
        """Take the way to the broker; only signed sources need one."""

    @property
    def broken(self) -> bool:
        """Tell whether the files aren't as people mean them."""
        return not self.present or self.emptied or self.garbage or bool(self.bad)

    def truth(self) -> Truth:
        if not self.present:
            return Truth()
        if self.emptied:
            return Truth(present=True)
        good = {key: doc for key, doc in self.docs.items() if key not in self.bad}
        return Truth(
            present=True,
            documents=len(good),
            unreadable=self.garbage,
            declared=good,
            hidden=frozenset(self.bad & self.docs.keys()),
        )

    def put(self, doc: Doc) -> None:
        self.docs[doc.key] = doc
        self.bad.discard(doc.key)
        self._sync()

    def change(self, key: Key, **spec: Any) -> None:
        self.put(replace(self.docs[key], spec={**self.docs[key].spec, **spec}))

    def drop(self, key: Key) -> None:
        del self.docs[key]
        self.bad.discard(key)
        self._sync()

    def spoil(self, key: Key) -> None:
        """A typo in one document: kind and name can still be read."""
        self.bad.add(key)
        self._sync()

    def litter(self) -> None:
        """A file that may declare anything."""
        self.garbage = True
        self._sync()

    def empty(self) -> None:
        self.emptied = True
        self._sync()

    def vanish(self) -> None:
        if self.present:
            self.present = False
            self.root.rename(self._aside)

    def mend(self) -> None:
        """Everything is as it should be again."""
        if not self.present:
            self.present = True
            self._aside.rename(self.root)
        self.bad.clear()
        self.garbage = self.emptied = False
        self._sync()

    def _texts(self) -> dict[str, str]:
        """Return the files of the directory."""
        if self.emptied:
            return {}
        own = {doc.file: doc.text(bad=key in self.bad) for key, doc in self.docs.items()}
        return {**own, **self._garbage()}

    def _garbage(self) -> dict[str, str]:
        return {"zz-garbage.yaml": BAD_YAML} if self.garbage else {}

    def _sync(self) -> None:
        root = self.root if self.present else self._aside
        texts = self._texts()
        for path in root.iterdir():
            if path.name not in texts:
                path.unlink()
        for name, text in texts.items():
            path = root / name
            if not path.exists() or path.read_text() != text:
                path.write_text(text)

    def close(self) -> None:
        shutil.rmtree(self.root.parent)


class WatchedSource:
    """The real source over the directory; it notes what was true at each reading."""

    def __init__(self, files: Files, serving: Callable[[], Mapping[Key, str]]) -> None:
        self._files = files
        self._source = files.source(serving)
        self.truth = Truth()
        self.desired = Desired()

    def load(self) -> Desired:
        self.truth = self._files.truth()
        self.desired = self._source.load()
        return self.desired
