"""The cache of the broker's policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.engine.adapter import PolicyCache
from controller.model.names import NetworkNames


@dataclass(frozen=True)
class Parsed:
    digest: str
    networks: NetworkNames
    valid_until: float = math.inf


def parse(payload: Mapping[str, Any], now: float) -> Parsed:
    until = 10.0 if now < 10.0 else math.inf
    return Parsed(payload["digest"], NetworkNames(isolated=payload["isolated"]), until)


def test_a_policy_is_parsed_again_only_when_its_digest_changes() -> None:
    cache = PolicyCache(parse, lambda: 0.0)
    assert cache.networks() == NetworkNames()
    first = cache.update({"digest": "d1", "isolated": "one"})
    assert cache.update({"digest": "d1", "isolated": "ignored"}) is first
    assert cache.networks().isolated == "one"
    cache.update({"digest": "d2", "isolated": "two"})
    assert cache.networks().isolated == "two"


def test_a_policy_is_parsed_again_once_an_exception_of_it_has_ended() -> None:
    now = [0.0]
    cache = PolicyCache(parse, lambda: now[0])
    payload = {"digest": "d1", "isolated": "one"}
    first = cache.update(payload)
    now[0] = 9.0
    assert cache.update(payload) is first
    now[0] = 10.0
    assert cache.update(payload) is not first
