"""A Compose project for a command: the folder, or the folder of the file, and nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from controller.core.compose.project import ComposeProject
from controller.core.compose.reader import FILE_NAMES, read_project
from controller.core.compose.translation.documents import (
    Translation,
    parsed_documents,
    translate,
)
from controller.core.compose.translation.settings import ComposeSettings
from controller.core.manifests.check_together import resolve
from controller.model.desired.desired import Desired
from controller.model.errors import UsageError
from controller.sources.build_contexts import ContextReader
from controller.sources.compose_projects import look_up, read_file
from controller.sources.config_files import SourceRoot, with_files

if TYPE_CHECKING:
    from controller.core.compose.translation.scope import FoundPath


@dataclass(frozen=True, slots=True)
class ReadFolder:
    """A project, the project's documents, and the desired state."""

    folder: Path
    project: ComposeProject
    translation: Translation
    desired: Desired


def read_folder(path: Path, settings: ComposeSettings) -> ReadFolder:
    """Read the project of a folder, or of a Compose file in it.

    Raises:
        UsageError: there is no such project.
    """
    folder = path if path.is_dir() else path.parent
    first = next((name for name in FILE_NAMES if (folder / name).exists()), None)
    if not path.is_dir() and (not path.exists() or path.name not in FILE_NAMES):
        message = f"{path} is no Compose file" if path.exists() else f"{path} doesn't exist"
        remedy = f"name a folder, or a file called {FILE_NAMES[0]} in it"
        raise UsageError("compose.file-missing", message, remedy=remedy)
    if first is None:
        message = f"{folder} has no Compose file"
        raise UsageError("compose.file-missing", message, remedy=f"add {FILE_NAMES[0]}")
    top = os.path.realpath(folder)

    def read(path: str) -> bytes:
        return read_file(top, os.path.normpath(path))

    def look(name: str, *, listed: bool = True) -> FoundPath:
        return look_up(top, name, listed=listed)

    project = read_project(".", read, folder_name=os.path.basename(top))  # noqa: PTH119 - a text
    contexts = ContextReader()
    translation = translate(project, settings, look, lambda request: contexts.read(top, request))
    documents, problems = parsed_documents(translation)
    desired = resolve(with_files(documents, top, SourceRoot(top)), problems=problems)
    return ReadFolder(Path(top), project, translation, desired)
