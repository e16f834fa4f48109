"""Logs and execs as users run them, in one instance on a real engine."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.app.state_folder import trimtab_gid
from tests.engine import FoundEngine, PrivateEngine
from tests.instance import PATIENCE_S, TRIMTAB, Host, eventually, has, web
from tests.unprivileged import as_user

pytestmark = pytest.mark.needs_root
CLIENT = 61007
TALKS = 'entrypoint: [/bin/sh, -c, "echo out; echo err >&2; exec /bin/serve >/dev/null"]'
QUICK = "rollout: {minHealthy: 1s}"
LAST = "FATAL: no password"
DIES = f'entrypoint: [/bin/sh, -c, "echo starting >&2; echo {LAST} >&2; exit %d"]'
#: What a failing check prints is output, too.
REFUSAL = "refused for 42"
ILL = (
    'healthcheck: {exec: [/bin/sh, -c, "echo refused for $((6*7)); exit 22"], interval: 1s, timeout: 30s, retries: 1, startPeriod: 1s}\n'
    "rollout: {minHealthy: 1s, onFailure: Pause}"
)
#: The shell asks where the cursor is after each prompt.
PROMPT = b"$ \x1b[6n"


@pytest.fixture(scope="module")
def host(engine: PrivateEngine | FoundEngine) -> Iterator[Host]:
    host = Host(engine)
    try:
        text = Path(host.policy).read_text().replace("  root: true ", "  root: false ")
        policy = host.folder / "policy.yaml"
        policy.write_text(f"{text}\nclients: [{{uid: {CLIENT}, owner: guests}}]\n")
        host.policy = str(policy)
        host.write("web.yaml", web("web", replicas=2, extra=f"{TALKS}\n{QUICK}"))
        host.write("bad.yaml", web("bad", extra=QUICK))
        with host.running():
            host.write("crash.yaml", web("crash", extra=DIES % 3))
            host.write("ill.yaml", web("ill", extra=ILL))
            eventually(lambda: host.history("bad")[0]["outcome"] == "good", what="a good revision")
            host.write("bad.yaml", web("bad", extra=f"{DIES % 4}\n{QUICK}"))
            yield host
    finally:
        host.close()


class Following:
    """``trimtab logs -f`` in the background."""

    def __init__(self, host: Host, *arguments: str) -> None:
        self.file = host.folder / "followed"
        with self.file.open("wb") as out:
            self.process = subprocess.Popen(
                [TRIMTAB, "logs", "-f", *arguments, "--state", str(host.state)],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=host.folder,
            )

    def has(self, pattern: str) -> bool:
        assert self.process.poll() is None, self.file.read_text()
        return re.search(pattern, self.file.read_text(), re.MULTILINE) is not None

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=PATIENCE_S)


def run(
    host: Host, *arguments: str, stdin: bytes = b"", uid: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """Run a command of trimtab's as a user."""
    argv = [TRIMTAB, *arguments]
    return subprocess.run(
        as_user(argv, uid=uid, gid=trimtab_gid()) if uid else argv,
        env={**host.environment(), "TRIMTAB_STATE": str(host.state)},
        input=stdin,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        cwd="/",
    )


def test_replicas_are_interleaved_with_their_names_and_streams_apart(host: Host) -> None:
    done = run(host, "logs", "web")
    assert done.stdout.splitlines() == [b"web.1 | out", b"web.2 | out"]
    assert done.stderr.splitlines() == [b"web.1 | err", b"web.2 | err"]
    one = run(host, "logs", "--tail", "1", "default/web.2")
    assert (one.stdout, one.stderr) in [(b"out\n", b""), (b"", b"err\n")]
    lines = [json.loads(line) for line in run(host, "logs", "web.1", "--json").stdout.splitlines()]
    assert sorted((each["stream"], each["line"], each["slot"]) for each in lines) == [
        ("stderr", "err", 1),
        ("stdout", "out", 1),
    ]
    assert lines[0]["container"] in host.names("web")
    assert run(host, "logs", "web", "--since", "2000-01-01").stdout == done.stdout
    assert run(host, "logs", "web", "--since", "2100-01-01").stdout == b""


def test_the_output_of_a_terminal_is_read_too(host: Host) -> None:
    image, entrypoint = "trimtab.local/web:1", ("--entrypoint", "/bin/echo")
    host.docker_through_broker(
        *(
            "run",
            "--tty",
            "--network",
            "none",
            "--name",
            "term",
            *entrypoint,
            image,
            "on a terminal",
        )
    )
    assert run(host, "logs", "term").stdout == b"on a terminal\n"
    host.docker_through_broker("rm", "term")


def test_following_goes_on_with_what_replaces_a_container_and_with_restarts(host: Host) -> None:
    before = len(reads(host))
    following = Following(host, "--tail", "0", "web")
    try:
        eventually(lambda: len(reads(host)) >= before + 4, what="both containers being followed")
        host.engine.docker("restart", "-t", "0", host.names("web")[0])
        eventually(lambda: following.has(r"^web\.1 \| out$"), what="the restart's lines")
        host.engine.docker("rm", "-f", host.names("web")[1])
        eventually(lambda: following.has(r"^web\.2 \| out$"), what="the successor's lines")
    finally:
        code = following.end()
    assert code == 130
    lines = following.file.read_text().splitlines()
    assert sorted(filter(None, lines)) == [
        f"web.{slot} | {word}" for slot in (1, 2) for word in ("err", "out")
    ]


def reads(host: Host) -> list[dict[str, object]]:
    """Return the journal's records of log reads."""
    return [each for each in host.records("read") if each["request"]["route"] == "container.logs"]


def test_following_ends_when_the_service_is_removed(host: Host) -> None:
    host.write("short.yaml", web("short", extra=TALKS))
    eventually(lambda: host.is_ready("short"), what="its first container")
    following = Following(host, "short")
    eventually(lambda: following.has("^out$"), what="its lines")
    host.remove("short.yaml")
    assert following.process.wait(timeout=PATIENCE_S * 2) == 0
    assert sorted(following.file.read_text().splitlines()) == ["err", "out"]


def test_an_unknown_name_and_a_foreign_container_are_an_error_with_a_remedy(host: Host) -> None:
    for name in ("nobody", "web.9"):
        done = run(host, "logs", name)
        assert done.returncode == 1
        assert b"there is no container of " + name.encode() in done.stderr
        assert b"trimtab logs --previous " + name.encode() in done.stderr


def test_a_command_runs_with_its_input_output_and_exit_code(host: Host) -> None:
    done = run(host, "exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    data = os.urandom(3_000_000)
    done = run(host, "exec", "-i", "web.2", "--", "cat", stdin=data)
    assert (done.returncode, done.stdout == data, done.stderr) == (0, True, b"")
    done = run(host, "exec", "-w", "/tmp", "-e", "A=b c", "web", "--", "sh", "-c", "pwd; echo $A")
    assert done.stdout == b"/tmp\nb c\n"
    assert run(host, "exec", "web", "--", "/no/such").returncode == 126
    refused = run(host, "exec", "--user", "0", "web", "--", "id")
    assert refused.returncode == 4
    assert b"[exec.root]\nremedy: leave User out" in refused.stderr
    assert run(host, "exec", "-i", "web", "--", "sh", "-c", ":", stdin=data).returncode == 0


def test_a_terminal_is_raw_has_the_callers_size_and_is_as_before_at_the_end(host: Host) -> None:
    pid, terminal = pty.fork()
    if not pid:
        os.environ["TRIMTAB_STATE"] = str(host.state)
        os.execv(TRIMTAB, [TRIMTAB, "exec", "-it", "web", "--", "sh"])
    try:
        before = termios.tcgetattr(terminal)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        until(terminal, PROMPT)
        assert b"33 77" in asked(terminal, b"stty size\r")
        assert not termios.tcgetattr(terminal)[3] & termios.ICANON
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 88, 0, 0))
        os.kill(pid, signal.SIGWINCH)
        eventually(lambda: b"44 88" in asked(terminal, b"stty size\r"), what="the new size")
        os.write(terminal, b"exit 9\r")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 9
        assert termios.tcgetattr(terminal) == before
    finally:
        os.close(terminal)


def until(terminal: int, wanted: bytes) -> bytes:
    """Read from a terminal until it has shown something."""
    shown = b""
    while wanted not in shown:
        assert select.select([terminal], [], [], PATIENCE_S)[0], shown
        shown += os.read(terminal, 4096)
    return shown


def asked(terminal: int, line: bytes) -> bytes:
    """Type a line; return what the shell shows until its next prompt."""
    os.write(terminal, line)
    return until(terminal, PROMPT)


def test_who_is_no_operator_sees_no_logs_of_others_and_runs_nothing(host: Host) -> None:
    done = run(host, "logs", "web", uid=CLIENT)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"or none that is visible to this user" in done.stderr
    done = run(host, "exec", "web", "--", "true", uid=CLIENT)
    assert done.returncode == 1, done.stderr
    stranger = run(host, "logs", "web", uid=CLIENT + 1)
    assert stranger.returncode == 4, stranger.stderr
    assert b"remedy: " in stranger.stderr


def condition(host: Host, name: str, kind: str) -> str:
    """Wait for a condition; return its message as 'trimtab status' shows it."""
    eventually(lambda: has(host.resource(name), kind), what=f"{kind} of {name}")
    (resource,) = [r for r in host.json("status")["resources"] if r["name"] == name]
    (found,) = [c for c in resource["conditions"] if (c["type"], c["status"]) == (kind, "True")]
    return str(found["message"])


def test_a_crash_loop_says_how_often_and_why_and_ends_with_the_last_line(host: Host) -> None:
    message = condition(host, "crash", "CrashLoop")
    assert re.fullmatch(
        r"slot 1 failed \d+ times in (a row|10 min): exited with 3: "
        rf'"{LAST}" \(trimtab logs --previous crash\)',
        message,
    )
    failure = host.json("describe", "crash")["slots"][0]["lastFailure"]
    assert (failure["exit"], failure["line"]) == (3, LAST)
    assert LAST in host.cli("describe", "crash").stdout
    assert LAST in host.cli("status", "crash", "--wide").stdout


def test_after_a_rollback_the_lines_of_the_container_that_is_gone_are_kept(host: Host) -> None:
    message = condition(host, "bad", "RolledBack")
    assert message.endswith(f': "{LAST}" (trimtab logs --previous bad)')
    (failed,) = [r for r in host.history("bad") if r["outcome"] == "failed"]
    eventually(lambda: len(host.names("bad")) == 1, what="the failed container's removal")
    assert failed["revision"][3:11] not in host.names("bad")[0]
    done = run(host, "logs", "--previous", "bad")
    head, *lines = done.stderr.decode().splitlines()
    assert re.fullmatch(r"bad\.1-[0-9a-f]{8}\S* exited.* at \S+", head)
    assert (done.stdout, lines) == (b"", ["starting", LAST])
    assert LAST in host.cli("history", "bad").stdout


def test_output_is_in_no_record_and_only_shown_to_those_who_may_read_it(host: Host) -> None:
    eventually(lambda: has(host.resource("bad"), "RolledBack"), what="the roll-back")
    journal = b"".join(p.read_bytes() for p in (host.state / "broker" / "journal").glob("*.jsonl"))
    assert b"exited with 4" in journal, "records say why a container is replaced"
    assert LAST.encode() not in journal
    assert LAST not in (host.state / "controller" / "status.json").read_text()
    kept = host.state / "controller" / "failures.json"
    assert LAST in kept.read_text()
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    shown = run(host, "status", "--json", uid=CLIENT)
    assert shown.returncode == 0, shown.stderr
    assert LAST.encode() not in shown.stdout
    denied = run(host, "logs", "--previous", "bad", uid=CLIENT)
    assert (denied.returncode, denied.stdout) == (1, b"")
    assert LAST not in host.said(), "what 'up' prints into a file is a log"


def test_the_answer_of_a_failed_check_is_in_records_without_its_output(host: Host) -> None:
    eventually(lambda: has(host.resource("ill"), "Stalled"), what="the failed rollout")

    def stalled() -> str:
        rows = json.loads(run(host, "status", "--json").stdout)["resources"]
        (row,) = [r for r in rows if r["name"] == "ill"]
        return str(next(c["message"] for c in row["conditions"] if c["type"] == "Stalled"))

    # The failed run is kept a moment after its condition is published.
    answer = r"is unhealthy: its check exited with 22 .*" + REFUSAL
    eventually(lambda: re.search(answer, stalled()), what="the answer of the check")
    assert f"check: {REFUSAL}" in run(host, "describe", "ill").stdout.decode()
    for told in (
        run(host, "status", "--json", uid=CLIENT),
        run(host, "describe", "ill", uid=CLIENT),
    ):
        assert b"its check exited with 22" in told.stdout
        assert REFUSAL.encode() not in told.stdout
    journal = b"".join(p.read_bytes() for p in (host.state / "broker" / "journal").glob("*.jsonl"))
    assert REFUSAL.encode() not in journal
    assert REFUSAL not in (host.state / "controller" / "status.json").read_text()
    assert REFUSAL not in (host.state / "controller" / "state.json").read_text()


def test_exit_codes_tell_what_was_rolled_back(host: Host) -> None:
    eventually(lambda: has(host.resource("bad"), "RolledBack"), what="the roll-back")
    host.cli("status", "web", "--exit-code")
    host.cli("status", "bad", "--exit-code", expect=5)
    host.cli("status", "--exit-code", expect=5)
    answer = host.json("apply", "--timeout", "1s", expect=5)
    unmet = {each["object"]: each["condition"] for each in answer["unmet"]}
    assert (answer["converged"], unmet["Service/default/bad"]) == (False, "RolledBack")
    assert "Service/default/web" not in unmet


def test_what_is_kept_can_be_read_once_nothing_runs(host: Host) -> None:
    eventually(lambda: has(host.resource("bad"), "RolledBack"), what="the roll-back")
    host.stop()
    assert run(host, "logs", "bad").returncode == 1
    done = run(host, "logs", "--previous", "bad", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["stream"], each["line"]) for each in lines] == [
        ("stderr", "starting"),
        ("stderr", LAST),
    ]
