"""Every sentence that tests of the core make it tell is written in ``told.txt``, to the letter.

A test names the rule or the code that it is about; what people then read is held here, and read in
the difference when it changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from controller.core.engine_api.requests import Finding
from controller.core.rules.verdict import AdmissionDecision
from controller.model.errors import Problem, TrimtabError

TOLD = frozenset(Path(__file__).with_name("told.txt").read_text("utf-8").splitlines())
#: What is quoted of a request may be long.
LONGEST = 300


def findings_are_written(findings: Iterable[Finding]) -> None:
    """Fail if a rule says something of a request that isn't written."""
    for found in findings:
        _is_written(f"{found.rule} | {found.path} | {found.reason} | {found.remedy}")


def verdict_is_written(admission: AdmissionDecision) -> None:
    """Fail if a refusal, or what is changed or warned of instead, says something that isn't written."""
    findings_are_written(admission.findings)
    for text in (*admission.verdict.mutations, *admission.warnings):
        _is_written(text)


def problems_are_written(problems: Iterable[Problem]) -> None:
    """Fail if something is said of a document that isn't written; places are for tests to compare."""
    for found in problems:
        line = f"{found.severity.value} {found.code} | {found.message}"
        _is_written(f"{line} | {found.expected} | {found.remedy}")


def error_is_written(error: TrimtabError) -> None:
    """Fail if an error tells something that isn't written."""
    _is_written(f"error {error.code} | {error.message} | {error.remedy}")


def _is_written(text: str) -> None:
    line = repr(text[:LONGEST])[1:-1]
    assert line in TOLD, f"told.txt lacks this line:\n{line}"
