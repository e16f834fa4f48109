"""What people know from Compose, docker and Kubernetes: the field to write, and its form."""

from __future__ import annotations

import pytest

from controller.core.manifests.check_together import desired_of
from controller.core.manifests.foreign_fields import (
    _FIELDS,
    _FORMS,
    duration_remedy,
    form_remedy,
    key_remedy,
    size_remedy,
)
from controller.core.manifests.parse import ServiceManifest
from controller.model.desired.spec.fields import Model
from tests.unit.core.manifests.test_check_together import service


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("512M", "write 512Mi"),
        ("100MB", "write 100Mi"),
        ("2G", "write 2Gi"),
        ("512m", "write 512Mi"),
        ("64k", "write 64Ki"),
        ("1.5g", "write 1536Mi"),
        ("1.5Gi", "write 1536Mi"),
        ("2Ti", "write 2048Gi"),
        (536870912, "write 512Mi"),
        ("1000000", "write 976Ki"),
        (512, ""),
        (True, ""),
        ("much", ""),
        ("5x", ""),
    ],
)
def test_a_size_is_written_with_a_unit_of_ours(written: object, remedy: str) -> None:
    assert size_remedy(written) == remedy


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        (30, "write 30s, or another unit: ms, m, h"),
        ("30", "write 30s, or another unit: ms, m, h"),
        ("1m30s", "write 90s"),
        ("2h 30m", "write 150m"),
        ("5 min", "write 5m"),
        ("1d", "write 24h"),
        ("1500ms", "write 2s"),
        ("soon", ""),
        ("0s", ""),
        ("5s later", ""),
        (True, ""),
        (None, ""),
    ],
)
def test_a_duration_is_written_with_a_unit_of_ours(written: object, remedy: str) -> None:
    assert duration_remedy(written) == remedy


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        (("dependsOn", 0), "write dependsOn: [{name: SERVICE}]"),
        (("ports", 0), "write ports: [{container: 80, host: 8080}]"),
        (("env",), "write env: {NAME: VALUE}"),
        (("network", "attach"), "write attach: [NAME]"),
        (("healthcheck", "exec"), 'write exec: [PROGRAM, ARGUMENT], such as [sh, -c, "COMMAND"]'),
        (("resources",), ""),
        (("labels", 0), ""),
    ],
)
def test_a_value_in_another_form_gets_the_form_of_its_field(
    path: tuple[str | int, ...], remedy: str
) -> None:
    assert form_remedy(("spec", *path)) == remedy


CONVERT = "`trimtab convert FILE` prints a Compose file as documents"


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        (("environment",), f"write env: {{NAME: VALUE}}; {CONVERT}"),
        (("depends_on",), f"write dependsOn: [{{name: SERVICE}}]; {CONVERT}"),
        (("mem_limit",), f"write resources.memory; {CONVERT}"),
        (("ports", 0, "published"), f"write host; {CONVERT}"),
        (("privileged",), "remove it: no policy admits it"),
        (("unheard_of",), ""),
    ],
)
def test_a_key_of_another_tool_has_its_field_here(path: tuple[str | int, ...], remedy: str) -> None:
    assert key_remedy(("spec", *path)) == remedy


def is_field(path: str) -> bool:
    """Return True if a Service has a field at a path below its spec."""
    models = [ServiceManifest.model_fields["spec"].annotation]
    for part in path.split("."):
        named = [
            field
            for model in models
            for each in _models(model)
            for name, field in each.model_fields.items()
            if (field.alias or name) == part
        ]
        if not named:
            return False
        models = [field.annotation for field in named]
    return True


def _models(annotation: object) -> list[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation]
    inner = getattr(annotation, "__args__", ())
    return [model for each in inner for model in _models(each)]


def test_each_named_field_exists_and_no_field_is_taken_for_another_tools() -> None:
    written = {f"{key.rpartition('.')[0]}.{field}".strip(".") for key, field in _FIELDS.items()}
    assert [field for field in written if not is_field(field)] == []
    assert [field for field in _FORMS if field != "exec" and not is_field(field)] == []
    assert [key for key in _FIELDS if is_field(key)] == []


def test_what_people_write_is_told_with_what_to_write() -> None:
    text = service("environment: {A: b}, restart: always, volumes: ['d:/d'], capAdd: [CHOWN]")
    assert sorted(problem.remedy for problem in desired_of({"f.yaml": text}).problems) == [
        f"write env: {{NAME: VALUE}}; {CONVERT}",
        f"write mounts: [{{type: volume, source: NAME, target: /PATH}}]; {CONVERT}",
        "write restart: {policy: Always}",
        f"write security.capAdd: [CHOWN]; {CONVERT}",
    ]
