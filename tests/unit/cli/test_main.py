"""The command line's outer shape: exit codes, errors, options that may follow any command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from controller import __version__
from controller.cli import main as cli_module
from controller.cli.exit_codes import exit_code_of, program, report, with_program
from controller.cli.main import COMMANDS, ELSEWHERE, cli, main
from controller.cli.status.table import place_of
from controller.model.errors import (
    InvalidDesiredState,
    JournalUnavailable,
    PolicyInvalid,
    Refused,
    StateError,
    TrimtabError,
    UsageError,
)

GOOD = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, owner: team}
spec: {image: "ghcr.io/platformnetwork/web:1.2.3"}
"""


def run(*arguments: str) -> int:
    """Run the command line and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError, 64),
        (InvalidDesiredState, 3),
        (Refused, 4),
        (PolicyInvalid, 1),
        (StateError, 1),
        (JournalUnavailable, 1),
    ],
)
def test_an_error_has_its_exit_code(error: type[TrimtabError], code: int) -> None:
    assert exit_code_of(error("a.code", "what")) == code


@pytest.mark.parametrize(
    "arguments",
    [
        ["statsu"],
        ["status", "--nonsense"],
        ["apply", "--timeout", "5"],
        ["up", "--quarantine", "a day"],
        ["run", "--quarantine", "721h"],
    ],
)
def test_wrong_usage_exits_with_64(arguments: list[str], capsys) -> None:
    assert run(*arguments) == 64
    error, usage, remedy = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert error.endswith("[usage.wrong]")
    assert usage.startswith("usage: trimtab")
    assert remedy.startswith("remedy: see 'trimtab")


def test_a_mistyped_command_is_told_the_one_that_was_meant(capsys) -> None:
    run("staus")
    assert "there is no command 'staus': did you mean 'status'?" in capsys.readouterr().err


def test_a_command_of_docker_is_told_the_one_that_does_so_here(capsys) -> None:
    for word, hint in ELSEWHERE.items():
        assert run(word) == 64
        told = capsys.readouterr().err.splitlines()[0]
        assert told == f"error: there is no command '{word}': {hint} [usage.wrong]"
    named = {each for hint in ELSEWHERE.values() for each in re.findall(r"'trimtab ([\w-]+)", hint)}
    assert named <= COMMANDS.keys()
    assert ELSEWHERE.keys().isdisjoint(COMMANDS)


def test_a_deleted_working_directory_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run("status") == 1
    assert capsys.readouterr().err == (
        "error: the working directory doesn't exist any more [cwd.missing]\n"
        "remedy: change to a folder that exists, and run the command again\n"
    )


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Make the command ``fail`` raise an error."""

    def fail_with(error: Exception) -> None:
        def fail() -> None:
            raise error

        monkeypatch.setitem(cli_module.COMMANDS, "fail", ("main", ""))
        monkeypatch.setattr(cli_module, "fail", click.Command("fail", callback=fail), raising=False)

    return fail_with


def test_a_refusal_of_the_system_names_the_file_and_a_remedy(failing, capsys) -> None:
    failing(PermissionError(13, "Permission denied", "/srv/x"))
    assert run("fail") == 1
    assert capsys.readouterr().err == (
        "error: /srv/x: Permission denied [system.error]\n"
        "remedy: run as root, or as the owner of the file\n"
    )


def test_a_bug_is_one_line_and_the_traceback_is_there_for_who_asks(
    failing, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(KeyError("x"))
    assert run("fail") == 1
    told = capsys.readouterr().err
    assert told.startswith("error: internal error: KeyError: 'x' [internal.error]\nremedy: run ")
    assert "Traceback" not in told
    monkeypatch.setenv("TRIMTAB_DEBUG", "")  # so that it is as before after the test
    assert run("--debug", "fail") == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "color"), [(["--no-color"], False), ([], None)])
def test_colours_can_be_switched_off(
    arguments: list[str], color: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    shown = click.Command("show", callback=lambda: seen.append(click.get_current_context().color))
    monkeypatch.setitem(cli_module.COMMANDS, "show", ("main", ""))
    monkeypatch.setattr(cli_module, "show", shown, raising=False)
    monkeypatch.setenv("NO_COLOR", "")  # so that it is as before after the test
    run(*arguments, "show")
    monkeypatch.setenv("NO_COLOR", "1")
    run(*arguments, "show")
    assert seen == [color, False]


def test_hints_have_the_command_as_the_user_typed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = tmp_path / "trimtab"
    called.touch(0o755)
    monkeypatch.setattr("sys.argv", [str(called)])
    for path, typed in (("/nowhere", str(called)), (str(tmp_path), "trimtab")):
        program.cache_clear()
        monkeypatch.setenv("PATH", path)
        assert with_program("start it with 'trimtab up'; trimtab is fine") == (
            f"start it with '{typed} up'; trimtab is fine"
        )
    program.cache_clear()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion_script(shell: str, capsys) -> None:
    assert run("completion", shell) == 0
    assert "_TRIMTAB_COMPLETE" in capsys.readouterr().out


def test_the_version_is_a_command_and_an_option(capsys) -> None:
    assert run("version") == 0
    assert run("--version") == 0
    versions = capsys.readouterr().out.splitlines()
    assert versions[0] == versions[-1] == f"trimtab {__version__}"


def test_what_an_error_repeats_plays_no_tricks_on_a_terminal(capsys) -> None:
    report(StateError("journal.damaged", "two\nlines\x1b[2J\r", remedy="look\x9b1m\u202e"))
    assert capsys.readouterr().err == (
        "error: two\n       lines\\u001b[2J\\u000d [journal.damaged]\nremedy: look\\u009b1m\\u202e\n"
    )


def test_nothing_running_is_said_plainly(tmp_path: Path, capsys) -> None:
    assert run("status", "--state", str(tmp_path)) == 1
    told = capsys.readouterr().err
    assert "state.missing" in told
    assert "remedy: start one with 'trimtab up DIR'" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("text", "policy", "code"),
    [
        (GOOD, "strict", 0),
        (GOOD.replace("image", "imgae"), "strict", 3),
        (GOOD.replace("ghcr.io/platformnetwork/web", "alpine"), "strict", 4),
        (GOOD, "nowhere", 64),
    ],
)
def test_validate_exits_by_what_is_wrong(
    tmp_path: Path, text: str, policy: str, code: int, capsys
) -> None:
    (tmp_path / "web.yaml").write_text(text)
    state = ("--state", str(tmp_path / "state"))
    assert run("validate", str(tmp_path), "--policy", policy, *state, "--json") == code
    if code != 64:
        told = json.loads(capsys.readouterr().out)
        assert told["services"] == (0 if code == 3 else 1)


def leaves(command: click.Command, name: str) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(name, command)]
    context = click.Context(command)
    found = []
    for sub in command.list_commands(context):
        child = command.get_command(context, sub)
        assert child is not None
        found += leaves(child, f"{name} {sub}")
    return found


def test_state_and_json_may_follow_any_command_and_help_has_examples() -> None:
    everything = leaves(cli, "trimtab")
    assert len(everything) > len(COMMANDS)
    for name, command in everything:
        options = {option for parameter in command.params for option in parameter.opts}
        # What exec prints is another program's.
        wanted = {"--state"} if name == "trimtab exec" else {"--state", "--json"}
        assert wanted <= options, name
        assert command.help, name
        assert command.epilog, f"{name} has no example"


def test_state_and_json_may_stand_before_a_subcommand(tmp_path: Path, capsys) -> None:
    state = ("--state", str(tmp_path))
    assert run("policy", *state, "--json", "show") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "strict"
    assert run("image", f"--state={tmp_path}", "trust", "web:1") == 1
    assert "state.missing" in capsys.readouterr().err
    assert run("policy", *state) == 64
    assert run("policy", "--nonsense", "show") == 64


def test_a_problem_without_a_place_has_none() -> None:
    assert place_of({"file": "", "line": 0, "column": 0}) == ""
    assert place_of({"file": "a.yaml", "line": 3, "column": 2}) == "a.yaml:3:2"
