"""Projects in memory, for tests of the reading of Compose files."""

from __future__ import annotations

from collections.abc import Mapping

from controller.core.compose.project import ComposeProject, FileAbsent, FileOutside
from controller.core.compose.reader import read_project

#: What the services of these tests have.
CONSTANT = {"networks": {"default": None}, "image": "x"}


def read(files: Mapping[str, str] | str, folder: str = "shop") -> ComposeProject:
    """Read a project; a string is its only file, other paths are relative to the root."""
    texts = {"shop/compose.yaml": files} if isinstance(files, str) else files

    def content(path: str) -> bytes:
        if path.startswith(("../", "/")):
            raise FileOutside(path)
        if path not in texts:
            raise FileAbsent(path)
        return texts[path].encode("utf-8", "surrogateescape")

    return read_project(folder, content)


def services(files: Mapping[str, str] | str) -> dict[str, dict[str, object]]:
    """Return the services of a valid project, without the constant members."""
    project = read(files)
    assert project.valid, problems(project)
    found = project.tree["services"]
    assert isinstance(found, dict)
    return {
        name: {key: value for key, value in each.items() if CONSTANT.get(key, 0) != value}
        for name, each in found.items()
    }


def problems(project: ComposeProject) -> list[str]:
    """Return each problem as a line: place, severity, code and message."""
    return [f"{p.place} {p.severity} {p.code}: {p.message}" for p in project.problems]
