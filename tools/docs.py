"""Writes docs/gate.md from the code: the tables of routes, fields and rules that the gate has.

``python -m tools.docs`` writes the page, the table of create fields in docs/desired-state.md, that of the
attributes in docs/compose.md, those of the settings and the metrics, and the JSON Schema in docs/schema. Tests hold them to what the code says.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from controller.broker.gate import routes as endpoints
from controller.broker.gate.request_target import Parameter, left_to_admission, meaning
from controller.broker.gate.routes import DENIED, OWN_PREFIX, ROUTES, Route
from controller.core.admission import create
from controller.core.engine_api import field_tables
from controller.core.engine_api.container_fields import BOUNDED
from controller.core.engine_api.field_reader import Field, Posture
from controller.core.manifests.json_schema import schema_of_all
from controller.core.metrics.families import FAMILIES
from controller.model.notice_targets import MEMBERS
from controller.model.policy.sections import ROLLABLE
from controller.model.records import Role
from controller.model.settings import KEYS, SettingKey
from tools import parity

PAGE = Path(__file__).parents[1] / "docs" / "gate.md"
DESIRED_STATE = PAGE.with_name("desired-state.md")
SCHEMA = PAGE.parent / "schema" / "trimtab.schema.json"
SETTINGS = PAGE.with_name("settings.md")
NOTIFICATIONS = PAGE.with_name("notifications.md")
NOTIFICATIONS_MARKS = ("<!-- destinations: made by make docs -->", "<!-- end of destinations -->")
SETTINGS_MARKS = ("<!-- settings: made by make docs -->", "<!-- end of settings -->")
MONITORING = PAGE.parent / "operations" / "monitoring.md"
METRICS_MARKS = ("<!-- metrics: made by make docs -->", "<!-- end of metrics -->")
PARITY = ("<!-- parity: made by make docs -->", "<!-- end of parity -->")
CORE = Path(create.__file__).parents[1]
CODES = frozenset(
    re.findall(
        r"^\| `([a-z0-9.-]+)` ", (PAGE.parent / "errors/gate.md").read_text("utf-8"), re.MULTILINE
    )
)

INTRO = """\
# What the gate serves

The broker speaks a subset of the Engine API (1.44 and 1.45) and nothing else: what isn't in these tables is
refused. They are made from the code by `make docs`; a test holds them to it. To see what becomes of one
request, ask for it: `trimtab policy explain POST /containers/create --body body.json`, or
`trimtab policy explain -- docker run …`.
"""
ROUTES_INTRO = """\
A route not listed for a role is refused to it (`role.denied`), an unknown one to all (`route.unknown`). *Evidence* is
what shows, after a crash, that a change took effect. A parameter that stands alone is judged by the rules. Paths may begin
with `/v1.44` or `/v1.45`, those below `/trimtab/v1` not.

What no engine reads is dropped, and never passed on: a parameter that isn't listed for the route, and a JSON body where none is
listed. Some clients (dockerode) write all options into both. A route lists every parameter that a published version of the
API has for it, 1.24 to 1.56, and every one that an engine reads without saying so. Refused are a listed parameter in another spelling (`query.unknown`), repeated, or with another value
in the body (`query.repeated`), forms and other bodies than JSON (`body.unexpected`), and what isn't listed on a route below `/trimtab/v1`.
"""
FIELDS_INTRO = """\
A field that isn't listed is refused unless its value means "unset" (null, "", 0, false, [], {}); so is a known one
in another spelling. What becomes of a field:

| word | meaning |
|---|---|
| allow | passed on as it is, its type checked |
| constrain | passed on within the bounds of the policy |
| mutate | replaced or completed by the gate |
| deny | refused unless unset, by the rule named |
| drop | without effect here, not passed on |
"""
RULES_INTRO = """\
All rules of a create are asked, in this order, and everything that is wrong is told; the first leads. What each
id means and what would pass is in [errors.md](errors/gate.md#rules-of-the-gate-what-is-asked-for).
"""
MODES_INTRO = """\
A rule here may be given a mode in the policy (`modes: {resources.memory: warn}`), to see what a policy would refuse
before it does. In `warn` and `audit` what goes beyond it is admitted as it was asked, with all other hardening, and
journaled as `audit-deny` with the rule and the reason; in `warn` the client is told, in the answer and in `plan`,
`validate` and `status`. Every other rule is always enforced, and a policy that names it isn't valid.
"""
#: Tables of fields, each with the place of its object in the body.
BODIES: tuple[tuple[str, str, Sequence[Field]], ...] = (
    ("create of a container", "", field_tables.CONFIG),
    ("create of a container", "HostConfig", field_tables.HOST_CONFIG),
    ("create of a container", "HostConfig.Mounts[]", field_tables.MOUNT),
    ("create of a container", "HostConfig.Mounts[].Trimtab", field_tables.FILE_OPTIONS),
    ("create of a container", "HostConfig.Mounts[].BindOptions", field_tables.BIND_OPTIONS),
    ("create of a container", "HostConfig.Mounts[].VolumeOptions", field_tables.VOLUME_OPTIONS),
    (
        "create of a container",
        "HostConfig.Mounts[].VolumeOptions.DriverConfig",
        field_tables.DRIVER_CONFIG,
    ),
    ("create of a container", "HostConfig.Mounts[].TmpfsOptions", field_tables.TMPFS_OPTIONS),
    ("create of a container", "HostConfig.PortBindings.*[]", field_tables.PORT_BINDING),
    ("create of a container", "HostConfig.RestartPolicy", field_tables.RESTART_POLICY),
    ("create of a container", "HostConfig.LogConfig", field_tables.LOG_CONFIG),
    ("create of a container", "HostConfig.Ulimits[]", field_tables.ULIMIT),
    ("create of a container", "HostConfig.Devices[]", field_tables.DEVICE),
    ("create of a container", "HostConfig.DeviceRequests[]", field_tables.DEVICE_REQUEST),
    ("create of a container", "Healthcheck", field_tables.HEALTHCHECK),
    ("create of a container", "NetworkingConfig", field_tables.NETWORKING_CONFIG),
    ("create of a container", "NetworkingConfig.EndpointsConfig.*", field_tables.ENDPOINT),
    (
        "create of a container",
        "NetworkingConfig.EndpointsConfig.*.IPAMConfig",
        field_tables.ENDPOINT_IPAM,
    ),
    ("update of a container", "", field_tables.UPDATE),
    ("create of a container", "TrimtabHooks", field_tables.HOOKS),
    ("create of a container", "TrimtabHooks.PostStart[]", field_tables.HOOK),
    ("create of a container", "TrimtabHooks.PreStop[]", field_tables.HOOK),
    ("create of a container", "TrimtabShares", field_tables.SHARES),
    ("exec", "", field_tables.EXEC),
    ("start of an exec", "", field_tables.EXEC_START),
    ("create of a network", "", field_tables.NETWORK),
    ("create of a network", "IPAM", field_tables.IPAM),
    ("create of a network", "IPAM.Config[]", field_tables.IPAM_CONFIG),
    ("connect to a network", "", field_tables.CONNECT),
    ("disconnect from a network", "", field_tables.DISCONNECT),
    ("create of a volume", "", field_tables.VOLUME),
)
_TYPES = {
    "flag": "true or false",
    "whole": "number",
    "whole_or_all": "number",
    "text": "line",
    "free_text": "text",
    "command": "texts",
    "an_object": "object",
    "structure": "object",
    "anything": "any",
    "read_list": "list",
    "read_map": "object",
}


def page() -> str:
    """Return the whole page."""
    parts = [
        INTRO,
        "## Routes\n",
        ROUTES_INTRO,
        *routes(),
        "## Refused on purpose\n",
        table(("method", "path", "instead"), denied()),
        "## Fields\n",
        FIELDS_INTRO,
        *fields(),
        "## Rules of a create\n",
        RULES_INTRO,
        table(("what it holds", "ids"), rules()),
        "## Rules that may be rolled out\n",
        MODES_INTRO,
        table(
            ("rule", "what a mode lets through"), ((f"`{r}`", why) for r, why in ROLLABLE.items())
        ),
    ]
    return "\n".join(parts)


def parity_table() -> str:
    """Return the table of create fields and the fields of a Service."""
    heads = ("field of a create", "the gate", "field of a Service, or why there is none")
    return table(heads, map(_parity_row, parity.rows()))


def _parity_row(row: parity.ParityRow) -> tuple[str, str, str]:
    told = ", ".join(f"`{field}`" for field in row.fields) or row.reason
    return (f"`{row.place}`", row.posture.value, told)


def with_parity(page: str) -> str:
    """Return docs/desired-state.md with the table of today between its two marks."""
    return _with_table(page, PARITY, parity_table())


def with_settings(page: str) -> str:
    """Return docs/settings.md with the table of today between its two marks."""
    heads = ("key", "what it is", "value", "default", "who reads it", "live")
    return _with_table(page, SETTINGS_MARKS, table(heads, map(_settings_row, KEYS)))


def with_metrics(page: str) -> str:
    """Return docs/operations/monitoring.md with the table of today between its two marks."""
    rows = (
        (
            f"`{each.name}`",
            each.kind,
            each.owner,
            ", ".join(f"`{n}`" for n in each.labels),
            each.about,
        )
        for each in FAMILIES
    )
    made = table(("metric", "type", "process", "labels", "meaning"), rows)
    return _with_table(page, METRICS_MARKS, made)


def with_destinations(page: str) -> str:
    """Return docs/notifications.md with the table of today between its two marks."""
    rows = ((f"`{each.name}`", each.means, each.form) for each in MEMBERS)
    return _with_table(page, NOTIFICATIONS_MARKS, table(("member", "what it is", "value"), rows))


def _settings_row(key: SettingKey) -> tuple[str, ...]:
    units = ", ".join(f"`{each}`" for each in key.processes)
    live = "yes" if key.live else "no"
    return (f"`{key.name}`", key.means, key.told, key.default, units, live)


def _with_table(page: str, marks: tuple[str, str], made: str) -> str:
    before, _, rest = page.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    return f"{before}{marks[0]}\n\n{made}\n{marks[1]}{after}"


def schema_text() -> str:
    """Return the JSON Schema of all documents as a file."""
    return json.dumps(schema_of_all(), indent=1) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    told = ("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return "\n".join(told) + "\n"


def routes() -> Iterator[str]:
    """Yield the tables of routes, in the groups that the code has."""
    for title, group in (
        ("Changes", [r for r in ROUTES if r.kind == "mutate" and not r.own]),
        ("Reads and streams", [r for r in ROUTES if r.kind != "mutate" and not r.own]),
        ("The gate's own", [r for r in ROUTES if r.own]),
    ):
        yield f"### {title}\n"
        heads = ("request", "means", "for", "query", "body", "kind", "evidence")
        yield table(heads, (route_row(route) for route in group))


def route_row(route: Route) -> tuple[str, ...]:
    """Return one route's cells."""
    roles = ", ".join(sorted(role.value for role in route.roles))
    roles = {endpoints.ALL: "all", endpoints.ALL_AND_VIEWERS: "all, viewer"}.get(route.roles, roles)
    query = "; ".join(parameter(name, check) for name, check in route.query.items())
    path = (OWN_PREFIX if route.own else "") + route.template
    evidence = route.evidence.value if route.kind == "mutate" and not route.own else ""
    return (f"`{route.method} {path}`", route.means, roles, query, route.body, route.kind, evidence)


def parameter(name: str, check: Parameter) -> str:
    """Return a parameter and what it may be; one that the rules judge stands alone."""
    if check is left_to_admission:
        return f"`{name}`"
    words = meaning(check)
    return f"`{name}` ({words[0].lower()}{words[1:]})"


def denied() -> Iterator[tuple[str, ...]]:
    """Yield what is refused on purpose, in the words of a path."""
    for method, pattern, instead in DENIED:
        path = pattern.replace("(?:/.*)?", "[/…]").replace("[^/]+", "ID").replace(".+", "…")
        path = re.sub(r"\(\?:([^)]*)\)", r"(\1)", path)
        yield ("any" if method == "*" else method, f"`{path}`", instead)


def fields() -> Iterator[str]:
    """Yield the tables of fields, a heading for each body."""
    bodies = list(dict.fromkeys(body for body, _, _ in BODIES))
    before = ""
    for body, place, entries in sorted(BODIES, key=lambda row: bodies.index(row[0])):
        if body != before:
            yield f"### Body: {body}\n"
            before = body
        if place:
            yield f"`{place}`:\n"
        yield table(
            ("field", "type", "what becomes of it", "rule", "note"), map(field_row, entries)
        )


def field_row(entry: Field) -> tuple[str, ...]:
    """Return one field's cells."""
    kind = _TYPES[getattr(entry.read, "__name__", "")]
    zero = "; its zero value means something" if entry.keep_zero else ""
    rule = f"`{entry.rule}`" if entry.posture is Posture.DENY else ""
    return (f"`{entry.name}`", kind, entry.posture.value, rule, entry.why + zero)


# Rules: what a function of the table says of itself, and the ids that it and its helpers yield.


def rules() -> Iterator[tuple[str, str]]:
    """Yield each rule of a create: its promise, and its ids."""
    modules = {
        path.stem: Module(path)
        for room in ("engine_api", "rules", "jobs", "enforcement", "admission")
        for path in (CORE / room).rglob("*.py")
    }
    for rule in create.CREATE_RULES:
        module = modules[rule.__module__.rpartition(".")[2]]
        ids = sorted(_ids(module, rule.__name__, modules, set()))
        assert ids, f"{rule.__name__} refuses nothing"
        yield _promise(rule), ", ".join(f"`{one}`" for one in ids)


def _promise(rule: Callable[..., object]) -> str:
    text = inspect.getdoc(rule) or ""
    return " ".join(text.split()).removesuffix(".")


class Module:
    """A module's functions, tables and what it imports from its neighbours, by name."""

    def __init__(self, path: Path) -> None:
        body = ast.parse(path.read_text("utf-8")).body
        self.name = path.stem
        self.functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
        self.tables = {
            target.id: node
            for node in body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        self.imported = {
            alias.asname or alias.name: (node.module or "").rpartition(".")[2]
            for node in body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }


def _ids(
    module: Module, name: str, modules: dict[str, Module], seen: set[tuple[str, str]]
) -> set[str]:
    """Return the ids in a function, in what it calls and in the tables that it looks at."""
    if name not in module.functions:
        module = modules.get(module.imported.get(name, ""), module)
    if (module.name, name) in seen or name not in module.functions:
        return set()
    seen.add((module.name, name))
    found: set[str] = set()
    for node in ast.walk(module.functions[name]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= _ids(module, node.func.id, modules, seen)
            if node.func.id == "Finding" and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
        elif isinstance(node, ast.Constant):
            found |= _dotted(node)
        elif isinstance(node, ast.Name) and node.id == "BOUNDED":
            found |= {bound.rule for _, bound in BOUNDED}
        elif isinstance(node, ast.Name) and node.id in module.tables and node.id != "NEVER":
            found |= {word for part in ast.walk(module.tables[node.id]) for word in _dotted(part)}
    return found


def _dotted(node: ast.AST) -> set[str]:
    """Return the id that a constant is, if it is one of the page of codes."""
    value = node.value if isinstance(node, ast.Constant) else None
    return {value} if isinstance(value, str) and value in CODES and "." in value else set()


if __name__ == "__main__":
    assert {role.value for role in endpoints.ALL_AND_VIEWERS} == {role.value for role in Role} - {
        "broker"
    }
    PAGE.write_text(page(), "utf-8")
    SCHEMA.parent.mkdir(exist_ok=True)
    SCHEMA.write_text(schema_text(), "utf-8")
    DESIRED_STATE.write_text(with_parity(DESIRED_STATE.read_text("utf-8")), "utf-8")
    MONITORING.write_text(with_metrics(MONITORING.read_text("utf-8")), "utf-8")
    NOTIFICATIONS.write_text(with_destinations(NOTIFICATIONS.read_text("utf-8")), "utf-8")
    SETTINGS.write_text(with_settings(SETTINGS.read_text("utf-8")), "utf-8")
