from __future__ import annotations

import stat
from pathlib import Path

import pytest

from controller.model.errors import StateError, TrimtabError
from controller.web.server.tokens import (
    TOKENS_MAX,
    TokenFile,
    TokenScope,
    WebToken,
    digest_of,
    read_scope,
)


def token(name: str = "ann", scope: str = "view", secret: str = "s", expires: int = 10) -> WebToken:
    return WebToken(name, digest_of(secret), scope, expires)


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("view", TokenScope(has_view=True)),
        ("metrics", TokenScope(has_metrics=True)),
        ("view+logs:a,b", TokenScope(has_view=True, logs=frozenset({"a", "b"}))),
        *(
            (each, None)
            for each in ("", "all", "view+logs:", "view+logs:a,", "view+logs:A", "logs:a")
        ),
    ],
)
def test_a_scope_is_one_of_three(text: str, scope: TokenScope | None) -> None:
    if scope is not None:
        assert read_scope(text) == scope
        return
    with pytest.raises(TrimtabError) as raised:
        read_scope(text)
    assert raised.value.code == "web.scope"


def test_a_file_keeps_digests_alone_and_is_read_again_once_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "web" / "tokens.json"
    reader, writer = TokenFile(path), TokenFile(path)
    assert reader.tokens() == ()
    writer.add(token(secret="opensesame"))
    assert "opensesame" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    found = reader.find(digest_of("opensesame"), 9.9)
    assert found is not None and found.name == "ann"
    assert reader.find(digest_of("opensesame"), 10.0) is None, "it has expired"
    assert reader.find("opensesame", 0.0) is None
    writer.revoke("ann")
    assert reader.find(digest_of("opensesame"), 0.0) is None


@pytest.mark.parametrize("name", ["ann", "", "Ann", "a b", "-a", "a" * 64, "a\n"])
def test_a_name_is_plain_and_stands_once(tmp_path: Path, name: str) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    file.add(token())
    with pytest.raises(TrimtabError) as raised:
        file.add(token(name))
    assert raised.value.code == "web.name"
    with pytest.raises(TrimtabError):
        file.revoke("bob")
    assert file.tokens() == (token(),)


def test_tokens_are_bounded(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    for number in range(TOKENS_MAX):
        file.add(token(f"t{number}"))
    with pytest.raises(StateError) as raised:
        file.add(token("further"))
    assert raised.value.code == "web.tokens-full"


def test_a_damaged_file_is_an_error_and_no_empty_list(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text("[]")
    with pytest.raises(StateError) as raised:
        TokenFile(path).tokens()
    assert raised.value.code == "web.tokens"
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError):
        TokenFile(tmp_path / "file" / "tokens.json").add(token())
