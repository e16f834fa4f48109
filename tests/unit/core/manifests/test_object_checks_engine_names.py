"""Names on the engine of declared volumes and networks."""

from controller.core.engine_api.create_body import create_body, joined_networks
from controller.core.manifests.check_together import desired_of
from controller.model.names import NetworkNames
from tests.unit.core.manifests.test_check_together import problem_lines

SERVICE = """apiVersion: trimtab/v1
kind: Service
metadata: {name: db, namespace: shop, owner: team}
spec:
  image: ghcr.io/platformnetwork/db:1
  mounts: [{type: volume, source: data, target: /data}]
  network: {attach: [back]}
"""


def volume(name: str, spec: str = "{}", namespace: str = "shop") -> str:
    return (
        f"apiVersion: trimtab/v1\nkind: Volume\n"
        f"metadata: {{name: {name}, namespace: {namespace}, owner: team}}\nspec: {spec}\n"
    )


def network(spec: str = "{}") -> str:
    return volume("back", spec).replace("kind: Volume", "kind: Network")


def one(*texts: str):
    (found,) = desired_of({"f.yaml": "---\n".join(texts)}).services
    return found


def test_a_service_uses_the_engines_names_of_adopted_objects():
    db = one(SERVICE, volume("data", "{engineName: shop_data}"), network("{engineName: shop_back}"))
    assert joined_networks(db, NetworkNames()) == ("platform-network.shop", "shop_back")
    body = create_body(db, slot=1, image="x", networks=NetworkNames())
    assert body["HostConfig"]["Mounts"][0]["Source"] == "shop_data"
    assert "shop_back" in body["NetworkingConfig"]["EndpointsConfig"]


def test_published_ports_need_no_ingress_beside_an_adopted_network_with_a_way_out():
    text = (
        SERVICE.replace("{attach", "{mode: declared, attach")
        + "  ports: [{container: 1, host: 8}]\n"
    )
    for spec, joined in (
        ("{engineName: shop_back, internal: false}", ("shop_back",)),
        ("{engineName: shop_back}", ("shop_back", "platform-ingress.shop")),
        ("{internal: false}", ("shop.back", "platform-ingress.shop")),
    ):
        db = one(text, volume("data"), network(spec))
        assert joined_networks(db, NetworkNames()) == joined


def test_another_engine_name_is_another_revision_and_none_keeps_the_revision():
    plain = one(SERVICE, network())
    assert plain.revision == one(SERVICE, volume("data"), network()).revision
    first = one(SERVICE, volume("data", "{engineName: a_1}"), network())
    second = one(SERVICE, volume("data", "{engineName: a_2}"), network())
    assert len({plain.revision, first.revision, second.revision}) == 3


def test_two_documents_cannot_name_one_volume():
    files = {
        "f.yaml": volume("data") + "---\n" + volume("old", "{engineName: shop.data}", "other"),
    }
    assert problem_lines(files) == [
        (
            "f.yaml:3:18 engine-name.duplicate: the engine's volume shop.data is also that of "
            "Volume/other/old (f.yaml:6)"
        ),
        (
            "f.yaml:9:20 engine-name.duplicate: the engine's volume shop.data is also that of "
            "Volume/shop/data (f.yaml:1)"
        ),
    ]


def test_a_service_is_left_unchanged_while_its_volume_is_unreadable():
    # Without the document, data would be the new and empty volume shop.data.
    files = {"f.yaml": SERVICE + "---\n" + network(), "v.yaml": volume("data", "{engineName: 7}")}
    desired = desired_of(files)
    assert [str(key) for key in sorted(desired.blind_keys)] == [
        "Service/shop/db",
        "Volume/shop/data",
    ]
    assert [p.code for p in desired.problems if p.key == min(desired.blind_keys)] == [
        "volume.broken"
    ]


def test_networks_of_the_engine_and_of_namespaces_cannot_be_named():
    for name in ("bridge", "host", "platform-network.shop"):
        desired = desired_of({"f.yaml": network(f"{{engineName: {name}}}")})
        assert [p.code for p in desired.problems] == ["network.reserved"]


def test_an_exclusive_volume_is_known_by_the_engines_name():
    other = SERVICE.replace("name: db", "name: dc").replace("source: data", "source: own")
    text = "---\n".join(
        [SERVICE, other, volume("own", "{engineName: shop.data}"), network("{engineName: xy}")]
    )
    desired = desired_of({"f.yaml": text})
    assert {p.code for p in desired.problems} == {"volume.exclusive"}
