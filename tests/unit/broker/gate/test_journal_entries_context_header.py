from __future__ import annotations

import base64
import json

import pytest

from controller.broker.gate.journal_entries import claims_of, identify_context
from controller.broker.gate.refusals import Denied
from controller.model.records import Actor, Context, Precondition, Request, Role

CONTROLLER = Actor(990, 990, 1, Role.CONTROLLER)
OPERATOR = Actor(0, 0, 1, Role.OPERATOR)
CLIENT = Actor(1000, 1000, 1, Role.CLIENT, owner="alice")
BOTH = Actor(1000, 1000, 1, Role.OPERATOR, separated=False)


def header(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def request(actor: Actor, *contexts: str) -> Request:
    headers = tuple(("trimtab-context", context) for context in contexts)
    return Request("GET", "/info", "", headers, b"", actor)


CLAIMS = {
    "cause": "slot 1 is empty",
    "source": {"file": "web.yaml", "line": 3, "commit": "abc"},
    "plan": "d1",
    "onBehalfOf": "uid 0",
}


def test_the_controller_is_who_says_what_for() -> None:
    context = Context("slot 1 is empty", "web.yaml", 3, "abc", "d1", "uid 0")
    assert identify_context(request(CONTROLLER, header(CLAIMS))) == (CONTROLLER, context)
    assert identify_context(request(CONTROLLER, header(CLAIMS).rstrip("="))) == (
        CONTROLLER,
        context,
    )
    assert identify_context(request(CONTROLLER, header({}))) == (CONTROLLER, Context())


def test_it_may_tell_the_lines_of_fields() -> None:
    source = {"file": "web.yaml", "lines": {"resources.memory": 12, "image": 7}}
    _, context = identify_context(request(CONTROLLER, header({"source": source})))
    assert context == Context(file="web.yaml", lines=(("image", 7), ("resources.memory", 12)))
    assert context is not None
    assert claims_of(context)["source"] == {"file": "web.yaml", "line": 0, "commit": "", **source}


def test_it_may_require_something() -> None:
    required = {"id": "c1", "revision": "v2:0", "absent": "web"}
    _, context = identify_context(request(CONTROLLER, header({"precondition": required})))
    assert context == Context(precondition=Precondition("web", "c1", "v2:0"))
    for wrong in ({"id": 1}, {"name": "web"}, ["c1"], "c1"):
        with pytest.raises(Denied) as denial:
            identify_context(request(CONTROLLER, header({"precondition": wrong})))
        assert denial.value.rule == "context.malformed"


def test_the_controllers_user_has_no_rights_without_a_context() -> None:
    with pytest.raises(Denied) as denial:
        identify_context(request(CONTROLLER))
    assert (denial.value.rule, denial.value.status) == ("role.denied", 403)


def test_a_context_header_gives_no_other_user_the_controllers_role() -> None:
    assert identify_context(request(OPERATOR, header(CLAIMS))) == (OPERATOR, None)
    assert identify_context(request(CLIENT, header(CLAIMS))) == (CLIENT, None)


def test_where_one_uid_is_both_the_context_tells_which() -> None:
    operator = Actor(1000, 1000, 1, Role.OPERATOR, separated=False)
    controller = Actor(1000, 1000, 1, Role.CONTROLLER, separated=False)
    assert identify_context(request(BOTH)) == (operator, None)
    assert identify_context(request(BOTH, header({}))) == (controller, Context())
    assert identify_context(request(controller)) == (operator, None)


@pytest.mark.parametrize(
    "value",
    [
        "!!!",
        "é",
        header([]),
        header({"role": "operator"}),
        header({"source": {"path": "x"}}),
        header({"source": {"line": -1}}),
        header({"source": {"line": "3"}}),
        header({"source": []}) + "x",
        header({"source": {"lines": [["image", 3]]}}),
        header({"source": {"lines": {"image": "3"}}}),
        header({"source": {"lines": {"image": True}}}),
        header({"source": {"lines": {"hunter 2": 3}}}),
        header({"source": {"lines": {"a.b.c": 3}}}),
        header({"source": {"lines": {chr(97 + n % 26) * (n // 26 + 1): 3 for n in range(33)}}}),
        header({"cause": 1}),
        header({"cause": "x" * 2049}),
        base64.urlsafe_b64encode(b'{"cause":"a","Cause":"b"}').decode(),
        header({"cause": "x" * 2000, "plan": "y" * 2000}),
    ],
)
def test_other_contexts_are_refused(value: str) -> None:
    with pytest.raises(Denied) as denial:
        identify_context(request(CONTROLLER, value))
    assert denial.value.rule == "context.malformed"


def test_two_contexts_are_refused() -> None:
    with pytest.raises(Denied):
        identify_context(request(CONTROLLER, header({}), header({})))
