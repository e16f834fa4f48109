"""Whole projects: files, names, profiles, places and problems."""

import pytest

from controller.core.compose.project import (
    FileAbsent,
    FileUnreadable,
    Place,
)
from controller.core.compose.reader import read_project
from tests.unit.core.compose.projects import problems, read, services

WEB = "services: {web: {image: x}}\n"


def test_a_project_has_long_forms():
    project = read("services:\n  web:\n    image: x\n    ports: ['8080:80']\n")
    assert project.tree == {
        "name": "shop",
        "networks": {"default": {"name": "shop_default"}},
        "services": {
            "web": {
                "image": "x",
                "networks": {"default": None},
                "ports": [
                    {"mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp"}
                ],
            }
        },
    }


def test_a_member_has_the_place_of_its_key_and_an_item_its_own():
    project = read("services:\n  web:\n    image: x\n    ports:\n      - 8080:80\n")
    assert project.places["services", "web", "image"] == Place("shop/compose.yaml", 3, 5)
    assert project.places["services", "web", "ports", 0] == Place("shop/compose.yaml", 5, 9)
    assert project.locate(("services", "web", "ports", 0, "target")).line == 5


def test_a_place_survives_extends_overrides_and_variables():
    project = read(
        {
            "shop/compose.yaml": "services:\n  web:\n    extends: {file: base.yaml, service: b}\n",
            "shop/compose.override.yaml": "services:\n  web:\n    user: ${U:-5}\n",
            "shop/base.yaml": "services:\n  b:\n    image: x\n",
        }
    )
    assert project.locate(("services", "web", "image")) == Place("shop/base.yaml", 3, 5)
    assert project.locate(("services", "web", "user")) == Place("shop/compose.override.yaml", 3, 5)


def test_the_first_file_is_chosen_with_a_warning_about_others():
    project = read({"shop/compose.yaml": WEB, "shop/docker-compose.yml": "nonsense"})
    assert project.valid
    assert problems(project) == [
        (
            "shop/docker-compose.yml:1:1 warning compose.several-files: several Compose files: "
            "shop/compose.yaml is read, shop/docker-compose.yml is not"
        )
    ]


def test_a_folder_without_a_file_is_a_problem():
    project = read({})
    assert [p.code for p in project.problems] == ["compose.file-missing"]
    assert project.tree == {}


def test_every_file_that_could_change_the_project_is_listed():
    project = read({"shop/compose.yaml": WEB})
    assert {"shop/compose.yaml", "shop/.env", "shop/compose.override.yaml"} <= {*project.files}


@pytest.mark.parametrize(
    ("text", "environment", "name"),
    [
        (WEB, "", "shop"),
        (f"name: Other.Name\n{WEB}", "", "othername"),
        (f"name: ${{N:-x}}-y\n{WEB}", "N=a\n", "a-y"),
        (f"name: other\n{WEB}", "COMPOSE_PROJECT_NAME=given\n", "given"),
    ],
)
def test_the_name_comes_from_the_environment_the_file_or_the_folder(text, environment, name):
    project = read({"shop/compose.yaml": text, "shop/.env": environment})
    assert (project.name, project.tree["name"]) == (name, name)


def test_a_project_in_the_root_has_the_name_of_its_folder():
    def content(path):
        if path != "compose.yaml":
            raise FileAbsent(path)
        return WEB.encode()

    assert read_project(".", content, folder_name="My Shop").name == "myshop"
    assert [p.code for p in read_project(".", content).problems] == ["compose.project-name"]


def test_profiles_are_chosen_in_the_file_and_else_in_the_environment():
    text = (
        "services: {a: {image: x}, b: {image: x, profiles: [dev]}, c: {image: x, profiles: [t]}}\n"
    )
    assert set(services(text)) == {"a"}
    chosen = f"x-trimtab: {{profiles: [t]}}\n{text}"
    files = {"shop/compose.yaml": text, "shop/.env": "COMPOSE_PROFILES=dev,other\n"}
    assert set(services(files)) == {"a", "b"}
    assert set(services({**files, "shop/compose.yaml": chosen})) == {"a", "c"}


def test_further_files_are_listed_in_the_first_file():
    found = services(
        {
            "shop/compose.yaml": f"x-trimtab: {{files: [more/prod.yaml]}}\n{WEB}",
            "shop/more/prod.yaml": "services: {web: {volumes: ['./data:/d']}}",
        }
    )
    mount = found["web"]["volumes"]
    assert isinstance(mount, list)
    assert mount[0]["source"] == "./shop/data"


def test_the_environment_of_the_process_never_counts(monkeypatch):
    monkeypatch.setenv("TAG", "secret")
    project = read("services: {web: {image: 'x:${TAG:-1}', environment: [TAG]}}")
    assert project.tree["services"]["web"]["image"] == "x:1"  # type: ignore[index]
    assert project.tree["services"]["web"]["environment"] == {"TAG": None}  # type: ignore[index]


def test_an_unset_variable_is_a_warning_and_a_required_one_an_error():
    project = read("services:\n  web:\n    image: x$A\n")
    assert project.valid
    assert problems(project) == [
        (
            "shop/compose.yaml:3:5 warning compose.variable-unset: "
            "the variable A is not set; an empty string is used"
        )
    ]
    project = read("services:\n  web:\n    image: x:${TAG:?choose a tag}\n")
    assert problems(project) == [
        (
            "shop/compose.yaml:3:5 error compose.variable-required: services.web.image: "
            "the variable TAG is required: choose a tag"
        )
    ]


def test_a_file_that_cannot_be_read_is_named():
    def content(path):
        if path == "shop/compose.yaml":
            raise FileUnreadable("permission denied")
        raise FileAbsent(path)

    project = read_project("shop", content)
    assert problems(project) == [
        (
            "shop/compose.yaml error compose.file-unreadable: "
            "the file shop/compose.yaml can't be read: permission denied"
        )
    ]


def test_choices_for_trimtab_merge_by_key():
    files = {
        "shop/compose.yaml": "x-trimtab: {suspend: true}\nservices: {web: {image: x}}\n",
        "shop/compose.override.yaml": "x-trimtab: {owner: team}\n",
    }
    assert read(files).tree["x-trimtab"] == {"suspend": True, "owner": "team"}


def test_choices_for_trimtab_in_an_included_file_are_announced():
    project = read(
        {
            "shop/compose.yaml": "include: [db.yaml]\n",
            "shop/db.yaml": "x-trimtab: {suspend: true}\nservices: {db: {image: x}}\n",
        }
    )
    assert problems(project) == [
        "shop/db.yaml:1:1 warning compose.by-policy: x-trimtab of an included file has no effect"
    ]


def test_the_format_of_each_env_file_counts():
    files = {
        "shop/compose.yaml": (
            "services:\n  web:\n    image: x\n    env_file:\n      - a.env\n"
            "      - {path: raw.env, format: raw}\n      - {path: none.env, required: false, format: raw}\n"
        ),
        "shop/a.env": "A='1'\n",
        "shop/raw.env": "B='$A'\n",
    }
    assert services(files)["web"]["environment"] == {"A": "1", "B": "'$A'"}


def test_the_content_of_a_config_can_be_a_variable_of_the_project():
    files = {
        "shop/compose.yaml": f"{WEB}configs: {{c: {{environment: TEXT}}, d: {{environment: NONE}}}}\n",
        "shop/.env": "TEXT='a $$b'\nMORE=1\n",
    }
    files["shop/compose.yaml"] = files["shop/compose.yaml"].replace(
        "image: x", "image: x, configs: [c, d]"
    )
    project = read(files)
    assert project.valid
    assert project.config_values == {"TEXT": "a $$b"}
