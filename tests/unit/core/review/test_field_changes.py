"""Field differences: which are found, how values are shown, and which values never are."""

import json
import typing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from controller.core.manifests.revision_hash import revision_of, slot_text
from controller.core.review.field_changes import (
    SHOWN,
    admitted_changes,
    drift_changes,
    service_changes,
    slot_changes,
    written_fields,
)
from controller.core.review.plan_json import change_text, review_json
from controller.core.review.plan_text import differences_json
from controller.core.review.review import review
from controller.model.desired.desired import Overrides, Revision, SourceLocation
from controller.model.desired.plan import FieldChange
from controller.model.desired.spec.network import Attachment
from controller.model.desired.spec.service import ServiceSpec
from tests.examples import examples
from tests.plans import carried, render_differences, render_review
from tests.worlds import WEB, container, declared, engine, plan, service

#: The fields whose values may be secrets, and so are never shown.
WITHHELD = {
    "env[].secret",
    "env[].key",
    "entrypoint",
    "command",
    "healthcheck.exec",
    *(
        f"lifecycle.{event}[].{name}"
        for event in ("postStart", "preStop")
        for name in ("exec", "env")
    ),
    "containerLabels",
    "build.args",
    "build.labels",
    "build.dockerfileInline",
}


def spec(**fields: object) -> ServiceSpec:
    return ServiceSpec.model_validate_json(json.dumps({"image": "web:1", **fields}))


def lines(old: ServiceSpec, new: ServiceSpec) -> list[str]:
    return [change_text(change) for change in slot_changes(old, new)]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"resources": {"memory": "64Mi"}}, {"resources": {"memory": "96Mi"}},
         ["spec.resources.memory: 64Mi -> 96Mi"]),
        ({}, {"resources": {"cpus": 0.5}}, ["spec.resources.cpus: unset -> 0.5"]),
        ({"resources": {"pids": 64}}, {}, ["spec.resources.pids: 64 -> unset"]),
        ({}, {"image": "web:2"}, ["spec.image: web:1 -> web:2"]),
        ({}, {"init": True}, ["spec.init: false -> true"]),
        ({"stopGracePeriod": "90s"}, {"stopGracePeriod": "2m"},
         ["spec.stopGracePeriod: 90s -> 2m"]),
        ({"security": {"capAdd": ["CHOWN"]}}, {"security": {"capAdd": ["CHOWN", "SETUID"]}},
         ["spec.security.capAdd: CHOWN -> CHOWN, SETUID"]),
        ({"env": {"A": "1", "B": "1"}}, {"env": {"A": "2", "C": "1"}},
         ["spec.env.A: changed", "spec.env.B: removed", "spec.env.C: added"]),
        ({"command": ["a"]}, {"command": ["b"]}, ["spec.command: changed"]),
        ({}, {"entrypoint": ["/bin/x"]}, ["spec.entrypoint: added"]),
        ({"healthcheck": {"exec": ["a", "b"]}}, {"healthcheck": {"exec": ["a", "c"], "interval": "5s"}},
         ["spec.healthcheck.exec: changed", "spec.healthcheck.interval: 30s -> 5s"]),
        ({}, {"containerLabels": {"team.io/x": "v"}},
         ["spec.containerLabels[team.io/x]: added"]),
        ({}, {"mounts": [{"type": "tmpfs", "target": "/x", "size": "16Mi"}]},
         ["spec.mounts[/x]: added (type tmpfs, size 16Mi)"]),
        ({"ports": [{"container": 80}]}, {"ports": [{"container": 80, "host": 8080}]},
         ["spec.ports[80/tcp].host: unset -> 8080"]),
        ({}, {"ports": [{"container": 80}]}, ["spec.ports[80/tcp]: added"]),
        ({"ports": [{"container": 53, "protocol": "udp", "host": 53}]}, {},
         ["spec.ports[53/udp]: removed (host 53, hostIP 127.0.0.1)"]),
        ({}, {"ports": [{"container": "80-89", "host": "8080-8089"}]},
         ["spec.ports[80-89/tcp]: added (host 8080-8089, hostIP 127.0.0.1)"]),
        ({"ulimits": {"nofile": 5}}, {"ulimits": {"nofile": {"soft": 4, "hard": 5}}},
         ["spec.ulimits[nofile].soft: 5 -> 4"]),
        ({}, {"extraHosts": {"db": "10.0.0.5"}}, ["spec.extraHosts[db]: added (10.0.0.5)"]),
        ({"network": {"attach": ["back"]}},
         {"network": {"attach": [{"name": "back", "aliases": ["db", "sql"]}]}},
         ["spec.network.attach: back -> back as db and sql"]),
        ({}, {"resources": {"cpuset": "0-1", "memoryReservation": "32Mi"}},
         ["spec.resources.cpuset: unset -> 0-1", "spec.resources.memoryReservation: unset -> 32Mi"]),
    ],
)  # fmt: skip
def test_a_changed_field_is_a_line(before, after, expected):
    assert lines(spec(**before), spec(**after)) == expected


def test_what_only_changed_its_spelling_or_is_a_default_is_no_difference():
    plain = spec(resources={"memory": "1Gi"})
    written = spec(
        resources={"memory": "1024Mi"},
        init=False,
        restart={"policy": "Always"},
        logs={"maxFiles": 3},
        env={},
    )
    assert slot_changes(plain, written) == ()


def test_fields_of_the_service_as_a_whole_are_compared_apart():
    before, after = spec(), spec(replicas=3, rollout={"minHealthy": "5s"}, pullPolicy="Always")
    assert slot_changes(before, after) == ()
    assert [change_text(change) for change in service_changes(before, after)] == [
        "spec.pullPolicy: IfNotPresent -> Always",
        "spec.replicas: 1 -> 3",
        "spec.rollout.minHealthy: 10s -> 5s",
    ]


def test_a_path_with_a_query_is_withheld():
    check = {"http": {"path": "/health?token=hunter2", "port": 80}}
    (change,) = slot_changes(spec(healthcheck={"http": {"port": 80}}), spec(healthcheck=check))
    assert change == FieldChange("spec.healthcheck.http.path", "changed", sensitive=True)


def test_values_are_there_only_where_they_are_asked_for():
    before, after = spec(env={"A": "old"}), spec(env={"A": "new"})
    (change,) = slot_changes(before, after, reveal=True)
    assert change == FieldChange("spec.env.A", "changed", "old", "new", sensitive=True)
    assert change_text(change) == "spec.env.A: old -> new"


def test_text_of_users_is_escaped_and_cut():
    labels = {"a\x1b[31m\nb": "x"}
    (change,) = slot_changes(spec(), spec(containerLabels=labels))
    assert change.path == "spec.containerLabels[a\\u001b[31m\\u000ab]"
    (long,) = slot_changes(spec(env={"A": "x"}), spec(env={"A": "y" * 500}), reveal=True)
    assert long.new == "y" * 160 + "…"


def test_all_written_fields_of_a_new_service_are_added_ones():
    found = written_fields(spec(replicas=2, env={"A": "hunter2"}))
    assert [change_text(change) for change in found] == [
        "spec.env.A: added",
        "spec.image: unset -> web:1",
        "spec.replicas: unset -> 2",
    ]


def test_every_field_of_a_service_is_shown_or_withheld_on_purpose():
    """A new field must be put into SHOWN, or into WITHHELD above; until then it is withheld."""
    assert set(_fields(ServiceSpec)) == SHOWN | WITHHELD


def _fields(model: type[BaseModel], prefix: str = "") -> typing.Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        models = [each for each in _types(field.annotation) if issubclass(each, BaseModel)]
        kinds = str(field.annotation)
        if Attachment in models:  # written and shown as a name
            yield path
            continue
        is_list = "tuple" in kinds or "dict" in kinds
        for each in models:
            yield from _fields(each, f"{path}[]." if is_list else f"{path}.")
        if not models or ("Literal" in kinds and "dict" not in kinds):
            yield f"{path}[]" if path in ("extraHosts", "sysctls") else path


def _types(annotation: object) -> list[type]:
    parts = typing.get_args(annotation)
    if not parts:
        return [annotation] if isinstance(annotation, type) else []
    return [found for part in parts for found in _types(part)]


def test_drift_is_told_from_now_to_what_was_admitted():
    altered = container(settings={"memory": 96 << 20, "restart": "no", "networks": ("a", "b")})
    assert [change_text(change) for change in drift_changes(altered)] == [
        "container.networks: a, b -> platform-network (changed outside trimtab)",
        "spec.resources.memory: 96Mi -> 512Mi (changed outside trimtab)",
        "spec.restart.policy: Never -> Always (changed outside trimtab)",
    ]
    assert drift_changes(container(known=False, settings={"memory": 1})) == ()


def test_without_the_earlier_document_what_was_admitted_is_compared():
    there = replace(container(rev="a"), owner="others", image="web:0")
    wanted = service(resources={"memory": "96Mi", "pids": 256})
    assert [change_text(change) for change in admitted_changes(there, wanted)] == [
        "metadata.owner: others -> team",
        "spec.image: web:0 -> ghcr.io/platformnetwork/web:1",
        "spec.resources.memory: 512Mi -> 96Mi",
    ]
    assert admitted_changes(container(rev="a", known=False), service()) == ()


# Secrets

_SECRET = "hunter2-"
_secrets = st.integers(0, 10**6).map(lambda n: f"{_SECRET}{n}")
_specs = st.fixed_dictionaries(
    {},
    optional={
        "env": st.dictionaries(st.sampled_from(["A", "B", "TOKEN"]), _secrets, max_size=3),
        "entrypoint": st.lists(_secrets, min_size=1, max_size=3),
        "command": st.lists(_secrets, min_size=1, max_size=3),
        "containerLabels": st.dictionaries(st.sampled_from(["x", "y.z"]), _secrets, max_size=2),
        "healthcheck": st.one_of(
            st.lists(_secrets, min_size=1, max_size=3).map(lambda test: {"exec": test}),
            _secrets.map(lambda text: {"http": {"path": f"/?{text}", "port": 80}}),
            st.just({"tcp": {"port": 80}}),
        ),
        "replicas": st.integers(1, 3),
        "resources": st.sampled_from([{}, {"memory": "64Mi"}]),
    },
)


@settings(max_examples=examples(30))
@given(before=_specs, after=_specs, there=st.booleans(), kept=st.booleans(), pinned=st.booleans())
def test_no_value_that_may_be_a_secret_is_in_text_or_json(before, after, there, kept, pinned):
    wanted, earlier = service(**after), service(rev="a", **before)
    earlier = replace(earlier, revision=revision_of(earlier.owner, WEB, earlier.spec))
    found = [replace(container(rev="a"), revision=earlier.revision)] if there else []
    known = Revision(
        revision=earlier.revision,
        generation=1,
        since="2026-01-01T00:00:00Z",
        owner=earlier.owner,
        image=earlier.spec.image,
        spec=slot_text(earlier.spec) if kept else "",
        source=SourceLocation("web.yaml"),
    )
    desired = declared(earlier if pinned else wanted)
    observed = engine(*found)
    shown = review(
        plan(desired, observed),
        declared=declared(wanted),
        desired=desired,
        observed=observed,
        all_overrides={WEB: Overrides((known,))},
    )
    texts = [render_review(shown, width=80, verbose=True), render_differences(shown, width=None)]
    texts += [json.dumps(review_json(shown)), json.dumps(differences_json(carried(shown)))]
    assert not [text for text in texts if _SECRET in text]
