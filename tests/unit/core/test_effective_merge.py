"""What will run: a request completed by the image's config, and judged as such."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from controller.core import effective as merge
from controller.core.effective import Accounts, effective
from controller.core.engine_api.parse import parse_create
from controller.model.policy.document import Policy
from tests.examples import examples
from tests.sim.creation import merged
from tests.unit.core.creates import FACTS, IMAGE, REFERENCE, denials, image_of, judged, policy
from tests.unit.core.effective.drawn import BODIES, CONFIGS, POLICIES

OPEN = policy(security={"groupAdd": True})
FILES = Accounts("root:x:0:0\napp:x:1000:1001\n", "root:x:0:\ndisk:x:6:app\n")


def body_of(asked: dict[str, Any], rules: Policy = OPEN, **config: Any) -> dict[str, Any]:
    """Return the rebuilt body of an admitted create of an image with that config."""
    return dict(admitted(asked, rules, **config).body or {})


def admitted(asked: dict[str, Any], rules: Policy = OPEN, **config: Any) -> Any:
    facts = replace(FACTS, image=image_of(**config))
    found = judged(asked, rules=rules, facts=facts)
    assert found.verdict.decision != "deny", found.verdict
    return found


def test_every_member_that_a_container_inherits_is_written() -> None:
    check = {"Test": ["CMD", "/ok"], "Interval": 2 * 10**9, "Retries": 3}
    body = body_of(
        {"Env": ["A=1", "GONE=x"], "Healthcheck": {"Interval": 5 * 10**9}},
        User="1000",
        Env=["A=2", "B=3"],
        Entrypoint=["/entry"],
        Cmd=["serve"],
        WorkingDir="/app/",
        ExposedPorts=["80/tcp"],
        StopSignal="sigquit",
        Healthcheck=check,
        Labels={"maintainer": "them", "traefik.enable": "true", "forged": "a\nb"},
    )
    assert body["User"] == "1000"
    assert body["Env"] == ["A=1", "GONE=x", "B=3"]
    assert (body["Entrypoint"], body["Cmd"]) == (["/entry"], ["serve"])
    assert body["WorkingDir"] == "/app"
    assert body["ExposedPorts"] == {"80/tcp": {}}
    assert body["StopSignal"] == "SIGQUIT"
    assert body["Healthcheck"] == {**check, "Interval": 5 * 10**9}
    labels = body["Labels"]
    assert (labels["maintainer"], labels["traefik.enable"], labels["forged"]) == ("them", "", "")


@pytest.mark.parametrize(
    ("asked", "entrypoint", "command"),
    [
        ({}, ["/entry"], ["serve"]),
        ({"Cmd": ["other"]}, ["/entry"], ["other"]),
        ({"Entrypoint": ["/mine"]}, ["/mine"], None),
        ({"Entrypoint": ["/mine"], "Cmd": ["other"]}, ["/mine"], ["other"]),
        ({"Entrypoint": [""], "Cmd": ["/bare"]}, [""], ["/bare"]),
    ],
)
def test_an_entrypoint_of_ones_own_drops_the_images_arguments(
    asked: dict[str, Any], entrypoint: Any, command: Any
) -> None:
    body = body_of(asked, Entrypoint=["/entry"], Cmd=["serve"])
    assert (body.get("Entrypoint"), body.get("Cmd")) == (entrypoint, command)


SHELL = {"Test": ["CMD-SHELL", "x"], "Interval": 10**9}


@pytest.mark.parametrize(
    ("config", "rules", "rule", "place"),
    [
        (
            {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 10**6, "Retries": 10**6}},
            OPEN,
            "healthcheck.bounds",
            "Image.Config.Healthcheck.Interval",
        ),
        (
            {"Healthcheck": SHELL},
            policy(healthcheck={"shell": False}),
            "healthcheck.shell",
            "Image.Config.Healthcheck.Test",
        ),
        ({"Healthcheck": {"Test": ["RUN", "x"]}}, OPEN, "healthcheck.invalid", "Image.Config."),
        ({"WorkingDir": "/proc/self/fd/8"}, OPEN, "workdir.forbidden", "Image.Config.WorkingDir"),
        ({"WorkingDir": "/app/../proc/self/fd/8"}, OPEN, "workdir.forbidden", "Image.Config."),
        ({"Labels": {"x": "y" * 20_000}}, OPEN, "label.size", "Labels"),
        ({"Labels": {f"traefik.{n}": "" for n in range(200)}}, OPEN, "label.size", "Labels"),
        ({"Labels": {f"io.trimtab.{n}": "" for n in range(2000)}}, OPEN, "label.size", "Labels"),
        ({"Labels": {f"x.{n}": "" for n in range(2000)}}, OPEN, "body.type", "Image.Config.Labels"),
        ({"Env": ["LD_PRELOAD=/evil.so"]}, OPEN, "env.denied", "Image.Config.Env[0]"),
        ({"Env": [f"V{n}={'x' * 200}" for n in range(500)]}, OPEN, "env.size", "Env"),
        ({"Env": ["=x"]}, OPEN, "env.invalid", "Image.Config.Env[0]"),
        ({"Cmd": ["x" * 10**6]}, OPEN, "command.size", "Image.Config.Cmd"),
        (
            {"Healthcheck": {"Test": ["CMD", "x" * 10**6], "Interval": 10**9}},
            OPEN,
            "command.size",
            "Cmd",
        ),
        ({"ExposedPorts": [f"{n}/tcp" for n in range(1, 99)]}, OPEN, "port.count", "Image.Config."),
        ({"ExposedPorts": ["99999/tcp"]}, OPEN, "port.invalid", "Image.Config.ExposedPorts"),
        ({"StopSignal": "SIGNOTHING"}, OPEN, "signal.invalid", "Image.Config.StopSignal"),
        ({"Volumes": ["/data:/etc"]}, OPEN, "mount.target", "Image.Config.Volumes"),
        ({"User": "a b"}, OPEN, "user.invalid", "Image.Config.User"),
        (
            {"User": "0"},
            policy(security={"requireNonRoot": True}),
            "user.root",
            "Image.Config.User",
        ),
        (
            {"User": "1000:0"},
            policy(security={"requireNonRoot": True}),
            "user.root",
            "Image.Config.User",
        ),
    ],
)
def test_what_the_image_gives_is_judged_as_if_it_had_been_asked_for(
    config: dict[str, Any], rules: Policy, rule: str, place: str
) -> None:
    refused = judged(rules=rules, facts=replace(FACTS, image=image_of(**config)))
    assert denials(refused)[0] == rule
    assert refused.findings[0].path.startswith(place)
    if place.startswith("Image."):
        assert "the image's config" in refused.findings[0].reason


@pytest.mark.parametrize(
    ("asked", "config"),
    [
        ({"Healthcheck": {"Test": ["NONE"], "Interval": 10**9}}, {"Healthcheck": SHELL}),
        ({"WorkingDir": "/app"}, {"WorkingDir": "/proc/self/fd/8"}),
        ({"Env": ["LD_PRELOAD"]}, {"Env": ["LD_PRELOAD=/evil.so"]}),
        ({"User": "1000:1000"}, {"User": "a b"}),
        ({"Cmd": ["serve"]}, {"Cmd": ["x" * 10**6]}),
    ],
)
def test_what_the_request_sets_itself_is_not_the_images(
    asked: dict[str, Any], config: dict[str, Any]
) -> None:
    rules = policy(healthcheck={"shell": False}, env={"unset": True, "denied": []})
    assert denials(judged(asked, rules=rules, facts=replace(FACTS, image=image_of(**config)))) == ()


def test_a_label_of_an_image_makes_nobody_its_service() -> None:
    composed = {"com.docker.compose.service": "proxy", "io.trimtab.owner": "bob"}
    body = body_of({}, Labels=composed)
    assert body["Labels"]["io.trimtab.service"] == ""
    assert body["Labels"]["io.trimtab.owner"] == "alice"


# Users


@pytest.mark.parametrize(
    ("user", "config", "written"),
    [
        ("1000", {}, "1000:1000"),
        ("", {"User": "1000"}, "1000:1000"),
        ("", {}, "0:0"),
        ("app", {}, "1000:1001"),
        ("", {"User": "app"}, "1000:1001"),
        ("", {"User": "app:disk"}, "1000:6"),
    ],
)
def test_where_groups_are_bounded_users_are_numbers(
    user: str, config: dict[str, Any], written: str
) -> None:
    image = image_of(accounts=FILES, **config)
    found = judged({"User": user}, facts=replace(FACTS, image=image))
    assert found.body is not None
    assert found.body["User"] == written
    summary: Any = found.summary
    assert summary["confined"]["user"] == written
    plain = judged({"User": user}, rules=OPEN, facts=replace(FACTS, image=image))
    assert (plain.body or {}).get("User", "") == (user or config.get("User", ""))


@pytest.mark.parametrize(
    ("rules", "rule"),
    [
        (policy(), "user.groups"),
        (policy(security={"requireNonRoot": True}), "user.root"),
        (policy(security={"requireNonRoot": True, "groupAdd": True}), "user.root"),
    ],
)
def test_a_name_that_nobody_can_resolve_is_refused_there(rules: Policy, rule: str) -> None:
    image = image_of(User="app")
    assert denials(judged(rules=rules, facts=replace(FACTS, image=image))) == (rule,)
    named = replace(FACTS, image=image_of(User="app", accounts=FILES))
    assert denials(judged(rules=rules, facts=named)) == ()


def test_a_container_that_can_change_its_groups_is_not_bound_to_them() -> None:
    found = judged({"User": "1000"}, host={"CapAdd": ["SETGID"]})
    summary: Any = found.summary
    assert "user" not in summary["confined"]


# Properties


@settings(max_examples=examples(300), deadline=None)
@given(config=CONFIGS, asked=BODIES)
def test_what_is_merged_is_what_the_engine_merges(
    config: dict[str, Any], asked: dict[str, Any]
) -> None:
    request = parse_create({"Image": REFERENCE, **asked})
    found = effective(request, config, OPEN).request
    final = merged(config, asked)
    assert list(found.env) == final["Env"]
    assert found.user == (final.get("User") or "")
    assert list(found.command or ()) == (final.get("Cmd") or [])
    assert [each for each in found.entrypoint or () if each] == (final.get("Entrypoint") or [])
    assert set(found.volumes) == {path.rstrip("/") for path in final.get("Volumes") or ()}
    assert {*found.exposed_ports} == {*(final.get("ExposedPorts") or ())}
    assert found.stop_signal == (final.get("StopSignal") or "").upper()


@settings(max_examples=examples(300), deadline=None)
@given(config=CONFIGS, asked=BODIES, rules=POLICIES)
def test_nothing_runs_that_the_rules_would_refuse_if_it_had_been_asked_for(
    config: dict[str, Any], asked: dict[str, Any], rules: Policy
) -> None:
    """And the engine has nothing left to merge."""
    facts = replace(FACTS, image=replace(IMAGE, config=config, accounts=FILES))
    found = judged(asked, rules=rules, facts=facts)
    if found.verdict.decision == "deny":
        return
    body: Any = found.body
    security = rules.security
    if security.require_non_root or not security.group_add:
        assert re.fullmatch(r"[0-9]+:[0-9]+", body.get("User", ""))
    members = {k: v for k, v in body.items() if k not in {"HostConfig", "NetworkingConfig"}}
    final = merged(config, members)
    for member in ("User", "Env", "Cmd", "Volumes", "ExposedPorts", "Healthcheck", "WorkingDir"):
        assert (final.get(member) or None) == (members.get(member) or None), member
    assert final["Labels"] == members["Labels"]
    ours = {key for key in members["Labels"] if key.startswith("io.trimtab.")}
    blank = {key for key, value in members["Labels"].items() if not value}
    plain = {k: v for k, v in members["Labels"].items() if k not in ours | blank}
    asked_for = {**members, "Labels": plain, "Volumes": {}, "HostConfig": asked.get("HostConfig")}
    # As it will run, asked of an image that gives nothing.
    alone = replace(FACTS, image=replace(IMAGE, config={}, accounts=None))
    assert denials(judged({**asked_for, "Image": REFERENCE}, rules=rules, facts=alone)) == ()


def without_folder(*args: Any, inherited: Any = merge._inherited_body) -> dict[str, Any]:
    """Leave the folder of the image to the engine."""
    return {key: value for key, value in inherited(*args).items() if key != "WorkingDir"}


#: What each hole was: the part of the merge that wasn't there before the rules ran.
PLANTED: dict[str, tuple[str, Any]] = {
    "an image's user keeps its groups": ("needs_numbers", lambda _policy: False),
    "an image's variables are added unjudged": ("_inherited_env", lambda *_: []),
    "an image's check is added unjudged": ("_with_check", lambda asked, _image: asked),
    "an image's labels show through": ("_inherited_labels", lambda *_: {}),
    "an image's folder is added unjudged": ("_inherited_body", without_folder),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong = PLANTED[bug]
    monkeypatch.setattr(merge, name, wrong)
    whole: Any = test_nothing_runs_that_the_rules_would_refuse_if_it_had_been_asked_for
    holds = whole.hypothesis.inner_test
    drawn = settings(max_examples=500, phases=[Phase.generate], database=None, deadline=None)(
        given(config=CONFIGS, asked=BODIES, rules=POLICIES)(holds)
    )
    with pytest.raises(AssertionError):
        drawn()
