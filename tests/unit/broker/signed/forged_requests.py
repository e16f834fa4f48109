"""Forged requests of a usurped controller: creates, and what containers need.

Each generator yields a name with a request. Every request differs from the honest ones in one thing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from controller.core.engine_api.field_tables import CONFIG, HOST_CONFIG
from controller.engine.requests import OutgoingRequest
from controller.model import names
from tests.unit.broker.signed.instance import create_of, prerequisites
from tests.unit.broker.signed.opened import armored
from tests.unit.broker.signed.rich import CIPHERTEXTS, LAB, RICH

WEB, POOL, PLAIN, ONCE = (
    "Service/shop/web",
    "Service/shop/pool",
    "Service/shop/plain",
    "Job/shop/once",
)
KEYS = (WEB, POOL, PLAIN, ONCE)
Forged = Iterator[tuple[str, OutgoingRequest]]
_GONE = object()


def one_place() -> Forged:
    """Yield creates with one value changed, removed or added, at each place of each body."""
    for key in KEYS:
        honest = create_of(key, RICH)
        body = body_of(honest)
        for path in _places(body):
            for variant in _variants(_value(body, path), is_root=not path):
                forged = _with(body, path, variant)
                if not is_choice(body, forged):
                    place = ".".join(map(str, path))
                    yield f"{key} {place}={str(variant)[:40]}", replace(honest, body=forged)


def more_members() -> Forged:
    """Yield creates with each member of the Engine API that the honest one lacks."""
    honest = create_of(WEB, RICH)
    body = body_of(honest)
    for table, path in ((CONFIG, ()), (HOST_CONFIG, ("HostConfig",))):
        present = _value(body, path)
        for name in sorted({each.name for each in table} - present.keys()):
            for value in _LIKELY.get(name, ("x", 1, True, ["x"], {"x": {}})):
                forged = _with(body, (*path, name), value)
                yield f"more {name}={value}", replace(honest, body=forged)
    for name, value in (("image", "trimtab.local/web:2"), ("cmd", ["/bin/sh"]), ("CMD", ["x"])):
        yield f"spelled {name}", replace(honest, body={**body, name: value})
    for name, value in _QUERIES:
        yield f"query {name}", replace(honest, query={**(honest.query or {}), name: value})


#: Values that the granting policy admits, or that lead out of the container.
_LIKELY: dict[str, tuple[object, ...]] = {
    "Tty": (True, False),
    "OpenStdin": (True,),
    "StdinOnce": (True,),
    "AttachStdin": (True,),
    "AttachStdout": (True,),
    "AttachStderr": (True,),
    "Shell": (["/bin/sh", "-c"],),
    "TrimtabEnv": (["PASSWORD=db/password@hmac:" + "0" * 64],),
    "Volumes": ({"/more": {}},),
    "NetworkDisabled": (True, False),
    "Runtime": ("runc", "crun"),
    "Binds": (["/tmp:/host"], ["/:/host"], ["shop.data:/again"], ["lab.data:/lab"]),
    "Tmpfs": ({"/run": "size=1048576"}, {"/run": "exec,size=1048576"}),
    "CpusetCpus": ("0",),
    "MemoryReservation": (32 << 20,),
    "MemorySwap": (64 << 20, 128 << 20, -1),
    "CpuQuota": (50_000,),
    "Privileged": (True,),
    "PidMode": ("host",),
    "IpcMode": ("host", "private"),
    "UTSMode": ("host",),
    "UsernsMode": ("host",),
    "CgroupnsMode": ("host", "private"),
    "SecurityOpt": (["seccomp=unconfined"], ["no-new-privileges:true"]),
    "Devices": ([{"PathOnHost": "/dev/kvm", "PathInContainer": "/dev/kvm"}],),
    "CapDrop": (["ALL"],),
    "VolumesFrom": (["shop.pool.1"],),
    "Links": (["shop.pool.1:pool"],),
    "AutoRemove": (True, False),
    "StorageOpt": ({"size": "1G"},),
    "PublishAllPorts": (True,),
    "Annotations": ({"a": "b"},),
}
_QUERIES = (
    ("name", "shop.web.1-evil"),
    ("name", "shop.pool.1"),
    ("platform", "linux/arm64"),
    ("Platform", "linux/arm64"),
)


def other_documents() -> Forged:
    """Yield the consistent requests for documents that nobody signed: labels and revision fit."""
    for place, (old, new) in enumerate(EDITS):
        assert RICH.count(old), old
        text = RICH.replace(old, new, 1)
        for key in KEYS:
            request = create_of(key, text)
            if request.body != create_of(key, RICH).body:
                yield f"edit {place} {new.strip()[:40]!r}: {key}", request
        honest = [(each.path, each.body) for each in prerequisites(RICH)]
        for request in prerequisites(text):
            if (request.path, request.body) not in honest:
                yield f"edit {place} {new.strip()[:40]!r}: {request.path}", request


#: Edits of the documents, each of its first occurrence. All of them are within the policy.
EDITS = (
    ("image: trimtab.local/web:1", "image: trimtab.local/web:2"),
    ("image: trimtab.local/web:1", "image: trimtab.local/db:1"),
    ("image: trimtab.local/db:1", "image: trimtab.local/web:1"),
    ("image: trimtab.local/job:1", "image: trimtab.local/web:1"),
    ("entrypoint: [/bin/serve]", "entrypoint: [/bin/sh, -c]"),
    ('command: [--listen, "8080"]', "command: [/bin/cat, /data/secret]"),
    ("command: [/bin/serve, migrate]", "command: [/bin/serve, drop]"),
    ("MODE: plain", "MODE: debug"),
    ("MODE: plain, ", ""),
    ("MODE: plain", "MODE: plain, MORE: x"),
    ("ROLE: worker", "ROLE: leader"),
    ("STEP: all", "STEP: none"),
    ('user: "1000:1000"', 'user: "1001:1001"'),
    ('groupAdd: ["2000"]', 'groupAdd: ["2000", "2001"]'),
    ("workingDir: /srv", "workingDir: /data"),
    ("hostname: front", "hostname: back"),
    ("domainname: example.org", "domainname: example.net"),
    ("peer: 10.1.2.3", "peer: 10.9.9.9"),
    ("servers: [10.0.0.53]", "servers: [10.6.6.6]"),
    ("search: [example.org]", "search: [evil.org]"),
    ("options: [ndots:2]", "options: [ndots:5]"),
    ("init: true", "init: false"),
    ("stopSignal: SIGTERM", "stopSignal: SIGKILL"),
    ("stopGracePeriod: 20s", "stopGracePeriod: 1s"),
    ("oomScoreAdj: 100", "oomScoreAdj: 1000"),
    ('net.core.somaxconn: "1024"', 'net.core.somaxconn: "4096"'),
    ("soft: 1024, hard: 2048", "soft: 1024, hard: 4096"),
    ("host: 18080", "host: 18081"),
    ("{container: 9090}", "{container: 9091}"),
    ("memory: 64Mi", "memory: 128Mi"),
    ("memory: 64Mi", "memory: 32Mi"),
    ("cpus: 0.5", "cpus: 1"),
    ("pids: 64", "pids: 128"),
    ("shm: 16Mi", "shm: 32Mi"),
    ("cpuShares: 512", "cpuShares: 1024"),
    ("capAdd: [CHOWN]", "capAdd: [CHOWN, SETUID]"),
    ("capAdd: [CHOWN]", "capAdd: [CHOWN], readOnlyRootFilesystem: true"),
    ("exec: [/bin/check, --fast]", "exec: [/bin/steal]"),
    ("interval: 5s", "interval: 6s"),
    ("exec: [/bin/warm, --all]", "exec: [/bin/steal]"),
    ("env: {STEP: one}", "env: {STEP: two}"),
    ("exec: [/bin/drain]", "exec: [/bin/steal]"),
    ("preStop: [{exec: [/bin/drain], timeout: 5s}]", "preStop: []"),
    ("aliases: [site]", "aliases: [site, api]"),
    ("aliases: [site]", "aliases: [api]"),
    ("com.example.team: shop", "com.example.team: other"),
    ("com.example.tier: front", "com.example.tier: front, more: x"),
    ("maxSize: 10Mi", "maxSize: 20Mi"),
    ("source: data, target: /data", "source: cache, target: /data"),
    ("target: /data", "target: /other"),
    ("target: /cache, readOnly: true", "target: /cache"),
    ("target: /scratch, size: 1Mi", "target: /scratch, size: 2Mi"),
    ("target: /scratch, size: 1Mi", "target: /scratch, size: 1Mi, exec: true"),
    ('mode: "0440"', 'mode: "0444"'),
    ("uid: 1000,", "uid: 1001,"),
    ("keys: [index.html]", "keys: [style.css]"),
    ("source: db, target: /run/db", "source: other, target: /run/db"),
    ("source: db, target: /run/db", "source: tls, target: /run/db"),
    ("source: db, target: /run/db", "source: db, target: /srv"),
    ("target: /run/db, uid: 1000, gid: 1000", "target: /run/db, uid: 0, gid: 1000"),
    ("target: /run/db, uid: 1000, gid: 1000", "target: /run/db, uid: 1000, gid: 0"),
    ('mode: "0400"', 'mode: "0444"'),
    ("keys: [key], onChange", "keys: [key, cert], onChange"),
    ("keys: [key], onChange", "onChange"),
    ("onChange: {signal: SIGHUP}", "onChange: None"),
    (", onChange: {signal: SIGHUP}", ""),
    ("{secret: db, key: password}", "{secret: other, key: password}"),
    ("PASSWORD: {secret: db, key: password}", "OTHER: {secret: db, key: password}"),
    (", PASSWORD: {secret: db, key: password}", ""),
    ("source: host, target: /run/host", "source: db, target: /run/host"),
    ("target: /run/token, key: token", "target: /run/token"),
    ("{file: {pw: pw}}", "{file: {pw: pw, again: pw}}"),
    ("{token: {length: 24}}", "{token: {length: 25}}"),
    (CIPHERTEXTS["PASSWORD}"], armored(b"evil")),
    (CIPHERTEXTS["PASSWORD}"], CIPHERTEXTS["OTHER}"]),
    (CIPHERTEXTS["CERT}"], armored(b"evil")),
    ("env: {STEP: all}", "env: {STEP: all, PASSWORD: {secret: db, key: password}}"),
    (
        "env: {STEP: all}",
        "env: {STEP: all}\n  mounts: [{type: secret, source: db, target: /run/db}]",
    ),
    (
        '"trimtab.local/web:2", network',
        '"trimtab.local/web:2", mounts: [{type: secret, source: db, target: /db}], network',
    ),
    ("index.html: hello", "index.html: evil"),
    ("style.css: plain", "style.css: plain, more.js: evil"),
    ("style.css: plain", "more.css: plain"),
    ("network: {attach: [{name: back}]}", "network: {mode: bridge, attach: [{name: back}]}"),
    ("network: {attach: [{name: back}]}", "network: {mode: isolated}"),
    ("network: {mode: none}", "network: {mode: isolated}"),
    ("network: {mode: none}", "network: {mode: bridge}"),
    (
        "{name: back, namespace: shop, owner: team}\nspec: {}",
        "{name: back, namespace: shop, owner: team}\nspec: {internal: false}",
    ),
    (
        "name: back, namespace: shop, owner: team",
        "name: back, namespace: shop, owner: team, labels: {a: b}",
    ),
    (
        "name: data, namespace: shop, owner: team",
        "name: data, namespace: shop, owner: team, labels: {a: b}",
    ),
)


def other_bodies() -> Forged:
    """Yield creates of one document in the place of another, wholly and in part."""
    requests = {key: create_of(key, RICH) for key in KEYS}
    for key, honest in requests.items():
        for other in KEYS:
            if other == key:
                continue
            own, foreign = body_of(honest), body_of(requests[other])
            yield (
                f"{other} labelled as {key}",
                replace(honest, body={**foreign, "Labels": own["Labels"]}),
            )
            yield (
                f"{key} with the process of {other}",
                replace(
                    honest, body={**own, **_only(foreign, "Image", "Cmd", "Entrypoint", "Env")}
                ),
            )
            host = {**own["HostConfig"], **_only(foreign["HostConfig"], "Mounts", "Memory")}
            if host != own["HostConfig"]:
                yield (
                    f"{key} with the mounts of {other}",
                    replace(honest, body={**own, "HostConfig": host}),
                )
            service = {names.SERVICE: foreign["Labels"][names.SERVICE]}
            yield (
                f"{key} as the service of {other}",
                replace(
                    honest,
                    body={**own, "Labels": {**own["Labels"], **service}},
                    query=requests[other].query,
                ),
            )
    for key in KEYS:
        yield f"{key}, another owner", create_of(key, RICH.replace("owner: team", "owner: other"))
    lab = create_of("Service/lab/web", LAB)
    moved = create_of("Service/shop/web", LAB.replace("namespace: lab", "namespace: shop"))
    yield "the document of lab", lab
    yield "the document of lab in shop", moved
    foreign = {names.NAMESPACE: "shop"}
    yield (
        "the document of lab with the namespace shop",
        replace(lab, body={**body_of(lab), "Labels": {**body_of(lab)["Labels"], **foreign}}),
    )
    yield "a slot beyond", create_of(POOL, RICH, slot=4)
    yield "a slot far beyond", create_of(POOL, RICH, slot=999)
    yield "a second slot of one", create_of(PLAIN, RICH, slot=2)


def body_of(request: OutgoingRequest) -> dict[str, Any]:
    assert request.body is not None
    return copy.deepcopy(dict(request.body))


def _only(body: Mapping[str, Any], *members: str) -> dict[str, Any]:
    return {name: body[name] for name in members if name in body}


def _places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in a body, of objects and lists too."""
    yield path
    items: list[tuple[Any, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        yield from _places(inner, (*path, key))


def _value(body: object, path: tuple[Any, ...]) -> Any:
    value: Any = body
    for key in path:
        value = value[key]
    return value


def _variants(value: object, *, is_root: bool) -> list[object]:
    """Return other values of the same type, a null, and none at all."""
    others: list[object] = []
    match value:
        case bool():
            others = [not value]
        case int():
            others = [value + 1, value * 2, max(value - 1, 0)]
        case str():
            others = [f"{value}x", "other", ""]
        case list():
            others = [[*value, "more"], value[1:], value[::-1], []]
        case dict():
            others = [{**value, "more": "x"}, {}]
        case _:
            pass
    return others if is_root else [*others, None, _GONE]


def _with(body: dict[str, Any], path: tuple[Any, ...], variant: object) -> dict[str, Any]:
    """Return a body with another value at a path. All other values are shared."""
    forged = _changed(body, path, variant)
    assert isinstance(forged, dict)
    return forged


def _changed(value: Any, path: tuple[Any, ...], variant: object) -> object:
    if not path:
        return variant
    first, *rest = path
    changed = value.copy()
    if not rest and variant is _GONE:
        del changed[first]
    elif not rest:
        changed[first] = variant
    else:
        changed[first] = _changed(value[first], tuple(rest), variant)
    return changed


def is_choice(honest: dict[str, Any], forged: dict[str, Any]) -> bool:
    """Return True if bodies differ in nothing, or in names that a container has none of yet."""

    def without_names(body: dict[str, Any], declared: dict[str, Any]) -> dict[str, Any]:
        left = dict(body)
        if "NetworkingConfig" in left:
            left["NetworkingConfig"] = copy.deepcopy(left["NetworkingConfig"])
        ends = (left.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
        for name, end in ends.items():
            aliases = declared.get(name, {}).get("Aliases")
            if isinstance(end, dict) and end.get("Aliases", []) in ([], aliases):
                end.pop("Aliases", None)
        return left

    declared = honest.get("NetworkingConfig", {}).get("EndpointsConfig", {})
    return without_names(honest, declared) == without_names(forged, declared)
