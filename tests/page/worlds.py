"""Views and records of hosts in every state that the pages show; always the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from controller.core.view.attention import attended, state_of

NOW: Final = datetime(2026, 3, 2, 9, 41, 30, tzinfo=UTC)
COMMIT: Final = "7c1f0e2b9d4a6853c0de41f2a7b8934511aa20fe"
Row = dict[str, Any]
#: Texts that try to run a script, to leave their place, or to lie about their order.
HOSTILE: Final = (
    "<script>window.pwned=1</script>",
    '"><img src=x onerror=window.pwned=1>',
    "' onmouseover='window.pwned=1",
    "{{7*7}}${7*7}{%raw%}",
    "javascript:window.pwned=1",
    "</title></style></textarea><svg onload=window.pwned=1>",
    "\u202egnp.exe\u202c\u2066hidden\u2069",
    "zero\u200bwidth\ufeff\u2060joiner",
    "\u009b31mC1\u0085\x1b[2J\x07\x00",
    "Z\u0351\u036b\u0343a\u0329\u0349l\u0350\u0342g\u033fo\u0344" * 12,
    "w" * 3000,
    "line\nbreak\r\n<b>bold</b>",
    "&lt;b&gt;&#x3c;script&#x3e;",
    "\ud800 lone surrogate",
    "../../../etc/passwd%2e%2e",
    "$(reboot); `reboot` && reboot | reboot",
)


def ago(**past: int) -> str:
    """Return an instant before NOW, as records have it."""
    return f"{NOW - timedelta(**past):%Y-%m-%dT%H:%M:%SZ}"


def condition(
    name: str, reason: str, message: str = "", since: str = "", *, status: str = "True"
) -> Row:
    return {
        "type": name,
        "status": status,
        "reason": reason,
        "message": message,
        "since": since or ago(days=6),
    }


def row(
    name: str,
    *bad: Row,
    kind: str = "Service",
    namespace: str = "shop",
    owner: str = "platform",
    image: str = "",
    ready: int = 1,
    desired: int = 1,
    **more: Any,
) -> Row:
    """Return a row of the view; *bad* are its true conditions."""
    is_well = not bad
    message = f"{ready} of {desired} ready" if is_well else bad[0]["message"]
    ready_condition = condition(
        "Ready",
        "AsDeclared" if is_well else bad[0]["reason"],
        message,
        "" if is_well else bad[0]["since"],
        status="True" if is_well else "False",
    )
    revision = f"v2:{hash_of(name):064x}"
    slots = [
        {
            "slot": number,
            "container": f"{namespace}.{name}.{number}-{revision[3:11]}",
            "state": "running" if number <= ready else "missing",
            "health": "healthy" if number <= ready else "",
            "restarts": 0,
            "id": f"{(hash_of(name) ^ number):064x}",
            "started": ago(days=6, hours=number),
        }
        for number in range(1, max(desired, ready) + 1)
        if kind == "Service"
    ]
    return attended(
        {
            "kind": kind,
            "namespace": namespace,
            "name": name,
            "owner": owner,
            "desired": desired,
            "ready": ready,
            "revision": revision if kind == "Service" else "",
            "image": image,
            "digest": f"sha256:{hash_of(image or name):064x}",
            "generation": 3,
            "observedGeneration": 3,
            "conditions": [ready_condition, *bad],
            "slots": slots,
            "declared": {
                "file": f"{namespace}/{name}.yaml",
                "line": 1,
                "commit": COMMIT,
                "source": "deploy",
            },
            **more,
        }
    )


def hash_of(text: str) -> int:
    """Return a number for a text, the same in each process."""
    return int(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), 16)


def view_of(rows: Iterable[Row], *, problems: Iterable[Row] = (), **more: Any) -> Row:
    """Return a view with these rows."""
    resources, found = list(rows), list(problems)
    head = {
        "format": 1,
        "version": "5d0c3a91-418",
        "full": True,
        "at": ago(seconds=2),
        "host": {
            "name": "harbour",
            "instance": "f3a9c2d471be",
            "engine": "26.1.5",
            "trimtab": "0.2.0",
            "policy": "94a2e5aca494b40a6b02dd4f7c743a7248b86cb1c1aeb034b52990885ac576d5",
        },
        "problems": found,
        "sources": [],
        "acts": [],
        "plan": [],
        "verified": {
            "format": 1,
            "result": "ok",
            "at": (NOW - timedelta(hours=6, minutes=41)).timestamp(),
            "since": (NOW - timedelta(days=30)).timestamp(),
            "records": 41817,
            "head": f"{7:064x}",
            "signed": 41817,
            "trusted": 41817,
            "keys": ["8f21c0aa93d1"],
        },
        "resources": resources,
        "gone": [],
    }
    return {
        **head,
        "state": state_of({"resources": resources, "problems": found, "sources": []}),
        **more,
    }


def field(path: str, desired: str | None, running: str | None, line: int = 0, **more: Any) -> Row:
    origin: Row = {
        "from": "document",
        "file": "shop/web.yaml",
        "line": line,
        "commit": COMMIT,
        "source": "deploy",
    }
    if not line:
        origin = {"from": "policy", "rule": "resources.pids.default"}
    return {
        "field": path,
        "desired": desired,
        "running": running,
        "admitted": running,
        "origin": origin,
        **more,
    }


def revision(
    short: str, version: str, since: str, digest: str, commit: str, *, current: bool = False
) -> Row:
    """Return a row of ``history --json``."""
    return {
        "revision": f"v2:{short:0<64}",
        "generation": 3,
        "since": since,
        "image": f"ghcr.io/harbour/shop-web:{version}",
        "digest": f"sha256:{digest:0<64}",
        "file": "shop/web.yaml",
        "line": 1,
        "commit": commit,
        "outcome": "" if current else "complete",
        "reason": "",
        "limits": "",
        "current": current,
        "declared": current,
        "pinned": False,
        "containers": 2 if current else 1,
    }


def samples() -> tuple[tuple[float, float | None, int], ...]:
    """Return an hour of samples, with a burst."""
    return tuple(
        (
            NOW.timestamp() - 60 * (60 - n),
            0.11 + 0.01 * ((n * 7) % 5) + (0.3 if 34 < n < 40 else 0),
            180_000_000 + 600_000 * n + 4_000_000 * ((n * 3) % 4),
        )
        for n in range(60)
    )


def ordinary() -> Row:
    """Return a host on which some things went wrong."""
    api = "shop.api.1-93b9917f is unhealthy: port 8080 answered with status 503"
    failure = {
        "container": "shop.api.1-93b9917f",
        "slot": 1,
        "at": ago(minutes=12),
        "cause": "was unhealthy: port 8080 answered with status 503",
        "lines": [
            {"line": "listening on :8080", "stream": "stdout", "time": ago(minutes=13)},
            {
                "line": 'orders: relation "invoice" does not exist',
                "stream": "stderr",
                "time": ago(minutes=12),
            },
        ],
    }
    mailer = 'slot 1 failed 6 times in a row: exited with 1: "connect to smtp.internal: connection refused"'
    search = 'shop/search.yaml:6:10: spec.image "docker.io/opensearchproject/opensearch:2.19" is not under an admitted prefix (ghcr.io/harbour/, docker.io/library/)'
    held = "would be removed, but 6 of 16 services would go within 10 minutes, more than 3"
    web = row(
        "web",
        condition(
            "Progressing", "Waiting", "shop.web.2-162de490 isn't healthy yet", ago(seconds=24)
        ),
        image="ghcr.io/harbour/shop-web:4.2.0",
        ready=2,
        desired=3,
        ports=[
            {"container": 8080, "protocol": "tcp", "host": 443, "address": "", "scheme": "http"}
        ],
        fields=[
            field("spec.env.DATABASE_URL", None, None, 14, hidden=True),
            field(
                "spec.image", "ghcr.io/harbour/shop-web:4.2.0", "ghcr.io/harbour/shop-web:4.2.0", 6
            ),
            field("spec.replicas", "3", None, 7),
            field("spec.resources.cpus", "0.5", "0.5", 10),
            field("spec.resources.memory", "256Mi", "256Mi", 9),
            field("spec.resources.pids", None, "256"),
        ],
        revisions=[
            revision("162de490", "4.2.0", ago(minutes=2), "9891d03d7008dd58", COMMIT, current=True),
            revision("337f68c6", "4.1.3", ago(days=6), "51be5903c41ea726", "aa20fe7c1f0e2b9d"),
        ],
    )
    rows = [
        row(
            "api",
            condition("Stalled", "rollout.failed", api, ago(minutes=12)),
            condition("Paused", "rollout.failed", api, ago(minutes=12)),
            condition("Degraded", "Unhealthy", api, ago(minutes=12)),
            image="ghcr.io/harbour/shop-api:2.9.0",
            ready=0,
        ),
        row(
            "mailer",
            condition("CrashLoop", "KeepsFailing", mailer, ago(minutes=41)),
            condition("Degraded", "TooFew", "0 of 1 running", ago(minutes=41)),
            image="ghcr.io/harbour/mailer:1.4",
            ready=0,
            nextTry={"at": ago(seconds=-72), "reason": "failed 6 times in a row"},
        ),
        row(
            "search",
            condition("PolicyViolation", "image.not-allowed", search, ago(hours=3)),
            condition("Stalled", "image.not-allowed", search, ago(hours=3)),
            image="docker.io/opensearchproject/opensearch:2.19",
            ready=0,
        ),
        web,
        row("worker", image="ghcr.io/harbour/worker:3.0.1", ready=4, desired=4),
        row("postgres", image="docker.io/library/postgres:17.2", owner="data"),
        row("redis", image="docker.io/library/redis:7.4", owner="data"),
        row("orders", kind="Volume", owner="data"),
        row(
            "gateway",
            condition(
                "Suspended",
                "ByCommand",
                "suspended by uid:1000 since 08:55: certificate swap by hand",
                ago(minutes=46),
            ),
            namespace="default",
            image="docker.io/library/caddy:2.9",
        ),
        row("grafana", namespace="monitoring", image="docker.io/grafana/grafana:11.4.0"),
        row("prometheus", namespace="monitoring", image="docker.io/prom/prometheus:3.1.0"),
        row(
            "backup",
            kind="Job",
            namespace="default",
            owner="data",
            image="ghcr.io/harbour/backup:1.1",
        ),
        *(
            row(
                f"legacy-{n}",
                condition("PrunePending", "PrunePending", held, ago(minutes=8)),
                namespace="old",
                desired=0,
                image="ghcr.io/harbour/legacy:1",
            )
            for n in range(1, 7)
        ),
    ]
    for each in rows:
        if each["worst"] == "PrunePending":
            each["declared"] = None
    rows[0]["slots"][0].update(
        state="running",
        health="unhealthy",
        lastFailure=failure,
        container="shop.api.1-93b9917f",
        restarts=0,
        cause="unhealthy",
    )
    problem = {
        "code": "field.unknown",
        "severity": "error",
        "file": "shop/cache.yaml",
        "line": 6,
        "column": 3,
        "field": "spec.replica",
        "message": 'unknown key "replica" in spec',
        "expected": "",
        "remedy": "did you mean replicas?",
        "excerpt": "  image: docker.io/library/redis:7.4\n  replica: 2\n  ^",
    }
    acts = [
        (
            "seconds",
            24,
            "Service/shop/web",
            "start-container",
            "shop.web.2-162de490",
            "revision is 337f68c6, want 162de490",
            "shop/web: started shop.web.2-162de490",
        ),
        (
            "seconds",
            58,
            "Service/shop/web",
            "stop-container",
            "shop.web.1-337f68c6",
            "revision is 337f68c6, want 162de490",
            "shop/web: stopped shop.web.1-337f68c6",
        ),
        (
            "minutes",
            2,
            "Service/shop/web",
            "create-container",
            "shop.web.1-162de490",
            "revision is 337f68c6, want 162de490",
            "shop/web: created shop.web.1-162de490",
        ),
        (
            "minutes",
            12,
            "Service/shop/api",
            "create-container",
            "shop.api.1-93b9917f",
            "revision is 1be02a77, want 93b9917f",
            "shop/api: created shop.api.1-93b9917f",
        ),
        (
            "hours",
            6,
            "Service/shop/web",
            "create-container",
            "shop.web.3-337f68c6",
            "slot 3 is missing: shop.web.3-337f68c6 was removed from outside",
            "shop/web: created shop.web.3-337f68c6",
        ),
    ]
    return view_of(
        rows,
        problems=[problem],
        sources=[
            {
                "name": "deploy",
                "state": "Ready",
                "commit": COMMIT,
                "url": "https://git.example.org/platform/deploy.git",
                "ref": "main",
                "path": "prod",
                "resources": 18,
                "reason": "",
                "message": "",
                "remedy": "",
                "current": {"commit": COMMIT, "author": "Ann", "subject": "shop: web 4.2.0"},
                "candidate": None,
                "since": ago(days=2),
                "lastFetch": ago(seconds=31),
                "failures": 0,
            }
        ],
        acts=[
            {
                "at": ago(**{unit: much}),
                "key": key,
                "verb": verb,
                "target": target,
                "cause": cause,
                "text": text,
                "outcome": "done",
            }
            for unit, much, key, verb, target, cause, text in reversed(acts)
        ],
        plan=[
            {
                "key": "Service/shop/web",
                "verb": "create-container",
                "target": "shop.web.3-162de490",
                "cause": "revision is 337f68c6, want 162de490",
                "text": "create-container shop.web.3-162de490: revision is 337f68c6, want 162de490",
            }
        ],
    )


def _record(
    seq: int,
    stage: str,
    when: str,
    role: str,
    action: str,
    target: str,
    service: str = "web",
    *,
    number: int = 0,
    **parts: Any,
) -> Row:
    actor: Row = {"role": role}
    if role == "operator":
        actor |= {"uid": 1000, "gid": 1000, "separated": True}
    identifier = f"01a23883-0f4e-7a3c-b50e-{number or seq:012x}"
    record = {"seq": seq, "id": identifier, "time": when, "stage": stage, "actor": actor, **parts}
    about = {
        "namespace": "shop",
        "service": service,
        "owner": "platform",
        "name": target,
        "id": "",
        "action": action,
        "method": "POST",
        "becomes": "",
    }
    return {"about": about, "record": record}


#: The id of the record that a story asks for.
REMOVAL: Final = "01a23883-0f4e-7a3c-b50e-00000000a2f1"


def journal() -> tuple[Mapping[str, Any], ...]:
    """Return the records of a night, oldest first: a removal by hand, its repair, a rollout, a refusal."""
    night = "2026-03-02T03:12:07.412Z"
    by = {"decision": "allow", "rules": [], "mutations": [], "policy": "94a2e5ac"}
    source = {"file": "shop/web.yaml", "line": 1, "commit": COMMIT}
    lines = [
        _record(
            41713,
            "intent",
            night,
            "operator",
            "container.remove",
            "shop.web.3-337f68c6",
            number=0xA2F1,
            request={
                "method": "DELETE",
                "route": "container.remove",
                "object": "shop.web.3-337f68c6",
                "summary": {"namespace": "shop", "service": "web"},
            },
            verdict=by,
            claims={"cause": "", "onBehalfOf": "", "plan": "", "source": {}},
        ),
        _record(
            41714,
            "outcome",
            "2026-03-02T03:12:07.660Z",
            "operator",
            "container.remove",
            "shop.web.3-337f68c6",
            number=0xA2F1,
            result={"status": 204, "durationMs": 241, "error": ""},
        ),
        _record(
            41715,
            "intent",
            "2026-03-02T03:12:08.020Z",
            "controller",
            "container.create",
            "shop.web.3-337f68c6",
            number=0xA2F3,
            request={
                "method": "POST",
                "route": "container.create",
                "object": "shop.web.3-337f68c6",
            },
            verdict={**by, "decision": "mutate", "mutations": ["HostConfig.PidsLimit: 256"]},
            claims={
                "cause": "slot 3 is missing: shop.web.3-337f68c6 was removed from outside",
                "source": source,
            },
        ),
        _record(
            41716,
            "outcome",
            "2026-03-02T03:12:08.065Z",
            "controller",
            "container.create",
            "shop.web.3-337f68c6",
            number=0xA2F3,
            result={"status": 201, "durationMs": 43, "error": ""},
        ),
        _record(
            41801,
            "refusal",
            ago(hours=3),
            "client",
            "container.create",
            "miner",
            "",
            request={"method": "POST", "route": "container.create", "object": "miner"},
            verdict={**by, "decision": "deny", "rules": ["image.not-allowed", "privileged.denied"]},
            claims={},
            result={"status": 403, "error": "the image is not under an admitted prefix"},
        ),
        _record(
            41809,
            "intent",
            ago(minutes=2),
            "controller",
            "container.create",
            "shop.web.1-162de490",
            number=0xA351,
            request={
                "method": "POST",
                "route": "container.create",
                "object": "shop.web.1-162de490",
            },
            verdict=by,
            claims={"cause": "revision is 337f68c6, want 162de490", "source": source},
        ),
        _record(
            41810,
            "outcome",
            ago(minutes=2),
            "controller",
            "container.create",
            "shop.web.1-162de490",
            number=0xA351,
            result={"status": 201, "durationMs": 66, "error": ""},
        ),
        _record(
            41815,
            "intent",
            ago(seconds=24),
            "controller",
            "container.start",
            "shop.web.2-162de490",
            number=0xA357,
            request={"method": "POST", "route": "container.start", "object": "shop.web.2-162de490"},
            verdict=by,
            claims={"cause": "revision is 337f68c6, want 162de490", "source": source},
        ),
    ]
    return tuple(lines)


def large(services: int = 1000) -> Row:
    """Return a host with many services, some of which have trouble."""
    rows = [
        row(
            f"service-{n:04}",
            *(
                [condition("CrashLoop", "KeepsFailing", f"slot 1 exited with {n}", ago(minutes=n))]
                if n % 50 == 0
                else []
            ),
            namespace=f"team-{n % 12}",
            image=f"ghcr.io/harbour/service-{n % 40}:1.{n % 9}",
        )
        for n in range(services)
    ]
    return view_of(rows)


def empty() -> Row:
    return view_of([], verified=None)


def engine_away() -> Row:
    """Return a view from while the engine doesn't answer."""
    gone = {
        "code": "engine.unavailable",
        "severity": "error",
        "message": "the engine doesn't answer at /run/docker.sock: connection refused",
        "remedy": "systemctl status docker",
    }
    rows = [
        attended(
            {
                **each,
                "conditions": [
                    condition(
                        "Ready",
                        "EngineUnavailable",
                        "the engine doesn't answer",
                        ago(minutes=3),
                        status="Unknown",
                    )
                ],
            }
        )
        for each in (row("web"), row("api"), row("postgres", owner="data"))
    ]
    return view_of(rows, problems=[gone])


def hostile(count: int = 500) -> Row:
    """Return a view in which every text of others is hostile."""
    texts = [f"{HOSTILE[n % len(HOSTILE)]} {n}" for n in range(count)]
    rows = []
    for n, text in enumerate(texts[:40]):
        made = row(
            text if n % 2 else f"plain-{n}",
            condition("CrashLoop", text, text, ago(minutes=n)),
            namespace=text if n % 3 == 0 else "shop",
            owner=text,
            image=text,
            kind="Service",
        )
        made["declared"] = {"file": text, "line": n, "commit": text, "source": text}
        made["slots"][0].update(
            cause=text,
            container=text,
            lastFailure={
                "container": text,
                "at": ago(minutes=1),
                "cause": text,
                "lines": [
                    {"line": each, "stream": "stderr", "time": ago(minutes=1)} for each in texts
                ],
            },
        )
        made["fields"] = [
            {
                "field": f"spec.{text}",
                "desired": text,
                "running": text + "x",
                "admitted": text,
                "origin": {"from": "policy", "rule": text},
            }
        ]
        rows.append(made)
    problems = [
        {
            "code": text,
            "severity": "error",
            "file": text,
            "line": n,
            "column": 1,
            "field": text,
            "message": text,
            "expected": text,
            "remedy": text,
            "excerpt": text,
        }
        for n, text in enumerate(texts)
    ]
    acts = [
        {
            "at": ago(minutes=n % 600),
            "key": f"Service/{text}/{text}",
            "verb": text,
            "target": text,
            "cause": text,
            "text": text,
            "outcome": "failed",
            "error": text,
        }
        for n, text in enumerate(texts[:100])
    ]
    return view_of(
        rows,
        problems=problems,
        acts=acts,
        sources=[{"name": text, "url": text} for text in texts[:20]],
    )


def hostile_journal() -> tuple[Mapping[str, Any], ...]:
    return tuple(
        _record(
            n + 1,
            "refusal",
            ago(minutes=n),
            text,
            text,
            text,
            text,
            request={"method": text, "object": text, "summary": {text: [text]}},
            verdict={"decision": text, "rules": [text]},
            claims={"cause": text, "source": {"file": text, "line": 1, "commit": text}},
            result={"status": 403, "error": text},
        )
        for n, text in enumerate(HOSTILE)
    )
