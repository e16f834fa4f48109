"""What suspend, resume, rollback and restart come to, and when they can't be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from controller.core.drift.classify import short_revision
from controller.core.manifests.revision_hash import spec_digest
from controller.core.service import operator_actions
from controller.core.service.history import record_outcome, record_rollback
from controller.core.service.operator_actions import ActionInputs, Decision, decide
from controller.core.service.rollout_progress import should_roll_back
from controller.model.desired.desired import (
    NO_OVERRIDES,
    Desired,
    Overrides,
    Pin,
    Restarting,
    Scaling,
    Service,
    ServiceAct,
    SourceLocation,
    Suspension,
    Verb,
)
from controller.model.desired.spec.container import Shares
from controller.model.errors import UsageError
from controller.model.names import service_key
from controller.model.observed import Container
from tests.unit.core.service.test_overrides import DATA, course, written
from tests.worlds import WEB, container, declared, service

NOW = "2026-02-02T00:00:00Z"
BY = "uid:0 alice"
A, B, C = (written(f"env: {{C: {letter}}}") for letter in "abc")
SUSPENSION = Suspension("uid:7", "2026-01-01T00:00:00Z")
NEW = service()
COURSE = course(service(rev="a"), NEW)
BOTH = (container(rev="a"), container(slot=2, rev="a"))
GOOD = record_outcome(record_outcome(course(A, B, C), A.revision, "good"), B.revision, "good")


def act(
    verb: Verb,
    steering: Overrides = NO_OVERRIDES,
    *containers: Container,
    desired: Desired | None = None,
    to: str = "",
    replicas: int = 0,
    until: float | None = None,
    is_signed: bool = False,
) -> Decision:
    ground = ActionInputs(
        declared=declared(C) if desired is None else desired,
        all_overrides={WEB: steering},
        containers=containers,
        generation=3,
        is_signed=is_signed,
    )
    wanted = ServiceAct(verb, WEB, BY, to=to, reason="why", replicas=replicas, until=until)
    return decide(wanted, ground, now=NOW)


def refused(
    verb: Verb,
    steering: Overrides = NO_OVERRIDES,
    *containers: Container,
    desired: Desired | None = None,
    to: str = "",
    replicas: int = 0,
    is_signed: bool = False,
) -> str:
    """The code, message and remedy of an act that can't be."""
    with pytest.raises(UsageError) as caught:
        act(
            verb,
            steering,
            *containers,
            desired=desired,
            to=to,
            replicas=replicas,
            is_signed=is_signed,
        )
    return f"{caught.value.code}: {caught.value.message} ({caught.value.remedy})"


def test_suspending_notes_who_and_since_when() -> None:
    done = act("suspend", GOOD)
    assert done.changed
    assert done.overrides == replace(GOOD, suspension=Suspension(BY, NOW))
    again = act("suspend", done.overrides)
    assert (again.changed, again.overrides) == (False, done.overrides)
    assert again.text == f"already suspended by {BY} since {NOW}"


@pytest.mark.parametrize(
    ("desired", "there"),
    [(declared(), (container(),)), (declared(blind_keys=[WEB]), ())],
)
def test_what_runs_or_cannot_be_read_may_be_suspended(
    desired: Desired, there: tuple[Container, ...]
) -> None:
    assert act("suspend", NO_OVERRIDES, *there, desired=desired).changed


@pytest.mark.parametrize("verb", get_args(Verb))
def test_what_there_is_not_cannot_be_acted_on(verb: Verb) -> None:
    told = "service.unknown: there is no service web (see 'trimtab status')"
    assert refused(verb, desired=declared()) == told


@pytest.mark.parametrize("verb", get_args(Verb))
def test_an_act_on_an_earlier_name_is_refused_with_the_present_one(verb: Verb) -> None:
    site = service_key("shop", "site")
    ground = ActionInputs(declared(C), {WEB: Overrides(suspension=SUSPENSION)}, (), 1, renamed=site)
    with pytest.raises(UsageError) as caught:
        decide(ServiceAct(verb, WEB, BY), ground, now=NOW)
    assert caught.value.code == "service.renamed"
    assert caught.value.message == "web is shop/site now"
    assert caught.value.remedy == f"trimtab {verb} shop/site"


def test_suspensions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_actions, "SUSPENDED_MAX", 1)
    others = {service_key("default", "api"): Overrides(suspension=SUSPENSION)}
    ground = ActionInputs(declared(C), others, (), 1)
    with pytest.raises(UsageError, match="1 services are suspended"):
        decide(ServiceAct("suspend", WEB, BY), ground, now=NOW)


def test_resuming_ends_suspension_and_pin() -> None:
    pinned = course(A, C, pinned=A)
    both = replace(pinned, suspension=SUSPENSION)
    done = act("resume", both)
    assert done.changed
    assert done.overrides == replace(both, pin=None, suspension=None)
    assert done.text == f"no longer suspended and pinned to {short_revision(A.revision)}"
    assert act("resume", Overrides(suspension=SUSPENSION), desired=declared()).changed
    assert act("resume", pinned, desired=declared(blind_keys=[WEB])).changed


def test_resuming_what_runs_as_declared_changes_nothing() -> None:
    done = act("resume", GOOD)
    assert (done.changed, done.text) == (False, "neither suspended, pinned, scaled nor paused")


def test_what_its_document_suspends_only_that_resumes() -> None:
    suspended = declared(written("suspend: true"))
    assert refused("resume", desired=suspended) == (
        "resume.declared: web is suspended by its document, web.yaml:1 "
        "(set spec.suspend: false there)"
    )
    assert act("resume", Overrides(suspension=SUSPENSION), desired=suspended).changed


STOP = Suspension("uid:7", "2026-01-01T00:00:00Z", stopped=True)


def test_a_stop_is_a_suspension_that_start_ends_and_a_pin_outlives_both() -> None:
    pinned = course(A, C, pinned=A)
    done = act("stop", pinned)
    assert done.overrides == replace(pinned, suspension=Suspension(BY, NOW, stopped=True))
    assert done.text == "stays down until 'trimtab start web'"
    again = act("stop", done.overrides)
    assert (again.changed, again.text) == (False, f"already stopped by {BY} since {NOW}")
    assert not act("suspend", done.overrides).changed
    started = act("start", done.overrides)
    assert (started.changed, started.overrides) == (True, pinned)
    assert act("resume", done.overrides).overrides.suspension is None
    # What is suspended can still be stopped.
    assert act("stop", replace(GOOD, suspension=SUSPENSION)).changed


def test_only_what_a_command_stopped_is_started() -> None:
    unchanged = act("start", GOOD)
    assert (unchanged.changed, unchanged.text) == (False, "not stopped by a command")
    told = refused("start", replace(GOOD, suspension=SUSPENSION))
    assert told == "service.suspended: web is suspended, and so left as it is (trimtab resume web)"
    told = refused("restart", replace(GOOD, suspension=STOP))
    assert told == "service.suspended: web is stopped, and so left as it is (trimtab start web)"
    told = refused("start", desired=declared(written("state: Stopped")))
    assert told.startswith("start.declared: web is stopped by its document, ")


def test_a_service_of_a_project_that_cannot_be_read_may_be_stopped() -> None:
    unread = replace(declared(), blind_namespaces=frozenset({"default"}))
    assert act("stop", NO_OVERRIDES, desired=unread).changed
    assert refused("rollback", desired=unread).startswith("service.blind")


def test_a_rollback_pins_to_the_last_good_revision() -> None:
    done = act("rollback", GOOD)
    assert done.overrides.pin == Pin(
        revision=B.revision,
        generation=3,
        asked=spec_digest(C),
        by=BY,
        since=NOW,
        reason="why",
        limits=B.limits,
    )
    assert (done.changed, done.revision) == (True, B.revision)
    assert done.text == f"rolls back to {short_revision(B.revision)} (ghcr.io/team/web:1)"
    further = act("rollback", done.overrides)
    assert further.overrides.pin is not None and further.overrides.pin.revision == A.revision


def test_a_rollback_names_the_commit_and_the_source_that_is_ahead() -> None:
    ahead = replace(C, source=SourceLocation("team:web.yaml", 1, "c" * 40, origin="team"))
    done = act("rollback", GOOD, desired=declared(ahead))
    assert done.text == (
        f"rolls back to {short_revision(B.revision)} (ghcr.io/team/web:1); Source team is ahead,"
        " at commit cccccccccccc"
    )


@pytest.mark.parametrize("to", [A.revision, A.revision[3:11], A.revision[3:11].upper()])
def test_a_rollback_to_a_revision_by_its_digits_whatever_became_of_it(to: str) -> None:
    assert act("rollback", course(A, B, C), to=to).revision == A.revision


def test_a_rollback_to_what_it_is_pinned_to_changes_nothing() -> None:
    pinned = act("rollback", GOOD, to=A.revision).overrides
    again = act("rollback", pinned, to=A.revision)
    assert (again.changed, again.text) == (False, f"already pinned to {short_revision(A.revision)}")


def test_an_automatic_rollback_is_told_apart() -> None:
    ground = ActionInputs(declared(C), {WEB: GOOD}, (), 3)
    wanted = ServiceAct("rollback", WEB, "controller", reason="never healthy", automatic=True)
    steering = decide(wanted, ground, now=NOW).overrides
    pin = steering.pin
    assert pin is not None and pin.automatic and pin.reason == "never healthy"
    assert (pin.asked, pin.asked_limits) == (C.revision, C.limits)
    assert [each.revision for each in steering.revisions if each.left] == [C.revision]
    assert act("rollback", GOOD).overrides.revisions == GOOD.revisions, "by hand it isn't counted"


@pytest.mark.parametrize(
    ("spec", "steering", "there", "back"),
    [
        ({}, COURSE, (container(rev="a"), container()), True),
        ({"rollout": {"onFailure": "Pause"}}, COURSE, (), False),
        ({}, record_rollback(COURSE, NEW.revision), (container(rev="a"), container()), False),
        ({}, replace(COURSE, pin=Pin(A.revision, 1, "asked", BY, NOW)), (), False),
        # Nothing else serves, or not everywhere.
        ({}, record_rollback(COURSE, NEW.revision), (container(),), True),
        ({}, record_rollback(COURSE, NEW.revision), (container(rev="a", state="exited"),), True),
        (
            {},
            record_rollback(COURSE, NEW.revision),
            (container(rev="a", health="unhealthy"),),
            True,
        ),
        ({"replicas": 2}, record_rollback(COURSE, NEW.revision), (container(rev="a"),), True),
        ({"replicas": 2}, record_rollback(COURSE, NEW.revision), BOTH, False),
    ],
)
def test_what_failed_is_gone_back_from_once_and_again_only_where_something_would_be_down(
    spec: dict[str, Any], steering: Overrides, there: tuple[Container, ...], back: bool
) -> None:
    assert should_roll_back(service(**spec), steering, there) == back


@pytest.mark.parametrize(
    ("steering", "to", "told"),
    [
        (
            course(A, B, C),
            "",
            (
                f"rollback.none: no revision of web before {short_revision(C.revision)} is known to have run "
                "well (see 'trimtab history web', and name one with --to)"
            ),
        ),
        (
            GOOD,
            "ffffffffffff",
            (
                "rollback.unknown: ffffffffffff matches no revision that is kept of web "
                "(see 'trimtab history web')"
            ),
        ),
        (
            GOOD,
            "v2:",
            "rollback.unknown: v2: matches several revisions of web (see 'trimtab history web')",
        ),
        (
            GOOD,
            C.revision,
            (
                f"rollback.declared: {short_revision(C.revision)} is the revision of the document of web says "
                "(trimtab resume web, if it is pinned to another)"
            ),
        ),
    ],
)
def test_a_rollback_to_nothing_that_can_be_told_is_refused(
    steering: Overrides, to: str, told: str
) -> None:
    assert refused("rollback", steering, to=to) == told


def test_a_rollback_to_what_is_too_little_known_is_refused() -> None:
    lost = replace(GOOD, revisions=tuple(replace(each, spec="") for each in GOOD.revisions))
    assert refused("rollback", lost, to=A.revision).startswith("rollback.lost: ")


@pytest.mark.parametrize(
    ("now", "others", "why"),
    [
        (("replicas: 2",), (), "volume data is for one replica, and replicas is 2"),
        ((), (written(DATA, name="api"),), "Service/default/api wants volume data, too"),
    ],
)
def test_a_rollback_to_what_does_not_fit_in_any_more_is_refused(now, others, why: str) -> None:
    earlier, today = written(DATA), written(*now)
    steering = course(earlier, today)
    told = refused("rollback", steering, desired=declared(today, *others), to=earlier.revision)
    assert told.startswith(
        f"rollback.misfit: {short_revision(earlier.revision)} of web conflicts with the documents of now: {why}"
    )


def test_a_restart_is_of_what_is_there() -> None:
    there = container(), container(slot=2)
    done = act("restart", GOOD, *there)
    assert done.overrides.restarting == Restarting(frozenset(c.id for c in there), BY)
    assert (done.changed, done.revision, done.anew) == (True, C.revision, False)
    assert done.text == "2 containers to be replaced"
    assert act("restart", GOOD, container()).text == "1 container to be replaced"


def test_a_restart_of_nothing_changes_nothing() -> None:
    done = act("restart", GOOD)
    assert (done.changed, done.text) == (False, "it has no containers")


def test_a_restart_is_of_the_revision_that_it_is_pinned_to_and_anew_as_its_document_says() -> None:
    today = written("pullPolicy: Always", "env: {C: c}")
    done = act("restart", course(A, today, pinned=A), container(), desired=declared(today))
    assert (done.revision, done.anew) == (A.revision, True)


@pytest.mark.parametrize("spec", [{"state": "Stopped"}, {"replicas": 0}])
def test_what_is_not_to_run_cannot_be_restarted(spec: dict[str, Any]) -> None:
    told = refused("restart", NO_OVERRIDES, container(), desired=declared(service(**spec)))
    assert told.startswith("restart.stopped: web has no replicas to restart")


@pytest.mark.parametrize("verb", ["rollback", "restart"])
def test_what_is_left_as_it_is_can_neither_be_rolled_back_nor_restarted(verb: Verb) -> None:
    told = "service.suspended: web is suspended, and so left as it is"
    assert refused(verb, replace(GOOD, suspension=SUSPENSION)) == f"{told} (trimtab resume web)"
    documented = declared(written("suspend: true"))
    remedy = "set spec.suspend: false in its document"
    assert refused(verb, desired=documented) == f"{told} ({remedy})"
    blind = refused(verb, desired=declared(blind_keys=[WEB]))
    assert blind.startswith("service.blind: the document of web can't be read")


def test_services_of_other_namespaces_are_called_by_both_names() -> None:
    key = service_key("lab", "probe")
    ground = ActionInputs(declared(), {}, (), 0)
    with pytest.raises(UsageError, match="there is no service lab/probe"):
        decide(ServiceAct("restart", key, BY), ground, now=NOW)


def test_a_restart_takes_an_image_that_was_built_again() -> None:
    ground = ActionInputs(declared(C), {WEB: GOOD}, (container(),), 3, rebuilt="sha256:new")
    done = decide(ServiceAct("restart", WEB, BY), ground, now=NOW)
    assert (done.changed, done.anew) == (True, True)
    assert done.text == "1 container to be replaced, by the rebuilt image sha256:new"
    assert not act("restart", GOOD, container()).anew


def sharing(replicas: int = 1) -> Service:
    """The service that shares the network of api."""
    spec = written(f"replicas: {replicas}").spec
    shares = Shares(service="api", network=True)
    return replace(service(), spec=spec.model_copy(update={"shares": shares}))


TWO = declared(written("replicas: 2"))
SCALED = Scaling(5, 2, BY, NOW)


def test_a_service_is_scaled_to_a_number_that_its_document_does_not_say() -> None:
    done = act("scale", GOOD, desired=TWO, replicas=5)
    assert done.overrides == replace(GOOD, scaling=SCALED)
    assert done.text == "scales from 2 to 5 replicas; its document says 2"
    further = act("scale", done.overrides, desired=TWO, replicas=1, until=1769997600.0)
    assert further.text == (
        "scales from 5 to 1 replica until 2026-02-02T02:00:00Z; its document says 2"
    )
    again = act("scale", done.overrides, desired=TWO, replicas=5)
    assert (again.changed, again.text) == (False, f"already scaled to 5 by {BY} since {NOW}")


def test_the_documents_number_and_a_resume_end_a_scaling() -> None:
    scaled = replace(GOOD, scaling=SCALED)
    done = act("scale", scaled, desired=TWO, replicas=2)
    assert (done.overrides, done.text) == (GOOD, "2 replicas, as its document says")
    assert not act("scale", GOOD, desired=TWO, replicas=2).changed
    resumed = act("resume", scaled, desired=TWO)
    assert (resumed.overrides, resumed.text) == (GOOD, "no longer scaled to 5")


@pytest.mark.parametrize(
    ("desired", "told"),
    [
        (
            declared(written("ports: [{container: 80, host: 8080}]")),
            "scale.misfit: web can't have 2 replicas: host port 8080 can belong to one replica only, ",
        ),
        (
            declared(written("mounts: [{type: volume, source: data, target: /d}]")),
            "scale.misfit: web can't have 2 replicas: volume data can be written to by one replica only, ",
        ),
        (
            declared(sharing(), service("api")),
            "scale.misfit: web can't have 2 replicas: 2 replicas of web can't share with 1 of api ",
        ),
        (
            declared(written("state: Stopped")),
            "scale.stopped: web has no replicas to scale: its document says state: Stopped ",
        ),
        (declared(written("suspend: true")), "service.suspended: "),
        (declared(blind_keys=[WEB]), "service.blind: "),
    ],
)
def test_a_number_that_documents_do_not_permit_is_refused(desired: Desired, told: str) -> None:
    assert refused("scale", desired=desired, replicas=2).startswith(told)
    if told.startswith("scale.misfit"):
        assert act("scale", desired=desired, replicas=0).changed


def test_a_signed_namespace_has_at_most_the_number_that_its_commit_declares() -> None:
    told = "scale.signed: the signed commit of web declares 2 replicas, and permits no more "
    assert refused("scale", desired=TWO, replicas=3, is_signed=True).startswith(told)
    assert act("scale", desired=TWO, replicas=1, is_signed=True).changed


def test_a_rollback_that_does_not_fit_the_number_in_force_is_refused() -> None:
    published = written("ports: [{container: 80, host: 8080}]")
    scaled = replace(course(published, C), scaling=Scaling(2, 1, BY, NOW))
    assert refused("rollback", scaled, to=published.revision).startswith("rollback.misfit: ")
