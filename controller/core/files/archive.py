"""The plain files in an archive that the engine makes of a path of a container. Pure: reads bytes."""

from __future__ import annotations

import io
import posixpath

from controller.model.files.delivery import CONTENT_BYTES_MAX, FILE_BYTES_MAX, FILES_MAX, is_key

#: Members of an archive, folders included. A container can have any number of folders.
_MEMBERS_MAX = 4 * FILES_MAX


def files_of_archive(archive: bytes, *, file: str = "") -> dict[str, bytes] | None:
    """Return the files in an archive by their paths in the folder; with *file*, one file by that name.

    None if the archive is broken, has a link, a device or another special file, or passes the limits
    of a Config.
    """
    import tarfile  # loaded by the few brokers that adopt containers

    files: dict[str, bytes] = {}
    size = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as opened:
            for number, member in enumerate(opened):
                if number >= _MEMBERS_MAX:
                    return None
                _, _, name = member.name.removeprefix("./").partition("/")
                if member.isdir() and not file:
                    continue
                stream = opened.extractfile(member) if member.isreg() else None
                if stream is None or member.size > FILE_BYTES_MAX or len(files) >= FILES_MAX:
                    return None
                key = file or posixpath.normpath(name)
                size += member.size
                if size > CONTENT_BYTES_MAX or key in files or not is_key(key):
                    return None
                files[key] = stream.read(FILE_BYTES_MAX + 1)
    except (tarfile.TarError, EOFError, ValueError, OSError):
        return None
    return files
