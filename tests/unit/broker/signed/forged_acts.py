"""Forged acts of a usurped controller that need a state: containers, runs, commits, other routes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from controller.engine.requests import OutgoingRequest
from controller.model import names
from controller.model.records import Reply
from tests.unit.broker.signed.forged_requests import ONCE, PLAIN, POOL, WEB, body_of
from tests.unit.broker.signed.instance import OPERATOR, create_of, prerequisites
from tests.unit.broker.signed.rich import RICH, RichInstance

NEWER = RICH.replace("MODE: plain", "MODE: other").replace("STEP: all", "STEP: more")
NIGHTLY = "Job/shop/nightly"
Act = Callable[[RichInstance], Reply]
OPEN = {names.OWNER: "team", names.NAMESPACE: "open"}


def _id(reply: Reply) -> str:
    assert reply.status == 201, reply.body
    return str(json.loads(reply.body)["Id"])


def unsigned(instance: RichInstance, text: str = NEWER) -> str:
    """Return a container from before the requirement."""
    instance.require(signed=False)
    identifier = _id(instance.send(create_of(WEB, text)))
    instance.require(signed=True)
    return identifier


def on_container(make: Callable[[RichInstance], str], verb: str, body: object = None) -> Act:
    def act(instance: RichInstance) -> Reply:
        return instance.ask("POST", f"/containers/{make(instance)}/{verb}", body)

    return act


def running(instance: RichInstance) -> str:
    return instance.run(create_of(WEB, RICH))


def superseded(instance: RichInstance) -> str:
    """Return a container of a commit that another one replaced before its start."""
    identifier = _id(instance.send(create_of(WEB, RICH)))
    instance.prepare(NEWER)
    return identifier


def undeclared(instance: RichInstance) -> str:
    """Return a container of a service that the newest commit removed."""
    identifier = _id(instance.send(create_of(PLAIN, RICH)))
    instance.prepare(without(PLAIN))
    return identifier


def without(key: str) -> str:
    """Return the documents without one of them."""
    kind, namespace, name = key.split("/")
    head = f"kind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}"
    kept = [each for each in RICH.split("---\n") if head not in each]
    assert len(kept) == RICH.count("---\n")
    return "---\n".join(kept)


def paused(instance: RichInstance) -> str:
    """Return a paused container from before the requirement."""
    identifier = unsigned(instance)
    for verb in ("start", "pause"):
        reply = instance.ask("POST", f"/containers/{identifier}/{verb}", actor=OPERATOR)
        assert reply.status == 204, reply.body
    return identifier


def join(network: str, config: dict[str, Any] | None, *, key: str = WEB) -> Act:
    """Return a connect of a container without names yet."""

    def act(instance: RichInstance) -> Reply:
        identifier = instance.run(create_of(key, RICH, with_alias=False))
        body: dict[str, Any] = {"Container": identifier}
        instance.ask("POST", f"/networks/{network}/disconnect", body, actor=OPERATOR)
        return instance.ask("POST", f"/networks/{network}/connect", body | (config or {}))

    return act


def aliases(*texts: str, **more: object) -> dict[str, Any]:
    return {"EndpointConfig": {"Aliases": list(texts), **more}}


def post(path: str, body: object = None, /, **query: str) -> Act:
    return lambda instance: instance.ask("POST", path, body, query=query)


def of_running(method: str, path: str, body: object = None, /, **query: str) -> Act:
    """Return a request about a running container; ``ID`` in the path is its id."""

    def act(instance: RichInstance) -> Reply:
        return instance.ask(method, path.replace("ID", running(instance)), body, query=query)

    return act


def record(**body: str) -> Act:
    return lambda instance: instance.ask("POST", "/trimtab/v1/records", body)


def send(make: Callable[[RichInstance], OutgoingRequest]) -> Act:
    return lambda instance: instance.send(make(instance))


def in_open(**changes: Any) -> Act:
    """Return the create of a container of a namespace without a signed source."""

    def act(instance: RichInstance) -> Reply:
        revision = "v2:" + "1" * 64
        labels = {
            **OPEN,
            names.SERVICE: "spy",
            names.SLOT: "1",
            names.REVISION: revision,
            names.IMAGE: "trimtab.local/web:1",
            **changes.get("labels", {}),
        }
        host = {"NetworkMode": "none", **changes.get("host", {})}
        body = {"Image": "trimtab.local/web:1", "Labels": labels, "HostConfig": host}
        body |= changes.get("body", {})
        default = names.container_name("open", "spy", slot=1, revision=revision)
        name = changes.get("name", default)
        return instance.ask("POST", "/containers/create", body, query={"name": name})

    return act


def after(*texts: str, then: str = RICH, key: str = WEB, **create: Any) -> Act:
    """Return a create of documents after other commits."""

    def act(instance: RichInstance) -> Reply:
        for text in texts:
            instance.prepare(text)
        return instance.send(create_of(key, then, **create))

    return act


def older_than_ten(instance: RichInstance) -> Reply:
    """Create the first of twelve revisions again."""
    texts = [RICH.replace("MODE: plain", f"MODE: m{number}") for number in range(12)]
    for text in texts:
        instance.prepare(text)
        instance.take_down(instance.run(create_of(WEB, text)))
    pin = next(iter(instance.inventory.pins.values())).id
    return instance.send(create_of(WEB, texts[0], attempt=2, image=pin))


def removed_again(instance: RichInstance) -> Reply:
    """Bring back a service that ran, and that the newest commit removed."""
    instance.take_down(instance.run(create_of(PLAIN, RICH)))
    pin = next(iter(instance.inventory.pins.values())).id
    instance.prepare(without(PLAIN))
    return instance.send(create_of(PLAIN, RICH, attempt=2, image=pin))


def rolled_back_with(**changes: Any) -> Act:
    """Return a rollback to a revision that ran, with changes of its create."""

    def act(instance: RichInstance) -> Reply:
        instance.take_down(instance.run(create_of(WEB, RICH)))
        pin = next(iter(instance.inventory.pins.values())).id
        instance.prepare(NEWER)
        honest = create_of(WEB, RICH, attempt=2, image=pin)
        return instance.send(replace(honest, body={**body_of(honest), **changes}))

    return act


def second_run(**labels: str) -> Act:
    """Return another run of a job that already ran."""

    def act(instance: RichInstance) -> Reply:
        instance.run(create_of(ONCE, RICH))
        slot = int(labels.pop("number", "1"))
        honest = create_of(ONCE, RICH, slot=slot)
        body = body_of(honest)
        return instance.send(replace(honest, body={**body, "Labels": {**body["Labels"], **labels}}))

    return act


def run_of_nightly(occasion: str) -> OutgoingRequest:
    """Return the create of a run of the scheduled job."""
    honest = create_of(NIGHTLY, RICH)
    body = body_of(honest)
    return replace(honest, body={**body, "Labels": {**body["Labels"], names.OCCASION: occasion}})


def restarted(instance: RichInstance) -> Reply:
    instance.restart()
    return instance.send(create_of(WEB, RICH))


def restarted_start(instance: RichInstance) -> Reply:
    identifier = _id(instance.send(create_of(WEB, RICH)))
    instance.restart()
    return instance.ask("POST", f"/containers/{identifier}/start")


def before_the_requirement(instance: RichInstance) -> Reply:
    """Roll back to a revision that ran before the requirement."""
    identifier = unsigned(instance)
    instance.ask("POST", f"/containers/{identifier}/start", actor=OPERATOR)
    instance.take_down(identifier)
    return instance.send(create_of(WEB, NEWER, attempt=2))


def stopped(key: str, head: str) -> Act:
    """Return the start of a container after a commit that stops its service."""

    def act(instance: RichInstance) -> Reply:
        identifier = _id(instance.send(create_of(key, RICH)))
        text = RICH.replace(head, f"{head}  state: Stopped\n", 1)
        assert text != RICH
        instance.prepare(text)
        return instance.ask("POST", f"/containers/{identifier}/start")

    return act


def beyond_scale(instance: RichInstance) -> Reply:
    """Create the third slot of a service that was scaled to two."""
    instance.prepare(RICH.replace("replicas: 3", "replicas: 2"))
    return instance.send(create_of(POOL, RICH.replace("replicas: 3", "replicas: 2"), slot=3))


def in_default(path: str, name: str, **labels: str) -> Act:
    """Return the create of a network or volume of the signed namespace ``default``."""
    body: dict[str, Any] = {
        "Name": name,
        "Driver": "local",
        "Labels": {names.OWNER: "team", **labels},
    }
    if path == "/networks/create":
        body |= {"Driver": "bridge", "Internal": False}
    return post(path, body)


#: A service on an internal network, both in the namespace ``default``.
DEFAULT = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: db, owner: team}
spec: {image: "trimtab.local/db:1", network: {attach: [{name: back}]}}
---
apiVersion: trimtab/v1
kind: Network
metadata: {name: back, owner: team}
spec: {internal: true}
"""


def way_out(instance: RichInstance) -> Reply:
    """Replace the internal network of a proven service by one with a way out."""
    instance.prepare(DEFAULT)
    identifier = instance.run(create_of("Service/default/db", DEFAULT))
    instance.ask("POST", f"/containers/{identifier}/stop")
    instance.ask("DELETE", f"/containers/{identifier}")
    assert instance.ask("DELETE", "/networks/back").status == 204
    return in_default("/networks/create", "back")(instance)


def altered_objects() -> Iterator[tuple[str, OutgoingRequest]]:
    """Yield networks, volumes and deliveries that differ from the declared ones in one thing."""
    requests = {json.dumps([each.path, each.body]): each for each in prerequisites(RICH)}
    for honest in requests.values():
        body = body_of(honest)
        for what, change in _changes_of(honest.path):
            yield (
                f"{honest.path} {body.get('Name', '')}: {what}",
                replace(honest, body={**body, **change}),
            )


def _changes_of(path: str) -> list[tuple[str, dict[str, Any]]]:
    if path == "/networks/create":
        return [
            ("open", {"Internal": False, "Options": {}, "Labels": _OWN}),
            ("attachable", {"Attachable": True}),
            ("ipv6", {"EnableIPv6": True}),
            ("another driver", {"Driver": "macvlan"}),
            ("a subnet", {"IPAM": {"Config": [{"Subnet": "10.77.0.0/24"}]}}),
            ("an option", {"Options": {"com.docker.network.bridge.name": "br0"}}),
            ("another owner", {"Labels": {**_OWN, names.OWNER: "other"}}),
            ("a label more", {"Labels": {**_OWN, "a": "b"}}),
            ("the namespace open", {"Labels": OPEN}),
            ("no labels", {"Labels": {}}),
            ("another name", {"Name": "shop.more"}),
        ]
    if path == "/volumes/create":
        return [
            ("an option", {"DriverOpts": {"type": "none", "o": "bind", "device": "/"}}),
            ("a size", {"DriverOpts": {"size": "1024"}}),
            ("another driver", {"Driver": "other"}),
            ("another owner", {"Labels": {**_OWN, names.OWNER: "other"}}),
            ("a label more", {"Labels": {**_OWN, "a": "b"}}),
            ("the namespace open", {"Labels": OPEN}),
            ("another name", {"Name": "shop.more"}),
        ]
    return [
        ("other bytes", {"files": {"index.html": "ZXZpbA==", "style.css": "cGxhaW4="}}),
        ("a file less", {"files": {"index.html": "aGVsbG8="}}),
        ("a file more", {"files": {"index.html": "aGVsbG8=", "style.css": "cGxhaW4=", "x": ""}}),
        ("swapped files", {"files": {"index.html": "cGxhaW4=", "style.css": "aGVsbG8="}}),
        ("no files", {"files": {}}),
        ("another owner", {"owner": "other"}),
        ("a member more", {"more": 1}),
    ]


_OWN = {names.OWNER: "team", names.NAMESPACE: "shop"}
_DELIVERY = {"owner": "team", "files": {"index.html": "ZXZpbA=="}}


def put(path: str, body: object) -> Act:
    return lambda instance: instance.ask("PUT", path, body)


_LIMITS: tuple[dict[str, Any], ...] = (
    {"Memory": 128 << 20, "MemorySwap": 128 << 20},
    {"Memory": 128 << 20},
    {"Memory": 32 << 20},
    {"MemoryReservation": 32 << 20},
    {"NanoCpus": 10**9},
    {"NanoCpus": 10**8},
    {"CpuShares": 1024},
    {"PidsLimit": 128},
    {"PidsLimit": 8},
    {"CpusetCpus": "0"},
    {"RestartPolicy": {"Name": "unless-stopped"}},
    {"RestartPolicy": {"Name": "no"}, "Memory": 96 << 20},
    {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
    {"Memory": 64 << 20, "PidsLimit": 128},
)
_EVIL_LABELS = {"labels": {names.NAMESPACE: "shop", names.SERVICE: "spy"}}
ACTS: tuple[tuple[str, Act], ...] = (
    *((f"update to {limits}", on_container(running, "update", limits)) for limits in _LIMITS),
    ("update of an unproven container", on_container(unsigned, "update", {"Memory": 64 << 20})),
    ("start of an unproven container", on_container(unsigned, "start")),
    ("restart of an unproven container", on_container(unsigned, "restart")),
    ("thaw of an unproven container", on_container(paused, "unpause")),
    ("start of a superseded container", on_container(superseded, "start")),
    ("restart of a superseded container", on_container(superseded, "restart")),
    ("start of a removed service", on_container(undeclared, "start")),
    ("start of a stopped service", stopped(WEB, "spec:\n")),
    ("start after a restart of the broker", restarted_start),
    ("create after a restart of the broker", restarted),
    ("another service's name", join("shop.back", aliases("pool"))),
    ("a name more", join("shop.back", aliases("web", "site", "more"))),
    ("a name less", join("shop.back", aliases("web"))),
    ("names in another order", join("shop.back", aliases("site", "web"))),
    ("a name of another network", join("platform-network.shop", aliases("web", "site"))),
    (
        "an address",
        join("shop.back", aliases("web", "site", IPAMConfig={"IPv4Address": "10.0.0.9"})),
    ),
    ("a link", join("shop.back", aliases("web", "site", Links=["a:b"]))),
    ("a priority", join("shop.back", aliases("web", "site", GwPriority=5))),
    ("a driver's option", join("shop.back", aliases("web", "site", DriverOpts={"a": "b"}))),
    ("a MAC address", join("shop.back", aliases("web", "site", MacAddress="02:00:00:00:00:01"))),
    ("a forced connect", join("shop.back", {"Force": True})),
    ("the network of another service", join("platform-ingress.shop", None, key=POOL)),
    ("a network of a service without one", join("shop.back", None, key=PLAIN)),
    ("the engine's own network", join("bridge", None)),
    ("another final name", of_running("POST", "/containers/ID/rename", name="shop.pool.1")),
    ("a rename", of_running("POST", "/containers/ID/rename", name="shop.evil")),
    ("a program in a container", of_running("POST", "/containers/ID/exec", {"Cmd": ["/bin/sh"]})),
    ("files into a container", of_running("PUT", "/containers/ID/archive", path="/")),
    ("an image of a container", of_running("POST", "/commit", container="x")),
    ("an attached terminal", of_running("POST", "/containers/ID/attach", stdin="1", stream="1")),
    ("a moved tag", post("/images/trimtab.local/web:2/tag", repo="trimtab.local/web", tag="1")),
    ("a loaded image", post("/images/load")),
    ("a built image", post("/build")),
    ("an imported image", post("/images/create", fromSrc="http://example.org/a")),
    ("another policy", put("/trimtab/v1/policy", {"name": "evil"})),
    ("a policy by POST", post("/trimtab/v1/policy", {"name": "evil"})),
    (
        "no rule any more",
        lambda instance: instance.ask("DELETE", "/trimtab/v1/policy/sources/shop"),
    ),
    ("no proof any more", lambda instance: instance.ask("DELETE", "/trimtab/v1/proofs")),
    ("a reload", post("/trimtab/v1/policy/reload")),
    ("a record of acceptance", record(act="source.accepted", object="shop", owner="team")),
    ("an approval of a commit", record(act="source.line", object="shop", digest="0" * 64)),
    ("a record of a pin", record(act="image.pinned", object=WEB, owner="team")),
    ("an approval", record(act="approval", object=WEB, owner="team")),
    (
        "a move in",
        record(
            **{"act": "service.moved", "object": WEB, "from": "Service/open/web", "owner": "team"}
        ),
    ),
    (
        "a move out",
        record(
            **{"act": "service.moved", "object": "Service/open/web", "from": WEB, "owner": "team"}
        ),
    ),
    (
        "a move within",
        record(
            **{"act": "service.moved", "object": "Service/shop/evil", "from": WEB, "owner": "team"}
        ),
    ),
    ("a commit that isn't accepted", after(then=NEWER)),
    ("a superseded commit", after(NEWER)),
    ("a superseded commit twice", after(NEWER, RICH.replace("plain", "third"), then=NEWER)),
    ("a superseded job", after(NEWER, key=ONCE)),
    ("a removed service", after(without(PLAIN), key=PLAIN)),
    ("a removed job", after(without(ONCE), key=ONCE)),
    ("a removed service that ran", removed_again),
    ("a revision older than ten others", older_than_ten),
    ("a revision from before the requirement", before_the_requirement),
    ("a slot beyond the scale", beyond_scale),
    ("a rollback with another command", rolled_back_with(Cmd=["/bin/sh"])),
    ("a rollback with another image", rolled_back_with(Image="trimtab.local/web:2")),
    ("a rollback with other variables", rolled_back_with(Env=["MODE=evil"])),
    ("a rollback without hooks", rolled_back_with(TrimtabHooks={})),
    ("a job run twice", second_run()),
    ("a job run for another occasion", second_run(number="2", **{names.OCCASION: "manual:x"})),
    (
        "a job run by a schedule",
        second_run(number="2", **{names.OCCASION: "schedule:2026-01-01T00:00:00Z"}),
    ),
    ("a job run by a rollout", second_run(number="2", **{names.OCCASION: "rollout:web@v2:x"})),
    ("a scheduled job run at once", send(lambda _i: create_of(NIGHTLY, RICH))),
    ("a scheduled job run for a rollout", send(lambda _i: run_of_nightly("rollout:web@v2:x"))),
    ("a run of a service", send(lambda _i: create_of(PLAIN, RICH, slot=2))),
    ("a container of open with a name of shop", in_open(name="shop.web.1-abc")),
    ("a container of open as one of shop", in_open(**_EVIL_LABELS)),
    ("a container of open as web", in_open(labels={names.NAMESPACE: "shop", names.SERVICE: "web"})),
    ("a network of shop in open", in_open(host={"NetworkMode": "shop.back"})),
    ("the own network of shop in open", in_open(host={"NetworkMode": "platform-network.shop"})),
    ("a container of shop as the network", in_open(host={"NetworkMode": "container:shop.web.1"})),
    (
        "a volume of shop in open",
        in_open(host={"Mounts": [{"Type": "volume", "Source": "shop.data", "Target": "/data"}]}),
    ),
    ("a volume of shop in open by a bind", in_open(host={"Binds": ["shop.data:/data"]})),
    (
        "a Config of shop in open",
        in_open(host={"Mounts": [{"Type": "config", "Source": "site", "Target": "/etc/site"}]}),
    ),
    (
        "a Secret in open",
        in_open(host={"Mounts": [{"Type": "secret", "Source": "db", "Target": "/run/db"}]}),
    ),
    (
        "a Secret of shop",
        put("/trimtab/v1/files/secret/shop/db", {"owner": "team", "source": {"age": {"a": "x"}}}),
    ),
    ("a Secret in the place of a Config", put("/trimtab/v1/files/secret/shop/site", _DELIVERY)),
    ("an undeclared Config", put("/trimtab/v1/files/config/shop/more", _DELIVERY)),
    ("a Config of lab", put("/trimtab/v1/files/config/lab/site", _DELIVERY)),
    (
        "a network named as of shop",
        post(
            "/networks/create",
            {"Name": "shop.spy", "Driver": "bridge", "Internal": True, "Labels": OPEN},
        ),
    ),
    (
        "the network of shop named in open",
        post(
            "/networks/create",
            {"Name": "platform-network.shop", "Driver": "bridge", "Internal": True, "Labels": OPEN},
        ),
    ),
    (
        "a volume named as of shop",
        post("/volumes/create", {"Name": "shop.spy", "Driver": "local", "Labels": OPEN}),
    ),
    ("a network of default without its namespace", in_default("/networks/create", "spy")),
    (
        "a network of default with an empty namespace",
        in_default("/networks/create", "spy", **{names.NAMESPACE: ""}),
    ),
    ("a network of default", in_default("/networks/create", "spy", **{names.NAMESPACE: "default"})),
    ("a volume of default without its namespace", in_default("/volumes/create", "spy")),
    (
        "a volume of default with an empty namespace",
        in_default("/volumes/create", "spy", **{names.NAMESPACE: ""}),
    ),
    ("a way out for a service of default", way_out),
    ("an unnamed volume", post("/volumes/create", {"Driver": "local", "Labels": _OWN})),
    (
        "a volume of lab",
        post(
            "/volumes/create",
            {"Name": "lab.spy", "Driver": "local", "Labels": {**_OWN, names.NAMESPACE: "lab"}},
        ),
    ),
)
