"""Hostile files of a signed repository: ``python -m tests.unit.core.proofs.hostile_files [--inputs N]``.

A holder of a key can be careless, or have been deceived. Each input is a folder: honest documents, with
files beside them that try to break the reader. The number of an input and the seed make the input.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from controller.core.proofs.proven_commit import ProvenCommit, ProvenFile
from controller.core.proofs.render import RenderScope, render
from controller.core.proofs.rendering import Rendering
from controller.model.names import NetworkNames

SEED = 18
SCOPE = RenderScope("shop", ("shop",), NetworkNames(), "c" * 40)
GOOD = "Service/shop/good"
#: The honest document beside each hostile file.
HONEST = (
    b"apiVersion: trimtab/v1\nkind: Service\nmetadata: {name: good, namespace: shop, owner: team}\n"
    b"spec: {image: 'example.org/web:1', network: {mode: none}}\n"
)
_HEAD = (
    "apiVersion: trimtab/v1\nkind: %s\nmetadata: {name: bad, namespace: shop, owner: team}\nspec:"
)
_FULL = (
    " {image: 'example.org/web:1', command: [a, b], env: {A: b, C: '1'}, replicas: 2,"
    " ports: [{container: 80}], resources: {memory: 64Mi, cpus: 0.5}, network: {attach: [{name: n}]},"
    " mounts: [{type: tmpfs, target: /t, size: 1Mi}, {type: config, source: c, target: /c}],"
    " healthcheck: {exec: [x], interval: 5s}, lifecycle: {postStart: [{exec: [y]}]}}\n"
)
_KINDS = (
    "Service",
    "Job",
    "Config",
    "Network",
    "Volume",
    "Secret",
    "Release",
    "Notification",
    "Source",
    "Nothing",
)
_LEAVES: tuple[object, ...] = (
    *(None, True, -1, 0, 2**63, 2**64, 10**40, -(10**40), 1e308, 0.1, float("inf"), float("nan")),
    *("", " ", "\0", "\ud7ff", "a" * 5000, "../../etc/passwd", "/", "/etc/shadow", "a/../b", "."),
    *("1e999", "99999999999Gi", "-5s", "1" * 400, "sha256:" + "f" * 64, "x@sha256:zz", "${A}"),
    *([], {}, [[]], {"": ""}, {"secret": "a", "key": "b"}, ["a"] * 300, {"fromService": True}),
    *("* * * * *", "60 4 * * *", "*/0 * * * *", "0 0 31 2 *", "Service/shop/good", "good"),
)
_TOKENS = (
    *(
        b"---\n",
        b"...\n",
        b"&a ",
        b"*a",
        b"<<: *a\n",
        b"!!binary ",
        b"!!python/name:os.system ",
        b"? ",
    ),
    *(
        b"%YAML 9.9\n",
        b"%TAG ! tag:x:\n",
        b"\t",
        b"\r",
        b"\0",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xc0\xaf",
    ),
    *(
        b"|\n",
        b">-\n",
        b"'",
        b'"',
        b"\\u0000",
        b"{",
        b"}",
        b"[",
        b"]",
        b": ",
        b"# ",
        b"- ",
        b"0x",
        b"1_0",
    ),
    *(
        "\u2028".encode(),
        "\u202e".encode(),
        b"\xed\xa0\x80",
        b"!",
        b"!!set {a}",
        b"2001-01-01",
        b"=",
        b"~",
    ),
)


def _nested(draw: random.Random) -> bytes:
    depth = draw.choice((50, 500, 5_000, 50_000))
    opening, closing = draw.choice(
        (("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("&a [", "]"))
    )
    return (opening * depth + "x" + closing * draw.choice((depth, depth - 1, 0))).encode()


def _indented(draw: random.Random) -> bytes:
    return "".join(f"{' ' * level}a:\n" for level in range(draw.choice((20, 200, 400)))).encode()


def _aliases(draw: random.Random) -> bytes:
    """Return a bomb of aliases: each level has several of the one before."""
    width, levels = draw.choice((2, 9, 15)), draw.choice((2, 3, 3, 3, 4, 30))
    lines = ["a0: &a0 [x]"]
    for level in range(1, levels):
        items = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} [{items}]")
    tail = draw.choice(
        ("", f"spec: *a{levels - 1}", f"metadata: {{<<: *a{levels - 1}}}", "z: &z [*z]")
    )
    return "\n".join([*lines, tail]).encode()


def _numbers(draw: random.Random) -> bytes:
    digits = draw.choice((20, 400, 4_301, 60_000))
    text = draw.choice(
        ("9" * digits, f"-{'9' * digits}", f"1e{'9' * 9}", f"0x{'f' * digits}", ".nan")
    )
    name = draw.choice(("replicas", "oomScoreAdj", "stopGracePeriod"))
    return f"{_HEAD % 'Service'} {{image: a, {name}: {text}}}\n".encode()


def _many(draw: random.Random) -> bytes:
    count = draw.choice((10, 100, 1_000))
    text = draw.choice(("---\n", "--- a\n", "- a\n", "a: 1\n", "? a\n", "---\nkind: Service\n"))
    return (text * count).encode()


def _wide(draw: random.Random) -> bytes:
    count = draw.choice((100, 600))
    members = ", ".join(f"K{number}: v" for number in range(count))
    place = draw.choice(("env", "containerLabels", "ulimits", "extraHosts", "unknown"))
    return f"{_HEAD % 'Service'} {{image: a, {place}: {{{members}}}}}\n".encode()


def _bytes(draw: random.Random) -> bytes:
    return draw.randbytes(draw.choice((1, 30, 3_000)))


def _long(draw: random.Random) -> bytes:
    return draw.choice((b"a", b" ", b"\n", b"#", b"a: ", b"\xe2\x82\xac")) * draw.choice(
        (9, 5_000, 70_000)
    )


def _spliced(draw: random.Random) -> bytes:
    """Return a document with bytes flipped, cut, doubled and replaced by tokens."""
    content = bytearray((_HEAD % draw.choice(_KINDS) + _FULL).encode())
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(content))
        match draw.randrange(4):
            case 0:
                content[at] ^= 1 << draw.randrange(8)
            case 1:
                del content[at : at + draw.randint(1, 40)]
                content = content or bytearray(b"x")
            case 2:
                content[at:at] = content[at : at + draw.randint(1, 80)]
            case _:
                content[at:at] = draw.choice(_TOKENS)
    return bytes(content)


def _typed(draw: random.Random) -> bytes:
    """Return a document with values of other types, and strange ones, at drawn places."""
    document: dict[str, Any] = {
        "apiVersion": "trimtab/v1",
        "kind": draw.choice(_KINDS),
        "metadata": {"name": "bad", "namespace": "shop", "owner": "team"},
        "spec": json.loads(_SPEC),
    }
    for _ in range(draw.randint(1, 3)):
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw.choice(keys) if keys else None
            inner = None if key is None else place[key]
            if not isinstance(inner, dict | list) or not inner or draw.randrange(3) == 0:
                break
            place = inner
        if key is not None:
            place[key] = copy.deepcopy(draw.choice(_LEAVES))
    return json.dumps(document).encode()


_SPEC = json.dumps(
    {
        "image": "example.org/web:1",
        "command": ["a"],
        "env": {"A": "b", "C": {"secret": "s", "key": "k"}},
        "replicas": 2,
        "ports": [{"container": 80, "host": 8080, "protocol": "tcp"}],
        "mounts": [
            {"type": "config", "source": "c", "target": "/c", "mode": "0440", "keys": ["a"]},
            {"type": "volume", "source": "v", "target": "/v", "subpath": "x"},
        ],
        "network": {"mode": "isolated", "attach": [{"name": "n", "aliases": ["m"]}]},
        "resources": {"memory": "64Mi", "cpus": 0.5, "pids": 5},
        "healthcheck": {"http": {"port": 80, "path": "/"}, "interval": "5s"},
        "schedule": "0 4 * * *",
        "timeZone": "Europe/Berlin",
        "data": {"a": "b"},
        "files": {"f": "notes"},
        "rollout": {"order": "StopFirst", "before": ["once"]},
        "dependsOn": [{"name": "good", "condition": "Healthy"}],
        "lifecycle": {"preStop": [{"exec": ["x"], "timeout": "1s"}]},
        "ulimits": {"nofile": {"soft": 1, "hard": 2}},
    }
)


def _composed(draw: random.Random) -> bytes:
    """Return a Compose project with strange values, and with bombs of variables and extensions."""
    service: dict[str, object] = {
        "image": "example.org/web:1",
        "environment": {"A": "${B:-${C:-d}}"},
    }
    for _ in range(draw.randint(1, 4)):
        service[draw.choice(_MEMBERS)] = draw.choice((*_LEAVES, "${A" * 200, "$" * 3_000))
    project: dict[str, object] = {"name": "shop", "services": {"a": service, "b": {"extends": "a"}}}
    if draw.randrange(3) == 0:
        project[draw.choice(("networks", "volumes", "configs", "secrets", "include", "x-a"))] = (
            draw.choice(_LEAVES)
        )
    return json.dumps(project).encode()


_MEMBERS = (
    *("command", "environment", "env_file", "extends", "ports", "volumes", "networks", "deploy"),
    *("healthcheck", "depends_on", "configs", "ulimits", "mem_limit", "cpus", "labels", "build"),
)


def _config(draw: random.Random) -> bytes:
    paths = (
        "../../etc/passwd",
        "/etc/passwd",
        "notes",
        "./notes",
        "a\0b",
        "",
        ".",
        "good.yaml",
        "x" * 300,
    )
    files = {f"f{number}": draw.choice(paths) for number in range(draw.choice((1, 3, 300)))}
    spec = json.dumps({"files": files, "data": {draw.choice(("a", "../b", "/c", "")): "x"}})
    return f"{_HEAD % 'Config'} {spec}\n".encode()


#: The makers with their weights. A few make inputs that cost far more than the others.
_MAKERS: dict[Callable[[random.Random], bytes], int] = {
    _typed: 10,
    _spliced: 12,
    _config: 4,
    _composed: 4,
    _bytes: 3,
    _numbers: 4,
    _long: 2,
    _nested: 2,
    _indented: 1,
    _aliases: 1,
    _many: 1,
    _wide: 1,
}
_NAMES = (
    "bad.yaml",
    "bad.yaml",
    "bad.yml",
    "sub/bad.yaml",
    "compose.yaml",
    ".bad.yaml",
    "b\u202ead.yaml",
)


def files_of(number: int, seed: int = SEED) -> dict[str, bytes]:
    """Return the files of an input."""
    draw = random.Random(f"{seed}:{number}")
    made = {"good.yaml": HONEST, "notes": draw.choice((b"notes", b"\xff\0", b""))}
    for _ in range(draw.choice((1, 1, 1, 2))):
        (maker,) = draw.choices(list(_MAKERS), list(_MAKERS.values()))
        name = "compose.yaml" if maker is _composed else draw.choice(_NAMES)
        made[name] = maker(draw)
    return made


def render_input(files: dict[str, bytes]) -> Rendering:
    """Render files, and read the answer as the broker does."""
    proven = {path: ProvenFile("b" * 40, memoryview(content)) for path, content in files.items()}
    commit = ProvenCommit("shop", "c" * 40, "alice", "key", proven)
    answer = json.loads(json.dumps({"rendered": render(files, SCOPE)}))
    return Rendering.read(commit, answer)


MIB = 1 << 20
#: Files at the bounds of a proof, and beyond.
LARGEST = {
    "documents of 7 MiB": {"big.yaml": b"a: [" + b"x, " * (2 * MIB) + b"]\n"},
    "twelve of almost 1 MiB": {
        f"big{n}.yaml": b"- a: {b: c}\n" * (MIB // 12 - 1) for n in range(12)
    },
    "a text of 12 MiB": {"notes.txt": b"x" * (12 * MIB)},
    "deep": {"deep.yaml": b"[" * (MIB - 2)},
    "many documents": {"many.yaml": b"---\n" * (MIB // 4 - 1)},
    "wide": {"wide.yaml": b"{" + b",".join(b"k%d: v" % n for n in range(80_000)) + b"}"},
}


@dataclass
class Tally:
    """What came of the inputs."""

    inputs: int = 0
    slowest_s: float = 0.0
    slowest: int = 0
    blind: int = 0
    #: Inputs that ended with an exception, or lost the honest document without being blind.
    wrong: list[tuple[int, str]] = field(default_factory=list)


def run(numbers: range, *, seed: int = SEED) -> Tally:
    """Render inputs."""
    tally = Tally()
    for number in numbers:
        files = files_of(number, seed)
        begin = time.process_time()
        try:
            made = render_input(files)
        except Exception as error:  # noqa: BLE001 - any exception is a finding
            tally.wrong.append((number, f"{type(error).__name__}: {error}"[:200]))
        else:
            if GOOD not in made.entries and not made.blind and GOOD not in made.broken:
                tally.wrong.append((number, "the honest document is lost"))
            tally.blind += made.blind
        taken = time.process_time() - begin
        if taken > tally.slowest_s:
            tally.slowest_s, tally.slowest = taken, number
        tally.inputs += 1
    return tally


def main() -> int:
    """Run the fuzz, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--input", type=int, default=None, help="replay this one")
    chosen = parser.parse_args()
    first = 0 if chosen.input is None else chosen.input
    count = chosen.inputs if chosen.input is None else 1
    tally = run(range(first, first + count), seed=chosen.seed)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{tally.inputs} inputs, {len(tally.wrong)} wrong, {tally.blind} blind; slowest: "
        f"{tally.slowest_s * 1000:.0f} ms (input {tally.slowest}); at most {memory} MiB"
    )
    for number, why in tally.wrong[:20]:
        print(f"input {number}: {why}")
    return bool(tally.wrong)


if __name__ == "__main__":
    sys.exit(main())
