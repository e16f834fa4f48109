"""docs/errors has every code that the program can tell, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from controller.broker.dispatch import ENDPOINTS
from controller.broker.gate.routes import ROUTES
from controller.model import mutations
from controller.model.crashpoints import COMMAND_POINTS, CRASH_POINTS, NOTIFIER_POINTS
from controller.model.settings import KEYS

ROOT = Path(__file__).parents[3]
PAGE = "".join(page.read_text("utf-8") for page in sorted((ROOT / "docs" / "errors").glob("*.md")))
ROW = re.compile(r"^\| `([A-Za-z0-9.-]+)` \| ([^|]+) \| ?([^|]*)\|$", re.MULTILINE)
DOTTED = re.compile(r"[a-z][a-z-]*(?:\.[a-z0-9][a-z0-9-]*)+")
WORD = re.compile(r"[a-z][a-z-]+")
#: Who takes a code, and as which of its arguments.
TAKERS = {"Finding": 0, "Denied": 0, "Problem": 0, "FieldProblem": 1, "deny": 3}
#: The arguments that are lines of the policy.
LINES = {"Grant": (1,), "new_bound": (0,), "NumberBounds": (1, 2)}
#: Texts with a dot that are no codes: places, hosts, loggers, records of the journal, fields.
ELSE = re.compile(
    r"github\.com|http\.response\.start|docker\.service|.*\.(html|json|yaml|yml|sock|lock|sqlite|conf)|journal\.(pub|checkpoint)|(secrets\.key|keys\.age)|(index\.)?docker\.io|io\.|com\.|ca\.pem|state\.json\.damaged|trimtab\.(control|loop|up|fetch|notify|view|web)|controller\..*\.drop|controller\.web\.pages"
    r"|com\..*|(policy|registry-auth)\.load|registry-1\.docker\.io|ghcr\.io"
    r"|os\.(features|version)|recovery\..*failed|resources\.memory\.default"
    r"|trimtab\.(ship|journal|seq|id|stage|hash|route|object|decision|rules|actor\..*|error|container|cause)"
    r"|opentelemetry\..*|service\.(name|version|instance\.id)|records\.missing|sink\.failed"
    r"|(spec|metadata)\..*|container\.(cpuset|isolation|name|networks|others|volumes)|docker\.service|network\.attach|rollout\.parallelism"
    r"|healthcheck\.(http\..*|tcp\.port|retries)|restart\.policy"
    r"|images\.allow|networks\.ports\.granted|files\.content|cgroup\.controllers|system\.slice|io\.containerd\..*|(memory|memory\.swap|cpu|pids)\.max"
)
#: Made of a field's name: ``f"{field}.invalid"`` in core/manifests/declaration.py.
MADE = {"name.invalid", "namespace.invalid", "owner.invalid"}
#: Made of a mount's type in core/files/mounts.py.
MADE |= {f"config.{fault}" for fault in ("broken", "key", "name", "owner", "undeclared")}


def told(code: str) -> Iterator[str]:
    """Yield the codes in a module's text."""
    nodes = [*ast.walk(ast.parse(code))]
    lines = [
        part
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        for place in LINES.get(node.func.id, ())
        for part in ast.walk(node.args[place])
    ]
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node not in lines and DOTTED.fullmatch(node.value):
                yield node.value
        elif isinstance(node, ast.Call):
            yield from _word(node)


def _word(call: ast.Call) -> Iterator[str]:
    """Yield the code of one word that a call gives to one of ``TAKERS``."""
    if not isinstance(call.func, ast.Name) or call.func.id not in TAKERS:
        return
    place = TAKERS[call.func.id]
    given = [keyword.value for keyword in call.keywords if keyword.arg in {"code", "rule"}]
    for code in given or call.args[place : place + 1]:
        if isinstance(code, ast.Constant) and WORD.fullmatch(str(code.value)):
            yield str(code.value)


def codes() -> set[str]:
    """Return every code of the program."""
    found = set(MADE) | {"PrunePending", "SourceHeld", "SourceFailing", "SourceUnreported"}
    for path in (ROOT / "controller").rglob("*.py"):
        # Findings of the first have a subject and no code; the others name keys of the policy,
        # attributes of Compose, or fields.
        others = {"attributes.py", "foreign_fields.py"}
        if path.name not in {"doctor.py", *others}:
            found |= set(told(path.read_text("utf-8")))
    words = {str(value) for value in vars(mutations).values() if isinstance(value, str)}
    names = {*(route.name for route in ROUTES), *map(str, ENDPOINTS), *CRASH_POINTS, *words}
    names |= {*COMMAND_POINTS, *NOTIFIER_POINTS, *(key.name for key in KEYS)}  # of settings
    return {code for code in found - names if not ELSE.fullmatch(code)}


def test_the_page_has_every_code_and_no_other() -> None:
    documented, defined = {code for code, _, _ in ROW.findall(PAGE)}, codes()
    assert sorted(defined - documented) == [], "not on the page"
    assert sorted(documented - defined) == [], "on the page only"


def test_each_code_stands_once() -> None:
    documented = [code for code, _, _ in ROW.findall(PAGE)]
    assert [code for code in set(documented) if documented.count(code) > 1] == []


def test_codes_are_found_wherever_they_stand() -> None:
    code = 'Finding("sysctls", "a", "b")\nx = "wire.new"\ndeny("A", text, "why", "devices")\n'
    assert sorted(told(code)) == ["devices", "sysctls", "wire.new"]


def test_each_remedy_says_what_to_do() -> None:
    refusals, _, _ = PAGE.partition("## What the gate changes")
    empty = re.compile(r"as told|likewise|mend\b|that is told|those told")
    rows = [(code, remedy.strip()) for code, _, remedy in ROW.findall(refusals)]
    assert [code for code, remedy in rows if not remedy or empty.search(remedy)] == []
