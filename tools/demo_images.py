"""The demo images, written as archives that `docker load` reads.

A load instead of a build: an archive without times in it has the same image id everywhere
and every time, and it needs no builder (Debian's docker-cli has none but the legacy one).
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tools import dockerd
from tools.busybox import find_static_busybox
from tools.dockerd import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
SECOND_NS = 1_000_000_000
APPLETS = (
    "cat",
    "date",
    "echo",
    "env",
    "hostname",
    "httpd",
    "id",
    "kill",
    "ls",
    "sh",
    "sleep",
    "wget",
)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}

# A PID 1 has no default signal actions: without the trap each stop would cost its whole grace.
SERVE = """#!/bin/sh
trap 'kill "$server" 2>/dev/null; exit 0' TERM INT
httpd -f -p "${PORT:-8080}" -h /www &
server=$!
echo "web VERSION serves on ${PORT:-8080}"
wait "$server"
"""

INFO = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "version VERSION"
echo "host $(hostname)"
echo "message ${MESSAGE:-none}"
"""

PAGE = """<!doctype html>
<html lang="en">
<title>web VERSION</title>
<h1>Hello from trimtab.local/web:VERSION</h1>
<p>Which replica answered: <a href="/cgi-bin/info">/cgi-bin/info</a></p>
</html>
"""

WORK = """#!/bin/sh
trap 'echo "worker stops"; exit 0' TERM INT
count=0
while true; do
  count=$((count + 1))
  echo "worker did piece $count"
  sleep "${INTERVAL:-5}" &
  wait $!
done
"""


@dataclass(frozen=True, slots=True)
class Image:
    """One image: files by path (content, mode) and the members of its config."""

    reference: str
    files: dict[str, tuple[str, int]]
    config: dict[str, Any] = field(default_factory=dict)


def web(version: str) -> Image:
    def text(template: str) -> str:
        return template.replace("VERSION", version)

    return Image(
        reference=f"trimtab.local/web:{version}",
        files={
            "bin/serve": (text(SERVE), 0o755),
            "www/index.html": (text(PAGE), 0o644),
            "www/healthz": ("ok\n", 0o644),
            "www/cgi-bin/info": (text(INFO), 0o755),
        },
        config={
            "Cmd": ["/bin/serve"],
            "ExposedPorts": {"8080/tcp": {}},
            "Healthcheck": {
                "Test": [
                    "CMD",
                    "/bin/sh",
                    "-c",
                    'wget -q -O /dev/null "http://127.0.0.1:${PORT:-8080}/healthz"',
                ],
                "Interval": 5 * SECOND_NS,
                "Timeout": 2 * SECOND_NS,
                "StartPeriod": 10 * SECOND_NS,
                # Healthy within a second of the start, so that a rollout needn't wait.
                "StartInterval": SECOND_NS // 2,
                "Retries": 3,
            },
        },
    )


IMAGES = (
    web("1"),
    web("2"),
    Image(
        reference="trimtab.local/worker:1",
        files={"bin/work": (WORK, 0o755)},
        config={"Cmd": ["/bin/work"]},
    ),
)


def layer(image: Image, busybox: bytes) -> bytes:
    """The file system as a tar without times, in one fixed order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:

        def add(name: str, kind: bytes, mode: int, content: bytes = b"", link: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, len(content)
            tar.addfile(entry, io.BytesIO(content))

        folders = {"bin", "tmp"} | {
            "/".join(parts[:end])
            for parts in (path.split("/") for path in image.files)
            for end in range(1, len(parts))
        }
        for folder in sorted(folders):
            add(folder, tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755)
        add("bin/busybox", tarfile.REGTYPE, 0o755, busybox)
        for applet in APPLETS:
            add(f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
        for path, (content, mode) in sorted(image.files.items()):
            add(path, tarfile.REGTYPE, mode, content.encode())
    return out.getvalue()


def archive(image: Image, busybox: bytes) -> tuple[str, bytes]:
    """The image's id and the archive that loads it."""
    content = layer(image, busybox)
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "2025-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/bin"],
            "User": f"{NOBODY}:{NOBODY}",
            "WorkingDir": "/",
            "Labels": {"io.trimtab.demo": hashlib.sha256(content).hexdigest()[:16]},
            **image.config,
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"],
        },
        "history": [{"created": "2025-01-01T00:00:00Z", "created_by": "trimtab tools/images"}],
    }
    config_bytes = json.dumps(config, sort_keys=True).encode()
    digest = hashlib.sha256(config_bytes).hexdigest()
    manifest = [
        {"Config": f"{digest}.json", "RepoTags": [image.reference], "Layers": ["layer.tar"]}
    ]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, member in (
            ("manifest.json", json.dumps(manifest).encode()),
            (f"{digest}.json", config_bytes),
            ("layer.tar", content),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(member)
            tar.addfile(entry, io.BytesIO(member))
    return f"sha256:{digest}", out.getvalue()


def inspect(host: str, reference: str) -> dict[str, Any] | None:
    status, body = dockerd.call(host, "GET", f"/images/{reference}/json")
    found: dict[str, Any] = json.loads(body)
    return found if status == 200 else None


def demo_label(found: dict[str, Any] | None) -> str | None:
    labels = ((found or {}).get("Config") or {}).get("Labels") or {}
    return labels.get("io.trimtab.demo")


def provide(host: str) -> Iterator[tuple[str, str, bool]]:
    """Load what is missing or differs; yields reference, id, and whether it was there."""
    program = find_static_busybox()
    if program is None:
        raise EngineError(
            "the demo images can't be built",
            "no static busybox is installed",
            "as root: apt-get install busybox-static",
        )
    busybox = program.read_bytes()
    for image in IMAGES:
        image_id, content = archive(image, busybox)
        found = inspect(host, image.reference)
        if found is not None and found["Id"] == image_id:
            yield image.reference, image_id, True
            continue
        status, body = dockerd.call(
            host, "POST", "/images/load?quiet=1", body=content, content_type="application/x-tar"
        )
        found = inspect(host, image.reference)
        # By label: an engine with containerd's image store has ids of its own making.
        if found is None or not demo_label(found):
            raise EngineError(
                f"the engine at {host} didn't load {image.reference}",
                f"status {status}: {body.decode(errors='replace').strip()[-300:]}",
                "read the engine's log",
            )
        yield image.reference, str(found["Id"]), False
