"""Mistakes in Compose projects: each has a place, a reason and a remedy, and disturbs nothing else."""

import pytest

from controller.core.compose.project import ComposeProject, FileAbsent, FileTooBig
from controller.core.compose.project_files import MAX_FILES
from controller.core.compose.reader import read_project
from tests.unit.core.compose.projects import problems, read

WEB = "services: {web: {image: x}}\n"


def rendered(project: ComposeProject) -> str:
    return "\n".join(problem.render() for problem in project.problems)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "services:\n  web:\n    image: x\n    prots: [80]\n",
            (
                'shop/compose.yaml:4:5: error compose.unknown: services.web.prots: unknown key "prots"\n'
                "    remedy: did you mean ports?"
            ),
        ),
        (
            "services:\n  web:\n    image: 5\n",
            (
                "shop/compose.yaml:3:5: error compose.type: services.web.image: must be a string, "
                'not a number\n    remedy: quote the value: "5"'
            ),
        ),
        (
            "services:\n  web:\n    image: x\n    ports:\n      - 8000-8005:80-82\n",
            (
                "shop/compose.yaml:5:9: error compose.port: services.web.ports[0]: "
                "the ranges 80-82 and 8000-8005 have different lengths\n"
                "    remedy: write ranges of one length"
            ),
        ),
        (
            "services:\n  web:\n    image: x\n    depends_on: [db]\n",
            (
                "shop/compose.yaml:4:18: error compose.undefined: services.web: "
                "the service 'db' is not defined\n    remedy: add db to services"
            ),
        ),
        (
            "services:\n  web:\n    image: x\n    container_name: w\n    scale: 2\n",
            (
                "shop/compose.yaml:4:5: error compose.conflict: services.web: "
                "2 containers can't have one container_name\n    remedy: remove container_name"
            ),
        ),
        (
            "include:\n  - https://example.org/app.git\n",
            (
                "shop/compose.yaml:2:5: error compose.remote: "
                "'https://example.org/app.git' is not a local file\n"
                "    remedy: copy the file into the source; trimtab reads no Compose files from elsewhere"
            ),
        ),
        (
            "services:\n  web:\n    extends: {file: ../../base.yaml, service: b}\n",
            (
                "shop/compose.yaml:3:15: error compose.file-outside: "
                "the file ../base.yaml is outside the source\n"
                "    remedy: copy the file into the source"
            ),
        ),
        (
            "services:\n  web:\n    image: x\n    env_file: none.env\n",
            (
                "shop/compose.yaml:4:5: error compose.file-missing: "
                "the file shop/none.env does not exist\n    remedy: add the file"
            ),
        ),
        (
            "services:\n  web:\n    image: x\n    env_file: ['~/data']\n",
            (
                "shop/compose.yaml:4:16: error compose.home: services.web.env_file[0].path: "
                "'~/data' depends on the home folder of a user\n"
                "    remedy: write a path beside the Compose file"
            ),
        ),
        (
            "services:\n  web:\n    image: x\n    labels:\n      day: 2024-01-01\n",
            (
                "shop/compose.yaml:5:12: error compose.date: 2024-01-01 without quotes is a date in YAML\n"
                '    remedy: quote the value: "2024-01-01"'
            ),
        ),
        (
            "services:\n  web:\n    image: x\n    umask: '022'\n",
            (
                "shop/compose.yaml:4:5: error compose.newer: services.web.umask: "
                "umask is newer than the supported Compose Specification\n"
                "    remedy: remove umask; compose-go 2.4.8 has the supported attributes"
            ),
        ),
        (
            "services:\n  web:\n    image: x\n    command: a && b\n",
            (
                "shop/compose.yaml:4:5: warning compose.command-cut: services.web.command: "
                "Compose drops the text from the first ; & | < or > outside quotes\n"
                '    remedy: write a list: ["sh", "-c", "…"]'
            ),
        ),
        (
            'version: "99"\nservices:\n  web:\n    image: x\n',
            (
                "shop/compose.yaml:1:1: warning compose.version: "
                "version '99' is ignored: a Compose file has no version any more\n"
                "    remedy: remove the line"
            ),
        ),
        (
            "services:\n\tweb: 1\n",
            (
                "shop/compose.yaml:2:1: error yaml.syntax: a tab in the indentation\n"
                "    remedy: indent with spaces, not with tabs"
            ),
        ),
    ],
)
def test_a_mistake_is_explained_at_its_place(text, expected):
    lines = rendered(read(text)).split("\n")
    assert expected.split("\n") == lines[:2] or expected in "\n".join(lines)


def test_all_mistakes_of_a_stage_are_reported():
    project = read("services:\n  a: {image: 5}\n  b: {imag: x}\n  c: {image: x, ports: a}\n")
    assert [p.code for p in project.problems] == ["compose.type", "compose.unknown", "compose.type"]


def test_a_cycle_of_extends_names_every_file():
    project = read(
        {
            "shop/compose.yaml": "services: {a: {extends: {file: b.yaml, service: b}}}",
            "shop/b.yaml": "services: {b: {extends: {file: compose.yaml, service: a}}}",
        }
    )
    assert [p.code for p in project.problems] == ["compose.extends-cycle"]
    assert "b.yaml" in project.problems[0].message


def test_a_cycle_of_includes_names_every_file():
    project = read(
        {
            "shop/compose.yaml": "include: [a.yaml]\n",
            "shop/a.yaml": "include: [b.yaml]\n",
            "shop/b.yaml": "include: [a.yaml]\n",
        }
    )
    assert problems(project) == [
        (
            "shop/b.yaml:1:11 error compose.include-cycle: a cycle of includes: "
            "shop/compose.yaml → shop/a.yaml → shop/b.yaml → shop/a.yaml"
        )
    ]


def test_a_bomb_of_aliases_is_a_problem():
    levels = "".join(f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
    project = read(f"x-0: &a0 [lol, lol]\n{levels}{WEB}")
    assert [p.code for p in project.problems] == ["yaml.limit"]


def test_a_deep_text_is_a_problem():
    project = read("x-a: " + "[" * 500)
    assert [p.code for p in project.problems] == ["yaml.limit"]


def test_an_alias_inside_its_own_anchor_is_a_problem():
    project = read(f"x-a: &a [*a]\n{WEB}")
    assert {p.code for p in project.problems} <= {"yaml.limit", "yaml.syntax"}
    assert not project.valid


def test_services_that_extend_a_large_service_are_bounded():
    labels = "\n".join(f"      l{n}: v" for n in range(1000))
    services = "\n".join(f"  s{n}: {{extends: base}}" for n in range(300))
    project = read(f"services:\n  base:\n    image: x\n    labels:\n{labels}\n{services}\n")
    assert [p.code for p in project.problems] == ["compose.limit"]


def test_a_long_chain_of_extends_is_a_problem():
    chain = "\n".join(f"  s{n}: {{extends: s{n + 1}}}" for n in range(200))
    project = read(f"services:\n{chain}\n  s200: {{image: x}}\n")
    assert {p.code for p in project.problems} == {"compose.limit"}


def test_too_many_files_are_a_problem():
    includes = ", ".join(f"f{n}.yaml" for n in range(MAX_FILES + 1))
    files = {f"shop/f{n}.yaml": f"services: {{s{n}: {{image: x}}}}" for n in range(MAX_FILES + 1)}
    project = read({"shop/compose.yaml": f"include: [{includes}]\n", **files})
    assert [p.code for p in project.problems] == ["compose.limit"]
    assert project.tree == {}


def test_a_large_file_is_a_problem():
    def content(path: str) -> bytes:
        if path == "shop/compose.yaml":
            raise FileTooBig(path)
        raise FileAbsent(path)

    assert [p.code for p in read_project("shop", content).problems] == ["file.too-big"]


def test_invalid_utf_8_is_named_with_its_line():
    def content(path: str) -> bytes:
        if path == "shop/compose.yaml":
            return b"services:\n  web: {image: '\xff'}\n"
        raise FileAbsent(path)

    assert problems(read_project("shop", content)) == [
        "shop/compose.yaml:2:1 error yaml.character: byte 0xff is not valid UTF-8"
    ]


def test_compose_file_in_the_environment_is_refused():
    project = read({"shop/compose.yaml": WEB, "shop/.env": "COMPOSE_FILE=other.yaml\n"})
    assert [p.code for p in project.problems] == ["compose.file-variable"]


def test_a_broken_environment_file_is_named_with_its_line():
    project = read({"shop/compose.yaml": WEB, "shop/.env": "A=1\nB!=2\n"})
    assert problems(project) == [
        "shop/.env:2:1 error compose.env-line: the name of a variable contains '!'"
    ]


def limits(files: dict[str, str]) -> list[str]:
    project = read(files)
    assert project.tree == {}
    return [problem.code for problem in project.problems]


def test_values_that_variables_make_are_bounded():
    value = "x" * 100_000
    assert limits(
        {
            "shop/compose.yaml": f"services: {{web: {{image: x, labels: {{a: '{'$A' * 1000}'}}}}}}",
            "shop/.env": f"A={value}\n",
        }
    ) == ["compose.limit"]
    labels = "\n".join(f"      l{n}: $A" for n in range(1000))
    assert "compose.limit" in limits(
        {
            "shop/compose.yaml": f"services:\n  web:\n    image: x\n    labels:\n{labels}\n",
            "shop/.env": f"A={value}\n",
        }
    )


def test_variables_that_double_in_an_env_file_are_bounded():
    lines = "A0=xxxxxxxxxx\n" + "".join(f"A{n}=$A{n - 1}$A{n - 1}\n" for n in range(1, 60))
    assert limits({"shop/compose.yaml": WEB, "shop/.env": lines}) == ["compose.env-line"]


def test_ranges_of_ports_are_bounded():
    services = "\n".join(f"  s{n}: {{image: x, ports: ['1-60000:1-60000']}}" for n in range(9))
    assert set(limits({"shop/compose.yaml": f"services:\n{services}\n"})) == {"compose.limit"}


def test_an_env_file_for_many_services_is_bounded():
    services = "\n".join(f"  s{n}: {{image: x, env_file: a.env}}" for n in range(200))
    assert limits(
        {
            "shop/compose.yaml": f"services:\n{services}\n",
            "shop/a.env": "# comment\n" * 50_000,
        }
    ) == ["compose.limit"]


def test_a_long_list_with_unique_entries_is_read_in_linear_time():
    ports = ", ".join(f"{{target: {n + 1}}}" for n in range(5000))
    assert read(f"services: {{web: {{image: x, ports: [{ports}]}}}}").valid


def test_many_variables_in_one_line_are_read_in_linear_time():
    text = "${A:-x} " * 20_000 + "${B:-" * 5
    assert limits({"shop/compose.yaml": f"services: {{web: {{image: '{text}'}}}}"}) == [
        "compose.variable"
    ]
    valid = read(f"services: {{web: {{image: '{'${A:-x}' * 20_000}'}}}}")
    assert valid.valid


@pytest.mark.parametrize("name", ["[a]", "{a: b}"])
def test_a_name_that_is_no_string_is_a_problem(name: str):
    assert problems(read(f"name: {name}\n{WEB}")) == [
        "shop/compose.yaml:1:1 error compose.type: name must be a string"
    ]


@pytest.mark.parametrize(
    ("body", "env_file", "problem"),
    [
        (
            "command: redis --requirepass ${PASSWORD}",
            "",
            (
                "shop/compose.yaml:4:5 error compose.command: services.web.command: has an open quote, "
                "a backslash at its end, or a parenthesis outside quotes"
            ),
        ),
        (
            "environment: {PASSWORD: 's3cret${'}",
            "",
            (
                "shop/compose.yaml:4:19 error compose.variable: services.web.environment.PASSWORD: "
                "a dollar sign begins no valid variable"
            ),
        ),
        (
            "env_file: a.env",
            "PASSWORD s3cret\n",
            "shop/a.env:1:1 error compose.env-line: the name of a variable contains a space",
        ),
    ],
)
def test_a_problem_has_no_value_that_can_be_a_password(body: str, env_file: str, problem: str):
    files = {
        "shop/compose.yaml": f"services:\n  web:\n    image: x\n    {body}\n",
        "shop/.env": "PASSWORD=it's3cret\n",
        "shop/a.env": env_file,
    }
    project = read(files)
    assert problems(project) == [problem]
    assert "s3cret" not in rendered(project)


@pytest.mark.parametrize("extended", [False, True])
def test_many_documents_over_a_large_one_are_bounded(*, extended: bool):
    values = ", ".join("1" for _ in range(50_000))
    documents = f"services: {{s0: {{image: x}}}}\nx-b: [{values}]\n" + "---\n{x-a: 1}\n" * 20_000
    files = {"shop/compose.yaml": documents}
    if extended:
        files = {
            "shop/compose.yaml": "services: {web: {extends: {file: base.yaml, service: s0}}}\n",
            "shop/base.yaml": documents,
        }
    assert limits(files) == ["compose.limit"]


def test_a_large_project_has_override_files():
    services = "".join(f"  s{n}: {{image: x, environment: {{A: b}}}}\n" for n in range(1000))
    names = [f"o{n}.yaml" for n in range(10)]
    files = {f"shop/{name}": "services: {s0: {environment: {B: c}}}\n" for name in names}
    first = f"x-trimtab: {{files: [{', '.join(names)}]}}\nservices:\n{services}"
    assert read({"shop/compose.yaml": first, **files}).valid


def test_a_long_word_and_a_long_number_are_read_in_linear_time():
    word = "a" * 900_000
    assert read(f"services: {{web: {{image: x, command: '{word}'}}}}").valid
    number = "1" * 900_000
    text = f"services: {{web: {{image: x, stop_grace_period: {number}s}}}}"
    assert limits({"shop/compose.yaml": text}) == ["compose.value"]
    assert read(f"services: {{web: {{image: x, stop_grace_period: {'0' * 30}1s}}}}").valid


def test_of_many_problems_the_first_are_listed_and_no_error_is_lost():
    unset = ", ".join(f"$A{n}" for n in range(300))
    text = f"services: {{web: {{image: x, command: [{unset}], ports: [x]}}}}\n"
    project = read(text)
    assert not project.valid
    assert [p.code for p in project.problems].count("compose.variable-unset") == 200
    assert project.problems[-2].code == "compose.port"
    assert project.problems[-1].message == "100 more problems of the project are not listed"
    assert read(text.replace(", ports: [x]", "")).valid
