"""Golden plans: a folder is a sentence, with what is declared, what the engine shows, and the plan.

``desired.yaml`` is what a user writes. ``before.yaml``, where there is one, has the documents as they
were: containers of ``revision: before`` were made from them, their revisions are kept, and the services
in ``pinned`` are rolled back to them. ``plan.txt`` is the flat form of the plan, ``shown.txt`` what people
see at 80 columns. ``engine.yaml`` lists what is there: containers (of the
wanted revision, running and as admitted unless ``altered`` says otherwise), networks, volumes, images,
the VOLUMEs that they declare and what the policy does there, slots in backoff, what is in quarantine, verbs
that policy denies, and what services depended on when last declared. The prune guard has its say at a second equal look.

``python -m tests.golden.scenes`` writes all of both anew: read the difference before you keep it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from controller.app.controller import pass_policy
from controller.core.drift.actions import Judge
from controller.core.engine_api.create_body import RESTART
from controller.core.manifests.check_together import desired_of
from controller.core.manifests.revision_hash import service_text, slot_text
from controller.core.planning import planner
from controller.core.planning.context import PlanContext, pending_moves, with_moves
from controller.core.planning.images_networks_volumes import with_image_volumes
from controller.core.planning.quarantine import Quarantine, QuarantineLeft
from controller.core.planning.service_order import KnownServices
from controller.core.review.review import review
from controller.core.service import history, prune_guard
from controller.core.service.overrides import apply_overrides
from controller.core.service.prune_guard import PruneMemory
from controller.model.desired.desired import Desired, Overrides, Pin, Revision, Service
from controller.model.desired.plan import Plan, Review
from controller.model.desired.spec.service import RestartPolicy
from controller.model.names import DEFAULT_NAMESPACE, NetworkNames, container_name, service_key
from controller.model.observed import (
    Container,
    ContainerState,
    Image,
    Observed,
    ObservedNetwork,
    ObservedVolume,
    Settings,
)
from controller.model.policy.document import Policy
from controller.model.policy.values import AnonymousVolumes
from controller.model.quantities import format_instant, parse_bytes, parse_duration_ms
from tests.plans import flat_text, render_review
from tests.worlds import deny

FOLDER = Path(__file__).parent
OLD = "v2:" + "0" * 64
IMAGE_ID = "sha256:" + "1" * 64
NEW_YEAR = 1_767_225_600.0


def scenes() -> list[str]:
    """Every sentence, in order."""
    return sorted(path.parent.name for path in FOLDER.glob("*/desired.yaml"))


def texts_of(scene: str) -> dict[str, str]:
    """The plan of one scene, by the file that has it: flat, and as people see it."""
    plan, reviewed = plan_of(scene)
    return {"plan.txt": flat_text(plan), "shown.txt": render_review(reviewed, width=80)}


def plan_of(scene: str) -> tuple[Plan, Review]:
    """The plan of one scene, and its review."""
    folder = FOLDER / scene
    written = _documents(folder / "desired.yaml")
    before = _documents(folder / "before.yaml")
    shown: dict[str, Any] = yaml.safe_load((folder / "engine.yaml").read_text("utf-8")) or {}
    steerings = {
        service.key: _steering(service, written, pinned=service.key.name in shown.get("pinned", ()))
        for service in before.services
    }
    observed = _observed(shown, written, before)
    if any(service.moved for service in written.services):
        for service in written.services:
            for was in [key for key in service.moved if key in steerings]:
                now = history.moved(steerings[was], service.key)
                steerings[service.key] = now
        written = history.with_kept_revisions(written, steerings, observed)
    desired = apply_overrides(written, steerings)
    first = prune_guard.guard(desired, observed, PruneMemory(), now=0, approved=False)
    second = prune_guard.guard(
        desired, observed, first.memory, now=prune_guard.SETTLE_S, approved=False
    )
    held = {
        (service_key(DEFAULT_NAMESPACE, name), slot): text
        for name, slots in shown.get("held", {}).items()
        for slot, text in slots.items()
    }
    remembered = {
        service_key(DEFAULT_NAMESPACE, name): {service_key(DEFAULT_NAMESPACE, o) for o in others}
        for name, others in shown.get("remembered", {}).items()
    }
    context = PlanContext(
        backoff=held,
        quarantine=_quarantine(shown.get("quarantine", {"keep": "0s"})),
        known_services=KnownServices(remembered=remembered),
    )

    def rule(_service: Service) -> AnonymousVolumes:
        word: AnonymousVolumes = shown.get("anonymousVolumes", "refuse")
        return word

    moves = pending_moves(desired, observed)
    observed = with_moves(observed, moves)
    plan = planner.plan(
        desired,
        observed,
        networks=NetworkNames(),
        judge=_judge(shown),
        prunable=second.prunable,
        blocked=second.blocked,
        policy_digest="",
        context=context,
        volume_rule=rule,
        moves=moves,
    )
    reviewed = review(
        plan,
        declared=written,
        desired=with_image_volumes(desired, observed, rule),
        observed=observed,
        all_overrides=steerings,
    )
    return plan, reviewed


def _judge(shown: dict[str, Any]) -> Judge:
    """The verdicts of a whole policy, where the scene has one, or denials by their objects' names."""
    if "policy" not in shown:
        return deny(*shown.get("denied", ()))
    return pass_policy(Policy.from_json({"name": "scene", **shown["policy"]}), "").judge


def _documents(file: Path) -> Desired:
    return desired_of({file.name: file.read_text("utf-8")}) if file.exists() else Desired()


def _steering(before: Service, written: Desired, *, pinned: bool) -> Overrides:
    """What is remembered of a service that was declared otherwise before."""
    kept = Revision(
        revision=before.revision,
        generation=1,
        since="2026-01-01T00:00:00Z",
        owner=before.owner,
        image=before.spec.image,
        spec=slot_text(before.spec),
        source=before.source,
        outcome="good",
        limits=before.limits,
        deliveries=before.deliveries,
    )
    applied = service_text(before.spec)
    if not pinned:
        return Overrides((kept,), applied=applied)
    now = written.service(before.key)
    assert now is not None, f"{before.key} is pinned, and not declared"
    since, why = "2026-01-02T00:00:00Z", "web.1 exited with 1"
    pin = Pin(
        kept.revision,
        1,
        now.revision,
        "trimtab",
        since,
        reason=why,
        automatic=True,
        limits=kept.limits,
        asked_limits=now.limits,
    )
    return Overrides((kept,), pin=pin, applied=applied)


def _quarantine(shown: dict[str, Any]) -> Quarantine:
    """How long what is pruned is kept, and what is left of that on New Year's Day of 2026."""
    left = {}
    for name, text in shown.get("left", {}).items():
        seconds = parse_duration_ms(text) / 1000
        left[f"id of {name}"] = QuarantineLeft(seconds, format_instant(NEW_YEAR + seconds))
    return Quarantine(parse_duration_ms(shown["keep"]) / 1000, left)


def _observed(shown: dict[str, Any], desired: Desired, before: Desired) -> Observed:
    return Observed(
        instance="golden",
        containers=tuple(_container(one, desired, before) for one in shown.get("containers", ())),
        networks=tuple(_network(one) for one in shown.get("networks", ())),
        volumes=tuple(_volume(each) for each in shown.get("volumes", ())),
        images={name: Image(IMAGE_ID) for name in shown.get("images", ())},
        image_volumes={IMAGE_ID: tuple(shown.get("declaredVolumes", ()))},
    )


def _volume(one: str | dict[str, str]) -> ObservedVolume:
    """Return a volume: its name, or its name and its size."""
    if isinstance(one, str):
        return ObservedVolume(one, ours=True, origin="controller")
    options = (("size", one["size"]),)
    return ObservedVolume(one["name"], ours=True, origin="controller", options=options)


def _container(one: dict[str, Any], desired: Desired, before: Desired) -> Container:
    key = service_key(one.get("namespace", DEFAULT_NAMESPACE), one["service"])
    wanted = (before if one.get("revision") == "before" else desired).service(key)
    revision = wanted.revision if wanted and one.get("revision") != "old" else OLD
    name = container_name(
        key.namespace, key.name, slot=one["slot"], revision=revision, attempt=one.get("attempt", 1)
    )
    policy = wanted.spec.restart.policy if wanted else RestartPolicy.ALWAYS
    restart, restart_max = RESTART[policy]
    admitted = Settings(
        name,
        memory=512 << 20,
        memory_swap=512 << 20,
        nano_cpus=10**9,
        pids=256,
        restart=one.get("restart", restart),
        restart_max=restart_max,
        networks=tuple(one.get("networks", ["platform-network"])),
    )
    if wanted is not None:
        declared: dict[str, Any] = {**wanted.limits.engine_limits}
        admitted = replace(admitted, **declared)
    settings = replace(admitted, **_altered(one.get("altered", {})))
    return Container(
        id=f"id of {name}",
        key=key,
        slot=one["slot"],
        revision=revision,
        owner="team",
        origin=one.get("origin", "controller"),
        intent="",
        image="",
        image_id=IMAGE_ID,
        state=ContainerState(one.get("state", "running")),
        settings=settings,
        admitted=admitted,
        health=one.get("health", ""),
        exit_code=one.get("exitCode", 0),
        started_at="2026-01-01T00:00:00Z",
        aliases=tuple((n, tuple(one.get("aliases", [key.name]))) for n in settings.networks),
    )


def _altered(told: dict[str, Any]) -> dict[str, Any]:
    """Fields of Settings as they are now."""
    fields = dict(told)
    if "memory" in fields:
        fields["memory"] = parse_bytes(fields["memory"])
    if "networks" in fields:
        fields["networks"] = tuple(fields["networks"])
    return fields


def _network(one: str | dict[str, Any]) -> ObservedNetwork:
    """A network by name: ours, and what its name says that it should be, unless said otherwise."""
    fields: dict[str, Any] = {"name": one} if isinstance(one, str) else one
    name: str = fields["name"]
    ingress, bridge = (name.startswith(f"platform-{kind}") for kind in ("ingress", "bridge"))
    return ObservedNetwork(
        id=f"id of {name}",
        name=name,
        ours=fields.get("ours", True),
        origin="controller",
        namespace=fields.get("namespace", DEFAULT_NAMESPACE),
        internal=fields.get("internal", not ingress and not bridge),
        masquerade=not ingress,
        icc=not ingress,
        containers=fields.get("containers", 0),
        subnets=tuple(fields.get("subnets", ())),
        has_slot_addresses=fields.get("slotAddresses", False),
    )


if __name__ == "__main__":
    for sentence in scenes():
        for name, text in texts_of(sentence).items():
            (FOLDER / sentence / name).write_text(text, "utf-8")
        print(sentence)
