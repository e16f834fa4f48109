"""Volumes on a real engine: adopted, dumped and restored, and fifteen ways to lose data."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.instance import TRIMTAB, Host, descendants, eventually

SERVICE = """\
apiVersion: trimtab/v1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}, owner: team}}
spec:
  image: trimtab.local/worker:1
  user: "0:0"
  env: {{GENERATION: "{generation}"}}
  {more}
  mounts: [{{type: volume, source: {volume}, target: /data}}]
"""
STOPS = "stopGracePeriod: 1s"
VOLUME = """\
apiVersion: trimtab/v1
kind: Volume
metadata: {{name: {name}, owner: team}}
spec: {{{spec}}}
"""


def service(
    name: str = "db",
    volume: str = "data",
    *,
    generation: int = 0,
    namespace: str = "default",
    kind: str = "Service",
    more: str = STOPS,
) -> str:
    return SERVICE.format(
        name=name, volume=volume, generation=generation, namespace=namespace, kind=kind, more=more
    )


def folder(host: Host, volume: str = "data") -> Path:
    """Return the folder of a volume on the host."""
    done = host.engine.docker("volume", "inspect", "--format", "{{.Mountpoint}}", volume)
    return Path(done.stdout.strip())


def fingerprint(host: Host, volume: str = "data") -> str:
    """Return a digest of the names, owners, modes and contents in a volume."""
    digest, root = hashlib.sha256(), folder(host, volume)
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        digest.update(f"{path.relative_to(root)} {status.st_mode} {status.st_uid}".encode())
        digest.update(path.read_bytes() if path.is_file() and not path.is_symlink() else b"")
    return digest.hexdigest()


def fill(host: Host, volume: str = "data") -> str:
    """Put files of several owners and modes into a volume, and return its fingerprint."""
    root = folder(host, volume)
    (root / "wal").mkdir()
    (root / "wal" / "1").write_bytes(os.urandom(3_000_000))
    (root / "secret").write_bytes(b"x" * 1000)
    (root / "secret").chmod(0o600)
    (root / "link").symlink_to("/etc/passwd")
    for path in (root / "wal", root / "secret"):
        os.chown(path, 999, 998)
    (root / "wal").chmod(0o700)
    return fingerprint(host, volume)


def await_running(host: Host, name: str = "db", generation: int = 0) -> str:
    """Wait for the one running container of a service's generation, and return its id."""

    def running() -> str:
        wanted = f"GENERATION={generation}"
        found = [
            each["Id"]
            for each in host.containers(name)
            if each["State"]["Running"] and wanted in each["Config"]["Env"]
        ]
        return found[0] if len(found) == 1 else ""

    return eventually(running, within_s=40, what=f"{name} runs with {generation}")


def volumes(host: Host) -> list[str]:
    return host.engine.docker("volume", "ls", "--quiet").stdout.split()


def started_at(host: Host, container: str) -> str:
    return host.engine.docker(
        "inspect", "--format", "{{.State.StartedAt}}", container
    ).stdout.strip()


def acts(host: Host, route: str) -> list[dict[str, object]]:
    found = [each["request"] for each in host.records("operator")]
    return [each["summary"] for each in found if each["route"] == route]


def command(host: Host, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command of trimtab in the background."""
    return subprocess.Popen(
        host.engine.inside(TRIMTAB, *arguments, "--state", str(host.state)),
        env=host.environment(),
        cwd=host.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def a_released_volume_goes_after_a_dump_and_an_approval(host: Host) -> None:
    host.write("other.yaml", VOLUME.format(name="other", spec="retain: false"))
    host.write("store.yaml", service("store", "other"))
    await_running(host, "store")
    host.remove("other.yaml")
    host.remove("store.yaml")

    def waits_for() -> str:
        problems = (host.plan() or {"problems": ()})["problems"]
        return " ".join(each["message"] for each in problems)

    eventually(lambda: "never dumped" in waits_for())
    host.json("volume", "dump", "other", "-o", "other.tar")
    eventually(lambda: "needs an approval" in waits_for())
    shown = host.json("plan", expect=2)["problems"]
    assert any("needs an approval" in each["message"] for each in shown)
    host.cli("approve", "--yes")
    eventually(lambda: volumes(host) == ["shop_data"])
    host.json("plan")


def test_a_dump_and_a_restore_stop_and_start_the_service_and_are_recorded(host: Host) -> None:
    """Afterwards, a size is held by the engine or refused by name."""
    capable = holds_sizes(host)
    policy = host.folder / "policy.yaml"
    policy.write_text(Path(host.policy).read_text() + "resources: {volumeMax: 1Gi}\n")
    host.policy = str(policy)
    host.write("data.yaml", VOLUME.format(name="data", spec=""))
    host.write("db.yaml", service())
    with host.running():
        container = await_running(host)
        first = fill(host)
        before = started_at(host, container)
        told = host.json("volume", "dump", "data", "-o", "data.tar")
        assert (told["volume"], told["skipped"], told["failed"]) == ("data", [], [])
        assert started_at(host, container) > before, "the container was stopped and started"
        archive = (host.folder / "data.tar").read_bytes()
        assert told["sha256"] == hashlib.sha256(archive).hexdigest()
        assert acts(host, "volume.hold")[0]["objects"] == [container]
        ended = acts(host, "volume.end")[0]
        assert (ended["outcome"], ended["digest"]) == ("succeeded", f"sha256:{told['sha256']}")
        assert ended["sizeBytes"] == len(archive)
        before = started_at(host, container)
        piped = host.engine.inside(TRIMTAB, "volume", "dump", "data", "--live")
        live = subprocess.run(
            [*piped, "--state", str(host.state)],
            env=host.environment(),
            capture_output=True,
            check=True,
        ).stdout
        assert started_at(host, container) == before, "a live dump stops nothing"
        assert len(live) == len(archive)
        (folder(host) / "secret").write_text("overwritten by mistake")
        (folder(host) / "new").write_text("not in the archive")
        assert fingerprint(host) != first
        assert "--yes" in host.cli("volume", "restore", "data", "data.tar", expect=64).stderr
        host.json("volume", "restore", "data", "data.tar", "--yes")
        assert fingerprint(host) == first
        assert await_running(host) == container, "the same container runs again"
        listed = host.json("volume", "list")["volumes"]
        assert [(v["name"], len(v["users"])) for v in listed] == [("data", 1)]
        assert not host.records("violation")
        a_size_is_held_or_refused(host, capable=capable)


def test_a_foreign_volume_is_adopted_and_a_released_one_goes_once_approved(host: Host) -> None:
    docker = host.engine.docker
    docker("volume", "create", "shop_data")
    docker("network", "create", "--internal", "shop_back")
    first = fill(host, "shop_data")
    network = VOLUME.format(name="back", spec="engineName: shop_back").replace("Volume", "Network")
    host.write("data.yaml", VOLUME.format(name="data", spec="engineName: shop_data"))
    host.write("back.yaml", network)
    host.write("db.yaml", service(more="network: {attach: [back]}"))
    try:
        adopts_and_mounts(host, first)
    finally:
        docker("rm", "--force", *host.names("db"), check=False)
        docker("network", "rm", "shop_back", check=False)
        docker("volume", "rm", "shop_data", check=False)


def adopts_and_mounts(host: Host, first: str) -> None:
    docker = host.engine.docker
    host.up()
    codes = lambda: {p["code"] for p in (host.status() or {"problems": []})["problems"]}  # noqa: E731
    eventually(lambda: {"volume.not-adopted", "network.not-adopted"} <= codes())
    assert host.containers("db") == []
    stranger = docker(
        *("run", "--detach", "--volume", "shop_data:/d", "--network", "shop_back"),
        "trimtab.local/worker:1",
    ).stdout.strip()
    for kind, place in (("volume", "data"), ("network", "back")):
        told = host.cli(kind, "adopt", f"shop_{place}", "--as", place, expect=4).stderr
        assert "adopt.in-use" in told
    docker("rm", "--force", stranger)
    host.cli("volume", "adopt", "shop_data", "--as", "data")
    host.cli("network", "adopt", "shop_back", "--as", "back")
    container = await_running(host)
    assert folder(host, "shop_data") in [
        Path(each["Source"]) for each in host.containers("db")[0]["Mounts"]
    ]
    assert "shop_back" in host.containers("db")[0]["NetworkSettings"]["Networks"]
    assert fingerprint(host, "shop_data") == first
    os.kill(host.pid_of("broker"), signal.SIGKILL)
    docker("rm", "--force", container)
    assert await_running(host) != container, "also the next broker knows the adopted objects"
    origins = {v["name"]: v["origin"] for v in host.json("volume", "list")["volumes"]}
    assert origins == {"shop_data": "adopted"}
    a_released_volume_goes_after_a_dump_and_an_approval(host)
    host.stop()
    assert fingerprint(host, "shop_data") == first


def test_sixteen_ways_to_lose_data_lose_no_byte(host: Host) -> None:
    host.write("db.yaml", service())
    host.up()
    host.await_ready("db")
    container = await_running(host)
    first = fill(host)

    def safe(way: str) -> None:
        assert fingerprint(host) == first, f"data was lost by {way}"

    host.engine.docker("rm", "--force", "--volumes", container)
    await_running(host)
    safe("1: a container removed by hand, with its volumes")
    host.write("db.yaml", service(generation=1))
    await_running(host, generation=1)
    safe("2: a replacement")
    revision = host.resource("db")["revision"]
    host.write("db.yaml", service(generation=2))
    os.kill(host.pid_of("broker"), signal.SIGKILL)
    await_running(host, generation=2)
    safe("3: a crash amid a replacement")
    host.cli("rollback", "db", "--to", revision.partition(":")[2][:8])
    await_running(host, generation=1)
    safe("4: a rollback")
    host.write("db.yaml", service("database", generation=3))
    await_running(host, "database", generation=3)
    safe("5: a rename")
    dumped_and_restored_badly(host, safe)
    container = await_running(host, "database", generation=3)
    removed = host.docker_through_broker("rm", "--force", "--volumes", container)
    await_running(host, "database", generation=3)
    safe(f"10: a removal with volumes through the broker: {removed.stdout}")
    declared_otherwise(host, safe)


def declared_otherwise(host: Host, safe: Callable[[str], None]) -> None:
    """Change the documents: twice, elsewhere, of another kind, none, and again."""
    host.write("job.yaml", service("other", generation=4))
    eventually(lambda: host.cli("validate", str(host.directory), expect=(0, 3)).returncode == 3)
    await_running(host, "database", generation=3)
    safe("11: two documents for one volume")
    host.remove("job.yaml")
    host.write("db.yaml", service("database", namespace="other", generation=5))
    eventually(lambda: "other.data" in volumes(host), what="the other namespace has a volume")
    safe("12: another namespace")
    host.write("db.yaml", service("database", kind="Job", generation=6, more="backoffLimit: 0"))
    eventually(lambda: host.resource("database").get("kind") == "Job")
    safe("13: another kind")
    host.remove("db.yaml")
    host.write("keep.yaml", service("keep", "kept"))
    await_running(host, "keep")
    safe("14: no document at all")
    host.write("db.yaml", service("again", generation=7))
    await_running(host, "again", generation=7)
    safe("15: declared again")
    host.stop()
    host.cli("down")
    safe("16: the instance taken down")


def dumped_and_restored_badly(host: Host, safe: Callable[[str], None]) -> None:
    """Restore cut, changed and killed archives; kill a dump."""
    host.json("volume", "dump", "data", "-o", "data.tar")
    archive = (host.folder / "data.tar").read_bytes()
    (host.folder / "cut.tar").write_bytes(archive[: len(archive) // 2])
    host.cli("volume", "restore", "data", "cut.tar", "--yes", expect=1)
    safe("6: a cut archive")
    changed = bytearray(archive)
    changed[len(changed) // 2] ^= 1
    (host.folder / "changed.tar").write_bytes(changed)
    host.cli("volume", "restore", "data", "changed.tar", "--yes", expect=1)
    safe("7: a changed archive")
    await_running(host, "database", generation=3)
    restoring = command(host, "volume", "restore", "data", "-", "--yes")
    assert restoring.stdin is not None
    restoring.stdin.write(archive[: len(archive) // 2])
    restoring.stdin.flush()
    eventually((folder(host) / ".trimtab-restore").exists)
    restoring.send_signal(signal.SIGTERM)
    restoring.communicate()
    assert restoring.returncode != 0
    safe("8: a restore ended by a signal")
    container = await_running(host, "database", generation=3)
    reader, writer = os.pipe()
    dumping = subprocess.Popen(
        host.engine.inside(TRIMTAB, "volume", "dump", "data", "--state", str(host.state)),
        env=host.environment(),
        stdout=writer,
    )
    os.close(writer)
    eventually(
        lambda: not host.running_ids("database"),
        what="the containers are down while the dump's reader is slow",
    )
    for pid in (dumping.pid, *descendants(dumping.pid)):
        os.kill(pid, signal.SIGKILL)
    dumping.wait()
    os.close(reader)
    assert await_running(host, "database", generation=3) == container
    safe("9: a killed dump")


def holds_sizes(host: Host) -> bool:
    """Return True if the engine's storage has project quotas, by a volume made past the gate."""
    made = host.engine.docker("volume", "create", "--opt", "size=16m", "probe", check=False)
    host.engine.docker("volume", "rm", "--force", "probe")
    return made.returncode == 0


def a_size_is_held_or_refused(host: Host, *, capable: bool) -> None:
    def names(code: str) -> bool:
        return code in json.dumps(host.status())

    (container,) = host.running_ids("db")
    # A size for the existing volume changes nothing of the volume and its service.
    host.write("data.yaml", VOLUME.format(name="data", spec="size: 16Mi"))
    eventually(lambda: names("volume.size"))
    host.write("more.yaml", VOLUME.format(name="more", spec="size: 16Mi"))
    assert await_running(host) == container
    if not capable:
        eventually(lambda: names("volume.no-quota"))
        assert volumes(host) == ["data"]
        return
    eventually(lambda: "more" in volumes(host))
    sizes = {each["name"]: each["sizeBytes"] for each in host.json("volume", "list")["volumes"]}
    assert sizes == {"data": None, "more": 16 << 20}
    write = ["dd", "if=/dev/zero", "of=/v/file", "bs=1M", "count=20"]
    mounted = ["--rm", "--network", "none", "--volume", "more:/v", "trimtab.local/worker:1"]
    full = host.engine.docker("run", *mounted, *write, check=False)
    # XFS says the first, ext4 the second.
    assert "No space left" in full.stderr or "quota exceeded" in full.stderr
