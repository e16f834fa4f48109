"""Denials of the policy, with file, line, column and field of the document."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.admission.preview import preview_action
from controller.core.engine_api.create_body import container_body
from controller.core.manifests.check_together import desired_of
from controller.core.manifests.validation_errors import dotted
from controller.core.planning.images_networks_volumes import Prerequisites
from controller.core.planning.slot_plan import hypothetical_create
from controller.core.policy.refusals import field_at, fields_of, with_document_fields, with_remedies
from controller.model.desired.desired import Service
from controller.model.observed import Observed
from controller.model.policy.document import Policy
from controller.model.records import Verdict
from tests.unit.core.creates import policy

STRICT = Policy.from_json({"name": "strict"})

SHOP = """\
apiVersion: trimtab/v1
kind: Service
metadata:
  name: shop
  owner: me
spec:
  image: wordpress:6
  ports:
    - container: 80
      host: 8080
    - container: 80
      host: 80
      hostIP: 0.0.0.0
  mounts:
    - {type: tmpfs, target: /scratch, size: 1Mi}
    - {type: bind, source: /srv/x, target: /data, readOnly: true}
  env: {A: b, LD_PRELOAD: /x.so}
  resources:
    memory: 64Gi
  security: {capAdd: [CHOWN, SYS_ADMIN]}
"""


def verdict_on(text: str, rules: Policy = STRICT) -> Verdict:
    """Return the verdict on the first service of a file ``shop.yaml``."""
    desired = desired_of({"shop.yaml": text})
    assert desired.valid, desired.problems
    names = rules.networks.names
    action = hypothetical_create(desired.services[0], Prerequisites(desired, Observed(""), names))
    return preview_action(rules, action, container_body(action, names))


def test_each_finding_has_its_field_its_place_and_its_own_remedy() -> None:
    problems = sorted(verdict_on(SHOP).problems, key=lambda problem: problem.line)
    assert "\n".join(problem.render() for problem in problems) == (
        'shop.yaml:7:10: refused image.not-allowed: spec.image "wordpress:6"'
        " (docker.io/library/wordpress:6) is not under an admitted prefix"
        " (ghcr.io/platformnetwork/)\n"
        "    remedy: use an image under one of them\n"
        "shop.yaml:12:13: refused port.privileged: spec.ports[1].host:"
        " host port 80 is below 1024, the policy's lowest\n"
        "    remedy: publish on a higher port\n"
        'shop.yaml:13:15: refused port.address: spec.ports[1].hostIP "0.0.0.0"'
        " is not an address that the policy grants (127.0.0.1, ::1)\n"
        "    remedy: use 127.0.0.1\n"
        "shop.yaml:16:28: refused mount.not-allowed: spec.mounts[1].source:"
        " /srv/x is not below an admitted path (/tmp/, /var/lib/platform/,"
        " /var/lib/docker/volumes/)\n"
        "    remedy: use a path below one of them\n"
        "shop.yaml:17:27: refused env.denied: spec.env.LD_PRELOAD:"
        " LD_PRELOAD makes every program run other code first\n"
        "    remedy: remove it\n"
        "shop.yaml:19:13: refused resources.memory: spec.resources.memory:"
        " 64Gi of memory is outside 6Mi to 8Gi\n"
        "    remedy: choose a size in that range\n"
        'shop.yaml:20:30: refused capabilities: spec.security.capAdd[1] "SYS_ADMIN"'
        " is not a capability that the policy admits (CHOWN, SETUID, SETGID)\n"
        "    remedy: remove it"
    )


def test_a_field_that_the_document_leaves_out_is_told_at_the_nearest_one() -> None:
    plain = SHOP.partition("  ports")[0].replace("wordpress:6", "ghcr.io/platformnetwork/shop:6")
    (problem,) = verdict_on(plain, policy(security={"requireReadOnlyRoot": True})).problems
    assert problem.field == "spec.security.readOnlyRootFilesystem"
    assert problem.place == "shop.yaml:6:1"  # the key spec


def test_the_reason_names_every_finding_in_one_line() -> None:
    verdict = verdict_on(SHOP.replace("64Gi", "1Gi").replace(", SYS_ADMIN", ""))
    assert verdict.remedy == "use an image under one of them"
    assert verdict.reason.startswith('shop.yaml:7:10: spec.image "wordpress:6"')
    assert "; also shop.yaml:16:28: spec.mounts[1].source: /srv/x" in verdict.reason


def test_a_condition_has_each_remedy_behind_its_reason() -> None:
    verdict = verdict_on(SHOP.replace("64Gi", "1Gi").replace(", SYS_ADMIN", ""))
    image, mount = verdict.problems[:2]
    assert with_remedies(replace(verdict, problems=(image, mount))) == (
        f"{image.place}: {image.message} (use an image under one of them); "
        f"also {mount.place}: {mount.message} ({mount.remedy})"
    )
    plain = Verdict("deny", ("some.rule",), "it may not", "ask somebody")
    assert with_remedies(plain) == "it may not (ask somebody)"


def test_what_a_mode_lets_through_is_a_warning_at_its_place() -> None:
    plain = SHOP.partition("  ports")[0].replace("wordpress:6", "ghcr.io/platformnetwork/shop:6")
    rules = {"security": {"requireReadOnlyRoot": True}}
    verdict = verdict_on(plain, policy(**rules, modes={"root-filesystem": "warn"}))
    (problem,) = verdict.problems
    assert (verdict.decision, problem.severity) == ("audit-deny", "warning")
    assert problem.message.endswith("(let through for now: the policy will refuse it)")
    silent = verdict_on(plain, policy(**rules, modes={"root-filesystem": "audit"}))
    assert silent.problems == ()


FACTS = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: shop, owner: me}
spec:
  image: ghcr.io/platformnetwork/shop:6
  mounts: [{type: bind, source: /s, target: /t, readOnly: true}]
  ports: [{container: 80, host: 8080}, {container: 80, host: 8081}]
"""

EVERYTHING = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: shop, owner: me, namespace: team}
spec:
  image: ghcr.io/platformnetwork/shop:6
  entrypoint: [/e]
  command: [c]
  env: {B: b, A: a}
  workingDir: /w
  user: "1"
  groupAdd: ["5"]
  hostname: h
  domainname: d.example
  extraHosts: {b: 10.0.0.2, a: "host-gateway,::1"}
  dns: {servers: [9.9.9.9], search: [example.org], options: [rotate]}
  tty: true
  stdin: true
  oomScoreAdj: 5
  ulimits: {nofile: 5}
  init: true
  stopSignal: SIGTERM
  mounts:
    - {type: bind, source: /s, target: /t, readOnly: true}
    - {type: volume, source: data, target: /data}
    - {type: tmpfs, target: /scratch, size: 1Mi, mode: "1777"}
    - {type: tmpfs, target: /exec, size: 1Mi, exec: true}
    - {type: volume, source: more, target: /more, subpath: a/b, noCopy: true}
  ports: [{container: 80, host: 8080}, {container: 81}, {container: 80, host: 8081, hostIP: "::1"}]
  network: {aliases: [n], attach: [{name: back, aliases: [m]}]}
  resources:
    {memory: 8Mi, memoryReservation: 7Mi, cpus: 0.5, cpuShares: 5, cpuset: "0", pids: 5, shm: 1Mi, disk: 1Gi}
  security: {capAdd: [CHOWN], readOnlyRootFilesystem: true, runtime: r}
  healthcheck: {exec: [/check], retries: 5, startInterval: 1s}
  logs: {compress: true}
  containerLabels: {com.example.tier: x}
---
apiVersion: trimtab/v1
kind: Network
metadata: {name: back, owner: me, namespace: team}
"""

#: The field of each place that a create writes, the members of lists by their first.
FIELDS = {
    "Cmd": "spec.command",
    "Domainname": "spec.domainname",
    "Entrypoint": "spec.entrypoint",
    "Env[0]": "spec.env.A",
    "Env[1]": "spec.env.B",
    "ExposedPorts.80/tcp": "spec.ports[2].container",
    "ExposedPorts.81/tcp": "spec.ports[1].container",
    "Healthcheck.Interval": "spec.healthcheck.interval",
    "Healthcheck.Retries": "spec.healthcheck.retries",
    "Healthcheck.StartInterval": "spec.healthcheck.startInterval",
    "Healthcheck.StartPeriod": "spec.healthcheck.startPeriod",
    "Healthcheck.Test": "spec.healthcheck.exec",
    "Healthcheck.Timeout": "spec.healthcheck.timeout",
    "HostConfig.CapAdd[0]": "spec.security.capAdd[0]",
    "HostConfig.CpuShares": "spec.resources.cpuShares",
    "HostConfig.CpusetCpus": "spec.resources.cpuset",
    "HostConfig.Dns[0]": "spec.dns.servers[0]",
    "HostConfig.DnsOptions[0]": "spec.dns.options[0]",
    "HostConfig.DnsSearch[0]": "spec.dns.search[0]",
    "HostConfig.ExtraHosts[0]": "spec.extraHosts.a",
    "HostConfig.ExtraHosts[1]": "spec.extraHosts.a",
    "HostConfig.ExtraHosts[2]": "spec.extraHosts.b",
    "HostConfig.GroupAdd[0]": "spec.groupAdd[0]",
    "HostConfig.Init": "spec.init",
    "HostConfig.LogConfig.Config.compress": "spec.logs.compress",
    "HostConfig.LogConfig.Config.max-file": "spec.logs.maxFiles",
    "HostConfig.LogConfig.Config.max-size": "spec.logs.maxSize",
    "HostConfig.LogConfig.Type": "spec.logs.driver",
    "HostConfig.Memory": "spec.resources.memory",
    "HostConfig.MemoryReservation": "spec.resources.memoryReservation",
    "HostConfig.Mounts[0].ReadOnly": "spec.mounts[0].readOnly",
    "HostConfig.Mounts[0].Source": "spec.mounts[0].source",
    "HostConfig.Mounts[0].Target": "spec.mounts[0].target",
    "HostConfig.Mounts[0].Type": "spec.mounts[0].type",
    "HostConfig.Mounts[1].Source": "spec.mounts[1].source",
    "HostConfig.Mounts[1].Target": "spec.mounts[1].target",
    "HostConfig.Mounts[1].Type": "spec.mounts[1].type",
    "HostConfig.Mounts[2].Target": "spec.mounts[2].target",
    "HostConfig.Mounts[2].TmpfsOptions.Mode": "spec.mounts[2].mode",
    "HostConfig.Mounts[2].TmpfsOptions.SizeBytes": "spec.mounts[2].size",
    "HostConfig.Mounts[2].Type": "spec.mounts[2].type",
    "HostConfig.Mounts[3].Source": "spec.mounts[4].source",
    "HostConfig.Mounts[3].Target": "spec.mounts[4].target",
    "HostConfig.Mounts[3].Type": "spec.mounts[4].type",
    "HostConfig.Mounts[3].VolumeOptions.NoCopy": "spec.mounts[4].noCopy",
    "HostConfig.Mounts[3].VolumeOptions.Subpath": "spec.mounts[4].subpath",
    "HostConfig.OomScoreAdj": "spec.oomScoreAdj",
    "HostConfig.Runtime": "spec.security.runtime",
    "HostConfig.StorageOpt.size": "spec.resources.disk",
    "HostConfig.Tmpfs./exec": "spec.mounts[3]",
    "HostConfig.Ulimits[0].Hard": "spec.ulimits.nofile",
    "HostConfig.Ulimits[0].Name": "spec.ulimits.nofile",
    "HostConfig.Ulimits[0].Soft": "spec.ulimits.nofile",
    "HostConfig.NanoCpus": "spec.resources.cpus",
    "HostConfig.NetworkMode": "spec.network.mode",
    "HostConfig.PidsLimit": "spec.resources.pids",
    "HostConfig.PortBindings.80/tcp[0].HostIp": "spec.ports[0].hostIP",
    "HostConfig.PortBindings.80/tcp[0].HostPort": "spec.ports[0].host",
    "HostConfig.PortBindings.80/tcp[1].HostIp": "spec.ports[2].hostIP",
    "HostConfig.PortBindings.80/tcp[1].HostPort": "spec.ports[2].host",
    "HostConfig.ReadonlyRootfs": "spec.security.readOnlyRootFilesystem",
    "HostConfig.RestartPolicy.Name": "spec.restart.policy",
    "HostConfig.ShmSize": "spec.resources.shm",
    "Hostname": "spec.hostname",
    "Image": "spec.image",
    "Labels.com.example.tier": "spec.containerLabels.com.example.tier",
    "Labels.io.trimtab.image": "spec.image",
    "Labels.io.trimtab.namespace": "metadata.namespace",
    "Labels.io.trimtab.owner": "metadata.owner",
    "Labels.io.trimtab.revision": "spec",
    "Labels.io.trimtab.service": "metadata.name",
    "Labels.io.trimtab.slot": "spec.replicas",
    "NetworkingConfig.EndpointsConfig.platform-ingress.team.Aliases": "metadata.name",
    "NetworkingConfig.EndpointsConfig.platform-network.team.Aliases": "spec.network.aliases",
    "NetworkingConfig.EndpointsConfig.team.back.Aliases": "spec.network.attach[0].aliases",
    "OpenStdin": "spec.stdin",
    "StopSignal": "spec.stopSignal",
    "StopTimeout": "spec.stopGracePeriod",
    "Tty": "spec.tty",
    "User": "spec.user",
    "WorkingDir": "spec.workingDir",
}


def places(value: Any, place: str = "") -> list[str]:
    """Return all places in a body. A list of texts is one place, except Env and CapAdd."""
    if isinstance(value, dict) and value:
        inner = [places(member, f"{place}.{key}".lstrip(".")) for key, member in value.items()]
        return [each for several in inner for each in several]
    lists = [
        "CapAdd",
        "Mounts",
        "Dns",
        "DnsOptions",
        "DnsSearch",
        "ExtraHosts",
        "GroupAdd",
        "Ulimits",
    ]
    split = place in ("Env", *(f"HostConfig.{name}" for name in lists)) or "PortBindings" in place
    if isinstance(value, list) and split:
        several = [places(item, f"{place}[{index}]") for index, item in enumerate(value)]
        return [each for items in several for each in items]
    return [place]


def everything() -> Service:
    """Return a service with every field of a document."""
    (service,) = desired_of({"shop.yaml": EVERYTHING}).services
    return service


def test_every_place_of_a_create_has_the_field_that_it_comes_from() -> None:
    names = STRICT.networks.names
    desired = desired_of({"shop.yaml": EVERYTHING})
    action = hypothetical_create(everything(), Prerequisites(desired, Observed(""), names))
    fields = fields_of(everything(), names)
    found = places(container_body(action, names))
    assert {place: dotted(field_at(fields, place)) for place in found} == FIELDS


@pytest.mark.parametrize(
    ("place", "rule", "field"),
    [
        ("HostConfig.Mounts[1]", "mount.target", "spec.mounts[1].target"),
        ("HostConfig.Mounts[1]", "volume.foreign", "spec.mounts[1].source"),
        ("HostConfig.Mounts[2]", "mount.tmpfs", "spec.mounts[2].size"),
        ("HostConfig.Mounts[1].VolumeOptions.Subpath", "mount.subpath", "spec.mounts[1].subpath"),
        ("HostConfig.PortBindings.80/tcp", "port.invalid", "spec.ports[0].host"),
        ("NetworkingConfig.EndpointsConfig.team.back", "", "spec.network.attach[0]"),
        ("NetworkingConfig.EndpointsConfig.platform-network.team", "", "spec.network.mode"),
        ("NetworkingConfig.EndpointsConfig", "network.count", "spec.network"),
        ("Labels", "label.size", "spec.containerLabels"),
        ("Somewhere.Else", "", "spec"),
    ],
)
def test_a_place_that_is_judged_as_a_whole_has_its_field_too(
    place: str, rule: str, field: str
) -> None:
    fields = fields_of(everything(), STRICT.networks.names)
    assert dotted(field_at(fields, place, rule)) == field


def test_an_admitted_create_has_nothing_to_explain() -> None:
    plain = SHOP.partition("  ports")[0].replace("wordpress:6", "ghcr.io/platformnetwork/shop:6")
    assert verdict_on(plain).problems == ()


@pytest.mark.parametrize(
    ("said", "rule", "reads"),
    [
        (
            "HostConfig.Mounts[0]: /s isn't there (make it first)",
            "mount.missing",
            "shop.yaml:6:33: spec.mounts[0].source: /s isn't there (make it first)",
        ),
        (
            (
                "Image: the volume at /v has no name; also port.address at "
                "HostConfig.PortBindings.80/tcp[1].HostIp, resources.memory at HostConfig.Memory"
            ),
            "volume.anonymous",
            (
                "shop.yaml:5:10: spec.image: the volume at /v has no name; also port.address at"
                " spec.ports[1].hostIP, resources.memory at spec.resources.memory"
            ),
        ),
        ("shop has 100 containers", "quota.service", "shop has 100 containers"),
    ],
)
def test_what_the_broker_refuses_by_facts_names_the_documents_field(
    said: str, rule: str, reads: str
) -> None:
    (service,) = desired_of({"shop.yaml": FACTS}).services
    assert with_document_fields(said, rule, service, STRICT.networks.names) == reads
