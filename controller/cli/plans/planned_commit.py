"""The files of a commit that the fetcher has, in a temporary folder of the calling user."""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from controller.cli.clients.socket_client import ask_controller
from controller.model.errors import SourceError

TIMEOUT_S = 60.0
#: The bounds of what the fetcher can send: the fetcher reads hostile bytes.
FILES_MAX = 10_000
BYTES_MAX = 24 << 20


@contextmanager
def planned_commit(fetch_socket: Path, source: str, commit: str) -> Iterator[Path]:
    """Yield the documents' folder of a commit of a Git source; the files go with the block.

    Raises:
        EngineFailed: the fetcher has no such commit, or the user isn't allowed to ask.
        EngineUnavailable: no fetcher runs.
        SourceError: the answer isn't usable.
    """
    answer = ask_controller(
        fetch_socket, {"do": "files", "name": source, "commit": commit}, timeout_s=TIMEOUT_S
    )
    with TemporaryDirectory(prefix="trimtab-plan-") as folder:
        top = Path(folder) / "tree"
        try:
            path = write_files(top, answer)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(
                "source.answer",
                f"the fetcher's files of commit {commit} can't be used: {error}",
                remedy="check the commit out, and name its folder",
            ) from error
        yield path


def write_files(top: Path, answer: dict[str, object]) -> Path:
    """Write the files of an answer below *top*, a folder that doesn't exist. Return the documents' folder.

    Raises:
        OSError: a file can't be written.
        ValueError, KeyError, TypeError, AttributeError: the answer has another form.
    """
    files = answer["files"]
    if not isinstance(files, dict) or len(files) > FILES_MAX:
        raise ValueError(f"expected at most {FILES_MAX} files")
    if sum(map(len, files.values())) > BYTES_MAX:
        raise ValueError(f"expected at most {BYTES_MAX} bytes")
    top.mkdir(mode=0o700)
    for name, content in files.items():
        path = top / inside(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(b64decode(content, validate=True))
    folder = answer["path"]
    found = top if folder == "." else top / inside(folder)
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


def inside(name: object) -> PurePosixPath:
    """Return a relative path that leads nowhere else.

    Raises:
        ValueError: the path could lead elsewhere.
    """
    if not isinstance(name, str) or "\0" in name:
        raise ValueError("a path isn't a text")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or str(path) != name:
        raise ValueError(f"the path {name!r} leads elsewhere")
    return path
