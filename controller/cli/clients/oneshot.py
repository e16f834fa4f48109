"""What ``plan``, ``apply`` and ``down`` do where nothing runs: start what they need, for their life.

Everything that changes the engine goes through a broker all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.app import up
from controller.cli.clients.socket_client import PLAN_S, BrokerApi, ask_controller
from controller.cli.clients.wait_for_pass import Waiting, in_silence
from controller.model.errors import EngineError, StateError, TrimtabError, UsageError
from controller.model.mutations import DOWN, SHOW_VALUES
from controller.settings import Instance, StateFolder, read_instance, state_of
from controller.system.unix_socket import has_listener

if TYPE_CHECKING:
    from controller.model.desired.field_changes import Review
    from controller.model.desired.plan import AnyAction

#: What the controller may need beyond the time that it was given, to answer.
ANSWER_S = 30.0
#: Asks for a pass, with what an approval adds to the question, and returns the answer.
Ask = Callable[[dict[str, object]], Any]
#: Records an approval, and asks for the pass that it is for.
Approve = Callable[[StateFolder, Ask], Any]
#: Containers that are stopped at a time by ``down``.
WORKERS = 8


def announce_nothing(_objects: Any) -> None:
    """Show nothing of what is planned."""


@contextmanager
def broker_of(
    root: Path, *, directory: Path, engine: str | None, policy: str | None
) -> Iterator[StateFolder]:
    """Yield the state whose broker serves: the running one, or one for the block's life."""
    instance = read_instance(root)
    if instance is not None and has_listener(state_of(root, instance).broker_socket):
        yield state_of(root, instance)
        return
    launch = up.prepare_launch(
        root,
        directory=Path(instance.dir) if instance is not None else directory,
        engine=engine or (instance.engine if instance is not None else None),
        policy=policy,
        controller_user_name=None,
        rebind=False,
    )
    with up.run_broker_only(launch):
        yield launch.state


def make_review(
    root: Path, *, directory: Path, engine: str | None, policy: str | None, reveal: bool = False
) -> Review:
    """Plan as the controller would and review it, changing nothing.

    With *reveal* the fields that change carry values that may be secrets; that is recorded first.

    Raises:
        EngineError: engine or broker can't be asked.
        StateError: the state folder can't be used.
        Refused: values are to be shown, and the caller is no operator.
    """
    from controller.app.controller import build_controller  # slow to load

    with broker_of(root, directory=directory, engine=engine, policy=policy) as state:
        instance = read_instance(root)
        assert instance is not None, "a broker made its state folder"
        controller = build_controller(
            state,
            directory,
            state.broker_socket,
            quarantine_ms=instance.quarantine_ms,
            acts=False,
        ).controller
        if reveal:
            act = {"act": SHOW_VALUES, "object": instance.id, "note": f"by uid {os.getuid()}"}
            BrokerApi(state.broker_socket).post("records", act)
        return controller.review(controller.survey(), reveal=reveal)


def ask_for_pass(
    root: Path,
    question: dict[str, object],
    *,
    directory: Path,
    engine: str | None,
    policy: str | None,
    rebind: bool,
    timeout_s: float,
    approve: Approve | None = None,
    waiting: Waiting = in_silence,
    announce: Callable[[Any], None] = announce_nothing,
) -> Any:
    """Have the controller converge, and return its answer; start one where none runs.

    *approve* asks in its place, once it has recorded an operator's approval. Without it *announce*
    gets the objects of the plan first, as ``plan --json`` has them; the answer has them, too.
    *waiting* tells what happens until the answer.

    Raises:
        UsageError: a controller runs, for another DIR.
        EngineError: the controller can't be asked, or the plan is another one now.
    """

    def ask(state: StateFolder) -> Any:
        def for_pass(more: dict[str, object]) -> Any:
            with waiting(state.controller_socket):
                return ask_controller(
                    state.controller_socket, {**question, **more}, timeout_s=timeout_s + ANSWER_S
                )

        if approve is not None:
            return approve(state, for_pass)  # shows what goes by itself
        objects = _planned(state)
        announce(objects)
        return {**for_pass({}), "objects": objects}

    instance = read_instance(root)
    if instance is not None:
        state = state_of(root, instance)
        if has_listener(state.controller_socket):
            if Path(instance.dir) != directory:
                raise UsageError(
                    "state.other-dir",
                    f"the controller that runs converges {instance.dir}, not {directory}",
                    remedy="stop it, and start it with the new DIR and --rebind",
                )
            return ask(state)
    launch = up.prepare_launch(
        root,
        directory=directory,
        engine=engine or (instance.engine if instance is not None else None),
        policy=policy,
        controller_user_name=None,
        rebind=rebind,
    )
    with up.run_both(launch, paused=True):
        return ask(launch.state)


def _planned(state: StateFolder) -> Any:
    """Return the objects of the controller's plan; none if it can't plan now: the pass tells why."""
    try:
        shown = ask_controller(state.controller_socket, {"do": "plan"}, timeout_s=PLAN_S)
    except TrimtabError:
        return []
    return shown["plan"].get("objects", [])


def take_down(
    state: StateFolder, instance: Instance, *, tell: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Remove all containers and networks of an instance; return what went and what didn't.

    It is an operator's act, and recorded as one before anything goes: the share that the
    controller is held to isn't for it.

    Raises:
        StateError: a controller runs, which would put everything back.
        Refused: the caller is no operator.
    """
    if has_listener(state.controller_socket):
        raise StateError(
            "controller.running",
            "a controller runs on this state folder, and would put everything back",
            remedy="stop it first (Ctrl-C in the terminal of 'trimtab up')",
        )
    from controller.app.desired_state import directory_source
    from controller.core.service.teardown import teardown
    from controller.loop.state.saved_state import saved_dependencies

    done: list[str] = []
    failed: list[str] = []
    with broker_of(
        state.root, directory=Path(instance.dir), engine=instance.engine, policy=instance.policy
    ) as serving:
        act = {"act": DOWN, "object": instance.id, "note": f"by uid {os.getuid()}"}
        BrokerApi(serving.broker_socket).post("records", act)
        perform = _Performer(serving.broker_socket, tell, done, failed)
        declared = directory_source(Path(instance.dir)).load()
        depends = saved_dependencies(state.controller / "state.json", declared)
        for wave in teardown(perform.engine.observe(images=frozenset()), depends=depends):
            by_object: dict[str, list[AnyAction]] = {}
            for action in wave:
                by_object.setdefault(action.target, []).append(action)
            with ThreadPoolExecutor(WORKERS) as pool:  # a grace period is waiting, not working
                list(pool.map(perform, by_object.values()))
    if not failed:
        # The report of before would be shown as the last known state, with containers that are gone.
        with suppress(OSError):
            (state.controller / "status.json").unlink()
    return done, failed


class _Performer:
    """Performs a sequence of actions as an operator, and tells of each removal."""

    def __init__(
        self, socket: Path, tell: Callable[[str], None], done: list[str], failed: list[str]
    ) -> None:
        from controller.app.controller import broker_engine  # slow to load

        self.engine = broker_engine(socket)
        self._tell = tell
        self._done = done
        self._failed = failed

    def __call__(self, actions: list[AnyAction]) -> None:
        for action in actions:
            try:
                self.engine.perform(action, None)  # as an operator, never as the controller
            except EngineError as error:
                self._tell(f"failed   {action.verb} {action.target}: {error.message}")
                self._failed.append(action.target)
                return
            if action.verb.startswith("remove"):
                self._tell(f"removed  {action.target}")
                self._done.append(action.target)
