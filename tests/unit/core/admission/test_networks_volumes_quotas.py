"""Quotas of volumes and networks, and the bounds on what they are made with."""

from controller.core.admission.networks_volumes import admit_network, admit_volume
from controller.core.engine_api.parse import parse_network, parse_volume
from controller.core.rules.context import QuotaCounts, VolumeFacts
from controller.model import names
from tests.unit.core.creates import CLIENT, CONTROLLER, OPERATOR, STAMP, STRICT, policy

NONE = QuotaCounts()


def network(actor=CLIENT, counts=NONE, existing=None, rules=STRICT, **body):
    asked = parse_network({"Name": "shop", "Internal": True, **body})
    judged = admit_network(
        asked, actor=actor, policy=rules, existing=existing, stamp=STAMP, counts=counts
    )
    return judged.verdict.rules if judged.verdict.decision == "deny" else ()


def volume(actor=CLIENT, counts=NONE, existing=None, rules=STRICT, **body):
    asked = parse_volume({"Name": "shop", **body})
    judged = admit_volume(
        asked, actor=actor, policy=rules, existing=existing, stamp=STAMP, counts=counts
    )
    return judged.verdict.rules if judged.verdict.decision == "deny" else ()


def test_an_owner_has_so_many_volumes_and_its_clients_so_many_networks():
    assert volume(counts=QuotaCounts(volumes=499)) == ()
    assert volume(counts=QuotaCounts(volumes=500)) == ("quota.volumes",)
    assert network(counts=QuotaCounts(networks=19)) == ()
    assert network(counts=QuotaCounts(networks=20)) == ("quota.networks",)
    assert volume(actor=OPERATOR, counts=QuotaCounts(volumes=500)) == ("quota.volumes",)


def test_all_clients_together_have_so_many_and_operators_are_not_among_them():
    assert volume(counts=QuotaCounts(all_volumes=1000)) == ("quota.all-volumes",)
    assert network(counts=QuotaCounts(all_networks=20)) == ("quota.all-networks",)
    full = QuotaCounts(all_networks=20, all_volumes=1000)
    assert (network(OPERATOR, full), volume(OPERATOR, full)) == ((), ())


def test_documents_have_so_many_whatever_owners_they_invent():
    labels = {names.OWNER: "invented", names.NAMESPACE: "default"}
    full = QuotaCounts(volumes=0, all_volumes=1000, all_networks=100)
    assert volume(CONTROLLER, full, Labels=labels) == ("quota.all-volumes",)
    assert network(CONTROLLER, full, Labels=labels) == ("quota.all-networks",)
    # What its clients made does not keep an owner's documents from their networks.
    clients = QuotaCounts(networks=20, all_networks=20)
    assert network(CONTROLLER, clients, Labels=labels) == ()


def test_a_listed_owner_has_quotas_of_its_own():
    rules = policy(owners=[{"name": "alice", "volumes": 1, "networks": 0}])
    assert volume(rules=rules) == ()
    assert volume(counts=QuotaCounts(volumes=1), rules=rules) == ("quota.volumes",)
    assert network(rules=rules) == ("quota.networks",)


def test_what_exists_already_counts_in_no_quota():
    full = QuotaCounts(volumes=500, all_volumes=1000)
    assert volume(counts=full, existing=VolumeFacts("shop", ours=True, owner="alice")) == ()


def test_a_client_labels_its_objects_with_little():
    labels = {f"a{n}": "x" * 4000 for n in range(5)}
    assert volume(Labels=labels) == ("label.size",)
    assert network(Labels=labels) == ("label.size",)
    assert volume(actor=OPERATOR, Labels=labels) == ()
    assert volume(Labels=dict([*labels.items()][:4])) == ()


def test_a_chosen_subnet_is_no_larger_than_one_of_the_engines():
    rules = policy(networks={"subnets": ["172.16.0.0/12"]})

    def chosen(subnet):
        return network(rules=rules, IPAM={"Config": [{"Subnet": subnet}]})

    assert chosen("172.20.0.0/16") == ()
    assert chosen("172.20.0.0/15") == ("network.address",)
    assert chosen("172.16.0.0/12") == ("network.address",)
