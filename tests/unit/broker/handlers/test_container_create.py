from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Forward, InspectPaths, ReadEngine
from controller.broker.gate.state import GateState
from controller.core.admission.create import judge_create
from controller.core.effective import effective
from controller.core.encoding.identifiers import parse_reference
from controller.core.records.inventory_json import settings_from_json
from controller.model import names
from controller.model.host_paths import PathFacts
from controller.model.inventory import ContainerItem, OwnedObject, PinnedImage, TrustedImage
from controller.model.observed import Settings
from controller.model.records import Reply
from tests.unit.broker.dialogue import (
    CONTROLLER,
    NOT_FOUND,
    RECORDED,
    Step,
    Told,
    at,
    converse,
    lost,
    record,
    reply,
    request,
    state,
)
from tests.unit.broker.world import (
    ALL_CONTAINERS,
    ALL_NETWORKS,
    ALL_VOLUMES,
    DIGEST,
    IMAGE,
    NETWORK,
    REFERENCE,
    REVISION,
    SERVICE,
    SLOT,
    STRAY,
    WEB,
    image,
    inspect,
    inventory,
    labels,
    network,
    policy,
)

NEW = "99" * 32
REPOSITORY = parse_reference(REFERENCE).repository
MADE = reply({"Id": NEW, "Warnings": []}, 201)
BODY = {"Image": REFERENCE, "HostConfig": {"NetworkMode": "none"}}
LOOK_IMAGE: Step = (ReadEngine(f"/images/{REFERENCE}/json"), reply(image()))
FREE: Step = (ReadEngine("/containers/job/json"), NOT_FOUND)


class Forwarded:
    """Stands for a Forward whose body is looked at afterwards."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.body: dict[str, Any] = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Forward) or (other.method, other.path) != ("POST", self.path):
            return False
        self.body = json.loads(other.body)
        return True

    def __repr__(self) -> str:
        return f"Forward('POST', {self.path!r})"

    __hash__ = None  # type: ignore[assignment]


def create(
    dialogue: list[Step],
    *,
    knows: GateState | None = None,
    body: object = None,
    name: str = "job",
    **more: Any,
) -> Told:
    """Ask for a container."""
    knows = knows or state(inventory())
    asked = request("POST", f"/containers/create?name={name}", body=body or BODY, **more)
    return converse(handle(asked, knows), dialogue, knows)


def test_a_create_is_rebuilt_stamped_and_ours() -> None:
    knows, sent = state(inventory()), Forwarded("/containers/create?name=job")
    answer = create(
        [
            LOOK_IMAGE,
            FREE,
            ("intent", RECORDED),
            (sent, MADE),
            ("outcome", RECORDED),
        ],
        knows=knows,
        body={**BODY, "Env": ["TOKEN=hunter2"], "Labels": {"tier": "x"}},
    )
    assert answer.json == {"Id": NEW, "Warnings": []}
    assert sent.body["Image"] == IMAGE
    assert sent.body["Env"] == ["TOKEN=hunter2"]
    assert sent.body["HostConfig"]["CapDrop"] == ["ALL"]
    ours = labels("alice", intent="id-1", namespace="", slot="", revision="", image="", service="")
    assert sent.body["Labels"] == {**ours, "tier": "x", "maintainer": "x"}
    made = knows.inventory.containers[NEW]
    assert (made.owner, made.origin, made.intent, made.started) == (
        "alice",
        "client",
        "id-1",
        False,
    )
    assert made.admitted.name == "job"
    assert made.admitted.memory == 2 * 1024**3
    told = json.dumps([entry.request for entry in answer.entries])
    assert "hunter2" not in told
    assert answer.entries[0].request["summary"]["env"] == ["TOKEN"]  # type: ignore[index]


def test_an_image_that_is_not_there_is_for_the_client_to_pull() -> None:
    known = inventory(ledger={})
    answer = create([(LOOK_IMAGE[0], NOT_FOUND)], knows=state(known))
    message = f"No such image: {REFERENCE}"
    assert (answer.status, answer.json["message"]) == (404, message)
    assert answer.json["trimtab"]["rule"] == "image.missing"
    assert answer.entries == []


def test_an_image_whose_name_was_taken_away_still_runs_by_its_id() -> None:
    by_id: Step = (ReadEngine(f"/images/{IMAGE}/json"), reply(image(RepoTags=[])))
    sent = Forwarded("/containers/create?name=job")
    answer = create(
        [
            (LOOK_IMAGE[0], NOT_FOUND),
            by_id,
            FREE,
            ("intent", RECORDED),
            (sent, MADE),
            ("outcome", RECORDED),
        ]
    )
    assert (answer.status, sent.body["Image"]) == (201, IMAGE)


@pytest.mark.parametrize("trusted", [None, TrustedImage(REFERENCE, "sha256:" + "66" * 32)])
def test_an_untrusted_local_image_does_not_run(trusted: TrustedImage | None) -> None:
    known = inventory(ledger={REFERENCE: trusted} if trusted else {})
    answer = create([LOOK_IMAGE, FREE, ("refusal", RECORDED)], knows=state(known))
    assert answer.status == 403
    assert answer.rule.startswith("image.")


def test_a_name_that_is_taken_is_refused_alike_and_the_callers_own_is_the_engines_conflict() -> (
    None
):
    for holder in (
        inspect(STRAY, "job", "x", Config={"Labels": {}}),
        inspect(SLOT, "job", "team"),
    ):
        answer = create([LOOK_IMAGE, (FREE[0], reply(holder)), ("refusal", RECORDED)])
        assert (answer.status, answer.rule) == (409, "name.taken")
        assert holder["Id"] not in answer.value.body.decode()
    ours = reply(inspect(WEB, "job", "alice"))
    conflict = reply({"message": "the name is taken"}, 409)
    answer = create(
        [
            LOOK_IMAGE,
            (FREE[0], ours),
            ("intent", RECORDED),
            (Forwarded("/containers/create?name=job"), conflict),
            ("outcome", RECORDED),
        ]
    )
    assert answer.value == conflict


def test_a_lost_create_holds_its_name() -> None:
    knows = state(inventory())
    sent = Forwarded("/containers/create?name=job")
    create([LOOK_IMAGE, FREE, ("intent", RECORDED), (sent, lost())], knows=knows)
    answer = create([LOOK_IMAGE, FREE, ("refusal", RECORDED)], knows=knows)
    assert (answer.status, answer.rule) == (409, "held")
    # Also once it shows: that it isn't in the inventory yet makes it nobody else's.
    made = reply(inspect(STRAY, "job", "x", Config={"Labels": {}}))
    answer = create([LOOK_IMAGE, (FREE[0], made), ("refusal", RECORDED)], knows=knows)
    assert (answer.status, answer.rule) == (409, "held")
    # And while the request that makes it is still under way.
    knows.intents.in_flight.add("id-1")
    answer = create([LOOK_IMAGE, (FREE[0], made), ("refusal", RECORDED)], knows=knows)
    assert (answer.status, answer.rule) == (409, "held")


# The controller's


SLOT_LABELS = {
    "io.trimtab.owner": "team",
    "io.trimtab.namespace": "default",
    "io.trimtab.service": "web",
    "io.trimtab.slot": "1",
    "io.trimtab.revision": REVISION,
    "io.trimtab.image": REFERENCE,
}
SLOT_BODY = {"Image": REFERENCE, "Labels": SLOT_LABELS, "HostConfig": {"NetworkMode": "none"}}
SLOT_FREE: Step = (ReadEngine(f"/containers/{SERVICE}.2/json"), NOT_FOUND)


def slot_create(dialogue: list[Step], knows: GateState) -> Told:
    return create(dialogue, knows=knows, body=SLOT_BODY, name=f"{SERVICE}.2", actor=CONTROLLER)


def test_the_first_create_of_a_revision_pins_its_image() -> None:
    knows = state(inventory())
    sent = Forwarded(f"/containers/create?name={SERVICE}.2")
    slot_create(
        [LOOK_IMAGE, SLOT_FREE, ("intent", RECORDED), (sent, MADE), ("outcome", RECORDED)], knows
    )
    assert knows.inventory.pins == {REVISION: PinnedImage(IMAGE, DIGEST, REPOSITORY)}
    assert sent.body["Labels"]["io.trimtab.image"] == REFERENCE
    made = knows.inventory.containers[NEW]
    assert (made.namespace, made.slot, made.revision, made.image) == (
        "default",
        1,
        REVISION,
        REFERENCE,
    )


def test_a_pinned_revision_runs_its_image_after_the_tag_moved() -> None:
    pinned = "sha256:" + "33" * 32
    knows = state(inventory(pins={REVISION: PinnedImage(pinned, "", REPOSITORY)}))
    sent = Forwarded(f"/containers/create?name={SERVICE}.2")
    by_id: Step = (ReadEngine(f"/images/{pinned}/json"), reply(image(Id=pinned)))
    dialogue: list[Step] = [by_id, SLOT_FREE, ("intent", RECORDED), (sent, MADE)]
    slot_create([*dialogue, ("outcome", RECORDED)], knows)
    assert sent.body["Image"] == pinned
    gone = slot_create([(by_id[0], NOT_FOUND)], state(replace(knows.inventory)))
    assert gone.status == 404
    assert pinned in gone.json["message"]


# Networks that are implied


def test_a_clients_implied_network_is_made_by_the_broker_once_the_create_is_admitted() -> None:
    knows = state(inventory())
    made_id = "77" * 32
    look = ReadEngine("/networks/platform-network")
    sent_network, sent = Forwarded("/networks/create"), Forwarded("/containers/create?name=job")
    shown = network(
        made_id,
        "platform-network",
        "alice",
        Labels=labels("alice", intent="id-2", namespace="default"),
    )
    answer = create(
        [
            LOOK_IMAGE,
            (look, NOT_FOUND),
            (ReadEngine("/networks"), reply([])),
            FREE,
            ("intent", RECORDED),
            (sent_network, reply({"Id": made_id}, 201)),
            ("outcome", RECORDED),
            (look, reply(shown)),
            FREE,
            ("intent", RECORDED),
            (sent, MADE),
            ("outcome", RECORDED),
        ],
        knows=knows,
        body={"Image": REFERENCE},
    )
    assert answer.status == 201
    assert [(e.id, e.stage, e.actor["role"]) for e in answer.entries] == [
        ("id-2", "intent", "broker"),
        ("id-2", "outcome", "broker"),
        ("id-1", "intent", "client"),
        ("id-1", "outcome", "client"),
    ]
    assert (sent_network.body["Name"], sent_network.body["Internal"]) == ("platform-network", True)
    assert sent.body["HostConfig"]["NetworkMode"] in {"platform-network", made_id}
    assert set(knows.inventory.networks) == {NETWORK, made_id}


@contextmanager
def counted(*functions: Any) -> Iterator[Counter[str]]:
    """Count the calls of functions until the block ends."""
    codes, counts = {each.__code__ for each in functions}, Counter[str]()

    def profile(frame: FrameType, event: str, _value: object) -> None:
        if event == "call" and frame.f_code in codes:
            counts[frame.f_code.co_name] += 1

    sys.setprofile(profile)
    try:
        yield counts
    finally:
        sys.setprofile(None)


def test_a_create_is_merged_once_and_judged_by_its_text_and_by_the_facts() -> None:
    with counted(effective, judge_create) as counts:
        test_a_create_is_rebuilt_stamped_and_ours()
    assert counts == {"effective": 1, "judge_create": 2}


def test_what_was_made_for_a_create_is_judged_and_nothing_merged_again() -> None:
    with counted(effective, judge_create) as counts:
        test_a_clients_implied_network_is_made_by_the_broker_once_the_create_is_admitted()
    assert counts == {"effective": 1, "judge_create": 3}


def test_a_refused_create_makes_no_network() -> None:
    answer = create(
        [
            LOOK_IMAGE,
            (ReadEngine("/networks/platform-network"), NOT_FOUND),
            (ReadEngine("/networks"), reply([])),
            FREE,
            (
                InspectPaths(("/var/lib/platform/x",)),
                (PathFacts("/var/lib/platform/x", "missing"),),
            ),
            ("refusal", RECORDED),
        ],
        body={"Image": REFERENCE, "HostConfig": {"Binds": ["/var/lib/platform/x:/x:ro"]}},
    )
    assert (answer.status, answer.rule) == (403, "mount.missing")


def test_a_foreign_network_of_the_same_name_is_never_used() -> None:
    stranger = network(STRAY, "platform-network", "alice", Labels={})
    answer = create(
        [
            LOOK_IMAGE,
            (ReadEngine("/networks/platform-network"), reply(stranger)),
            FREE,
            ("refusal", RECORDED),
        ],
        body={"Image": REFERENCE},
    )
    assert (answer.status, answer.rule) == (403, "network.foreign")


# Volumes that the image declares

DECLARES: Step = (
    ReadEngine(f"/images/{REFERENCE}/json"),
    reply(image(Config={"Volumes": {"/data": {}}})),
)
KEPT = "job.data-81ce9a"
KEPT_DATA = f"/var/lib/docker/volumes/{KEPT}/_data"
LOOK_KEPT = ReadEngine(f"/volumes/{KEPT}")


def kept_volume(intent: str, *, owner: str = "alice", **more: Any) -> Reply:
    told = labels(owner, intent=intent, namespace="")
    return reply({"Name": KEPT, "Driver": "local", "Options": None, "Labels": told, **more}, 201)


def test_a_volume_that_the_image_declares_is_made_once_and_kept() -> None:
    knows = state(inventory(), policy=policy(images={"anonymousVolumes": "slot"}))
    sent_volume, sent = Forwarded("/volumes/create"), Forwarded("/containers/create?name=job")
    made, data = kept_volume("id-2"), PathFacts(KEPT_DATA, "dir", device=8, inode=9)
    first: list[Step] = [
        DECLARES,
        (LOOK_KEPT, NOT_FOUND),
        FREE,
        (InspectPaths((KEPT_DATA,)), (PathFacts(KEPT_DATA, "missing"),)),
        ("intent", RECORDED),
        (sent_volume, made),
        ("outcome", RECORDED),
        (LOOK_KEPT, made),
        FREE,
        (InspectPaths((KEPT_DATA,)), (data,)),
        ("intent", RECORDED),
        (sent, MADE),
        ("outcome", RECORDED),
    ]
    answer = create(first, knows=knows)
    assert answer.status == 201
    assert [(e.id, e.stage, e.actor["role"]) for e in answer.entries] == [
        ("id-2", "intent", "broker"),
        ("id-2", "outcome", "broker"),
        ("id-1", "intent", "client"),
        ("id-1", "outcome", "client"),
    ]
    assert sent_volume.body["Name"] == KEPT
    assert sent_volume.body["Labels"][names.OWNER] == "alice"
    mount = {"Type": "volume", "Source": KEPT, "Target": "/data"}
    assert sent.body["HostConfig"]["Mounts"] == [mount]
    assert knows.inventory.volumes[KEPT].intent == "id-2"
    confined = knows.inventory.containers[NEW].confined
    assert confined is not None
    assert [(m.source, m.inode) for m in confined.mounts] == [(KEPT, 9)]
    # The next container of that name finds it.
    found = (InspectPaths((KEPT_DATA,)), (data,))
    tail: list[Step] = [("intent", RECORDED), (sent, MADE), ("outcome", RECORDED)]
    again = create([DECLARES, (LOOK_KEPT, made), FREE, found, *tail], knows=knows)
    assert again.status == 201


def test_a_volume_that_a_client_names_is_made_where_the_policy_lets_it() -> None:
    knows = state(inventory(), policy=policy(mounts={"createVolumes": True}))
    data = PathFacts(KEPT_DATA, "dir", device=8, inode=9)
    sent_volume, sent = Forwarded("/volumes/create"), Forwarded("/containers/create?name=job")
    dialogue: list[Step] = [
        LOOK_IMAGE,
        (LOOK_KEPT, NOT_FOUND),
        FREE,
        (InspectPaths((KEPT_DATA,)), (PathFacts(KEPT_DATA, "missing"),)),
        ("intent", RECORDED),
        (sent_volume, kept_volume("id-2")),
        ("outcome", RECORDED),
        (LOOK_KEPT, kept_volume("id-2")),
        FREE,
        (InspectPaths((KEPT_DATA,)), (data,)),
        ("intent", RECORDED),
        (sent, MADE),
        ("outcome", RECORDED),
    ]
    host = {"NetworkMode": "none", "Binds": [f"{KEPT}:/data"]}
    answer = create(dialogue, knows=knows, body={**BODY, "HostConfig": host})
    assert answer.status == 201
    assert sent_volume.body["Labels"][names.OWNER] == "alice"
    assert sent.body["HostConfig"]["Binds"] == [f"{KEPT}:/data"]
    assert knows.inventory.volumes[KEPT].owner == "alice"


def test_only_what_was_made_is_looked_up_again_and_all_paths() -> None:
    other, other_data = "job.logs-0b5a2c", "/var/lib/docker/volumes/job.logs-0b5a2c/_data"
    knows = state(
        inventory(volumes={other: OwnedObject(other, other, "", "alice", "client", "i0")}),
        policy=policy(mounts={"createVolumes": True}),
    )
    sent_volume, sent = Forwarded("/volumes/create"), Forwarded("/containers/create?name=job")
    there = PathFacts(other_data, "dir", device=8, inode=7)
    made = PathFacts(KEPT_DATA, "dir", device=8, inode=9)
    paths = InspectPaths((KEPT_DATA, other_data))
    dialogue: list[Step] = [
        LOOK_IMAGE,
        (LOOK_KEPT, NOT_FOUND),
        (ReadEngine(f"/volumes/{other}"), kept_volume("i0", Name=other)),
        FREE,
        (paths, (PathFacts(KEPT_DATA, "missing"), there)),
        ("intent", RECORDED),
        (sent_volume, kept_volume("id-2")),
        ("outcome", RECORDED),
        (LOOK_KEPT, kept_volume("id-2")),
        FREE,
        (paths, (made, there)),
        ("intent", RECORDED),
        (sent, MADE),
        ("outcome", RECORDED),
    ]
    host = {"NetworkMode": "none", "Binds": [f"{KEPT}:/data", f"{other}:/logs"]}
    assert create(dialogue, knows=knows, body={**BODY, "HostConfig": host}).status == 201


def test_a_volume_that_somebody_made_meanwhile_is_never_mounted() -> None:
    knows = state(inventory(), policy=policy(images={"anonymousVolumes": "slot"}))
    answer = create(
        [
            DECLARES,
            (LOOK_KEPT, NOT_FOUND),
            FREE,
            (InspectPaths((KEPT_DATA,)), (PathFacts(KEPT_DATA, "missing"),)),
            ("intent", RECORDED),
            (Forwarded("/volumes/create"), kept_volume("another", Options={"o": "bind"})),
            ("outcome", RECORDED),
        ],
        knows=knows,
    )
    assert answer.status == 409
    assert KEPT not in knows.inventory.volumes


def test_a_refused_create_makes_no_volume() -> None:
    source = "/var/lib/platform/x"
    looks = (PathFacts(source, "missing"), PathFacts(KEPT_DATA, "missing"))
    answer = create(
        [
            DECLARES,
            (LOOK_KEPT, NOT_FOUND),
            FREE,
            (InspectPaths((source, KEPT_DATA)), looks),
            ("refusal", RECORDED),
        ],
        knows=state(inventory(), policy=policy(images={"anonymousVolumes": "slot"})),
        body={**BODY, "HostConfig": {"NetworkMode": "none", "Binds": [f"{source}:/x:ro"]}},
    )
    assert (answer.status, answer.rule) == (403, "mount.missing")


@pytest.mark.parametrize(
    ("container", "volume"), [("web.1", ""), ("job", "web.1.data-81ce9a")], ids=["image", "named"]
)
def test_a_client_does_not_take_the_volume_of_a_replica(container: str, volume: str) -> None:
    # Whoever has the volume's name keeps the service from starting.
    rules = policy(images={"anonymousVolumes": "slot"}, mounts={"createVolumes": True})
    body: dict[str, Any] = {**BODY, "HostConfig": {"NetworkMode": "none"}}
    if volume:
        body["HostConfig"]["Binds"] = [f"{volume}:/data"]
    answer = create(
        [DECLARES, (ReadEngine("/volumes/web.1.data-81ce9a"), NOT_FOUND), ("refusal", RECORDED)],
        knows=state(inventory(), policy=rules),
        body=body,
        name=container,
    )
    assert (answer.status, answer.rule) == (403, "name.reserved")


# Mounts


def test_bind_sources_are_looked_at_last_and_a_writable_one_is_warned_of() -> None:
    source = "/var/lib/platform/x"
    look = InspectPaths((source,))
    body = {**BODY, "HostConfig": {"NetworkMode": "none", "Binds": [f"{source}:/x"]}}
    answer = create(
        [
            LOOK_IMAGE,
            FREE,
            (look, (PathFacts(source, "dir", mode=0o755),)),
            ("intent", RECORDED),
            (Forwarded("/containers/create?name=job"), MADE),
            ("outcome", RECORDED),
        ],
        body=body,
    )
    assert answer.json["Warnings"] == [f"{source} is mounted writable: read-only is safer"]
    refused = create(
        [LOOK_IMAGE, FREE, (look, (PathFacts(source, "symlink"),)), ("refusal", RECORDED)],
        body=body,
    )
    assert (refused.status, refused.rule) == (403, "mount.symlink")


# Quotas


def crowded(count: int) -> dict[str, ContainerItem]:
    return {
        f"{n:064x}": ContainerItem(
            f"{n:064x}", "", f"s{n}", 0, "", "alice", "client", "i", REFERENCE, Settings("x")
        )
        for n in range(count)
    }


SWEEP: list[Step] = [
    (ReadEngine("/info"), reply({"ID": "engine-1"})),
    (ReadEngine(ALL_CONTAINERS), reply([{"Id": key} for key in crowded(2)])),
    (ReadEngine(ALL_NETWORKS), reply([{"Id": NETWORK}])),
    (ReadEngine(ALL_VOLUMES), reply({"Volumes": [{"Name": "alice-data"}]})),
]


def few() -> Any:
    return policy(quotas={"perOwner": 2, "perService": 2})


def test_a_quota_counts_what_is_there_and_says_so() -> None:
    knows = state(inventory(containers=crowded(2)), policy=few())
    answer = create([LOOK_IMAGE, FREE, *SWEEP, ("refusal", RECORDED)], knows=knows)
    assert (answer.status, answer.rule) == (403, "quota.owner")


def test_a_volume_that_is_made_for_a_container_counts_too() -> None:
    rules = policy(mounts={"createVolumes": True}, quotas={"volumesPerOwner": 1})
    knows = state(inventory(), policy=rules)
    host = {"NetworkMode": "none", "Binds": [f"{KEPT}:/data"]}
    sweep: list[Step] = [
        (ReadEngine("/info"), reply({"ID": "engine-1"})),
        (
            ReadEngine(ALL_CONTAINERS),
            reply([{"Id": k} for k in knows.inventory.containers]),
        ),
        (ReadEngine(ALL_NETWORKS), reply([{"Id": key} for key in knows.inventory.networks])),
        (
            ReadEngine(ALL_VOLUMES),
            reply({"Volumes": [{"Name": k} for k in knows.inventory.volumes]}),
        ),
    ]
    dialogue: list[Step] = [
        LOOK_IMAGE,
        (LOOK_KEPT, NOT_FOUND),
        FREE,
        (InspectPaths((KEPT_DATA,)), (PathFacts(KEPT_DATA, "missing"),)),
        *sweep,
        ("refusal", RECORDED),
    ]
    answer = create(dialogue, knows=knows, body={**BODY, "HostConfig": host})
    assert (answer.status, answer.rule) == (403, "quota.volumes")


def test_what_went_away_unseen_does_not_count() -> None:
    knows = state(inventory(containers=crowded(3)), policy=few())
    third = f"{2:064x}"
    answer = create(
        [
            LOOK_IMAGE,
            FREE,
            *SWEEP,
            (ReadEngine(f"/containers/{third}/json"), NOT_FOUND),
            ("read", RECORDED),
            ("refusal", RECORDED),
        ],
        knows=knows,
    )
    assert answer.rule == "quota.owner"
    assert third not in knows.inventory.containers
    knows.inventory = replace(knows.inventory, containers=crowded(1))
    answer = create(
        [
            LOOK_IMAGE,
            FREE,
            ("intent", RECORDED),
            (Forwarded("/containers/create?name=job"), MADE),
            ("outcome", RECORDED),
        ],
        knows=knows,
    )
    assert answer.status == 201


def test_two_creates_at_once_do_not_both_take_the_last_place() -> None:
    knows = state(inventory(containers=crowded(1)), policy=few())
    first = handle(request("POST", "/containers/create?name=one", body=BODY), knows)
    first.send(None)
    first.send(LOOK_IMAGE[1])  # type: ignore[arg-type]
    intent: Any = first.send(NOT_FOUND)
    # Its intent is on its way to the disk.
    sweep = [
        (c, a) if i != 1 else (c, reply([{"Id": f"{0:064x}"}])) for i, (c, a) in enumerate(SWEEP)
    ]
    second = create([LOOK_IMAGE, FREE, *sweep, ("refusal", RECORDED)], knows=knows)
    assert second.rule == "quota.owner"
    # And is on the disk. Another look is due after a second.
    at(knows, 1.0)
    forward: Any = first.send(record(knows, intent.entry))
    assert isinstance(forward, Forward)
    third = create([LOOK_IMAGE, FREE, *sweep, ("refusal", RECORDED)], knows=knows)
    assert third.rule == "quota.owner"
    outcome: Any = first.send(Reply(500, b"{}"))
    with pytest.raises(StopIteration):
        first.send(record(knows, outcome.entry))
    # It came to nothing, so the place is free again.
    fourth = create(
        [
            LOOK_IMAGE,
            FREE,
            ("intent", RECORDED),
            (Forwarded("/containers/create?name=job"), MADE),
            ("outcome", RECORDED),
        ],
        knows=knows,
    )
    assert fourth.status == 201
    assert knows.reservations.objects == {}


def test_what_is_made_and_believed_to_be_counts_once() -> None:
    knows = state(inventory(containers={}), policy=few())
    first = handle(request("POST", "/containers/create?name=one", body=BODY), knows)
    first.send(None)
    first.send(LOOK_IMAGE[1])  # type: ignore[arg-type]
    intent: Any = first.send(NOT_FOUND)
    first.send(record(knows, intent.entry))
    first.send(MADE)
    outcome: Any = first.send(NOT_FOUND)  # to the look at what the engine kept
    record(knows, outcome.entry)  # and the steps don't know yet that it is durable
    made = (Forwarded("/containers/create?name=job"), MADE)
    second = [LOOK_IMAGE, FREE, ("intent", RECORDED), made, ("outcome", RECORDED)]
    assert create(second, knows=knows).status == 201


def test_the_settings_that_are_admitted_are_those_that_are_recorded() -> None:
    knows = state(inventory())
    answer = create(
        [
            LOOK_IMAGE,
            FREE,
            ("intent", RECORDED),
            (Forwarded("/containers/create?name=job"), MADE),
            ("outcome", RECORDED),
        ],
        knows=knows,
        body={**BODY, "HostConfig": {"NetworkMode": "none", "Memory": 2**28, "PidsLimit": 9}},
    )
    summary: Any = answer.entries[0].request["summary"]
    assert settings_from_json(summary["settings"]) == Settings(
        name="job", memory=2**28, memory_swap=2**28, nano_cpus=10**9, pids=9
    )
    assert (summary["imageId"], summary["digest"]) == (IMAGE, DIGEST)
