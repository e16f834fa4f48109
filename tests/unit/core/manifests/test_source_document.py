"""A document of kind Source is read, and its mistakes are named at their places."""

import pytest

from controller.core.manifests.check_together import desired_of

SOURCE = """\
apiVersion: trimtab/v1
kind: Source
metadata: {name: NAME, owner: team}
spec:
  git: {url: 'https://example.org/deploy.git', path: prod}
  namespaces: [shop, blog]
"""


def source(name: str = "team", text: str = SOURCE, **changes: str) -> str:
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text.replace("NAME", name)


def problems(*texts: str) -> list[str]:
    found = desired_of({"f.yaml": "---\n".join(texts)}).problems
    return [f"{p.line}:{p.column} {p.code}: {p.message}; {p.remedy}" for p in found]


def test_a_source_is_no_service():
    desired = desired_of({"f.yaml": source()})
    (found,) = desired.sources
    assert (str(found.key), found.owner) == ("Source/default/team", "team")
    assert (found.spec.git.path, found.spec.namespaces) == ("prod", ("shop", "blog"))
    assert (desired.services, desired.problems, desired.blind) == ((), (), False)


NAMESPACE = "remove metadata.namespace; spec.namespaces lists what it may declare"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("path", "paht", '5:48 field.unknown: unknown key "paht" in spec.git; did you mean path?'),
        ("git:", "gti:", '5:3 field.unknown: unknown key "gti" in spec; did you mean git?'),
        ("blog", "Blog", '6:22 namespace.invalid: "Blog" is not a valid name; write blog'),
        (
            "blog",
            "shop",
            "6:22 source.duplicate: shop is listed twice in spec.namespaces; remove one of them",
        ),
        (
            "owner: team",
            "owner: team, namespace: shop",
            f"3:48 source.namespace: a Source belongs to no namespace; {NAMESPACE}",
        ),
        (
            "kind: Source",
            "kind: Sorce",
            '2:7 kind.unknown: kind "Sorce" is unknown; did you mean Source?',
        ),
    ],
)
def test_a_mistake_is_named_with_its_remedy(old: str, new: str, problem: str):
    assert problem in problems(source(**{old: new}))


def test_two_sources_of_one_namespace_are_both_wrong_unless_both_share():
    one, two = source("one"), source("two", **{"[shop, blog]": "[blog]"})
    assert [line.partition(";")[0] for line in problems(one, two)] == [
        "6:22 source.shared: Source two also lists namespace blog",
        "13:16 source.shared: Source one also lists namespace blog",
    ]
    assert desired_of({"f.yaml": f"{one}---\n{two}"}).sources == ()
    shared = [f"{text}  shared: true\n" for text in (one, two)]
    assert problems(*shared) == []
    assert len(problems(one, shared[1])) == 2


def test_a_broken_source_blinds_its_own_key_alone():
    desired = desired_of({"f.yaml": source(path="paht")})
    assert {str(key) for key in desired.blind_keys} == {"Source/default/team"}
    assert not desired.blind
