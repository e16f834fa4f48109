"""The render worker: documents of a proven commit to requests, for the broker's signed admission.

The broker starts ``python -I -m controller.process.render_worker`` (``process.locked_worker``). The
worker parses what the holders of signing keys wrote, and what they wrote can be hostile
(docs/decisions/0067-signed-admission.md). The worker has no files: the proven files are in the request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from controller.core.compose.translation.scope import ComposeSettings
from controller.core.proofs.render import RenderScope, render
from controller.model.names import NetworkNames
from controller.process.chart_worker import WARM_UP_CHARTS, RenderClock
from controller.process.locked_worker import WorkerLimits, serve

REQUESTS_MAX = 100
#: For the names of the largest proof's files, and for the bytes of the files.
LIMITS = WorkerLimits(
    requests=REQUESTS_MAX, request_bytes=24 << 20, memory_bytes=768 << 20, cpu_s=600
)
#: The length of a part of an answer. The last member can be longer.
PART_BYTES = 32 * 1024

_WARM_UP = b"""apiVersion: trimtab/v1
kind: Service
metadata: {name: web, namespace: shop, owner: ops}
spec:
  image: example.org/web:1
  env: {A: b, PASSWORD: {secret: password, key: pw}}
  ports: [{container: 80, host: 8080}]
  resources: {memory: 64Mi, cpus: 0.5}
  healthcheck: {exec: [test], interval: 5s}
  network: {attach: [{name: back}]}
  mounts:
    - {type: volume, source: data, target: /data}
    - {type: tmpfs, target: /tmp, size: 1Mi}
    - {type: bind, source: /srv/web, target: /srv}
    - {type: config, source: site, target: /etc/site}
    - {type: secret, source: password, target: /run/password}
---
apiVersion: trimtab/v1
kind: Config
metadata: {name: site, namespace: shop, owner: ops}
spec: {data: {a: b}, files: {c: notes}}
---
apiVersion: trimtab/v1
kind: Secret
metadata: {name: password, namespace: shop, owner: ops}
spec: {generate: {pw: {length: 24}}}
---
apiVersion: trimtab/v1
kind: Secret
metadata: {name: sealed, namespace: shop, owner: ops}
spec: {sops: notes}
---
apiVersion: trimtab/v1
kind: Network
metadata: {name: back, namespace: shop, owner: ops}
spec: {}
---
apiVersion: trimtab/v1
kind: Volume
metadata: {name: data, namespace: shop, owner: ops}
spec: {}
---
apiVersion: trimtab/v1
kind: Job
metadata: {name: once, namespace: shop, owner: ops}
spec: {image: example.org/web:1, schedule: "0 4 * * *"}
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: broken, namespace: shop, owner: ops}
spec: {image: 1, unknown: true}
---
apiVersion: trimtab/v1
kind: Source
metadata: {name: source, owner: ops}
spec: {git: {url: "https://example.org/a.git"}, namespaces: [shop]}
---
apiVersion: trimtab/v1
kind: Source
metadata: {name: broken}
spec: {git: {url: x}}
---
apiVersion: trimtab/v1
kind: Release
metadata: {name: rendered, namespace: shop, owner: ops}
spec: {chart: good, values: {names: [a]}}
---
apiVersion: trimtab/v1
kind: Release
metadata: {name: unfit, namespace: shop, owner: ops}
spec: {chart: good, values: {names: 1, more: 2}}
---
apiVersion: trimtab/v1
kind: Release
metadata: {name: broken, namespace: shop, owner: ops}
spec: {chart: broken}
---
apiVersion: trimtab/v1
kind: Release
metadata: {name: undefined, namespace: shop, owner: ops}
spec: {chart: undefined}
---
apiVersion: v1
kind: Deployment
---
- no document
"""

_COMPOSE = {
    "shop/compose.yaml": b"""name: shop
services:
  web:
    image: "example.org/web:${TAG}"
    env_file: web.env
    build: .
    ports: ["8080:80"]
    volumes: ["./notes:/notes:ro", "data:/data", {type: tmpfs, target: /tmp}]
    networks: [back]
    depends_on: {once: {condition: service_completed_successfully}}
    healthcheck: {test: [CMD, test], interval: 5s}
    deploy: {resources: {limits: {memory: 64M, cpus: "0.5"}}}
    ulimits: {nofile: 10}
    secrets: [key]
    unknown: true
  once: {image: "example.org/web:1", restart: "no"}
networks: {back: {}}
volumes: {data: {}}
configs: {site: {content: a}}
secrets: {key: {file: ./key}}
include: [more.yaml]
""",
    "shop/more.yaml": b"services: {more: {image: a, unknown: {}}}\n",
    "shop/.env": b"TAG=1\n",
    "shop/web.env": b"A=b\n",
    "shop/notes": b"c",
    "good/compose.yaml": b"""services:
  web: {image: a, extends: {service: base}, volumes: ["./notes:/notes:ro"], gpus: all}
  base: {image: b, profiles: [x], environment: [A=b], command: "a 'b'"}
""",
    "good/notes/c": b"c",
}


def main() -> None:
    """Load everything, lock the process, and serve."""
    clock = RenderClock()
    answer = partial(_answer, clock)
    answer(*_request())
    zones = load_zones()
    serve(answer, LIMITS)
    del zones


def load_zones() -> list[ZoneInfo]:
    """Return all time zones. ZoneInfo finds a zone without a file while the zone is in use."""
    zones = []
    for name in sorted(available_timezones()):
        with suppress(OSError, ValueError):
            zones.append(ZoneInfo(name))
    return zones


def _answer(clock: RenderClock, request: dict[str, Any], raw: bytes) -> list[dict[str, Any]]:
    clock.begin()
    found: dict[str, dict[str, bytes]] = {"files": {}, "charts": {}}
    at = 0
    for kind, contents in found.items():
        for name, length in request[kind].items():
            contents[name] = raw[at : at + length]
            at += length
    compose = request["compose"]
    scope = RenderScope(
        request["source"],
        tuple(request["namespaces"]),
        NetworkNames(**request["networks"]),
        request["folder"],
        ComposeSettings(**{**compose, "capabilities": tuple(compose["capabilities"])}),
        {key: tuple(names) for key, names in request["formers"].items()},
    )
    rendered = render(found["files"], scope, found["charts"], request["contents"], clock.limit)
    return list(parts_of(rendered))


def parts_of(rendered: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a rendering in parts of about ``PART_BYTES``, the form of ``rendering.join_parts``."""
    for member in ("entries", "objects", "unsupported"):
        part: dict[str, Any] = {}
        length = 0
        for key, value in rendered[member].items():
            part[key] = value
            length += len(json.dumps({key: value}))
            if length >= PART_BYTES:
                yield {member: part}
                part, length = {}, 0
        if part:
            yield {member: part}
    for key, text in rendered["secrets"].items():
        for at in range(0, len(text), PART_BYTES):
            yield {"secrets": {key: text[at : at + PART_BYTES]}}
    broken = rendered["broken"]
    for at in range(0, len(broken), 100):
        yield {"broken": broken[at : at + 100]}
    yield {"blind": rendered["blind"]}


def _request() -> tuple[dict[str, Any], bytes]:
    """Return a request with each kind of document: modules that are loaded on use are loaded now."""
    files = {"a.yaml": _WARM_UP, "notes": b"c", **_COMPOSE}
    request = {
        "source": "warm-up",
        "namespaces": ["shop"],
        "networks": {},
        "folder": "warm-up",
        "compose": {"capabilities": []},
        "contents": {"Secret/shop/password": f"hmac:{'0' * 64}"},
        "formers": {},
        "files": {name: len(content) for name, content in files.items()},
        "charts": {name: len(content) for name, content in WARM_UP_CHARTS.items()},
    }
    return request, b"".join([*files.values(), *WARM_UP_CHARTS.values()])


if __name__ == "__main__":
    main()
