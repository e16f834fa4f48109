"""Bad input: a clear problem or a bounded refusal, all else converges, and nothing is removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.hostile.chart_bombs import BOMBS, TEMPLATE
from tests.instance import Host, eventually, web

MIB = 1024 * 1024
FILES = 300

Place = tuple[str, int, int]


def problems(host: Host) -> dict[str, Place]:
    """Return code, line and column of the problem of each file that has one."""
    found = (host.status() or {"problems": []})["problems"]
    return {p["file"]: (p["code"], p["line"], p["column"]) for p in found if p["file"]}


def bomb() -> str:
    """Return a document that would be 10^9 texts with its aliases expanded."""
    lines = ["a0: &a0 [" + ", ".join(["lol"] * 10) + "]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join(lines) + "\n"


def most_memory(pid: int) -> int:
    """Return the most memory that a process has had so far, in bytes (proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no VmHWM of {pid}")


#: What a file becomes, some of them while their services run, and the problem that it gets.
SPOILT: dict[str, tuple[str, Place]] = {
    "key.yaml": (web("key").replace("image:", "imgae:"), ("field.unknown", 5, 3)),
    "twice.yaml": (web("twice") + "  replicas: 2\n", ("yaml.duplicate-key", 8, 3)),
    "type.yaml": (web("type").replace("replicas: 1", "replicas: many"), ("field.type", 6, 13)),
    "big.yaml": (web("big") + "#" * (10 * MIB), ("file.too-big", 0, 0)),
    "bomb.yaml": (bomb(), ("yaml.limit", 1, 30)),
    "cut.yaml": (web("cut")[:60], ("yaml.syntax", 3, 24)),
    "binary.yaml": ("\0\1\2" * 1000, ("yaml.character", 1, 1)),
}
#: To services these are as the others: a document with an error, and a file without a document.
NEVER_RAN = ("twice.yaml", "type.yaml", "binary.yaml")


@pytest.mark.timeout(300)
def test_spoilt_files_are_reported_by_place_and_nothing_that_ran_is_removed(host: Host) -> None:
    names = [file.removesuffix(".yaml") for file in SPOILT if file not in NEVER_RAN]
    names += ["same", "link", "closed", "pipe", "empty", "fine"]
    for name in names:
        host.write(f"{name}.yaml", web(name))
    with host.running():
        before = {name: host.running_ids(name) for name in names}
        assert all(len(ids) == 1 for ids in before.values()), before
        for file, (text, _) in SPOILT.items():
            host.write(file, text)
        host.write("same-too.yaml", web("same"))
        host.write("empty.yaml", "")
        (host.directory / "closed.yaml").chmod(0o000)
        outside = host.folder / "outside.yaml"
        outside.write_text(web("link"))
        for name in ("link", "pipe"):
            host.remove(f"{name}.yaml")
        (host.directory / "link.yaml").symlink_to(outside)
        os.mkfifo(host.directory / "pipe.yaml")
        told = {file: place for file, (_, place) in SPOILT.items()} | {
            "same.yaml": ("document.duplicate", 3, 18),
            "same-too.yaml": ("document.duplicate", 3, 18),
            "closed.yaml": ("file.unreadable", 0, 0),
            "link.yaml": ("file.outside", 0, 0),
            "pipe.yaml": ("file.special", 0, 0),
        }
        try:
            eventually(lambda: problems(host) == told, within_s=25)
        except AssertionError:
            assert problems(host) == told
            raise

        # Everything else converges: what is new, changed, or harmed from outside.
        host.write("fresh.yaml", web("fresh"))
        host.write("fine.yaml", web("fine", replicas=2))
        host.engine.docker("rm", "-f", before["cut"][0])
        eventually(lambda: len(host.running_ids("fine")) == 2 and host.is_ready("fresh"))
        del before["cut"], before["fine"]
        assert {name: host.running_ids(name) for name in before} == before
        assert most_memory(host.pid_of("controller")) < 512 * MIB
        host.cli("plan", expect=3)
        host.cli("validate", str(host.directory), expect=3)

        # And once mended, all is as if nothing had been.
        for name in (*before, "cut"):
            (host.directory / f"{name}.yaml").unlink()
            host.write(f"{name}.yaml", web(name))
        for file in ("same-too.yaml", *NEVER_RAN):
            host.remove(file)
        host.await_ready(*before, "cut", "fine", "fresh")
        assert {name: host.running_ids(name) for name in before} == before
        waits_for_a_file_that_is_being_written(host)
        removes_nothing_while_a_file_is_in_the_directorys_place(host)
        hundreds_of_files_are_taken_in_and_one_broken_among_them_found(host)
    assert "Traceback" not in host.said()


def waits_for_a_file_that_is_being_written(host: Host) -> None:
    text = web("slow", replicas=2)
    with (host.directory / "slow.yaml").open("w", buffering=1) as file:
        file.write(text[: text.index("replicas: 2") - 4])
        file.flush()
        eventually(lambda: "slow.yaml" in problems(host), within_s=25)
        assert host.is_ready("fine")
        assert not host.containers("slow")
        file.write(text[text.index("replicas: 2") - 4 :])
    host.await_ready("slow", "fine")
    assert len(host.running_ids("slow")) == 2
    assert problems(host) == {}


def removes_nothing_while_a_file_is_in_the_directorys_place(host: Host) -> None:
    before = host.running_ids("slow") + host.running_ids("fresh")
    aside = host.directory.rename(host.folder / "aside")
    host.directory.write_text(web("other"))
    said = "no directory"

    def blind() -> bool:
        found = (host.status() or {"problems": []})["problems"]
        return any(p["code"] == "source.missing" and said in p["message"] for p in found)

    eventually(blind, within_s=25)
    host.cli("plan", expect=3)
    host.engine.docker("kill", before[0])
    assert host.running_ids("fresh") == before[-1:]
    host.directory.unlink()
    aside.rename(host.directory)
    host.await_ready("slow", "fresh")
    eventually(lambda: {*host.running_ids("slow"), *host.running_ids("fresh")} == {*before})
    assert not host.containers("other")


def hundreds_of_files_are_taken_in_and_one_broken_among_them_found(host: Host) -> None:
    many = host.folder / "many"
    many.mkdir()
    for number in range(FILES):
        (many / f"s{number:04}.yaml").write_text(web(f"s{number:04}", replicas=0))
    before, running = len(resources(host)), host.running_ids("fresh")
    many.rename(host.directory / "many")
    eventually(lambda: len(resources(host)) == before + FILES, what="all files are read")
    host.write("many/s0100.yaml", web("s0100").replace("replicas: 1", "replica: 1"))
    host.write("api.yaml", web("api"))
    eventually(lambda: problems(host) == {"many/s0100.yaml": ("field.unknown", 6, 3)})
    eventually(lambda: host.is_ready("api"))
    assert len(resources(host)) == before + FILES, "api came, and the broken one went"
    assert host.running_ids("fresh") == running


def resources(host: Host) -> list[object]:
    return list((host.status() or {"resources": []})["resources"])


#: A template and a schema without end; ``tests/hostile`` renders charts of every kind.
CHARTS = ("in", "pattern")


def write_charts(host: Host, *names: str) -> None:
    for name in names:
        for path, text in BOMBS[name].write_to(name).items():
            if path.startswith("desired-state/"):
                host.write(path.removeprefix("desired-state/"), text)
                continue
            place = host.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)


@pytest.mark.timeout(300)
def test_charts_without_end_stop_neither_the_loop_nor_a_restart(host: Host) -> None:
    told = {
        f"configs/{name}/{BOMBS[name].file}": (BOMBS[name].code, BOMBS[name].line)
        for name in CHARTS
    }

    def all_told() -> bool:
        return {file: place[:2] for file, place in problems(host).items()} == told

    def reasons() -> set[str]:
        found = (host.resource(name, namespace="bombs") for name in CHARTS)
        return {each["reason"] for one in found for each in one.get("conditions", ())[:1]}

    host.write("steady.yaml", web("steady"))
    # This Release is good at first: what it rendered stays as it is once its chart is spoilt.
    write_charts(host, "in")
    template = host.folder / "configs" / "in" / TEMPLATE
    template.write_text(web("rendered").replace(", namespace: default", ""))
    with host.running():
        before = host.running_ids("rendered")
        assert len(before) == 1
        write_charts(host, *CHARTS)
        host.write("fresh.yaml", web("fresh"))
        eventually(all_told, within_s=60)
        assert reasons() <= {"chart.template", "chart.too-costly"}
        (harmed,) = host.running_ids("steady")
        host.engine.docker("rm", "-f", harmed)
        eventually(lambda: host.is_ready("fresh") and host.is_ready("steady"))
        assert host.running_ids("steady") != [harmed]
        assert host.running_ids("rendered") == before
        assert most_memory(host.pid_of("controller")) < 512 * MIB
    harmed_between = host.running_ids("steady")
    host.engine.docker("rm", "-f", *harmed_between)
    host.up()
    try:
        eventually(lambda: all_told() and host.is_ready("steady"), within_s=60)
        assert host.running_ids("rendered") == before
    finally:
        host.stop()
    assert "Traceback" not in host.said()
