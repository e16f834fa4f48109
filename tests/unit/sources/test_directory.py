"""The desired-state directory: files are read whole and within bounds, or the result is blind.

Each kind of bad input gives a problem; everything else stands, and nothing is raised.
"""

import os
import socket
import time
from pathlib import Path

import pytest

from controller.core.manifests.parse import read_text
from controller.core.yaml.file_limit import MAX_BYTES
from controller.model.desired.desired import Desired
from controller.model.errors import Severity
from controller.sources import safe_read
from controller.sources.directory import DirectorySource


def service(name: str = "web", image: str = "team/web:1") -> str:
    return (
        "apiVersion: trimtab/v1\nkind: Service\n"
        f"metadata: {{name: {name}, owner: team}}\nspec: {{image: '{image}'}}\n"
    )


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def names(desired: Desired) -> str:
    return " ".join(one.key.name for one in desired.services)


def told(desired: Desired) -> list[str]:
    return [f"{p.file} {p.code}" for p in desired.problems]


def check(root: Path, *, services: str, problems: list[str], blind: bool) -> Desired:
    """Compare the result of a first load of *root*."""
    desired = DirectorySource(root).load()
    assert (names(desired), told(desired), desired.blind) == (services, problems, blind)
    return desired


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "desired-state"
    path.mkdir()
    return path


def test_yaml_of_any_depth_is_read_and_everything_else_is_not(root: Path):
    write(
        root,
        {
            "web.yaml": service("web"),
            "a/b/c/d/deep.yml": service("deep"),
            "notes.txt": "kind: [",
            "README.md": "kind: [",
            ".hidden.yaml": "kind: [",
            ".#web.yaml": "kind: [",
            ".web.yaml.swp": "kind: [",
            "web.yaml~": "kind: [",
            "web.yaml.tmp": "kind: [",
            "#web.yaml#": "kind: [",
            ".git/config.yaml": "kind: [",
            ".cache/x.yaml": "kind: [",
        },
    )
    desired = check(root, services="deep web", problems=[], blind=False)
    assert [service.source.file for service in desired.services] == ["a/b/c/d/deep.yml", "web.yaml"]
    identity = desired.identity
    assert (identity.path, identity.present) == (str(root), True)
    assert (identity.device, identity.documents) == (root.stat().st_dev, 2)


def test_a_bad_file_leaves_the_others_standing(root: Path):
    write(
        root,
        {
            "broken.yaml": "kind: [\n",
            "latin.yaml": b"a: \xe9\n",
            "typo.yaml": service("typo").replace("image", "imgae"),
            "web.yaml": service("web"),
        },
    )
    desired = check(
        root,
        services="web",
        problems=[
            "broken.yaml yaml.syntax",
            "latin.yaml yaml.character",
            "typo.yaml field.missing",
            "typo.yaml field.unknown",
        ],
        blind=True,
    )
    assert {str(key) for key in desired.blind_keys} == {"Service/default/typo"}


def test_a_file_of_10_mb_is_refused_without_reading_it(root: Path):
    write(root, {"web.yaml": service("web")})
    reads: list[int] = []

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        reads.append(os.fstat(descriptor).st_size)
        return os.pread(descriptor, count, offset)

    with (root / "big.yaml").open("wb") as file:
        file.truncate(10_000_000)
    desired = DirectorySource(root, pread=pread).load()
    assert (names(desired), told(desired), desired.blind) == (
        "web",
        ["big.yaml file.too-big"],
        True,
    )
    assert max(reads) < MAX_BYTES


def test_an_alias_bomb_is_refused(root: Path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    write(root, {"bomb.yaml": "\n".join(lines), "web.yaml": service("web")})
    check(root, services="web", problems=["bomb.yaml yaml.limit"], blind=True)


def test_links_inside_are_followed_and_each_file_is_read_once(root: Path):
    write(root, {"web.yaml": service("web"), ".store/x/api.yaml": service("api")})
    (root / "again.yaml").symlink_to("web.yaml")
    (root / "team").symlink_to(".store/x")
    (root / "loop").symlink_to(".")
    (root / "team2").symlink_to(".store/x")
    desired = check(root, services="api web", problems=[], blind=False)
    assert [service.source.file for service in desired.services] == ["team/api.yaml", "web.yaml"]


def test_links_that_lead_outside_or_nowhere_are_refused(root: Path, tmp_path: Path):
    write(tmp_path, {"outside/secret.yaml": service("secret"), "outside/readme.txt": "x"})
    write(root, {"web.yaml": service("web")})
    (root / "file.yaml").symlink_to(tmp_path / "outside/secret.yaml")
    (root / "folder").symlink_to("../outside")
    (root / "fine.txt").symlink_to("../outside/readme.txt")
    (root / "circle.yaml").symlink_to("circle.yaml")
    (root / "gone.yaml").symlink_to("nowhere.yaml")
    check(
        root,
        services="web",
        problems=[
            "circle.yaml file.unreadable",
            "file.yaml file.outside",
            "folder file.outside",
            "gone.yaml file.unreadable",
        ],
        blind=True,
    )


def test_a_folder_that_becomes_a_link_while_it_is_read_is_not_followed_outside(
    root: Path, tmp_path: Path
):
    write(tmp_path, {"outside/a.yaml": service("secret")})
    write(root, {"team/a.yaml": service("a")})
    found = safe_read.FolderWalk(str(root)).files()
    (root / "team").rename(root / ".team")
    (root / "team").symlink_to(tmp_path / "outside")
    outcome = safe_read.read_whole(found[0], str(root), is_known=lambda _content: False)
    assert getattr(outcome, "code", "") == "file.unstable"


def test_fifos_sockets_and_devices_are_not_opened(root: Path, monkeypatch: pytest.MonkeyPatch):
    write(root, {"web.yaml": service("web")})
    os.mkfifo(root / "fifo.yaml")
    (root / "null.yaml").symlink_to("/dev/null")
    (root / "inner.yaml").symlink_to("fifo.yaml")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.yaml")
        check(
            root,
            services="web",
            problems=[
                "fifo.yaml file.special",
                "inner.yaml file.special",
                "null.yaml file.outside",
                "socket.yaml file.special",
            ],
            blind=True,
        )


def test_an_unreadable_file_is_a_problem(root: Path):
    # A folder's mode means nothing to root: a file whose reading fails stands for it.
    write(root, {"web.yaml": service("web"), "locked.yaml": service("locked")})

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "locked.yaml":
            raise PermissionError(13, "Permission denied")
        return os.pread(descriptor, count, offset)

    desired = DirectorySource(root, pread=pread).load()
    assert names(desired) == "web"
    assert desired.blind
    (problem,) = desired.problems
    assert problem.render() == (
        "locked.yaml: error file.unreadable: can't be read: Permission denied\n"
        "    remedy: make it readable for the user that trimtab runs as, or move it away"
    )


def test_a_file_that_changes_while_it_is_read_keeps_what_it_said(root: Path):
    write(root, {"web.yaml": service(image="team/web:1"), "api.yaml": service("api")})
    writing = False

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        content = os.pread(descriptor, count, offset)
        if writing and Path(f"/proc/self/fd/{descriptor}").readlink().name == "web.yaml":
            with (root / "web.yaml").open("a") as file:
                file.write("# more\n")
        return content

    source = DirectorySource(root, pread=pread)
    before = source.load()
    writing = True
    during = source.load()
    assert during.services == before.services
    assert (told(during), during.blind) == (["web.yaml file.unstable"], True)
    writing = False
    after = source.load()
    assert (names(after), told(after), after.blind) == ("api web", [], False)


def test_a_file_that_is_new_and_changes_while_it_is_read_waits(root: Path):
    write(root, {"web.yaml": service()})

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        content = os.pread(descriptor, count, offset)
        if not content:
            return content
        status = os.fstat(descriptor)
        # The same length, and the same time: only the bytes differ between two reads.
        text = (root / "web.yaml").read_text()
        (root / "web.yaml").write_text(text.translate(str.maketrans("12", "21")))
        os.utime(root / "web.yaml", ns=(status.st_atime_ns, status.st_mtime_ns))
        return content

    desired = DirectorySource(root, pread=pread).load()
    assert (names(desired), told(desired), desired.blind) == ("", ["web.yaml file.unstable"], True)


def test_a_change_within_one_tick_of_the_clock_is_seen(root: Path):
    write(root, {"web.yaml": service(image="team/web:1")})
    source = DirectorySource(root)
    status = (root / "web.yaml").stat()
    assert source.load().services[0].spec.image == "team/web:1"
    write(root, {"web.yaml": service(image="team/web:2")})
    os.utime(root / "web.yaml", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert source.load().services[0].spec.image == "team/web:2"


@pytest.mark.parametrize("what", ["missing", "file", "circle"])
def test_a_directory_that_is_not_there_is_absent_and_blind(root: Path, what: str):
    write(root, {"web.yaml": service()})
    source = DirectorySource(root)
    assert names(source.load()) == "web"
    (root / "web.yaml").unlink()
    root.rmdir()
    if what == "file":
        root.write_text(service())
    if what == "circle":
        root.symlink_to(root)
    desired = source.load()
    assert (names(desired), told(desired), desired.blind) == ("", [" source.missing"], True)
    assert (desired.identity.present, desired.identity.path) == (False, str(root))
    assert not desired.valid


def test_an_emptied_directory_is_present_and_holds_no_document(root: Path):
    desired = check(root, services="", problems=[], blind=False)
    assert (desired.identity.present, desired.identity.documents) == (True, 0)


def test_the_directory_may_be_a_link_that_is_swapped(root: Path, tmp_path: Path):
    write(tmp_path, {"v1/web.yaml": service(image="a/b:1"), "v2/web.yaml": service(image="a/b:2")})
    link = tmp_path / "current"
    link.symlink_to("v1")
    source = DirectorySource(link)
    assert source.load().services[0].spec.image == "a/b:1"
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").rename(link)
    desired = source.load()
    assert desired.services[0].spec.image == "a/b:2"
    assert (desired.identity.path, desired.blind) == (str(link), False)


def test_a_volume_of_kubernetes_is_followed_through_its_swap(root: Path):
    write(
        root, {"..one/web.yaml": service(image="a/b:1"), "..two/web.yaml": service(image="a/b:2")}
    )
    (root / "..data").symlink_to("..one")
    (root / "web.yaml").symlink_to("..data/web.yaml")
    source = DirectorySource(root)
    assert source.load().services[0].spec.image == "a/b:1"
    (root / "..next").symlink_to("..two")
    (root / "..next").rename(root / "..data")
    desired = source.load()
    assert [(one.spec.image, one.source.file) for one in desired.services] == [
        ("a/b:2", "web.yaml")
    ]
    assert (desired.problems, desired.blind) == ((), False)


def test_odd_file_names_are_printable(root: Path):
    write(root, {"\udcff\n/\x1b[31m.yaml": "a: ["})
    (problem,) = DirectorySource(root).load().problems
    assert problem.file == "\\xff\\n/\\x1b[31m.yaml"
    assert problem.file.isprintable()


def test_bounds_hold_for_files_bytes_and_depth(root: Path, monkeypatch: pytest.MonkeyPatch):
    write(root, {f"{number}.yaml": service(f"s{number}") for number in range(8)})
    write(root, {"/".join(["d"] * 6) + "/deep.yaml": service("deep")})
    monkeypatch.setattr(safe_read, "MAX_FILES", 5)
    desired = DirectorySource(root).load()
    assert (len(desired.services), told(desired), desired.blind) == (5, [" source.too-many"], True)
    monkeypatch.setattr(safe_read, "MAX_FILES", 50)
    monkeypatch.setattr(safe_read, "MAX_DEPTH", 5)
    desired = DirectorySource(root).load()
    assert (told(desired), desired.blind) == (["d/d/d/d/d/d source.too-deep"], True)
    monkeypatch.setattr(safe_read, "MAX_DEPTH", 32)
    monkeypatch.setattr("controller.sources.directory.MAX_TOTAL_BYTES", 300)
    desired = DirectorySource(root).load()
    assert [p.code for p in desired.problems] == ["source.too-big"]
    assert desired.blind
    assert 0 < len(desired.services) < 9


def test_values_behind_aliases_count_towards_the_size_of_a_directory(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    """A few hundred bytes can stand for 100,000 values, in each of thousands of files."""
    bomb = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 9))
    write(root, {f"{number}.yaml": f"kind: Service\n{bomb}" for number in range(9)})
    monkeypatch.setattr("controller.sources.directory.MAX_TOTAL_BYTES", 30_000)
    problems = DirectorySource(root).load().problems
    assert [p.file for p in problems if p.code == "source.too-big"] == ["3.yaml"]


def make_git(folder_: Path) -> Path:
    git = folder_ / ".git"
    write(git, {"HEAD": "ref: refs/heads/main\n", "index": "DIRC1"})
    return git


@pytest.mark.parametrize("where", ["inside", "above"])
@pytest.mark.parametrize(
    "sign",
    ["index.lock", "MERGE_HEAD", "rebase-merge/head-name", "rebase-apply/next", "REVERT_HEAD"],
)
def test_nothing_is_read_while_git_is_at_work(root: Path, where: str, sign: str):
    git = make_git(root if where == "inside" else root.parent)
    write(root, {"web.yaml": service(image="a/b:1")})
    source = DirectorySource(root)
    before = source.load()
    assert (names(before), before.blind) == ("web", False)
    write(git, {sign: ""})
    write(root, {"web.yaml": service(image="a/b:2"), "half.yaml": "<<<<<<< HEAD\n"})
    during = source.load()
    assert (during.services, during.blind, told(during)) == (before.services, True, [" git.busy"])
    assert (during.problems[0].severity, during.valid) == (Severity.WARNING, True)
    path = git / sign
    path.unlink()
    if path.parent != git:
        path.parent.rmdir()
    (root / "half.yaml").unlink()
    after = source.load()
    assert (after.services[0].spec.image, after.blind, after.problems) == ("a/b:2", False, ())


def test_a_first_look_while_git_is_at_work_knows_nothing(root: Path):
    write(make_git(root), {"index.lock": ""})
    write(root, {"web.yaml": service()})
    desired = check(root, services="", problems=[" git.busy"], blind=True)
    assert (desired.identity.present, desired.identity.documents) == (True, 0)


def test_a_git_operation_that_came_and_went_while_reading_is_noticed(root: Path):
    git = make_git(root)
    write(root, {"web.yaml": service(image="a/b:1")})
    checkout = False

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        if checkout:
            (git / "index").write_text("DIRC22")
        return os.pread(descriptor, count, offset)

    source = DirectorySource(root, pread=pread)
    source.load()
    checkout = True
    write(root, {"web.yaml": service(image="a/b:2")})
    desired = source.load()
    assert (desired.services[0].spec.image, desired.blind) == ("a/b:1", True)
    checkout = False
    assert source.load().services[0].spec.image == "a/b:2"


def test_the_git_folder_of_a_worktree_is_found(root: Path, tmp_path: Path):
    write(tmp_path, {"main/.git/worktrees/w/index.lock": ""})
    write(root, {".git": f"gitdir: {tmp_path}/main/.git/worktrees/w\n", "web.yaml": service()})
    check(root, services="", problems=[" git.busy"], blind=True)


def test_1000_files_load_and_reload_quickly(root: Path):
    write(root, {f"s{number}.yaml": service(f"s{number}") for number in range(1000)})
    source = DirectorySource(root)
    costs = []
    for _ in range(4):
        # The thread's own CPU time: what else the machine does meanwhile doesn't count.
        start = time.thread_time()
        assert len(source.load().services) == 1000
        costs.append(time.thread_time() - start)
    assert costs[0] < 1.5
    assert min(costs[1:]) < 0.15


def test_only_changed_files_are_parsed_again(root: Path, monkeypatch: pytest.MonkeyPatch):
    write(root, {"a.yaml": service("a"), "b.yaml": service("b")})
    parsed: list[str] = []

    def counted(text: str, file: str):
        parsed.append(file)
        return read_text(text, file)

    monkeypatch.setattr("controller.sources.directory.read_text", counted)
    source = DirectorySource(root)
    source.load()
    write(root, {"b.yaml": service("b", image="x:2")})
    source.load()
    assert parsed == ["a.yaml", "b.yaml", "b.yaml"]


def test_a_file_takes_the_place_of_documents_of_the_same_resources(tmp_path: Path, root: Path):
    write(root, {"web.yaml": service("web"), "all.yaml": service("api") + "---\n" + service("db")})
    file = tmp_path / "changed.yaml"
    file.write_text(service("api", "team/api:2") + "---\n" + service("new"))
    desired = DirectorySource(root, overlay=file).load()
    assert names(desired) == "api db new web"
    assert [s.spec.image for s in desired.services if s.key.name == "api"] == ["team/api:2"]
    assert told(desired) == []


def test_files_named_in_the_place_of_others_lie_beside_them_or_beside_the_replaced(
    tmp_path: Path, root: Path
):
    config = (
        "apiVersion: trimtab/v1\nkind: Config\nmetadata: {name: site, owner: team}\n"
        "spec: {files: {a: ../a.txt, b: files/b.txt}}\n"
    )
    write(root, {"web/site.yaml": config, "a.txt": "old", "web/files/b.txt": "old"})
    file = tmp_path / "here" / "changed.yaml"
    write(file.parent, {"changed.yaml": config, "files/b.txt": "new"})
    desired = DirectorySource(root, overlay=file).load()
    assert told(desired) == []
    assert [c.files for c in desired.configs] == [(("a", b"old"), ("b", b"new"))]
    file.write_text(config.replace("../a.txt", "/etc/passwd"))
    assert told(DirectorySource(root, overlay=file).load()) == [f"{file} config.outside"]


def test_a_broken_or_missing_file_in_the_place_of_others_is_a_problem(tmp_path: Path, root: Path):
    write(root, {"web.yaml": service("web")})
    file = tmp_path / "changed.yaml"
    for content in (b"a: [", b" " * (MAX_BYTES + 1)):
        file.write_bytes(content)
        desired = DirectorySource(root, overlay=file).load()
        assert [p.file for p in desired.problems] == [str(file)]
        assert (names(desired), desired.blind) == ("web", True)
    file.unlink()
    assert told(DirectorySource(root, overlay=file).load()) == [f"{file} file.unreadable"]
