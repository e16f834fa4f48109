"""Dockerfiles: every way to name an image is found, and the builder's text names nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.builds import dockerfile
from controller.core.builds.dockerfile import Dockerfile
from tests.examples import examples


def read(
    text: str, target: str | None = None, args: Mapping[str, str] | None = None
) -> tuple[list[str], str]:
    """Return the bases, and the text for the builder with ``<IMAGE>`` for an id."""
    found = dockerfile.read(text, args=args or {}, target=target, platform="linux/amd64")
    assert isinstance(found, Dockerfile), found
    images = [base.image for base in found.bases]
    return images, dockerfile.pinned(found, {image: f"<{image}>" for image in images})


def refused(text: str, target: str | None = None) -> list[tuple[str, int]]:
    """Return the codes and lines of the problems."""
    found = dockerfile.read(text, args={}, target=target, platform="linux/amd64")
    assert not isinstance(found, Dockerfile), "the file is understood"
    return [(problem.code.removeprefix("build."), problem.line) for problem in found]


FROM = [
    ("FROM evil", "evil"),
    ("from evil", "evil"),
    ("FrOm\tevil", "evil"),
    ("  FROM   evil  ", "evil"),
    ("\ufeffFROM evil", "evil"),
    ("FROM evil\r", "evil"),
    ("FROM \\\nevil", "evil"),
    ("FROM \\\n# a comment\n\n  evil", "evil"),
    ("FR\\\nOM evil", "evil"),
    ("FROM ev\\\nil", "evil"),
    ("# escape=`\nFROM `\nevil", "evil"),
    ("# syntax=docker/dockerfile:1.4\n# escape = `\nFROM `\nevil", "evil"),
    ("# syntax = docker/dockerfile:1\nFROM evil", "evil"),
    ("# just a comment\n# escape=`\nFROM \\\nevil", "evil"),
    ("FROM evil AS x", "evil"),
    ("FROM evil as x", "evil"),
    ("FROM --platform=linux/amd64 evil", "evil"),
    ("FROM --platform=$BUILDPLATFORM evil", "evil"),
    ("FROM --platform=${TARGETPLATFORM} evil", "evil"),
    ("FROM 'evil'", "evil"),
    ('FROM "evil"', "evil"),
    ("FROM e'vi'l", "evil"),
    ("FROM e\\vil", "evil"),
    ("ARG X=evil\nFROM $X", "evil"),
    ("ARG X=evil\nFROM ${X}", "evil"),
    ("ARG X='evil'\nFROM $X", "evil"),
    ("ARG X=ev Y=il\nFROM $X$Y", "evil"),
    ("ARG X=ev\nARG Y=${X}il\nFROM $Y", "evil"),
    ("ARG X\nFROM ${X:-evil}", "evil"),
    ("FROM ${X:-evil}", "evil"),
    ("FROM ${X-evil}", "evil"),
    ("ARG X=1\nFROM ${X:+evil}", "evil"),
    ("ARG X=1\nFROM ${X+evil}", "evil"),
    ("FROM ${A:-${B:-evil}}", "evil"),
    ("FROM ${A:-'evil'}", "evil"),
    ("FROM evil@sha256:" + "0" * 64, "evil@sha256:" + "0" * 64),
    ("FROM reg.example:5000/a/b:1", "reg.example:5000/a/b:1"),
]


@pytest.mark.parametrize(("text", "image"), FROM)
def test_the_base_is_found_however_it_is_written(text: str, image: str) -> None:
    images, written = read(f"{text}\nRUN true")
    assert images == [image]
    assert f"FROM <{image}> AS stage-0\nRUN true\n" in written


COPY = [
    "COPY --from=evil /a /b",
    "copy --from=evil /a /b",
    "COPY --chown=1:1 --from=evil /a /b",
    "COPY --from=evil --link /a /b",
    'COPY --from=evil ["/a", "/b"]',
    "COPY \\\n --from=evil \\\n /a /b",
    "COPY --from=unread /a /b\nFROM scratch AS unread",
]


@pytest.mark.parametrize("line", COPY)
def test_images_that_are_copied_from_are_bases(line: str) -> None:
    target = "used" if "unread" in line else None
    images, written = read(f"FROM scratch AS used\n{line}", target)
    (image,) = images
    assert f"--from=<{image}> " in written


def test_build_arguments_decide_only_about_declared_names() -> None:
    assert read("ARG X=a\nFROM $X", args={"X": "evil"})[0] == ["evil"]
    assert read("FROM ${X:-a}", args={"X": "evil"})[0] == ["a"]
    assert read("ARG X\nFROM $X", args={"X": "evil"})[0] == ["evil"]


def test_arguments_of_a_stage_say_nothing_about_bases() -> None:
    assert refused("FROM a\nARG X=evil\nFROM $X") == [("from", 3)]


STAGES = """\
FROM golang AS Build
RUN make
FROM nowhere/unused AS dev
RUN --mount=type=secret,id=x cat x
FROM build AS tested
RUN make test
FROM scratch
COPY --from=0 /out /out
COPY --from=tested /log /log
"""


def test_only_needed_stages_reach_the_builder() -> None:
    images, written = read(STAGES)
    assert images == ["golang"]
    assert written == (
        "FROM <golang> AS stage-0\nRUN make\n"
        "FROM stage-0 AS stage-1\nRUN make test\n"
        "FROM scratch AS stage-2\nCOPY --from=0 /out /out\nCOPY --from=1 /log /log\n"
    )
    assert read(STAGES, "BUILD") == read(STAGES, "0")
    assert read(STAGES, "build")[1] == "FROM <golang> AS stage-0\nRUN make\n"
    assert refused(STAGES, "dev") == [("mount", 4)]
    assert refused(STAGES, "other") == [("target", 0)]


TRANSLATED = [
    ("RUN --mount=type=cache,target=/c make", "RUN make"),
    ("RUN --network=default --security=sandbox make", "RUN make"),
    ("ARG TARGETARCH", "ARG TARGETARCH=amd64"),
    ("ARG TARGETARCH=mine", "ARG TARGETARCH=mine"),
    ("ARG A TARGETPLATFORM B=1", "ARG A TARGETPLATFORM=linux/amd64 B=1"),
    ("RUN <<EOF\na\n  b\nEOF", 'RUN ["/bin/sh", "-c", "a\\n  b\\n"]'),
    ("RUN <<-'EOF'\n\ta\n\tEOF", 'RUN ["/bin/sh", "-c", "a\\n"]'),
    ("RUN cat <<A >x\n1\nA", 'RUN ["/bin/sh", "-c", "cat <<A >x\\n1\\nA"]'),
    ('SHELL ["/bin/bash", "-ec"]\nRUN <<E\na\nE', 'RUN ["/bin/bash", "-ec", "a\\n"]'),
    ("RUN echo $((1<<2))", 'RUN ["/bin/sh", "-c", "echo $((1<<2))"]'),
    ("COPY --link a b", "COPY a b"),
    ("ADD --chown=a:b x.tar /", "COPY --chown=a:b x.tar /"),
    ("ADD ${FILE} /", "COPY ${FILE} /"),
    ('ADD "h"ttp://x /', 'COPY "h"ttp://x /'),
    ('ADD ["$A", "b c", "/"]', 'COPY ["$A", "b c", "/"]'),
    ("HEALTHCHECK --interval=5s CMD true", "HEALTHCHECK --interval=5s CMD true"),
]


@pytest.mark.parametrize(("text", "line"), TRANSLATED)
def test_what_only_buildkit_knows_is_translated_if_the_image_is_the_same(
    text: str, line: str
) -> None:
    assert read(f"FROM a\n{text}")[1].split("\n")[-2] == line


REFUSED = [
    ("# syntax=evil/frontend\nFROM a", ("syntax", 1)),
    ("# syntax=docker/dockerfile-upstream\nFROM a", ("syntax", 1)),
    ("# escape=x\nFROM a", ("syntax", 1)),
    ("# escape=`\n# escape=`\nFROM a", ("syntax", 2)),
    ("", ("from", 0)),
    ("RUN x", ("syntax", 1)),
    ("FROM", ("from", 1)),
    ("FROM a b", ("from", 1)),
    ("FROM a AS 1x", ("from", 1)),
    ("FROM $NOTHING", ("from", 1)),
    ("FROM ${X:?why}", ("from", 1)),
    ("FROM ${X#a}", ("from", 1)),
    ("FROM ${X", ("from", 1)),
    ("FROM 'a", ("from", 1)),
    ("FROM a AS x\nFROM b AS X", ("from", 2)),
    ("FROM --platform=linux/arm64 a", ("platform", 1)),
    ("FROM --network=host a", ("flag", 1)),
    ("FROM a\\\\", ("syntax", 1)),
    ("FROM a\u00a0", ("syntax", 1)),
    ("FROM a\x0b", ("syntax", 1)),
    ("FROM a\nFRöM b", ("syntax", 2)),
    ("FROM a\nINCLUDE b", ("syntax", 2)),
    ("FROM a\nRUN", ("syntax", 2)),
    ("FROM a\nONBUILD RUN x", ("onbuild", 2)),
    ("FROM a\nCOPY --from=$X a b", ("copy-from", 2)),
    ("FROM a\nCOPY --from=0 a b", ("copy-from", 2)),
    ("FROM a\nCOPY --from=9 a b", ("copy-from", 2)),
    ("FROM a AS me\nCOPY --from=me a b", ("copy-from", 2)),
    ("FROM a\nCOPY --from=scratch a b", ("copy-from", 2)),
    ("FROM a\nCOPY --from=x --from=y a b", ("copy-from", 2)),
    ('FROM a\nCOPY --from="x" a b', ("copy-from", 2)),
    ("FROM a\nCOPY --chmod=755 a b", ("flag", 2)),
    ("FROM a\nCOPY -- a b", ("flag", 2)),
    ("FROM a\nRUN --mount=type=bind,from=evil,target=/x y", ("mount", 2)),
    ("FROM a\nRUN --mount=type=cache,from=evil,target=/x y", ("mount", 2)),
    ("FROM a\nRUN --mount=target=/x y", ("mount", 2)),
    ("FROM a\nRUN --mount=type=secret,id=x y", ("mount", 2)),
    ("FROM a\nRUN --mount=type=ssh y", ("mount", 2)),
    ("FROM a\nRUN --network=host y", ("flag", 2)),
    ("FROM a\nRUN --security=insecure y", ("flag", 2)),
    ("FROM a\nADD http://x /", ("add-url", 2)),
    ("FROM a\nADD HTTPS://x /", ("add-url", 2)),
    ("FROM a\nADD git@host:repo /", ("add-url", 2)),
    ("FROM a\nADD https://host/repo.git /", ("add-url", 2)),
    ('FROM a\nADD ["http://x", "/"]', ("add-url", 2)),
    ("FROM a\nADD --checksum=x y /", ("flag", 2)),
    ('FROM a\nADD ["http://x", "/"]x', ("syntax", 2)),
    ('FROM a\nCOPY ["a", "b"] c', ("syntax", 2)),
    ("FROM a\nADD [a /", ("syntax", 2)),
    ("FROM a\nCOPY --chown=1\u00e0--from=evil a b", ("flag", 2)),
    ("FROM a\nCOPY --from=\u00e0--from=evil a b", ("copy-from", 2)),
    ("FROM a\nHEALTHCHECK --interval=5s\u00e0--timeout=1s CMD a", ("flag", 2)),
    ("FROM a\nCOPY <<EOF /x\na\nEOF", ("heredoc", 2)),
    ("FROM a\nCOPY <${X:-<}EOF /x", ("heredoc", 2)),
    ("FROM a\nRUN <<EOF\na", ("heredoc", 2)),
    ("FROM a\nRUN <<EOF\n#!/bin/env python\nEOF", ("heredoc", 2)),
    ("FROM a\nSHELL bash", ("syntax", 2)),
]


@pytest.mark.parametrize(("text", "problem"), REFUSED)
def test_what_cannot_be_held_is_refused_by_name(text: str, problem: tuple[str, int]) -> None:
    assert refused(text) == [problem]


def test_a_refusal_says_what_to_do() -> None:
    for text, _ in REFUSED:
        found = dockerfile.read(text, args={}, target=None, platform="linux/amd64")
        assert not isinstance(found, Dockerfile)
        assert all(
            each.remedy or each.code in {"build.syntax", "build.heredoc"} for each in found
        ), text


def test_a_file_beyond_the_bounds_is_refused() -> None:
    assert refused("FROM a\n" + "#" * (256 * 1024)) == [("syntax", 0)]
    assert refused(f"FROM a\nRUN {'x' * 33_000}") == [("syntax", 2)]
    assert refused("FROM a\n" * 101) == [("syntax", 0)]
    assert refused("FROM " + "${A:-" * 20 + "b" + "}" * 20) == [("from", 1)]


NAMES = st.sampled_from(["a", "b:1", "c.example/d"])
WORDS = st.sampled_from(
    ["RUN x", "COPY a b", "ENV A=1 B='2 3'", "# note", "", 'CMD ["a"]', "WORKDIR /x"]
)
SPELLING = st.sampled_from(["{}", "'{}'", '"{}"', "${{X:-{}}}", "\\\n  {}", "\\\n# c\n {}"])


@st.composite
def files(draw: st.DrawFn) -> tuple[list[str], str]:
    """Draw a Dockerfile in which each stage copies from the one above, with the images in it."""
    images, lines = list[str](), list[str]()
    for number in range(draw(st.integers(1, 4))):
        image = draw(NAMES)
        images.append(image)
        keyword = draw(st.sampled_from(["FROM", "from", "From"]))
        lines.append(f"{keyword} {draw(SPELLING).format(image)} AS s{number}")
        lines += draw(st.lists(WORDS, max_size=3))
        if number:
            lines.append(f"COPY --from=s{number - 1} /a /a")
        if draw(st.booleans()):
            other = draw(NAMES)
            images.append(other)
            lines.append(f"COPY --from={other} /a /a")
    return images, "\n".join(lines)


@settings(max_examples=examples(100))
@given(files())
def test_the_written_text_names_the_pinned_images_alone(drawn: tuple[list[str], str]) -> None:
    images, text = drawn
    found, written = read(text)
    assert found == [*dict.fromkeys(images)]
    # An independent look at the written text: each image is a pinned id, a stage above, or nothing.
    stages = list[str]()
    for line in written.splitlines():
        words = line.split()
        if words[0] == "FROM":
            assert words[1] in {f"<{image}>" for image in images} | set(stages)
            stages.append(words[3])
        for word in words:
            if word.startswith("--from="):
                source = word.removeprefix("--from=")
                assert source in {f"<{i}>" for i in images} or int(source) < len(stages) - 1
    # What was written is read again as the same.
    again = dockerfile.read(
        written.replace("<", "").replace(">", ""), args={}, target=None, platform="linux/amd64"
    )
    assert isinstance(again, Dockerfile)
    ids = {base.image: f"<{base.image}>" for base in again.bases}
    assert dockerfile.pinned(again, ids) == written


@settings(max_examples=examples(200))
@given(st.text(st.sampled_from("FROMASCPYDRUN=-<$ {}:\\`\"'#\n\tab1/[],"), max_size=120))
def test_no_text_is_more_than_the_reader_understood(text: str) -> None:
    found = dockerfile.read(f"FROM a\n{text}", args={}, target=None, platform="linux/amd64")
    if not isinstance(found, Dockerfile):
        return
    written = dockerfile.pinned(found, {base.image: "<id>" for base in found.bases})
    for line in written.splitlines():
        keyword = line.partition(" ")[0]
        assert keyword.isupper() or line.startswith("# escape=")
        assert keyword != "ADD"  # the engine would fetch and unpack
        assert not line.rstrip().endswith(found.escape)
        if keyword in {"RUN", "COPY"} and not line.partition(" ")[2].startswith("["):
            assert "<<" not in line
        if keyword == "RUN" and line[4:].startswith("["):
            assert json.loads(line[4:])


#: Texts of a size that some reader could need more than linear work for.
LARGE = {
    "words of an argument": lambda n: f"ARG {'a ' * n}\nFROM b",
    "escaped letters": lambda n: "FROM " + "\\a" * n,
    "open variables": lambda n: f"FROM a\nRUN < {'${' * n}",
    "flags": lambda n: f"FROM a\nRUN {'--a ' * n}",
    "a directive with blanks": lambda n: f"# escape=a{' ' * n}b\nFROM a",
    "blank lines of an instruction": lambda n: "FROM \\\n" + "\n" * n,
    "continued lines": lambda n: "FROM \\\n" + "a\\\n" * n,
    "here-documents": lambda n: f"FROM a\nRUN {'<<A ' * n}",
    "list items": lambda n: "FROM a\nADD [" + '"a",' * n + '"a"]',
    "brackets": lambda n: f"FROM a\nADD {'[' * n}",
}


@pytest.mark.parametrize("name", LARGE)
def test_the_work_grows_with_the_text(name: str) -> None:
    small, large = (_steps(LARGE[name](size)) for size in (1_000, 4_000))
    assert large < 6 * small + 10_000


def _steps(text: str) -> int:
    """Return the lines of Python that reading a text takes."""
    steps = 0

    def count(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal steps
        steps += event == "line"
        del frame
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        dockerfile.read(text, args={}, target=None, platform="linux/amd64")
    finally:
        sys.settrace(before)
    return steps
