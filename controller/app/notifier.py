"""The process that sends notifications, its start by ``up`` while the settings have destinations, and a test message."""

from __future__ import annotations

import os
import platform
import select
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.app.child_commands import notifier_recipe, notifier_test
from controller.app.policy import PACKAGE
from controller.app.process import (
    SystemClock,
    call_on_termination,
    crash_reach,
    hold_process_lock,
    load_modules,
    log_late_imports,
    log_to_stderr,
)
from controller.app.state_folder import Launch, lay_out_private, notifier_user
from controller.core.notify.desks import test_notice
from controller.core.notify.texts import Origin
from controller.model.errors import EngineUnavailable, TrimtabError, UsageError
from controller.model.notifications import NoticeTarget
from controller.model.settings import Process, digest_of
from controller.process.drop_privileges import EXPECTED_PROGRAM, check_program
from controller.process.process_group import ProcessGroup
from controller.settings import (
    Instance,
    StateFolder,
    TargetsInForce,
    existing_instance,
    read_in_force,
)
from controller.system.syscalls import forbid_core_dumps
from controller.system.systemd import own_manager

NOTIFIER = "notifier"
#: The time between two looks at the settings.
SCAN_S = 2.0
#: How long the controller keeps a question while nothing changes: the time between two steps.
WAIT_S = 5.0
#: How long the controller takes for an answer, besides.
ANSWER_S = 10.0


class NotifierChild:
    """The notifier among the children of ``up``: it runs while the settings have destinations."""

    def __init__(self, group: ProcessGroup, launch: Launch) -> None:
        self._group = group
        self._launch = launch
        self._targets = TargetsInForce(launch.state.root)
        self._next_scan = 0.0
        self._runs = False

    def adjust(self, *, now: float) -> str | None:
        """Start or stop the notifier, if the settings changed. Call this periodically.

        Return why the notifier can't be started, once for each change.
        """
        if now < self._next_scan:
            return None
        self._next_scan = now + SCAN_S
        is_needed = bool(self._targets())
        if is_needed == self._runs:
            return None
        if not is_needed:
            self.stop()
            return None
        try:
            user = notifier_user(uid=os.getuid())
            lay_out_private(self._launch.state.notify, user)
            self._group.start(notifier_recipe(self._launch, user, os.environ))
        except (TrimtabError, OSError) as error:
            self._next_scan = now + 30 * SCAN_S
            return f"notifications can't be sent: {error}"
        self._runs = True
        return None

    def stop(self) -> None:
        """End the notifier."""
        self._group.end(NOTIFIER)
        self._runs = False


def run_notifier(root: Path, ask: Callable[..., Any], *, lifeline_fd: int | None) -> int:
    """Send notifications until a signal arrives or the parent ends; return the exit code.

    *ask* is ``ask_controller``: it takes the socket's path, a question, and ``timeout_s``.

    Raises:
        StateError: the state folder can't be used, or another notifier runs.
    """
    # `up` loads nothing of it.
    from controller.notify.notifier import Notifier, NotifierParts
    from controller.notify.senders import TargetSender
    from controller.view_follower import Followed, ViewFollower

    check_program(os.environ.get(EXPECTED_PROGRAM), package=PACKAGE)
    forbid_core_dumps()
    load_modules(())
    manager = own_manager()
    instance, state = existing_instance(root)
    settings = read_in_force(root).settings
    log_to_stderr("notify", settings.log)
    state.notify.mkdir(mode=0o700, exist_ok=True)
    lock = hold_process_lock(
        state.notify / "lock", program=NOTIFIER, settings=digest_of(settings, Process.NOTIFIER)
    )
    clock = SystemClock()
    notifier = Notifier(
        NotifierParts(
            folder=state.notify,
            instance=instance.id,
            host=platform.node(),
            read_targets=TargetsInForce(root),
            sender=TargetSender(clock.monotonic),
            clock=clock,
            reach=crash_reach(os.environ),
        )
    )
    call_on_termination(notifier.stop)
    if lifeline_fd is not None:

        def end_with_parent() -> None:
            select.select([lifeline_fd], (), ())
            notifier.stop()

        threading.Thread(target=end_with_parent, name="lifeline", daemon=True).start()

    def read_view(have: str, *, wait_s: float) -> Any:
        question = {"do": "view", "have": have, "wait_s": wait_s}
        return ask(state.controller_socket, question, timeout_s=wait_s + ANSWER_S)

    def take(_before: Followed, after: Followed) -> None:
        notifier.take(None if after.away_since is not None else after.view)

    follower = ViewFollower(read_view, clock, take, wait_s=WAIT_S)
    follower.start()
    log_late_imports()
    manager.tell(READY=1)
    notifier.run()
    manager.tell(STOPPING=1)
    follower.stop()
    os.close(lock)
    return 0


def find_target(root: Path, name: str) -> NoticeTarget:
    """Return a destination of the settings in force.

    Raises:
        UsageError: there is none of the name.
    """
    targets = {each.name: each for each in TargetsInForce(root)()}
    if name not in targets:
        known = f"the destinations are {', '.join(targets)}" if targets else "there are none"
        raise UsageError(
            "notify.unknown",
            f"no destination {name!r} in the settings in force: {known}",
            remedy="write it to notify.destinations, then run 'trimtab settings reload'",
        )
    return targets[name]


def send_test(state: StateFolder, instance: Instance, target: NoticeTarget) -> int:
    """Send a test message with the rights of the process that sends notifications; return the exit code.

    As root, the command runs again as that process's user.

    Raises:
        StateError: the process's user doesn't exist.
        EngineUnavailable: the message wasn't delivered.
    """
    from controller.notify.senders import NoticeNotSent, TargetSender

    user = notifier_user(uid=os.getuid())
    if user.dropped:
        argv, environment = notifier_test(state, user, target.name, os.environ)
        # The child writes the error, and the caller the result.
        nothing = subprocess.DEVNULL
        return subprocess.run(argv, env=environment, stdout=nothing, check=False).returncode
    clock = SystemClock()
    origin = Origin(platform.node(), instance.id)
    try:
        TargetSender(clock.monotonic).send(target, test_notice(clock.now()), origin)
    except NoticeNotSent as error:
        raise EngineUnavailable(
            "notify.not-sent",
            f"the message to {target.name} wasn't delivered: {error}",
            remedy=f"correct notify.destinations.{target.name}, or what the reason names, and try again",
        ) from None
    return 0
