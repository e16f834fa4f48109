"""The places of documents that an author fills, by kind of file, and what fills them.

A place makes the files of a folder from a number: of items, lines or characters. All of it can be written
by somebody who writes documents.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import Any

Files = Mapping[str, bytes]
#: Makes the files from a number.
Fill = Callable[[int], Files]


@dataclass(frozen=True, slots=True)
class Place:
    """A place of a kind of file."""

    kind: str
    name: str
    fill: Fill

    def __str__(self) -> str:
        return f"{self.kind}  {self.name}"


SERVICE = "Service"
HEAD = "apiVersion: trimtab/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop, owner: team}}\nspec: {spec}\n"


def document(spec: object, kind: str = SERVICE, name: str = "a") -> str:
    """Return the text of a document."""
    text = spec if isinstance(spec, str) else json.dumps(spec)
    return HEAD.format(kind=kind, name=name, spec=text)


def file(text: str, name: str = "a.yaml") -> Files:
    """Return a folder with one file."""
    return {name: text.encode(errors="surrogatepass")}


# YAML.

_YAML: dict[str, Callable[[int], str]] = {
    "documents": lambda n: "---\na: 1\n" * n,
    "empty documents": lambda n: "---\n" * n,
    "ends": lambda n: "a: 1\n...\n" * n,
    "comments": lambda n: "# a\n" * n,
    "one comment": lambda n: "#" * n,
    "blank lines": lambda n: "\n" * n,
    "spaces": lambda n: " " * n + "a",
    "tabs": lambda n: "a:\n" + "\t" * n,
    "carriage returns": lambda n: "a: 1\r\n" * n,
    "plain scalar": lambda n: "a: " + "b " * n,
    "lines of a plain scalar": lambda n: "a: b\n" + "  c\n" * n,
    "double quotes": lambda n: 'a: "' + "\\u0041" * n + '"',
    "open quotes": lambda n: 'a: "' + "x\n" * n,
    "single quotes": lambda n: "a: '" + "''" * n + "'",
    "literal": lambda n: "a: |\n" + "  b\n" * n,
    "folded": lambda n: "a: >\n" + "  b\n\n" * n,
    "long key": lambda n: "k" * n + ": 1",
    "keys": lambda n: "".join(f"k{i}: 1\n" for i in range(n)),
    "equal keys": lambda n: "k: 1\n" * n,
    "equal keys in flow": lambda n: "{" + "k: 1, " * n + "}",
    "keys that are no strings": lambda n: "[a]: 1\n" * n,
    "items": lambda n: "- a\n" * n,
    "flow items": lambda n: "[" + "a, " * n + "]",
    "open lists": lambda n: "a: " + "[" * n,
    "closed lists": lambda n: "a: " + "[" * n + "]" * n,
    "open maps": lambda n: "{a: " * n,
    "nested sequences": lambda n: "- " * n + "a",
    "indented": lambda n: "".join(f"{' ' * i}a:\n" for i in range(isqrt(2 * n))),
    "anchors": lambda n: "".join(f"a{i}: &a{i} 1\n" for i in range(n)),
    "aliases of one": lambda n: "a: &a 1\n" + "".join(f"b{i}: *a\n" for i in range(n)),
    "aliases of a list": lambda n: f"a: &a [{'1, ' * n}]\nb: [{'*a, ' * n}]",
    "a chain of aliases": lambda n: "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, n)),
    "doubled aliases": lambda n: "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, n)),
    "unknown aliases": lambda n: "- *a\n" * n,
    "merges": lambda n: "a: &a {b: 1}\nc:\n" + "  <<: *a\n" * n,
    "a list of merges": lambda n: f"a: &a {{b: 1}}\nc:\n  <<: [{'*a, ' * n}]\n",
    "merges of merges": lambda n: "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: *a{i - 1}, k{i}: 1}}\n" for i in range(1, n)),
    "tags": lambda n: "- !!str a\n" * n,
    "directives": lambda n: "%YAML 1.2\n" * n,
    "question marks": lambda n: "? a\n: b\n" * n,
    "digits": lambda n: "a: " + "9" * n,
    "a fraction": lambda n: "a: 0." + "9" * n,
    "an exponent": lambda n: "a: 1e" + "9" * n,
    "underscores": lambda n: "a: 1" + "_0" * n,
    "colons": lambda n: "a: " + "1:" * n + "1",
    "bad bytes": lambda n: "a: " + "\ufffe" * n,
    "brackets and quotes": lambda n: "a: " + "['{\"" * n,
    "minus signs": lambda n: "-" * n,
    "a file of nothing known": lambda n: "kind: Deployment\n---\n" * n,
}  # fmt: skip


# Fields of documents.

#: Fields of each kind with a few items, and what makes a further one.
_LISTS: dict[str, tuple[str, Callable[[int], object]]] = {
    "command": (SERVICE, lambda i: f"a{i}"),
    "args": (SERVICE, lambda i: f"a{i}"),
    "ports": (SERVICE, lambda i: {"container": i % 65_000 + 1, "host": i % 65_000 + 1, "hostIP": f"127.{i >> 16}.{i >> 8 & 255}.{i & 255}"}),
    "mounts": (SERVICE, lambda i: {"type": "tmpfs", "target": f"/t{i}", "size": "1Mi"}),
    "mounts of one target": (SERVICE, lambda _i: {"type": "tmpfs", "target": "/t", "size": "1Mi"}),
    "mounts of Configs": (SERVICE, lambda i: {"type": "config", "source": f"c{i}", "target": f"/c{i}"}),
    "mounts of volumes": (SERVICE, lambda i: {"type": "volume", "source": f"v{i}", "target": f"/v{i}"}),
    "dependsOn": (SERVICE, lambda i: {"name": f"d{i}"}),
    "devices": (SERVICE, lambda i: {"source": f"/dev/d{i}"}),
    "extraHosts": (SERVICE, lambda i: f"h{i}:127.0.0.1"),
}  # fmt: skip
_INNER: dict[str, Callable[[list[object]], dict[str, object]]] = {
    "network.attach": lambda items: {"network": {"attach": items}},
    "network.aliases": lambda items: {"network": {"attach": [{"name": "n", "aliases": items}]}},
    "network.dns": lambda items: {"network": {"dns": items}},
    "security.capAdd": lambda items: {"security": {"capAdd": items}},
    "security.groupAdd": lambda items: {"security": {"groupAdd": items}},
    "healthcheck.exec": lambda items: {"healthcheck": {"exec": items}},
    "rollout.before": lambda items: {"rollout": {"before": items}},
    "lifecycle.postStart": lambda items: {"lifecycle": {"postStart": [{"exec": items}]}},
}
_MAPS = (
    "env",
    "containerLabels",
    "ulimits",
    "sysctls",
    "extraHosts",
    "logging",
    "annotations",
    "x",
)
_TEXTS = (
    *("image", "user", "workingDir", "hostname", "replicas", "stopGracePeriod", "stopSignal"),
    *("pullPolicy", "state", "init", "oomScoreAdj", "schedule", "timeZone", "startingDeadline"),
)
#: Units that are repeated as a text: they begin what a reader of it looks for.
_UNITS = (
    *(
        "a",
        "/",
        ":",
        "@",
        ".",
        "-",
        "1",
        " ",
        "a/",
        "a:",
        "a.",
        "-a",
        "1h",
        "1.",
        "*/",
        "1,",
        "1-2,",
    ),
    *(
        "${",
        "${A:-",
        "$$",
        "}",
        "%41",
        "../",
        "a@sha256:",
        "Ki",
        "\\",
        "'",
        "* ",
        "0",
        "_",
        "é",
        "\n",
    ),
)


def _service(members: Mapping[str, object]) -> Files:
    return file(document({"image": "example.org/web:1", **members}))


def _inner(name: str, wrap: Callable[[list[object]], dict[str, object]]) -> Iterator[Place]:
    yield Place(SERVICE, name, lambda n: _service(wrap([f"a{i}" for i in range(n)])))


def _map(name: str) -> Iterator[Place]:
    yield Place(
        SERVICE,
        f"map {name}",
        lambda n: _service({name: {f"K{i}": "v" for i in range(n)}}),
    )
    yield Place(SERVICE, f"list {name}", lambda n: _service({name: [1] * n}))


def _metadata(key: str, value: Callable[[int], object]) -> Place:
    def files(n: int) -> Files:
        head = {"apiVersion": "trimtab/v1", "kind": SERVICE}
        metadata = {"name": "a", "owner": "t", key: value(n)}
        return file(json.dumps({**head, "metadata": metadata, "spec": {"image": "a"}}))

    return Place(SERVICE, f"metadata.{key}", files)


def _fields() -> Iterator[Place]:
    for name, (kind, item) in _LISTS.items():
        field = name.partition(" ")[0]
        yield Place(kind, name, partial(_list_of, field, item))
    for name, wrap in _INNER.items():
        yield from _inner(name, wrap)
    for name in _MAPS:
        yield from _map(name)
    for name in _TEXTS:
        kind = "Job" if name in {"schedule", "timeZone", "startingDeadline"} else SERVICE
        for unit in _UNITS:
            yield Place(kind, f"{name} {unit!r}", partial(_text_of, kind, name, unit))
    for key in ("name", "namespace", "owner"):
        yield _metadata(key, lambda n: "a" * n)
    yield _metadata("labels", lambda n: {f"l{i}": "v" for i in range(n)})
    yield _metadata("moved", lambda n: [{"from": f"m{i}"} for i in range(n)])
    yield Place(
        "Config",
        "data",
        lambda n: file(document({"data": {f"k{i}": "v" for i in range(n)}}, "Config")),
    )
    yield Place(
        "Config", "a long text", lambda n: file(document({"data": {"k": "v" * n}}, "Config"))
    )
    yield Place(
        "Config",
        "files",
        lambda n: {
            **file(document({"files": {f"k{i}": f"f{i}" for i in range(n)}}, "Config")),
            **{f"f{i}": b"x" for i in range(n)},
        },
    )
    yield Place(
        "Config",
        "one file",
        lambda n: {
            **file(document({"files": {f"k{i}": "f" for i in range(n)}}, "Config")),
            "f": b"x" * 64,
        },
    )
    yield Place(
        "Secret",
        "generate",
        lambda n: file(
            document({"generate": {f"k{i}": {"length": 8} for i in range(n)}}, "Secret")
        ),
    )
    yield Place(
        "Secret",
        "age",
        lambda n: file(
            document(
                {"age": {"k": "-----BEGIN AGE ENCRYPTED FILE-----\n" + "YWdl\n" * n}}, "Secret"
            )
        ),
    )
    yield Place(
        "Secret",
        "sops",
        lambda n: {**file(document({"sops": "s.yaml"}, "Secret")), "s.yaml": b"a: ENC[x]\n" * n},
    )
    yield Place(
        "Source",
        "namespaces",
        lambda n: file(
            json.dumps(
                {
                    "apiVersion": "trimtab/v1",
                    "kind": "Source",
                    "metadata": {"name": "s", "owner": "t"},
                    "spec": {
                        "git": {"url": "https://example.org/a.git"},
                        "namespaces": [f"n{i}" for i in range(n)],
                    },
                }
            )
        ),
    )


def _list_of(field: str, item: Callable[[int], object], n: int) -> Files:
    return _service({field: [item(i) for i in range(n)]})


def _text_of(kind: str, name: str, unit: str, n: int) -> Files:
    return file(document({"image": "example.org/web:1", name: unit * n}, kind))


# Many documents.

_MANY: dict[str, tuple[str, Callable[[int, int], object]]] = {
    "plain": (SERVICE, lambda _i, _n: {}),
    "one port, many addresses": (SERVICE, lambda i, _n: {"ports": [{"container": 80, "host": 80, "hostIP": f"127.{i >> 16}.{i >> 8 & 255}.{i & 255}"}]}),
    "one port": (SERVICE, lambda _i, _n: {"ports": [{"container": 80, "host": 80}]}),
    "one volume, read": (SERVICE, lambda _i, _n: {"mounts": [{"type": "volume", "source": "v", "target": "/v", "readOnly": True}]}),
    "one volume, shared": (SERVICE, lambda _i, _n: {"mounts": [{"type": "volume", "source": "v", "target": "/v", "shared": True}]}),
    "one volume, written": (SERVICE, lambda _i, _n: {"mounts": [{"type": "volume", "source": "v", "target": "/v"}]}),
    "a chain": (SERVICE, lambda i, _n: {"dependsOn": [{"name": f"s{i - 1}"}] if i else []}),
    "a circle": (SERVICE, lambda i, n: {"dependsOn": [{"name": f"s{(i + 1) % n}"}]}),
    "all on one": (SERVICE, lambda i, _n: {"dependsOn": [{"name": "s0"}] if i else []}),
    "one network": (SERVICE, lambda _i, _n: {"network": {"attach": [{"name": "n"}]}}),
    "one alias": (SERVICE, lambda _i, _n: {"network": {"attach": [{"name": "n", "aliases": ["x"]}]}}),
    "aliases of others": (SERVICE, lambda i, _n: {"network": {"attach": [{"name": "n", "aliases": [f"s{i + 1}"]}]}}),
    "one Config": (SERVICE, lambda _i, _n: {"mounts": [{"type": "config", "source": "c", "target": "/c"}]}),
    "one job of rollouts": (SERVICE, lambda _i, _n: {"rollout": {"before": ["once"]}}),
    "shared network": (SERVICE, lambda i, _n: {"network": {"shareWith": "s0"}} if i else {}),
    "Configs": ("Config", lambda _i, _n: {"data": {"a": "b"}}),
    "Volumes": ("Volume", lambda _i, _n: {}),
    "Volumes of one name": ("Volume", lambda _i, _n: {"engineName": "v"}),
    "Networks": ("Network", lambda _i, _n: {}),
    "Networks of one name": ("Network", lambda _i, _n: {"engineName": "v"}),
    "Networks of one subnet": ("Network", lambda _i, _n: {"subnet": "10.0.0.0/8"}),
    "Secrets": ("Secret", lambda _i, _n: {"generate": {"a": {}}}),
    "Jobs": ("Job", lambda _i, _n: {"schedule": "0 4 * * *"}),
    "Jobs of every minute": ("Job", lambda _i, _n: {"schedule": "0,1,2,3,4 0-23 * * *"}),
}  # fmt: skip
_BESIDE = "".join(
    document(spec, kind, name) + "---\n"
    for kind, name, spec in (
        ("Volume", "v", {}),
        ("Network", "n", {}),
        ("Config", "c", {"data": {"a": "b"}}),
        ("Job", "once", {"image": "a", "trigger": "Rollout"}),
    )
)


def _many() -> Iterator[Place]:
    for name, (kind, spec) in _MANY.items():
        yield Place("documents", name, partial(_documents, kind, spec))
    yield Place("documents", "one with the ports of all others", _ports_of_others)
    yield Place(
        "documents",
        "of one name",
        lambda n: file("---\n".join(document({"image": "a"}) for _ in range(n))),
    )
    yield Place(
        "documents",
        "files",
        lambda n: {f"f{i}.yaml": document({"image": "a"}, name=f"s{i}").encode() for i in range(n)},
    )
    yield Place(
        "documents", "files of no kind", lambda n: {f"f{i}.yaml": b"a: 1\n" for i in range(n)}
    )
    yield Place(
        "documents",
        "moves to one",
        lambda n: file(
            "---\n".join(
                json.dumps(
                    {
                        "apiVersion": "trimtab/v1",
                        "kind": SERVICE,
                        "spec": {"image": "a"},
                        "metadata": {"name": f"s{i}", "owner": "t", "moved": [{"from": "old"}]},
                    }
                )
                + "\n"
                for i in range(n)
            )
        ),
    )
    yield Place(
        "documents",
        "a chain of moves",
        lambda n: file(
            "---\n".join(
                json.dumps(
                    {
                        "apiVersion": "trimtab/v1",
                        "kind": SERVICE,
                        "spec": {"image": "a"},
                        "metadata": {
                            "name": f"s{i}",
                            "owner": "t",
                            "moved": [{"from": f"s{i + 1}"}],
                        },
                    }
                )
                + "\n"
                for i in range(n)
            )
        ),
    )
    yield Place(
        "documents",
        "Sources of one namespace",
        lambda n: file(
            "---\n".join(
                json.dumps(
                    {
                        "apiVersion": "trimtab/v1",
                        "kind": "Source",
                        "metadata": {"name": f"s{i}", "owner": "t"},
                        "spec": {"git": {"url": "https://example.org/a.git"}, "namespaces": ["x"]},
                    }
                )
                + "\n"
                for i in range(n)
            )
        ),
    )


def _ports_of_others(n: int) -> Files:
    ports = [{"container": 80, "host": i + 1} for i in range(n)]
    others = (
        document({"image": "a", "ports": [each]}, name=f"s{i}") for i, each in enumerate(ports)
    )
    return file("---\n".join([document({"image": "a", "ports": ports}, name="all"), *others]))


def _documents(kind: str, spec: Callable[[int, int], Any], n: int) -> Files:
    image = {"image": "example.org/web:1"} if kind in {SERVICE, "Job"} else {}
    each = (document({**image, **spec(i, n)}, kind, f"s{i}") for i in range(n))
    return file(_BESIDE + "---\n".join(each))


# Compose.


def project(members: Mapping[str, object], **others: object) -> Files:
    """Return a folder with a Compose project of one service."""
    return compose({"services": {"a": {"image": "example.org/web:1", **members}}, **others})


def compose(value: object, **beside: bytes) -> Files:
    """Return a folder with a Compose file, and files beside it."""
    return {"compose.yaml": json.dumps(value).encode(), **beside}


_ATTRIBUTES = (
    *("command", "entrypoint", "environment", "env_file", "ports", "expose", "volumes", "networks"),
    *("depends_on", "labels", "dns", "dns_opt", "dns_search", "extra_hosts", "cap_add", "cap_drop"),
    *("configs", "secrets", "devices", "tmpfs", "group_add", "security_opt", "sysctls", "profiles"),
    *("annotations", "external_links", "links", "volumes_from", "ulimits", "gpus", "x-a"),
)
_COMPOSE_TEXTS = (
    *("image", "command", "entrypoint", "user", "mem_limit", "cpus", "restart", "hostname"),
    *("stop_grace_period", "shm_size", "container_name", "network_mode", "working_dir", "cpuset"),
)


def _broken(unit: str, n: int) -> Files:
    return file(f"include: [a\nservices: {{a: {{image: b}}}}\nx: {unit * n}", "compose.yaml")


def _services(spec: Callable[[int, int], dict[str, object]], n: int) -> Files:
    return compose({"services": {f"s{i}": {"image": "a", **spec(i, n)} for i in range(n)}})


_COMPOSED: dict[str, Callable[[int, int], dict[str, object]]] = {
    "services": lambda _i, _n: {},
    "a chain of depends_on": lambda i, _n: {"depends_on": [f"s{i - 1}"]} if i else {},
    "a circle of depends_on": lambda i, n: {"depends_on": [f"s{(i + 1) % n}"]},
    "a chain of extends": lambda i, _n: {"extends": f"s{i - 1}"} if i else {},
    "a chain of extends, last first": lambda i, n: {"extends": f"s{i + 1}"} if i < n - 1 else {},
    "all extend one": lambda i, _n: {"extends": "s0"} if i else {},
    "extends that grow": lambda i, _n: {"extends": f"s{i - 1}", "environment": [f"E{i}=1"]} if i else {},
    "one port": lambda i, _n: {"ports": [f"127.0.0.{i & 255}:80:80"]},
    "one env file": lambda _i, _n: {"env_file": "a.env"},
    "one volume": lambda _i, _n: {"volumes": ["v:/v"]},
    "one folder": lambda _i, _n: {"volumes": ["./f:/f:ro"]},
    "a chain of volumes_from": lambda i, _n: {"volumes": [f"/srv/{i}:/{i}:ro"], **({"volumes_from": [f"s{i - 1}"]} if i else {})},
    "volumes_from by two ways": lambda i, _n: {"volumes": ["/srv/x:/x:ro"], "volumes_from": [f"s{j}" for j in (i - 1, i - 2) if j >= 0]},
    "profiles": lambda i, _n: {"profiles": [f"p{i}"]},
    "one network": lambda _i, _n: {"networks": ["n"]},
    "one container name": lambda _i, _n: {"container_name": "x"},
    "network_mode": lambda i, _n: {"network_mode": "service:s0"} if i else {},
}  # fmt: skip


def _attribute_text(name: str, unit: str) -> Iterator[Place]:
    yield Place(
        "Compose",
        f"{name} {unit!r}",
        lambda n: project({name: [unit * n]}),
    )


def _attribute(name: str) -> Iterator[Place]:
    yield Place(
        "Compose",
        f"list {name}",
        lambda n: project({name: [f"a{i}" for i in range(n)]}),
    )
    yield Place(
        "Compose",
        f"map {name}",
        lambda n: project({name: {f"a{i}": "b" for i in range(n)}}),
    )
    for unit in ("a", ":", "=", "/", "1", "-", ",", "${", "[", "\\ "):
        yield from _attribute_text(name, unit)


def _compose_text(name: str, unit: str) -> Iterator[Place]:
    yield Place(
        "Compose",
        f"{name} {unit!r}",
        lambda n: project({name: unit * n}),
    )


def _variable(unit: str) -> Iterator[Place]:
    yield Place("Compose", f"variables {unit!r}", lambda n: project({"image": unit * n}))
    yield Place(
        "Compose",
        f"closed variables {unit!r}",
        lambda n: project({"image": unit * n + "x" + "}" * n}),
    )


def _compose() -> Iterator[Place]:
    for name in _ATTRIBUTES:
        yield from _attribute(name)
    for name in _COMPOSE_TEXTS:
        for unit in _UNITS:
            yield from _compose_text(name, unit)
    for name, spec in _COMPOSED.items():
        yield Place("Compose", name, partial(_services, spec))
    for unit in (
        "${A",
        "${A:-",
        "${A:-b}",
        "$A",
        "$$",
        "${A:?",
        "${A:+${B}}",
        "$",
        "{",
        "}",
        "${}",
        "${A-${B-",
    ):
        yield from _variable(unit)
    yield Place(
        "Compose",
        "variables of variables",
        lambda n: {**project({"image": "${A}"}), ".env": b"A=" + b"${A:-x}" * n},
    )
    yield Place(
        "Compose",
        "ports of a range",
        lambda n: project({"ports": [f"{10_000}-{10_000 + n}:{10_000}-{10_000 + n}"]}),
    )
    yield Place(
        "Compose",
        "networks",
        lambda n: project(
            {"networks": [f"n{i}" for i in range(n)]}, networks={f"n{i}": {} for i in range(n)}
        ),
    )
    yield Place(
        "Compose", "volumes", lambda n: project({}, volumes={f"n{i}": {} for i in range(n)})
    )
    yield Place(
        "Compose",
        "configs",
        lambda n: project(
            {"configs": [f"n{i}" for i in range(n)]},
            configs={f"n{i}": {"content": "a"} for i in range(n)},
        ),
    )
    for unit in ("a", ".yam", "./", "..", "a.yaml."):
        yield Place("Compose", f"paths of a broken project {unit!r}", partial(_broken, unit))
    yield Place(
        "Compose",
        "includes",
        lambda n: {
            **compose({"include": [f"i{i}.yaml" for i in range(n)], "services": {}}),
            **{f"i{i}.yaml": b"services: {}" for i in range(n)},
        },
    )
    yield Place(
        "Compose",
        "includes of one",
        lambda n: {**compose({"include": ["i.yaml"] * n}), "i.yaml": b"services: {}"},
    )
    yield Place(
        "Compose",
        "a chain of includes",
        lambda n: {
            **compose({"include": ["i0.yaml"]}),
            **{
                f"i{i}.yaml": b"include: [i%d.yaml]\nservices: {s%d: {image: a}}" % (i + 1, i)
                for i in range(n)
            },
        },
    )
    yield Place(
        "Compose",
        "doubled includes",
        lambda n: {
            **compose({"include": ["i0.yaml"]}),
            **{f"i{i}.yaml": b"include: [i%d.yaml, i%d.yaml]" % (i + 1, i + 1) for i in range(n)},
            f"i{n}.yaml": b"services: {}",
        },
    )
    yield Place(
        "Compose",
        "files of includes",
        lambda n: {
            **compose({"include": [{"path": [f"i{i}.yaml" for i in range(n)]}]}),
            **{
                f"i{i}.yaml": b"services: {a: {image: b, environment: {E%d: x}}}" % i
                for i in range(n)
            },
        },
    )
    yield Place(
        "Compose",
        "doubled extends of files",
        lambda n: {
            **compose({"services": {"a": {"extends": {"file": "i0.yaml", "service": "a"}}}}),
            **{
                f"i{i}.yaml": b"services: {a: {extends: {file: i%d.yaml, service: a}}, b: {extends: {file: i%d.yaml, service: b}}}"
                % (i + 1, i + 1)
                for i in range(n)
            },
            f"i{n}.yaml": b"services: {a: {image: x}, b: {image: y}}",
        },
    )
    yield Place(
        "Compose",
        "projects",
        lambda n: {f"p{i}/compose.yaml": b"services: {a: {image: b}}" for i in range(n)},
    )
    yield Place(
        "Compose",
        "files of a folder",
        lambda n: {**project({"volumes": ["./f:/f:ro"]}), **{f"f/{i}": b"x" for i in range(n)}},
    )
    yield Place(
        "Compose",
        "override",
        lambda n: {
            **project({"environment": {f"E{i}": "a" for i in range(n)}}),
            "compose.override.yaml": json.dumps(
                {
                    "services": {
                        "a": {
                            "environment": {f"E{i}": "b" for i in range(n)},
                            "volumes": [f"./a:/b{i}:ro" for i in range(n)],
                        }
                    }
                }
            ).encode(),
        },
    )
    yield Place(
        "Compose",
        "override of ports",
        lambda n: {
            **project({"ports": [f"{i + 1}:80" for i in range(n)]}),
            "compose.override.yaml": json.dumps(
                {"services": {"a": {"ports": [f"{i + 1}:81" for i in range(n)]}}}
            ).encode(),
        },
    )


# Env files.

_ENV: dict[str, Callable[[int], str]] = {
    "lines": lambda n: "".join(f"A{i}=b\n" for i in range(n)),
    "one name": lambda n: "A=b\n" * n,
    "comments": lambda n: "# a\n" * n,
    "blank lines": lambda n: "\n" * n,
    "a long value": lambda n: "A=" + "b" * n,
    "a long name": lambda n: "A" * n + "=b",
    "spaces": lambda n: "A=" + " " * n + "b",
    "spaces at the end": lambda n: "A=b" + " " * n + "# c",
    "double quotes": lambda n: 'A="' + '\\"' * n + '"',
    "open double quotes": lambda n: 'A="' + "b\n" * n,
    "open quotes in each line": lambda n: 'A="b\n' * n,
    "single quotes": lambda n: "A='" + "b\n" * n + "'",
    "exports": lambda n: "export A=b\n" * n,
    "variables": lambda n: "A=b\n" + "B=" + "${A}" * n,
    "growing variables": lambda n: "A0=x\n" + "".join(f"A{i}=${{A{i - 1}}}y\n" for i in range(1, n)),
    "doubled variables": lambda n: "A0=xx\n" + "".join(f"A{i}=${{A{i - 1}}}${{A{i - 1}}}\n" for i in range(1, n)),
    "nested variables": lambda n: "A=" + "${B:-" * n + "x" + "}" * n,
    "open variables": lambda n: "A=" + "${B:-" * n,
    "dollars": lambda n: "A=" + "$" * n,
    "hashes": lambda n: "A=" + " #" * n,
    "equal signs": lambda n: "A" + "=" * n,
    "backslashes": lambda n: 'A="' + "\\" * n,
    "no names": lambda n: "=\n" * n,
    "bad lines": lambda n: "a b c\n" * n,
}  # fmt: skip


def _env_place(name: str, text: Callable[[int], str]) -> Iterator[Place]:
    yield Place(
        ".env",
        name,
        lambda n: {**project({"image": "${A}"}), ".env": text(n).encode()},
    )
    yield Place(
        "env_file",
        name,
        lambda n: {**project({"env_file": "a.env"}), "a.env": text(n).encode()},
    )
    yield Place(
        "raw env_file",
        name,
        lambda n: {
            **project({"env_file": [{"path": "a.env", "format": "raw"}]}),
            "a.env": text(n).encode(),
        },
    )


def _env() -> Iterator[Place]:
    for name, text in _ENV.items():
        yield from _env_place(name, text)


# Drawn.

_TOKENS = (
    *(
        "a",
        "1",
        " ",
        "\n",
        ": ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "'",
        '"',
        "#",
        "&a ",
        "*a ",
        "<<: *a\n",
        "|\n",
        "? ",
    ),
    *(
        "${",
        "${A:-",
        "}",
        "$",
        "\\",
        "/",
        "..",
        "@",
        "=",
        "\t",
        "%",
        "!",
        "\u00e9",
        "\u2028",
        "---\n",
        "...\n",
        "_",
    ),
    *(
        "image: a\n",
        "services:\n",
        "  a: {image: b}\n",
        "  ",
        "kind: Service\n",
        "x-a: ",
        "extends: a\n",
        "~",
        "0x",
        ".",
    ),
)
_STARTS = {
    "a.yaml": ("", "a: ", document("{image: ") .rstrip(), "apiVersion: trimtab/v1\nkind: Service\nmetadata: ", "- "),
    "compose.yaml": ("", "services:\n  a:\n    image: ", "services:\n  a:\n    environment: ", "x-a: &a {b: c}\nservices:\n  a:\n    command: ", "services: "),
    ".env": ("", "A=", 'A="', "A=${"),
    "a.env": ("", "A=", "A='", "export "),
}  # fmt: skip


def drawn(number: int, seed: int) -> Place:
    """Return a drawn place: a few tokens that are repeated between two others."""
    draw = random.Random(f"{seed}:{number}")
    name = draw.choice(tuple(_STARTS))
    start = draw.choice(_STARTS[name]) + "".join(draw.choices(_TOKENS, k=draw.randint(0, 3)))
    unit = "".join(draw.choices(_TOKENS, k=draw.randint(1, 4)))
    end = "".join(draw.choices(_TOKENS, k=draw.randint(0, 3)))

    def fill(n: int) -> Files:
        text = (start + unit * n + end).encode(errors="surrogatepass")
        beside = project({"image": "${A}", "env_file": "a.env"}) if name.endswith("env") else {}
        return {**beside, "a.env": b"A=b\n", name: text}

    return Place(f"drawn {number}", f"{name} {start!r} {unit!r} {end!r}", fill)


def _yaml_place(name: str, text: Callable[[int], str]) -> Iterator[Place]:
    yield Place("YAML", name, lambda n: file(text(n)))
    yield Place("YAML", f"{name}, Compose", lambda n: {**file(text(n), "compose.yaml")})


def all_places() -> Iterator[Place]:
    """Yield every place."""
    for name, text in _YAML.items():
        yield from _yaml_place(name, text)
    yield from _fields()
    yield from _many()
    yield from _compose()
    yield from _env()
