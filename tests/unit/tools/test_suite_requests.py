"""The counted requests are those of one new service, the same in every run."""

from __future__ import annotations

from tools.suite.lines.requests import count_one_service


def test_one_service_is_created_and_started_once() -> None:
    requests, judged = count_one_service()
    sent = [path.rpartition("/")[2] for method, path in requests if method != "GET"]
    assert sent == ["create", "start"]
    assert judged > 0
    assert len(requests) <= 12
    looks = [path for method, path in requests if method == "GET"]
    assert set(looks) == {"/trimtab/v1/look"}, "one look is one request"
    assert count_one_service() == (requests, judged)
