"""Reviews: services are counted by the effect on them, and what is interrupted is said."""

from dataclasses import replace

from controller.core.manifests.revision_hash import revision_of, service_text, slot_text
from controller.core.review.plan_json import review_json
from controller.core.review.plan_text import differences_json
from controller.core.review.review import NOT_KEPT, review, summary_of
from controller.model.desired.desired import Overrides, Revision, Service
from controller.model.desired.plan import Blocked, Downtime, Review
from controller.model.errors import Problem
from controller.model.observed import Image
from controller.model.records import Verdict
from tests.plans import carried, render_differences, render_review
from tests.worlds import (
    IMAGE,
    IMAGE_ID,
    INGRESS,
    ISOLATED,
    WEB,
    container,
    declared,
    deny,
    engine,
    network,
    plan,
    service,
    volume,
)

HOST_PORT = [{"container": 80, "host": 8080}]


def reviewed(desired, observed, *kept, **options):
    return review(
        plan(desired, observed, **options),
        declared=desired,
        desired=desired,
        observed=observed,
        all_overrides={each.key: Overrides((revision(each),)) for each in kept},
    )


def revision(earlier: Service) -> Revision:
    since = "2026-01-01T00:00:00Z"
    text, source = slot_text(earlier.spec), earlier.source
    return Revision(earlier.revision, 1, since, earlier.owner, earlier.spec.image, text, source)


def before(**spec):
    """A service as it was declared before, under its true revision."""
    found = service(**spec)
    return replace(found, revision=revision_of(found.owner, found.key, found.spec))


def of(earlier, **fields):
    return replace(container(**fields), revision=earlier.revision)


def test_each_service_is_counted_once_by_the_gravest_effect():
    desired = declared(
        service("new", replicas=2),
        service("stale"),
        service("altered"),
        service("dead"),
        service("small", replicas=1),
        service("still"),
        network("net"),
        volume("data"),
    )
    observed = engine(
        container("stale", rev="a"),
        container("altered", settings={"memory": 64 << 20}),
        container("dead", state="exited", exit_code=1),
        container("small"),
        container("small", slot=2),
        container("still"),
        container("orphan"),
    )
    summary = summary_of(reviewed(desired, observed))
    assert summary.text == (
        "1 to create, 1 to replace, 1 to update in place, 1 to remove, 1 to scale down, 1 to start; "
        "1 network to create, 1 volume to create; no replica ends before its successor is available"
    )
    assert summary.to_json() | {"text": ""} == {
        "text": "",
        "create": 1,
        "replace": 1,
        "update": 1,
        "remove": 1,
        "addReplicas": 0,
        "scaleDown": 1,
        "stop": 0,
        "restart": 0,
        "start": 1,
        "pulls": 0,
        "builds": 0,
        "networksCreated": 1,
        "networksRemoved": 0,
        "networksRemade": 0,
        "volumesCreated": 1,
        "volumesRemoved": 0,
        "moved": 0,
        "filesDelivered": 0,
        "refused": 0,
        "waiting": 0,
        "blocked": 0,
        "errors": 0,
        "downtime": [],
    }


def test_nothing_to_do_is_said_so_with_what_hinders():
    assert summary_of(reviewed(declared(), engine(networks=()))).text == "nothing to do"
    assert summary_of(reviewed(declared(), engine())).text == "1 network to remove"
    held = replace(
        plan(declared(), engine(networks=())),
        blocked=(Blocked(WEB, "PrunePending", "why", ""),),
        problems=(Problem("code", "message"),),
    )
    assert summary_of(Review(held)).text == "1 removal waits for an approval; 1 error"


def test_a_service_that_must_stop_first_is_expected_to_be_down():
    desired = declared(service(ports=HOST_PORT, stopGracePeriod="30s"))
    networks = (ISOLATED, INGRESS)
    there = container(
        rev="a", settings={"networks": ("platform-ingress", "platform-network")}, stop_grace_s=7
    )
    found = summary_of(reviewed(desired, engine(there, networks=networks)))
    assert found.text.endswith(
        "downtime expected: web until its new container is up (its stop may take 7 s)"
    )
    assert found.to_json()["downtime"] == [
        {
            "object": "Service/default/web",
            "measuredSeconds": None,
            "stopMayTakeSeconds": 7,
            "text": "web until its new container is up (its stop may take 7 s)",
        }
    ]


def test_a_measured_downtime_is_told_as_such():
    earlier = before(rollout={"order": "StopFirst"}, env={"A": "1"})
    desired, observed = declared(service(rollout={"order": "StopFirst"})), engine(of(earlier))
    steering = Overrides((revision(earlier),), down_ms=1249)
    found = review(
        plan(desired, observed),
        declared=desired,
        desired=desired,
        observed=observed,
        all_overrides={WEB: steering},
    )
    assert summary_of(found).text.endswith("; downtime expected: web about 1 s")
    (entry,) = found.entries
    assert entry.downtime == Downtime(WEB, 1.249, 10)


def test_fields_of_the_service_as_a_whole_are_compared_with_what_was_applied():
    applied = service_text(service(replicas=1, rollout={"minHealthy": "30s"}).spec)
    desired = declared(service(replicas=2))
    there, known = engine(container()), {WEB: Overrides(applied=applied)}
    scaled = review(
        plan(desired, there), declared=desired, desired=desired, observed=there, all_overrides=known
    )
    assert render_review(scaled, width=80) == (
        "+ Service/default/web  create 1 of 2 replicas\n"
        "    spec.replicas: 1 -> 2\n"
        "    spec.rollout.minHealthy: 30s -> 10s\n"
        "      web.2-bbbbbbbb: create, start\n"
        "\n"
        "Plan: 0 to create, 0 to replace, 0 to update in place, 0 to remove, 1 to add\n"
        "    replicas to\n"
    )
    desired = declared(service())
    paced = review(
        plan(desired, there), declared=desired, desired=desired, observed=there, all_overrides=known
    )
    assert render_review(paced, width=80) == (
        "= Service/default/web  no container changes\n"
        "    spec.rollout.minHealthy: 30s -> 10s\n"
        "\n"
        "nothing to do\n"
    )
    unreadable = {WEB: Overrides(applied='{"gone": 1}')}
    found = review(
        plan(desired, there),
        declared=desired,
        desired=desired,
        observed=there,
        all_overrides=unreadable,
    )
    assert found.entries == ()


def test_no_downtime_is_expected_while_another_replica_runs():
    desired = declared(service(replicas=2, rollout={"order": "StopFirst"}))
    found = summary_of(reviewed(desired, engine(container(rev="a"), container(slot=2, rev="a"))))
    assert "no replica ends before its successor is available" in found.text


def test_a_refused_service_says_why_once():
    shown = render_review(
        reviewed(declared(service()), engine(), judge=deny("create-container")), width=80
    )
    assert shown == (
        "! Service/default/web  refused\n"
        "    why: slot 1 is missing\n"
        "    refused by the policy: create-container web.1-bbbbbbbb [some.rule]\n"
        "      reason: it may not\n"
        "      remedy: ask somebody\n"
        "\n"
        "Plan: 1 refused by the policy\n"
    )


def test_what_the_policy_fills_in_is_shown_when_asked_for():
    mutated = Verdict("mutate", ("default.swap",), mutations=("memory 2Gi",))
    found = reviewed(declared(service()), engine(), judge=lambda _: mutated)
    assert "default.swap" not in render_review(found, width=80)
    verbose = render_review(found, width=80, verbose=True)
    assert "1 create-container web.1-bbbbbbbb   slot 1 is missing   mutate default.swap" in verbose
    assert "1: the policy fills in memory 2Gi" in verbose


def test_replicas_of_several_revisions_are_compared_each_with_its_own():
    first, second = before(image="web:1"), before(image="web:2")
    desired = declared(service(image="web:3", replicas=2))
    observed = engine(of(first), of(second, slot=2))
    found = review(
        plan(desired, observed),
        declared=desired,
        desired=desired,
        observed=observed,
        all_overrides={WEB: Overrides((revision(first), revision(second)))},
    )
    text = render_differences(found, width=None)
    one, other = (each.revision.removeprefix("v2:")[:8] for each in (first, second))
    assert text == (
        "~ Service/default/web\n"
        f"    web.1-bbbbbbbb (revision {one}):\n"
        "    spec.image: web:1 -> web:3\n"
        f"    web.2-bbbbbbbb (revision {other}):\n"
        "    spec.image: web:2 -> web:3"
    )


def test_an_earlier_document_that_is_not_kept_is_said_so():
    found = reviewed(declared(service(resources={"memory": "96Mi"})), engine(container(rev="a")))
    (entry,) = found.entries
    assert [each.note for each in entry.differences] == [NOT_KEPT]
    assert "spec.resources.memory: 512Mi -> 96Mi" in render_review(found, width=80)


def test_the_digest_of_a_plan_does_not_depend_on_its_review():
    earlier = before(env={"A": "2"})
    desired, observed = declared(service(env={"A": "1"})), engine(of(earlier))
    one, other = reviewed(desired, observed), reviewed(desired, observed, earlier)
    assert one.entries != other.entries
    assert one.plan.digest == other.plan.digest == plan(desired, observed).digest


def test_the_order_of_inputs_does_not_matter():
    earlier = before(image="web:0")
    desired = declared(service(replicas=2), service("api"))
    turned = replace(desired, services=desired.services[::-1])
    containers = (of(earlier), of(earlier, slot=2), container("api", settings={"memory": 1 << 30}))
    one = reviewed(desired, engine(*containers), earlier)
    other = reviewed(turned, engine(*containers[::-1]), earlier)
    assert review_json(one) == review_json(other)
    assert render_review(one, width=80) == render_review(other, width=80)


def test_json_has_effect_slots_and_changes_of_each_object():
    earlier = before(env={"A": "1"}, resources={"memory": "64Mi"})
    desired = declared(service(env={"A": "2"}, resources={"memory": "96Mi"}))
    found = reviewed(desired, engine(of(earlier)), earlier)
    changes: list[dict[str, object]] = [
        {"path": "spec.env.A", "text": "spec.env.A: changed", "changed": True},
        {
            "path": "spec.resources.memory",
            "text": "spec.resources.memory: 64Mi -> 96Mi",
            "old": "64Mi",
            "new": "96Mi",
        },
    ]
    where: dict[str, object] = {
        "kind": "document",
        "revision": earlier.revision,
        "containers": ["web.1-bbbbbbbb"],
    }
    takes = "take the name web on platform-network"
    assert review_json(found)["objects"] == [
        {
            "object": "Service/default/web",
            "effect": "replace",
            "text": "replace 1 replica (StartFirst)",
            "slots": {"replaced": 1},
            "changes": [{**change, **where} for change in changes],
            "different": True,
            "steps": [
                f"web.1-bbbbbbbb.2: create, start, wait (must be up for 10s), {takes}",
                "web.1-bbbbbbbb: stop, remove",
            ],
            "order": "StartFirst",
            "source": {"file": "web.yaml", "line": 1},
            "newAddressesOn": ["platform-network"],
        }
    ]
    assert differences_json(carried(found)) == {
        "objects": [
            {
                "object": "Service/default/web",
                "changes": [{**change, **where} for change in changes],
            }
        ]
    }


def test_a_service_of_which_nothing_is_to_run_is_new_only_until_it_was_acted_on():
    desired, observed = declared(service(replicas=0)), engine(networks=())
    assert reviewed(desired, observed).entries[0].is_new
    known = {WEB: Overrides(applied=service_text(service(replicas=0).spec))}
    made = plan(desired, observed)
    found = review(made, declared=desired, desired=desired, observed=observed, all_overrides=known)
    assert found.entries == ()
    scaled = reviewed(desired, engine(container()))
    assert not any(entry.is_new for entry in scaled.entries)
    assert "- Service/default/web  remove 1 replica\n" in render_review(scaled, width=80)


def test_what_is_to_go_is_a_difference_too():
    found = reviewed(declared(), engine(container()))
    assert render_differences(found, width=80) == (
        "- Network/default/platform-network  is no longer needed\n"
        "- Service/default/web  is no longer declared"
    )
    assert differences_json(carried(found))["objects"] == [
        {"object": "Network/default/platform-network", "removed": True, "changes": []},
        {"object": "Service/default/web", "removed": True, "changes": []},
    ]


def test_text_of_strangers_plays_no_tricks():
    ill = container(health="unhealthy", complaint="\x1b[31mred")
    shown = render_review(reviewed(declared(service()), engine(ill)), width=80)
    assert "\x1b" not in shown and "\\u001b[31mred" in shown


def test_colour_is_put_on_by_whoever_shows_it():
    found = reviewed(declared(service(image="web:2")), engine(container(rev="a")))
    painted = render_review(found, width=80, paint=lambda style, text: f"<{style}>{text}")
    assert painted.startswith("<change>~ Service/default/web  replace 1 replica (StartFirst)\n")
    assert "<change>    spec.image: " in painted


def test_a_pipe_gets_whole_lines():
    long = "ghcr.io/" + "a" * 100
    found = reviewed(declared(service(image=f"{long}:2")), engine(container(rev="a")))
    shown = render_review(found, width=None)
    assert f"    spec.image: ghcr.io/platformnetwork/web:1 -> {long}:2\n" in shown


def test_an_image_that_was_built_again_is_offered_and_nothing_is_planned():
    desired = declared(service())
    pins = {service().revision: Image(IMAGE_ID)}
    built = Image("sha256:" + "2" * 64)

    def hints(here, **more):
        seen = engine(container(), images={IMAGE: here}, pins=pins)
        return reviewed(replace(desired, **more), seen).hints

    (hint,) = hints(built)
    assert hint == (
        f"image {IMAGE} was rebuilt: sha256:111111111111 -> sha256:222222222222; "
        "`trimtab restart web` takes it"
    )
    assert hints(Image(IMAGE_ID)) == hints(None) == ()
    assert hints(replace(built, digest="sha256:" + "3" * 64)) == (), "a registry's tag that moved"
    offered = reviewed(desired, engine(container(), images={IMAGE: built}, pins=pins))
    assert not offered.plan.actions
    assert hint in render_review(offered, width=None)
    assert review_json(offered)["hints"] == [hint]
