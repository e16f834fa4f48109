"""Secrets, as users see them: a SOPS file in the folder, plain text in the container alone."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.broker.secrets.key_files import FILES, KEYS
from controller.broker.secrets.opener import secret_folder
from tests.e2e.test_git_sources import git, source_row
from tests.instance import WITH_SECRETS, Host, descendants, eventually, web
from tests.leaks import (
    core_files_permitted,
    core_limits,
    found_in,
    leaks_below,
    leaks_in_memory,
)
from tests.unit.core.secrets.oracle import Keys, encrypt

pytestmark = pytest.mark.needs_root
#: A rollout that doesn't dwell.
QUICK = "rollout: {minHealthy: 1s}"
SECRET = b'p4ss "w0rd" / geheim \xc3\xa4 0123456789'


@dataclass
class Namespace:
    """A namespace with a key on this host."""

    name: str
    keys: Keys

    def sops(self, values: dict[str, str]) -> str:
        lines = "".join(f"{key}: {_quoted(value)}\n" for key, value in values.items())
        return encrypt("db.sops", lines.encode(), self.keys).decode()

    def document(self, spec: str, name: str = "db") -> str:
        head = f"apiVersion: trimtab/v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {self.name}"
        return f"{head}, owner: team}}\nspec: {spec}\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    name = WITH_SECRETS
    KEYS.mkdir(mode=0o755, parents=True, exist_ok=True)
    made = Namespace(name, Keys())
    path = KEYS / f"{name}.age"
    path.touch(mode=0o600)
    path.write_text(made.keys.private)
    yield made
    path.unlink()


def service(namespace: Namespace, extra: str, name: str = "web") -> str:
    text = web(name, extra=f"{extra}\n{QUICK}")
    return text.replace(f"name: {name}", f"name: {name}, namespace: {namespace.name}")


def mounting(secret: str) -> str:
    return f"mounts: [{{type: secret, source: {secret}, target: /run/db}}]"


def await_ready(host: Host, namespace: Namespace, *names: str) -> None:
    eventually(
        lambda: all(host.is_ready(name, namespace=namespace.name) for name in names), within_s=60
    )


def password(host: Host, name: str = "web") -> str:
    (one,) = host.running_ids(name)
    return host.engine.docker("exec", one, "cat", "/run/db/password").stdout


def in_memory_only(host: Host) -> None:
    """See that no process of ours has the secret in its environment."""
    assert host.process is not None
    processes = [host.process.pid, *descendants(host.process.pid)]
    environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in processes]
    assert [found_in(each, SECRET) for each in environments] == [[]] * len(environments)


def test_plain_text_is_in_the_containers_and_nowhere_of_ours(
    host: Host, namespace: Namespace
) -> None:
    """One service has it as a file, the other as a variable."""
    sealed = encrypt(
        "db.yaml", b"url: x\npassword: " + _quoted(SECRET.decode()).encode(), namespace.keys
    )
    folder = host.directory / ".sops"
    folder.mkdir()
    (folder / "db.yaml").write_bytes(sealed)
    host.write("db.yaml", namespace.document("{sops: .sops/db.yaml}"))
    host.write("web.yaml", service(namespace, mounting("db")))
    variables = "env: {LEVEL: info, PASSWORD: {secret: db, key: password}}"
    host.write("app.yaml", service(namespace, variables, "app"))
    with host.running():
        await_ready(host, namespace, "web", "app")
        assert password(host).encode() == SECRET
        (one,), (other,) = host.running_ids("web"), host.running_ids("app")
        echo = ["/bin/sh", "-c", 'printf %s "$PASSWORD"']
        assert host.engine.docker("exec", other, *echo).stdout.encode() == SECRET
        assert found_in(host.engine.docker("inspect", other).stdout.encode(), SECRET)
        validated = host.cli("validate", str(host.directory))
        assert "env.secret" in validated.stdout + validated.stderr
        shown = [
            host.cli("plan", expect=(0, 2)).stdout,
            host.cli("plan", "--json", expect=(0, 2)).stdout,
            host.cli("status", "--json").stdout,
            host.cli("describe", f"{namespace.name}/web").stdout,
            host.cli("describe", f"{namespace.name}/app").stdout,
            host.cli("journal", "export").stdout,
            host.cli("metrics").stdout,
            host.engine.docker("inspect", one).stdout,
            host.docker_through_broker("inspect", one).stdout,
            host.log.read_text(),
        ]
        assert [found_in(text.encode(), SECRET) for text in shown] == [[]] * len(shown)
        in_memory_only(host)
        memory = secret_folder(host.instance)
        assert memory is not None
        assert len(list(leaks_below(memory, SECRET))) >= 1, "the search finds what is there"
        # A reboot empties the memory; the broker fills it from ciphertext.
        host.stop()
        shutil.rmtree(memory)
        with core_files_permitted():
            host.up()
        eventually(lambda: memory.exists() and list(leaks_below(memory, SECRET)), within_s=30)
        await_ready(host, namespace, "web", "app")
        host.engine.docker("restart", "--time", "1", *host.running_ids("web"))
        await_ready(host, namespace, "web")
        assert password(host).encode() == SECRET
        _no_process_dumps_its_memory(host)
    assert list(leaks_below(host.state, SECRET)) == []


def _no_process_dumps_its_memory(host: Host) -> None:
    """Abort each process of the instance, and look for core files; read the memory of those without root first."""
    assert host.process is not None
    below = list(descendants(host.process.pid))
    ours = [pid for pid in below if b"controller" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    owners = {Path(f"/proc/{pid}/environ").stat().st_uid for pid in ours}
    assert owners == {0}, "the files of a process that can be dumped belong to its user (proc(5))"
    assert [core_limits(pid) for pid in ours] == [["0", "0"]] * len(ours)
    unprivileged = [pid for pid in ours if _uid(pid) != 0]
    assert unprivileged, "the controller, and the fetcher of a Source"
    assert leaks_in_memory(os.getpid(), SECRET), "the search finds what is there"
    assert [leaks_in_memory(pid, SECRET) for pid in unprivileged] == [[]] * len(unprivileged)
    folders = {Path(f"/proc/{pid}/cwd").resolve() for pid in ours}
    for pid in reversed(ours):
        with suppress(ProcessLookupError):  # it ended with its parent
            os.kill(pid, signal.SIGABRT)
    eventually(lambda: not any(_is_alive(pid) for pid in ours), within_s=20)
    assert [path for folder in folders for path in folder.glob("core*")] == []


def _uid(pid: int) -> int:
    (line,) = (
        each
        for each in Path(f"/proc/{pid}/status").read_text().splitlines()
        if each.startswith("Uid:")
    )
    return int(line.split()[1])


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_values_stay_until_they_change_or_are_forgotten(host: Host, namespace: Namespace) -> None:
    """One service has a value that people write, the other one that is generated."""
    written, generated = writer(host, namespace, "db"), writer(host, namespace, "made")
    anew = "{generate: {password: {length: 40}}}"
    written(sealed(namespace.keys, b"first-password"))
    generated(anew)
    host.write("web.yaml", service(namespace, mounting("db")))
    host.write("app.yaml", service(namespace, mounting("made"), "app"))
    with host.running():
        await_ready(host, namespace, "web", "app")
        assert password(host) == "first-password"
        (old,) = host.running_ids("web")
        value = password(host, "app")
        assert len(value) == 40
        (one,) = host.running_ids("app")

        # A new value is a rollout; another ciphertext of the same value is none.
        written(sealed(namespace.keys, b"first-password"))
        written(sealed(namespace.keys, b"second-password"))
        eventually(lambda: host.running_ids("web") not in ([], [old]), within_s=40)
        eventually(lambda: len(host.running_ids("web")) == 1, within_s=40)
        assert password(host) == "second-password"

        # A document for another namespace's key is a problem, and what runs goes on.
        generated(sealed(Keys(), b"x"))
        eventually(lambda: "secret.wrong-key" in str(host.status()), within_s=40)
        assert "secret.wrong-key" in host.cli("status", "--json").stdout
        assert host.running_ids("app") == [one]
        generated(anew)
        eventually(lambda: "secret.wrong-key" not in str(host.status()), within_s=40)
        assert password(host, "app") == value

        # Forgotten values are made again and rolled out.
        made = f"{namespace.name}/made"
        forgotten = host.cli("secret", "forget", made, "--note", "it leaked")
        assert "new values" in forgotten.stdout

        def has_another() -> bool:
            found = host.running_ids("app")  # two while one replaces the other, which may go now
            if len(found) != 1 or found == [one]:
                return False
            read = ("exec", *found, "cat", "/run/db/password")
            return host.engine.docker(*read, check=False).stdout not in ("", value)

        eventually(has_another, within_s=60)
        assert host.records("operator")[-1]["request"]["object"] == f"Secret/{made}"
    assert not list(leaks_below(host.state, b"second-password"))
    assert list(leaks_below(host.state, value.encode())) == []


def sealed(keys: Keys, value: bytes) -> str:
    """Return the spec of a Secret with a password that was sealed for a key."""
    armored = keys.sealed(value).replace("\n", "\n    ")
    return f"\n  age:\n   password: |\n    {armored}"


def writer(host: Host, namespace: Namespace, name: str) -> Callable[[str], object]:
    """Return what writes the document of a Secret."""
    return lambda spec: host.write(f"{name}.yaml", namespace.document(spec, name))


#: A project of a Git source: a file of the host, a ciphertext, and files of its own.
MOUNTS = """\
mounts:
  - {type: secret, source: login, target: /run/login}
  - {type: secret, source: db, target: /run/db}
  - {type: config, source: site, target: /run/site}
env: {DB: {secret: db, key: password}}"""


@pytest.fixture
def login(namespace: Namespace) -> Iterator[Path]:
    """A file of the host with a password."""
    folder = FILES / namespace.name
    folder.mkdir(mode=0o755, parents=True)
    (folder / "login").touch(mode=0o600)
    (folder / "login").write_text("from-the-host")
    yield folder / "login"
    shutil.rmtree(folder)


def project(namespace: Namespace, folder: Path, *, image: str, name: str = "web") -> None:
    """Write a service with its Secrets and its Config; the ciphertext stays, if there is one."""
    folder.mkdir(exist_ok=True)
    text = service(namespace, MOUNTS, name).replace("trimtab.local/web:1", image)
    (folder / "web.yaml").write_text(text)
    (folder / "login.yaml").write_text(namespace.document("{file: {login: login}}", "login"))
    config = namespace.document("{files: {index.html: files/index.html}}", "site")
    (folder / "site.yaml").write_text(config.replace("kind: Secret", "kind: Config"))
    (folder / "files").mkdir(exist_ok=True)
    (folder / "files/index.html").write_text("hello")
    if not (folder / "db.yaml").exists():
        spec = sealed(namespace.keys, b"first-password")
        (folder / "db.yaml").write_text(namespace.document(spec))


@pytest.mark.timeout(300)
def test_a_pull_request_with_secrets_is_planned_in_four_ways(
    host: Host, namespace: Namespace, login: Path
) -> None:
    """A working copy, a commit, a held commit, and a checkout elsewhere with a snapshot."""
    bare, tree = host.folder / "deploy.git", host.folder / "tree"
    git(host.folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    git(host.folder, "clone", "--quiet", str(bare), str(tree))
    deploy = tree / "deploy"

    def push(image: str, *options: str) -> str:
        project(namespace, deploy, image=image)
        git(tree, "add", "--all")
        git(tree, "commit", "--quiet", "--message", image, *options)
        git(tree, "push", "--quiet", "--force", "origin", "HEAD:main")
        return git(tree, "rev-parse", "HEAD")

    def changes(*options: str, expect: int = 2) -> list[str]:
        objects = host.json("plan", *options, expect=expect)["objects"]
        return [change["text"] for each in objects for change in each["changes"]]

    def commit(one: str) -> tuple[str, ...]:
        return ("--against", one, "--source", "team")

    image, other = "trimtab.local/web:1", "trimtab.local/worker:1"
    only = ["spec.image: trimtab.local/web:1 -> trimtab.local/worker:1"]
    earlier = push(other)
    running = push(image)
    host.write(
        "team.yaml",
        "apiVersion: trimtab/v1\nkind: Source\nmetadata: {name: team, owner: team}\nspec:\n"
        f"  git: {{url: 'file://{bare}', path: deploy, interval: 1h}}\n"
        f"  namespaces: [{namespace.name}]\n",
    )
    with host.running():
        await_ready(host, namespace, "web")
        snapshot = host.folder / "host.json"
        snapshot.write_text(host.cli("snapshot").stdout)
        assert "hmac:" not in snapshot.read_text().replace("hmac:" + 52 * "0", "")
        elsewhere = ("--snapshot", str(snapshot), "--source", "team")
        folder = ("--against", str(deploy))
        # What runs is no change of what runs.
        for way in (commit(running), (*folder, *elsewhere)):
            assert changes(*way, expect=0) == [], way
        # Another image is one changed field.
        assert changes(*commit(earlier)) == only
        held = push(other, "--amend", "--allow-empty")
        host.cli("source", "sync", "team")
        eventually(lambda: source_row(host)["state"] == "Held", what="history was rewritten")
        assert changes(*commit(held)) == only
        assert changes(*folder, "--source", "team") == only
        assert changes(*folder, *elsewhere) == only
        assert only[0] in host.cli("plan", *folder, *elsewhere, "--markdown", expect=2).stdout
        # A ciphertext is compared, and never opened.
        (deploy / "db.yaml").unlink()
        project(namespace, deploy, image=image)
        unknown = [
            "spec.env.DB: changed, value unknown",
            "spec.mounts[/run/db].content: changed, value unknown",
        ]
        assert sorted(changes(*folder, *elsewhere)) == unknown
        a_working_copy_of_dir(host, namespace)
        a_file_of_the_host_that_changes(host, namespace, login)


def a_file_of_the_host_that_changes(host: Host, namespace: Namespace, login: Path) -> None:
    """Noticed at once: the documents are read anyway only after a minute."""

    def refused() -> bool:
        return "secret.file-open" in str(host.status())

    login.chmod(0o644)
    eventually(refused, within_s=20)
    login.chmod(0o600)
    assert "secret.file-open" not in host.cli("plan").stdout
    eventually(lambda: not refused(), within_s=20)
    before = host.running_ids("web")
    login.write_text("another")
    eventually(lambda: host.running_ids("web") not in ([], before), within_s=20)


def a_working_copy_of_dir(host: Host, namespace: Namespace) -> None:
    """A copy of DIR, and a single file of it, also without its other files."""
    made = namespace.document("{generate: {password: {length: 20}}}", "made")
    pages = namespace.document("{files: {index.html: files/index.html}}", "pages")
    mounts = "{type: secret, source: made, target: /run/db}, {type: config, source: pages, target: /run/site}"
    text = service(namespace, f"mounts: [{mounts}]", "own")
    own = "---\n".join([made, pages.replace("kind: Secret", "kind: Config"), text])
    host.write("files/index.html", "hello")
    host.write("own.yaml", own)
    await_ready(host, namespace, "own")
    copy = host.folder / "copy"
    shutil.copytree(host.directory, copy)
    alone = host.folder / "own.yaml"
    alone.write_text(own)
    ways = (copy, copy / "own.yaml", alone)
    for way in ways:
        assert host.json("plan", "--against", str(way))["objects"] == [], way
        if way.is_file():
            way.write_text(own.replace("trimtab.local/web:1", "trimtab.local/worker:1"))
    for way in ways:
        shown = host.json("plan", "--against", str(way), expect=2)
        fields = [change["text"] for each in shown["objects"] for change in each["changes"]]
        assert fields == ["spec.image: trimtab.local/web:1 -> trimtab.local/worker:1"]
