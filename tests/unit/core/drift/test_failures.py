"""Exits: whose fault it is that a container is down."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.drift import failures
from controller.core.drift.failures import ExitCursor
from controller.core.encoding.stored_form import StoredForm
from controller.core.engine_api import translate
from controller.model.observed import Ending
from tests.worlds import container, service

FAILURES_FORM = StoredForm(ExitCursor)

DOWN = "2026-01-01T00:00:10Z"


def check(
    *,
    policy: str,
    restart: str,
    own: bool,
    exit_code: int = 1,
    restarts: int = 0,
    controller_restarts: bool = False,
) -> None:
    down = container(
        state="exited",
        exit_code=exit_code,
        finished_at=DOWN,
        restart_count=restarts,
        settings={"restart": restart, "restart_max": 10 if restart == "on-failure" else 0},
    )
    wanted = service(restart={"policy": policy})
    assert failures.is_own_exit(down, wanted, controller_restarts=controller_restarts) is own


def test_the_engine_restarts_what_exits_under_always_so_that_one_is_down_from_outside() -> None:
    check(policy="Always", restart="always", own=False)


def test_a_stop_of_ours_set_the_policy_to_no_and_is_no_failure() -> None:
    check(policy="Always", restart="no", own=False)


def test_what_the_controller_restarts_itself_failed_when_it_is_down() -> None:
    check(policy="Always", restart="no", controller_restarts=True, own=True)
    check(policy="OnFailure", restart="no", controller_restarts=True, own=True)


def test_a_task_that_ended_well_did_not_fail() -> None:
    check(policy="OnFailure", restart="on-failure", exit_code=0, own=False)
    check(policy="OnFailure", restart="no", exit_code=0, controller_restarts=True, own=False)
    check(policy="Never", restart="no", exit_code=1, own=False)


def test_a_task_failed_once_the_engine_has_no_tries_left() -> None:
    check(policy="OnFailure", restart="on-failure", restarts=10, own=True)
    check(policy="OnFailure", restart="on-failure", restarts=3, exit_code=143, own=False)


@pytest.mark.parametrize(
    ("policy", "fields", "outside"),
    [
        ("Always", {}, True),
        ("Always", {"exit_code": 0}, True),
        ("Always", {"state": "created"}, False),
        ("Always", {"violation": "v1"}, False),
        ("Always", {"error": "no such file"}, False),
        ("Always", {"settings": {"restart": "no"}}, True),  # somebody set that too
        ("Always", {"settings": {"restart": "no"}, "admitted": {"restart": "no"}}, False),
        ("Always", {"ending": Ending("c", "container.stop", "controller", 9, DOWN)}, False),
        ("Always", {"ending": Ending("c", "container.stop", "operator", 0, DOWN)}, True),
        ("OnFailure", {"exit_code": 0}, False),
        ("OnFailure", {"settings": {"restart": "on-failure", "restart_max": 10}}, True),
        ("Never", {"settings": {"restart": "no"}}, False),
    ],
)
def test_what_is_down_and_neither_failed_nor_was_stopped_by_us_was_stopped_from_outside(
    policy: str, fields: dict[str, Any], outside: bool
) -> None:
    down = container(**{"state": "exited", "exit_code": 1, "finished_at": DOWN, **fields})
    wanted = service(restart={"policy": policy})
    assert failures.is_stopped_from_outside(down, wanted, controller_restarts=False) is outside


@pytest.mark.parametrize(
    ("policy", "fields", "is_own", "is_outside"),
    [
        ("Always", {}, True, False),
        ("Always", {"exit_code": 0}, True, False),
        ("OnFailure", {}, True, False),
        ("OnFailure", {"exit_code": 0}, False, False),
        # A person stopped it through the gate: drift, healed at once.
        ("Always", {"ending": Ending("c", "container.stop", "operator", 0, DOWN)}, False, True),
        ("Always", {"ending": Ending("c", "container.stop", "controller", 9, DOWN)}, False, False),
        # The engine's events show that somebody stopped it past the gate.
        ("Always", {"ending": Ending("c", "container.stop", "outside", -1, DOWN)}, False, True),
    ],
)
def test_an_exit_of_a_service_in_boot_order_is_its_own_unless_somebody_stopped_it(
    policy: str, fields: dict[str, Any], is_own: bool, is_outside: bool
) -> None:
    no = {"restart": "no"}
    down = container(
        **{"state": "exited", "exit_code": 1, "finished_at": DOWN, "admitted": no, **fields}
    )
    wanted = service(restart={"policy": policy, "boot": "Ordered"})
    assert failures.is_own_exit(down, wanted, controller_restarts=True) is is_own
    assert failures.is_stopped_from_outside(down, wanted, controller_restarts=True) is is_outside


def test_the_same_exit_is_counted_once() -> None:
    wanted = service(restart={"policy": "OnFailure"})
    down = container(
        state="exited",
        exit_code=1,
        finished_at=DOWN,
        restart_count=10,
        settings={"restart": "on-failure", "restart_max": 10},
    )
    assert failures.count_failures(down, wanted, None, controller_restarts=False) == 1
    assert (
        failures.count_failures(down, wanted, failures.cursor_of(down), controller_restarts=False)
        == 0
    )


@pytest.mark.parametrize(
    ("mark", "count"),
    [
        (None, 0),
        (ExitCursor("another", 1), 0),
        (ExitCursor("id:web.1-bbbbbbbb", 1), 3),
        (ExitCursor("id:web.1-bbbbbbbb", 9), 0),
    ],
)
def test_restarts_of_the_engines_count_from_the_last_look_on(
    mark: ExitCursor | None, count: int
) -> None:
    running = container(restart_count=4)
    assert failures.count_failures(running, service(), mark, controller_restarts=False) == count


RUNC = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process: "
)
MOUNT = f'{RUNC}error during container init: error mounting "/srv/a" to rootfs at "/www": '
WIRING = "driver failed programming external connectivity on endpoint x12 (f53773): "
NETWORKING = (
    "failed to set up container networking: driver failed programming external connectivity on "
    "endpoint p3 (5259a328a7f7)"
)
PROXY = f"{WIRING}Error starting userland proxy: "


# The texts are those of a dockerd 26.1 with runc 1.1, but for the command's words.
@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        (
            f'{RUNC}exec: "/s3cret": stat /s3cret: no such file or directory: unknown',
            "its command wasn't found",
        ),
        (
            f'{RUNC}exec: "s3cret": executable file not found in $PATH: unknown',
            "its command wasn't found",
        ),
        (f'{RUNC}exec: "/s3cret": permission denied: unknown', "its command can't be executed"),
        (
            f'{RUNC}exec: "/s3cret": is a directory: unknown: permission denied',
            "its command can't be executed",
        ),
        (
            f'{RUNC}exec: "/s3cret": exec format error: unknown',
            "its command is for another kind of machine",
        ),
        (
            f"{PROXY}listen tcp4 127.0.0.1:18081: bind: address already in use",
            "port 18081 is taken by another program",
        ),
        (
            f"{PROXY}listen udp6 [::]:53: bind: address already in use",
            "port 53 is taken by another program",
        ),
        # Docker 28.
        (
            (
                f"{NETWORKING}: failed to bind host port for 127.0.0.1:8090:172.17.0.3:8080/tcp: "
                "address already in use"
            ),
            "port 8090 is taken by another program",
        ),
        (
            (
                f"{NETWORKING}: failed to bind host port for [::1]:53:[fd00::3]:5353/udp: "
                "address already in use"
            ),
            "port 53 is taken by another program",
        ),
        (
            f"{NETWORKING}: Bind for 127.0.0.1:80 failed: port is already allocated",
            "port 80 is taken by another container",
        ),
        (
            "failed to set up container networking: Address already in use",
            "another container has its address",
        ),
        (
            f"{WIRING}Bind for 127.0.0.1:18082 failed: port is already allocated",
            "port 18082 is taken by another container",
        ),
        (
            'invalid mount config for type "bind": bind source path does not exist: /srv/a',
            "its bind source /srv/a is missing",
        ),
        (
            f"{MOUNT}mount /srv/a:/www (via /proc/self/fd/6): not a directory: unknown: Are you …",
            "its mount of /srv/a is of another type",
        ),
        (
            f"{MOUNT}no",
            "/srv/a can't be mounted",
        ),
        (
            "unable to find user ghost: no matching entries in passwd file",
            "its image has no user ghost",
        ),
        (
            "unable to find group ghost: no matching entries in group file",
            "its image has no group ghost",
        ),
        ("network nn not found", "its network nn is gone"),
        ("Address already in use", "another container has its address"),
        (f'{RUNC}process "--key=s3cret": no room: unknown', "no room"),
        ('what "s3cret" is', 'what "…" is'),
        ("", ""),
    ],
)
def test_a_start_that_failed_is_told_in_words_and_without_the_commands(
    said: str, meaning: str
) -> None:
    assert failures.start_failure(said) == meaning
    failed = container(state="created", error=said, exit_code=127)
    assert failures.explain(failed) == (f"failed to start: {meaning}" if said else "")


def test_however_much_an_engine_says_little_of_it_is_repeated() -> None:
    assert len(failures.start_failure("x" * 100_000)) == 160


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (0, "exited with 0"),
        (1, "exited with 1"),
        (125, "exited with 125, the code for a failure of the program that starts the command"),
        (126, "exited with 126, the code for a command that can't be executed"),
        (127, "exited with 127, the code for a command that wasn't found"),
        (128, "exited with 128"),
        (130, "exited with 130: ended by SIGINT"),
        (134, "exited with 134: crashed by SIGABRT"),
        (137, "exited with 137: killed by SIGKILL (not for its memory)"),
        (139, "exited with 139: crashed by SIGSEGV"),
        (143, "exited with 143: ended by SIGTERM"),
        (163, "exited with 163: ended by signal 35"),
        (192, "exited with 192: ended by SIGRTMAX"),
        (193, "exited with 193"),
        (255, "exited with 255"),
    ],
)
def test_an_exit_code_is_told_in_words(code: int, meaning: str) -> None:
    for state in ("exited", "restarting"):
        assert failures.explain(container(state=state, exit_code=code)) == meaning


@pytest.mark.parametrize(
    ("code", "memory", "meaning"),
    [
        (
            137,
            64 << 20,
            "was killed: out of memory (limit 64Mi); raise spec.resources.memory",
        ),
        (
            5,
            64 << 20,
            "exited with 5 after it ran out of memory (limit 64Mi); raise spec.resources.memory",
        ),
        (
            137,
            0,
            "was killed: out of memory (the host's: it has no limit); set spec.resources.memory",
        ),
    ],
)
def test_running_out_of_memory_is_told_with_the_limit(code: int, memory: int, meaning: str) -> None:
    down = container(state="exited", exit_code=code, oom_killed=True, settings={"memory": memory})
    assert failures.explain(down) == meaning


@pytest.mark.parametrize("state", ["running", "paused", "created", "removing", "dead"])
def test_what_is_not_down_has_no_cause(state: str) -> None:
    assert failures.explain(container(state=state, exit_code=1, oom_killed=True)) == ""


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-01T00:00:01.123456789Z", 1.123456),
        ("1970-01-01T01:00:01.000000001+01:00", 1.0),
        ("", None),
        ("yesterday", None),
    ],
)
def test_instants_are_read_as_the_engine_writes_them(written: str, seconds: float | None) -> None:
    assert translate.timestamp_seconds(written) == seconds


def test_how_long_it_ran_is_told_by_start_and_end() -> None:
    ran = container(state="exited", started_at="2026-01-01T00:00:00Z", finished_at=DOWN)
    assert failures.up_s(ran, now=0.0) == 10.0
    running = container(started_at="1970-01-01T00:01:00Z")
    assert failures.up_s(running, now=100.0) == 40.0
    assert failures.up_s(container(state="created"), now=100.0) == 0.0


def test_a_mark_is_read_back_as_it_was_written() -> None:
    for mark in (ExitCursor("c1", 3, DOWN), ExitCursor("c1", 0, "", "x", "web.1", ("v1", "v2"))):
        assert FAILURES_FORM.from_json(FAILURES_FORM.to_json(mark)) == mark
    with pytest.raises(ValueError, match=r"^id: "):
        FAILURES_FORM.from_json({"id": 3})
