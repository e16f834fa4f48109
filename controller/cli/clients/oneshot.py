"""A broker and a controller for the duration of one command: ``plan``, ``apply``, ``down``.

Running processes are used if there are any. Every change to the engine passes a broker.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.cli.clients.socket_client import PLAN_S, BrokerApi, ask_controller
from controller.cli.clients.status_report import Waiting
from controller.cli.options import HostChoice
from controller.model.errors import EngineError, StateError, TrimtabError, UsageError
from controller.model.mutations import DOWN, SHOW_VALUES
from controller.model.names import Key
from controller.model.settings import choose
from controller.settings import Instance, StateFolder, read_in_force, read_instance, state_of
from controller.system.sockets import has_listener

if TYPE_CHECKING:
    from controller.app.controller import BuiltController
    from controller.app.state_folder import Launch
    from controller.core.planning.deliveries import AskSecrets
    from controller.model.desired.desired import Secret
    from controller.model.desired.plan import AnyAction, Review

#: Time for the controller's answer, in addition to the timeout of the pass.
ANSWER_S = 30.0
#: Asks for a pass, with the arguments of an approval, and returns the answer.
Ask = Callable[[dict[str, object]], Any]
#: Records an approval, and asks for the approved pass.
Approve = Callable[[StateFolder, Ask], Any]
#: Containers that ``down`` stops at the same time.
WORKERS = 8


@contextmanager
def broker_of(host: HostChoice, *, instance_id: str = "") -> Iterator[StateFolder]:
    """Yield a state folder with a broker: the running broker, or one that ends with the block.

    A new state folder gets *instance_id*, if given.
    """
    instance = read_instance(host.root)
    if instance is not None and has_listener(state_of(host.root, instance).broker_socket):
        yield state_of(host.root, instance)
        return
    from controller.app import up  # a slow import

    directory = host.directory if instance is None else Path(instance.dir)
    launch = _launch(host, directory, instance_id=instance_id)
    with up.run_broker_only(launch):
        yield launch.state


def _launch(
    host: HostChoice, directory: Path, *, rebind: bool = False, instance_id: str = ""
) -> Launch:
    """Return the launch of a command's own processes, on the engine of the settings if none is named."""
    from controller.app import up  # a slow import
    from controller.app.state_folder import policy_setting

    return up.prepare_launch(
        host.root,
        directory=directory,
        options=choose(engine=host.engine, policy=policy_setting(host.policy)),
        rebind=rebind,
        instance_id=instance_id,
    )


@contextmanager
def planning_controller(
    host: HostChoice,
) -> Iterator[tuple[StateFolder, Instance, BuiltController]]:
    """Yield an instance with a broker, and a controller that plans and changes nothing."""
    from controller.app.controller import build_controller  # a slow import

    with broker_of(host) as state:
        instance = read_instance(host.root)
        assert instance is not None, "a broker made its state folder"
        built = build_controller(
            state,
            host.directory,
            state.broker_socket,
            quarantine_ms=read_in_force(host.root).settings.quarantine_ms,
            acts=False,
            secrets=_ask_controller_for_secrets(state),
        )
        yield state, instance, built


def _ask_controller_for_secrets(state: StateFolder) -> AskSecrets | None:
    """Return a function that asks the running controller for contents; None if none runs.

    The broker tells contents to the controller alone.
    """
    if not has_listener(state.controller_socket):
        return None
    from controller.core.planning.deliveries import NOT_ASKED, SecretContents, source_of

    def ask(secrets: Iterable[Secret]) -> SecretContents:
        try:
            answer = ask_controller(state.controller_socket, {"do": "secrets"}, timeout_s=PLAN_S)
        except TrimtabError:
            answer = {"contents": {}}  # for root and the controller's user alone
        known = answer["contents"]
        return {each.key: known.get(source_of(each), NOT_ASKED) for each in secrets}

    return ask


def make_review(host: HostChoice, *, reveal: bool = False) -> Review:
    """Return the review of the controller's plan. Changes nothing.

    With *reveal* the review contains possible secrets; the broker records this first.

    Raises:
        EngineError: engine or broker can't be asked.
        StateError: the state folder can't be used.
        Refused: *reveal* is set, and the caller isn't an operator.
    """
    with planning_controller(host) as (state, instance, built):
        if reveal:
            note = f"by uid {os.getuid()}"
            BrokerApi(state.broker_socket).record(SHOW_VALUES, instance.id, note)
        full_plan = built.controller.plan_everything()
        return built.controller.review(full_plan, reveal=reveal)


def ask_for_pass(
    host: HostChoice,
    question: dict[str, object],
    *,
    rebind: bool,
    timeout_s: float,
    approve: Approve | None,
    waiting: Waiting,
    announce: Callable[[Any], None],
) -> Any:
    """Ask the running controller for a pass, else a controller that ends with the pass.

    Return the controller's answer, without *approve* together with the objects of the plan in
    ``objects``, in the form of ``plan --json``.

    Args:
        approve: Records an operator's approval and asks for the pass.
        waiting: Shows progress until the answer.
        announce: Gets the objects of the plan before the pass. Isn't called if *approve* is given.

    Raises:
        UsageError: a controller runs for another directory.
        EngineError: the controller can't be asked, or the plan has changed.
    """

    def ask(state: StateFolder) -> Any:
        def ask_once(approval: dict[str, object]) -> Any:
            arguments = {**question, **approval}
            with waiting(state.controller_socket):
                return ask_controller(
                    state.controller_socket, arguments, timeout_s=timeout_s + ANSWER_S
                )

        if approve is not None:
            return approve(state, ask_once)  # prints the removals
        objects = _plan_objects(state)
        announce(objects)
        return {**ask_once({}), "objects": objects}

    instance = read_instance(host.root)
    if instance is not None:
        state = state_of(host.root, instance)
        if has_listener(state.controller_socket):
            if Path(instance.dir) != host.directory:
                raise UsageError(
                    "state.other-dir",
                    f"the controller that runs converges {instance.dir}, not {host.directory}",
                    remedy="stop it, and start it with the new DIR and --rebind",
                )
            return ask(state)
    from controller.app import up  # a slow import

    launch = _launch(host, host.directory, rebind=rebind)
    with up.run_both(launch, paused=True):
        return ask(launch.state)


def _plan_objects(state: StateFolder) -> Any:
    """Return the objects of the controller's plan; empty if planning fails: the pass reports why."""
    try:
        answer = ask_controller(state.controller_socket, {"do": "plan"}, timeout_s=PLAN_S)
    except TrimtabError:
        return []
    return answer["plan"].get("objects", [])


def take_down(
    state: StateFolder, instance: Instance, *, show: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Remove all containers and networks of an instance.

    Return the names of removed objects, and the names of objects that can't be removed. The
    removal is an operator's action, and recorded before its first step: the disruption budget
    holds for the controller only.

    Raises:
        StateError: a controller runs, and would create everything again.
        Refused: the caller isn't an operator.
    """
    if has_listener(state.controller_socket):
        raise StateError(
            "controller.running",
            "a controller runs on this state folder, and would put everything back",
            remedy="stop it first (Ctrl-C in the terminal of 'trimtab up')",
        )
    from controller.app.desired_state import directory_source
    from controller.core.service.operator_actions import teardown
    from controller.loop.state.saved_state import saved_dependencies

    host = HostChoice(state.root, Path(instance.dir), None, None)
    with broker_of(host) as serving:
        note = f"by uid {os.getuid()}"
        BrokerApi(serving.broker_socket).record(DOWN, instance.id, note)
        perform = _Performer(serving.broker_socket, show)
        declared = directory_source(Path(instance.dir)).load()
        depends = saved_dependencies(state.controller / "state.json", declared)
        perform.all(teardown(perform.engine.observe(images=frozenset()), depends=depends))
    if not perform.failed:
        # Without the file, 'status' doesn't show removed containers as the last known state.
        with suppress(OSError):
            (state.controller / "status.json").unlink()
    return perform.removed, perform.failed


def take_services_down(
    state: StateFolder, keys: Iterable[str], *, remove: bool, show: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Stop the containers of services as the caller, or *remove* them too; dependents go first.

    Return the names of stopped or removed containers, and of those that can't be. The services are
    suspended before, so that the controller leaves them so.

    Raises:
        EngineError: the engine can't be asked.
    """
    from controller.core.service.operator_actions import services_down
    from controller.loop.state.saved_state import saved_dependencies
    from controller.model.desired.desired import Desired

    perform = _Performer(state.broker_socket, show)
    chosen = frozenset(map(Key.parse, keys))
    # Of the controller's folder, which not each operator can read: without it, the order is unknown.
    depends = saved_dependencies(state.controller / "state.json", Desired())
    observed = perform.engine.observe(images=frozenset())
    cause = "an operator takes it down" if remove else "an operator stops it"
    perform.all(services_down(observed, chosen, depends=depends, remove=remove, cause=cause))
    return perform.removed, perform.failed


class _Performer:
    """Performs the actions on an object as an operator, and shows each removed or stopped object."""

    def __init__(self, socket: Path, show: Callable[[str], None]) -> None:
        from controller.app.controller import broker_engine  # a slow import

        self.engine = broker_engine(socket)
        self._show = show
        #: The names of removed or stopped objects, and of those that can't be.
        self.removed: list[str] = []
        self.failed: list[str] = []

    def all(self, waves: Iterable[tuple[AnyAction, ...]]) -> None:
        """Perform waves of actions, one wave after the other, and the objects of a wave together."""
        from concurrent.futures import ThreadPoolExecutor

        for wave in waves:
            by_object: dict[str, list[AnyAction]] = {}
            for action in wave:
                by_object.setdefault(action.target, []).append(action)
            with ThreadPoolExecutor(WORKERS) as pool:  # most of the time is grace periods
                list(pool.map(self, by_object.values()))

    def __call__(self, actions: list[AnyAction]) -> None:
        for action in actions:
            try:
                self.engine.perform(action, None)  # as an operator, never as the controller
            except EngineError as error:
                self._show(f"failed   {action.verb} {action.target}: {error.message}")
                self.failed.append(action.target)
                return
        last = actions[-1]
        word = {"stop-container": "stopped"}.get(last.verb, "removed")
        if last.verb == "stop-container" or last.verb.startswith("remove"):
            self._show(f"{word:<7}  {last.target}")
            self.removed.append(last.target)
