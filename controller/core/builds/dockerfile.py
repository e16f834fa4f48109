"""Dockerfiles: what a build uses from outside of its context, and the text that a classic builder gets.

``read`` understands each instruction or refuses the file. ``pinned`` writes the instructions anew, one a line, each
base by its image id: the builder gets no line that ``read`` didn't understand. The text has only the stages that
the target needs. What only BuildKit knows is translated if the result is the same image, and refused by name otherwise.

Platforms of builds: the engine's own, and its predefined variables in a Dockerfile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from controller.core.builds.dockerfile_text import (
    DockerfileLine,
    ExpansionError,
    Lines,
    cut,
    expand,
    split_words,
)
from controller.model.errors import Problem

#: Names of the kernel, and the architecture that images have for them.
_MACHINES: Final[Mapping[str, str]] = MappingProxyType(
    {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7", "armv6l": "arm/v6", "i686": "386"}
)
#: Other ways to write an architecture.
_ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **_MACHINES,
        "x86-64": "amd64",
        "arm64/v8": "arm64",
        "armhf": "arm/v7",
        "armel": "arm/v6",
        "arm": "arm/v7",
        "i386": "386",
    }
)


def platform_of_machine(machine: str) -> str:
    """Return the platform of a host by the kernel's name of its machine: ``linux/amd64`` for ``x86_64``."""
    return f"linux/{_MACHINES.get(machine, machine)}"


def normal_platform(platform: str) -> str:
    """Return a platform as ``OS/ARCHITECTURE[/VARIANT]``, whichever way it is written."""
    system, separator, architecture = platform.strip().lower().partition("/")
    if not separator:
        system, architecture = "linux", system
    return f"{system}/{_ALIASES.get(architecture, architecture)}"


def platform_variables(platform: str) -> dict[str, str]:
    """Return the variables that BuildKit predefines; build and target have the same platform here."""
    system, architecture, variant = [*platform.split("/"), ""][:3]
    values = {"PLATFORM": platform, "OS": system, "ARCH": architecture, "VARIANT": variant}
    return {
        f"{side}{name}": value for side in ("BUILD", "TARGET") for name, value in values.items()
    }


#: The name of the base without content.
SCRATCH: Final = "scratch"
#: Stages in a Dockerfile, at most.
MAX_STAGES: Final = 100
#: The longest instruction that is written, in bytes. The builder reads lines below 64 KiB.
MAX_WRITTEN: Final = 60 * 1024
_INSTRUCTIONS: Final = frozenset(
    {
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
    }
    | {"ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}
)
#: Flags that the classic builder knows and that name nothing outside of the build.
_KEPT: Final[Mapping[str, frozenset[str]]] = {
    "ADD": frozenset({"chown"}),
    "COPY": frozenset({"chown"}),
    "HEALTHCHECK": frozenset({"interval", "timeout", "start-period", "start-interval", "retries"}),
}
#: Flags of BuildKit without which the image is the same.
_DROPPED: Final = frozenset(
    {("ADD", "--link"), ("COPY", "--link"), ("ADD", "--link=true"), ("COPY", "--link=true")}
) | {
    ("RUN", "--network=default"),
    ("RUN", "--security=sandbox"),
}
#: What to write instead of other flags of BuildKit.
_REMEDIES: Final[Mapping[str, str]] = {
    "chmod": "set the mode of the file in the context, or write RUN chmod below",
    "checksum": "add the file to the context",
    "network": "the policy says which network a build has",
    "security": "a build has no privilege",
    "exclude": "list the files in .dockerignore",
    "parents": "write a COPY for each folder",
}
#: Letters of ASCII alone: engines cut flags byte by byte, and a byte of another letter can be a blank.
_FLAG = re.compile(r"--[a-z][a-z-]*(=[!#-&(-\[\]-_a-~]*)?")
_STAGE = re.compile(r"[a-z][a-z0-9_.-]*")
_REMOTE = re.compile(r"https?://|ftps?://|git://|ssh://|git@|github\.com/", re.IGNORECASE)
#: The shell of instructions before a SHELL.
_SHELL: Final = ("/bin/sh", "-c")


@dataclass(frozen=True, slots=True)
class Base:
    """An image that a build starts from or copies from."""

    #: The reference after the substitution of variables.
    image: str
    #: The line of the Dockerfile that names it first, from 1.
    line: int


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction for the builder: a text before and a text after the name of an image or a stage."""

    line: int
    before: str
    #: The image between the two texts; None for no image.
    image: str | None = None
    #: The stage between the two texts, by its place in the file; None for no stage.
    stage: int | None = None
    after: str = ""
    #: The sources of an ADD, as they are written.
    added: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """An understood Dockerfile, as far as its target needs it."""

    #: Each image once, in the order of the file.
    bases: tuple[Base, ...]
    #: The letter that escapes others.
    escape: str
    #: ARG instructions above the first stage.
    arguments: tuple[Instruction, ...]
    #: Pairs of a stage's place in the file and its instructions, FROM first. The last stage is the target.
    stages: tuple[tuple[int, tuple[Instruction, ...]], ...]
    #: The names of build arguments that the file declares anywhere.
    declared: frozenset[str]


def read(
    text: str, *, args: Mapping[str, str], target: str | None, platform: str
) -> Dockerfile | tuple[Problem, ...]:
    """Return the Dockerfile, or why it is refused.

    *args* are the values of build arguments by name. *target* is the name or the number of a stage; None is the last one.
    *platform* is the engine's, such as ``linux/amd64``. Problems have codes ``build.…`` and lines, no file.
    """
    lines = cut(text)
    if not isinstance(lines, Lines):
        return lines
    return _Reader(lines, args, normal_platform(platform)).read(target)


def pinned(dockerfile: Dockerfile, ids: Mapping[str, str]) -> str:
    """Return the text for the builder, with the id of each base by its image.

    The text builds the target last: the builder needs no parameter for it. Raises KeyError for a base without an id.
    """
    places = {stage: place for place, (stage, _) in enumerate(dockerfile.stages)}
    written = [f"# escape={dockerfile.escape}"] if dockerfile.escape != "\\" else []
    written += [instruction.before for instruction in dockerfile.arguments]
    for stage, instructions in dockerfile.stages:
        for instruction in instructions:
            middle = ids[instruction.image] if instruction.image is not None else ""
            if instruction.stage is not None:
                place = places[instruction.stage]
                middle = _stage_name(place) if instruction.before.startswith("FROM") else str(place)
            name = (
                f" AS {_stage_name(places[stage])}" if instruction.before.startswith("FROM") else ""
            )
            written.append(f"{instruction.before}{middle}{instruction.after}{name}")
    return "".join(f"{line}\n" for line in written)


def _stage_name(place: int) -> str:
    return f"stage-{place}"


@dataclass(slots=True)
class _Stage:
    """One stage while the file is read."""

    name: str
    instructions: list[Instruction]
    problems: list[Problem]
    bases: list[Base]
    needs: set[int]
    shell: tuple[str, ...] = _SHELL

    def refuse(self, code: str, line: DockerfileLine, message: str, remedy: str = "") -> None:
        """Keep a problem for builds with the stage."""
        self.problems.append(_problem(code, line, message, remedy))


class _Reader:
    """A reader of one Dockerfile: instructions in, stages and problems out."""

    def __init__(self, lines: Lines, args: Mapping[str, str], platform: str) -> None:
        self._lines = lines
        self._args = args
        self._platform = platform
        self._predefined = platform_variables(platform)
        self._globals = {name: args.get(name, value) for name, value in self._predefined.items()}
        self._defined: set[str] = set()
        self._declared: set[str] = set()
        self._arguments: list[Instruction] = []
        self._stages: list[_Stage] = []
        self._problems: list[Problem] = []

    def read(self, target: str | None) -> Dockerfile | tuple[Problem, ...]:
        for line in self._lines.instructions:
            self._line(line)
        if not self._stages and not self._problems:
            self._problems.append(
                Problem("build.from", "the Dockerfile has no FROM", remedy="begin with FROM IMAGE")
            )
        elif len(self._stages) > MAX_STAGES:
            self._problems.append(
                Problem("build.syntax", f"the Dockerfile has more than {MAX_STAGES} stages")
            )
        if self._problems or (last := self._target(target)) is None:
            return tuple(self._problems)
        needed = [(place, self._stages[place]) for place in self._needed(last)]
        if problems := tuple(problem for _, stage in needed for problem in stage.problems):
            return problems
        bases: dict[str, Base] = {}
        for base in (base for _, stage in needed for base in stage.bases):
            bases.setdefault(base.image, base)
        return Dockerfile(
            bases=tuple(bases.values()),
            escape=self._lines.escape,
            arguments=tuple(self._arguments),
            stages=tuple((place, tuple(stage.instructions)) for place, stage in needed),
            declared=frozenset(self._declared),
        )

    def _line(self, line: DockerfileLine) -> None:
        if line.keyword == "FROM":
            self._from(line)
        elif self._stages:
            self._instruction(self._stages[-1], line)
        elif line.keyword == "ARG":
            self._global_argument(line)
        else:
            self._problems.append(
                _problem(
                    "build.syntax",
                    line,
                    f"{line.keyword} stands before the first FROM",
                    "begin with FROM IMAGE",
                )
            )

    def _target(self, target: str | None) -> int | None:
        """Return the place of the stage that is built; None, with a problem, if there is none of that name."""
        if target is None or target == "":
            return len(self._stages) - 1
        if (place := self._find(target)) is not None:
            return place
        if target.isascii() and target.isdecimal() and int(target) < len(self._stages):
            return int(target)
        names = ", ".join(stage.name for stage in self._stages if stage.name)
        self._problems.append(
            Problem(
                "build.target",
                f"the Dockerfile has no stage {target!r}",
                expected=names and f"one of {names}",
                remedy="name a stage of the Dockerfile",
            )
        )
        return None

    def _needed(self, last: int) -> list[int]:
        """Return the places of *last* and of all stages below it, in the order of the file."""
        needed, waiting = set[int](), [last]
        while waiting:
            if (place := waiting.pop()) not in needed:
                needed.add(place)
                waiting.extend(self._stages[place].needs)
        return sorted(needed)

    def _find(self, name: str) -> int | None:
        """Return the place of the stage of that name among those read so far."""
        lowered = name.lower()
        places = [
            place
            for place, stage in enumerate(self._stages)
            if stage.name and stage.name == lowered
        ]
        return places[-1] if places else None

    def _expanded(self, word: str) -> str:
        return expand(word, self._globals, self._lines.escape)

    def _global_argument(self, line: DockerfileLine) -> None:
        try:
            for word in split_words(line.rest, self._lines.escape):
                name, default = self._argument(word)
                self._defined.add(name)
                if (value := self._args.get(name, default)) is not None:
                    self._globals[name] = value
        except ExpansionError as error:
            self._problems.append(_problem("build.syntax", line, f"ARG: {error}"))
        self._arguments.append(Instruction(line.number, f"ARG {line.rest}"))

    def _argument(self, word: str) -> tuple[str, str | None]:
        """Return the name and the default value of an argument above the first stage."""
        written, separator, default = word.partition("=")
        name = self._expanded(written)
        self._declared.add(name)
        return name, self._expanded(default) if separator else None

    def _from(self, line: DockerfileLine) -> None:
        stage = _Stage("", [], [], [], set())
        flags, rest = _flags(line.rest)
        try:
            for flag in flags:
                self._platform_of(stage, line, flag)
            words = rest.split()
            if len(words) == 3 and words[1].lower() == "as":
                self._name(stage, line, words[2].lower())
            elif len(words) != 1:
                stage.refuse(
                    "build.from", line, f"FROM {rest}".strip(), "write FROM IMAGE [AS NAME]"
                )
            if words:
                self._base(stage, line, self._expanded(words[0]))
        except ExpansionError as error:
            stage.refuse("build.from", line, f"FROM {rest}: {error}", "correct the line")
        self._stages.append(stage)

    def _name(self, stage: _Stage, line: DockerfileLine, name: str) -> None:
        stage.name = name
        remedy = "begin with a letter; letters, digits, . _ and - can follow"
        if not _STAGE.fullmatch(name):
            stage.refuse("build.from", line, f"{name} is no name of a stage", remedy)
        elif self._find(name) is not None:
            message = f"two stages are named {name}"
            self._problems.append(_problem("build.from", line, message, "rename one of them"))

    def _platform_of(self, stage: _Stage, line: DockerfileLine, flag: str) -> None:
        name, _, value = flag.partition("=")
        if name != "--platform" or not _FLAG.fullmatch(flag.replace("{", "").replace("}", "")):
            stage.refuse("build.flag", line, f"FROM has no flag {flag}", "remove it")
        elif (platform := self._expanded(value)) and normal_platform(platform) != self._platform:
            stage.refuse(
                "build.platform",
                line,
                f"{flag} is {platform}; the engine is {self._platform}",
                "remove the flag",
            )

    def _base(self, stage: _Stage, line: DockerfileLine, image: str) -> None:
        if not image or image.split() != [image]:
            stage.refuse(
                "build.from",
                line,
                "the base has no name",
                "give each variable of FROM a default: ARG NAME=VALUE above",
            )
        elif (place := self._find(image)) is not None:
            stage.needs.add(place)
            stage.shell = self._stages[place].shell
            stage.instructions.append(Instruction(line.number, "FROM ", stage=place))
        elif image == SCRATCH:
            stage.instructions.append(Instruction(line.number, f"FROM {SCRATCH}"))
        else:
            stage.bases.append(Base(image, line.number))
            stage.instructions.append(Instruction(line.number, "FROM ", image=image))

    def _instruction(self, stage: _Stage, line: DockerfileLine) -> None:
        if line.keyword not in _INSTRUCTIONS:
            stage.refuse(
                "build.syntax", line, f"{line.keyword} is no instruction", "correct the line"
            )
            return
        flags, rest = _flags(line.rest)
        if not rest:
            stage.refuse("build.syntax", line, f"{line.keyword} has no value", "complete the line")
            return
        kept = [flag for flag in flags if self._keeps(stage, line, flag)]
        source = self._source(stage, line, [flag for flag in flags if flag.startswith("--from")])
        keyword = line.keyword
        added: tuple[str, ...] = ()
        match keyword:
            case "ONBUILD":
                stage.refuse(
                    "build.onbuild",
                    line,
                    "ONBUILD hides instructions in the image",
                    "write them into the Dockerfiles that use it",
                )
            case "COPY" | "ADD":
                rest, sources = self._copied(stage, line, rest)
                # The engine's ADD would unpack archives and fetch URLs. Its COPY does neither.
                added = sources if keyword == "ADD" else ()
                keyword = "COPY"
            case "ARG":
                rest = self._stage_argument(line)
            case "RUN":
                rest = _run(stage, line, rest)
            case "SHELL":
                _shell(stage, line, rest)
            case _:
                pass
        if len(rest.encode()) > MAX_WRITTEN:
            stage.refuse(
                "build.syntax",
                line,
                f"{line.keyword} is longer than the builder reads",
                "write a script into the context",
            )
        before = " ".join([keyword, *kept])
        if source is None:
            stage.instructions.append(Instruction(line.number, f"{before} {rest}", added=added))
        else:
            stage.instructions.append(replace(source, before=f"{before} --from=", after=f" {rest}"))

    def _keeps(self, stage: _Stage, line: DockerfileLine, flag: str) -> bool:
        """Return True if the builder gets the flag. A flag that can't be left out is a problem."""
        name = flag[2:].partition("=")[0]
        if (line.keyword, flag.lower()) in _DROPPED or (line.keyword, name) == ("COPY", "from"):
            return False
        if (line.keyword, name) == ("RUN", "mount"):
            _mount(stage, line, flag)
            return False
        if name in _KEPT.get(line.keyword, ()) and _FLAG.fullmatch(flag) and "=" in flag:
            return True
        stage.refuse(
            "build.flag",
            line,
            f"{line.keyword} --{name} needs BuildKit or isn't known",
            _REMEDIES.get(name, "remove it"),
        )
        return False

    def _source(self, stage: _Stage, line: DockerfileLine, flags: list[str]) -> Instruction | None:
        """Return what ``COPY --from`` names: a stage or an image; None if the context is copied from."""
        if line.keyword != "COPY" or not flags:
            return None
        name = flags[0].partition("=")[2]
        if (
            len(flags) > 1
            or not name
            or not _FLAG.fullmatch(flags[0])
            or "$" in name
            or name == SCRATCH
        ):
            stage.refuse(
                "build.copy-from",
                line,
                f"{' '.join(flags)} names no image or stage",
                "write one name, without variables",
            )
            return None
        place = int(name) if name.isascii() and name.isdecimal() else self._find(name)
        if place is None:
            stage.bases.append(Base(name, line.number))
            return Instruction(line.number, "", image=name)
        if place >= len(self._stages) - 1:
            stage.refuse(
                "build.copy-from", line, f"no stage {name} stands above", "name an earlier stage"
            )
            return None
        stage.needs.add(place)
        return Instruction(line.number, "", stage=place)

    def _copied(
        self, stage: _Stage, line: DockerfileLine, rest: str
    ) -> tuple[str, tuple[str, ...]]:
        """Return the text of a COPY or an ADD, and its sources: no URL and no here-document."""
        listed = _json_words(rest)
        words = listed if listed is not None else rest.split()
        if listed is None and rest.startswith("["):
            stage.refuse(
                "build.syntax", line, f"{line.keyword} {rest}", 'write a list: ["SOURCE", "TARGET"]'
            )
        if listed is None and (line.heredocs or _can_hide_heredoc(rest)):
            stage.refuse(
                "build.heredoc",
                line,
                f"{line.keyword} of a here-document needs BuildKit",
                "write a file into the context",
            )
        sources = tuple(words[:-1])
        for source in sources if line.keyword == "ADD" else ():
            if _REMOTE.match(source.strip("\"'")) or source.endswith(".git"):
                stage.refuse(
                    "build.add-url",
                    line,
                    f"ADD {source} fetches from the network",
                    "add the file to the context, or fetch it by RUN",
                )
        return rest if listed is None else json.dumps(listed), sources

    def _stage_argument(self, line: DockerfileLine) -> str:
        """Return the arguments of a stage, with the values of predefined ones that the classic builder lacks."""
        words: list[str] = []
        for word in split_words(line.rest, self._lines.escape):
            name = word.partition("=")[0]
            self._declared.add(name)
            predefined = name in self._predefined and name not in self._defined and "=" not in word
            words.append(f"{word}={self._predefined[name]}" if predefined else word)
        return " ".join(words)


def _shell(stage: _Stage, line: DockerfileLine, rest: str) -> None:
    """Keep the shell of the instructions that follow."""
    words = _json_words(rest)
    if not words:
        stage.refuse("build.syntax", line, f"SHELL {rest}", 'write a list: SHELL ["/bin/sh", "-c"]')
    else:
        stage.shell = tuple(words)


def _run(stage: _Stage, line: DockerfileLine, rest: str) -> str:
    """Return the command of a RUN. A here-document becomes an argument of the stage's shell."""
    if (listed := _json_words(rest)) is not None:
        return json.dumps(listed)
    if not _can_hide_heredoc(rest):
        return rest
    if not line.heredocs:
        return json.dumps([*stage.shell, rest])
    words = split_words(rest, "\\")
    first = line.heredocs[0]
    if len(words) == 1:
        if first.content.startswith("#!"):
            stage.refuse(
                "build.heredoc",
                line,
                "a here-document with #! needs BuildKit",
                "write the script into the context, or leave #! out",
            )
        return json.dumps([*stage.shell, first.content])
    return json.dumps(
        [*stage.shell, "\n".join([rest, *(f"{doc.written}{doc.name}" for doc in line.heredocs)])]
    )


def _mount(stage: _Stage, line: DockerfileLine, flag: str) -> None:
    """Leave a cache out: the build is the same without one, and slower. Refuse other mounts."""
    options = [part.partition("=")[::2] for part in flag.partition("=")[2].split(",")]
    kind = dict(options).get("type", "bind")
    if kind == "cache" and "from" not in dict(options) and _FLAG.fullmatch(flag.replace(",", "")):
        return
    remedies = {
        "bind": "copy the files by COPY",
        "secret": "build without secrets, or fetch the file before the build",
        "ssh": "clone before the build, into the context",
        "tmpfs": "write to /tmp and remove the files in the same RUN",
    }
    stage.refuse(
        "build.mount",
        line,
        f"RUN --mount=type={kind} needs BuildKit",
        remedies.get(kind, "remove it"),
    )


def _flags(rest: str) -> tuple[list[str], str]:
    """Return the flags that *rest* begins with, and what follows."""
    flags: list[str] = []
    while rest.startswith("--"):
        flag, *following = re.split(r"[ \t]+", rest, maxsplit=1)
        flags.append(flag)
        rest = "".join(following)
    return flags, rest


def _can_hide_heredoc(rest: str) -> bool:
    """Return True if some engine could read a here-document: ``<<``, or ``<`` in the default of a variable."""
    return "<<" in rest or ("<" in rest and "${" in rest)


def _json_words(rest: str) -> list[str] | None:
    """Return the words of the list form of an instruction; None for the other form."""
    if not rest.startswith("["):
        return None
    try:
        words = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    return (
        words
        if isinstance(words, list) and words and all(isinstance(word, str) for word in words)
        else None
    )


def _problem(code: str, line: DockerfileLine, message: str, remedy: str = "") -> Problem:
    return Problem(code, message, line=line.number, remedy=remedy)
