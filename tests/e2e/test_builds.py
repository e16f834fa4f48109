"""A Compose project with ``build``: built on a real engine, built again for changed files, and never twice."""

from __future__ import annotations

from tests.instance import Host, eventually

DOCKERFILE = """\
# syntax=docker/dockerfile:1
# escape=`
ARG BASE=trimtab.local/web:1
FROM --platform=$BUILDPLATFORM ${BASE} AS made
USER 0
ARG TARGETARCH
ARG WORD
RUN --mount=type=cache,target=/root/.cache <<EOF
echo "$WORD on $TARGETARCH" > /made
echo a second line >> /made
EOF
FROM quay.io/nobody/admits:this AS unused
RUN --mount=type=secret,id=token cat /run/secrets/token
FROM ${BASE} AS ground
FROM ground
COPY --from=made --link `
  /made /made
ADD ["page.txt", "${WORD:-/added}/"]
COPY . /app
"""
COMPOSE = """\
services:
  web:
    image: trimtab.local/shop
    build:
      context: web
      args: {WORD: built}
    healthcheck: {test: ["CMD", "/bin/sh", "-c", "true"], interval: 1s}
    deploy: {update_config: {monitor: 1s}}
    pre_start: [{command: [/bin/sh, -c, cat /made]}]
    depends_on: {seed: {condition: service_completed_successfully}}
  seed:
    build:
      context: ./seed
      dockerfile_inline: |
        FROM trimtab.local/web:1
        COPY page.txt /page.txt
    image: trimtab.local/seed:2
    entrypoint: [/bin/sh, -c, cat /page.txt]
"""


def put(host: Host, page: str, dockerfile: str = DOCKERFILE) -> None:
    for folder in ("web", "seed"):
        (host.directory / "shop" / folder).mkdir(parents=True, exist_ok=True)
    web = {
        "page.txt": page,
        "left-out.log": page,
        ".dockerignore": "*.log\n",
        "Dockerfile": dockerfile,
    }
    for name, text in {
        **{f"web/{n}": t for n, t in web.items()},
        "seed/page.txt": "own\n",
    }.items():
        (host.directory / "shop" / name).write_text(text)


def shown(host: Host, service: str, *command: str) -> str:
    """Return the output of a command in the only running container of a service; '' while there is none."""
    found = host.running_ids(service)
    return host.engine.docker("exec", found[0], *command).stdout if len(found) == 1 else ""


def builds(host: Host) -> int:
    """Return how many builds began."""
    return sum("image.build" in each["request"]["route"] for each in host.records("intent"))


def test_a_project_is_built_and_built_again_only_for_other_files(host: Host) -> None:
    put(host, "one\n")
    host.write("shop/compose.yaml", COMPOSE)
    with host.running():
        host.await_ready("web", "seed", within_s=90)
        architecture = host.engine.docker("info", "-f", "{{.Architecture}}").stdout.strip()
        word = {"x86_64": "amd64", "aarch64": "arm64"}[architecture]
        assert shown(host, "web", "cat", "/made") == f"built on {word}\na second line\n"
        found = shown(host, "web", "ls", "-A", "/app").split()
        assert found == [".dockerignore", "Dockerfile", "page.txt"]
        assert shown(host, "web", "cat", "/added/page.txt") == "one\n"
        for job, output in (
            ("seed", "own\n"),
            ("web-pre-start-1", f"built on {word}\na second line\n"),
        ):
            (run,) = host.containers(job)
            assert host.engine.docker("logs", run["Id"]).stdout == output
        assert builds(host) == 2
        # The trust is the owner's alone.
        results = [each["result"] for each in host.records("outcome")]
        assert [each["builder"] for each in results if "builder" in each] == ["default"] * 2
        # Other files: built again, and rolled out.
        put(host, "two\n")
        eventually(lambda: shown(host, "web", "cat", "/app/page.txt") == "two\n", within_s=60)
        assert builds(host) == 3
        # A build that fails changes nothing, and says why.
        put(host, "two\n", DOCKERFILE.replace("COPY . /app", "RUN echo this is why && exit 7"))
        eventually(lambda: "this is why\n" in host.cli("describe", "web").stdout, within_s=60)
        assert shown(host, "web", "cat", "/app/page.txt") == "two\n"
        # The first files again: their image is here.
        failed = builds(host)
        put(host, "one\n")
        eventually(lambda: shown(host, "web", "cat", "/app/page.txt") == "one\n", within_s=60)
        assert builds(host) == failed
    put(host, "three\n")
    text = host.cli("plan", expect=2).stdout
    assert "spec.build.digest: " in text
    assert "1 image to build" in text
    host.cli("apply")
    assert shown(host, "web", "cat", "/app/page.txt") == "three\n"
