"""A Compose project with ``build``: built on a real engine, built again for changed files, and never twice."""

from __future__ import annotations

from tests.instance import Host, eventually

DOCKERFILE = """\
# syntax=docker/dockerfile:1
ARG BASE=trimtab.local/web:1
FROM --platform=$BUILDPLATFORM ${BASE} AS made
USER 0
ARG TARGETARCH
ARG WORD
RUN --mount=type=cache,target=/root/.cache echo "$WORD on $TARGETARCH" > /tmp/word
RUN <<EOF
cat /tmp/word > /made
echo a second line >> /made
EOF
FROM quay.io/nobody/admits:this AS unused
RUN --mount=type=secret,id=token cat /run/secrets/token
FROM ${BASE}
COPY --from=made --link /made /made
COPY . /app
"""
COMPOSE = """\
services:
  web:
    image: trimtab.local/shop
    build:
      context: web
      args: {WORD: built}
  other:
    build:
      context: ./web
      dockerfile_inline: |
        FROM trimtab.local/web:1
        COPY page.txt /page.txt
    image: trimtab.local/other:2
"""


def put(host: Host, page: str, dockerfile: str = DOCKERFILE) -> None:
    (host.directory / "shop" / "web").mkdir(parents=True, exist_ok=True)
    files = {"page.txt": page, "left-out.log": page, ".dockerignore": "*.log\n"}
    for name, text in {**files, "Dockerfile": dockerfile}.items():
        (host.directory / "shop" / "web" / name).write_text(text)


def shown(host: Host, service: str, *command: str) -> str:
    """Return the output of a command in the only running container of a service; '' while there is none."""
    found = host.running_ids(service)
    return host.engine.docker("exec", found[0], *command).stdout if len(found) == 1 else ""


def builds(host: Host) -> int:
    """Return how many builds began."""
    return len([each for each in host.records("intent") if each["mutation"] == "image.build"])


def test_a_project_is_built_and_built_again_only_for_other_files(host: Host) -> None:
    put(host, "one\n")
    host.write("shop/compose.yaml", COMPOSE)
    planned = host.json("plan", str(host.directory), "--policy", host.policy, expect=2)
    assert planned["summary"]["builds"] == 2
    with host.running():
        host.await_ready("web", "other", within_s=90)
        architecture = host.engine.docker("info", "-f", "{{.Architecture}}").stdout.strip()
        word = {"x86_64": "amd64", "aarch64": "arm64"}[architecture]
        assert shown(host, "web", "cat", "/made") == f"built on {word}\na second line\n"
        assert shown(host, "web", "ls", "-A", "/app").split() == [
            ".dockerignore",
            "Dockerfile",
            "page.txt",
        ]
        assert shown(host, "other", "cat", "/page.txt") == "one\n"
        assert builds(host) == 2
        # Other files: built again, and rolled out.
        put(host, "two\n")
        eventually(lambda: shown(host, "web", "cat", "/app/page.txt") == "two\n", within_s=60)
        eventually(lambda: shown(host, "other", "cat", "/page.txt") == "two\n", within_s=60)
        # The first files again: their images are here.
        put(host, "one\n")
        eventually(lambda: shown(host, "web", "cat", "/app/page.txt") == "one\n", within_s=60)
        assert builds(host) == 4
        # A build that fails changes nothing, and says why.
        put(host, "one\n", f"{DOCKERFILE}RUN echo this is why && exit 7\n")
        eventually(lambda: "this is why" in host.cli("status", "web").stdout, within_s=60)
        assert "build.failed" in host.cli("describe", "web").stdout
        assert shown(host, "web", "cat", "/app/page.txt") == "one\n"
    put(host, "three\n", DOCKERFILE)
    text = host.cli("plan", "web", expect=2).stdout
    assert "spec.build.digest: " in text
    assert "trimtab.local/shop:" in text
    host.cli("apply")
    assert shown(host, "web", "cat", "/app/page.txt") == "three\n"
