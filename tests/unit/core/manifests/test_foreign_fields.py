"""Fields and short forms of compose, docker and Kubernetes get the line to write instead."""

from __future__ import annotations

import pytest

from controller.core.manifests.check_together import desired_of
from controller.core.manifests.foreign_fields import _KEYS, form_remedy, key_remedy, word_remedy
from controller.core.manifests.parse import ServiceManifest
from controller.core.manifests.short_forms import duration_remedy, size_remedy
from controller.model.desired.spec.fields import Model
from tests.unit.core.manifests.test_check_together import service


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("512M", "write 512Mi (536870912 bytes) or 488Mi (511705088 bytes)"),
        ("100MB", "write 100Mi (104857600 bytes) or 95Mi (99614720 bytes)"),
        ("2G", "write 2Gi (2147483648 bytes) or 1907Mi (1999634432 bytes)"),
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
        ("1.5s", "write 1500ms"),
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
    ("path", "value", "remedy"),
    [
        (("dependsOn", 0), "postgres", "write {name: postgres}"),
        (("dependsOn", 0), "No Name", "write {name: SERVICE}"),
        (
            ("dependsOn",),
            {"db": {"condition": "service_healthy"}, "cache": {"condition": "service_started"}},
            "write [{name: db, condition: Healthy}, {name: cache}]",
        ),
        (("dependsOn",), "db", "write [{name: SERVICE}]"),
        (("dependsOn",), ["a", "b", "c", "d"], "write [{name: a}, {name: b}, {name: c}, …]"),
        (("ports", 0), "443:443", "write {container: 443, host: 443}"),
        (("ports", 0), 80, "write {container: 80}"),
        (
            ("ports", 0),
            "127.0.0.1:5353:53/udp",
            "write {container: 53, host: 5353, hostIP: 127.0.0.1, protocol: udp}",
        ),
        (("ports", 0), "[::1]:80:8080", 'write {container: 8080, host: 80, hostIP: "::1"}'),
        (
            ("ports", 0),
            "8000-8010:8000-8010",
            "write {container: 8000-8010, host: 8000-8010}",
        ),
        (
            ("ports", 0),
            "http",
            "write {container: 80}, or {container: 80, host: 8080} to publish it",
        ),
        (("mounts", 0), "db_data:/x", "write {type: volume, source: db-data, target: /x}"),
        (("mounts", 0), "/data", "write {type: volume, source: NAME, target: /data}"),
        (
            ("mounts", 0),
            "./nginx.conf:/etc/nginx/nginx.conf:ro",
            (
                "write {type: bind, source: /ABSOLUTE/nginx.conf, target: /etc/nginx/nginx.conf,"
                " readOnly: true}"
            ),
        ),
        (
            ("mounts", 0),
            "what: ever",
            "write mounts: [{type: volume, source: NAME, target: /PATH}]",
        ),
        (("env",), ["A=secret", "B"], "write a mapping: {A: VALUE, B: VALUE}"),
        (("env",), ["", "= x"], "write a mapping: {NAME: VALUE}"),
        (("env",), "A=b", ""),
        (
            ("extraHosts",),
            ["db:10.0.0.5", "h=host-gateway"],
            'write {db: "10.0.0.5", h: "host-gateway"}',
        ),
        (("extraHosts",), ["no address"], "write {NAME: ADDRESS}"),
        (("dns",), ["9.9.9.9", "::1"], 'write {servers: [9.9.9.9, "::1"]}'),
        (("dns",), "9.9.9.9", "write {servers: [9.9.9.9]}"),
        (("ulimits", "nofile"), "1024:4096", "write {soft: 1024, hard: 4096}"),
        (("ulimits", "nofile"), "many", "write {soft: 1024, hard: 4096}, or one number for both"),
        (("ulimits",), ["nofile=1"], "write a mapping: {nofile: {soft: 1024, hard: 4096}}"),
        (
            ("network", "attach"),
            {"back": {"aliases": ["db"]}, "front": None},
            "write [{name: back, aliases: [db]}, front]",
        ),
        (("network", "attach"), "back", "write [back]"),
        (
            ("groupAdd",),
            "video",
            'write a list of names, or numbers in quotes: [video, "44"]',
        ),
        (("restart",), "unless-stopped", "write {policy: Always}"),
        (("restart",), "on-failure:5", "write {policy: OnFailure}"),
        (("restart",), "no", "write {policy: Never}"),
        (("network",), "bridge", "write {mode: bridge}"),
        (("network",), ["back", "front"], "write {attach: [back, front]}"),
        (
            ("network",),
            "host",
            "no policy admits the host's network: write {mode: isolated}, and publish ports",
        ),
        (
            ("command",),
            "serve it",
            'write a list with one item for each argument, such as [sh, -c, "COMMAND"]',
        ),
        (("security", "capAdd"), "CHOWN", "write a list, such as [CHOWN]"),
        (("resources",), "512M", ""),
        (("labels", 0), "x", ""),
    ],
)
def test_another_form_is_written_out(
    path: tuple[str | int, ...], value: object, remedy: str
) -> None:
    assert form_remedy(("spec", *path), value) == remedy


@pytest.mark.parametrize(
    ("path", "value", "remedy"),
    [
        (("environment",), {"A": "secret"}, "write env: {A: VALUE}"),
        (
            ("environment",),
            ["A=secret", "B=c", "C=d", "D=e"],
            "write env: {A: VALUE, B: VALUE, C: VALUE, …}",
        ),
        (("environment",), None, "write env: {NAME: VALUE}"),
        (("depends_on",), ["db"], "write dependsOn: [{name: db}]"),
        (("depends_on",), None, "write dependsOn: [{name: SERVICE}]"),
        (
            ("volumes",),
            ["data:/a", "/srv/b:/b:ro"],
            (
                "write mounts: [{type: volume, source: data, target: /a},"
                " {type: bind, source: /srv/b, target: /b, readOnly: true}]"
            ),
        ),
        (("volumes",), [5], "write mounts: [{type: volume, source: NAME, target: /PATH}]"),
        (("mem_limit",), "512m", "write resources: {memory: 512Mi}"),
        (("mem_limit",), "lots", "write resources: {memory: 512Mi}"),
        (("cpus",), "1.5", "write resources: {cpus: 1.5}"),
        (("shm_size",), "64m", "write resources: {shm: 64Mi}"),
        (("privileged",), True, "remove it: no policy admits a privileged container"),
        (("ports", 0, "published"), 80, "write host: 8080"),
        (("healthcheck", "start_period"), "5s", "write startPeriod: 30s"),
        (
            ("resources", "limits"),
            {},
            "write resources: {memory: 512Mi, cpus: 0.5}, without another level",
        ),
        (("unheard_of",), 1, ""),
    ],
)
def test_a_key_of_another_tool_has_its_place_here(
    path: tuple[str | int, ...], value: object, remedy: str
) -> None:
    assert key_remedy(("spec", *path), value) == remedy


@pytest.mark.parametrize(
    ("path", "value", "remedy"),
    [
        (("restart", "policy"), "unless-stopped", "write Always"),
        (("dependsOn", 0, "condition"), "service_completed_successfully", "write Completed"),
        (("pullPolicy",), "missing", "write IfNotPresent"),
        (("restart", "policy"), 5, ""),
        (("state",), "missing", ""),
    ],
)
def test_a_word_of_another_tool_has_its_word_here(
    path: tuple[str | int, ...], value: object, remedy: str
) -> None:
    assert word_remedy(("spec", *path), value) == remedy


def test_no_key_that_is_ours_is_taken_for_another_tools() -> None:
    def known(path: tuple[str, ...]) -> set[str]:
        model: type[Model] = ServiceManifest.model_fields["spec"].annotation  # type: ignore[assignment]
        for part in path:
            field = next(f for n, f in model.model_fields.items() if (f.alias or n) == part)
            model = _models(field.annotation)[0]
        return {field.alias or name for name, field in model.model_fields.items()}

    for path, keys in _KEYS.items():
        assert not known(path) & keys.keys(), path


def _models(annotation: object) -> list[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation]
    inner = getattr(annotation, "__args__", ())
    return [model for each in inner for model in _models(each)]


def test_what_people_write_is_told_with_what_to_write() -> None:
    text = service("enviroment: {A: b}, restart: always, volumes: ['d:/d'], capAdd: [CHOWN]")
    assert sorted(problem.remedy for problem in desired_of({"f.yaml": text}).problems) == [
        "write env: {A: VALUE}",
        "write mounts: [{type: volume, source: d, target: /d}]",
        "write security: {capAdd: [NAME]}",
        "write {policy: Always}",
    ]
