"""``try`` connects to nothing, starts nothing and writes nothing, and is quick."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROJECT = "services:\n" + "".join(
    f"""\
  s{number}:
    image: docker.io/library/nginx:1.27
    ports: ["{8000 + number}:80"]
    environment: {{A: "1"}}
    env_file: [more.env]
    volumes: ["./site.conf:/etc/site.conf:ro"]
"""
    for number in range(10)
)
#: Runs the command under an audit hook (PEP 578), and prints the events that could change something.
PROGRAM = """
import json, os, sys, time
events, began = [], time.process_time()
CHANGES = ("socket.", "subprocess.", "os.", "shutil.", "signal.", "ctypes.dlopen")
READS = {"os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr"}
def note(event, args):
    if event == "open":
        path, mode, flags = args
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            events.append([event, str(path)])
    elif event.startswith(CHANGES) and event not in READS:
        events.append([event, ""])
sys.addaudithook(note)
from controller.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps({"events": events, "cpu_s": time.process_time() - began}), file=sys.stderr)
"""


def test_try_reads_files_and_touches_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "compose.yaml").write_text(PROJECT)
    (folder / "more.env").write_text("B=2\n")
    (folder / "site.conf").write_text("server {}\n")
    argv = [sys.executable, "-B", "-c", PROGRAM, "try", str(folder), "--policy", "home"]
    done = subprocess.run(
        [*argv, "--state", str(tmp_path / "state"), "--json"],
        env={"DOCKER_HOST": f"unix://{tmp_path}/engine.sock", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["resources"]) == 10
    told = json.loads(done.stderr.splitlines()[-1])
    assert told["events"] == []
