"""Compose projects in a directory: found, read again only after a change, and never pruned by mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.core.compose import projects
from controller.core.compose.reader import read_project
from controller.core.compose.translation.scope import ComposeSettings
from controller.core.manifests.named_files import is_of_trimtab
from controller.model.desired.desired import Desired
from controller.model.names import service_key
from controller.sources import compose_projects
from controller.sources.directory import DirectorySource, Export

WEB = "services: {web: {image: 'nginx:1.27'}}\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def load(root: Path, files: dict[str, str]) -> Desired:
    return DirectorySource(write(root, files)).load()


def keys(desired: Desired) -> list[str]:
    return [str(workload.key) for workload in desired.workloads]


def codes(desired: Desired) -> list[str]:
    return [f"{p.file}:{p.line} {p.code}" for p in desired.problems]


def test_a_project_is_its_folder_with_the_folders_name(tmp_path: Path) -> None:
    desired = load(tmp_path, {"My_Shop/compose.yaml": WEB, "a/b/docker-compose.yml": WEB})
    assert keys(desired) == ["Service/b/web", "Service/my-shop/web"]
    assert codes(desired) == []
    assert desired.identity.documents == 2


def test_a_project_in_the_directory_itself_has_the_directorys_name(tmp_path: Path) -> None:
    assert keys(load(tmp_path / "shop", {"compose.yaml": WEB})) == ["Service/shop/web"]


def test_files_of_the_project_are_delivered_with_their_content(tmp_path: Path) -> None:
    text = WEB.replace("1.27'", "1.27', volumes: ['./conf/n.conf:/n:ro', './html:/h:ro']")
    files = {"shop/compose.yaml": text, "shop/conf/n.conf": "one", "shop/html/a/b.html": "b"}
    desired = load(tmp_path, files)
    assert codes(desired) == []
    assert {c.key.name: c.files for c in desired.configs} == {
        "html": (("a/b.html", b"b"),),
        "n-conf": (("n.conf", b"one"),),
    }
    web = desired.service(service_key("shop", "web"))
    assert web is not None
    assert sorted(each.target for each in web.deliveries) == ["/h", "/n"]


def test_only_a_project_with_a_changed_input_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counting(folder: str, *arguments: object, **options: object) -> object:
        read.append(folder)
        return read_project(folder, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(projects, "read_project", counting)
    text = "services: {web: {image: 'nginx:${TAG:-1}', volumes: ['./f:/f:ro']}}\n"
    write(tmp_path, {"a/compose.yaml": text, "b/compose.yaml": text, "a/f": "", "b/f": ""})
    settings = ComposeSettings()
    source = DirectorySource(tmp_path, compose=lambda: settings)
    steps: list[tuple[dict[str, str], list[str]]] = [
        ({}, ["a", "b"]),
        ({}, []),
        ({"a/.env": "TAG=2"}, ["a"]),  # it was looked for, and appeared
        ({"b/compose.override.yaml": "services: {web: {image: 'nginx:3'}}"}, ["b"]),
        ({"b/f": "changed"}, []),  # the content is read each time
        ({"c/values.yaml": "# nothing"}, []),
    ]
    for files, expected in steps:
        read.clear()
        write(tmp_path, files)
        desired = source.load()
        assert sorted(read) == expected, files
    assert {s.key.namespace: s.spec.image for s in desired.services} == {
        "a": "nginx:2",
        "b": "nginx:3",
    }
    (tmp_path / "a" / "f").chmod(0o755)
    read.clear()
    settings = ComposeSettings(network="bridge")
    source.load()
    assert sorted(read) == ["a", "b"]


#: The text of a broken project in the folder ``a``, and the only namespace that it can be of: None for any.
BROKEN = [
    ("services: [\n", "a"),
    ("services: {web: {imag: x}}\n", "a"),
    ("serivces: {web: {image: x}}\ninclude: [b.yaml]\n", "a"),
    ("name: Shop  # ours\nservices:\n web: ]\n", "shop"),
    ("services: {web: {image: x}\n}}\nname: 'shop'\n", "shop"),
    ("<<<<<<< HEAD\nname: shop\n=======\nname: shop\n>>>>>>> b\nservices: {}\n", "shop"),
    # The name hides behind the mistake.
    ("<<<<<<< HEAD\nname: shop\n=======\nname: blog\n>>>>>>> b\nservices: {}\n", None),
    ("nmae: shop\nservices: {web: {image: x}}\n", None),
    ("name shop\nservices: {web: {image: x}}\n", None),
    ("name: ${N\nservices: {web: {image: x}}\n", None),
    ("{name: shop, services: {\n", None),
    ("# cut off\n", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "namespace"), BROKEN)
def test_a_broken_project_blinds_its_namespace_and_leaves_others_alone(
    tmp_path: Path, text: str, namespace: str | None
) -> None:
    desired = load(tmp_path, {"a/compose.yaml": text, "b/compose.yaml": WEB})
    assert (desired.blind, desired.blind_namespaces) == (
        (True, frozenset()) if namespace is None else (False, {namespace})
    )
    assert not desired.whole
    assert keys(desired) == ["Service/b/web"]
    assert all(line.startswith("a/compose.yaml:") for line in codes(desired))
    assert not desired.valid


@pytest.mark.parametrize(
    ("env", "namespace"),
    [
        ("TAG=1\n", "a"),
        ("COMPOSE_PROJECT_NAME=shop\n", "shop"),
        ("COMPOSE_PROJECT_NAME=Shop!\n", None),
        ("COMPOSE_PROJECT_NAME shop\n", None),
        ("'\n", "a"),
    ],
)
def test_a_name_from_the_variables_counts_for_a_broken_project(
    tmp_path: Path, env: str, namespace: str | None
) -> None:
    desired = load(tmp_path, {"a/compose.yaml": "services: {web: {imag: x}}\n", "a/.env": env})
    assert (desired.blind, set(desired.blind_namespaces)) == (
        namespace is None,
        {namespace} - {None},
    )


def test_a_project_that_a_broken_one_includes_is_still_none_of_its_own(tmp_path: Path) -> None:
    files = {
        "shop/compose.yaml": "include: [../db/compose.yaml]\nservices: ]\n",
        "db/compose.yaml": WEB,
    }
    desired = load(tmp_path, files)
    assert keys(desired) == []
    # Until now it possibly was.
    assert desired.blind_namespaces == {"shop", "db"}


def test_two_projects_of_one_name_change_nothing(tmp_path: Path) -> None:
    named = "name: shop\n" + WEB
    desired = load(
        tmp_path, {"a/compose.yaml": named, "b/compose.yaml": named, "c/compose.yaml": WEB}
    )
    assert codes(desired) == ["a/compose.yaml:1 compose.double", "b/compose.yaml:1 compose.double"]
    assert keys(desired) == ["Service/c/web"]
    assert desired.blind_keys == {service_key("shop", "web")}
    assert not desired.blind


def test_an_included_project_is_no_project_of_its_own(tmp_path: Path) -> None:
    files = {
        "shop/compose.yaml": "include: [db/compose.yaml]\n" + WEB,
        "shop/db/compose.yaml": "services: {db: {image: 'postgres:17'}}\n",
    }
    assert keys(load(tmp_path, files)) == ["Service/shop/db", "Service/shop/web"]


@pytest.mark.parametrize(
    "includes",
    [
        {"a": "compose.yaml"},
        {"a": "../b/compose.yaml", "b": "../a/compose.yaml"},
        {"a": "../b/compose.yaml", "b": "../c/compose.yaml", "c": "../b/compose.yaml"},
        # The project at the beginning is only a part of the cycle behind it.
        {"a": "../d/compose.yaml", "c": "../a/compose.yaml", "d": "../c/compose.yaml"},
    ],
)
def test_projects_that_include_one_another_are_a_problem_and_nothing_is_pruned(
    tmp_path: Path, includes: dict[str, str]
) -> None:
    files = {
        f"{folder}/compose.yaml": f'include: ["{path}"]\n{WEB}' for folder, path in includes.items()
    }
    desired = load(tmp_path, files | {"z/compose.yaml": WEB})
    assert desired.blind_namespaces == {*includes}
    assert keys(desired) == ["Service/z/web"]
    assert any(p.code == "compose.include-cycle" for p in desired.problems)


def test_a_project_stays_if_another_one_includes_only_its_further_files(tmp_path: Path) -> None:
    files = {
        "a/compose.yaml": "include: [../b/compose.override.yaml]\n" + WEB,
        "b/compose.yaml": WEB,
        "b/compose.override.yaml": "services: {db: {image: 'postgres:17'}}\n",
    }
    assert keys(load(tmp_path, files)) == [
        *("Service/a/db", "Service/a/web", "Service/b/db", "Service/b/web"),
    ]


MOUNTED = "scrape_configs: []\n---\n- {{ x }}\n"


@pytest.mark.parametrize(
    ("project", "path"),
    [
        (WEB + "include: [db.yaml]\n", "db.yaml"),
        ("x-trimtab: {files: [prod.yaml]}\n" + WEB, "prod.yaml"),
        (WEB.replace("image", "extends: {file: base.yml, service: web}, image"), "base.yml"),
        (WEB.replace("image", "volumes: ['./p.yml:/p.yml:ro'], image"), "p.yml"),
        (WEB.replace("image", "volumes: ['./conf:/conf:ro'], image"), "conf/d/p.yml"),
        (
            WEB.replace("image", "configs: [p], image") + "configs: {p: {file: ../p.yml}}\n",
            "../p.yml",
        ),
    ],
)
def test_a_file_that_a_project_reads_or_mounts_is_no_document(
    tmp_path: Path, project: str, path: str
) -> None:
    text = MOUNTED if "p.yml" in path else WEB
    desired = load(tmp_path, {"shop/compose.yaml": project, f"shop/{path}": text})
    assert [p for p in desired.problems if p.severity == "error"] == []
    assert not desired.blind
    assert "Service/shop/web" in keys(desired)


def test_a_document_that_a_project_mounts_stays_a_document(tmp_path: Path) -> None:
    document = (
        "apiVersion: trimtab/v1\nkind: Service\nmetadata: {name: api, namespace: own, owner: team}\n"
        "spec: {image: 'nginx:1.27'}\n"
    )
    project = WEB.replace("image", "volumes: ['.:/all:ro'], image")
    files = {"shop/compose.yaml": project, "shop/own.yaml": document}
    assert keys(load(tmp_path, files)) == ["Service/own/api", "Service/shop/web"]
    # A document with a mistake is a problem, as without the project.
    (tmp_path / "shop" / "own.yaml").write_text(document.replace("apiVersion", "apiversion"))
    assert DirectorySource(tmp_path).load().blind_keys == {service_key("own", "api")}


def test_a_compose_file_that_no_project_reads_is_named(tmp_path: Path) -> None:
    files = {"a/compose.yaml": WEB, "a/compose.prod.yaml": WEB, "b/compose.override.yaml": WEB}
    desired = load(tmp_path, files)
    assert codes(desired) == [
        "a/compose.prod.yaml:0 compose.unused",
        "b/compose.override.yaml:0 compose.unused",
    ]
    assert not desired.blind
    listed = {"a/compose.yaml": "x-trimtab: {files: [compose.prod.yaml]}\n" + WEB}
    assert codes(load(tmp_path, listed)) == ["b/compose.override.yaml:0 compose.unused"]


def test_nothing_outside_the_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.env").write_text("A=1")
    (tmp_path / "d" / ".git").mkdir(parents=True)
    (tmp_path / "d" / ".git" / "config").write_text("token=secret")
    (tmp_path / "d" / "git.env").symlink_to(".git/config")
    (tmp_path / "d" / "link.env").symlink_to(tmp_path / "secret.env")
    text = "services: {web: {image: 'nginx:1.27', env_file: [%s]}}\n"
    for name in ("../secret.env", "link.env", "git.env", str(tmp_path / "secret.env")):
        desired = load(tmp_path / "d", {"compose.yaml": text % name})
        assert [p.severity for p in desired.problems] == ["error"], name
        assert desired.workloads == ()


def test_files_of_a_git_source_are_named_by_the_source(tmp_path: Path) -> None:
    write(tmp_path, {"shop/compose.yaml": WEB.replace("image", "privileged: true, image")})
    export = Export("apps", commit="c" * 40)
    desired = DirectorySource(tmp_path, export=export).load()
    assert codes(desired) == ["apps:shop/compose.yaml:1 compose.refused"]


def test_paths_are_looked_up_inside_the_source_alone(tmp_path: Path) -> None:
    top = str(tmp_path.resolve())
    write(tmp_path, {"d/f": "x", ".git/config": "x"})
    (tmp_path / "run").write_text("x")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "out").symlink_to("/etc/hostname")
    (tmp_path / "git").symlink_to(".git/config")
    (tmp_path / "empty").mkdir()
    look = compose_projects.look_up
    found = {
        name: look(top, name)
        for name in ("./d", "run", "out", "../x", ".git/config", "git", "gone", "empty")
    }
    assert {name: each.kind for name, each in found.items()} == {
        "./d": "folder",
        "run": "file",
        "out": "outside",
        "../x": "outside",
        ".git/config": "outside",
        "git": "outside",
        "gone": "absent",
        "empty": "folder",
    }
    assert found["run"].executable
    assert found["./d"].names == ("f",)
    assert found["empty"].reason == "it has no files"


def test_a_folder_with_a_link_to_a_folder_is_not_delivered_in_part(tmp_path: Path) -> None:
    top = str(tmp_path.resolve())
    write(tmp_path, {"conf/a": "x", "other/b": "x", "conf/d/c": "x"})
    (tmp_path / "conf" / "d" / "link").symlink_to("../../other")
    found = compose_projects.look_up(top, "conf")
    assert (found.names, found.reason) == ((), "link in it is a link to a folder")


def test_a_folder_with_many_folders_is_not_walked_to_its_end(tmp_path: Path) -> None:
    for number in range(90):
        for inner in range(100):
            (tmp_path / "conf" / str(number) / str(inner)).mkdir(parents=True)
    found = compose_projects.look_up(str(tmp_path.resolve()), "conf")
    assert found.reason == "it has too many folders"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("a/compose.yaml", ["Service/a/web", "Service/b/web"]),
        ("shared/compose-b.yaml", ["Service/b/web"]),
        ("shared/stack.yml", ["Service/b/web"]),
    ],
)
def test_a_link_to_a_compose_file_is_a_project_of_its_own_folder(
    tmp_path: Path, target: str, expected: list[str]
) -> None:
    write(tmp_path, {target: WEB, "b/x": ""})
    (tmp_path / "b" / "compose.yaml").symlink_to(f"../{target}")
    desired = DirectorySource(tmp_path).load()
    assert codes(desired) == []
    assert keys(desired) == expected


def test_a_link_to_an_absent_env_file_is_not_an_absent_env_file(tmp_path: Path) -> None:
    write(tmp_path, {"a/compose.yaml": WEB.replace("1.27", "$TAG")})
    (tmp_path / "a" / ".env").symlink_to("later.env")
    desired = DirectorySource(tmp_path).load()
    assert desired.blind
    assert codes(desired) == ["a/.env:0 compose.file-unreadable"]


def test_a_bug_that_one_project_meets_keeps_no_other_from_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(folder: str, *arguments: object, **options: object) -> object:
        if folder == "bad":
            raise RecursionError
        return read_project(folder, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(projects, "read_project", failing)
    desired = load(tmp_path, {"bad/compose.yaml": WEB, "good/compose.yaml": WEB})
    assert keys(desired) == ["Service/good/web"]
    assert codes(desired) == ["bad/compose.yaml:0 compose.failed"]
    assert desired.blind


def test_an_encrypted_compose_file_is_a_problem_by_name(tmp_path: Path) -> None:
    text = f"{WEB}sops:\n  mac: ENC[AES256_GCM,data:x]\n  version: 3.9.0\n"
    desired = load(tmp_path, {"shop/compose.yaml": text, "good/compose.yaml": WEB})
    assert codes(desired) == ["shop/compose.yaml:2 compose.encrypted"]
    assert keys(desired) == ["Service/good/web"]


PROMETHEUS = "scrape_configs: []\n"
GRAFANA = "apiVersion: 1\ndatasources: []\n"
#: A project with a service in a profile that isn't chosen, and one whose file has a typo.
UNCHOSEN = WEB.replace(
    "}}\n", "}, prom: {image: 'prom:3', profiles: [m], volumes: ['../p.yml:/p.yml:ro']}}\n"
)


@pytest.mark.parametrize(
    "project",
    [UNCHOSEN, UNCHOSEN.replace("services:", "services: ]"), UNCHOSEN.replace("image", "imag")],
)
def test_yaml_of_a_project_is_data_whatever_the_project_makes_of_it(
    tmp_path: Path, project: str
) -> None:
    files = {
        "shop/compose.yaml": project,
        "shop/prometheus.yml": PROMETHEUS,
        "shop/provisioning/grafana.yaml": GRAFANA,
        "p.yml": PROMETHEUS,
    }
    desired = load(tmp_path, files)
    assert {line.partition(":")[0] for line in codes(desired)} <= {"shop/compose.yaml"}


def test_yaml_beside_documents_is_data_of_the_config_or_secret_that_names_it(
    tmp_path: Path,
) -> None:
    config = (
        "apiVersion: trimtab/v1\nkind: Config\nmetadata: {name: p, owner: team}\n"
        "spec: {files: {p.yml: conf/p.yml}}\n"
    )
    desired = load(tmp_path, {"m/config.yaml": config, "m/conf/p.yml": PROMETHEUS})
    assert codes(desired) == []
    assert [each.files for each in desired.configs] == [(("p.yml", PROMETHEUS.encode()),)]
    # What nobody names is a mistake, as before; so is a document, whoever names it.
    (tmp_path / "m" / "other.yml").write_text(PROMETHEUS)
    (tmp_path / "m" / "conf" / "p.yml").write_text(config.replace("Config", "Confg"))
    found = DirectorySource(tmp_path).load()
    assert codes(found) == ["m/conf/p.yml:2 kind.unknown", "m/other.yml:1 apiversion"]
    assert found.blind


@pytest.mark.parametrize(
    ("text", "is_document"),
    [
        ("apiVersion: trimtab/v1\n", True),
        ('{"apiVersion": "trimtab/v1"}\n', True),
        ("apiVersion: trimtb/v1\n", True),  # a misspelt document stays one
        ("kind: Service\nmetadata: {name: a}\n", True),
        ("apiVersion: apps/v1\nkind: Service\nmetadata: {name: a}\n", False),
        ("apiVersion: traefik.io/v1alpha1\n", False),
        ("kind: Pod\nmetadata: {name: a}\n", False),
        (GRAFANA, False),
    ],
)
def test_a_file_is_of_trimtab_by_its_own_words(text: str, is_document: bool) -> None:
    assert is_of_trimtab(text.encode()) is is_document


def test_the_values_of_all_projects_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aliases = "".join(f"x-{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 9))
    bomb = f"x-0: &a0 [1]\n{aliases}services: {{web: {{image: a}}}}\n"
    monkeypatch.setattr("controller.core.compose.projects.MAX_WEIGHT", 4_000)
    desired = load(tmp_path, {f"p{number}/compose.yaml": bomb for number in range(5)})
    assert [p.file for p in desired.problems if p.code == "source.too-big"] == [
        "p3/compose.yaml",
        "p4/compose.yaml",
    ]
    assert desired.blind
    assert keys(desired) == [f"Service/p{number}/web" for number in range(3)]
