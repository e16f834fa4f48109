"""What a container gets where an image declares a VOLUME that no mount covers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.engine_api.mount_grammar import VOLUME_NAME
from controller.core.engine_api.parse import parse_create
from controller.core.planning.context import order_of, why_order
from controller.core.planning.images_networks_volumes import volume_rule_of, with_image_volumes
from controller.core.review.flat_plan import to_json
from controller.core.rules.confinement import confinement_from_json
from controller.core.rules.context import CreateFacts, VolumeFacts, make_case
from controller.core.rules.images import (
    is_slot_volume,
    kept_volumes,
    slot_volume,
    uncovered,
    volume_name,
)
from controller.model.confinement import ExpectedMount
from controller.model.desired.desired import ImageVolume, Service
from controller.model.desired.spec.service import Order
from controller.model.names import service_key
from controller.model.observed import Image, Observed
from controller.model.policy.document import Policy
from tests.plans import flat_text
from tests.unit.core.creates import (
    CLIENT,
    CONTROLLER,
    FACTS,
    REFERENCE,
    STAMP,
    denials,
    host_of,
    image_of,
    judged,
    judged_for_controller,
    policy,
)
from tests.worlds import IMAGE as WEB_IMAGE
from tests.worlds import IMAGE_ID, container, declared, engine, plan, service

REDIS = service_key("shop", "redis")


def rules(word: object, **more: Any) -> Policy:
    return policy(images={"allow": ["ghcr.io/platformnetwork/"], "anonymousVolumes": word}, **more)


def facts(*paths: str, volumes: tuple[VolumeFacts, ...] = ()) -> CreateFacts:
    """The facts of an image that declares *paths*, beside volumes that exist."""
    known = {**FACTS.volumes, **{volume.name: volume for volume in volumes}}
    return replace(FACTS, image=image_of(Volumes=paths), volumes=known)


# Names


@pytest.mark.parametrize(
    ("holder", "path", "name"),
    [
        ("shop.redis.1", "/data", "shop.redis.1.data-81ce9a"),
        ("db.2", "/var/lib/postgresql/data", "db.2.data-"),
        ("web.1", "/srv/my files!", "web.1.my-files-"),
        ("web.1", "/", "web.1.data-"),
        (f"{'n' * 20}.{'s' * 27}.999", "/data", f"{'n' * 20}.{'s' * 27}.999.dat-"),
        ("c" * 63, "/data", "c" * 52 + ".dat-"),
    ],
)
def test_a_volume_is_named_after_its_holder_and_its_path(holder: str, path: str, name: str) -> None:
    named = volume_name(holder, path)
    assert named.startswith(name)
    assert VOLUME_NAME.fullmatch(named), "the gate takes the name, and so does the engine"


def test_paths_slots_and_long_holders_have_volumes_of_their_own() -> None:
    paths = ("/data", "/srv/data", "/var/data")
    named = [slot_volume(REDIS, slot, path) for slot in (1, 2) for path in paths]
    named += [volume_name(letter + "c" * 62 + letter, "/data") for letter in "xy"]
    assert len(set(named)) == len(named)
    assert slot_volume(service_key("default", "redis"), 1, "/data") == "redis.1.data-81ce9a"


def test_a_path_is_covered_by_a_mount_at_it_alone() -> None:
    declares = ("/data/", "/logs", "/data")
    assert uncovered(declares, ("/logs",)) == ("/data",)
    assert uncovered(declares, ("/data/sub", "/")) == ("/data", "/logs")


@pytest.mark.parametrize("path", ["/data", "/", "/srv/my files!", "/var/lib/" + "x" * 99])
@pytest.mark.parametrize("service", ["redis", "a-1", "s" * 27])
@pytest.mark.parametrize("namespace", ["default", "shop", "n" * 20])
def test_each_volume_of_a_slot_has_a_reserved_name(namespace: str, service: str, path: str) -> None:
    assert is_slot_volume(slot_volume(service_key(namespace, service), 999, path))
    assert is_slot_volume(slot_volume(service_key(namespace, service), 1, path))


@pytest.mark.parametrize("name", ["job.data-81ce9a", "shop_db-data", "shop.redis", "a.1.data"])
def test_other_volumes_have_names_that_clients_may_choose(name: str) -> None:
    assert not is_slot_volume(name)


# The policy's word


def test_an_exception_decides_for_its_service_alone() -> None:
    loosens = {"anonymousVolumes": "slot"}
    exemption = {
        "owner": "team",
        "namespace": "default",
        "service": "web",
        "repository": WEB_IMAGE.rpartition(":")[0],
        "reason": "it is the cache of one service",
        "expires": "2099-01-31",
        "loosens": loosens,
    }
    rule = volume_rule_of(policy(exceptions=[exemption]))
    assert rule(service("web")) == "slot"
    assert rule(service("api")) == "refuse"
    assert rule(service("web", namespace="other")) == "refuse"


# A create of the controller


def test_a_replica_gets_the_volume_of_its_slot() -> None:
    ours = VolumeFacts("web.1.data-81ce9a", ours=True, owner="alice", namespace="default")
    admitted = judged_for_controller(rules=rules("slot"), facts=facts("/data/", volumes=(ours,)))
    mounts = host_of(admitted)["Mounts"]
    assert mounts == [{"Type": "volume", "Target": "/data", "Source": "web.1.data-81ce9a"}]
    assert "/data: volume web.1.data-81ce9a (kept)" in admitted.verdict.mutations
    assert "volume.slot" in admitted.verdict.rules
    # The effective state is compared with it, and the inventory has it.
    confined = confinement_from_json(admitted.summary["confined"])
    assert confined is not None
    assert confined.mounts == (ExpectedMount("volume", "/data", "web.1.data-81ce9a"),)
    recorded = {"type": "volume", "source": ours.name, "target": "/data", "readOnly": False}
    assert admitted.summary["mounts"] == [{**recorded, "rule": "volume.slot"}]


def test_a_volume_of_that_name_must_be_ours() -> None:
    theirs = VolumeFacts("web.1.data-81ce9a", ours=False)
    refused = judged_for_controller(rules=rules("slot"), facts=facts("/data", volumes=(theirs,)))
    assert denials(refused) == ("volume.foreign",)
    absent = judged_for_controller(rules=rules("slot"), facts=facts("/data"))
    assert denials(absent) == ("volume.missing",)


def test_scratch_is_a_tmpfs_of_the_policys_size() -> None:
    admitted = judged_for_controller(rules=rules("scratch"), facts=facts("/data"))
    (mount,) = host_of(admitted)["Mounts"]
    size = 64 * 1024**2
    assert mount == {"Type": "tmpfs", "Target": "/data", "TmpfsOptions": {"SizeBytes": size}}
    assert "/data: tmpfs of 64Mi (empty at each start)" in admitted.verdict.mutations


def test_a_container_that_is_there_already_keeps_what_the_engine_made() -> None:
    found = replace(facts("/data"), existing=True)
    adopted = judged_for_controller(rules=rules("slot"), facts=found)
    assert "Mounts" not in host_of(adopted)
    confined = confinement_from_json(adopted.summary["confined"])
    assert confined is not None
    assert confined.mounts == (ExpectedMount("volume", "/data"),)
    assert denials(judged_for_controller(facts=found)) == ("volume.anonymous",)


def test_what_a_mount_covers_is_left_alone() -> None:
    asked = {"Mounts": [{"Type": "tmpfs", "Target": "/data", "TmpfsOptions": {"SizeBytes": 1024}}]}
    admitted = judged_for_controller(host=asked, rules=rules("slot"), facts=facts("/data"))
    assert len(host_of(admitted)["Mounts"]) == 1
    assert not {"volume.slot", "volume.scratch"} & set(admitted.verdict.rules)


def test_volumes_of_the_policys_count_as_mounts() -> None:
    few = rules("scratch", mounts={"max": 1})
    assert denials(judged_for_controller(rules=few, facts=facts("/a", "/b"))) == ("mount.count",)


# A client's create


@pytest.mark.parametrize(
    ("word", "host", "mount"),
    [
        ("slot", {}, {"Type": "volume", "Source": "alice-web.data-81ce9a"}),
        # Nobody would ever look at the volume of a container that is removed when it exits.
        ("slot", {"AutoRemove": True}, {"Type": "tmpfs", "TmpfsOptions": {"SizeBytes": 64 << 20}}),
        ("scratch", {}, {"Type": "tmpfs", "TmpfsOptions": {"SizeBytes": 64 << 20}}),
    ],
)
@pytest.mark.parametrize("asked", [True, False])
def test_a_clients_container_gets_a_volume_that_is_named_after_it(
    word: str, host: dict[str, Any], mount: dict[str, Any], asked: bool
) -> None:
    ours = VolumeFacts("alice-web.data-81ce9a", ours=True, owner="alice")
    known = facts(*(() if asked else ("/data",)), volumes=(ours,))
    body: dict[str, Any] = {"Volumes": {"/data": {}}} if asked else {}
    admitted = judged(body, host=host, rules=rules(word), facts=known)
    assert host_of(admitted)["Mounts"] == [{"Target": "/data", **mount}]


def test_a_client_never_gets_the_volume_of_another_owner() -> None:
    bobs = VolumeFacts("alice-web.data-81ce9a", ours=True, owner="bob")
    refused = judged(rules=rules("slot"), facts=facts("/data", volumes=(bobs,)))
    assert denials(refused) == ("volume.foreign",)


def test_a_container_without_a_name_has_a_volume_after_the_name_that_it_is_given() -> None:
    request = parse_create({"Image": REFERENCE})
    known = facts("/data")
    (kept,) = kept_volumes(
        make_case(request, name="", actor=CLIENT, policy=rules("slot"), facts=known, stamp=STAMP)
    )
    given = VolumeFacts(kept, ours=True, owner="alice")
    admitted = judged(name="", rules=rules("slot"), facts=facts("/data", volumes=(given,)))
    assert kept == f"{dict(admitted.query)['name']}.data-81ce9a"
    for word, actor in (("refuse", CLIENT), ("scratch", CONTROLLER)):
        found = kept_volumes(
            make_case(request, name="x", actor=actor, policy=rules(word), facts=known, stamp=STAMP)
        )
        assert found == ()


def test_a_volume_that_the_engine_names_is_not_made_by_the_gate() -> None:
    nameless = {"Mounts": [{"Type": "volume", "Target": "/data"}]}
    request = parse_create({"Image": REFERENCE, "HostConfig": nameless})
    lax = policy(modes={"volume.anonymous": "audit"}, mounts={"createVolumes": True})
    found = kept_volumes(
        make_case(request, name="x", actor=CLIENT, policy=lax, facts=facts(), stamp=STAMP)
    )
    assert found == ()


# A service in a plan


def seen(*paths: str, images: bool = True, **more: Any) -> Observed:
    shown = engine(images={WEB_IMAGE: Image(IMAGE_ID)} if images else {WEB_IMAGE: None}, **more)
    return replace(shown, image_volumes={IMAGE_ID: paths})


def laid(word: str, observed: Observed, wanted: Service) -> Service:
    rule = volume_rule_of(rules(word))
    (found,) = with_image_volumes(declared(wanted), observed, rule).services
    return found


@pytest.mark.parametrize(
    ("word", "observed", "expected"),
    [
        ("refuse", seen("/data"), ()),
        ("refuse", seen(images=False), ()),
        ("slot", seen(), ()),
        (
            "slot",
            seen("/data", "/logs/"),
            (ImageVolume("/data", "slot"), ImageVolume("/logs", "slot")),
        ),
        ("scratch", seen("/data"), (ImageVolume("/data", "scratch"),)),
        ("slot", seen(images=False), None),
        ("slot", engine(), None),
        # Nothing hangs on it: a tmpfs is nobody's.
        ("scratch", seen(images=False), ()),
    ],
)
def test_what_an_image_declares_is_laid_over_its_service(
    word: str, observed: Observed, expected: tuple[ImageVolume, ...] | None
) -> None:
    wanted = service("web")
    found = laid(word, observed, wanted)
    assert found.image_volumes == expected
    assert replace(found, image_volumes=()) == wanted, "and nothing else of it changes"


def test_what_a_mount_of_the_service_covers_is_not() -> None:
    mount = {"type": "volume", "source": "data", "target": "/data"}
    assert laid("slot", seen("/data"), service("web", mounts=[mount])).image_volumes == ()


def test_a_slot_that_keeps_a_volume_is_stopped_first() -> None:
    kept = laid("slot", seen("/data"), service("web"))
    assert order_of(kept) is Order.STOP_FIRST
    assert why_order(kept) == "the volume at /data can't be held by two containers"
    assert order_of(laid("scratch", seen("/data"), service("web"))) is Order.START_FIRST


def test_a_declared_order_that_cannot_hold_is_a_problem() -> None:
    observed = seen("/data")
    wanted = service("web", rollout={"order": "StartFirst"})
    made = plan(declared(wanted), observed, volume_rule=volume_rule_of(rules("slot")))
    assert not made.actions
    (problem,) = made.problems
    assert problem.code == "rollout.order"
    assert "VOLUME at /data" in problem.message


def test_the_plan_names_the_volume_and_its_digest_covers_it() -> None:
    wanted = declared(service("web"))
    plans = {
        word: plan(wanted, seen("/data"), volume_rule=volume_rule_of(rules(word)))
        for word in ("slot", "scratch", "refuse")
    }
    assert "    /data: volume web.1.data-81ce9a (slot)\n" in flat_text(plans["slot"])
    assert "    /data: tmpfs (scratch)\n" in flat_text(plans["scratch"])
    first = to_json(plans["slot"])["actions"][0]  # type: ignore[index]
    volume = {"path": "/data", "keeping": "slot", "volume": "web.1.data-81ce9a"}
    text = "/data: volume web.1.data-81ce9a (slot)"
    assert first["volumes"] == [{**volume, "text": text}]
    assert "volumes" not in to_json(plans["refuse"])["actions"][0]  # type: ignore[index]
    assert len({made.digest for made in plans.values()}) == 3


def test_nothing_starts_beside_a_replica_while_its_image_is_not_here() -> None:
    old = container("web", rev="a", image_id="sha256:old")
    made = plan(
        declared(service("web")),
        replace(seen(images=False), containers=(old,)),
        volume_rule=volume_rule_of(rules("slot")),
    )
    assert [action.verb for action in made.actions] == ["pull-image", "wait"]
    # Where nothing runs in the slot, nothing hangs on it.
    alone = plan(
        declared(service("web")), seen(images=False), volume_rule=volume_rule_of(rules("slot"))
    )
    assert [action.verb for action in alone.actions][:2] == ["pull-image", "create-container"]


def test_an_image_that_declares_too_many_volumes_has_none_looked_up() -> None:
    declares = facts(*(f"/data/{number}" for number in range(1000)))
    request = parse_create({"Image": REFERENCE})
    kept = kept_volumes(
        make_case(
            request, name="job", actor=CLIENT, policy=rules("slot"), facts=declares, stamp=STAMP
        )
    )
    assert kept == ()
    assert denials(judged(rules=rules("slot"), facts=declares)) == ("mount.count",)


def test_what_is_always_pulled_is_pulled_once_before_its_volumes_are_known() -> None:
    old = container("web", rev="a", image_id="sha256:old")
    wanted = service("web", pullPolicy="Always")
    observed, slots = replace(seen("/data"), containers=(old,)), volume_rule_of(rules("slot"))
    before = plan(declared(wanted), observed, volume_rule=slots)
    assert [action.verb for action in before.actions] == ["pull-image", "wait"]
    pulled = frozenset({(wanted.key, wanted.revision)})
    after = plan(declared(wanted), observed, volume_rule=slots, pulled=pulled)
    verbs = [action.verb for action in after.actions]
    assert verbs[:3] == ["create-container", "update-container", "stop-container"]
    another = plan(
        declared(service("web", "c", pullPolicy="Always")),
        observed,
        volume_rule=slots,
        pulled=pulled,
    )
    assert [action.verb for action in another.actions] == ["pull-image", "wait"]
