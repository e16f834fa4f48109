"""The errors of a worker: the code alone is the worker's, and each code of a source has words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import controller.core.secrets
from controller.broker.secrets.opener import WORDS, error_of

SOURCES = Path(controller.core.secrets.__file__).parent


def test_each_code_of_a_source_has_words() -> None:
    texts = (path.read_text() for path in SOURCES.glob("*.py"))
    codes = {code for text in texts for code in re.findall(r'"(secret\.[a-z-]+)"', text)}
    assert codes == WORDS.keys()


@pytest.mark.parametrize("code", ["policy.x", "secret.x", ["secret.bounds", "text"], 1, None, {}])
def test_another_code_is_none(code: object) -> None:
    assert error_of(code) is None


def test_words_are_the_brokers() -> None:
    error = error_of("secret.sops-mac")
    assert error is not None
    assert (error.code, error.message, error.remedy) == (
        "secret.sops-mac",
        *WORDS["secret.sops-mac"],
    )
