"""The counted requests are those of one new service, the same in every run."""

from __future__ import annotations

from tools.suite.lines.requests import count_one_service


def test_one_service_is_created_and_started_once() -> None:
    counted = count_one_service()
    sent = [path.rpartition("/")[2] for method, path in counted.requests if method != "GET"]
    assert sent == ["create", "start"]
    assert counted.judgements > 0
    assert len(counted.requests) <= 12
    looks = [path for method, path in counted.requests if method == "GET"]
    assert set(looks) == {"/trimtab/v1/observe"}, "one look is one request"
    assert count_one_service() == counted


def test_the_image_of_a_running_container_is_not_read_again() -> None:
    images = [path for path in count_one_service().reads if path.startswith("/images/")]
    assert len(images) == 3, "by the look before the create, the create, and the look after it"
