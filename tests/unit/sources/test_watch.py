"""The watch wakes after every change, whatever happens to the directory, and ends on request."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
import watchfiles

from controller.sources.watch import scope_of, watch

pytestmark = pytest.mark.slow

WAIT_S = 20  # a bound for slow machines; a wakeup comes in about 0.2 s


class Watched:
    """A watch in a thread. ``woken_by`` calls a function and waits for the next wakeup."""

    def __init__(
        self,
        root: Path,
        *,
        also: tuple[Path, ...] = (),
        marks: Callable[[], tuple[Path, ...]] = tuple,
        compare_ms: int = 50,
    ) -> None:
        self.stop = threading.Event()
        self.wakeups = threading.Semaphore(0)
        self.thread = threading.Thread(
            target=watch,
            args=(root, self.wakeups.release, self.stop),
            kwargs={"also": also, "marks": marks, "compare_ms": compare_ms},
        )

    def __enter__(self) -> Self:
        self.thread.start()
        if not self.wakeups.acquire(timeout=WAIT_S):
            self.end()
            raise AssertionError("it wakes when the watch has begun")
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()

    def woken_by(self, change: Callable[[], object]) -> bool:
        # What came before doesn't count: take it away until it is quiet.
        while self.wakeups.acquire(timeout=0.3):
            pass
        change()
        return self.wakeups.acquire(timeout=WAIT_S)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(timeout=WAIT_S)
        assert not self.thread.is_alive(), "it ends when told"


@pytest.fixture(autouse=True)
def _never_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the periodic restart of the watch: a restart would hide a missed change."""
    monkeypatch.setattr("controller.sources.watch.COMPARISONS_MAX", 10**9)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "holder" / "desired-state"
    (path / "team").mkdir(parents=True)
    (path / "web.yaml").write_text("a: 1\n")
    return path


@pytest.fixture
def watched(root: Path) -> Iterator[Watched]:
    with Watched(root) as one:
        yield one


def test_files_wake_when_written_renamed_or_removed(watched: Watched, root: Path):
    assert watched.woken_by(lambda: (root / "web.yaml").write_text("a: 2\n"))
    assert watched.woken_by(lambda: (root / "team/new.yaml").write_text("a: 1\n"))
    assert watched.woken_by(lambda: (root / "web.yaml").rename(root / "x.yaml"))
    assert watched.woken_by((root / "x.yaml").unlink)


def test_folders_that_are_made_later_are_watched_too(watched: Watched, root: Path):
    deep = root / "a/b/c/d"
    assert watched.woken_by(lambda: deep.mkdir(parents=True))
    assert watched.woken_by(lambda: (deep / "web.yaml").write_text("a: 1\n"))
    assert watched.woken_by(lambda: shutil.rmtree(root / "a"))


def test_a_directory_that_is_removed_and_made_again_is_followed(watched: Watched, root: Path):
    assert watched.woken_by(lambda: shutil.rmtree(root))
    assert watched.woken_by(root.mkdir)
    assert watched.woken_by(lambda: (root / "web.yaml").write_text("a: 1\n"))
    assert watched.woken_by(lambda: shutil.rmtree(root.parent))
    assert watched.woken_by(lambda: root.mkdir(parents=True))
    assert watched.woken_by(lambda: (root / "web.yaml").write_text("a: 2\n"))


def test_a_directory_that_is_replaced_at_once_is_followed(watched: Watched, root: Path):
    other = root.parent / "other"
    other.mkdir()

    def replace() -> None:
        root.rename(root.parent / "old")
        other.rename(root)

    assert watched.woken_by(replace)
    assert watched.woken_by(lambda: (root / "web.yaml").write_text("a: 1\n"))


def test_a_swapped_link_is_followed(root: Path):
    link = root.parent / "current"
    link.symlink_to("desired-state")
    two = root.parent / "elsewhere" / "two"
    two.mkdir(parents=True)
    with Watched(link) as watched:

        def swap() -> None:
            (root.parent / "next").symlink_to("elsewhere/two")
            (root.parent / "next").rename(link)

        assert watched.woken_by(lambda: (root / "web.yaml").write_text("a: 2\n"))
        assert watched.woken_by(swap)
        assert watched.woken_by(lambda: (two / "web.yaml").write_text("a: 1\n"))
        assert watched.woken_by(lambda: shutil.rmtree(two))
        assert watched.woken_by(two.mkdir)


def test_the_swap_of_a_kubernetes_volume_wakes(watched: Watched, root: Path):
    for name in ("..one", "..two"):
        (root / name).mkdir()
        (root / name / "web.yaml").write_text(name)
    assert watched.woken_by(lambda: (root / "..data").symlink_to("..one"))
    assert watched.woken_by(lambda: (root / "k8s.yaml").symlink_to("..data/web.yaml"))

    def swap() -> None:
        (root / "..next").symlink_to("..two")
        (root / "..next").rename(root / "..data")

    assert watched.woken_by(swap)
    # What lies behind the link is watched as well.
    assert watched.woken_by(lambda: (root / "..two/web.yaml").write_text("again"))


def test_the_end_of_a_git_operation_wakes(root: Path):
    git = root.parent / ".git"
    git.mkdir()
    (git / "index.lock").touch()
    with Watched(root) as watched:
        assert watched.woken_by((git / "index.lock").unlink)


def test_charts_wake_as_files_do(root: Path, tmp_path: Path):
    templates = tmp_path / "configs/app/templates"
    templates.mkdir(parents=True)
    with Watched(root, also=(tmp_path / "configs",)) as watched:
        assert watched.woken_by(lambda: (templates / "x.yaml").write_text("a: 1\n"))


def test_a_swapped_pointer_of_a_source_wakes_and_the_folders_behind_it_do_not(
    root: Path, tmp_path: Path
):
    folder = tmp_path / "fetcher" / "sources" / "team"
    marks = [folder / "current"]

    def swap(commit: str) -> None:
        (folder / commit).mkdir(parents=True, exist_ok=True)
        (folder / "new").symlink_to(commit)
        (folder / "new").rename(folder / "current")

    with Watched(root, marks=lambda: tuple(marks)) as watched:
        assert watched.woken_by(lambda: swap("a" * 40)), "a source that appears"
        assert watched.woken_by(lambda: swap("b" * 40))
        scope = scope_of([root], marks)
        assert not scope.concerns(str(folder / ("b" * 40)))
        assert not scope.concerns(str(folder / ("b" * 40) / "web.yaml"))
        other = tmp_path / "fetcher" / "sources" / "other"
        other.mkdir()
        assert watched.woken_by(lambda: marks.append(other / "current")), (
            "a source that is declared"
        )
        assert watched.woken_by(lambda: (other / "current").symlink_to("a" * 40))


def test_a_named_file_in_a_hidden_folder_wakes_and_others_there_do_not(root: Path):
    hidden = root / ".sops"
    marks = (hidden / "db.yaml",)
    with Watched(root, marks=lambda: marks) as watched:
        assert watched.woken_by(hidden.mkdir), "the folder that can get the file"
        assert watched.woken_by(lambda: (hidden / "db.yaml").write_text("a: 1\n"))
        assert watched.woken_by(lambda: (hidden / "db.yaml").write_text("a: 2\n"))
        assert not scope_of([root], marks).concerns(str(hidden / "other.yaml"))


def test_what_lies_beside_the_directory_does_not_wake(root: Path):
    scope = scope_of([root])
    assert scope.concerns(str(root / "web.yaml"))
    assert scope.concerns(str(root / "team/x.yaml"))
    assert scope.concerns(str(root))
    assert not scope.concerns(str(root.parent / "build.log"))
    assert not scope.concerns(str(root.parent))


def test_every_link_on_the_way_to_the_directory_matters(root: Path):
    for name, target in (("one", "two"), ("two", "desired-state")):
        (root.parent / name).symlink_to(target)
    scope = scope_of([root.parent / "one"])
    names = sorted(Path(path).name for path in scope.anchors)
    assert names == ["desired-state", "one", "two"]


def test_a_directory_that_is_missing_at_the_start_is_waited_for(tmp_path: Path):
    root = tmp_path / "a/b/desired-state"
    with Watched(root) as watched:
        assert watched.woken_by(lambda: root.mkdir(parents=True))
        assert watched.woken_by(lambda: (root / "web.yaml").write_text("a: 1\n"))


def test_a_watch_is_made_anew_by_itself(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("controller.sources.watch.COMPARISONS_MAX", 2)
    with Watched(root) as watched:
        assert watched.wakeups.acquire(timeout=WAIT_S), "it wakes again without any change"


def test_a_watch_that_fails_is_tried_again(root: Path, monkeypatch: pytest.MonkeyPatch):
    failing = threading.Event()
    failing.set()
    start = watchfiles.watch

    def scarce(*paths: str, **options: object) -> object:
        if failing.is_set():
            raise OSError(28, "inotify watch limit reached")
        return start(*paths, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(watchfiles, "watch", scarce)
    with Watched(root) as watched:  # it wakes all the same
        failing.clear()
        assert watched.woken_by(lambda: (root / "web.yaml").write_text("a: 2\n"))
