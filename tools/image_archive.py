"""Image archives as `docker load` reads them, and the tar layers inside.

Invariant: the same content gives the same image id on every machine. Tar entries carry no
times and no names of users, and the caller gives them in one fixed order.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import dockerd
from tools.dockerd import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}
CREATED = "2025-01-01T00:00:00Z"
CHUNK_BYTES = 1024 * 1024
LOAD_TIMEOUT_S = 300


@dataclass(frozen=True)
class Layer:
    """One layer: a tar, in memory or in a file."""

    source: bytes | Path

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the tar, which the engine calls its diff id."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    @property
    def size(self) -> int:
        source = self.source
        return len(source) if isinstance(source, bytes) else source.stat().st_size

    def chunks(self) -> Iterator[bytes]:
        if isinstance(self.source, bytes):
            yield self.source
            return
        with self.source.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


@dataclass(frozen=True)
class Archive:
    """One image: its name, its layers from the bottom up, and the members of its config."""

    reference: str
    layers: tuple[Layer, ...]
    config: dict[str, Any]
    made_by: str

    @cached_property
    def config_bytes(self) -> bytes:
        history = {"created": CREATED, "created_by": self.made_by}
        config = {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": CREATED,
            "config": self.config,
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{layer.digest}" for layer in self.layers],
            },
            "history": [history] * len(self.layers),
        }
        return json.dumps(config, sort_keys=True).encode()

    @property
    def id(self) -> str:
        """The image's id in an engine that stores images by their config."""
        return f"sha256:{hashlib.sha256(self.config_bytes).hexdigest()}"

    def stream(self) -> Iterator[bytes]:
        """Yield the archive, piece by piece."""
        name = f"{self.id.removeprefix('sha256:')}.json"
        files = [f"layer-{number}.tar" for number in range(len(self.layers))]
        manifest = [{"Config": name, "RepoTags": [self.reference], "Layers": files}]
        yield from _member("manifest.json", Layer(json.dumps(manifest).encode()))
        yield from _member(name, Layer(self.config_bytes))
        for file, layer in zip(files, self.layers, strict=True):
            yield from _member(file, layer)
        yield bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, content: Layer) -> Iterator[bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = content.size
    yield entry.tobuf(tarfile.USTAR_FORMAT)
    yield from content.chunks()
    yield bytes(-content.size % tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder or link of a layer. *path* has no leading slash."""

    path: str
    content: bytes | None = None  # None: a folder, or a link if *link* is given
    link: str = ""
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


def folder(path: str, mode: int = 0o755, owner: int = 0) -> Entry:
    return Entry(path, mode=mode, uid=owner, gid=owner)


def link(path: str, target: str) -> Entry:
    return Entry(path, link=target, mode=0o777)


def file(path: str, content: str | bytes, mode: int = 0o644) -> Entry:
    return Entry(path, content.encode() if isinstance(content, str) else content, mode=mode)


def layer_of(entries: Iterable[Entry]) -> Layer:
    """Return a layer with these entries, in their order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for each in entries:
            entry = tarfile.TarInfo(each.path)
            entry.mode, entry.uid, entry.gid = each.mode, each.uid, each.gid
            entry.linkname = each.link
            entry.size = len(each.content or b"")
            if each.link:
                entry.type = tarfile.SYMTYPE
            elif each.content is None:
                entry.type = tarfile.DIRTYPE
            tar.addfile(entry, io.BytesIO(each.content or b""))
    return Layer(out.getvalue())


def inspect(host: str, reference: str) -> dict[str, Any] | None:
    """Return what the engine says of an image, None if it has none of that name."""
    status, body = dockerd.call(host, "GET", f"/images/{reference}/json")
    found: dict[str, Any] = json.loads(body)
    return found if status == http.client.OK else None


def load(host: str, archive: Archive) -> None:
    """Load an image into an engine.

    Raises:
        EngineError: the engine refused it.
    """
    status, body = dockerd.call(
        host,
        "POST",
        "/images/load?quiet=1",
        body=archive.stream(),
        content_type="application/x-tar",
        timeout_s=LOAD_TIMEOUT_S,
    )
    if status != http.client.OK or b'"errorDetail"' in body:
        raise EngineError(
            f"the engine at {host} didn't load {archive.reference}",
            f"status {status}: {body.decode(errors='replace').strip()[-300:]}",
            "read the engine's log",
        )
