"""What a container needs before it can be created: image, networks, volumes."""

from dataclasses import replace

import pytest

from controller.core.engine_api.create_body import joined_networks
from controller.core.planning.images_networks_volumes import (
    KnownImages,
    image_references,
    network_key,
    repository,
)
from controller.model.desired.desired import BoundName, Restarting, Volume
from controller.model.desired.plan import (
    BuildImage,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
)
from controller.model.desired.spec.mounts import VolumeSpec
from controller.model.desired.spec.network import NetworkSpec
from controller.model.names import Key, NetworkNames
from controller.model.observed import Image, ObservedNetwork, ObservedVolume
from tests.worlds import (
    BRIDGE,
    IMAGE,
    IMAGE_ID,
    INGRESS,
    ISOLATED,
    container,
    declared,
    deny,
    engine,
    network,
    plan,
    revision,
    service,
    volume,
)

DIGEST = "sha256:" + "d" * 64
PINNED = f"ghcr.io/platformnetwork/web@{DIGEST}"
OTHER_ID = "sha256:" + "2" * 64
PORT = [{"container": 80, "host": 8080}]
CREATE = [("create-container", "web.1-bbbbbbbb"), ("start-container", "web.1-bbbbbbbb")]
DATA = [{"type": "volume", "source": "data", "target": "/data"}]


def moves(desired, observed, **more):
    return [(action.verb, action.target) for action in plan(desired, observed, **more).actions]


def problems(desired, observed):
    made = plan(desired, observed)
    return [(p.code, p.message, p.file, p.line, str(p.key)) for p in made.problems], made.actions


@pytest.mark.parametrize(
    ("spec", "networks"),
    [
        ({}, ("platform-network.team",)),
        ({"ports": PORT}, ("platform-network.team", "platform-ingress.team")),
        ({"network": {"mode": "none"}}, ()),
        ({"network": {"mode": "bridge"}, "ports": PORT}, ("platform-bridge.team",)),
        ({"network": {"attach": ["db", "mq"]}}, ("platform-network.team", "team.db", "team.mq")),
    ],
)
def test_a_service_joins_the_networks_of_its_namespace(spec, networks):
    assert joined_networks(service(namespace="team", **spec), NetworkNames()) == networks


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("web", "web"),
        ("web:1", "web"),
        (f"web:1@{DIGEST}", "web"),
        ("localhost:5000/web", "localhost:5000/web"),
        ("localhost:5000/a/web:1", "localhost:5000/a/web"),
        (IMAGE, "ghcr.io/platformnetwork/web"),
    ],
)
def test_a_repository_is_a_reference_without_tag_and_digest(reference, name):
    assert repository(reference) == name


def pinned(image: Image) -> dict[str, Image]:
    return {revision("b"): image, revision("a"): Image("sha256:old")}


PIN = Image(OTHER_ID, DIGEST)
LOCAL = Image(OTHER_ID)


@pytest.mark.parametrize(
    ("images", "pins", "image", "pull"),
    [
        ({IMAGE: Image(IMAGE_ID)}, {}, IMAGE, []),
        ({IMAGE: None}, {}, IMAGE, [IMAGE]),
        ({}, {}, IMAGE, [IMAGE]),
        # The tag moved: the pin is what runs, by its digest if the image may have gone.
        ({IMAGE: Image(IMAGE_ID)}, pinned(PIN), PINNED, [PINNED]),
        ({IMAGE: Image(IMAGE_ID), OTHER_ID: None}, pinned(PIN), PINNED, [PINNED]),
        ({IMAGE: Image(IMAGE_ID), OTHER_ID: PIN}, pinned(PIN), OTHER_ID, []),
        ({IMAGE: PIN}, pinned(PIN), OTHER_ID, []),
        ({IMAGE: None, "other": PIN}, pinned(PIN), OTHER_ID, []),
        # A local image has no digest to get it back by; while nobody looked it may be there.
        ({IMAGE: Image(IMAGE_ID)}, pinned(LOCAL), OTHER_ID, []),
    ],
)
def test_a_pin_decides_what_runs_and_what_is_pulled(images, pins, image, pull):
    observed = engine(images=images, pins=pins)
    assert KnownImages(observed).of(service()) == image
    desired = declared(service())
    assert moves(desired, observed) == [("pull-image", ref) for ref in pull] + CREATE
    creates = [a for a in plan(desired, observed).actions if isinstance(a, CreateContainer)]
    assert [create.image for create in creates] == [image]


def test_an_image_that_a_container_was_made_from_is_there():
    observed = engine(container("other", image_id=OTHER_ID), images={}, pins=pinned(PIN))
    assert KnownImages(observed).of(service()) == OTHER_ID


@pytest.mark.parametrize(
    ("containers", "pins", "pull"),
    [
        ((), {}, True),
        ((container(rev="a"),), {}, True),
        # A heal must not change the image of a revision that runs already.
        ((container(settings={"pids": 4}),), {}, False),
        ((), {revision("b"): Image(IMAGE_ID)}, False),
    ],
)
def test_always_pulls_anew_only_for_a_new_revision(containers, pins, pull):
    made = moves(declared(service(pullPolicy="Always")), engine(*containers, pins=pins))
    assert (("pull-image", IMAGE) in made) is pull


@pytest.mark.parametrize(("pins", "pull"), [({}, True), ({revision("b"): Image(IMAGE_ID)}, False)])
def test_a_restart_pulls_anew_under_always_once_its_pin_is_forgotten(pins, pull):
    leaving = Restarting(frozenset({container().id}), "uid:0")
    wanted = replace(service(pullPolicy="Always"), restarting=leaving)
    made = moves(declared(wanted), engine(container(), pins=pins))
    assert (("pull-image", IMAGE) in made) is pull


def test_the_cause_of_a_pull_says_whether_the_image_is_absent_or_wanted_anew():
    def cause(observed):
        return plan(declared(service(pullPolicy="Always")), observed).actions[0].cause

    assert cause(engine()) == f"pullPolicy is Always: pull {IMAGE} again"
    assert cause(engine(images={})) == f"{IMAGE} isn't here"


def test_an_image_is_pulled_once_for_all_slots_of_a_service():
    made = moves(declared(service(replicas=2), service("other")), engine(images={}))
    assert [move for move in made if move[0] == "pull-image"] == [("pull-image", IMAGE)] * 2
    assert made.index(("create-container", "other.1-bbbbbbbb")) == 1


def test_an_absent_image_with_pull_policy_never_is_a_problem():
    found, actions = problems(declared(service(pullPolicy="Never")), engine(images={IMAGE: None}))
    message = f"{IMAGE} isn't here, and pullPolicy is Never"
    assert (found, actions) == (
        [("image.absent", message, "web.yaml", 1, "Service/default/web")],
        (),
    )
    remedies = [
        p.remedy for p in plan(declared(service(pullPolicy="Never")), engine(images={})).problems
    ]
    assert remedies == [f"load {IMAGE} onto the engine, or set pullPolicy: IfNotPresent"]
    assert moves(declared(service(pullPolicy="Never")), engine()) == CREATE


def test_a_local_image_that_a_revision_runs_and_that_is_gone_is_a_problem():
    observed = engine(images={IMAGE: Image(IMAGE_ID), OTHER_ID: None}, pins=pinned(LOCAL))
    found, actions = problems(declared(service()), observed)
    message = f"the local image {OTHER_ID} that this revision runs is gone"
    assert (found, actions) == (
        [("image.absent", message, "web.yaml", 1, "Service/default/web")],
        (),
    )
    remedies = [p.remedy for p in plan(declared(service()), observed).problems]
    assert remedies == [f"load {IMAGE} onto the engine, or change spec.image"]


def test_nothing_is_stopped_for_an_image_that_cannot_be_had():
    observed = engine(container(rev="a"), images={})
    assert problems(declared(service(pullPolicy="Never")), observed)[1] == ()


def test_an_absent_image_does_not_keep_what_is_there_from_starting():
    observed = engine(container(state="exited"), images={})
    assert moves(declared(service(pullPolicy="Never")), observed) == CREATE[1:]


def test_the_planner_needs_to_know_references_and_the_ids_of_their_pins():
    desired = declared(service(), service("other", image="other:1"))
    assert image_references(desired) == {IMAGE, "other:1"}
    observed = engine(pins={revision("b"): PIN, revision("c"): Image("sha256:no")})
    assert image_references(desired, observed) == {IMAGE, "other:1", OTHER_ID}


def test_networks_and_volumes_are_made_once_where_they_are_needed_first():
    desired = declared(
        service("a", ports=PORT, mounts=DATA),
        service("b", mounts=DATA, network={"mode": "bridge"}),
        service("c", namespace="team", mounts=DATA),
    )
    made = plan(desired, engine(networks=()))
    assert [
        (str(a.object), a.verb, a.target, getattr(a, "owner", ""), a.cause)
        for a in made.actions
        if a.verb in ("create-network", "create-volume")
    ] == [
        ("Service/default/a", "create-network", "platform-network", "team", "first used by a"),
        ("Service/default/a", "create-network", "platform-ingress", "team", "first used by a"),
        ("Service/default/a", "create-volume", "data", "team", "first used by a"),
        ("Service/default/b", "create-network", "platform-bridge", "team", "first used by b"),
        ("Service/team/c", "create-network", "platform-network.team", "team", "first used by c"),
        ("Service/team/c", "create-volume", "team.data", "team", "first used by c"),
    ]


def test_networks_are_made_as_they_should_be():
    desired = declared(
        service("a", ports=PORT),
        service("b", network={"mode": "bridge", "attach": ["in", "out"]}),
        network("in"),
        network("out", internal=False),
    )
    shapes = {
        a.target: (a.internal, a.masquerade, a.icc, a.precondition.absent)
        for a in plan(desired, engine(networks=())).actions
        if isinstance(a, CreateNetwork)
    }
    assert shapes == {
        "platform-network": (True, True, True, "platform-network"),
        "platform-ingress": (False, False, False, "platform-ingress"),
        "platform-bridge": (False, True, True, "platform-bridge"),
        "in": (True, True, True, "in"),
        "out": (False, True, True, "out"),
    }


def test_a_network_that_vanished_is_made_before_a_start_too():
    made = moves(declared(service()), engine(container(state="exited"), networks=()))
    assert made == [("create-network", "platform-network"), CREATE[1]]


def test_declared_networks_and_volumes_are_made_first_and_even_if_unused():
    desired = declared(
        network("back"), volume("data"), volume("more", namespace="team"), service(mounts=DATA)
    )
    assert moves(desired, engine(networks=())) == [
        ("create-network", "back"),
        ("create-volume", "data"),
        ("create-volume", "team.more"),
        ("create-network", "platform-network"),
        *CREATE,
    ]
    there = engine(
        networks=(
            ISOLATED,
            ObservedNetwork("n", "back", ours=True, origin="controller", internal=True),
        ),
        volumes=(
            ObservedVolume("data", ours=True, origin="controller"),
            ObservedVolume("team.more", ours=True, origin="controller"),
        ),
    )
    assert moves(desired, there) == CREATE


def test_alone_a_service_makes_what_it_needs_under_the_key_that_declares_it():
    desired = declared(
        network("back"), volume("data"), service(mounts=DATA, network={"attach": ["back"]})
    )
    wanted = service().key
    made = plan(desired, engine(), only=wanted)
    assert [(str(a.object), a.verb, a.target) for a in made.actions[:2]] == [
        ("Network/default/back", "create-network", "back"),
        ("Volume/default/data", "create-volume", "data"),
    ]
    assert {str(a.object) for a in made.actions[2:]} == {"Service/default/web"}


FOREIGN = "the network {} on this engine isn't ours"
WRONG = "the network {} on this engine isn't what it should be"


@pytest.mark.parametrize(
    ("seen", "spec", "message"),
    [
        (replace(ISOLATED, ours=False), {}, FOREIGN),
        (replace(ISOLATED, internal=False), {}, WRONG),
        (replace(ISOLATED, icc=False), {}, WRONG),
        (replace(ISOLATED, driver="overlay"), {}, WRONG),
        (replace(INGRESS, masquerade=True), {"ports": PORT}, WRONG),
        (replace(INGRESS, icc=True), {"ports": PORT}, WRONG),
        (replace(INGRESS, internal=True), {"ports": PORT}, WRONG),
        (replace(BRIDGE, masquerade=False), {"network": {"mode": "bridge"}}, WRONG),
        (replace(BRIDGE, ours=False), {"network": {"mode": "bridge"}}, FOREIGN),
    ],
)
@pytest.mark.parametrize("there", [(), (container(state="exited"),), (container(rev="a"),)])
def test_a_foreign_or_wrong_network_is_never_used(seen, spec, message, there):
    status_of = tuple(n for n in (ISOLATED, INGRESS, BRIDGE) if n.name != seen.name)
    found, actions = problems(
        declared(service(**spec)), engine(*there, networks=(*status_of, seen))
    )
    place = ("web.yaml", 1, "Service/default/web")
    assert found == [("network.foreign", message.format(seen.name), *place)]
    assert [a for a in actions if a.verb != "remove-network"] == []


def test_an_internal_network_masquerades_nothing_whatever_it_says():
    seen = replace(ISOLATED, masquerade=False)
    assert moves(declared(service()), engine(networks=(seen,))) == CREATE


def test_a_foreign_network_beside_ours_of_the_same_name_is_noticed():
    foreign = replace(ISOLATED, id="x", ours=False)
    for networks in ((ISOLATED, foreign), (foreign, ISOLATED)):
        found, actions = problems(declared(service()), engine(networks=networks))
        assert [code for code, *_ in found] == ["network.foreign"]
        assert actions == ()


def test_what_runs_is_left_beside_a_foreign_network():
    observed = engine(container(), networks=(replace(ISOLATED, ours=False),))
    assert problems(declared(service()), observed) == ([], ())


def test_the_remedies_for_a_foreign_network_and_volume_are_named():
    observed = engine(
        networks=(replace(ISOLATED, ours=False),), volumes=(ObservedVolume("data", ours=False),)
    )
    made = plan(declared(service(mounts=DATA)), observed)
    assert [p.remedy for p in made.problems] == [
        "remove it (docker network rm platform-network), or name another one: a declared network in its document, an implied one in the policy's networks",
        "name another volume, or rename that one's data to it by hand",
    ]


def sized(size: int | None, engine_name: str | None = None) -> Volume:
    spec = VolumeSpec.model_construct(size=size, engine_name=engine_name)
    return replace(volume("data"), spec=spec)


def on_engine(size: str = "") -> ObservedVolume:
    return ObservedVolume("data", ours=True, options=(("size", size),) if size else ())


@pytest.mark.parametrize("by", [[], [service(mounts=DATA)]])
def test_a_volume_is_created_with_its_size_also_for_its_first_user(by):
    made = plan(declared(sized(10 << 30), *by), engine())
    (created,) = [each for each in made.actions if isinstance(each, CreateVolume)]
    assert created.size == 10 << 30


@pytest.mark.parametrize(
    ("seen", "declared_size", "message", "remedy"),
    [
        (on_engine("5368709120"), 10 << 30, "made with 5Gi, its document says 10Gi", "size: 5Gi"),
        (on_engine(), 10 << 30, "made with no size, its document says 10Gi", "write no size"),
        (on_engine("5g"), None, "made with 5Gi, its document says no size", "write size: 5Gi"),
    ],
)
def test_a_changed_size_is_a_problem_of_the_volume_alone(seen, declared_size, message, remedy):
    made = plan(declared(sized(declared_size), service(mounts=DATA)), engine(volumes=(seen,)))
    (problem,) = made.problems
    assert (problem.code, str(problem.key)) == ("volume.size", "Volume/default/data")
    assert message in problem.message
    assert remedy in problem.remedy
    created = [type(each) for each in made.actions if each.object.kind == "Service"]
    assert CreateVolume not in created
    assert CreateContainer in created


@pytest.mark.parametrize("size", ["10737418240", "10g", "10GiB"])
def test_a_volume_with_the_declared_size_has_no_problem(size):
    assert plan(declared(sized(10 << 30)), engine(volumes=(on_engine(size),))).problems == ()


def test_a_fraction_is_a_size_for_documents_and_volumes_alike():
    assert plan(declared(sized(3 << 29)), engine(volumes=(on_engine("1.5g"),))).problems == ()


@pytest.mark.parametrize(
    ("engine_name", "remedy"),
    [(None, "dump it, declare"), ("data", "write no size; or dump it, declare")],
)
def test_no_remedy_writes_a_size_that_documents_refuse(engine_name, remedy):
    seen = replace(on_engine("1000000"), belongs_to="default")
    (problem,) = plan(declared(sized(1 << 20, engine_name)), engine(volumes=(seen,))).problems
    assert "was made with 1000000B, its document says 1Mi" in problem.message
    assert problem.remedy.startswith(remedy)


def test_an_adopted_volume_keeps_its_size_if_its_document_has_none():
    adopted = replace(on_engine("5g"), name="shop_data", belongs_to="default")
    seen = engine(volumes=(adopted,))
    assert plan(declared(sized(None, engine_name="shop_data")), seen).problems == ()
    (problem,) = plan(declared(sized(1 << 30, engine_name="shop_data")), seen).problems
    assert problem.code == "volume.size"


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (ObservedVolume("data", ours=False), "the volume data on this engine isn't ours"),
        (
            ObservedVolume("data", ours=True, driver="nfs"),
            "the volume data on this engine isn't a plain local one",
        ),
        (
            ObservedVolume("data", ours=True, options=(("device", "/etc"),)),
            "the volume data on this engine isn't a plain local one",
        ),
    ],
)
def test_a_volume_that_is_not_ours_or_could_be_any_folder_is_never_used(seen, message):
    observed = engine(volumes=(seen,))
    assert problems(declared(service(mounts=DATA)), observed) == (
        [("volume.foreign", message, "web.yaml", 1, "Service/default/web")],
        (),
    )
    assert problems(declared(volume("data")), observed)[0] == [
        ("volume.foreign", message, "data.yaml", 1, "Volume/default/data")
    ]


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (ObservedNetwork("x", "back", ours=False, internal=True), FOREIGN),
        (ObservedNetwork("x", "back", ours=True, internal=False), WRONG),
    ],
)
def test_a_declared_network_that_another_holds_the_name_of_is_a_problem(seen, message):
    observed = engine(networks=(ISOLATED, seen))
    found, actions = problems(declared(network("back"), service()), observed)
    assert found == [
        ("network.foreign", message.format("back"), "back.yaml", 1, "Network/default/back")
    ]
    assert [a.verb for a in actions] == ["create-container", "start-container"]


def test_an_attached_network_that_nothing_declares_is_a_problem():
    attached = service(network={"attach": ["back"]})
    found, actions = problems(declared(attached), engine())
    message = "spec.network.attach names back, which no Network declares"
    assert (found, actions) == (
        [("network.undeclared", message, "web.yaml", 1, "Service/default/web")],
        (),
    )
    # It is there: its document may be the one that can't be read.
    there = (ISOLATED, ObservedNetwork("x", "back", ours=True, origin="controller", internal=False))
    assert problems(declared(attached), engine(networks=there))[0] == []
    foreign = (ISOLATED, ObservedNetwork("x", "back", ours=False))
    found, _ = problems(declared(attached), engine(networks=foreign))
    assert [code for code, *_ in found] == ["network.foreign"]


def test_a_denied_network_is_shown_once_and_keeps_its_services_from_being_created():
    made = plan(
        declared(service("a"), service("b"), network("back")),
        engine(networks=()),
        judge=deny("create-network"),
    )
    assert [(a.verb, a.target, a.verdict.decision) for a in made.actions] == [
        ("create-network", "back", "deny"),
        ("create-network", "platform-network", "deny"),
        ("create-network", "platform-network", "deny"),
    ]
    assert [a.object.name for a in made.actions] == ["back", "a", "b"]


@pytest.mark.parametrize(
    ("namespace", "name", "key"),
    [
        ("default", "platform-network", Key("Network", "default", "platform-network")),
        ("", "back", Key("Network", "default", "back")),
        ("team", "team.back", Key("Network", "team", "back")),
        (
            "team",
            "platform-network.team",
            Key("Network", "team", "platform-network.team"),
        ),
    ],
)
def test_a_network_on_the_engine_has_the_key_of_its_document(namespace, name, key):
    assert network_key(ObservedNetwork("n", name, ours=True, namespace=namespace)) == key


ADOPTED = (
    replace(volume("data"), spec=VolumeSpec.model_validate({"engineName": "shop_data"})),
    replace(network("back"), spec=NetworkSpec.model_validate({"engineName": "shop_back"})),
)
BOUND = (BoundName("Network", "back", "shop_back"), BoundName("Volume", "data", "shop_data"))


def test_an_object_with_an_engine_name_is_never_created():
    web = replace(service(mounts=DATA, network={"attach": ["back"]}), bound_names=BOUND)
    found, actions = problems(declared(web, *ADOPTED), engine())
    assert {code for code, *_ in found} == {"volume.not-adopted", "network.not-adopted"}
    assert not [action for action in actions if action.verb != "wait"]


def test_an_object_with_an_engine_name_that_is_there_is_to_be_adopted_and_never_removed():
    seen = engine(
        volumes=(ObservedVolume("shop_data", ours=False),),
        networks=(ObservedNetwork("n", "shop_back", False, "", "", True),),
    )
    for world, made in ((seen, ""), (engine(), "docker {0} create {1}, then ")):
        desired = declared(*ADOPTED)
        found = {p.code: p.remedy for p in plan(desired, world).problems}
        for kind, name in (("volume", "shop_data"), ("network", "shop_back")):
            remedy = found[f"{kind}.not-adopted"]
            assert remedy.startswith(f"{made.format(kind, name)}trimtab {kind} adopt {name} --as ")


def test_an_object_adopted_for_another_namespace_is_never_used():
    seen = engine(
        volumes=(ObservedVolume("shop_data", ours=True, belongs_to="shop"),),
        networks=(
            ObservedNetwork("n", "shop_back", True, "controller", "shop", True, adopted=True),
        ),
    )
    found, _ = problems(declared(*ADOPTED), seen)
    assert {code for code, *_ in found} == {"volume.foreign", "network.foreign"}


def test_an_adopted_network_outlives_its_document():
    left = ObservedNetwork("n", "shop_back", True, "controller", "default", True)
    assert moves(declared(service(replicas=0)), engine(networks=(left,))) == [
        ("remove-network", "shop_back")
    ]
    assert (
        moves(declared(service(replicas=0)), engine(networks=(replace(left, adopted=True),))) == []
    )


BUILD = {"context": "web", "digest": f"sha256:{'0' * 64}"}


def test_an_image_of_a_build_is_built_if_it_is_not_here():
    desired = declared(service(build=BUILD))
    assert moves(desired, engine(images={IMAGE: None})) == [("build-image", IMAGE), *CREATE]
    assert moves(desired, engine()) == CREATE, "an image that is here is never built again"
    (built, *_) = plan(desired, engine(images={IMAGE: None})).actions
    assert isinstance(built, BuildImage)
    assert (built.build.context, built.owner) == ("web", "team")


def test_a_build_that_is_lost_is_built_by_a_restart():
    desired = declared(service(build=BUILD, pullPolicy="Never"))
    lost = engine(images={IMAGE: None, IMAGE_ID: None}, pins={revision("b"): Image(IMAGE_ID)})
    (problem,), _ = plan(desired, lost).problems, ()
    assert (problem.code, problem.remedy) == ("image.absent", "build it again: trimtab restart web")
    assert moves(desired, engine(images={IMAGE: None}))[0] == ("build-image", IMAGE)
