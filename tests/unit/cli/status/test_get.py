"""``get``: what a user of kubectl types, and the objects in the shape of documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from controller.cli.main import main
from controller.cli.status.get import WantedResources, object_of, read_output
from controller.core.manifests.parse import KINDS as DECLARED
from controller.model.names import KINDS
from controller.settings import Instance, StateFolder, state_of, write_instance
from tests.unit.cli.reports import problem, report, resource
from tests.unit.cli.status.test_sources import SOURCE
from tests.unit.cli.status.test_status import answering

WEB = resource("web", generation=3)
ROWS: Any = report(
    WEB,
    resource("api", namespace="shop"),
    resource("web", namespace="shop", kind="Job"),
    problems=[problem("a mistake")],
) | {"sources": [SOURCE]}
Get = Callable[..., tuple[int, str, str]]


@pytest.fixture
def get(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Get:
    (tmp_path / "run").mkdir()
    instance = Instance("1" * 8, "/srv/desired", run=str(tmp_path / "run"))
    write_instance(tmp_path, instance)
    state: StateFolder = state_of(tmp_path, instance)

    def run(*words: str) -> tuple[int, str, str]:
        with answering(state, ROWS), pytest.raises(SystemExit) as ended:
            main(["get", *words, "--state", str(state.root)])
        state.controller_socket.unlink()
        assert isinstance(ended.value.code, int)
        return (ended.value.code, *capsys.readouterr())

    return run


def test_every_kind_of_document_can_be_asked_for() -> None:
    assert set(KINDS) == set(DECLARED)


@pytest.mark.parametrize(
    ("words", "namespace", "names"),
    [
        ("", None, ["Service/default/web", "Service/shop/api", "Job/shop/web", "Source/team"]),
        ("all", "shop", ["Service/shop/api", "Job/shop/web"]),
        ("svc", None, ["Service/default/web", "Service/shop/api"]),
        ("Services,jobs", "shop", ["Service/shop/api", "Job/shop/web"]),
        ("web", None, ["Service/default/web", "Job/shop/web"]),
        ("svc web", None, ["Service/default/web"]),
        ("svc/web shop/api", None, ["Service/default/web", "Service/shop/api"]),
        ("job/shop/web sources/team", None, ["Job/shop/web", "Source/team"]),
        ("volumes", None, []),
    ],
)
def test_resources_are_named_as_with_kubectl(
    get: Get, words: str, namespace: str | None, names: list[str]
) -> None:
    scope = () if namespace is None else ("-n", namespace)
    assert get(*words.split(), *scope, "-o", "name") == (
        0,
        "".join(f"{each}\n" for each in names),
        "",
    )


def test_one_name_is_an_object_and_everything_else_a_list(get: Get) -> None:
    one = json.loads(get("svc", "web", "-o", "json")[1])
    assert one == object_of(WEB)
    assert (one["apiVersion"], one["kind"]) == ("trimtab/v1", "Service")
    owned = {"name": "web", "namespace": "default", "owner": "team", "generation": 3}
    assert one["metadata"] == owned
    assert one["status"]["conditions"] == WEB["conditions"] and "kind" not in one["status"]
    assert yaml.safe_load(get("svc", "web", "-o", "yaml")[1]) == one
    listed = json.loads(get("svc", "--json")[1])
    assert (listed["kind"], [each["metadata"]["name"] for each in listed["items"]]) == (
        "List",
        ["web", "api"],
    )
    assert json.loads(get("web", "-o", "json")[1])["kind"] == "List", "a name of two resources"


def test_templates_and_columns_read_the_objects(get: Get) -> None:
    template = "{.items[*].metadata.name}"
    assert get("svc", "-o", f"jsonpath={template}")[1] == "web api\n"
    columns = "custom-columns=NAME:.metadata.name,READY:.status.ready"
    assert get("svc", "-o", columns)[1] == "NAME   READY\nweb    1\napi    1\n"


def test_the_table_is_that_of_status_without_problems(get: Get) -> None:
    _, out, _ = get()
    assert "web" in out and "team     Held" in out and "a mistake" not in out
    assert get("sources")[1].startswith("SOURCE")
    assert get("svc", "-o", "wide")[1].split("\n")[0].split()[9:11] == ["OWNER", "REVISION"]
    assert get("volumes")[1] == "No resources.\n"


def test_an_unknown_name_is_an_error_with_a_way_on(get: Get) -> None:
    code, out, err = get("svc", "wep")
    assert (code, out) == (1, "") and "did you mean web?" in err and "[resource.unknown]" in err
    assert "trimtab get services" in get("pods")[2]
    assert "trimtab get services" in get("deploy/web")[2]


@pytest.mark.parametrize(
    "form", ["xml", "json=a", "jsonpath", "jsonpath={.a", "custom-columns=NAME", ""]
)
def test_an_unknown_form_is_named(form: str) -> None:
    with pytest.raises(click.BadParameter, match=r"."):
        read_output(form)


def test_a_watch_has_no_template(get: Get) -> None:
    code, _, err = get("svc", "-w", "-o", "name")
    assert code == 64 and "--watch" in err
    assert get("-n", "shop", "-A")[0] == 64


def test_a_row_of_a_watch_may_come_later() -> None:
    assert WantedResources.parse(("svc", "later"), None).of(ROWS)["resources"] == []
