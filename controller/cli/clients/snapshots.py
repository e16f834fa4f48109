"""Snapshots of a host: taken from its broker, and planned against on another machine."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from controller.app.controller import build_planner, parse_pass_policy
from controller.app.desired_state import (
    AskCompose,
    DesiredFiles,
    SourceFiles,
    directory_source,
)
from controller.app.process import SystemClock
from controller.cli.clients.oneshot import planning_controller
from controller.cli.options import HostChoice
from controller.core.compose.translation.scope import ComposeSettings
from controller.core.planning.deliveries import HostSecrets
from controller.core.planning.images_networks_volumes import (
    assume_none,
    image_references,
    with_image_volumes,
)
from controller.core.review import host_snapshot
from controller.core.review.review import review
from controller.loop.state.store import BROKEN, StateStore
from controller.model.desired.plan import Review
from controller.model.quantities import format_instant
from controller.ports import DesiredSource
from controller.sources.directory import DirectorySource
from controller.system.systemd import is_restored_at_boot

#: The fetcher's folder on another machine than the host.
NO_FETCHER = Path("/nonexistent")


@dataclass(frozen=True, slots=True)
class PlannedFiles:
    """The files of a plan: of DIR, or of a Git source."""

    folder: Path
    #: The name of the Git source whose documents the folder has; '' for DIR.
    source: str = ""
    #: The fetcher's folder, with the files of all Git sources.
    fetcher: Path = NO_FETCHER
    #: A file whose documents take the place of those of the same resources.
    overlay: Path | None = None

    def directory(self, compose: AskCompose = ComposeSettings) -> DirectorySource:
        """Return the source of the files, without Git sources."""
        return directory_source(self.folder, overlay=self.overlay, compose=compose)


def take_snapshot(
    host: HostChoice, *, planned: PlannedFiles | None = None
) -> host_snapshot.HostSnapshot:
    """Return a snapshot of the host. Changes nothing. The images of *planned* files are looked up, too.

    Raises:
        EngineError: engine or broker can't be asked.
        StateError: the state folder can't be used.
    """
    with planning_controller(host) as (state, _, built):
        payload = built.engine.read_own_route("policy")

        def settings() -> ComposeSettings:
            return parse_pass_policy(payload, SystemClock().now()).compose

        desired = built.files.load()
        images = image_references(desired)
        if planned is not None:
            images |= image_references(planned.directory(settings).load())
        return host_snapshot.HostSnapshot(
            host=platform.node(),
            taken=format_instant(SystemClock().now()),
            observed=built.engine.observe(images=images),
            policy=payload,
            state=built.controller.parts.store.to_json(),
            sources=desired.sources,
            secrets=HostSecrets.of(desired, restored_at_boot=is_restored_at_boot(state.root)),
            workloads=desired.workloads,
        )


def review_snapshot(snapshot: host_snapshot.HostSnapshot, planned: PlannedFiles) -> Review:
    """Return the review of what files would change on the host of a snapshot.

    Only what belongs to the planned files is looked at. An image that the host doesn't have counts as
    an image without VOLUMEs.

    Raises:
        UsageError: the snapshot's saved state can't be read, or has no such Git source.
    """
    store = _store_of(snapshot)
    serving = dict(store.prune.sources)
    as_is = parse_pass_policy(snapshot.policy, SystemClock().now())
    observed = snapshot.observed
    bind = snapshot.secrets.bind
    files: DesiredSource
    if planned.source:
        source = host_snapshot.find_source(snapshot, planned.source)
        observed = host_snapshot.only_of(observed, source, serving)
        files = SourceFiles(source, planned.folder, serving, lambda: as_is.compose, bind)
    else:
        files = DesiredFiles(
            planned.directory(lambda: as_is.compose),
            planned.fetcher,
            lambda: serving,
            bind,
            compose=lambda: as_is.compose,
        )
    policy = replace(as_is, volume_rule=assume_none(as_is.volume_rule, observed))
    full_plan = build_planner(observed, policy, files, store).plan_everything()
    declared = full_plan.declared
    desired = with_image_volumes(full_plan.view.desired, observed, policy.volume_rule)
    if snapshot.is_hidden:
        declared, desired = host_snapshot.hide_values(declared), host_snapshot.hide_values(desired)
    return review(
        full_plan.plan,
        declared=declared,
        desired=desired,
        observed=observed,
        all_overrides=store.all_overrides(),
    )


def _store_of(snapshot: host_snapshot.HostSnapshot) -> StateStore:
    with TemporaryDirectory(prefix="trimtab-plan-") as folder:
        file = Path(folder) / "state.json"
        file.write_text(json.dumps(dict(snapshot.state)))
        store = StateStore(file)
        try:
            store.read()
        except BROKEN as error:
            raise host_snapshot.damaged_snapshot(error) from error
    # The planned files are on another filesystem than the host's, and that means nothing.
    store.prune = replace(store.prune, device=0, devices=())
    return store
