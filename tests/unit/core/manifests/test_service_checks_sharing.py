"""``spec.shares`` in documents: its own settings, and the service whose namespaces are shared."""

from __future__ import annotations

import pytest

from controller.core.manifests.check_together import desired_of
from controller.core.manifests.job_checks import dependencies_of
from controller.model.names import service_key


def document(name: str, spec: str = "", owner: str = "team", kind: str = "Service") -> str:
    return (
        f"apiVersion: trimtab/v1\nkind: {kind}\nmetadata: {{name: {name}, owner: {owner}}}\n"
        f"spec:\n  image: team/{name}:1\n{spec}"
    )


VPN = document("vpn")
SHARES = "  shares: {service: vpn, network: true}\n"


def problems(app: str, vpn: str = VPN) -> list[str]:
    found = desired_of({"app.yaml": app, "vpn.yaml": vpn})
    return [f"{p.file}:{p.line} {p.code}: {p.message}" for p in found.problems]


def test_a_sidecar_depends_on_the_service_without_saying_so() -> None:
    desired = desired_of({"app.yaml": document("app", SHARES), "vpn.yaml": VPN})
    assert desired.problems == ()
    (app,) = (each for each in desired.services if each.key.name == "app")
    assert [*dependencies_of(app.key, app.spec)] == [service_key("default", "vpn")]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            "  ports: [{container: 80}]\n",
            "7 shares.own: spec.ports belongs to the namespace network",
        ),
        ("  network: {mode: bridge}\n", "7 shares.own: spec.network belongs"),
        ("  hostname: a\n", "7 shares.own: spec.hostname belongs"),
        ("  extraHosts: {a: 10.0.0.1}\n", "7 shares.own: spec.extraHosts belongs"),
        ("  dns: {servers: [10.0.0.1]}\n", "7 shares.own: spec.dns belongs"),
        ('  sysctls: {net.core.somaxconn: "1"}\n', "7 shares.own: spec.sysctls.net.core.somaxconn"),
        ("  healthcheck: {tcp: {port: 80}}\n", "7 shares.own: spec.healthcheck.tcp belongs"),
        ("  rollout: {order: StartFirst}\n", "7 rollout.order: StartFirst is impossible"),
        ("  replicas: 2\n", "7 shares.replicas: 2 replicas can't share with 1 of vpn"),
    ],
)
def test_settings_that_a_sidecar_hasnt(spec: str, said: str) -> None:
    (problem,) = problems(document("app", SHARES + spec))
    assert problem.startswith(f"app.yaml:{said}")


@pytest.mark.parametrize(
    ("shares", "vpn", "said"),
    [
        ("{service: vpn}", VPN, "6 shares.nothing: spec.shares names no namespace"),
        (
            "{service: other, pid: true}",
            VPN,
            "6 dependency.undeclared: Service/default/other is not",
        ),
        (
            "{service: app, pid: true}",
            VPN,
            "6 dependency.cycle: dependencies form a cycle: app -> app",
        ),
        (
            "{service: vpn, pid: true}",
            document("vpn", owner="bob"),
            "6 shares.owner: vpn (vpn.yaml:1)",
        ),
        (
            "{service: vpn, ipc: true}",
            VPN,
            "6 shares.ipc: vpn (vpn.yaml:1) keeps its IPC to itself",
        ),
        (
            "{service: vpn, pid: true}",
            document("vpn", kind="Job"),
            "6 dependency.undeclared: Service/default/vpn is not declared",
        ),
    ],
)
def test_the_service_must_fit(shares: str, vpn: str, said: str) -> None:
    (problem,) = problems(document("app", f"  shares: {shares}\n"), vpn)
    assert problem.startswith(f"app.yaml:{said}")


def test_a_sidecar_of_a_sidecar_is_refused_and_a_name_must_be_one() -> None:
    third = document("third", "  shares: {service: app, network: true}\n")
    found = desired_of({"a.yaml": document("app", SHARES), "t.yaml": third, "v.yaml": VPN})
    assert [(p.file, p.code) for p in found.problems] == [("t.yaml", "shares.chain")]
    (name,) = problems(document("app", "  shares: {service: A/B, pid: true}\n"))
    assert name.startswith("app.yaml:6 shares.name")
