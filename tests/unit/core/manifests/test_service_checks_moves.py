"""``metadata.moved``: each wrong claim is a problem at its place, and the claimed containers stay."""

from __future__ import annotations

import pytest

from controller.core.manifests.check_together import desired_of
from controller.model.desired.desired import Desired
from controller.model.names import Key, service_key

API, WEB, SITE = (service_key("default", name) for name in ("api", "web", "site"))


def document(name: str, *moved: str, kind: str = "Service", namespace: str = "default") -> str:
    claims = "".join(f"\n    - {{from: {each}}}" for each in moved)
    claims = f"\n  moved:{claims}" if moved else ""
    spec = "spec: {image: 'a/b:1'}\n" if kind in ("Service", "Job") else ""
    return (
        f"apiVersion: trimtab/v1\nkind: {kind}\n"
        f"metadata:\n  name: {name}\n  namespace: {namespace}\n  owner: team{claims}\n{spec}"
    )


def desired(*documents: str) -> Desired:
    return desired_of({f"{n}.yaml": text for n, text in enumerate(documents)})


def told(found: Desired) -> list[str]:
    return [f"{p.file}:{p.line} {p.code}: {p.message}" for p in found.problems]


def test_earlier_names_are_keys_of_the_namespace() -> None:
    found = desired(document("web", "api", "default/old"))
    (service,) = found.services
    assert service.moved == (API, service_key("default", "old"))
    assert (found.problems, found.blind_keys) == ((), frozenset())


@pytest.mark.parametrize(
    ("documents", "problems"),
    [
        (
            [document("web", "web")],
            ["0.yaml:8 moved.self: Service/default/web is its own earlier name"],
        ),
        (
            [document("web", "api"), document("api")],
            ["0.yaml:8 moved.declared: Service/default/api is still declared in 1.yaml:1"],
        ),
        (
            [document("web", "api"), document("site", "api")],
            [
                "0.yaml:8 moved.claimed: Service/default/api is also claimed in 1.yaml:1",
                "1.yaml:8 moved.claimed: Service/default/api is also claimed in 0.yaml:1",
            ],
        ),
        (
            [document("web", "api"), document("api", "web")],
            [
                (
                    "0.yaml:8 moved.cycle: Service/default/web was Service/default/api, and "
                    "Service/default/api (1.yaml:1) was Service/default/web: a circle"
                ),
                (
                    "1.yaml:8 moved.cycle: Service/default/api was Service/default/web, and "
                    "Service/default/web (0.yaml:1) was Service/default/api: a circle"
                ),
            ],
        ),
        (
            [document("web", "api"), document("api", kind="Job")],
            [
                "0.yaml:8 moved.kind: Job/default/api (1.yaml:1) has this name, and a move keeps the kind"
            ],
        ),
        (
            [document("run", "api", kind="Job")],
            ["0.yaml:7 moved.kind: a Job can't be moved; metadata.moved is for kind Service"],
        ),
        (
            [document("data", "old", kind="Network")],
            ["0.yaml:7 moved.kind: a Network can't be moved; metadata.moved is for kind Service"],
        ),
        (
            [document("web", "'A b'")],
            ['0.yaml:8 moved.form: "A b" is no earlier name of a service'],
        ),
        (
            [document("web", "shop/web")],
            ["0.yaml:8 moved.namespace: a service can't leave its namespace shop"],
        ),
    ],
    ids=[
        "self",
        "declared",
        "claimed",
        "cycle",
        "job",
        "of-a-job",
        "of-a-network",
        "form",
        "another-namespace",
    ],
)
def test_a_wrong_claim_is_a_problem_at_its_place(documents: list[str], problems: list[str]) -> None:
    found = desired(*documents)
    assert told(found) == problems
    assert all(problem.remedy for problem in found.problems)


def test_a_longer_circle_is_found_too() -> None:
    found = desired(document("a", "b"), document("b", "c"), document("c", "a"))
    assert {problem.code for problem in found.problems} == {"moved.cycle"}


@pytest.mark.parametrize(
    "wrong",
    [
        document("web", "api", "web"),
        document("web", "api").replace("image: 'a/b:1'", "image: 7"),
        document("web", "api").replace("owner: team", "owner: [team]"),
        document("web", "api") + "bad: 1\n",
        document("web", "api", "shop/web"),
    ],
)
def test_containers_of_a_claimed_name_stay_while_the_claim_has_errors(wrong: str) -> None:
    assert desired(wrong, document("site")).blind_keys >= {API, WEB}


def test_two_claims_leave_the_claimed_service_as_it_is() -> None:
    found = desired(document("web", "api"), document("site", "api"))
    assert found.blind_keys == {API, WEB, SITE}


def test_a_wrong_claim_on_a_declared_service_leaves_that_service_alone() -> None:
    found = desired(document("web", "api"), document("api"))
    assert found.blind_keys == {WEB}
    assert [service.key for service in found.services] == [API]


def test_a_claim_is_no_part_of_a_revision() -> None:
    (with_claim,) = desired(document("web", "api")).services
    (without,) = desired(document("web")).services
    assert with_claim.revision == without.revision
    assert desired(document("web", "api")).digest == desired(document("web")).digest
    assert Key.parse(str(API)) == API
