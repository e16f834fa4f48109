"""``build`` of a service: a field of the document, and an image with the digest of the build in its tag."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.compose.translation.documents import translate
from controller.core.compose.translation.scope import (
    ComposeSettings,
    ContextRequest,
    FoundContext,
    FoundPath,
)
from tests.unit.core.compose.canonical import canonical

DIGEST = f"sha256:{'0' * 64}"


def context(request: ContextRequest) -> FoundContext:
    """Return a context with a Dockerfile of two stages, or with that of the Compose file."""
    text = request.inline or "FROM golang AS made\nFROM nginx:1.27 AS final\n"
    return FoundContext(
        request.context, "linux/amd64", DIGEST, text, is_inside=request.inline is None
    )


def read(body: str, *, builds: bool = True) -> tuple[dict[str, Any], list[str]]:
    """Return the spec of the service *web*, and the problems."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    found = translate(
        canonical(f"services:\n  web:\n{lines}"),
        ComposeSettings(builds=builds),
        lambda _path, **_: FoundPath("absent"),
        context,
    )
    (document,) = found.documents
    value: Any = document.value
    told = [f"{p.line} {p.severity.value} {p.code}: {p.message}" for p in found.problems]
    return dict(value["spec"]), told


def test_a_build_is_a_field_and_its_digest_is_in_the_tag() -> None:
    spec, told = read("build: {context: ./web, args: {A: '1'}, target: final, pull: true}")
    assert told == []
    assert spec["build"] == {
        "context": "web",
        "digest": DIGEST,
        "dockerfile": "Dockerfile",
        "bases": ["nginx:1.27"],
        "args": {"A": "1"},
        "target": "final",
        "pull": True,
    }
    repository, _, tag = spec["image"].partition(":")
    assert (repository, len(tag)) == ("shop-web", 16)


@pytest.mark.parametrize(
    ("image", "begin"),
    [
        ("myapp", "myapp:"),
        ("myapp:latest", "myapp:"),
        ("reg.example:5000/a/b", "reg.example:5000/a/b:"),
        ("reg.example:5000/a/b:2", "reg.example:5000/a/b:2-"),
        (f"myapp:{'x' * 128}", f"myapp:{'x' * 111}-"[:-1]),
    ],
)
def test_the_image_keeps_its_name(image: str, begin: str) -> None:
    spec, told = read(f"image: {image}\nbuild: {{context: ./web}}")
    assert told == []
    assert spec["image"].startswith(begin)
    assert len(spec["image"].rpartition(":")[2]) <= 128


def test_the_tag_tells_builds_apart_and_not_where_they_lie() -> None:
    same = {read(f"build: {{context: ./{name}}}")[0]["image"] for name in ("a", "b")}
    others = {
        read(f"build: {{context: ./a, {more}}}")[0]["image"]
        for more in (
            "args: {A: b}",
            "target: made",
            "labels: {a: b}",
            "network: none",
            "shm_size: 1m",
        )
    }
    assert len(same) == 1
    assert len(same | others) == 6


def test_a_dockerfile_in_the_compose_file_is_kept_in_the_document() -> None:
    spec, told = read("build: {context: ., dockerfile_inline: 'FROM scratch'}")
    assert told == []
    assert spec["build"]["dockerfileInline"] == "FROM scratch"
    assert "bases" not in spec["build"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            "build: {context: ., network: host}",
            "3 error compose.refused: a build can't join the network host",
        ),
        (
            "build: {context: ., platforms: [linux/arm64]}",
            "3 error compose.refused: a build for linux/arm64",
        ),
        (
            "build: {context: ., target: none}",
            "3 error build.target: Dockerfile: the Dockerfile has no stage",
        ),
        (
            "build: {context: ., secrets: [{source: a}]}",
            "3 error compose.refused: build.secrets is not supported",
        ),
        (
            "build: {context: ., ssh: {default: }}",
            "3 error compose.refused: build.ssh is not supported",
        ),
        (
            "build: {context: ., privileged: true}",
            "3 error compose.refused: build.privileged is not supported",
        ),
        ("build: {context: ., entitlements: [x]}", "3 error compose.refused: build.entitlements"),
        (
            "build: {context: ., extra_hosts: [a=1.2.3.4]}",
            "3 error compose.refused: build.extra_hosts",
        ),
        (
            "build: {context: ., additional_contexts: {a: b}}",
            "3 error compose.refused: build.additional_contexts is not supported",
        ),
        (
            'build: {context: ., dockerfile_inline: "FROM a\\nADD http://x /"}',
            "3 error build.add-url: line 2 of dockerfile_inline: ADD http://x fetches",
        ),
        (
            "build: {context: .}\npull_policy: never",
            "4 error compose.refused: an image that is built",
        ),
        (f"image: a@{DIGEST}\nbuild: {{context: .}}", "3 error compose.refused: a@"),
        ("build: {context: ., cache_from: [x], tags: [a]}", ""),
        ("build: {context: ., platforms: [linux/amd64]}", ""),
        ("build: {context: .}\npull_policy: build", ""),
    ],
)
def test_what_no_build_can_have_refuses_the_service(body: str, problem: str) -> None:
    _, told = read(body)
    assert [each[: len(problem)] for each in told] == ([problem] if problem else []), told


def test_an_image_is_run_as_it_is_where_the_policy_grants_no_builds() -> None:
    spec, told = read("image: myapp:1\nbuild: {context: .}", builds=False)
    assert (spec["image"], "build" in spec) == ("myapp:1", False)
    assert told[0].startswith("4 warning compose.by-policy: build has no effect")
    spec, told = read("build: {context: .}", builds=False)
    assert "build" in spec, "the plan names the line of the policy"
    assert told == []
