"""Documents that Hypothesis draws, of all kinds of two namespaces, with Compose projects and charts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

#: The namespaces of the source.
NAMESPACES = ("shop", "lab")
_IMAGES = st.sampled_from(["example.org/web:1", "example.org/db:2", f"x/y@sha256:{'a' * 64}"])
_TEXTS = st.sampled_from(["", "a", "b c", "ü\n", "=x", "8080", "true", '"', "1e3", "~"])
#: Drawn values near the begin of a list are more frequent.
_RARELY = st.sampled_from([*[False] * 15, True])
_WORDS = st.sampled_from(["one", "two", "three-3", "four"])
_EARLIER = ("five", "five", "two")
_COMMANDS = st.lists(
    st.sampled_from(["/bin/serve", "-c", "", "ü", "1", "${A}"]), min_size=1, max_size=3
)
_BYTES = st.sampled_from(["16Mi", "64Mi", "1Gi"])
_TIMES = st.sampled_from(["1s", "5s", "90s", "2m"])
_PATHS = st.sampled_from(["/a", "/b/c", "/etc/site", "/var/lib/x"])
_HEALTH = st.one_of(
    st.fixed_dictionaries(
        {"exec": st.just(["/bin/check"])},
        optional={"interval": _TIMES, "retries": st.integers(1, 10), "startInterval": _TIMES},
    ),
    st.just({"http": {"path": "/healthz", "port": 8080}}),
    st.just({"tcp": {"port": 8080}, "interval": "3s"}),
)
_HOOK = st.fixed_dictionaries(
    {"exec": st.just(["/bin/hook", "x"])},
    optional={"user": st.just("1"), "env": st.just({"A": "b"}), "timeout": st.just("2s")},
)
_ATTACHED = st.lists(
    st.fixed_dictionaries({"name": _WORDS}, optional={"aliases": st.just(["other", "more"])}),
    max_size=2,
    unique_by=lambda each: str(each["name"]),
)
_NETWORK = st.one_of(
    st.just({"mode": "none"}),
    st.fixed_dictionaries(
        {"mode": st.sampled_from(["isolated", "bridge"])}, optional={"attach": _ATTACHED}
    ),
)
_FILES = st.fixed_dictionaries(
    {"type": st.just("config"), "source": _WORDS, "target": _PATHS},
    optional={
        "keys": st.just(["a.txt"]),
        "uid": st.integers(0, 3),
        "mode": st.just("0440"),
        "onChange": st.sampled_from(["Restart", "None", {"signal": "SIGHUP"}]),
    },
)
_MOUNT = st.one_of(
    _FILES,
    st.fixed_dictionaries(
        {
            "type": st.just("volume"),
            "source": _WORDS,
            "target": _PATHS,
            "readOnly": st.booleans(),
        },
        optional={"shared": st.just(True), "subpath": st.just("in/it"), "noCopy": st.just(True)},
    ),
    st.fixed_dictionaries(
        {"type": st.just("tmpfs"), "target": _PATHS, "size": _BYTES},
        optional={"mode": st.just("1777"), "exec": st.booleans()},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("bind"),
            "source": _PATHS,
            "target": _PATHS,
            "readOnly": st.just(True),
        },
    ),
    _FILES,
)
_MOUNTS = st.lists(_MOUNT, min_size=1, max_size=4, unique_by=lambda each: str(each["target"]))


@st.composite
def _spec(draw: st.DrawFn, optional: dict[str, st.SearchStrategy[Any]]) -> dict[str, object]:
    """Draw the spec of a Service or a Job with some of the optional members."""
    names = draw(st.lists(st.sampled_from(sorted(optional)), unique=True, max_size=9))
    return {"image": draw(_IMAGES), **{name: draw(optional[name]) for name in names}}


#: Members of Services and Jobs.
_SHARED = {
    "pullPolicy": st.sampled_from(["Always", "IfNotPresent", "Never"]),
    "entrypoint": _COMMANDS,
    "command": _COMMANDS,
    "env": st.dictionaries(st.sampled_from(["A", "B_2", "_c"]), _TEXTS, max_size=3),
    "workingDir": _PATHS,
    "user": st.sampled_from(["1000", "app", "1000:1000", "0"]),
    "groupAdd": st.lists(st.sampled_from(["10", "audio"]), max_size=2, unique=True),
    "hostname": _WORDS,
    "domainname": st.just("example.org"),
    "extraHosts": st.just({"peer": "10.1.2.3", "alias": "10.1.2.4"}),
    "dns": st.just({"servers": ["10.0.0.1"], "search": ["example.org"], "options": ["ndots:2"]}),
    "init": st.booleans(),
    "tty": st.booleans(),
    "stdin": st.booleans(),
    "stopSignal": st.sampled_from(["SIGTERM", "SIGINT"]),
    "stopGracePeriod": st.sampled_from(["1s", "20s", "2m"]),
    "mounts": _MOUNTS,
    "network": _NETWORK,
    "resources": st.fixed_dictionaries(
        {},
        optional={
            "memory": _BYTES,
            "cpus": st.sampled_from([0.1, 0.5, 1, 1.25, 3]),
            "pids": st.integers(1, 500),
            "shm": _BYTES,
            "cpuShares": st.integers(2, 2048),
            "cpuset": st.sampled_from(["0", "0-1"]),
        },
    ),
    "ulimits": st.sampled_from([{"nofile": 1024}, {"nofile": {"soft": 5, "hard": 9}, "core": 0}]),
    "sysctls": st.just({"net.core.somaxconn": "1024"}),
    "oomScoreAdj": st.integers(0, 1000),
    "security": st.fixed_dictionaries(
        {},
        optional={
            "capAdd": st.just(["CHOWN", "SETUID"]),
            "readOnlyRootFilesystem": st.booleans(),
            "runtime": st.just("runc"),
        },
    ),
    "logs": st.just({"driver": "local", "maxSize": "1Mi", "maxFiles": 2, "compress": True}),
    "containerLabels": st.dictionaries(st.sampled_from(["a.b", "c"]), _TEXTS, max_size=2),
}
_SERVICE = _spec(
    {
        **_SHARED,
        "replicas": st.sampled_from([1, 1, 1, 0, 2, 3]),
        "state": st.sampled_from(["Running", "Stopped"]),
        "suspend": st.booleans(),
        "ports": st.sampled_from(
            [[], [], [{"container": 80}], [{"container": 80, "host": 8080}, {"container": "90-92"}]]
        ),
        "healthcheck": _HEALTH,
        "lifecycle": st.fixed_dictionaries(
            {},
            optional={
                "postStart": st.lists(_HOOK, max_size=2),
                "preStop": st.lists(_HOOK, max_size=1),
            },
        ),
        "restart": st.sampled_from(
            [{"policy": "OnFailure"}, {"policy": "Never"}, {"boot": "Ordered"}]
        ),
        "rollout": st.sampled_from([{"order": "StopFirst"}, {"maxUnavailable": 2}]),
        "dependsOn": st.sampled_from([[], [], [{"name": "one", "condition": "Started"}]]),
    },
)
_JOB = _spec(
    {
        **_SHARED,
        "schedule": st.sampled_from(["0 4 * * *", "*/5 * * * 1"]),
        "backoffLimit": st.integers(0, 3),
        "ttl": st.just("1h"),
    },
)
_CONFIG = st.fixed_dictionaries(
    {
        "data": st.dictionaries(
            st.sampled_from(["a.txt", "b/c.txt"]), _TEXTS, min_size=1, max_size=2
        )
    },
    optional={
        "files": st.sampled_from([{"f": "notes.txt"}, {"f": "sub/notes.txt"}, {"g": "missing"}]),
    },
)
_SPECS: dict[str, st.SearchStrategy[Any]] = {
    "Service": _SERVICE,
    "Job": _JOB,
    "Config": _CONFIG,
    "Network": st.fixed_dictionaries(
        {}, optional={"internal": st.booleans(), "subnet": st.just("10.99.0.0/24")}
    ),
    "Volume": st.fixed_dictionaries({}, optional={"retain": st.booleans()}),
    "Release": st.fixed_dictionaries(
        {"chart": st.sampled_from(["site", "site", "app", "missing"])},
        optional={"values": st.sampled_from([{}, {"tag": "2"}, {"mode": "ü: x"}, {"tag": 2}])},
    ),
    "Notification": st.just({"to": ["oncall"]}),
}
_KINDS = st.sampled_from(
    [
        *["Service"] * 6,
        *["Config"] * 3,
        *["Network"] * 2,
        *["Volume"] * 2,
        *["Job"] * 2,
        *["Release"] * 2,
        "Notification",
    ]
)
#: Compose projects. One is without a name, one needs an ``.env``.
_COMPOSE = st.sampled_from(
    [
        "name: shop\nservices: {composed: {image: example.org/web:1, network_mode: none}}\n",
        (
            "name: lab\nservices: {db: {image: 'x/y:1', command: a b, environment: {A: '${A:-b}'},"
            " volumes: ['data:/data'], ports: ['8080:80'], mem_limit: 64m, restart: always}}\n"
            "volumes: {data: {}}\n"
        ),
        "services: {composed: {image: example.org/web:1}}\n",
        (
            "name: shop\nservices: {a: {image: 'x/y:1', networks: [back], user: '1000'}, b: {image:"
            " 'x/y:2', depends_on: [a], configs: [site]}}\nnetworks: {back: {}}\n"
            "configs: {site: {content: hello}}\n"
        ),
    ]
)


@dataclass(frozen=True)
class Drawn:
    """The files of a source, and the documents of DIR beside it."""

    files: dict[str, bytes]
    #: By their paths in the folder of charts.
    charts: dict[str, bytes] = field(default_factory=dict)
    own: list[dict[str, Any]] = field(default_factory=list)


@st.composite
def documents(draw: st.DrawFn, *, namespaces: tuple[str, ...] = NAMESPACES) -> dict[str, Any]:
    kind = draw(_KINDS)
    metadata: dict[str, Any] = {
        "name": draw(_WORDS),
        "namespace": draw(st.sampled_from(namespaces)),
        "owner": draw(st.sampled_from(["team", "team", "team", "other"])),
    }
    spec = draw(_SPECS[kind])
    if draw(_RARELY):  # of a name that possibly another document has, or another source
        names = [*_EARLIER, f"{namespaces[-1]}/five", "default/five"]
        metadata["moved"] = [{"from": draw(st.sampled_from(names))}]
    if kind in ("Service", "Job") and metadata["name"] != "one":
        spec = {**spec, "mounts": draw(_MOUNTS)}
    if draw(_RARELY):
        spec = {**spec, "unknown": 1}  # a mistake: the document is broken
    return {"apiVersion": "trimtab/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _missing(made: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield documents for the Volumes, Configs and Networks that other documents name."""
    known = {(each["kind"], *_place(each)) for each in made}
    for document in made:
        spec, (namespace, _) = document["spec"], _place(document)
        named = [(each["type"].capitalize(), each.get("source")) for each in spec.get("mounts", ())]
        named += [("Network", each["name"]) for each in spec.get("network", {}).get("attach", ())]
        for kind, name in named:
            if kind in _DEFAULTS and (kind, namespace, name) not in known:
                known.add((kind, namespace, name))
                metadata = {"name": name, "namespace": namespace, "owner": "team"}
                head = {"apiVersion": "trimtab/v1", "kind": kind, "metadata": metadata}
                yield {**head, "spec": _DEFAULTS[kind]}


_DEFAULTS: dict[str, dict[str, Any]] = {
    "Volume": {},
    "Network": {},
    "Config": {"data": {"a.txt": "a"}},
}


def _place(document: dict[str, Any]) -> tuple[str, str]:
    return document["metadata"]["namespace"], document["metadata"]["name"]


#: Templates of charts. Each declares a resource of its release.
_TEMPLATES = st.sampled_from(
    [
        (
            "apiVersion: trimtab/v1\nkind: Service\nmetadata: {name: {{ release.name | quote }}}\n"
            'spec: {image: {{ ("x/y:" ~ values.tag) | quote }}, env: {MODE: {{ values.mode | quote }}},'
            " mounts: [{type: config, source: {{ release.name }}-conf, target: /etc/site}]}\n"
            "---\napiVersion: trimtab/v1\nkind: Config\n"
            "metadata: {name: {{ release.name }}-conf}\nspec: {files: {conf: ../conf/site.conf}}\n"
        ),
        (
            "{% for name in ['a', 'b'] %}\n---\napiVersion: trimtab/v1\nkind: Service\n"
            "metadata: {name: {{ release.name }}-{{ name }}}\n"
            "spec: {image: 'x/y:1', network: {mode: none}, mounts: "
            "[{type: volume, source: {{ release.name }}-v, target: /v}]}\n{% endfor %}\n"
            "---\napiVersion: trimtab/v1\nkind: Volume\nmetadata: {name: {{ release.name }}-v}\n"
        ),
        "{% if values.mode == 'plain' %}\nkind: Service\n{% endif %}\n",
        "{{ values.gone }}\n",
    ]
)


@st.composite
def _template(draw: st.DrawFn) -> str:
    """Draw a template: a written one, or a drawn document whose name is the release's."""
    if draw(st.sampled_from([True, True, False])):
        return draw(_TEMPLATES)
    document = draw(documents())
    document["metadata"] = {"name": "NAME"}
    text = json.dumps(document, ensure_ascii=False)
    return text.replace('"NAME"', "{{ release.name | quote }}")


@st.composite
def _charts(draw: st.DrawFn) -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    for name in draw(st.sampled_from([["site"], ["site"], ["site", "app"], []])):
        schema = '{"properties": {"tag": {"type": "string"}}}'
        files = {
            "Chart.yaml": f"{{apiVersion: trimtab/v1, name: {name}, version: '1'}}",
            "values.yaml": draw(
                st.sampled_from(["tag: '1'\nmode: plain\n", "mode: plain\ntag: a"])
            ),
            "conf/site.conf": "listen 80;",
        }
        if draw(st.booleans()):
            files["values.schema.json"] = schema
        for number in range(draw(st.integers(1, 2))):
            files[f"templates/{number}.yaml"] = draw(_template())
        made |= {f"{name}/{path}": text.encode() for path, text in files.items()}
    return made


@st.composite
def sources(draw: st.DrawFn) -> Drawn:
    made = draw(st.lists(documents(), min_size=1, max_size=5))
    if not draw(_RARELY):
        made += [*_missing(made)]
    files: dict[str, bytes] = {}
    for number, document in enumerate(made):
        folder = draw(st.sampled_from(["", "", "sub/", ".hidden/"]))
        path = f"{folder}{draw(st.sampled_from(['a', 'b', number]))}.yaml"
        text = json.dumps(document, ensure_ascii=False).encode()
        files[path] = files[path] + b"\n---\n" + text if path in files else text
    if draw(st.booleans()):
        files |= {"notes.txt": b"one\n", "sub/notes.txt": b"two\xff\0"}
    if draw(st.sampled_from([False, False, True])):
        files["compose.yaml"] = draw(_COMPOSE).encode()
        if draw(st.booleans()):
            files[".env"] = b"A=of-the-file\n"
    if draw(_RARELY):
        files["broken.yaml"] = draw(st.sampled_from([b"a: [", b"\xff", b"kind: Service\n"]))
    own = draw(st.lists(documents(namespaces=("default",)), max_size=2))
    return Drawn(files, draw(_charts()), own)
