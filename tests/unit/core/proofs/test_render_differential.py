"""The render worker's functions against the controller: for equal files, equal requests.

The controller reads an exported folder from the disk beside the documents of DIR, combines both, and
plans. The renderer has the same files in memory, and nothing else. `make fuzz KIND=differential` draws 10,000
sources.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings

from controller.app.desired_state import DesiredFiles
from controller.core.encoding.json_values import canonical
from controller.core.engine_api import translate
from controller.core.engine_api.create_body import container_body, create_body
from controller.core.planning.context import pending_moves
from controller.core.proofs.render import RenderScope, render
from controller.core.proofs.rendering import shape_of, shape_of_create
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import (
    AnyAction,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DeliverFiles,
)
from controller.model.names import NetworkNames
from controller.model.observed import Image
from controller.sources.directory import DirectorySource
from tests.rendering import in_process
from tests.unit.core.proofs.drawn_documents import NAMESPACES, Drawn, sources
from tests.worlds import container, engine, plan

EXAMPLES = settings().max_examples
NAMES = NetworkNames()
COMMIT = "c" * 40
FOLDER = "deploy"
SCOPE = RenderScope("shop", NAMESPACES, NAMES, FOLDER)


def desired_of(drawn: Drawn, place: Path) -> Desired:
    """Return what the controller reads: DIR with a Source, and the source's exported commit."""
    directory, exported = place / "dir", place / "sources" / "shop"
    source = {
        "apiVersion": "trimtab/v1",
        "kind": "Source",
        "metadata": {"name": "shop", "owner": "ops"},
        "spec": {
            "git": {"url": "https://example.org/shop.git", "path": FOLDER},
            "namespaces": NAMESPACES,
        },
    }
    directory.mkdir(parents=True)
    for number, document in enumerate([source, *drawn.own]):
        (directory / f"{number}.yaml").write_text(json.dumps(document))
    files = {f"{FOLDER}/{name}": content for name, content in drawn.files.items()}
    charts = {f"configs/{name}": content for name, content in drawn.charts.items()}
    for name, content in (files | charts).items():
        file = exported / COMMIT / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (exported / f"{COMMIT}.json").write_text(json.dumps({"version": 1, "path": FOLDER}))
    (exported / "current").symlink_to(COMMIT)
    return DesiredFiles(DirectorySource(directory, begin_reading=in_process), place, dict).load()


def planned(desired: Desired) -> Iterator[object]:
    """Yield the actions of the controller's plan, on an engine that has the images alone."""
    images = {each.spec.image: Image("sha256:" + "1" * 64) for each in desired.workloads}
    yield from plan(desired, engine(networks=(), images={**images})).actions


def of_source(service: Service) -> bool:
    return service.source.file.startswith("shop:")


def test_what_is_rendered_is_what_the_controller_sends() -> None:
    compared: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES)
    @given(sources())
    def check(drawn: Drawn) -> None:
        Comparison(drawn, compared).run()

    check()
    print(f"{EXAMPLES} sources: {dict(compared)}")
    # Without creates, the examples would show nothing.
    assert compared["create"] >= EXAMPLES // 2
    kinds = ("network", "volume", "files", "release")
    assert min(compared[kind] for kind in kinds) >= EXAMPLES // 25


class Comparison:
    """The requests for one drawn source, rendered and planned."""

    def __init__(self, drawn: Drawn, compared: Counter[str]) -> None:
        made: dict[str, Any] = render(drawn.files, SCOPE, drawn.charts)
        self.entries, self.objects = made["entries"], made["objects"]
        self.unsupported = made["unsupported"]
        self.compared = compared
        with tempfile.TemporaryDirectory() as place:
            self.desired = desired_of(drawn, Path(place))
        self.known = {str(each.key): each for each in self.desired.workloads if of_source(each)}

    def run(self) -> None:
        for key in self.known:
            assert key in self.entries or self._is_refused(key), key
        for action in planned(self.desired):
            self._compare_action(action)
        # Also what the plan doesn't create: jobs, and services that are stopped or wait.
        for key in self.entries.keys() & self.known.keys():
            self._compare_workload(key, self.known[key])
        self._compare_moves()

    def _compare_moves(self) -> None:
        """Compare the moves that are possible with those that the controller makes beside containers.

        Documents elsewhere can hold a service of the source back: a dependency is missing, or a
        broken Release can declare the earlier name. The renderer reads the source alone.
        """
        rendered = {
            (name, shape)
            for name, shapes in self.objects.items()
            for shape in shapes
            if name.startswith("move:")
        }
        made = set()
        for service in filter(of_source, self.desired.services):
            for source in service.moved:
                running = engine(container(source.name, namespace=source.namespace))
                for move in pending_moves(self.desired, running):
                    body = json.loads(json.dumps(translate.move_body(move.action)))
                    made.add((f"move:{move.service.key}", shape_of(body)))
        is_complete = self.desired.whole and not self.desired.blind_keys
        assert made == rendered if is_complete else made <= rendered
        self.compared["move"] += len(made)

    def _is_refused(self, key: str) -> bool:
        """Return True for a resource that signed admission doesn't support."""
        self.compared["refused"] += 1
        return key in self.unsupported

    def _compare_action(self, action: object) -> None:
        match action:
            case CreateContainer() if of_source(action.service):
                self._compare_create(str(action.service.key), container_body(action, NAMES))
            case CreateNetwork():
                self._compare_object(action, "network", translate.network_body(action))
            case CreateVolume():
                self._compare_object(action, "volume", translate.volume_body(action))
            case DeliverFiles():
                self._compare_object(action, "files", translate.files_body(action))
            case _:
                pass

    def _compare_workload(self, key: str, service: Service) -> None:
        is_job = service.key.kind == "Job"
        body = create_body(
            service,
            slot=1,
            image=service.spec.image,
            networks=NAMES,
            with_alias=not is_job,
            occasion="change" if is_job else "",
        )
        self._compare_create(key, body)
        entry = self.entries[key]
        stopped = service.spec.state == "Stopped"
        assert entry["replicas"] == (0 if stopped else service.spec.replicas)
        asked = shape_of_create(json.loads(json.dumps(body)))
        assert asked is not None
        assert (entry["shapes"][0][1], entry["updates"]) == (asked.base, asked.updates)

    def _compare_create(self, key: str, body: object) -> None:
        if key not in self.entries:
            assert self._is_refused(key), key
            return
        sent = json.loads(json.dumps(body))
        asked, entry = shape_of_create(sent), self.entries[key]
        assert asked is not None
        assert entry["shapes"][0][0] == asked.shape, (key, canonical(sent))
        assert entry["reference"] == asked.reference
        asked_names = {network: list(aliases) for network, aliases in asked.endpoints}
        assert entry["endpoints"] == asked_names
        self.compared["create"] += 1
        self.compared["release"] += ":../configs/" in entry["file"]

    def _compare_object(self, action: AnyAction, kind: str, body: object) -> None:
        namespace = action.object.namespace
        if namespace not in NAMESPACES:
            return
        name = f"{kind}:{action.target}"
        if isinstance(action, DeliverFiles):
            name = f"{kind}:{action.kind}/{namespace}/{action.target}"
        assert shape_of(json.loads(json.dumps(body))) in self.objects.get(name, {}), (name, body)
        self.compared[kind] += 1
