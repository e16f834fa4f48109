"""Signed admission on a real engine: an honest controller works, and a usurped one can run nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.fetch.verify import KEYS
from controller.model import names
from tests.e2e.test_blast_radius import Usurper, ids, usurped
from tests.instance import Host, eventually, web
from tests.unit.core.proofs.repository import ALICE, Repository, signer_files

pytestmark = pytest.mark.needs_root
NAME = "signed-e2e"
OWN = {names.OWNER: "team", names.NAMESPACE: "default"}
NO_NAMESPACE = {names.OWNER: "team"}
SOURCE = f"""\
apiVersion: trimtab/v1
kind: Source
metadata: {{name: {NAME}, owner: team}}
spec:
  git: {{url: 'file:///nowhere/deploy.git', path: deploy, interval: 1h}}
  namespaces: [default]
"""
#: A Compose project and a Release, in each commit.
OTHERS = {
    "deploy/stack/compose.yaml": b"""name: default
x-trimtab: {owner: team}
services:
  stack: {image: "trimtab.local/web:${TAG}", network_mode: none, env_file: stack.env}
""",
    "deploy/stack/.env": b"TAG=1\n",
    "deploy/stack/stack.env": b"MODE=plain\n",
    "deploy/release.yaml": b"""apiVersion: trimtab/v1
kind: Release
metadata: {name: chart, namespace: default, owner: team}
spec: {chart: web, values: {mode: plain}}
""",
    "configs/web/Chart.yaml": b"{apiVersion: trimtab/v1, name: web, version: '1'}",
    "configs/web/values.schema.json": b'{"properties": {"mode": {"type": "string"}}}',
    "configs/web/templates/all.yaml": b"""apiVersion: trimtab/v1
kind: Service
metadata: {name: {{ release.name | quote }}}
spec: {image: "trimtab.local/web:1", network: {mode: none}, env: {MODE: {{ values.mode | quote }}}}
""",
}

VOLUME = "{type: volume, source: data, target: /d}"
TOKEN = "{type: secret, source: token, target: /run/token, uid: 7}"
SECRET = """\
apiVersion: trimtab/v1
kind: Secret
metadata: {name: token, owner: team}
spec: {generate: {token: {length: 24}}}
"""


@pytest.fixture
def keys() -> Iterator[Path]:
    folder = KEYS / NAME
    folder.mkdir(parents=True)
    (folder / "allowed_signers").write_bytes(signer_files(ALICE).allowed)
    yield folder
    shutil.rmtree(folder)


class Served:
    """A signed repository, and its commits as the fetcher serves them."""

    def __init__(self, host: Host) -> None:
        self._folder = host.state / "fetcher" / "sources" / NAME
        self._repository = Repository()
        self.first = self._repository.commit({})
        self._head = self.first
        self.proof = b""

    def commit(self, *documents: str) -> str:
        """Serve a commit with these documents."""
        named = {f"deploy/{at}.yaml": text.encode() for at, text in enumerate(documents)}
        files = {**named, **OTHERS}
        self._head = commit = self._repository.commit(files, self._head)
        for path, content in files.items():
            file = self._folder / commit / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        (self._folder / f"{commit}.json").write_text('{"version": 1, "path": "deploy"}')
        self.proof = self._repository.proof(commit)
        (self._folder / f"{commit}.proof").write_bytes(self.proof)
        (self._folder / "new").symlink_to(commit)
        (self._folder / "new").rename(self._folder / "current")
        return commit


def require_signed(host: Host, since: str) -> None:
    rule = f"{{source: {NAME}, namespaces: [default], require: signed, keys: {NAME}, "
    text = Path(host.policy).read_text()
    policy = host.folder / "policy.yaml"
    policy.write_text(f"{text}\nsources:\n  - {rule}path: deploy, since: {since}}}\n")
    host.policy = str(policy)


@pytest.mark.timeout(240)
def test_what_is_signed_runs_and_nothing_else(host: Host, keys: Path) -> None:
    assert keys.is_dir()
    host.state.mkdir()
    served = Served(host)
    require_signed(host, served.first)
    host.write("source.yaml", SOURCE)
    first = served.commit(web("web"), web("api", extra=f"mounts: [{VOLUME}, {TOKEN}]"), SECRET)
    host.up()
    host.await_ready("web", "api", "stack", "chart")
    # A killed container is healed, and a new commit is rolled out.
    before = ids(host)["web"]
    host.engine.docker("kill", before)
    eventually(lambda: host.is_ready("web"), what="the service is healed")
    second = served.commit(web("web", extra="env: {VERSION: '2'}"), web("api"))
    eventually(
        lambda: host.is_ready("web") and ids(host)["web"] != before, what="the commit is rolled out"
    )
    requests = [r["request"] for r in host.records() if "request" in r]
    accepted = [each for each in requests if each.get("route") == "source.accepted"]
    assert [each["summary"]["proof"]["commit"] for each in accepted] == [first, second]
    creates = [each for each in requests if each.get("route") == "container.create"]
    made = [each["summary"]["proof"] for each in creates]
    assert made
    assert {each["signer"] for each in made} == {"alice@example.org"}
    others = {"stack/compose.yaml", "../configs/web/templates/all.yaml"}
    assert {each["path"] for each in made} == {"0.yaml", "1.yaml", *others}
    with usurped(host) as usurper:
        # The broker started again: the usurped controller uploads the proof as the honest one does.
        answer = usurper.ask("POST", "/networks/create", {"Name": "other", "Labels": OWN})
        assert (answer.status, answer.rule) == (409, "proof.missing")
        assert usurper.upload(f"/trimtab/v1/proofs?source={NAME}", served.proof).status == 200
        assert usurper.start_helper("web", "/bin/worker") == (403, 400)
        check_forged(usurper, ids(host))


def check_forged(usurper: Usurper, mine: dict[str, str]) -> None:
    for path, body in (
        ("/networks/create", {"Name": "other", "Driver": "bridge", "Labels": OWN}),
        ("/volumes/create", {"Name": "other", "Driver": "local", "Labels": OWN}),
        # Without a namespace in its labels, an object is of the namespace ``default``, too.
        ("/networks/create", {"Name": "other", "Internal": False, "Labels": NO_NAMESPACE}),
        ("/networks/create", {"Name": "other", "Labels": {**NO_NAMESPACE, names.NAMESPACE: ""}}),
        ("/volumes/create", {"Name": "other", "Labels": NO_NAMESPACE}),
        (f"/containers/{mine['web']}/update", {"Memory": 64 << 20}),
    ):
        answer = usurper.ask("POST", path, body)
        # Without the proof of the newest commit the answer is a conflict, so that it is tried again.
        status = 409 if answer.rule == "proof.missing" else 403
        assert (answer.status, answer.rule.partition(".")[0]) == (status, "proof"), path
