"""Rollouts from pass to pass: gates, failures, going back; in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.core.drift.classify import short_revision
from controller.core.manifests.check_together import desired_of
from controller.loop.full_plan import Convergence
from controller.model.desired.desired import Service, ServiceAct, Verb
from controller.model.desired.plan import (
    AnyAction,
    ConnectNetwork,
    CreateContainer,
    PullImage,
    StartContainer,
    StopContainer,
)
from controller.model.errors import (
    Act,
    Conflict,
    EngineError,
    EngineFailed,
    PullFailed,
    Refused,
)
from controller.model.observed import Container, ContainerState, Image
from tests import worlds
from tests.unit.core.service.test_overrides import written
from tests.unit.loop.toy import House, ToyEngine
from tests.worlds import WEB, declared

CHECKED = "healthcheck: {exec: [/check]}"
PORT = "ports: [{container: 80, host: 8080}]"
NETWORKS = (worlds.ISOLATED, worlds.INGRESS)


def web(colour: str, *more: str) -> Service:
    return written(f"env: {{C: {colour}}}", *more)


def house(folder: Path, *more: str) -> House:
    """A house in which blue runs for long, and is good."""
    blue = web("blue", *more)
    images: dict[str, Image | None] = {blue.spec.image: Image(worlds.IMAGE_ID)}
    home = House(folder, engine=ToyEngine(worlds.engine(images=images, networks=NETWORKS)))
    home.files.desired = declared(blue)
    home.settle()
    make(home, "blue", health="healthy" if CHECKED in more else "")
    home.let_pass(600)
    assert outcome(home, "blue", *more) == ("good", "")
    return home


def make(home: House, colour: str, **fields: object) -> None:
    """Have the engine show something else of the container of a colour."""
    for each in home.engine.world.containers:
        if each.revision in {web(colour, *more).revision for more in ((), (CHECKED,), (PORT,))}:
            home.engine.change(each.name, lambda c: replace(c, **fields))  # type: ignore[arg-type]
            home.controller.keys.add(WEB)


def outcome(home: House, colour: str, *more: str) -> tuple[str, str]:
    kept = home.store.of(WEB).overrides.find_revision(web(colour, *more).revision)
    assert kept is not None
    return kept.outcome, kept.reason


def running(home: House) -> list[str]:
    return sorted(c.name for c in home.engine.world.containers if c.running)


def called(colour: str, *more: str) -> str:
    return f"web.1-{short_revision(web(colour, *more).revision)}"


def named(home: House) -> list[str]:
    """Who answers to the service's name on its network."""
    return [
        c.name
        for c in home.engine.world.containers
        if "web" in dict(c.aliases).get("platform-network", ())
    ]


def act(home: House, verb: Verb) -> None:
    home.operator.act(ServiceAct(verb, WEB, "uid:0"))


def test_the_old_serves_and_is_named_alone_until_the_new_is_available(tmp_path: Path) -> None:
    home = house(tmp_path)
    home.declare(web("green"))
    home.let_pass(9.9)
    assert running(home) == sorted([called("blue"), called("green")])
    assert named(home) == [called("blue")]
    home.let_pass(1)
    assert (running(home), named(home)) == ([called("green")], [called("green")])
    home.let_pass(60)
    assert outcome(home, "green") == ("good", "")


def test_a_check_that_never_passes_leaves_the_old_alone_and_goes_back(tmp_path: Path) -> None:
    home = house(tmp_path, CHECKED)
    home.declare(web("green", CHECKED))
    home.settle()
    make(home, "green", health="starting")
    home.let_pass(600)
    assert (running(home), named(home)) == ([called("blue", CHECKED)], [called("blue", CHECKED)])
    assert outcome(home, "green", CHECKED)[0] == "failed"
    assert home.condition("web", "RolledBack") == ("True", "Automatic")
    assert home.condition("web", "Ready") == ("True", "AsDeclared")
    assert home.let_pass(7200) == [], "once is enough"


def unhealthy(home: House, green: str) -> None:
    home.engine.change(green, lambda c: replace(c, health="unhealthy"))


def dies(home: House, green: str) -> None:
    home.engine.change(green, lambda c: replace(c, restart_count=c.restart_count + 3))
    home.engine.change(green, lambda c: replace(c, state=ContainerState.RESTARTING))


@pytest.mark.parametrize("fails", [unhealthy, dies])
@pytest.mark.parametrize("more", [(), (PORT,)])
def test_a_revision_that_fails_is_gone_back_from_at_once(
    tmp_path: Path, fails: Callable[[House, str], None], more: tuple[str, ...]
) -> None:
    home = house(tmp_path, *more)
    home.declare(web("green", *more))
    home.let_pass(3)
    fails(home, called("green", *more))
    home.controller.keys.add(WEB)
    home.let_pass(30)
    assert running(home) == [called("blue", *more)]
    assert named(home) == [called("blue", *more)]
    assert [c.name for c in home.engine.world.containers] == [called("blue", *more)]
    assert home.condition("web", "RolledBack") == ("True", "Automatic")
    told = [c.cause for c in home.engine.contexts if "rolled back by trimtab, since" in c.cause]
    assert told, "the journal says why"


def test_what_fails_while_it_is_watched_is_gone_back_from(tmp_path: Path) -> None:
    home = house(tmp_path)
    home.declare(web("green"))
    home.let_pass(40)
    assert running(home) == [called("green")]
    make(home, "green", health="unhealthy")
    home.let_pass(30)
    assert running(home) == [called("blue")]


@pytest.mark.parametrize("every_s", [12, 30, 45])
def test_what_dies_now_and_then_while_it_is_watched_is_gone_back_from(
    tmp_path: Path, every_s: float
) -> None:
    home = house(tmp_path)
    home.declare(web("green"))
    home.let_pass(20)
    assert running(home) == [called("green")]
    for _ in range(3):
        home.let_pass(every_s)
        # The engine had it running again before anybody looked.
        home.engine.change(called("green"), lambda c: replace(c, restart_count=c.restart_count + 1))
        home.controller.keys.add(WEB)
    home.let_pass(30)
    assert running(home) == [called("blue")]
    assert home.condition("web", "RolledBack") == ("True", "Automatic")


def test_a_start_that_fails_again_and_again_is_gone_back_from(tmp_path: Path) -> None:
    home = house(tmp_path)
    green = called("green")

    def fault(action: AnyAction) -> EngineFailed | None:
        if isinstance(action, StartContainer) and action.target == green:
            return EngineFailed("engine.error", "exec: no such file or directory")
        return None

    home.engine.fault = fault
    home.declare(web("green"))
    home.let_pass(60)
    assert (running(home), named(home)) == ([called("blue")], [called("blue")])
    assert home.condition("web", "RolledBack") == ("True", "Automatic")


def test_what_cannot_be_made_within_the_deadline_is_gone_back_from_and_its_last_failure_told(
    tmp_path: Path,
) -> None:
    home = house(tmp_path)

    def fault(action: AnyAction) -> EngineFailed | None:
        failed = isinstance(action, CreateContainer)
        return EngineFailed("engine.failed", "no space left on device") if failed else None

    home.engine.fault = fault
    home.declare(web("green"))
    home.let_pass(660)
    assert running(home) == [called("blue")]
    _, reason = outcome(home, "green")
    assert "got no further within 10m" in reason
    assert reason.endswith("; no space left on device")


def test_no_deadline_runs_while_another_service_is_waited_for(tmp_path: Path) -> None:
    home = house(tmp_path)

    def fault(action: AnyAction) -> EngineFailed | None:
        failed = isinstance(action, CreateContainer) and action.object.name == "db"
        return EngineFailed("engine.failed", "no space left on device") if failed else None

    home.engine.fault = fault
    head = "apiVersion: trimtab/v1\nkind: Service\nmetadata: {name: %s, owner: team}\n"
    spec = "spec: {image: ghcr.io/team/web:1, env: {C: green}, dependsOn: [%s]}\n"
    texts = {f"{n}.yaml": (head + spec) % (n, on) for n, on in (("web", "{name: db}"), ("db", ""))}
    home.files.desired = desired_of(texts)
    home.controller.files_changed()

    def green() -> str:
        (latest,) = (r for r in home.store.of(WEB).overrides.revisions if r.generation == 2)
        return latest.outcome

    home.let_pass(1500)
    assert (running(home), green()) == ([called("blue")], "")
    home.engine.fault = lambda _action: None
    home.let_pass(600)
    assert green() == "good"


def starts_fail(home: House, name: str) -> None:
    def fault(action: AnyAction) -> EngineFailed | None:
        failed = isinstance(action, StartContainer) and action.target.startswith(name)
        return EngineFailed("engine.error", "exec: no such file or directory") if failed else None

    home.engine.fault = fault


@pytest.mark.parametrize("more", [(), (PORT,)])
def test_what_failed_is_not_tried_again_for_a_change_that_is_not_of_its_slots(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    home = house(tmp_path, *more)
    starts_fail(home, called("green", *more))
    home.declare(web("green", *more))
    home.let_pass(120)
    assert running(home) == [called("blue", *more)]
    home.declare(web("green", "rollout: {minHealthy: 5s}", *more))
    assert home.let_pass(600) == []
    assert home.condition("web", "RolledBack") == ("True", "Automatic")
    starts_fail(home, "nobody")
    home.declare(web("red", *more))
    home.let_pass(60)
    assert running(home) == [called("red", *more)]
    assert home.condition("web", "RolledBack") == ("", "")


def test_what_fails_again_after_a_resume_goes_no_further_and_the_old_serves(
    tmp_path: Path,
) -> None:
    home = house(tmp_path)
    starts_fail(home, called("green"))
    home.declare(web("green"))
    home.let_pass(60)
    assert home.condition("web", "RolledBack") == ("True", "Automatic")
    home.controller.save()
    home.restart()
    act(home, "resume")
    home.let_pass(600)
    assert home.condition("web", "Paused") == ("True", "rollout.failed")
    assert home.condition("web", "RolledBack") == ("", "")
    assert (running(home), named(home)) == ([called("blue")], [called("blue")])


def test_what_fails_again_after_a_resume_is_gone_back_from_where_nothing_else_serves(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, PORT)
    starts_fail(home, called("green", PORT))
    home.declare(web("green", PORT))
    home.let_pass(60)
    act(home, "resume")
    home.let_pass(60)
    assert running(home) == [called("blue", PORT)]
    assert home.condition("web", "RolledBack") == ("True", "Automatic")


@pytest.mark.parametrize("verb", ["resume", "restart"])
def test_where_going_back_is_not_wanted_it_goes_no_further_until_somebody_says(
    tmp_path: Path, verb: Verb
) -> None:
    pause = "rollout: {onFailure: Pause}"
    home = house(tmp_path, CHECKED, pause)
    home.declare(web("green", CHECKED, pause))
    home.settle()
    make(home, "green", health="unhealthy")
    home.let_pass(5)
    assert called("blue", CHECKED) in running(home)
    assert home.condition("web", "Paused") == ("True", "rollout.failed")
    assert home.condition("web", "Stalled") == ("True", "rollout.failed")
    make(home, "green", health="healthy")
    act(home, verb)
    home.let_pass(60)
    again = {"resume": "", "restart": ".2"}[verb]
    assert running(home) == [called("green", CHECKED) + again]
    assert home.condition("web", "Paused") == ("", "")


def test_a_successor_that_the_engine_cannot_name_is_replaced_before_anything_is_stopped_for_it(
    tmp_path: Path,
) -> None:
    home, green = house(tmp_path), called("green")

    def fault(action: AnyAction) -> EngineFailed | None:
        if not isinstance(action, ConnectNetwork) or action.target != green:
            return None
        # As engine 26.1 with what outlived it: it is shown where it isn't.
        aliases = ((action.network, action.aliases),)
        home.engine.change(green, lambda c: replace(c, cut_off=(action.network,), aliases=aliases))
        return EngineFailed("engine.failed", "file exists")

    home.engine.fault = fault
    home.declare(web("green"))
    home.let_pass(15)
    assert running(home) == sorted([called("blue"), f"{green}.2"])
    home.let_pass(60)
    assert (running(home), named(home)) == ([f"{green}.2"], [f"{green}.2"])
    home.let_pass(60)
    assert outcome(home, "green") == ("good", "")


def test_a_newer_revision_supersedes_one_that_is_under_way(tmp_path: Path) -> None:
    home = house(tmp_path, CHECKED)
    home.declare(web("green", CHECKED))
    home.settle()
    make(home, "green", health="starting")
    home.declare(web("red", CHECKED))
    home.let_pass(1)
    assert called("blue", CHECKED) in running(home)
    home.let_pass(30)
    assert running(home) == [called("red", CHECKED)]
    assert len(home.engine.world.containers) == 1


def test_deadlines_are_of_the_time_that_somebody_looked(tmp_path: Path) -> None:
    home = house(tmp_path, CHECKED)
    home.declare(web("green", CHECKED))
    home.settle()
    make(home, "green", health="starting")
    home.let_pass(200)
    home.controller.save()
    home.watch.time += 86_400  # nobody is there
    home.restart()
    home.let_pass(60)
    assert home.condition("web", "RolledBack") == ("", "")
    home.let_pass(120)
    assert home.condition("web", "RolledBack") == ("True", "Automatic")


def test_an_unhealthy_replica_is_restarted_then_recreated_with_growing_pauses(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, CHECKED)
    blue = called("blue", CHECKED)
    make(home, "blue", health="unhealthy")
    assert home.let_pass(5) == [
        f"update-container {blue}",
        f"stop-container {blue}",
        f"start-container {blue}",
        f"update-container {blue}",
    ]
    make(home, "blue", health="unhealthy")
    assert home.let_pass(4.5) == [], "five seconds are the second pause"
    assert [each.split()[0] for each in home.let_pass(60)][:1] == ["create-container"]
    assert running(home) == [f"{blue}.2"]


def test_each_further_try_with_an_unhealthy_replica_is_a_fresh_one(tmp_path: Path) -> None:
    home = house(tmp_path, CHECKED)
    blue = called("blue", CHECKED)

    def none_is_well(engine: ToyEngine) -> None:
        for each in engine.world.containers:
            if each.running:
                engine.change(each.name, lambda c: replace(c, health="unhealthy"))

    home.engine.before_look = none_is_well
    home.controller.keys.add(WEB)
    started = [each for each in home.let_pass(400) if each.startswith("start-container")]
    assert started[:2] == [f"start-container {blue}", f"start-container {blue}.2"]
    assert len(started) == len(set(started)) > 3
    assert len(home.engine.world.containers) <= 2, "what was replaced doesn't pile up"


def test_who_waits_for_all_waits_for_health_checks_to_speak(tmp_path: Path) -> None:
    home = house(tmp_path, CHECKED)
    assert home.operator.convergence() == Convergence(converged=True, stuck=False)
    make(home, "blue", health="starting")
    for only in (None, WEB):
        standing = home.operator.convergence(only)
        assert standing == Convergence(converged=True, stuck=False, starting=True)
    make(home, "blue", health="healthy")
    assert not home.operator.convergence().starting


# What serves, while its successor can't


BAD = "ghcr.io/platformnetwork/web:bad"


def without_image(service: Service) -> Service:
    """A revision whose image nobody has."""
    return replace(service, spec=service.spec.model_copy(update={"image": BAD}))


def refuses_the_image(action: AnyAction) -> EngineError | None:
    if isinstance(action, PullImage):
        return PullFailed("image.not-found", "no such image", act=Act.STALLED)
    return None


def another_edit(home: House) -> None:
    home.files.desired = declared(without_image(web("red", PORT)))
    home.controller.reload()


def a_file_breaks(home: House) -> None:
    home.files.desired = declared(blind_keys=[WEB])
    home.controller.reload()


def somebody_suspends_it(home: House) -> None:
    act(home, "suspend")


def the_controller_is_to_end(home: House) -> None:
    home.stopping = lambda: True


@pytest.mark.parametrize(
    "happens", [another_edit, a_file_breaks, somebody_suspends_it, the_controller_is_to_end]
)
def test_nothing_comes_between_what_is_stopped_and_what_is_started_for_it(
    tmp_path: Path, happens: Callable[[House], None]
) -> None:
    home = house(tmp_path, PORT)

    def meanwhile(action: AnyAction) -> EngineError | None:
        if isinstance(action, StopContainer):
            happens(home)
        return refuses_the_image(action)

    home.engine.fault = meanwhile
    home.declare(web("green", PORT))
    while home.step() and not home.stopping():
        pass
    assert running(home) == [called("green", PORT)]


@pytest.mark.parametrize(
    "error",
    [
        EngineFailed("engine.failed", "no such file"),
        Refused("mount.missing", "no such file"),
        Conflict("engine.conflict", "somebody has it"),
    ],
)
def test_what_was_stopped_for_a_start_that_fails_serves_again_at_once(
    tmp_path: Path, error: EngineError
) -> None:
    home = house(tmp_path, PORT)

    def fault(action: AnyAction) -> EngineError | None:
        green = isinstance(action, StartContainer) and action.target == called("green", PORT)
        return error if green else None

    home.engine.fault = fault
    home.declare(web("green", PORT))
    home.settle()
    assert running(home) == [called("blue", PORT)]
    (blue,) = (c for c in home.engine.world.containers if c.running)
    assert blue.settings.restart == "always", "an engine that restarts brings it back"
    home.let_pass(60)
    assert running(home) == [called("blue", PORT)]
    assert home.condition("web", "RolledBack") == ("True", "Automatic")
    tries = home.engine.done.count(f"start-container {called('green', PORT)} !")
    assert tries == 3, "what serves isn't stopped for it for ever"


def test_a_successor_that_is_held_is_none_that_fails(tmp_path: Path) -> None:
    home = house(tmp_path, PORT)

    def fault(action: AnyAction) -> EngineError | None:
        green = isinstance(action, StartContainer) and action.target == called("green", PORT)
        return (
            Conflict("held", "the outcome of container.remove isn't known yet") if green else None
        )

    home.engine.fault = fault
    home.declare(web("green", PORT))
    home.settle()
    assert running(home) == [called("blue", PORT)], "it isn't stopped for that again at once"
    home.let_pass(60)
    assert running(home) == [called("blue", PORT)]
    tries = home.engine.done.count(f"start-container {called('green', PORT)} !")
    assert 3 < tries < 8, "it is stopped for it more and more rarely"
    assert home.condition("web", "RolledBack")[0] != "True"
    home.engine.fault = lambda _action: None
    home.let_pass(60)
    assert running(home) == [called("green", PORT)]


@pytest.mark.parametrize("more", [(), (PORT,)])
def test_what_is_stopped_while_its_successor_cannot_be_had_is_started_again(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    home = house(tmp_path, *more)
    home.engine.fault = refuses_the_image
    home.declare(without_image(web("green", *more)))
    home.let_pass(5)
    make(home, "blue", state=ContainerState.EXITED)
    home.settle()
    assert running(home) == [called("blue", *more)]
    assert home.condition("web", "Stalled") == ("True", "image.not-found")


def test_what_serves_is_put_back_in_place_while_its_successor_cannot_be_had(
    tmp_path: Path,
) -> None:
    home = house(tmp_path)
    home.engine.fault = refuses_the_image
    home.declare(without_image(web("green")))
    home.let_pass(5)

    def meddle(container: Container) -> Container:
        networks = ("platform-network", "evil")
        settings = replace(container.settings, networks=networks, pids=7)
        return replace(container, state=ContainerState.PAUSED, settings=settings)

    home.engine.change(called("blue"), meddle)
    home.controller.keys.add(WEB)
    home.settle()
    (blue,) = home.engine.world.containers
    assert (blue.state, blue.settings) == (ContainerState.RUNNING, blue.admitted)


def test_of_several_the_last_good_one_serves_again(tmp_path: Path) -> None:
    home = house(tmp_path, PORT)
    starts = {"green": EngineFailed("engine.failed", "no")}

    def fault(action: AnyAction) -> EngineError | None:
        green = isinstance(action, StartContainer) and action.target == called("green", PORT)
        return starts["green"] if green else refuses_the_image(action)

    home.engine.fault = fault
    home.declare(web("green", PORT))
    home.let_pass(2)
    home.declare(without_image(web("red", PORT)))
    home.let_pass(3600)
    assert running(home) == [called("blue", PORT)]


def test_a_paused_rollout_leaves_the_last_good_revision_serving(tmp_path: Path) -> None:
    pause = "rollout: {onFailure: Pause}"
    home = house(tmp_path, PORT, pause)
    green = called("green", PORT, pause)

    def fault(action: AnyAction) -> EngineError | None:
        fails = isinstance(action, StartContainer) and action.target == green
        return EngineFailed("engine.failed", "no") if fails else None

    home.engine.fault = fault
    home.declare(web("green", PORT, pause))
    home.let_pass(1200)
    assert home.condition("web", "Paused") == ("True", "rollout.failed")
    assert running(home) == [called("blue", PORT, pause)]


def test_a_lost_memory_leaves_nothing_down(tmp_path: Path) -> None:
    home = house(tmp_path, PORT)

    def fault(action: AnyAction) -> EngineError | None:
        green = isinstance(action, StartContainer) and action.target == called("green", PORT)
        return EngineFailed("engine.failed", "no") if green else None

    home.engine.fault = fault
    home.declare(web("green", PORT))
    while f"stop-container {called('blue', PORT)}" not in home.engine.done:
        assert home.step()
    (tmp_path / "state.json").unlink(missing_ok=True)
    home.restart()
    home.let_pass(1200)
    assert running(home) == [called("blue", PORT)]


def test_how_long_a_replacement_took_is_remembered(tmp_path: Path) -> None:
    home = house(tmp_path, PORT)
    assert home.store.of(WEB).overrides.down_ms is None
    home.declare(web("green", PORT))
    home.let_pass(1)
    assert home.store.of(WEB).overrides.down_ms == 0  # no time passes while this engine acts
