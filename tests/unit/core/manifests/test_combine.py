"""DIR and its sources: what each may declare, and which source a resource belongs to."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.manifests.check_together import desired_from
from controller.core.manifests.combine import SourceReading, combine, held_claims
from controller.core.manifests.declaration import FolderReading, ParsedDocument
from controller.core.manifests.parse import read_text
from controller.model.desired.desired import Declared, Desired, SourceIdentity
from controller.model.errors import Problem
from controller.model.names import Key, service_key

WEB = service_key("shop", "web")
BAD = "apiVersion: trimtab/v1\nkind: [\n"


def document(
    name: str, *, kind: str = "Service", namespace: str = "shop", owner: str = "team"
) -> str:
    metadata = {"name": name, "namespace": namespace, "owner": owner}
    spec = {"image": "team/x:1"} if kind == "Service" else {}
    return json.dumps(
        {"apiVersion": "trimtab/v1", "kind": kind, "metadata": metadata, "spec": spec}
    )


def claim(name: str, earlier: str) -> str:
    """Return a document of a service that had another name."""
    whole = json.loads(document(name))
    whole["metadata"]["moved"] = [{"from": earlier}]
    return json.dumps(whole)


def source(name: str, *namespaces: str, **more: object) -> str:
    spec = {"git": {"url": "https://example.org/x.git"}, "namespaces": namespaces, **more}
    metadata = {"name": name, "owner": "team"}
    return json.dumps(
        {"apiVersion": "trimtab/v1", "kind": "Source", "metadata": metadata, "spec": spec}
    )


def reading(*texts: str, name: str = "", absent: bool = False) -> FolderReading:
    prefix = f"{name}:" if name else ""
    documents = tuple(
        parsed
        for number, text in enumerate(texts)
        for parsed in read_text(text, f"{prefix}{number}.yaml")
    )
    count = sum(parsed.declaration is not None for parsed in documents)
    problems = (Problem("source.pending", "no commit"),) if absent else ()
    identity = SourceIdentity(name or "dir", not absent, 0 if absent else 7, count)
    return FolderReading(documents, identity, problems, absent=absent)


def combined(
    own: tuple[str, ...],
    serving: Mapping[Key, str] | None = None,
    **sources: tuple[str, ...] | None,
) -> Desired:
    """Combine DIR with sources; None for a source without a commit."""
    directory = reading(*own)
    readings = [
        SourceReading(
            each,
            reading(*(sources.get(each.key.name) or ()), name=each.key.name,
                    absent=sources.get(each.key.name) is None),
        )
        for each in desired_from(directory).sources
    ]  # fmt: skip
    return combine(directory, readings, serving or {})


def declared(desired: Desired) -> list[str]:
    return [f"{one.key.namespace}/{one.key.name} {one.source.file}" for one in desired.services]


def problems(desired: Desired) -> list[str]:
    return [f"{p.file} {p.field} {p.code} {p.key}" for p in desired.problems]


def test_a_source_declares_what_its_namespaces_permit():
    desired = combined((source("team", "shop"), document("own")), team=(document("web"),))
    assert declared(desired) == ["shop/own 1.yaml", "shop/web team:0.yaml"]
    assert (desired.problems, desired.whole) == ((), True)
    assert [(s.name, sorted(k.name for k in s.keys)) for s in desired.scopes] == [
        ("", ["own"]),
        ("team", ["web"]),
    ]


@pytest.mark.parametrize(
    ("text", "field", "code"),
    [
        (document("web", namespace="bank"), "metadata.namespace", "source.foreign"),
        (document("web", owner="bank"), "metadata.owner", "source.foreign"),
        (source("inner", "bank"), "kind", "source.nested"),
    ],
)
def test_a_foreign_declaration_is_a_problem_of_its_source_alone(text: str, field: str, code: str):
    own = source("team", "shop", owners=["team"])
    desired = combined((own,), team=(text, document("good")))
    assert declared(desired) == ["shop/good team:1.yaml"]
    assert problems(desired) == [f"team:0.yaml {field} {code} Source/default/team"]
    assert not desired.blind
    assert [s.key.name for s in desired.sources] == ["team"]


def test_a_claim_keeps_containers_of_the_namespaces_that_the_source_lists_alone():
    desired = combined((source("team", "shop"),), team=(claim("web", "bank/web"),))
    assert problems(desired) == [
        "team:0.yaml metadata.moved[0].from moved.namespace Service/shop/web"
    ]
    assert service_key("bank", "web") not in desired.blind_keys
    listed = combined((source("team", "shop", "bank"),), team=(claim("web", "bank/web"),))
    assert service_key("bank", "web") in listed.blind_keys


def test_a_foreign_declaration_disturbs_no_resource_of_another():
    bank = document("web", namespace="bank")
    desired = combined((source("team", "shop"), bank), team=(bank, document("good")))
    assert declared(desired) == ["bank/web 1.yaml", "shop/good team:1.yaml"]
    assert desired.blind_keys == frozenset()


def test_a_foreign_resource_that_nobody_else_declares_is_left_as_it_is():
    desired = combined((source("team", "shop"),), team=(document("web", namespace="bank"),))
    assert desired.blind_keys == {service_key("bank", "web")}
    known = {service_key("bank", "web"): ""}
    desired = combined((source("team", "shop"),), known, team=(document("web", namespace="bank"),))
    assert desired.blind_keys == frozenset(), "DIR had it: its removal is DIR's alone"


def test_a_broken_document_of_a_foreign_resource_blinds_nothing():
    broken = document("web", namespace="bank").replace("image", "imgae")
    desired = combined((source("team", "shop"),), team=(broken, document("good")))
    assert (desired.blind, desired.blind_keys) == (False, frozenset())
    assert {p.key for p in desired.problems} == {Key("Source", "default", "team")}


SHARED = (source("one", "shop", shared=True), source("two", "shop", shared=True))


@pytest.mark.parametrize("holder", ["one", "two"])
def test_a_resource_stays_with_the_source_that_serves_it(holder: str):
    newcomer = "two" if holder == "one" else "one"
    web = (document("web"),)
    desired = combined(SHARED, {WEB: holder}, one=web, two=web)
    assert declared(desired) == [f"shop/web {holder}:0.yaml"]
    assert problems(desired) == [
        f"{newcomer}:0.yaml metadata.name source.conflict Source/default/{newcomer}"
    ]
    assert (desired.blind, desired.blind_keys) == (False, frozenset())


def test_two_newcomers_of_one_resource_stand_back():
    web = (document("web"),)
    desired = combined(SHARED, one=web, two=web)
    assert declared(desired) == []
    assert desired.blind_keys == {WEB}


def test_of_newcomers_the_directory_comes_first():
    desired = combined((source("team", "shop"), document("web")), team=(document("web"),))
    assert declared(desired) == ["shop/web 1.yaml"]
    desired = combined(
        (source("team", "shop"), document("web")), {WEB: "team"}, team=(document("web"),)
    )
    assert declared(desired) == ["shop/web team:0.yaml"]
    assert problems(desired) == ["1.yaml metadata.name source.conflict None"]


def publishing(name: str, namespace: str) -> str:
    document_ = json.loads(document(name, namespace=namespace))
    document_["spec"]["ports"] = [{"container": 80, "host": 8080}]
    return json.dumps(document_)


def test_a_newcomer_takes_no_host_port_from_a_service_of_another_source():
    own = (source("one", "shop"), source("two", "bank"))
    one, two = (
        (publishing("web", "shop"),),
        (publishing("thief", "bank"), document("x", namespace="bank")),
    )
    desired = combined(own, {WEB: "one"}, one=one, two=two)
    assert declared(desired) == ["bank/x two:1.yaml", "shop/web one:0.yaml"]
    assert problems(desired) == ["two:0.yaml spec.ports[0].host source.conflict Source/default/two"]
    assert desired.blind_keys == {service_key("bank", "thief")}


@pytest.mark.parametrize("holder", ["one", "two"])
def test_a_known_service_takes_no_host_port_that_another_source_has(holder: str):
    texts = {"one": publishing("web", "shop"), "two": publishing("thief", "bank")}
    keys = {"one": WEB, "two": service_key("bank", "thief")}
    directory = reading(source("one", "shop"), source("two", "bank"))
    readings = [
        SourceReading(each, reading(texts[each.key.name], name=each.key.name))
        for each in desired_from(directory).sources
    ]
    alone = [each for each in readings if each.name == holder]
    serving = {key: name for name, key in keys.items()}
    held = held_claims(combine(directory, alone, serving))
    desired = combine(directory, readings, serving, held=held)
    newcomer = "two" if holder == "one" else "one"
    assert [service.key for service in desired.services] == [keys[holder]]
    assert desired.blind_keys == {keys[newcomer]}
    assert problems(desired) == [
        f"{newcomer}:0.yaml spec.ports[0].host source.conflict Source/default/{newcomer}"
    ]


def with_volume(name: str) -> str:
    mounted = json.loads(document(name))
    mounted["spec"]["mounts"] = [{"type": "volume", "source": "data", "target": "/data"}]
    return json.dumps(mounted)


def test_a_newcomer_takes_no_exclusive_volume_from_a_service_of_another_source():
    volume, known = document("data", kind="Volume"), {service_key("shop", "db"): "one"}
    desired = combined(SHARED, known, one=(with_volume("db"), volume), two=(with_volume("web"),))
    assert declared(desired) == ["shop/db one:0.yaml"]
    assert problems(desired) == ["two:0.yaml spec.mounts[0] source.conflict Source/default/two"]
    assert desired.blind_keys == {service_key("shop", "web")}


def test_of_two_new_services_with_one_host_port_both_stand_back():
    own = (source("one", "shop"), source("two", "bank"))
    one, two = (publishing("web", "shop"),), (publishing("thief", "bank"),)
    assert declared(combined(own, one=one, two=two)) == []


def unread(namespace: str, name: str) -> FolderReading:
    """Return the reading of a source with a Compose project that can't be read."""
    problem = Problem("yaml.syntax", "mistake", f"{name}:c/compose.yaml", 1)
    made = ParsedDocument(None, (problem,), None, namespace=namespace)
    return replace(reading(name=name), documents=(made,))


def test_a_project_that_cannot_be_read_blinds_its_namespace_of_its_source_alone():
    (team,) = desired_from(reading(source("team", "shop", "blog"))).sources
    (other,) = desired_from(reading(source("other", "shop"))).sources
    api, post = service_key("shop", "api"), service_key("blog", "post")
    serving = {WEB: "team", api: "other", post: "team"}
    sources = [
        SourceReading(team, unread("shop", "team")),
        SourceReading(other, reading(document("web"), name="other")),
    ]
    desired = combine(reading(source("team", "shop", "blog")), sources, serving)
    blind = [key for key in (WEB, api, post) if desired.is_blind_for(key)]
    assert (blind, desired.blind) == ([WEB], False)
    # Until it can be read, its resources are nobody else's.
    assert [p.code for p in desired.problems] == ["source.conflict", "yaml.syntax"]


def test_a_project_of_a_foreign_namespace_blinds_nothing():
    (team,) = desired_from(reading(source("team", "shop"))).sources
    desired = combine(reading(), [SourceReading(team, unread("blog", "team"))], {})
    assert not desired.blind
    assert desired.blind_namespaces == frozenset()
    assert [(p.code, p.key) for p in desired.problems] == [("yaml.syntax", team.key)]


def test_nothing_is_taken_over_from_a_source_that_cannot_be_read():
    web = (document("web"),)
    desired = combined(SHARED, {WEB: "one"}, one=None, two=web)
    assert declared(desired) == []
    assert desired.is_blind_for(WEB)
    desired = combined(SHARED, {WEB: "one"}, one=(document("other"),), two=web)
    assert declared(desired) == ["shop/other one:0.yaml", "shop/web two:0.yaml"]


def test_a_source_without_files_is_blind_for_its_namespaces_and_known_resources():
    old = service_key("old", "was")
    desired = combined((source("team", "shop"),), {old: "team"}, team=None)
    assert desired.is_blind_for(WEB)
    assert desired.is_blind_for(old)
    assert not desired.is_blind_for(service_key("bank", "web"))


def test_a_bad_document_of_a_source_blinds_the_source_alone():
    own = (source("team", "shop"), document("own", namespace="default"))
    desired = combined(own, team=(BAD, document("web")))
    assert declared(desired) == ["default/own 1.yaml", "shop/web team:1.yaml"]
    assert desired.is_blind_for(service_key("shop", "x"))
    assert not desired.is_blind_for(service_key("default", "x"))


def test_a_removed_source_keeps_its_resources_in_memory():
    desired = combined((document("own"),), {WEB: "team", service_key("shop", "own"): ""})
    scope = desired.scopes[-1]
    assert (scope.name, scope.declared) == ("team", Declared.REMOVED)
    assert scope.keys == {WEB}
    assert not desired.is_blind_for(WEB)
    blind = combined((BAD,), {WEB: "team"})
    assert blind.is_blind_for(WEB), "the bad document can be that of the Source"


def test_a_broken_source_document_makes_its_resources_blind():
    broken = source("team", "shop").replace("namespaces", "namespace")
    desired = combined((broken,), {WEB: "team"})
    assert desired.scopes[-1].declared is Declared.BROKEN
    assert desired.is_blind_for(WEB)
    assert desired.is_blind_for(service_key("any", "thing")), "it can list any namespace"


names = st.sampled_from(["a", "b", "c"])
namespaces = st.sampled_from(["shop", "blog", "bank"])
texts = st.lists(
    st.one_of(
        st.builds(lambda n, s: document(n, namespace=s), names, namespaces),
        st.just(BAD),
        st.builds(lambda n, s: document(n, namespace=s).replace("image", "i"), names, namespaces),
    ),
    max_size=4,
).map(tuple)
OWN = (source("one", "shop", "blog", shared=True), source("two", "blog", shared=True))
LISTED = {"": {"shop", "blog", "bank"}, "one": {"shop", "blog"}, "two": {"blog"}}


@given(
    own=texts,
    one=st.none() | texts,
    two=st.none() | texts,
    serving=st.dictionaries(
        st.builds(service_key, namespaces, names), st.sampled_from(["", "one", "two", "gone"])
    ),
)
def test_no_source_declares_or_disturbs_what_is_not_its_own(own, one, two, serving):
    desired = combined((*OWN, *own), serving, one=one, two=two)
    for service in desired.services:
        origin = service.source.file.rpartition(":")[0]
        assert service.key.namespace in LISTED[origin]
        (scope,) = [scope for scope in desired.scopes if service.key in scope.keys]
        assert scope.name == origin, "each resource belongs to one source"
    # What a source has changes nothing in the namespaces that it doesn't list.
    without = combined((*OWN, *own), serving, one=one, two=())
    for namespace in ("shop", "bank"):
        assert _in(desired, namespace) == _in(without, namespace)
        if not any(key.namespace == namespace and name == "two" for key, name in serving.items()):
            asked = [service_key(namespace, name) for name in ("a", "b", "c", "unknown")]
            assert [desired.is_blind_for(k) for k in asked if k not in desired.blind_keys] == [
                without.is_blind_for(k) for k in asked if k not in desired.blind_keys
            ]


def _in(desired: Desired, namespace: str) -> list[str]:
    return [line for line in declared(desired) if line.startswith(f"{namespace}/")]


@given(own=texts, one=texts, serving=st.dictionaries(
    st.builds(service_key, namespaces, names), st.sampled_from(["", "one", "two", "gone"])
))  # fmt: skip
def test_a_lost_source_is_never_taken_for_an_empty_one(own, one, serving):
    desired = combined((*OWN, *own), serving, one=None, two=())
    for key, name in serving.items():
        if name == "one" and desired.service(key) is None:
            assert desired.is_blind_for(key)
    assert not desired.whole
