"""The cache of the broker's policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.engine.policy_cache import PolicyCache
from controller.model.names import NetworkNames


@dataclass(frozen=True)
class Parsed:
    digest: str
    networks: NetworkNames


def parse(payload: Mapping[str, Any]) -> Parsed:
    return Parsed(payload["digest"], NetworkNames(isolated=payload["isolated"]))


def test_a_policy_is_parsed_again_only_when_its_digest_changes() -> None:
    cache = PolicyCache(parse)
    assert cache.networks() == NetworkNames()
    first = cache.update({"digest": "d1", "isolated": "one"})
    assert cache.update({"digest": "d1", "isolated": "ignored"}) is first
    assert cache.networks().isolated == "one"
    cache.update({"digest": "d2", "isolated": "two"})
    assert cache.networks().isolated == "two"
