"""Networks, names and ports of Compose services."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.compose.project import ComposeProject, Place
from controller.core.compose.translation.documents import translate
from controller.core.compose.translation.scope import ComposeSettings, FoundPath
from tests.unit.core.compose.canonical import problems, project_of, service, translation, trees

NETWORKS = "networks:\n  default: {}\n  back: {}\n  front_1: {}\n"


@pytest.mark.parametrize(
    ("body", "network"),
    [
        ("", {"mode": "isolated"}),
        ("networks: {default: null}", {"mode": "isolated"}),
        ("networks: {default: {aliases: [a]}}", {"mode": "isolated", "aliases": ["a"]}),
        ("networks: {default: null, back: null}", {"mode": "isolated", "attach": ["back"]}),
        ("networks: {back: {}}", {"mode": "declared", "attach": ["back"]}),
        (
            "networks: {back: {aliases: [a, WEB, A, b_c]}, front_1: null}",
            {
                "mode": "declared",
                "attach": [{"name": "back", "aliases": ["a", "b_c"]}, "front-1"],
            },
        ),
        ("network_mode: none", {"mode": "none"}),
        ("network_mode: bridge", {"mode": "bridge"}),
    ],
)
def test_networks(body: str, network: dict[str, Any]) -> None:
    found = trees(project_of(body) + NETWORKS)
    assert found["Service/web"]["network"] == network


def test_the_policy_chooses_the_default_network_unless_the_file_says_internal() -> None:
    settings = ComposeSettings(network="bridge")
    assert service("", settings=settings)["network"] == {"mode": "bridge"}
    text = project_of("") + "networks:\n  default: {internal: true}\n"
    assert trees(text, settings=settings)["Service/web"]["network"] == {"mode": "isolated"}


def test_the_original_name_and_the_names_in_links_stay() -> None:
    text = (
        "services:\n"
        "  my_db:\n    image: x:1\n    container_name: Shop_DB\n"
        "  web:\n    image: x:1\n    links: ['my_db:database', my_db]\n"
    )
    assert trees(text)["Service/my-db"]["network"]["aliases"] == ["my_db", "database"]
    free = trees(text, settings=ComposeSettings(aliases=True))
    assert free["Service/my-db"]["network"]["aliases"] == ["my_db", "database", "Shop_DB"]
    (lost,) = problems(text)
    assert lost.startswith(
        "4 warning compose.container-name: container_name Shop_DB doesn't resolve"
    )


def test_networks_reach_the_outside_unless_they_are_internal() -> None:
    found = trees("networks:\n  a: {name: shop_a}\n  b: {internal: true}\n  default: {}\n")
    assert found == {"Network/a": {"internal": False}, "Network/b": {"internal": True}}


@pytest.mark.parametrize(
    ("port", "entry"),
    [
        ("{target: 80, published: '8080', protocol: tcp, mode: ingress}", {"host": 8080}),
        ("{target: 80, published: '8080', host_ip: 0.0.0.0}", {"host": 8080, "hostIP": "0.0.0.0"}),
        ("{target: 80, published: '8080', protocol: udp}", {"host": 8080, "protocol": "udp"}),
        ("{target: 80, protocol: tcp}", {}),
    ],
)
def test_ports(port: str, entry: dict[str, Any]) -> None:
    address = {"hostIP": "127.0.0.1"} if "host" in entry else {}
    assert service(f"ports: [{port}]")["ports"] == [{"container": 80, **address, **entry}]


def test_ports_without_an_address_are_said_to_be_of_this_host_alone() -> None:
    body = "ports:\n- {target: 80, published: '8080'}\n- {target: 81, published: '8081'}"
    (warning,) = problems(project_of(body))
    assert warning == (
        "4 warning compose.loopback: ports 8080, 8081 without an address: published on 127.0.0.1, "
        "for this host alone"
    )
    for everywhere, asked_of_policy in ((False, True), (True, False)):
        settings = ComposeSettings(everywhere=everywhere)
        (problem,) = translation(project_of(body), settings=settings).problems
        assert problem.remedy.startswith("write 0.0.0.0:HOST:CONTAINER")
        assert ("in the policy" in problem.remedy) == asked_of_policy
    settings = ComposeSettings(address="0.0.0.0")
    assert problems(project_of(body), settings=settings) == []
    assert service(body, settings=settings)["ports"][0]["hostIP"] == "0.0.0.0"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("network_mode: host", "4 error compose.refused: network_mode: host is not supported"),
        (
            "network_mode: container:db",
            "4 error compose.refused: network_mode: container:db is not supported",
        ),
        ("ports: [{target: 80}]", "4 warning compose.port-unpublished: port 80 is not published"),
        ("ports: [{target: 80, published: 8000-8010}]", "4 error compose.refused: a free port of"),
        ("mac_address: aa:bb", "4 error compose.refused: mac_address is not supported"),
    ],
)
def test_an_attribute_has_a_problem_at_its_line(body: str, problem: str) -> None:
    (found,) = problems(project_of(body))
    assert found.startswith(problem)


def test_links_are_translated_in_linear_time() -> None:
    names = [f"s{number}" for number in range(5000)]
    links = {name: {"image": "x", "links": [f"s0:a{name}"]} for name in names[1:]}
    tree = {"name": "shop", "services": {"s0": {"image": "x"}, **links}}
    project = ComposeProject("shop", ".", tree, {(): Place("compose.yaml", 1, 1)})
    found = translate(project, ComposeSettings(), lambda _path, **_: FoundPath("absent"))
    first: Any = found.documents[0].value
    assert len(first["spec"]["network"]["aliases"]) == 17  # one too many


SIDECAR = "services:\n  vpn_1:\n    image: x:1\n    ipc: shareable\n  app:\n    image: x:1\n"


def test_a_sidecar_shares_the_namespaces_of_its_service() -> None:
    text = SIDECAR + "    network_mode: service:vpn_1\n    pid: service:vpn_1\n"
    found = trees(text)
    app = found["Service/app"]
    assert app["shares"] == {"service": "vpn-1", "network": True, "pid": True}
    assert "network" not in app
    # Nobody joins, so shareable is what every container has.
    assert "ipc" not in found["Service/vpn-1"]
    assert problems(text) == []
    joined = trees(SIDECAR + "    ipc: service:vpn_1\n")
    assert joined["Service/vpn-1"]["ipc"] == "shareable"
    assert joined["Service/app"]["shares"] == {"service": "vpn-1", "ipc": True}
    assert joined["Service/app"]["network"] == {"mode": "isolated"}


def test_ports_of_a_sidecar_are_an_error_without_a_warning_beside_it() -> None:
    ports = "    ports:\n    - {target: 80, published: '8080'}\n    - {target: 81}\n"
    (problem,) = problems(SIDECAR + "    network_mode: service:vpn_1\n" + ports)
    assert " error shares.own: spec.ports belongs to the namespace network" in problem


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("pid: service:b\n    network_mode: service:a", "pid: service:b is not supported beside"),
        ("network_mode: service:once", "network_mode: service:once is not supported: a Job"),
        ("pid: container:a", "pid: container:a is not supported: a project shares with its own"),
        ("ipc: host", "ipc: host is not supported: a namespace of the host"),
        ("uts: service:a", "uts: service:a is not supported: each container has its own"),
    ],
)
def test_sharing_that_is_refused(body: str, said: str) -> None:
    others = "".join(
        f"  {name}: {{image: 'x:1', restart: {restart}}}\n"
        for name, restart in (("a", "always"), ("b", "always"), ("once", "'no'"))
    )
    waiting = "    depends_on: {once: {condition: service_completed_successfully}}\n"
    text = f"services:\n  web:\n    image: x:1\n    {body}\n{waiting}{others}"
    assert any(said in problem for problem in problems(text)), problems(text)


def test_ipc_none_is_none() -> None:
    assert service("ipc: none")["ipc"] == "none"
