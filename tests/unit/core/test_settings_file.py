"""The file of settings: what it may say, what a mistake is told as, and how a value gets into it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from controller.core.settings_file import load_settings, with_values
from controller.model.errors import SettingsInvalid
from controller.model.settings import (
    KEYS,
    InstanceSettings,
    changed_keys,
    choose,
    json_schema,
    read_settings,
    to_json,
    values_of,
)

_PROSE = re.compile(r"# \S")
TEMPLATE = Path(__file__).parents[3] / "configs" / "debian" / "trimtab.yaml"
#: A value of every key.
WHOLE = {
    "desiredState": "/srv/desired",
    "engine": "unix:///run/e.sock",
    "policy": "home",
    "quarantine": "24h",
    "registryAuth": "/etc/auth.json",
    "git": {"webhook": "127.0.0.1:9000"},
    "users": {"controller": "loop"},
    "ship": {"to": ["a=file:///srv/a"], "metrics": "/srv/m.prom"},
    "notify": {"destinations": {"oncall": {"webhook": "https://hooks.example/a"}}},
    "web": {
        "listen": "127.0.0.1:8123",
        "url": "https://trimtab.example.org",
        "proxyUser": "www-data",
        "proxyHeader": "Remote-User",
    },
    "metrics": {"textfile": "/run/m.prom"},
    "log": "INFO",
    "verify": {"key": ["/srv/k", "name+0+key"], "checkpoint": ["/srv/c"]},
    "backup": {
        "to": "/srv/backup",
        "recipient": f"age1{'q' * 58}",
        "volumes": ["all"],
        "keep": 3,
    },
}


def test_every_key_is_read_and_told_again() -> None:
    read = load_settings(yaml.safe_dump(WHOLE), "f")
    assert read.written == {key.name for key in KEYS}
    assert to_json(read.settings) == WHOLE
    assert read_settings(to_json(read.settings)).settings == read.settings
    assert {key.name for key in changed_keys(InstanceSettings(), read.settings)} == read.written


@pytest.mark.parametrize("text", ["", "# nothing\n", "git:\nship: {}\npolicy:\n"])
def test_a_key_without_a_value_has_its_default(text: str) -> None:
    assert load_settings(text, "f").settings == InstanceSettings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("polizy: home\n", "f:1: polizy is no setting (the keys are desiredState, engine, "),
        ("git:\n  hook: x\n", "f:2: git.hook is no setting (the keys are git.webhook)"),
        ("git: x\n", "f:1: git isn't a section with keys"),
        ("\npolicy: none\n", "f:2: policy has another form (write strict, "),
        ("policy: ./home.yaml\n", "f:1: policy has another form"),
        ("quarantine: 721h\n", "f:1: quarantine has another form"),
        ("quarantine: 24\n", "f:1: quarantine has another form"),
        ("engine: tcp://x\n", "f:1: engine has another form (write the path of a Unix socket"),
        (
            "ship:\n  to: a=file:///x\n",
            "f:2: ship.to has another form (write a list, each NAME=URL)",
        ),
        ("policy: home\npolicy: strict\n", 'f:2: key "policy" is repeated'),
        ("policy: [\n", "f:1: a list or mapping that begins before and is never closed"),
        ("- policy\n", "f:1: no keys and values"),
        ("policy: home\n---\npolicy: strict\n", "a second document"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_its_remedy(text: str, told: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(text, "f")
    assert caught.value.code == "settings.invalid"
    assert told in caught.value.message


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings("a: 1\nb: 2\n", "f")
    assert [line[:4] for line in caught.value.message.splitlines()] == ["f:1:", "f:2:"]


COMMENTED = """\
# mine
policy: home   # as at the other host
git:
  # webhook: later
ship:
    to: [a=file:///x]
"""


def test_a_value_goes_into_the_text_and_all_else_stays() -> None:
    values = choose(policy="/a b.yaml", webhook="1:2", quarantine_ms=86_400_000)
    assert with_values(COMMENTED, "f", {**values, "ship.metrics": "/m"}) == (
        '# mine\npolicy: "/a b.yaml"   # as at the other host\ngit:\n  webhook: 1:2\n'
        "  # webhook: later\nship:\n    metrics: /m\n    to: [a=file:///x]\nquarantine: 24h\n"
    )


@pytest.mark.parametrize("text", ["", "policy:\n", "policy: home", "git: {}\n", COMMENTED])
@pytest.mark.parametrize("word", ["null", "trimtab", "no"])
def test_what_was_written_is_read(text: str, word: str) -> None:
    values = choose(policy="strict", webhook="", controller_user=word)
    try:
        read = load_settings(with_values(text, "f", values), "f")
    except SettingsInvalid as error:
        assert (error.code, text) == ("settings.form", "git: {}\n")
        return
    assert {name: values_of(read.settings)[name] for name in values} == values


def test_a_text_in_brackets_is_left_to_its_author() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        with_values("{policy: home}", "f", {"quarantine": "1h"})
    assert caught.value.code == "settings.form"


def test_an_option_of_another_form_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match=r"users\.controller 'A B' has another form"):
        with_values("", "f", {"users.controller": "A B"})


def test_the_schema_has_every_key_and_no_other() -> None:
    import jsonschema

    schema = json_schema()
    jsonschema.validate(WHOLE, schema)
    for wrong in ({"more": 1}, {"git": {"more": 1}}, {"quarantine": 1}, {"ship": {"to": "a"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_the_packages_file_shows_every_key() -> None:
    text = TEMPLATE.read_text()
    assert load_settings(text, "f").settings == InstanceSettings(policy="/etc/trimtab/policy.yaml")
    shown = "\n".join(
        line.removeprefix("#") for line in text.splitlines() if not _PROSE.match(line)
    )
    whole = load_settings(shown, "f")
    assert whole.written == {key.name for key in KEYS}
