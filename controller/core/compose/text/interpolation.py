"""Interpolation of trees: variables in every string, and strings to numbers and booleans by path.

Compose casts a string at the paths of ``CASTS`` also where the string has no variable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from controller.core.compose.text.nodes import (
    ComposeNode,
    Fault,
    NodePath,
    NodeValue,
    PathTable,
    ReadingReport,
    fail,
)
from controller.core.compose.text.variables import (
    InvalidTemplate,
    RequiredVariable,
    TextTooLong,
    substitute,
)

_INTEGER = re.compile(r"[-+]?[0-9]{1,19}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?", re.ASCII)
_TRUE = frozenset({"true", "y", "yes", "on"})
_FALSE = frozenset({"false", "n", "no", "off"})

Cast = Callable[[ComposeNode, str, NodePath], NodeValue]


def to_integer(node: ComposeNode, text: str, path: NodePath = ()) -> int:
    """Return the integer that a string writes.

    Raises:
        Fault: the string is not an integer.
    """
    if _INTEGER.fullmatch(text):
        return int(text)
    return fail(node, "compose.value", f'"{text}" is not an integer', "write an integer", path)


def to_number(node: ComposeNode, text: str, path: NodePath = ()) -> float:
    """Return the number that a string writes.

    Raises:
        Fault: the string is not a number.
    """
    if _NUMBER.fullmatch(text):
        return float(text)
    return fail(node, "compose.value", f'"{text}" is not a number', "write a number", path)


def to_boolean(node: ComposeNode, text: str, path: NodePath = ()) -> bool:
    """Return the boolean that a string writes.

    Raises:
        Fault: the string is not a boolean.
    """
    word = text.lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    return fail(node, "compose.value", f'"{text}" is not a boolean', "write true or false", path)


def _service_casts() -> dict[str, Cast]:
    integers = (
        "configs.*.mode cpu_count cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares "
        "deploy.replicas deploy.update_config.parallelism deploy.rollback_config.parallelism "
        "deploy.restart_policy.max_attempts deploy.placement.max_replicas_per_node "
        "healthcheck.retries oom_score_adj pids_limit ports.*.target scale secrets.*.mode "
        "ulimits.* ulimits.*.hard ulimits.*.soft"
    )
    numbers = (
        "cpu_percent cpus deploy.update_config.max_failure_ratio "
        "deploy.rollback_config.max_failure_ratio"
    )
    booleans = (
        "init healthcheck.disable oom_kill_disable privileged read_only stdin_open tty "
        "volumes.*.read_only volumes.*.volume.nocopy"
    )
    return {
        **dict.fromkeys(integers.split(), to_integer),
        **dict.fromkeys(numbers.split(), to_number),
        **dict.fromkeys(booleans.split(), to_boolean),
    }


CASTS: PathTable[Cast] = PathTable(
    {
        **{f"services.*.{path}": cast for path, cast in _service_casts().items()},
        **{
            f"networks.*.{name}": to_boolean
            for name in ("external", "internal", "attachable", "enable_ipv4", "enable_ipv6")
        },
        **{f"{section}.*.external": to_boolean for section in ("volumes", "secrets", "configs")},
    }
)


def interpolate(
    root: ComposeNode, variables: Mapping[str, str], report: ReadingReport
) -> ComposeNode:
    """Return the tree with all variables replaced. A value with a problem stays as it is."""
    return _Interpolation(variables, report).node(root, CASTS, ())


def expand(
    node: ComposeNode, variables: Mapping[str, str], report: ReadingReport, path: NodePath = ()
) -> str:
    """Return a string with all variables replaced, with warnings for unset ones.

    Raises:
        Fault: an invalid form, or a required variable without a value.
    """
    text = node.text or ""

    def missing(name: str) -> None:
        remedy = f"set {name} in the .env file of the project, or write ${{{name}:-}}"
        message = f"the variable {name} is not set; an empty string is used"
        report.warn(node, "compose.variable-unset", message, remedy)

    try:
        expanded = substitute(text, variables, missing)
        is_within = report.make(len(expanded))
    except TextTooLong:
        is_within, expanded = False, ""
    except InvalidTemplate:
        message = "a dollar sign begins no valid variable"  # the text can be a password
        fail(node, "compose.variable", message, "write $$ for a dollar sign", path)
    except RequiredVariable as error:
        reason = f": {error.reason}" if error.reason else ""
        message = f"the variable {error.name} is required{reason}"
        remedy = f"set {error.name} in the .env file of the project"
        fail(node, "compose.variable-required", message, remedy, path)
    if not is_within:
        message = "the values of variables are too long"
        fail(node, "compose.limit", message, "use shorter values, or fewer variables", path)
    return expanded


class _Interpolation:
    """A walk over a tree."""

    def __init__(self, variables: Mapping[str, str], report: ReadingReport) -> None:
        self._variables = variables
        self._report = report

    def node(self, node: ComposeNode, casts: PathTable[Cast] | None, path: NodePath) -> ComposeNode:
        value = node.value
        if isinstance(value, str):
            cast = casts.rule if casts is not None else None
            if cast is not None or "$" in value:
                node.value = self._string(node, value, cast, path)
        elif isinstance(value, dict):
            for name, member in value.items():
                below = casts.below(name) if casts is not None else None
                self.node(member, below, (*path, name))
        elif isinstance(value, list):
            below = casts.below("*") if casts is not None else None
            for number, item in enumerate(value):
                self.node(item, below, (*path, number))
        return node

    def _string(
        self, node: ComposeNode, value: str, cast: Cast | None, path: NodePath
    ) -> NodeValue:
        try:
            text = expand(node, self._variables, self._report, path)
            return text if cast is None else cast(node, text, path)
        except Fault as fault:
            self._report.add(fault.problem)
            return value
