from __future__ import annotations

from controller.broker import redact
from controller.core.canonical import digest


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
