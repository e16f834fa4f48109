"""Compare what trimtab makes of Compose projects with what it makes of ``docker-compose config``.

    python -m tools.compose_diff DIR [--verbose]

Every folder below DIR with a Compose file is a project; every other YAML file with ``services`` is
read as a project of its own. A project agrees if the file and the printed tree become the same documents,
or if both refuse the project. A refusal by trimtab alone, with a problem, is counted apart, by the problem's code. All
other differences are printed, and make the exit status 1.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controller.core.compose.attributes import read_values
from controller.core.compose.long_forms import nodes_of
from controller.core.compose.nodes import ComposeNode, ReadingReport, project_of
from controller.core.compose.project import ComposeProject, FileAbsent, FileOutside, FileUnreadable
from controller.core.compose.reader import FILE_NAMES, read_project
from controller.core.compose.translation.documents import translate
from controller.core.compose.translation.scope import (
    USUAL_CAPABILITIES,
    ComposeSettings,
    ContextRequest,
    FoundContext,
    FoundPath,
)
from controller.model.errors import Problem, Severity

ORACLE = "docker-compose"
#: The oracle prints numbers in single precision.
SINGLE = 1e-6
#: A policy with much to say, so that documents have much to compare.
SETTINGS = ComposeSettings(
    network="bridge", everywhere=True, aliases=True, builds=True, capabilities=USUAL_CAPABILITIES
)
#: Attributes of trimtab that are newer than the oracle.
NEWER = (
    "pre_start",
    "models",
    "provider",
    "use_api_socket",
    "pull_refresh_after",
    "interface_name",
    "pull_policy",
)
#: The home folder of the oracle. trimtab has none: it refuses a mount of ``~`` when it makes documents.
HOME = "/nonexistent/home"
#: Seconds for one run of the oracle.
TIMEOUT_S = 30


@dataclass(frozen=True)
class Reader:
    """The port to the files of a folder on disk."""

    root: Path

    def __call__(self, path: str) -> bytes:
        """Return the content of a file."""
        target = Path(os.path.normpath(self.root / path))
        if not target.is_relative_to(self.root):
            raise FileOutside(path)
        try:
            return target.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise FileAbsent(path) from None
        except OSError as error:
            raise FileUnreadable(str(error.strerror)) from None


@dataclass(frozen=True)
class Answer:
    """The oracle's answer: a tree, or the reason of a refusal."""

    tree: object
    refusal: str = ""

    @property
    def failed(self) -> bool:
        """Return True if the oracle failed by a fault of its own, not of the project."""
        return "MarshalJSON" in self.refusal or "goroutine" in self.refusal


def ask_oracle(root: Path, folder: str) -> Answer:
    """Return the oracle's tree, with paths relative to the root of the source."""
    environment = {"PATH": os.environ["PATH"], "HOME": HOME}
    done = subprocess.run(
        [ORACLE, "config", "--format", "json"],
        cwd=root / folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason"]
        return Answer(None, "goroutine" if "goroutine 1" in done.stderr else lines[-1])
    return Answer(portable(json.loads(done.stdout), root))


def portable(value: object, root: Path) -> object:
    """Return the oracle's tree with relative paths and without doubled dollar signs."""
    if isinstance(value, dict):
        return {name.replace("$$", "$"): portable(each, root) for name, each in value.items()}
    if isinstance(value, list):
        return [portable(each, root) for each in value]
    if isinstance(value, str):
        text = value.replace("$$", "$")
        if text == str(root):
            return "."
        if text.startswith(f"{HOME}/"):
            return text.replace(HOME, "~", 1)
        if text == str(root.parent):
            return ".."
        return text.replace(f"{root}/", "./").replace(f"{root.parent}/", "../")
    return value


def project_of_tree(tree: object, config_values: Mapping[str, str]) -> ComposeProject:
    """Return the oracle's tree as a project: all that is left is to read the values."""
    root = nodes_of(ComposeNode(None, "config", 1, 1), tree)
    for service in root.members_of("services").values():
        for limit in service.members_of("ulimits").values():
            limit.value = limit.value or 0  # the oracle prints a limit of 0 as {}
    read_values(root, ReadingReport())
    name = root.members["name"].text or ""
    return replace(project_of(root, name), config_values=config_values)


def documents(project: ComposeProject, root: Path | None = None) -> dict[str, object]:
    """Return what trimtab makes of a project: its documents, and the errors of its resources."""

    def look(path: str, *, listed: bool = True) -> FoundPath:
        target = (root or Path("/nonexistent")) / path
        if target.is_dir():
            return FoundPath("folder", names=("file",) if listed else ())
        return FoundPath("file" if target.is_file() else "absent")

    def context(request: ContextRequest) -> FoundContext:
        text = request.inline or "FROM base"
        return FoundContext(request.context, "linux/amd64", f"sha256:{'0' * 64}", text)

    translation = translate(project, SETTINGS, look, context)
    made: dict[str, object] = {}
    for document in translation.documents:
        value: Any = document.value
        network = value.get("spec", {}).get("network", {})
        # The oracle sorts networks by their names.
        network["attach"] = sorted(network.get("attach", ()), key=json.dumps)
        made[f"{value['kind']}/{value['metadata']['name']}"] = value
    errors = [p for p in translation.problems if p.severity is Severity.ERROR]
    return {**made, "errors": sorted(f"{p.key} {p.code} {p.message}" for p in errors)}


def differences(ours: object, theirs: object, path: str = "") -> Iterator[str]:
    """Yield a line for each value that differs."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(ours.keys() | theirs.keys()):
            below = f"{path}.{name}" if path else name
            if name not in ours:
                yield f"{below}: missing, {ORACLE} has {theirs[name]!r}"
            elif name not in theirs:
                yield f"{below}: {ours[name]!r}, {ORACLE} has nothing"
            else:
                yield from differences(ours[name], theirs[name], below)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{path}[{number}]")
    elif isinstance(ours, float) and isinstance(theirs, float):
        if not math.isclose(ours, theirs, rel_tol=SINGLE):
            yield f"{path}: {ours!r}, {ORACLE} has {theirs!r}"
    elif isinstance(ours, bool) != isinstance(theirs, bool) or ours != theirs:
        yield f"{path}: {ours!r}, {ORACLE} has {theirs!r}"


@dataclass(frozen=True)
class Comparison:
    """The result for one project."""

    name: str
    root: Path
    project: ComposeProject
    answer: Answer

    @property
    def differences(self) -> list[str]:
        """Where the documents of the file differ from those of the oracle's tree."""
        theirs = project_of_tree(self.answer.tree, self.project.config_values)
        return [*differences(documents(self.project, self.root), documents(theirs, self.root))]

    @property
    def errors(self) -> list[Problem]:
        """The errors of trimtab's reading."""
        return [p for p in self.project.problems if p.severity is Severity.ERROR]

    @property
    def outcome(self) -> str:
        """One of ``equal``, ``both refuse``, ``named: CODE``, ``oracle fails``, ``newer: NAME``, ``different``."""
        if self.answer.failed:
            return "oracle fails"
        for name in NEWER:
            marks = (f"Additional property {name} ", f".{name} must be one of")
            if not self.errors and any(mark in self.answer.refusal for mark in marks):
                return f"newer: {name}"
        if self.errors:
            return "both refuse" if self.answer.refusal else f"named: {self.errors[0].code}"
        if self.answer.refusal or self.differences:
            return "different"
        return "equal"

    def report(self) -> Iterator[str]:
        """Yield the lines of the report."""
        yield f"{self.name}: {self.outcome}"
        for problem in self.errors:
            yield f"  trimtab: {problem.render()}"
        if self.answer.refusal:
            yield f"  {ORACLE}: {self.answer.refusal}"
        elif not self.errors:
            yield from (f"  {line}" for line in self.differences)


def compare(root: Path, folder: str, name: str) -> Comparison:
    """Compare one project."""
    folder_name = (root / folder).name
    project = read_project(folder, Reader(root), folder_name=folder_name)
    return Comparison(name, root, project, ask_oracle(root, folder))


def projects(top: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield each project: a folder, or a folder with the name of a file that is no default name."""
    for path in sorted(each for each in top.rglob("*.y*ml") if each.is_file()):
        if path.name in FILE_NAMES:
            if path == next(each for n in FILE_NAMES if (each := path.parent / n).exists()):
                yield path.parent, None
        elif ".override." not in path.name and b"services:" in path.read_bytes():
            yield path.parent, path.name


def compare_all(top: Path) -> Iterator[Comparison]:
    """Compare all projects below a folder; a single file is compared in a copy of its folder."""
    for folder, file in projects(top):
        relative = folder.relative_to(top)
        if file is None:
            yield compare(top, str(relative), str(relative))
            continue
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "source" / (folder.name or "project")
            shutil.copytree(folder, copy, symlinks=True)
            for name in FILE_NAMES:
                (copy / name).unlink(missing_ok=True)
            for override in copy.glob("*.override.y*ml"):
                override.unlink()
            shutil.copy(folder / file, copy / FILE_NAMES[0])
            yield compare(copy.parent, copy.name, str(relative / file))


def main() -> int:
    """Compare, print the differences and the score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--verbose", action="store_true", help="also print named differences")
    arguments = parser.parse_args()
    score: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as scratch:
        # `portable` would take a path such as /tmp in a project for the parent of the folder /tmp/projects.
        copy = shutil.copytree(
            arguments.folder.resolve(),
            Path(scratch) / "parent" / "source",
            symlinks=True,
            ignore=shutil.ignore_patterns(".git"),
        )
        for comparison in compare_all(copy):
            score[comparison.outcome] += 1
            if comparison.outcome == "different" or (
                arguments.verbose and comparison.outcome.startswith("named")
            ):
                print("\n".join(comparison.report()))
    print(f"{sum(score.values())} projects")
    for outcome, number in sorted(score.items()):
        print(f"{number:6} {outcome}")
    return 1 if score["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
