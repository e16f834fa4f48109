"""Documents that sops encrypted, and documents that somebody changed."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from controller.core.secrets.formats import SopsForm, form_of
from controller.core.secrets.sops import Identities, contents_of, open_document
from controller.model.errors import SecretError
from tests.examples import examples
from tests.unit.core.secrets.oracle import Keys, encrypt

KEYS = Keys()
PLAIN = """\
# a comment
db:
    password: "geheim äöü"   # at the end of a line
    port: 5432
    ratio: 1.50
    on: true
    when: 2024-01-02
    empty: ""
    pem: |
        line1
        line2
open_unencrypted:
    octal: 0755
    other: 0o17
    grouped: 1_000
    time: 2024-01-02T03:04:05.120+02:00
    day: 2024-1-2
    float: 1e3
    small: 1.5e-7
    huge: 1e+21
    hex: 0xff
    eight: "08"
    zero_eight: 08
    nothing: null
    infinite: .inf
    yes: yes
"""


def read(
    source: bytes, name: str = "db.yaml", keys: Identities = KEYS.identities
) -> dict[str, bytes]:
    form = form_of(name)
    return contents_of(open_document(source, form, keys), form, name)


def refusal(
    source: bytes, name: str = "db.yaml", keys: Identities = KEYS.identities
) -> SecretError:
    with pytest.raises(SecretError) as caught:
        read(source, name, keys)
    assert caught.value.remedy, "an error says what to do next"
    return caught.value


def test_yaml_is_read_with_types_and_comments() -> None:
    source = encrypt("db.yaml", PLAIN.encode(), KEYS)
    document = open_document(source, SopsForm.YAML, KEYS.identities)
    values = {value.leaf.place: value.opened.content for value in document.values}
    assert {place.removeprefix("db."): values[place] for place in values if place[:2] == "db"} == {
        "password": "geheim äöü".encode(),
        "port": b"5432",
        "ratio": b"1.5",
        "on": b"true",
        "when": b"2024-01-02T00:00:00Z",
        "empty": b"",
        "pem": b"line1\nline2\n",
    }


RULES = {
    "mac_only_encrypted": "    mac_only_encrypted: true\n    encrypted_regex: ^(password|pem)$\n",
    "encrypted_regex": "    encrypted_regex: ^(password|pem)$\n",
    "unencrypted_regex": "    unencrypted_regex: ^(port|open_)\n",
    "encrypted_suffix": "    encrypted_suffix: word\n",
    "unencrypted_suffix": "    unencrypted_suffix: port\n",
    "encrypted_comment_regex": "    encrypted_comment_regex: at the end\n",
    "unencrypted_comment_regex": "    unencrypted_comment_regex: at the end\n",
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_for_what_is_encrypted_is_followed(rule: str) -> None:
    source = encrypt("db.yaml", PLAIN.encode(), KEYS, rules=RULES[rule])
    document = open_document(source, SopsForm.YAML, KEYS.identities)
    values = {value.leaf.place: value for value in document.values}
    assert values["db.password"].opened.content == "geheim äöü".encode()
    assert values["db.password"].encrypted is (rule != "unencrypted_comment_regex")
    assert f"{rule}:" in source.decode()


def test_nested_keys_are_folders() -> None:
    source = encrypt("db.json", b'{"db": {"user": "a", "n": 12345678901}, "t": true}', KEYS)
    assert read(source, "db.json") == {"db/user": b"a", "db/n": b"12345678901", "t": b"true"}


def test_dotenv_is_read() -> None:
    source = encrypt("db.env", b"A=b\n# comment\nMULTI=a\\nb\nE=\nX_unencrypted=1\n", KEYS)
    assert read(source, "db.env") == {
        "A": b"b",
        "MULTI": b"a\nb",
        "E": b"",
        "X_unencrypted": b"1",
    }


def test_a_binary_file_is_one_key_with_its_name() -> None:
    data = bytes(range(256)) * 3
    assert read(encrypt("tls.p12", data, KEYS), "tls.p12") == {"tls.p12": data}


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)
KEY = st.from_regex(r"[a-z][a-z0-9_-]{0,12}", fullmatch=True).filter(lambda key: key != "sops")
SCALAR = TEXT | st.integers(-(2**53), 2**53) | st.booleans() | st.floats(-1e6, 1e6)
TREE = st.dictionaries(KEY, SCALAR | st.dictionaries(KEY, SCALAR, min_size=1), min_size=1)


def text_of(value: object) -> bytes:
    match value:
        case bool():
            return str(value).lower().encode()
        case float():
            text = format(value, "f") if value == int(value) else repr(value)
            return re.sub(r"\.0+\Z", "", text).encode()
        case _:
            return str(value).encode()


@given(tree=TREE)
# No shrinking: each example starts a program.
@settings(max_examples=examples(6), phases=[Phase.generate])
def test_any_tree_that_sops_encrypts_is_read(tree: dict[str, object]) -> None:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat |= (
            {f"{key}/{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        )
    plain = json.dumps(tree, ensure_ascii=False).encode()
    for name in ("t.json", "t.yaml"):  # JSON is YAML too
        found = read(encrypt(name, plain, KEYS), name)
        exact = {k: text_of(v) for k, v in flat.items() if not isinstance(v, float)}
        assert {key: found[key] for key in exact} == exact
        assert [float(found[k]) for k, v in flat.items() if isinstance(v, float)] == [
            v for v in flat.values() if isinstance(v, float)
        ]


@given(data=st.binary(min_size=1, max_size=4096))
@settings(max_examples=examples(4), phases=[Phase.generate])
def test_any_binary_file_that_sops_encrypts_is_read(data: bytes) -> None:
    assert read(encrypt("blob", data, KEYS), "blob") == {"blob": data}


# --- changed and foreign documents

SOURCE = encrypt("db.yaml", b"a: one\nb: two\nc: {d: three}\nopen_unencrypted: x\n", KEYS)


def swapped(source: bytes, first: str, second: str) -> bytes:
    lines = source.decode().split("\n")
    at = {line.split(":")[0].strip(): number for number, line in enumerate(lines)}
    one, two = lines[at[first]], lines[at[second]]
    lines[at[first]] = one.split(": ")[0] + ": " + two.split(": ", 1)[1]
    lines[at[second]] = two.split(": ")[0] + ": " + one.split(": ", 1)[1]
    return "\n".join(lines).encode()


def without_line(source: bytes, start: str) -> bytes:
    lines = [line for line in source.decode().split("\n") if not line.startswith(start)]
    return "\n".join(lines).encode()


def test_values_that_change_places_are_refused() -> None:
    error = refusal(swapped(SOURCE, "a", "b"))
    assert error.code == "secret.sops-tampered"
    assert "the value of a " in error.message


@pytest.mark.parametrize(
    "changed",
    [
        SOURCE.replace(b"open_unencrypted: x", b"open_unencrypted: y"),
        SOURCE.replace(b"open_unencrypted: x", b"open_unencrypted: x\nmore_unencrypted: z"),
        without_line(SOURCE, "b:"),
        without_line(SOURCE, "open_"),
    ],
    ids=["plain value changed", "plain value added", "value removed", "plain value removed"],
)
def test_a_document_changed_by_hand_fails_its_mac(changed: bytes) -> None:
    assert changed != SOURCE
    assert refusal(changed).code == "secret.sops-mac"


def test_a_mac_of_another_time_is_refused() -> None:
    changed = re.sub(rb'lastmodified: "\d{4}', b'lastmodified: "1999', SOURCE)
    assert refusal(changed).code == "secret.sops-tampered"


def test_another_documents_mac_is_refused() -> None:
    other = encrypt("db.yaml", b"a: one\n", KEYS)
    mac = re.search(rb"mac: .*", other)
    assert mac is not None
    assert refusal(re.sub(rb"mac: .*", mac.group(), SOURCE)).code == "secret.sops-tampered"


def test_a_mac_over_all_is_none_over_encrypted_values() -> None:
    changed = SOURCE.replace(b"    version:", b"    mac_only_encrypted: true\n    version:")
    assert refusal(changed).code == "secret.sops-mac"


def test_a_value_in_plain_text_is_refused_where_the_rule_wants_ciphertext() -> None:
    assert refusal(re.sub(rb"a: ENC.*", b"a: plain", SOURCE)).code == "secret.sops-invalid"


def test_the_wrong_key_is_named() -> None:
    other = Keys()
    error = refusal(SOURCE, keys=other.identities)
    assert error.code == "secret.wrong-key"
    assert other.recipient in error.message
    assert KEYS.recipient in error.message
    assert KEYS.private not in error.message + error.remedy


def test_a_mislabelled_recipient_is_tried_too() -> None:
    changed = SOURCE.replace(KEYS.recipient.encode(), Keys().recipient.encode())
    assert read(changed)["a"] == b"one"


def test_a_file_for_other_kinds_of_keys_is_named() -> None:
    changed = re.sub(
        rb"    age:\n(        .*\n)+", b"    pgp:\n        - fp: AB\n          enc: x\n", SOURCE
    )
    error = refusal(changed)
    assert error.code == "secret.no-recipient"
    assert "PGP" in error.message


def test_a_broken_data_key_is_refused() -> None:
    changed = re.sub(rb"(BEGIN AGE ENCRYPTED FILE-----\n +)....", rb"\1AAAA", SOURCE)
    assert refusal(changed).code == "secret.age-invalid"


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("a.yaml", "a: b\n", "secret.sops-invalid"),
        ("a.yaml", "a: [\n", "secret.sops-invalid"),
        ("a.yaml", "- a\n", "secret.sops-invalid"),
        ("a.yaml", "", "secret.sops-invalid"),
        ("a.yaml", "a: 1\na: 2\n", "secret.sops-invalid"),
        ("a.yaml", "5: 1\n", "secret.sops-invalid"),
        ("a.yaml", "a: &x 1\n", "secret.sops-unsupported"),
        ("a.yaml", "a: !!binary aGk=\n", "secret.sops-unsupported"),
        ("a.yaml", "a: 1\n---\nb: 1\n", "secret.sops-unsupported"),
        ("a.yaml", "a: " + "[" * 40 + "]" * 40, "secret.sops-unsupported"),
        ("a.yaml", "sops: 5\n", "secret.sops-invalid"),
        ("a.yaml", "sops: {mac: x}\n", "secret.sops-invalid"),
        ("a.yaml", 'sops: {mac: x, lastmodified: "2024-01-01T00:00:00Z"}\n', "secret.no-recipient"),
        ("a.json", '{"a": 1, "a": 2}', "secret.sops-invalid"),
        ("a.json", '{"a": NaN}', "secret.sops-invalid"),
        ("a.json", "[1]", "secret.sops-invalid"),
        ("a.json", "[" * 100_000, "secret.sops-unsupported"),
        ("a.env", "no equals sign", "secret.sops-invalid"),
        ("a.ini", "[a]", "secret.sops-unsupported"),
        ("a.bin", "\0\1", "secret.sops-invalid"),
        ("a.yaml", "a" * (2 * 1024 * 1024 + 1), "secret.sops-unsupported"),
    ],
)
def test_a_file_that_is_no_sops_document_is_refused(name: str, text: str, code: str) -> None:
    assert refusal(text.encode(), name).code == code


def test_a_list_is_refused_with_the_way_out() -> None:
    source = encrypt("db.yaml", b"a: [x, y]\n", KEYS)
    error = refusal(source)
    assert error.code == "secret.sops-unsupported"
    assert "binary" in error.remedy


def test_key_groups_with_a_threshold_are_refused() -> None:
    groups = f"    shamir_threshold: 2\n    key_groups:\n    - age: [{KEYS.recipient}]\n"
    both = groups + f"    - age: [{Keys().recipient}]\n"
    source = encrypt("db.yaml", b"a: one\n", KEYS, rules=both)
    assert refusal(source).code == "secret.sops-unsupported"


@given(place=st.integers(0, len(SOURCE) - 1), byte=st.integers(0, 255))
@settings(max_examples=examples(40))
def test_a_changed_byte_never_gives_other_content(place: int, byte: int) -> None:
    changed = SOURCE[:place] + bytes([byte]) + SOURCE[place + 1 :]
    try:
        found = read(changed)
    except SecretError:
        return
    assert list(found.values()) == list(read(SOURCE).values())


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=examples(40))
def test_any_bytes_are_refused_with_an_error_of_trimtab(data: bytes) -> None:
    for name in ("a.yaml", "a.json", "a.env", "a.bin"):
        refusal(data, name)
