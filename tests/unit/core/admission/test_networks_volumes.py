"""Updates, networks, volumes, and joining and leaving networks."""

from dataclasses import replace

import pytest

from controller.core.admission.calls import admit_update
from controller.core.admission.networks_volumes import (
    admit_connect,
    admit_disconnect,
    admit_implied_network,
    admit_network,
    admit_volume,
    named_volume,
)
from controller.core.engine_api.parse import (
    parse_connect,
    parse_disconnect,
    parse_network,
    parse_update,
    parse_volume,
)
from controller.core.rules.context import ContainerFacts, HostFacts, NetworkFacts, VolumeFacts
from controller.model import names
from controller.model.observed import Settings
from tests.unit.core.creates import (
    ALICES,
    BOBS,
    BRIDGE,
    CLIENT,
    CONTROLLER,
    ENGINES,
    GIB,
    INGRESS,
    ISOLATED,
    OPERATOR,
    STAMP,
    STRICT,
    denials,
    policy,
)

SETTINGS = Settings(
    name="web",
    memory=2 * GIB,
    memory_swap=2 * GIB,
    nano_cpus=10**9,
    pids=256,
    restart="always",
    networks=("platform-network",),
)
CURRENT = ContainerFacts(
    SETTINGS,
    owner="alice",
    namespace="",
    service="web",
    origin="client",
    id="c" * 64,
    network_mode="platform-network",
)
HOST = HostFacts(cpus=8, now=1.0)
NO_BRIDGE = policy(networks={"modes": ["none", "isolated"]})


def update(body, *, current=CURRENT, actor=CLIENT, rules=STRICT):
    return admit_update(parse_update(body), actor=actor, policy=rules, current=current, host=HOST)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"Memory": 4 * GIB, "MemorySwap": 4 * GIB}, {"Memory": 4 * GIB, "MemorySwap": 4 * GIB}),
        # The engine would refuse a limit above the swap that is there.
        ({"Memory": 4 * GIB}, {"Memory": 4 * GIB, "MemorySwap": 4 * GIB}),
        ({"MemorySwap": 2 * GIB}, {"Memory": 2 * GIB, "MemorySwap": 2 * GIB}),
        ({"MemoryReservation": GIB}, {"MemoryReservation": GIB}),
        ({"NanoCpus": 2 * 10**9}, {"NanoCpus": 2 * 10**9}),
        ({"CpuShares": 512, "PidsLimit": 10}, {"CpuShares": 512, "PidsLimit": 10}),
        (
            {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5}, "Memory": 0},
            {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5}},
        ),
    ],
)
def test_an_update_within_the_limits_is_rebuilt(body, expected):
    assert update(body).body == expected


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({}, "update.empty"),
        ({"Memory": 0}, "update.empty"),
        ({"PidsLimit": 0}, "resources.pids"),
        ({"PidsLimit": -1}, "resources.pids"),
        ({"PidsLimit": 513}, "resources.pids"),
        ({"Memory": 9 * GIB}, "resources.memory"),
        ({"Memory": -1}, "resources.memory"),
        ({"MemorySwap": -1}, "resources.swap"),
        ({"MemorySwap": 4 * GIB}, "resources.swap"),
        ({"MemoryReservation": 3 * GIB}, "resources.memory"),
        ({"MemorySwappiness": 5}, "resources.swap"),
        ({"NanoCpus": 5 * 10**9}, "resources.cpus"),
        ({"CpuQuota": 50_000}, "resources.cpus"),
        ({"CpuQuota": -1}, "resources.cpus"),
        ({"CpuPeriod": 1_000}, "resources.cpus"),
        ({"CpuQuota": 1_000_000, "CpuPeriod": 1_000}, "resources.cpus"),
        ({"CpuShares": 100_000}, "resources.shares"),
        ({"CpusetCpus": "0"}, "resources.cpuset"),
        ({"OomKillDisable": True}, "resources.oom"),
        ({"BlkioWeight": 100}, "resources.blkio"),
        ({"Devices": [{"PathOnHost": "/dev/mem"}]}, "update.field"),
        ({"memory": GIB}, "body.key"),
        ({"RestartPolicy": {"Name": "forever"}}, "restart"),
        ({"Privileged": True}, "body.unknown"),
    ],
)
def test_what_no_update_does(body, rule):
    assert denials(update(body))[0] == rule


def test_an_update_is_judged_by_the_state_that_it_leads_to():
    reserved = replace(SETTINGS, memory_reservation=GIB)
    current = replace(CURRENT, settings=reserved)
    # Each alone is fine; together the reservation would be above the limit.
    assert denials(update({"Memory": GIB // 2}, current=current)) == ("resources.memory",)
    quota = replace(CURRENT, settings=replace(SETTINGS, nano_cpus=0, cpu_quota=50_000))
    assert denials(update({"CpuQuota": 90_000}, current=quota)) == ()
    assert denials(update({"CpuPeriod": 10_000}, current=quota)) == ("resources.cpus",)
    assert denials(update({"NanoCpus": 10**9}, current=quota)) == ("resources.cpus",)


def test_a_limit_altered_from_outside_doesnt_hold_up_the_restart_policy():
    altered = replace(CURRENT, settings=replace(SETTINGS, memory=64 * GIB, pids=0))
    assert denials(update({"RestartPolicy": {"Name": "no"}}, current=altered)) == ()
    assert denials(update({"PidsLimit": 10}, current=altered)) == ()
    assert denials(update({"MemoryReservation": GIB}, current=altered)) == ("resources.memory",)


def test_what_an_update_leaves_is_what_the_inventory_admits():
    admission = update({"Memory": GIB, "RestartPolicy": {"Name": "no"}})
    expected = replace(SETTINGS, memory=GIB, memory_swap=GIB, restart="no")
    assert admission.settings == expected
    assert admission.summary["fields"] == ["Memory", "MemorySwap", "RestartPolicy"]


def test_a_container_that_is_removed_at_exit_cant_restart():
    gone = replace(CURRENT, auto_remove=True)
    assert denials(update({"RestartPolicy": {"Name": "always"}}, current=gone)) == ("auto-remove",)
    assert denials(update({"RestartPolicy": {"Name": "no"}}, current=gone)) == ()


def test_an_exception_holds_for_updates_of_its_service_too():
    rules = policy(
        exceptions=[
            {
                "owner": "alice",
                "namespace": "default",
                "service": "web",
                "repository": "ghcr.io/platformnetwork/web",
                "reason": "it needs more memory",
                "expires": "1970-01-01",
                "loosens": {"memoryMax": "16Gi"},
            }
        ]
    )
    image = "ghcr.io/platformnetwork/web:1"
    own = replace(CURRENT, origin="controller", namespace="default", image=image)
    assert denials(update({"Memory": 16 * GIB}, current=own, rules=rules)) == ()
    assert denials(update({"Memory": 16 * GIB}, rules=rules)) == ("resources.memory",)


def network(body, *, actor=CLIENT, rules=STRICT, existing=None, routes=()):
    return admit_network(
        parse_network(body),
        actor=actor,
        policy=rules,
        existing=existing,
        stamp=STAMP,
        routes=routes,
    )


LABELS = {
    names.INSTANCE: "i1",
    names.INTENT: STAMP.intent,
    names.MANAGED: "true",
    names.NAMESPACE: "",
    names.ORIGIN: "client",
    names.OWNER: "alice",
}
TEAM = {names.OWNER: "bob", names.NAMESPACE: "team"}


def test_a_clients_network_is_internal_and_its_own():
    admission = network({"Name": "alice-net", "Labels": {"com.docker.compose.network": "x"}})
    assert admission.body == {
        "Name": "alice-net",
        "Driver": "bridge",
        "Internal": True,
        "Labels": {"com.docker.compose.network": "x", **LABELS},
    }
    assert admission.verdict.rules == ("network.internal",)
    assert admission.summary == {"name": "alice-net", "labels": LABELS, "internal": True}
    lax = policy(networks={"clientInternal": False})
    assert network({"Name": "alice-net"}, rules=lax).body == {
        "Name": "alice-net",
        "Driver": "bridge",
        "Internal": False,
        "Labels": LABELS,
    }


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"Name": ""}, "name.invalid"),
        ({"Name": "../x"}, "name.invalid"),
        ({"Name": "0123456789ab"}, "name.like-an-id"),
        ({"Name": "host"}, "name.reserved"),
        ({"Name": "bridge"}, "name.reserved"),
        ({"Name": "platform-network"}, "name.reserved"),
        ({"Name": "platform-bridge.team"}, "name.reserved"),
        ({"Name": "n", "Driver": "macvlan"}, "network.driver"),
        ({"Name": "n", "Driver": "host"}, "network.driver"),
        (
            {"Name": "n", "Options": {"com.docker.network.bridge.name": "docker0"}},
            "network.options",
        ),
        (
            {"Name": "n", "Options": {"com.docker.network.bridge.enable_icc": "false"}},
            "network.options",
        ),
        ({"Name": "n", "IPAM": {"Config": [{"Subnet": "10.0.0.0/8"}]}}, "network.address"),
        ({"Name": "n", "EnableIPv6": True}, "network.ipv6"),
        ({"Name": "n", "Labels": {names.OWNER: "bob"}}, "label.reserved"),
        ({"Name": "n", "Labels": {names.NAMESPACE: "default"}}, "label.reserved"),
    ],
)
def test_what_no_clients_network_is(body, rule):
    assert denials(network(body))[0] == rule


@pytest.mark.parametrize(
    ("pool", "admitted"),
    [
        ({"Subnet": "172.28.0.0/16"}, True),
        ({"Subnet": "172.28.0.0/16", "IPRange": "172.28.5.0/24", "Gateway": "172.28.5.254"}, True),
        ({}, True),
        ({"Subnet": "192.168.0.0/24"}, False),
        ({"Subnet": "0.0.0.0/0"}, False),
        ({"Subnet": "172.0.0.0/8"}, False),
        ({"Subnet": "172.28.0.1/16"}, False),
        ({"Subnet": "172.28.0.0/16", "Gateway": "172.29.0.1"}, False),
        ({"Subnet": "172.28.0.0/16", "IPRange": "0.0.0.0/0"}, False),
        ({"Subnet": "2001:db8::/64"}, False),
        ({"Subnet": "x"}, False),
        ({"Gateway": "172.28.0.1"}, False),
    ],
)
def test_subnets_are_chosen_within_what_the_policy_lists(pool, admitted):
    body = {"Name": "n", "IPAM": {"Config": [pool]}}
    assert denials(network(body)) == (("network.address",) if pool else ())
    admission = network(body, rules=policy(networks={"subnets": ["172.16.0.0/12"]}))
    assert denials(admission) == (() if admitted else ("network.address",))
    if admitted and pool:
        assert admission.body["IPAM"] == {"Driver": "default", "Config": [pool]}
        assert admission.summary["subnets"] == [pool["Subnet"]]


@pytest.mark.parametrize(
    ("subnet", "rules"),
    [
        ("172.31.0.0/20", ("network.address",)),
        ("172.31.16.4/32", ("network.address",)),
        ("172.16.0.0/12", ("network.address",)),
        ("172.30.0.0/16", ()),
    ],
)
@pytest.mark.parametrize("actor", [CLIENT, OPERATOR])
def test_no_subnet_hides_what_the_host_has_a_route_to(subnet, rules, actor):
    # Of the host's own network a container would answer as its name server or gateway.
    body = {"Name": "n", "IPAM": {"Config": [{"Subnet": subnet, "Gateway": ""}]}}
    granted = policy(networks={"subnets": ["172.16.0.0/12"]})
    routes = ("10.0.0.0/8", "172.31.0.0/16")
    assert denials(network(body, rules=granted, actor=actor, routes=routes)) == rules


def test_there_are_only_so_many_subnets():
    pools = [{"Subnet": f"172.{n}.0.0/16"} for n in range(16, 21)]
    rules = policy(networks={"subnets": ["172.16.0.0/12"]})
    admission = network({"Name": "n", "IPAM": {"Config": pools}}, rules=rules)
    assert denials(admission) == ("network.address",)


def test_a_name_that_something_foreign_holds_is_refused():
    assert denials(network({"Name": "n"}, existing=replace(ALICES, name="n", ours=False))) == (
        "network.foreign",
    )


def test_a_client_meets_no_network_of_another_owner():
    bobs = network({"Name": "n"}, existing=replace(ALICES, name="n", owner="bob"))
    strangers = network({"Name": "n"}, existing=replace(ALICES, name="n", ours=False))
    assert bobs == strangers
    assert denials(network({"Name": "n"}, existing=replace(ALICES, name="n"))) == ()


SWITCHES = {
    "com.docker.network.bridge.enable_ip_masquerade": "false",
    "com.docker.network.bridge.enable_icc": "false",
}


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        ({"Name": "platform-network.team", "Internal": True}, ()),
        ({"Name": "platform-network.team"}, ("network.shape",)),
        ({"Name": "platform-ingress.team", "Options": SWITCHES}, ()),
        ({"Name": "platform-ingress.team"}, ("network.shape",)),
        (
            {"Name": "platform-ingress.team", "Options": SWITCHES, "Internal": True},
            ("network.shape",),
        ),
        ({"Name": "platform-bridge.team"}, ()),
        ({"Name": "platform-bridge.team", "Internal": True}, ("network.shape",)),
        ({"Name": "team.extra", "Internal": True}, ()),
        ({"Name": "team.extra"}, ()),
        ({"Name": "team.extra", "Internal": True, "Options": SWITCHES}, ("network.options",)),
        # Another namespace's, or the default one's.
        ({"Name": "platform-network", "Internal": True}, ("name.mismatch", "name.reserved")),
        ({"Name": "platform-network.x", "Internal": True}, ("name.mismatch", "name.reserved")),
        ({"Name": "extra", "Internal": True}, ("name.mismatch",)),
        ({"Name": "other.extra", "Internal": True}, ("name.mismatch",)),
        ({"Name": "team.Extra", "Internal": True}, ("name.mismatch",)),
    ],
)
def test_the_controllers_networks_are_called_and_made_as_implied(body, rules):
    assert denials(network({**body, "Labels": TEAM}, actor=CONTROLLER)) == rules


def test_what_the_controller_makes_is_passed_on_as_it_is():
    admission = network(
        {"Name": "platform-ingress.team", "Options": SWITCHES, "Labels": TEAM}, actor=CONTROLLER
    )
    assert admission.body == {
        "Name": "platform-ingress.team",
        "Driver": "bridge",
        "Internal": False,
        "Options": SWITCHES,
        "Labels": {**LABELS, **TEAM, names.ORIGIN: "controller"},
    }
    assert admission.verdict.decision == "allow"


def test_a_way_out_is_granted_by_the_policy():
    bridge = {"Name": "platform-bridge.team", "Labels": TEAM}
    assert denials(network(bridge, actor=CONTROLLER, rules=NO_BRIDGE)) == ("network.mode",)
    extra = {"Name": "team.extra", "Labels": TEAM}
    assert denials(network(extra, actor=CONTROLLER, rules=NO_BRIDGE)) == ("network.internal",)
    assert denials(network({**extra, "Internal": True}, actor=CONTROLLER, rules=NO_BRIDGE)) == ()


def test_an_implied_network_that_is_there_and_wrong_is_told_with_both_remedies():
    wrong = replace(ISOLATED, name="platform-network.team", internal=False)
    body = {"Name": "platform-network.team", "Internal": True, "Labels": TEAM}
    admission = network(body, actor=CONTROLLER, existing=wrong)
    assert denials(admission) == ("network.foreign",)
    assert "remove or rename" in admission.verdict.remedy
    assert "networks.isolated" in admission.verdict.remedy


def test_a_lost_internal_is_named_except_to_clients():
    """A network was made anew by hand, under the name of an internal one."""
    body = {"Name": "team.extra", "Internal": True, "Labels": TEAM}
    opened = NetworkFacts("8" * 64, "team.extra", ours=False)
    refused = network(body, actor=CONTROLLER, existing=opened)
    assert denials(refused) == ("network.foreign",)
    assert refused.verdict.reason.endswith("isn't ours and has a way out")
    closed = network(body, actor=CONTROLLER, existing=replace(opened, internal=True))
    assert closed.verdict.reason.endswith("isn't ours")
    client = network({"Name": "n", "Internal": True}, existing=replace(opened, name="n"))
    assert client.verdict.reason.endswith("isn't ours")


def test_the_gate_makes_a_clients_implied_networks():
    def made(name, actor=CLIENT, rules=STRICT, taken=("10.208.0.0/21", "10.208.8.0/24")):
        return admit_implied_network(name, actor=actor, policy=rules, stamp=STAMP, taken=taken)

    labels = {**LABELS, names.NAMESPACE: "default"}
    assert made("platform-network").body == {
        "Name": "platform-network",
        "Driver": "bridge",
        "Internal": True,
        # The engine chooses from the upper half; the lower one belongs to slots.
        "IPAM": {
            "Driver": "default",
            "Config": [
                {"Subnet": "10.208.16.0/21", "IPRange": "10.208.20.0/22", "Gateway": "10.208.16.1"}
            ],
        },
        "Labels": labels,
    }
    assert "IPAM" not in made("platform-network", taken=("10.0.0.0/8",)).body
    assert made("platform-ingress").body == {
        "Name": "platform-ingress",
        "Driver": "bridge",
        "Internal": False,
        "Options": SWITCHES,
        "Labels": labels,
    }
    assert denials(made("platform-bridge")) == ()
    assert denials(made("platform-bridge", rules=NO_BRIDGE)) == ("network.mode",)
    assert denials(made("platform-network.team")) == ("network.mode",)
    assert denials(made("alice-net")) == ("network.mode",)


def volume(body, *, actor=CLIENT, existing=None, rules=STRICT):
    return admit_volume(
        parse_volume(body), actor=actor, policy=rules, existing=existing, stamp=STAMP
    )


def test_a_clients_volume_is_plain_and_its_own():
    admission = volume({"Name": "alice-data", "Driver": "local", "Labels": {"a": "b"}})
    assert admission.body == {
        "Name": "alice-data",
        "Driver": "local",
        "Labels": {"a": "b", **LABELS},
    }
    assert admission.verdict.decision == "allow"
    assert volume({"Name": "v1"}, actor=OPERATOR).summary["labels"] == {
        **LABELS,
        names.OWNER: "operator",
    }


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"Name": ""}, "name.invalid"),
        ({"Name": "../x"}, "name.invalid"),
        ({"Name": "shop.redis.1.data-81ce9a"}, "name.reserved"),
        ({"Name": "v1", "Driver": "nfs"}, "volume.driver"),
        ({"Name": "v1", "DriverOpts": {"o": "bind", "device": "/"}}, "volume.options"),
        ({"Name": "v1", "Opts": {"o": "bind"}}, "volume.options"),
        ({"Name": "v1", "driveropts": {"o": "bind"}}, "body.key"),
        ({"Name": "v1", "Labels": {names.OWNER: "bob"}}, "label.reserved"),
    ],
)
def test_what_no_volume_is(body, rule):
    assert denials(volume(body))[0] == rule


@pytest.mark.parametrize(
    ("existing", "rules"),
    [
        (VolumeFacts("v1", ours=True, owner="alice"), ()),
        (VolumeFacts("v1", ours=True, owner="bob"), ("volume.foreign",)),
        (VolumeFacts("v1", ours=False), ("volume.foreign",)),
        (
            VolumeFacts("v1", ours=True, owner="alice", options=(("o", "bind"),)),
            ("volume.foreign",),
        ),
    ],
)
def test_a_volume_that_exists_is_answered_with_only_to_its_owner(existing, rules):
    assert denials(volume({"Name": "v1"}, existing=existing)) == rules


BOUNDED = policy(resources={"volumeMax": "10Gi"})


@pytest.mark.parametrize("size", ["10g", "10GB", "10 GiB", "010g", "10737418240", "1k", "1024"])
def test_a_volume_gets_an_admitted_size_in_bytes(size):
    judged = volume({"Name": "v1", "DriverOpts": {"size": size}}, rules=BOUNDED)
    assert denials(judged) == ()
    expected = {"1k": "1024", "1024": "1024"}.get(size, "10737418240")
    assert judged.body["DriverOpts"] == {"size": expected}


@pytest.mark.parametrize(
    "size",
    ["11g", "10737418241", "1023", "0", "1", "10.5g", "-1", "1.2.3g", "10  g", "1e3", "x", "٣g"],
)
def test_a_size_beyond_the_policy_or_in_another_notation_is_refused(size):
    judged = volume({"Name": "v1", "DriverOpts": {"size": size}}, rules=BOUNDED)
    assert denials(judged) == ("resources.volume",)


@pytest.mark.parametrize(
    ("size", "remedy"),
    [
        ("11g", "ask for less"),
        ("x", "write a size such as 512m or 10g"),
        ("1", "write a size such"),
    ],
)
def test_the_remedy_of_a_refused_size_names_what_helps(size, remedy):
    judged = volume({"Name": "v1", "DriverOpts": {"size": size}}, rules=BOUNDED)
    assert judged.verdict.remedy.startswith(remedy)


def test_a_volume_has_no_size_unless_the_policy_says_that_the_storage_can_hold_one():
    judged = volume({"Name": "v1", "DriverOpts": {"size": "1g"}})
    assert denials(judged) == ("resources.volume",)
    assert "resources.volumeMax" in judged.verdict.remedy
    assert "DriverOpts" not in volume({"Name": "v1"}, rules=BOUNDED).body


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        ((("size", "1073741824"),), ()),
        ((("size", "1g"),), ()),
        ((("size", "2g"),), ("volume.size",)),
        ((), ("volume.size",)),
    ],
)
def test_a_volume_that_exists_keeps_its_size(options, rules):
    existing = VolumeFacts("v1", ours=True, owner="alice", options=options)
    body = {"Name": "v1", "DriverOpts": {"size": "1g"}}
    assert denials(volume(body, existing=existing, rules=BOUNDED)) == rules
    assert denials(volume({"Name": "v1"}, existing=existing, rules=BOUNDED)) == ()


def test_nobody_learns_the_size_of_somebody_elses_volume():
    body = {"Name": "v1", "DriverOpts": {"size": "1g"}}
    for options in ((), (("size", "1g"),), (("size", "2g"),)):
        bobs = VolumeFacts("v1", ours=True, owner="bob", options=options)
        assert denials(volume(body, existing=bobs, rules=BOUNDED)) == ("volume.foreign",)


def test_the_controllers_volumes_are_called_after_their_namespace():
    labels = {names.OWNER: "bob", names.NAMESPACE: "team"}
    good = volume({"Name": "team.data", "Labels": labels}, actor=CONTROLLER)
    assert good.summary["labels"] == {**LABELS, **labels, names.ORIGIN: "controller"}
    for name in ("data", "other.data", "team.", "team.a.b"):
        refused = volume({"Name": name, "Labels": labels}, actor=CONTROLLER)
        assert denials(refused)[0].startswith("name.")
    default = {names.OWNER: "bob", names.NAMESPACE: "default"}
    assert denials(volume({"Name": "data", "Labels": default}, actor=CONTROLLER)) == ()
    assert denials(volume({"Name": "team.data", "Labels": default}, actor=CONTROLLER)) == (
        "name.mismatch",
    )


def test_owners_are_listed_for_networks_and_volumes_too():
    listed = policy(owners=[{"name": "bob", "namespaces": ["team"]}])
    good = {"Name": "team.data", "Labels": TEAM}
    assert denials(volume(good, actor=CONTROLLER, rules=listed)) == ()
    other = {names.OWNER: "mallory", names.NAMESPACE: "team"}
    assert denials(volume({**good, "Labels": other}, actor=CONTROLLER, rules=listed)) == (
        "owner.unknown",
    )
    elsewhere = {names.OWNER: "bob", names.NAMESPACE: "default"}
    assert denials(
        network(
            {"Name": "net", "Internal": True, "Labels": elsewhere}, actor=CONTROLLER, rules=listed
        )
    ) == ("owner.namespace",)


def connect(found, *, body=None, current=CURRENT, actor=CLIENT, asked=None, rules=STRICT):
    request = parse_connect({"Container": "x", **(body or {})}, network=asked or found.name)
    return admit_connect(
        request, actor=actor, policy=rules, current=current, network=found, now=1.0
    )


def test_a_container_may_join_its_owners_networks():
    admission = connect(ALICES, body={"EndpointConfig": {"Aliases": ["web"]}})
    assert admission.body == {"Container": "c" * 64, "EndpointConfig": {"Aliases": ["web"]}}
    assert admission.summary == {"network": "alice-net", "name": "web", "answersTo": ["web"]}
    assert connect(ALICES, asked=ALICES.id).body == {"Container": "c" * 64}


@pytest.mark.parametrize(
    ("found", "change", "rule"),
    [
        (BOBS, {}, "network.foreign"),
        (ENGINES, {}, "network.foreign"),
        # It was made without a way out, and isn't given one afterwards.
        (BRIDGE, {}, "network.mode"),
        (INGRESS, {}, "network.mode"),
        (ALICES, {"network_mode": "none"}, "network.mode"),
    ],
)
def test_a_container_stays_in_its_mode(found, change, rule):
    assert denials(connect(found, current=replace(CURRENT, **change))) == (rule,)


def test_a_container_may_be_joined_again_to_what_its_mode_implies():
    assert denials(connect(ISOLATED)) == ()
    assert denials(connect(BRIDGE, current=replace(CURRENT, network_mode="platform-bridge"))) == ()
    assert denials(connect(INGRESS, current=replace(CURRENT, published=True))) == ()


def test_whose_container_it_is_decides_not_who_asks():
    assert denials(connect(BOBS, actor=OPERATOR)) == ("network.foreign",)
    team = NetworkFacts("8" * 64, "team.extra", ours=True, owner="x", namespace="team")
    own = replace(
        CURRENT,
        origin="controller",
        namespace="team",
        service="web",
        admitted_networks=("team.extra",),
    )
    assert denials(connect(team, current=own, actor=CONTROLLER)) == ()
    assert denials(connect(team, current=replace(own, namespace="other"), actor=CONTROLLER)) == (
        "network.foreign",
    )


def test_the_controller_joins_a_container_to_nothing_that_it_was_not_made_with():
    team = NetworkFacts("8" * 64, "team.extra", ours=True, owner="x", namespace="team")
    own = replace(CURRENT, origin="controller", namespace="team")
    assert denials(connect(team, current=own, actor=CONTROLLER)) == ("network.endpoints",)
    assert denials(connect(team, current=own, actor=OPERATOR)) == ()


def test_connecting_gives_no_addresses_and_no_names_of_others():
    chosen = {"EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.0.0.9"}}}
    assert denials(connect(ALICES, body=chosen)) == ("network.address",)
    named = {"EndpointConfig": {"Aliases": ["registry"]}}
    assert denials(connect(ALICES, body=named)) == ("network.alias",)


def test_a_prefix_of_an_id_joins_nothing():
    assert denials(connect(ALICES, asked="333333")) == ("network.unknown",)


def test_leaving_is_judged_by_the_network_alone():
    def leave(found, body=None, actor=CLIENT):
        request = parse_disconnect({"Container": "x", **(body or {})}, network=found.name)
        return admit_disconnect(
            request, actor=actor, policy=STRICT, current=CURRENT, network=found, now=1.0
        )

    assert leave(ALICES).body == {"Container": "c" * 64}
    assert leave(ISOLATED, {"Force": True}).body == {"Container": "c" * 64, "Force": True}
    assert denials(leave(BOBS)) == ("network.foreign",)
    assert denials(leave(replace(ENGINES, name="none"))) == ("network.foreign",)
    # Whoever looks after it may take it off what isn't ours.
    for actor in (CONTROLLER, OPERATOR):
        assert leave(ENGINES, actor=actor).body == {"Container": "c" * 64}


def test_who_is_no_client_is_told_whose_it_may_be_if_a_state_folder_was_lost() -> None:
    lost, hint = "0123456789abcdef", "'trimtab adopt --instance 0123456789abcdef'"
    strange = NetworkFacts("n" * 64, "platform-network", ours=False, internal=True, instance=lost)
    taken = VolumeFacts("data", ours=False, instance=lost)
    for actor in (CONTROLLER, OPERATOR, CLIENT):
        told = (
            network({"Name": "platform-network"}, actor=actor, existing=strange).findings,
            volume({"Name": "data"}, actor=actor, existing=taken).findings,
        )
        for findings in told:
            (foreign,) = [each for each in findings if each.rule.endswith(".foreign")]
            assert (hint in foreign.remedy) is (actor is not CLIENT), foreign


def test_a_volume_without_a_name_gets_the_label_of_one_too():
    rules = policy(mounts={"createVolumes": True})
    asked = parse_volume({"Labels": {"a": "b"}})
    made = named_volume(asked, actor=CLIENT, policy=rules, stamp=STAMP)
    assert made.name.startswith("alice-")
    assert dict(made.labels) == {"a": "b", "com.docker.volume.anonymous": ""}
    decision = admit_volume(made, actor=CLIENT, policy=rules, existing=None, stamp=STAMP)
    assert "com.docker.volume.anonymous" in str(decision.body)
    named = parse_volume({"Name": "alice-data"})
    assert named_volume(named, actor=CLIENT, policy=rules, stamp=STAMP) == named
