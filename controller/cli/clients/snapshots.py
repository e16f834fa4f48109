"""Snapshots of a host: taken from its broker, and planned against on another machine."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from controller.app.clock import SystemClock
from controller.app.controller import build_controller, build_planner, parse_pass_policy
from controller.app.desired_state import DesiredFiles, directory_source
from controller.cli.clients.oneshot import broker_of
from controller.core.planning.image_volumes import assume_none, with_image_volumes
from controller.core.planning.prerequisites import image_references
from controller.core.review.host_snapshot import HostSnapshot, damaged_snapshot, hide_values
from controller.core.review.review import review
from controller.loop.state.store import BROKEN, StateStore
from controller.model.desired.field_changes import Review
from controller.model.quantities import format_instant

#: The fetcher's folder on another machine than the host.
NO_FETCHER = Path("/nonexistent")


def take_snapshot(
    root: Path, *, directory: Path, engine: str | None, policy: str | None
) -> HostSnapshot:
    """Return a snapshot of the host. Changes nothing.

    Raises:
        EngineError: engine or broker can't be asked.
        StateError: the state folder can't be used.
    """
    with broker_of(root, directory=directory, engine=engine, policy=policy) as state:
        built = build_controller(state, directory, state.broker_socket, acts=False)
        payload = built.engine.read_own_route("policy")
        desired = built.files.load()
        return HostSnapshot(
            host=platform.node(),
            taken=format_instant(SystemClock().now()),
            observed=built.engine.observe(images=image_references(desired)),
            policy=payload,
            state=built.controller.parts.store.to_json(),
        )


def review_snapshot(
    snapshot: HostSnapshot, directory: Path, *, fetcher: Path = NO_FETCHER
) -> Review:
    """Return the review of what the files in *directory* would change on the host of a snapshot.

    The files of Git sources are below *fetcher*. What they declare is left as it is elsewhere.

    An image that the host doesn't have counts as an image without VOLUMEs.

    Raises:
        UsageError: the snapshot's saved state can't be read.
    """
    store = _store_of(snapshot)
    as_is = parse_pass_policy(snapshot.policy)
    observed = snapshot.observed
    policy = replace(as_is, volume_rule=assume_none(as_is.volume_rule, observed))
    files = DesiredFiles(directory_source(directory), fetcher, lambda: dict(store.prune.sources))
    controller = build_planner(observed, policy, files, store)
    full_plan = controller.plan_everything()
    declared = full_plan.declared
    desired = with_image_volumes(full_plan.view.desired, observed, policy.volume_rule)
    if snapshot.is_hidden:
        declared, desired = hide_values(declared), hide_values(desired)
    return review(
        full_plan.plan,
        declared=declared,
        desired=desired,
        observed=observed,
        all_overrides=store.overrides.all(),
    )


def _store_of(snapshot: HostSnapshot) -> StateStore:
    with TemporaryDirectory(prefix="trimtab-plan-") as folder:
        file = Path(folder) / "state.json"
        file.write_text(json.dumps(dict(snapshot.state)))
        store = StateStore(file)
        try:
            store.read()
        except BROKEN as error:
            raise damaged_snapshot(error) from error
    return store
