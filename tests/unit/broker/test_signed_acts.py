"""Signed admission through the whole gate: honest acts pass, and forged ones don't."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from controller.broker.gate.routes import ROUTES
from controller.model import names
from controller.model.records import Reply, Role
from tests.unit.broker.signed.instance import (
    DOCUMENTS,
    OPERATOR,
    Instance,
    create_of,
)
from tests.unit.core.proofs.repository import ALICE, MALLORY, signer_files

WEB, API, ONCE = "Service/shop/web", "Service/shop/api", "Job/shop/once"
NEWER = DOCUMENTS.replace("MODE: plain", "MODE: other")
ON_REQUEST = DOCUMENTS.replace("trigger: OnChange", "trigger: Manual")
NIGHTLY = DOCUMENTS.replace("trigger: OnChange", 'schedule: "0 4 * * *", timeZone: Europe/Berlin')
SUSPENDED = DOCUMENTS.replace("trigger: OnChange", "suspend: true")


@pytest.fixture
def instance() -> Instance:
    made = Instance()
    made.prepare()
    return made


def rule(reply: Reply) -> str:
    """Return the rule of a refusal; '' for a success."""
    if reply.status < 400:
        return ""
    return str(json.loads(reply.body).get("trimtab", {}).get("rule", reply.body))


def test_every_honest_act_is_admitted(instance: Instance) -> None:
    web = instance.run(create_of(WEB))
    for slot in (1, 2):
        instance.run(create_of(API, slot=slot))
    instance.run(create_of(ONCE))
    item = instance.inventory.containers[web]
    assert item.signed
    # Healed: the next container of the slot, by the pinned image, without and then with its names.
    instance.take_down(web)
    pin = instance.inventory.pins[item.revision]
    assert pin.signed
    healed = instance.run(create_of(WEB, attempt=2, image=pin.id, with_alias=False))
    network = next(
        each for each in instance.inventory.networks.values() if each.name == "shop.back"
    )
    for verb, config in (("disconnect", {}), ("connect", {"EndpointConfig": {"Aliases": ["web"]}})):
        reply = instance.ask(
            "POST", f"/networks/{network.id}/{verb}", {"Container": healed, **config}
        )
        assert reply.status == 200, reply.body
    for limits in ({"Memory": 64 << 20}, {"RestartPolicy": {"Name": "always"}}):
        assert instance.ask("POST", f"/containers/{healed}/update", limits).status == 200
    # A new commit, and back to the revision that ran.
    instance.prepare(NEWER)
    instance.take_down(healed)
    newer = instance.run(create_of(WEB, NEWER))
    instance.take_down(newer)
    instance.run(create_of(WEB, DOCUMENTS, attempt=3, image=pin.id))


def test_a_record_names_the_commit_that_declared_the_revision(instance: Instance) -> None:
    """The newest commit has another document of the service: its blob isn't the proof."""
    first = instance.prepare()
    instance.take_down(instance.run(create_of(WEB)))
    blob = proofs_of_creates(instance)[-1]["blob"]
    newest = instance.prepare(NEWER)
    instance.run(create_of(WEB, DOCUMENTS, attempt=2, image=_pin(instance)))
    again = proofs_of_creates(instance)[-1]
    assert (again["commit"], again["blob"], again["path"]) == (first, blob, "all.yaml")
    instance.take_down(next(iter(instance.inventory.containers)))
    instance.run(create_of(WEB, NEWER))
    declared = proofs_of_creates(instance)[-1]
    assert declared["commit"] == newest
    assert declared["blob"] != blob
    (old, new) = instance.inventory.signed[WEB]
    assert [(each.commit, each.blob) for each in (old, new)] == [
        (first, blob),
        (newest, declared["blob"]),
    ]


def proofs_of_creates(instance: Instance) -> list[dict[str, Any]]:
    """Return the proofs in the records of creates that are forwarded."""
    requests = [each.entry.request for each in instance.records if each.entry.stage == "intent"]
    creates = [each for each in requests if each.get("route") == "container.create"]
    return [each["summary"]["proof"] for each in creates]  # type: ignore[index]


def leaves(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in a body, and of each object and list."""
    yield path
    items: list[tuple[Any, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        yield from leaves(inner, (*path, key))


def changed(value: object) -> list[object]:
    """Return other values of the same type."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, max(value - 1, 0) if value else 7]
        case str():
            return [f"{value}x", "other"]
        case list():
            return [[*value, "more"], value[1:]] if value else [["more"]]
        case dict():
            return [{**value, "more": "x"}]
        case _:
            return []


def forgeries(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield bodies that differ from a body in one place: changed, removed or added."""
    for path in leaves(body):
        for variant in _variants(body, path):
            forged = copy.deepcopy(body)
            if path:
                place: Any = forged
                for key in path[:-1]:
                    place = place[key]
                if variant is _GONE:
                    del place[path[-1]]
                else:
                    place[path[-1]] = variant
            elif isinstance(variant, dict):
                forged = variant
            if forged != body:
                yield f"{'.'.join(map(str, path))}={str(variant)[:30]}", forged


_GONE = object()


def _variants(body: object, path: tuple[Any, ...]) -> list[object]:
    value: Any = body
    for key in path:
        value = value[key]
    return [*changed(value), *([_GONE] if path else [])]


def is_free(honest: dict[str, Any], forged: dict[str, Any]) -> bool:
    """Return True if bodies differ in the controller's own choices only."""

    def rest(body: dict[str, Any]) -> dict[str, Any]:
        left = copy.deepcopy(body)
        for name in (names.SLOT, names.OCCASION):
            left.get("Labels", {}).pop(name, None)
        for end in left.get("NetworkingConfig", {}).get("EndpointsConfig", {}).values():
            if isinstance(end, dict) and end.get("Aliases") in ([], None, ["web"]):
                end.pop("Aliases", None)
        return left

    return rest(honest) == rest(forged)


@pytest.mark.parametrize("key", [WEB, API, ONCE])
def test_no_create_that_differs_in_one_place_is_admitted(instance: Instance, key: str) -> None:
    honest = create_of(key)
    assert honest.body is not None
    count = proofs = 0
    for what, body in forgeries(dict(honest.body)):
        if is_free(dict(honest.body), body):
            continue
        reply = instance.send(replace(honest, body=body))
        count += 1
        assert reply.status in {400, 403, 404, 409}, (what, reply)
        proofs += rule(reply).startswith("proof.")
    assert count >= {WEB: 180, API: 40, ONCE: 40}[key], count
    # The policy refuses some of the creates before anything is compared.
    assert proofs >= count // 4, (proofs, count)
    assert not instance.inventory.containers
    assert instance.send(honest).status == 201


Act = Callable[[Instance], Reply]


def create(**changes: Any) -> Act:
    """Return the act of a create with changes of its top level, and of labels by ``labels``."""

    def act(instance: Instance) -> Reply:
        honest = create_of(WEB)
        assert honest.body is not None
        body = {**copy.deepcopy(dict(honest.body)), **changes.get("body", {})}
        body["Labels"] = {**body["Labels"], **changes.get("labels", {})}
        body["HostConfig"] = {**body["HostConfig"], **changes.get("host", {})}
        return instance.send(replace(honest, body=body))

    return act


def post(path: str, body: dict[str, Any]) -> Act:
    return lambda instance: instance.ask("POST", path, body)


OWN = {names.OWNER: "team", names.NAMESPACE: "shop"}
ELSEWHERE = {names.OWNER: "team", names.NAMESPACE: "lab"}


def slot_beyond(instance: Instance) -> Reply:
    return instance.send(create_of(API, slot=3))


def foreign_platform(instance: Instance) -> Reply:
    honest = create_of(WEB)
    return instance.send(replace(honest, query={**honest.query, "platform": "linux/arm64"}))


def undeclared_service(instance: Instance) -> Reply:
    return instance.send(
        create_of("Service/shop/evil", DOCUMENTS.replace("name: web", "name: evil"))
    )


def superseded_that_never_ran(instance: Instance) -> Reply:
    instance.prepare(NEWER)
    return instance.send(create_of(WEB, DOCUMENTS))


def created_and_never_started(instance: Instance) -> Reply:
    made = instance.send(create_of(WEB))
    assert made.status == 201
    instance.prepare(NEWER)
    instance.take_down_unstarted(str(json.loads(made.body)["Id"]))
    return instance.send(create_of(WEB, DOCUMENTS, attempt=2, image=_pin(instance)))


def start_of_superseded(instance: Instance) -> Reply:
    made = json.loads(instance.send(create_of(WEB)).body)
    instance.prepare(NEWER)
    return instance.ask("POST", f"/containers/{made['Id']}/start")


def revision_of_a_revoked_key(instance: Instance) -> Reply:
    """The newest commit is another person's, and the key of the revision was revoked."""
    instance.take_down(instance.run(create_of(WEB)))
    instance.keys = signer_files(ALICE, MALLORY, revoked=[ALICE])
    files = {"deploy/all.yaml": NEWER.encode()}
    newer = instance.repository.commit(files, instance.head, key=MALLORY)
    assert instance.upload(instance.repository.proof(newer)).status == 200
    return instance.send(create_of(WEB, DOCUMENTS, attempt=2, image=_pin(instance)))


def start_of_a_revoked_key(instance: Instance) -> Reply:
    identifier = instance.run(create_of(WEB))
    assert instance.ask("POST", f"/containers/{identifier}/stop", actor=OPERATOR).status == 204
    instance.keys = signer_files(ALICE, MALLORY, revoked=[ALICE])
    files = {"deploy/all.yaml": NEWER.encode()}
    newer = instance.repository.commit(files, instance.head, key=MALLORY)
    assert instance.upload(instance.repository.proof(newer)).status == 200
    return instance.ask("POST", f"/containers/{identifier}/start")


def removed_service(instance: Instance) -> Reply:
    identifier = instance.run(create_of(API))
    instance.take_down(identifier)
    api = DOCUMENTS.index("apiVersion: trimtab/v1\nkind: Service\nmetadata: {name: api")
    end = DOCUMENTS.index("---", api) + 4
    instance.prepare(DOCUMENTS[:api] + DOCUMENTS[end:])
    return instance.send(create_of(API, attempt=2))


def newer_than_accepted(instance: Instance) -> Reply:
    return instance.send(create_of(WEB, NEWER))


def after_a_restart(instance: Instance) -> Reply:
    instance.restart()
    return instance.send(create_of(WEB))


def another_image_by_id(instance: Instance) -> Reply:
    other = instance.engine.images["trimtab.local/web:2"].id
    return instance.send(create_of(WEB, image=other))


def another_tag(instance: Instance) -> Reply:
    return instance.send(create_of(WEB, image="trimtab.local/web:2"))


def poisoned_pin(instance: Instance) -> Reply:
    """A container of an unsigned namespace pins the revision to another image of the repository."""
    honest = create_of(WEB)
    assert honest.body is not None
    revision = honest.body["Labels"][names.REVISION]  # type: ignore[index]
    labels = {
        **ELSEWHERE,
        names.SERVICE: "spy",
        names.SLOT: "1",
        names.REVISION: revision,
        names.IMAGE: "trimtab.local/web:2",
    }
    body = {"Image": "trimtab.local/web:2", "Labels": labels, "HostConfig": {"NetworkMode": "none"}}
    name = names.container_name("lab", "spy", slot=1, revision=revision)
    made = instance.ask("POST", "/containers/create", body, query={"name": name})
    assert made.status == 201, made.body
    return instance.send(create_of(WEB))


def update_to(**limits: Any) -> Act:
    def act(instance: Instance) -> Reply:
        identifier = instance.run(create_of(WEB))
        return instance.ask("POST", f"/containers/{identifier}/update", limits)

    return act


def connect(network: str, **config: Any) -> Act:
    def act(instance: Instance) -> Reply:
        identifier = instance.run(create_of(API))
        body = {"Container": identifier, **({"EndpointConfig": config} if config else {})}
        return instance.ask("POST", f"/networks/{network}/connect", body)

    return act


def own_network_other_name(instance: Instance) -> Reply:
    identifier = instance.run(create_of(WEB, with_alias=False))
    body: dict[str, Any] = {"Container": identifier}
    assert instance.ask("POST", "/networks/shop.back/disconnect", body).status == 200
    body |= {"EndpointConfig": {"Aliases": ["api"]}}
    return instance.ask("POST", "/networks/shop.back/connect", body)


def deliver(files: dict[str, str], *, name: str = "site") -> Act:
    body = {"owner": "team", "files": files}
    return lambda instance: instance.ask("PUT", f"/trimtab/v1/files/config/shop/{name}", body)


def move(instance: Instance) -> Reply:
    body = {"act": "service.moved", "object": WEB, "from": "Service/lab/web", "owner": "team"}
    return instance.ask("POST", "/trimtab/v1/records", body)


def move_away(instance: Instance) -> Reply:
    body = {"act": "service.moved", "object": "Service/lab/web", "from": WEB, "owner": "team"}
    return instance.ask("POST", "/trimtab/v1/records", body)


def secret(instance: Instance) -> Reply:
    body = {"owner": "team", "source": {"age": {"a": "x"}}}
    return instance.ask("PUT", "/trimtab/v1/files/secret/shop/site", body)


def unproven_container(instance: Instance) -> Reply:
    """A container from before the requirement."""
    state = instance.broker.state
    assert state is not None
    signed, state.policy = state.policy, state.policy.model_copy(update={"sources": ()})
    made = json.loads(instance.send(create_of(WEB)).body)
    state.policy = signed
    return instance.ask("POST", f"/containers/{made['Id']}/start")


def stopped_service(instance: Instance) -> Reply:
    made = json.loads(instance.send(create_of(WEB)).body)
    stopped = DOCUMENTS.replace(
        "spec:\n  image: trimtab.local/web:1",
        "spec:\n  state: Stopped\n  image: trimtab.local/web:1",
    )
    assert stopped != DOCUMENTS
    instance.prepare(stopped)
    return instance.ask("POST", f"/containers/{made['Id']}/start")


def job_twice(instance: Instance) -> Reply:
    instance.run(create_of(ONCE))
    return instance.send(create_of(ONCE))


def run_for(occasion: str, text: str = DOCUMENTS) -> Act:
    """Return the act of a run for another occasion than the document's."""

    def act(instance: Instance) -> Reply:
        instance.prepare(text)
        honest = create_of(ONCE, text)
        assert honest.body is not None
        labels = {**honest.body["Labels"], names.OCCASION: occasion}  # type: ignore[dict-item]
        return instance.send(replace(honest, body={**honest.body, "Labels": labels}))

    return act


THRICE = DOCUMENTS.replace("trigger: OnChange", "trigger: OnChange, completions: 3, parallelism: 2")


def run_of_many(instance: Instance, label: str, number: int = 1) -> Reply:
    """Send the create of a run with another label than the document's."""
    honest = create_of(ONCE, THRICE, slot=number)
    assert honest.body is not None
    labels = {**honest.body["Labels"], names.COMPLETIONS: label}  # type: ignore[dict-item]
    labels = {name: text for name, text in labels.items() if text}
    return instance.send(replace(honest, body={**honest.body, "Labels": labels}))


def test_the_signed_document_says_how_many_runs_a_job_has(instance: Instance) -> None:
    assert THRICE != DOCUMENTS
    instance.prepare(THRICE)
    assert rule(run_of_many(instance, "50/10")) == "proof.completions"
    assert rule(run_of_many(instance, "")) == "proof.completions"
    assert rule(run_of_many(instance, "3/2")) == ""
    # A recorded revision says nothing about the number of runs: the newest document does.
    instance.prepare(DOCUMENTS)
    assert rule(run_of_many(instance, "3/2", number=2)) == "proof.completions"
    instance.prepare(THRICE)
    assert rule(run_of_many(instance, "3/2", number=2)) == ""
    assert rule(run_of_many(instance, "3/2", number=3)) == "job.running"


def test_a_scheduled_run_is_of_the_schedule_and_not_long_ago(instance: Instance) -> None:
    instance.prepare(NIGHTLY)
    honest = create_of(ONCE, NIGHTLY)
    assert honest.body is not None
    due = last_night(instance)
    found = {}
    for what, instant in {
        "another minute": due + timedelta(minutes=1),
        "another hour": due + timedelta(hours=1),
        "a night before": due - timedelta(days=2),
        "last night": due,
    }.items():
        instance.clock.advance(max(0.0, instant.timestamp() - instance.clock.now()))
        occasion = f"schedule:{instant:%Y-%m-%dT%H:%M:%SZ}"
        labels = {**honest.body["Labels"], names.OCCASION: occasion}  # type: ignore[dict-item]
        found[what] = rule(instance.send(replace(honest, body={**honest.body, "Labels": labels})))
    assert found == {
        "another minute": "proof.occasion",
        "another hour": "proof.occasion",
        "a night before": "proof.occasion",
        "last night": "",
    }


def last_night(instance: Instance) -> datetime:
    """Return the next 4:00 in Berlin, in UTC; the test's clock goes on to that time."""
    local = datetime.fromtimestamp(instance.clock.now(), ZoneInfo("Europe/Berlin"))
    due = (local + timedelta(days=1)).replace(hour=4, minute=0, second=0, microsecond=0)
    return due.astimezone(UTC)


def job_with_the_image_of_a_service(instance: Instance) -> Reply:
    """A run for a rollout can ask for the pinned image of the service."""
    rollout = "spec:\n  rollout: {before: [once]}\n  image: trimtab.local/web:1"
    text = DOCUMENTS.replace("spec:\n  image: trimtab.local/web:1", rollout)
    # Of the same repository: an image of another one doesn't fit the label.
    text = text.replace("OnChange", "Rollout").replace("trimtab.local/job:1", "trimtab.local/web:2")
    instance.prepare(text)
    identifier = instance.run(create_of(WEB, text))
    web = instance.inventory.containers[identifier]
    occasion = f"rollout:web@{web.revision.partition(':')[2]}"
    honest = create_of(ONCE, text, image=_pin(instance))
    assert honest.body is not None
    labels = {**honest.body["Labels"], names.OCCASION: occasion}  # type: ignore[dict-item]
    return instance.send(replace(honest, body={**honest.body, "Labels": labels}))


def _pin(instance: Instance) -> str:
    return str(next(iter(instance.inventory.pins.values())).id)


FORGED: tuple[tuple[str, Act, str], ...] = (
    ("another command", create(body={"Cmd": ["/bin/sh"]}), "proof.unproven"),
    ("another entrypoint", create(body={"Entrypoint": ["/bin/sh"]}), "proof.unproven"),
    ("another variable", create(body={"Env": ["MODE=evil", "LEVEL=3"]}), "proof.unproven"),
    ("another user", create(body={"User": "1001"}), "proof.unproven"),
    ("another working folder", create(body={"WorkingDir": "/tmp"}), "proof.unproven"),
    ("another health check", create(body={"Healthcheck": {"Test": ["NONE"]}}), "proof.unproven"),
    ("a terminal", create(body={"Tty": True}), "proof.unproven"),
    ("another stop signal", create(body={"StopSignal": "SIGUSR1"}), "proof.unproven"),
    ("another owner", create(labels={names.OWNER: "other"}), "files.foreign"),
    ("another revision", create(labels={names.REVISION: "v2:" + "0" * 64}), "name.mismatch"),
    ("another label", create(labels={"tier": "back"}), "proof.unproven"),
    (
        "another reference in the label",
        create(labels={names.IMAGE: "trimtab.local/web:2"}),
        "proof.unproven",
    ),
    ("more memory", create(host={"Memory": 128 << 20}), "proof.unproven"),
    ("less memory", create(host={"Memory": 32 << 20}), "proof.unproven"),
    ("more processors", create(host={"NanoCpus": 10**9}), "proof.unproven"),
    ("no mounts", create(host={"Mounts": []}), "proof.unproven"),
    ("no ports", create(host={"PortBindings": {}}), "network.endpoints"),
    ("a capability", create(host={"CapAdd": ["CHOWN"]}), "proof.unproven"),
    ("another restart policy", create(host={"RestartPolicy": {"Name": "no"}}), "proof.unproven"),
    ("an init process", create(host={"Init": True}), "proof.unproven"),
    ("a slot beyond the replicas", slot_beyond, "proof.slot"),
    ("another platform", foreign_platform, "image.platform"),
    ("an undeclared service", undeclared_service, "proof.undeclared"),
    ("a superseded commit that never ran", superseded_that_never_ran, "proof.unproven"),
    ("a superseded commit that never started", created_and_never_started, "proof.unproven"),
    ("a revision of a revoked key", revision_of_a_revoked_key, "proof.key-revoked"),
    ("the start of a revoked key's container", start_of_a_revoked_key, "proof.key-revoked"),
    ("the start of a superseded container", start_of_superseded, "proof.unproven"),
    ("a removed service", removed_service, "proof.undeclared"),
    ("a commit that isn't accepted yet", newer_than_accepted, "proof.unproven"),
    ("a create after a restart of the broker", after_a_restart, "proof.missing"),
    ("another image by its id", another_image_by_id, "image.moved"),
    ("another tag", another_tag, "proof.image"),
    ("a pin by an unsigned create", poisoned_pin, "proof.image"),
    ("an update to more memory", update_to(Memory=128 << 20), "proof.update"),
    ("an update to less memory", update_to(Memory=32 << 20), "proof.update"),
    ("an update of the processors", update_to(NanoCpus=10**9), "proof.update"),
    ("an update of the processes", update_to(PidsLimit=128), "proof.update"),
    (
        "an update of the restarts",
        update_to(RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 3}),
        "proof.update",
    ),
    ("a network of another service", connect("shop.back"), "network.mode"),
    ("a foreign name on an own network", own_network_other_name, "network.alias"),
    (
        "an undeclared network",
        post("/networks/create", {"Name": "shop.more", "Driver": "bridge", "Labels": OWN}),
        "proof.unproven",
    ),
    (
        "an open network",
        post(
            "/networks/create",
            {"Name": "shop.back", "Driver": "bridge", "Internal": False, "Labels": OWN},
        ),
        "proof.unproven",
    ),
    (
        "a network by name from elsewhere",
        post(
            "/networks/create",
            {"Name": "shop.spy", "Driver": "bridge", "Internal": True, "Labels": ELSEWHERE},
        ),
        "name.mismatch",
    ),
    (
        "an undeclared volume",
        post("/volumes/create", {"Name": "shop.more", "Driver": "local", "Labels": OWN}),
        "proof.unproven",
    ),
    (
        "a volume by name from elsewhere",
        post("/volumes/create", {"Name": "shop.spy", "Driver": "local", "Labels": ELSEWHERE}),
        "name.mismatch",
    ),
    ("other files of a Config", deliver({"index.html": "ZXZpbA=="}), "proof.unproven"),
    ("files of an undeclared Config", deliver({"a": "ZXZpbA=="}, name="more"), "proof.unproven"),
    ("a Secret", secret, "proof.unproven"),
    ("a move into the namespace", move, "proof.unproven"),
    ("a move out of the namespace", move_away, "move.namespace"),
    ("a container from before the requirement", unproven_container, "proof.unproven"),
    ("the start of a stopped service", stopped_service, "proof.stopped"),
    ("a job run twice", job_twice, "job.number"),
    ("a run without a schedule", run_for("schedule:2020-01-01T04:00:00Z"), "proof.occasion"),
    ("a run for no rollout", run_for("rollout:web@" + "0" * 64), "proof.occasion"),
    ("a run that nobody asked for", run_for(f"manual:{'0' * 36}"), "job.request"),
    ("a job on request", run_for("change", ON_REQUEST), "proof.occasion"),
    ("a suspended job", run_for("change", SUSPENDED), "proof.occasion"),
    ("a job's run with the image of a service", job_with_the_image_of_a_service, "proof.image"),
)


@pytest.mark.parametrize(
    ("act", "wanted"), [each[1:] for each in FORGED], ids=[e[0] for e in FORGED]
)
def test_a_forged_act_is_refused(instance: Instance, act: Act, wanted: str) -> None:
    reply = act(instance)
    assert reply.status in {400, 403, 404, 409}, reply.body
    assert rule(reply) == wanted


#: How each route for the controller's changes is held in a signed namespace.
HELD = {
    "container.create": "proven: the shape of the accepted commit, or of a recorded revision",
    "container.start": "proven: the container's own shape",
    "container.restart": "proven: as a start",
    "container.unpause": "proven: as a start",
    "container.update": "proven: declared or admitted values",
    "network.create": "proven: the body",
    "network.connect": "proven: network and names of the revision",
    "volume.create": "proven: the body",
    "files.deliver": "proven: the body",
    "own.records": "moves are refused; other acts are records only",
    "container.rename": "names are final",
    "container.stop": "the disruption budget",
    "container.kill": "the disruption budget",
    "container.pause": "the disruption budget",
    "container.remove": "the disruption budget",
    "network.disconnect": "the disruption budget",
    "network.remove": "only without containers",
    "volume.remove": "an approval",
    "image.pull": "the policy's images",
    "image.remove": "only unused images",
    "image.build": "refused in namespaces of signed sources (build.signed)",
}


def test_each_route_of_the_controllers_changes_is_held() -> None:
    changes = {r.name for r in ROUTES if r.kind == "mutate" and Role.CONTROLLER in r.roles}
    assert changes == HELD.keys()
