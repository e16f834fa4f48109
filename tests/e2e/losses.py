"""A database whose instance loses files of its state folder, and what an operator does then.

The operator follows docs/operations/state.md, "When it is lost", led by the codes that the status and
the commands say.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from tests.instance import POLICIES, Host, eventually
from tools import debian_images

STACK = """\
apiVersion: trimtab/v1
kind: Secret
metadata: {name: pw, owner: team}
spec: {generate: {password: {length: 32}}}
---
apiVersion: trimtab/v1
kind: Config
metadata: {name: conf, owner: team}
spec: {data: {note.txt: "mounted"}}
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: db, owner: team}
spec:
  image: <DATABASE>
  stopGracePeriod: 5s
  env: {POSTGRES_PASSWORD_FILE: /run/secrets/password}
  mounts:
    - {type: secret, source: pw, key: password, target: /run/secrets/password}
    - {type: config, source: conf, target: /srv/conf}
    - {type: volume, source: data, target: /var/lib/postgresql/data}
  security: {capAdd: [CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID]}
  healthcheck: {exec: [pg_isready, -h, 127.0.0.1, -U, postgres], interval: 1s}
  rollout: {minHealthy: 0s}
"""
#: The codes after which an operator lets the broker make new values.
PASSWORD_CODES = frozenset({"secret.generated-lost", "secret.generated-damaged"})
#: The codes after which an operator takes objects over.
FOREIGN_CODES = frozenset(
    {"state.forked", "container.foreign", "name.foreign", "network.foreign", "volume.foreign"}
)
#: The codes of an image whose record as trusted is lost.
IMAGE_CODES = frozenset({"image.registry", "image.untrusted"})
#: Nothing is left to do.
DONE = {"done"}
#: Folders whose files are lost together in pairs.
_WHOLE = ("broker", "controller")
PATIENCE_S = 90.0


class Database:
    """The database of an instance, through one loss after another."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.policy = str(POLICIES / "home.yaml")
        self.image = debian_images.provide(host.engine.host, "postgres")

    def begin(self) -> None:
        """Start the instance and the database, and write a row."""
        host = self.host
        host.write("stack.yaml", STACK.replace("<DATABASE>", self.image))
        host.up()
        eventually(host.broker_socket.exists, what="the broker's socket")
        host.cli("image", "trust", self.image)
        eventually(lambda: self.running, what="a container", within_s=PATIENCE_S)
        host.await_ready("db", "pw", within_s=PATIENCE_S)
        self._sql("CREATE TABLE kept AS SELECT 42 AS row")
        self.instance = host.instance
        host.stop()

    def files(self) -> list[str]:
        """Return every file of the state folder, sockets aside, relative to the folder."""
        state = self.host.state
        return sorted(str(p.relative_to(state)) for p in state.rglob("*") if p.is_file())

    def parts(self) -> list[str]:
        """Return the entries of the state folder, and those of its folders broker and controller."""
        found = set()
        for path in map(Path, self.files()):
            found.add("/".join(path.parts[: 2 if path.parts[0] in _WHOLE else 1]))
        return sorted(found)

    def losses(self) -> Iterator[tuple[str, ...]]:
        """Yield each file alone, and each pair of parts."""
        yield from ((path,) for path in self.files())
        yield from combinations(self.parts(), 2)

    def lose(self, *parts: str) -> list[str]:
        """Remove parts of the state folder while nothing runs, recover, and return the codes that were said.

        Raises:
            AssertionError: a second writer, a password that changed without a word, or no recovery.
        """
        password, since = self.password, self._now()
        for part in parts:
            path = self.host.state / part
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        said = self._recover()
        self.host.stop()
        assert self._most_at_once(since) <= 1, f"{parts}: two databases ran at once"
        changed = self.password != password
        assert not changed or PASSWORD_CODES & {*said}, f"{parts}: another password, said: {said}"
        assert self._sql("SELECT row FROM kept").strip() == "42", f"{parts}: the data is gone"
        return said

    # What an operator does

    def _recover(self) -> list[str]:
        """Follow the page until all is Ready; return the codes that led there."""
        said: list[str] = []
        host = self.host
        if not (host.state / "instance.json").exists():
            said += self._start_without_id()
        host.up()
        while self._await_codes(said) != DONE:
            said += self._follow(said)
        return said

    def _await_codes(self, said: list[str]) -> set[str]:
        return eventually(lambda: self._next_codes(said), within_s=PATIENCE_S, what=f"{said}")

    def _next_codes(self, said: list[str]) -> set[str]:
        """Return the codes of what a person must do now, ``DONE`` if all is well; none while it is unclear."""
        if self.host.process_ended:
            return {"journal.damaged"}
        codes = self._codes()
        if codes is None or (not codes and not (self.running and self.host.all_ready())):
            return set()
        if not codes:
            return DONE
        needed = codes - {*said}
        if "adopted" not in said or "container.foreign" in codes:
            needed |= codes & FOREIGN_CODES
        return needed

    def _follow(self, said: list[str]) -> list[str]:
        """Do what the page says about the codes of now; return what is new."""
        host = self.host
        codes = self._next_codes(said)
        new = sorted(codes - {*said})
        if "journal.damaged" in codes:
            assert "[journal.damaged]" in host.said(), host.said()
            self._set_journal_aside()
            host.up()
        elif codes & FOREIGN_CODES and "adopted" not in said:
            host.stop()
            self._adopt()
            host.up()
            return [*new, "adopted"]
        elif "container.foreign" in codes:
            self._end_foreign()
        elif codes & IMAGE_CODES:
            host.cli("image", "trust", self.image)
        elif codes & PASSWORD_CODES:
            host.cli("secret", "forget", "default/pw", "--note", "the database is told")
        return new

    def _start_without_id(self) -> list[str]:
        """Start with a lost instance.json: nothing runs until the id is written again."""
        host, journal = self.host, self.host.state / "broker" / "journal"
        has_journal = journal.is_dir() and any(journal.glob("*.jsonl"))
        if has_journal:
            refused = host.cli("plan", str(host.directory), "--policy", host.policy, expect=1)
            assert "[state.damaged]" in refused.stderr, refused.stderr
        else:
            self._set_journal_aside()
        self._adopt("--instance", self.instance)
        return ["state.damaged" if has_journal else "adopted"]

    def _set_journal_aside(self) -> None:
        """Begin a new journal, as the remedy says: the rest of the old one and its mark are moved away."""
        aside = Path(tempfile.mkdtemp(prefix="journal-", dir=self.host.folder))
        for name in ("journal.checkpoint", "broker/journal"):
            if (self.host.state / name).exists():
                (self.host.state / name).rename(aside / Path(name).name)

    def _adopt(self, *options: str) -> None:
        host = self.host
        place = (str(host.directory), "--policy", host.policy, *options, "--yes")
        host.cli("adopt", *place, expect=(0, 4))

    def _end_foreign(self) -> None:
        told = self.host.json("adopt", "--policy", self.host.policy, expect=(0, 4))
        known = {each["id"] for each in told["objects"]}
        for identifier in self.running:
            if identifier in known:
                self.host.engine.docker("stop", identifier)
                self.host.engine.docker("rm", identifier)

    def _codes(self) -> set[str] | None:
        """Return the codes of all problems and of all that is stalled; None while nothing answers."""
        status = self.host.status()
        if status is None or not status["resources"]:
            return None
        codes = {str(problem["code"]) for problem in status["problems"]}
        for resource in status["resources"]:
            codes |= {str(p["code"]) for p in resource.get("problems", ())}
            for condition in resource.get("conditions", ()):
                if condition["type"] == "Stalled" and condition["status"] == "True":
                    codes.add(str(condition["reason"]))
                codes |= {code for code in IMAGE_CODES if f"{code}: " in condition["message"]}
        return codes

    # What is true

    @property
    def running(self) -> list[str]:
        """The running containers with the volume."""
        return self.host.engine.docker(
            "ps", "-q", "--no-trunc", "--filter", "volume=data"
        ).stdout.split()

    @property
    def password(self) -> str:
        (one,) = self.running
        return self.host.engine.docker("exec", one, "cat", "/run/secrets/password").stdout

    def _sql(self, text: str) -> str:
        (one,) = self.running
        return self.host.engine.docker("exec", one, "psql", "-U", "postgres", "-tAc", text).stdout

    def _now(self) -> str:
        """Return the engine's time."""
        return self.host.engine.docker("info", "--format", "{{.SystemTime}}").stdout.strip()

    def _most_at_once(self, since: str) -> int:
        """Return how many databases ran at once at most, by the engine's events."""
        told = self.host.engine.docker(
            *("events", "--since", since, "--until", self._now()),
            *("--filter", "type=container", "--filter", "label=io.trimtab.service=db"),
            *("--filter", "event=start", "--filter", "event=die", "--format", "{{json .}}"),
        ).stdout
        events: list[dict[str, Any]] = [json.loads(line) for line in told.splitlines()]
        first = {each["id"]: each["status"] for each in reversed(events)}
        alive = {each for each in {*first, *self.running} if first.get(each, "die") == "die"}
        most = len(alive)
        for event in events:
            alive = alive | {event["id"]} if event["status"] == "start" else alive - {event["id"]}
            most = max(most, len(alive))
        return most
