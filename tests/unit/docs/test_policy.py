"""docs/policy.md says what the shipped policies grant, and its example is one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from controller.core.policy.text import load_policy
from controller.model.policy.document import Loosens, Policy
from controller.model.policy.shipped import SHIPPED_POLICIES
from controller.model.quantities import format_bytes

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "policy.md").read_text("utf-8")
POLICIES = {
    name: load_policy((ROOT / "configs" / "policies" / f"{name}.yaml").read_text("utf-8"), name)
    for name in SHIPPED_POLICIES
}
COLUMNS = ("home", "strict", "production", "development")


def row(title: str) -> list[str]:
    """Return the cells of a row of the table of grants."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {title} |")]
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def memory(policy: Policy) -> str:
    return f"{format_bytes(policy.resources.memory.default)}, {format_bytes(policy.resources.memory.max)}"


def modes(policy: Policy) -> str:
    return ", ".join(
        mode for mode in ("none", "isolated", "bridge") if mode in policy.networks.modes
    )


def low_ports(policy: Policy) -> str:
    granted = [str(port) for port in policy.networks.ports.granted if port < 1024]
    return " and ".join(granted) or "none"


def volumes(policy: Policy) -> str:
    return {"refuse": "refused", "slot": "a volume of the slot"}[policy.images.anonymous_volumes]


@pytest.mark.parametrize(
    ("title", "told"),
    [
        ("network modes", modes),
        ("memory, by default and at most", memory),
        ("ports below 1024", low_ports),
        ("a `VOLUME` without a mount", volumes),
        ("`docker exec` as root by name", lambda p: "yes" if p.exec.root else "no"),
        ("owners", lambda p: "any" if p.owners is None else "the listed ones"),
        (
            "networks of docker and compose",
            lambda p: "internal" if p.networks.client_internal else "with internet",
        ),
    ],
    # The address of a function differs between processes, which must collect the same tests.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_table_says_what_the_policies_grant(title: str, told: Callable[[Policy], str]) -> None:
    assert row(title) == [told(POLICIES[name]) for name in COLUMNS]


def test_every_shipped_policy_is_in_the_first_table() -> None:
    assert set(COLUMNS) == set(SHIPPED_POLICIES)
    for name in SHIPPED_POLICIES:
        assert f"| `{name}` |" in PAGE


def test_the_exception_is_one_and_all_that_it_may_loosen_is_listed() -> None:
    (example,) = re.findall(r"```yaml\n(exceptions:.*?)```", PAGE, re.DOTALL)
    told = yaml.safe_load(example.replace("2027-01-31", '"2027-01-31"'))
    assert Policy.from_json({"name": "p", **told}).exceptions[0].service == "proxy"
    listed = PAGE.partition("`loosens` takes ")[2].partition(". ")[0]
    fields = {field.alias for field in Loosens.model_fields.values()}
    assert set(re.findall(r"`(\w+)`", listed)) == fields
