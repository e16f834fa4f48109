"""The content of a Config: its id, its bounds, and the mistakes in a document."""

from __future__ import annotations

import pytest

from controller.core.files import content
from controller.core.manifests.check_together import desired_of
from controller.model.delivery import FILE_BYTES_MAX, FILES_MAX


def test_the_id_depends_on_names_and_bytes_alone():
    one = content.content_id({"a": b"1", "b": b"2"})
    assert one == content.content_id({"b": b"2", "a": b"1"})
    assert content.is_content_id(one)
    others = [{"a": b"12"}, {"a": b"1", "c": b"2"}, {"a": b"2", "b": b"1"}, {}]
    assert one not in {content.content_id(files) for files in others}


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "g" * 64, "md5:" + "0" * 64])
def test_other_texts_are_no_ids(text):
    assert not content.is_content_id(text)


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({str(n): b"" for n in range(FILES_MAX + 1)}, ("", "1001 files: at most 1000")),
        ({"big": bytes(FILE_BYTES_MAX + 1)}, ("big", "1048577B is more than 1Mi")),
        ({"a/../b": b""}, ("a/../b", "not a relative path of at most 8 names")),
        ({"/a": b""}, ("/a", "not a relative path of at most 8 names")),
        ({"..data": b""}, ("..data", "not a relative path of at most 8 names")),
        ({"a": b"", "a/b": b""}, ("a", "a is a file and a folder at once")),
        (
            {f"f{n}": bytes(FILE_BYTES_MAX) for n in range(17)},
            ("", "17Mi in all is more than 16Mi"),
        ),
    ],
)
def test_each_bound_is_named(files, fault):
    assert fault in list(content.faults(files))


HEAD = "apiVersion: trimtab/v1\nkind: Config\nmetadata: {name: site, owner: team}\n"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("spec: {}", "4:7 config.empty"),
        ("spec: {data: {a: x}, files: {a: b}}", "4:33 config.twice"),
        ("spec: {files: {a: b}}", "4:15 config.unread"),
        ("spec: {data: {a: x, a/b: y}}", "4:18 config.too-large"),
        ("spec: {data: {../a: x}}", "4:21 "),
        ("spec: {data: {a: 1}}", "4:18 "),
    ],
)
def test_a_mistake_has_its_place_and_blinds_the_config_alone(spec, problem):
    desired = desired_of({"f.yaml": HEAD + spec + "\n"})
    texts = [f"{p.line}:{p.column} {p.code}" for p in desired.problems]
    assert any(text.startswith(problem) for text in texts), texts
    assert {str(key) for key in desired.blind_keys} == {"Config/default/site"}
    assert not desired.blind
    assert desired.configs == ()
