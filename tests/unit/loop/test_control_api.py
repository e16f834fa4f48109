"""Reviews and passes on request: made of the present files and the present containers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from controller import __version__
from controller.core.review.review_form import ReviewForm
from controller.loop.control_api import ControlApi
from controller.loop.control_socket import PassRequest, ReviewRequest
from controller.loop.workers.pass_lock import PassLock
from controller.model.errors import UsageError
from tests.unit.loop.toy import House
from tests.worlds import container, declared, engine, service

DIR = "/srv/desired"
PLAN = ReviewRequest(ReviewForm("plan", "json"), __version__, DIR)


def api_of(house: House) -> ControlApi:
    return ControlApi(
        house.operator, PassLock(paused=False), house.watch, threading.Event(), directory=DIR
    )


def effects(answer: dict[str, Any]) -> dict[str, str]:
    return {each["object"]: each["effect"] for each in answer["json"]["objects"]}


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    made.engine.world = engine(container())
    made.declare(service())
    made.settle()
    return made


def test_a_review_is_of_the_present_files_and_containers(house: House) -> None:
    api = api_of(house)
    assert effects(api.review(PLAN)) == {}
    house.files.desired = declared(service(), service("new"))  # and nobody noticed
    assert effects(api.review(PLAN)) == {"Service/default/new": "create"}
    house.engine.change("web.1-" + container().name.rpartition("-")[2], lambda _gone: None)
    assert effects(api.review(PLAN))["Service/default/web"] == "create"


def test_a_review_changes_nothing(house: House) -> None:
    house.files.desired = declared(service(), service("new"))
    api_of(house).review(PLAN)
    assert house.settle() == []


@pytest.mark.parametrize(
    "request_",
    [
        ReviewRequest(PLAN.form, "0.0.0", DIR),
        ReviewRequest(PLAN.form, __version__, "/srv/other"),
    ],
)
def test_a_review_is_only_for_the_same_version_and_directory(
    house: House, request_: ReviewRequest
) -> None:
    with pytest.raises(UsageError) as raised:
        api_of(house).review(request_)
    assert raised.value.code == "control.differs"


def test_a_pass_with_nothing_to_do_observes_once(house: House) -> None:
    before = house.engine.looks
    request = PassRequest(5.0, approve_prune=False, on_behalf_of="uid:0", key=None)
    answer = api_of(house).run_pass(request)
    assert (answer["converged"], answer["acts"]) == (True, [])
    assert house.engine.looks - before == 1
