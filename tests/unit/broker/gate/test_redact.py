from __future__ import annotations

import pytest

from controller.broker.gate import redact
from controller.core.encoding.json_values import digest


def test_no_value_of_the_environment_gets_through() -> None:
    told = redact.summary({"Env": ["PASSWORD=hunter2", "EMPTY=", "B"], "x": {"env": ["A=s"]}})
    assert told == {"Env": ["B", "EMPTY", "PASSWORD"], "x": {"env": ["A"]}}


def test_text_of_strangers_is_escaped_and_cut() -> None:
    assert redact.text("web\n|CEF:0\x1b[2J\u202e\u2028é") == (
        "web\\u000a|CEF:0\\u001b[2J\\u202e\\u2028é"
    )
    assert redact.text("x" * 600) == "x" * 512 + "… (600 characters)"


def test_a_summary_is_bounded_in_every_direction() -> None:
    deep: object = "end"
    for _ in range(20):
        deep = {"a": deep}
    assert redact.summary({"list": list(range(200)), "deep": deep, "number": 1.5}) == {
        "list": [*range(128), "… (200)"],
        "deep": {"a": {"a": {"a": {"a": {"a": "…"}}}}},
        "number": "1.5",
    }
    assert len(redact.summary({str(n): n for n in range(500)})) == 129  # type: ignore[arg-type]


def test_equal_values_have_equal_hashes_and_nobody_can_try_values_without_the_key() -> None:
    key = bytes(32)
    told = redact.hashes(key, "alice", ["DB=hunter2", "EMPTY=", "B"])
    assert told.keys() == {"DB", "EMPTY"}
    assert {len(value) for value in told.values()} == {32}
    assert redact.hashes(key, "alice", ["DB=hunter2"]) == {"DB": told["DB"]}
    # Another owner, name, value or key: nothing to compare.
    others = [
        redact.hashes(key, "bob", ["DB=hunter2"]),
        redact.hashes(key, "alice", ["DC=hunter2"]),
        redact.hashes(key, "alice", ["DB=hunter3"]),
        redact.hashes(bytes(31) + b"x", "alice", ["DB=hunter2"]),
    ]
    assert told["DB"] not in {value for each in others for value in each.values()}
    assert redact.hashes(b"", "alice", ["DB=hunter2"]) == {}
    assert redact.hashes(key, "alice", {"DB": "hunter2"}) == {}


def test_a_digest_of_what_is_not_told_whole_is_nobodys_without_the_key() -> None:
    key, value = bytes(32), {"summary": {}, "body": {"Cmd": ["sh", "hunter2"]}}
    told = redact.keyed_digest(key, value)
    assert redact.keyed_digest(key, {"body": value["body"], "summary": {}}) == told
    others = [
        redact.keyed_digest(key, {**value, "body": {"Cmd": ["sh", "hunter3"]}}),
        redact.keyed_digest(bytes(31) + b"x", value),
        digest(value),
    ]
    assert told not in others
    assert len(told) == 64


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ('exec: "mysql": executable file not found in $PATH', None),
        ('exec: "mysql -pX": not found', 'exec: "mysql [withheld]": not found'),
        ('open "-phunter2": no such file', 'open "[withheld]": no such file'),
        ('"a \\"b\\" c" and "a "b" c"', '"[withheld]" and "[withheld]"'),
        ("env topsecret, DB=topsecret2", "env [withheld], DB=[withheld]2"),
        ("NAMELESS isn't NAME=value", "[withheld] isn't NAME=value"),
        ("curl -f localhost failed", "[withheld] failed"),
        ("on, off, held", None),
    ],
)
def test_an_error_repeats_no_withheld_value(message: str, told: str) -> None:
    config: dict[str, object] = {
        "Env": ["DB=topsecret", "EMPTY=", "MODE=off", "NAMELESS"],
        "Entrypoint": ["mysql -pX" if "-pX" in message else "mysql"],
        "Cmd": ["-phunter2", 'a "b" c', "on", "mysql"],
        "Healthcheck": {"Test": ["CMD-SHELL", "curl -f localhost"]},
    }
    assert redact.withhold_secrets(message, config) == (told or message)


def test_a_value_that_is_part_of_another_or_of_what_is_told_instead_is_replaced_once() -> None:
    config: dict[str, object] = {"Cmd": ["sh", "hunter2", "hunter2-long", "held", "[withheld]"]}
    assert redact.withhold_secrets("hunter2-long hunter2 held", config) == " ".join(
        ["[withheld]"] * 3
    )


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ('Get "https://u:hunter2@r.io/v2/": EOF', 'Get "https://[withheld]@r.io/v2/": EOF'),
        ("http://hunter2@p:3128: refused", "http://[withheld]@p:3128: refused"),
        ("https://a:b@c@r.io/x", "https://[withheld]@r.io/x"),
        (
            'Get "https://s3/x?X-Amz-Signature=hunter2&b=1": dial tcp: i/o timeout (?)',
            'Get "https://s3/x?[withheld]": dial tcp: i/o timeout (?)',
        ),
        ("https://r.io/v2/x@sha256:ab: not found? a@b", None),
    ],
)
def test_credentials_and_query_of_an_address_are_withheld(message: str, told: str | None) -> None:
    assert redact.withhold_secrets(message, {}) == (told or message)


def test_nothing_is_withheld_of_nothing() -> None:
    config: dict[str, object] = {"Env": None, "Cmd": "sh", "Entrypoint": [], "Healthcheck": None}
    assert redact.withhold_secrets("exec: not found", config) == "exec: not found"
    assert redact.withhold_secrets("exec: not found", {"Cmd": [" "]}) == "exec: not found"
