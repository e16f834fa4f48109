"""Secrets, as users see them: a SOPS file in the folder, plain text in the container alone."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.broker.secrets.key_files import KEYS
from controller.broker.secrets.memory_folder import secret_folder
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


def service(namespace: Namespace, mount: str = "") -> str:
    extra = f"mounts: [{{type: secret, source: db, target: /run/db{mount}}}]\n{QUICK}"
    return web(extra=extra).replace("name: web", f"name: web, namespace: {namespace.name}")


def read(host: Host, path: str) -> str:
    (one,) = host.running_ids("web")
    return host.engine.docker("exec", one, "cat", path).stdout


def test_plain_text_is_in_the_container_and_nowhere_of_ours(
    host: Host, namespace: Namespace
) -> None:
    sealed = encrypt(
        "db.yaml", b"url: x\npassword: " + _quoted(SECRET.decode()).encode(), namespace.keys
    )
    folder = host.directory / ".sops"
    folder.mkdir()
    (folder / "db.yaml").write_bytes(sealed)
    host.write("db.yaml", namespace.document("{sops: .sops/db.yaml}"))
    host.write("web.yaml", service(namespace))
    with host.running():
        eventually(lambda: host.is_ready("web", namespace=namespace.name), within_s=60)
        assert read(host, "/run/db/password").encode() == SECRET
        (one,) = host.running_ids("web")
        shown = [
            host.cli("plan", expect=(0, 2)).stdout,
            host.cli("status", "--json").stdout,
            host.cli("describe", f"{namespace.name}/web").stdout,
            host.cli("journal", "export").stdout,
            host.engine.docker("inspect", one).stdout,
            host.docker_through_broker("inspect", one).stdout,
            host.log.read_text(),
        ]
        assert [found_in(text.encode(), SECRET) for text in shown] == [[]] * len(shown)
        assert host.process is not None
        processes = [host.process.pid, *descendants(host.process.pid)]
        environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in processes]
        assert [found_in(each, SECRET) for each in environments] == [[]] * len(environments)
        memory = secret_folder(host.instance)
        assert memory is not None
        assert len(list(leaks_below(memory, SECRET))) >= 1, "the search finds what is there"
        # A reboot empties the memory; the broker fills it from ciphertext.
        host.stop()
        shutil.rmtree(memory)
        with core_files_permitted():
            host.up()
        eventually(lambda: memory.exists() and list(leaks_below(memory, SECRET)), within_s=30)
        eventually(lambda: host.is_ready("web", namespace=namespace.name), within_s=60)
        host.engine.docker("restart", "--time", "1", *host.running_ids("web"))
        eventually(lambda: host.is_ready("web", namespace=namespace.name), within_s=60)
        assert read(host, "/run/db/password").encode() == SECRET
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


def test_a_variable_has_the_value_of_a_secret_and_nothing_of_ours_has(
    host: Host, namespace: Namespace
) -> None:
    sealed = encrypt("db.yaml", b"password: " + _quoted(SECRET.decode()).encode(), namespace.keys)
    folder = host.directory / ".sops"
    folder.mkdir()
    (folder / "db.yaml").write_bytes(sealed)
    host.write("db.yaml", namespace.document("{sops: .sops/db.yaml}"))
    document = web(extra="env: {LEVEL: info, PASSWORD: {secret: db, key: password}}")
    host.write("web.yaml", document.replace("name: web", f"name: web, namespace: {namespace.name}"))
    with host.running():
        eventually(lambda: host.is_ready("web", namespace=namespace.name), within_s=60)
        (one,) = host.running_ids("web")
        echo = ["/bin/sh", "-c", 'printf %s "$PASSWORD"']
        assert host.engine.docker("exec", one, *echo).stdout.encode() == SECRET
        assert found_in(host.engine.docker("inspect", one).stdout.encode(), SECRET)
        validated = host.cli("validate", str(host.directory))
        assert "env.secret" in validated.stdout + validated.stderr
        shown = [
            host.cli("plan", expect=(0, 2)).stdout,
            host.cli("plan", "--json", expect=(0, 2)).stdout,
            host.cli("status", "--json").stdout,
            host.cli("describe", f"{namespace.name}/web").stdout,
            host.cli("journal", "export").stdout,
            host.cli("journal", "metrics").stdout,
            host.log.read_text(),
        ]
        assert [found_in(text.encode(), SECRET) for text in shown] == [[]] * len(shown)
        assert host.process is not None
        processes = [host.process.pid, *descendants(host.process.pid)]
        environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in processes]
        assert [found_in(each, SECRET) for each in environments] == [[]] * len(environments)
    assert list(leaks_below(host.state, SECRET)) == []


def test_a_new_value_is_a_rollout_and_the_same_value_is_none(
    host: Host, namespace: Namespace
) -> None:
    sealed = namespace.keys.sealed

    def write(value: bytes) -> None:
        armored = sealed(value).replace("\n", "\n    ")
        host.write("db.yaml", namespace.document(f"\n  age:\n   password: |\n    {armored}"))

    write(b"first-password")
    host.write("web.yaml", service(namespace))
    with host.running():
        eventually(lambda: host.is_ready("web", namespace=namespace.name), within_s=60)
        (old,) = host.running_ids("web")
        assert read(host, "/run/db/password") == "first-password"
        write(b"first-password")  # another ciphertext of the same value
        write(b"second-password")
        eventually(lambda: host.running_ids("web") not in ([], [old]), within_s=40)
        eventually(lambda: len(host.running_ids("web")) == 1, within_s=40)
        assert read(host, "/run/db/password") == "second-password"
    assert not list(leaks_below(host.state, b"second-password"))


def test_a_generated_value_is_kept_and_a_missing_key_stops_nothing(
    host: Host, namespace: Namespace
) -> None:
    host.write("db.yaml", namespace.document("{generate: {password: {length: 40}}}"))
    host.write("web.yaml", service(namespace))
    with host.running():
        eventually(lambda: host.is_ready("web", namespace=namespace.name), within_s=60)
        value = read(host, "/run/db/password")
        assert len(value) == 40
        (one,) = host.running_ids("web")
        # A document for another namespace's key is a problem, and what runs goes on.
        foreign = Keys().sealed(b"x").replace("\n", "\n    ")
        host.write("db.yaml", namespace.document(f"\n  age:\n   password: |\n    {foreign}"))
        eventually(lambda: "secret.wrong-key" in str(host.status()), within_s=40)
        assert "secret.wrong-key" in host.cli("status", "--json").stdout
        assert host.running_ids("web") == [one]
        host.write("db.yaml", namespace.document("{generate: {password: {length: 40}}}"))
        eventually(lambda: "secret.wrong-key" not in str(host.status()), within_s=40)
        assert read(host, "/run/db/password") == value
    assert list(leaks_below(host.state, value.encode())) == []


def test_forgotten_values_are_made_again_and_rolled_out(host: Host) -> None:
    head = "apiVersion: trimtab/v1\nkind: Secret\nmetadata: {name: db, owner: team}\n"
    host.write("db.yaml", f"{head}spec: {{generate: {{password: {{length: 24}}}}}}\n")
    mount = "mounts: [{type: secret, source: db, target: /run/db}]"
    host.write("web.yaml", web(extra=f"{mount}\n{QUICK}"))
    with host.running():
        eventually(lambda: host.is_ready("web"), within_s=60)
        (old,) = host.running_ids("web")
        first = read(host, "/run/db/password")
        assert len(first) == 24
        forgotten = host.cli("secret", "forget", "db", "--note", "it leaked")
        assert "new values" in forgotten.stdout

        command = ("cat", "/run/db/password")

        def has_another() -> bool:
            found = host.running_ids("web")  # two while one replaces the other, which may go now
            if len(found) != 1 or found == [old]:
                return False
            return host.engine.docker("exec", *found, *command, check=False).stdout not in {
                "",
                first,
            }

        eventually(has_another, within_s=60)
        record = host.journal("--stage", "operator")[-1]
        assert record["request"]["object"] == "Secret/default/db"
