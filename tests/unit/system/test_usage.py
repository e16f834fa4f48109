from __future__ import annotations

from pathlib import Path

from controller.model.observed import ContainerUse
from controller.system.usage import SEARCH_S, CgroupReader, process_use

ID, OTHER = "ab" * 32, "cd" * 32


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def v1(root: Path, folder: str) -> None:
    write(root / "cpuacct" / folder, cpuacct__usage="1500000000\n")
    stat = "cache 100\ninactive_file 7\ntotal_inactive_file 300\n"
    write(root / "memory" / folder, memory__usage_in_bytes="1000\n", memory__stat=stat)
    write(root / "pids" / folder, pids__current="4\n")


def v2(root: Path, folder: str) -> None:
    write(root, cgroup__controllers="cpu memory pids\n")
    write(
        root / folder,
        cpu__stat="usage_usec 1500000\nuser_usec 1000000\n",
        memory__current="1000\n",
        memory__stat="anon 1\ninactive_file 300\n",
        pids__current="4\n",
    )


class Ticks:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_both_versions_of_cgroups_are_read_in_the_folders_of_engines(tmp_path: Path) -> None:
    used = ContainerUse(1.5, 700, 4)
    for version, name in ((v1, "one"), (v2, "two")):
        root = tmp_path / name
        version(root, f"docker/{ID}")
        version(root, f"system.slice/docker-{OTHER}.scope")
        assert CgroupReader(Ticks(), root).read([ID, OTHER]) == {ID: used, OTHER: used}


def test_a_container_with_another_parent_is_searched_for_now_and_then(tmp_path: Path) -> None:
    ticks = Ticks()
    v1(tmp_path, f"slice/of/tenants/{ID}")
    reader = CgroupReader(ticks, tmp_path)
    assert reader.read([ID]).keys() == {ID}
    v1(tmp_path, f"elsewhere/docker-{OTHER}.scope")
    ticks.now += SEARCH_S / 2
    assert reader.read([ID, OTHER]).keys() == {ID}
    ticks.now += SEARCH_S
    assert reader.read([ID, OTHER]).keys() == {ID, OTHER}


def test_a_search_ends_in_a_large_tree(tmp_path: Path) -> None:
    for n in range(20):
        (tmp_path / "cpuacct" / f"a{n}").mkdir(parents=True)
    v1(tmp_path, f"x/{ID}")
    reader = CgroupReader(Ticks(), tmp_path, folders_max=10)
    assert reader.read([ID]) == {}


def test_a_container_without_files_or_with_others_is_left_out(tmp_path: Path) -> None:
    v1(tmp_path, f"docker/{ID}")
    (tmp_path / "memory" / "docker" / ID / "memory.usage_in_bytes").write_text("much\n")
    assert CgroupReader(Ticks(), tmp_path).read([ID, OTHER]) == {}
    assert CgroupReader(Ticks(), tmp_path / "nowhere").read([ID]) == {}


def test_this_process_uses_something() -> None:
    cpu_s, memory_bytes = process_use()
    assert cpu_s > 0 and memory_bytes > 1 << 20
