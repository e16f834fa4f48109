"""Compose projects and Releases in a namespace that requires signed sources: the files of the signed commit decide."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from controller.core.compose.translation.scope import owned_by, settings_of
from controller.core.planning.images_networks_volumes import Prerequisites
from controller.engine.requests import OutgoingRequest, create_request
from controller.model.desired.plan import (
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DeliverFiles,
)
from controller.model.names import Key, container_name
from controller.model.observed import Observed
from controller.model.records import Precondition
from controller.sources.directory import DirectorySource, Export
from tests.unit.broker.signed.instance import Instance, policy_of

PROJECT = {
    "deploy/compose.yaml": b"""name: shop
services:
  web:
    image: "trimtab.local/web:${TAG}"
    env_file: web.env
    volumes: ["./site.conf:/etc/site.conf:ro", "data:/data"]
    healthcheck: {test: [CMD, /bin/check], interval: 5s}
    deploy: {resources: {limits: {memory: 64M, cpus: "0.5", pids: 64}}}
    user: "1000"
volumes: {data: {}}
""",
    "deploy/.env": b"TAG=1\n",
    "deploy/web.env": b"MODE=plain\n",
    "deploy/site.conf": b"listen 80;\n",
}
POLICY = policy_of("0" * 40)
WEB, FRONT = "Service/shop/web", "Service/shop/front"
RELEASES = {
    "deploy/release.yaml": b"""apiVersion: trimtab/v1
kind: Release
metadata: {name: front, namespace: shop, owner: team}
spec: {chart: web, values: {mode: plain}}
""",
    "configs/web/Chart.yaml": b"{apiVersion: trimtab/v1, name: web, version: '1'}",
    "configs/web/values.yaml": b"tag: '1'",
    "configs/web/templates/all.yaml": b"""apiVersion: trimtab/v1
kind: Service
metadata: {name: {{ release.name | quote }}}
spec:
  image: {{ ("trimtab.local/web:" ~ values.tag) | quote }}
  env: {MODE: {{ values.mode | quote }}}
  network: {mode: none}
""",
}


def planned(
    folder: Path, files: Mapping[str, bytes], key: str = WEB, *, owners: tuple[str, ...] = ()
) -> list[OutgoingRequest]:
    """Return the controller's requests for a service of the folder deploy, the create last."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    settings, export = owned_by(owners, lambda: settings_of(POLICY)), Export("shop", "c" * 40)
    charts = folder / "configs"
    source = DirectorySource(folder / "deploy", charts=charts, export=export, compose=settings)
    desired = source.load()
    assert not desired.blind, desired.problems
    web, names = desired.workload(Key.parse(key)), POLICY.networks.names
    assert web is not None
    target = container_name("shop", web.key.name, slot=1, revision=web.revision)
    create = CreateContainer(
        object=web.key,
        target=target,
        cause="c",
        slot=1,
        precondition=Precondition(absent=target),
        service=web,
        image=web.spec.image,
    )
    needed = Prerequisites(desired, Observed("i"), names).missing(web, creating=True)
    kinds = (CreateNetwork, CreateVolume, DeliverFiles)
    others = [create_request(each, names) for each in needed if isinstance(each, kinds)]
    return [*others, create_request(create, names)]


@pytest.fixture
def instance() -> Instance:
    return prepared(Instance())


def prepared(made: Instance) -> Instance:
    files = {**PROJECT, **RELEASES}
    reply = made.upload(made.repository.proof(made.repository.commit(files, made.since)))
    assert reply.status == 200, reply.body
    return made


def test_a_project_of_the_commit_is_created_and_started(instance: Instance, tmp_path: Path) -> None:
    *others, create = planned(tmp_path, PROJECT)
    for request in others:
        assert instance.send(request).status < 300, request.path
    instance.run(create)
    assert [item.signed for item in instance.inventory.containers.values()] != [""]


@pytest.mark.parametrize("file", ["deploy/compose.yaml", "deploy/.env", "deploy/web.env"])
def test_a_changed_file_of_the_controllers_copy_is_refused(
    instance: Instance, tmp_path: Path, file: str
) -> None:
    changed = {
        "deploy/compose.yaml": PROJECT["deploy/compose.yaml"].replace(
            b"web.env", b"web.env\n    command: evil"
        ),
        "deploy/.env": b"TAG=2\n",
        "deploy/web.env": b"MODE=evil\n",
    }
    *others, create = planned(tmp_path, {**PROJECT, file: changed[file]})
    for request in others:
        assert instance.send(request).status < 300, request.path
    reply = instance.send(create)
    assert reply.status == 403
    assert json.loads(reply.body)["trimtab"]["rule"] == "proof.unproven"


def test_a_changed_mounted_file_is_not_delivered(instance: Instance, tmp_path: Path) -> None:
    *others, _ = planned(tmp_path, {**PROJECT, "deploy/site.conf": b"listen 6666;\n"})
    delivery = next(each for each in others if each.method == "PUT")
    reply = instance.send(delivery)
    assert reply.status == 403
    assert "proof.unproven" in reply.body.decode()


def test_a_release_of_the_commit_is_created_and_started(instance: Instance, tmp_path: Path) -> None:
    (create,) = planned(tmp_path, RELEASES, FRONT)
    instance.run(create)
    assert [item.signed for item in instance.inventory.containers.values()] != [""]


@pytest.mark.parametrize("path", [path for path in RELEASES if not path.endswith("Chart.yaml")])
def test_a_changed_chart_of_the_controllers_copy_is_refused(
    instance: Instance, tmp_path: Path, path: str
) -> None:
    changed = RELEASES[path].replace(b"mode: plain", b"mode: evil").replace(b"'1'", b"'2'")
    changed = changed.replace(b"  network:", b"  command: [/evil]\n  network:")
    assert changed != RELEASES[path]
    (create,) = planned(tmp_path, {**RELEASES, path: changed}, FRONT)
    reply = instance.send(create)
    assert reply.status == 403
    assert json.loads(reply.body)["trimtab"]["rule"] == "proof.unproven"


def test_the_rule_names_the_owner_of_projects_that_name_none(tmp_path: Path) -> None:
    instance = prepared(Instance(rule={"owner": "team"}))
    *others, create = planned(tmp_path, PROJECT, owners=("team",))
    for request in others:
        assert instance.send(request).status < 300, request.path
    instance.run(create)
    *_, of_nobody = planned(tmp_path, PROJECT)
    assert instance.send(of_nobody).status == 403
