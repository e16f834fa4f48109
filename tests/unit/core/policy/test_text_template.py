"""A policy of ``policy init`` loads, has the given answers and explains its lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.policy.text import (
    ADDRESSES,
    Publish,
    TemplateAnswers,
    load_policy,
    policy_text,
)
from controller.model.errors import PolicyInvalid
from controller.model.policy.values import AnonymousVolumes
from tests.examples import examples

HOME = Path(__file__).parents[4] / "configs" / "policies" / "home.yaml"
TEMPLATE = HOME.read_text("utf-8")

LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
PREFIXES = st.builds(
    "{}/{}".format,
    st.sampled_from(
        ["docker.io", "ghcr.io", "localhost:5000", "registry.example.com", "10.0.0.1:5000"]
    ),
    st.from_regex(r"([a-z0-9]{1,8}/){0,2}", fullmatch=True),
)
OWNERS = st.dictionaries(
    LABELS.filter(lambda name: name != "operator"), st.lists(LABELS, max_size=3), max_size=3
)


@st.composite
def answers(draw: st.DrawFn) -> TemplateAnswers:
    owners = draw(OWNERS)
    names = st.sampled_from(sorted(owners)) if owners else LABELS.filter("operator".__ne__)
    clients = draw(st.dictionaries(st.integers(1, 70_000), names, max_size=3))
    publish: Publish = draw(st.sampled_from(sorted(ADDRESSES)))
    volumes: AnonymousVolumes = draw(st.sampled_from(["slot", "scratch", "refuse"]))
    return TemplateAnswers(
        name=draw(st.from_regex(r"[ -~]{1,20}", fullmatch=True)),
        images=tuple(draw(st.lists(PREFIXES, min_size=1, max_size=4, unique=True))),
        publish=publish,
        low_ports=tuple(draw(st.lists(st.integers(1, 1023), max_size=3, unique=True))),
        owners=tuple((name, tuple(spaces)) for name, spaces in owners.items()),
        clients=tuple(clients.items()),
        viewers=tuple(
            (uid, tuple(draw(st.lists(names, max_size=2, unique=True))))
            for uid in draw(st.sets(st.integers(70_001, 80_000), max_size=2))
        ),
        anonymous_volumes=volumes,
    )


@settings(max_examples=examples(20))
@given(answers())
def test_what_is_written_means_what_was_answered_and_else_what_home_says(
    asked: TemplateAnswers,
) -> None:
    written = load_policy(policy_text(TEMPLATE, asked, file="own.yaml"), "own.yaml")
    expected = load_policy(TEMPLATE, "home.yaml").to_json()
    expected["name"] = asked.name
    images, networks = expected["images"], expected["networks"]
    assert isinstance(images, dict)
    assert isinstance(networks, dict)
    images |= {"allow": list(asked.images), "anonymousVolumes": asked.anonymous_volumes}
    networks["ports"] |= {
        "hostIPs": list(ADDRESSES[asked.publish]),
        "minHost": 1024,
        "granted": list(asked.low_ports),
    }
    expected["owners"] = [
        {
            "name": name,
            "namespaces": list(spaces or ("default",)),
            "sources": [],
            "uids": [],
            "quota": None,
            "volumes": None,
            "networks": None,
            "ports": None,
        }
        for name, spaces in asked.owners
    ] or None
    expected["clients"] = [{"uid": uid, "owner": owner} for uid, owner in asked.clients]
    expected["viewers"] = [
        {"uid": uid, "owners": list(owners) or "all", "logs": "none"}
        for uid, owners in asked.viewers
    ]
    assert written.to_json() == expected


@settings(max_examples=examples(20))
@given(answers())
def test_every_comment_of_home_is_kept(asked: TemplateAnswers) -> None:
    text = policy_text(TEMPLATE, asked, file="own.yaml")
    body = TEMPLATE[TEMPLATE.index("\nname: ") :].splitlines()
    comments = [line.strip() for line in body if line.strip().startswith("#")]
    assert [line for line in comments if line not in text] == []
    assert "trimtab up DIR --policy own.yaml" in text


@pytest.mark.parametrize(
    "asked",
    [
        TemplateAnswers(images=("Docker.IO/",)),
        TemplateAnswers(owners=(("Not A Name", ()),)),
        TemplateAnswers(owners=(("me", ()),), clients=((1000, "you"),)),
        TemplateAnswers(clients=((0, "me"),)),
        TemplateAnswers(low_ports=(70_000,)),
        TemplateAnswers(name=""),
    ],
    ids=["prefix", "owner", "client of nobody", "root", "port", "name"],
)
def test_an_answer_that_no_policy_can_have_is_refused_at_its_line(asked: TemplateAnswers) -> None:
    with pytest.raises(PolicyInvalid) as raised:
        policy_text(TEMPLATE, asked, file="own.yaml")
    assert "own.yaml:" in str(raised.value)
