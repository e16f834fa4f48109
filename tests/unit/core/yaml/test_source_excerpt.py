"""The excerpt of a problem has the line and a mark, and no possible secret."""

from __future__ import annotations

import pytest

from controller.core.yaml.source_excerpt import excerpt

SECRET = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, owner: me}
spec:
  image: web:1
  env: {PASSWORD: "s3cret-x", DEBUG: false, PORT: 8080}
  command: [run, --token=abc]
  healthcheck: {exec: [check, -p, pw], retries: 3}
  enviroment:
    A: |
      first secret
      second
---
password: hunter2
---
kind: Service
spec:
  replicas: "2
  env:
    TOKEN: [abc
"""


def shown(line: int, column: int = 1, text: str = SECRET, width: int = 80) -> str:
    """Return an excerpt as one text."""
    return "\n".join(excerpt(text, line, column, width=width))


def test_the_line_is_shown_with_a_mark_below_the_column() -> None:
    assert shown(5, 10) == "     5 |   image: web:1\n       |          ^"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (3, "metadata: {name: web, owner: me}"),
        (6, '  env: {PASSWORD: "******-*", DEBUG: false, PORT: 8080}'),
        (7, "  command: [***, --*****=***]"),
        (8, "  healthcheck: {exec: [*****, -*, **], retries: 3}"),
        (9, "  enviroment:"),
        (10, "    A: |"),
        (11, "      ***** ******"),
        (12, "      ******"),
        (14, "password: *******"),
    ],
)
def test_what_may_be_a_secret_is_masked(line: int, text: str) -> None:
    assert shown(line).split("\n")[0] == f"  {line:>4} | {text}"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("healthcheck: curl -u me:s3cret", "healthcheck: **** -* **:******"),
        ("healthcheck: [CMD, curl, s3cret]", "healthcheck: [***, ****, ******]"),
        ("healthcheck: {command: [s3cret]}", "healthcheck: {command: [******]}"),
        ("healthcheck: {test: s3cret}", "healthcheck: {test: ******}"),
        (
            "healthcheck: {http: {path: /up?token=x}, timeout: 5s}",
            "healthcheck: {http: {path: /**?*****=*}, timeout: 5s}",
        ),
        (
            "build: {context: ., args: {TOKEN: s3cret}}",
            "build: {context: ., args: {TOKEN: ******}}",
        ),
        ("env: {PIN: 20260131, PORT: 8080}", "env: {PIN: ********, PORT: 8080}"),
        ("PASSWORD: 20260131", "PASSWORD: ********"),
        ("resources: {memory: 536870912}", "resources: {memory: 536870912}"),
    ],
)
def test_checks_builds_and_long_numbers_may_be_secrets(written: str, text: str) -> None:
    readable = f"kind: Service\nspec:\n  {written}\n"
    assert shown(3, text=readable).split("\n")[0] == f"     3 |   {text}"


def test_a_check_in_a_document_that_cannot_be_read_is_masked() -> None:
    broken = 'spec:\n  healthcheck: [CMD, s3cret]\n  image: "web\n'
    assert shown(2, text=broken).split("\n")[0] == "     2 |   healthcheck: [***, ******]"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (16, "kind: Service"),
        (18, '  replicas: "2'),
        (19, "  env:"),
        (20, "    TOKEN: [***"),
    ],
)
def test_a_document_that_cannot_be_read_is_masked_by_its_keys(line: int, text: str) -> None:
    assert shown(line).split("\n")[0] == f"  {line:>4} | {text}"


def test_of_a_long_line_the_part_around_the_mark_is_shown() -> None:
    text = "kind: a" + "a" * 300
    first, second = shown(1, 200, text, width=40).split("\n")
    assert (len(first), first[9], first[-1]) == (40, "…", "…")
    assert first[second.index("^")] == "a"
    assert len(shown(1, 3, text, width=40).split("\n")[0]) == 39


def test_what_plays_tricks_on_a_terminal_is_a_question_mark() -> None:
    assert shown(1, 1, "kind: a\u202eb\x1b[31mc\té") == "     1 | kind: a?b?[31mc é\n       | ^"


def test_a_line_that_is_not_there_is_no_excerpt() -> None:
    assert (shown(0), shown(99)) == ("", "")
