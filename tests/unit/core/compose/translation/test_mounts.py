"""Volumes, binds, files and tmpfs of Compose services."""

from __future__ import annotations

import posixpath
from typing import Any

import pytest

from controller.core.compose.translation.scope import ComposeSettings, FoundPath
from tests.unit.core.compose.canonical import (
    FILE,
    problems,
    project_of,
    service,
    translation,
    trees,
)

FILES = {
    "./nginx.conf": FILE,
    "./run.sh": FoundPath("file", executable=True),
    "./html": FoundPath("folder", names=("a.html", "b/c.html")),
    "./big": FoundPath("folder", reason="more than 1000 files"),
    "./other/nginx.conf": FILE,
    "../out": FoundPath("outside"),
    "./pipe": FoundPath("other"),
}


@pytest.mark.parametrize(
    ("body", "mount"),
    [
        (
            "volumes: [{type: volume, source: d_1, target: /d/}]",
            {"type": "volume", "source": "d-1", "target": "/d"},
        ),
        (
            "volumes: [{type: volume, source: d, target: /d, read_only: true, volume: {nocopy: true, subpath: x}}]",
            {
                "type": "volume",
                "source": "d",
                "target": "/d",
                "readOnly": True,
                "noCopy": True,
                "subpath": "x",
            },
        ),
        (
            "volumes: [{type: volume, target: /a}]",
            {"type": "volume", "source": "web-a", "target": "/a"},
        ),
        (
            "volumes: [{type: bind, source: /tmp/x, target: /x, bind: {create_host_path: true}}]",
            {"type": "bind", "source": "/tmp/x", "target": "/x"},
        ),
        (
            "volumes: [{type: bind, source: ./nginx.conf, target: /n, read_only: true}]",
            {
                "type": "config",
                "source": "nginx-conf",
                "target": "/n",
                "key": "nginx.conf",
                "mode": "0444",
            },
        ),
        (
            "volumes: [{type: bind, source: ./run.sh, target: /r, read_only: true}]",
            {"type": "config", "source": "run-sh", "target": "/r", "key": "run.sh", "mode": "0555"},
        ),
        (
            "volumes: [{type: bind, source: ./html, target: /h, read_only: true}]",
            {"type": "config", "source": "html", "target": "/h", "mode": "0444"},
        ),
        (
            "volumes: [{type: tmpfs, target: /t, tmpfs: {size: '1048576', mode: 1023}}]",
            {"type": "tmpfs", "target": "/t", "size": "1Mi", "mode": "1777"},
        ),
        ("volumes: [{type: tmpfs, target: /t}]", {"type": "tmpfs", "target": "/t", "size": "64Mi"}),
        (
            "tmpfs: ['/t:size=1m,mode=1777,exec,nosuid']",
            {"type": "tmpfs", "target": "/t", "size": "1Mi", "mode": "1777", "exec": True},
        ),
        ("tmpfs: [/t]", {"type": "tmpfs", "target": "/t", "size": "64Mi"}),
        (
            "configs: [{source: c}]",
            {"type": "config", "source": "c", "target": "/c", "key": "c", "mode": "0444"},
        ),
        (
            "configs: [{source: c, target: /e, uid: '5', gid: '6', mode: 288}]",
            {
                "type": "config",
                "source": "c",
                "target": "/e",
                "key": "c",
                "uid": 5,
                "gid": 6,
                "mode": "0440",
            },
        ),
        (
            "secrets: [{source: s_1}]",
            {"type": "secret", "source": "s-1", "target": "/run/secrets/s_1", "key": "s_1"},
        ),
        (
            "secrets: [{source: s, target: t, mode: 0600}]",
            {
                "type": "secret",
                "source": "s",
                "target": "/run/secrets/t",
                "key": "s",
                "mode": "0400",
            },
        ),
    ],
)
def test_a_mount(body: str, mount: dict[str, Any]) -> None:
    assert service(body, files=FILES)["mounts"] == [mount]


@pytest.mark.parametrize(
    ("mount", "problem"),
    [
        (
            "{type: bind, source: ./nginx.conf, target: /n}",
            "warning compose.read-only: the container can't",
        ),
        (
            "{type: bind, source: ./html, target: /h}",
            "error compose.refused: ./html is a folder of the",
        ),
        (
            "{type: tmpfs, target: /t, read_only: true}",
            "error compose.refused: the tmpfs at /t can't",
        ),
        (
            "{type: bind, source: ./big, target: /h, read_only: true}",
            "error compose.refused: ./big can't",
        ),
        ("{type: bind, source: ./gone, target: /g}", "error compose.refused: ./gone doesn't exist"),
        (
            "{type: bind, source: ../out, target: /g}",
            "error compose.refused: ../out leads out of the",
        ),
        (
            "{type: bind, source: ./pipe, target: /g}",
            "error compose.refused: ./pipe is no regular file",
        ),
        ("{type: npipe, source: x, target: /g}", "error compose.refused: a mount of type npipe"),
        (
            "{type: bind, source: /tmp/x, target: /x, read_only: true, bind: {propagation: rshared}}",
            "error compose.refused: volumes[0].bind.propagation",
        ),
    ],
)
def test_a_mount_has_a_problem_at_its_line(mount: str, problem: str) -> None:
    text = project_of(f"volumes:\n- {mount}")
    found = [line for line in problems(text, files=FILES) if line.startswith(("4", "5"))]
    assert found[0].partition(" ")[2].startswith(problem), found


HERE = ComposeSettings(directory="/home/me/stacks")
ON_HOST = {
    **FILES,
    "./data": FoundPath("folder"),
    "./conf": FoundPath("folder"),
    "./app": FoundPath("folder"),
    "./huge.log": FoundPath("file", reason="it has more than 1Mi"),
    "./data/one.txt": FILE,
}


def bound(*mounts: str, more: str = "", home: str = "/home/me/stacks") -> list[Any]:
    """Return the mounts of the service *web* in a directory of the host."""
    body = "volumes:\n" + "".join(f"- {{type: bind, {each}}}\n" for each in mounts)
    settings = ComposeSettings(directory=home)
    found = trees(project_of(body) + more, settings=settings, files=ON_HOST)
    return [
        (
            m["source"],
            m["type"] + ("" if m.get("readOnly") or m["type"] == "config" else ", writable"),
        )
        for m in found["Service/web"].get("mounts", [])
    ]


@pytest.mark.parametrize(
    "source",
    ["./data", "/home/me/stacks/data", "/home/me/stacks/x/../data/", "~/stacks/data"],
)
def test_a_folder_of_the_project_is_writable_by_each_of_its_names(source: str) -> None:
    assert bound(f"source: {source}, target: /d") == [("/home/me/stacks/data", "bind, writable")]


def test_a_missing_folder_is_mounted_and_a_forgotten_file_is_a_problem() -> None:
    assert bound("source: ./new/.data, target: /d") == [
        ("/home/me/stacks/new/.data", "bind, writable")
    ]
    (problem,) = problems(
        project_of("volumes: [{type: bind, source: ./gone.conf, target: /c}]"), settings=HERE
    )
    assert problem.startswith("4 error compose.refused: ./gone.conf doesn't exist")


def test_a_folder_with_what_is_read_for_the_project_is_read_only() -> None:
    reads = "configs: {c: {file: ./conf/c.txt}}\n"
    builds = "  api: {image: 'x:1', build: {context: ./app}}\n"
    for source, more in ((".", ""), ("./conf", reads), ("./app", builds)):
        place = posixpath.normpath(f"/home/me/stacks/{source}")
        assert bound(f"source: {source}, target: /x", more=more) == [(place, "bind")]
        text = project_of(f"volumes:\n- {{type: bind, source: {source}, target: /x}}") + more
        found = problems(text, settings=HERE, files=ON_HOST)
        assert any(
            f"5 warning compose.read-only: the container can't write to /x: {source} holds" in each
            for each in found
        ), found


def test_what_containers_write_to_is_delivered_to_nobody_as_a_config() -> None:
    assert bound(
        "source: ./data, target: /d",
        "source: ./data, target: /r, read_only: true",
        "source: ./data/one.txt, target: /one, read_only: true",
        "source: ./html, target: /h, read_only: true",
    ) == [
        ("/home/me/stacks/data", "bind, writable"),
        ("/home/me/stacks/data", "bind"),
        ("/home/me/stacks/data/one.txt", "bind"),
        ("html", "config"),
    ]


def test_a_file_or_folder_too_large_for_a_config_is_bound_read_only() -> None:
    assert bound(
        "source: ./huge.log, target: /l", "source: ./big, target: /b, read_only: true"
    ) == [("/home/me/stacks/huge.log", "bind"), ("/home/me/stacks/big", "bind")]
    text = project_of("volumes: [{type: bind, source: ./huge.log, target: /l}]")
    (problem,) = problems(text, files=ON_HOST)
    assert "can't be delivered as a Config: it has more than 1Mi" in problem


def test_a_home_is_that_around_the_directory() -> None:
    assert bound("source: ~/music, target: /m") == [("/home/me/music", "bind, writable")]
    assert bound("source: ~/music, target: /m", home="/root/x") == [
        ("/root/music", "bind, writable")
    ]
    text = project_of("volumes: [{type: bind, source: ~/music, target: /m}]")
    (problem,) = problems(text, settings=ComposeSettings(directory="/srv/stacks"))
    assert problem.startswith("4 error compose.home: '~/music' depends on")


def test_a_service_with_a_writable_folder_stops_before_its_successor_starts() -> None:
    body = "volumes: [{type: bind, source: ./data, target: /d}]"
    assert service(body, settings=HERE, files=ON_HOST)["rollout"] == {"order": "StopFirst"}
    assert "rollout" not in service(
        body.replace("/d}", "/d, read_only: true}"),
        files=FILES | {"./data": FoundPath("folder", names=("a",))},
    )


def test_files_of_the_project_become_configs_with_names_of_their_own() -> None:
    body = (
        "volumes:\n"
        "- {type: bind, source: ./nginx.conf, target: /a, read_only: true}\n"
        "- {type: bind, source: ./nginx.conf, target: /b, read_only: true}\n"
        "- {type: bind, source: ./other/nginx.conf, target: /c, read_only: true}\n"
    )
    found = {
        k: v for k, v in trees(project_of(body), files=FILES).items() if k.startswith("Config")
    }
    assert found.pop("Config/nginx-conf") == {"files": {"nginx.conf": "nginx.conf"}}
    ((name, spec),) = found.items()
    assert name.startswith("Config/nginx-conf")
    assert spec == {"files": {"nginx.conf": "other/nginx.conf"}}


def test_a_volume_with_several_writers_is_shared_and_its_services_stop_first() -> None:
    writer = "    volumes: [{type: volume, source: data, target: /d}]\n"
    text = f"services:\n  db:\n    image: x:1\n{writer}  backup:\n    image: x:1\n{writer}"
    found = trees(text)
    for name in ("Service/db", "Service/backup"):
        assert found[name]["mounts"][0]["shared"] is True
        assert found[name]["rollout"] == {"order": "StopFirst"}
    alone = trees(f"services:\n  db:\n    image: x:1\n{writer}")["Service/db"]
    assert "shared" not in alone["mounts"][0]
    assert "rollout" not in alone
    assert trees(f"services:\n  db:\n    image: x:1\n    scale: 2\n{writer}")["Service/db"][
        "mounts"
    ][0]["shared"]


def test_a_volume_without_a_name_gets_a_kept_volume() -> None:
    assert "Volume/web-var-lib" in trees(project_of("volumes: [{type: volume, target: /var/lib}]"))
    (problem,) = problems(project_of("scale: 2\nvolumes: [{type: volume, target: /v}]"))
    assert problem.startswith("5 error compose.refused: each replica would need a volume")


def test_a_folder_that_delivers_variables_is_announced() -> None:
    body = "volumes: [{type: bind, source: ./app, target: /app, read_only: true}]"
    names = ("app.py", "conf/.env", "db.env")
    files = {"./app": FoundPath("folder", names=names)}
    (warning,) = translation(f"services:\n  web: {{image: 'x:1', {body}}}\n", files=files).problems
    assert warning.code == "compose.variables-delivered"
    assert warning.message.startswith("conf/.env and 1 more of ./app is delivered to /app")


TAKING = """\
services:
  db:
    image: x:1
    volumes:
      - {type: volume, source: data, target: /data/}
      - {type: volume, source: read, target: /read, read_only: true}
      - {type: volume, target: /own}
      - {type: bind, source: /srv/x, target: /x}
      - {type: bind, source: ./nginx.conf, target: /n, read_only: true}
      - {type: volume, source: data, target: /mine}
    tmpfs: [/t]
    configs: [{source: c}]
  job:
    image: x:1
    volumes_from: ['db:MODE']
    volumes: [{type: volume, source: other, target: /mine}]
    configs: [{source: c, target: /n}]
    tmpfs: ['/x:size=1m']
    depends_on: {db: {condition: service_started}}
  third:
    image: x:1
    volumes_from: [job]
volumes: {data: {}, read: {}, other: {}}
configs: {c: {content: text}}
"""


def mounted(tree: dict[str, Any]) -> dict[str, str]:
    """Return what is at each path, with the words of the mount."""
    words = {"shared": "shared", "readOnly": "ro", "noCopy": "nocopy"}
    return {
        each["target"]: " ".join(
            [
                each.get("source", each["type"]),
                *(word for key, word in words.items() if each.get(key)),
            ]
        )
        for each in tree["mounts"]
    }


def test_a_service_takes_the_volumes_and_binds_of_another_one() -> None:
    found = trees(TAKING.replace("MODE", "rw"), files=FILES)
    assert mounted(found["Service/db"]) == {
        "/data": "data shared",
        "/read": "read ro",
        "/own": "db-own shared",
        "/x": "/srv/x",
        "/n": "nginx-conf",
        "/mine": "data shared",
        "/t": "tmpfs",
        "/c": "c",
    }
    taken = {
        "/data": "data shared nocopy",
        "/read": "read ro nocopy",
        "/own": "db-own shared nocopy",
    }
    assert mounted(found["Service/job"]) == {
        **taken,
        "/mine": "other shared",
        "/n": "c",
        "/x": "tmpfs",
    }
    assert mounted(found["Service/third"]) == {**taken, "/mine": "other shared nocopy"}
    assert [name for name in found if name.startswith("Volume/")].count("Volume/db-own") == 1


def test_taken_mounts_can_be_read_only_and_then_nobody_else_writes() -> None:
    found = trees(TAKING.replace("MODE", "ro"), files=FILES)
    assert mounted(found["Service/third"])["/data"] == "data ro nocopy"
    assert mounted(found["Service/db"])["/own"] == "db-own"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("db", "5 warning compose.by-policy: volumes that the image of db declares are not taken"),
        ("container:db", "5 error compose.refused: volumes_from container:db is not supported"),
        ("db:z", "5 error compose.refused: volumes_from db:z has the mode z"),
    ],
)
def test_mounts_of_others_have_their_problems_at_the_line(text: str, problem: str) -> None:
    project = f"services:\n  web:\n    image: x:1\n    volumes_from:\n      - {text}\n  db: {{image: 'x:1'}}\n"
    (found,) = problems(project)
    assert found.startswith(problem)


def test_taken_mounts_are_bounded() -> None:
    """A long chain, and services that all take many mounts, cost no more than the bound."""
    volumes = ", ".join(f"{{type: bind, source: /srv/{n}, target: /{n}}}" for n in range(500))
    lines = [f"  s0: {{image: 'x:1', volumes: [{volumes}]}}"]
    lines += [f"  s{n}: {{image: 'x:1', volumes_from: [s{n - 1}]}}" for n in range(1, 1200)]
    text = "services:\n" + "\n".join(reversed(lines)) + "\n"
    refused = [line for line in problems(text) if "more than 10000 mounts" in line]
    assert len(refused) == 1199
    assert trees(text)["Service/s0"]["mounts"]
