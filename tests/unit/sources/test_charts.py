"""A Release renders a chart with values. A problem of either has the place of its text."""

import socket
from pathlib import Path
from typing import Any

import pytest

from controller.core.charts.releases import MAX_TEMPLATES, merge
from controller.core.status.facts import StatusInputs
from controller.core.status.report import report
from controller.model.desired.desired import Desired
from controller.model.desired.plan import Plan
from controller.model.names import NetworkNames
from controller.model.observed import Observed
from controller.sources.directory import DirectorySource
from tests.rendering import in_process

REPOSITORY = Path(__file__).parents[3]

CHART = "apiVersion: trimtab/v1\nname: app\nversion: 1.0.0\ndescription: An app\n"
VALUES = "image: team/app:1\nreplicas: 1\nenv: {A: '1', B: '2'}\n"
SCHEMA = """{
  "type": "object",
  "additionalProperties": false,
  "required": ["image"],
  "properties": {
    "image": {"type": "string"},
    "replicas": {"type": "integer", "minimum": 0},
    "env": {"type": "object"}
  }
}
"""
TEMPLATE = """# A comment
apiVersion: trimtab/v1
kind: Service
metadata: {name: {{ release.name }}}
spec:
  image: {{ values.image | quote }}
  replicas: {{ values.replicas }}
  env: {{ values.env | toyaml }}
"""
RELEASE = """apiVersion: trimtab/v1
kind: Release
metadata: {name: one, namespace: prod, owner: team}
spec:
  chart: app
  values:
    image: team/app:2
    env: {A: '3'}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with desired-state/ and configs/app in it."""
    write(
        tmp_path,
        {
            "configs/app/Chart.yaml": CHART,
            "configs/app/values.yaml": VALUES,
            "configs/app/values.schema.json": SCHEMA,
            "configs/app/templates/app.yaml": TEMPLATE,
            "desired-state/one.yaml": RELEASE,
        },
    )
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def source_of(directory: Path, charts: Path | None = None) -> DirectorySource:
    """Return a source that renders in this process; tests/hostile/test_charts.py has the worker."""
    return DirectorySource(directory, charts=charts, begin_reading=in_process)


def load(place: Path) -> Desired:
    return source_of(place / "desired-state", place / "configs").load()


def check(place: Path, problems: list[str]) -> None:
    """Compare the problems. With a problem, the Release has no effect and the source is blind."""
    desired = load(place)
    assert [
        f"{p.file}:{p.line}:{p.column} {p.code}: {p.message}" for p in desired.problems
    ] == problems
    assert (desired.services == ()) == bool(problems)
    assert desired.blind == bool(problems)


OUTSIDE = "the chart leads out of its directory"
UNEXPECTED = "Additional properties are not allowed ('colour' was unexpected)"
RENDERED = " (rendered for Release/prod/one, one.yaml:1)"


def test_a_release_renders_in_its_namespace_for_its_owner(place: Path):
    check(place, [])
    (service,) = load(place).services
    assert (str(service.key), service.owner) == ("Service/prod/one", "team")
    assert (service.spec.image, service.spec.env) == ("team/app:2", {"A": "3", "B": "2"})
    assert (service.source.file, service.source.line) == ("configs/app/templates/app.yaml", 2)


def test_a_release_knows_what_it_rendered_to(place: Path):
    desired = load(place)
    (release,) = desired.releases
    everything = {one.key for one in desired.services} | {one.key for one in desired.volumes}
    assert release.chart
    assert release.members
    assert set(release.members) == everything


def test_values_go_over_defaults_member_by_member():
    assert merge(
        {"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {"c": [3]}, "d": {"e": 1}, "f": None}
    ) == {"a": {"b": 1, "c": [3]}, "d": {"e": 1}, "f": None}


def test_a_value_that_does_not_fit_is_told_in_the_release(place: Path):
    write(place, {"desired-state/one.yaml": RELEASE + "    replicas: many\n    colour: red\n"})
    check(
        place,
        [
            "one.yaml:7:5 release.values: values: " + UNEXPECTED,
            "one.yaml:9:15 release.values: values.replicas doesn't fit the chart's schema",
        ],
    )
    expected = [problem.expected for problem in load(place).problems]
    assert expected == ["", 'type: "integer"']


def test_a_chart_that_lies_in_dir_is_told_where_it_belongs(place: Path):
    (place / "configs").rename(place / "desired-state/configs")
    remedies = [p.remedy for p in load(place).problems if p.code == "chart.unusable"]
    inside, beside = place / "desired-state/configs", place / "configs"
    assert remedies == [f"move {inside} to {beside}, outside the documents' folder"]


def test_a_release_with_values_that_do_not_fit_is_not_ready(place: Path):
    def conditions() -> dict[str, tuple[str, str]]:
        inputs = StatusInputs(load(place), Observed("e"), Plan(), NetworkNames())
        made: Any = report(inputs, previous=None, now="2026-03-01T12:00:00Z")
        (row,) = (r for r in made["resources"] if r["kind"] == "Release")
        return {c["type"]: (c["status"], c["reason"]) for c in row["conditions"]}

    write(place, {"desired-state/one.yaml": RELEASE + "    replicas: many\n"})
    assert conditions()["Ready"] == ("False", "release.values")
    assert conditions()["Stalled"] == ("True", "release.values")


def test_a_default_that_does_not_fit_is_told_in_the_chart(place: Path):
    write(place, {"configs/app/values.yaml": VALUES.replace("1\nenv", "-1\nenv")})
    check(
        place,
        [
            "configs/app/values.yaml:2:11 release.values: values.replicas doesn't fit the chart's schema"
        ],
    )


def test_a_value_that_may_be_a_secret_is_never_repeated(place: Path):
    write(place, {"desired-state/one.yaml": RELEASE + "    replicas: hunter2\n"})
    assert "hunter2" not in "".join(problem.render() for problem in load(place).problems)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"desired-state/one.yaml": RELEASE.replace("chart: app", "chart: ap")},
         "one.yaml:5:10 chart.unusable: chart 'ap' can't be used: there is no chart ap in"),
        ({"desired-state/one.yaml": RELEASE.replace("chart: app", "chart: ../configs/app")},
         "one.yaml:5:10 chart.unusable: chart '../configs/app' can't be used: no chart can have that name"),
        ({"configs/app/Chart.yaml": CHART.replace("app", "other", 1)},
         "configs/app/Chart.yaml:2:7 chart.invalid: the chart calls itself 'other', and its folder 'app'"),
        ({"configs/app/Chart.yaml": CHART + "nmae: x\n"},
         'configs/app/Chart.yaml:5:1 field.unknown: unknown key "nmae"'),
        ({"configs/app/Chart.yaml": ""}, "configs/app/Chart.yaml:0:0 chart.invalid: Chart.yaml is empty"),
        ({"configs/app/values.yaml": "- a\n"}, "configs/app/values.yaml:1:1 chart.invalid: values.yaml is no mapping"),
        ({"configs/app/values.yaml": "a: 1\n---\nb: 1\n"},
         "configs/app/values.yaml:3:1 chart.invalid: one document is all that this file may hold"),
        ({"configs/app/values.yaml": "a: ["}, "configs/app/values.yaml:1:5 yaml.syntax: a list or mapping that begins"),
        ({"configs/app/values.schema.json": "[1]"}, "configs/app/values.schema.json:1:1 chart.schema: values.schema.json is no object"),
        ({"configs/app/values.schema.json": '{"type": "objekt"}'},
         "configs/app/values.schema.json:1:10 chart.schema: the schema is wrong: 'objekt' is not valid"),
        ({"configs/app/values.schema.json": '{"$ref": "http://127.0.0.1:9/x"}'},
         "configs/app/values.schema.json:1:1 chart.schema: the schema can't be used: _WrappedReferencingError"),
        ({"configs/app/values.schema.json": '{"$ref": "#"}'},
         "configs/app/values.schema.json:1:1 chart.schema: the schema can't be used: RecursionError"),
    ],
)  # fmt: skip
def test_a_chart_that_cannot_be_used_is_told_at_its_flaw(place: Path, files, problem):
    write(place, files)
    desired = load(place)
    told = [f"{p.file}:{p.line}:{p.column} {p.code}: {p.message}" for p in desired.problems]
    assert any(one.startswith(problem) for one in told), told
    assert (desired.services, desired.blind) == ((), True)


def test_a_schema_never_makes_us_fetch_another(place: Path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        schema = f'{{"$ref": "http://127.0.0.1:{port}/schema.json"}}'
        write(place, {"configs/app/values.schema.json": schema})
        desired = load(place)
        with pytest.raises(BlockingIOError):
            server.accept()  # nobody has come
    assert [problem.code for problem in desired.problems] == ["chart.schema"]


def test_a_chart_without_a_directory_of_charts(place: Path):
    desired = source_of(place / "desired-state").load()
    assert [p.message for p in desired.problems] == [
        "chart 'app' can't be used: there is no directory of charts (configs/)"
    ]
    assert desired.blind


def test_a_chart_that_leads_outside_is_refused(place: Path, tmp_path: Path):
    (tmp_path / "configs/app").rename(tmp_path / "elsewhere")
    (tmp_path / "configs/app").symlink_to(tmp_path / "elsewhere")
    check(
        place,
        [
            "configs/app:0:0 file.outside: " + OUTSIDE,
            "one.yaml:5:10 chart.unusable: chart 'app' can't be used: " + OUTSIDE,
        ],
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("values.image", "values.imgae", ":6:1 chart.template: 'dict object' has no attribute 'imgae'"),
        ("{{ values.replicas", "{{ values.replicas |", ":7:1 chart.template: expected token 'name', got 'end of print statement'"),
        ("replicas:", "replics:", ':7:3 field.unknown: unknown key "replics" in spec'),
        ("name: {{", "namespace: other, name: {{", ":4:23 release.namespace: metadata.namespace isn't the Release's, which is prod"),
        ("name: {{", "owner: other, name: {{", ":4:19 release.owner: metadata.owner isn't the Release's, which is team"),
        ("Service", "Release", ":3:7 release.nested: a chart can't hold another Release"),
        ("kind: Service", "kind: [", ":5:1 yaml.syntax: the list that begins on line 3 goes on here without ',' or ']'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_template_names_its_line_and_release(place: Path, old, new, problem):
    write(place, {"configs/app/templates/app.yaml": TEMPLATE.replace(old, new, 1)})
    desired = load(place)
    told = [f"{p.file}:{p.line}:{p.column} {p.code}: {p.message}" for p in desired.problems]
    assert f"configs/app/templates/app.yaml{problem}{RENDERED}" in told, told
    assert not desired.services


def test_a_broken_release_may_have_declared_anything(place: Path):
    write(place, {"desired-state/one.yaml": RELEASE.replace("chart", "chrat")})
    desired = load(place)
    assert {p.code for p in desired.problems} == {"field.unknown", "field.missing"}
    assert (desired.services, desired.blind, desired.blind_keys) == ((), True, frozenset())


def test_a_template_in_a_folder_and_only_yaml_is_rendered(place: Path):
    write(
        place,
        {
            "configs/app/templates/more/x.yml": TEMPLATE.replace("release.name", "'x'"),
            "configs/app/templates/notes.txt": "{{ nope }}",
            "configs/app/templates/.hidden.yaml": "{{ nope }}",
        },
    )
    assert [service.key.name for service in load(place).services] == ["one", "x"]


def test_two_releases_of_one_chart_that_claim_one_key_stand_back(place: Path):
    write(place, {"desired-state/two.yaml": RELEASE})
    desired = load(place)
    assert {problem.code for problem in desired.problems} == {"document.duplicate"}
    assert desired.services == ()


def test_a_changed_chart_renders_anew(place: Path):
    source = source_of(place / "desired-state", place / "configs")
    before = source.load()
    assert source.load() == before
    write(place, {"configs/app/templates/app.yaml": TEMPLATE.replace("# A", "# Another")})
    assert source.load() == before
    write(place, {"configs/app/values.yaml": VALUES.replace("replicas: 1", "replicas: 2")})
    assert source.load().services[0].spec.replicas == 2
    write(place, {"desired-state/one.yaml": RELEASE + "    replicas: 3\n"})
    assert source.load().services[0].spec.replicas == 3


def test_the_number_of_templates_and_releases_is_bounded(place: Path, monkeypatch):
    templates = {f"configs/app/templates/{n}.yaml": "" for n in range(MAX_TEMPLATES + 1)}
    write(place, templates)
    assert "chart.too-many" in {problem.code for problem in load(place).problems}
    for name in templates:
        (place / name).unlink()
    monkeypatch.setattr("controller.core.charts.releases.MAX_RELEASES", 1)
    write(place, {"desired-state/two.yaml": RELEASE.replace("name: one", "name: two")})
    desired = load(place)
    assert [problem.code for problem in desired.problems] == ["source.too-many"]
    assert ([service.key.name for service in desired.services], desired.blind) == (["one"], True)


def test_the_values_and_bytes_of_a_chart_are_bounded(place: Path, monkeypatch):
    bomb = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 9))
    write(place, {f"configs/app/templates/{name}.yaml": bomb for name in "xyz"})
    monkeypatch.setattr("controller.core.charts.releases.MAX_RENDERED_VALUES", 1_000)
    message = "the chart gives more than 1000 values"
    place_of = "configs/app/templates/y.yaml:0:0 chart.template: "
    told = [f"{p.file}:{p.line}:{p.column} {p.code}: {p.message}" for p in load(place).problems]
    assert told == [place_of + message + RENDERED]
    monkeypatch.setattr("controller.sources.charts.MAX_CHART_BYTES", 1_000)
    assert "chart.too-many" in {p.code for p in load(place).problems}


def test_the_validator_chart_by_its_defaults_is_the_case_of_the_analysis(tmp_path: Path):
    write(
        tmp_path,
        {"d/v.yaml": "apiVersion: trimtab/v1\nkind: Release\nmetadata: {name: v, owner: team}\nspec: {chart: validator}\n"},
    )  # fmt: skip
    desired = source_of(tmp_path / "d", REPOSITORY / "configs").load()
    assert (desired.problems, desired.blind) == ((), False)
    assert [one.key.name for one in desired.services] == ["v-helper", "v-monitoring", "v-node"]
    assert [one.key.name for one in desired.volumes] == ["v-data"]
    for service in desired.services:
        spec = service.spec
        assert spec.image.startswith("ghcr.io/platformnetwork/")
        assert spec.network.mode == "isolated"
        assert spec.security.read_only_root_filesystem
        assert spec.security.cap_add == ()
        assert None not in {spec.resources.memory, spec.resources.cpus, spec.resources.pids}
        assert not any(mount.type == "bind" for mount in spec.mounts)
    published = [port for one in desired.services for port in one.spec.ports]
    assert [(port.host, port.host_ip) for port in published] == [(19090, "127.0.0.1")]


def test_the_validator_chart_can_leave_out_helper_and_monitoring(tmp_path: Path):
    write(
        tmp_path,
        {
            "d/v.yaml": "apiVersion: trimtab/v1\nkind: Release\nmetadata: {name: v, owner: team}\n"
            "spec:\n  chart: validator\n"
            "  values: {helper: {enabled: false}, monitoring: {enabled: false}, node: {command: [a]}}\n"
        },
    )
    desired = source_of(tmp_path / "d", REPOSITORY / "configs").load()
    assert desired.problems == ()
    assert [(one.key.name, one.spec.command) for one in desired.services] == [("v-node", ("a",))]


def test_the_examples_have_no_problem_and_need_no_registry():
    root = REPOSITORY / "desired-state"
    desired = source_of(root, REPOSITORY / "configs").load()
    assert (desired.problems, desired.blind) == ((), False)
    assert [str(one.key) for one in desired.services] == [
        "Service/default/gateway",
        "Service/default/web",
        "Service/default/worker",
        "Service/validators/validator-helper",
        "Service/validators/validator-monitoring",
        "Service/validators/validator-node",
    ]
    assert {one.spec.image for one in desired.services} == {
        "trimtab.local/web:1",
        "trimtab.local/worker:1",
    }
