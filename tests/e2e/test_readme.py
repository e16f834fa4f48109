"""README's tour, typed as it stands there, and its two commands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.instance import Host

PROJECT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(section: str) -> list[str]:
    """Return the shell blocks of one section of README."""
    text = (PROJECT / "README.md").read_text()
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return BLOCK.findall(body)


def test_the_two_commands_and_the_package_are_targets_of_the_makefile() -> None:
    commands, package = blocks_of("Two commands")
    named = re.findall(r"^make (\w+)", commands, re.MULTILINE)
    assert named == ["run", "test"]
    named += re.findall(r"^make (\w+)", package, re.MULTILINE)
    assert named[2:] == ["deb"]
    makefile = (PROJECT / "Makefile").read_text()
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in named)


def test_the_tour_and_docker_and_compose_do_what_it_says_and_a_second_clone_goes_on(
    host: Host,
) -> None:
    for name in ("desired-state", "configs"):
        shutil.copytree(PROJECT / name, host.folder / name)
    (host.folder / ".venv").symlink_to(Path(sys.prefix))
    host.directory, host.state = host.folder / "desired-state", host.folder / ".state"

    def typed(block: str) -> str:
        done = subprocess.run(
            host.engine.inside("bash", "-euo", "pipefail", "-c", block),
            env=host.environment(),
            cwd=host.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}"
        return done.stdout

    with host.running():
        # Nine services come up side by side, and nothing of that is told as a failure.
        assert re.findall(r"conflict|held:|already exists", host.said()) == []
        looked, dropped, harmed, held, differs, broke, asked, removed = map(
            typed, blocks_of("A tour of five minutes")
        )
        hello, compose = map(typed, blocks_of("Docker and compose through the gate"))
    assert "Ready" in looked
    assert re.search(r"Service +default +gateway .*http://127.0.0.1:18080", looked), looked
    started = host.log.read_text()
    assert re.search(r"^gateway +http://127.0.0.1:18080$", started, re.MULTILINE), started
    assert re.search(r"^next: .*trimtab status", started, re.MULTILINE), started
    assert "nothing to do" in looked
    assert re.search(r"Service +default +mine +2/2 .*Ready", dropped)
    assert "mine.2 | web 1 serves on 8080" in dropped
    assert re.search(r"slot \d is missing: \S+ was removed from outside", harmed), harmed
    assert "nothing is changed until it is resumed" in held
    assert "spec.env.COLOUR: added" in differs and "no longer suspended" in differs
    assert re.search(r"mine.yaml:1 +current", held), held
    assert "mine.yaml:6:3" in broke
    assert re.search(r"Service +default +web +2/2 .*Ready", broke)
    assert "mine.1-" in asked
    assert "privileged" in asked
    assert re.search(r"memory", asked)
    assert "chain intact, 0 open intents" in removed
    assert "1 removed" in removed
    assert "hello through the gate" in hello
    assert "127.0.0.1:18090->8080/tcp" in compose
    assert re.search(r"Container shop-shop-1 +Removed", compose)
    assert "Volume" not in compose.partition("Removing")[2]
    before = [each["Id"] for each in host.containers()]
    clone = host.second()
    clone.state = host.folder / "second" / ".state"
    clone.state.parent.mkdir()
    tool = [sys.executable, str(PROJECT / "tools" / "earlier-demo"), str(clone.directory)]
    done = subprocess.run(
        host.engine.inside(*tool, "--state", str(clone.state)),
        env=host.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with clone.running():
        assert [each["Id"] for each in clone.containers()] == before, "nothing was replaced"
